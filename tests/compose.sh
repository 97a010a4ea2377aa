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
unset OCTET_JOIN_TOKEN OCTET_RUN OCTET_REWARD OCTET_REWARD_NEXT OCTET_REWARDS OCTET_RECIPE OCTET_TARGET
unset COMPOSE_FILE COMPOSE_PROFILES
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

# containers SERVICE [-a]: those that run; with -a also those that ended.
containers() {
    docker ps -q ${2:+"$2"} --filter "label=com.docker.compose.project=$name" \
        --filter "label=com.docker.compose.service=$1" --filter "label=com.docker.compose.oneoff=False"
}
inspect() { docker inspect --format "$1" "${@:2}"; }
# page CONTAINER: what its node shows to Prometheus.
page() {
    docker exec "$1" bash -c \
        'exec 3<>/dev/tcp/127.0.0.1/9464; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3' 2>/dev/null
}
# sum PATTERN: over the samples on standard input whose name and labels match.
sum() { awk -v pattern="^$1 " '$0 ~ pattern { total += $NF } END { printf "%d\n", total }'; }
coordinator() { page "$(containers coordinator)" >"$work/page" && sum "$1" <"$work/page"; }
steps() { coordinator octet_steps_committed; }
is() { [ "$("${@:2}")" = "$1" ]; }
workers_are() { is "$1" coordinator octet_workers; }
beyond() { local now && now=$(steps) && [ "$now" -gt "$1" ]; }
# advances SECONDS: a step is committed that was not yet.
advances() { local before && before=$(steps) && eventually "$1" beyond "$before"; }
scale() { said c up -d --scale "rollout-worker=$1" && eventually 90 workers_are "$1"; }
all_healthy() {
    local service
    for service in "$@"; do
        [ "$(inspect '{{.State.Health.Status}}' $(containers "$service") | sort -u)" = healthy ] || return 1
    done
}
ended_well() {
    local service
    for service in "$@"; do
        [ "$(inspect '{{.State.Status}} {{.State.ExitCode}}' $(containers "$service" -a) | sort -u)" = "exited 0" ] || return 1
    done
}

# ---- the run, made short and slow ---------------------------------------------------------------------------

length=${OCTET_TEST_STEPS:-120}
keys=(OCTET_RUN__STEPS="$length" OCTET_LEARNER__BATCH=4 OCTET_SAMPLING__MAX_TOKENS=24 OCTET_EVALUATION__ENABLED=false)
printf '%s\n' "${keys[@]}" OCTET_LOG=info >"$OCTET_ENV_FILE"
# So slow that all that is done to it is done while it goes on, on a fast machine, too.
export OCTET_WORKER_CPUS=${OCTET_TEST_CPUS:-0.25} OCTET_LEARNER_CPUS=${OCTET_TEST_CPUS:-0.25} OCTET_START_PERIOD=5m
{
    echo "services:"
    for service in coordinator learner reward reward-next rollout-worker octet certs; do
        echo "  $service: {cpu_shares: ${OCTET_CPU_SHARES:-1024}}"
    done
} >"$work/slow.yaml"

# A base is made here, where that can be done, and pulled where it cannot.
base=${OCTET_BASE:-}
[ -n "$base" ] || base=$("$root/deploy/base-image.sh" 2> >(tee "$work/base" >&2)) || {
    base=debian:trixie-slim
    docker pull -q "$base" >/dev/null 2>&1 ||
        skip "no base image can be made here ($(tail -1 "$work/base")), and $base cannot be pulled"
}

# The context is what the image takes, so that neither sources nor target are sent to the engine.
image() {
    local context=$work/context
    mkdir -p "$context/target/release"
    cp -r "$root"/{deploy,recipes,assets,LICENSE-MIT,LICENSE-APACHE} "$context/"
    strip -o "$context/target/release/octet" "$binary" 2>/dev/null || cp "$binary" "$context/target/release/octet"
    docker build -q -f "$context/deploy/Dockerfile" --target prebuilt --build-arg "BASE=$base" -t "$OCTET_IMAGE" "$context"
}

# ---- launch -------------------------------------------------------------------------------------------------

must "the image is built around the release binary" said image
must "one command starts the run, each role when those before it are well" said c up -d
must "every role is well" eventually 120 all_healthy reward coordinator learner rollout-worker
must "a step is committed" eventually 120 beyond 0

confined() {
    local ids want
    ids=$(docker ps -q --filter "label=com.docker.compose.project=$name")
    want='10001:10001 true ["ALL"] ["no-new-privileges:true"] {}'
    inspect "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{json .HostConfig.CapDrop}} \
{{json .HostConfig.SecurityOpt}} {{json .HostConfig.PortBindings}}" $ids | tr -s ' ' | sort -u >"$work/confined"
    [ "$(sed 's/null$/{}/' "$work/confined")" = "$want" ] || { cat "$work/confined"; return 1; }
    is 10001 docker exec "$(containers learner)" id -u && ! docker exec "$(containers learner)" touch /octet/x 2>/dev/null
}
check "nothing runs as root, can write to its image, gain rights, or is published on the host" confined
check "their network is closed" is true docker network inspect -f '{{.Internal}}' "$OCTET_NETWORK"
stranger() {
    ! docker run --rm --network "$OCTET_NETWORK" "$OCTET_IMAGE" \
        certs check http://coordinator:7000 --insecure-network >"$work/stranger" 2>&1 && grep -q TLS "$work/stranger"
}
check "who has no certificate is turned away" stranger

