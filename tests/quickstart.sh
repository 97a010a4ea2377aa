#!/usr/bin/env bash
# The main job as a newcomer runs it, on the release binary: train without arguments, then read what the run
# says of itself in summary.json.
#
#   tests/quickstart.sh [SEED…]    the recipe's own seed without arguments; OCTET names another binary
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=${OCTET:-$target/release/octet}
if [ ! -x "$binary" ]; then
    echo "tests/quickstart.sh: expected the binary $binary, found none; run cargo build --release" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

if [ $# -gt 0 ]; then seeds=("$@"); else seeds=(1); fi
for seed in "${seeds[@]}"; do
    out=$work/seed-$seed
    "$binary" train --out "$out" --set "run.seed=$seed"
    python3 - "$out" "$seed" <<'PY'
import json, os, sys

run, seed = sys.argv[1:]
with open(os.path.join(run, "summary.json")) as file:
    summary = json.load(file)
before, after = summary["before"], summary["after"]
checks = [
    ("accuracy before is 55 to 70 %", 0.55 <= before["accuracy"] <= 0.70, before["accuracy"]),
    ("accuracy after is at least 86 %", after["accuracy"] >= 0.86, after["accuracy"]),
    (
        "mean reward rises by a quarter",
        after["reward"] >= 1.25 * before["reward"],
        [before["reward"], after["reward"]],
    ),
    ("the log-probability gap is exactly 0", summary["logprob_gap_max"] == 0.0, summary["logprob_gap_max"]),
]
for behavior, score in before["by_behavior"].items():
    now = after["by_behavior"][behavior]["accuracy"]
    low = score["accuracy_interval"][0]
    checks.append((f"{behavior} is not worse than its interval", now >= low, [score["accuracy"], now]))
for name in ["metrics.jsonl", "curves.svg", "curves.png", "config.toml", "spool.sqlite"]:
    size = os.path.getsize(os.path.join(run, name)) if os.path.exists(os.path.join(run, name)) else 0
    checks.append((f"{name} is written", size > 0, size))
for part in ["sampling", "learning"]:
    speed = summary[part]
    share = speed["gflops"] / speed["machine_gflops"]
    print(f"{part}: {speed['tokens_per_second']:.0f} tokens/s, {100 * share:.0f} % of the machine's f32 product")
print(f"seed {seed}: {summary['steps']} steps in {summary['wall_seconds']:.0f} s, weights {summary['weights_digest']}")
failed = 0
for what, holds, found in checks:
    print(f"{'ok' if holds else 'FAILED'} {what}: {found}")
    failed += not holds
sys.exit(1 if failed else 0)
PY
done
