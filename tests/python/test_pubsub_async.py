"""Pub/sub with redis.asyncio: readers as tasks, many at once, cancelled and killed."""

import asyncio

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from conftest import PARSERS

# the other two in test_pubsub.py
KINDS = [("asyncio", "python", 2), ("asyncio", "hiredis", 3)]
WAIT = 15  # seconds for a message that must come


@pytest.fixture(params=KINDS, ids=lambda p: f"{p[1]}-resp{p[2]}")
def kind(request):
    return request.param


@pytest.fixture
async def client(server, kind):
    """Makes clients of this test's kind, that decode unless told otherwise."""
    opened = []

    def go(**options):
        pool = redis.asyncio.ConnectionPool(
            **{
                "host": server.addr[0],
                "port": server.addr[1],
                "protocol": kind[2],
                "parser_class": PARSERS[kind],
                "decode_responses": True,
                "legacy_responses": False,
                "socket_timeout": WAIT,
                "retry": Retry(ConstantBackoff(0.01), 3),
                **options,
            }
        )
        opened.append(pool)
        return redis.asyncio.Redis(connection_pool=pool)

    yield go
    for pool in opened:
        await pool.disconnect()


@pytest.fixture
def r(client):
    return client()


async def take(ps, count=1, ignore=True):
    """The next `count` messages as (type, pattern, channel, data), without confirmations."""
    got = []
    async with asyncio.timeout(WAIT):
        while len(got) < count:
            message = await ps.get_message(ignore_subscribe_messages=ignore, timeout=1)
            if message:
                got.append(tuple(message[k] for k in ("type", "pattern", "channel", "data")))
    return got


async def confirmed(ps, count=1):
    """The next `count` confirmations as (type, channel, how many subscriptions)."""
    got = await take(ps, count, ignore=False)
    return [(kind, channel, data) for kind, _, channel, data in got]


async def until(what, check):
    async with asyncio.timeout(WAIT):
        while not await check():
            await asyncio.sleep(0.02)


async def test_messages_and_confirmations(r, key):
    async with r.pubsub() as ps:
        await ps.subscribe(key("a"), key("b"))
        await ps.psubscribe(key("p*"))
        await ps.ssubscribe(key("s"))
        assert await confirmed(ps, 4) == [
            ("subscribe", key("a"), 1),
            ("subscribe", key("b"), 2),
            ("psubscribe", key("p*"), 3),
            ("ssubscribe", key("s"), 1),
        ]
        assert await r.publish(key("a"), "one") == 1
        assert await r.publish(key("nobody"), "x") == 0
        assert await take(ps) == [("message", None, key("a"), "one")]
        assert await r.publish(key("pqr"), "two") == 1
        assert await take(ps) == [("pmessage", key("p*"), key("pqr"), "two")]
        assert await r.spublish(key("s"), "three") == 1
        assert await take(ps) == [("smessage", None, key("s"), "three")]
        assert await ps.get_message(timeout=0.05) is None
        await ps.unsubscribe(key("a"))
        assert await confirmed(ps) == [("unsubscribe", key("a"), 2)]
        assert await r.publish(key("a"), "late") == 0
        await ps.unsubscribe()
        await ps.punsubscribe()
        await ps.sunsubscribe()
        assert await confirmed(ps, 3) == [
            ("unsubscribe", key("b"), 1),
            ("punsubscribe", key("p*"), 0),
            ("sunsubscribe", key("s"), 0),
        ]
        await ps.subscribe(key("a"))
        assert await confirmed(ps) == [("subscribe", key("a"), 1)]
        assert await r.publish(key("a"), "again") == 1
        assert await take(ps) == [("message", None, key("a"), "again")]


async def test_listen_in_a_task(r, key):
    seen = asyncio.Queue()

    async def reader(ps):
        async for message in ps.listen():
            await seen.put((message["type"], message["data"]))
            if message["data"] == "stop":
                return

    async with r.pubsub(ignore_subscribe_messages=True) as ps:
        await ps.subscribe(key("a"))
        task = asyncio.create_task(reader(ps))
        await until("it listens", lambda: r.publish(key("a"), "first"))
        for n in range(20):
            assert await r.publish(key("a"), n) == 1
        assert await r.publish(key("a"), "stop") == 1
        async with asyncio.timeout(WAIT):
            await task
    got = [seen.get_nowait() for _ in range(seen.qsize())]
    assert got == [("message", d) for d in ("first", *map(str, range(20)), "stop")]


async def test_handlers_and_run(r, key):
    seen, failed = asyncio.Queue(), asyncio.Queue()

    def handle(message):
        if message["data"] == "fail":
            raise ValueError("the handler's own")
        seen.put_nowait((message["type"], message["data"]))

    async def handle_slowly(message):
        await asyncio.sleep(0)
        seen.put_nowait((message["type"], message["data"]))

    ps = r.pubsub()
    await ps.subscribe(**{key("a"): handle})
    await ps.psubscribe(**{key("p*"): handle_slowly})
    await confirmed(ps, 2)
    task = asyncio.create_task(
        ps.run(exception_handler=lambda error, _: failed.put_nowait(error), poll_timeout=0.05)
    )
    async with asyncio.timeout(WAIT):
        for channel, data in (("a", "1"), ("a", "fail"), ("a", "2")):
            assert await r.publish(key(channel), data) == 1
        assert [await seen.get(), await seen.get()] == [("message", "1"), ("message", "2")]
        assert await r.publish(key("p1"), "3") == 1
        assert await seen.get() == ("pmessage", "3")
        assert isinstance(await failed.get(), ValueError)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ps.aclose()
    # the cancelled reader's subscription ends with its connection
    await until("nobody listens", lambda: is_zero(r.publish(key("a"), "x")))


