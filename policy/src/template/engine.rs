//! The Jinja environment that `transformers` gives its templates, rebuilt on minijinja.
//!
//! Invariant: no template reaches the clock, the file system or another template.

use std::fmt;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Map;

use super::clock::Moment;
use super::{Sources, python};

/// Name of the template for every conversation.
pub(super) const DEFAULT: &str = "chat_template";
/// Name of the template for conversations with tools.
pub(super) const TOOL_USE: &str = "chat_template_tool_use";

/// The source of an error raised by the template's own `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

pub(super) fn environment(sources: &Sources) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, _, value| out.write_str(&python::display(value)).map_err(Error::from));
    env.add_filter("tojson", to_json);
    env.add_filter("string", |value: Value| python::display(&value));
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    set_now(&mut env, Moment::default());
    env.add_template_owned(DEFAULT, without_generation_tags(&sources.default))?;
    if let Some(source) = &sources.tool_use {
        env.add_template_owned(TOOL_USE, without_generation_tags(source))?;
    }
    Ok(env)
}

pub(super) fn set_now(env: &mut Environment<'static>, now: Moment) {
    env.add_function("strftime_now", move |format: String| {
        now.format(&format).map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
    });
}

pub(super) fn render(
    env: &Environment<'static>,
    name: &str,
    context: &Map<String, serde_json::Value>,
) -> Result<String, Error> {
    env.get_template(name)?.render(context)
}

/// What went wrong, without the place.
pub(super) fn describe(error: &Error) -> String {
    let innermost = chain(error).last().unwrap_or(error);
    match innermost.detail() {
        Some(detail) => format!("{}: {detail}", innermost.kind()),
        None => innermost.kind().to_string(),
    }
}

/// The line of the innermost place, 0 when there is none.
pub(super) fn line(error: &Error) -> usize {
    chain(error).filter_map(Error::line).last().unwrap_or(0)
}

/// The template's own message, if it raised one.
pub(super) fn refusal(error: &Error) -> Option<String> {
    use std::error::Error as _;
    chain(error).find_map(|e| Some(e.source()?.downcast_ref::<Raised>()?.0.clone()))
}

/// An error and its causes, outermost first.
fn chain(error: &Error) -> impl Iterator<Item = &Error> {
    std::iter::successors(Some(error), |e| cause(e))
}

fn cause(error: &Error) -> Option<&Error> {
    use std::error::Error as _;
    error.source()?.downcast_ref()
}

fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) if value.kind() == ValueKind::String => Some(value.to_string()),
        Some(value) => Some(" ".repeat(usize::try_from(value)?)),
    };
    let mut style = python::Style { indent, ..python::Style::default() };
    style.sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    style.ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let separators: Option<Vec<String>> = options.get("separators")?;
    match separators.as_deref() {
        Some([item, key]) => style.separators = Some((item.clone(), key.clone())),
        None => {}
        Some(_) => {
            let message = "tojson expects two separators";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    options.assert_all_used()?;
    python::to_json(value, &style)
}

/// `{% generation %}` marks the assistant's text for training masks and prints nothing itself;
/// Jinja's own `if` keeps the block and its white-space control.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        result.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inside = &tag[..end];
        let word = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => result.push_str(&inside.replace("generation", "if true")),
            "endgeneration" => result.push_str(&inside.replace("endgeneration", "endif")),
            _ => result.push_str(inside),
        }
        rest = &tag[end..];
    }
    result.push_str(rest);
    result
}
