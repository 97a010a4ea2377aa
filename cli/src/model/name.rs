//! What a model is called: a path here, or a name on the Hugging Face hub.
//!
//! Invariant: whatever exists here is a path, and nothing is looked for on the hub that was meant as one.

use std::path::{Path, PathBuf};

/// A model, as users name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A Hugging Face directory or a GGUF file.
    Path(PathBuf),
    /// On the hub.
    Hub(HubName),
}

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `OWNER/NAME`.
    pub id: String,
    /// A GGUF file of the repository; without one, the directory as a whole.
    pub file: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
}

impl Name {
    /// Reads `PATH`, `OWNER/NAME`, or `OWNER/NAME/FILE.gguf`; the latter two may end in `@REVISION`.
    /// `exists` says whether a path is there.
    pub fn read(text: &Path, exists: impl Fn(&Path) -> bool) -> Self {
        let here = || Self::Path(text.to_path_buf());
        let Some(written) = text.to_str().filter(|_| !exists(text)) else { return here() };
        let (name, revision) = written.split_once('@').unwrap_or((written, "main"));
        let parts: Vec<&str> = name.split('/').collect();
        let plain = |text: &str| {
            let sign = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(sign)
        };
        let is_gguf = parts.last().is_some_and(|last| last.ends_with(".gguf"));
        let shaped = match parts.len() {
            2 => !is_gguf,
            3.. => is_gguf,
            _ => false,
        };
        let branch = revision.split('/').all(plain);
        // A folder that is here, with a mistake in what follows.
        let begun = exists(Path::new(parts[0]));
        if !shaped || !branch || begun || !parts.iter().all(|part| plain(part)) {
            return here();
        }
        Self::Hub(HubName {
            id: parts[..2].join("/"),
            file: is_gguf.then(|| parts[2..].join("/")),
            revision: revision.to_owned(),
        })
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        match self.revision.as_str() {
            "main" => Ok(()),
            revision => write!(f, "@{revision}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Name {
        Name::read(Path::new(text), |path| ["runs", "here/model"].contains(&path.to_str().unwrap()))
    }

    #[test]
    fn names_of_the_hub() {
        let hub = |id: &str, file: Option<&str>, revision: &str| {
            Name::Hub(HubName {
                id: id.into(),
                file: file.map(str::to_owned),
                revision: revision.into(),
            })
        };
        assert_eq!(read("Qwen/Qwen2.5-0.5B"), hub("Qwen/Qwen2.5-0.5B", None, "main"));
        assert_eq!(read("Qwen/Qwen3-0.6B@pr/1"), hub("Qwen/Qwen3-0.6B", None, "pr/1"));
        let file = hub("a/b-GGUF", Some("q4/b.gguf"), "v1");
        assert_eq!(read("a/b-GGUF/q4/b.gguf@v1"), file);
        let Name::Hub(file) = file else { panic!("not of the hub") };
        assert_eq!(file.to_string(), "a/b-GGUF/q4/b.gguf@v1");
    }

    #[test]
    fn paths_are_never_looked_for_elsewhere() {
        for path in [
            "here/model",
            "runs/typo",
            "/abs/dir",
            "./a/b",
            "../a/b",
            "a",
            "a/b/c",
            "a/b.gguf",
            "~/model",
            "a/../b",
            "a/b@",
            "a/b@../c",
            "a b/c",
            "",
        ] {
            assert_eq!(read(path), Name::Path(path.into()), "{path}");
        }
    }
}
