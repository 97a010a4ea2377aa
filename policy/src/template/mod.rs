//! Chat templates: messages and tools to the text that the model reads.
//!
//! Invariant: the text is, byte for byte, what `transformers` renders from the same template, and
//! it depends on the arguments alone. So a template that asks for the date gets a fixed one unless
//! the caller sets it: two runs of one configuration must not differ by the day they start on.

mod clock;
mod engine;
mod load;
mod python;

use std::path::{Path, PathBuf};

use minijinja::Environment;
use serde_json::{Map, Value};

pub use self::clock::Moment;

/// The bundled policy's template: ChatML, tools one function a line, calls without line breaks.
pub const COMPACT_TEMPLATE: &str = include_str!("compact.jinja");

/// Names a message's reasoning comes under, the one that counts first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A compiled chat template with the special tokens it may name.
pub struct ChatTemplate {
    env: Environment<'static>,
    path: PathBuf,
    sources: Sources,
    tokens: Map<String, Value>,
}

/// The template texts of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// For every conversation.
    pub default: String,
    /// For conversations with tools, where the model has a template of their own.
    pub tool_use: Option<String>,
}

/// Why a template, or a conversation, is refused.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that should hold a template does not have the expected form.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What would be accepted.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The model has no template.
    #[error(
        "{} has no chat template: expected chat_template.jinja, chat_template.json, or the key \
         `chat_template` in tokenizer_config.json", dir.display()
    )]
    Missing {
        /// The model directory.
        dir: PathBuf,
    },
    /// The template is not valid Jinja.
    #[error("{}, template line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line of the template text, from 1; 0 when unknown.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template failed on this conversation.
    #[error("{}, template line {line}: cannot render the conversation: {message}", path.display())]
    Render {
        /// The file.
        path: PathBuf,
        /// Line of the template text, from 1; 0 when unknown.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template itself refused this conversation with `raise_exception`.
    #[error("{}, template line {line}: the template refuses the conversation: {message}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Line of the template text, from 1; 0 when unknown.
        line: usize,
        /// The template's own words.
        message: String,
    },
}

impl ChatTemplate {
    /// Finds and compiles the chat template of a model directory.
    pub fn from_dir(dir: &Path) -> Result<Self, TemplateError> {
        let found = load::from_dir(dir)?;
        Self::compile(found.sources, found.tokens, &found.path)
    }

    /// Compiles a template text; `path` names it in errors.
    pub fn from_source(source: &str, path: &Path) -> Result<Self, TemplateError> {
        let sources = Sources { default: source.into(), tool_use: None };
        Self::compile(sources, Map::new(), path)
    }

    /// The template of the bundled policy.
    pub fn compact() -> Result<Self, TemplateError> {
        Self::from_source(COMPACT_TEMPLATE, Path::new("compact.jinja"))
    }

    /// The template texts, for saving beside a checkpoint.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Sets what `strftime_now` in a template answers; [`Moment::default`] unless called.
    pub fn set_now(&mut self, now: Moment) {
        engine::set_now(&mut self.env, now);
    }

    /// Renders a conversation. `tools` are the schemas offered; `add_generation_prompt` ends the
    /// text where the assistant begins to write; `extra` are further variables of the template.
    pub fn render(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let mut context = self.tokens.clone();
        context.extend(extra.clone());
        let messages: Vec<Value> = messages.iter().map(normalised).collect();
        context.insert("messages".into(), messages.into());
        context.insert("tools".into(), tools.map_or(Value::Null, Value::from));
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let name = match (&self.sources.tool_use, tools) {
            (Some(_), Some(_)) => engine::TOOL_USE,
            _ => engine::DEFAULT,
        };
        engine::render(&self.env, name, &context).map_err(|error| self.render_error(&error))
    }

    /// Compiles template texts; `tokens` are the special tokens that they may name, `path` names them in
    /// errors.
    pub fn from_parts(
        sources: Sources,
        tokens: Map<String, Value>,
        path: &Path,
    ) -> Result<Self, TemplateError> {
        Self::compile(sources, tokens, path)
    }

    fn compile(
        sources: Sources,
        tokens: Map<String, Value>,
        path: &Path,
    ) -> Result<Self, TemplateError> {
        let env = engine::environment(&sources).map_err(|error| TemplateError::Syntax {
            path: path.into(),
            line: error.line().unwrap_or(0),
            message: engine::describe(&error),
        })?;
        Ok(Self { env, path: path.into(), sources, tokens })
    }

    fn render_error(&self, error: &minijinja::Error) -> TemplateError {
        let path = self.path.clone();
        let line = engine::line(error);
        match engine::refusal(error) {
            Some(message) => TemplateError::Refused { path, line, message },
            None => TemplateError::Render { path, line, message: engine::describe(error) },
        }
    }
}

/// A message as `transformers` 5 shows it to templates: without keys whose value is null (they
/// would print as "None"), and with its reasoning under each name that templates read.
fn normalised(message: &Value) -> Value {
    let Value::Object(message) = message else { return message.clone() };
    let mut kept: Map<String, Value> = Map::new();
    let reasoning = REASONING.iter().find_map(|key| message.get(*key).filter(|v| !v.is_null()));
    if let Some(reasoning) = reasoning {
        kept.insert("thinking".into(), reasoning.clone());
    }
    for (key, value) in message.iter().filter(|(_, value)| !value.is_null()) {
        kept.insert(key.clone(), value.clone());
    }
    if let Some(reasoning) = reasoning {
        kept.insert("reasoning_content".into(), reasoning.clone());
    }
    Value::Object(kept)
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}
