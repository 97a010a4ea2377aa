//! The `bfcl` reward: the verdicts of the Berkeley Function Calling Leaderboard's own AST checker.
//!
//! [`check`] decides as `bfcl_eval/eval_checker/ast_eval/ast_checker.py` does for Python: types before values, texts
//! without case, spaces and `,./-_*^`, parallel calls matched in turn, objects and lists of objects by their keys'
//! accepted values, and everything else by Python's `==`. Its kinds of errors are kept, as [`Fault::kind`].
//!
//! What differs, and what is not decided there, is in `docs/evaluate.md`: how calls are read from the text is the
//! parser's affair ([`crate::parse`]), and where the checker throws an exception the answer is wrong here.
//!
//! Invariant: the verdict is a function of the tools, the accepted values and the calls alone, and takes time linear
//! in them.

mod python;

#[cfg(test)]
mod tests;

use octet_dataset::{Example, GroundTruth, PossibleCall, Tool, may_be_left_out};
use serde_json::{Map, Value};

use self::python::{Kind, contains, equal, kind, standard};
use crate::{
    function::{RewardFunction, RewardRange, ScoreError, Verdict, builtin_digest},
    labels,
    parse::{ParsedCall, excerpt, parse},
};

/// Raise this whenever a change here or in the parser could give the same completion another reward.
const VERSION: &str = "1.0.0";
const NAME: &str = "bfcl";

/// 1.0 for what the leaderboard calls valid, 0.0 for everything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bfcl;

impl RewardFunction for Bfcl {
    fn name(&self) -> &str {
        NAME
    }

    fn digest(&self) -> String {
        builtin_digest(NAME, VERSION)
    }

    fn range(&self) -> RewardRange {
        RewardRange::UNIT
    }

    fn score(&self, example: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let parsed = parse(completion);
        let possible = match &example.ground_truth {
            GroundTruth::Possible(possible) => possible.clone(),
            GroundTruth::Calls(calls) => calls.iter().map(PossibleCall::from).collect(),
            // Irrelevance: what is no call, a broken one included, is right.
            GroundTruth::Clarify { .. } | GroundTruth::Refuse | GroundTruth::Text(_) => {
                return Ok(match parsed.calls.first() {
                    None => Verdict::new(1.0, labels::NOT_CALLED, "no call was wanted or made"),
                    Some(call) => {
                        let detail = format!("expected no call, found {}", excerpt(&call.name));
                        Verdict::new(0.0, labels::NEEDLESS_CALL, detail)
                    }
                });
            }
        };
        if let Some(rejection) = parsed.rejected.first() {
            return Ok(Verdict::new(0.0, labels::MALFORMED_CALL, rejection.to_string()));
        }
        if parsed.calls.is_empty() {
            return Ok(Verdict::new(0.0, labels::NO_CALL, "expected a call, found none"));
        }
        Ok(match check(&example.tools, &possible, &parsed.calls) {
            Ok(()) => Verdict::new(1.0, labels::RIGHT_CALL, "valid"),
            Err(fault) => Verdict::new(
                0.0,
                fault.label(possible.len(), parsed.calls.len()),
                fault.to_string(),
            ),
        })
    }
}

/// Why an answer is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Fault {
    /// The leaderboard's `error_type`; `exception` where its checker throws one.
    pub kind: &'static str,
    /// What was expected and what was found.
    pub detail: String,
}

const MISSING_REQUIRED: &str = "simple_function_checker:missing_required";
const MISSING_OPTIONAL: &str = "simple_function_checker:missing_optional";
const WRONG_NAME: &str = "simple_function_checker:wrong_func_name";
const WRONG_COUNT: [&str; 3] = [
    "simple_function_checker:wrong_count",
    "multiple_function_checker:wrong_count",
    "parallel_function_checker_no_order:wrong_count",
];

impl Fault {
    fn new(kind: &'static str, detail: impl Into<String>) -> Self {
        Fault { kind, detail: detail.into() }
    }

    fn label(&self, wanted: usize, found: usize) -> &'static str {
        match self.kind {
            kind if WRONG_COUNT.contains(&kind) && found > wanted => labels::NEEDLESS_CALL,
            kind if WRONG_COUNT.contains(&kind) => labels::TOO_FEW_CALLS,
            WRONG_NAME => labels::WRONG_TOOL,
            MISSING_REQUIRED | MISSING_OPTIONAL => labels::MISSING_PARAMETERS,
            _ => labels::WRONG_PARAMETERS,
        }
    }
}

