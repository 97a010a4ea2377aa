//! The machine under test: one behaviour at a time here, random sequences in `safety`, fair but
//! hostile schedules in `liveness`.
#![allow(clippy::unwrap_used)]

mod broadcast;
mod liveness;
mod safety;
mod slow;
mod weights;

use std::num::NonZeroU64;
use std::time::Duration;

use octet_proto::{ConfigDigest, GroupIndex, LeaseEpoch, StepIndex, WorkerId};

use super::*;

const DIGEST: &str = "cafe";

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn plan(steps: u64, batch: u64, lag: u64) -> RunPlan {
    RunPlan {
        run_id: "run".into(),
        config_digest: ConfigDigest::new(DIGEST),
        seed: 1,
        steps: NonZeroU64::new(steps).unwrap(),
        batch: NonZeroU64::new(batch).unwrap(),
        lag,
        rows: NonZeroU64::new(5).unwrap(),
    }
}

pub(super) fn reward(digest: &str) -> Reward {
    Reward {
        name: "tool-call".into(),
        digest: digest.into(),
        endpoints: vec!["http://127.0.0.1:1".into()],
    }
}

/// A machine with a journal that a restart reads back.
pub(super) struct Coordinator {
    pub machine: Machine,
    pub journal: Recovered,
    pub records: Vec<Record>,
}

impl Coordinator {
    pub fn new(plan: RunPlan) -> Self {
        let (mut records, journal) = (Vec::new(), Recovered::default());
        let machine =
            Machine::new(plan, Timing::default(), &journal, reward("a"), &mut records).unwrap();
        let mut this = Self { machine, journal, records };
        this.durable();
        this
    }

    /// What the shell does between an event and its answer.
    pub fn durable(&mut self) {
        for record in self.records.drain(..) {
            self.journal.absorb(&record);
        }
    }

    pub fn restart(&mut self) {
        let plan = self.machine.plan().clone();
        self.machine =
            Machine::new(plan, Timing::default(), &self.journal, reward("a"), &mut self.records)
                .unwrap();
        self.durable();
    }

    pub fn worker(&mut self, now: u64, capacity: u64) -> WorkerId {
        let join = WorkerJoin {
            name: format!("w{capacity}"),
            config_digest: ConfigDigest::new(DIGEST),
            capacity,
            weights_endpoint: String::new(),
        };
        let id = self.machine.register_worker(ms(now), join, &mut self.records).unwrap();
        self.durable();
        id
    }

    pub fn learner(&mut self, now: u64, committed: u64, spooled: &[u64]) -> LearnerId {
        let join = LearnerJoin {
            config_digest: ConfigDigest::new(DIGEST),
            endpoint: "http://127.0.0.1:2".into(),
            committed,
            spooled: spooled.iter().copied().map(GroupIndex).collect(),
            published: Vec::new(),
        };
        let id = self.machine.register_learner(ms(now), join, &mut self.records).unwrap();
        self.durable();
        id
    }

    pub fn lease(&mut self, now: u64, worker: WorkerId, want: u64) -> Result<Offer, Refusal> {
        let offer = self.machine.lease(ms(now), worker, want, &mut self.records);
        self.durable();
        offer
    }

    fn leased(&mut self, now: u64, worker: WorkerId, want: u64) -> Vec<u64> {
        self.grants(now, worker, want).iter().map(|grant| grant.key.group.get()).collect()
    }

    fn grants(&mut self, now: u64, worker: WorkerId, want: u64) -> Vec<Grant> {
        match self.lease(now, worker, want).unwrap() {
            Offer::Grants(grants) => grants.leases,
            Offer::Complete | Offer::Nothing(_) => Vec::new(),
        }
    }

    pub fn beat(
        &mut self,
        now: u64,
        worker: WorkerId,
        leases: &[LeaseKey],
    ) -> Result<Pulse, Refusal> {
        let beat = Beat { leases: leases.to_vec(), ..Beat::default() };
        self.machine.heartbeat(ms(now), worker, beat)
    }

