//! Messages to the machine's words and back.
//!
//! Invariant: total and without loss; what a message may not say is refused by the machine, not here.

use std::time::Duration;

use octet_broadcast::Phase;
use octet_broadcast::wire::{orders_to_proto, state_from_proto};
use octet_proto::broadcast::{
    BroadcastEviction, BroadcastOrders, BroadcastPhase, BroadcastState, BroadcastStatus,
};
use octet_proto::coordinator as proto;
use octet_proto::{ConfigDigest, GroupIndex, LeaseEpoch, PolicyVersion};

use crate::machine::{
    Beat, Binding, BroadcastView, EvictionView, Grant, LearnerJoin, LearnerReport, LearnerView,
    LeaseKey, Published, Queue, Revision, Said, Snapshot, Sources, Spread, State, Told, Wait,
    WorkerJoin, WorkerView,
};

pub(crate) fn worker_join(request: proto::RegisterWorkerRequest) -> WorkerJoin {
    WorkerJoin {
        name: request.name,
        config_digest: ConfigDigest::new(request.config_digest),
        capacity: request.capacity.into(),
        weights_endpoint: request.weights_endpoint,
    }
}

pub(crate) fn beat(request: proto::HeartbeatRequest) -> Beat {
    Beat {
        versions: request.versions.into_iter().map(PolicyVersion).collect(),
        leases: lease_keys(request.leases),
        waits: request.waits.into_iter().map(wait).collect(),
        sampled_tokens: request.sampled_tokens,
        queues: request.queues.into_iter().map(queue).collect(),
    }
}

pub(crate) fn lease_keys(leases: Vec<proto::LeaseRef>) -> Vec<LeaseKey> {
    let key = |lease: proto::LeaseRef| LeaseKey {
        group: GroupIndex(lease.group),
        epoch: LeaseEpoch(lease.epoch),
    };
    leases.into_iter().map(key).collect()
}

pub(crate) fn lease_ref(key: LeaseKey) -> proto::LeaseRef {
    proto::LeaseRef { group: key.group.get(), epoch: key.epoch.get() }
}

pub(crate) fn learner_join(request: proto::RegisterLearnerRequest) -> LearnerJoin {
    LearnerJoin {
        config_digest: ConfigDigest::new(request.config_digest),
        endpoint: request.endpoint,
        committed: request.committed_steps,
        spooled: request.spooled_groups.into_iter().map(GroupIndex).collect(),
        published: request.published.into_iter().map(published).collect(),
    }
}

pub(crate) fn learner_report(request: proto::ReportProgressRequest) -> LearnerReport {
    LearnerReport {
        committed: request.committed_steps,
        spooled: request.spooled_groups.into_iter().map(GroupIndex).collect(),
        waits: request.waits.into_iter().map(wait).collect(),
        learned_tokens: request.learned_tokens,
        published: request.published.into_iter().map(published).collect(),
        queues: request.queues.into_iter().map(queue).collect(),
        delivered: lease_keys(request.delivered),
    }
}

pub(crate) fn lease(grant: Grant, example_json: &str) -> proto::Lease {
    proto::Lease {
        group: grant.key.group.get(),
        epoch: grant.key.epoch.get(),
        step: grant.step.get(),
        policy_version: grant.version.get(),
        reward: Some(revision(grant.revision)),
        example_json: example_json.to_owned(),
        deadline_ms: millis(grant.lasts),
    }
}

fn published(message: proto::PublishedVersion) -> Published {
    let proto::PublishedVersion { version, digest, bytes } = message;
    Published { version: PolicyVersion(version), digest, bytes }
}

pub(crate) fn sources(sources: Sources) -> proto::VersionSources {
    let Sources { version, digest, endpoints, broadcast_within } = sources;
    let broadcast_within_ms = broadcast_within.map_or(0, millis);
    proto::VersionSources { version: version.get(), digest, endpoints, broadcast_within_ms }
}

fn spread(spread: Spread) -> proto::WeightsSpread {
    proto::WeightsSpread {
        version: spread.published.version.get(),
        digest: spread.published.digest,
        bytes: spread.published.bytes,
        holders: saturated(spread.holders),
        workers: saturated(spread.workers),
        published_ms_ago: millis(spread.since_ago),
        // A spread of less than a millisecond is not none.
        spread_ms: spread.took.map_or(0, |took| millis(took).max(1)),
    }
}

pub(crate) fn status(snapshot: Snapshot) -> proto::GetStatusResponse {
    proto::GetStatusResponse {
        run_id: snapshot.run_id,
        config_digest: snapshot.config_digest.into(),
        total_steps: snapshot.total_steps,
        committed_steps: snapshot.committed_steps,
        open_groups: snapshot.open_groups,
        leased_groups: snapshot.leased_groups,
        spooled_groups: snapshot.spooled_groups,
        workers: snapshot.workers.into_iter().map(worker).collect(),
        learner: snapshot.learner.map(learner),
        rewards: snapshot.revisions.into_iter().map(|(bound, _)| revision(bound)).collect(),
        reward_bindings: snapshot.rewards.into_iter().map(binding).collect(),
        waits: waits(snapshot.waits),
        weights: snapshot.weights.into_iter().map(spread).collect(),
        queues: queues(snapshot.queues),
        broadcast: snapshot.broadcast.map(broadcast),
    }
}

