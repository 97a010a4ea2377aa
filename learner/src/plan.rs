//! The memory of a step, planned before anything is loaded.
//!
//! Invariant: pure arithmetic over the model's configuration and the recipe's numbers, so that a run
//! which does not fit is refused in the first second, and one that this machine could never run can
//! still be planned. The plan is an upper bound for what a step holds; a test compares it with what
//! the allocator saw.

mod available;
mod sizes;

pub use available::{Available, available_memory, available_on};
use sizes::Sizes;

use crate::config::Recipe;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::lora::Lora;
use octet_policy::model::Keep;
use std::fmt;

/// The numbers of a recipe that memory depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Whether the model computes on a device that has memory of its own.
    pub device: bool,
    /// Whether versions are given out from memory: where no files have them as they are sampled with.
    pub in_memory: bool,
    /// The adapter that is trained instead of the weights.
    pub lora: Option<Lora>,
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

/// Where memory is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the machine's memory.
    Host,
    /// In the memory of the device that computes, where it has its own.
    Device,
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
    /// Where.
    pub place: Place,
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
    "expected {} of free memory {place} for a step, found {} (a micro-batch of {tokens} tokens takes {}, weights and optimiser {}); lower `learner.micro_batch_tokens`, `sampling.max_tokens` or `sampling.completions`, take a smaller model, or free memory",
    Bytes(*.needed), Bytes(*.available), Bytes(*.learning), Bytes(*.always)
)]
pub struct MemoryError {
    /// On the machine, or on the device.
    pub place: &'static str,
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
    pub fn new(recipe: &Recipe, dtype: Dtype, device: bool) -> Self {
        Self {
            dtype,
            device,
            in_memory: dtype != Dtype::F32 || recipe.shape.adapter.is_some(),
            longest_prompt: recipe.shape.longest_prompt,
            max_tokens: recipe.shape.max_tokens,
            completions: recipe.shape.completions,
            batch: recipe.batch.get(),
            micro_batch_tokens: recipe.micro_batch_tokens,
            lag: recipe.lag,
            reference: recipe.loss.needs_reference(),
            lora: recipe.shape.adapter.map(|fresh| fresh.lora),
        }
    }

    /// Tokens of the largest micro-batch: as many as allowed, or the largest group alone; never more
    /// than a step has.
    pub fn tokens(&self) -> u64 {
        (self.micro_batch_tokens as u64).max(self.group()).min(self.step())
    }

    /// Whether all of a step is learned at once.
    fn is_one_part(&self) -> bool {
        self.tokens() == self.step()
    }

    fn group(&self) -> u64 {
        (self.longest_prompt + self.completions * self.max_tokens) as u64
    }

    fn step(&self) -> u64 {
        self.group().saturating_mul(self.batch)
    }
}

impl MemoryPlan {
    /// The plan of a workload.
    pub fn new(config: &ModelConfig, workload: &Workload, keep: Keep) -> Self {
        let sizes = Sizes::new(config, workload);
        let host = |name, bytes, phase| Item { name, bytes, phase, place: Place::Host };
        let place = if workload.device { Place::Device } else { Place::Host };
        let item = |name, bytes, phase| Item { name, bytes, phase, place };
        let mut items = vec![
            item("weights", sizes.weights(), Phase::Always),
            item("position tables", sizes.tables(), Phase::Always),
        ];
        if workload.lora.is_some() {
            // The reference is the weights without it.
            items.push(item("adapter", sizes.trained(), Phase::Always));
        } else if workload.reference {
            items.push(item("reference policy", sizes.weights(), Phase::Always));
        }
        if workload.device {
            items.push(host("weights in 32 bits", sizes.masters(), Phase::Always));
            items.push(host("gradients in passing", sizes.masters(), Phase::Learning));
            items.push(item("attention of one part", sizes.scores(), Phase::Learning));
        }
        if workload.lag > 0 {
            items.push(item("policy that sampled", sizes.trained(), Phase::Learning));
        }
        items.extend([
            host("optimiser moments", sizes.moments(), Phase::Always),
            host("published versions", sizes.published(), Phase::Always),
            item("gradients", sizes.gradients(keep), Phase::Learning),
            item("kept activations", sizes.kept(keep), Phase::Learning),
            item("one layer at work", sizes.layer_at_work(), Phase::Learning),
            item("output head", sizes.head(), Phase::Learning),
            host("next version", sizes.next_version(), Phase::Committing),
            host("files being written", sizes.files(), Phase::Committing),
        ]);
        let (parameters, tokens) = (config.param_count() as u64, workload.tokens());
        let plan = Self { keep, parameters, tokens, items };
        let held =
            plan.bytes(Phase::Always, Place::Host) + plan.bytes(Phase::Learning, Place::Host);
        // Tensors of many sizes come and go; what lies free between them was 6 to 13 % of a step with small shapes.
        let between = host("free between tensors", held / 16, Phase::Learning);
        Self { items: plan.items.into_iter().chain([between]).collect(), ..plan }
    }

    /// The first way to keep activations that fits into what is available: all of them, or each
    /// layer's input with the rest computed again. The bits of a run are the same with both. Where
    /// nobody knows what is available, the first.
    ///
    /// # Errors
    /// Not even the smaller one fits.
    pub fn choose(
        config: &ModelConfig,
        workload: &Workload,
        available: Available,
    ) -> Result<Self, MemoryError> {
        let large = Self::new(config, workload, Keep::Activations);
        if large.check(available).is_ok() {
            return Ok(large);
        }
        let small = Self::new(config, workload, Keep::LayerInputs);
        small.check(available).map(|()| small)
    }

    fn check(&self, available: Available) -> Result<(), MemoryError> {
        let places = [(Place::Host, available.host), (Place::Device, available.device)];
        for (place, available) in places {
            let (needed, Some(available)) = (self.peak(place), available) else { continue };
            if needed > available {
                return Err(MemoryError {
                    place: place.name(),
                    needed,
                    available,
                    tokens: self.tokens,
                    learning: self.bytes(Phase::Learning, place),
                    always: self.bytes(Phase::Always, place),
                });
            }
        }
        Ok(())
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

    /// Bytes that are held in a place, in a phase alone.
    pub fn bytes(&self, phase: Phase, place: Place) -> u64 {
        let items = self.items.iter().filter(|item| item.phase == phase && item.place == place);
        items.map(|item| item.bytes).sum()
    }

    /// The most bytes that are held in a place at once.
    pub fn peak(&self, place: Place) -> u64 {
        let bytes = |phase| self.bytes(phase, place);
        bytes(Phase::Always) + bytes(Phase::Learning).max(bytes(Phase::Committing))
    }

    /// The places where anything is held, with the peak of each.
    pub fn peaks(&self) -> impl Iterator<Item = (Place, Bytes)> {
        let peaks = [Place::Device, Place::Host].map(|place| (place, Bytes(self.peak(place))));
        peaks.into_iter().filter(|(_, peak)| peak.0 > 0)
    }
}

impl Place {
    /// As a message says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "on the machine",
            Self::Device => "on the device",
        }
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
            let place = if item.place == Place::Device { "on the device" } else { "" };
            let bytes = Bytes(item.bytes).to_string();
            let line = format!("  {:<22}{bytes:>12}  {place}  {when}", item.name);
            writeln!(f, "{}", line.trim_end())?;
        }
        let peaks: Vec<String> = self
            .peaks()
            .map(|(place, peak)| {
                let name = format!("peak {}", place.name());
                format!("  {name:<22}{:>12}", peak.to_string())
            })
            .collect();
        f.write_str(&peaks.join("\n"))?;
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
