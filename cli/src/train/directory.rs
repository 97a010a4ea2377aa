//! The run directory: what is in it, and who may write to it.
//!
//! Invariant: a directory belongs to one configuration for ever; another one is refused with both
//! digests, and nothing in the directory has changed then.

use crate::recipe::Recipe;
use anyhow::{Context, Result, bail};
use octet_proto::ConfigDigest;
use octet_runtime::config::{Layers, load, to_toml};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The files of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

/// What identifies a run, in `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Names the run in logs, journal and status.
    pub run_id: String,
    /// Digest of all that the weights depend on.
    pub config_digest: ConfigDigest,
    /// Optimiser updates of the whole run.
    pub total_steps: u64,
    /// The version of octet that began it.
    pub octet: String,
}

impl RunDirectory {
    /// A directory for a new run: `out`, or the first free `runs/NAME[-N]`.
    pub fn choose(out: Option<&Path>, name: &str) -> Self {
        let path = out.map_or_else(
            || {
                let numbered = |n: u32| PathBuf::from(format!("runs/{name}-{n}"));
                let first = PathBuf::from(format!("runs/{name}"));
                std::iter::once(first)
                    .chain((2..).map(numbered))
                    .find(|p| !p.exists())
                    .unwrap_or_else(|| numbered(0))
            },
            Path::to_path_buf,
        );
        Self { path }
    }

    /// A directory that was named.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is called: its last part.
    pub fn name(&self) -> String {
        // `runs/first/..` and `.` have none of their own until they are resolved.
        let resolved = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let name = self.path.file_name().or(resolved.file_name());
        name.map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Begins a new run: makes the directory and writes what identifies it.
    ///
    /// # Errors
    /// The directory holds another run, or this one, begun before.
    pub fn begin(&self, recipe: &Recipe, identity: &Identity) -> Result<()> {
        if let Some(found) = self.identity()? {
            if found.config_digest == identity.config_digest {
                bail!(
                    "{} holds this run already: go on with `octet train --resume {}`, or choose another --out",
                    self.path.display(),
                    self.path.display()
                );
            }
            return Err(self.another(&found, identity));
        }
        self.write_identity(recipe, identity)
    }

    /// Whether this run was begun here before.
    ///
    /// # Errors
    /// The directory holds another run.
    pub fn begun(&self, identity: &Identity) -> Result<bool> {
        match self.identity()? {
            Some(found) if found.config_digest == identity.config_digest => Ok(true),
            Some(found) => Err(self.another(&found, identity)),
            None => Ok(false),
        }
    }

    /// A role's directory: begins it, or goes on with this run's. Roles of one machine may share one.
    ///
    /// # Errors
    /// The directory holds another run, or cannot be written.
    pub fn take(&self, recipe: &Recipe, identity: &Identity) -> Result<Identity> {
        match self.identity()? {
            Some(found) if found.config_digest == identity.config_digest => Ok(found),
            Some(found) => Err(self.another(&found, identity)),
            None => {
                self.write_identity(recipe, identity)?;
                Ok(identity.clone())
            }
        }
    }

    fn write_identity(&self, recipe: &Recipe, identity: &Identity) -> Result<()> {
        std::fs::create_dir_all(&self.path)
            .with_context(|| format!("making the run directory {}", self.path.display()))?;
        self.write("config.toml", to_toml(recipe)?.as_bytes())?;
        self.write("run.json", &serde_json::to_vec_pretty(identity)?)
    }

    /// Reads the recipe of a run to be resumed.
    pub fn recipe(&self) -> Result<Recipe> {
        let file = self.join("config.toml");
        if !file.is_file() {
            bail!("{} is not a run directory: it has no config.toml", self.path.display());
        }
        Ok(load(&Layers::new().file(&file)?)?)
    }

    /// Checks that a resumed run would compute what was begun.
    pub fn check(&self, identity: &Identity) -> Result<Identity> {
        match self.identity()? {
            Some(found) if found.config_digest == identity.config_digest => Ok(found),
            Some(found) => Err(self.another(&found, identity)),
            None => bail!("{} is not a run directory: it has no run.json", self.path.display()),
        }
    }

    fn another(&self, found: &Identity, wanted: &Identity) -> anyhow::Error {
        anyhow::anyhow!(
            "{} holds a run of another configuration: expected digest {}, found {}; choose another directory, \
             or restore the files and keys that changed",
            self.path.display(),
            wanted.config_digest,
            found.config_digest
        )
    }

    fn identity(&self) -> Result<Option<Identity>> {
        let path = self.join("run.json");
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text)
                    .with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes a whole file at once: under another name, then renamed.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let (target, partial) = (self.join(name), self.partial(name));
        let writing = || format!("writing {} ({} bytes)", target.display(), content.len());
        std::fs::write(&partial, content).with_context(writing)?;
        std::fs::File::open(&partial).and_then(|f| f.sync_all()).with_context(writing)?;
        std::fs::rename(&partial, &target).with_context(writing)
    }

    /// As [`RunDirectory::write`], for what only the owner of the run may read.
    pub fn write_private(&self, name: &str, content: &[u8]) -> Result<()> {
        let partial = self.partial(name);
        // A file that was there keeps its rights; this one is made anew.
        drop(std::fs::remove_file(&partial));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&partial).with_context(|| format!("writing {}", partial.display()))?;
        self.write(name, content)
    }

    /// Two roles that share a directory do not write into one file.
    fn partial(&self, name: &str) -> PathBuf {
        self.join(&format!(".{name}.{}.partial", std::process::id()))
    }

    /// Removes a file of this process that nobody needs any more.
    pub fn remove(&self, name: &str) {
        drop(std::fs::remove_file(self.join(name)));
    }

    /// Reads a JSON file written before, if there is one.
    pub fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?,
        ))
    }
}
