//! octet-policy
