//! Sampling groups: each prompt computed once, many groups decoded together.
//!
//! Invariant: a group's tokens and log-probabilities are a function of the weights, the prompt, the
//! sampling parameters and `(seed, group)`. What else is in the batch, when it was submitted and how many threads
//! there are change nothing.

mod cache;
mod random;

pub use random::SampleRandom;

use crate::kernel::head::{RowDistribution, Shaping};
use crate::layout::PackedGroups;
use crate::model::Model;
use crate::ops::access;
use cache::{Decode, Part, Prefill, Suffix};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

/// How completions are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Seed of the run.
    pub seed: u64,
    /// Completions per prompt.
    pub completions: usize,
    /// How logits become a distribution.
    pub shaping: Shaping,
    /// Most tokens of a completion, the stop token included.
    pub max_tokens: usize,
    /// Tokens that end a completion.
    pub stop_tokens: Vec<u32>,
}

/// A prompt to sample a group for.
#[derive(Clone, Debug)]
pub struct GroupRequest {
    /// The group's index in the run.
    pub group: u64,
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// The policy version to sample with; a group never sees another.
    pub model: Arc<Model>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was sampled; it is the last token.
    Stop,
    /// `max_tokens` were sampled, or the context was full.
    Length,
}

/// A finished completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The group.
    pub group: u64,
    /// Which of the group's completions.
    pub sample: u32,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the distribution that it was drawn from. Nats.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

struct Live {
    sample: u32,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    random: SampleRandom,
    suffix: Suffix,
}

struct Slot {
    group: u64,
    model: Arc<Model>,
    prompt_len: usize,
    prefix: Part,
    live: Vec<Live>,
}

/// Continuous batching over groups.
pub struct Sampler {
    sampling: Sampling,
    /// Completions decoded together, at most.
    max_rows: usize,
    waiting: VecDeque<GroupRequest>,
    slots: Vec<Slot>,
    sampled_tokens: u64,
}

/// Prompt tokens computed together, at most (but always one prompt).
const PREFILL_ROWS: usize = 2048;

impl Sampler {
    /// An idle sampler that decodes up to `max_rows` completions together.
    pub fn new(sampling: Sampling, max_rows: usize) -> Self {
        Self { sampling, max_rows, waiting: VecDeque::new(), slots: Vec::new(), sampled_tokens: 0 }
    }

    /// Queues a group.
    pub fn submit(&mut self, request: GroupRequest) {
        self.waiting.push_back(request);
    }

    /// Forgets a group, wherever it is.
    pub fn cancel(&mut self, group: u64) {
        self.waiting.retain(|r| r.group != group);
        self.slots.retain(|s| s.group != group);
    }

