#!/usr/bin/env bash
# Everything CI runs, one announced step after the other; the first that fails ends it. At the end
# the time of each step.
set -euo pipefail
cd "$(dirname "$0")/.."

# The Rust tests in the dev profile: it checks arithmetic, and the release profile's link-time
# optimisation would take minutes for a dozen test binaries. The client tests use the release
# binary, which is what users get. And no Python left over from the caller's shell: .venv's is meant.
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
    exit "$status"
}
trap finish EXIT

# step NAME COMMAND...
step() {
    current=$1
    since=$SECONDS
    printf '\n==> %s\n' "$current"
    "${@:2}"
    summary+=("$(printf '%5d s  ok      %s' $((SECONDS - since)) "$current")")
    current=
}

step "setup" scripts/setup.sh test
step "cargo fmt" cargo fmt --check
step "cargo clippy" cargo clippy --all-targets -- -D warnings
step "cargo build" cargo build --release
step "cargo test" cargo test
if [ -d tests/python ]; then
    step "redis-py" .venv/bin/pytest tests/python
fi
if [ -d tests/node ]; then
    # servers.py starts a cluster and slotway for them.
    step "ioredis and node-redis" .venv/bin/python tests/python/servers.py \
        npm --prefix tests/node --silent test
fi
step "redis-py's own tests: their judge" \
    .venv/bin/pytest -c tests/python/pytest.ini tests/conformance
step "redis-py's own tests" .venv/bin/python tests/conformance/run.py
