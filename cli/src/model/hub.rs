//! Models of the Hugging Face hub: out of the cache, or downloaded into it.
//!
//! Invariant: the cache is the one that all of Hugging Face's tools share. A revision's name in it is set to a
//! commit only once all of that commit's files are there whole, so what works offline is never half a model.

mod download;
mod files;

use super::name::HubName;
use crate::screen::note;
use anyhow::{Context, Result, bail};
use files::{Listed, Listing};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::HumanBytes;
use octet_policy::config::ModelConfig;
use octet_policy::files::{WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the hub may take to say what is in a repository.
const ANSWER: Duration = Duration::from_secs(30);

/// The hub and this machine's cache of it, as the environment sets them for all of Hugging Face's tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
}

/// Why the hub gave no listing.
enum Unlisted {
    /// It answered, and has no such thing to show.
    Refused(String),
    /// It did not answer.
    Unreachable(String),
}

impl Hub {
    /// From `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// Nothing says where the cache is.
    pub fn from_environment() -> Result<Self> {
        Self::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let cache = || {
            let caches = get("XDG_CACHE_HOME").map(PathBuf::from);
            let caches = caches.or_else(|| Some(PathBuf::from(get("HOME")?).join(".cache")));
            caches.map(|caches| caches.join("huggingface"))
        };
        let home = get("HF_HOME").map(PathBuf::from).or_else(cache);
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| in_home("hub"));
        let cache = cache.context(
            "neither HF_HOME nor HOME says where models are cached: set HF_HOME to a folder",
        )?;
        let written = |path: PathBuf| std::fs::read_to_string(path).ok();
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            written(get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| in_home("token"))?)
        });
        let yes =
            |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: std::path::absolute(&cache)?,
            token: token.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
            offline: get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE")).is_some_and(yes),
        })
    }

    /// The directory or GGUF file on this machine. `fits` is asked about the configuration before weights are
    /// downloaded.
    ///
    /// # Errors
    /// It cannot be had, is not what was promised, or does not fit.
    pub fn fetch(
        &self,
        name: &HubName,
        fits: impl FnOnce(&ModelConfig) -> Result<()>,
    ) -> Result<PathBuf> {
        let Some((api, listing)) = self.list(name, |path| is_whole(path, name))? else {
            return self.cached(name, |path| is_whole(path, name));
        };
        let wanted = listing.wanted(name)?;
        let snapshot = self.snapshot(name, &listing.commit);
        let missing: Vec<&Listed> = wanted.iter().filter(|file| !file.is_in(&snapshot)).collect();
        if !missing.is_empty() {
            let bytes = missing.iter().map(|file| file.size).sum();
            let there: u64 = missing.iter().map(|file| file.begun(&self.blobs(name))).sum();
            note(&format!(
                "downloading {name} at {}: {} of {}{} → {}",
                &listing.commit[..listing.commit.len().min(8)],
                files::counted(missing.len()),
                HumanBytes(bytes),
                match there {
                    0 => String::new(),
                    there => format!(", of which {} are here", HumanBytes(there)),
                },
                self.cache.display()
            ));
        }
        let mut fits = Some(fits);
        for file in missing {
            // Everything small comes first.
            if file.is_weights()
                && name.file.is_none()
                && let Some(fits) = fits.take()
            {
                fits(&ModelConfig::from_dir(&snapshot)?)?;
            }
            self.download(&api, name, &listing.commit, file)?;
        }
        Cache::new(self.cache.clone())
            .repo(repo(name, &name.revision))
            .create_ref(&listing.commit)
            .with_context(|| format!("writing to the cache {}", self.cache.display()))?;
        Ok(name.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file)))
    }

    /// What has the configuration: a directory that may hold nothing else, or a GGUF file.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn fetch_config(&self, name: &HubName) -> Result<PathBuf> {
        if name.file.is_some() {
            return self.fetch(name, |_| Ok(()));
        }
        let has_config = |path: &Path| path.join("config.json").is_file();
        let Some((api, listing)) = self.list(name, has_config)? else {
            return self.cached(name, has_config);
        };
        let snapshot = self.snapshot(name, &listing.commit);
        for file in listing.wanted(name)?.iter().filter(|file| file.name == "config.json") {
            if !file.is_in(&snapshot) {
                self.download(&api, name, &listing.commit, file)?;
            }
        }
        Ok(snapshot)
    }

    /// What the hub has under the name; none where the cache has to do. `whole` says whether it can.
    fn list(
        &self,
        name: &HubName,
        whole: impl Fn(&Path) -> bool,
    ) -> Result<Option<(Api, Listing)>> {
        let is_commit =
            name.revision.len() == 40 && name.revision.bytes().all(|b| b.is_ascii_hexdigit());
        // A commit never changes: there is nothing to ask.
        if self.offline || is_commit && whole(&self.found(name)?) {
            return Ok(None);
        }
        let cache = Cache::new(self.cache.clone());
        let api = ApiBuilder::from_cache(cache)
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("octet", env!("CARGO_PKG_VERSION"))
            .build()
            .context("preparing to ask the Hugging Face hub")?;
        match self.ask(&api, name) {
            Ok(listing) => Ok(Some((api, listing))),
            Err(Unlisted::Refused(why)) => bail!("{why}"),
            Err(Unlisted::Unreachable(why)) if self.found(name).is_ok_and(|path| whole(&path)) => {
                note(&format!(
                    "the hub does not answer ({why}); using what the cache has of {name}"
                ));
                Ok(None)
            }
            Err(Unlisted::Unreachable(why)) => bail!(
                "{name} is not here, and the hub at {} does not answer: {why}; check the path or the connection, or \
                 set HF_ENDPOINT to a mirror",
                self.endpoint
            ),
        }
    }

    fn ask(&self, api: &Api, name: &HubName) -> Result<Listing, Unlisted> {
        let request = api.repo(repo(name, &name.revision)).info_request().query("blobs", "true");
        let answer = request.config().timeout_global(Some(ANSWER)).build().call();
        let answer = answer.and_then(|mut response| response.body_mut().read_json());
        answer.map_err(|error| match error {
            ureq::Error::StatusCode(401 | 403 | 404) => Unlisted::Refused(format!(
                "there is no directory or file {name} here, and the hub at {} shows no such model or revision{}",
                self.endpoint,
                match self.token {
                    Some(_) => ", or none that the token may see: check the name, and accept the model's terms on its page",
                    None => ": check the name; if it is private or gated, set HF_TOKEN",
                }
            )),
            error => Unlisted::Unreachable(error.to_string()),
        })
    }

    /// The model out of the cache.
    fn cached(&self, name: &HubName, whole: impl Fn(&Path) -> bool) -> Result<PathBuf> {
        let path = self.found(name)?;
        if !whole(&path) {
            bail!(
                "{name} is neither here nor whole in the cache {}, and HF_HUB_OFFLINE is set: unset it to download the \
                 model, or set HF_HOME to where it is",
                self.cache.display()
            );
        }
        Ok(path)
    }

    /// Where the cache has the model, if it does.
    fn found(&self, name: &HubName) -> Result<PathBuf> {
        let named = self.repository(name).join("refs").join(&name.revision);
        let commit = std::fs::read_to_string(named).unwrap_or_else(|_| name.revision.clone());
        let snapshot = self.snapshot(name, commit.trim());
        Ok(name.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file)))
    }

    fn repository(&self, name: &HubName) -> PathBuf {
        self.cache.join(repo(name, &name.revision).folder_name())
    }

    fn snapshot(&self, name: &HubName, commit: &str) -> PathBuf {
        self.repository(name).join("snapshots").join(commit)
    }

    fn blobs(&self, name: &HubName) -> PathBuf {
        self.repository(name).join("blobs")
    }
}

fn repo(name: &HubName, revision: &str) -> Repo {
    Repo::with_revision(name.id.clone(), RepoType::Model, revision.to_owned())
}

/// Whether a model is there to be loaded: a file, or a directory with configuration, tokenizer and weights.
fn is_whole(path: &Path, name: &HubName) -> bool {
    if name.file.is_some() {
        return path.is_file();
    }
    let has = |file: &str| path.join(file).is_file();
    has("config.json") && has("tokenizer.json") && (has(WEIGHTS_FILE) || shards_are_there(path))
}

fn shards_are_there(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path.join(WEIGHTS_INDEX_FILE)) else { return false };
    let Ok(index) = serde_json::from_slice::<serde_json::Value>(&text) else { return false };
    let Some(shards) = index["weight_map"].as_object() else { return false };
    shards.values().all(|shard| shard.as_str().is_some_and(|shard| path.join(shard).is_file()))
}

/// An error of the library in the words of someone who downloads a file.
fn said(error: &ApiError) -> String {
    match error {
        ApiError::RequestError(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
