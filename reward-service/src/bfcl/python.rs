//! What Python's `type`, `==` and `in` say of JSON values, and the leaderboard's standard form of a text.
//!
//! Invariant: equality is Python's: numbers by value whatever their type, `True` as 1, texts to the letter.

use serde_json::Value;

/// The type that `json.loads` gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Dict,
}

impl Kind {
    /// The type that a schema asks for, by its names in JSON Schema and in the leaderboard's files.
    pub(super) fn of_schema(schema: &Value) -> Option<Self> {
        Some(match schema.get("type").and_then(Value::as_str)? {
            "string" | "any" => Self::Str,
            "integer" => Self::Int,
            "number" | "float" => Self::Float,
            "boolean" => Self::Bool,
            "array" | "tuple" => Self::List,
            "object" | "dict" => Self::Dict,
            "null" => Self::None,
            _ => return None,
        })
    }
}

/// The type of a value.
pub(super) fn kind(value: &Value) -> Kind {
    match value {
        Value::Null => Kind::None,
        Value::Bool(_) => Kind::Bool,
        Value::Number(number) if number.is_f64() => Kind::Float,
        Value::Number(_) => Kind::Int,
        Value::String(_) => Kind::Str,
        Value::Array(_) => Kind::List,
        Value::Object(_) => Kind::Dict,
    }
}

/// `value in values`.
pub(super) fn contains(values: &[Value], value: &Value) -> bool {
    values.iter().any(|one| equal(one, value))
}

/// `left == right`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value)| right.get(key).is_some_and(|other| equal(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => match (number(left), number(right)) {
            (Some(left), Some(right)) => left == right,
            (None, None) => left == right,
            _ => false,
        },
    }
}

/// A number such that two are equal exactly if Python says so.
#[derive(PartialEq)]
enum Number {
    Whole(i128),
    Real(f64),
}

fn number(value: &Value) -> Option<Number> {
    // Beyond this every f64 is whole, and no integer that JSON is read into comes near.
    const WHOLE: f64 = (1_u128 << 100) as f64;
    match value {
        Value::Bool(flag) => Some(Number::Whole(i128::from(*flag))),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => Some(Number::Whole(whole)),
            (None, Some(real)) if real.fract() == 0.0 && real.abs() < WHOLE => {
                Some(Number::Whole(real as i128))
            }
            (None, real) => real.map(Number::Real),
        },
        _ => None,
    }
}

/// The leaderboard's `standardize_string`: small letters without ` ,./-_*^`, single quotes as double ones.
pub(super) fn standard(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !" ,./-_*^".contains(*c)).collect();
    kept.to_lowercase().replace('\'', "\"")
}
