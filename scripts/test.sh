#!/usr/bin/env bash
# Everything CI runs, one announced step after the other; the first that fails ends it. At the end
# the time of each step.
set -euo pipefail
cd "$(dirname "$0")/.."

# The Rust tests in the dev profile: it checks arithmetic, and the release profile's link-time
# optimisation would take minutes for each test program. The client tests use the release binary,
# which is what users get. And no Python left over from the caller's shell: .venv's is meant.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

summary=()
current=
since=$SECONDS

finish() {
    local status=$?
    if [ -n "$current" ]; then
        summary+=("$(printf '%5d s  FAILED  %s' $((SECONDS - since)) "$current")")
    fi
    printf '\n'
    [ ${#summary[@]} -eq 0 ] || printf '%s\n' "${summary[@]}"
    printf '%5d s  in all\n' "$SECONDS"
    if [ -n "$beside" ]; then
        pkill -P "$beside" 2>/dev/null || true
        kill "$beside" 2>/dev/null || true
    fi
    rm -f "$set_up"
    exit "$status"
}
trap finish EXIT

# Starts a step that goes on beside the next ones, which wait for timers most of the time. Its
# output is shown when it is waited for.
beside=
beside_log=$(mktemp)
# It is there once everything is installed.
set_up=$(mktemp -u)
beside_since=
start_beside() {
    beside_since=$SECONDS
    "$@" >"$beside_log" 2>&1 &
    beside=$!
}

wait_for_beside() {
    local status=0
    wait "$beside" || status=$?
    beside=
    cat "$beside_log"
    rm -f "$beside_log"
    printf 'started %d s ago, beside the others\n' $((SECONDS - beside_since))
    return "$status"
}

# step NAME COMMAND...
step() {
    current=$1
    since=$SECONDS
    printf '\n==> %s\n' "$current"
    "${@:2}"
    summary+=("$(printf '%5d s  ok      %s' $((SECONDS - since)) "$current")")
    current=
}

step "setup for building" scripts/setup.sh run
# Not worth its time where nothing is built again.
[ -d target/debug ] || export CARGO_INCREMENTAL=0
# The release binary, whose link-time optimisation uses one core only; then users' clients, and
# redis-py's own tests with what judges them.
clients() {
    cargo build --release || return
    printf 'built in %d s\n' $((SECONDS - beside_since))
    until [ -e "$set_up" ]; do sleep 1; done
    .venv/bin/pytest tests/python &&
        # servers.py starts a cluster and slotway for them.
        .venv/bin/python tests/python/servers.py npm --prefix tests/node --silent test &&
        .venv/bin/pytest -c tests/python/pytest.ini tests/conformance &&
        .venv/bin/python tests/conformance/run.py --server 7.0 --before cluster --emulated some &&
        .venv/bin/python tests/conformance/run.py --server 7.0 --before server --protocol 3 commands
}
start_beside clients
step "setup" scripts/setup.sh test
touch "$set_up"
# Not advisories: their database is on GitHub, which CI does not reach.
step "cargo deny" scripts/deny.sh bans licenses sources
step "yanked crates" scripts/yanked.py
step "cargo fmt" cargo fmt --check
step "cargo clippy" cargo clippy --all-targets -- -D warnings
step "cargo test" scripts/cargo-test.sh
step "cargo build, redis-py, ioredis, node-redis, redis-py's own tests" wait_for_beside
