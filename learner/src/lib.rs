//! octet-learner
