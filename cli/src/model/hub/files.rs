//! What a repository of the hub holds, and which of it a model is made of.
//!
//! Invariant: pure. Only safetensors are weights, and no name leads out of the repository's directory.

use super::super::name::HubName;
use anyhow::{Result, bail};
use octet_policy::files::{COMPANION_FILES, WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
use serde::Deserialize;
use std::path::Path;

/// A repository at one commit.
#[derive(Debug, Deserialize)]
pub struct Listing {
    /// The commit.
    #[serde(rename = "sha")]
    pub commit: String,
    siblings: Vec<Listed>,
}

/// A file of a repository.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// Its path in the repository.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Large>,
}

/// What is known of a large file.
#[derive(Clone, Debug, Deserialize)]
struct Large {
    sha256: String,
}

impl Listed {
    /// SHA-256 of the content, in hexadecimal; small files have none.
    pub fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref().map(|large| large.sha256.as_str())
    }

    /// What the file is called among the cache's blobs.
    pub fn blob(&self) -> Option<&str> {
        self.sha256().or(self.blob.as_deref())
    }

    /// Whether it holds weights.
    pub fn is_weights(&self) -> bool {
        self.name.ends_with(".safetensors") || self.name.ends_with(".gguf")
    }

    /// Whether a snapshot has it whole.
    pub fn is_in(&self, snapshot: &Path) -> bool {
        std::fs::metadata(snapshot.join(&self.name)).is_ok_and(|file| file.len() == self.size)
    }

    /// Bytes that an earlier download left.
    pub fn begun(&self, blobs: &Path) -> u64 {
        let part = self.blob().map(|blob| blobs.join(blob).with_extension("part"));
        part.and_then(|part| Some(std::fs::metadata(part).ok()?.len())).unwrap_or(0)
    }
}

impl Listing {
    /// The files that the model is made of, weights last.
    ///
    /// # Errors
    /// There are none, or only weights of a kind that is not read.
    pub fn wanted(&self, name: &HubName) -> Result<Vec<Listed>> {
        if !is_commit(&self.commit) {
            bail!("{name}: expected the hub to name a commit, found {:?}", self.commit);
        }
        let with = |end: &str| {
            let names = self.siblings.iter().map(|file| file.name.as_str());
            names.filter(|name| name.ends_with(end)).collect::<Vec<_>>().join(", ")
        };
        if let Some(wanted) = &name.file {
            return match self.siblings.iter().find(|file| file.name == *wanted) {
                Some(file) => Ok(vec![file.clone()]),
                None => bail!(
                    "{} has no file {wanted}: expected one of {}",
                    name.id,
                    or_none(with(".gguf"))
                ),
            };
        }
        let whole = self.siblings.iter().any(|file| file.name == WEIGHTS_FILE);
        let is_weights = |file: &str| match whole {
            true => file == WEIGHTS_FILE,
            // Shards, as their index names them.
            false => {
                file.starts_with("model-") && file.ends_with(".safetensors") && !file.contains('/')
            }
        };
        let is_wanted = |file: &str| {
            let index = !whole && file == WEIGHTS_INDEX_FILE;
            file == "config.json" || COMPANION_FILES.contains(&file) || index || is_weights(file)
        };
        let mut wanted: Vec<_> =
            self.siblings.iter().filter(|file| is_wanted(&file.name)).cloned().collect();
        if !wanted.iter().any(|file| is_weights(&file.name)) {
            let ggufs = with(".gguf");
            if !ggufs.is_empty() {
                bail!(
                    "{} holds GGUF files: name one of them, as {}/FILE.gguf: {ggufs}",
                    name.id,
                    name.id
                );
            }
            bail!(
                "{} has no weights that are read: expected {WEIGHTS_FILE} or its shards, found {}",
                name.id,
                or_none(with(".bin"))
            );
        }
        wanted.sort_by_key(|file| (file.is_weights(), file.name.clone()));
        Ok(wanted)
    }
}

/// A commit becomes the name of a folder.
fn is_commit(text: &str) -> bool {
    text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn or_none(names: String) -> String {
    if names.is_empty() { "none".into() } else { names }
}

/// `1 file`, `2 files`.
pub fn counted(files: usize) -> String {
    format!("{files} file{}", if files == 1 { "" } else { "s" })
}