fn exception(detail: &str) -> Fault {
    Fault::new("exception", detail)
}

/// Whether these calls are valid for these possible answers, given the tools offered.
///
/// # Errors
/// Why they are not.
pub fn check(
    tools: &[Value],
    possible: &[PossibleCall],
    calls: &[ParsedCall],
) -> Result<(), Fault> {
    let parallel = possible.len() > 1;
    if calls.len() != possible.len() {
        let kind = match (parallel, tools.len()) {
            (true, _) => WRONG_COUNT[2],
            (false, 1) => WRONG_COUNT[0],
            (false, _) => WRONG_COUNT[1],
        };
        let detail = format!("expected {} calls, found {}", possible.len(), calls.len());
        return Err(Fault::new(kind, detail));
    }
    let mut left: Vec<&ParsedCall> = calls.iter().collect();
    for wanted in possible {
        let tool = tools.iter().filter_map(|tool| Tool::from_value(tool, "tools").ok());
        let Some(tool) = tool.into_iter().find(|tool| tool.name == wanted.name) else {
            return Err(exception("the possible answer calls a tool that is not offered"));
        };
        if !parallel {
            return one(&tool, wanted, &calls[0]);
        }
        // The first call that fits is taken, whatever is wanted next.
        let mut why = String::new();
        let fits = left.iter().position(|call| match one(&tool, wanted, call) {
            Ok(()) => true,
            Err(fault) => {
                why = fault.to_string();
                false
            }
        });
        match fits {
            Some(at) => {
                left.remove(at);
            }
            None => {
                let kind = "parallel_function_checker_no_order:cannot_find_match";
                let detail =
                    format!("no call fits {}; the last tried: {why}", excerpt(&wanted.name));
                return Err(Fault::new(kind, detail));
            }
        }
    }
    Ok(())
}

/// The leaderboard's `simple_function_checker`.
fn one(tool: &Tool, wanted: &PossibleCall, call: &ParsedCall) -> Result<(), Fault> {
    if call.name != tool.name {
        let detail = format!("expected {}, found {}", excerpt(&tool.name), excerpt(&call.name));
        return Err(Fault::new(WRONG_NAME, detail));
    }
    if let Some(name) = tool.required().find(|name| !call.arguments.contains_key(*name)) {
        return Err(Fault::new(
            MISSING_REQUIRED,
            format!("expected {}, found none", excerpt(name)),
        ));
    }
    for (name, value) in &call.arguments {
        let schema = tool.properties().find(|(property, _)| *property == name);
        let (Some((_, schema)), Some(accepted)) = (schema, wanted.accepted(name)) else {
            let kind = "simple_function_checker:unexpected_param";
            return Err(Fault::new(kind, format!("expected no {}", excerpt(name))));
        };
        argument(schema, value, accepted).map_err(|fault| {
            let (name, value) = (excerpt(name), excerpt(&value.to_string()));
            Fault::new(fault, format!("{name} = {value} is not accepted"))
        })?;
    }
    for (name, accepted) in wanted.parameters() {
        if !call.arguments.contains_key(name) && !may_be_left_out(accepted) {
            return Err(Fault::new(
                MISSING_OPTIONAL,
                format!("expected {}, found none", excerpt(name)),
            ));
        }
    }
    Ok(())
}

/// Whether a value is accepted for a parameter with this schema. Where the schema names no type, the value's own
/// stands in for it.
fn argument(schema: &Value, value: &Value, accepted: &[Value]) -> Result<(), &'static str> {
    let expected = Kind::of_schema(schema).unwrap_or_else(|| kind(value));
    let nested = match (expected, value) {
        (Kind::List, Value::Array(items)) => {
            let named = schema.get("items").and_then(Kind::of_schema);
            named.or_else(|| items.first().map(kind))
        }
        _ => None,
    };
    // Python counts an integer as a float where one is wanted.
    let widened = match (expected, kind(value), value.as_f64()) {
        (Kind::Float, Kind::Int, Some(number)) => Some(Value::from(number)),
        _ => None,
    };
    let value = widened.as_ref().unwrap_or(value);
    let is_variable = typed(value, accepted, expected, nested)?;
    if !is_variable {
        match (expected, value) {
            (Kind::Dict, Value::Object(map)) => return dict(map, accepted),
            (Kind::List, Value::Array(items)) if nested == Some(Kind::Dict) => {
                return list_of_dicts(items, accepted);
            }
            (Kind::Str, Value::String(text)) => return string(text, accepted),
            (Kind::List, Value::Array(items)) => return list(items, accepted),
            _ => {}
        }
    }
    if contains(accepted, value) { Ok(()) } else { Err("value_error:others") }
}

