//! The verdicts' labels: stable strings that metrics, tables and users' scripts may rely on.
//!
//! Invariant: a label never changes its meaning; a new meaning is a new label.

/// The right calls with the right arguments.
pub const RIGHT_CALL: &str = "right-call";
/// The right tools; every wrong argument is one that is left out.
pub const MISSING_PARAMETERS: &str = "missing-parameters";
/// The right tools with wrong arguments.
pub const WRONG_PARAMETERS: &str = "wrong-parameters";
/// Another tool instead of one wanted.
pub const WRONG_TOOL: &str = "wrong-tool";
/// Some of the tools wanted, and not all of them.
pub const TOO_FEW_CALLS: &str = "too-few-calls";
/// A call where none is wanted, or one too many.
pub const NEEDLESS_CALL: &str = "needless-call";
/// No call where one is wanted, and no refusal either.
pub const NO_CALL: &str = "no-call";
/// Something meant as a call that is none.
pub const MALFORMED_CALL: &str = "malformed-call";
/// A question that names all that is missing.
pub const NAMED_QUESTION: &str = "named-question";
/// A question that does not.
pub const VAGUE_QUESTION: &str = "vague-question";
/// No question where one is wanted, and no refusal either.
pub const NO_QUESTION: &str = "no-question";
/// A refusal where one is wanted.
pub const REFUSED: &str = "refused";
/// No refusal where one is wanted.
pub const NOT_REFUSED: &str = "not-refused";
/// A refusal where none is wanted.
pub const NEEDLESS_REFUSAL: &str = "needless-refusal";
/// The text wanted.
pub const RIGHT_TEXT: &str = "right-text";
/// Another text than the one wanted.
pub const WRONG_TEXT: &str = "wrong-text";
/// `aws-compat`, `bfcl`: no tool was called where none is wanted, whatever the text says.
pub const NOT_CALLED: &str = "not-called";
/// `aws-compat`: some of the tools wanted are among those called.
pub const SOME_TOOLS: &str = "some-tools";

/// All of them.
pub const ALL: [&str; 18] = [
    RIGHT_CALL,
    MISSING_PARAMETERS,
    WRONG_PARAMETERS,
    WRONG_TOOL,
    TOO_FEW_CALLS,
    NEEDLESS_CALL,
    NO_CALL,
    MALFORMED_CALL,
    NAMED_QUESTION,
    VAGUE_QUESTION,
    NO_QUESTION,
    REFUSED,
    NOT_REFUSED,
    NEEDLESS_REFUSAL,
    RIGHT_TEXT,
    WRONG_TEXT,
    NOT_CALLED,
    SOME_TOOLS,
];
