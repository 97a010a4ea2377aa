//! What a completion's text was meant as a call and is none, and why.
//!
//! Invariant: text is only rejected when it looks like an attempt at a call; a bracket in prose is text.

use std::ops::Range;

use super::json::JsonFault;

/// A part of a completion that was meant as a call and is not taken as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{form} at bytes {}..{}: {why}", span.start, span.end)]
pub struct Rejection {
    /// The form it came in.
    pub form: Form,
    /// Which bytes of the completion.
    pub span: Range<usize>,
    /// What was expected and what was found.
    pub why: Reason,
}

/// The form that a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Between `<tool_call>` and `</tool_call>`.
    Tagged,
    /// JSON in the text, in a code fence or not.
    Bare,
    /// The completion as a whole.
    Whole,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tagged => "<tool_call> block",
            Self::Bare => "JSON in the text",
            Self::Whole => "completion",
        })
    }
}

/// Why something is not taken as a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The completion is longer than the parser reads.
    #[error("expected at most {limit} bytes, found {found}; nothing in it was read")]
    TooLong {
        /// Its length in bytes.
        found: usize,
        /// The most that is read.
        limit: usize,
    },
    /// More candidates than the parser looks at.
    #[error("expected at most {limit} candidates for a call, found more; the rest was not read")]
    TooMany {
        /// The most that are looked at.
        limit: usize,
    },
    /// Not JSON, or JSON that is ambiguous or out of bounds.
    #[error("{0}")]
    Json(#[from] JsonFault),
    /// A block without its end, and what is in it is no complete call.
    #[error("expected </tool_call> after the call, found the end of the text; {0}")]
    Unclosed(JsonFault),
    /// A block with nothing in it.
    #[error("expected a JSON object with \"name\" and \"arguments\", found an empty block")]
    Empty,
    /// A list without a call in it.
    #[error("expected at least one call in the list, found none")]
    EmptyList,
    /// JSON of another shape.
    #[error("expected an object with \"name\" and \"arguments\", found {found}")]
    NotAnObject {
        /// What was found.
        found: &'static str,
    },
    /// An object without a tool's name.
    #[error("expected the tool's name under \"name\", found the keys {keys}")]
    NoName {
        /// The keys there are.
        keys: String,
    },
    /// A name that is not a string, or an empty one.
    #[error("expected \"name\" to be a string with a tool's name, found {found}")]
    BadName {
        /// What was found.
        found: &'static str,
    },
    /// Arguments that are no object.
    #[error("expected {key:?} to be an object, or an object's JSON in a string, found {found}")]
    BadArguments {
        /// `arguments` or `parameters`.
        key: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// Arguments in a string that is no JSON.
    #[error("expected {key:?} to hold an object's JSON in a string; {fault}")]
    BadArgumentText {
        /// `arguments` or `parameters`.
        key: &'static str,
        /// What is wrong with it.
        fault: JsonFault,
    },
    /// Both spellings at once.
    #[error("expected \"arguments\" or \"parameters\", found both, which is ambiguous")]
    BothArguments,
    /// A key that a call outside `<tool_call>` may not have.
    #[error(
        "expected only \"name\" and \"arguments\" in a call outside <tool_call>, found {key:?}"
    )]
    UnknownKey {
        /// The key.
        key: String,
    },
}
