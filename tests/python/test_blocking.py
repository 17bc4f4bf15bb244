"""Blocking commands as redis-py programs use them: queues, streams, locks."""

import asyncio
import threading
import time

import pytest
import redis
import redis.asyncio

from conftest import Either
from servers import Wire, encode, until


@pytest.fixture
def later(server):
    """Does something with a client of its own after a moment."""
    timers = []

    def go(act, after=0.1):
        def run():
            with redis.Redis(host=server.addr[0], port=server.addr[1]) as other:
                act(other)

        timer = threading.Timer(after, run)
        timers.append(timer)
        timer.start()

    yield go
    for timer in timers:
        timer.join()


async def test_with_data_there(r, tagged):
    l, m, z, s = (tagged(name) for name in "lmzs")
    await r.rpush(l, "a", "b", "c", "d", "e", "f")
    assert list(await r.blpop(l, timeout=1)) == [l, "a"]
    assert list(await r.brpop([m, l], timeout=0)) == [l, "f"]
    assert await r.blmove(l, m, 1, "LEFT", "RIGHT") == "b"
    assert await r.brpoplpush(l, m, timeout=1) == "e"
    assert await r.blmpop(1, 2, m, l, direction="LEFT", count=2) == [m, ["e", "b"]]
    await r.zadd(z, {"one": 1, "two": 2, "three": 3, "four": 4})
    assert list(await r.bzpopmin(z, timeout=1)) == [z, "one", 1.0]
    assert list(await r.bzpopmax(z, timeout=1)) == [z, "four", 4.0]
    popped = await r.bzmpop(1, 1, [z], min=True, count=5)
    assert popped[0] == z and len(popped[1]) == 2
    await r.xadd(s, {"f": "v"}, id="1-1")
    assert "1-1" in str(await r.xread({s: "0"}, block=100))


async def test_in_vain(r, tagged):
    l, m, z, s = (tagged(name) for name in "lmzs")
    assert await r.blpop([l, m], timeout=0.05) is None
    assert await r.brpop(l, timeout=0.05) is None
    assert await r.blmove(l, m, 0.05) is None
    assert await r.brpoplpush(l, m, timeout=0.05) is None
    assert await r.blmpop(0.05, 1, l, direction="LEFT") is None
    assert await r.bzpopmin(z, timeout=0.05) is None
    assert await r.bzpopmax(z, timeout=0.05) is None
    assert await r.bzmpop(0.05, 1, [z], min=True) is None
    assert not await r.xread({s: "$"}, block=50)
    await r.xgroup_create(s, "g", mkstream=True)
    assert not await r.xreadgroup("g", "me", {s: ">"}, block=50)
    assert await r.ping() is True


async def test_with_a_push_later(r, tagged, later):
    l, z, s = (tagged(name) for name in "lzs")
    later(lambda other: other.rpush(l, "v"))
    assert list(await r.blpop([tagged("no"), l], timeout=10)) == [l, "v"]
    later(lambda other: other.rpush(l, "w"))
    assert await r.blmove(l, tagged("to"), 10) == "w"
    later(lambda other: other.zadd(z, {"m": 2.5}))
    assert list(await r.bzpopmin(z, timeout=10)) == [z, "m", 2.5]
    later(lambda other: other.xadd(s, {"f": "v"}, id="5-1"))
    assert "5-1" in str(await r.xread({s: "$"}, block=10_000))
    await r.xgroup_create(s, "g", id="$")
    later(lambda other: other.xadd(s, {"f": "v"}, id="6-1"))
    assert "6-1" in str(await r.xreadgroup("g", "me", {s: ">"}, block=10_000))
    assert await r.xack(s, "g", "6-1") == 1


async def test_wait(r, key, server):
    await r.set(key(), "v")
    replicas = 1 if server.is_slotway else 0
    assert await r.wait(replicas, 5000) == replicas
    assert await r.wait(replicas + 1, 50) == replicas


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_queue_with_many_threads(server, key, protocol):
    host, port = server.addr
    pool = redis.ConnectionPool(host=host, port=port, protocol=protocol, socket_timeout=30)
    r = redis.Redis(connection_pool=pool)
    done, wrong, lock = [], [], threading.Lock()

    def work():
        try:
            while True:
                _, job = r.blpop(key("jobs"), timeout=20)
                if job == b"end":
                    return
                with lock:
                    done.append(int(job))
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for t in threads:
        t.start()
    for first in range(0, 500, 10):
        r.rpush(key("jobs"), *range(first, first + 10))
    r.rpush(key("jobs"), *["end"] * 20)
    for t in threads:
        t.join()
    assert wrong == []
    assert sorted(done) == list(range(500))
    pool.disconnect()


