//! The generated sets: shares, disjoint splits, answers that the prompt settles, pinned bytes.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use octet_dataset::{
    Behaviour, Catalogue, Example, GroundTruth, Spec, Split, Statistics, Style, ToolPlan, check,
    generate, load, reference_answer, write_jsonl,
};
use serde_json::Value;

fn train() -> Vec<Example> {
    generate(&Spec { seed: 1, rows: 1500, split: Split::Train })
}

fn held_out() -> Vec<Example> {
    generate(&Spec { seed: 1, rows: 300, split: Split::HeldOut })
}

fn invented() -> Vec<Example> {
    generate(&Spec { seed: 1, rows: 300, split: Split::Invented })
}

fn digest(rows: &[Example]) -> String {
    let mut bytes = Vec::new();
    write_jsonl(rows, &mut bytes).unwrap();
    blake3::hash(&bytes).to_hex().to_string()
}

fn tools(catalogue: &Catalogue) -> BTreeSet<&str> {
    catalogue.tools.iter().map(|tool| tool.name.as_str()).collect()
}

fn parameters(catalogue: &Catalogue) -> BTreeSet<&str> {
    let params = catalogue.tools.iter().flat_map(|tool: &ToolPlan| &tool.params);
    params.map(|param| param.name.as_str()).collect()
}

fn domains(catalogue: &Catalogue) -> BTreeSet<&str> {
    catalogue.tools.iter().map(|tool| tool.domain.as_str()).collect()
}

#[test]
fn the_bytes_never_change() {
    assert_eq!(
        digest(&train()),
        "7a5ebb6338ff9836bdfac6ffdfafdbe2c259236011061e3f29c5ab194c375464"
    );
    assert_eq!(
        digest(&held_out()),
        "210e1d40a89f4d7511fde2d2fcffa9d548479ecc7b5d4df025f4aec1f366e07d"
    );
    assert_eq!(
        digest(&invented()),
        "1b883d25453289feab959ad4a6d3cbe4a4bea797318b8c39094dff45b08a5092"
    );
}

#[test]
fn the_seed_matters() {
    let other = generate(&Spec { seed: 2, rows: 300, split: Split::HeldOut });
    assert_ne!(digest(&other), digest(&held_out()));
}

#[test]
fn shares_are_exact() {
    let seven = generate(&Spec { seed: 3, rows: 7, split: Split::Train });
    for rows in [train(), held_out(), invented(), seven] {
        let statistics = Statistics::of(&rows);
        let n = rows.len();
        let share = |behaviour| statistics.behaviours.get(&behaviour).copied().unwrap_or(0) as f64;
        assert!((share(Behaviour::Execute) - n as f64 * 0.60).abs() < 1.0);
        assert!((share(Behaviour::Clarify) - n as f64 * 0.25).abs() < 1.0);
        assert!((share(Behaviour::Refuse) - n as f64 * 0.15).abs() < 1.0);
        let styles = &statistics.styles;
        assert_eq!(styles.len(), Style::ALL.len());
        assert!(
            styles.values().all(|&count| count == n / 3 || count == n.div_ceil(3)),
            "{styles:?}"
        );
    }
    assert!(generate(&Spec { seed: 0, rows: 0, split: Split::Train }).is_empty());
}

#[test]
fn held_out_shares_nothing_with_training() {
    let (training, held_out) = (Catalogue::training(), Catalogue::held_out());
    assert_eq!(tools(training).intersection(&tools(held_out)).count(), 0);
    let shared: Vec<_> =
        parameters(training).intersection(&parameters(held_out)).copied().collect();
    assert_eq!(shared, Vec::<&str>::new());
    assert_eq!(domains(training).intersection(&domains(held_out)).count(), 0);
    let requests: HashSet<String> = train().iter().map(|row| row.request().to_owned()).collect();
    assert!(self::held_out().iter().all(|row| !requests.contains(row.request())));
}

