//! Python's literals and calls, as data sets print them: `{'a': [1, None]}`, `[f(a=1, b="x"), g()]`.
//!
//! Invariant: only literals are read, so nothing is ever computed; recursion is bounded by [`MAX_DEPTH`].

use serde_json::{Map, Number, Value};

use crate::truth::Call;

/// How many lists, dictionaries and calls may be open at once.
const MAX_DEPTH: usize = 64;

/// A text that is one literal.
pub(super) fn literal(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

/// Whether a text is meant as a list of calls.
pub(super) fn looks_like_calls(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('[') && text.ends_with(']') && text.contains('(')
}

/// A text that is a list of calls with keyword arguments. A tool's name is all up to the bracket.
pub(super) fn calls(text: &str) -> Result<Vec<Call>, String> {
    let mut reader = Reader { text: text.trim(), at: 0 };
    reader.expect('[')?;
    let mut calls = Vec::new();
    loop {
        calls.push(reader.call()?);
        match reader.next_of(&[',', ']'])? {
            ',' => {}
            _ => break,
        }
    }
    reader.end()?;
    Ok(calls)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest().chars().next()
    }

    fn fault<T>(&self, expected: &str) -> Result<T, String> {
        let found: String = self.rest().chars().take(20).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        Err(format!("{found} where {expected} was expected, at character {}", self.column()))
    }

    fn column(&self) -> usize {
        self.text.get(..self.at).unwrap_or(self.text).chars().count() + 1
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        self.next_of(&[wanted]).map(|_| ())
    }

    fn next_of(&mut self, wanted: &[char]) -> Result<char, String> {
        match self.peek() {
            Some(found) if wanted.contains(&found) => {
                self.at += found.len_utf8();
                Ok(found)
            }
            _ => self
                .fault(&wanted.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(" or ")),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.peek().is_some() { self.fault("the end") } else { Ok(()) }
    }

    fn call(&mut self) -> Result<Call, String> {
        self.skip_space();
        let Some(length) = self.rest().find('(') else { return self.fault("a call") };
        let name = self.rest()[..length].trim().to_owned();
        if name.is_empty() || name.contains(['\n', '=', '"', ',', '[', ']']) {
            return self.fault("a tool's name");
        }
        self.at += length + 1;
        let mut arguments = Map::new();
        if self.peek() == Some(')') {
            self.at += 1;
            return Ok(Call { name, arguments });
        }
        loop {
            self.skip_space();
            let Some(length) = self.rest().find('=') else {
                return self.fault("a parameter's name");
            };
            let key = self.rest()[..length].trim().trim_matches(['"', '\'']).to_owned();
            if key.is_empty() || key.contains(['(', ')', '\n', ',', '"']) {
                return self.fault("a parameter's name and =");
            }
            self.at += length + 1;
            let value = self.value(1)?;
            arguments.insert(key, value);
            if self.next_of(&[',', ')'])? == ')' {
                return Ok(Call { name, arguments });
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth >= MAX_DEPTH {
            return self.fault(&format!("at most {MAX_DEPTH} nested values"));
        }
        match self.peek() {
            Some('[') => self.items(']', depth).map(Value::Array),
            Some('(') => self.items(')', depth).map(Value::Array),
            Some('{') => self.dictionary(depth),
            Some('"' | '\'') => self.string().map(Value::String),
            Some('0'..='9' | '-' | '+' | '.') => self.number(),
            _ => self.word(),
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Result<Vec<Value>, String> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(items);
            }
            items.push(self.value(depth + 1)?);
            if self.next_of(&[',', close])? == close {
                return Ok(items);
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut map = Map::new();
        loop {
            match self.peek() {
                Some('}') => {
                    self.at += 1;
                    return Ok(Value::Object(map));
                }
                Some('"' | '\'') => {}
                _ => return self.fault("a key in quotes"),
            }
            let key = self.string()?;
            self.expect(':')?;
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            if self.next_of(&[',', '}'])? == '}' {
                return Ok(Value::Object(map));
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let Some(quote) = self.peek() else { return self.fault("a text in quotes") };
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        let mut letters = self.rest().char_indices();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match letters.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some('\n') => {}
                Some(kind @ ('u' | 'x')) => {
                    let digits = if kind == 'u' { 4 } else { 2 };
                    let code: String = letters.by_ref().take(digits).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    let Some(code) = code else { return self.fault("a text with whole escapes") };
                    text.push(code);
                }
                Some(other @ ('\\' | '\'' | '"' | '/')) => text.push(other),
                Some(other) => text.extend(['\\', other]),
                None => break,
            }
        }
        self.at = start;
        self.fault("a text with its closing quote")
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
            .unwrap_or(rest.len());
        let digits = rest[..length].replace('_', "");
        let digits = digits.trim_start_matches('+');
        let whole = digits.parse::<i64>().ok().map(Number::from);
        let whole = whole.or_else(|| digits.parse::<u64>().ok().map(Number::from));
        let real = || digits.parse::<f64>().ok().and_then(Number::from_f64);
        match whole.or_else(real) {
            Some(number) => {
                self.at += length;
                Ok(Value::Number(number))
            }
            None => self.fault("a number"),
        }
    }

    fn word(&mut self) -> Result<Value, String> {
        for (word, value) in [
            ("True", Value::Bool(true)),
            ("true", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("false", Value::Bool(false)),
            ("None", Value::Null),
            ("null", Value::Null),
        ] {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            if self.rest().strip_prefix(word).is_some_and(ends) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.fault("a literal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_are_read_as_python_prints_them() {
        let text =
            r#"{'a': [1, -2.5, None, True], "b": ('x', "it's"), 'c': 'a\'b\n\u00e9', 'd': {}}"#;
        let wanted =
            json!({"a": [1, -2.5, null, true], "b": ["x", "it's"], "c": "a'b\né", "d": {}});
        assert_eq!(literal(text), Ok(wanted));
        for broken in ["{'a': }", "[1, 2", "f(1)", "'x", "{1: 2}", "1 2", "nan"] {
            assert!(literal(broken).is_err(), "{broken}");
        }
        assert!(literal(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn calls_are_read_with_their_names_and_arguments() {
        let text = r#"[Market Trends API(trend_type="A=(b)", n=3, l=[{"k": 'v'}]), g.h()]"#;
        let found = calls(text).unwrap_or_default();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "Market Trends API");
        assert_eq!(
            Value::Object(found[0].arguments.clone()),
            json!({"trend_type": "A=(b)", "n": 3, "l": [{"k": "v"}]})
        );
        assert_eq!((found[1].name.as_str(), found[1].arguments.len()), ("g.h", 0));
        for broken in ["[f(1)]", "[f(a=1]", "[f(a=x)]", "[(a=1)]", "[f(a=1) g()]"] {
            assert!(calls(broken).is_err(), "{broken}");
        }
    }
}