async def test_a_consumer_group(server, key):
    host, port = server.addr
    r = redis.asyncio.Redis(host=host, port=port, decode_responses=True, socket_timeout=30)
    await r.xgroup_create(key("s"), "g", mkstream=True)
    seen = []

    async def work(name):
        while True:
            got = await r.xreadgroup("g", name, {key("s"): ">"}, count=5, block=3000)
            entries = next(iter(got.values())) if isinstance(got, dict) else got[0][1]
            # redis-py wraps RESP3's entries once more
            if entries and isinstance(entries[0], list):
                entries = entries[0]
            for entry, fields in entries:
                await r.xack(key("s"), "g", entry)
                if "end" in fields:
                    return
                seen.append(int(fields["n"]))

    tasks = [asyncio.create_task(work("alone"))]
    for n in range(100):
        await r.xadd(key("s"), {"n": n})
    await r.xadd(key("s"), {"end": "1"})
    await asyncio.gather(*tasks)
    assert seen == list(range(100))
    assert (await r.xpending(key("s"), "g"))["pending"] == 0
    await r.aclose()


async def test_a_lock(r, key):
    def lock(**options):
        return Either(r.client.lock(key("lock"), timeout=20, sleep=0.02, **options))

    mine, theirs = lock(), lock(blocking_timeout=0.2)
    assert await mine.acquire() is True
    since = time.monotonic()
    assert await theirs.acquire() is False
    assert time.monotonic() - since >= 0.15
    assert await mine.owned() is True
    assert await mine.extend(10) is True
    assert await mine.reacquire() is True
    await mine.release()
    assert await theirs.acquire() is True
    with pytest.raises(redis.exceptions.LockError):
        await mine.release()
    await theirs.release()
    assert await r.exists(key("lock")) == 0


async def blocked(r):
    """How many clients are blocked."""
    return (await r.info("clients"))["blocked_clients"]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_cancelled_task_takes_nothing(server, key, protocol):
    host, port = server.addr
    r = redis.asyncio.Redis(host=host, port=port, protocol=protocol, socket_timeout=15)
    for n in range(10):
        name = key(f"l{n}")
        task = asyncio.create_task(r.blpop(name, timeout=0))
        while not await blocked(r):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # once the server has noticed
        while await blocked(r):
            await asyncio.sleep(0.005)
        await r.rpush(name, "v")
        assert await r.llen(name) == 1
    await r.aclose()


def test_commands_behind_it_wait(server, tagged):
    with Wire(server.addr) as w, Wire(server.addr) as other:
        w.send(encode("BLPOP", tagged("l"), 0) + encode("INCR", tagged("n")) + encode("PING"))
        with redis.Redis(host=server.addr[0], port=server.addr[1]) as looking:
            until("it is blocked", lambda: looking.info("clients")["blocked_clients"])
        other.send(encode("EXISTS", tagged("n")))
        assert other.exactly(4) == b":0\r\n"
        other.send(encode("RPUSH", tagged("l"), "v"))
        assert other.exactly(4) == b":1\r\n"
        name = tagged("l").encode()
        expected = b"*2\r\n$%d\r\n%s\r\n$1\r\nv\r\n:1\r\n+PONG\r\n" % (len(name), name)
        assert w.exactly(len(expected)) == expected


async def test_unblocked_by_another_client(server, key):
    host, port = server.addr
    r = redis.asyncio.Redis(host=host, port=port, single_connection_client=True)
    other = redis.asyncio.Redis(host=host, port=port)
    me = await r.client_id()
    for error in (False, True):
        task = asyncio.create_task(r.blpop(key("l"), timeout=0))
        while not await other.client_unblock(me, error=error):
            await asyncio.sleep(0.02)
        if error:
            with pytest.raises(redis.ResponseError, match="UNBLOCKED"):
                await task
        else:
            assert await task is None
    await r.aclose()
    await other.aclose()
