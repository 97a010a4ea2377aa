//! What a worker is started with.
//!
//! Invariant: a [`Config`] that was checked has no zero where a zero would wait for ever, and never
//! prints its join token.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_policy::kernel::head::Shaping;
use octet_policy::lora::FreshLora;
use octet_policy::sampler::Sampling;
use octet_proto::ConfigDigest;
use octet_proto::transport::ClientOptions;
use serde::{Deserialize, Serialize};

use crate::error::WorkerError;

/// A worker's configuration.
#[derive(Clone)]
pub struct Config {
    /// What people call the worker; need not be unique.
    pub name: String,
    /// The coordinator, `http://host:port`.
    pub coordinator: String,
    /// The run's join token.
    pub join_token: String,
    /// Digest of the run's resolved configuration.
    pub config_digest: ConfigDigest,
    /// Where other workers can fetch weights from this one; empty when it serves none.
    pub weights_endpoint: String,
    /// How many groups are sampled at once.
    pub capacity: NonZeroU32,
    /// How many completions are decoded together, at most.
    pub max_rows: NonZeroUsize,
    /// The model directory: tokenizer, chat template, configuration, and perhaps version 0.
    pub model: PathBuf,
    /// The adapter that is trained instead of the weights; then these are the model directory's in every version.
    pub adapter: Option<FreshLora>,
    /// The type that weights are computed in.
    pub dtype: DType,
    /// Where they are computed.
    pub device: Device,
    /// How completions are sampled.
    pub sampling: SamplingSettings,
    /// What a completion without a reward means.
    pub on_reward_failure: OnRewardFailure,
    /// How long a worker that shall stop may finish what is under way.
    pub drain: Duration,
    /// Retries and deadlines.
    pub limits: Limits,
    /// How connections behave.
    pub client: ClientOptions,
}

/// How completions are sampled; the stop tokens are the policy's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingSettings {
    /// Seed of the run.
    pub seed: u64,
    /// Completions per prompt.
    pub completions: NonZeroU32,
    /// Logits are divided by it.
    pub temperature: f32,
    /// Only the most likely tokens with at least this much probability together; 1 for all.
    pub top_p: f32,
    /// Only this many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Most tokens of a completion, the stop token included.
    pub max_tokens: NonZeroUsize,
}

/// What a completion is worth that no reward could be had for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRewardFailure {
    /// Reward 0.0 with the verdict `reward-failed:<kind>`; logged and counted.
    #[default]
    Zero,
    /// The worker ends with the error.
    Fail,
}

/// Retries and deadlines of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// How often one completion is sent for its reward, failures of the network not counted.
    pub score_attempts: NonZeroU32,
    /// How long one reward may take until it counts as failed.
    #[serde(with = "octet_runtime::config::duration")]
    pub score: Duration,
    /// How often a version is fetched that arrives damaged.
    pub transfer_attempts: NonZeroU32,
    /// How long a stream of weights may be silent until it is opened again.
    #[serde(with = "octet_runtime::config::duration")]
    pub chunk: Duration,
    /// How long a delivery may stay without a receipt until it is sent again on a new stream.
    #[serde(with = "octet_runtime::config::duration")]
    pub receipt: Duration,
    /// How long a question for groups, or for a manifest, is parked at the other side.
    #[serde(with = "octet_runtime::config::duration")]
    pub poll: Duration,
    /// How long the coordinator may be away before the worker ends.
    #[serde(with = "octet_runtime::config::duration")]
    pub coordinator: Duration,
    /// How many policy versions are kept beyond those that are in use.
    pub spare_versions: NonZeroUsize,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            completions: NonZeroU32::MIN.saturating_add(7),
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_tokens: NonZeroUsize::MIN.saturating_add(511),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            score_attempts: NonZeroU32::MIN.saturating_add(2),
            score: Duration::from_secs(60),
            transfer_attempts: NonZeroU32::MIN.saturating_add(4),
            chunk: Duration::from_secs(10),
            receipt: Duration::from_secs(60),
            poll: Duration::from_secs(10),
            coordinator: Duration::from_secs(600),
            spare_versions: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}

impl SamplingSettings {
    /// As the sampler wants it.
    pub fn with_stop_tokens(&self, stop_tokens: Vec<u32>) -> Sampling {
        Sampling {
            seed: self.seed,
            completions: self.completions.get() as usize,
            shaping: Shaping {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
            },
            max_tokens: self.max_tokens.get(),
            stop_tokens,
        }
    }
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the field, what it may hold, and what it holds.
    pub fn check(&self) -> Result<(), WorkerError> {
        let bad = |field: &'static str, expected: &'static str, found: String| {
            Err(WorkerError::BadConfig { field, expected, found })
        };
        if self.name.is_empty() {
            return bad("name", "a name", "nothing".to_owned());
        }
        let SamplingSettings { temperature, top_p, .. } = self.sampling;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return bad("sampling.temperature", "0 or more", temperature.to_string());
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return bad("sampling.top_p", "more than 0, at most 1", top_p.to_string());
        }
        let Limits { score, chunk, receipt, poll, coordinator, .. } = self.limits;
        for (field, span) in [
            ("limits.score", score),
            ("limits.chunk", chunk),
            ("limits.receipt", receipt),
            ("limits.poll", poll),
            ("limits.coordinator", coordinator),
        ] {
            if span.is_zero() {
                return bad(field, "a time above 0", format!("{span:?}"));
            }
        }
        // A parked question must be answered before the call itself is given up.
        match self.client.request_timeout {
            Some(call) if poll >= call => {
                bad("limits.poll", "less than the calls' own deadline", format!("{poll:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Completions per prompt.
    pub(crate) fn completions(&self) -> usize {
        self.sampling.completions.get() as usize
    }

    /// How many completions can be anywhere between sampling and receipt: the coordinator gives a
    /// worker twice its capacity, one round being sampled and one being scored and delivered.
    pub(crate) fn completions_under_way(&self) -> usize {
        (self.capacity.get() as usize)
            .saturating_mul(2)
            .saturating_mul(self.completions())
            .min(1 << 20)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("coordinator", &self.coordinator)
            .field("config_digest", &self.config_digest)
            .field("capacity", &self.capacity)
            .field("model", &self.model)
            .field("sampling", &self.sampling)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
