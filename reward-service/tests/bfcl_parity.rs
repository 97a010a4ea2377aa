//! Verdicts on the Berkeley Function Calling Leaderboard's questions, ours against those of its own checker: on
//! right answers, on other right ones, and on answers with one to three things wrong with them.
//!
//! The package is taken from PyPI without its dependencies, which the checker does not need; `OCTET_TEST_BFCL` may
//! name a Python that has it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use octet_dataset::{Example, GroundTruth, PossibleCall, import_bfcl};
use octet_reward_service::bfcl::check;
use octet_reward_service::parse::ParsedCall;
use octet_reward_service::{Bfcl, RewardFunction};
use serde_json::{Map, Value, json};

const PACKAGE: &str = "bfcl-eval==2026.3.23";
/// Answers with something wrong with them, for each question.
const MUTATED: usize = 6;

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("no reason given").to_owned())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bfcl_checker.py")
}

/// A Python that can import the package, and the folder of its data.
fn prepare() -> Result<(PathBuf, PathBuf), String> {
    let data = |python: &Path| run(Command::new(python).arg(script()).arg("--data"));
    if let Some(python) = std::env::var_os("OCTET_TEST_BFCL") {
        let python = PathBuf::from(python);
        let data = data(&python)?;
        return Ok((python, data.into()));
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-bfcl");
    let python = home.join("bin/python");
    if data(&python).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", PACKAGE];
        run(Command::new(&python).args(pip))?;
    }
    let data = data(&python)?;
    Ok((python, data.into()))
}

/// SplitMix64: the same answers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// An answer that takes any accepted value, and leaves out at random what may be left out.
fn right(call: &PossibleCall, dice: &mut Dice) -> ParsedCall {
    fn keys(accepted: &Map<String, Value>, dice: &mut Dice) -> Value {
        let mut made = Map::new();
        for (key, accepted) in accepted {
            if let Some(value) =
                dice.pick(accepted.as_array().unwrap()).filter(|v| **v != json!(""))
            {
                made.insert(key.clone(), value.clone());
            }
        }
        Value::Object(made)
    }
    let mut arguments = Map::new();
    for (name, accepted) in call.parameters() {
        let value = match dice.pick(accepted) {
            None => continue,
            Some(Value::String(text)) if text.is_empty() => continue,
            Some(Value::Object(accepted)) => keys(accepted, dice),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_object().map_or_else(|| item.clone(), |map| keys(map, dice)))
                .collect(),
            Some(value) => value.clone(),
        };
        arguments.insert(name.to_owned(), value);
    }
    ParsedCall { name: call.name.clone(), arguments }
}

/// Changes a value: its type, its spelling, or a part of it.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let before = value.clone();
    *value = match (before, dice.below(10)) {
        (before, 0) => json!([before]),
        (before, 1) => match before {
            Value::String(text) => text.parse::<f64>().map_or(json!(0), |number| json!(number)),
            other => json!(other.to_string()),
        },
        (_, 2) => [json!(null), json!(true), json!(""), json!([]), json!({}), json!(0), json!("x")]
            [dice.below(7)]
        .clone(),
        (Value::String(text), which) => json!(match which {
            3 => text.to_uppercase(),
            4 => format!("{text}."),
            5 => text.replace(' ', "-"),
            6 => text.replace('\'', "\""),
            7 => format!("{text}x"),
            8 => text.chars().rev().collect(),
            _ => format!(" {text}_"),
        }),
        (Value::Number(number), which) => match (which, number.as_i64()) {
            (3..=5, Some(whole)) => json!(whole as f64),
            (6..=7, Some(whole)) => json!(whole.wrapping_add(1)),
            (_, Some(whole)) => json!(whole as f64 + 0.5),
            (3..=6, None) => json!(number.as_f64().unwrap_or_default() as i64),
            (_, None) => json!(number.as_f64().unwrap_or_default() * 2.0),
        },
        (Value::Bool(flag), which) if which < 6 => json!(!flag),
        (Value::Bool(flag), _) => json!(i32::from(flag)),
        (Value::Array(mut items), which) => {
            let at = dice.below(items.len());
            match which {
                3 => items.reverse(),
                4 if !items.is_empty() => drop(items.remove(at)),
                5 if !items.is_empty() => items.push(items[at].clone()),
                6 => return *value = items.first().cloned().unwrap_or_default(),
                _ => {
                    if let Some(item) = items.get_mut(at) {
                        mutate(item, dice);
                    }
                }
            }
            Value::Array(items)
        }
        (Value::Object(mut map), which) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            match (which, dice.pick(&keys)) {
                (3..=4, Some(key)) => drop(map.shift_remove(key)),
                (5, _) => drop(map.insert("extra".into(), json!(1))),
                (_, Some(key)) => mutate(&mut map[key], dice),
                (_, None) => {}
            }
            Value::Object(map)
        }
        (Value::Null, _) => json!("None"),
    };
}

