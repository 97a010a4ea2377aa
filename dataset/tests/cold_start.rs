//! The cold-start corpus: repeatable, apart from both sets, and made of answers that are in reach.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};

use octet_dataset::{
    Behaviour, Catalogue, ColdStart, ColdStartSpec, Drill, DrillKind, Spec, Split, check, drill,
    generate,
};
use serde_json::Value;

const DRILLS: u64 = 3000;

fn corpus(spec: &ColdStartSpec) -> Vec<Drill> {
    let corpus = ColdStart::new(spec.clone());
    (0..DRILLS).map(|index| corpus.drill(index)).collect()
}

fn names(drill: &Drill) -> Vec<&str> {
    drill.tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect()
}

fn request(drill: &Drill) -> &str {
    drill.messages.last().unwrap().content.as_deref().unwrap()
}

#[test]
fn drills_are_repeatable_in_any_order() {
    let spec = ColdStartSpec { seed: 4, ..ColdStartSpec::default() };
    let forwards = corpus(&spec);
    for index in [2999, 17, 0, 512] {
        assert_eq!(drill(&spec, index), forwards[index as usize]);
    }
    assert_eq!(
        digest(&forwards),
        "0e7ed734b496fbd932048cacfd32bdf84cd3d0163368757c77c5db211689de39"
    );
    // What recipes with natural cues and namesakes learn, as the bundled policy's do.
    let named = ColdStartSpec { natural: 0.5, namesakes: 0.3, ..spec };
    assert_eq!(
        digest(&corpus(&named)),
        "b222f813533c500a4a57c361247f64d2595a6d0c63648901b0e1289d53bba932"
    );
}

fn digest(drills: &[Drill]) -> String {
    let mut bytes = String::new();
    for drill in drills {
        bytes.push_str(&format!("{:?}\n{}\n{}\n", drill.kind, request(drill), drill.answer));
        drill.tools.iter().for_each(|tool| bytes.push_str(&tool.to_string()));
    }
    blake3::hash(bytes.as_bytes()).to_hex().to_string()
}

#[test]
fn nothing_held_out_is_used() {
    let held_out = Catalogue::held_out();
    let tools: HashSet<&str> = held_out.tools.iter().map(|tool| tool.name.as_str()).collect();
    let params: HashSet<&str> =
        held_out.tools.iter().flat_map(|tool| &tool.params).map(|p| p.name.as_str()).collect();
    let trained: HashSet<&str> =
        Catalogue::training().tools.iter().map(|tool| tool.name.as_str()).collect();
    let usual = ColdStartSpec::default();
    let named = ColdStartSpec { natural: 0.5, namesakes: 1.0, made_up: 0.5, ..usual.clone() };
    for drill in [usual, named].iter().flat_map(corpus) {
        let from_catalogue = matches!(drill.kind, DrillKind::Catalogue(_));
        for tool in &drill.tools {
            let function = &tool["function"];
            let name = function["name"].as_str().unwrap();
            assert!(!tools.contains(name), "{name}");
            assert_eq!(trained.contains(name), from_catalogue, "{name}");
            for param in function["parameters"]["properties"].as_object().unwrap().keys() {
                assert!(!params.contains(param.as_str()), "{param}");
            }
        }
    }
}

#[test]
fn no_row_of_either_set_is_repeated() {
    let mut rows = generate(&Spec { seed: 1, rows: 1500, split: Split::Train });
    rows.extend(generate(&Spec { seed: 1, rows: 300, split: Split::HeldOut }));
    let requests: HashSet<&str> = rows.iter().map(|row| row.request()).collect();
    // Catalogue drills alone: short requests such as "track order" do meet by chance.
    let spec = ColdStartSpec {
        copy_fraction: 0.0,
        catalogue_fraction: 1.0,
        behaviours: [0.2, 0.5, 0.3],
        ..ColdStartSpec::default()
    };
    let meets = |drill: &Drill| requests.contains(request(drill));
    assert!(corpus(&spec).iter().any(meets), "the exclusion has something to exclude");
    let corpus = ColdStart::new(spec).excluding(&rows);
    assert!((0..DRILLS).all(|index| !meets(&corpus.drill(index))));
}

#[test]
fn knobs_turn_what_they_say() {
    let spec = ColdStartSpec {
        copy_fraction: 0.5,
        catalogue_fraction: 0.4,
        behaviours: [8.0, 2.0, 0.0],
        ..ColdStartSpec::default()
    };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for drill in corpus(&spec) {
        let (group, behaviour) = match drill.kind {
            DrillKind::Catalogue(behaviour) => ("catalogue", Some(behaviour)),
            DrillKind::Invented(behaviour) => ("invented", Some(behaviour)),
            _ => ("copy", None),
        };
        *counts.entry(group).or_default() += 1;
        if let Some(behaviour) = behaviour {
            *counts.entry(behaviour.name()).or_default() += 1;
        }
    }
    // Within 5 standard deviations of a binomial over 3,000 draws (27 at the most).
    let near = |name: &str, expected: u64| {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(count.abs_diff(expected) < 137, "{name}: {count}, expected about {expected}");
    };
    near("copy", 1500);
    near("catalogue", 600);
    near("invented", 900);
    near("execute", 1200);
    near("clarify", 300);
    assert_eq!(counts.get("refuse"), None);
}

