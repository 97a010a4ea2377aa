//! Which question is with which replica.
//!
//! Invariants: a question is in one place: waiting, resting after a failure, or with one replica; no
//! replica has more than it takes; an answer counts only from the replica that has the question; what a
//! replica has that is taken out is given to others at once, and with nobody else there it is asked all the same.

use std::collections::{BTreeMap, VecDeque};

use octet_proto::reward::ScoreRequest;
use octet_runtime::backoff::Backoff;
use tokio::time::{Duration, Instant};

use super::health::{Change, Health, Rules};
use super::{Failure, Question, Settled};
use crate::assembly::Reward;
use crate::groups::JobId;

/// The questions of one revision.
#[derive(Debug)]
pub(super) struct Book {
    attempts: u32,
    patience: Duration,
    backoff: Backoff,
    /// How many questions each replica takes at once; none while it is away.
    room: Vec<Option<usize>>,
    health: Health,
    next_id: u64,
    waiting: VecDeque<Asked>,
    resting: Vec<(Instant, Asked)>,
    sent: BTreeMap<u64, Sent>,
    /// How long the last answer took.
    took: Option<Duration>,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    failed: u32,
    /// The replica that failed last: another one is tried first.
    avoid: Option<usize>,
}

#[derive(Debug)]
struct Sent {
    /// None when it was taken back: the replica is busy with it all the same.
    asked: Option<Asked>,
    replica: usize,
    since: Instant,
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answered {
    /// The question has its outcome.
    Settled(Settled),
    /// It failed, and is asked again.
    Again,
    /// It was taken back, or is with another replica by now.
    Unknown,
}

impl Book {
    pub(super) fn new(
        replicas: usize,
        attempts: u32,
        patience: Duration,
        backoff: Backoff,
    ) -> Self {
        Self {
            attempts,
            patience,
            backoff,
            room: vec![None; replicas],
            health: Health::new(replicas, Rules::default()),
            next_id: 0,
            waiting: VecDeque::new(),
            resting: Vec::new(),
            sent: BTreeMap::new(),
            took: None,
        }
    }

    /// Takes a question in.
    pub(super) fn ask(&mut self, question: Question) {
        self.waiting.push_back(Asked { question, failed: 0, avoid: None });
    }

    /// Takes a job's questions back.
    pub(super) fn forget(&mut self, job: JobId) {
        self.waiting.retain(|asked| asked.question.job != job);
        self.resting.retain(|(_, asked)| asked.question.job != job);
        for sent in self.sent.values_mut() {
            sent.asked.take_if(|asked| asked.question.job == job);
        }
    }

    /// A replica is there and takes so many questions at once.
    pub(super) fn up(&mut self, replica: usize, room: usize) {
        self.room[replica] = Some(room);
    }

    /// A replica is away: what it left unanswered waits again, in front.
    pub(super) fn down(&mut self, replica: usize) {
        self.room[replica] = None;
        let left = self.take_sent(|sent| sent.replica == replica);
        let left: Vec<Asked> = left.into_iter().filter_map(|sent| sent.asked).collect();
        left.into_iter().rev().for_each(|asked| self.waiting.push_front(asked));
    }

    /// Gives what waits to the replicas with the least to do.
    pub(super) fn dispatch(&mut self, now: Instant) -> Vec<(usize, ScoreRequest)> {
        for (_, asked) in self.resting.extract_if(.., |(until, _)| *until <= now) {
            self.waiting.push_back(asked);
        }
        let mut load = vec![0; self.room.len()];
        self.sent.values().for_each(|sent| load[sent.replica] += 1);
        let mut requests = Vec::new();
        while let Some(asked) = self.waiting.pop_front() {
            let free = (0..load.len()).filter(|r| load[*r] < self.room_of(*r, now));
            let Some(replica) = free.min_by_key(|r| (asked.avoid == Some(*r), load[*r])) else {
                self.waiting.push_front(asked);
                break;
            };
            load[replica] += 1;
            let id = self.next_id;
            self.next_id += 1;
            requests.push((replica, request(id, &asked.question)));
            self.sent.insert(id, Sent { asked: Some(asked), replica, since: now });
        }
        requests
    }

