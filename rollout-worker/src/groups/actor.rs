//! The hub: every event of a group ends here and becomes the next command.
//!
//! Invariant: nothing is decided about a group anywhere else, so its life can be read in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use octet_dataset::Example;
use octet_policy::policy::Policy;
use octet_policy::sampler::Completion;
use octet_proto::learner::ScoredGroup;
use octet_proto::{GroupIndex, PolicyVersion};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, Mailbox, MailboxError};
use octet_runtime::wait::{WaitGuard, Waits};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::job::{Job, Stage};
use super::lease::Granted;
use super::{Event, JobId, LeaseKey};
use crate::assembly::{self, Assembly, GroupFacts, Reward, Scored};
use crate::config::{Config, OnRewardFailure};
use crate::delivery::Receipt;
use crate::engine::{self, Task};
use crate::error::WorkerError;
use crate::leases::Note;
use crate::scoring::{self, Failure, Question, Settled};
use crate::stats::Handle;
use crate::weights::{self, Shelf};

/// How long a command may wait for room. The mailboxes hold all that can be under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most characters of a reward's failure that are kept with the group.
const LONGEST_DETAIL: usize = 500;

/// Text to tokens and back.
pub(crate) struct Text {
    pub policy: Policy,
}

/// The hub's parts, before it runs.
pub(crate) struct Groups {
    pub inbox: Mailbox<Event>,
    pub engine: Address<engine::Command>,
    pub scoring: Address<scoring::Command>,
    pub delivery: Address<ScoredGroup>,
    pub librarian: Address<weights::Command>,
    pub leases: Address<Note>,
    pub shelf: Shelf,
    pub text: Text,
    pub config: Arc<Config>,
    pub waits: Waits,
    pub handle: Handle,
    /// Cancelled when no more groups are taken and those under way shall end.
    pub drain: CancellationToken,
    /// Cancelled when another part of the worker has failed, so that nothing can be finished.
    pub broken: CancellationToken,
}

/// The hub while it runs.
struct Running {
    parts: Groups,
    jobs: BTreeMap<GroupIndex, Job>,
    next_job: u64,
    wanted: BTreeSet<PolicyVersion>,
    complete: bool,
}

impl Groups {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let (drain, broken) = (self.drain.clone(), self.broken.clone());
        let within = self.config.drain;
        let mut hub = Running {
            parts: self,
            jobs: BTreeMap::new(),
            next_job: 0,
            wanted: BTreeSet::new(),
            complete: false,
        };
        let mut until: Option<Instant> = None;
        let mut told = false;
        loop {
            if until.is_some() && !told && (hub.jobs.is_empty() || hub.complete) {
                told = true;
                hub.tell(Note::Drained).await?;
            }
            let late = until.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = drain.cancelled(), if until.is_none() => {
                    until = Some(Instant::now() + within);
                    hub.begin_drain().await?;
                }
                () = broken.cancelled(), if until.is_some() && !told => hub.give_up("a part of the worker failed").await?,
                () = sleep_until(late), if until.is_some() && !told => hub.give_up("the drain deadline passed").await?,
                event = hub.parts.inbox.receive() => match event {
                    Some(event) => hub.on_event(event, until.is_some()).await?,
                    None => return Ok(()),
                },
            }
        }
    }
}

impl Running {
    async fn on_event(&mut self, event: Event, draining: bool) -> Result<(), WorkerError> {
        match event {
            Event::Granted(granted) if draining || self.complete => {
                self.tell(Note::Dropped(granted.key)).await
            }
            Event::Granted(granted) => self.on_granted(*granted).await,
            Event::Revoked(key) => self.on_revoked(key).await,
            Event::Complete => {
                self.complete = true;
                let groups: Vec<GroupIndex> = self.jobs.keys().copied().collect();
                for group in groups {
                    self.cancel(group).await?;
                }
                self.update_wanted().await
            }
            Event::Ready(version) => self.on_ready(version).await,
            Event::Sampled { job, completion } => self.on_sampled(job, completion).await,
            Event::Scored(settled) => self.on_scored(settled).await,
            Event::Receipt { group, receipt } => self.on_receipt(group, receipt).await,
        }
    }

