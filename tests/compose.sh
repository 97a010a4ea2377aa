#!/usr/bin/env bash
# The compose file on a real container engine, with the quickstart cut short: launch, scale, cut a worker's network,
# kill the learner, swap the reward, stop and start everything. Whatever was done to it, the run must end with the
# weights of one undisturbed `octet train` whose recipe swaps the reward at the same step.
#
#   tests/compose.sh     OCTET names another binary; OCTET_BASE a base image to use instead of making one;
#                        OCTET_CPU_SHARES the containers' share of a busy machine; OCTET_KEEP=1 keeps all for a look
#
# Everything has a name of its own and is removed at the end, but the base image, which the next run wants again.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=${OCTET:-$target/release/octet}
started=$SECONDS

skip() {
    echo "SKIPPED: tests/compose.sh: $*"
    exit 0
}
if [ ! -x "$binary" ]; then
    echo "tests/compose.sh: expected the binary $binary, found none; run cargo build --release" >&2
    exit 2
fi
command -v docker >/dev/null || skip "there is no docker here; the compose file was not run"
engine=$(docker info --format '{{.ServerVersion}}' 2>&1) && [ -n "$engine" ] ||
    skip "no container engine answers ($(tail -1 <<<"$engine")); the compose file was not run"
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif docker-compose version >/dev/null 2>&1; then
    compose=(docker-compose)
else
    skip "there is neither docker compose nor docker-compose; the compose file was not run"
fi
echo "engine $engine, $("${compose[@]}" version --short)"

# ---- names of its own, and their end ------------------------------------------------------------------------

name=octet-test-$$
work=$(mktemp -d)
export COMPOSE_PROJECT_NAME=$name OCTET_NETWORK=$name.internal OCTET_IMAGE=octet:$name
export OCTET_ENV_FILE=$work/run.env
# What a shell may have set for a run of its own.
unset OCTET_JOIN_TOKEN OCTET_REWARD OCTET_REWARD_NEXT OCTET_REWARDS OCTET_RECIPE OCTET_TARGET COMPOSE_FILE COMPOSE_PROFILES
c() { "${compose[@]}" -f "$root/deploy/compose.yaml" -f "$work/slow.yaml" "$@"; }

cleaned() {
    code=$?
    trap - EXIT
    if [ -n "${OCTET_KEEP:-}" ]; then
        echo "kept: project $name, image $OCTET_IMAGE, $work"
        exit $code
    fi
    c --profile swap --profile tools down --volumes --timeout 1 >/dev/null 2>&1 || true
    # One-off containers are none of the project's services, and hold on to its volumes.
    docker ps -aq --filter "label=com.docker.compose.project=$name" | xargs -r docker rm -f >/dev/null
    docker volume ls -q --filter "label=com.docker.compose.project=$name" | xargs -r docker volume rm >/dev/null
    docker network ls -q --filter "label=com.docker.compose.project=$name" | xargs -r docker network rm >/dev/null
    docker image rm "$OCTET_IMAGE" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $code
}
trap cleaned EXIT
trap 'exit 130' INT TERM

# ---- what is said -------------------------------------------------------------------------------------------

passed=0
failed=0
# check WHAT COMMAND…: counts it, and says how far the test is.
check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $((SECONDS - started)) s: $what"
    else
        failed=$((failed + 1))
        echo "FAILED $((SECONDS - started)) s: $what"
    fi
}
# must WHAT COMMAND…: a check without which the rest makes no sense.
must() {
    local before=$failed
    check "$@"
    [ "$failed" = "$before" ] || give_up
}
give_up() {
    c ps || true
    c logs --no-color --tail 25 2>&1 | tail -150 || true
    echo "$passed passed, $failed failed"
    exit 1
}
# eventually SECONDS COMMAND…: asks again until it holds.
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.5
    done
}
said() { "$@" >"$work/said" 2>&1 || { tail -20 "$work/said"; return 1; }; }

# ---- what is asked of the containers ------------------------------------------------------------------------

containers() { docker ps -q --filter "label=com.docker.compose.project=$name" \
    --filter "label=com.docker.compose.service=$1" --filter "label=com.docker.compose.oneoff=False"; }
inspect() { docker inspect --format "$1" "${@:2}"; }
# status EXPRESSION: a Python expression over the coordinator's status.
status() {
    docker exec "$(containers coordinator)" octet-node status --json \
        --coordinator https://localhost:7000 >"$work/status.json" 2>/dev/null || return 1
    python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/status.json" "$1"
}
