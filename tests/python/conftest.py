"""What every test here gets: the server under test, clients of every kind, keys of its own."""

import inspect
import os
import signal
import subprocess
import sys
import uuid

import pytest
import redis
import redis.asyncio
from redis._parsers import (
    _AsyncHiredisParser,
    _AsyncRESP2Parser,
    _AsyncRESP3Parser,
    _HiredisParser,
    _RESP2Parser,
    _RESP3Parser,
)

from servers import Cluster, Running, Server, Slotway, Standalone, free_ports

# a SIGTERM ends the tests like any error: with everything stopped
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

PARSERS = {
    ("sync", "hiredis", 2): _HiredisParser,
    ("sync", "hiredis", 3): _HiredisParser,
    ("sync", "python", 2): _RESP2Parser,
    ("sync", "python", 3): _RESP3Parser,
    ("asyncio", "hiredis", 2): _AsyncHiredisParser,
    ("asyncio", "hiredis", 3): _AsyncHiredisParser,
    ("asyncio", "python", 2): _AsyncRESP2Parser,
    ("asyncio", "python", 3): _AsyncRESP3Parser,
}


@pytest.fixture(scope="session")
def start(request):
    """Starts what is under test, as often as a test needs it; stops it all at the end."""
    started = []
    clusters = []

    def go(**options):
        if os.environ.get("SLOTWAY_TEST_TARGET") == "standalone":
            server = Standalone(**options)
        elif "SLOTWAY_TEST_ADDR" in os.environ:
            pytest.skip("SLOTWAY_TEST_ADDR names a server that is not ours to start")
        else:
            if not clusters:
                clusters.append(Cluster())
                clusters[0].start()
            server = Slotway(clusters[0], **options)
        started.append(server)
        return server.start()

    yield go
    try:
        for server in started:
            if request.session.testsfailed:
                print(f"the last that {server.addr} logged:\n{server.said()}")
            if server.child.poll() is None:
                server.stop()
    finally:
        for server in started:
            server.kill()
        for cluster in clusters:
            cluster.stop()


@pytest.fixture(scope="session")
def server(start):
    """The server under test, shared by the tests."""
    if "SLOTWAY_TEST_ADDR" in os.environ and "SLOTWAY_TEST_TARGET" not in os.environ:
        return Running(os.environ["SLOTWAY_TEST_ADDR"])
    return start()


@pytest.fixture(scope="session")
def observed(tmp_path_factory):
    """A slotway of its own before a cluster of its own, for tests that look at it and break it: with
    users, with TLS, with limits that are soon reached."""
    if "SLOTWAY_TEST_TARGET" in os.environ or "SLOTWAY_TEST_ADDR" in os.environ:
        pytest.skip("needs a slotway of its own")
    folder = tmp_path_factory.mktemp("observed")
    key, cert = folder / "key.pem", folder / "cert.pem"
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90".split()
    new += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run(new, check=True, capture_output=True)
    (tls_port,) = free_ports(1)
    cluster = Cluster()
    server = Slotway(cluster, settings=[
        f"tls.downstream.listen=127.0.0.1:{tls_port}",
        f"tls.downstream.cert={cert}",
        f"tls.downstream.key={key}",
        "users=user default on nopass ~* &* +@all,user app on >app-secret ~app:* &* +@read",
        "replicas.check=200ms",
        "topology.refresh=1s",
        "transactions.cross_slot=split",
        "commands.cross_slot=emulate",
        "limits.clients=100",
        "limits.bulk=1MiB",
        "timeouts.command=2s",
    ])
    server.tls_port, server.certificate = tls_port, cert
    try:
        cluster.start()
        yield server.start()
    finally:
        server.kill()
        cluster.stop()


@pytest.fixture(scope="session")
def standalone():
    """A plain server to compare with."""
    server = Server().start()
    yield server
    server.kill()


@pytest.fixture
def key():
    """Makes key names that no other test has; without a hash tag, so all over the slots."""
    mark = uuid.uuid4().hex[:12]
    return lambda name="k": f"{name}:{mark}"


@pytest.fixture
def tagged():
    """The same, all in one slot."""
    mark = uuid.uuid4().hex[:12]
    return lambda name="k": f"{{{mark}}}{name}"


class Either:
    """A sync or asyncio client, to be used with await in both cases."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        method = getattr(self.client, name)

        async def call(*args, **options):
            result = method(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return call

    def pipeline(self, transaction=False):
        """A pipeline: queue commands on .client, then await execute()."""
        return Either(self.client.pipeline(transaction=transaction))

    def register_script(self, code):
        script = self.client.register_script(code)

        async def call(**options):
            result = script(**options)
            return await result if inspect.isawaitable(result) else result

        return call


@pytest.fixture(params=PARSERS, ids=lambda p: f"{p[0]}-{p[1]}-resp{p[2]}")
def kind(request):
    return request.param


@pytest.fixture
async def connect(server, kind):
    """Makes clients of this test's kind."""
    opened = []
    how, _, protocol = kind
    module = redis if how == "sync" else redis.asyncio

    def go(addr=server.addr, **options):
        # legacy_responses=False: the same Python values from both protocols
        pool = module.ConnectionPool(
            host=addr[0],
            port=addr[1],
            protocol=protocol,
            parser_class=PARSERS[kind],
            legacy_responses=False,
            socket_timeout=15,
            **options,
        )
        client = Either(module.Redis(connection_pool=pool))
        opened.append((client, pool))
        return client

    yield go
    for client, pool in opened:
        await client.close() if how == "sync" else await client.aclose()
        closed = pool.disconnect()
        if inspect.isawaitable(closed):
            await closed


@pytest.fixture
def r(connect):
    """A client that decodes to str."""
    return connect(decode_responses=True)


@pytest.fixture
def raw(connect):
    """A client that leaves bytes as they are."""
    return connect()
