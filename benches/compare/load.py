"""The workloads, and one measurement of one workload through one proxy."""

import contextlib
import csv
import io
import re
import socket
import subprocess
import time
from dataclasses import dataclass

import procs

KEYS = 100_000
BIG_KEYS = 2_000
VALUE = b"x" * 64
BIG_VALUE = b"x" * 16384

_KEY = "key:__rand_int__"
_SET = ["set", _KEY, VALUE.decode()]
_GET = ["get", _KEY]


@dataclass(frozen=True)
class Workload:
    name: str
    label: str
    #: At most this much of nutcracker's CPU per command is wanted of slotway.
    wanted: float
    clients: int
    pipeline: int
    keys: int
    commands: list
    #: Commands of each kind in one measurement; sized for about two seconds in all.
    count: int


WORKLOADS = [
    Workload("c1", "1 client", 0.90, 1, 1, KEYS, [_SET, _GET], 10_000),
    Workload("c50", "50 clients", 0.72, 50, 1, KEYS, [_SET, _GET], 60_000),
    Workload("p16", "50 clients, pipeline 16", 0.36, 50, 16, KEYS, [_SET, _GET], 300_000),
    Workload("p64", "50 clients, pipeline 64", 0.18, 50, 64, KEYS, [_SET, _GET], 350_000),
    Workload("c1000", "1,000 clients", 0.75, 1000, 1, KEYS, [_SET, _GET], 60_000),
    Workload(
        "v16k", "50 clients, 16 KiB values", 0.85, 50, 1, BIG_KEYS,
        [["set", "big:__rand_int__", BIG_VALUE.decode()], ["get", "big:__rand_int__"]], 20_000,
    ),
    Workload("mget10", "50 clients, MGET of 10 random keys", 0.85, 50, 1, KEYS, [["mget"] + [_KEY] * 10], 50_000),
]


class LoadError(Exception):
    """The load generator failed, or the proxy answered with errors."""


def _generate(port: int, work: Workload, command: list, count: int, threads: int, more: list = ()) -> dict:
    argv = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-c", str(work.clients), "-n", str(count),
            "-P", str(work.pipeline), "-r", str(work.keys), "--csv", *more]
    if threads > 1:
        argv += ["--threads", str(threads)]
    try:
        done = subprocess.run(argv + command, capture_output=True, text=True, timeout=120, start_new_session=True,
                              preexec_fn=procs.die_with_parent)
    except subprocess.TimeoutExpired:
        raise LoadError("redis-benchmark was not done after 120 s") from None
    # It goes on after an error reply, so the text is the only sign of one. That CONFIG
    # is refused, which it asks for its own header, is no error of the workload.
    said = done.stderr + done.stdout
    bad = re.search(r"(Error from server.*|Error: .*|Could not connect.*)", said)
    if done.returncode != 0 or bad:
        raise LoadError(bad.group(1)[:200] if bad else f"redis-benchmark ended with {done.returncode}")
    rows = [r for r in csv.reader(io.StringIO(done.stdout)) if len(r) == 8 and r[0] != "test"]
    if len(rows) != 1:
        raise LoadError(f"redis-benchmark printed {done.stdout[:200]!r}")
    return {"rps": float(rows[0][1]), "p50": float(rows[0][4]), "p99": float(rows[0][6])}


def measure(fleet, proxy, work: Workload, scale: float, threads: int = 1) -> dict:
    """Runs the workload once; CPU is the proxy's own, from before the first connection
    until after the last reply."""
    count = max(500, int(work.count * scale))
    machine = procs.MachineUse(fleet)
    before = procs.cpu(proxy.pid) if proxy.pid else None
    parts = [_generate(proxy.port, work, command, count, threads) for command in work.commands]
    result = {
        # Equal counts, one after the other: the rate of both together.
        "rps": len(parts) / sum(1 / p["rps"] for p in parts),
        "p50_ms": sum(p["p50"] for p in parts) / len(parts),
        "p99_ms": sum(p["p99"] for p in parts) / len(parts),
        **machine.disturbance(),
    }
    if before:
        after = procs.cpu(proxy.pid)
        commands = count * len(parts)
        for key, name in (("total", "cpu_us"), ("user", "user_us"), ("system", "system_us")):
            result[name] = (after[key] - before[key]) / commands * 1e6
        result["rss"] = procs.rss(proxy.pid)
    return result


def idle_cost(proxy, connections: int) -> float:
    """Bytes of the proxy's resident memory per connection that has done one PING, SET
    and GET and then keeps still."""
    # What the first clients make it allocate once (upstream connections, tables) is not
    # the cost of a connection.
    with _held(proxy.port, 200):
        pass
    time.sleep(0.5)
    before = procs.rss(proxy.pid)
    with _held(proxy.port, connections):
        time.sleep(0.5)
        return (procs.rss(proxy.pid) - before) / connections


@contextlib.contextmanager
def _held(port: int, connections: int):
    commands = (("PING",), ("SET", "key:000000000001", VALUE), ("GET", "key:000000000001"))
    request = b"".join(procs.encode(c) for c in commands)
    wanted = b"+PONG\r\n+OK\r\n$%d\r\n%s\r\n" % (len(VALUE), VALUE)
    with contextlib.ExitStack() as stack:
        for i in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            sock.sendall(request)
            got = b""
            while len(got) < len(wanted):
                piece = sock.recv(4096)
                if not piece:
                    break
                got += piece
            if got != wanted:
                raise LoadError(f"connection {i + 1} of {connections} was answered {got[:80]!r}")
        yield
