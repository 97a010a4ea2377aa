#!/usr/bin/env bash
# Twenty runs of the four roles as processes, each role killed with `kill -9` at a random moment and started
# again: every run has to end with the weights of one that nobody disturbed. Prints the seed of the moments.
#
#   OCTET_CHAOS_SEED=7 OCTET_CHAOS_ROUNDS=3 tests/chaos.sh     the moments of another time, fewer rounds
set -euo pipefail
cd "$(dirname "$0")/.."
# The whole workspace, so that nothing is built again that its tests have built.
exec cargo test --workspace --release --test chaos -- --ignored --nocapture