    pub fn report(
        &mut self,
        now: u64,
        learner: LearnerId,
        committed: u64,
        spooled: &[u64],
    ) -> Result<bool, Refusal> {
        self.report_by(now, learner, committed, spooled, &[])
    }

    /// A report that says by which leases groups came.
    pub fn report_by(
        &mut self,
        now: u64,
        learner: LearnerId,
        committed: u64,
        spooled: &[u64],
        delivered: &[LeaseKey],
    ) -> Result<bool, Refusal> {
        let spooled = spooled.iter().copied().map(GroupIndex).collect();
        let delivered = delivered.to_vec();
        let report = LearnerReport { committed, spooled, delivered, ..LearnerReport::default() };
        self.machine.report(ms(now), learner, report)
    }
}

fn keys(grants: &[Grant]) -> Vec<LeaseKey> {
    grants.iter().map(|grant| grant.key).collect()
}

#[test]
fn a_run_goes_through_its_steps_and_ends() {
    for lag in [0, 1] {
        let mut c = Coordinator::new(plan(3, 2, lag));
        let worker = c.worker(0, 8);
        assert!(c.leased(0, worker, 8).is_empty(), "nothing before the learner has spoken");
        let learner = c.learner(0, 0, &[]);
        for step in 0..3 {
            let grants = c.grants(0, worker, 8);
            for grant in &grants {
                assert_eq!(grant.version.get(), grant.step.get().saturating_sub(lag));
                assert!(grant.step.get() <= step + lag);
            }
            assert!(!c.report(1, learner, step, &[2 * step, 2 * step + 1]).unwrap());
            assert_eq!(c.report(1, learner, step + 1, &[]).unwrap(), step == 2);
        }
        assert_eq!(c.lease(2, worker, 8).unwrap(), Offer::Complete);
        assert!(c.beat(2, worker, &[]).unwrap().complete);
    }
}

#[test]
fn the_lag_decides_which_steps_are_open() {
    let mut on_policy = Coordinator::new(plan(3, 2, 0));
    let worker = on_policy.worker(0, 8);
    on_policy.learner(0, 0, &[]);
    assert_eq!(on_policy.leased(0, worker, 8), [0, 1]);
    let mut overlapped = Coordinator::new(plan(3, 2, 1));
    let worker = overlapped.worker(0, 8);
    overlapped.learner(0, 0, &[]);
    let grants = overlapped.grants(0, worker, 8);
    let versions: Vec<_> = grants.iter().map(|g| (g.key.group.get(), g.version.get())).collect();
    assert_eq!(versions, [(0, 0), (1, 0), (2, 0), (3, 0)]);
}

#[test]
fn a_lease_that_is_not_renewed_is_given_to_another_and_its_holder_is_fenced() {
    let mut c = Coordinator::new(plan(1, 2, 0));
    let (slow, other) = (c.worker(0, 2), c.worker(0, 3));
    c.learner(0, 0, &[]);
    let held = c.grants(0, slow, 1);
    assert!(c.beat(1500, slow, &keys(&held)).unwrap().revoked.is_empty());
    assert_eq!(c.leased(1600, other, 1), [1], "the first group is renewed until 3500");
    c.beat(3000, other, &[]).unwrap();
    let again = c.grants(3600, other, 2);
    assert!(again.iter().any(|grant| grant.key.group.get() == 0));
    assert!(again.iter().all(|grant| grant.key.epoch > held[0].key.epoch));
    assert_eq!(c.beat(3700, slow, &keys(&held)).unwrap().revoked, keys(&held));
}

#[test]
fn a_holder_that_comes_back_before_anybody_else_keeps_its_lease() {
    let mut c = Coordinator::new(plan(1, 1, 0));
    let worker = c.worker(0, 1);
    c.learner(0, 0, &[]);
    let held = c.grants(0, worker, 1);
    assert!(c.beat(5000, worker, &keys(&held)).unwrap().revoked.is_empty());
    let other = c.worker(5001, 1);
    assert!(c.leased(5001, other, 1).is_empty(), "the group is out again");
    // Silent for too long, registered anew: the epoch proves that the lease was its own.
    assert!(matches!(c.beat(16_000, worker, &[]), Err(Refusal::UnknownWorker { .. })));
    let anew = c.worker(16_000, 1);
    assert!(c.beat(16_000, anew, &keys(&held)).unwrap().revoked.is_empty());
}

