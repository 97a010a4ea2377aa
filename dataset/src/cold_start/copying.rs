//! Drills that need nothing but reading the prompt: repeating, looking up, converting.
//!
//! Invariant: every word of the answer is in the prompt, or is a conversion of one that is. The
//! alphabet and the spans grow with the level, since copying starts to be learned on small ones.

use serde_json::{Map, Value, json};

use super::words::{invented, known};
use super::{Drill, DrillKind, asked, inventing};
use crate::answer::{python_json, reference_call};
use crate::draw::Draw;
use crate::lexicon::{capital, digits, list};
use crate::truth::Call;
use crate::value::{Derivation, Kind};

pub(super) fn drill(level: f64, made_up: f64, draw: &mut Draw) -> Drill {
    match draw.weighted(&[35, 25, 14, 16, 10]) {
        0 => repeat(level, draw),
        1 => look_up(level, draw),
        2 => read_schema(level, made_up, draw),
        3 => write_call(level, draw),
        _ => convert(draw),
    }
}

fn scaled(level: f64, low: usize, high: usize, draw: &mut Draw) -> usize {
    let top = low as f64 + level * (high - low) as f64;
    draw.between(low, top.round() as usize)
}

/// A word over an alphabet that grows with the level.
fn word(level: f64, draw: &mut Draw) -> String {
    let part = |name: &str, least: usize, draw: &mut Draw| {
        let all = list(name);
        let size = least + ((all.len() - least) as f64 * level).round() as usize;
        all[draw.below(size)].clone()
    };
    let mut word = String::new();
    for _ in 0..scaled(level, 1, 3, draw).max(2) {
        word.push_str(&part("onsets", 8, draw));
        word.push_str(&part("vowels", 3, draw));
    }
    if draw.fraction(level * 0.6) {
        word.push_str(&part("codas", 4, draw));
    }
    word
}

fn identifier(level: f64, draw: &mut Draw) -> String {
    let words: Vec<String> = (0..scaled(level, 2, 3, draw)).map(|_| word(level, draw)).collect();
    words.join("_")
}

/// Something to copy.
fn item(level: f64, draw: &mut Draw) -> String {
    // Below this level only words: their small alphabet is what makes copying start.
    if level < 0.2 {
        return word(level, draw);
    }
    match draw.below(12) {
        0..2 => word(level, draw),
        2 => invented(draw),
        3 => capital(&word(level, draw)),
        4 => {
            let count = scaled(level, 2, 6, draw);
            digits(count, draw)
        }
        5 | 6 => identifier(level, draw),
        7 => known("nouns", draw),
        _ => {
            let kinds = [
                Kind::Email,
                Kind::Path,
                Kind::Id,
                Kind::Code,
                Kind::Person,
                Kind::Price,
                Kind::Address,
                Kind::Phone,
                Kind::Title,
                Kind::Date,
                Kind::Time,
            ];
            draw.pick(&kinds).draw(draw).text
        }
    }
}

fn items(count: usize, level: f64, draw: &mut Draw) -> Vec<String> {
    let mut items: Vec<String> = Vec::with_capacity(count);
    while items.len() < count {
        let next = item(level, draw);
        if !items.contains(&next) {
            items.push(next);
        }
    }
    items
}

fn repeat(level: f64, draw: &mut Draw) -> Drill {
    let count = scaled(level, 3, 9, draw);
    let joint = *draw.pick(&[" ", ", "]);
    let span = items(count, level, draw).join(joint);
    let request = match draw.below(4) {
        0 => format!("Repeat: {span}"),
        1 => format!("Say this again: {span}"),
        2 => format!("Copy {span}"),
        _ => format!("{span}\nRepeat that."),
    };
    asked(DrillKind::Repeat, request, Vec::new(), span)
}

