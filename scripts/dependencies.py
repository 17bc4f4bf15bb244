#!/usr/bin/env python3
"""Checks the dependencies against deny.toml: licences, sources, bans, duplicates, yanked versions.

Known vulnerabilities are in a database that is not part of the registry: with cargo-deny or
cargo-audit installed they are asked as well, and their answer counts. Without a network the
registry cannot say what has been yanked; that is said, and is no failure.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    problems, packages = [], metadata()
    ours = [p for p in packages if p["source"] is None]
    theirs = [p for p in packages if p["source"] is not None]
    licences(theirs, rules["licenses"]["allow"], problems)
    sources(theirs, rules["sources"]["allow-registry"], problems)
    bans(ours, theirs, rules["bans"], problems)
    yanked(theirs, problems)
    for tool, args in (("cargo-deny", ["deny", "check"]), ("cargo-audit", ["audit"])):
        if shutil.which(tool) and cargo(*args, capture=False).returncode:
            problems.append(f"cargo {' '.join(args)} found something")
    for problem in problems:
        print(f"dependencies: {problem}", file=sys.stderr)
    if not problems:
        print(f"dependencies: {len(theirs)} crates are as deny.toml wants them")
    return 1 if problems else 0


def cargo(*args, cwd=ROOT, capture=True):
    env = {**os.environ, "CARGO_TERM_COLOR": "never"}
    return subprocess.run(["cargo", *args], cwd=cwd, env=env, capture_output=capture, text=True)


def metadata():
    out = cargo("metadata", "--format-version", "1", "--locked", "--all-features")
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout)["packages"]


def name(package):
    return f"{package['name']} {package['version']}"


def licences(packages, allow, problems):
    for package in packages:
        licence = package["license"]
        if not licence:
            problems.append(f"{name(package)}: no licence is named")
        elif not satisfied(licence, allow):
            problems.append(f"{name(package)}: its licence, {licence}, is not in licenses.allow")


def satisfied(licence, allow):
    """Whether an SPDX expression can be had with these licences. AND binds more than OR."""
    words = re.findall(r"[()]|[\w.+-]+", licence.replace("/", " OR "))

    def either():
        good = both()
        while words and words[0] == "OR":
            words.pop(0)
            good = both() or good
        return good

    def both():
        good = single()
        while words and words[0] == "AND":
            words.pop(0)
            good = single() and good
        return good

    def single():
        word = words.pop(0)
        if word == "(":
            good = either()
            words.pop(0)
            return good
        if words[:1] == ["WITH"]:
            words.pop(0)
            word += f" WITH {words.pop(0)}"
        return word in allow

    return either() and not words


def sources(packages, registries, problems):
    allowed = {f"registry+{url}" for url in registries}
    for package in packages:
        if package["source"] not in allowed:
            problems.append(f"{name(package)}: comes from {package['source']}")


def bans(ours, theirs, rules, problems):
    denied = {rule["crate"] for rule in rules["deny"]}
    skipped = [rule["crate"].split("@") for rule in rules["skip"]]
    versions = {}
    for package in theirs:
        if package["name"] in denied:
            problems.append(f"{name(package)}: is denied")
        skip = next((s for s in skipped if is_of(package, s)), None)
        if skip is None:
            versions.setdefault(package["name"], []).append(package["version"])
    for crate, several in versions.items():
        if len(several) > 1:
            problems.append(f"{crate}: there are {len(several)} of it, {', '.join(several)}")
    for crate, version in skipped:
        if not any(is_of(package, (crate, version)) for package in theirs):
            problems.append(f"bans.skip names {crate}@{version}, which is not there any more")
    for package in ours:
        for dependency in package["dependencies"]:
            if dependency["req"] == "*" and not dependency.get("path"):
                problems.append(f"{package['name']}: wants any version of {dependency['name']}")


def is_of(package, crate_and_version):
    crate, version = crate_and_version
    return package["name"] == crate and f"{package['version']}.".startswith(f"{version}.")


def yanked(packages, problems):
    """Cargo never chooses a yanked version anew: a crate that wants exactly ours is resolved only if
    none of them is."""
    wants = [
        f'd{i} = {{ package = "{p["name"]}", version = "={p["version"]}", default-features = false }}'
        for i, p in enumerate(packages)
    ]
    head = '[package]\nname = "yanked"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n'
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "src").mkdir()
        (folder / "src/lib.rs").touch()
        (folder / "Cargo.toml").write_text(head + "\n".join(wants) + "\n")
        out = cargo("generate-lockfile", cwd=folder)
    if out.returncode == 0:
        return
    if "yanked" in out.stderr:
        problems.append(f"a version was yanked:\n{out.stderr}")
    elif "failed to select" in out.stderr:
        problems.append(f"the registry does not have what Cargo.lock wants:\n{out.stderr}")
    else:
        print(f"dependencies: not asked what was yanked: {out.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    sys.exit(main())
