//! One optimiser update over any number of micro-batches, of a model's weights or of its adapter.
//!
//! The optimiser works on `f32` weights on the CPU. Where the model computes with another type or elsewhere
//! it has a copy of them, made anew after each update; gradients are added up in `f32` beside it.
//!
//! Invariant: gradients are added micro-batch by micro-batch in the given order, and applied once. The
//! same groups in the same order and the same micro-batches give the same weights, bit for bit, on any
//! number of threads.

use crate::adamw::{AdamW, AdamWError, Hyperparameters, Parameter, TensorSpec, Update};
use candle_core::{DType, Device};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::model::{Keep, Learned, Model, Params};

/// Why an update could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The forward or backward computation.
    #[error("the learning step failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// The optimiser refused the gradients.
    #[error(transparent)]
    Optimiser(#[from] AdamWError),
}

/// A model being trained.
pub struct Updater {
    model: Model,
    /// Nothing at the beginning of a step.
    gradients: Params,
    /// What is optimised, where the model computes with a copy.
    masters: Option<Masters>,
    optimiser: AdamW,
    keep: Keep,
}

/// The `f32` weights on the CPU, and what the model's copy of them is.
struct Masters {
    weights: Params,
    dtype: DType,
    device: Device,
}

impl Updater {
    /// Starts with fresh moments.
    pub fn new(
        model: Model,
        keep: Keep,
        hyperparameters: Hyperparameters,
    ) -> Result<Self, UpdateError> {
        let specs = model.trained().specs().iter();
        let specs = specs.map(|s| TensorSpec { name: s.name.clone(), shape: s.shape.clone() });
        let optimiser = AdamW::new(hyperparameters, specs.collect())?;
        Self::resume(model, keep, optimiser)
    }

    /// Goes on with the moments of an earlier run.
    pub fn resume(model: Model, keep: Keep, optimiser: AdamW) -> Result<Self, UpdateError> {
        let gradients = model.trained().nothing_like()?;
        Ok(Self { model, gradients, masters: None, optimiser, keep })
    }

    /// Computes with weights of type `dtype` on `device` from now on.
    pub fn computing(self, dtype: DType, device: &Device) -> Result<Self, UpdateError> {
        if dtype == DType::F32 && device.is_cpu() {
            return Ok(self);
        }
        let weights = self.weights().clone();
        let model = self.model.to(dtype, device)?;
        let gradients = weights.nothing_like()?.to(DType::F32, device)?;
        let masters = Some(Masters { weights, dtype, device: device.clone() });
        Ok(Self { model, gradients, masters, ..self })
    }

    /// The model that computes, as it is after the last update.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What is trained, after the last update, in `f32` on the CPU.
    pub fn weights(&self) -> &Params {
        self.masters.as_ref().map_or(self.model.trained(), |masters| &masters.weights)
    }

    /// The optimiser's state.
    pub fn optimiser(&self) -> &AdamW {
        &self.optimiser
    }

    /// Adds the gradients of one micro-batch. `slopes` gets the policy's predictions and gives
    /// `d loss / d logprob` of every completion token.
    pub fn accumulate(
        &mut self,
        groups: &[GroupTokens],
        shaping: Shaping,
        slopes: impl FnOnce(&Learned) -> candle_core::Result<Vec<f32>>,
    ) -> Result<Learned, UpdateError> {
        Ok(self.model.learn(groups, shaping, self.keep, &mut self.gradients, slopes)?)
    }

    /// Applies the gradients and forgets them. On an error the weights are as they were.
    pub fn apply(&mut self, learning_rate: f64) -> Result<Update, UpdateError> {
        // Nothing was learned where all groups were equal in reward; moments decay all the same.
        self.gradients.complete()?;
        let gradients = self.gradients.to(DType::F32, &Device::Cpu)?;
        let weights =
            self.masters.as_ref().map_or(self.model.trained(), |masters| &masters.weights);
        let optimiser = &mut self.optimiser;
        let update = weights.update(&gradients, |pairs| {
            let mut parameters: Vec<Parameter<'_>> = pairs
                .into_iter()
                .map(|(values, gradient)| Parameter { values, gradient })
                .collect();
            optimiser.update(&mut parameters, learning_rate)
        })?;
        drop(gradients);
        // Their memory is free for the activations of the next step until each of them is begun again.
        self.gradients = self.gradients.nothing_like()?;
        let update = update?;
        if let Some(masters) = &self.masters {
            self.model.replace(masters.weights.to(masters.dtype, &masters.device)?);
        }
        Ok(update)
    }
}

/// Cuts items of given sizes into runs of at most `limit` (always at least one item a run).
pub fn micro_batches(sizes: &[usize], limit: usize) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let (mut from, mut sum) = (0, 0);
    for (at, size) in sizes.iter().enumerate() {
        if at > from && sum + size > limit {
            runs.push(from..at);
            (from, sum) = (at, 0);
        }
        sum += size;
    }
    if from < sizes.len() {
        runs.push(from..sizes.len());
    }
    runs
}
