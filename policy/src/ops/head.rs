//! The output head: hidden states of completion positions to log-probabilities, and back.
//!
//! Invariant: logits exist for a bounded number of rows at a time, never for tokens × vocabulary of a batch.
//! Only rows that predict a completion token come here.

use super::access::{is_fused, read, write};
use super::linear::{Projection, linear, linear_backward};
use crate::kernel::head::{RowDistribution, Shaping};
use crate::kernel::parallel::{self, SharedMut};
use crate::layout::Target;
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

/// Bytes of logits that exist at once where they are computed chunk by chunk, and again for the gradient.
const CHUNK_BYTES: usize = 32 << 20;
/// Bytes of logits that are kept for the gradient where all of them fit: one chunk, computed once.
const KEPT_BYTES: usize = 64 << 20;
/// A chunk has as many rows at least, however large the vocabulary.
const CHUNK_ROWS: usize = 8;

/// Of so many predicting rows, those whose logits a gradient wants at once: all of them where these are kept, a chunk
/// where they are computed again.
pub fn rows_at_once(rows: usize, vocabulary: usize) -> usize {
    let most = most_rows_at_once(rows, vocabulary);
    if rows == most { rows } else { rows_of(CHUNK_BYTES, vocabulary) }
}

/// The same for any number of predicting rows up to `rows`.
pub fn most_rows_at_once(rows: usize, vocabulary: usize) -> usize {
    rows_of(KEPT_BYTES, vocabulary).min(rows)
}

/// Rows of so many bytes of logits.
fn rows_of(bytes: usize, vocabulary: usize) -> usize {
    (bytes / (4 * vocabulary)).max(CHUNK_ROWS)
}

/// The logits of all rows with what they stand for, where they were kept.
pub struct KeptLogits(Option<(Tensor, Vec<RowDistribution>)>);

/// What was predicted for each target, in the targets' order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// Log-probability of the target under the shaped distribution. Nats.
    pub logprobs: Vec<f32>,
    /// Entropy of the shaped distribution. Nats.
    pub entropies: Vec<f32>,
}

/// One head with what it predicts for.
pub struct Head<'a> {
    /// `[vocabulary, hidden]`, with the packed form where there is one.
    pub projection: Projection<'a>,
    /// How logits become a distribution.
    pub shaping: Shaping,
    /// Sorted by row: rows of the hidden states passed to the methods below.
    pub targets: &'a [Target],
}

