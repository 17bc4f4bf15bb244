#!/usr/bin/env bash
# `cargo test`, with several of its programs at the same time: most of them wait for timers and
# failovers most of the time.
#   scripts/cargo-test.sh [PROGRAMS AT A TIME, 2]
set -euo pipefail
cd "$(dirname "$0")/.."
lanes=${1:-2}
# As cargo test does.
export CARGO_MANIFEST_DIR=$PWD

# The slow ones first, so that none of them is left alone at the end.
slow=(slotway abuse limits large mixed_versions observability foreign_cluster blocking differential
    emulated reconnect keyspace pubsub_faults)

cargo test --no-run
# "name path" of each program.
programs=$(cargo test --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' |
    sed -n 's|.*/\([A-Za-z0-9_]*\)-[0-9a-f]*$|\1 &|p' | sort -u)
[ -n "$programs" ] || { echo "cargo names no test programs" >&2; exit 1; }

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
run_one() {
    local name=$1 program=$2 log=$3/${2##*/} since=$SECONDS
    if "$program" >"$log" 2>&1; then
        printf '%5d s  ok      %s %s\n' $((SECONDS - since)) "$name" \
            "$(sed -n 's/^test result: ok\. \([0-9]* passed\).*/(\1)/p' "$log" | tail -n 1)"
    else
        printf '%5d s  FAILED  %s\n' $((SECONDS - since)) "$name"
        cat "$log"
        exit 1
    fi
}
export -f run_one

order() {
    local name
    for name in "${slow[@]}"; do
        grep "^$name " <<<"$programs" || true
    done
    grep -vE "^($(IFS='|'; echo "${slow[*]}")) " <<<"$programs" || true
}
# xargs goes on after a failure, and says so at the end.
order | xargs -P "$lanes" -L 1 bash -c 'run_one "$1" "$2" "$0"' "$logs"
cargo test --doc --quiet
