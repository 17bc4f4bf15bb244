"""Starts and stops the processes that the tests talk to: servers, a cluster of them, slotway.

What is under test is chosen by the environment:

- SLOTWAY_TEST_TARGET=standalone: a plain redis-server; every test must pass there too
- SLOTWAY_TEST_ADDR=host:port: something that runs already; tests that restart it are skipped
- otherwise: a cluster of 3 primaries and 3 replicas, and target/release/slotway
  (SLOTWAY_TEST_BIN: another binary) in front of it
"""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds until something that does not come counts as broken


CLAIMS = []  # of ports whose servers may not have started yet; as in src/sandbox/ports.rs


def free_ports(count):
    """Ports that are free, as are those 10000 above them (a cluster node's bus).

    Below the kernel's ephemeral range: a server that comes back must find its port free.
    """
    found = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.randrange(11000, 21000)
            try:
                for p in (port, port + 10000):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", p))
                    claim = socket.socket(socket.AF_UNIX)
                    CLAIMS.append(claim)
                    claim.bind(f"\0slotway-port-{p}")
            except OSError:
                continue
            found.append(port)
    return found


def until(what, check):
    """Waits for check() to return something true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        result = check()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not in {PATIENCE} s")


class Wire:
    """A raw connection, for what clients do not do by themselves."""

    def __init__(self, addr, timeout=30, source=None):
        if isinstance(addr, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.socket()
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout)
        self.socket.connect(addr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        got = bytearray()
        while len(got) < count:
            piece = self.socket.recv(min(1 << 20, count - len(got)))
            assert piece, f"closed after {bytes(got[-200:])!r}"
            got += piece
        return bytes(got)

    def to_the_end(self):
        """All bytes until the other side closes."""
        got = bytearray()
        while True:
            try:
                piece = self.socket.recv(1 << 20)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return bytes(got)
            got += piece


def encode(*args):
    """A command as clients send it."""
    args = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


class Process:
    """One child process with a folder of its own."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="slotway-py-"))
        self.child = None

    def run(self, args, env=None):
        self.log = open(self.dir / "log", "ab")
        self.child = subprocess.Popen(
            [str(a) for a in args], cwd=self.dir, stdout=self.log, stderr=self.log, env=env
        )

    def said(self):
        return (self.dir / "log").read_text(errors="replace")[-4000:]

    def answers(self, addr):
        assert self.child.poll() is None, f"{self.child.args} ended:\n{self.said()}"
        try:
            with Wire(addr) as w:
                w.send(b"PING\r\n")
                return w.exactly(7) == b"+PONG\r\n"
        except OSError:
            return False

    def kill(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Server(Process):
    """A redis-server, or another program that takes its options."""

    def __init__(self, port=None, options=(), program="redis-server"):
        super().__init__()
        self.program = program
        self.port = port or free_ports(1)[0]
        self.addr = ("127.0.0.1", self.port)
        self.options = list(options)

    def start(self):
        args = [self.program, "--port", self.port, "--bind", "127.0.0.1", "--save", ""]
        self.run(args + self.options)
        until("the server answers", lambda: self.answers(self.addr))
        return self

    def ask(self, *args):
        """One line of answer."""
        with Wire(self.addr) as w:
            w.send(encode(*args))
            answer = w.socket.recv(1 << 16).decode()
        assert not answer.startswith("-"), f"{args}: {answer}"
        return answer

    def name(self):
        """As cluster nodes call it."""
        return self.ask("CLUSTER", "MYID").split("\r\n")[1]


class Cluster:
    """Real cluster nodes: 3 primaries, then 3 replicas."""

    def __init__(self, primaries=3, options=(), program="redis-server"):
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options]
        self.nodes = [Server(port, options, program) for port in free_ports(2 * primaries)]
        self.primaries = self.nodes[:primaries]

    def start(self):
        for node in self.nodes:
            node.start()
        count = len(self.primaries)
        first = self.nodes[0]
        for i, node in enumerate(self.primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", i * 16384 // count, (i + 1) * 16384 // count - 1)
        names = [node.name() for node in self.nodes]
        until("nodes know each other", lambda: self.meet(first, names))
        for primary, replica in zip(self.primaries, self.nodes[count:]):
            replica.ask("CLUSTER", "REPLICATE", primary.name())
        for node in self.nodes:
            until("cluster is ok", lambda: "cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        for replica in self.nodes[count:]:
            until("replica is up", lambda: "link_status:up" in replica.ask("INFO", "replication"))
        return self

    def meet(self, first, names):
        """Whether all know each other within a second; on a busy machine they forget a MEET."""
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port)
        for _ in range(50):
            views = [node.ask("CLUSTER", "NODES") for node in self.nodes]
            if all(name in view for name in names for view in views):
                return True
            time.sleep(0.02)
        return False

    def stop(self):
        for node in self.nodes:
            node.kill()


class Slotway(Process):
    """slotway in front of a cluster."""

    is_slotway = True

    def __init__(self, cluster, output_limit=None, settings=(), workers=2):
        super().__init__()
        self.cluster = cluster
        self.workers = workers
        self.settings = list(settings)
        self.port, self.admin = free_ports(2)
        self.addr = ("127.0.0.1", self.port)
        self.unix = str(self.dir / "s.sock")
        self.output_limit = output_limit

    def start(self):
        binary = os.environ.get("SLOTWAY_TEST_BIN", REPOSITORY / "target/release/slotway")
        seeds = ",".join(f"127.0.0.1:{n.port}" for n in self.cluster.nodes)
        args = [binary, "run", "--listen", f"127.0.0.1:{self.port},unix:{self.unix}"]
        args += ["--seeds", seeds, "--admin", f"127.0.0.1:{self.admin}", "--workers", self.workers]
        if self.output_limit:
            args += ["--set", f"limits.client_output={self.output_limit}"]
        for setting in self.settings:
            args += ["--set", setting]
        # the tests' own SLOTWAY_ variables are no configuration
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLOTWAY_")}
        self.run(args, env=inherited)
        until("slotway is ready", self.ready)
        return self

    def ready(self):
        assert self.child.poll() is None, f"slotway ended:\n{self.said()}"
        try:
            url = f"http://127.0.0.1:{self.admin}/readyz"
            return urllib.request.urlopen(url, timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self):
        """As an init system stops it."""
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(PATIENCE)
        assert code == 0, f"exit code {code}:\n{self.said()}"


class Standalone(Server):
    """A plain server in slotway's place, to try the tests themselves."""

    is_slotway = False

    def __init__(self, _cluster=None, output_limit=None, settings=()):
        super().__init__()
        self.unix = str(self.dir / "s.sock")
        self.options = ["--unixsocket", self.unix]
        if output_limit:
            limit = output_limit.lower().replace("ib", "b")
            self.options += ["--client-output-buffer-limit", "normal", limit, "0", "0"]

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(PATIENCE) == 0


class Running:
    """Something that somebody else has started."""

    is_slotway = True

    def __init__(self, addr):
        host, port = addr.rsplit(":", 1)
        self.addr = (host, int(port))


def main():
    """servers.py COMMAND …: runs it with SLOTWAY_TEST_ADDR set, and ends as it ends."""
    # a SIGTERM ends it like any error: with everything stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cluster = None
    if os.environ.get("SLOTWAY_TEST_TARGET") == "standalone":
        server = Standalone()
    else:
        cluster = Cluster()
        server = Slotway(cluster)
    try:
        if cluster:
            cluster.start()
        server.start()
        host, port = server.addr
        environment = {**os.environ, "SLOTWAY_TEST_ADDR": f"{host}:{port}"}
        code = subprocess.call(sys.argv[1:], env=environment)
        if code:
            print(f"the last that was logged:\n{server.said()}", file=sys.stderr)
        server.stop()
        return code
    finally:
        server.kill()
        if cluster:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
