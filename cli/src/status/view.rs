//! A run's status as people and programs read it.
//!
//! Invariant: pure; the names of the fields are an interface, and only get more.

use octet_proto::broadcast::{BroadcastEviction, BroadcastPhase, BroadcastStatus};
use octet_proto::coordinator::{
    GetStatusResponse, Queue, RewardBinding, RewardState, Wait, WeightsSpread, WorkerStatus,
};
use serde::Serialize;
use std::time::Duration;

/// A run at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    pub run: String,
    pub config_digest: String,
    pub committed_steps: u64,
    pub total_steps: u64,
    pub groups: Groups,
    /// Measured between two looks; null with one.
    pub throughput: Option<Throughput>,
    pub learner: Option<Learner>,
    pub workers: Vec<Worker>,
    pub rewards: Vec<Reward>,
    pub weights: Vec<Weights>,
    /// Null while nobody takes part in broadcasts.
    pub broadcast: Option<Broadcast>,
    pub queues: Vec<QueueOf>,
    pub waits: Vec<WaitOf>,
}

/// Groups of the steps that may be sampled now, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    pub open: u64,
    pub leased: u64,
    pub spooled: u64,
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    pub seconds: f64,
    pub sampled_tokens_per_second: f64,
    pub learned_tokens_per_second: f64,
}

/// The learner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learner {
    pub endpoint: String,
    pub connected: bool,
    pub silent_seconds: f64,
    pub learned_tokens: u64,
    pub versions: Vec<u64>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worker {
    pub name: String,
    pub id: u64,
    pub versions: Vec<u64>,
    pub capacity: u32,
    pub leases: u32,
    pub delivered_groups: u64,
    pub sampled_tokens: u64,
    /// Null with one look.
    pub sampled_tokens_per_second: Option<f64>,
    pub silent_seconds: f64,
    pub weights_endpoint: String,
}

/// A reward revision and its load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reward {
    pub revision: u64,
    pub name: String,
    pub digest: String,
    pub endpoints: Vec<String>,
    pub state: &'static str,
    pub from_step: u64,
    pub until_step: u64,
    pub leased_groups: u64,
    /// Completions that workers have asked for and have no reward of.
    pub unanswered: u64,
}

/// How a policy version came to the workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weights {
    pub version: u64,
    pub digest: String,
    pub bytes: u64,
    pub holders: u32,
    pub workers: u32,
    pub published_seconds_ago: f64,
    /// Null while a worker lacks it.
    pub spread_seconds: Option<f64>,
}

/// How the broadcasts of weights stand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Broadcast {
    pub epoch: u64,
    pub phase: &'static str,
    /// Members of the communicator, the learner first.
    pub roster: Vec<String>,
    /// Seconds ago.
    pub since: f64,
    /// Seconds from now, until the phase is given up; null while nobody waits.
    pub until: Option<f64>,
    /// The version that is broadcast.
    pub version: Option<u64>,
    pub broadcasts: u64,
    pub evicted: u64,
    /// The newest last.
    pub evictions: Vec<Eviction>,
}

/// A member that a broadcast epoch ended without.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eviction {
    pub epoch: u64,
    pub member: String,
    pub why: String,
    pub seconds_ago: f64,
    /// Until it is asked again.
    pub rests_seconds: f64,
}

/// A queue of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueOf {
    pub node: String,
    pub queue: String,
    pub depth: u64,
    pub room: u64,
}

/// Something that a node or the run waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaitOf {
    pub node: String,
    /// What for, by its stable name.
    pub wait: String,
    pub detail: String,
    /// Seconds ago.
    pub since: f64,
    /// Seconds from now; null when that time has passed, or when the run as a whole waits for a node whose own
    /// wait has the deadline.
    pub until: Option<f64>,
}

/// Who waits when the run as a whole does.
pub const RUN: &str = "run";
const LEARNER: &str = "learner";
/// What a worker calls its question for groups; the coordinator knows better what that waits for.
const LEASE: &str = "lease";
/// What the workers' queues of unanswered completions are called, up to the revision's number.
const REWARDS: &str = "rewards of revision ";

