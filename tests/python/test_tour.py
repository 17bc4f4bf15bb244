"""The tour that newcomers read runs as it stands."""

import os
import pathlib
import subprocess
import sys

TOUR = pathlib.Path(__file__).resolve().parents[2] / "examples/redis_py_tour.py"


def test_redis_py_tour(server):
    host, port = server.addr
    environment = {**os.environ, "TOUR_ADDR": f"{host}:{port}"}
    done = subprocess.run(
        [sys.executable, TOUR], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("keys"), done.stdout
