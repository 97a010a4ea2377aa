//! How one request is sampled where requests differ, as a server's do, and what is noted of its tokens.
//!
//! Invariant: a manner is a value. What a guide allows depends on the tokens written so far alone, so a request
//! that is sampled again is the same request.

use super::Sampling;
use crate::kernel::head::{RowDistribution, Shaping};
use std::fmt;
use std::sync::Arc;

/// How one request is sampled.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Seed, number of completions, shaping, and where they end.
    pub sampling: Arc<Sampling>,
    /// The group index that keys its random numbers. Another one than the request's group where requests are told
    /// apart by their order and must not depend on it.
    pub stream: u64,
    /// How many of the most likely tokens are noted beside each sampled one; nothing is noted where there is none.
    pub alternatives: Option<usize>,
    /// Restricts the tokens that may be drawn.
    pub guide: Option<Arc<dyn Guide>>,
}

/// Restricts what may be written.
pub trait Guide: fmt::Debug + Send + Sync {
    /// Token ids that may follow `written`, ascending; none for all. An empty list is as none.
    fn allowed(&self, written: &[u32]) -> Option<Vec<u32>>;
}

/// What the model itself held of a token, before temperature, top-k, top-p and a guide. Nats.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenNote {
    /// Log-probability of the token that was sampled.
    pub logprob: f32,
    /// The most likely tokens with theirs, likeliest first; of equals the lower id.
    pub likeliest: Vec<(u32, f32)>,
}

impl Manner {
    /// As the sampler's own: nothing noted, nothing restricted, keyed by its group.
    pub(super) fn plain(sampling: Arc<Sampling>, group: u64) -> Self {
        Self { sampling, stream: group, alternatives: None, guide: None }
    }

    pub(super) fn allowed(&self, written: &[u32]) -> Option<Vec<u32>> {
        self.guide.as_ref()?.allowed(written).filter(|allowed| !allowed.is_empty())
    }

    pub(super) fn note(&self, logits: &[f32], token: u32) -> Option<TokenNote> {
        Some(TokenNote::new(logits, token, self.alternatives?))
    }
}

/// Draws one of the `allowed` tokens at quantile `u`; returns it with its log-probability among them.
pub(super) fn draw_allowed(
    logits: &[f32],
    allowed: &[u32],
    shaping: Shaping,
    u: f32,
) -> Option<(u32, f32)> {
    let kept: Vec<f32> = allowed.iter().filter_map(|t| logits.get(*t as usize)).copied().collect();
    if kept.len() != allowed.len() || kept.is_empty() {
        return None;
    }
    let row = RowDistribution::new(&kept, shaping);
    let at = row.draw(&kept, u) as usize;
    Some((allowed[at], row.log_prob(kept[at])))
}

impl TokenNote {
    fn new(logits: &[f32], token: u32, count: usize) -> Self {
        let row = RowDistribution::new(logits, Shaping::default());
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let above = |a: &u32, b: &u32| {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
        };
        if count < order.len() {
            order.select_nth_unstable_by(count, above);
            order.truncate(count);
        }
        order.sort_unstable_by(above);
        let of = |id: u32| row.log_prob(logits[id as usize]);
        Self { logprob: of(token), likeliest: order.into_iter().map(|id| (id, of(id))).collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, 2.0, -3.0];

    #[test]
    fn notes_are_the_models_own_likeliest_first() {
        let note = TokenNote::new(&LOGITS, 4, 3);
        let total = LOGITS.iter().map(|l| l.exp()).sum::<f32>().ln();
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-5, "{a} {b}");
        near(note.logprob, -3.0 - total);
        let ids: Vec<u32> = note.likeliest.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 2]);
        near(note.likeliest[0].1, 2.0 - total);
        assert_eq!(TokenNote::new(&LOGITS, 0, 99).likeliest.len(), 5);
        assert!(TokenNote::new(&LOGITS, 0, 0).likeliest.is_empty());
    }

    #[test]
    fn only_allowed_tokens_are_drawn_with_their_share_among_them() {
        // exp(0) against exp(-3): the first has 0.9526 of both.
        for (u, expected) in [(0.0, 0), (0.95, 0), (0.96, 4), (0.999_999, 4)] {
            let (token, logprob) = draw_allowed(&LOGITS, &[0, 4], Shaping::default(), u).unwrap();
            assert_eq!(token, expected, "at {u}");
            let share = if token == 0 { 0.9526f32 } else { 0.0474 };
            assert!((logprob.exp() - share).abs() < 1e-4, "{logprob}");
        }
        let greedy = Shaping { temperature: 0.0, ..Shaping::default() };
        assert_eq!(draw_allowed(&LOGITS, &[0, 2, 4], greedy, 0.99).unwrap().0, 2);
        assert_eq!(draw_allowed(&LOGITS, &[9], greedy, 0.5), None, "an id that the model lacks");
    }
}