#[test]
fn a_lease_that_was_given_back_is_open_at_once_and_cannot_be_taken_up_again() {
    let mut c = Coordinator::new(plan(1, 2, 0));
    let worker = c.worker(0, 2);
    c.learner(0, 0, &[]);
    let held = c.grants(0, worker, 2);
    c.machine.release(ms(1), worker, &keys(&held)[..1], false).unwrap();
    let late = c.beat(2, worker, &keys(&held)).unwrap();
    assert_eq!(late.revoked, keys(&held)[..1], "a heartbeat that was overtaken by the release");
    c.machine.release(ms(3), worker, &[], true).unwrap();
    c.machine.release(ms(3), worker, &[], true).unwrap();
    let other = c.worker(3, 2);
    assert_eq!(c.leased(3, other, 2), [0, 1]);
}

#[test]
fn after_a_restart_workers_keep_their_leases_and_the_learner_says_which_still_count() {
    let mut c = Coordinator::new(plan(4, 2, 1));
    let worker = c.worker(0, 4);
    c.learner(0, 0, &[]);
    let held = c.grants(0, worker, 4);
    assert_eq!(held.len(), 4);
    c.restart();
    assert!(matches!(c.beat(0, worker, &[]), Err(Refusal::UnknownWorker { .. })));
    let anew = c.worker(0, 4);
    assert!(anew > worker, "ids are not repeated");
    let mut claims = keys(&held);
    claims.push(LeaseKey { group: GroupIndex(7), epoch: held[0].key.epoch });
    let revoked = c.beat(1, anew, &claims).unwrap().revoked;
    assert_eq!(revoked, [claims[4]], "a step that was never leased cannot be held");
    // Group 1 made it into the spool while the coordinator was away.
    c.learner(2, 0, &[1]);
    assert_eq!(c.beat(3, anew, &keys(&held)).unwrap().revoked, [held[1].key]);
    assert!(c.leased(3, anew, 4).is_empty(), "nothing is leased twice");
    let fresh = c.worker(4, 4);
    c.machine.release(ms(4), anew, &[], true).unwrap();
    let grants = c.grants(4, fresh, 4);
    assert_eq!(grants.len(), 3);
    assert!(grants.iter().all(|grant| grant.key.epoch > held[3].key.epoch));
}

#[test]
fn a_learner_that_comes_back_with_less_has_its_groups_sampled_again() {
    let mut c = Coordinator::new(plan(2, 3, 0));
    let worker = c.worker(0, 3);
    let first = c.learner(0, 0, &[]);
    c.leased(0, worker, 3);
    c.report(1, first, 0, &[0, 1, 2]).unwrap();
    let second = c.learner(2, 0, &[1]);
    assert_eq!(c.leased(3, worker, 3), [0, 2]);
    assert!(matches!(
        c.report(4, first, 1, &[]),
        Err(Refusal::SupersededLearner { current, .. }) if current == second
    ));
    // And one that has more: a whole step, and a group of the next.
    c.learner(5, 1, &[4]);
    assert_eq!(c.leased(6, worker, 3), [3, 5]);
}

#[test]
fn late_and_doubled_reports_change_nothing() {
    let mut c = Coordinator::new(plan(3, 2, 0));
    let learner = c.learner(0, 0, &[]);
    c.report(1, learner, 1, &[]).unwrap();
    c.report(2, learner, 1, &[2]).unwrap();
    let before = c.machine.snapshot(ms(2));
    c.report(2, learner, 0, &[0, 1]).unwrap();
    c.report(2, learner, 1, &[]).unwrap();
    assert_eq!(c.machine.snapshot(ms(2)), before);
}

