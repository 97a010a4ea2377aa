//! The whole lines of a file that grows.
//!
//! Invariant: a line is given once, when its end is there; a file that became shorter is read from its begin again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The most lines that are given at once.
const MOST: usize = 4096;

/// A file, and how far it was read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    line: usize,
}

impl Tail {
    /// From the begin of the file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, line: 0 }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next lines with their numbers, from 1; none when there are no more for now.
    pub fn read(&mut self) -> io::Result<Vec<(usize, String)>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if length < self.offset {
            (self.offset, self.line) = (0, 0);
        }
        let mut lines = Vec::new();
        if length == self.offset {
            return Ok(lines);
        }
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(self.offset))?;
        while lines.len() < MOST {
            let mut bytes = Vec::new();
            reader.read_until(b'\n', &mut bytes)?;
            if bytes.pop() != Some(b'\n') {
                break;
            }
            self.offset += bytes.len() as u64 + 1;
            self.line += 1;
            lines.push((self.line, String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_given_once_and_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("metrics.jsonl");
        let mut tail = Tail::new(path.clone());
        assert!(tail.read().unwrap().is_empty());
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.read().unwrap(), [(1, "one".to_owned())]);
        assert!(tail.read().unwrap().is_empty());
        // A torn line is cut off when the run is resumed, and written whole.
        file.set_len(4).unwrap();
        file.write_all(b"two\nthree\n").unwrap();
        assert_eq!(tail.read().unwrap(), [(2, "two".to_owned()), (3, "three".to_owned())]);
        file.set_len(4).unwrap();
        assert_eq!(tail.read().unwrap(), [(1, "one".to_owned())]);
    }
}
