"""What a quiet client (one GET of 64 bytes at a time) feels of four clients that pipeline large
commands, through slotway with one and two workers and straight at a server of the same kind. The
load "busy CPUs" sends nothing: four processes compute. It shows what each hop costs where every CPU
is taken, which no fairness between clients can mend. Starts all servers itself; `SLOTWAY_TEST_BIN` names another slotway than target/release/slotway. No
packages are needed:

    python3 benches/large_replies.py [--rounds 3] [--seconds 4] [--only GET,SET]
"""

import argparse
import multiprocessing
import pathlib
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "python"))

from servers import Cluster, Slotway, Standalone, Wire, encode  # noqa: E402

#: At most this much of the bare server's 99th percentile is wanted of slotway.
WANTED = 1.2
CLIENTS = 4
MB = 1_000_000
#: All heavy keys and the quiet client's are of one slot; `{other}` belongs to another node.
HERE, ELSEWHERE = b"{heavy}:quiet", b"{other}:quiet"
VALUES = {b"{heavy}:1m": MB, b"{heavy}:30k": 30_000, b"{heavy}:100k": 100_000, HERE: 64, ELSEWHERE: 64}
#: In place of a command: compute and send nothing.
BUSY = object()
#: Name -> what a heavy client sends, how often before it reads, the bytes of a reply, the quiet key.
LOADS = {
    "GET 1 MB x300": (encode("GET", "{heavy}:1m"), 300, len(b"$1000000\r\n\r\n") + MB, HERE),
    "GET 1 MB x1": (encode("GET", "{heavy}:1m"), 1, len(b"$1000000\r\n\r\n") + MB, HERE),
    "GET 30 KB x3000": (encode("GET", "{heavy}:30k"), 3000, len(b"$30000\r\n\r\n") + 30_000, HERE),
    "MGET 10x100 KB x300": (encode("MGET", *["{heavy}:100k"] * 10), 300,
                            len(b"*10\r\n") + 10 * (len(b"$100000\r\n\r\n") + 100_000), HERE),
    "SET 1 MB x300": (encode("SET", "{heavy}:set", b"v" * MB), 300, len(b"+OK\r\n"), HERE),
    "SET 1 MB x1": (encode("SET", "{heavy}:set", b"v" * MB), 1, len(b"+OK\r\n"), HERE),
    "GET 1 MB x300, other node": (encode("GET", "{heavy}:1m"), 300, len(b"$1000000\r\n\r\n") + MB, ELSEWHERE),
    "busy CPUs": (BUSY, 0, 0, HERE),
    "nothing": (None, 0, 0, HERE),
}


def heavy(addr, command, count, reply, stop, taken):
    """Sends `count` commands, reads their replies, and again."""
    with Wire(addr, timeout=120) as wire:
        room, block = bytearray(1 << 20), command * count
        while not stop.is_set():
            sender = threading.Thread(target=wire.send, args=(block,))
            sender.start()
            missing = count * reply
            while missing and (got := wire.socket.recv_into(room, min(len(room), missing))):
                missing -= got
                taken.value += got
            assert not missing, "closed"
            sender.join()


def computing():
    while True:
        pass


def quiet(addr, key, seconds):
    times, request = [], encode("GET", key)
    with Wire(addr, timeout=120) as wire:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            wire.send(request)
            assert wire.exactly(5 + 64 + 2).startswith(b"$64")
            times.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.0005)
    return sorted(times)


def measure(addr, load, seconds):
    command, count, reply, key = load
    context = multiprocessing.get_context("fork")
    stop, taken, heavies = context.Event(), [context.Value("q", 0) for _ in range(CLIENTS)], []
    if command is BUSY:
        heavies = [context.Process(target=computing) for _ in range(CLIENTS)]
    elif command:
        heavies = [context.Process(target=heavy, args=(addr, command, count, reply, stop, t)) for t in taken]
    # The quiet client is there first, and meets the first burst.
    for process in heavies:
        process.start()
    begun = time.perf_counter()
    times = quiet(addr, key, seconds)
    passed, replies = time.perf_counter() - begun, [t.value for t in taken]
    stop.set()
    for process in heavies:
        if command is BUSY:
            process.kill()
        process.join()
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))]  # noqa: E731
    return {"p50": at(0.5), "p99": at(0.99), "max": times[-1], "gets": len(times),
            "MB/s": sum(replies) / 1e6 / passed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="", help="loads whose names contain one of these")
    args = parser.parse_args()
    loads = {n: x for n, x in LOADS.items() if any(part in n for part in args.only.split(","))}
    cluster = Cluster()
    whom = {"bare": Standalone()}
    whom |= {f"{n} worker{'s'[: n - 1]}": Slotway(cluster, workers=n) for n in (1, 2)}
    try:
        cluster.start()
        for server in whom.values():
            server.start()
        for server in ("bare", "1 worker"):
            for key, size in VALUES.items():
                with Wire(whom[server].addr) as wire:
                    wire.send(encode("SET", key, b"v" * size))
                    assert wire.exactly(5) == b"+OK\r\n"
        for name, load in loads.items():
            runs = {server: [] for server in whom}
            for round_ in range(args.rounds):
                names = list(whom) if round_ % 2 == 0 else list(whom)[::-1]
                for server in names:
                    runs[server].append(measure(whom[server].addr, load, args.seconds))
            print(f"\n{name}")
            rows = {s: {k: statistics.median(r[k] for r in got) for k in got[0]} for s, got in runs.items()}
            for server, row in rows.items():
                ratio = row["p99"] / rows["bare"]["p99"]
                print(f"  {server:<10} p50 {row['p50']:8.2f}  p99 {row['p99']:8.2f}  max {row['max']:8.2f} ms"
                      f"  x{ratio:.2f}{'' if ratio <= WANTED else ' MISSED'}  {row['gets']:.0f} GETs"
                      f"  heavy {row['MB/s']:.0f} MB/s", flush=True)
    finally:
        for server in whom.values():
            server.kill()
        cluster.stop()


if __name__ == "__main__":
    main()