/// What a member says of broadcasts; what cannot be meant is as good as nothing.
pub(crate) fn said(message: &BroadcastState) -> Option<Said> {
    let parcel_bytes = message.parcel_bytes;
    match state_from_proto(message) {
        Ok(state) => Some(Said { state, parcel_bytes, fault: message.fault.clone() }),
        Err(error) => {
            tracing::warn!(%error, "pass over what a member says of broadcasts");
            None
        }
    }
}

pub(crate) fn told(told: &Told) -> BroadcastOrders {
    orders_to_proto(&told.orders, told.parcel.as_ref())
}

fn broadcast(view: BroadcastView) -> BroadcastStatus {
    let (phase, version) = match view.phase {
        Phase::Apart => (BroadcastPhase::Apart, None),
        Phase::Naming => (BroadcastPhase::Naming, None),
        Phase::Forming => (BroadcastPhase::Forming, None),
        Phase::Together => (BroadcastPhase::Together, None),
        Phase::Sending(version) => (BroadcastPhase::Sending, Some(version)),
    };
    let eviction = |eviction: EvictionView| BroadcastEviction {
        epoch: eviction.epoch.0,
        member: eviction.member,
        why: eviction.why,
        ms_ago: millis(eviction.ago),
        rests_ms: millis(eviction.rests_in),
    };
    BroadcastStatus {
        epoch: view.epoch.0,
        phase: phase.into(),
        roster: view.roster,
        since_ms_ago: millis(view.since_ago),
        until_in_ms: view.until_in.map_or(0, millis),
        version,
        broadcasts: view.broadcasts,
        evictions: view.evictions.into_iter().map(eviction).collect(),
        evicted: view.evicted,
    }
}

pub(crate) fn binding(binding: Binding) -> proto::RewardBinding {
    let state = match binding.state {
        State::Scheduled => proto::RewardState::Scheduled,
        State::Active => proto::RewardState::Active,
        State::Draining => proto::RewardState::Draining,
        State::Idle => proto::RewardState::Idle,
        State::Superseded => proto::RewardState::Superseded,
    };
    proto::RewardBinding {
        revision: Some(revision(binding.revision)),
        from_step: binding.from_step.get(),
        until_step: binding.until_step.get(),
        state: state.into(),
        leased_groups: binding.leased_groups,
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn revision(revision: Revision) -> proto::RewardRevision {
    proto::RewardRevision {
        number: revision.number.get(),
        name: revision.name,
        digest: revision.digest,
        endpoints: revision.endpoints,
    }
}

fn worker(view: WorkerView) -> proto::WorkerStatus {
    proto::WorkerStatus {
        worker_id: view.id.get(),
        name: view.name,
        capacity: saturated(view.capacity),
        leases: saturated(view.leases),
        versions: view.versions.into_iter().map(PolicyVersion::get).collect(),
        last_seen_ms_ago: millis(view.seen_ago),
        sampled_tokens: view.sampled_tokens,
        delivered_groups: view.delivered_groups,
        waits: waits(view.waits),
        queues: queues(view.queues),
        weights_endpoint: view.weights_endpoint,
        allowance: saturated(view.allowance),
        groups_per_second: view.groups_per_second.unwrap_or_default(),
    }
}

fn learner(view: LearnerView) -> proto::LearnerStatus {
    proto::LearnerStatus {
        connected: view.connected,
        endpoint: view.endpoint,
        last_seen_ms_ago: millis(view.seen_ago),
        learned_tokens: view.learned_tokens,
        waits: waits(view.waits),
        queues: queues(view.queues),
    }
}

fn wait(message: proto::Wait) -> Wait {
    Wait {
        name: message.name,
        detail: message.detail,
        since_ago: Duration::from_millis(message.since_ms_ago),
        deadline_in: Duration::from_millis(message.deadline_in_ms),
    }
}

fn waits(waits: Vec<Wait>) -> Vec<proto::Wait> {
    let message = |wait: Wait| proto::Wait {
        name: wait.name,
        detail: wait.detail,
        since_ms_ago: millis(wait.since_ago),
        deadline_in_ms: millis(wait.deadline_in),
    };
    waits.into_iter().map(message).collect()
}

fn queue(message: proto::Queue) -> Queue {
    let proto::Queue { name, depth, room } = message;
    Queue { name, depth, room }
}

fn queues(queues: Vec<Queue>) -> Vec<proto::Queue> {
    let message = |queue: Queue| {
        let Queue { name, depth, room } = queue;
        proto::Queue { name, depth, room }
    };
    queues.into_iter().map(message).collect()
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
