//! octet-dataset
