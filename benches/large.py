"""Large things, through slotway and straight to a single Redis server, side by side: how long each
takes, and how long another client's PINGs and GETs take meanwhile. For slotway also what its memory
grows to. Starts all servers itself; `SLOTWAY_TEST_BIN` names another slotway than
target/release/slotway. No packages are needed:

    python3 benches/large.py [--rounds 3]
"""

import argparse
import pathlib
import statistics
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "python"))

from servers import Cluster, Slotway, Standalone, Wire, encode  # noqa: E402

MIB = 1 << 20
OTHERS = [encode("PING")] + [encode("GET", f"by:{k}") for k in "abc"]


class Reader:
    """Replies of a connection, thrown away as they come."""

    def __init__(self, wire):
        self.socket = wire.socket
        self.got = b""
        self.at = 0

    def line(self):
        while (end := self.got.find(b"\r\n", self.at)) < 0:
            self.more()
        line = self.got[self.at : end]
        self.at = end + 2
        return line

    def more(self):
        piece = self.socket.recv(1 << 20)
        assert piece, "closed"
        self.got = self.got[self.at :] + piece
        self.at = 0

    def skip(self, count):
        have = len(self.got) - self.at
        if count <= have:
            self.at += count
            return
        count -= have
        self.got, self.at = b"", 0
        while count:
            piece = self.socket.recv(min(count, 1 << 20))
            assert piece, "closed"
            count -= len(piece)

    def reply(self):
        """Reads one reply whole; its first line."""
        first = self.line()
        missing = self.rest(first)
        while missing:
            missing += self.rest(self.line()) - 1
        return first

    def rest(self, line):
        """How many replies are still to come for this one."""
        assert not line.startswith(b"-"), line
        if line[:1] == b"$" and line != b"$-1":
            self.skip(int(line[1:]) + 2)
        return int(line[1:]) if line[:1] == b"*" else 0


def things(ask):
    """Name, preparation and the large thing itself."""
    keys = [f"large:m:{i}" for i in range(100_000)]
    pairs = [x for k in keys for x in (k, k)]
    fields = "for i = ARGV[1], ARGV[1] + 99999 do redis.call('HSET', KEYS[1], 'field:' .. i, 'value:' .. i) end"
    strings = "for i = 1, 50000 do redis.call('SET', KEYS[1] .. i, '') end"
    burst = encode("MULTI") + encode("INCR", "{large}:t") * 100_000 + encode("EXEC")

    def hash_of_a_million():
        for i in range(10):
            ask(encode("EVAL", fields, 1, "large:hash", i * 100_000), 1)

    def million_keys():
        for tag in range(20):
            ask(encode("EVAL", strings, 1, f"large:k:{{{tag}}}:"), 1)

    nothing = lambda: None  # noqa: E731
    return [
        ("SET of 256 MiB", nothing, lambda: ask(encode("SET", "large:value", b"v" * (256 * MIB)), 1)),
        ("GET of 256 MiB", nothing, lambda: ask(encode("GET", "large:value"), 1)),
        ("HGETALL, a million fields", hash_of_a_million, lambda: ask(encode("HGETALL", "large:hash"), 1)),
        ("MSET of 100,000 keys", nothing, lambda: ask(encode("MSET", *pairs), 1)),
        ("MGET of 100,000 keys", nothing, lambda: ask(encode("MGET", *keys), 1)),
        ("KEYS, a million keys", million_keys, lambda: ask(encode("KEYS", "large:k:*"), 1)),
        ("MULTI, 100,000 INCR, EXEC", nothing, lambda: ask(burst, 100_002)),
    ]


def asker(addr):
    def ask(data, replies):
        with Wire(addr, timeout=120) as wire:
            reader = Reader(wire)
            sender = threading.Thread(target=wire.send, args=(data,))
            sender.start()
            for _ in range(replies):
                reader.reply()
            sender.join()

    return ask


def bystander(addr, stop, times):
    with Wire(addr, timeout=120) as wire:
        reader = Reader(wire)
        while not stop.is_set():
            for command in OTHERS:
                since = time.monotonic()
                wire.send(command)
                reader.reply()
                times.append((time.monotonic() - since) * 1000)
                time.sleep(0.0005)


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def buffers(admin):
    page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=30).read().decode()
    line = next(x for x in page.splitlines() if x.startswith("slotway_buffer_bytes"))
    return int(float(line.split()[-1])) // MIB


def watch(server, stop, peak):
    while not stop.is_set():
        peak["resident"] = max(peak["resident"], resident(server.child.pid))
        peak["buffers"] = max(peak["buffers"], buffers(server.admin))
        time.sleep(0.02)


def measure(server, act):
    """Seconds, the other client's milliseconds, slotway's peak in MiB."""
    stop, times, peak = threading.Event(), [], {"resident": 0, "buffers": 0}
    threads = [threading.Thread(target=bystander, args=(server.addr, stop, times))]
    if server.is_slotway:
        threads.append(threading.Thread(target=watch, args=(server, stop, peak)))
    for t in threads:
        t.start()
    since = time.monotonic()
    try:
        act()
    finally:
        took = time.monotonic() - since
        stop.set()
        for t in threads:
            t.join()
    times.sort()
    return took, times[len(times) // 2], times[int(len(times) * 0.99)], times[-1], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cluster = Cluster()
    # a server busy for seconds must not be taken for dead
    for node in cluster.nodes:
        node.options[node.options.index("--cluster-node-timeout") + 1] = "30000"
    servers = {"one server": Standalone(), "slotway": Slotway(cluster)}
    results = {}
    try:
        cluster.start()
        for server in servers.values():
            server.start()
        for _ in range(rounds):
            for name, server in servers.items():
                ask = asker(server.addr)
                ask(encode("FLUSHALL"), 1)
                for what, prepare, act in things(ask):
                    prepare()
                    results.setdefault((what, name), []).append(measure(server, act))
                ask(encode("FLUSHALL"), 1)
    finally:
        for server in servers.values():
            server.kill()
        cluster.stop()
    print(f"Medians of {rounds} rounds; of the other client: median · 99 % · longest, ms\n")
    print("| | one server | its other client | slotway | its other client | slotway's memory: resident, buffers (MiB) |")
    print("|---|---|---|---|---|---|")
    for what in dict.fromkeys(what for what, _ in results):
        cells = []
        for name in servers:
            runs = results[what, name]
            mid = [statistics.median(run[i] for run in runs) for i in range(4)]
            cells += [f"{mid[0]:.2f} s", f"{mid[1]:.1f} · {mid[2]:.1f} · {mid[3]:.0f}"]
        peaks = [max(run[4][k] for run in results[what, "slotway"]) for k in ("resident", "buffers")]
        print(f"| {what} | {' | '.join(cells)} | {peaks[0]}, {peaks[1]} |")


if __name__ == "__main__":
    main()