#[test]
fn difficulty_lengthens() {
    let mean = |difficulty| {
        let spec = ColdStartSpec { copy_fraction: 1.0, difficulty, ..ColdStartSpec::default() };
        let drills = corpus(&spec);
        let repeats: Vec<&Drill> =
            drills.iter().filter(|drill| drill.kind == DrillKind::Repeat).collect();
        let letters: HashSet<char> = repeats.iter().flat_map(|d| d.answer.chars()).collect();
        let length = repeats.iter().map(|d| d.answer.len()).sum::<usize>() / repeats.len();
        (length, letters.len())
    };
    let (easy, hard) = (mean(0.0), mean(1.0));
    assert!(easy.0 * 2 < hard.0, "{easy:?} {hard:?}");
    assert!(easy.1 < 20 && hard.1 > 60, "{easy:?} {hard:?}");
}

#[test]
fn answers_are_in_reach() {
    for drill in corpus(&ColdStartSpec { copy_fraction: 0.6, ..ColdStartSpec::default() }) {
        let request = request(&drill);
        match drill.kind {
            DrillKind::Repeat => assert!(request.contains(&drill.answer), "{request}"),
            DrillKind::LookUp => {
                let json: Option<BTreeMap<String, String>> =
                    serde_json::from_str(&drill.answer).ok();
                let values: Vec<String> = match json {
                    Some(map) => map.into_values().collect(),
                    None => drill.answer.split("; ").map(str::to_owned).collect(),
                };
                assert!(values.iter().all(|value| request.contains(value)), "{request}");
            }
            DrillKind::ReadSchema => {
                let schemas = Value::Array(drill.tools.clone()).to_string();
                for name in drill.answer.split(", ") {
                    assert!(schemas.contains(&format!("\"{name}\"")), "{name}");
                }
            }
            DrillKind::WriteCall => {
                let body = drill.answer.lines().nth(1).unwrap();
                let call: Value = serde_json::from_str(body).unwrap();
                assert!(request.contains(call["name"].as_str().unwrap()));
                for (key, value) in call["arguments"].as_object().unwrap() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    assert!(request.contains(&format!("{key} {value}")), "{request}");
                }
            }
            DrillKind::Convert => assert!(!drill.answer.is_empty()),
            DrillKind::Invented(behaviour) | DrillKind::Catalogue(behaviour) => {
                assert_eq!(
                    drill.answer.starts_with("<tool_call>"),
                    behaviour == Behaviour::Execute
                );
                assert!((1..=6).contains(&names(&drill).len()));
            }
        }
    }
}

#[test]
fn called_tools_are_offered_and_fit() {
    let spec = ColdStartSpec {
        copy_fraction: 0.0,
        behaviours: [1.0, 0.0, 0.0],
        ..ColdStartSpec::default()
    };
    for drill in corpus(&spec) {
        let body = drill.answer.lines().nth(1).unwrap();
        let messages: Vec<_> = drill.messages.iter().map(|m| m.json().clone()).collect();
        let row = serde_json::json!({
            "prompt": messages,
            "tools": drill.tools,
            "reward_model": {"ground_truth": body},
        });
        let row = octet_dataset::Example::from_value(row).unwrap();
        assert_eq!(check(&row), []);
    }
}

#[test]
fn natural_cues_change_invented_requests_and_nothing_else() {
    let plain = ColdStartSpec { seed: 9, ..ColdStartSpec::default() };
    let natural = ColdStartSpec { natural: 1.0, ..plain.clone() };
    let (mut invented, mut changed) = (0, 0);
    for (before, after) in corpus(&plain).into_iter().zip(corpus(&natural)) {
        match before.kind {
            DrillKind::Invented(_) => {
                invented += 1;
                changed += u32::from(before != after);
            }
            _ => assert_eq!(before, after),
        }
    }
    assert!(changed > invented * 9 / 10, "{changed} of {invented}");
}

#[test]
fn a_namesake_is_a_required_parameter_that_ends_its_tools_name() {
    let spec = ColdStartSpec { namesakes: 1.0, seed: 9, ..ColdStartSpec::default() };
    let (mut tools, mut found) = (0, 0);
    for drill in corpus(&spec) {
        if !matches!(drill.kind, DrillKind::Invented(_)) {
            continue;
        }
        for tool in &drill.tools {
            let (name, parameters) = (&tool["function"]["name"], &tool["function"]["parameters"]);
            let thing = name.as_str().unwrap().rsplit('_').next().unwrap();
            let required = parameters["required"].as_array().unwrap();
            tools += 1;
            found += u32::from(required.iter().any(|param| param == thing));
        }
    }
    // But for things that the held-out tools have as parameters.
    assert!(found > tools * 9 / 10, "{found} of {tools}");
}
