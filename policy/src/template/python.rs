//! How Python writes values: `json.dumps` for the `tojson` filter, `str` for `{{ ... }}`.
//!
//! Invariant: for what JSON can hold, the text equals Python's, numbers and separators included.
//! (An integer beyond 64 bits is a float to this crate's JSON reader and prints as one.)

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// The arguments of `json.dumps` that templates use.
#[derive(Default)]
pub(super) struct Style {
    /// One level of indentation, for output over several lines.
    pub(super) indent: Option<String>,
    /// Between items, and between a key and its value.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
    /// Escape everything that is not ASCII.
    pub(super) ascii: bool,
}

/// Python's `json.dumps`.
pub(super) fn to_json(value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, style, 0)?;
    Ok(out)
}

/// Python's `str`, as Jinja prints values.
pub(super) fn display(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().into(),
        _ => repr(value),
    }
}

/// Python's `repr`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number => number(value),
        ValueKind::String => repr_string(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<_> = value.try_iter().into_iter().flatten().map(|v| repr(&v)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Map => {
            let item = |key: Value| {
                let inner = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&inner))
            };
            let items: Vec<_> = value.try_iter().into_iter().flatten().map(item).collect();
            format!("{{{}}}", items.join(", "))
        }
        _ => value.to_string(),
    }
}

fn repr_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn write_json(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&json_number(value)),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ('[', ']'), items.len(), style, depth, |out, index| {
                write_json(out, &items[index], style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<(String, Value)> = Vec::new();
            for key in value.try_iter()? {
                keys.push((json_key(&key)?, value.get_item(&key)?));
            }
            if style.sort_keys {
                keys.sort_by(|a, b| a.0.cmp(&b.0));
            }
            let colon = style.separators.as_ref().map_or(": ", |s| s.1.as_str());
            write_items(out, ('{', '}'), keys.len(), style, depth, |out, index| {
                let (key, item) = &keys[index];
                write_string(out, key, style.ascii);
                out.push_str(colon);
                write_json(out, item, style, depth + 1)
            })?;
        }
        kind => return Err(not_json(&format!("a value of the kind {kind}"))),
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    brackets: (char, char),
    count: usize,
    style: &Style,
    depth: usize,
    mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let comma = match (&style.separators, &style.indent) {
        (Some((comma, _)), _) => comma.as_str(),
        (None, Some(_)) => ",",
        (None, None) => ", ",
    };
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    out.push(brackets.0);
    for index in 0..count {
        if index > 0 {
            out.push_str(comma);
        }
        new_line(out, depth + 1);
        item(out, index)?;
    }
    if count > 0 {
        new_line(out, depth);
    }
    out.push(brackets.1);
    Ok(())
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && c as u32 > 0x7e) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn json_key(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().into()),
        ValueKind::None => Ok("null".into()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        ValueKind::Number => Ok(json_number(key)),
        kind => Err(not_json(&format!("a key of the kind {kind}"))),
    }
}

fn not_json(found: &str) -> Error {
    let message = format!("tojson expected a value that JSON can hold, found {found}");
    Error::new(ErrorKind::InvalidOperation, message)
}

fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        "nan" => "NaN".into(),
        text => text.into(),
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// Python's `repr` of a float: the shortest digits, an exponent from 1e16 up and below 1e-4.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (5.0, "5.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e22, "1.5e+22"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (1e100, "1e+100"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        ] {
            assert_eq!(float(number), text);
        }
    }

    #[test]
    fn strings_are_quoted_as_python_quotes_them() {
        assert_eq!(repr_string("it's"), "\"it's\"");
        assert_eq!(repr_string("a\"b'c\n\u{1}"), "'a\"b\\'c\\n\\x01'");
        let mut out = String::new();
        write_string(&mut out, "é😀<&>\u{7f}\u{1}/", true);
        assert_eq!(out, "\"\\u00e9\\ud83d\\ude00<&>\\u007f\\u0001/\"");
    }
}
