"""A pytest plugin: writes one line of JSON per finished test to the file CONFORMANCE_RESULTS names.

Runs inside redis-py's suite, in every column alike. CONFORMANCE_NODES: the cluster's nodes, if
there are any; CONFORMANCE_TURNS: a file to lock.
"""

import contextlib
import fcntl
import json
import os
import socket
import tracemalloc

import pytest

# The suite traces all memory it allocates, which nothing reads and which doubles its time.
tracemalloc.start = lambda *_: None
tracemalloc.stop = lambda: None

# These tests listen on one port they do not choose, so only one column at a time can run them.
FIXED_PORT = "tests/test_asyncio/test_cwe_404.py"


class Recorder:
    """One line when all tests are known, one for each when its teardown has ended."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.turns = open(os.environ["CONFORMANCE_TURNS"], "w")
        self.phases = []
        self.nodes = [connect(addr) for addr in os.environ["CONFORMANCE_NODES"].split()]

    def write(self, line):
        self.file.write(json.dumps(line) + "\n")

    def pytest_collection_finish(self, session):
        self.write({"collected": [item.nodeid for item in session.items]})

    def pytest_collectreport(self, report):
        if report.failed:
            self.write({"not collected": report.nodeid, "why": str(report.longrepr)[-600:]})

    # outside of pytest-timeout's: waiting for one's turn is no hang
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        with self.turn() if item.nodeid.startswith(FIXED_PORT) else contextlib.nullcontext():
            self.phases = []
            result = yield
        outcome, why = verdict(self.phases)
        seconds = round(sum(phase.duration for phase in self.phases), 2)
        self.write({"test": item.nodeid, "outcome": outcome, "seconds": seconds, "why": why})
        if outcome == "failed":
            self.unlock()
        return result

    def unlock(self):
        """A test that sets a password and then fails must not lock out all that come after it."""
        for node in self.nodes:
            node.sendall(b'CONFIG SET requirepass ""\r\n')
            assert node.recv(1024).startswith(b"+OK")

    @contextlib.contextmanager
    def turn(self):
        fcntl.flock(self.turns, fcntl.LOCK_EX)
        yield
        fcntl.flock(self.turns, fcntl.LOCK_UN)

    def pytest_runtest_logreport(self, report):
        self.phases.append(report)


def connect(addr):
    host, port = addr.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def verdict(phases):
    """Passed only if set-up and teardown passed as well."""
    for phase in phases:
        if phase.outcome == "failed":
            return "failed", last_error(phase)
    for phase in phases:
        if phase.outcome == "skipped":
            reason = phase.longrepr[2] if isinstance(phase.longrepr, tuple) else ""
            return "skipped", str(reason)
    return "passed", ""


def last_error(phase):
    """The error's own line, or what there is."""
    crash = getattr(phase.longrepr, "reprcrash", None)
    text = crash.message if crash else str(phase.longrepr)
    where = "" if phase.when == "call" else f"in {phase.when}: "
    return where + text.strip()[:600]


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.pluginmanager.register(Recorder(os.environ["CONFORMANCE_RESULTS"]))
