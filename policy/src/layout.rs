//! Packed groups: one prefix and its suffixes, group after group, as rows of one matrix.
//!
//! Invariant: a group's rows are its prefix, then its suffixes in order; a suffix's positions continue
//! the prefix's. A group of prompt `P` and completions `C` has `P + Σ C` rows, never `Σ (P + C)`.

use std::ops::Range;

/// Token ids of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupTokens {
    /// The shared prompt.
    pub prefix: Vec<u32>,
    /// The completions.
    pub suffixes: Vec<Vec<u32>>,
}

/// Where a group lies among the packed rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRows {
    /// Rows of the prefix.
    pub prefix: Range<usize>,
    /// Rows of each suffix.
    pub suffixes: Vec<Range<usize>>,
}

/// Several groups, packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedGroups {
    /// One token a row.
    pub tokens: Vec<u32>,
    /// One position a row, counted from the start of the row's own sequence.
    pub positions: Vec<u32>,
    /// The groups in order.
    pub groups: Vec<GroupRows>,
}

/// A prediction that a loss looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index into [`HeadPlan::rows`].
    pub row: usize,
    /// The token that came next.
    pub token: u32,
}

/// Which rows reach the vocabulary, and what they predict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadPlan {
    /// Packed rows whose hidden states predict a completion token.
    pub rows: Vec<u32>,
    /// Predictions, sorted by row. A prefix's last row predicts the first token of every suffix.
    pub targets: Vec<Target>,
    /// `targets[i]` is the completion token number `order[i]`, counted group by group, suffix by suffix.
    pub order: Vec<usize>,
}

impl HeadPlan {
    /// Values in the targets' order, in the order of completion tokens.
    pub fn by_token<T: Copy + Default>(&self, by_target: &[T]) -> Vec<T> {
        let mut values = vec![T::default(); by_target.len()];
        self.order.iter().zip(by_target).for_each(|(&at, &value)| values[at] = value);
        values
    }

    /// The reverse of [`HeadPlan::by_token`].
    pub fn by_target<T: Copy>(&self, by_token: &[T]) -> Vec<T> {
        self.order.iter().map(|&at| by_token[at]).collect()
    }
}

impl PackedGroups {
    /// Packs groups whose suffixes are read up to, not including, their last token: the last token is
    /// only ever predicted.
    pub fn for_learning<'a>(groups: impl IntoIterator<Item = &'a GroupTokens>) -> (Self, HeadPlan) {
        let mut packed = Self::default();
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for group in groups {
            packed.push(
                &group.prefix,
                group.suffixes.iter().map(|s| &s[..s.len().saturating_sub(1)]),
            );
            let at = packed.groups.len() - 1;
            let last = packed.groups[at].prefix.end.saturating_sub(1);
            // The prefix's last row and all suffix rows: one range of packed rows.
            let first = rows.len();
            rows.extend((last..packed.len()).map(|row| row as u32));
            for (suffix, own) in group.suffixes.iter().zip(&packed.groups[at].suffixes) {
                let predicting = std::iter::once(last).chain(own.clone());
                targets.extend(
                    predicting
                        .zip(suffix)
                        .map(|(row, &token)| Target { row: first + row - last, token }),
                );
            }
        }
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|&i| targets[i].row);
        let targets = order.iter().map(|&i| targets[i]).collect();
        (packed, HeadPlan { rows, targets, order })
    }

    /// Packs prompts alone.
    pub fn prompts<'a>(prompts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut packed = Self::default();
        prompts.into_iter().for_each(|prompt| packed.push(prompt, std::iter::empty()));
        packed
    }

    fn push<'a>(&mut self, prefix: &[u32], suffixes: impl Iterator<Item = &'a [u32]>) {
        let prefix_rows = self.extend(prefix, 0);
        let suffixes = suffixes.map(|suffix| self.extend(suffix, prefix.len())).collect();
        self.groups.push(GroupRows { prefix: prefix_rows, suffixes });
    }

    fn extend(&mut self, tokens: &[u32], position: usize) -> Range<usize> {
        let from = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as u32));
        from..self.tokens.len()
    }

    /// Rows in all.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
