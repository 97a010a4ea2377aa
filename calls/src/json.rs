//! Reads one JSON value from the front of a text and says where it ended, or where and why it failed.
//!
//! Invariants: never panics; visits each byte once; recursion is bounded by [`MAX_DEPTH`]; whatever it
//! accepts, `serde_json` accepts too with an equal value. It exists because `serde_json` keeps the last
//! of two equal keys in silence, and because a scanner that goes on where reading failed needs the
//! byte at which it failed to stay linear.

use serde_json::{Map, Number, Value};

/// How many arrays and objects may be open at once.
pub const MAX_DEPTH: usize = 96;

/// Why a text is not JSON, and the byte at which that showed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {at}")]
pub struct JsonFault {
    /// Offset into the text that was read.
    pub at: usize,
    /// What was wrong there.
    pub kind: JsonFaultKind,
}

/// What can be wrong with a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFaultKind {
    /// The text ended inside a value.
    #[error("the JSON is cut off: expected {expected}, found the end of the text")]
    CutOff {
        /// What should have followed.
        expected: &'static str,
    },
    /// Another character than JSON allows.
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What should have stood there.
        expected: &'static str,
        /// What did.
        found: char,
    },
    /// `NaN`, `Infinity` and the like.
    #[error("expected a JSON value, found {literal:?}, which JSON does not have")]
    NotJson {
        /// The word found.
        literal: &'static str,
    },
    /// A number that no 64-bit number can hold, such as `1e999`.
    #[error("expected a number that fits 64 bits, found one of {digits} characters that does not")]
    HugeNumber {
        /// Its length.
        digits: usize,
    },
    /// A number such as `01` or `1.`.
    #[error("expected a JSON number, found {text:?}")]
    BadNumber {
        /// Its first characters.
        text: String,
    },
    /// A string with a bad escape, a lone surrogate, or a bare control character.
    #[error("expected a JSON string, found one with a {what}")]
    BadString {
        /// What is wrong with it.
        what: &'static str,
    },
    /// One object has the same key twice, so what was meant is a guess.
    #[error("expected each key once, found {key:?} twice, which is ambiguous")]
    DuplicateKey {
        /// The key, cut to a readable length.
        key: String,
    },
    /// More open arrays and objects than [`MAX_DEPTH`].
    #[error("expected at most {MAX_DEPTH} nested values, found more")]
    TooDeep,
    /// Something follows the value where nothing may.
    #[error("expected the end of the JSON, found {found:?} after it")]
    Trailing {
        /// The character found.
        found: char,
    },
}

/// Reads the value at the front of `text`, white space before it included.
/// The offset is where reading stopped: just behind the value, or so far that a scanner which goes on
/// from there sees no byte more than twice.
pub fn read_value(text: &str) -> (Result<Value, JsonFault>, usize) {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0);
    (value, reader.at)
}

/// Reads a text that is one JSON value and nothing else.
pub fn read_whole(text: &str) -> Result<Value, JsonFault> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    match reader.peek_char() {
        None => Ok(value),
        Some(found) => Err(reader.fault(JsonFaultKind::Trailing { found })),
    }
}

/// At most 40 characters of a text, for messages.
pub fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let mut cut: String = chars.by_ref().take(40).collect();
    if chars.next().is_some() {
        cut.push('…');
    }
    cut
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn peek_char(&self) -> Option<char> {
        self.text.get(self.at..).and_then(|rest| rest.chars().next())
    }

    fn fault(&self, kind: JsonFaultKind) -> JsonFault {
        JsonFault { at: self.at, kind }
    }

    fn unexpected(&self, expected: &'static str) -> JsonFault {
        self.fault(match self.peek_char() {
            None => JsonFaultKind::CutOff { expected },
            Some(found) => JsonFaultKind::Unexpected { expected, found },
        })
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonFault> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(self.fault(JsonFaultKind::TooDeep)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Result<Value, JsonFault> {
        for (word, value) in
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
        {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        for literal in ["NaN", "Infinity", "None", "True", "False", "undefined"] {
            if self.rest().starts_with(literal) {
                return Err(self.fault(JsonFaultKind::NotJson { literal }));
            }
        }
        Err(self.unexpected("a JSON value"))
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonFault> {
        self.at += 1;
        let mut map = Map::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let start = self.at;
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("':' after a key"));
            }
            self.at += 1;
            if map.contains_key(&key) {
                let kind = JsonFaultKind::DuplicateKey { key: excerpt(&key) };
                return Err(JsonFault { at: start, kind });
            }
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            if self.closes(b'}', "',' or '}'")? {
                return Ok(Value::Object(map));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonFault> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.closes(b']', "',' or ']'")? {
                return Ok(Value::Array(items));
            }
        }
    }

    /// After an item: true at the closing bracket, false at a comma.
    fn closes(&mut self, bracket: u8, expected: &'static str) -> Result<bool, JsonFault> {
        self.skip_space();
        match self.peek() {
            Some(byte) if byte == bracket => {
                self.at += 1;
                Ok(true)
            }
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    fn string(&mut self) -> Result<String, JsonFault> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                None => {
                    self.at = bytes.len();
                    return Err(self.unexpected("the closing quote of a string"));
                }
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(0..=0x1f) => {
                    self.at = end;
                    let what = "control character that is not escaped";
                    return Err(self.fault(JsonFaultKind::BadString { what }));
                }
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        // What is left to go wrong after the scan above is an escape.
        serde_json::from_str(quoted).map_err(|_| {
            let what = "bad escape or a lone surrogate";
            JsonFault { at: start, kind: JsonFaultKind::BadString { what } }
        })
    }

    fn number(&mut self) -> Result<Value, JsonFault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        if self.text.get(start..self.at) == Some("-") && self.rest().starts_with("Infinity") {
            let kind = JsonFaultKind::NotJson { literal: "-Infinity" };
            return Err(JsonFault { at: start, kind });
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str::<Number>(digits).map(Value::Number).map_err(|error| {
            let kind = if error.to_string().starts_with("number out of range") {
                JsonFaultKind::HugeNumber { digits: digits.len() }
            } else {
                JsonFaultKind::BadNumber { text: excerpt(digits) }
            };
            JsonFault { at: start, kind }
        })
    }
}
