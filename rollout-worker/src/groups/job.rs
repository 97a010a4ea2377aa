//! One group under way.
//!
//! Invariant: a job has exactly what its stage needs; it goes forward only.

use std::sync::Arc;

use octet_proto::LeaseEpoch;
use octet_runtime::wait::WaitGuard;
use tracing::Span;

use super::JobId;
use super::lease::Granted;
use crate::assembly::Assembly;

/// A group under way.
#[derive(Debug)]
pub(super) struct Job {
    pub id: JobId,
    pub granted: Granted,
    pub stage: Stage,
    /// Says which group a log line is about.
    pub span: Span,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its version is not there yet.
    Waiting { prompt: Vec<u32> },
    /// The engine samples it; rewards come in already.
    Sampling(Assembly),
    /// All is sampled; rewards are missing.
    Scoring(Assembly, WaitGuard),
    /// The learner has not answered yet.
    Delivering { _wait: WaitGuard },
}

impl Job {
    pub(super) fn epoch(&self) -> LeaseEpoch {
        self.granted.key.epoch
    }

    /// Whether another lease of the group asks for the same work.
    pub(super) fn serves(&self, granted: &Granted) -> bool {
        let mine = &self.granted;
        mine.version == granted.version
            && mine.revision == granted.revision
            && (Arc::ptr_eq(&mine.example_json, &granted.example_json)
                || mine.example_json == granted.example_json)
    }
}
