"""Pipelines, pools and many tasks at once."""

import asyncio
import threading

import pytest
import redis
import redis.asyncio


async def test_replies_in_order_over_many_slots(r, key):
    p = r.pipeline()
    for i in range(1000):
        p.client.set(key(f"k{i}"), i)
        p.client.incrby(key(f"k{i}"), 1000)
        p.client.get(key(f"k{i}"))
    replies = await p.execute()
    expected = []
    for i in range(1000):
        expected += [True, i + 1000, str(i + 1000)]
    assert replies == expected


async def test_every_kind_of_command_in_one_pipeline(r, key, tagged):
    names = [key(f"k{i}") for i in range(30)]
    p = r.pipeline()
    p.client.mset({name: i for i, name in enumerate(names)})
    p.client.mget(names)
    p.client.rpush(tagged("l"), 1, 2, 3)
    p.client.ping()
    p.client.echo("between")
    p.client.exists(*names)
    p.client.lrange(tagged("l"), 0, -1)
    p.client.eval("return KEYS[1]", 1, tagged("l"))
    p.client.delete(*names)
    p.client.mget(names)
    assert await p.execute() == [
        True,
        [str(i) for i in range(30)],
        3,
        True,
        "between",
        30,
        ["1", "2", "3"],
        tagged("l"),
        30,
        [None] * 30,
    ]


async def test_an_error_in_the_middle(r, key):
    p = r.pipeline()
    for i in range(100):
        p.client.set(key(f"k{i}"), "text")
    p.client.lpush(key("k50"), "x")
    for i in range(100):
        p.client.get(key(f"k{i}"))
    replies = await p.execute(raise_on_error=False)
    assert replies[:100] == [True] * 100
    assert isinstance(replies[100], redis.ResponseError) and "WRONGTYPE" in str(replies[100])
    assert replies[101:] == ["text"] * 100

    p = r.pipeline()
    p.client.set(key("a"), 1)
    p.client.lpush(key("a"), "x")
    p.client.get(key("a"))
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await p.execute()
    assert await r.get(key("a")) == "1"


@pytest.mark.parametrize("protocol", [2, 3])
def test_pool_shared_by_threads(server, key, protocol):
    host, port = server.addr
    pool = redis.BlockingConnectionPool(
        host=host, port=port, protocol=protocol, max_connections=8, timeout=30
    )
    r = redis.Redis(connection_pool=pool)
    wrong = []

    def work(me):
        try:
            for i in range(200):
                r.incr(key("shared"))
                r.set(key(f"t{me}"), f"{me}-{i}")
                got = r.get(key(f"t{me}"))
                if got != f"{me}-{i}".encode():
                    wrong.append((me, i, got))
        except Exception as e:
            wrong.append((me, e))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert int(r.get(key("shared"))) == 16 * 200
    pool.disconnect()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_thousand_tasks_at_once(server, key, protocol):
    host, port = server.addr
    pool = redis.asyncio.BlockingConnectionPool(
        host=host, port=port, protocol=protocol, max_connections=64, timeout=30
    )
    r = redis.asyncio.Redis(connection_pool=pool, decode_responses=True)

    async def work(i):
        await r.set(key(f"k{i}"), i)
        await r.incr(key("shared"))
        return int(await r.get(key(f"k{i}")))

    assert await asyncio.gather(*map(work, range(1000))) == list(range(1000))
    assert int(await r.get(key("shared"))) == 1000
    await pool.disconnect()
