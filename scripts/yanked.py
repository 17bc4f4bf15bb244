#!/usr/bin/env python3
"""Checks that no crate in Cargo.lock has been yanked from the registry.

cargo-deny checks this only together with the database of advisories (`make deny`). Without a network
the registry cannot be asked; that is reported, and is no failure.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    crates = [package for package in packages if "source" in package]
    verdict, text = verdict_of(resolve(crates))
    print(f"yanked: {text or f'none of {len(crates)} crates is yanked'}", file=sys.stderr)
    return verdict


def resolve(crates):
    """Resolves a package that wants exactly these versions. Cargo never chooses a yanked version
    anew, so it fails if one of them is."""
    wants = [
        f'd{i} = {{ package = "{crate["name"]}", version = "={crate["version"]}", default-features = false }}'
        for i, crate in enumerate(crates)
    ]
    head = '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n'
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "src").mkdir()
        (folder / "src/lib.rs").touch()
        (folder / "Cargo.toml").write_text(head + "\n".join(wants) + "\n")
        env = {**os.environ, "CARGO_TERM_COLOR": "never"}
        command = ["cargo", "generate-lockfile"]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def verdict_of(out):
    """The exit code, and what is to be said; nothing if all is well."""
    if out.returncode == 0:
        return 0, ""
    if "is yanked" in out.stderr:
        return 1, f"a version was yanked:\n{out.stderr}"
    if "failed to select" in out.stderr:
        return 1, f"the registry does not have what Cargo.lock wants:\n{out.stderr}"
    return 0, f"the registry was not asked: {out.stderr.strip().splitlines()[-1]}"


if __name__ == "__main__":
    sys.exit(main())
