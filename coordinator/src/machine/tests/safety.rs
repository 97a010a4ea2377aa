//! Random sequences of events, honest and not, with time jumps and restarts, against a reference
//! model that keeps only what the learner said and which leases went out.

use std::collections::{BTreeMap, BTreeSet};

use octet_proto::{GroupIndex, LeaseEpoch, RevisionNumber, StepIndex, WorkerId};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Back(u64),
    Join(u64),
    Lease(usize, u64),
    /// Renews what the worker was given, minus the leases that the mask drops.
    Beat(usize, u64),
    /// A heartbeat with somebody else's leases or invented ones.
    Lie(usize, u64, u64),
    Release(usize, usize),
    Leave(usize),
    /// The learner spools some groups that it may, and reports them.
    Spool(u64),
    /// The learner spools without a report: the report was lost.
    Lost(u64),
    Commit,
    /// A report that was overtaken by later ones.
    Stale(u64, u64),
    /// The learner restarts; the mask says what its spool lost.
    Learner(u64),
    /// The learner restarts from an older commit.
    Rollback(u64),
    /// A learner that says anything.
    Wild(u64, Vec<u64>),
    Restart,
    Swap,
    /// A reward rollback; 0 goes to the one before.
    SwapBack(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..3000).prop_map(Op::Pass),
        1 => (0u64..3000).prop_map(Op::Back),
        1 => Just(Op::Pass(11_000)),
        2 => (1u64..6).prop_map(Op::Join),
        8 => (0usize..8, 0u64..9).prop_map(|(w, n)| Op::Lease(w, n)),
        5 => (0usize..8, any::<u64>()).prop_map(|(w, m)| Op::Beat(w, m)),
        2 => (0usize..8, 0u64..40, 0u64..60).prop_map(|(w, g, e)| Op::Lie(w, g, e)),
        2 => (0usize..8, 0usize..4).prop_map(|(w, n)| Op::Release(w, n)),
        1 => (0usize..8).prop_map(Op::Leave),
        6 => any::<u64>().prop_map(Op::Spool),
        2 => any::<u64>().prop_map(Op::Lost),
        5 => Just(Op::Commit),
        2 => (0u64..10, any::<u64>()).prop_map(|(c, m)| Op::Stale(c, m)),
        2 => any::<u64>().prop_map(Op::Learner),
        1 => (1u64..3).prop_map(Op::Rollback),
        1 => (0u64..12, prop::collection::vec(0u64..50, 0..6)).prop_map(|(c, s)| Op::Wild(c, s)),
        1 => Just(Op::Restart),
        1 => Just(Op::Swap),
        1 => (0u64..5).prop_map(Op::SwapBack),
    ]
}

/// What the learner said, when one has spoken since the coordinator started.
#[derive(Debug, Clone, Default)]
struct Believed {
    committed: u64,
    spooled: BTreeSet<u64>,
}

struct World {
    c: Coordinator,
    plan: RunPlan,
    now: u64,
    workers: Vec<WorkerId>,
    held: BTreeMap<WorkerId, Vec<LeaseKey>>,
    learner: Option<LearnerId>,
    /// The learner's disk.
    disk: Believed,
    believed: Option<Believed>,
    last_epoch: LeaseEpoch,
    revision_of: BTreeMap<u64, String>,
    schedule: Vec<(StepIndex, Reward)>,
}

impl World {
    /// The mask says at which steps the configuration schedules another reward.
    fn new(plan: RunPlan, mask: u64) -> Self {
        let scheduled = (1..plan.steps.get()).filter(|step| mask >> (step % 64) & 1 == 1);
        let scheduled =
            scheduled.map(|step| (StepIndex(step), reward(&format!("scheduled-{step}"))));
        let mut world = Self {
            c: Coordinator::new(plan.clone()),
            plan,
            now: 0,
            workers: Vec::new(),
            held: BTreeMap::new(),
            learner: None,
            disk: Believed::default(),
            believed: None,
            last_epoch: LeaseEpoch(0),
            revision_of: BTreeMap::new(),
            schedule: scheduled.collect(),
        };
        world.schedule();
        world
    }

