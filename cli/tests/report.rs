//! `octet report`: what the page of a real run says, and that a real browser shows it and runs nothing that a policy
//! wrote.

#![allow(clippy::unwrap_used)]

mod common;

use common::browser::{Browser, png_size};
use common::{output, root, short, train};
use octet_learner::group::{Finish, GroupParts, ScoredCompletion, ScoredGroup};
use octet_learner::spool::Spool;
use octet_policy::tokenizer::{SpecialTokens, Tokenizer};
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Marks the page if it runs, in every way that text becomes code.
const HOSTILE: &str = "</pre></script><script>document.documentElement.dataset.owned = 1</script>\
                       <img src=x onerror=\"document.documentElement.dataset.owned = 2\">\
                       <svg onload='document.documentElement.dataset.owned = 3'></svg> \
                       {{ 7 * 7 }}{% raw %} & \u{202e}turned";

fn report(run: &Path, more: &[&str]) -> (String, String) {
    let out = run.with_extension("html");
    let arguments = ["report", run.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = output(&[&arguments, more].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    (std::fs::read_to_string(out).unwrap(), errors)
}

/// Rows of a bundled data set, of which one asks for something hostile.
fn data(home: &Path, name: &str, rows: usize) -> PathBuf {
    let text = std::fs::read_to_string(root().join("assets/data").join(name)).unwrap();
    let mut rows: Vec<Value> =
        text.lines().take(rows).map(|line| serde_json::from_str(line).unwrap()).collect();
    rows[1]["prompt"][1]["content"] = json!(HOSTILE);
    let path = home.join(name);
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

/// A short run with two rewards, evaluated before and after.
fn run(home: &Path) -> PathBuf {
    let out = home.join("short run");
    let train_rows = format!("data.train={}", data(home, "train.jsonl", 8).display());
    let held_out = format!("data.held_out={}", data(home, "held-out.jsonl", 10).display());
    let keys = [
        train_rows.as_str(),
        held_out.as_str(),
        "evaluation.enabled=true",
        "reward.schedule=[{step = 3, function = \"aws-compat\"}]",
    ];
    let keys: Vec<&str> = keys.iter().flat_map(|key| ["--set", *key]).collect();
    train(&short(&out, &keys), &out);
    out
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes what no run of a minute would: a row that was right and is wrong, with a hostile answer.
fn worsen(run: &Path) {
    for (name, reward, text) in
        [("evaluation-before.jsonl", 1.0, "as wanted"), ("evaluation-after.jsonl", 0.0, HOSTILE)]
    {
        let mut rows = lines(&run.join(name));
        assert_eq!(rows.len(), 10, "a line for each row");
        let answer = &mut rows[7]["completions"][0];
        for key in ["text", "verdict", "detail"] {
            answer[key] = json!(text);
        }
        answer["reward"] = json!(reward);
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(run.join(name), lines.join("\n") + "\n").unwrap();
    }
}

/// Stores one more group, of a policy that wrote something hostile.
fn add_group(run: &Path, index: u64) {
    let tokenizer = Tokenizer::from_dir(&root().join("assets/policy")).unwrap();
    let tokens = tokenizer.encode(HOSTILE).unwrap();
    assert_eq!(tokenizer.decode(&tokens, SpecialTokens::Keep).unwrap(), HOSTILE);
    let mut spool = Spool::open(&run.join("spool.sqlite")).unwrap();
    let first = spool.read(GroupIndex(0)..GroupIndex(1)).unwrap().remove(0);
    let completion = |sample: u32| ScoredCompletion {
        sample,
        tokens: tokens.clone(),
        logprobs: vec![-1.0; tokens.len()],
        finish: Finish::Length,
        reward: f64::from(sample % 2),
        verdict: HOSTILE.chars().take(100).collect(),
        detail: HOSTILE.into(),
    };
    let group = ScoredGroup::new(GroupParts {
        group: GroupIndex(index),
        lease_epoch: LeaseEpoch(1),
        policy_version: PolicyVersion(4),
        reward_revision: RevisionNumber(2),
        worker: HOSTILE.chars().take(60).collect(),
        example_json: first.example_json.clone(),
        prompt_tokens: first.prompt_tokens.clone(),
        completions: (0..8).map(completion).collect(),
    });
    spool.append(&[group.unwrap()]).unwrap().remove(0).unwrap();
}

#[test]
fn a_run_is_a_page_that_says_what_it_knows_and_runs_nothing_that_a_policy_wrote() {
    let home = tempfile::tempdir().unwrap();
    let run = run(home.path());
    worsen(&run);
    add_group(&run, 16);
    let (page, notes) = report(&run, &[]);
    assert_eq!(notes, "", "nothing is missing");

    // What it says.
    let summary: Value =
        serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    let digest = summary["weights_digest"].as_str().unwrap();
    let accuracy = 100.0 * summary["before"]["accuracy"].as_f64().unwrap();
    for wanted in [
        digest,
        &format!("{accuracy:.1}\u{a0}% →"),
        "short run",
        "4 of 4 steps",
        "aws-compat",
        "always refuses",
        "right before, wrong now",
        "Mean reward",
        "Seconds a step",
        "Every step; metrics.jsonl has more digits",
        "17 of the 17 groups",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is not on the page");
    }
    let worst = page.find("class=\"item\"").unwrap();
    assert!(
        page[worst..].starts_with("class=\"item\" data-item data-kind=\"lost\""),
        "worst first"
    );
    // Four steps are four dots, all of their line's class.
    let reward = page.split("id=\"chart-reward\"").nth(1).unwrap().split("</svg>").next().unwrap();
    let first = reward.split("<path class=\"line ").nth(1).unwrap();
    assert_eq!(first.matches("class=\"dot s0\"").count(), 4, "{first}");
    // The reward that took over at step 3 is a mark on the axis.
    assert!(page.contains("<text class=\"mark\""), "no mark");

    // It needs nobody, and nothing of it is code but its own.
    for word in ["http://", "https://", "src=", "@import", "url("] {
        let own = page.replace("src=x onerror", "");
        assert!(!own.contains(word), "{word} is on the page");
    }
    assert!(!page.contains("<img"), "a completion became a tag");
    assert_eq!(page.matches("<script").count(), 1);
    assert!(
        page.contains("&lt;script&gt;") && page.contains("⟨U+202E⟩") && !page.contains('\u{202e}')
    );
    assert!(page.contains("{{ 7 * 7 }}{% raw %}"), "a completion became a template");

    said_where_it_is_not_there(&run);
    nothing_is_without_a_bound(&run);
    in_a_browser(home.path(), &run, &page);
}

fn said_where_it_is_not_there(run: &Path) {
    let (page, _) = report(run, &["--groups", "0"]);
    assert!(!page.contains("id=\"groups\""));
    let hidden = |name: &str| std::fs::rename(run.join(name), run.join(format!("{name}.away")));
    for name in ["summary.json", "evaluation-after.jsonl", "trivial.json", "coordinator.sqlite"] {
        hidden(name).unwrap();
    }
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let half: Vec<&str> = metrics.lines().take(2).collect();
    std::fs::write(run.join("metrics.jsonl"), half.join("\n") + "\n").unwrap();
    let (page, notes) = report(run, &[]);
    for wanted in ["2 of 4 steps are committed", "trivial.json", "before the run"] {
        assert!(page.contains(wanted), "{wanted:?} is not on the page");
    }
    assert!(notes.contains("The run is not over"), "{notes}");
    assert!(!page.contains("id=\"held-out\""));

    std::fs::write(run.join("metrics.jsonl"), "").unwrap();
    for name in ["before.json", "evaluation-before.jsonl", "spool.sqlite"] {
        hidden(name).unwrap();
    }
    let (page, notes) = report(run, &[]);
    assert!(page.contains("No step is committed yet") && page.contains("id=\"recipe\""));
    assert!(notes.contains("spool.sqlite is not there yet"), "{notes}");
    for entry in std::fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        if let Some(name) = path.to_str().unwrap().strip_suffix(".away") {
            std::fs::rename(&path, name).unwrap();
        }
    }
    std::fs::write(run.join("metrics.jsonl"), metrics).unwrap();

    let empty = tempfile::tempdir().unwrap();
    let output = output(&["report", empty.path().to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("is not a run directory"), "{error}");
}

fn nothing_is_without_a_bound(run: &Path) {
    let path = run.join("evaluation-after.jsonl");
    let kept = std::fs::read_to_string(&path).unwrap();
    let mut rows = lines(&path);
    rows[7]["completions"][0]["text"] = json!("<".repeat(3_000_000));
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, text.join("\n") + "\n").unwrap();
    let (page, _) = report(run, &[]);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains(" … 2,998,000 characters cut"));
    std::fs::write(&path, kept).unwrap();
}

fn in_a_browser(home: &Path, run: &Path, page: &str) {
    let Some(browser) = Browser::find("the report in a browser") else { return };
    report(run, &[]);
    let file = run.with_extension("html");
    const OWNED: &str = "data-owned=";

    // This is what it looks like where hostile text runs.
    let bare = home.join("bare.html");
    std::fs::write(&bare, format!("<!doctype html><html><body><pre>{HOSTILE}</pre>")).unwrap();
    assert!(browser.dom(&bare, "").contains(OWNED), "the browser runs no script at all");

    let dom = browser.dom(&file, "");
    assert!(!dom.contains(OWNED), "hostile text ran");
    assert!(dom.contains("data-ready=\"2\""), "the page's own script did not run");
    assert!(dom.contains("data-shown=\"17\"") && dom.contains("data-shown=\"10\""));
    let filtered = browser.dom(&file, "#groups?step-from=2&step-to=3");
    assert!(filtered.contains("data-shown=\"8\""), "four groups a step, steps 2 and 3");
    let found = browser.dom(&file, "#held-out?kind=lost");
    assert!(found.contains("data-shown=\"1\""), "one row is right before, and wrong now");
    let none = browser.dom(&file, "#groups?containing=no+such+text");
    assert!(none.contains("data-shown=\"0\""));

    // Were the escaping to fail, the page's policy would still let nothing run.
    let leaky = home.join("leaky.html");
    std::fs::write(&leaky, page.replace("<main id=\"main\">", &format!("<main>{HOSTILE}")))
        .unwrap();
    let dom = browser.dom(&leaky, "");
    assert!(dom.contains("<img src=\"x\"") && !dom.contains(OWNED), "the policy let it run");

    let kept = std::env::var_os("OCTET_TEST_SCREENSHOTS").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| home.to_path_buf());
    std::fs::create_dir_all(&folder).unwrap();
    for (name, size, dark) in [
        ("report-desktop-light.png", [1280, 3200], false),
        ("report-desktop-dark.png", [1280, 3200], true),
        ("report-phone-light.png", [390, 4200], false),
    ] {
        let picture = folder.join(name);
        browser.picture(&file, &picture, size, dark);
        assert_eq!(png_size(&picture), size);
        // An empty page of that size is a few kilobytes.
        let bytes = std::fs::metadata(&picture).unwrap().len();
        assert!(bytes > 60_000, "{name} has {bytes} bytes: is it empty?");
    }
}
