"""The figures of docs/operations.md, *Sizing*: memory by connections and load, CPU per command.

    .venv/bin/python benches/sizing.py [BINARY...]     (target/release/slotway; several in turns)

Needs redis-server and redis-benchmark; takes about a minute for each binary. A cluster of three
primaries and three replicas runs on the same machine.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/python"))
from servers import Cluster, Slotway, Wire, encode  # noqa: E402

LOADS = {
    "50 clients": ["-c", "50", "-n", "60000", "-t", "set,get"],
    "50 clients, pipeline 16": ["-c", "50", "-P", "16", "-n", "400000", "-t", "set,get"],
    "50 clients, 16 KiB values": ["-c", "50", "-n", "40000", "-d", "16384", "-t", "set,get"],
}
ROUNDS = 3


def resident(slotway):
    """KiB."""
    for line in open(f"/proc/{slotway.child.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])


def cpu(slotway):
    """Seconds."""
    fields = open(f"/proc/{slotway.child.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(cluster, binary):
    os.environ["SLOTWAY_TEST_BIN"] = binary
    slotway = Slotway(cluster).start()
    clients = []
    try:
        print(f"{binary}: {os.path.getsize(binary)} bytes")
        print(f"  2 workers, no client: {resident(slotway)} KiB resident")
        for count in (1000, 10000):
            while len(clients) < count:
                clients.append(Wire(slotway.addr))
                clients[-1].send(encode("GET", "x"))
                clients[-1].exactly(5)
            print(f"  {count} idle clients: {resident(slotway)} KiB resident")
        slotway.stop()
    finally:
        for client in clients:
            client.socket.close()
        slotway.kill()


def load(cluster, binary, took, peak):
    os.environ["SLOTWAY_TEST_BIN"] = binary
    for name, options in LOADS.items():
        slotway = Slotway(cluster).start()
        try:
            before = cpu(slotway)
            command = ["redis-benchmark", "-p", str(slotway.port), "-r", "10000", "-q", *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            commands = 2 * int(options[options.index("-n") + 1])
            took.setdefault((name, binary), []).append((cpu(slotway) - before) / commands * 1e6)
            peak.setdefault((name, binary), []).append(resident(slotway))
            slotway.stop()
        finally:
            slotway.kill()


def main():
    binaries = [os.path.abspath(b) for b in sys.argv[1:] or [ROOT / "target/release/slotway"]]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 30000), hard))
    cluster = Cluster()
    took, peak = {}, {}
    try:
        cluster.start()
        for binary in binaries:
            memory(cluster, binary)
        for _ in range(ROUNDS):
            for binary in binaries:
                load(cluster, binary, took, peak)
    finally:
        cluster.stop()
    for (name, binary), times in took.items():
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name}, {binary}: {statistics.median(times):.2f} µs ({spread}) per command, "
              f"{max(peak[name, binary])} KiB resident")


if __name__ == "__main__":
    main()
