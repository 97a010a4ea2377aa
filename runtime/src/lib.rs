//! octet-runtime
