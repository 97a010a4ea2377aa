//! The `tool-call` reward.
//!
//! | wanted | 1.0 | 0.5 | 0.0 |
//! |---|---|---|---|
//! | calls | the same multiset of calls | the same multiset of tools, arguments missing or wrong | another tool, a needless call, too few calls, none |
//! | a question | no call, no refusal, and a question that names all that is missing | a question that does not | a call, a refusal, no question |
//! | a refusal | no call and a refusal | – | a call, or no refusal |
//! | a text | no call and the same text after normalisation, case included | – | a call, or another text |
//!
//! Calls with accepted values (`possible_calls`) are compared by [`crate::alternatives`], all others to the letter.
//! Text beside the right calls costs nothing. Something meant as a call that is none counts as a call that
//! is wrong: 0.0 and `malformed-call`, whatever else is right, or a policy could spray attempts.
//! What a call is, is in [`crate::parse`]; when two are the same, in [`crate::compare`]; what asks and what
//! refuses, in [`crate::language`].
//!
//! Invariant: silence earns nothing; an empty completion scores 0.0 on every example but one that wants
//! an empty text.

use octet_dataset::{Example, GroundTruth};

use crate::{
    alternatives::match_possible,
    compare::{Matching, match_calls, normalise},
    function::{RewardFunction, RewardRange, ScoreError, Verdict, builtin_digest},
    labels,
    language::{question, refusal},
    parse::{Parsed, ParsedCall, excerpt, parse},
};

#[cfg(test)]
mod tests;

/// Raise this whenever a change here, in the parser, the comparison or the language rules could give the
/// same completion another reward.
const VERSION: &str = "1.1.0";
const NAME: &str = "tool-call";

/// The built-in function with the tiers of the design.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolCall;

impl RewardFunction for ToolCall {
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
        let parsed = parse(completion);
        if let Some(rejection) = parsed.rejected.first() {
            return Ok(Verdict::new(0.0, labels::MALFORMED_CALL, rejection.to_string()));
        }
        Ok(match &example.ground_truth {
            GroundTruth::Calls(wanted) => {
                let tools: Vec<_> = wanted.iter().map(|call| call.name.as_str()).collect();
                execute(&tools, &parsed, |found| match_calls(wanted, found))
            }
            GroundTruth::Possible(wanted) => {
                let tools: Vec<_> = wanted.iter().map(|call| call.name.as_str()).collect();
                execute(&tools, &parsed, |found| match_possible(wanted, found))
            }
            _ if !parsed.calls.is_empty() => {
                let detail = format!("expected no call, found {}", called(&parsed));
                Verdict::new(0.0, labels::NEEDLESS_CALL, detail)
            }
            GroundTruth::Clarify { missing } => clarify(missing, &parsed.text_outside),
            GroundTruth::Refuse => refuse(&parsed.text_outside),
            GroundTruth::Text(wanted) => text(wanted, &parsed.text_outside),
        })
    }
}

fn execute(
    tools: &[&str],
    parsed: &Parsed,
    compare: impl Fn(&[ParsedCall]) -> Matching,
) -> Verdict {
    if parsed.calls.is_empty() {
        let tools: Vec<_> = tools.iter().map(|name| excerpt(name)).collect();
        let (label, found) = if refusal::refuses(&parsed.text_outside) {
            (labels::NEEDLESS_REFUSAL, "a refusal")
        } else {
            (labels::NO_CALL, "no call")
        };
        return Verdict::new(0.0, label, format!("expected {}, found {found}", tools.join(", ")));
    }
    match compare(&parsed.calls) {
        Matching::Same => {
            Verdict::new(1.0, labels::RIGHT_CALL, format!("found {}", called(parsed)))
        }
        Matching::SameTools { only_missing: true, difference } => {
            Verdict::new(0.5, labels::MISSING_PARAMETERS, difference)
        }
        Matching::SameTools { only_missing: false, difference } => {
            Verdict::new(0.5, labels::WRONG_PARAMETERS, difference)
        }
        Matching::Needless { tools } => Verdict::new(
            0.0,
            labels::NEEDLESS_CALL,
            format!("expected no further call, found {}", list(&tools)),
        ),
        Matching::TooFew { tools } => Verdict::new(
            0.0,
            labels::TOO_FEW_CALLS,
            format!("expected {} as well, found only {}", list(&tools), called(parsed)),
        ),
        Matching::OtherTools { missing, instead } => Verdict::new(
            0.0,
            labels::WRONG_TOOL,
            format!("expected {}, found {}", list(&missing), list(&instead)),
        ),
    }
}

fn clarify(missing: &[String], answer: &str) -> Verdict {
    let wanted = || format!("expected a question for {}", list(missing));
    if refusal::refuses(answer) {
        let detail = format!("{}, found a refusal", wanted());
        return Verdict::new(0.0, labels::NEEDLESS_REFUSAL, detail);
    }
    if !question::asks(answer) {
        return Verdict::new(0.0, labels::NO_QUESTION, format!("{}, found none", wanted()));
    }
    let unnamed = question::unnamed(answer, missing);
    if unnamed.is_empty() {
        return Verdict::new(1.0, labels::NAMED_QUESTION, format!("asks for {}", list(missing)));
    }
    let detail = format!("{}, found one that does not name {}", wanted(), list(&unnamed));
    Verdict::new(0.5, labels::VAGUE_QUESTION, detail)
}

fn refuse(answer: &str) -> Verdict {
    if refusal::refuses(answer) {
        return Verdict::new(1.0, labels::REFUSED, "refuses");
    }
    let detail = format!("expected a refusal, found {:?}", excerpt(answer));
    Verdict::new(0.0, labels::NOT_REFUSED, detail)
}

fn text(wanted: &str, answer: &str) -> Verdict {
    if normalise(wanted) == normalise(answer) {
        return Verdict::new(1.0, labels::RIGHT_TEXT, "the text wanted");
    }
    let detail = format!("expected {:?}, found {:?}", excerpt(wanted), excerpt(answer));
    Verdict::new(0.0, labels::WRONG_TEXT, detail)
}

fn called(parsed: &Parsed) -> String {
    list(&parsed.calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>())
}

/// Names for a message, at most five of them.
fn list(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| excerpt(name.as_ref())).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}
