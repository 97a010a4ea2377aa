//! What must hold of a run that is over, whatever happened to it.

use octet_learner::commit::{Checkpoint, Checkpoints};
use octet_learner::group::ScoredGroup;
use octet_learner::learner::{METRICS_FILE, SPOOL_FILE};
use octet_learner::metrics::{self, StepMetrics};
use octet_learner::spool::Spool;
use octet_proto::coordinator::GetStatusResponse;
use octet_proto::{ConfigDigest, GroupIndex};

use super::roles::DIGEST;
use super::{Disk, Shape};

/// All that a run left on the learner's disk.
pub struct Left {
    commits: Vec<Checkpoint>,
    groups: Vec<ScoredGroup>,
    metrics: Vec<StepMetrics>,
}

impl Left {
    pub fn read(disk: &Disk, shape: Shape) -> Self {
        let checkpoints = Checkpoints::open(&disk.run(), ConfigDigest::new(DIGEST)).unwrap();
        let steps = checkpoints.steps().unwrap();
        let commits = steps.into_iter().map(|step| checkpoints.load(step).unwrap()).collect();
        let spool = Spool::read_only(&disk.run().join(SPOOL_FILE)).unwrap();
        let all = GroupIndex(0)..GroupIndex(shape.steps * shape.batch);
        let groups = spool.read(all).expect("every group of the run is in the spool, once");
        let metrics = metrics::read(&disk.run().join(METRICS_FILE)).unwrap();
        Self { commits, groups, metrics }
    }

    /// Every step committed once, in order, each with the groups that are its own, sampled with the
    /// version and scored by the revision that are its own.
    pub fn check(&self, shape: Shape) {
        let steps: Vec<u64> = self.commits.iter().map(|c| c.state().committed_steps).collect();
        assert_eq!(steps, (1..=shape.steps).collect::<Vec<_>>(), "steps are contiguous");
        let logged: Vec<u64> = self.metrics.iter().map(|record| record.step).collect();
        assert_eq!(logged, steps, "every step is recorded once");
        for (commit, step) in self.commits.iter().zip(0..) {
            let state = commit.state();
            let consumed = state.first_group.get()..state.next_group.get();
            assert_eq!(consumed, step * shape.batch..(step + 1) * shape.batch, "step {step}");
        }
        for (group, index) in self.groups.iter().zip(0..) {
            let step = index / shape.batch;
            assert_eq!(group.group.get(), index);
            assert_eq!(group.policy_version.get(), step.saturating_sub(shape.lag), "group {index}");
            let revision = 1 + u64::from(shape.swap_at.is_some_and(|at| step >= at));
            assert_eq!(group.reward_revision.get(), revision, "group {index}");
        }
    }

    /// The same to the bit: completions, log-probabilities, rewards, weights, optimiser.
    pub fn assert_is(&self, expected: &Self) {
        for (found, expected) in self.groups.iter().zip(&expected.groups) {
            assert_eq!(found.completions, expected.completions, "group {}", expected.group);
            assert_eq!(found.prompt_tokens, expected.prompt_tokens, "group {}", expected.group);
            assert_eq!(found.example_json, expected.example_json, "group {}", expected.group);
        }
        for (found, expected) in self.commits.iter().zip(&expected.commits) {
            let (found, expected) = (found.state(), expected.state());
            let step = expected.committed_steps;
            assert_eq!(found.weights_digest, expected.weights_digest, "step {step}");
            assert_eq!(found.files, expected.files, "step {step}");
        }
    }

    /// The digests of the weights after each step.
    pub fn weights(&self) -> Vec<&str> {
        self.commits.iter().map(|commit| commit.state().weights_digest.as_str()).collect()
    }
}

/// The last status of a run that is complete.
pub fn check_status(last: &GetStatusResponse, shape: Shape) {
    assert_eq!((last.committed_steps, last.total_steps), (shape.steps, shape.steps));
    assert_eq!((last.open_groups, last.leased_groups), (0, 0), "no lease is lost");
    assert!(last.waits.is_empty(), "{:?}", last.waits);
}
