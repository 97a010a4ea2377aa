//! octet-proto
