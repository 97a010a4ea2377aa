//! A directory that appears under its name complete, or not at all.
//!
//! Invariant: files are written into a sibling `.NAME.partial`, made durable, and renamed in one
//! step. A process that dies leaves only that sibling, which the next attempt removes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::FilesError;

/// A directory in the making; dropped without [`StagedDir::commit`], it is removed.
#[derive(Debug)]
pub struct StagedDir {
    target: PathBuf,
    partial: PathBuf,
    committed: bool,
}

impl StagedDir {
    /// Begins a directory that will be called `target`, which must not exist. Missing parents are
    /// made.
    pub fn create(target: &Path) -> Result<Self, FilesError> {
        let absolute =
            std::path::absolute(target).map_err(|source| directory("find", target, source))?;
        let Some(name) = absolute.file_name() else {
            let source = std::io::Error::other("it has no name of its own");
            return Err(directory("make", target, source));
        };
        if absolute.exists() {
            return Err(FilesError::Exists { path: target.into() });
        }
        let partial = absolute.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(|e| directory("remove", &partial, e))?;
        }
        fs::create_dir_all(&partial).map_err(|e| directory("make", &partial, e))?;
        Ok(Self { target: absolute, partial, committed: false })
    }

    /// Where files are to be written now.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Writes one file, making the folders that `name` leads through, and waits for the disk.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), FilesError> {
        let path = self.partial.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| directory("make", parent, e))?;
        }
        let failed =
            |source| FilesError::Write { path: path.clone(), bytes: content.len() as u64, source };
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Gives the directory its name.
    pub fn commit(mut self) -> Result<(), FilesError> {
        sync_tree(&self.partial)?;
        fs::rename(&self.partial, &self.target)
            .map_err(|e| directory("rename the finished directory to", &self.target, e))?;
        self.committed = true;
        match self.target.parent() {
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        }
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing to do about a failure here: the next attempt removes it again.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Makes the entries of a directory and of those in it durable.
fn sync_tree(dir: &Path) -> Result<(), FilesError> {
    let entries = fs::read_dir(dir).map_err(|e| directory("list", dir, e))?;
    for entry in entries {
        let path = entry.map_err(|e| directory("list", dir, e))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> Result<(), FilesError> {
    // Only Unix lets a directory be opened and synchronised.
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| directory("synchronise", dir, e))?;
    Ok(())
}

fn directory(action: &'static str, path: &Path, source: std::io::Error) -> FilesError {
    FilesError::Directory { action, path: path.into(), source }
}