#[test]
fn invented_tools_are_anew_for_each_row_and_in_no_catalogue() {
    let held_out = parameters(Catalogue::held_out());
    let mut seen = HashSet::new();
    let mut again = 0;
    let rows = invented();
    for row in &rows {
        for tool in &row.tools {
            let function = &tool["function"];
            let name = function["name"].as_str().unwrap();
            for catalogue in [Catalogue::training(), Catalogue::held_out()] {
                assert!(!tools(catalogue).contains(name), "{name}");
            }
            for param in function["parameters"]["properties"].as_object().unwrap().keys() {
                assert!(!held_out.contains(param.as_str()), "{param}");
            }
            again += usize::from(!seen.insert(name.to_owned()));
        }
    }
    assert!(seen.len() > 500 && again < seen.len() / 20, "{} tools, {again} again", seen.len());
}

#[test]
fn the_catalogue_is_as_large_as_promised() {
    for (catalogue, least_tools, least_domains) in
        [(Catalogue::training(), 60, 12), (Catalogue::held_out(), 20, 5)]
    {
        assert!(catalogue.tools.len() >= least_tools);
        assert_eq!(tools(catalogue).len(), catalogue.tools.len(), "a name occurs twice");
        assert!(domains(catalogue).len() >= least_domains);
        let mut kinds = BTreeSet::new();
        for tool in &catalogue.tools {
            assert!((1..=5).contains(&tool.params.len()), "{}", tool.name);
            assert!(tool.about.split(' ').count() <= 8, "{}", tool.name);
            assert!(tool.params.iter().any(|param| !param.optional), "{}", tool.name);
            let names: HashSet<_> = tool.params.iter().map(|param| &param.name).collect();
            assert_eq!(names.len(), tool.params.len(), "{}", tool.name);
            let choices: Vec<_> = tool.params.iter().flat_map(|param| &param.choices).collect();
            let different: HashSet<_> = choices.iter().collect();
            assert_eq!(choices.len(), different.len(), "{}: choices overlap", tool.name);
            for param in &tool.params {
                kinds.insert(param.kind.json_type());
                assert_eq!(param.kind == octet_dataset::Kind::Choice, !param.choices.is_empty());
                assert!(param.synonyms.keys().all(|word| param.choices.contains(word)));
                assert!(param.said.as_ref().is_none_or(|said| said.contains("{}")));
            }
        }
        assert_eq!(Vec::from_iter(kinds), ["array", "boolean", "integer", "number", "string"]);
    }
}

