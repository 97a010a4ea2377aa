//! Sampling groups: each prompt computed once, many groups decoded together.
//!
//! Invariant: a group's tokens and log-probabilities are a function of the weights, the prompt, the
//! sampling parameters and `(seed, group)`. What else is in the batch, when it was submitted and how many threads
//! there are change nothing.

mod cache;
mod manner;
mod random;

pub use manner::{Guide, Manner, TokenNote};
pub use random::SampleRandom;

use crate::kernel::head::{RowDistribution, Shaping};
use crate::kernel::parallel;
use crate::layout::PackedGroups;
use crate::model::Model;
use crate::ops::access;
use cache::{Decode, Part, Prefill, Suffix};
use candle_core::{DType, Device, Result, Tensor};
use manner::draw_allowed;
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
    /// A note on each token, where the request's manner asks for them; else empty.
    pub notes: Vec<TokenNote>,
}

/// A completion that is being sampled.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The group.
    pub group: u64,
    /// Which of the group's completions.
    pub sample: u32,
    /// Token ids so far.
    pub tokens: &'a [u32],
    /// A note on each, where they are taken.
    pub notes: &'a [TokenNote],
}

struct Live {
    sample: u32,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    notes: Vec<TokenNote>,
    random: SampleRandom,
    suffix: Suffix,
}

struct Slot {
    group: u64,
    model: Arc<Model>,
    manner: Manner,
    prompt_len: usize,
    prefix: Part,
    live: Vec<Live>,
}

/// Continuous batching over groups.
pub struct Sampler {
    sampling: Arc<Sampling>,
    /// Completions decoded together, at most.
    max_rows: usize,
    waiting: VecDeque<(GroupRequest, Manner)>,
    slots: Vec<Slot>,
    sampled_tokens: u64,
}

/// Prompt tokens computed together, at most (but always one prompt).
const PREFILL_ROWS: usize = 2048;

impl Sampler {
    /// An idle sampler that decodes up to `max_rows` completions together.
    pub fn new(sampling: Sampling, max_rows: usize) -> Self {
        let sampling = Arc::new(sampling);
        Self { sampling, max_rows, waiting: VecDeque::new(), slots: Vec::new(), sampled_tokens: 0 }
    }

    /// Queues a group.
    pub fn submit(&mut self, request: GroupRequest) {
        let manner = Manner::plain(Arc::clone(&self.sampling), request.group);
        self.submit_with(request, manner);
    }

    /// Queues a request that is sampled in a manner of its own. Its group only names it.
    pub fn submit_with(&mut self, request: GroupRequest, manner: Manner) {
        self.waiting.push_back((request, manner));
    }

    /// Forgets a group, wherever it is.
    pub fn cancel(&mut self, group: u64) {
        self.waiting.retain(|(r, _)| r.group != group);
        self.slots.retain(|s| s.group != group);
    }

    /// Forgets one live completion of a group; the others go on.
    pub fn cancel_sample(&mut self, group: u64, sample: u32) {
        for slot in self.slots.iter_mut().filter(|s| s.group == group) {
            slot.live.retain(|live| live.sample != sample);
        }
        self.slots.retain(|s| !s.live.is_empty());
    }

    /// Whether a group was submitted and is not finished.
    pub fn holds(&self, group: u64) -> bool {
        self.waiting.iter().any(|(r, _)| r.group == group)
            || self.slots.iter().any(|s| s.group == group)
    }