impl View {
    /// What a coordinator answered; with what it answered before, and how long ago, speeds too.
    pub fn new(now: &GetStatusResponse, before: Option<(&GetStatusResponse, Duration)>) -> Self {
        Self {
            run: now.run_id.clone(),
            config_digest: now.config_digest.clone(),
            committed_steps: now.committed_steps,
            total_steps: now.total_steps,
            groups: Groups {
                open: now.open_groups,
                leased: now.leased_groups,
                spooled: now.spooled_groups,
            },
            throughput: before.map(|(before, within)| Throughput::between(before, now, within)),
            learner: now.learner.as_ref().map(|learner| Learner {
                endpoint: learner.endpoint.clone(),
                connected: learner.connected,
                silent_seconds: seconds(learner.last_seen_ms_ago),
                learned_tokens: learner.learned_tokens,
                versions: now.weights.iter().map(|weights| weights.version).collect(),
            }),
            workers: now.workers.iter().map(|w| Worker::new(w, before)).collect(),
            rewards: now.reward_bindings.iter().filter_map(|b| reward(b, now)).collect(),
            weights: now.weights.iter().map(weights).collect(),
            broadcast: now.broadcast.as_ref().map(broadcast),
            queues: queues(now),
            waits: waits(now),
        }
    }
}

impl Throughput {
    fn between(before: &GetStatusResponse, now: &GetStatusResponse, within: Duration) -> Self {
        let sampled: u64 = now.workers.iter().filter_map(|worker| grown(worker, before)).sum();
        let learned =
            |status: &GetStatusResponse| status.learner.as_ref().map(|l| l.learned_tokens);
        let learned = match (learned(before), learned(now)) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => 0,
        };
        Self {
            seconds: within.as_secs_f64(),
            sampled_tokens_per_second: rate(sampled, within),
            learned_tokens_per_second: rate(learned, within),
        }
    }
}

impl Worker {
    fn new(worker: &WorkerStatus, before: Option<(&GetStatusResponse, Duration)>) -> Self {
        let speed = before
            .and_then(|(before, within)| grown(worker, before).map(|tokens| rate(tokens, within)));
        Self {
            name: worker.name.clone(),
            id: worker.worker_id,
            versions: worker.versions.clone(),
            capacity: worker.capacity,
            leases: worker.leases,
            delivered_groups: worker.delivered_groups,
            sampled_tokens: worker.sampled_tokens,
            sampled_tokens_per_second: speed,
            silent_seconds: seconds(worker.last_seen_ms_ago),
            weights_endpoint: worker.weights_endpoint.clone(),
        }
    }
}

/// Tokens since the other look; unknown of a worker that registered since.
fn grown(worker: &WorkerStatus, before: &GetStatusResponse) -> Option<u64> {
    let known = before.workers.iter().find(|known| known.worker_id == worker.worker_id)?;
    Some(worker.sampled_tokens.saturating_sub(known.sampled_tokens))
}

fn rate(amount: u64, within: Duration) -> f64 {
    let seconds = within.as_secs_f64();
    if seconds > 0.0 { amount as f64 / seconds } else { 0.0 }
}

fn reward(binding: &RewardBinding, now: &GetStatusResponse) -> Option<Reward> {
    let revision = binding.revision.as_ref()?;
    let queue = format!("{REWARDS}{}", revision.number);
    let unanswered = now.workers.iter().flat_map(|worker| &worker.queues);
    let unanswered = unanswered.filter(|q| q.name == queue).map(|q| q.depth).sum();
    Some(Reward {
        revision: revision.number,
        name: revision.name.clone(),
        digest: revision.digest.clone(),
        endpoints: revision.endpoints.clone(),
        state: match binding.state() {
            RewardState::Scheduled => "scheduled",
            RewardState::Active => "active",
            RewardState::Draining => "draining",
            RewardState::Idle => "idle",
            RewardState::Superseded => "superseded",
            RewardState::Unspecified => "unknown",
        },
        from_step: binding.from_step,
        until_step: binding.until_step,
        leased_groups: binding.leased_groups,
        unanswered,
    })
}

fn weights(spread: &WeightsSpread) -> Weights {
    Weights {
        version: spread.version,
        digest: spread.digest.clone(),
        bytes: spread.bytes,
        holders: spread.holders,
        workers: spread.workers,
        published_seconds_ago: seconds(spread.published_ms_ago),
        spread_seconds: (spread.spread_ms > 0).then(|| seconds(spread.spread_ms)),
    }
}

fn broadcast(status: &BroadcastStatus) -> Broadcast {
    let eviction = |eviction: &BroadcastEviction| Eviction {
        epoch: eviction.epoch,
        member: eviction.member.clone(),
        why: eviction.why.clone(),
        seconds_ago: seconds(eviction.ms_ago),
        rests_seconds: seconds(eviction.rests_ms),
    };
    Broadcast {
        epoch: status.epoch,
        phase: match status.phase() {
            BroadcastPhase::Apart => "apart",
            BroadcastPhase::Naming => "naming",
            BroadcastPhase::Forming => "forming",
            BroadcastPhase::Together => "together",
            BroadcastPhase::Sending => "sending",
            BroadcastPhase::Unspecified => "unknown",
        },
        roster: status.roster.clone(),
        since: seconds(status.since_ms_ago),
        until: (status.until_in_ms > 0).then(|| seconds(status.until_in_ms)),
        version: status.version,
        broadcasts: status.broadcasts,
        evicted: status.evicted,
        evictions: status.evictions.iter().map(eviction).collect(),
    }
}

