#!/usr/bin/env bash
# The main job as a newcomer does it: clone, run, read what it says. Takes about as long as the README
# says. Checks what the run promises: steps done, log-probability gap exactly 0, accuracy on unseen tools
# not below where it began.
#
#   tests/quickstart.sh            the committed state of this repository
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet "$root" "$work/octet"
# The clone shares the build, so that only the repository's own crates are compiled again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
cd "$work/octet"
cargo run --release --quiet -- train --out "$work/run" ${OCTET_QUICKSTART_ARGUMENTS:-}
python3 - "$work/run/summary.json" <<'PYTHON'
import json
import sys

summary = json.load(open(sys.argv[1]))
before, after = summary["before"], summary["after"]
checks = {
    "the log-probability gap is exactly 0": summary["logprob_gap_max"] == 0.0,
    "accuracy on unseen tools rises": after["accuracy"] > before["accuracy"],
    "mean reward rises": after["reward"] > before["reward"],
    "weights have a digest": len(summary["weights_digest"]) == 64,
}
for name, holds in checks.items():
    print(("passed  " if holds else "FAILED  ") + name)
print(f"accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}, "
      f"reward {before['reward']:.3f} -> {after['reward']:.3f}, {summary['wall_seconds']:.0f} s")
failed = sum(not holds for holds in checks.values())
print(f"{len(checks) - failed} passed, {failed} failed")
sys.exit(failed > 0)
PYTHON
