#!/usr/bin/env bash
# The long form of the faults (`make faults`), or with --soak the soak (`make soak`): the release
# binary under test, in a network namespace of its own with an /etc/hosts of its own, so that packets
# can be lost and names change. All arguments go to tests/faults; `--help` lists them.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

program=${FAULTS_PROGRAM:-}
if [ -z "$program" ]; then
    cargo build --release --bin slotway
    program=$PWD/target/release/slotway
fi
export FAULTS_PROGRAM=$program
tests=$(cargo test --no-run --test faults --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/faults-[^"]*\)".*/\1/p' | tail -n 1)
mode=--long
[ "${1:-}" != --soak ] || mode=

if command -v nft >/dev/null && unshare -rnm true 2>/dev/null; then
    hosts=$(mktemp)
    trap 'rm -f "$hosts"' EXIT
    FAULTS_NAMESPACE=1 unshare -rnm bash -c '
        ip link set lo up
        cp /etc/hosts "$1"
        mount --bind "$1" /etc/hosts
        shift
        exec "$@"' bash "$hosts" "$tests" $mode "$@"
else
    echo "no network namespace here (unshare -rnm) or no nft: faults of the network are left out" >&2
    "$tests" $mode "$@"
fi
