//! The built-in reward functions by name.

use std::sync::Arc;

use crate::{aws_compat::AwsCompat, function::RewardFunction, tool_call::ToolCall};

/// A name that no built-in function has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reward {name:?}: expected one of {known}; did you mean {nearest:?}?")]
pub struct UnknownReward {
    /// The name asked for.
    pub name: String,
    /// The known name nearest to it.
    pub nearest: String,
    /// All known names.
    pub known: String,
}

/// All built-in functions, the default one first.
pub fn builtin() -> Vec<Arc<dyn RewardFunction>> {
    vec![Arc::new(ToolCall), Arc::new(AwsCompat)]
}

/// The built-in function of this name.
pub fn by_name(name: &str) -> Result<Arc<dyn RewardFunction>, UnknownReward> {
    let functions = builtin();
    if let Some(found) = functions.iter().find(|function| function.name() == name) {
        return Ok(Arc::clone(found));
    }
    let known: Vec<_> = functions.iter().map(|function| function.name()).collect();
    let asked = name.to_lowercase().replace('_', "-");
    let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(&asked, known));
    Err(UnknownReward {
        name: name.to_owned(),
        nearest: nearest.copied().unwrap_or_default().to_owned(),
        known: known.join(", "),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        for function in builtin() {
            assert_eq!(by_name(function.name()).unwrap().digest(), function.digest());
        }
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest() {
        for (typed, nearest) in
            [("tool_call", "tool-call"), ("toolcalls", "tool-call"), ("AWS", "aws-compat")]
        {
            let error = by_name(typed).err().unwrap();
            assert_eq!(error.nearest, nearest);
            assert!(error.to_string().contains("tool-call, aws-compat"), "{error}");
        }
    }

    #[test]
    fn digests_differ_by_function_and_are_hex() {
        let digests: Vec<_> = builtin().iter().map(|function| function.digest()).collect();
        assert_ne!(digests[0], digests[1]);
        assert!(digests.iter().all(|d| d.len() == 64 && d.chars().all(|c| c.is_ascii_hexdigit())));
    }
}
