#!/usr/bin/env bash
# A real model: SmolLM2-135M-Instruct from its GGUF file writes what llama.cpp writes from the same file, is
# imported with a template that shows tools, takes one step of GRPO, and goes all the way that docs/smollm2.md does.
#
#   tests/smollm2.sh         OCTET names another binary; OCTET_LLAMA_PYTHON a Python that has xllamacpp
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
binary=${OCTET:-$target/release/octet}
if [ ! -x "$binary" ]; then
    echo "tests/smollm2.sh: expected the binary $binary, found none; run cargo build --release" >&2
    exit 2
fi
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

code=0
model=$(bash tests/fetch-smollm2.sh) || code=$?
if [ "$code" -eq 3 ]; then
    echo "SKIPPED: SmolLM2 could not be downloaded; no real model was loaded"
    exit 0
fi
[ "$code" -eq 0 ] || exit "$code"

"$binary" model show "$model"

# ---- the same text as llama.cpp --------------------------------------------------------------------

python=${OCTET_LLAMA_PYTHON:-$target/llama-python/bin/python}
if ! "$python" -c "import xllamacpp" 2>/dev/null; then
    python3 -m venv "$target/llama-python" &&
        "$target/llama-python/bin/pip" install -q --disable-pip-version-check xllamacpp || true
    python=$target/llama-python/bin/python
fi
if "$python" -c "import xllamacpp" 2>/dev/null; then
    "$python" tests/llama_greedy.py "$model" "$work/cases.json" 2>"$work/llama.log" ||
        { cat "$work/llama.log" >&2; exit 1; }
    # The whole workspace, so that nothing is built again that its tests have built.
    OCTET_SMOLLM2=$model OCTET_LLAMA_CASES=$work/cases.json \
        cargo test --workspace --release --test smollm2 -- --ignored --nocapture
else
    echo "SKIPPED: xllamacpp could not be installed; greedy text was not compared with llama.cpp's"
fi

# ---- one step ----------------------------------------------------------------------------------------

# Its own template hides the tools, and that is said instead of trained with.
if "$binary" train --model "$model" --out "$work/hidden" --set run.steps=1 2>"$work/refusal"; then
    echo "tests/smollm2.sh: a template without tools was trained with" >&2
    exit 1
fi
grep -q -- "--chat-template compact" "$work/refusal"

"$binary" model import "$model" "$work/smollm2" --chat-template compact
"$binary" train --model "$work/smollm2" --out "$work/run" --set run.steps=1 --set learner.batch=2 \
    --set sampling.completions=4 --set sampling.max_tokens=12 --set workers.rows=8 --set evaluation.enabled=false
policy=$(python3 - "$work/run" <<'PY'
import json, os, sys

run = sys.argv[1]
with open(os.path.join(run, "summary.json")) as file:
    summary = json.load(file)
assert summary["steps"] == 1, summary["steps"]
assert summary["logprob_gap_max"] == 0.0, summary["logprob_gap_max"]
print(summary["policy"])
PY
)
"$binary" model show "$policy"
"$binary" eval --model "$policy" --rows 1 --max-tokens 8

# ---- the page ----------------------------------------------------------------------------------------

# Its commands, with one step where it takes many and three rows where it takes all.
leaderboard=$(grep -o 'bfcl-eval==[0-9.]*' docs/smollm2.md) ||
    { echo "tests/smollm2.sh: expected bfcl-eval==VERSION in docs/smollm2.md, found none" >&2; exit 1; }
if python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work/bfcl" "$leaderboard"; then
    sed -e 's/^<!-- ci smollm2 -->$/<!-- ci -->/' -e 's/ --rows 40//' -e 's/--max-tokens 96/--max-tokens 24 --rows 3/' \
        -e '/^octet sft /s/$/ --until 1/' -e '/^octet train /s/$/ --set run.steps=1/' \
        docs/smollm2.md >"$work/smollm2.md"
    CARGO_TARGET_DIR=$target OCTET=$binary bash tests/docs.sh "$work/smollm2.md"
else
    echo "SKIPPED: $leaderboard could not be downloaded; the commands of docs/smollm2.md were not run"
fi
echo "tests/smollm2.sh: SmolLM2 was loaded, trained, saved, scored, exported and served"
