"""Commands that are under way at a primary when it is killed, with each value of
commands.on_outcome_unknown: what a raw connection hears, and redis-py's own retries."""

import concurrent.futures
import re
import signal
import urllib.request

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import error_table
from servers import Cluster, Slotway, Wire, encode, until

LOST = error_table.frame("ConnectionLost")
PART = error_table.frame(
    "PartsFailed",
    code="OUTCOMEUNKNOWN",
    failed="1",
    parts="2",
    which=r": \S+ " + error_table.pattern("ConnectionLost") + ".*",
)
SCRIPT = "EVAL return-INCR 1 KEY"
WORDS = {"return-INCR": "return redis.call('INCR', KEYS[1])"}

# Commands that are answered before the primary stands still (the node knows the script then, and
# there are connections to it for both protocols), those that are sent then in one piece, and what is
# heard of these: before a reply that is lost, in its place, and behind it.
CASES = [
    ("", "SET OTHER v; PING; INCR KEY; GET OTHER", rb"\+OK\r\n\+PONG\r\n", LOST, rb"\$1\r\nv\r\n"),
    ("", "MULTI; INCR KEY; EXEC; PING", rb"\+OK\r\n\+QUEUED\r\n", LOST, rb"\+PONG\r\n"),
    # split: a part of EXEC's reply says it
    ("", "MULTI; INCR KEY; SET OTHER v; EXEC", rb"\+OK\r\n\+QUEUED\r\n\+QUEUED\r\n", rb"\*2\r\n" + LOST, rb"\+OK\r\n"),
    ("", "PING; DEL KEY OTHER", rb"\+PONG\r\n", PART, b""),
    (SCRIPT, SCRIPT, b"", LOST, b""),
    # over the connection that watches
    ("WATCH KEY", "MULTI; INCR KEY; EXEC", rb"\+OK\r\n\+QUEUED\r\n", LOST, b""),
    ("CLIENT REPLY OFF", "INCR KEY; CLIENT REPLY ON", b"", b"", rb"\+OK\r\n"),
    ("HELLO 3; INCR KEY; SUBSCRIBE news", "PING; INCR KEY; PING", rb"\+PONG\r\n", LOST, rb"\+PONG\r\n"),
]

# Commands that may be executed twice, with their results and how many are under way at the node.
REPEATABLE = [
    (lambda c, key: c.set(key, "v"), True, 1),
    (lambda c, key: c.get(key), b"v", 1),
    (lambda c, key: c.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, key, "v"), b"OK", 1),
    (lambda c, key: c.pipeline().set(key, "v").expire(key, 1000).execute(), [True, True], 1),
    (lambda c, key: c.pipeline(transaction=False).set(key, "v").get(key).execute(), [True, b"v"], 2),
]


def metric(slotway, name, labels=""):
    text = urllib.request.urlopen(f"http://127.0.0.1:{slotway.admin}/metrics", timeout=10).read().decode()
    samples = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.M)
    return sum(float(value) for has, value in samples if labels in has)


def closed(slotway):
    return metric(slotway, "slotway_clients_disconnected_total", 'reason="outcome_unknown"')


class Scene:
    """A cluster, a slotway for each value, and what is killed."""

    def __init__(self):
        # all is sent before the cluster puts another node in the place of the one that stands still
        self.cluster = Cluster(options=["--cluster-node-timeout", "5000"])
        self.dying = self.cluster.primaries[0]
        self.slotways = {value: self.slotway(value) for value in ("error", "disconnect")}

    def slotway(self, value):
        # one connection for all clients of a protocol, and what stands still is written to: so
        # what is under way is sent
        settings = ["upstream.connections=1", "timeouts.probe=0", "timeouts.command=60s"]
        settings += ["transactions.cross_slot=split", f"commands.on_outcome_unknown={value}"]
        return Slotway(self.cluster, settings=settings, workers=1)

    def start(self):
        self.cluster.start()
        for slotway in self.slotways.values():
            slotway.start()
        first = 16384 // len(self.cluster.primaries)
        slots = {str(i): int(self.dying.ask("CLUSTER", "KEYSLOT", i)[1:]) for i in range(100)}
        self.key = next(key for key, slot in slots.items() if slot < first - 1)
        self.other = next(key for key, slot in slots.items() if first < slot < 2 * first - 1)

    def stop(self):
        for slotway in self.slotways.values():
            slotway.kill()
        self.cluster.stop()

    def in_flight(self, slotway):
        return metric(slotway, "slotway_upstream_in_flight", f'node="127.0.0.1:{self.dying.port}"')

    def commands(self, text):
        words = {"KEY": self.key, "OTHER": self.other, **WORDS}
        return [[words.get(w, w) for w in command.split()] for command in text.split("; ") if command]

    def connected(self, slotway, before):
        """A connection that has had the replies to the commands `before`."""
        wire = Wire(slotway.addr)
        for command in self.commands(before):
            wire.send(encode(*command))
        if before != "CLIENT REPLY OFF":
            wire.send(encode("PING", "begun"))
            until_it_ends_with(wire, b"begun\r\n")
        return wire


