//! The repository as the tests see it that cross crates: its root, its files, its dependencies.
//!
//! Invariant: what is built, downloaded or made by a run (`target`, `runs`, hidden folders but
//! `.ci` and `.cargo`) is no part of it, so a working copy that was used gives the same verdicts as
//! a fresh clone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Its path from the root, with forward slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl TextFile {
    /// Whether the file lies below this folder.
    pub fn is_below(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Its lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    // Asked for when the test runs: a shared target folder may hold the binary of another checkout.
    let here = std::env::var("CARGO_MANIFEST_DIR");
    let here = PathBuf::from(here.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned()));
    here.parent().map_or_else(|| here.clone(), Path::to_owned)
}

/// All text files, sorted by path. What is not UTF-8 is not text.
///
/// # Errors
/// A folder or file cannot be read.
pub fn text_files() -> Result<Vec<TextFile>> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let relative = path.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(TextFile { path: relative, text });
        }
    }
    Ok(files)
}

/// The Rust sources, sorted by path.
///
/// # Errors
/// As [`text_files`].
pub fn sources() -> Result<Vec<TextFile>> {
    let sources: Vec<_> =
        text_files()?.into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    if sources.is_empty() {
        bail!("expected Rust sources below {}, found none", root().display());
    }
    Ok(sources)
}

/// The top-level folders that have a file in them; git keeps no empty ones.
///
/// # Errors
/// A folder cannot be read.
pub fn top_level_folders() -> Result<Vec<String>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut files = Vec::new();
        if entry.file_type()?.is_dir() && is_kept(&name) {
            collect(&entry.path(), &mut files)?;
        }
        if !files.is_empty() {
            folders.push(name);
        }
    }
    folders.sort();
    Ok(folders)
}

/// The workspace's packages and the dependencies of this machine's platform. Other platforms' would
/// have to be downloaded, and are no more than these.
///
/// # Errors
/// Cargo or the compiler cannot be asked.
pub fn metadata() -> Result<Metadata> {
    let platform = host()?;
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--filter-platform".to_owned(), platform])
        .exec()
        .context("asking cargo for the workspace's metadata")
}

/// The platform that the compiler builds for by itself.
fn host() -> Result<String> {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let asked = Command::new(&compiler).arg("-vV").output();
    let told = asked.with_context(|| format!("asking {compiler} for its platform"))?.stdout;
    let told = String::from_utf8_lossy(&told);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).with_context(|| {
        format!("expected a line \"host: …\" from {compiler} -vV, found {:?}", told.as_ref())
    })
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if kind.is_dir() && is_kept(&name.to_string_lossy()) {
            collect(&entry.path(), into)?;
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
    Ok(())
}

fn is_kept(folder: &str) -> bool {
    let hidden = folder.starts_with('.') && ![".ci", ".cargo"].contains(&folder);
    !hidden && !["target", "runs", "__pycache__"].contains(&folder)
}