    async fn on_granted(&mut self, granted: Granted) -> Result<(), WorkerError> {
        let group = granted.key.group;
        if let Some(job) = self.jobs.get_mut(&group) {
            if job.serves(&granted) {
                // Leased anew after a lapse: what is under way is what is asked for.
                job.granted.key = granted.key;
                let left = match &job.stage {
                    Stage::Waiting { .. } => None,
                    Stage::Sampling(assembly) => Some(assembly.unsampled()),
                    Stage::Scoring(..) | Stage::Delivering { .. } => Some(0),
                };
                if let Some(left) = left {
                    self.tell(Note::Sampled(granted.key, left)).await?;
                }
                return Ok(());
            }
            self.cancel(group).await?;
        }
        let prompt = self.parts.text.prompt(&granted)?;
        self.next_job += 1;
        let span = tracing::info_span!(
            "group",
            group = group.get(),
            step = granted.step.get(),
            version = granted.version.get(),
            worker = self.parts.config.name
        );
        tracing::debug!(parent: &span, prompt_tokens = prompt.len(), "leased");
        let (id, stage) = (JobId(self.next_job), Stage::Waiting { prompt });
        let version = granted.version;
        self.jobs.insert(group, Job { id, granted, stage, span });
        if self.parts.shelf.get(version).is_some() {
            self.on_ready(version).await
        } else {
            self.update_wanted().await
        }
    }

    /// Starts what waited for a version.
    async fn on_ready(&mut self, version: PolicyVersion) -> Result<(), WorkerError> {
        // It may have been put away since; then it is still wanted and comes again.
        let Some(held) = self.parts.shelf.get(version) else { return Ok(()) };
        for (group, job) in &mut self.jobs {
            let Stage::Waiting { prompt } = &mut job.stage else { continue };
            if job.granted.version != version {
                continue;
            }
            let prompt = std::mem::take(prompt);
            let facts = GroupFacts {
                group: *group,
                version,
                revision: job.granted.revision.number,
                example_json: job.granted.example_json.to_string(),
                prompt_tokens: prompt.clone(),
            };
            job.stage = Stage::Sampling(Assembly::new(facts, self.parts.config.completions()));
            let model = Arc::clone(&held.model);
            let task = Task { job: job.id, group: *group, prompt, model };
            self.parts.engine.send(engine::Command::Sample(task), PATIENCE).await?;
        }
        self.update_wanted().await
    }

    async fn on_sampled(&mut self, id: JobId, completion: Completion) -> Result<(), WorkerError> {
        let group = GroupIndex(completion.group);
        let Some(job) = self.jobs.get_mut(&group).filter(|job| job.id == id) else {
            return Ok(());
        };
        let Stage::Sampling(assembly) = &mut job.stage else { return Ok(()) };
        let (sample, tokens) = (completion.sample, completion.tokens.len());
        job.span.in_scope(|| tracing::debug!(sample, tokens, "sampled"));
        let question = Question {
            job: id,
            group: group.get(),
            sample,
            completion: self.parts.text.completion(group, &completion.tokens)?,
            example_json: Arc::clone(&job.granted.example_json),
        };
        assembly.sampled(completion)?;
        let left = assembly.unsampled();
        let revision = Arc::clone(&job.granted.revision);
        let key = job.granted.key;
        self.parts.scoring.send(scoring::Command::Score(revision, question), PATIENCE).await?;
        self.tell(Note::Sampled(key, left)).await?;
        if left == 0 {
            self.parts.handle.counters.group_sampled();
            self.all_sampled(group);
        }
        Ok(())
    }

    fn all_sampled(&mut self, group: GroupIndex) {
        let Some(job) = self.jobs.remove(&group) else { return };
        let stage = match job.stage {
            Stage::Sampling(assembly) => {
                let missing = assembly.missing();
                let within = self.parts.config.limits.score;
                let wait =
                    self.parts.waits.enter("reward scores", missing_of(group, missing), within);
                Stage::Scoring(assembly, wait)
            }
            other => other,
        };
        self.jobs.insert(group, Job { stage, ..job });
    }

