//! Keys and values of live groups: a prefix once, and a suffix for each of its completions.
//!
//! Invariant: a prefix is laid out once and never moves; a suffix grows by one position a token.

use crate::kernel::attention::{Heads, Job, Run, Sight, attend};
use crate::layout::GroupRows;
use crate::model::Attend;
use crate::ops::{self, HeadCache, access};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Positions that a fresh suffix has room for.
const ROOM: usize = 32;

/// Rows whose keys and values are worth handing to another thread.
const ROWS_TO_PUT: usize = 16;

/// Keys and values of one sequence part, layer by layer.
#[derive(Debug)]
pub enum Part {
    /// Panels for the fused kernels: entry `layer · key heads + head`.
    Panels(Vec<HeadCache>),
    /// Rows `[positions, key heads · dim]` for the composite operations, a pair a layer.
    Rows(Vec<Option<(Tensor, Tensor)>>),
}

/// A live completion's own part.
#[derive(Debug)]
pub struct Suffix {
    part: Part,
    len: usize,
}

impl Part {
    /// Nothing yet.
    fn empty(fused: bool, layers: usize) -> Self {
        if fused { Self::Panels(Vec::new()) } else { Self::Rows(vec![None; layers]) }
    }
}

impl Suffix {
    /// An empty suffix.
    pub fn new(fused: bool, layers: usize, heads: Heads) -> Self {
        let mut part = Part::empty(fused, layers);
        if let Part::Panels(panels) = &mut part {
            let fresh = || HeadCache {
                keys: crate::kernel::panels::Panels::zeros(heads.dim, ROOM),
                values: crate::kernel::panels::Panels::zeros(ROOM, heads.dim),
            };
            panels.resize_with(layers * heads.keys, fresh);
        }
        Self { part, len: 0 }
    }

    /// Positions it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Call once per token, after the last layer.
    pub fn advance(&mut self) {
        self.len += 1;
    }
}

/// Prefill: attention among prompts, whose keys and values are kept.
pub struct Prefill<'a> {
    groups: &'a [GroupRows],
    heads: Heads,
    parts: Vec<Part>,
}

impl<'a> Prefill<'a> {
    /// For some packed prompts.
    pub fn new(groups: &'a [GroupRows], heads: Heads, fused: bool, layers: usize) -> Self {
        let parts = groups.iter().map(|_| Part::empty(fused, layers)).collect();
        Self { groups, heads, parts }
    }

    /// The prefixes' parts, in the groups' order.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }
}

impl Attend for Prefill<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        if !access::is_fused(q) {
            for (group, part) in self.groups.iter().zip(&mut self.parts) {
                let rows = |t: &Tensor| t.narrow(0, group.prefix.start, group.prefix.len());
                if let Part::Rows(layers) = part {
                    layers[layer] = Some((rows(k)?.contiguous()?, rows(v)?.contiguous()?));
                }
            }
            return Ok(ops::attention(q, k, v, self.groups, self.heads)?.0);
        }
        access::filled(q, q.shape(), |out| {
            access::read([q, k, v], |[q, k, v]| {
                let packed = ops::pack_groups(k, v, self.groups, self.heads);
                let mut log_sums = vec![0f32; q.len() / self.heads.dim];
                ops::forward_packed(q, &packed, self.groups, self.heads, out, &mut log_sums);
                for (i, cache) in packed.into_iter().enumerate() {
                    if let Part::Panels(panels) = &mut self.parts[i / self.heads.keys] {
                        panels.push(cache.prefix);
                    }
                }
            })
        })
    }
}

/// One token of many completions: rows of one group are adjacent.
pub struct Decode<'a> {
    /// Each group's prefix, its length, and its live completions in row order.
    pub groups: Vec<(&'a Part, usize, Vec<&'a mut Suffix>)>,
    /// Heads of the model.
    pub heads: Heads,
}

impl Attend for Decode<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        if !access::is_fused(q) {
            return self.composite(layer, q, k, v);
        }
        let heads = self.heads;
        access::read([k, v], |[k, v]| {
            let suffixes = self.groups.iter_mut().flat_map(|(_, _, suffixes)| suffixes);
            let suffixes: Vec<&mut &mut Suffix> = suffixes.collect();
            // A key goes into as many lines of memory as it has floats, so this waits more than it works.
            let each = suffixes.into_par_iter().enumerate().with_min_len(ROWS_TO_PUT);
            each.for_each(|(row, suffix)| {
                for head in 0..heads.keys {
                    let at = (row * heads.keys + head) * heads.dim;
                    let (key, value) = (&k[at..][..heads.dim], &v[at..][..heads.dim]);
                    suffix.put(layer * heads.keys + head, key, value);
                }
            });
        })?;
        let mut jobs = Vec::with_capacity(self.groups.len() * heads.keys);
        let mut first = 0;
        for (prefix, len, suffixes) in &self.groups {
            for head in 0..heads.keys {
                let at = layer * heads.keys + head;
                let rows = suffixes
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (first + i, Sight { prefix: *len, suffix: s.len + 1 }));
                let runs = suffixes.iter().map(|s| Run { queries: 1, suffix: s.part.view(at) });
                if let Some(prefix) = prefix.view(at) {
                    jobs.push(Job { head, prefix, rows: rows.collect(), runs: runs.collect() });
                }
            }
            first += suffixes.len();
        }
        access::filled(q, q.shape(), |out| {
            access::read([q], |[q]| attend(&jobs, heads, q, out, None))
        })
    }
}

impl Part {
    fn view(&self, at: usize) -> Option<crate::kernel::attention::KeyValues<'_>> {
        match self {
            Self::Panels(panels) => panels.get(at).map(HeadCache::view),
            Self::Rows(_) => None,
        }
    }
}

impl Suffix {
    fn put(&mut self, at: usize, key: &[f32], value: &[f32]) {
        let Part::Panels(panels) = &mut self.part else { return };
        let cache = &mut panels[at];
        if self.len == cache.keys.columns() {
            cache.keys = cache.keys.widen(2 * self.len);
            cache.values = cache.values.deepen(2 * self.len);
        }
        cache.keys.set_column(self.len, key);
        cache.values.set_row(self.len, value);
    }
}

impl Decode<'_> {
    fn composite(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let mut out = Vec::new();
        for (prefix, _, suffixes) in &mut self.groups {
            let Part::Rows(prefix) = &**prefix else {
                candle_core::bail!("a prefix of another kind")
            };
            let Some((k0, v0)) = &prefix[layer] else {
                candle_core::bail!("layer {layer} has no prefix")
            };
            for suffix in suffixes {
                let row = out.len();
                let Part::Rows(own) = &mut suffix.part else {
                    candle_core::bail!("a suffix of another kind")
                };
                let (k1, v1) = (k.narrow(0, row, 1)?, v.narrow(0, row, 1)?);
                let (k1, v1) = match &own[layer] {
                    None => (k1.contiguous()?, v1.contiguous()?),
                    Some((k2, v2)) => (Tensor::cat(&[k2, &k1], 0)?, Tensor::cat(&[v2, &v1], 0)?),
                };
                let (keys, values) = (Tensor::cat(&[k0, &k1], 0)?, Tensor::cat(&[v0, &v1], 0)?);
                out.push(ops::attend_rows(&q.narrow(0, row, 1)?, &keys, &values, self.heads)?);
                own[layer] = Some((k1, v1));
            }
        }
        Tensor::cat(&out, 0)
    }
}
