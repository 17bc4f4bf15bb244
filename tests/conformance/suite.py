"""redis-py's own test suite: fetches it, knows which of its files are run and in which parts.

As a program: fetches it, if it is not there yet (scripts/setup.sh does this).
"""

import fnmatch
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
WORK = REPOSITORY / "target/conformance"  # ignored by git; the suite and the last run's results

# what a standalone server without modules and certificates is not asked
MARKS = "not redismod and not onlycluster and not ssl and not replica"


def version():
    """The one that the other tests use as a client."""
    pins = (REPOSITORY / "tests/python/requirements.txt").read_text()
    return re.search(r"^redis==(\S+)$", pins, re.MULTILINE)[1]


def folder():
    return WORK / f"redis-{version()}"


def fetch():
    """The source package, from where pip gets its packages, unpacked."""
    if folder().is_dir():
        return
    print(f"setup: fetching the test suite of redis-py {version()}", file=sys.stderr)
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        source = ["--no-deps", "--no-binary", "redis", f"redis=={version()}"]
        subprocess.run(pip + source + ["--dest", temporary], check=True)
        (package,) = pathlib.Path(temporary).glob("*.tar.gz")
        with tarfile.open(package) as tar:
            tar.extractall(temporary, filter="data")
        # complete or not there at all
        (pathlib.Path(temporary) / folder().name).rename(folder())


def parts(server="7.0"):
    """What runs together against this server: name and files.

    Fails if the suite has a file that nobody thought of.
    """
    with open(HERE / "suite.toml", "rb") as file:
        listed = tomllib.load(file)
    running = {
        name
        for group in (listed["parts"], *listed["newer"].values())
        for files in group.values()
        for name in files
    }
    left_out = [pattern for patterns in listed["left_out"].values() for pattern in patterns]
    found = {str(p.relative_to(folder())) for p in folder().glob("tests/**/test_*.py")}
    unknown = [
        name
        for name in found - running
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in left_out)
    ]
    if unknown or running - found:
        sys.exit(
            f"suite.toml does not fit redis-py {version()}: "
            f"not listed {sorted(unknown)}, not there {sorted(running - found)}"
        )
    return {**listed["newer"].get(server, {}), **listed["parts"]}


if __name__ == "__main__":
    fetch()
