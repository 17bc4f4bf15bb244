#!/usr/bin/env bash
# Flips one thing at a time in the rooms `placement` and `ops`, and says which flips no unit test
# notices (cargo-mutants). The rooms and what they use are built as a crate of their own, which
# takes seconds for each flip where the whole of slotway takes a minute; what they use of larger
# rooms (`route`, `command`, `config`) is in `stubs`. Left out: `ops/parts.rs`, which needs `route`
# and `emulate` whole.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v cargo-mutants >/dev/null || {
    echo 'make mutants needs cargo-mutants: cargo install cargo-mutants --locked' >&2
    exit 1
}
crate=target/mutants
rm -rf "$crate"
mkdir -p "$crate/src/ops" "$crate/docs"
cp -r tests/mutants/stubs/. "$crate/"
cp -r src/cluster src/dest.rs src/errors src/hash.rs src/placement src/resp "$crate/src/"
cp src/ops/errand.rs src/ops/key_lists.rs "$crate/src/ops/"
cp src/route/blocking.rs "$crate/src/route/"
cp docs/errors.md "$crate/docs/"
exec cargo mutants --dir "$crate" --output "$crate" --jobs 2 --timeout 20 \
    --file 'src/placement/*.rs' --file 'src/ops/*.rs' "$@" -- --lib -- placement:: ops::
