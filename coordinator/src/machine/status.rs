//! What there is to know of a run, and what it waits for.
//!
//! Invariant: while the run is not complete there is at least one wait, and it names what would end
//! it; a text that a node sent is bounded before it is kept.

use std::fmt;
use std::time::Duration;

use octet_proto::{ConfigDigest, GroupIndex, PolicyVersion, StepIndex, WorkerId};

use super::Machine;
use super::broadcast::BroadcastView;
use super::ledger::{Holder, groups};
use super::revisions::Revision;
use super::rewards::Binding;
use super::weights::{Spread, Spreading};

/// The most waits, and the most queues, that are kept of one node.
const MAX_WAITS: usize = 64;
/// The most characters that are kept of a text of a wait.
const MAX_TEXT: usize = 512;
/// How many groups a wait names before it only counts them.
const NAMED: usize = 8;
/// How long a learner, or a worker for open groups, may be missing until a person should look.
const USUAL: Duration = Duration::from_secs(60);
/// How long the learner may take for a step until a person should look.
const USUAL_STEP: Duration = Duration::from_secs(600);

/// Something that a node or the run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// A stable name of what is waited for.
    pub name: String,
    /// What exactly, for a person.
    pub detail: String,
    /// For how long it has been so.
    pub since_ago: Duration,
    /// When the wait is given up, something else happens, or a person should look; zero when that time
    /// has passed.
    pub deadline_in: Duration,
}

impl Wait {
    pub(crate) fn new(name: &str, detail: String) -> Self {
        let (since_ago, deadline_in) = (Duration::ZERO, Duration::ZERO);
        Self { name: name.into(), detail, since_ago, deadline_in }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}

/// A queue of a node, and how full it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// What it is called.
    pub name: String,
    /// How many wait in it.
    pub depth: u64,
    /// How many it holds at most.
    pub room: u64,
}

/// A run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The run.
    pub run_id: String,
    /// The run's configuration digest.
    pub config_digest: ConfigDigest,
    /// `K`.
    pub total_steps: u64,
    /// Steps committed; 0 while no learner has said so.
    pub committed_steps: u64,
    /// Groups of the allowed steps that nobody holds.
    pub open_groups: u64,
    /// Groups that are leased.
    pub leased_groups: u64,
    /// Groups in the spool that no committed step has consumed.
    pub spooled_groups: u64,
    /// The workers, by id.
    pub workers: Vec<WorkerView>,
    /// The learner; none has registered since the coordinator started.
    pub learner: Option<LearnerView>,
    /// The reward revisions, with the step that each takes effect from.
    pub revisions: Vec<(Revision, StepIndex)>,
    /// The same revisions with the steps that they reward and where they stand.
    pub rewards: Vec<Binding>,
    /// What the run waits for.
    pub waits: Vec<Wait>,
    /// How the policy versions that are given out came to the workers, the newest last.
    pub weights: Vec<Spread>,
    /// The same, counted over all versions.
    pub spreading: Spreading,
    /// The coordinator's own queues.
    pub queues: Vec<Queue>,
    /// How the broadcasts stand; none while nobody takes part in any.
    pub broadcast: Option<BroadcastView>,
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// How many groups it samples at once.
    pub capacity: u64,
    /// How many leases it holds.
    pub leases: u64,
    /// How many leases it is given at a time.
    pub allowance: u64,
    /// What it delivers while it has work, in groups per second; unknown before the first.
    pub groups_per_second: Option<f64>,
    /// Policy versions that it holds.
    pub versions: Vec<PolicyVersion>,
    /// Where it serves weights; empty when it does not.
    pub weights_endpoint: String,
    /// How long ago it was heard of.
    pub seen_ago: Duration,
    /// Tokens sampled since it started.
    pub sampled_tokens: u64,
    /// Groups that the learner confirmed by a lease of this worker.
    pub delivered_groups: u64,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// How full its queues are.
    pub queues: Vec<Queue>,
}

