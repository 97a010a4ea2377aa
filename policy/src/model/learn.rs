//! Log-probabilities of packed groups and their gradients.
//!
//! Invariant: any loss over completion tokens is learned here, given `d loss / d logprob` of each token;
//! the prompt is computed once per group, forward and backward.

use super::block::{self, Kept, Packed};
use super::gradients::Gradients;
use super::{Model, Params};
use crate::kernel::head::Shaping;
use crate::layout::{GroupTokens, HeadPlan, PackedGroups};
use crate::ops::access::{rows_of, rows_to};
use crate::ops::{AttentionKept, Head, Predictions, embed_backward, rms_norm, rms_norm_backward};
use candle_core::{Result, Tensor};

/// What a learning pass keeps of the forward computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every activation that the gradient reads.
    Activations,
    /// Only each layer's input; the rest is computed again, one layer at a time.
    LayerInputs,
}

/// Log-probabilities and entropies of completion tokens, group by group, completion by completion.
pub type Learned = Predictions;

enum Saved {
    All(Box<(Kept, AttentionKept)>),
    Input(Tensor),
}

impl Model {
    /// Log-probability and entropy of every completion token under the shaped distribution.
    ///
    /// # Errors
    /// An empty prompt, a token outside the vocabulary, a position past the context.
    pub fn log_probs(&self, groups: &[GroupTokens], shaping: Shaping) -> Result<Predictions> {
        let (packed, plan) = self.plan(groups)?;
        let mut attend = Packed { groups: &packed.groups, heads: self.heads(), kept: None };
        let x = self.run(&packed.tokens, &packed.positions, &mut attend)?;
        let (_, normed, _) = self.predicting(&x, &plan)?;
        let head = Head { projection: self.head(), shaping, targets: &plan.targets };
        Ok(in_token_order(&head.predict(&normed)?, &plan))
    }

    /// One forward and backward pass. `slopes` gets the predictions and gives `d loss / d logprob` of
    /// each completion token; gradients of what is trained ([`Model::trained`]) are added to `grads`, where they may be
    /// nothing yet ([`Params::nothing_like`]).
    ///
    /// # Errors
    /// As [`Model::log_probs`], gradients of other tensors, and whatever `slopes` returns.
    pub fn learn(
        &self,
        groups: &[GroupTokens],
        shaping: Shaping,
        keep: Keep,
        grads: &mut Params,
        slopes: impl FnOnce(&Predictions) -> Result<Vec<f32>>,
    ) -> Result<Predictions> {
        let (packed, plan) = self.plan(groups)?;
        let mut grads = Gradients::of(self, grads)?;
        let pass = self.pass(&packed.positions)?;
        let attend = || Packed { groups: &packed.groups, heads: self.heads(), kept: None };
        let full = |layer: usize, x: Tensor| -> Result<(Tensor, Kept, AttentionKept)> {
            let mut attend = attend();
            let at = &self.index.layers[layer];
            let (y, kept) = block::forward(&pass, at, layer, x, &mut attend)?;
            match attend.kept {
                Some(attention) => Ok((y, kept, attention)),
                None => candle_core::bail!("layer {layer} kept no attention"),
            }
        };
        let mut saved = Vec::with_capacity(self.index.layers.len());
        let mut x = self.embed(&packed.tokens)?;
        for layer in 0..self.index.layers.len() {
            x = match keep {
                Keep::Activations => {
                    let (y, kept, attention) = full(layer, x)?;
                    saved.push(Saved::All(Box::new((kept, attention))));
                    y
                }
                Keep::LayerInputs => {
                    let (y, ..) = full(layer, x.clone())?;
                    saved.push(Saved::Input(x));
                    y
                }
            };
        }

        let (gathered, normed, norm_kept) = self.predicting(&x, &plan)?;
        let head = Head { projection: self.head(), shaping, targets: &plan.targets };
        let (predictions, logits) = head.predict_and_keep(&normed)?;
        let learned = in_token_order(&predictions, &plan);
        let slopes = slopes(&learned)?;
        if slopes.len() != plan.targets.len() {
            candle_core::bail!("expected {} slopes, found {}", plan.targets.len(), slopes.len());
        }

        let dhead = grads.weight(self.index.head);
        let dnormed = head.backward(&normed, logits, &plan.by_target(&slopes), dhead)?;
        let mut dgathered = gathered.zeros_like()?;
        let norm = (&gathered, &self.params.tensors()[self.index.norm], self.config.rms_norm_eps);
        let dw = grads.weight(self.index.norm);
        rms_norm_backward(norm, &norm_kept, &dnormed, &mut dgathered, dw)?;
        drop((gathered, normed));
        drop(x);
        let mut dx = rows_to(&dgathered, &plan.rows, packed.len())?;

        for (layer, at) in self.index.layers.iter().enumerate().rev() {
            let (kept, attention) = match saved.pop() {
                Some(Saved::All(both)) => *both,
                Some(Saved::Input(x)) => {
                    let (_, kept, attention) = full(layer, x)?;
                    (kept, attention)
                }
                None => candle_core::bail!("layer {layer} was not run"),
            };
            dx = block::backward(
                &pass,
                (at, layer),
                kept,
                &attention,
                &packed.groups,
                dx,
                &mut grads,
            )?;
        }
        if let Some(dtable) = grads.weight(self.index.embedding) {
            let table = &self.params.tensors()[self.index.embedding];
            embed_backward(&packed.tokens, &dx, table, dtable)?;
        }
        Ok(learned)
    }

    fn plan(&self, groups: &[GroupTokens]) -> Result<(PackedGroups, HeadPlan)> {
        if let Some(at) = groups.iter().position(|g| g.prefix.is_empty()) {
            candle_core::bail!("group {at} has an empty prompt: there is nothing to predict from");
        }
        Ok(PackedGroups::for_learning(groups))
    }

    /// The hidden states that predict: before and after the last norm.
    fn predicting(
        &self,
        x: &Tensor,
        plan: &HeadPlan,
    ) -> Result<(Tensor, Tensor, crate::ops::NormKept)> {
        let gathered = rows_of(x, &plan.rows)?;
        let norm = &self.params.tensors()[self.index.norm];
        let (normed, kept) = rms_norm(&gathered, norm, self.config.rms_norm_eps)?;
        Ok((gathered, normed, kept))
    }
}

fn in_token_order(predictions: &Predictions, plan: &HeadPlan) -> Predictions {
    Predictions {
        logprobs: plan.by_token(&predictions.logprobs),
        entropies: plan.by_token(&predictions.entropies),
    }
}
