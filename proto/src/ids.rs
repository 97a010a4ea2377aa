//! Newtypes for the numbers of a run, and the arithmetic that ties them together.
//!
//! Invariant: which groups a step consumes, which step consumes a group, and which version a step
//! is sampled with are computed here and nowhere else.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, as it goes on the wire.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }

        impl From<$name> for $inner {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! counter {
    ($($name:ident),*) => {$(
        impl $name {
            /// The one that follows. Counters of a run stay far below the end of `u64`.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    )*};
}

number! {
    /// A group: one example's visit in one epoch, counted over the whole run.
    GroupIndex(u64)
}
number! {
    /// A completion within its group.
    SampleIndex(u32)
}
number! {
    /// The weights after so many steps; version 0 is the start.
    PolicyVersion(u64)
}
number! {
    /// One optimiser update, counted from 0.
    StepIndex(u64)
}
number! {
    /// Counts the leases of one group; the highest fences all others.
    LeaseEpoch(u64)
}
number! {
    /// A reward revision of the run, counted from 1.
    RevisionNumber(u64)
}
number! {
    /// One incarnation of a worker; a worker that registers again gets another.
    WorkerId(u64)
}
counter!(GroupIndex, PolicyVersion, StepIndex, LeaseEpoch, RevisionNumber, WorkerId);

impl GroupIndex {
    /// The step that consumes this group, with `batch` groups to a step.
    pub const fn step(self, batch: NonZeroU64) -> StepIndex {
        StepIndex(self.0 / batch.get())
    }
}

impl StepIndex {
    /// The groups that this step consumes: `[k·B, (k+1)·B)`.
    pub const fn groups(self, batch: NonZeroU64) -> Range<GroupIndex> {
        let first = self.0.saturating_mul(batch.get());
        GroupIndex(first)..GroupIndex(first.saturating_add(batch.get()))
    }

    /// The version that this step's groups are sampled with: `max(0, k − lag)`, exactly.
    pub const fn sampled_with(self, lag: u64) -> PolicyVersion {
        PolicyVersion(self.0.saturating_sub(lag))
    }

    /// The version that committing this step makes.
    pub const fn makes(self) -> PolicyVersion {
        PolicyVersion(self.0.saturating_add(1))
    }
}

/// The digest of a resolved configuration, hex. Nodes of one run present the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigDigest(String);

impl ConfigDigest {
    /// Takes a digest as it came from a file or from the wire; only equality is ever asked of it.
    pub fn new(hex: impl Into<String>) -> Self {
        Self(hex.into())
    }

    /// The whole digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, for lines that people read.
    pub fn short(&self) -> &str {
        match self.0.char_indices().nth(12) {
            Some((end, _)) => &self.0[..end],
            None => &self.0,
        }
    }
}

impl fmt::Display for ConfigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for ConfigDigest {
    fn from(hex: String) -> Self {
        Self(hex)
    }
}

impl From<ConfigDigest> for String {
    fn from(digest: ConfigDigest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_is_sampled_with_the_version_that_the_lag_allows() {
        let versions =
            |lag| (0..4).map(|k| StepIndex(k).sampled_with(lag).get()).collect::<Vec<_>>();
        assert_eq!(versions(0), [0, 1, 2, 3]);
        assert_eq!(versions(1), [0, 0, 1, 2]);
        assert_eq!(versions(9), [0, 0, 0, 0]);
        assert_eq!(StepIndex(0).makes(), PolicyVersion(1));
    }

    #[test]
    fn ids_are_bare_numbers_in_json_and_in_text() {
        assert_eq!(serde_json::to_string(&GroupIndex(7)).ok().as_deref(), Some("7"));
        assert_eq!(serde_json::from_str::<GroupIndex>("7").ok(), Some(GroupIndex(7)));
        assert_eq!(
            format!("group {} sample {}", GroupIndex(7), SampleIndex(3)),
            "group 7 sample 3"
        );
    }

    #[test]
    fn a_short_digest_never_splits_a_character() {
        assert_eq!(ConfigDigest::new("0123456789abcdef").short(), "0123456789ab");
        assert_eq!(ConfigDigest::new("ab").short(), "ab");
        assert_eq!(ConfigDigest::new("ééééééééééééé").short().chars().count(), 12);
    }

    proptest! {
        #[test]
        fn every_group_lies_in_exactly_the_step_that_consumes_it(
            group in 0u64..1_000_000_000, batch in 1u64..10_000,
        ) {
            let batch = NonZeroU64::new(batch).ok_or(TestCaseError::reject("zero"))?;
            let group = GroupIndex(group);
            let step = group.step(batch);
            prop_assert!(step.groups(batch).contains(&group));
            prop_assert!(!step.next().groups(batch).contains(&group));
            prop_assert_eq!(step.groups(batch).end, step.next().groups(batch).start);
        }
    }
}
