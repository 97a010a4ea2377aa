//! Each wire of a run blocked in turn: what waits for it says so in the status, by name, since when and
//! until when; and when the wire is free again, the run goes on by itself.

use std::time::Duration;

use crate::simulated::faults::Fault;
use crate::simulated::observer::Seen;
use crate::simulated::roles::{COORDINATOR, LEARNER, REWARDS, stage, worker_name};
use crate::simulated::verdict::{Left, check_status};
use crate::simulated::{Cast, Disk, Shape, network, on_one_thread};
use octet_proto::coordinator::{GetStatusResponse, Wait};

const SHAPE: Shape = Shape { steps: 4, batch: 4, lag: 0, swap_at: None };
/// How long a wire is blocked: longer than any deadline of those who wait for it but a person's.
const BLOCKED: Duration = Duration::from_secs(15);
/// Within how long the wait has to be in the status.
const TOLD: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(120);

/// Whose wait it is.
enum Whose {
    Run,
    AnyWorker,
}

struct Case {
    what: &'static str,
    workers: usize,
    links: Vec<(String, String)>,
    /// From when on it is blocked; from the beginning where there is nothing to wait for.
    when: Option<fn(&GetStatusResponse) -> bool>,
    whose: Whose,
    /// The names of the waits that have to be told while it is blocked.
    names: &'static [&'static str],
    /// What its detail has to name.
    detail: &'static str,
}

impl Case {
    fn waits<'a>(&self, status: &'a GetStatusResponse) -> Vec<&'a Wait> {
        let workers = status.workers.iter().flat_map(|worker| &worker.waits);
        let all: Vec<&Wait> = match self.whose {
            Whose::Run => status.waits.iter().collect(),
            Whose::AnyWorker => workers.collect(),
        };
        let named = |wait: &&Wait| {
            self.names.contains(&wait.name.as_str()) && wait.detail.contains(self.detail)
        };
        all.into_iter().filter(named).collect()
    }
}

/// Blocks the wires of a case in one way, and reads the status.
fn block(case: &Case, fault: fn(String, String) -> Fault) {
    let disk = Disk::new();
    let ms = Duration::from_millis;
    let cast = Cast {
        workers: (0..case.workers).map(|at| (2, ms(60 + 30 * at as u64))).collect(),
        learns: ms(1000),
        ..Cast::default()
    };
    let mut sim = network(1, LONGEST);
    stage(&mut sim, &disk, SHAPE, &cast);
    let seen = Seen::watch(&mut sim);
    let faults: Vec<Fault> = case.links.iter().map(|(a, b)| fault(a.clone(), b.clone())).collect();
    let how = format!("{}: {:?}", case.what, faults[0]);
    let (mut from, mut freed) = (None, false);
    if case.when.is_none() {
        from = Some(Duration::ZERO);
        faults.iter().for_each(|fault| fault.begin(&mut sim));
    }
    loop {
        let over = sim.step().unwrap_or_else(|e| panic!("{how}: {e}; {}", seen.waits()));
        let now = sim.elapsed();
        let begins = |status: GetStatusResponse| case.when.is_some_and(|when| when(&status));
        if from.is_none() && seen.last().is_some_and(begins) {
            from = Some(now);
            faults.iter().for_each(|fault| fault.begin(&mut sim));
        }
        if !freed && from.is_some_and(|from| now >= from + BLOCKED) {
            freed = true;
            faults.iter().for_each(|fault| fault.end(&mut sim));
        }
        if over {
            break;
        }
    }
    drop(sim);
    let from = from.unwrap_or_else(|| panic!("{how}: was never blocked"));
    let told: Vec<(Duration, Wait)> = seen
        .all()
        .iter()
        .filter(|(at, _)| (from..from + BLOCKED).contains(at))
        .flat_map(|(at, status)| case.waits(status).into_iter().map(|wait| (*at, wait.clone())))
        .collect();
    for name in case.names {
        let named: Vec<&(Duration, Wait)> =
            told.iter().filter(|(_, wait)| wait.name == *name).collect();
        let first = named.first();
        let (at, first) = first.unwrap_or_else(|| panic!("{how}: no {name} among {told:?}"));
        assert!(*at - from < TOLD, "{how}: {name} is told after {:?}", *at - from);
        assert!(first.deadline_in_ms > 0, "{how}: until when? {first:?}");
        // It is the same wait all along, and not a new one at each attempt.
        let longest = named.iter().map(|(_, wait)| wait.since_ms_ago).max().unwrap_or_default();
        assert!(longest >= 1000, "{how}: since when? {named:?}");
        eprintln!("{how}: after {:?} \"{name}\": {}", *at - from, first.detail);
    }
    Left::read(&disk, SHAPE).check(SHAPE);
    check_status(&seen.last().unwrap(), SHAPE);
}

