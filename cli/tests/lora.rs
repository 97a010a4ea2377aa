//! Runs that train an adapter: the same weights again whatever happens, and what they commit is what PEFT loads.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, in_one_process, short_keys};
use common::{digest, killed_and_resumed, octet, output, own, root, short, train};
use octet_policy::config::ModelConfig;
use octet_policy::files::TensorFile;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A small adapter that learns fast enough for a few steps to show.
const KEYS: [&str; 3] =
    ["policy.lora.rank=4", "policy.lora.targets=all-linear", "learner.learning_rate=1e-3"];

fn run(more: &[&str]) -> (tempfile::TempDir, PathBuf, Value) {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let keys = KEYS.iter().flat_map(|key| ["--set", *key]).chain(more.iter().copied());
    let summary = train(&short(&out, &keys.collect::<Vec<_>>()), &out);
    assert_eq!(summary["logprob_gap_max"].as_f64(), Some(0.0), "sampler and learner differ");
    (home, out, summary)
}

fn succeeds(arguments: &[&str]) -> String {
    let output = output(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "octet {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(!output.status.success(), "octet {arguments:?} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn workers_and_kills_change_no_bit() {
    let begin = Instant::now();
    let expected = digest(&run(&[]).2);
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(digest(&run(&["--workers", "3"]).2), expected, "three workers");
    assert_ne!(digest(&run(&["--set", "run.seed=2"]).2), expected, "another seed");
    // A penalty towards the weights below the adapter, and a sampling policy that is a version older.
    let more = ["--set", "learner.kl_beta=0.1", "--set", "learner.lag=1"];
    let other = digest(&run(&more).2);
    assert_ne!(other, expected);
    assert_eq!(digest(&run(&[&more[..], &["--workers", "3"]].concat()).2), other);

    let keys: Vec<&str> = KEYS.iter().flat_map(|key| ["--set", *key]).collect();
    for share in [0.4, 0.7] {
        if let Some(found) = killed_and_resumed(&keys, seconds, share) {
            assert_eq!(found, expected, "killed at {share} and resumed");
        }
    }
}

#[test]
fn processes_make_the_weights_of_one() {
    let home = tempfile::tempdir().unwrap();
    let keys = short_keys(&KEYS);
    let expected = in_one_process(home.path(), &keys);
    let cluster = Cluster::start(home.path(), &keys, 2);
    // What is published is the adapter: two matrices of rank 4 for each projection, in f32, and little beside.
    let config = ModelConfig::from_dir(&root().join("assets/policy")).unwrap();
    let (hidden, inner, width) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let queries = config.num_attention_heads * width;
    let key_heads = config.num_key_value_heads * width;
    let sides = 2 * (hidden + queries) + 2 * (hidden + key_heads) + 3 * (hidden + inner);
    let parameters = 4 * sides * config.num_hidden_layers;
    cluster.until("a version of the adapter", |status| {
        let versions = status["weights"].as_array().unwrap();
        for version in versions {
            let bytes = version["bytes"].as_u64().unwrap() as usize;
            assert!((4 * parameters..5 * parameters).contains(&bytes), "{parameters}: {version}");
        }
        versions.iter().any(|version| version["version"] == 1)
    });
    assert_eq!(cluster.finish(), expected);
}

#[test]
fn an_adapter_is_a_policy_to_every_command() {
    let (home, run, summary) = run(&[]);
    let last = run.join("checkpoints/step-000004");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let shown = succeeds(&["model", "show", &path(&last)]);
    assert!(shown.contains("adapter      of rank 4, "), "{shown}");

    // Merged, alone, and alone with another name for its base.
    let out = |name: &str| home.path().join(name);
    succeeds(&["export", &path(&run), "--out", &path(&out("merged"))]);
    succeeds(&["export", &path(&run), "--out", &path(&out("alone")), "--adapter"]);
    let hub = ["--adapter", "--base", "owner/base"];
    succeeds(&[&["export", &path(&last), "--out", &path(&out("hub"))][..], &hub].concat());
    let card = |name: &str| std::fs::read_to_string(out(name).join("README.md")).unwrap();
    let digest = digest(&summary);
    for name in ["merged", "alone"] {
        assert!(card(name).contains(&digest), "{}", card(name));
        assert!(card(name).contains("| trained | an adapter of rank 4, alpha 32, of q_proj, "));
    }
    assert!(
        card("alone").contains("library_name: \"peft\"")
            && card("alone").contains("A LoRA adapter of rank 4")
    );
    assert!(card("merged").contains("library_name: \"transformers\""));
    let config = std::fs::read(out("hub").join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["base_model_name_or_path"], "owner/base");
    // Its base is looked for on the hub, where there is none such.
    let mut command = octet(&["eval", &path(&out("hub")), "--rows", "1"]);
    let asked = command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", home.path()).output().unwrap();
    let error = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success() && error.contains("owner/base"), "{error}");

    // The same tensors wherever the adapter lies; another model's weights in none.
    let tensors =
        |folder: &Path| TensorFile::open(&folder.join("adapter_model.safetensors")).unwrap();
    let (committed, alone) = (tensors(&last), tensors(&out("alone")));
    let config = ModelConfig::from_dir(&root().join("assets/policy")).unwrap();
    assert_eq!(committed.names().count(), 2 * 7 * config.num_hidden_layers);
    for name in committed.names() {
        assert_eq!(committed.raw(name).unwrap(), alone.raw(name).unwrap(), "{name}");
        assert!(name.starts_with("base_model.model.model.layers."), "{name}");
    }
    let ids = [5u32, 90, 17, 300, 41, 8];
    let base = path(&root().join("assets/policy"));
    let named = ["--adapter", "--base", &base];
    succeeds(&[&["export", &path(&run), "--out", &path(&out("named"))][..], &named].concat());
    let [adapted, again, merged, base] =
        [&last, &out("named"), &out("merged"), &root().join("assets/policy")]
            .map(|directory| own::logprobs(directory, &ids));
    assert_eq!(adapted, again);
    let (near, moved) = (own::gap(&adapted, &merged), own::gap(&adapted, &base));
    eprintln!("merged: a log-probability differs by at most {near:.1e}; trained: {moved:.1e}");
    assert!(near < 1e-4 && moved > 100.0 * near, "{near} {moved}");

    // A table of three policies.
    let rows = ["--rows", "3", "--max-tokens", "8"];
    let models = ["eval", "assets/policy", &path(&last), &path(&out("merged"))];
    succeeds(&[&models[..], &rows].concat());
    // It is no base to begin from, and nothing that is no adapter is exported as one.
    let begin = format!("model.path={}", path(&last));
    let error = refused(&["train", "--out", &path(&out("second")), "--set", &begin]);
    assert!(error.contains("is an adapter, expected a whole model"), "{error}");
    let error = refused(&["export", "assets/policy", "--out", "x", "--adapter"]);
    assert!(error.contains("is a whole model"), "{error}");
    // An adapter that was changed since is not given away as the run's.
    let weights = last.join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = refused(&["export", &path(&run), "--out", "x"]);
    assert!(error.contains("holds other weights than were committed"), "{error}");
}

#[test]
fn keys_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    for (key, words) in [
        ("policy.lora.rank=0", "policy.lora.rank"),
        ("policy.lora.rank=100000", "expected at most"),
        ("policy.lora.alpha=0", "more than 0"),
        ("policy.lora.targets=[\"q_proj\", \"lm_head\"]", "q_proj, k_proj, v_proj"),
        ("policy.lora.targets=[]", "all-linear"),
        ("policy.lora.rnk=8", "did you mean `policy.lora.rank`"),
        ("policy.lroa.rank=8", "policy"),
    ] {
        let error = refused(&["train", "--out", out.to_str().unwrap(), "--set", key]);
        assert!(error.contains(words), "{key}: {error}");
    }
    assert!(!out.exists(), "a refused run must not leave a directory");
}

