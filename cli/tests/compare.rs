//! Recipes over seeds: run, stopped, gone on with, and refused before anything begins.

#![allow(clippy::unwrap_used)]

mod common;

use common::{digest, output, root, train};
use serde_json::Value;
use std::path::Path;

const RECIPES: [&str; 3] =
    ["recipes/quickstart.toml", "recipes/quickstart-dpo.toml", "recipes/quickstart-sft.toml"];
const SHORT: [&str; 10] = [
    "--set",
    "run.steps=2",
    "--set",
    "learner.batch=8",
    "--set",
    "sampling.max_tokens=32",
    "--set",
    "sampling.temperature=1.5",
    "--rows",
    "8",
];

fn compare(recipes: &[&str], out: &Path, more: &[&str]) -> (bool, String, String) {
    let out = ["--out", out.to_str().unwrap()];
    let output = output(&[&["compare"], recipes, &SHORT, &out, more].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn three_ways_to_learn_side_by_side_and_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("all");
    // As if it had been stopped: one seed of one recipe is there.
    let (fine, _, errors) = compare(&RECIPES[1..2], &out, &["--seeds", "5"]);
    assert!(fine, "{errors}");
    let before = json(&out.join("quickstart-dpo-seed-5/summary.json"));
    // Of another, there is a run that was begun and has no summary.
    let begun = out.join("quickstart-sft-seed-5");
    let (fine, _, errors) = compare(&RECIPES[2..], &out, &["--seeds", "5"]);
    assert!(fine, "{errors}");
    let begun_weights = digest(&json(&begun.join("summary.json")));
    std::fs::remove_file(begun.join("summary.json")).unwrap();
    std::fs::remove_file(begun.join("held-out.json")).unwrap();

    let (fine, text, errors) = compare(&RECIPES, &out, &["--seeds", "5,6"]);
    assert!(fine, "{errors}");
    for line in [
        "run 1 of 6: quickstart, seed 5, new",
        "run 3 of 6: quickstart-dpo, seed 5, complete already",
        "run 5 of 6: quickstart-sft, seed 5, stopped before, goes on",
    ] {
        assert!(errors.contains(line), "expected the line {line}, found\n{errors}");
    }
    assert_eq!(json(&out.join("quickstart-dpo-seed-5/summary.json")), before);
    assert_eq!(digest(&json(&begun.join("summary.json"))), begun_weights);
    assert!(text.starts_with(&std::fs::read_to_string(out.join("compare.md")).unwrap()), "{text}");
    for wanted in ["quickstart-dpo against quickstart ", "quickstart-sft against quickstart-dpo"] {
        assert!(text.contains(wanted), "{text}");
    }
    assert!(std::fs::read_to_string(out.join("compare.svg")).unwrap().contains("quickstart-sft"));
    assert!(out.join("compare.png").is_file());

    let found = json(&out.join("compare.json"));
    let methods = found["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|m| m["objective"].as_str().unwrap()).collect();
    assert_eq!(names, ["grpo", "dpo", "sft"]);
    let weights: std::collections::BTreeSet<&str> = methods
        .iter()
        .flat_map(|method| method["weights"].as_array().unwrap())
        .map(|digest| digest.as_str().unwrap())
        .collect();
    assert_eq!(weights.len(), 6, "each run has weights of its own");
    let costs = |at: usize, key: &str| methods[at]["costs"][0][key].as_u64().unwrap();
    // All sample eight completions; what they learn from is two of them, and one.
    assert!(costs(0, "learned_tokens") > costs(1, "learned_tokens"));
    assert!(costs(0, "learned_tokens") > costs(2, "learned_tokens"));
    assert_eq!(found["comparisons"].as_array().unwrap().len(), 3);
    // The accuracy in the table is that of the run itself.
    let all = |at: usize| methods[at]["groups"].as_array().unwrap().last().unwrap().clone();
    for (at, name) in ["quickstart", "quickstart-dpo", "quickstart-sft"].iter().enumerate() {
        let run = json(&out.join(format!("{name}-seed-6/summary.json")));
        assert_eq!(all(at)["accuracy"]["each"][1], run["after"]["accuracy"]);
        assert_eq!(all(at)["before"], run["before"]["accuracy"]);
        // What `octet train` leaves, and `octet report` reads.
        for file in ["evaluation-before.jsonl", "evaluation-after.jsonl", "trivial.json"] {
            let length =
                std::fs::metadata(out.join(format!("{name}-seed-6/{file}"))).unwrap().len();
            assert!(length > 0, "{name}: {file}");
        }
    }

    // The policies of a run are its own: `octet train` makes the same.
    let alone = home.path().join("alone");
    let mut arguments: Vec<String> =
        ["train", RECIPES[1], "--out", alone.to_str().unwrap()].map(str::to_owned).into();
    arguments.extend(SHORT[..8].iter().map(|word| (*word).to_owned()));
    let more = ["--set", "run.seed=5", "--set", "evaluation.enabled=false", "--workers", "2"];
    arguments.extend(more.map(str::to_owned));
    assert_eq!(digest(&train(&arguments, &alone)), digest(&before));
    let metrics = std::fs::read_to_string(alone.join("metrics.jsonl")).unwrap();
    let steps: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    // Before the first update nothing has become likelier than for the reference: on the CPU, exactly.
    let first = &steps[0]["preference"];
    assert!(first["pairs"].as_u64().unwrap() > 0, "{first}");
    assert_eq!((first["margin"].as_f64(), first["accuracy"].as_f64()), (Some(0.0), Some(0.0)));
    assert!(steps[1]["preference"]["margin"].as_f64().unwrap() != 0.0, "{}", steps[1]);
    assert_eq!(steps[0]["logprob_gap_max"], 0.0);
    let shown = output(&["rollouts", alone.to_str().unwrap(), "--step", "0"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for word in ["  chosen  ", "  rejected  ", "  left out  "] {
        assert!(shown.contains(word), "{shown}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_begins() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("none");
    let refused = |recipes: &[&str], more: &[&str]| {
        let (fine, _, errors) = compare(recipes, &out, more);
        assert!(!fine && !out.exists(), "{errors}");
        errors.lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
    };
    let error = refused(&[RECIPES[0], RECIPES[0]], &[]);
    assert!(error.contains("run.name") && error.contains("\"quickstart\" in both"), "{error}");
    let error = refused(&RECIPES, &["--seeds", "1,1"]);
    assert!(error.contains("--seeds") && error.contains("[1, 1]"), "{error}");
    let error = refused(&RECIPES, &["--set", "run.seed=4"]);
    assert!(error.contains("--seeds"), "{error}");
    // The first recipe is well; the fault is in the second.
    let error = refused(&RECIPES[..2], &["--set", "sampling.top_k=5"]);
    assert!(error.contains("quickstart-dpo.toml") && error.contains("sampling.top_k"), "{error}");

    let other = home.path().join("other.toml");
    let recipe = std::fs::read_to_string(root().join(RECIPES[0])).unwrap();
    let recipe = recipe.replace("\"quickstart\"", "\"other\"");
    let recipe = recipe.replace("\"tool-call\"", "\"aws-compat\"");
    std::fs::write(&other, recipe).unwrap();
    let error = refused(&[RECIPES[0], other.to_str().unwrap()], &[]);
    assert!(error.contains("reward.function") && error.contains("aws-compat"), "{error}");

    // A directory that holds something else is found before the first run, too.
    let run = out.join("quickstart-sft-seed-1");
    let short = common::short(&run, &["--set", "run.steps=1"]);
    train(&short, &run);
    let (fine, _, errors) = compare(&RECIPES, &out, &["--seeds", "1"]);
    assert!(!fine && errors.contains("another configuration"), "{errors}");
    assert!(!out.join("quickstart-seed-1").exists());
}

#[test]
fn a_plan_is_shown_and_nothing_is_done() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("none");
    let (fine, text, errors) = compare(&RECIPES, &out, &["--plan"]);
    assert!(fine && !out.exists(), "{errors}");
    assert!(text.contains("3 recipes × 3 seeds"), "{text}");
    assert!(text.contains("quickstart-dpo, seed 3") && text.contains("dpo"), "{text}");
    let help = output(&["compare", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("octet compare recipes/quickstart.toml"), "{help}");
}