/// The leaderboard's `type_checker`. True when the value stands for a variable: it has the type of the first
/// accepted value, which is not the parameter's.
fn typed(
    value: &Value,
    accepted: &[Value],
    expected: Kind,
    nested: Option<Kind>,
) -> Result<bool, &'static str> {
    let accepted_kind = accepted.iter().find(|value| value.as_str() != Some("")).map(kind);
    let is_variable = accepted_kind.is_some_and(|kind| kind != expected);
    if kind(value) != expected {
        return if accepted_kind == Some(kind(value)) {
            Ok(true)
        } else {
            Err("type_error:simple")
        };
    }
    let (Some(nested), Value::Array(items)) = (nested, value) else { return Ok(is_variable) };
    let fits = |accepted: &Value| match accepted {
        Value::Array(accepted) => {
            items.iter().all(|item| typed(item, accepted, nested, None).is_ok())
        }
        _ => true,
    };
    match accepted_kind {
        _ if accepted.iter().any(fits) => Ok(is_variable),
        Some(kind) if kind == expected => Err("type_error:nested"),
        _ => Err("type_error:simple"),
    }
}

fn string(text: &str, accepted: &[Value]) -> Result<(), &'static str> {
    let text = standard(text);
    let fits = accepted.iter().filter_map(Value::as_str).any(|accepted| standard(accepted) == text);
    if fits { Ok(()) } else { Err("value_error:string") }
}

fn list(items: &[Value], accepted: &[Value]) -> Result<(), &'static str> {
    let standardised = |items: &[Value]| Value::Array(items.iter().map(standard_value).collect());
    let found = standardised(items);
    let mut fits = false;
    for accepted in accepted {
        fits |= match accepted {
            Value::Array(items) => equal(&standardised(items), &found),
            // Python reads a text as the list of its letters; the empty one is an empty list.
            Value::String(text) => {
                let letters: Vec<_> = text.chars().map(|c| Value::from(c.to_string())).collect();
                equal(&standardised(&letters), &found)
            }
            _ => return Err("exception"),
        };
    }
    if fits { Ok(()) } else { Err("value_error:list/tuple") }
}

fn standard_value(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| standard(text).into())
}

/// The leaderboard's `dict_checker`: the error is that of the last accepted value that was tried.
fn dict(map: &Map<String, Value>, accepted: &[Value]) -> Result<(), &'static str> {
    let mut error = "dict_checker:unclear";
    for accepted in accepted.iter().filter(|value| value.as_str() != Some("")) {
        let Value::Object(accepted) = accepted else { return Err("exception") };
        match keys(map, accepted) {
            Ok(()) => return Ok(()),
            Err(kind) => error = kind,
        }
    }
    Err(error)
}

fn keys(map: &Map<String, Value>, accepted: &Map<String, Value>) -> Result<(), &'static str> {
    let values = |key: &str| accepted.get(key).and_then(Value::as_array).map(Vec::as_slice);
    let missing = accepted
        .keys()
        .any(|key| !map.contains_key(key) && !may_be_left_out(values(key).unwrap_or_default()));
    for (key, value) in map {
        let Some(values) = values(key) else { return Err("value_error:dict_key") };
        let values: Vec<Value> = values.iter().map(standard_value).collect();
        if !contains(&values, &standard_value(value)) {
            return Err(if missing { "value_error:dict_key" } else { "value_error:dict_value" });
        }
    }
    if missing { Err("value_error:dict_key") } else { Ok(()) }
}

/// The leaderboard's `list_dict_checker`: as many objects, in order.
fn list_of_dicts(items: &[Value], accepted: &[Value]) -> Result<(), &'static str> {
    let mut error = "list_dict_checker:unclear";
    for accepted in accepted {
        // The empty text has no items either.
        let accepted = match accepted {
            Value::Array(accepted) => accepted.as_slice(),
            Value::String(text) if text.is_empty() => &[],
            _ => return Err("exception"),
        };
        if items.len() != accepted.len() {
            error = "value_error:list_dict_count";
            continue;
        }
        let fits = items.iter().zip(accepted).try_for_each(|(item, accepted)| match item {
            Value::Object(map) => dict(map, std::slice::from_ref(accepted)),
            _ => Err("exception"),
        });
        match fits {
            Ok(()) => return Ok(()),
            Err("exception") => return Err("exception"),
            Err(kind) => error = kind,
        }
    }
    Err(error)
}