    /// What the shell does when it opens, before anything is leased.
    fn schedule(&mut self) {
        self.c.machine.schedule_rewards(&self.schedule, &mut self.c.records).unwrap();
        self.c.durable();
    }

    fn worker(&self, index: usize) -> Option<WorkerId> {
        (!self.workers.is_empty()).then(|| self.workers[index % self.workers.len()])
    }

    fn window(&self) -> std::ops::Range<u64> {
        let committed = self.disk.committed;
        let batch = self.plan.batch.get();
        let end = (committed + self.plan.lag + 1).min(self.plan.steps.get());
        committed * batch..end * batch
    }

    /// Puts the groups of the window that the mask picks on the learner's disk.
    fn spool(&mut self, mask: u64) {
        let window = self.window();
        self.disk.spooled.extend(window.filter(|group| mask >> (group % 64) & 1 == 1));
    }

    fn report(&mut self, committed: u64, spooled: &[u64]) -> Result<(), TestCaseError> {
        let Some(id) = self.learner else { return Ok(()) };
        let before = self.delivered();
        let known = self.believed.clone();
        // The learner says by which leases groups came, if any of these was given out.
        let keys = self.held.values().flatten().filter(|key| spooled.contains(&key.group.get()));
        let keys: Vec<LeaseKey> = keys.copied().collect();
        let result = self.c.report_by(self.now, id, committed, spooled, &keys);
        let fits = committed <= self.plan.steps.get()
            && spooled.iter().all(|group| *group < self.plan.total_groups());
        let Some(believed) = self.believed.as_mut() else {
            prop_assert!(result.is_err(), "a learner that the restarted coordinator cannot know");
            return Ok(());
        };
        prop_assert_eq!(result.is_ok(), fits);
        if !fits {
            return Ok(());
        }
        believed.committed = believed.committed.max(committed);
        believed.spooled.extend(spooled);
        let done = |b: &Believed, group: &u64| {
            *group < b.committed * self.plan.batch.get() || b.spooled.contains(group)
        };
        let known = known.unwrap_or_default();
        let newly = (0..self.plan.total_groups())
            .filter(|group| done(believed, group) && !done(&known, group))
            .count() as u64;
        let credited = self.delivered() - before;
        prop_assert!(credited <= newly, "{credited} credited, {newly} resolved");
        Ok(())
    }

    fn delivered(&mut self) -> u64 {
        let snapshot = self.c.machine.snapshot(ms(self.now));
        snapshot.workers.iter().map(|worker| worker.delivered_groups).sum()
    }

