"""What MULTI … EXEC costs beside the same commands pipelined.

redis-benchmark cannot send transactions, so the load is made here: bursts of bytes that
were built before, sent on all connections, then all replies read. Its own cost does not
matter: CPU is the proxy's."""

import contextlib
import random
import socket
import time
from statistics import median

import procs
from load import VALUE, LoadError

CONNECTIONS = 50
#: Application commands per burst, half of them SET, half GET.
COMMANDS = 10
BURSTS = 4_000
KINDS = ("pipelined", "one MULTI … EXEC each", "one MULTI … EXEC each over 3 slots")


def _burst(kind: int, tags: list) -> tuple:
    """The bytes of one burst, and how many bytes its replies are."""
    commands, replies = [], []
    for i in range(COMMANDS):
        key = b"{t%d}:%d" % (tags[i // 2 % len(tags)], i // 2)
        if i % 2 == 0:
            commands.append((b"SET", key, VALUE))
            replies.append(b"+OK\r\n")
        else:
            commands.append((b"SET", key, VALUE, b"GET"))
            replies.append(b"$%d\r\n%s\r\n" % (len(VALUE), VALUE))
    wanted = b"".join(replies)
    if kind > 0:
        commands = [(b"MULTI",), *commands, (b"EXEC",)]
        wanted = b"+OK\r\n" + b"+QUEUED\r\n" * COMMANDS + b"*%d\r\n" % COMMANDS + wanted
    return b"".join(procs.encode(c) for c in commands), len(wanted)


def _run(proxy, kind: int, bursts: int) -> float:
    """The proxy's CPU in microseconds per application command."""
    rng = random.Random(7)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 10)) for _ in range(CONNECTIONS)]
        made = []
        for _ in range(64):
            first = rng.randrange(10_000)
            # Three tags of other slots where the transaction is to be split.
            tags = [first, first + 1, first + 2] if kind == 2 else [first]
            made.append(_burst(kind, tags))
        before = None
        for number in range(-len(made), bursts):
            if number == 0:
                before = procs.cpu(proxy.pid)
            if number % CONNECTIONS == 0 or number < 0:
                chosen = [made[(number + i) % len(made)] for i in range(CONNECTIONS)]
                for client, (frame, _) in zip(clients, chosen):
                    client.sendall(frame)
                for client, (_, size) in zip(clients, chosen):
                    left, said = size, b""
                    while left > 0:
                        piece = client.recv(65536)
                        if not piece:
                            raise LoadError("the proxy closed a connection")
                        left, said = left - len(piece), said + piece
                    if left < 0 or b"\r\n-" in said or said.startswith(b"-"):
                        raise LoadError(f"{KINDS[kind]}: answered {said[:120]!r}")
        after = procs.cpu(proxy.pid)
        rounds = len([n for n in range(bursts) if n % CONNECTIONS == 0])
        return (after["total"] - before["total"]) / (rounds * CONNECTIONS * COMMANDS) * 1e6


def compare(proxy, rounds: int, scale: float, say) -> dict:
    """CPU per command of every kind, and beside the pipelined commands in the same round."""
    bursts = max(CONNECTIONS * 20, int(BURSTS * scale) * CONNECTIONS // 10)
    found = {kind: {"cpu_us": [], "ratio": []} for kind in KINDS}
    for number in range(rounds):
        order = list(range(len(KINDS)))
        order = order[number % 3:] + order[:number % 3]
        got = {}
        for kind in order:
            got[kind] = _run(proxy, kind, bursts)
            time.sleep(0.1)
        for kind, name in enumerate(KINDS):
            found[name]["cpu_us"].append(got[kind])
            found[name]["ratio"].append(got[kind] / got[0])
        say(f"round {number + 1}/{rounds}  transactions of {COMMANDS} commands: "
            + ", ".join(f"{got[k]:.2f}" for k in range(len(KINDS))) + " us/command")
    return {name: {key: median(values) for key, values in row.items()} for name, row in found.items()}


def text(found: dict) -> str:
    lines = [f"\nTransactions of {COMMANDS} commands, {CONNECTIONS} clients: CPU of slotway per command"]
    for name, row in found.items():
        lines.append(f"  {name:<40}{row['cpu_us']:8.2f} us   x{row['ratio']:.2f}")
    return "\n".join(lines)
