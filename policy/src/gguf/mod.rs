//! GGUF files: quantised weights, tokenizer and chat template in one file, as llama.cpp reads them.
//!
//! Invariant: what is loaded is the model of a Hugging Face directory (names, order of rows, settings), in
//! 32-bit floats, so nothing after this module knows where a policy came from. What the file asks for and
//! this crate does not compute is refused by name.

mod config;
mod header;
mod tensors;
mod text;
mod tokenizer;

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use memmap2::Mmap;

use self::header::{Fault, MAGIC};
use crate::files::FilesError;

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    content: Content,
}

impl Gguf {
    /// Opens a file and checks that all of it is there. It must not be changed by anyone while it is open.
    ///
    /// # Errors
    /// The file cannot be read, is cut off, or is of a version or holds a type that is not known.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let read = |source| FilesError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        // SAFETY: as for safetensors: the mapping is only read, and the contract above asks that nobody
        // truncates the file meanwhile.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let format = |expected: &str, found: String| FilesError::Format {
            path: path.into(),
            expected: expected.into(),
            found,
        };
        if !map.starts_with(MAGIC) {
            return Err(format("a GGUF file", "another beginning".into()));
        }
        header::check(&map).map_err(|fault| match fault {
            Fault::Ends => format(
                "a whole GGUF file",
                format!(
                    "{} bytes, which end inside the header; copy or download it again",
                    map.len()
                ),
            ),
            Fault::Version(found) => {
                format("GGUF version 2 or 3, little-endian", format!("version {found:#x}"))
            }
            Fault::Alignment(found) => {
                format("`general.alignment` as a power of two", found.to_string())
            }
        })?;
        let content = Content::read(&mut Cursor::new(&map[..])).map_err(|error| {
            let known = "tensors of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K";
            format(known, first_line(&error))
        })?;
        let gguf = Self { path: path.into(), map, content };
        gguf.check_length()?;
        Ok(gguf)
    }

    /// Whether a file begins as GGUF files do.
    pub fn is_one(path: &Path) -> bool {
        use std::io::Read;
        let mut begin = [0; MAGIC.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *MAGIC
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self, expected: impl Into<String>, found: impl Into<String>) -> FilesError {
        let path = self.path.clone();
        FilesError::Format { path, expected: expected.into(), found: found.into() }
    }

    fn mistyped(&self, key: &str, expected: &str) -> FilesError {
        let found = self.content.metadata.get(key).map_or_else(
            || "no such key".to_owned(),
            |value| format!("{:?}", value.value_type()).to_lowercase(),
        );
        self.format(format!("{expected} under `{key}`"), found)
    }

    /// A text of the metadata.
    fn text(&self, key: &str) -> Result<Option<&str>, FilesError> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mistyped(key, "a text")),
        }
    }

    /// A whole number of the metadata.
    fn number(&self, key: &str) -> Result<Option<u64>, FilesError> {
        let number = match self.content.metadata.get(key) {
            None => return Ok(None),
            Some(Value::I32(n)) => u64::try_from(*n).ok(),
            Some(Value::I64(n)) => u64::try_from(*n).ok(),
            Some(value) => value.to_u64().ok(),
        };
        number.map(Some).ok_or_else(|| self.mistyped(key, "a whole number"))
    }

    /// A number of the metadata; a 32-bit one as it is written in decimals, so that 1e-5 stays 1e-5.
    fn float(&self, key: &str) -> Result<Option<f64>, FilesError> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::F32(x)) => Ok(Some(x.to_string().parse().unwrap_or(f64::from(*x)))),
            Some(Value::F64(x)) => Ok(Some(*x)),
            Some(_) => Err(self.mistyped(key, "a number")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, FilesError> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.mistyped(key, "true or false")),
        }
    }

    /// An array of the metadata.
    fn array(&self, key: &str) -> Result<Option<&[Value]>, FilesError> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(self.mistyped(key, "an array")),
        }
    }

    /// An array of texts, which must be there.
    fn texts(&self, key: &str) -> Result<Vec<&str>, FilesError> {
        let values = self.array(key)?.ok_or_else(|| self.mistyped(key, "an array of texts"))?;
        let texts = values.iter().map(|value| match value {
            Value::String(text) => Ok(text.as_str()),
            _ => Err(self.format(format!("texts in `{key}`"), "another type")),
        });
        texts.collect()
    }
}

/// An error of candle without the backtrace that may follow it.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf").field("path", &self.path).finish_non_exhaustive()
    }
}