/// The learner at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnerView {
    /// Whether it reported within the time that a lease lasts.
    pub connected: bool,
    /// Where it takes groups.
    pub endpoint: String,
    /// How long ago it was heard of.
    pub seen_ago: Duration,
    /// Tokens learned since it started.
    pub learned_tokens: u64,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// How full its queues are.
    pub queues: Vec<Queue>,
}

impl Machine {
    /// The run at `now`.
    pub fn snapshot(&mut self, now: Duration) -> Snapshot {
        self.tick(now);
        let loads = self.ledger.loads();
        let workers = self.workers.iter().map(|(id, worker)| WorkerView {
            id: *id,
            name: worker.name.clone(),
            capacity: worker.capacity,
            leases: loads.get(id).copied().unwrap_or(0),
            allowance: worker.allowance(),
            groups_per_second: worker.meter.delivery_rate(),
            versions: worker.versions.clone(),
            weights_endpoint: worker.weights_endpoint.clone(),
            seen_ago: self.ago(worker.seen),
            sampled_tokens: worker.sampled_tokens,
            delivered_groups: worker.delivered,
            waits: worker.waits.clone(),
            queues: worker.queues.clone(),
        });
        let learner = self.learner.as_ref().map(|learner| LearnerView {
            connected: self.ago(learner.seen) < self.timing.lease,
            endpoint: learner.endpoint.clone(),
            seen_ago: self.ago(learner.seen),
            learned_tokens: learner.learned_tokens,
            waits: learner.waits.clone(),
            queues: learner.queues.clone(),
        });
        Snapshot {
            run_id: self.plan.run_id.clone(),
            config_digest: self.plan.config_digest.clone(),
            total_steps: self.plan.steps.get(),
            committed_steps: self.committed().unwrap_or(0),
            open_groups: self.ledger.open_count(&self.plan),
            leased_groups: self.ledger.out().count() as u64,
            spooled_groups: self.ledger.spooled().len() as u64,
            workers: workers.collect(),
            learner,
            revisions: self.revisions.all().to_vec(),
            rewards: self.bindings(),
            waits: self.waits(),
            weights: self.spreads(),
            spreading: self.spreading,
            queues: Vec::new(),
            broadcast: self.broadcast_view(),
        }
    }

    pub(super) fn ago(&self, then: Duration) -> Duration {
        self.now.saturating_sub(then)
    }

    /// All that the run waits for; nothing once it is complete.
    fn waits(&self) -> Vec<Wait> {
        if self.is_complete() {
            return Vec::new();
        }
        let waits = std::iter::once(self.run_wait()).chain(self.broadcast_wait());
        waits.chain(self.silent_learner()).chain(self.silent()).collect()
    }

    /// Nodes report every heartbeat; one of which two were missed is silent.
    pub(super) fn is_silent(&self, seen: Duration) -> bool {
        self.ago(seen) >= self.timing.heartbeat.saturating_mul(2)
    }

    fn silent_learner(&self) -> Option<Wait> {
        let learner = self.learner.as_ref().filter(|learner| self.is_silent(learner.seen))?;
        let detail = format!(
            "no report from the learner at {}: it is down, or cannot reach the coordinator",
            learner.endpoint
        );
        Some(self.wait("learner-silent", detail, learner.seen, USUAL))
    }

    fn silent(&self) -> impl Iterator<Item = Wait> {
        let loads = self.ledger.loads();
        let silent = self.workers.iter().filter(|(_, worker)| self.is_silent(worker.seen));
        silent.take(MAX_WAITS).map(move |(id, worker)| {
            let detail = format!(
                "no heartbeat from worker {}: it is down, or cannot reach the coordinator; it holds {} leases, and is forgotten after {:?}",
                worker.name,
                loads.get(id).copied().unwrap_or(0),
                self.timing.silence
            );
            self.wait("worker-silent", detail, worker.seen, self.timing.silence)
        })
    }

    /// A wait since a moment, for a time that is usual or after which it ends.
    pub(super) fn wait(
        &self,
        name: &str,
        detail: String,
        since: Duration,
        within: Duration,
    ) -> Wait {
        let since_ago = self.ago(since);
        let deadline_in = within.saturating_sub(since_ago);
        Wait { since_ago, deadline_in, ..Wait::new(name, detail) }
    }

