#!/usr/bin/env bash
# Runs what the documentation tells people to type, with the release binary as `octet`.
#
#   <!-- ci -->          the ```sh block below is run and must succeed
#   <!-- ci fails -->    … and must fail: it shows an error
#   <!-- ci output -->   each line of the block below, up to an ellipsis, is in what the last one printed
#
# The blocks of a page run one after the other in one copy of the repository, so a later block finds
# the files of an earlier one. Nothing is written outside of that copy.
#
#   tests/docs.sh [PAGE…]      all pages without arguments; OCTET names another binary
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
binary=${OCTET:-$target/release/octet}
if [ ! -x "$binary" ]; then
    echo "tests/docs.sh: expected the binary $binary, found none; run cargo build --release" >&2
    exit 2
fi
if [ $# -gt 0 ]; then pages=("$@"); else pages=("$root/README.md" "$root"/docs/*.md); fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")" "$work/bin/octet"
# A hang is a failure, not a long wait; a system without `timeout` waits.
limit=()
if command -v timeout >/dev/null; then limit=(timeout "${OCTET_DOCS_SECONDS:-900}"); fi

# Cuts a page into NUMBER.sh with NUMBER.kind and NUMBER.line, and NUMBER.want for its output.
cut_page() {
    awk -v into="$2" '
        function fail(why) { print FILENAME ":" NR ": " why > "/dev/stderr"; exit 3 }
        inside { if ($0 ~ /^```[ ]*$/) { inside = 0; close(file) } else print > file; next }
        /^<!-- ci( fails| output)? -->$/ {
            if (mark != "") fail("a mark follows a mark")
            mark = ($3 == "-->") ? "passes" : $3
            next
        }
        /^```/ && mark == "output" {
            if (!n) fail("an output without a command before it")
            file = into "/" n ".want"; inside = 1; mark = ""; printf "" > file; next
        }
        /^```sh[ ]*$/ && mark != "" {
            n = sprintf("%03d", n + 1)
            print mark > (into "/" n ".kind"); print NR > (into "/" n ".line")
            file = into "/" n ".sh"; inside = 1; mark = ""; printf "" > file; next
        }
        # Blocks without a mark are passed over whole, whatever is in them.
        /^```/ && mark == "" { file = "/dev/null"; inside = 1; next }
        NF && mark != "" { fail("expected a fenced block below the mark, found " $0) }
        END { if (mark != "") fail("a mark without a block") }
    ' "$1"
}

# Prints the first line that was wanted and not printed.
missing_line() {
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line%%…*}
        if [ -n "${line// /}" ] && ! grep -qF -- "$line" "$2"; then
            printf '%s\n' "$line"
            return
        fi
    done <"$1"
}

passed=0
failed=0
complain() {
    failed=$((failed + 1))
    echo "FAILED $1: $2" >&2
    sed 's/^/    /' "$3" >&2
}

for page in "${pages[@]}"; do
    if [ ! -e "$page" ]; then
        echo "tests/docs.sh: expected the page $page, found none" >&2
        exit 2
    fi
    name=$(basename "$page")
    blocks=$work/$name.blocks
    copy=$work/$name.copy
    mkdir "$blocks" "$copy"
    cut_page "$page" "$blocks"
    compgen -G "$blocks/*.sh" >/dev/null || continue
    (cd "$root" && tar --exclude=./target --exclude=./.git --exclude=./runs -cf - .) |
        tar -xf - -C "$copy"
    for block in "$blocks"/*.sh; do
        base=${block%.sh}
        place="$name:$(cat "$base.line")"
        code=0
        (cd "$copy" && PATH="$work/bin:$PATH" exec ${limit[@]+"${limit[@]}"} \
            bash -euo pipefail "$block") >"$base.log" 2>&1 </dev/null &
        group=$!
        wait $group || code=$?
        # `timeout` leads a group of its own: what a block left running, as one that failed may, ends with it.
        kill -- -$group 2>/dev/null || true
        if [ "$(cat "$base.kind")" = passes ] && [ $code -ne 0 ]; then
            complain "$place" "expected success, found exit code $code" "$base.log"
        elif [ "$(cat "$base.kind")" = fails ] && [ $code -eq 0 ]; then
            complain "$place" "expected a failure, found success" "$base.log"
        elif [ -e "$base.want" ] && wanted=$(missing_line "$base.want" "$base.log") && [ -n "$wanted" ]; then
            complain "$place" "expected the line \"$wanted\", found" "$base.log"
        else
            passed=$((passed + 1))
            echo "ok $place"
        fi
    done
done

echo "documentation: $passed passed, $failed failed"
# A page without a single marked block would pass by saying nothing.
[ $failed -eq 0 ] && [ $passed -gt 0 ]
