//! What can be told about an answer's words by rule: does it refuse, does it ask, what does it name.
//!
//! Invariant: pure and deterministic, linear in the text, and English only; an answer in another language
//! neither refuses nor asks, except by a question mark. The rules are lists in [`refusal`] and [`question`]
//! and no model, so that the same answer has the same reward for ever.

pub mod question;
pub mod refusal;
#[cfg(test)]
mod tests;
pub mod words;
