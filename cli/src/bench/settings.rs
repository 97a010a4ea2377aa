//! How large the measured work is, and the tokens that it consists of.
//!
//! Invariant: tokens are a function of the seed, so every repetition and every part measures the same work.

use super::shape::Subject;
use anyhow::{Result, bail};
use octet_learner::{LearnerConfig, RunShape};
use octet_policy::kernel::head::Shaping;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::num::{NonZeroU64, NonZeroUsize};

/// The size of the work.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Groups of a step.
    pub groups: NonZeroUsize,
    /// Completions of a group.
    pub completions: usize,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens of a completion.
    pub new: usize,
    /// Completions that are decoded together.
    pub rows: usize,
    /// Tokens that are learned at once.
    pub micro_batch_tokens: NonZeroUsize,
    /// How many versions old the sampling policy of the whole step is.
    pub lag: u64,
    /// Measured repetitions, after one that is not.
    pub repeats: usize,
    /// Threads to compute with.
    pub threads: usize,
    /// Seed of weights and tokens.
    pub seed: u64,
}

/// Ids below this are left out: they are special tokens in most vocabularies.
const SPECIAL: u32 = 5;
/// Ids from here on are left out, so that all vocabularies get the same prompts.
const LARGEST: u32 = 4096;

impl Settings {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Names the flag, what it may be, and what it was.
    pub fn check(&self, subject: &Subject) -> Result<()> {
        let context = subject.config.max_position_embeddings;
        if self.completions < 2 {
            bail!(
                "--completions: expected at least 2, found {}: advantages compare the completions of a group",
                self.completions
            );
        }
        if self.new < 3 {
            bail!(
                "--new: expected at least 3, found {}: the first two tokens of a completion come with its prompt, \
                 so fewer leave no decoding to measure",
                self.new
            );
        }
        if self.prompt == 0 || self.prompt + self.new > context {
            bail!(
                "--prompt {} with --new {}: expected at least 1 and at most {context} tokens together, the context of {}",
                self.prompt,
                self.new,
                subject.name
            );
        }
        if self.rows < self.completions {
            bail!(
                "--rows: expected at least --completions {}, found {}",
                self.completions,
                self.rows
            );
        }
        Ok(())
    }

    /// `count` prompts of `length` tokens.
    pub fn prompts(&self, subject: &Subject, count: usize, length: usize) -> Vec<Vec<u32>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        (0..count).map(|_| tokens(&mut random, subject, length)).collect()
    }

    /// `count` completions of `length` tokens, of other tokens than the prompts.
    pub fn answers(&self, subject: &Subject, count: usize, length: usize) -> Vec<Vec<u32>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(1);
        (0..count).map(|_| tokens(&mut random, subject, length)).collect()
    }

    /// `[learner]` of a run with these settings.
    pub fn learner(&self) -> LearnerConfig {
        LearnerConfig {
            batch: NonZeroU64::try_from(self.groups).unwrap_or(NonZeroU64::MIN),
            lag: self.lag,
            micro_batch_tokens: self.micro_batch_tokens,
            ..LearnerConfig::default()
        }
    }

    /// What a learner of these settings wants to know besides.
    pub fn run_shape(&self) -> RunShape {
        RunShape {
            steps: NonZeroU64::MIN,
            completions: self.completions,
            max_tokens: self.new,
            longest_prompt: self.prompt,
            shaping: Shaping::default(),
            adapter: None,
        }
    }

    /// For a headline.
    pub fn work(&self) -> String {
        format!(
            "{} groups × {} completions, prompt {}, {} new tokens",
            self.groups, self.completions, self.prompt, self.new
        )
    }

    /// The same for machines.
    pub fn conditions(&self) -> Map<String, Value> {
        let all = json!({
            "groups": self.groups, "completions": self.completions, "prompt": self.prompt, "new": self.new,
        });
        match all {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn tokens(random: &mut ChaCha8Rng, subject: &Subject, length: usize) -> Vec<u32> {
    let last = (subject.config.vocab_size as u32).min(LARGEST);
    let first = SPECIAL.min(last - 1);
    (0..length).map(|_| first + random.next_u32() % (last - first)).collect()
}
