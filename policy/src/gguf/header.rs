//! A walk over a GGUF header before it is believed.
//!
//! Invariant: a header that passes ends inside its file and has an alignment that can be divided by; what
//! comes after can rely on both.

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file ends before the header does.
    Ends,
    /// A version that is not read, in the machine's byte order.
    Version(u32),
    /// Tensors would begin at multiples of this.
    Alignment(u64),
}

/// The first four bytes of every GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Arrays in arrays; no known file has any.
const DEEPEST: u32 = 4;

struct Cursor<'a>(&'a [u8]);

/// Checks the header of a file that begins with [`MAGIC`].
pub(super) fn check(bytes: &[u8]) -> Result<(), Fault> {
    let mut at = Cursor(bytes);
    at.take(MAGIC.len() as u64).ok_or(Fault::Ends)?;
    let version = at.u32().ok_or(Fault::Ends)?;
    if !(2..=3).contains(&version) {
        return Err(Fault::Version(version));
    }
    let tensors = at.u64().ok_or(Fault::Ends)?;
    let entries = at.u64().ok_or(Fault::Ends)?;
    for _ in 0..entries {
        let key = at.text().ok_or(Fault::Ends)?;
        let kind = at.u32().ok_or(Fault::Ends)?;
        let before = at.0;
        match at.skip(kind, 0) {
            Skipped::Value => {}
            Skipped::Ends => return Err(Fault::Ends),
            // The reader says which type it does not know.
            Skipped::Unknown => return Ok(()),
        }
        if key == b"general.alignment" {
            let value = &before[..before.len() - at.0.len()];
            let value = value.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
            if !value.is_power_of_two() {
                return Err(Fault::Alignment(value));
            }
        }
    }
    for _ in 0..tensors {
        at.tensor().ok_or(Fault::Ends)?;
    }
    Ok(())
}

enum Skipped {
    Value,
    Ends,
    Unknown,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u64()?;
        self.take(length)
    }

    /// Passes over what the header says of a tensor: name, sizes, type and place.
    fn tensor(&mut self) -> Option<()> {
        self.text()?;
        let dimensions = self.u32()?;
        self.take(8 * u64::from(dimensions) + 4 + 8).map(|_| ())
    }

    /// Passes over one value.
    fn skip(&mut self, kind: u32, depth: u32) -> Skipped {
        let passed = |there: Option<&[u8]>| there.map_or(Skipped::Ends, |_| Skipped::Value);
        if let Some(size) = size(kind) {
            return passed(self.take(size));
        }
        match kind {
            8 => passed(self.text()),
            9 if depth < DEEPEST => {
                let (Some(kind), Some(count)) = (self.u32(), self.u64()) else {
                    return Skipped::Ends;
                };
                if let Some(size) = size(kind) {
                    return passed(self.take(count.saturating_mul(size)));
                }
                for _ in 0..count {
                    match self.skip(kind, depth + 1) {
                        Skipped::Value => {}
                        other => return other,
                    }
                }
                Skipped::Value
            }
            _ => Skipped::Unknown,
        }
    }
}

/// Bytes of a value of fixed size.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