impl Head<'_> {
    /// Predictions of every target; `hidden` has one row for every value of `Target::row`.
    pub fn predict(&self, hidden: &Tensor) -> Result<Predictions> {
        let mut predictions = Predictions::default();
        self.chunks(hidden, |logits, targets, first| {
            self.predict_from(logits, targets, first, &mut predictions).map(drop)
        })?;
        Ok(predictions)
    }

    /// As [`Head::predict`], with what [`Head::backward`] does not want to compute again.
    pub fn predict_and_keep(&self, hidden: &Tensor) -> Result<(Predictions, KeptLogits)> {
        let (rows, vocabulary) = (hidden.dim(0)?, self.projection.weight.dim(0)?);
        if !is_fused(hidden) || rows_at_once(rows, vocabulary) < rows {
            return Ok((self.predict(hidden)?, KeptLogits(None)));
        }
        let mut predictions = Predictions::default();
        let logits = linear(hidden, self.projection)?;
        let rows = self.predict_from(&logits, self.targets, 0, &mut predictions)?;
        Ok((predictions, KeptLogits(Some((logits, rows)))))
    }

    /// Appends the predictions of some rows' targets, `first` being the first row; returns the rows' distributions.
    fn predict_from(
        &self,
        logits: &Tensor,
        targets: &[Target],
        first: usize,
        predictions: &mut Predictions,
    ) -> Result<Vec<RowDistribution>> {
        let (rows, width) = logits.dims2()?;
        let starts = row_starts(targets, first, rows);
        let mut logprobs = vec![0f32; targets.len()];
        let mut entropies = vec![0f32; targets.len()];
        let shared = [SharedMut::new(&mut logprobs), SharedMut::new(&mut entropies)];
        let distributions = read([logits], |[logits]| {
            let rows = logits.par_chunks_exact(width).enumerate();
            rows.map(|(row, logits)| {
                let (from, count) = (starts[row], starts[row + 1] - starts[row]);
                let distribution = RowDistribution::new(logits, self.shaping);
                // SAFETY: each task has the targets of its own row.
                let [found, entropy] = shared.map(|s| unsafe { s.part(from, count) });
                entropy.fill(distribution.entropy(logits));
                for (found, target) in found.iter_mut().zip(&targets[from..]) {
                    *found = distribution.log_prob(logits[target.token as usize]);
                }
                distribution
            })
            .collect()
        })?;
        predictions.logprobs.append(&mut logprobs);
        predictions.entropies.append(&mut entropies);
        Ok(distributions)
    }

    /// Given `d loss / d logprob` of every target, adds to the head's gradient, where that is wanted, and returns
    /// that of `hidden`. Logits that were not kept are computed again, chunk by chunk.
    pub fn backward(
        &self,
        hidden: &Tensor,
        kept: KeptLogits,
        slopes: &[f32],
        mut dweight: Option<&mut Tensor>,
    ) -> Result<Tensor> {
        if let KeptLogits(Some((logits, rows))) = kept {
            self.slope(&logits, self.targets, 0, slopes, |row, _| rows[row])?;
            return linear_backward(hidden, self.projection.weight, &logits, None, dweight, None);
        }
        let mut parts = Vec::new();
        let mut done = 0;
        self.chunks(hidden, |logits, targets, first| {
            let slopes = &slopes[done..done + targets.len()];
            done += targets.len();
            self.slope(logits, targets, first, slopes, |_, logits| {
                RowDistribution::new(logits, self.shaping)
            })?;
            let dlogits = logits.to_dtype(hidden.dtype())?.to_device(hidden.device())?;
            let rows = hidden.narrow(0, first, logits.dim(0)?)?;
            let weight = self.projection.weight;
            parts.push(linear_backward(
                &rows,
                weight,
                &dlogits,
                None,
                dweight.as_deref_mut(),
                None,
            )?);
            Ok(())
        })?;
        Tensor::cat(&parts, 0)
    }

    /// Replaces the logits of some rows by their gradient.
    fn slope(
        &self,
        logits: &Tensor,
        targets: &[Target],
        first: usize,
        slopes: &[f32],
        distribution: impl Fn(usize, &[f32]) -> RowDistribution + Sync,
    ) -> Result<()> {
        let (rows, width) = logits.dims2()?;
        let starts = row_starts(targets, first, rows);
        write(logits, |logits| {
            parallel::for_each_chunk(logits, width, |row, logits| {
                let at = starts[row]..starts[row + 1];
                let tokens = targets[at.clone()].iter().map(|t| t.token);
                let pairs = tokens.zip(slopes[at].iter().copied());
                distribution(row, logits).slope(logits, pairs);
            });
        })
    }

    /// Calls `work` with the f32 logits on the CPU of each chunk of rows, its targets, and its first row.
    fn chunks(
        &self,
        hidden: &Tensor,
        mut work: impl FnMut(&Tensor, &[Target], usize) -> Result<()>,
    ) -> Result<()> {
        let (rows, step) = (hidden.dim(0)?, rows_of(CHUNK_BYTES, self.projection.weight.dim(0)?));
        for first in (0..rows).step_by(step) {
            let chunk = hidden.narrow(0, first, step.min(rows - first))?;
            let logits = linear(&chunk, self.projection)?;
            let from = self.targets.partition_point(|t| t.row < first);
            let to = self.targets.partition_point(|t| t.row < first + step);
            let targets = &self.targets[from..to];
            if is_fused(&logits) {
                work(&logits, targets, first)?;
            } else {
                let wide = logits.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F32)?;
                work(&wide, targets, first)?;
            }
        }
        Ok(())
    }
}

/// For each row of a chunk, where its targets begin; one more for the end.
fn row_starts(targets: &[Target], first: usize, rows: usize) -> Vec<usize> {
    (0..=rows).map(|row| targets.partition_point(|t| t.row < first + row)).collect()
}