    async fn on_scored(&mut self, settled: Settled) -> Result<(), WorkerError> {
        let group = GroupIndex(settled.group);
        let Some(job) = self.jobs.remove(&group) else { return Ok(()) };
        if job.id != settled.job {
            self.jobs.insert(group, job);
            return Ok(());
        }
        let reward = match settled.outcome {
            Ok(reward) => reward,
            Err(failure) => self.without_reward(&job, settled.sample, failure)?,
        };
        let (assembly, wait) = match job.stage {
            Stage::Sampling(assembly) => (assembly, None),
            Stage::Scoring(assembly, wait) => (assembly, Some(wait)),
            other => {
                self.jobs.insert(group, Job { stage: other, ..job });
                return Ok(());
            }
        };
        let stage = match assembly.scored(settled.sample, reward)? {
            assembly::Stage::Open(assembly) => still_open(group, assembly, wait),
            assembly::Stage::Whole(scored) => {
                drop(wait);
                Stage::Delivering { _wait: self.deliver(&job.span, job.granted.key, scored).await? }
            }
        };
        self.jobs.insert(group, Job { stage, ..job });
        Ok(())
    }

    async fn deliver(
        &self,
        span: &tracing::Span,
        key: LeaseKey,
        scored: Scored,
    ) -> Result<WaitGuard, WorkerError> {
        tracing::debug!(parent: span, "scored; delivering");
        let message = scored.into_message(key.epoch, &self.parts.config.name);
        let detail = format!("for group {}", key.group);
        let within = self.parts.config.limits.receipt;
        let wait = self.parts.waits.enter("delivery receipt", detail, within);
        self.parts.delivery.send(message, PATIENCE).await?;
        Ok(wait)
    }

    /// What a completion is worth that no reward could be had for.
    fn without_reward(
        &self,
        job: &Job,
        sample: u32,
        failure: Failure,
    ) -> Result<Reward, WorkerError> {
        self.parts.handle.counters.reward_failed();
        let Failure { kind, message, .. } = failure;
        let group = job.granted.key.group;
        match self.parts.config.on_reward_failure {
            OnRewardFailure::Fail => Err(WorkerError::Reward { group, sample, kind, message }),
            OnRewardFailure::Zero => {
                tracing::error!(parent: &job.span, sample, kind, message, "no reward for a completion: it counts as 0.0");
                let detail = message.chars().take(LONGEST_DETAIL).collect();
                Ok(Reward { reward: 0.0, verdict: format!("reward-failed:{kind}"), detail })
            }
        }
    }

    async fn on_receipt(&mut self, group: GroupIndex, receipt: Receipt) -> Result<(), WorkerError> {
        // A receipt for what another job of the group had delivered: that job is gone.
        let delivering = |job: &&Job| matches!(job.stage, Stage::Delivering { .. });
        if self.jobs.get(&group).filter(delivering).is_none() {
            return Ok(());
        }
        let Some(job) = self.jobs.remove(&group) else { return Ok(()) };
        match receipt {
            Receipt::Accepted { duplicate } => {
                self.parts.handle.counters.group_delivered();
                tracing::debug!(parent: &job.span, duplicate, "delivered");
                self.tell(Note::Finished(job.granted.key)).await
            }
            Receipt::Unwanted { kind, message } => {
                tracing::warn!(parent: &job.span, kind, message, "the learner has no use for the group; dropped");
                self.tell(Note::Dropped(job.granted.key)).await
            }
        }
    }

    async fn on_revoked(&mut self, key: LeaseKey) -> Result<(), WorkerError> {
        let Some(job) = self.jobs.get(&key.group).filter(|job| job.epoch() == key.epoch) else {
            return Ok(());
        };
        // What is on its way to the learner stays: usually it was revoked because it is done.
        if matches!(job.stage, Stage::Delivering { .. }) {
            return Ok(());
        }
        tracing::info!(parent: &job.span, "lease revoked; stopping work on the group");
        self.cancel(key.group).await?;
        self.update_wanted().await
    }

