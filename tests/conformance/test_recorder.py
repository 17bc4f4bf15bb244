"""What the plugin writes down inside redis-py's suite."""

import json
import os
import subprocess
import sys

import suite


def test_a_file_that_cannot_be_imported_is_not_left_out_in_silence(tmp_path):
    (tmp_path / "test_good.py").write_text("def test_good(): pass\n")
    (tmp_path / "test_bad.py").write_text("import a_package_that_nobody_has\n")
    results = tmp_path / "results"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        "CONFORMANCE_RESULTS": str(results),
        "CONFORMANCE_NODES": "",
        "CONFORMANCE_TURNS": str(tmp_path / "turns"),
        "PYTHONPATH": str(suite.HERE),
    }
    command = [sys.executable, "-m", "pytest", "-p", "recorder", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    [broken] = [line for line in lines if "not collected" in line]
    assert broken["not collected"] == "test_bad.py"
    assert "a_package_that_nobody_has" in broken["why"]
