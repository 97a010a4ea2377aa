#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use octet_proto::reward::{ScoreFailure, ScoreOutcome, ScoreResponse, Scored};
use octet_runtime::backoff::Backoff;
use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use super::book::{Answered, Book};
use super::health::{Change, Why};
use super::replica::{Range, judge};
use super::{Failure, Question};
use crate::assembly::Reward;
use crate::groups::JobId;

const PATIENCE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;

fn book(replicas: usize) -> Book {
    Book::new(replicas, ATTEMPTS, PATIENCE, Backoff::quick(1))
}

fn question(sample: u32) -> Question {
    Question {
        job: JobId(1),
        group: 1,
        sample,
        completion: String::new(),
        example_json: Arc::from("{}"),
    }
}

fn reward() -> Result<Reward, Failure> {
    Ok(Reward { reward: 1.0, verdict: String::new(), detail: String::new() })
}

fn failure(retryable: bool) -> Result<Reward, Failure> {
    Err(Failure { kind: "threw".to_owned(), message: String::new(), retryable })
}

#[derive(Clone, Debug)]
enum Act {
    Ask,
    Up(usize),
    Down(usize),
    /// Answers the n-th open request.
    Answer(usize, bool),
    /// Answers a request again, or from another replica.
    Echo(usize, usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Ask),
        2 => (0usize..3).prop_map(Act::Up),
        1 => (0usize..3).prop_map(Act::Down),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(n, good)| Act::Answer(n, good)),
        1 => (any::<usize>(), 0usize..3).prop_map(|(n, replica)| Act::Echo(n, replica)),
        1 => (0u64..12).prop_map(Act::Pass),
    ]
}

/// What the replicas have been asked and not answered, and what is settled.
#[derive(Default)]
struct Model {
    open: BTreeMap<u64, (usize, u32)>,
    seen: Vec<u64>,
    settled: BTreeSet<u32>,
    /// Replicas that were taken out at some time: what they had went to others.
    taken_out: BTreeSet<usize>,
}

impl Model {
    fn dispatch(&mut self, book: &mut Book, up: &[bool; 3], now: Instant) {
        for change in book.changes() {
            if let Change::TakenOut { replica, .. } = change {
                self.taken_out.insert(replica);
            }
        }
        for (replica, request) in book.dispatch(now) {
            assert!(up[replica], "nothing goes to a replica that is away");
            self.open.insert(request.id, (replica, request.sample));
            self.seen.push(request.id);
        }
        for replica in 0..3 {
            let load = self.open.values().filter(|(at, _)| *at == replica).count();
            assert!(load <= 2, "replica {replica} has {load}");
        }
    }

