//! `octet model`, and finding a model wherever a command is given one.
//!
//! Invariant: every command takes the same names (a Hugging Face directory, a GGUF file, a name on the hub),
//! because all come through [`locate`].

mod hub;
mod import;
mod name;
mod show;

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use clap::{Args, Subcommand};
use hub::Hub;
use name::Name;
use octet_dataset::Example;
use octet_policy::config::ModelConfig;
use octet_policy::files::AdapterFiles;
use octet_policy::policy::Policy;
use octet_policy::source::Source;
use octet_policy::template::ChatTemplate;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};

/// Bring your model: a Hugging Face directory, a GGUF file, or a name on the hub.
#[derive(Args, Debug)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Show(show::ShowArgs),
    Import(import::ImportArgs),
}

/// Runs the command.
pub fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        Command::Show(args) => show::run(args),
        Command::Import(args) => import::run(args),
    }
}

/// Where a model is on this machine; one of the hub is downloaded unless it is there already.
///
/// # Errors
/// It is neither here nor on the hub, or cannot be downloaded.
pub fn locate(name: &Path) -> Result<PathBuf> {
    locate_if(name, |_| Ok(()))
}

/// As [`locate`], but asks `fits` about the configuration before weights are downloaded.
///
/// # Errors
/// As [`locate`], and what `fits` refuses.
pub fn locate_if(name: &Path, fits: impl FnOnce(&ModelConfig) -> Result<()>) -> Result<PathBuf> {
    match Name::read(name, Path::exists) {
        Name::Path(path) => Ok(path),
        Name::Hub(name) => Hub::from_environment()?.fetch(&name, fits),
    }
}

/// Where a model is on this machine, and its files. The base of an adapter is looked for as any model is: a name on the
/// hub is one too.
///
/// # Errors
/// As [`locate`], and files that are none of a model.
pub fn open(name: &Path) -> Result<(PathBuf, Source)> {
    let path = locate(name)?;
    let mut base = None;
    if path.is_dir() && AdapterFiles::is_one(&path) {
        let files = AdapterFiles::open(&path)?;
        if let Err(missing) = files.base_path() {
            base = match Name::read(Path::new(&files.base().name), Path::exists) {
                Name::Hub(name) => Some(Hub::from_environment()?.fetch(&name, |_| Ok(()))?),
                Name::Path(_) => return Err(missing.into()),
            };
        }
    }
    let source = Source::open_with(&path, base.as_deref())?;
    Ok((path, source))
}

/// Loads a model wherever it is.
///
/// # Errors
/// As [`open`].
pub fn load(name: &Path, dtype: DType, device: &Device) -> Result<Policy> {
    let (path, source) = open(name)?;
    Ok(Policy::from_source(&source, &path, dtype, device)?)
}

/// A model's configuration; of one on the hub, no weights are downloaded for it where that can be.
///
/// # Errors
/// As [`locate`], and a configuration that is not computed.
pub fn config(name: &Path) -> Result<ModelConfig> {
    let path = match Name::read(name, Path::exists) {
        Name::Path(path) => path,
        Name::Hub(name) => Hub::from_environment()?.fetch_config(&name)?,
    };
    Ok(Source::open(&path)?.config()?)
}

/// Whether prompts of this template tell the model which tools there are.
pub fn shows_tools(template: &ChatTemplate) -> bool {
    const NAME: &str = "tool_that_is_looked_for";
    let tool = json!({"type": "function", "function": {
        "name": NAME, "description": "Looked for.", "parameters": {"type": "object", "properties": {}},
    }});
    let messages = [json!({"role": "user", "content": "Look."})];
    let text = template.render(&messages, Some(&[tool]), true, &Map::new());
    text.is_ok_and(|text| text.contains(NAME))
}

/// Refuses to ask a model for calls of tools that its template would hide from it.
///
/// # Errors
/// The rows offer tools, and the template shows none.
pub fn check_tools(model: &Path, template: &ChatTemplate, rows: &[Example]) -> Result<()> {
    if rows.iter().all(|row| row.tools.is_empty()) || shows_tools(template) {
        return Ok(());
    }
    let model = model.display();
    bail!(
        "the chat template of {model} shows the model no tools, and the data set's rows offer some: give it one that \
         does, e.g. `octet model import {model} DIR --chat-template compact`"
    )
}