#[test]
fn a_lease_that_was_overtaken_stays_lost_when_the_newer_one_runs_out_too() {
    let mut c = Coordinator::new(plan(1, 1, 0));
    let (first, second) = (c.worker(0, 1), c.worker(0, 1));
    c.learner(0, 0, &[]);
    let old = c.grants(0, first, 1);
    c.beat(2000, first, &[]).unwrap();
    let newer = c.grants(2000, second, 1);
    assert_eq!(newer.len(), 1);
    assert_eq!(c.beat(4000, first, &keys(&old)).unwrap().revoked, keys(&old));
    assert!(c.beat(4000, second, &keys(&newer)).unwrap().revoked.is_empty());
}

#[test]
fn a_learner_that_goes_back_ends_the_leases_of_steps_that_are_too_far_ahead() {
    let mut c = Coordinator::new(plan(4, 1, 1));
    let worker = c.worker(0, 4);
    c.learner(0, 2, &[]);
    let held = c.grants(0, worker, 4);
    assert_eq!(held.iter().map(|g| g.step.get()).collect::<Vec<_>>(), [2, 3]);
    c.learner(1, 1, &[]);
    assert_eq!(c.beat(2, worker, &keys(&held)).unwrap().revoked, [held[1].key]);
    assert_eq!(c.leased(3, worker, 4), [1]);
    c.machine.check().unwrap();
}

#[test]
fn a_worker_takes_up_no_more_leases_than_it_may_hold() {
    let mut c = Coordinator::new(plan(1, 8, 0));
    let wide = c.worker(0, 8);
    c.learner(0, 0, &[]);
    let held = c.grants(0, wide, 8);
    c.restart();
    let narrow = c.worker(0, 2);
    assert_eq!(c.beat(1, narrow, &keys(&held)).unwrap().revoked, keys(&held)[4..]);
    c.machine.check().unwrap();
}

#[test]
fn a_wrong_digest_is_refused_with_both_values() {
    let mut c = Coordinator::new(plan(1, 1, 0));
    let join = LearnerJoin {
        config_digest: ConfigDigest::new("beef"),
        endpoint: String::new(),
        committed: 0,
        spooled: Vec::new(),
        published: Vec::new(),
    };
    let error = c.machine.register_learner(ms(0), join, &mut c.records).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("beef") && text.contains(DIGEST), "{text}");
    assert!(c.machine.committed().is_none() && c.records.is_empty());
}

#[test]
fn what_cannot_be_is_refused_by_field() {
    let mut c = Coordinator::new(plan(3, 2, 0));
    let learner = c.learner(0, 0, &[]);
    let field = |refusal: Refusal| match refusal {
        Refusal::BadField { field, .. } => field,
        other => panic!("expected a bad field, found {other}"),
    };
    assert_eq!(field(c.report(1, learner, 4, &[]).unwrap_err()), "committed_steps");
    assert_eq!(field(c.report(1, learner, 0, &[6]).unwrap_err()), "spooled_groups");
    for (name, capacity, expected) in [("x".repeat(513), 1, "name"), ("w".into(), 0, "capacity")] {
        let join = WorkerJoin {
            name,
            config_digest: ConfigDigest::new(DIGEST),
            capacity,
            weights_endpoint: String::new(),
        };
        let refused = c.machine.register_worker(ms(1), join, &mut c.records).unwrap_err();
        assert_eq!(field(refused), expected);
    }
}

