#!/usr/bin/env bash
# Builds the binary that is shipped, in the image and the packages, and prints its path: static, for
# musl; this machine's ordinary one where rustup cannot give that target.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${host/-gnu/-musl}
scripts/setup.sh dist >&2
rustup target list --installed 2>/dev/null | grep -qx "$target" ||
    rustup target add "$target" >&2 || target=$host
[ "$target" != "$host" ] || echo "shipped.sh: no target for musl: this is not the static binary" >&2
cargo build --release --locked --target "$target" --bin slotway >&2
echo "target/$target/release/slotway"