fn between(one: &str, others: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    others.into_iter().map(|other| (one.to_owned(), other)).collect()
}

/// Groups are under way.
fn leased(status: &GetStatusResponse) -> bool {
    status.committed_steps == 0 && status.leased_groups > 0
}

/// A step is being learned: the workers want its version next.
fn learning(status: &GetStatusResponse) -> bool {
    status.committed_steps == 0 && status.spooled_groups == SHAPE.batch
}

fn cases() -> Vec<Case> {
    let both = [worker_name(0), worker_name(1)];
    vec![
        Case {
            what: "worker to coordinator",
            workers: 2,
            links: between(COORDINATOR, [worker_name(0)]),
            when: Some(leased),
            whose: Whose::Run,
            names: &["worker-silent"],
            detail: "worker-0",
        },
        Case {
            what: "worker to reward",
            workers: 2,
            links: REWARDS[..2].iter().flat_map(|reward| between(reward, both.clone())).collect(),
            when: Some(leased),
            whose: Whose::AnyWorker,
            names: &["reward scores", "reward replica"],
            detail: "",
        },
        Case {
            what: "worker to learner, with scored groups",
            workers: 2,
            links: between(LEARNER, both.clone()),
            when: Some(leased),
            whose: Whose::AnyWorker,
            names: &["delivery receipt"],
            detail: "group",
        },
        Case {
            what: "worker to learner, for weights",
            workers: 1,
            links: between(LEARNER, [worker_name(0)]),
            when: Some(learning),
            whose: Whose::AnyWorker,
            names: &["weights"],
            detail: "from http://learner:7000",
        },
        Case {
            what: "learner to coordinator",
            workers: 2,
            links: between(COORDINATOR, [LEARNER.to_owned()]),
            when: Some(leased),
            whose: Whose::Run,
            names: &["learner-silent"],
            detail: "http://learner:7000",
        },
        Case {
            what: "learner to coordinator, from the beginning",
            workers: 2,
            links: between(COORDINATOR, [LEARNER.to_owned()]),
            when: None,
            whose: Whose::Run,
            names: &["learner"],
            detail: "no learner has registered",
        },
    ]
}

#[test]
fn a_wire_that_loses_everything_has_its_wait_in_the_status() {
    on_one_thread(|| cases().iter().for_each(|case| block(case, Fault::Partition)));
}

#[test]
fn a_wire_that_is_silent_has_its_wait_in_the_status() {
    on_one_thread(|| cases().iter().for_each(|case| block(case, Fault::Hold)));
}

#[test]
fn a_worker_that_is_silent_to_others_has_its_wait_in_the_status() {
    // The first two fetch a version from the learner, all others from one of these.
    let workers: Vec<String> = (0..4).map(worker_name).collect();
    let pairs = workers
        .iter()
        .enumerate()
        .flat_map(|(at, one)| between(one, workers[at + 1..].iter().cloned()));
    let case = Case {
        what: "worker to worker, for weights",
        workers: 4,
        links: pairs.collect(),
        when: Some(learning),
        whose: Whose::AnyWorker,
        names: &["weights"],
        detail: "from http://worker-",
    };
    on_one_thread(|| block(&case, Fault::Hold));
}
