//! An answer under way: from the engine's tokens to what is new of each choice, with a deadline.
//!
//! Invariant: whoever drops it gives the request up, and the engine lets go of it between two steps. Each ends as
//! one answer in the counters, whatever became of it.

use crate::answer::{Collected, Head, Usage};
use crate::choice::{Choice, News};
use crate::counters::Counters;
use crate::engine::Progress;
use crate::error::Refusal;
use crate::loaded::Loaded;
use octet_policy::sampler::{Finish, TokenNote};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What nginx calls a client that went away; nobody is sent it.
const GONE: u16 = 499;

/// An answer under way.
pub(crate) struct Answering {
    pub head: Head,
    pub loaded: Arc<Loaded>,
    pub progress: watch::Receiver<Progress>,
    pub enough: Arc<[AtomicBool]>,
    pub choices: Vec<Choice>,
    pub prompt_tokens: usize,
    /// Whether log-probabilities were asked for.
    pub noted: bool,
    pub ending: Ending,
    pub timeout: Duration,
}

/// Counts how an answer ended; dropped without an end, its client went away.
pub(crate) struct Ending {
    pub counters: Arc<Counters>,
    pub since: Instant,
    pub status: Option<u16>,
    /// The server does not end while there are some.
    pub _open: TaskTrackerToken,
}

/// What the engine added to a choice.
type Added = (Vec<u32>, Vec<TokenNote>, Option<Finish>);

impl Ending {
    /// How it ended.
    pub(crate) fn with(&mut self, status: u16) {
        self.status.get_or_insert(status);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.counters.answered(self.status.unwrap_or(GONE), self.since.elapsed());
    }
}

impl Answering {
    /// Tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        let completion = self.choices.iter().map(Choice::tokens).sum();
        Usage { prompt: self.prompt_tokens, completion }
    }

    /// What is new, by choice; nothing when all have ended. Safe to cancel.
    ///
    /// # Errors
    /// The deadline passed, or the engine gave the request up.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(usize, News)>>, Refusal> {
        if self.choices.iter().all(Choice::ended) {
            self.ending.with(200);
            return Ok(None);
        }
        let news = self.news().await;
        if let Err(refusal) = &news {
            self.ending.with(refusal.status().as_u16());
        }
        news.map(Some)
    }

    async fn news(&mut self) -> Result<Vec<(usize, News)>, Refusal> {
        let deadline = self.ending.since + self.timeout;
        let first = self.choices.iter().all(|choice| choice.tokens() == 0);
        loop {
            match timeout_at(deadline, self.progress.changed()).await {
                Err(_late) => return Err(Refusal::Late(self.timeout)),
                // The engine never lets go of a request without a last word; its thread is gone.
                Ok(Err(_closed)) => return Err(Refusal::CutOff),
                Ok(Ok(())) => {}
            }
            let added = self.added()?;
            let mut all = Vec::new();
            for (index, (tokens, notes, finish)) in added.into_iter().enumerate() {
                let Some(choice) = self.choices.get_mut(index) else { continue };
                if choice.ended() || (tokens.is_empty() && finish.is_none()) {
                    continue;
                }
                let news = choice
                    .push(&self.loaded, &tokens, &notes, finish)
                    .map_err(|error| Refusal::Failed(error.to_string()))?;
                if news.finish.is_some() && finish.is_none() {
                    self.enough[index].store(true, Ordering::Relaxed);
                }
                all.push((index, news));
            }
            if first && !all.is_empty() {
                let counters = &self.ending.counters;
                counters.first_token(self.ending.since.elapsed());
            }
            if !all.is_empty() {
                return Ok(all);
            }
        }
    }

    /// What the engine added since the last time.
    fn added(&mut self) -> Result<Vec<Added>, Refusal> {
        let progress = self.progress.borrow_and_update();
        if let Some(why) = &progress.failed {
            return Err(why.clone());
        }
        let added = progress.samples.iter().zip(&self.choices).map(|(sampled, choice)| {
            let from = choice.tokens().min(sampled.tokens.len());
            let notes = sampled.notes.get(from..).unwrap_or_default().to_vec();
            (sampled.tokens[from..].to_vec(), notes, sampled.finish)
        });
        Ok(added.collect())
    }

    /// The whole answer; `first` is what was new already.
    ///
    /// # Errors
    /// As [`Answering::next`].
    pub(crate) async fn whole(mut self, first: Vec<(usize, News)>) -> Result<Value, Refusal> {
        let mut collected: Vec<Collected> = Vec::new();
        collected.resize_with(self.choices.len(), Collected::default);
        let mut news = Some(first);
        while let Some(some) = news {
            for (index, news) in some {
                collected[index].add(news);
            }
            news = self.next().await?;
        }
        let whole = self.head.whole(&self.loaded, collected, self.usage(), self.noted);
        whole.map_err(|error| Refusal::Failed(error.to_string()))
    }
}