fn queues(now: &GetStatusResponse) -> Vec<QueueOf> {
    let of = |node: &str, queues: &[Queue]| -> Vec<QueueOf> {
        let queue = |queue: &Queue| QueueOf {
            node: node.to_owned(),
            queue: queue.name.clone(),
            depth: queue.depth,
            room: queue.room,
        };
        queues.iter().map(queue).collect()
    };
    let mut all = of("coordinator", &now.queues);
    if let Some(learner) = &now.learner {
        all.extend(of(LEARNER, &learner.queues));
    }
    all.extend(now.workers.iter().flat_map(|worker| of(&worker.name, &worker.queues)));
    all
}

fn waits(now: &GetStatusResponse) -> Vec<WaitOf> {
    let of = |node: &str, waits: &[Wait]| -> Vec<WaitOf> {
        let wait = |wait: &Wait| WaitOf {
            node: node.to_owned(),
            wait: wait.name.clone(),
            detail: wait.detail.clone(),
            since: seconds(wait.since_ms_ago),
            until: (wait.deadline_in_ms > 0).then(|| seconds(wait.deadline_in_ms)),
        };
        let told = |at: usize| waits[at + 1..].iter().any(|later| later.name == LEASE);
        let told_twice = |at: usize, wait: &Wait| wait.name == LEASE && told(at);
        let once = waits.iter().enumerate().filter(|(at, wait)| !told_twice(*at, wait));
        once.map(|(_, known)| wait(known)).collect()
    };
    let mut all = of(RUN, &now.waits);
    if let Some(learner) = &now.learner {
        all.extend(of(LEARNER, &learner.waits));
    }
    all.extend(now.workers.iter().flat_map(|worker| of(&worker.name, &worker.waits)));
    all
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use octet_proto::coordinator::{LearnerStatus, RewardRevision};

    fn worker(id: u64, tokens: u64, open: u64) -> WorkerStatus {
        WorkerStatus {
            worker_id: id,
            name: format!("w{id}"),
            sampled_tokens: tokens,
            queues: vec![Queue { name: "rewards of revision 1".into(), depth: open, room: 64 }],
            waits: vec![Wait {
                name: "reward replica".into(),
                detail: "of revision 1".into(),
                since_ms_ago: 1500,
                deadline_in_ms: 0,
            }],
            ..WorkerStatus::default()
        }
    }

    fn status(workers: Vec<WorkerStatus>, learned: u64) -> GetStatusResponse {
        let revision = RewardRevision { number: 1, name: "tool-call".into(), ..Default::default() };
        let binding = RewardBinding {
            revision: Some(revision),
            until_step: 4,
            state: RewardState::Active.into(),
            ..RewardBinding::default()
        };
        GetStatusResponse {
            workers,
            learner: Some(LearnerStatus { learned_tokens: learned, ..LearnerStatus::default() }),
            reward_bindings: vec![binding],
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn speeds_are_what_grew_between_two_looks() {
        let before = status(vec![worker(1, 100, 0)], 1000);
        // One that registered since has sampled nobody knows when.
        let now = status(vec![worker(1, 300, 3), worker(2, 900, 2)], 1100);
        let view = View::new(&now, Some((&before, Duration::from_secs(2))));
        let throughput = view.throughput.unwrap();
        assert_eq!(throughput.sampled_tokens_per_second, 100.0);
        assert_eq!(throughput.learned_tokens_per_second, 50.0);
        assert_eq!(view.workers[0].sampled_tokens_per_second, Some(100.0));
        assert_eq!(view.workers[1].sampled_tokens_per_second, None);
        assert_eq!(View::new(&now, None).throughput, None);
        // A learner that was started again counts anew.
        let again = status(Vec::new(), 7);
        let view = View::new(&again, Some((&now, Duration::from_secs(2))));
        assert_eq!(view.throughput.unwrap().learned_tokens_per_second, 0.0);
    }

    #[test]
    fn loads_and_waits_are_told_with_their_nodes() {
        let view = View::new(&status(vec![worker(1, 0, 3), worker(2, 0, 2)], 0), None);
        assert_eq!((view.rewards[0].unanswered, view.rewards[0].state), (5, "active"));
        let wait = &view.waits[1];
        assert_eq!((wait.node.as_str(), wait.wait.as_str()), ("w2", "reward replica"));
        assert_eq!((wait.since, wait.until), (1.5, None));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["queues"][0]["depth"], 3);
        assert!(view.to_string().contains("reward replica"), "{view}");
    }
}