def until_it_ends_with(wire, end):
    got = b""
    while not got.endswith(end):
        piece = wire.socket.recv(1 << 16)
        assert piece, f"closed after {got}"
        got += piece
    return got[: -len(end)]


def to_the_end(wire):
    """All bytes until the other side says that it has sent all: a reset could have taken replies back."""
    got = b""
    while piece := wire.socket.recv(1 << 16):
        got += piece
    return got


def retrying(slotway, i):
    """A client with one connection, which is made now: what it asks at its beginning is answered."""
    retry = Retry(NoBackoff(), 3)
    client = redis.Redis(port=slotway.port, protocol=2 + i % 2, retry=retry, single_connection_client=True)
    client.ping()
    return client


@pytest.fixture
def scene():
    scene = Scene()
    try:
        scene.start()
        yield scene
        for slotway in scene.slotways.values():
            slotway.stop()
    finally:
        scene.stop()


def test_a_primary_is_killed_with_commands_under_way(scene):
    key = scene.key
    wires = {v: [scene.connected(s, case[0]) for case in CASES] for v, s in scene.slotways.items()}
    blocked = {v: Wire(slotway.addr) for v, slotway in scene.slotways.items()}
    for value, wire in blocked.items():
        wire.send(encode("BLPOP", f"{{{key}}}{value}", 0))
    for slotway in scene.slotways.values():
        until("BLPOP blocks", lambda: scene.in_flight(slotway) == 1)
    disconnecting = scene.slotways["disconnect"]
    work = [(retrying(disconnecting, i), *REPEATABLE[i // 2]) for i in range(2 * len(REPEATABLE))]
    for client, do, result, _ in work:
        assert do(client, key) == result

    with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
        scene.dying.child.send_signal(signal.SIGSTOP)
        for all_of_one in wires.values():
            for wire, case in zip(all_of_one, CASES):
                wire.send(b"".join(encode(*command) for command in scene.commands(case[1])))
        retried = [pool.submit(do, client, key) for client, do, *_ in work]
        under_way = {"error": 1 + len(CASES), "disconnect": 1 + len(CASES) + sum(count for *_, count in work)}
        for value, slotway in scene.slotways.items():
            until("all are under way", lambda: scene.in_flight(slotway) == under_way[value])
        scene.dying.child.kill()
        scene.dying.child.wait()
        # a client that retries sees no error
        assert [one.exception(60) or one.result() for one in retried] == [result for _, _, result, _ in work]

    for wire, (_, commands, before, in_place, behind) in zip(wires["error"], CASES):
        wire.send(encode("PING", "end"))
        assert re.fullmatch(before + in_place + behind, until_it_ends_with(wire, b"$3\r\nend\r\n")), commands
    for wire, (_, commands, before, *_) in zip(wires["disconnect"], CASES):
        assert re.fullmatch(before, to_the_end(wire)), commands
    assert metric(scene.slotways["error"], "slotway_outcome_unknown_total") == len(CASES)
    assert closed(scene.slotways["error"]) == 0
    # but for the GETs, which slotway has sent again by itself
    assert closed(disconnecting) == len(CASES) + len(work) - 2

    # who blocks waits on at the next primary
    for value, slotway in scene.slotways.items():
        name = f"{{{key}}}{value}"
        assert redis.Redis(port=slotway.port).rpush(name, "x") == 1
        expected = encode(name, "x")
        assert blocked[value].exactly(len(expected)) == expected
