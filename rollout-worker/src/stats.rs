//! What a worker has done so far, readable from the process that it runs in.
//!
//! Invariant: counters only grow, and reading them disturbs nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use octet_runtime::queues::{QueueView, Queues};
use octet_runtime::wait::{WaitView, Waits};

/// The counters, shared between the actors.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sampled_tokens: AtomicU64,
    prefilled_tokens: AtomicU64,
    busy_micros: AtomicU64,
    groups_sampled: AtomicU64,
    groups_delivered: AtomicU64,
    rewards: AtomicU64,
    reward_micros: AtomicU64,
    reward_failures: AtomicU64,
    reward_retries: AtomicU64,
    replicas_taken_out: AtomicU64,
    replicas_taken_back: AtomicU64,
    transfers: AtomicU64,
    damaged_transfers: AtomicU64,
    weight_bytes_from_learner: AtomicU64,
    weight_bytes_from_workers: AtomicU64,
    weight_bytes_by_broadcast: AtomicU64,
    weight_bytes_served: AtomicU64,
    parameters: AtomicU64,
}

/// Reads a worker's progress; clones read the same worker.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) counters: Arc<Counters>,
    pub(crate) waits: Waits,
    pub(crate) queues: Queues,
}

/// What a worker has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Prompt tokens computed, once a group.
    pub prefilled_tokens: u64,
    /// How long the engine computed, prompts and completions together.
    pub busy: Duration,
    /// Groups whose completions were all sampled.
    pub groups_sampled: u64,
    /// Groups that the learner has.
    pub groups_delivered: u64,
    /// Answers of reward services, failures among them.
    pub rewards: u64,
    /// From questions to these answers, all together.
    pub reward_time: Duration,
    /// Completions that no reward could be had for.
    pub reward_failures: u64,
    /// Completions that were sent for their reward again.
    pub reward_retries: u64,
    /// How often a reward replica was asked no more because it failed, hung or was slow.
    pub replicas_taken_out: u64,
    /// How often one was taken back in.
    pub replicas_taken_back: u64,
    /// Policy versions that came whole.
    pub transfers: u64,
    /// Weights that arrived damaged and were fetched again.
    pub damaged_transfers: u64,
    /// Bytes of weights that the learner sent.
    pub weight_bytes_from_learner: u64,
    /// Bytes of weights that other workers sent.
    pub weight_bytes_from_workers: u64,
    /// Bytes of weights, with their manifests, that came by broadcast.
    pub weight_bytes_by_broadcast: u64,
    /// Bytes of weights that were sent to other workers.
    pub weight_bytes_served: u64,
    /// The model's parameters.
    pub parameters: u64,
}

impl Handle {
    pub(crate) fn new(waits: Waits) -> Self {
        Self { counters: Arc::default(), waits, queues: Queues::new() }
    }

    /// The counters now.
    pub fn totals(&self) -> Totals {
        let counters = &*self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            sampled_tokens: read(&counters.sampled_tokens),
            prefilled_tokens: read(&counters.prefilled_tokens),
            busy: Duration::from_micros(read(&counters.busy_micros)),
            groups_sampled: read(&counters.groups_sampled),
            groups_delivered: read(&counters.groups_delivered),
            rewards: read(&counters.rewards),
            reward_time: Duration::from_micros(read(&counters.reward_micros)),
            reward_failures: read(&counters.reward_failures),
            reward_retries: read(&counters.reward_retries),
            replicas_taken_out: read(&counters.replicas_taken_out),
            replicas_taken_back: read(&counters.replicas_taken_back),
            transfers: read(&counters.transfers),
            damaged_transfers: read(&counters.damaged_transfers),
            weight_bytes_from_learner: read(&counters.weight_bytes_from_learner),
            weight_bytes_from_workers: read(&counters.weight_bytes_from_workers),
            weight_bytes_by_broadcast: read(&counters.weight_bytes_by_broadcast),
            weight_bytes_served: read(&counters.weight_bytes_served),
            parameters: read(&counters.parameters),
        }
    }

    /// How full the worker's queues are.
    pub fn queues(&self) -> Vec<QueueView> {
        self.queues.snapshot()
    }

    /// What the worker waits for now, the oldest first.
    pub fn waits(&self) -> Vec<WaitView> {
        self.waits.snapshot()
    }
}

