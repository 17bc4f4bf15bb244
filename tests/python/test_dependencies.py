"""scripts/dependencies.py: what it lets pass, and what not."""

import sys

import pytest

from servers import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
import dependencies  # noqa: E402


@pytest.mark.parametrize(
    "licence, good",
    [
        ("MIT OR Apache-2.0", True),
        ("Unlicense/MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND Zlib", False),
        ("(GPL-3.0-only OR MIT) AND Unicode-3.0", True),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("Apache-2.0 WITH LLVM-exception OR MIT", True),
    ],
)
def test_licences(licence, good):
    assert dependencies.satisfied(licence, ["MIT", "Unicode-3.0"]) is good


def test_bans_and_sources():
    def package(name, version, source="registry+here"):
        return {"name": name, "version": version, "source": source, "dependencies": []}

    ours = {**package("ours", "1.0.0", None), "dependencies": [{"name": "a", "req": "*"}]}
    theirs = [package("a", "1.2.0"), package("a", "2.0.0"), package("b", "1.0.0", "git+there")]
    problems = []
    rules = {"deny": [{"crate": "b"}], "skip": [{"crate": "c@1"}]}
    dependencies.bans([ours], theirs, rules, problems)
    dependencies.sources(theirs, ["here"], problems)
    assert problems == [
        "b 1.0.0: is denied",
        "a: there are 2 of it, 1.2.0, 2.0.0",
        "bans.skip names c@1, which is not there any more",
        "ours: wants any version of a",
        "b 1.0.0: comes from git+there",
    ]
    problems = []
    rules = {"deny": [], "skip": [{"crate": "a@1"}]}
    dependencies.bans([], theirs, rules, problems)
    assert problems == []
