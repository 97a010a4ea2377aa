//! A lease as it came, checked.
//!
//! Invariant: a [`Granted`] names a reward revision that can be reached.

use std::sync::Arc;

use octet_proto::coordinator::Lease;
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber, StepIndex};

use super::LeaseKey;
use crate::error::WorkerError;
use crate::scoring::Revision;

/// A group to sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub key: LeaseKey,
    pub step: StepIndex,
    pub version: PolicyVersion,
    pub revision: Arc<Revision>,
    pub example_json: Arc<str>,
}

impl TryFrom<Lease> for Granted {
    type Error = WorkerError;

    fn try_from(lease: Lease) -> Result<Self, WorkerError> {
        let group = GroupIndex(lease.group);
        let bad = |problem: &str| WorkerError::BadLease { group, problem: problem.to_owned() };
        let reward = lease.reward.ok_or_else(|| {
            bad("expected a reward revision, found none: the coordinator is of another version")
        })?;
        if reward.endpoints.is_empty() {
            return Err(bad(
                "expected a reward revision with endpoints, found none: name them in the run's configuration",
            ));
        }
        Ok(Self {
            key: LeaseKey { group, epoch: LeaseEpoch(lease.epoch) },
            step: StepIndex(lease.step),
            version: PolicyVersion(lease.policy_version),
            revision: Arc::new(Revision {
                number: RevisionNumber(reward.number),
                name: reward.name,
                digest: reward.digest,
                endpoints: reward.endpoints,
            }),
            example_json: lease.example_json.into(),
        })
    }
}