impl Totals {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            sampled_tokens: self.sampled_tokens.saturating_sub(earlier.sampled_tokens),
            prefilled_tokens: self.prefilled_tokens.saturating_sub(earlier.prefilled_tokens),
            busy: self.busy.saturating_sub(earlier.busy),
            groups_sampled: self.groups_sampled.saturating_sub(earlier.groups_sampled),
            groups_delivered: self.groups_delivered.saturating_sub(earlier.groups_delivered),
            rewards: self.rewards.saturating_sub(earlier.rewards),
            reward_time: self.reward_time.saturating_sub(earlier.reward_time),
            reward_failures: self.reward_failures.saturating_sub(earlier.reward_failures),
            reward_retries: self.reward_retries.saturating_sub(earlier.reward_retries),
            replicas_taken_out: self.replicas_taken_out.saturating_sub(earlier.replicas_taken_out),
            replicas_taken_back: self
                .replicas_taken_back
                .saturating_sub(earlier.replicas_taken_back),
            transfers: self.transfers.saturating_sub(earlier.transfers),
            damaged_transfers: self.damaged_transfers.saturating_sub(earlier.damaged_transfers),
            weight_bytes_from_learner: self
                .weight_bytes_from_learner
                .saturating_sub(earlier.weight_bytes_from_learner),
            weight_bytes_from_workers: self
                .weight_bytes_from_workers
                .saturating_sub(earlier.weight_bytes_from_workers),
            weight_bytes_by_broadcast: self
                .weight_bytes_by_broadcast
                .saturating_sub(earlier.weight_bytes_by_broadcast),
            weight_bytes_served: self
                .weight_bytes_served
                .saturating_sub(earlier.weight_bytes_served),
            parameters: self.parameters,
        }
    }

    /// Sampled tokens per second of the engine's own time; 0 before the first.
    pub fn tokens_per_second(&self) -> f64 {
        self.per_second(self.sampled_tokens as f64)
    }

    /// `2N` for every prompt token once a group and every sampled token, attention left out.
    pub fn flop(&self) -> f64 {
        let tokens = self.prefilled_tokens as f64 + self.sampled_tokens as f64;
        2.0 * self.parameters as f64 * tokens
    }

    /// Billions of floating-point operations per second of the engine's own time.
    pub fn gflops(&self) -> f64 {
        self.per_second(self.flop()) / 1e9
    }

    fn per_second(&self, amount: f64) -> f64 {
        let seconds = self.busy.as_secs_f64();
        if seconds > 0.0 { amount / seconds } else { 0.0 }
    }
}

impl Counters {
    pub(crate) fn engine(&self, sampled_so_far: u64, prefilled: u64, busy: Duration) {
        self.sampled_tokens.store(sampled_so_far, Ordering::Relaxed);
        self.prefilled_tokens.fetch_add(prefilled, Ordering::Relaxed);
        let micros = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        self.busy_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn set_parameters(&self, parameters: usize) {
        self.parameters.store(parameters as u64, Ordering::Relaxed);
    }

    pub(crate) fn sampled_tokens(&self) -> u64 {
        self.sampled_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn group_sampled(&self) {
        self.groups_sampled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn group_delivered(&self) {
        self.groups_delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reward_answered(&self, took: Duration) {
        self.rewards.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.reward_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn reward_failed(&self) {
        self.reward_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reward_retried(&self) {
        self.reward_retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn replica_taken_out(&self) {
        self.replicas_taken_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn replica_taken_back(&self) {
        self.replicas_taken_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn transferred(&self) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, from_learner: bool, bytes: usize) {
        let counter = match from_learner {
            true => &self.weight_bytes_from_learner,
            false => &self.weight_bytes_from_workers,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn broadcast(&self, bytes: usize) {
        self.weight_bytes_by_broadcast.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn served(&self, bytes: usize) {
        self.weight_bytes_served.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn transfer_damaged(&self) {
        self.damaged_transfers.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_engines_own_time() {
        let totals = Totals {
            sampled_tokens: 300,
            prefilled_tokens: 100,
            busy: Duration::from_secs(2),
            parameters: 1_000_000,
            ..Totals::default()
        };
        assert_eq!(totals.tokens_per_second(), 150.0);
        assert_eq!(totals.flop(), 2.0 * 1e6 * 400.0);
        assert_eq!(totals.gflops(), 0.4);
        assert_eq!(Totals::default().gflops(), 0.0, "nothing was done in no time");
        let half = totals.since(&Totals { sampled_tokens: 100, ..Totals::default() });
        assert_eq!(half.sampled_tokens, 200);
    }
}