async def is_zero(count):
    return await count == 0


async def test_nothing_is_missed_after_the_confirmation(r, key):
    async with r.pubsub() as ps:
        for n in range(150):
            await ps.subscribe(key(f"c{n}"))
            assert await confirmed(ps) == [("subscribe", key(f"c{n}"), n + 1)]
            assert await r.publish(key(f"c{n}"), n) == 1
            assert await take(ps) == [("message", None, key(f"c{n}"), str(n))]


async def test_a_hundred_readers(client, r, key):
    """One channel for all, one for each ten, one of their own; everybody gets exactly his."""

    async def read(n):
        own = client()
        async with own.pubsub() as ps:
            await ps.subscribe(key("all"), key(f"some{n % 10}"), key(f"own{n}"))
            await confirmed(ps, 3)
            ready.release()
            got = await take(ps, 3)
            assert await ps.get_message(timeout=0.05) is None
        await own.aclose()
        return sorted((channel, data) for _, _, channel, data in got)

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(read(n)) for n in range(100)]
    async with asyncio.timeout(WAIT):
        for _ in tasks:
            await ready.acquire()
    async with r.pipeline(transaction=False) as p:
        p.publish(key("all"), "all")
        for n in range(10):
            p.publish(key(f"some{n}"), n)
        for n in range(100):
            p.publish(key(f"own{n}"), n)
        assert await p.execute() == [100, *[10] * 10, *[1] * 100]
    for n, task in enumerate(tasks):
        assert await task == sorted(
            [(key("all"), "all"), (key(f"some{n % 10}"), str(n % 10)), (key(f"own{n}"), str(n))]
        )


async def test_binary_and_large(client, key):
    raw = client(decode_responses=False)
    channel = key("b").encode() + bytes(range(256))
    async with raw.pubsub() as ps:
        await ps.subscribe(channel)
        await confirmed(ps)
        for payload in (bytes(range(256)) * 20_480, b"", b"\r\n"):
            assert await raw.publish(channel, payload) == 1
            assert await take(ps) == [("message", None, channel, payload)]


async def test_a_cancelled_read_loses_nothing(r, key):
    async with r.pubsub() as ps:
        await ps.subscribe(key("a"))
        await confirmed(ps)
        for n in range(10):
            task = asyncio.create_task(ps.get_message(timeout=None))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await r.publish(key("a"), n) == 1
            assert await take(ps) == [("message", None, key("a"), str(n))]


async def test_health_checks_of_a_subscribed_connection(client, r, key):
    async with client(health_check_interval=0.05).pubsub() as ps:
        await ps.subscribe(key("a"))
        await confirmed(ps)
        before = ps.connection._writer
        for _ in range(4):
            await asyncio.sleep(0.06)
            message = await ps.get_message(timeout=0.02)
            assert message is None or message["type"] == "pong"
        assert await r.publish(key("a"), "x") == 1
        assert ("message", None, key("a"), "x") in await take(ps)
        assert ps.connection._writer is before


async def test_a_killed_connection_subscribes_again(r, key):
    async with r.pubsub() as ps:
        await ps.subscribe(key("a"))
        await ps.psubscribe(key("p*"))
        await ps.ssubscribe(key("s"))
        await confirmed(ps, 3)
        assert await r.client_kill_filter(_type="pubsub") == 1
        again = await confirmed(ps, 3)
        assert sorted(name for _, name, _ in again) == sorted(key(n) for n in ("a", "p*", "s"))
        for publish, channel in ((r.publish, "a"), (r.publish, "p1"), (r.spublish, "s")):
            assert await publish(key(channel), "still") == 1
            assert (await take(ps))[0][2:] == (key(channel), "still")


async def test_keyspace_notifications_of_all_slots(r, key):
    before = (await r.config_get("notify-keyspace-events"))["notify-keyspace-events"]
    await r.config_set("notify-keyspace-events", "KEA")
    try:
        mark = key("").lstrip(":")
        async with r.pubsub() as keyspace, r.pubsub() as everything:
            await keyspace.psubscribe(f"__keyspace@0__:*{mark}", "__keyevent@0__:incrby")
            await everything.psubscribe("*")
            await confirmed(keyspace, 2)
            await confirmed(everything)
            names = [key(f"k{n}") for n in range(100)]
            async with r.pipeline(transaction=False) as p:
                for name in names:
                    p.incr(name)
                await p.execute()
            spaces = [(f"__keyspace@0__:{name}", "incrby") for name in names]
            events = [("__keyevent@0__:incrby", name) for name in names]
            got = [(channel, data) for _, _, channel, data in await take(keyspace, 200)]
            assert sorted(got) == sorted(spaces + events)
            # a pattern like this hears what other tests have published as well
            heard = []
            while len(heard) < 200:
                [(_, _, channel, data)] = await take(everything)
                if mark in channel + data:
                    heard.append((channel, data))
            assert sorted(heard) == sorted(spaces + events)
            assert await keyspace.get_message(timeout=0.05) is None
            # what other tests have published may still be on the cluster's bus
            while message := await everything.get_message(timeout=0.05):
                assert mark not in message["channel"] + message["data"]
    finally:
        await r.config_set("notify-keyspace-events", before)
