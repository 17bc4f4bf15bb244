"""What redis-py programs ask and say about connections: CLIENT, HELLO, AUTH, RESET, SELECT."""

import asyncio
import os

import pytest
import redis
from redis.cache import CacheConfig

import error_table
from servers import Wire, encode


async def test_client_list_and_info(r, connect, key):
    name = key("me").replace(":", "-")
    other = connect(decode_responses=True, client_name=name)
    assert await other.ping() is True
    mine = await r.client_id()
    listed = {int(c["id"]): c for c in await r.client_list()}
    assert mine in listed
    theirs = [c for c in listed.values() if c["name"] == name]
    assert len(theirs) == 1
    info = await other.client_info()
    assert int(info["id"]) == int(theirs[0]["id"])
    assert info["name"] == name and info["cmd"] == "client|info"
    assert theirs[0]["cmd"] == "ping" and theirs[0]["flags"] == "N"
    assert [int(c["id"]) for c in await r.client_list(client_id=[mine])] == [mine]
    assert await r.client_list(_type="pubsub") == []
    with pytest.raises(redis.RedisError):
        await r.client_list(_type="nonsense")


async def test_library_name(r, server):
    """redis-py says who it is; a 7.0 server does not listen."""
    info = await r.client_info()
    if server.is_slotway:
        assert info["lib-name"].startswith("redis-py")
        assert info["lib-ver"] == redis.__version__
    else:
        assert "lib-name" not in info


async def test_client_kill(r, connect, key):
    async def victim(name):
        client = connect(decode_responses=True)
        await client.client_setname(name)
        return client, await client.client_id()

    async def returned(client):
        """Its number once it has connected again; some of redis-py's clients say so first."""
        try:
            return await client.client_id()
        except redis.ConnectionError:
            return await client.client_id()

    one, one_id = await victim("first")
    assert await r.client_kill_filter(_id=str(one_id)) == 1
    assert await r.client_kill_filter(_id=str(one_id)) == 0
    assert await returned(one) != one_id
    assert await one.client_getname() is None

    two, two_id = await victim("second")
    addr = (await two.client_info())["addr"]
    assert await r.client_kill_filter(addr=addr, _type="normal", skipme=True) == 1
    with pytest.raises(redis.ResponseError, match="No such client"):
        await r.client_kill(addr)
    assert await returned(two) != two_id
    assert await r.client_kill_filter(_id=str(await r.client_id())) == 0


async def test_unblock_of_one_who_does_not_block(r):
    assert not await r.client_unblock(await r.client_id())
    assert not await r.client_unblock(999999999, error=True)


async def test_what_is_off_or_without_effect(r, server):
    assert await r.client_getredir() == -1
    info = await r.client_trackinginfo()
    if isinstance(info, list):
        info = dict(zip(info[::2], info[1::2]))
    assert list(info["flags"]) == ["off"] and info["redirect"] == -1
    assert await r.execute_command("CLIENT", "NO-EVICT", "ON") in (True, "OK")
    assert "e" in (await r.client_info())["flags"]
    assert await r.execute_command("CLIENT", "NO-EVICT", "OFF") in (True, "OK")
    assert (await r.client_info())["flags"] == "N"
    assert await r.execute_command("CLIENT", "TRACKING", "OFF") in (True, "OK")
    with pytest.raises(redis.ResponseError, match="tracking mode"):
        await r.execute_command("CLIENT", "CACHING", "YES")


@pytest.mark.skipif(os.environ.get("SLOTWAY_TEST_TARGET") == "standalone", reason="a server has tracking")
def test_client_side_caching_is_refused_in_words(server):
    host, port = server.addr
    with redis.Redis(host=host, port=port, protocol=3, cache_config=CacheConfig()) as caching:
        with pytest.raises(redis.ResponseError, match=error_table.statement("TrackingNotSupported")):
            caching.get("key")


async def test_reset_and_select(r):
    await r.client_setname("before")
    assert await r.select(0) is True
    with pytest.raises(redis.ResponseError, match="out of range"):
        await r.select(9999)
    assert await r.client_getname() == "before"


async def test_auth_without_users(r):
    with pytest.raises(redis.AuthenticationError, match="without any password"):
        await r.auth("secret")
    assert await r.auth("secret", username="default") is True
    with pytest.raises(redis.AuthenticationError, match="invalid username-password"):
        await r.auth("secret", username="somebody")


@pytest.fixture
def alone(start):
    """A server of one's own: a pause is about everybody."""
    return start().addr


def test_pause_and_unpause(alone, key):
    host, port = alone
    asker = redis.Redis(host=host, port=port)
    writers = [Wire(alone) for _ in range(4)]
    try:
        assert asker.client_pause(60_000, all=False) is True
        for i, w in enumerate(writers):
            w.send(encode("SET", key(i), "x"))
        # who reads is not held
        assert asker.get(key(0)) is None
        assert asker.client_unpause() in (True, b"OK")
        for w in writers:
            assert w.exactly(5) == b"+OK\r\n"
        assert [asker.get(key(i)) for i in range(4)] == [b"x"] * 4
        # all, this time, the asker too; it ends by itself
        assert asker.client_pause(100) is True
        assert asker.ping() is True
    finally:
        asker.close()
        for w in writers:
            w.socket.close()


def test_reply_off_skip_on(server, key):
    with Wire(server.addr) as w:
        w.send(encode("CLIENT", "REPLY", "OFF"))
        for i in range(500):
            w.send(encode("SET", key(i), i) + encode("GET", key(i)))
        w.send(encode("CLIENT", "REPLY", "ON") + encode("GET", key(499)))
        assert w.exactly(5 + 9) == b"+OK\r\n$3\r\n499\r\n"
        w.send(encode("CLIENT", "REPLY", "SKIP") + encode("GET", key(1)) + encode("GET", key(2)))
        assert w.exactly(7) == b"$1\r\n2\r\n"


async def test_many_ask_at_once(connect):
    """Questions of many clients to all workers cross each other."""
    clients = [connect(decode_responses=True) for _ in range(8)]
    ids = [int(await c.client_id()) for c in clients]
    if asyncio.iscoroutinefunction(type(clients[0].client).ping):
        lists = await asyncio.gather(*(c.client_list() for c in clients for _ in range(5)))
    else:
        lists = [await c.client_list() for c in clients]
    for listed in lists:
        assert set(ids) <= {int(c["id"]) for c in listed}
