//! A version's bytes in the files of its checkpoint, read when somebody wants them.
//!
//! Invariant: what is read are the weights as `f32`, tensor after tensor in the configuration's order, from any offset:
//! the bytes that would otherwise be kept in memory. The files are opened once: who removes a checkpoint meanwhile takes
//! only its name away.

use bytes::Bytes;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::{FilesError, Weights, to_f32};
use octet_policy::model::le_bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Bytes of an `f32`.
const FLOAT: u64 = 4;

/// The open files of a version.
#[derive(Debug)]
pub struct Stored {
    pieces: Vec<Piece>,
    total: u64,
}

/// One tensor.
#[derive(Debug)]
struct Piece {
    /// Where it begins among the version's bytes.
    start: u64,
    /// How many elements it has.
    count: u64,
    file: Arc<OpenFile>,
    /// Where it begins in the file.
    offset: u64,
    dtype: Dtype,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl Stored {
    /// The weights of a model directory.
    ///
    /// # Errors
    /// Names the file or every tensor that is not as the configuration says.
    pub fn open(directory: &Path, config: &ModelConfig) -> Result<Self, FilesError> {
        let weights = Weights::open(directory, config)?;
        let (mut pieces, mut total) = (Vec::<Piece>::new(), 0);
        for (spec, place) in weights.specs().iter().zip(weights.places()?) {
            let known = pieces.iter().find(|piece| piece.file.path == place.path);
            let file = match known {
                Some(piece) => Arc::clone(&piece.file),
                None => Arc::new(OpenFile::new(&place.path)?),
            };
            let (count, offset) = (spec.len() as u64, place.bytes.start);
            pieces.push(Piece { start: total, count, file, offset, dtype: place.dtype });
            total += FLOAT * count;
        }
        Ok(Self { pieces, total })
    }

    /// At most `len` bytes from an offset on.
    ///
    /// # Errors
    /// Names the file and what the system says.
    pub fn read(&self, offset: u64, len: usize) -> Result<Bytes, String> {
        let offset = offset.min(self.total);
        let end = offset.saturating_add(len as u64).min(self.total);
        let mut out = Vec::with_capacity((end - offset) as usize);
        let first = self.pieces.partition_point(|piece| piece.end() <= offset);
        for piece in self.pieces[first..].iter().take_while(|piece| piece.start < end) {
            let from = offset.max(piece.start) - piece.start;
            let to = end.min(piece.end()) - piece.start;
            piece
                .read(from, to, &mut out)
                .map_err(|error| format!("cannot read {}: {error}", piece.file.path.display()))?;
        }
        Ok(out.into())
    }
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + FLOAT * self.count
    }

    /// Appends bytes `from .. to` of the tensor as `f32`.
    fn read(&self, from: u64, to: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let size = self.dtype.size() as u64;
        // Whole elements, of which the first and the last may be wanted in part.
        let (first, last) = (from / FLOAT, to.div_ceil(FLOAT));
        let mut stored = vec![0; ((last - first) * size) as usize];
        self.file.read(self.offset + first * size, &mut stored)?;
        let floats = match self.dtype {
            Dtype::F32 => stored,
            other => le_bytes(&to_f32(other, &stored)).into_owned(),
        };
        out.extend_from_slice(
            &floats[(from - first * FLOAT) as usize..(to - first * FLOAT) as usize],
        );
        Ok(())
    }
}

impl OpenFile {
    fn new(path: &Path) -> Result<Self, FilesError> {
        let fault = |source| FilesError::Read { path: path.to_owned(), source };
        Ok(Self { path: path.to_owned(), file: Mutex::new(File::open(path).map_err(fault)?) })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Nothing is left half-done by a reader that panicked: each begins with its own place.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}
