//! octet-coordinator
