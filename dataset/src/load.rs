//! Reading and writing files of rows: JSON lines, or one JSON array.
//!
//! Invariant: a file is loaded whole or not at all, and all its faults are told at once.

use std::io::{self, Write};
use std::path::Path;

use serde_json::error::Error;

use crate::check::check;
use crate::example::Example;
use crate::fault::{FAULTS_KEPT, Fault, Faults, RowFault, RowFaults};

/// Loads and checks a file.
pub fn load(path: impl AsRef<Path>) -> Result<Vec<Example>, Faults> {
    let mut examples = Vec::new();
    let read = read_rows(path.as_ref(), &mut |text| {
        let example = Example::from_json(text)?;
        let faults = check(&example);
        if !faults.is_empty() {
            return Err(RowFaults(faults));
        }
        examples.push(example);
        Ok(())
    });
    match read {
        Some(faults) => Err(faults),
        None => Ok(examples),
    }
}

/// Hands each row's text to `row`; gives back all the faults of the file, if there are any.
pub(crate) fn read_rows(
    path: &Path,
    row: &mut dyn FnMut(&str) -> Result<(), RowFaults>,
) -> Option<Faults> {
    let mut reading = Reading { path, row, faults: Vec::new(), count: 0 };
    match std::fs::read(path) {
        Ok(bytes) => reading.bytes(&bytes),
        Err(error) => reading.fault(1, RowFault::new("file", "a file to read", error.to_string())),
    }
    (reading.count > 0).then_some(Faults { faults: reading.faults, count: reading.count })
}

/// Writes rows as JSON lines. Equal rows give equal bytes.
pub fn write_jsonl(rows: &[Example], to: &mut impl Write) -> io::Result<()> {
    for row in rows {
        to.write_all(row.to_json().as_bytes())?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

struct Reading<'a> {
    path: &'a Path,
    row: &'a mut dyn FnMut(&str) -> Result<(), RowFaults>,
    faults: Vec<Fault>,
    count: usize,
}

impl Reading<'_> {
    fn fault(&mut self, line: usize, fault: RowFault) {
        self.count += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(Fault { file: self.path.to_owned(), line, fault });
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim_start_matches('\u{feff}'),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
                let found = format!("the byte 0x{:02x}", bytes[error.valid_up_to()]);
                return self.fault(line, RowFault::new("file", "text in UTF-8", found));
            }
        };
        if text.trim().is_empty() {
            return self.fault(1, RowFault::new("file", "at least one row", "an empty file"));
        }
        if text.trim_start().starts_with('[') {
            self.array(text);
        } else {
            for (i, line) in text.lines().enumerate() {
                if !line.trim().is_empty() {
                    self.row(i + 1, line.trim());
                }
            }
        }
    }

    fn array(&mut self, text: &str) {
        match elements(text) {
            Ok(elements) if elements.is_empty() => {
                self.fault(1, RowFault::new("file", "at least one row", "an empty list"));
            }
            Ok(elements) => {
                for (line, element) in elements {
                    self.row(line, element);
                }
            }
            Err((line, fault)) => self.fault(line, fault),
        }
    }

    fn row(&mut self, line: usize, text: &str) {
        if let Err(RowFaults(faults)) = (self.row)(text) {
            faults.into_iter().for_each(|fault| self.fault(line, fault));
        }
    }
}

/// The elements of a JSON array's text, each with its line, without looking into them.
fn elements(text: &str) -> Result<Vec<(usize, &str)>, (usize, RowFault)> {
    let mut elements = Vec::new();
    let mut start = None;
    let mut line = 1;
    let mut scan = Scan::default();
    for (at, byte) in text.bytes().enumerate() {
        let depth = scan.open.len();
        let code = !scan.quoted;
        scan.step(at, byte);
        if byte == b'\n' {
            line += 1;
        }
        let closed = scan.open.is_empty();
        if code && depth == 1 && (byte == b',' || closed) {
            if let Some((from, row)) = start.take() {
                elements.push((row, text[from..at].trim()));
            } else if byte == b',' {
                return Err((line, RowFault::new("file", "a row before the comma", "none")));
            }
            if closed {
                let rest = text[at + 1..].trim();
                if rest.is_empty() {
                    return Ok(elements);
                }
                let short: String = rest.chars().take(40).collect();
                return Err((line, RowFault::new("file", "nothing after the list", short)));
            }
        } else if depth >= 1 && start.is_none() && !byte.is_ascii_whitespace() {
            start = Some((at, line));
        }
    }
    Err((line, RowFault::new("file", "a ] that ends the list of rows", "the end of the file")))
}

/// Walks over JSON text, keeping the brackets that are open.
#[derive(Default)]
struct Scan {
    open: Vec<(usize, u8)>,
    quoted: bool,
    escaped: bool,
}

impl Scan {
    fn step(&mut self, at: usize, byte: u8) {
        if self.quoted {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.quoted = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' => self.open.push((at, byte)),
            b'}' | b']' => {
                self.open.pop();
            }
            _ => {}
        }
    }
}

/// What is wrong with a text that is not JSON; a text that ends too early is told what it lacks.
pub(crate) fn json_fault(text: &str, error: &Error) -> RowFault {
    const WANTED: &str = "one JSON object on one line";
    if !error.is_eof() {
        return RowFault::new("row", WANTED, format!("JSON that does not parse: {error}"));
    }
    let mut scan = Scan::default();
    text.bytes().enumerate().for_each(|(at, byte)| scan.step(at, byte));
    let lacking: String =
        scan.open.iter().rev().map(|&(_, byte)| if byte == b'{' { '}' } else { ']' }).collect();
    let found = match scan.open.first() {
        Some(_) if scan.quoted => "the end of the line inside a text".to_owned(),
        Some(&(at, byte)) => {
            let name = if byte == b'{' { "brace" } else { "bracket" };
            format!(
                "the end of the line with the {name} of column {} still open: {lacking} is missing",
                text[..at].chars().count() + 1,
            )
        }
        None => format!("JSON that does not parse: {error}"),
    };
    RowFault::new("row", WANTED, found)
}
