//! Reward functions by name: the built-in ones, and files in Python.

use std::{str::FromStr, sync::Arc};

use crate::{
    aws_compat::AwsCompat,
    bfcl::Bfcl,
    function::RewardFunction,
    service::python::{ParseSourceError, PythonError, PythonReward, PythonSettings, PythonSource},
    tool_call::ToolCall,
};

/// Where a reward function is.
#[derive(Clone, Debug)]
pub enum RewardSource {
    /// A built-in function's name.
    Builtin(String),
    /// A function in a Python file, and what it may use.
    Python(PythonSource, PythonSettings),
}

/// Why there is no reward function.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No built-in function has the name.
    #[error(transparent)]
    Unknown(#[from] UnknownReward),
    /// The Python file holds none that can be run.
    #[error(transparent)]
    Python(#[from] PythonError),
}

impl FromStr for RewardSource {
    type Err = ParseSourceError;

    /// `FILE.py`, `FILE.py:FUNCTION`, or the name of a built-in function.
    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        if PythonSource::is_meant(text) {
            return Ok(Self::Python(text.parse()?, PythonSettings::default()));
        }
        Ok(Self::Builtin(text.to_owned()))
    }
}

/// The function that a source names, ready to score.
///
/// # Errors
/// There is none, with what was expected and found.
pub fn open(source: &RewardSource) -> Result<Arc<dyn RewardFunction>, OpenError> {
    Ok(match source {
        RewardSource::Builtin(name) => by_name(name)?,
        RewardSource::Python(source, settings) => {
            Arc::new(PythonReward::open(source, settings.clone())?)
        }
    })
}

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
    vec![Arc::new(ToolCall), Arc::new(AwsCompat), Arc::new(Bfcl)]
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
            [("tool_call", "tool-call"), ("toolcalls", "tool-call"), ("awscompat", "aws-compat")]
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