/// Loads a base with its adapter in peft, and a merged model in transformers; prints the log-probabilities of the last
/// position of both, and of the base.
const LOADS: &str = r#"
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base_at, adapter_at, merged_at, ids = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
ids = torch.tensor([ids])
def logprobs(model):
    with torch.no_grad():
        return model.eval()(ids).logits[0, -1].float().log_softmax(-1).tolist()
load = lambda at: AutoModelForCausalLM.from_pretrained(at, dtype=torch.float32)
plain, merged = logprobs(load(base_at)), logprobs(load(merged_at))
model = PeftModel.from_pretrained(load(base_at), adapter_at)
adapted = logprobs(model)
own_merge = logprobs(model.merge_and_unload())
print(json.dumps({"plain": plain, "merged": merged, "adapted": adapted, "own_merge": own_merge}))
"#;

#[test]
fn peft_loads_it_with_the_same_probabilities() {
    let python = std::env::var("OCTET_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let can = Command::new(&python).args(["-c", "import torch, transformers, peft"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: `{python}` cannot import torch, transformers and peft; set OCTET_TEST_PYTHON to one that can"
        );
        return;
    }
    let (home, run, _) = run(&["--set", "learner.learning_rate=5e-3"]);
    let (adapter, merged) = (run.join("checkpoints/step-000004"), home.path().join("merged"));
    succeeds(&["export", run.to_str().unwrap(), "--out", merged.to_str().unwrap()]);
    let ids = [5u32, 90, 17, 300, 41, 8, 1000, 77, 2, 64];
    let base = root().join("assets/policy");
    let run = Command::new(&python)
        .args(["-c", LOADS])
        .args([&base, &adapter, &merged])
        .arg(format!("{ids:?}"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let theirs: Value = serde_json::from_slice(&run.stdout).unwrap();
    let theirs = |name: &str| -> Vec<f64> {
        theirs[name].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let (ours, ours_merged) = (own::logprobs(&adapter, &ids), own::logprobs(&merged, &ids));
    let moved = own::gap(&ours, &own::logprobs(&base, &ids));
    eprintln!("the adapter moves a log-probability by up to {moved:.2e}");
    assert!(moved > 1e-2, "{moved}");
    for (what, found) in [
        ("peft", theirs("adapted")),
        ("peft, merged by peft", theirs("own_merge")),
        ("transformers, merged here", theirs("merged")),
        ("merged here", ours_merged),
    ] {
        let gap = own::gap(&ours, &found);
        eprintln!("{what}: the largest gap of a log-probability is {gap:.2e}");
        assert!(gap < 1e-4, "{what}: {gap}");
    }
    // And what was not to change did not.
    assert!(own::gap(&own::logprobs(&base, &ids), &theirs("plain")) < 1e-4);
}