    /// Takes an answer in.
    pub(super) fn answered(
        &mut self,
        replica: usize,
        id: u64,
        outcome: Result<Reward, Failure>,
        now: Instant,
    ) -> Answered {
        let Some(since) = self.sent.get(&id).filter(|s| s.replica == replica).map(|s| s.since)
        else {
            return Answered::Unknown;
        };
        let up: Vec<bool> = self.room.iter().map(Option::is_some).collect();
        let took = now.saturating_duration_since(since);
        self.took = Some(took);
        match &outcome {
            // The machine's doing, where another one may do better.
            Err(failure) if failure.retryable => self.health.failed(replica, |r| up[r], now),
            _ => self.health.answered(replica, took, |r| up[r], now),
        }
        let asked = self.sent.remove(&id).and_then(|sent| sent.asked);
        let answered = match (asked, outcome) {
            (None, _) => Answered::Unknown,
            (Some(asked), Ok(reward)) => Answered::Settled(asked.settled(Ok(reward))),
            (Some(asked), Err(failure)) => self.failed(asked, replica, failure, now),
        };
        self.take_from_the_resting();
        answered
    }

    /// How long the last answer took that counted; told once.
    pub(super) fn took(&mut self) -> Option<Duration> {
        self.took.take()
    }

    /// Replicas that were taken out or back since the last time that this was asked.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        self.health.changes()
    }

    /// How many questions a replica may have now. With nobody in, whoever is there has to do.
    fn room_of(&self, replica: usize, now: Instant) -> usize {
        let Some(room) = self.room[replica] else { return 0 };
        let somebody = (0..self.room.len()).any(|r| self.room[r].is_some() && self.health.is_in(r));
        if somebody { self.health.room(replica, room, now) } else { room }
    }

    /// What a replica has that was taken out goes to the others, in front; it stays busy with it.
    fn take_from_the_resting(&mut self) {
        let somebody = (0..self.room.len()).any(|r| self.room[r].is_some() && self.health.is_in(r));
        let resting = |sent: &&mut Sent| somebody && !self.health.is_in(sent.replica);
        let taken = self.sent.values_mut().filter(resting).filter_map(|sent| sent.asked.take());
        let taken: Vec<Asked> = taken.collect();
        taken.into_iter().rev().for_each(|asked| self.waiting.push_front(asked));
    }

    /// Replicas that have had a question for too long. Each counts as hanging: the question failed,
    /// and the replica is down.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<usize>, Vec<Answered>) {
        let patience = self.patience;
        let late = self.take_sent(|sent| now >= sent.since + patience);
        let mut replicas: Vec<usize> = late.iter().map(|sent| sent.replica).collect();
        replicas.sort_unstable();
        replicas.dedup();
        let failed = late.into_iter().filter_map(|sent| {
            let failure = Failure {
                kind: "timed-out".to_owned(),
                message: format!("expected an answer within {patience:?}, found none"),
                retryable: true,
            };
            Some(self.failed(sent.asked?, sent.replica, failure, now))
        });
        let failed = failed.collect();
        for replica in &replicas {
            let up: Vec<bool> = self.room.iter().map(Option::is_some).collect();
            self.health.hung(*replica, |r| up[r], now);
            self.down(*replica);
        }
        (replicas, failed)
    }

    /// When to look again, if nothing happens before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let rested = self.resting.iter().map(|(until, _)| *until);
        let late = self.sent.values().map(|sent| sent.since + self.patience);
        // A replica that has rested is worth a look only if something waits for one.
        let back = self.health.wake(now).filter(|_| !self.waiting.is_empty());
        rested.chain(late).chain(back).min()
    }

    /// Questions that have no answer yet.
    pub(super) fn open(&self) -> usize {
        let sent = self.sent.values().filter(|sent| sent.asked.is_some());
        self.waiting.len() + self.resting.len() + sent.count()
    }

    /// Whether any replica is there.
    pub(super) fn has_replica(&self) -> bool {
        self.room.iter().any(Option::is_some)
    }

    /// Takes out what is with the replicas and fits, in the order in which it was sent.
    fn take_sent(&mut self, fits: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let (taken, left) = std::mem::take(&mut self.sent).into_iter().partition(|(_, s)| fits(s));
        self.sent = left;
        let taken: BTreeMap<u64, Sent> = taken;
        taken.into_values().collect()
    }

    fn failed(
        &mut self,
        mut asked: Asked,
        replica: usize,
        failure: Failure,
        now: Instant,
    ) -> Answered {
        asked.failed += 1;
        if !failure.retryable || asked.failed >= self.attempts {
            return Answered::Settled(asked.settled(Err(failure)));
        }
        asked.avoid = Some(replica);
        self.resting.push((now + self.backoff.delay(asked.failed - 1), asked));
        Answered::Again
    }
}

impl Asked {
    fn settled(self, outcome: Result<Reward, Failure>) -> Settled {
        let Question { job, group, sample, .. } = self.question;
        Settled { job, group, sample, outcome }
    }
}

fn request(id: u64, question: &Question) -> ScoreRequest {
    ScoreRequest {
        id,
        group: question.group,
        sample: question.sample,
        completion: question.completion.clone(),
        example_json: question.example_json.to_string(),
    }
}
