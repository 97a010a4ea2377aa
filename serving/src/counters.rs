//! What the server counts, for scrapers and autoscalers.
//!
//! Invariant: counting costs a lock that is held for a few additions; nothing waits for a scraper.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper ends of the classes of latencies, in seconds; one more is without end.
pub const CLASSES: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// What the speed is taken over.
const WINDOW: Duration = Duration::from_secs(10);

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Seconds, together.
    pub sum: f64,
    /// How many fell into each class of [`CLASSES`] and in none before it; the last is without end.
    pub classes: [u64; CLASSES.len() + 1],
}

/// The numbers at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Requests that wait for room in the batch.
    pub waiting: usize,
    /// How many may.
    pub waiting_most: usize,
    /// Requests in the batch.
    pub running: usize,
    /// Answers by HTTP status, of completions alone.
    pub answers: Vec<(u16, u64)>,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub completion_tokens: u64,
    /// Tokens sampled per second, over the last ten.
    pub tokens_per_second: f64,
    /// From a request to its place in the batch.
    pub queued: Latency,
    /// From a request to its first token.
    pub first_token: Latency,
    /// From a request to the end of its answer.
    pub whole: Latency,
    /// Decoding steps.
    pub step: Latency,
    /// Policies that took over while the server ran.
    pub swaps: u64,
    /// The name of the model.
    pub model: String,
    /// Digest of the weights that new requests are sampled with, hex.
    pub weights: String,
}

/// Counts.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    numbers: Numbers,
    /// A request that was taken out of the mailbox and has no room yet.
    held: usize,
    speed: Speed,
    /// A moving mean of seconds per request.
    usual: Option<f64>,
}

/// Tokens of the second that goes on and of those before.
#[derive(Debug, Default)]
struct Speed {
    tokens: std::collections::VecDeque<(Instant, u64)>,
}

impl Latency {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = CLASSES.iter().position(|end| seconds <= *end).unwrap_or(CLASSES.len());
        self.sum += seconds;
        self.classes[class] += 1;
    }
}

impl Speed {
    fn add(&mut self, now: Instant, tokens: u64) {
        self.tokens.push_back((now, tokens));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.tokens.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.tokens.pop_front();
        }
    }

    fn per_second(&mut self, now: Instant) -> f64 {
        self.forget(now);
        self.tokens.iter().map(|(_, tokens)| *tokens as f64).sum::<f64>() / WINDOW.as_secs_f64()
    }
}

impl Counters {
    fn with<R>(&self, work: impl FnOnce(&mut Counts) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How full the batch is.
    pub(crate) fn batch(&self, running: usize, held: usize) {
        self.with(|counts| (counts.numbers.running, counts.held) = (running, held));
    }

    /// A request came into the batch.
    pub(crate) fn began(&self, queued: Duration, prompt: usize) {
        self.with(|counts| {
            counts.numbers.queued.add(queued);
            counts.numbers.prompt_tokens += prompt as u64;
        });
    }

    pub(crate) fn step(&self, tokens: u64, took: Duration) {
        self.with(|counts| {
            counts.numbers.completion_tokens += tokens;
            counts.numbers.step.add(took);
            counts.speed.add(Instant::now(), tokens);
        });
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.with(|counts| counts.numbers.first_token.add(after));
    }

    /// A request was answered, or refused.
    pub(crate) fn answered(&self, status: u16, after: Duration) {
        self.with(|counts| {
            let answers = &mut counts.numbers.answers;
            match answers.iter_mut().find(|(known, _)| *known == status) {
                Some((_, count)) => *count += 1,
                None => answers.push((status, 1)),
            }
            if status == 200 {
                let seconds = after.as_secs_f64();
                counts.numbers.whole.add(after);
                counts.usual =
                    Some(counts.usual.map_or(seconds, |usual| usual * 0.9 + seconds * 0.1));
            }
        });
    }

    /// Another policy took over.
    pub(crate) fn swapped(&self) {
        self.with(|counts| counts.numbers.swaps += 1);
    }

    /// When one of `waiting` requests in front of a new one may have ended.
    pub(crate) fn retry_after(&self, waiting: usize) -> Duration {
        self.with(|counts| {
            let together = counts.numbers.running.max(1) as f64;
            let seconds = counts.usual.unwrap_or(1.0) * waiting as f64 / together;
            Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
        })
    }

    /// The numbers now, but for what others know.
    pub(crate) fn numbers(&self) -> Numbers {
        self.with(|counts| {
            let tokens_per_second = counts.speed.per_second(Instant::now());
            Numbers { tokens_per_second, waiting: counts.held, ..counts.numbers.clone() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_classes() {
        let mut latency = Latency::default();
        for seconds in [0.001, 0.005, 0.3, 1000.0] {
            latency.add(Duration::from_secs_f64(seconds));
        }
        assert_eq!((latency.classes[0], latency.classes[6], latency.classes[14]), (2, 1, 1));
        assert!((latency.sum - 1000.306).abs() < 1e-9);
    }

    #[test]
    fn the_speed_is_that_of_the_last_ten_seconds() {
        let (mut speed, now) = (Speed::default(), Instant::now());
        speed.add(now, 500);
        speed.add(now + Duration::from_secs(6), 20);
        assert!((speed.per_second(now + Duration::from_secs(6)) - 52.0).abs() < 1e-9);
        assert!((speed.per_second(now + Duration::from_secs(11)) - 2.0).abs() < 1e-9);
        assert!(speed.per_second(now + Duration::from_secs(30)).abs() < 1e-9);
    }

    #[test]
    fn whoever_is_turned_away_is_told_when_there_may_be_room() {
        let counters = Counters::default();
        assert_eq!(counters.retry_after(1), Duration::from_secs(1), "nothing is known yet");
        counters.answered(200, Duration::from_secs(4));
        counters.batch(2, 0);
        assert_eq!(counters.retry_after(5), Duration::from_secs(10));
        assert_eq!(counters.retry_after(10_000), Duration::from_secs(60));
    }
}