    fn settle(&mut self, answered: Answered) {
        if let Answered::Settled(settled) = answered {
            assert!(self.settled.insert(settled.sample), "settled twice: {settled:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_question_is_settled_exactly_once_whatever_the_replicas_do(
        acts in proptest::collection::vec(act(), 0..120),
    ) {
        let (mut book, mut model) = (book(3), Model::default());
        let (mut up, mut now, mut asked) = ([false; 3], Instant::now(), 0u32);
        for act in acts {
            match act {
                Act::Ask => {
                    book.ask(question(asked));
                    asked += 1;
                }
                Act::Up(replica) if !up[replica] => {
                    up[replica] = true;
                    book.up(replica, 2);
                }
                Act::Up(_) => {}
                Act::Down(replica) => {
                    up[replica] = false;
                    book.down(replica);
                    model.open.retain(|_, (at, _)| *at != replica);
                }
                Act::Answer(n, good) => {
                    let open: Vec<u64> = model.open.keys().copied().collect();
                    if !open.is_empty() {
                        let id = open[n % open.len()];
                        let (replica, _) = model.open.remove(&id).unwrap();
                        let outcome = if good { reward() } else { failure(true) };
                        let answered = book.answered(replica, id, outcome, now);
                        let known = answered != Answered::Unknown;
                        let taken = book.changes().iter().any(|change| {
                            matches!(change, Change::TakenOut { replica: r, .. } if *r == replica)
                        });
                        if taken {
                            model.taken_out.insert(replica);
                        }
                        prop_assert!(known || model.taken_out.contains(&replica));
                        model.settle(answered);
                    }
                }
                Act::Echo(n, replica) => {
                    if !model.seen.is_empty() {
                        let id = model.seen[n % model.seen.len()];
                        if model.open.get(&id).is_none_or(|(at, _)| *at != replica) {
                            let answered = book.answered(replica, id, reward(), now);
                            prop_assert_eq!(answered, Answered::Unknown);
                        }
                    }
                }
                Act::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    let (hanging, failed) = book.overdue(now);
                    for replica in hanging {
                        up[replica] = false;
                        model.open.retain(|_, (at, _)| *at != replica);
                    }
                    failed.into_iter().for_each(|failed| model.settle(failed));
                }
            }
            model.dispatch(&mut book, &up, now);
            prop_assert_eq!(book.open() + model.settled.len(), asked as usize);
        }
        // A replica that answers everything in the end settles all that is left.
        for replica in 0..3 {
            book.up(replica, 2);
        }
        for _ in 0..2 * asked + 1 {
            now += Duration::from_secs(3);
            model.dispatch(&mut book, &[true; 3], now);
            for (id, (replica, _)) in std::mem::take(&mut model.open) {
                let answered = book.answered(replica, id, reward(), now);
                model.settle(answered);
            }
        }
        prop_assert_eq!(model.settled.len(), asked as usize);
        prop_assert_eq!(book.open(), 0);
    }
}

#[test]
fn questions_go_to_who_has_the_least_to_do_and_retries_to_another() {
    let (mut book, now) = (book(2), Instant::now());
    book.up(0, 8);
    book.up(1, 8);
    (0..4).for_each(|sample| book.ask(question(sample)));
    let sent = book.dispatch(now);
    let at: Vec<usize> = sent.iter().map(|(replica, _)| *replica).collect();
    assert_eq!(at, [0, 1, 0, 1]);
    // Replica 0 has less to do after its failure, and is avoided all the same.
    assert_eq!(book.answered(0, sent[0].1.id, failure(true), now), Answered::Again);
    assert!(book.dispatch(now).is_empty(), "it rests first");
    let later = book.wake(now).unwrap();
    assert!(later > now && later < now + PATIENCE);
    let again = book.dispatch(later);
    assert_eq!((again.len(), again[0].0, again[0].1.sample), (1, 1, 0));
}

#[test]
fn attempts_are_bounded_and_what_cannot_pass_is_not_tried_again() {
    let (mut book, mut now) = (book(1), Instant::now());
    book.up(0, 8);
    book.ask(question(0));
    for attempt in 1..=ATTEMPTS {
        now += Duration::from_secs(5);
        let sent = book.dispatch(now);
        let answered = book.answered(0, sent[0].1.id, failure(true), now);
        let last = matches!(&answered, Answered::Settled(settled) if settled.outcome.is_err());
        assert_eq!(last, attempt == ATTEMPTS, "attempt {attempt}: {answered:?}");
    }
    book.ask(question(1));
    let sent = book.dispatch(now);
    let answered = book.answered(0, sent[0].1.id, failure(false), now);
    assert!(matches!(answered, Answered::Settled(_)));
}

#[test]
fn what_is_taken_back_keeps_its_replica_busy_until_it_answers() {
    let (mut book, now) = (book(1), Instant::now());
    book.up(0, 1);
    book.ask(question(0));
    let sent = book.dispatch(now);
    book.forget(JobId(1));
    assert_eq!(book.open(), 0);
    book.ask(Question { job: JobId(2), ..question(0) });
    assert!(book.dispatch(now).is_empty(), "the replica has its one question");
    assert_eq!(book.answered(0, sent[0].1.id, reward(), now), Answered::Unknown);
    assert_eq!(book.dispatch(now).len(), 1);
}

#[test]
fn what_a_failing_replica_has_goes_to_another_which_gets_all_until_a_probe_is_answered() {
    let (mut book, mut now) = (book(2), Instant::now());
    book.up(0, 8);
    book.up(1, 8);
    (0..8).for_each(|sample| book.ask(question(sample)));
    let sent = book.dispatch(now);
    let of = |replica| sent.iter().filter(move |(at, _)| *at == replica).map(|(_, r)| r.id);
    for id in of(0).take(3) {
        assert_eq!(book.answered(0, id, failure(true), now), Answered::Again);
    }
    let pause = Duration::from_secs(2);
    assert_eq!(book.changes(), [Change::TakenOut { replica: 0, why: Why::Failing, pause }]);
    // The fourth question of replica 0 is asked of the other one at once.
    let again = book.dispatch(now);
    assert_eq!((again.len(), again[0].0, again[0].1.sample), (1, 1, 6));
    let late = of(0).nth(3).unwrap();
    assert_eq!(book.answered(0, late, reward(), now), Answered::Unknown);
    now += pause / 2;
    assert!(book.dispatch(now).iter().all(|(replica, _)| *replica == 1), "it rests");
    for id in of(1) {
        book.answered(1, id, reward(), now);
    }
    now += pause * 2;
    (8..12).for_each(|sample| book.ask(question(sample)));
    let sent = book.dispatch(now);
    let probes: Vec<u64> = sent.iter().filter(|(at, _)| *at == 0).map(|(_, r)| r.id).collect();
    assert_eq!(probes.len(), 1);
    book.answered(0, probes[0], reward(), now);
    assert_eq!(book.changes(), [Change::TakenBack { replica: 0 }]);
}

#[test]
fn what_a_server_may_not_say_is_a_named_failure() {
    let range = Range { min: 0.0, max: 1.0 };
    let scored = |reward| {
        let outcome = ScoreOutcome::Scored(Scored { reward, ..Scored::default() });
        ScoreResponse { id: 0, outcome: Some(outcome) }
    };
    for (reward, kind) in [
        (f64::NAN, "not-finite"),
        (f64::INFINITY, "not-finite"),
        (3.7, "out-of-range"),
        (-0.1, "out-of-range"),
    ] {
        let failure = judge(scored(reward), range).unwrap_err();
        assert_eq!((failure.kind.as_str(), failure.retryable), (kind, false));
        assert!(failure.message.contains("expected") && failure.message.contains("found"));
    }
    for reward in [0.0, 0.5, 1.0] {
        assert_eq!(judge(scored(reward), range).unwrap().reward, reward);
    }
    let no_range = Range { min: 0.0, max: 0.0 };
    assert_eq!(judge(scored(3.7), no_range).unwrap().reward, 3.7, "a server that names no range");
    let silent = judge(ScoreResponse { id: 0, outcome: None }, range).unwrap_err();
    assert_eq!(silent.kind, "no-outcome");
    let failure = ScoreFailure { kind: "threw".into(), message: "x".into(), retryable: true };
    let outcome = Some(ScoreOutcome::Failure(failure));
    let failure = judge(ScoreResponse { id: 0, outcome }, range).unwrap_err();
    assert!(failure.retryable && failure.kind == "threw");
}
