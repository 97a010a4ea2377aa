//! octet-rollout-worker
