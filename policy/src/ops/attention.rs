//! Attention of packed groups for learning and prefill, as one operation with its gradient.
//!
//! Invariant: learning computes the weights that decoding computes; see `kernel::attention`.

use super::access::{filled, is_fused, read, unwritten};
use super::composite;
use crate::kernel::attention::{Heads, Job, KeyValues, Run, Sight, attend};
use crate::kernel::attention_backward::{self as backward, blocks};
use crate::kernel::gemm::Mat;
use crate::kernel::panels::Panels;
use crate::layout::GroupRows;
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// What the gradient wants back besides the inputs and the output.
pub struct AttentionKept {
    log_sums: Vec<f32>,
}

/// `q [rows, heads · dim]`, `k` and `v [rows, key heads · dim]`, rotated → `[rows, heads · dim]`.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    groups: &[GroupRows],
    heads: Heads,
) -> Result<(Tensor, AttentionKept)> {
    if !is_fused(q) {
        let out = composite::attention(q, k, v, groups, heads)?;
        return Ok((out, AttentionKept { log_sums: Vec::new() }));
    }
    let mut log_sums = vec![0f32; q.dim(0)? * heads.queries];
    let out = filled(q, q.shape(), |out| {
        read([q, k, v], |[q, k, v]| {
            let packed = pack_groups(k, v, groups, heads);
            forward_packed(q, &packed, groups, heads, out, &mut log_sums);
        })
    })?;
    Ok((out, AttentionKept { log_sums }))
}

/// Packed keys and values of some rows and one head.
#[derive(Clone, Debug, Default)]
pub struct HeadCache {
    /// `dim × positions`.
    pub keys: Panels,
    /// `positions × dim`.
    pub values: Panels,
}

impl HeadCache {
    /// Packs one head of some rows of `k` and `v`.
    pub fn pack((k, v): (&[f32], &[f32]), rows: &Range<usize>, heads: Heads, head: usize) -> Self {
        let stride = heads.keys * heads.dim;
        let from = (rows.start * stride + head * heads.dim).min(k.len());
        Self {
            keys: Panels::pack(Mat::transposed(&k[from..], stride), heads.dim, rows.len()),
            values: Panels::pack(Mat::rows(&v[from..], stride), rows.len(), heads.dim),
        }
    }

    /// The view that the kernels read.
    pub fn view(&self) -> KeyValues<'_> {
        KeyValues { keys: &self.keys, values: &self.values }
    }
}

/// One group's keys and values of one head.
pub struct GroupCache {
    /// Of the prefix.
    pub prefix: HeadCache,
    /// Of each suffix.
    pub suffixes: Vec<HeadCache>,
}

/// Packs all groups and heads: entry `group · key heads + head`.
pub fn pack_groups(k: &[f32], v: &[f32], groups: &[GroupRows], heads: Heads) -> Vec<GroupCache> {
    (0..groups.len() * heads.keys)
        .into_par_iter()
        .map(|task| {
            let (group, head) = (&groups[task / heads.keys], task % heads.keys);
            let pack = |rows| HeadCache::pack((k, v), rows, heads, head);
            GroupCache {
                prefix: pack(&group.prefix),
                suffixes: group.suffixes.iter().map(pack).collect(),
            }
        })
        .collect()
}

/// Attention of all rows of packed groups over what [`pack_groups`] made of them.
pub fn forward_packed(
    q: &[f32],
    packed: &[GroupCache],
    groups: &[GroupRows],
    heads: Heads,
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    let mut jobs = Vec::new();
    for (task, packed) in packed.iter().enumerate() {
        let (group, head) = (&groups[task / heads.keys], task % heads.keys);
        let prefix = packed.prefix.view();
        let mut job = |rows: Range<usize>, suffix, sight: &dyn Fn(usize) -> Sight| {
            let runs = vec![Run { queries: rows.len(), suffix }];
            jobs.push(Job { head, prefix, rows: rows.map(|r| (r, sight(r))).collect(), runs });
        };
        for rows in blocks(group.prefix.clone(), heads.repeat()) {
            job(rows, None, &|row| Sight { prefix: row - group.prefix.start + 1, suffix: 0 });
        }
        let all = group.prefix.len();
        for (suffix, own) in group.suffixes.iter().zip(&packed.suffixes) {
            for rows in blocks(suffix.clone(), heads.repeat()) {
                let sight = |row| Sight { prefix: all, suffix: row - suffix.start + 1 };
                job(rows, Some(own.view()), &sight);
            }
        }
    }
    attend(&jobs, heads, q, out, Some(log_sums));
}

/// Gradients of `q`, `k` and `v`.
pub fn attention_backward(
    (q, k, v, out): (&Tensor, &Tensor, &Tensor, &Tensor),
    kept: &AttentionKept,
    groups: &[GroupRows],
    heads: Heads,
    dout: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    if !is_fused(q) {
        let grads = composite::vjp(&[q, k, v], dout, |t| {
            composite::attention(&t[0], &t[1], &t[2], groups, heads)
        })?;
        return Ok((grads[0].clone(), grads[1].clone(), grads[2].clone()));
    }
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|t| unwritten(t.elem_count()));
    read([q, k, v, out, dout], |[q, k, v, out, dout]| {
        let kept = backward::Kept { q, k, v, out, log_sums: &kept.log_sums };
        backward::backward(groups, heads, &kept, dout, (&mut dq, &mut dk, &mut dv));
    })?;
    let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
    Ok((tensor(dq, q)?, tensor(dk, k)?, tensor(dv, v)?))
}
