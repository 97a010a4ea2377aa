//! What the learner counts: its work, and the numbers of the last step.

use super::{Filled, Page, Source};
use octet_learner::Handle;
use octet_learner::metrics::StepMetrics;
use std::sync::Arc;
use tokio::sync::watch;

/// A learner with the record of its last step.
pub struct LearnerPage {
    /// The learner.
    pub learner: Handle,
    /// The step that it committed last, if it did since it was started.
    pub last: watch::Receiver<Option<Arc<StepMetrics>>>,
}

impl Source for LearnerPage {
    fn page(&self) -> Filled<'_> {
        Box::pin(async move { Ok(self.fill()) })
    }
}

impl LearnerPage {
    fn fill(&self) -> Page {
        let (mut page, totals) = (Page::default(), self.learner.totals());
        page.gauge("octet_run_steps", "Steps of the run.").is(self.learner.total_steps());
        page.gauge("octet_steps_committed", "Steps that are committed.")
            .is(self.learner.committed_steps());
        page.gauge("octet_groups", "Groups of the steps that may be sampled, by state.")
            .set(&[("state", "spooled")], self.learner.spooled_groups());
        page.counter("octet_steps_taken", "Steps that this process took.").is(totals.steps);
        page.counter("octet_learned_tokens", "Tokens that the learner learned.")
            .is(totals.learned_tokens);
        page.counter("octet_learn_flops", "Floating-point operations that these needed.")
            .is(totals.flops);
        for (part, seconds) in [
            ("learn", totals.learn_seconds),
            ("wait", totals.wait_seconds),
            ("commit", totals.commit_seconds),
        ] {
            page.counter("octet_step_seconds", "What steps took, by part.")
                .set(&[("part", part)], seconds);
        }
        page.gauge(
            "octet_logprob_gap_max",
            "The largest gap between sampler and learner, in nats.",
        )
        .is(totals.logprob_gap_max);
        page.counter("octet_weight_bytes_sent", "Bytes of weights that were sent to workers.")
            .is(self.learner.weight_bytes_sent());
        if let Some(step) = self.last.borrow().as_deref() {
            last(&mut page, step);
        }
        page.queues(&self.learner.queues());
        page.waits(&self.learner.waits());
        page
    }
}

fn last(page: &mut Page, step: &StepMetrics) {
    page.gauge("octet_step_reward_mean", "Mean reward of the last step.")
        .is(step.rollout.reward_mean);
    for (behaviour, reward) in &step.rollout.reward_by_behavior {
        page.gauge("octet_step_reward_mean_by_behavior", "The same, by what examples want.")
            .set(&[("behavior", behaviour)], *reward);
    }
    page.gauge("octet_step_entropy", "Entropy of the last step's sampling, nats per token.")
        .is(step.rollout.entropy_estimate);
    page.gauge("octet_step_completion_tokens_mean", "Mean completion length of the last step.")
        .is(step.rollout.completion_length_mean);
    page.gauge("octet_step_truncated_fraction", "Completions that ended at the token limit.")
        .is(step.rollout.truncated_fraction);
    page.gauge("octet_step_zero_variance_fraction", "Groups that taught nothing.")
        .is(step.rollout.zero_variance_fraction);
    page.gauge("octet_step_gradient_norm", "Gradient norm of the last step, before clipping.")
        .is(step.gradient_norm);
    page.gauge("octet_step_learning_rate", "Learning rate of the last step.")
        .is(step.learning_rate);
    page.gauge("octet_step_tokens_per_second", "Tokens learned per second of learning.")
        .is(step.timing.tokens_per_second);
}
