//! One file out of the hub into the cache: watched, tried again, checked.
//!
//! Invariant: no wait is longer than [`STALL`] without a byte; a file that is not what the hub promised does
//! not stay in the cache.

use super::files::Listed;
use super::{Hub, HubName, repo, said};
use crate::screen::note;
use crate::train::progress::Screen;
use anyhow::{Context, Result, bail};
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiError};
use indicatif::ProgressBar;
use ring::digest::{Context as Digest, SHA256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The longest silence of the hub, or of another process that downloads the same file.
const STALL: Duration = Duration::from_secs(60);
/// How often a download that broke off is taken up again.
const TRIES: u32 = 5;

/// What the thread that downloads has to say.
enum Event {
    Begin,
    Bytes(u64),
    End(Result<PathBuf, ApiError>),
}

struct Told(SyncSender<Event>);

impl Progress for Told {
    // Nobody listens any more once the wait was given up; the process is about to end then.
    fn init(&mut self, _size: usize, _file: &str) {
        drop(self.0.send(Event::Begin));
    }

    fn update(&mut self, bytes: usize) {
        drop(self.0.send(Event::Bytes(bytes as u64)));
    }

    fn finish(&mut self) {}
}

impl Hub {
    /// Downloads a file of a commit, or goes on where that was broken off.
    pub(super) fn download(
        &self,
        api: &Api,
        name: &HubName,
        commit: &str,
        file: &Listed,
    ) -> Result<()> {
        let bar = Screen::new().bytes(&file.name, file.size);
        let (mut broken, mut watched) = (0, None);
        let path = loop {
            match attempt(api, name, commit, file, &bar)? {
                Ok(path) => break path,
                Err(ApiError::LockAcquisition(_)) => {
                    let found = self.look_again(name, commit, file, &mut watched)?;
                    if let Some(path) = found {
                        break path;
                    }
                }
                Err(ApiError::InvalidResume) => self.forget_part(name, file)?,
                // The disk; the hub says the same again if asked again.
                Err(ApiError::IoError(error))
                    if error.kind() == std::io::ErrorKind::StorageFull =>
                {
                    bail!("downloading {} to {}: {error}", file.name, self.cache.display());
                }
                Err(error) => {
                    broken += 1;
                    if broken == TRIES {
                        bail!(
                            "downloading {} of {name}: {}; run the command again to go on where it broke off",
                            file.name,
                            said(&error)
                        );
                    }
                    std::thread::sleep(Duration::from_millis(250) * 2u32.pow(broken));
                }
            }
        };
        bar.finish_and_clear();
        check(&path, file).inspect_err(|_| forget(&path))
    }

    /// Another process has the file's lock: gives the file once it is there.
    fn look_again(
        &self,
        name: &HubName,
        commit: &str,
        file: &Listed,
        watched: &mut Option<(u64, Instant)>,
    ) -> Result<Option<PathBuf>> {
        let (blobs, snapshot) = (self.blobs(name), self.snapshot(name, commit));
        if file.is_in(&snapshot) {
            return Ok(Some(snapshot.join(&file.name)));
        }
        let now = file.begun(&blobs);
        let (size, since) = watched.get_or_insert_with(|| {
            note(&format!("another process downloads {}; waiting for it", file.name));
            (now, Instant::now())
        });
        if now != *size {
            (*size, *since) = (now, Instant::now());
        }
        if since.elapsed() > STALL {
            bail!(
                "another process holds {} in {} and has not gone on for {} s: end it, and run the command again",
                file.name,
                blobs.display(),
                STALL.as_secs()
            );
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(None)
    }

    /// What was left of a download is longer than the file.
    fn forget_part(&self, name: &HubName, file: &Listed) -> Result<()> {
        let blob =
            file.blob().context("the hub does not say what the file is called in the cache")?;
        let part = self.blobs(name).join(blob).with_extension("part");
        std::fs::remove_file(&part)
            .with_context(|| format!("removing the damaged {}", part.display()))
    }
}

/// One try, on a thread of its own: the library waits without a limit.
fn attempt(
    api: &Api,
    name: &HubName,
    commit: &str,
    file: &Listed,
    bar: &ProgressBar,
) -> Result<Result<PathBuf, ApiError>> {
    let (send, receive) = sync_channel(64);
    let (repository, wanted) = (api.repo(repo(name, commit)), file.name.clone());
    std::thread::Builder::new().name("octet-hub".into()).spawn(move || {
        let end = repository.download_with_progress(&wanted, Told(send.clone()));
        drop(send.send(Event::End(end)));
    })?;
    loop {
        match receive.recv_timeout(STALL) {
            Ok(Event::Begin) => bar.set_position(0),
            Ok(Event::Bytes(bytes)) => bar.inc(bytes),
            Ok(Event::End(end)) => return Ok(end),
            Err(RecvTimeoutError::Timeout) => bail!(
                "downloading {} of {name}: the hub has sent nothing for {} s; run the command again to go on where it \
                 broke off",
                file.name,
                STALL.as_secs()
            ),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("downloading {}: the download died", file.name)
            }
        }
    }
}

/// Length, and for large files the digest.
fn check(path: &Path, file: &Listed) -> Result<()> {
    let failed = || format!("reading {}", path.display());
    let found = std::fs::metadata(path).with_context(failed)?.len();
    if found != file.size {
        bail!(
            "{}: expected {} bytes, downloaded {found}; removed: run the command again",
            file.name,
            file.size
        );
    }
    let Some(expected) = file.sha256() else { return Ok(()) };
    let (mut digest, mut chunk) = (Digest::new(&SHA256), vec![0; 1 << 20]);
    let mut reader = std::fs::File::open(path).with_context(failed)?;
    loop {
        let read = reader.read(&mut chunk).with_context(failed)?;
        if read == 0 {
            break;
        }
        digest.update(&chunk[..read]);
    }
    let digest = digest.finish();
    let found: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != expected {
        bail!(
            "{}: expected SHA-256 {expected}, downloaded {found}; removed: run the command again",
            file.name
        );
    }
    Ok(())
}

/// Takes a file and the blob behind it out of the cache.
fn forget(path: &Path) {
    // Whether it is gone or not, the caller reports what was wrong with it.
    if let Ok(blob) = path.canonicalize() {
        drop(std::fs::remove_file(blob));
    }
    drop(std::fs::remove_file(path));
}