#[test]
fn the_wait_names_groups_worker_and_deadline() {
    let mut c = Coordinator::new(plan(2, 3, 0));
    let wait = |c: &mut Coordinator, now| c.machine.snapshot(ms(now)).waits[0].clone();
    assert_eq!(wait(&mut c, 100).name, "learner");
    let learner = c.learner(200, 0, &[]);
    assert_eq!(
        wait(&mut c, 300).to_string(),
        "groups: step 0 waits for a worker to take groups 0, 1, 2 (no worker is registered)"
    );
    assert_eq!(wait(&mut c, 300).since_ago, ms(100));
    let worker = c.worker(400, 2);
    c.leased(400, worker, 2);
    let leased = wait(&mut c, 1200);
    assert_eq!(
        leased.detail,
        "step 0 waits for groups 0, 1 (worker w2, lease ends in 1.2 s), \
         and for a worker to take group 2 (1 registered workers have not asked for them)"
    );
    assert_eq!(leased.deadline_in, ms(1200));
    c.report(1300, learner, 0, &[0, 1, 2]).unwrap();
    assert_eq!(wait(&mut c, 1400).name, "commit");
    assert_eq!(wait(&mut c, 1400).since_ago, ms(100));
    assert_eq!(wait(&mut c, 1400).deadline_in, ms(599_900));
    c.beat(8900, worker, &[]).unwrap();
    let silent = c.machine.snapshot(ms(9000)).waits;
    assert_eq!(silent.len(), 2, "the worker is heard of: {silent:?}");
    assert_eq!((silent[1].name.as_str(), silent[1].since_ago), ("learner-silent", ms(7700)));
    assert_eq!(silent[1].deadline_in, ms(60_000 - 7700));
    let silent = c.machine.snapshot(ms(9900)).waits;
    assert_eq!((silent[2].name.as_str(), silent[2].since_ago), ("worker-silent", ms(1000)));
    assert!(silent[2].detail.contains("worker w2") && silent[2].deadline_in == ms(9000));
    c.report(9901, learner, 2, &[]).unwrap();
    assert!(c.machine.snapshot(ms(9901)).waits.is_empty());
}

#[test]
fn a_lost_lease_response_costs_one_lease_time() {
    let mut c = Coordinator::new(plan(1, 1, 0));
    let worker = c.worker(0, 1);
    c.learner(0, 0, &[]);
    let lost = c.grants(0, worker, 1);
    assert_eq!(lost.len(), 1);
    c.beat(500, worker, &[]).unwrap();
    assert!(c.leased(1999, worker, 1).is_empty());
    assert_eq!(c.leased(2000, worker, 1), [0]);
}

#[test]
fn a_swap_counts_from_the_first_step_that_was_never_leased() {
    let mut c = Coordinator::new(plan(4, 1, 1));
    let worker = c.worker(0, 4);
    let learner = c.learner(0, 0, &[]);
    c.leased(0, worker, 1);
    let bound = c.machine.swap_reward(ms(1), reward("b"), None, &mut c.records).unwrap();
    c.durable();
    assert_eq!((bound.number.get(), bound.from_step), (2, StepIndex(1)));
    c.restart();
    let worker = c.worker(2, 4);
    let learner = LearnerId(c.learner(2, 0, &[]).0.max(learner.0));
    let digests = |grants: Vec<Grant>| -> Vec<(u64, String)> {
        grants.into_iter().map(|g| (g.step.get(), g.revision.digest)).collect()
    };
    assert_eq!(digests(c.grants(3, worker, 4)), [(0, "a".into()), (1, "b".into())]);
    c.report(4, learner, 2, &[]).unwrap();
    assert_eq!(digests(c.grants(5, worker, 4)), [(2, "b".into()), (3, "b".into())]);
}

#[test]
fn nothing_that_was_never_given_can_be_claimed() {
    let mut c = Coordinator::new(plan(2, 1, 0));
    let worker = c.worker(0, 1);
    c.learner(0, 0, &[]);
    c.grants(0, worker, 1);
    let lies = [
        LeaseKey { group: GroupIndex(0), epoch: LeaseEpoch(0) },
        LeaseKey { group: GroupIndex(0), epoch: LeaseEpoch(u64::MAX) },
        LeaseKey { group: GroupIndex(1), epoch: LeaseEpoch(1) },
        LeaseKey { group: GroupIndex(u64::MAX), epoch: LeaseEpoch(1) },
    ];
    assert_eq!(c.beat(1, worker, &lies).unwrap().revoked, lies);
    c.machine.check().unwrap();
}