    /// What keeps the run from its next step.
    pub(crate) fn run_wait(&self) -> Wait {
        let since = self.waiting_since;
        let Some(committed) = self.committed() else {
            let detail = "no learner has registered, so it is not known which step comes next";
            return self.wait("learner", detail.into(), since, USUAL);
        };
        let step = StepIndex(committed);
        let (mut open, mut out) = (Vec::new(), Vec::new());
        let mut deadline: Option<Duration> = None;
        for group in groups(self.plan.groups_of(step)) {
            match self.ledger.holders(group) {
                Some(holders) => {
                    let ends = holders.iter().map(|held| held.deadline).min();
                    deadline = deadline.into_iter().chain(ends).min();
                    out.push((group, holders));
                }
                None if !self.ledger.is_spooled(group) => open.push(group),
                None => {}
            }
        }
        if open.is_empty() && out.is_empty() {
            let detail = format!("step {step} has all its groups and is not committed yet");
            return self.wait("commit", detail, since, USUAL_STEP);
        }
        let mut parts = Vec::new();
        if !out.is_empty() {
            parts.push(format!("for {}", self.leased_text(&out)));
        }
        if !open.is_empty() {
            let workers = match self.workers.len() {
                0 => "no worker is registered".to_owned(),
                n => format!("{n} registered workers have not asked for them"),
            };
            parts.push(format!("for a worker to take {} ({workers})", groups_text(&open)));
        }
        let detail = format!("step {step} waits {}", parts.join(", and "));
        let wait = self.wait("groups", detail, since, USUAL);
        let deadline_in = deadline.map_or(wait.deadline_in, |at| at.saturating_sub(self.now));
        Wait { deadline_in, ..wait }
    }

    /// Groups and their holders, the holder said once for neighbours that share it.
    fn leased_text(&self, out: &[(GroupIndex, &[Holder])]) -> String {
        let holder_of = |holders: &[Holder]| holders.first().map(|held| held.worker);
        let runs = out.chunk_by(|a, b| holder_of(a.1) == holder_of(b.1));
        let mut texts: Vec<String> = runs
            .filter_map(|run| {
                let held = run.first().and_then(|(_, holders)| holders.first())?;
                let name = self.workers.get(&held.worker).map_or("", |worker| &worker.name);
                let indexes: Vec<GroupIndex> = run.iter().map(|(group, _)| *group).collect();
                let left = held.deadline.saturating_sub(self.now).as_secs_f64();
                let groups = groups_text(&indexes);
                Some(format!("{groups} (worker {name}, lease ends in {left:.1} s)"))
            })
            .collect();
        if texts.len() > NAMED {
            let more = texts.len() - NAMED;
            texts.truncate(NAMED);
            texts.push(format!("{more} more leases"));
        }
        texts.join(", ")
    }
}

/// The waits of a node, cut to what is kept.
pub(crate) fn bounded(mut waits: Vec<Wait>) -> Vec<Wait> {
    waits.truncate(MAX_WAITS);
    waits.iter_mut().flat_map(|wait| [&mut wait.name, &mut wait.detail]).for_each(shorten);
    waits
}

/// The queues of a node, cut to what is kept.
pub(crate) fn bounded_queues(mut queues: Vec<Queue>) -> Vec<Queue> {
    queues.truncate(MAX_WAITS);
    queues.iter_mut().map(|queue| &mut queue.name).for_each(shorten);
    queues
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
    }
}

fn groups_text(groups: &[GroupIndex]) -> String {
    let named: Vec<String> = groups.iter().take(NAMED).map(GroupIndex::to_string).collect();
    let word = if groups.len() == 1 { "group" } else { "groups" };
    match groups.len().saturating_sub(NAMED) {
        0 => format!("{word} {}", named.join(", ")),
        more => format!("{word} {} and {more} more", named.join(", ")),
    }
}
