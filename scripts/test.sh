#!/usr/bin/env bash
# Everything CI runs, one announced step after the other; the first that fails ends it. At the end
# the time of each step.
set -euo pipefail
cd "$(dirname "$0")/.."

# One profile for everything: the client tests need the release binary anyway.
export SLOTWAY_BIN=$PWD/target/release/slotway

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

node_tests() {
    # Named one by one: what `node --test` makes of a folder depends on its version.
    local files
    mapfile -t files < <(find tests/node -name node_modules -prune -o \
        \( -name '*test*.js' -o -name '*test*.mjs' -o -name '*test*.cjs' \) -print | sort)
    if [ ${#files[@]} -eq 0 ]; then
        echo "no test files in tests/node" >&2
        return 1
    fi
    node --test "${files[@]}"
}

step "setup" scripts/setup.sh test
step "cargo fmt" cargo fmt --check
step "cargo clippy" cargo clippy --release --all-targets -- -D warnings
step "cargo build" cargo build --release
step "cargo test" cargo test --release
if [ -d tests/python ]; then
    step "redis-py" .venv/bin/pytest tests/python
fi
if [ -d tests/node ]; then
    step "node" node_tests
fi
