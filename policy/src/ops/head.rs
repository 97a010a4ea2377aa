//! The output head: hidden states of completion positions to log-probabilities, and back.
//!
//! Invariant: logits exist for one chunk of rows at a time, never for tokens × vocabulary of a batch.
//! Only rows that predict a completion token come here.

use super::access::{is_fused, read, write};
use super::linear::{Projection, linear, linear_backward};
use crate::kernel::head::{RowDistribution, Shaping};
use crate::kernel::parallel::{self, SharedMut};
use crate::layout::Target;
use candle_core::{DType, Result, Tensor};

/// Bytes of logits that exist at once.
const CHUNK_BYTES: usize = 32 << 20;

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
    /// Rows per chunk.
    fn chunk_rows(&self) -> Result<usize> {
        Ok((CHUNK_BYTES / (4 * self.projection.weight.dim(0)?)).max(8))
    }

    /// Predictions of every target; `hidden` has one row for every value of `Target::row`.
    pub fn predict(&self, hidden: &Tensor) -> Result<Predictions> {
        let mut predictions = Predictions::default();
        self.chunks(hidden, |logits, targets, first| {
            let (rows, width) = logits.dims2()?;
            let starts = row_starts(targets, first, rows);
            let mut logprobs = vec![0f32; targets.len()];
            let mut entropies = vec![0f32; targets.len()];
            let shared = [SharedMut::new(&mut logprobs), SharedMut::new(&mut entropies)];
            read([logits], |[logits]| {
                parallel::for_each(rows, |row| {
                    let (from, count) = (starts[row], starts[row + 1] - starts[row]);
                    let logits = &logits[row * width..][..width];
                    let distribution = RowDistribution::new(logits, self.shaping);
                    // SAFETY: each task has the targets of its own row.
                    let [found, entropy] = shared.map(|s| unsafe { s.part(from, count) });
                    entropy.fill(distribution.entropy(logits));
                    for (found, target) in found.iter_mut().zip(&targets[from..]) {
                        *found = distribution.log_prob(logits[target.token as usize]);
                    }
                });
            })?;
            predictions.logprobs.append(&mut logprobs);
            predictions.entropies.append(&mut entropies);
            Ok(())
        })?;
        Ok(predictions)
    }

    /// Given `d loss / d logprob` of every target, adds to the head's gradient, where that is wanted, and returns that of
    /// `hidden`. Logits are computed again, chunk by chunk.
    pub fn backward(
        &self,
        hidden: &Tensor,
        slopes: &[f32],
        mut dweight: Option<&mut Tensor>,
    ) -> Result<Tensor> {
        let mut parts = Vec::new();
        let mut done = 0;
        self.chunks(hidden, |logits, targets, first| {
            let (rows, width) = logits.dims2()?;
            let slopes = &slopes[done..done + targets.len()];
            done += targets.len();
            write(logits, |logits| {
                let starts = row_starts(targets, first, rows);
                let shared = SharedMut::new(logits);
                parallel::for_each(rows, |row| {
                    // SAFETY: each task has its own row.
                    let logits = unsafe { shared.part(row * width, width) };
                    let at = starts[row]..starts[row + 1];
                    let pairs =
                        targets[at.clone()].iter().map(|t| t.token).zip(slopes[at].iter().copied());
                    RowDistribution::new(logits, self.shaping).slope(logits, pairs);
                });
            })?;
            let dlogits = logits.to_dtype(hidden.dtype())?.to_device(hidden.device())?;
            let rows = hidden.narrow(0, first, rows)?;
            parts.push(linear_backward(
                &rows,
                self.projection.weight,
                &dlogits,
                None,
                dweight.as_deref_mut(),
                None,
            )?);
            Ok(())
        })?;
        Tensor::cat(&parts, 0)
    }

    /// Calls `work` with the f32 logits on the CPU of each chunk of rows, its targets, and its first row.
    fn chunks(
        &self,
        hidden: &Tensor,
        mut work: impl FnMut(&Tensor, &[Target], usize) -> Result<()>,
    ) -> Result<()> {
        let (rows, step) = (hidden.dim(0)?, self.chunk_rows()?);
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