fn look_up(level: f64, draw: &mut Draw) -> Drill {
    let count = scaled(level, 2, 7, draw);
    let keys: Vec<String> = {
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < count {
            let key = if draw.chance(50) { word(level, draw) } else { identifier(level, draw) };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    };
    let values = items(count, level, draw);
    let wanted = draw.between(1, count.min(4));
    let wanted = draw.some(count, wanted);
    let names: Vec<&str> = wanted.iter().map(|&i| keys[i].as_str()).collect();
    let answer: Vec<&str> = wanted.iter().map(|&i| values[i].as_str()).collect();
    let (list, answer) = if draw.chance(35) {
        let map: Map<String, Value> =
            keys.iter().cloned().zip(values.iter().map(|v| json!(v))).collect();
        let picked: Map<String, Value> =
            wanted.iter().map(|&i| (keys[i].clone(), json!(values[i]))).collect();
        (python_json(&Value::Object(map)), python_json(&Value::Object(picked)))
    } else {
        let pairs: Vec<String> =
            keys.iter().zip(&values).map(|(k, v)| format!("{k}: {v}")).collect();
        (pairs.join(*draw.pick(&["\n", "; "])), answer.join("; "))
    };
    let request = match draw.below(3) {
        0 => format!("{list}\nGive {}.", names.join(", ")),
        1 => format!("{list}\nWhat is {}?", names.join(", ")),
        _ => format!("Find {} in this: {list}", names.join(", ")),
    };
    asked(DrillKind::LookUp, request, Vec::new(), answer)
}

fn read_schema(level: f64, made_up: f64, draw: &mut Draw) -> Drill {
    let mut tools =
        inventing::pool(level, inventing::Shares { made_up, natural: 0.0, namesakes: 0.0 }, draw);
    draw.shuffle(&mut tools);
    tools.truncate(scaled(level, 1, 4, draw));
    let tool = draw.pick(&tools).clone();
    let names = |required: bool| {
        let names: Vec<&str> = tool
            .params
            .iter()
            .filter(|param| !required || !param.optional)
            .map(|param| param.name.as_str())
            .collect();
        names.join(", ")
    };
    let (request, answer) = match draw.below(4) {
        0 => (format!("List the parameters of {}.", tool.name), names(false)),
        1 => (format!("Which values does {} require?", tool.name), names(true)),
        2 => (format!("Which tool can {}?", tool.ask[0]), tool.name.clone()),
        _ => {
            let all: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            ("List the tools.".to_owned(), all.join(", "))
        }
    };
    let schemas = tools.iter().map(|tool| tool.schema()).collect();
    asked(DrillKind::ReadSchema, request, schemas, answer)
}

fn write_call(level: f64, draw: &mut Draw) -> Drill {
    let name = format!("{}_{}", word(level, draw), word(level, draw));
    let mut arguments = Map::new();
    for _ in 0..scaled(level, 1, 4, draw) {
        let key = if draw.chance(50) { word(level, draw) } else { identifier(level, draw) };
        let value = if draw.chance(20) {
            json!(draw.between(1, 999))
        } else if level < 0.2 || draw.chance(50) {
            json!(word(level, draw))
        } else {
            // No dates or times: here they would be copied, and in a real call converted.
            let kinds = [Kind::Email, Kind::Path, Kind::Id, Kind::Code, Kind::Person, Kind::Title];
            draw.pick(&kinds).draw(draw).value
        };
        arguments.insert(key, value);
    }
    let pairs: Vec<String> = arguments
        .iter()
        .map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{key} {text}")
        })
        .collect();
    let request = match draw.below(3) {
        0 => format!("Call {name} with {}.", pairs.join(", ")),
        1 => format!("{name}: {}", pairs.join(", ")),
        _ => format!("Use {name} for me, {}", pairs.join(" and ")),
    };
    let answer = reference_call(&Call { name, arguments }, &[]);
    asked(DrillKind::WriteCall, request, Vec::new(), answer)
}

fn convert(draw: &mut Draw) -> Drill {
    let kinds = [
        (Kind::Date, "as YYYY-MM-DD"),
        (Kind::Date, "as YYYY-MM-DD"),
        (Kind::Time, "as HH:MM"),
        (Kind::Minutes, "in minutes"),
        (Kind::Days, "in days"),
        (Kind::Grams, "in grams"),
        (Kind::Metres, "in metres"),
        (Kind::Count, "as a number"),
    ];
    let (kind, how) = *draw.pick(&kinds);
    let mut said = Vec::new();
    for _ in 0..draw.between(1, 3) {
        let next = loop {
            let next = kind.draw(draw);
            if next.derivation == Derivation::Converted {
                break next;
            }
        };
        said.push(next);
    }
    let texts: Vec<&str> = said.iter().map(|said| said.text.as_str()).collect();
    let answers: Vec<String> = said
        .iter()
        .map(|said| said.value.as_str().map_or_else(|| said.value.to_string(), str::to_owned))
        .collect();
    let request = match draw.below(2) {
        0 => format!("Write {how}: {}", texts.join("; ")),
        _ => format!("{}\nWrite that {how}.", texts.join("; ")),
    };
    asked(DrillKind::Convert, request, Vec::new(), answers.join("; "))
}
