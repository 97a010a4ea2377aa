//! octet-tests