    fn take(&mut self, worker: WorkerId, grants: Vec<Grant>) -> Result<(), TestCaseError> {
        let believed = self.believed.clone();
        let Some(believed) = believed else {
            return Err(TestCaseError::fail("leased before the learner has spoken"));
        };
        for grant in grants {
            let (group, step) = (grant.key.group.get(), grant.step.get());
            prop_assert!(grant.key.epoch > self.last_epoch, "epochs grow, restarts included");
            self.last_epoch = grant.key.epoch;
            prop_assert_eq!(step, group / self.plan.batch.get());
            prop_assert_eq!(grant.version.get(), step.saturating_sub(self.plan.lag));
            prop_assert!(grant.version.get() <= believed.committed, "version is published");
            prop_assert!(step >= believed.committed && !believed.spooled.contains(&group));
            let revision = self.revision_of.entry(step).or_insert(grant.revision.digest.clone());
            prop_assert_eq!(&grant.revision.digest, &*revision, "a step has one revision");
            let held = self.held.entry(worker).or_default();
            held.push(grant.key);
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let now = self.now;
        match op {
            Op::Pass(by) => self.now += by,
            Op::Back(by) => self.now = now.saturating_sub(by),
            Op::Join(capacity) => {
                let id = self.c.worker(now, capacity);
                prop_assert!(!self.workers.contains(&id), "worker ids are never repeated");
                self.workers.push(id);
            }
            Op::Lease(worker, want) => {
                let Some(worker) = self.worker(worker) else { return Ok(()) };
                match self.c.lease(now, worker, want) {
                    Ok(Offer::Grants(Grants { leases: grants, .. })) => {
                        prop_assert!((1..=want as usize).contains(&grants.len()));
                        self.take(worker, grants)?;
                    }
                    Ok(Offer::Complete) => {
                        let committed = self.believed.as_ref().map(|b| b.committed);
                        prop_assert_eq!(committed, Some(self.plan.steps.get()));
                    }
                    Ok(Offer::Nothing(wait)) => prop_assert!(!wait.detail.is_empty()),
                    Err(refusal) => prop_assert_eq!(refusal.kind(), "unknown-worker"),
                }
            }
            Op::Beat(worker, mask) => {
                let Some(worker) = self.worker(worker) else { return Ok(()) };
                let held = self.held.get(&worker).cloned().unwrap_or_default();
                let named: Vec<LeaseKey> = (0..)
                    .zip(held)
                    .filter(|(index, _)| mask >> (index % 64) & 1 == 1)
                    .map(|(_, key)| key)
                    .collect();
                if let Ok(pulse) = self.c.beat(now, worker, &named) {
                    prop_assert!(pulse.revoked.iter().all(|key| named.contains(key)));
                    let held = self.held.entry(worker).or_default();
                    held.retain(|key| !pulse.revoked.contains(key));
                }
            }
            Op::Lie(worker, group, epoch) => {
                let Some(worker) = self.worker(worker) else { return Ok(()) };
                let key = LeaseKey { group: GroupIndex(group), epoch: LeaseEpoch(epoch) };
                let _ = self.c.beat(now, worker, &[key]);
            }
            Op::Release(worker, count) => {
                let Some(worker) = self.worker(worker) else { return Ok(()) };
                let held = self.held.entry(worker).or_default();
                let back: Vec<LeaseKey> = held.drain(..count.min(held.len())).collect();
                let _ = self.c.machine.release(ms(now), worker, &back, false);
            }
            Op::Leave(worker) => {
                let Some(worker) = self.worker(worker) else { return Ok(()) };
                self.c.machine.release(ms(now), worker, &[], true).unwrap();
            }
            Op::Spool(mask) => {
                self.spool(mask);
                let all: Vec<u64> = self.disk.spooled.iter().copied().collect();
                self.report(self.disk.committed, &all)?;
            }
            Op::Lost(mask) => self.spool(mask),
            Op::Commit => {
                let step = self.disk.committed;
                let groups = step * self.plan.batch.get()..(step + 1) * self.plan.batch.get();
                let full = groups.clone().all(|group| self.disk.spooled.contains(&group));
                if full && step < self.plan.steps.get() {
                    self.disk.committed += 1;
                    self.disk.spooled.retain(|group| *group >= groups.end);
                    self.report(self.disk.committed, &[])?;
                }
            }
            Op::Stale(back, mask) => {
                let committed = self.disk.committed.saturating_sub(back);
                let all: Vec<u64> = (0..)
                    .zip(self.disk.spooled.iter().copied())
                    .filter(|(index, _)| mask >> (index % 64) & 1 == 1)
                    .map(|(_, group)| group)
                    .collect();
                self.report(committed, &all)?;
            }
            Op::Learner(mask) => {
                self.disk.spooled.retain(|group| mask >> (group % 64) & 1 == 1);
                let spooled: Vec<u64> = self.disk.spooled.iter().copied().collect();
                self.learner = Some(self.c.learner(now, self.disk.committed, &spooled));
                self.believed = Some(self.disk.clone());
            }
            Op::Rollback(steps) => {
                self.disk.committed = self.disk.committed.saturating_sub(steps);
                return self.apply(Op::Learner(u64::MAX));
            }
            Op::Wild(committed, spooled) => {
                self.report(committed, &spooled)?;
                // Whoever says so is taken to have it.
                if let Some(believed) = &self.believed {
                    self.disk = believed.clone();
                }
            }
            Op::Restart => {
                self.c.restart();
                self.schedule();
                self.now = 0;
                self.believed = None;
            }
            Op::Swap => {
                let reward = reward(&format!("swap-{}", self.last_epoch));
                let swapped =
                    self.c.machine.swap_reward(ms(now), reward, None, &mut self.c.records);
                self.bound(swapped)?;
            }
            Op::SwapBack(to) => {
                let to = (to > 0).then_some(RevisionNumber(to));
                let swapped =
                    self.c.machine.rollback_reward(ms(now), to, None, &mut self.c.records);
                self.bound(swapped)?;
            }
        }
        Ok(())
    }

    /// A swap takes no step that was leased, and is refused for a reason.
    fn bound(&mut self, swapped: Result<Bound, Refusal>) -> Result<(), TestCaseError> {
        self.c.durable();
        match swapped {
            Ok(bound) => {
                prop_assert!(self.revision_of.keys().all(|step| *step < bound.from_step.get()));
                prop_assert!(bound.from_step.get() < self.plan.steps.get());
            }
            Err(refusal) => {
                prop_assert!(["too-late", "bad-field"].contains(&refusal.kind()), "{refusal}");
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.c.machine.tick(ms(self.now));
        if let Err(violation) = self.c.machine.check() {
            return Err(TestCaseError::fail(violation.to_string()));
        }
        let committed = self.believed.as_ref().map(|believed| believed.committed);
        prop_assert_eq!(self.c.machine.committed(), committed);
        let snapshot = self.c.machine.snapshot(ms(self.now));
        // The revisions share out the steps without gap or overlap, and whoever has leases is no idler.
        let mut steps: Vec<_> =
            snapshot.rewards.iter().filter(|b| b.from_step < b.until_step).collect();
        steps.sort_by_key(|binding| binding.from_step);
        prop_assert_eq!(steps.first().map(|b| b.from_step.get()), Some(0));
        prop_assert_eq!(steps.last().map(|b| b.until_step.get()), Some(self.plan.steps.get()));
        prop_assert!(steps.windows(2).all(|pair| pair[0].until_step == pair[1].from_step));
        prop_assert!(steps.iter().filter(|b| b.state == State::Active).count() <= 1);
        for binding in &snapshot.rewards {
            let resting =
                [State::Idle, State::Superseded, State::Scheduled].contains(&binding.state);
            prop_assert!(!resting || binding.leased_groups == 0, "{:?}", binding);
            for (step, digest) in
                self.revision_of.range(binding.from_step.get()..binding.until_step.get())
            {
                prop_assert_eq!(digest, &binding.revision.digest, "step {}", step);
            }
        }
        prop_assert_eq!(snapshot.waits.is_empty(), committed == Some(self.plan.steps.get()));
        // No group is lost: each of the window is open, leased or spooled.
        if let Some(believed) = &self.believed {
            let batch = self.plan.batch.get();
            let end = (believed.committed + self.plan.lag + 1).min(self.plan.steps.get()) * batch;
            let window = believed.committed * batch..end;
            let size = window.end.saturating_sub(window.start);
            let spooled = believed.spooled.iter().filter(|g| window.contains(g)).count() as u64;
            prop_assert_eq!(snapshot.open_groups + snapshot.leased_groups + spooled, size);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_an_invariant(
        steps in 1u64..8,
        batch in 1u64..7,
        lag in 0u64..3,
        scheduled in prop_oneof![Just(0u64), any::<u64>()],
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut world = World::new(plan(steps, batch, lag), scheduled);
        for op in ops {
            world.apply(op)?;
            world.check()?;
        }
    }
}
