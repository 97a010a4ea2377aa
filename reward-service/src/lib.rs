//! octet-reward-service
