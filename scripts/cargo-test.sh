#!/usr/bin/env bash
# `cargo test`, with several processes at the same time: most of them wait for timers and failovers
# most of the time. Each module of tests/main.rs has a process of its own.
#   scripts/cargo-test.sh [PROCESSES AT A TIME, 2]
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
integration=$(sed -n 's/^integration //p' <<<"$programs")
[ -n "$integration" ] || { echo "cargo names no program of tests/main.rs" >&2; exit 1; }
# "name path filter tests" of each module, by the names of the tests; ignored ones are listed as well.
modules=$("$integration" --list --format terse | sed -n 's/: test$//p' | sed 's/::.*//' | sort |
    uniq -c | while read -r tests name; do echo "$name $integration $name:: $tests"; done)
[ -n "$modules" ] || { echo "$integration lists no tests" >&2; exit 1; }

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# run_one LOGS NAME PROGRAM [MODULE TESTS]: fails as well if not so many tests ran.
run_one() {
    local log=$1/$2-${3##*/} name=$2 result=ok passed ignored=0 since=$SECONDS tests=()
    # By their whole names: `clients::` is a part of `cluster_clients::`.
    [ -z "${4-}" ] || mapfile -t tests < <("$3" --list --format terse | sed -n "s/^\($4.*\): test$/\1/p")
    "$3" ${4+--exact} ${tests[@]+"${tests[@]}"} >"$log" 2>&1 || result=FAILED
    read -r passed ignored < <(
        sed -n 's/^test result: ok\. \([0-9]*\) passed; 0 failed; \([0-9]*\) ignored;.*/\1 \2/p' \
            "$log" | tail -n 1
    ) || true
    if [ $result = ok ] && [ $((passed + ignored)) != "${5-$((passed + ignored))}" ]; then
        echo "$((passed + ignored)) tests of $4 ran and $5 are listed" >>"$log"
        result=FAILED
    fi
    printf '%5d s  %-6s  %s %s\n' $((SECONDS - since)) $result "$name" "${passed:+($passed passed)}"
    [ $result = ok ] || { cat "$log"; exit 1; }
}
export -f run_one

order() {
    local name all
    all=$(grep -v '^integration ' <<<"$programs"; echo "$modules")
    for name in "${slow[@]}"; do
        grep "^$name " <<<"$all" || true
    done
    grep -vE "^($(IFS='|'; echo "${slow[*]}")) " <<<"$all" | sort || true
}
# xargs goes on after a failure, and says so at the end.
order | xargs -P "$lanes" -L 1 bash -c 'run_one "$0" "$@"' "$logs"
awk '{ all += $4 } END { print all " tests in " NR " modules of tests/main.rs, all that it lists" }' \
    <<<"$modules"
cargo test --doc --quiet
