"""Transactions as redis-py programs use them: pipelines, WATCH, the transaction() helper."""

import threading

import pytest
import redis


@pytest.fixture(scope="session")
def split(start):
    """A slotway that takes transactions over several slots apart."""
    return start(settings=["transactions.cross_slot=split"])


async def test_a_pipeline_is_a_transaction(r, tagged):
    p = r.pipeline(transaction=True)
    p.client.set(tagged("s"), "1")
    p.client.incr(tagged("s"))
    p.client.rpush(tagged("l"), "a", "b")
    p.client.lrange(tagged("l"), 0, -1)
    p.client.hset(tagged("h"), mapping={"f": "v"})
    p.client.hgetall(tagged("h"))
    p.client.zadd(tagged("z"), {"m": 1.5})
    p.client.zscore(tagged("z"), "m")
    p.client.get(tagged("missing"))
    expected = [True, 2, 2, ["a", "b"], 1, {"f": "v"}, 1, 1.5, None]
    assert await p.execute() == expected
    # and again on the same pipeline object
    p.client.get(tagged("s"))
    assert await p.execute() == ["2"]


async def test_nothing_is_seen_of_it_before_execute(r, tagged):
    p = r.pipeline(transaction=True)
    p.client.set(tagged("k"), "v")
    assert await r.get(tagged("k")) is None
    await p.execute()
    assert await r.get(tagged("k")) == "v"


async def test_an_empty_one(r):
    assert await r.pipeline(transaction=True).execute() == []


async def test_a_long_one(r, tagged):
    p = r.pipeline(transaction=True)
    for _ in range(5000):
        p.client.incr(tagged("n"))
    assert await p.execute() == list(range(1, 5001))


async def test_an_error_does_not_undo_the_rest(r, tagged):
    p = r.pipeline(transaction=True)
    p.client.set(tagged("a"), "text")
    p.client.lpush(tagged("a"), "x")
    p.client.set(tagged("b"), "2")
    replies = await p.execute(raise_on_error=False)
    assert replies[0] is True and replies[2] is True
    assert isinstance(replies[1], redis.ResponseError) and "WRONGTYPE" in str(replies[1])

    p = r.pipeline(transaction=True)
    p.client.lpush(tagged("a"), "x")
    p.client.set(tagged("b"), "3")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await p.execute()
    assert await r.get(tagged("b")) == "3"


async def test_an_unknown_command_aborts_it(r, tagged):
    p = r.pipeline(transaction=True)
    p.client.set(tagged("k"), "v")
    p.client.execute_command("NOSUCHCOMMAND", "x")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        await p.execute()
    assert await r.get(tagged("k")) is None
    assert await r.ping() is True


async def test_watch_unchanged(r, tagged):
    await r.set(tagged("n"), "5")
    p = r.pipeline(transaction=True)
    await p.watch(tagged("n"))
    now = int(await p.get(tagged("n")))
    p.client.multi()
    p.client.set(tagged("n"), now + 1)
    p.client.get(tagged("n"))
    assert await p.execute() == [True, "6"]
    await p.reset()


async def test_watch_changed(r, tagged):
    p = r.pipeline(transaction=True)
    await p.watch(tagged("a"), tagged("b"))
    await r.set(tagged("b"), "theirs")
    p.client.multi()
    p.client.set(tagged("a"), "mine")
    with pytest.raises(redis.WatchError):
        await p.execute()
    await p.reset()
    assert await r.get(tagged("a")) is None
    # the pipeline can be used again
    p.client.set(tagged("a"), "mine")
    assert await p.execute() == [True]


async def test_unwatch_and_reset(r, tagged):
    p = r.pipeline(transaction=True)
    await p.watch(tagged("k"))
    await r.set(tagged("k"), "theirs")
    await p.unwatch()
    p.client.set(tagged("k"), "mine")
    assert await p.execute() == [True]
    await p.watch(tagged("k"))
    await r.set(tagged("k"), "theirs")
    await p.reset()
    p.client.get(tagged("k"))
    assert await p.execute() == ["theirs"]


async def test_the_transaction_helper(r, server, tagged):
    await r.set(tagged("n"), "1")
    interfered = []

    def interfere():
        interfered.append(True)
        host, port = server.addr
        with redis.Redis(host=host, port=port) as other:
            other.incr(tagged("n"))

    if isinstance(r.client, redis.Redis):

        def double(pipe):
            now = int(pipe.get(tagged("n")))
            if not interfered:
                interfere()
            pipe.multi()
            pipe.set(tagged("n"), now * 2)
    else:

        async def double(pipe):
            now = int(await pipe.get(tagged("n")))
            if not interfered:
                interfere()
            pipe.multi()
            pipe.set(tagged("n"), now * 2)

    assert await r.transaction(double, tagged("n")) == [True]
    # 1, then 2 by the other, then doubled at the second attempt
    assert await r.get(tagged("n")) == "4"


@pytest.mark.parametrize("protocol", [2, 3])
def test_many_threads_count_by_watch(server, tagged, protocol):
    host, port = server.addr
    pool = redis.ConnectionPool(host=host, port=port, protocol=protocol, socket_timeout=30)
    r = redis.Redis(connection_pool=pool)
    wrong = []

    def work():
        try:
            for _ in range(25):
                r.transaction(
                    lambda p: (
                        now := int(p.get(tagged("n")) or 0),
                        p.multi(),
                        p.set(tagged("n"), now + 1),
                        p.incr(tagged("m")),
                    ),
                    tagged("n"),
                )
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert r.mget(tagged("n"), tagged("m")) == [b"150", b"150"]
    pool.disconnect()


async def test_keys_in_several_slots_are_rejected(r, key, server):
    if not server.is_slotway:
        pytest.skip("a standalone server has no slots")
    p = r.pipeline(transaction=True)
    p.client.set(key("a"), "1")
    p.client.set(key("b"), "2")
    with pytest.raises(redis.ResponseError) as refused:
        await p.execute()
    text = str(refused.value)
    assert key("a") in text and key("b") in text and "transactions.cross_slot" in text
    assert await r.exists(key("a"), key("b")) == 0


async def test_keys_in_several_slots_with_split(connect, split, key):
    r = connect(addr=split.addr, decode_responses=True)
    names = [key(f"k{i}") for i in range(100)]
    p = r.pipeline()
    for i, name in enumerate(names):
        p.client.set(name, i)
        p.client.incr(name)
    p.client.mget(names)
    p.client.delete(*names[:10])
    p.client.exists(*names)
    p.client.ping()
    expected = []
    for i in range(100):
        expected += [True, i + 1]
    expected += [[str(i + 1) for i in range(100)], 10, 90, True]
    replies = await p.execute()
    assert replies == expected

    p = r.pipeline(transaction=True)
    for i, name in enumerate(names):
        p.client.set(name, i)
        p.client.incr(name)
    p.client.mget(names)
    p.client.delete(*names[:10])
    p.client.exists(*names)
    p.client.ping()
    assert await p.execute() == expected


async def test_watch_over_several_slots_with_split(connect, split, key):
    r = connect(addr=split.addr, decode_responses=True)
    for changed in ("a", "b", "c"):
        p = r.pipeline(transaction=True)
        await p.watch(key("a"), key("b"), key("c"))
        await r.set(key(changed), "theirs")
        p.client.multi()
        p.client.set(key("a"), "mine")
        p.client.set(key("b"), "mine")
        with pytest.raises(redis.WatchError):
            await p.execute()
        await p.reset()
        assert "mine" not in await r.mget(key("a"), key("b"))