    /// Groups submitted and not finished.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.slots.len()
    }

    /// Whether another group would be computed at once.
    pub fn has_room(&self) -> bool {
        self.rows() + (self.waiting.len() + 1) * self.sampling.completions <= self.max_rows
    }

    /// Tokens sampled so far.
    pub fn sampled_tokens(&self) -> u64 {
        self.sampled_tokens
    }

    fn rows(&self) -> usize {
        self.slots.iter().map(|s| s.live.len()).sum()
    }

    /// Computes waiting prompts while there is room, then one token of every live completion.
    /// Returns the completions that ended.
    ///
    /// # Errors
    /// A prompt that is empty, too long for the context, or holds an unknown token; that request is
    /// dropped, the others go on.
    pub fn step(&mut self) -> Result<Vec<Completion>> {
        let mut ended = Vec::new();
        while let Some(next) = self.waiting.front() {
            let version = next.model.clone();
            let (mut requests, mut rows, mut tokens) = (Vec::new(), self.rows(), 0);
            while let Some(next) = self.waiting.front() {
                let fits = rows + self.sampling.completions <= self.max_rows || rows == 0;
                let small = requests.is_empty() || tokens + next.prompt.len() <= PREFILL_ROWS;
                if !fits || !small || !Arc::ptr_eq(&next.model, &version) {
                    break;
                }
                rows += self.sampling.completions;
                tokens += next.prompt.len();
                requests.extend(self.waiting.pop_front());
            }
            if requests.is_empty() {
                break;
            }
            self.prefill(&version, requests, &mut ended)?;
        }
        // Versions in the order in which they joined; there is more than one only while a swap is under way.
        let mut versions: Vec<Arc<Model>> = Vec::new();
        for slot in &self.slots {
            if !versions.iter().any(|v| Arc::ptr_eq(v, &slot.model)) {
                versions.push(slot.model.clone());
            }
        }
        for version in &versions {
            self.decode(version, &mut ended)?;
        }
        self.slots.retain(|s| !s.live.is_empty());
        Ok(ended)
    }

    fn prefill(
        &mut self,
        model: &Arc<Model>,
        requests: Vec<GroupRequest>,
        ended: &mut Vec<Completion>,
    ) -> Result<()> {
        if let Some(bad) = requests.iter().find(|r| r.prompt.is_empty()) {
            candle_core::bail!("group {} has an empty prompt", bad.group);
        }
        let packed = PackedGroups::prompts(requests.iter().map(|r| r.prompt.as_slice()));
        let (fused, layers) = (model.is_fused(), model.config().num_hidden_layers);
        let mut attend = Prefill::new(&packed.groups, model.heads(), fused, layers);
        let x = model.run(&packed.tokens, &packed.positions, &mut attend)?;
        let last: Vec<u32> = packed.groups.iter().map(|g| g.prefix.end as u32 - 1).collect();
        let last = x.index_select(&Tensor::new(last, x.device())?, 0)?;
        let logits = plain(&model.logits(&last)?)?;
        let first = self.slots.len();
        for (request, prefix) in requests.into_iter().zip(attend.into_parts()) {
            let live = (0..self.sampling.completions as u32).map(|sample| Live {
                sample,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                random: SampleRandom::new(self.sampling.seed, request.group, sample),
                suffix: Suffix::new(fused, layers, model.heads()),
            });
            self.slots.push(Slot {
                group: request.group,
                model: request.model,
                prompt_len: request.prompt.len(),
                prefix,
                live: live.collect(),
            });
        }
        let width = model.config().vocab_size;
        let shaping = self.sampling.shaping;
        access::read([&logits], |[logits]| {
            let rows = logits.par_chunks_exact(width);
            self.slots[first..].par_iter_mut().zip(rows).for_each(|(slot, logits)| {
                let distribution = RowDistribution::new(logits, shaping);
                slot.live.iter_mut().for_each(|live| live.draw(&distribution, logits));
            });
        })?;
        self.finish(first, model, ended);
        Ok(())
    }

    fn decode(&mut self, model: &Arc<Model>, ended: &mut Vec<Completion>) -> Result<()> {
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let mut groups = Vec::new();
        for slot in self.slots.iter_mut().filter(|s| Arc::ptr_eq(&s.model, model)) {
            let mut suffixes = Vec::with_capacity(slot.live.len());
            for live in &mut slot.live {
                tokens.extend(live.tokens.last());
                positions.push((slot.prompt_len + live.suffix.len()) as u32);
                suffixes.push(&mut live.suffix);
            }
            groups.push((&slot.prefix, slot.prompt_len, suffixes));
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let mut attend = Decode { groups, heads: model.heads() };
        let x = model.run(&tokens, &positions, &mut attend)?;
        attend.groups.iter_mut().flat_map(|g| &mut g.2).for_each(|s| s.advance());
        let logits = plain(&model.logits(&x)?)?;
        let (width, shaping) = (model.config().vocab_size, self.sampling.shaping);
        access::read([&logits], |[logits]| {
            let mut live: Vec<&mut Live> = self
                .slots
                .iter_mut()
                .filter(|s| Arc::ptr_eq(&s.model, model))
                .flat_map(|s| &mut s.live)
                .collect();
            let rows = logits.par_chunks_exact(width);
            live.par_iter_mut().zip(rows).for_each(|(live, logits)| {
                live.draw(&RowDistribution::new(logits, shaping), logits);
            });
        })?;
        self.finish(0, model, ended);
        Ok(())
    }

    /// Takes out the completions of slots `from ..` that just ended.
    fn finish(&mut self, from: usize, model: &Arc<Model>, ended: &mut Vec<Completion>) {
        let context = model.config().max_position_embeddings;
        let (max_tokens, stops) = (self.sampling.max_tokens, &self.sampling.stop_tokens);
        for slot in self.slots[from..].iter_mut().filter(|s| Arc::ptr_eq(&s.model, model)) {
            self.sampled_tokens += slot.live.len() as u64;
            let limit = max_tokens.min(context - slot.prompt_len.min(context));
            let done = slot.live.extract_if(.., |live| {
                let stopped = live.tokens.last().is_some_and(|t| stops.contains(t));
                stopped || live.tokens.len() >= limit
            });
            ended.extend(done.map(|live| Completion {
                group: slot.group,
                sample: live.sample,
                finish: match live.tokens.last() {
                    Some(t) if stops.contains(t) => Finish::Stop,
                    _ => Finish::Length,
                },
                tokens: live.tokens,
                logprobs: live.logprobs,
            }));
        }
    }
}

impl Live {
    fn draw(&mut self, distribution: &RowDistribution, logits: &[f32]) {
        let u = self.random.uniform(self.tokens.len());
        let token = distribution.draw(logits, u);
        self.tokens.push(token);
        self.logprobs.push(distribution.log_prob(logits[token as usize]));
    }
}

/// Logits as f32 on the CPU, where tokens are drawn.
fn plain(logits: &Tensor) -> Result<Tensor> {
    logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()
}