    /// The completions that are being sampled, as far as they are.
    pub fn live(&self) -> impl Iterator<Item = Progress<'_>> {
        self.slots.iter().flat_map(|slot| {
            slot.live.iter().map(|live| Progress {
                group: slot.group,
                sample: live.sample,
                tokens: &live.tokens,
                notes: &live.notes,
            })
        })
    }

    /// Groups submitted and not finished.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.slots.len()
    }

    /// Whether another group would be computed at once.
    pub fn has_room(&self) -> bool {
        self.has_room_for(self.sampling.completions)
    }

    /// Whether a request of so many completions would be computed at once.
    pub fn has_room_for(&self, completions: usize) -> bool {
        let waiting: usize = self.waiting.iter().map(|(_, m)| m.sampling.completions).sum();
        self.rows() + waiting + completions <= self.max_rows
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
        let models = self.slots.iter().map(|s| &s.model);
        let mut models = models.chain(self.waiting.iter().map(|(r, _)| &r.model));
        // A device's context belongs to the calling thread.
        if models.all(|model| model.is_fused()) {
            parallel::inside(|| self.step_here())
        } else {
            self.step_here()
        }
    }

    fn step_here(&mut self) -> Result<Vec<Completion>> {
        let mut ended = Vec::new();
        while let Some((next, _)) = self.waiting.front() {
            let version = next.model.clone();
            let (mut requests, mut rows, mut tokens) = (Vec::new(), self.rows(), 0);
            while let Some((next, manner)) = self.waiting.front() {
                let completions = manner.sampling.completions;
                let fits = rows + completions <= self.max_rows || rows == 0;
                let small = requests.is_empty() || tokens + next.prompt.len() <= PREFILL_ROWS;
                if !fits || !small || !Arc::ptr_eq(&next.model, &version) {
                    break;
                }
                rows += completions;
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
        requests: Vec<(GroupRequest, Manner)>,
        ended: &mut Vec<Completion>,
    ) -> Result<()> {
        if let Some((bad, _)) = requests.iter().find(|(r, _)| r.prompt.is_empty()) {
            candle_core::bail!("group {} has an empty prompt", bad.group);
        }
        let packed = PackedGroups::prompts(requests.iter().map(|(r, _)| r.prompt.as_slice()));
        let (fused, layers) = (model.is_fused(), model.config().num_hidden_layers);
        let mut attend = Prefill::new(&packed.groups, model.heads(), fused, layers);
        let x = model.run(&packed.tokens, &packed.positions, &mut attend)?;
        let last: Vec<u32> = packed.groups.iter().map(|g| g.prefix.end as u32 - 1).collect();
        let last = x.index_select(&Tensor::new(last, x.device())?, 0)?;
        let logits = plain(&model.logits(&last)?)?;
        let first = self.slots.len();
        for ((request, manner), prefix) in requests.into_iter().zip(attend.into_parts()) {
            let live = (0..manner.sampling.completions as u32).map(|sample| Live {
                sample,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                notes: Vec::new(),
                random: SampleRandom::new(manner.sampling.seed, manner.stream, sample),
                suffix: Suffix::new(fused, layers, model.heads()),
            });
            let live = live.collect();
            self.slots.push(Slot {
                group: request.group,
                model: request.model,
                manner,
                prompt_len: request.prompt.len(),
                prefix,
                live,
            });
        }
        let width = model.config().vocab_size;
        access::read([&logits], |[logits]| {
            let rows = logits.par_chunks_exact(width);
            self.slots[first..].par_iter_mut().zip(rows).for_each(|(slot, logits)| {
                let distribution = RowDistribution::new(logits, slot.manner.sampling.shaping);
                let manner = &slot.manner;
                slot.live.iter_mut().for_each(|live| live.draw(&distribution, logits, manner));
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
        let width = model.config().vocab_size;
        access::read([&logits], |[logits]| {
            let mut live: Vec<(&mut Live, &Manner)> = self
                .slots
                .iter_mut()
                .filter(|s| Arc::ptr_eq(&s.model, model))
                .flat_map(|Slot { live, manner, .. }| live.iter_mut().map(|l| (l, &*manner)))
                .collect();
            let rows = logits.par_chunks_exact(width);
            live.par_iter_mut().zip(rows).for_each(|((live, manner), logits)| {
                let distribution = RowDistribution::new(logits, manner.sampling.shaping);
                live.draw(&distribution, logits, manner);
            });
        })?;
        self.finish(0, model, ended);
        Ok(())
    }

    /// Takes out the completions of slots `from ..` that just ended.
    fn finish(&mut self, from: usize, model: &Arc<Model>, ended: &mut Vec<Completion>) {
        let context = model.config().max_position_embeddings;
        for slot in self.slots[from..].iter_mut().filter(|s| Arc::ptr_eq(&s.model, model)) {
            let (max_tokens, stops) =
                (slot.manner.sampling.max_tokens, &slot.manner.sampling.stop_tokens);
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
                notes: live.notes,
            }));
        }
    }
}

impl Live {
    fn draw(&mut self, distribution: &RowDistribution, logits: &[f32], manner: &Manner) {
        let u = self.random.uniform(self.tokens.len());
        let shaping = manner.sampling.shaping;
        let allowed = manner.allowed(&self.tokens);
        let allowed = allowed.and_then(|allowed| draw_allowed(logits, &allowed, shaping, u));
        let (token, logprob) = allowed.unwrap_or_else(|| {
            let token = distribution.draw(logits, u);
            (token, distribution.log_prob(logits[token as usize]))
        });
        self.notes.extend(manner.note(logits, token));
        self.tokens.push(token);
        self.logprobs.push(logprob);
    }
}

/// Logits as f32 on the CPU, where tokens are drawn.
fn plain(logits: &Tensor) -> Result<Tensor> {
    logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()
}