#[test]
fn rows_pass_the_check_of_files() {
    for rows in [train(), held_out(), invented()] {
        for row in &rows {
            assert_eq!(check(row), [], "{}", row.to_json());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        write_jsonl(&rows, &mut file.as_file()).unwrap();
        assert_eq!(load(file.path()).unwrap(), rows);
        let requests: HashSet<&str> = rows.iter().map(Example::request).collect();
        assert_eq!(requests.len(), rows.len(), "a request occurs twice");
    }
}

#[test]
fn rows_are_compact_and_varied() {
    let rows = train();
    let statistics = Statistics::of(&rows);
    assert_eq!(statistics.tools, Catalogue::training().tools.len());
    assert_eq!(statistics.domains.len(), 14);
    let offered: usize = statistics.tools_offered.iter().map(|(tools, rows)| tools * rows).sum();
    assert!((2.3..2.7).contains(&(offered as f64 / 1500.0)));
    assert_eq!(Vec::from_iter(statistics.tools_offered.keys().copied()), [1, 2, 3, 4, 5, 6]);
    assert!(statistics.prompt_chars[1] / 1500 < 900, "{:?}", statistics.prompt_chars);
    let mut values = BTreeMap::new();
    let mut refusals = BTreeMap::new();
    for row in &rows {
        if let Some(refusal) = row.extra_info.get("refusal") {
            *refusals.entry(refusal.as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        for (how, count) in
            row.extra_info.get("values").and_then(Value::as_object).into_iter().flatten()
        {
            *values.entry(how.clone()).or_insert(0) += count.as_u64().unwrap();
        }
    }
    let all: u64 = values.values().sum();
    assert!((65..80).contains(&(100 * values["copied"] / all)), "{values:?}");
    assert!((10..20).contains(&(100 * values["converted"] / all)), "{values:?}");
    assert!((10..20).contains(&(100 * values["chosen"] / all)), "{values:?}");
    assert_eq!(refusals.len(), 4, "{refusals:?}");
    assert!(refusals.values().all(|&count| count >= 15), "{refusals:?}");
}

/// The texts of a value, at any depth.
fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        _ => {}
    }
}

#[test]
fn copied_values_stand_in_the_request() {
    for row in train().iter().chain(&held_out()).chain(&invented()) {
        let GroundTruth::Calls(calls) = &row.ground_truth else { continue };
        let mut converted = 0;
        for value in calls[0].arguments.values() {
            let mut found = Vec::new();
            texts(value, &mut found);
            converted += found.iter().filter(|text| !row.request().contains(**text)).count();
        }
        // What is not there word for word is a converted date or time, or a synonym.
        let values = &row.extra_info["values"];
        let allowed = ["converted", "chosen"].map(|how| values.get(how).and_then(Value::as_u64));
        let allowed: u64 = allowed.into_iter().flatten().sum();
        assert!(converted as u64 <= allowed, "{}", row.to_json());
    }
}

#[test]
fn a_refused_wish_has_no_tool_nearby() {
    let domain_of: BTreeMap<&str, &str> = [Catalogue::training(), Catalogue::held_out()]
        .iter()
        .flat_map(|catalogue| &catalogue.tools)
        .map(|tool| (tool.name.as_str(), tool.domain.as_str()))
        .collect();
    let mut seen = 0;
    for row in train().iter().chain(&held_out()) {
        if row.extra_info.get("refusal").and_then(Value::as_str) == Some("no_such_tool") {
            seen += 1;
            let asked = row.extra_info["domain"].as_str().unwrap();
            for tool in &row.tools {
                assert_ne!(domain_of[tool["function"]["name"].as_str().unwrap()], asked);
            }
        }
    }
    assert!(seen > 50);
}

/// Whether the request names this parameter, other than in the words that ask for the tool.
fn gives(row: &Example, parameter: &str) -> bool {
    let words = parameter.replace('_', " ");
    let asks = [Catalogue::training(), Catalogue::held_out()];
    let mut asks = asks.iter().flat_map(|catalogue| &catalogue.tools).flat_map(|tool| &tool.ask);
    let request = row.request().to_lowercase();
    let named = [" ", ":", "="].iter().any(|end| request.contains(&format!(" {words}{end}")));
    named && !asks.any(|ask| ask.contains(&words))
}

#[test]
fn reference_answers_are_right() {
    for row in train().iter().chain(&held_out()) {
        let answer = reference_answer(row, 9);
        assert_eq!(answer, reference_answer(row, 9));
        match &row.ground_truth {
            GroundTruth::Calls(calls) => {
                let body = answer.strip_prefix("<tool_call>\n").unwrap();
                let body = body.strip_suffix("\n</tool_call>").unwrap();
                let value: Value = serde_json::from_str(body).unwrap();
                assert_eq!(value["name"], calls[0].name);
                assert_eq!(value["arguments"], Value::Object(calls[0].arguments.clone()));
                assert!(body.starts_with("{\"name\": \""), "{body}");
            }
            GroundTruth::Clarify { missing } => {
                assert!(answer.ends_with('?') && answer.split(' ').count() <= 12, "{answer}");
                for name in missing {
                    assert!(answer.contains(&name.replace('_', " ")), "{answer}");
                    assert!(!gives(row, name), "{name} is given: {}", row.request());
                }
            }
            GroundTruth::Refuse => {
                let words = ["can't", "cannot", "won't", "none of my tools", "unable"];
                assert!(words.iter().any(|word| answer.contains(word)), "{answer}");
                assert!(answer.split(' ').count() <= 12 && !answer.ends_with('?'), "{answer}");
            }
            other @ (GroundTruth::Text(_) | GroundTruth::Possible(_)) => {
                panic!("expected no such rows, found {other:?}")
            }
        }
    }
}

#[test]
fn answers_follow_the_schema_and_python() {
    let row = Example::from_json(
        r#"{"prompt":[{"role":"user","content":"x"}],"tools":[{"name":"f","parameters":{"properties":{"a":{},"b":{}}}}],
        "reward_model":{"ground_truth":[{"name":"f","arguments":{"c":"é\"","b":[1,2.5],"a":null}},{"name":"g"}]}}"#,
    )
    .unwrap();
    assert_eq!(
        reference_answer(&row, 0),
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": null, \"b\": [1, 2.5], \"c\": \"é\\\"\"}}\n</tool_call>\n\
         <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"
    );
}
