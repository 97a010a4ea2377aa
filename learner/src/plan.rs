//! The memory of a step, planned before anything is loaded.
//!
//! Invariant: pure arithmetic over the model's configuration and the recipe's numbers, so that a run
//! which does not fit is refused in the first second, and one that this machine could never run can
//! still be planned. The plan is an upper bound for what a step holds; a test compares it with what
//! the allocator saw.

mod available;
mod sizes;

pub use available::available_memory;
use sizes::Sizes;

use crate::config::Recipe;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::model::Keep;
use std::fmt;

/// The numbers of a recipe that memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Element type of weights and activations.
    pub dtype: Dtype,
    /// The longest prompt in tokens.
    pub longest_prompt: usize,
    /// The most tokens of a completion.
    pub max_tokens: usize,
    /// Completions of a group.
    pub completions: usize,
    /// Groups of a step.
    pub batch: u64,
    /// Tokens that are learned at once.
    pub micro_batch_tokens: usize,
    /// How many versions old the sampling policy is.
    pub lag: u64,
    /// Whether there is a reference policy.
    pub reference: bool,
}

/// When memory is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the first step to the last.
    Always,
    /// While micro-batches are learned.
    Learning,
    /// While a step is committed and published.
    Committing,
}

/// One line of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
    /// When.
    pub phase: Phase,
}

/// What a step's memory is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    keep: Keep,
    parameters: u64,
    tokens: u64,
    items: Vec<Item>,
}

/// A step that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected {} of free memory for a step, found {} (a micro-batch of {tokens} tokens takes {}, weights and optimiser {}); lower `learner.micro_batch_tokens`, `sampling.max_tokens` or `sampling.completions`, take a smaller model, or free memory",
    Bytes(*.needed), Bytes(*.available), Bytes(*.learning), Bytes(*.always)
)]
pub struct MemoryError {
    /// Bytes of the peak.
    pub needed: u64,
    /// Bytes that are free.
    pub available: u64,
    /// Tokens of the largest micro-batch.
    pub tokens: u64,
    /// Bytes that the micro-batch takes.
    pub learning: u64,
    /// Bytes that are always held.
    pub always: u64,
}

/// A number of bytes for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Workload {
    /// The workload of a recipe.
    pub fn new(recipe: &Recipe, dtype: Dtype) -> Self {
        Self {
            dtype,
            longest_prompt: recipe.shape.longest_prompt,
            max_tokens: recipe.shape.max_tokens,
            completions: recipe.shape.completions,
            batch: recipe.batch.get(),
            micro_batch_tokens: recipe.micro_batch_tokens,
            lag: recipe.lag,
            reference: recipe.loss.settings().needs_reference(),
        }
    }

    /// Tokens of the largest micro-batch: as many as allowed, or the largest group alone; never more
    /// than a step has.
    pub fn tokens(&self) -> u64 {
        let group = (self.longest_prompt + self.completions * self.max_tokens) as u64;
        (self.micro_batch_tokens as u64).max(group).min(group.saturating_mul(self.batch))
    }
}

impl MemoryPlan {
    /// The plan of a workload.
    pub fn new(config: &ModelConfig, workload: &Workload, keep: Keep) -> Self {
        let sizes = Sizes::new(config, workload);
        let item = |name, bytes, phase| Item { name, bytes, phase };
        let mut items = vec![
            item("weights", sizes.weights(), Phase::Always),
            item("gradients", sizes.weights(), Phase::Always),
            item("optimiser moments", sizes.moments(), Phase::Always),
            item("published versions", sizes.published(), Phase::Always),
            item("position tables", sizes.tables(), Phase::Always),
        ];
        if workload.reference {
            items.push(item("reference policy", sizes.weights(), Phase::Always));
        }
        if workload.lag > 0 {
            items.push(item("policy that sampled", sizes.weights(), Phase::Learning));
        }
        items.extend([
            item("kept activations", sizes.kept(keep), Phase::Learning),
            item("one layer at work", sizes.layer_at_work(), Phase::Learning),
            item("output head", sizes.head(), Phase::Learning),
            item("next version", sizes.weights(), Phase::Committing),
            item("files being written", sizes.files(), Phase::Committing),
        ]);
        let (parameters, tokens) = (config.param_count() as u64, workload.tokens());
        Self { keep, parameters, tokens, items }
    }

    /// The first way to keep activations that fits into `available` bytes: all of them, or each
    /// layer's input with the rest computed again. The bits of a run are the same with both. Where
    /// nobody knows what is available, the first.
    ///
    /// # Errors
    /// Not even the smaller one fits.
    pub fn choose(
        config: &ModelConfig,
        workload: &Workload,
        available: Option<u64>,
    ) -> Result<Self, MemoryError> {
        let large = Self::new(config, workload, Keep::Activations);
        let Some(available) = available else { return Ok(large) };
        if large.peak() <= available {
            return Ok(large);
        }
        let small = Self::new(config, workload, Keep::LayerInputs);
        if small.peak() <= available {
            return Ok(small);
        }
        Err(MemoryError {
            needed: small.peak(),
            available,
            tokens: small.tokens,
            learning: small.bytes(Phase::Learning),
            always: small.bytes(Phase::Always),
        })
    }

    /// What is kept of the forward pass.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// The lines of the plan.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Tokens of the largest micro-batch.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Bytes that are held in a phase alone.
    pub fn bytes(&self, phase: Phase) -> u64 {
        self.items.iter().filter(|item| item.phase == phase).map(|item| item.bytes).sum()
    }

    /// The most bytes that are held at once.
    pub fn peak(&self) -> u64 {
        let phases = self.bytes(Phase::Learning).max(self.bytes(Phase::Committing));
        self.bytes(Phase::Always) + phases
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameters, tokens) = (self.parameters, self.tokens);
        writeln!(f, "memory of a step, {parameters} parameters, micro-batches of {tokens} tokens")?;
        for item in &self.items {
            let when = match item.phase {
                Phase::Always => "",
                Phase::Learning => "while learning",
                Phase::Committing => "while committing",
            };
            let line = format!("  {:<22}{:>12}  {when}", item.name, Bytes(item.bytes).to_string());
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "  {:<22}{:>12}", "peak", Bytes(self.peak()).to_string())?;
        match self.keep {
            Keep::Activations => Ok(()),
            Keep::LayerInputs => f.write_str("  activations are computed again"),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, size)| self.0 >= *size) {
            Some((name, size)) => write!(f, "{:.1} {name}", self.0 as f64 / size as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests;
