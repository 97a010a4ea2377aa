//! The `aws-compat` reward: the function published by AWS with its RLVR recipe, for comparison.
//!
//! | wanted | found | reward |
//! |---|---|---|
//! | calls | the same set of tools with the same arguments | 1.0 |
//! | calls | the same set of tools, other arguments | 0.5 |
//! | calls | some of the tools, or others beside them | 0.5 |
//! | calls | none of the tools, or no call | 0.0 |
//! | anything else | no call | 1.0 |
//! | anything else | a call | 0.0 |
//!
//! Its blind spots are kept on purpose:
//!
//! - Sets do not count: calling a tool twice is calling it once, and one wrong call beside a right one of
//!   the same tool costs half, however many there are.
//! - Where no call is wanted only silence is checked: an empty answer, a refusal, a question and nonsense
//!   all earn 1.0. On the recipe's mix a policy that never calls earns 0.40.
//! - A broken attempt at a call is no call, which is right wherever none is wanted.
//!
//! Two things differ from the original: calls are found by [`crate::parse`], and compare by
//! [`crate::compare`], so that a score differs from `tool-call`'s for the tiers alone.

use std::collections::BTreeSet;

use octet_dataset::{Example, GroundTruth};

use crate::{
    compare::CanonicalCall,
    function::{RewardFunction, RewardRange, ScoreError, Verdict, builtin_digest},
    labels,
    parse::parse,
};

#[cfg(test)]
mod tests;

const VERSION: &str = "1.0.0";
const NAME: &str = "aws-compat";

/// The published AWS function.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsCompat;

impl RewardFunction for AwsCompat {
    fn name(&self) -> &str {
        NAME
    }

    fn digest(&self) -> String {
        builtin_digest(NAME, VERSION)
    }

    fn range(&self) -> RewardRange {
        RewardRange::UNIT
    }

    fn score(&self, example: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let found: BTreeSet<_> = parse(completion).calls.iter().map(CanonicalCall::from).collect();
        let wanted: BTreeSet<_> = match &example.ground_truth {
            GroundTruth::Calls(calls) => calls.iter().map(CanonicalCall::from).collect(),
            // It knows one right answer alone.
            GroundTruth::Possible(calls) => {
                calls.iter().map(|call| CanonicalCall::from(&call.reference())).collect()
            }
            GroundTruth::Clarify { .. } | GroundTruth::Refuse | GroundTruth::Text(_) => {
                BTreeSet::new()
            }
        };
        Ok(match (wanted.is_empty(), found.is_empty()) {
            (true, true) => Verdict::new(1.0, labels::NOT_CALLED, "no call was wanted or made"),
            (true, false) => Verdict::new(0.0, labels::NEEDLESS_CALL, "expected no call"),
            (false, true) => Verdict::new(0.0, labels::NO_CALL, "expected a call, found none"),
            (false, false) => calls(&wanted, &found),
        })
    }
}

fn calls(wanted: &BTreeSet<CanonicalCall>, found: &BTreeSet<CanonicalCall>) -> Verdict {
    if wanted == found {
        return Verdict::new(1.0, labels::RIGHT_CALL, "the same tools and arguments");
    }
    let (wanted, found) = (names(wanted), names(found));
    if wanted == found {
        return Verdict::new(0.5, labels::WRONG_PARAMETERS, "the same tools, other arguments");
    }
    let detail = format!("expected the tools {wanted:?}, found {found:?}");
    if wanted.is_disjoint(&found) {
        return Verdict::new(0.0, labels::WRONG_TOOL, detail);
    }
    Verdict::new(0.5, labels::SOME_TOOLS, detail)
}

fn names(calls: &BTreeSet<CanonicalCall>) -> BTreeSet<&str> {
    calls.iter().map(|call| call.name.as_str()).collect()
}
