//! `octet bench` measures what it says, in a form that programs can read, and refuses what does not fit.

#![allow(clippy::unwrap_used)]

mod common;

use common::output;
use serde_json::Value;
use std::collections::BTreeSet;

/// As little work as makes every number.
const LITTLE: [&str; 14] = [
    "--groups",
    "2",
    "--completions",
    "4",
    "--prompt",
    "16",
    "--new",
    "6",
    "--rows",
    "4",
    "--repeats",
    "1",
    "--threads",
    "2",
];

fn bench(arguments: &[&str]) -> (bool, String, String) {
    let output = output(&[&["bench"], arguments].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn lines(arguments: &[&str]) -> Vec<Value> {
    let (good, printed, errors) = bench(&[&LITTLE[..], arguments, &["--json"]].concat());
    assert!(good, "octet bench {arguments:?} failed:\n{errors}");
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn value(lines: &[Value], name: &str) -> f64 {
    let found = lines.iter().find(|line| line["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}"))["value"].as_f64().unwrap()
}

/// All names with their units, without what only some systems tell.
const NAMES: &str = "\
machine.one_thread.flops GFLOP/s
machine.all_threads.flops GFLOP/s
machine.triad.bandwidth GB/s
sampling.prefill.seconds s
sampling.prefill.tokens tokens/s
sampling.prefill.flops GFLOP/s
sampling.prefill.share %
sampling.decode.seconds s
sampling.decode.tokens tokens/s
sampling.decode.flops GFLOP/s
sampling.decode.share %
sampling.decode.bandwidth GB/s
sampling.decode.bandwidth_share %
sampling.whole.seconds s
sampling.whole.tokens tokens/s
sampling.whole.flops GFLOP/s
sampling.whole.share %
sampling.memory.planned MiB
learning.forward.seconds s
learning.backward.seconds s
learning.optimiser.seconds s
learning.update.seconds s
learning.update.tokens tokens/s
learning.update.flops GFLOP/s
learning.update.share %
learning.products.flops GFLOP/s
learning.products.share %
learning.memory.planned MiB
publish.manifest.seconds s
publish.manifest.bandwidth GB/s
publish.transfer.seconds s
publish.transfer.bandwidth GB/s
publish.model.seconds s
publish.model.bandwidth GB/s
publish.whole.seconds s
publish.whole.bandwidth GB/s
publish.memory.planned MiB
step.wait.seconds s
step.learn.seconds s
step.commit.seconds s
step.whole.seconds s
step.whole.tokens tokens/s
step.whole.flops GFLOP/s
step.whole.share %
step.memory.planned MiB
sweep.cost.seconds s
sweep.cost.predicted s
sweep.cost.difference %
sweep.worst.difference %";

#[test]
fn every_part_gives_its_numbers_and_they_fit_together() {
    let lines = lines(&[]);
    let named = |line: &Value| {
        format!("{} {}", line["name"].as_str().unwrap(), line["unit"].as_str().unwrap())
    };
    let found: BTreeSet<String> = lines.iter().map(named).collect();
    let mut wanted: BTreeSet<String> = NAMES.lines().map(str::to_owned).collect();
    if cfg!(target_os = "linux") {
        wanted.extend(
            ["sampling", "learning", "publish", "step"]
                .map(|part| format!("{part}.memory.peak MiB")),
        );
    }
    assert_eq!(found, wanted);
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "value", "unit", "conditions"], "{line}");
        assert!(line["value"].as_f64().unwrap().is_finite(), "{line}");
        assert!(line["value"].as_f64().unwrap() > 0.0 || line["unit"] == "%", "{line}");
        assert_eq!(line["conditions"]["threads"], 2, "{line}");
        assert_eq!(line["conditions"]["model"], "tiny", "{line}");
    }
    let value = |name: &str| value(&lines, name);
    // 2 groups of 4 completions of 6 tokens.
    let new = value("sampling.whole.tokens") * value("sampling.whole.seconds");
    assert!((new - 48.0).abs() < 1e-6, "{new}");
    // Groups take turns, 4 rows at a time. A step gives a token to each row; the first one of a group gives two
    // and is not counted.
    let decoded = value("sampling.decode.tokens") * value("sampling.decode.seconds");
    assert!((decoded - 32.0).abs() < 1e-6, "{decoded}");
    let learned = value("learning.update.tokens") * value("learning.update.seconds");
    assert!((learned - 80.0).abs() < 1e-6, "{learned}");
    let parts =
        ["forward", "backward", "optimiser"].map(|p| value(&format!("learning.{p}.seconds")));
    assert!(parts.iter().sum::<f64>() <= value("learning.update.seconds"), "{parts:?}");
    let share = 100.0 * value("learning.update.flops") / value("machine.all_threads.flops");
    assert!((share - value("learning.update.share")).abs() < 1e-6, "{share}");
    let prompts = lines.iter().filter(|line| line["name"] == "sweep.cost.seconds");
    let prompts: Vec<u64> =
        prompts.map(|line| line["conditions"]["prompt"].as_u64().unwrap()).collect();
    assert_eq!(prompts, [64, 128, 256, 512, 1024, 2048]);
}

#[test]
fn a_model_of_ones_own_is_measured_and_shown_as_a_table() {
    let arguments =
        [&LITTLE[..], &["sampling", "step", "--model", "assets/policy", "--lag", "1"]].concat();
    let (good, table, errors) = bench(&arguments);
    assert!(good, "{errors}");
    let rows = [
        "machine  f32",
        "sampling  2 groups × 4 completions",
        "  decode ",
        "step  2 groups",
        "  whole ",
    ];
    for row in rows {
        assert!(table.contains(row), "no {row:?} in\n{table}");
    }
    assert!(!table.contains("learning  "), "only what was asked for:\n{table}");
    for part in ["machine", "sampling", "step"] {
        assert!(errors.contains(&format!("measuring {part}")), "{errors}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_tried() {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free =
        memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().split_once(' '));
    match free.and_then(|(kibibytes, _)| kibibytes.parse::<u64>().ok()) {
        Some(kibibytes) if kibibytes < 50 << 20 => {}
        _ => {
            eprintln!("SKIPPED: this machine may have room for 7.6 billion parameters");
            return;
        }
    }
    for part in ["sampling", "learning", "publish", "step", "sweep"] {
        let (good, printed, errors) = bench(&[part, "--shape", "qwen2.5-7b"]);
        assert!(!good && printed.is_empty(), "{part} measured something: {printed}");
        assert!(errors.contains("qwen2.5-7b") && errors.contains("GiB"), "{errors}");
        assert!(!errors.contains("measuring"), "{errors}");
    }
}

#[test]
fn bad_flags_are_refused_by_name() {
    for (arguments, wanted) in [
        (&["sampling", "--new", "2"][..], "--new"),
        (&["learning", "--completions", "1"], "--completions"),
        (&["step", "--prompt", "4096"], "at most 4096"),
        (&["sampling", "--shape", "huge"], "smollm2-135m"),
        (&["everything"], "sampling"),
        (&["step", "--lag", "17"], "--lag"),
        (&["--model", "no-such-directory"], "no-such-directory"),
        (&["--shape", "tiny", "--model", "assets/policy"], "cannot be used with"),
    ] {
        let (good, _, errors) = bench(arguments);
        assert!(!good && errors.contains(wanted), "{arguments:?}: {errors}");
    }
}
