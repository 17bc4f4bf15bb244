"""What a quiet client feels of a greedy one: the 99th percentile of single GETs beside a
client that pipelines without end, through slotway with one worker, and beside the same
client straight at a server of the same kind.

Both clients are processes of their own, so that neither waits for the other's Python."""

import multiprocessing
import selectors
import socket
import sys
import time
from statistics import median

import procs

#: At most this much of the bare server's 99th percentile is wanted of slotway.
WANTED = 2.0
SECONDS = 3.0
VALUE = b"x" * 64
#: All of one slot: everything meets at one server, as it does without a proxy.
KEYS = [b"{fair}:%d" % i for i in range(1000)]
#: What the greedy client sends: name -> how the block of commands is made.
GREEDY = {
    "GET": lambda key: (b"GET", key),
    "SET of 1 KiB": lambda key: (b"SET", key + b":big", b"y" * 1024),
    "SET of 16 KiB": lambda key: (b"SET", key + b":big", b"y" * 16384),
    "nothing": None,
}


def _greedy(port: int, block: bytes, ready, stop, count):
    """Sends as fast as the socket takes it, reads as fast as replies come."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    view, at, room, replies = memoryview(block), 0, bytearray(1 << 20), 0
    ready.set()
    while not stop.is_set():
        for _, events in selector.select(0.1):
            try:
                if events & selectors.EVENT_READ:
                    got = sock.recv_into(room)
                    if got == 0:
                        raise ConnectionError("the greedy client was closed")
                    replies += got
                if events & selectors.EVENT_WRITE:
                    at = (at + sock.send(view[at:])) % len(block)
            except BlockingIOError:
                pass
    count.value = replies


def _quiet(port: int, seconds: float) -> list:
    """Latencies of single GETs, in milliseconds."""
    sock = socket.create_connection(("127.0.0.1", port), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request, wanted = procs.encode((b"GET", KEYS[0])), len(b"$64\r\n") + len(VALUE) + 2
    took, end = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        sock.sendall(request)
        got = 0
        while got < wanted:
            piece = sock.recv(4096)
            if not piece:
                raise ConnectionError("the quiet client was closed")
            got += len(piece)
        took.append((time.perf_counter() - begun) * 1e3)
    return took


def _measure(port: int, command, seconds: float) -> dict:
    context = multiprocessing.get_context("fork")
    ready, stop, count = context.Event(), context.Event(), context.Value("q", 0)
    greedy = None
    if command:
        block = b"".join(procs.encode(command(key)) for key in KEYS)
        greedy = context.Process(target=_greedy, args=(port, block, ready, stop, count), daemon=True)
        greedy.start()
        ready.wait(10)
        time.sleep(0.3)
    begun = time.perf_counter()
    try:
        took = sorted(_quiet(port, seconds))
    finally:
        stop.set()
        if greedy:
            greedy.join(10)
    passed = time.perf_counter() - begun
    at = lambda share: took[min(len(took) - 1, int(share * len(took)))]  # noqa: E731
    return {"p50": at(0.5), "p99": at(0.99), "max": took[-1], "gets": len(took),
            "greedy_mb_s": count.value / 1e6 / passed}


def compare(proxy, bare: int, rounds: int, scale: float, say) -> dict:
    """In turns; the ratio is that of the medians."""
    for port in (proxy.port, bare):
        with procs.Resp(port) as conn:
            for key in KEYS:
                conn.call(b"SET", key, VALUE)
    seconds = max(0.5, SECONDS * scale)
    found = {}
    for name, command in GREEDY.items():
        runs = {"slotway": [], "bare": []}
        for number in range(rounds):
            order = [("slotway", proxy.port), ("bare", bare)]
            for who, port in order if number % 2 == 0 else order[::-1]:
                got = _measure(port, command, seconds)
                runs[who].append(got)
                say(f"round {number + 1}/{rounds}  quiet beside greedy {name}: {who:<8} p50 {got['p50']:7.3f} ms"
                    f"  p99 {got['p99']:7.3f} ms  max {got['max']:8.3f} ms  greedy {got['greedy_mb_s']:6.1f} MB/s")
        row = {who: {key: median(r[key] for r in got) for key in got[0]} for who, got in runs.items()}
        row["ratio"] = row["slotway"]["p99"] / row["bare"]["p99"]
        found[name] = row
    return found


def text(found: dict) -> str:
    lines = [f"\nA quiet client beside a greedy one (wanted: 99th percentile at most x{WANTED:.0f} of the bare server's)"]
    for name, row in found.items():
        ours, bare = row["slotway"], row["bare"]
        mark = "" if name == "nothing" else ("  ok" if row["ratio"] <= WANTED else "  MISSED")
        lines.append(f"  greedy: {name:<14}p50 {ours['p50']:7.3f} / {bare['p50']:7.3f} ms   p99 {ours['p99']:7.3f} / "
                     f"{bare['p99']:7.3f} ms   x{row['ratio']:.2f}{mark}   greedy {ours['greedy_mb_s']:.0f} / "
                     f"{bare['greedy_mb_s']:.0f} MB/s")
    return "\n".join(lines)


if __name__ == "__main__":
    # python3 fairness.py PORT BARE_PORT [ROUNDS]: against what runs already.
    class _Running:
        port = int(sys.argv[1])

    print(text(compare(_Running, int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3, 1.0,
                       lambda line: print(line, file=sys.stderr))))
