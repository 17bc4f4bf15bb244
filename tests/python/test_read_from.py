"""A program that knows nothing of replicas, before a slotway that reads from them."""

import asyncio
import time
import urllib.request

import pytest

from servers import PATIENCE, Wire, encode, until


def sample(server, name):
    url = f"http://127.0.0.1:{server.admin}/metrics"
    text = urllib.request.urlopen(url, timeout=15).read().decode()
    return float(next(x for x in text.splitlines() if x.startswith(name)).split()[-1])


@pytest.fixture(scope="session")
def reading(start):
    """A slotway that knows that its replicas are there."""
    server = start(settings=["read_from=prefer_replica", "topology.refresh=250ms"])
    if server.is_slotway:
        # a cluster calls a replica "loading" until it has heard anything of its primary
        with Wire(server.addr) as w:
            for i in range(50):
                w.send(encode("SET", f"reading:{i}", i))
                assert w.exactly(5) == b"+OK\r\n"
        fit = 'slotway_replicas{state="fit"}'
        until("the replicas are fit", lambda: sample(server, fit) == 3)
    return server


async def read(what, wanted):
    """A replica is behind by a moment."""
    end = time.monotonic() + PATIENCE
    while (seen := await what()) != wanted:
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.002)


async def test_an_ordinary_program(reading, connect, key, tagged):
    r = connect(reading.addr, decode_responses=True)
    for i in range(20):
        await r.set(key(f"s{i}"), i)
    await r.hset(key("h"), mapping={"a": "1", "b": "2"})
    await r.rpush(key("l"), *range(100))
    for i in range(20):
        await read(lambda i=i: r.get(key(f"s{i}")), str(i))
    await read(lambda: r.hgetall(key("h")), {"a": "1", "b": "2"})
    await read(lambda: r.lrange(key("l"), 0, -1), [str(i) for i in range(100)])
    # a transaction reads what it has written, and what WATCH guards is the primary's
    for i in range(20):
        p = r.pipeline(transaction=True)
        p.client.set(tagged(), i)
        p.client.get(tagged())
        assert await p.execute() == [True, str(i)]
    # a pipeline's replies come in its order, from whichever node
    p = r.pipeline()
    for i in range(20):
        p.client.set(tagged(f"p{i}"), i)
        p.client.get(key(f"s{i}"))
    assert await p.execute() == [x for i in range(20) for x in (True, str(i))]
    await r.delete(key("h"))
    await read(lambda: r.exists(key("h")), 0)
    if reading.is_slotway:
        assert sample(reading, 'slotway_reads_total{to="replica"}') > 20
