//! What a worker counts.

use super::{Filled, Page, Source};
use octet_rollout_worker::Handle;

/// A worker's numbers.
pub struct WorkerPage(pub Handle);

impl Source for WorkerPage {
    fn page(&self) -> Filled<'_> {
        Box::pin(async move { Ok(self.fill()) })
    }
}

impl WorkerPage {
    fn fill(&self) -> Page {
        let (mut page, totals) = (Page::default(), self.0.totals());
        page.counter("octet_sampled_tokens", "Tokens that a worker sampled.")
            .is(totals.sampled_tokens);
        page.counter("octet_prefilled_tokens", "Prompt tokens, once a group.")
            .is(totals.prefilled_tokens);
        page.counter("octet_sample_seconds", "How long the engine computed.")
            .is(totals.busy.as_secs_f64());
        page.counter("octet_sample_flops", "Floating-point operations that this needed.")
            .is(totals.flop());
        for (state, count) in
            [("sampled", totals.groups_sampled), ("delivered", totals.groups_delivered)]
        {
            page.counter("octet_worker_groups", "Groups of this worker, by how far they came.")
                .set(&[("state", state)], count);
        }
        page.counter("octet_reward_calls", "Answers of reward services, failures among them.")
            .is(totals.rewards);
        page.counter("octet_reward_seconds", "From questions to these answers, all together.")
            .is(totals.reward_time.as_secs_f64());
        page.counter("octet_reward_failures", "Completions that no reward could be had for.")
            .is(totals.reward_failures);
        page.counter("octet_reward_retries", "Completions that were sent for their reward again.")
            .is(totals.reward_retries);
        for (change, count) in
            [("out", totals.replicas_taken_out), ("back", totals.replicas_taken_back)]
        {
            page.counter("octet_reward_replicas_taken", "Replicas taken out, and back in.")
                .set(&[("change", change)], count);
        }
        page.counter("octet_weight_transfers", "Policy versions that came whole.")
            .is(totals.transfers);
        page.counter("octet_weight_transfers_damaged", "Weights that arrived damaged.")
            .is(totals.damaged_transfers);
        for (source, bytes) in [
            ("learner", totals.weight_bytes_from_learner),
            ("workers", totals.weight_bytes_from_workers),
            ("broadcast", totals.weight_bytes_by_broadcast),
        ] {
            page.counter("octet_weight_bytes_received", "Bytes of weights, by who sent them.")
                .set(&[("source", source)], bytes);
        }
        page.counter("octet_weight_bytes_sent", "Bytes of weights that were sent to workers.")
            .is(totals.weight_bytes_served);
        page.queues(&self.0.queues());
        page.waits(&self.0.waits());
        page
    }
}