    /// Ends a job wherever it is.
    async fn cancel(&mut self, group: GroupIndex) -> Result<(), WorkerError> {
        let Some(job) = self.jobs.remove(&group) else { return Ok(()) };
        match job.stage {
            Stage::Sampling(_) => {
                self.parts.engine.send(engine::Command::Cancel(group), PATIENCE).await?;
                self.parts.scoring.send(scoring::Command::Forget(job.id), PATIENCE).await?;
            }
            Stage::Scoring(..) => {
                self.parts.scoring.send(scoring::Command::Forget(job.id), PATIENCE).await?;
            }
            Stage::Waiting { .. } | Stage::Delivering { .. } => {}
        }
        Ok(())
    }

    /// Gives back what was not begun.
    async fn begin_drain(&mut self) -> Result<(), WorkerError> {
        let waiting = self.jobs.values().filter(|job| matches!(job.stage, Stage::Waiting { .. }));
        let unbegun: Vec<LeaseKey> = waiting.map(|job| job.granted.key).collect();
        self.jobs.retain(|_, job| !matches!(job.stage, Stage::Waiting { .. }));
        let (released, groups) = (unbegun.len(), self.jobs.len());
        tracing::info!(released, groups, "draining: no more leases, finishing what is under way");
        for key in unbegun {
            self.tell(Note::Dropped(key)).await?;
        }
        self.update_wanted().await
    }

    /// Ends what could not be finished; whoever holds the leases next does it again.
    async fn give_up(&mut self, why: &str) -> Result<(), WorkerError> {
        let groups: Vec<u64> = self.jobs.keys().map(|group| group.get()).collect();
        tracing::warn!(?groups, why, "drained without finishing everything; the leases go back");
        let broken = self.parts.broken.is_cancelled();
        for (group, job) in std::mem::take(&mut self.jobs) {
            self.jobs.insert(group, job);
            match self.cancel(group).await {
                // The part that failed is not there to be told.
                Err(WorkerError::Mailbox(_)) if broken => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn update_wanted(&mut self) -> Result<(), WorkerError> {
        let waiting = self.jobs.values().filter(|job| matches!(job.stage, Stage::Waiting { .. }));
        let wanted: BTreeSet<PolicyVersion> = waiting.map(|job| job.granted.version).collect();
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            self.parts.librarian.send(weights::Command::Wanted(wanted), PATIENCE).await?;
        }
        Ok(())
    }

    async fn tell(&self, note: Note) -> Result<(), WorkerError> {
        match self.parts.leases.send(note, PATIENCE).await {
            // It ends first: when the run is complete, as a run that is resumed after its last step is at
            // once, or with an error of its own. There is nobody left to be told, and nothing to be done.
            Err(undelivered) if matches!(undelivered.why, MailboxError::Closed { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

fn still_open(group: GroupIndex, assembly: Assembly, wait: Option<WaitGuard>) -> Stage {
    match wait {
        Some(wait) => {
            wait.detail(missing_of(group, assembly.missing()));
            Stage::Scoring(assembly, wait)
        }
        None => Stage::Sampling(assembly),
    }
}

fn missing_of(group: GroupIndex, missing: usize) -> String {
    format!("for group {group}, {missing} missing")
}

impl Text {
    fn prompt(&self, granted: &Granted) -> Result<Vec<u32>, WorkerError> {
        let group = granted.key.group;
        let example = Example::from_json(&granted.example_json)
            .map_err(|source| WorkerError::Example { group, source })?;
        let messages = example.prompt.iter().map(|message| Value::Object(message.json().clone()));
        let messages: Vec<Value> = messages.collect();
        let tokens = self
            .policy
            .prompt_tokens(&messages, &example.tools)
            .map_err(|source| WorkerError::Text { group, source })?;
        let (context, found) = (self.policy.model.config().max_position_embeddings, tokens.len());
        if found >= context {
            return Err(WorkerError::PromptTooLong { group, context, found });
        }
        if found == 0 {
            let problem = "expected a chat template that writes something, found an empty prompt";
            return Err(WorkerError::BadLease { group, problem: problem.to_owned() });
        }
        Ok(tokens)
    }

    fn completion(&self, group: GroupIndex, tokens: &[u32]) -> Result<String, WorkerError> {
        self.policy.completion_text(tokens).map_err(|source| WorkerError::Text { group, source })
    }
}
