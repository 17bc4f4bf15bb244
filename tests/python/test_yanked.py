"""scripts/yanked.py: what fails, and what is only reported."""

import subprocess
import sys

import pytest

from servers import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
import yanked  # noqa: E402

BY = "required by package `probe v0.0.0 (/tmp/probe)`"


@pytest.mark.parametrize(
    "code, stderr, verdict, said",
    [
        (0, "     Locking 3 packages\n", 0, ""),
        (101, f"error: failed to select a version\n  version 1.0.0 is yanked\n{BY}", 1, "was yanked"),
        (101, f"error: failed to select a version for `a`\n{BY}", 1, "does not have"),
        (101, f"error: failed to get `a`\n{BY}\n  Could not resolve host\n", 0, "not asked"),
    ],
)
def test_verdicts(code, stderr, verdict, said):
    out = subprocess.CompletedProcess([], code, stdout="", stderr=stderr)
    found, text = yanked.verdict_of(out)
    assert found == verdict and said in text and bool(said) == bool(text)