/// Makes one thing of an answer wrong, or at least different.
fn spoil(calls: &mut Vec<ParsedCall>, example: &Example, dice: &mut Dice) {
    let at = dice.below(calls.len());
    let Some(call) = calls.get_mut(at) else { return };
    let names: Vec<String> = call.arguments.keys().cloned().collect();
    match (dice.below(20), dice.pick(&names)) {
        (0..=1, Some(name)) => drop(call.arguments.shift_remove(name)),
        (2, _) => drop(call.arguments.insert("extra".into(), json!(1))),
        (3, _) => {
            // A parameter of the schema, with some value.
            let tool = &example.tools[dice.below(example.tools.len())]["function"];
            let known: Vec<&String> =
                tool["parameters"]["properties"].as_object().unwrap().keys().collect();
            let values =
                [json!(1), json!("a"), json!(null), json!([]), json!(1.5), json!(false), json!("")];
            if let (Some(name), Some(value)) = (dice.pick(&known), dice.pick(&values)) {
                call.arguments.insert((*name).clone(), value.clone());
            }
        }
        (4, _) => {
            let tool = &example.tools[dice.below(example.tools.len())]["function"]["name"];
            call.name = tool.as_str().unwrap().to_owned();
        }
        (5, _) => call.name = call.name.replace('.', "_") + ["", "x"][dice.below(2)],
        (6, _) => {
            let copy = call.clone();
            calls.push(copy);
        }
        (7, _) => drop(calls.remove(at)),
        (8, _) => calls.reverse(),
        (9, Some(name)) => {
            let other = dice.pick(&names).and_then(|other| call.arguments.get(other)).cloned();
            call.arguments.insert(name.clone(), other.unwrap_or_default());
        }
        (_, Some(name)) => mutate(&mut call.arguments[name], dice),
        (_, None) => {}
    }
}

/// Answers to each question: the reference, other right ones, and spoiled ones.
fn answers(rows: &[Example]) -> Vec<(usize, Vec<ParsedCall>)> {
    let mut answers = Vec::new();
    for (row, example) in rows.iter().enumerate() {
        let GroundTruth::Possible(possible) = &example.ground_truth else { continue };
        let mut dice = Dice(row as u64);
        let reference = possible.iter().map(PossibleCall::reference);
        let reference =
            reference.map(|call| ParsedCall { name: call.name, arguments: call.arguments });
        answers.push((row, reference.collect()));
        let any =
            |dice: &mut Dice| possible.iter().map(|call| right(call, dice)).collect::<Vec<_>>();
        answers.push((row, any(&mut dice)));
        for _ in 0..MUTATED {
            let mut calls = any(&mut dice);
            for _ in 0..=dice.below(3) {
                spoil(&mut calls, example, &mut dice);
            }
            answers.push((row, calls));
        }
    }
    answers
}

fn calls_json(calls: &[ParsedCall]) -> Value {
    calls.iter().map(|call| json!({"name": call.name, "arguments": call.arguments})).collect()
}

/// What the leaderboard's checker says of each answer.
fn asked(python: &Path, rows: &[Example], answers: &[(usize, Vec<ParsedCall>)]) -> Vec<String> {
    let mut child = Command::new(python)
        .arg(script())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = String::new();
    for (row, calls) in answers {
        let info = &rows[*row].extra_info;
        let line =
            json!({"id": info["id"], "category": info["category"], "calls": calls_json(calls)});
        lines.push_str(&format!("{line}\n"));
    }
    let mut to = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || to.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the checker ended with {}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn verdicts_are_those_of_the_leaderboards_own_checker() {
    let (python, data) = match prepare() {
        Ok(ready) => ready,
        Err(reason) => {
            eprintln!(
                "SKIPPED: verdicts were not compared with the leaderboard's: no bfcl-eval: {reason}"
            );
            return;
        }
    };
    let imported = import_bfcl(&data, &[]);
    assert_eq!(imported.faults, None);
    let rows = imported.rows;
    let answers = answers(&rows);
    let theirs = asked(&python, &rows, &answers);
    assert_eq!(theirs.len(), answers.len());
    let (mut kinds, mut different) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for ((row, calls), said) in answers.iter().zip(&theirs) {
        let example = &rows[*row];
        let GroundTruth::Possible(possible) = &example.ground_truth else { unreachable!() };
        let ours = check(&example.tools, possible, calls);
        let text: String = calls
            .iter()
            .map(|call| calls_json(std::slice::from_ref(call))[0].to_string())
            .map(|call| format!("<tool_call>\n{call}\n</tool_call>\n"))
            .collect();
        let reward = Bfcl.score(example, &text).unwrap().reward;
        let kind = match said.split_once(':') {
            Some(("exception", _)) => "exception",
            _ => said.as_str(),
        };
        *kinds.entry(kind).or_default() += 1;
        let same = match (kind, &ours) {
            ("valid", Ok(())) => true,
            // A crash of the checker is a wrong answer here, of whatever kind.
            ("exception", Err(_)) => true,
            (kind, Err(fault)) => fault.kind == kind,
            (_, Ok(())) => false,
        };
        if !same || (reward == 1.0) != (kind == "valid") {
            let id = &example.extra_info["id"];
            different.push(format!(
                "{id} {} theirs {said}, ours {ours:?}, reward {reward}",
                calls_json(calls)
            ));
        }
    }
    eprintln!("{} answers to {} questions: {kinds:#?}", answers.len(), rows.len());
    assert!(
        different.is_empty(),
        "{} differ:\n{}",
        different.len(),
        different[..different.len().min(20)].join("\n")
    );
    // The comparison must have something to compare.
    assert!(answers.len() > 15_000 && kinds["valid"] > 4_000 && kinds.len() > 12, "{kinds:?}");
}
