//! The layers as they were given, and their merge with the origin of every value.
//!
//! Invariant: later layers win key by key: files in the order given, then the environment, then
//! `--set`, in whatever order they were added. Tables merge; everything else replaces.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::error::{ConfigError, Origin};
use super::{table, toml_text};

/// What was given over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    files: Vec<Assignment>,
    environment: Vec<Assignment>,
    sets: Vec<Assignment>,
}

/// One value for one key.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub key: Vec<String>,
    pub value: Value,
    /// The text that the value was read from, where it could have been meant as text.
    pub text: Option<String>,
    pub origin: Origin,
}

/// The merged layers.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub tree: Value,
    /// By key, as in an error message.
    by_key: BTreeMap<String, Assignment>,
}

impl Layers {
    /// Nothing but the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        self.text(&path.display().to_string(), &text)
    }

    /// Adds the text of a TOML file that errors call `name`, for example a bundled one.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn text(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        self.files.extend(toml_text::assignments(name, text)?);
        Ok(self)
    }

    /// Adds the environment: `OCTET_RUN__STEPS` is the key `run.steps`. Every key lies in a section,
    /// so a variable without `__`, such as `OCTET_LOG`, is not one of the configuration.
    ///
    /// # Errors
    /// A variable that names no key, such as `OCTET_RUN__`.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix("OCTET_").filter(|name| name.contains("__"))
            else {
                continue;
            };
            let key = name.to_lowercase().replace("__", ".");
            self.environment.push(assignment(&key, text, Origin::Environment { variable })?);
        }
        // The order of an environment means nothing; an error should not depend on it.
        self.environment.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(self)
    }

    /// Adds `--set` arguments: `run.steps=3`. The value is read as TOML and else as bare text.
    ///
    /// # Errors
    /// An argument that is not of this form.
    pub fn set<S: AsRef<str>>(
        mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self, ConfigError> {
        for argument in arguments {
            let argument = argument.as_ref();
            let origin = Origin::Set { argument: argument.to_owned() };
            let Some((key, text)) = argument.split_once('=') else {
                return Err(ConfigError::Assignment { origin, problem: "no `=`".to_owned() });
            };
            self.sets.push(assignment(key, text.to_owned(), origin)?);
        }
        Ok(self)
    }

    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.merged().origin(key)
    }

    /// The error for a value that only a look at the whole configuration refuses.
    pub fn refusal(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Mismatch {
            key: key.to_owned(),
            origin: self.origin(key),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(super) fn merged(&self) -> Given {
        let mut given = Given { tree: table(), by_key: BTreeMap::new() };
        for assignment in self.files.iter().chain(&self.environment).chain(&self.sets) {
            given.assign(assignment.clone());
        }
        given
    }
}

impl Given {
    fn assign(&mut self, assignment: Assignment) {
        if let Value::Object(entries) = &assignment.value {
            let place = slot(&mut self.tree, &assignment.key);
            if !place.is_object() {
                *place = table();
            }
            for (name, value) in entries {
                let mut inner = Assignment { value: value.clone(), ..assignment.clone() };
                inner.key.push(name.clone());
                self.assign(inner);
            }
            return;
        }
        let (key, below) = (assignment.key.join("."), format!("{}.", assignment.key.join(".")));
        self.by_key.retain(|other, _| !other.starts_with(&below));
        *slot(&mut self.tree, &assignment.key) = assignment.value.clone();
        self.by_key.insert(key, assignment);
    }

    /// Where the value of `key` was given: itself, what it lies in, or the first thing in it.
    pub fn origin(&self, key: &str) -> Origin {
        let below = format!("{key}.");
        let holders =
            std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]));
        holders
            .filter_map(|holder| self.by_key.get(holder))
            .chain(
                self.by_key.iter().filter(|(k, _)| k.starts_with(&below)).map(|(_, given)| given),
            )
            .next()
            .map_or(Origin::Default, |assignment| assignment.origin.clone())
    }

    /// Takes the value of `key` for the text that it was given as. False when it is that already.
    pub fn take_as_text(&mut self, key: &str) -> bool {
        let Some(assignment) = self.by_key.get_mut(key) else { return false };
        let Some(text) = assignment.text.take() else { return false };
        *slot(&mut self.tree, &assignment.key) = Value::String(text);
        true
    }
}

fn assignment(key: &str, text: String, origin: Origin) -> Result<Assignment, ConfigError> {
    let key: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
    if key.iter().any(|part| part.is_empty() || part.contains(char::is_whitespace)) {
        let problem = format!("`{}` names no key", key.join("."));
        return Err(ConfigError::Assignment { origin, problem });
    }
    let read = toml_text::value(&text);
    let value = read.clone().unwrap_or_else(|| Value::String(text.clone()));
    let text = read.is_some_and(|value| !value.is_string()).then_some(text);
    Ok(Assignment { key, value, text, origin })
}

/// The place of `key` in `tree`, made where it is missing. What is no table on the way becomes one.
fn slot<'a>(tree: &'a mut Value, key: &[String]) -> &'a mut Value {
    key.iter().fold(tree, |place, part| {
        if !place.is_object() {
            *place = table();
        }
        &mut place[part.as_str()]
    })
}