# ---- scale --------------------------------------------------------------------------------------------------

must "2 workers become 5" scale 5
passed_on() {
    local id total=0
    for id in $(containers rollout-worker); do
        total=$((total + $(page "$id" | sum 'octet_weight_bytes_received_total\\{source="workers"\\}')))
    done
    [ $total -gt 0 ]
}
told() {
    said c run --rm -T octet status --json --interval 0 --coordinator https://coordinator:7000 &&
        sed -n '/^{/p' "$work/said" | python3 -c \
            'import json, sys; s = json.load(sys.stdin); sys.exit(len(s["workers"]) != 5 or s["total_steps"] != int(sys.argv[1]))' \
            "$length"
}
check "octet status tells of all 5, asked from a container beside them" told
check "workers pass weights on to each other, by their containers' names" eventually 90 passed_on
must "5 workers become 1" scale 1
must "the run goes on with 1" advances 90

# ---- a cut network ------------------------------------------------------------------------------------------

worker=$(containers rollout-worker)
must "the last worker's network is cut" said docker network disconnect "$OCTET_NETWORK" "$worker"
must "it is missed" eventually 90 workers_are 0
before=$(steps)
sleep 3
check "without a worker no step is taken" is "$before" steps
must "its network is back" said docker network connect --alias rollout-worker "$OCTET_NETWORK" "$worker"
must "it comes back by itself" eventually 120 workers_are 1
must "the run goes on" eventually 120 beyond "$before"

# ---- a killed learner ---------------------------------------------------------------------------------------

learner=$(containers learner)
must "the learner is killed" docker exec "$learner" sh -c \
    'for p in /proc/[0-9]*; do if [ "$(cat $p/comm)" = octet ]; then kill -9 "${p#/proc/}"; fi; done'
must "the engine starts it again" eventually 60 is 1 inspect '{{.RestartCount}}' "$learner"
must "it is well again" eventually 120 all_healthy learner
must "the run goes on from its last commit" advances 120

# ---- another reward -----------------------------------------------------------------------------------------

must "the next reward is started" said c up -d reward-next
must "it is well" eventually 120 all_healthy reward-next
swap() {
    said c run --rm -T octet reward swap --coordinator https://coordinator:7000 \
        --to https://reward-next:7000 --name strict && cp "$work/said" "$work/swapped" &&
        grep -q 'rewards the run from step' "$work/swapped"
}
must "the reward is swapped for one in Python" swap

# ---- all of it stops, and starts ----------------------------------------------------------------------------

check "the run is not over yet, so that what was done to it counts" [ "$(steps)" -lt $((length - 1)) ]
must "everything is stopped" said c --profile swap stop
check "each node drained and ended well" ended_well reward reward-next coordinator learner rollout-worker
must "everything is started" said c --profile swap up -d
must "there are 2 workers again" eventually 120 workers_are 2
must "the run goes on from what was kept" advances 120

# ---- the end ------------------------------------------------------------------------------------------------

docker update --cpus 2 $(containers learner) $(containers rollout-worker) >/dev/null 2>&1 || true
must "the learner ends when the last step is taken" eventually 240 ended_well learner
check "workers and coordinator end with it" eventually 60 ended_well rollout-worker coordinator

digest() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["weights_digest"])' "$1"; }
must "the learner's volume holds the summary" \
    eval 'c run --rm -T --entrypoint cat octet /runs/quickstart/summary.json >"$work/run.json" 2>"$work/said"'
must "the coordinator's volume holds the record of the swap" \
    eval 'c run --rm -T octet reward history --run /coordinator/quickstart --replay >"$work/replay.toml" 2>"$work/said"'
step=$(sed -n 's/^step *= *\([0-9]*\).*/\1/p' "$work/replay.toml" | head -1)

# plain NAME: an undisturbed run of the recipe $work/NAME.toml in one process, in the same image: a platform's
# mathematics may differ from another's.
plain() {
    local options=(--rm --label "com.docker.compose.project=$name" --network none --read-only --tmpfs /tmp
        --cap-drop ALL --cpu-shares "${OCTET_CPU_SHARES:-1024}" --env-file "$OCTET_ENV_FILE" -v "$work/$1.toml:/octet/$1.toml:ro" -v "$root/deploy/rewards:/octet/rewards:ro")
    docker run "${options[@]}" --entrypoint sh "$OCTET_IMAGE" -c \
        "octet train $1.toml --out /tmp/run >/tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }; cat /tmp/run/summary.json" \
        >"$work/$1.json" 2>"$work/said" || { tail -20 "$work/said"; return 1; }
}
cp "$root/recipes/quickstart.toml" "$work/never.toml"
{
    cat "$root/recipes/quickstart.toml"
    printf '\n[[reward.schedule]]\nstep = %s\nfunction = "rewards/strict.py"\n' "$step"
} >"$work/same.toml"
must "one process repeats it, with the swap at step $step" plain same
must "one process does it without the swap" plain never
check "the final weights are those of the undisturbed run: $(digest "$work/run.json")" \
    is "$(digest "$work/run.json")" digest "$work/same.json"
differ() { [ "$(digest "$work/never.json")" != "$(digest "$work/run.json")" ]; }
check "and not those of the run that was never swapped" differ

echo "compose: $((SECONDS - started)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
