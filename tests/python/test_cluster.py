"""redis-py's RedisCluster, pointed at slotway: it sees a cluster of one node."""

import inspect

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from conftest import Either


@pytest.fixture(params=["sync-resp2", "sync-resp3", "asyncio-resp2", "asyncio-resp3"])
async def cluster(request, server):
    if not server.is_slotway:
        pytest.skip("a standalone server is no cluster")
    how, protocol = request.param.split("-resp")
    module = redis.cluster if how == "sync" else redis.asyncio.cluster
    opened = []

    async def go(**options):
        host, port = server.addr
        client = module.RedisCluster(
            host=host, port=port, protocol=int(protocol), decode_responses=True, **options
        )
        opened.append(client)
        if how == "asyncio":
            await client.initialize()
        return Either(client)

    yield go
    for client in opened:
        closed = client.close() if how == "sync" else client.aclose()
        if inspect.isawaitable(closed):
            await closed


async def test_everyday(cluster, key):
    r = await cluster()
    for i in range(100):
        assert await r.set(key(f"k{i}"), i) is True
    for i in range(100):
        assert await r.get(key(f"k{i}")) == str(i)
    assert await r.hset(key("h"), mapping={"a": 1, "b": 2}) == 2
    assert await r.hgetall(key("h")) == {"a": "1", "b": "2"}
    names = [key(f"k{i}") for i in range(100)]
    assert await r.mget_nonatomic(names) == [str(i) for i in range(100)]
    assert await r.delete(*names) == 100
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await r.lpush(key("h"), "x")


async def test_pipeline(cluster, key):
    r = await cluster()
    pipeline = r.client.pipeline()
    for i in range(200):
        pipeline.set(key(f"k{i}"), i)
        pipeline.incr(key(f"k{i}"))
    replies = pipeline.execute()
    replies = await replies if inspect.isawaitable(replies) else replies
    assert replies == [reply for i in range(200) for reply in (True, i + 1)]


async def test_its_view_of_the_cluster(cluster, server):
    r = await cluster()
    [node] = r.client.get_nodes()
    assert (node.host, node.port) == server.addr
    assert r.client.get_primaries() == [node]
    slots = await r.cluster_slots()
    assert (0, 16383) in slots
    assert (await r.cluster_info())["cluster_state"] == "ok"
    [line] = (await r.cluster_nodes()).values()
    assert line["flags"] == "myself,master"
    assert await r.cluster_keyslot("foo") == 12182
    assert await r.cluster_countkeysinslot(12182) >= 0


async def test_reading_from_replicas(cluster, key):
    strategy = redis.cluster.LoadBalancingStrategy.ROUND_ROBIN
    r = await cluster(load_balancing_strategy=strategy)
    await r.set(key(), "v")
    # the client says READONLY, and a replica is behind by a moment
    seen = None
    for _ in range(1000):
        seen = seen or await r.get(key())
    assert seen == "v"


async def test_scripts(cluster, key):
    r = await cluster()
    sha = await r.script_load(f"return redis.call('INCR', KEYS[1]) -- {key()}")
    for i in range(50):
        assert await r.evalsha(sha, 1, key(f"k{i}")) == 1
