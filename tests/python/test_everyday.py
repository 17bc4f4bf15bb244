"""What Python programs do with Redis every day, in every kind of client that redis-py has."""

import json
import time

import pytest
import redis


async def test_strings_and_counters(r, key):
    k, n = key(), key("n")
    assert await r.get(k) is None
    assert await r.set(k, "värde") is True
    assert await r.get(k) == "värde"
    assert await r.set(k, "x", nx=True) is None
    assert await r.set(k, "y", xx=True, get=True) == "värde"
    assert await r.append(k, "zz") == 3
    assert await r.getrange(k, 0, 1) == "yz"
    assert await r.strlen(k) == 3
    assert await r.getset(k, "1") == "yzz"
    assert await r.getdel(k) == "1"
    assert await r.incr(n) == 1
    assert await r.incrby(n, 41) == 42
    assert await r.decr(n, 2) == 40
    assert float(await r.incrbyfloat(n, 0.5)) == 40.5


async def test_json_as_string(r, key):
    value = {"id": 7, "tags": ["a", "ü", None], "price": 12.5}
    await r.set(key(), json.dumps(value))
    assert json.loads(await r.get(key())) == value


async def test_bytes_as_they_are(raw, key):
    every = bytes(range(256)) + b"\r\n$3\r\n*1\r\n\x00"
    k = key().encode() + b"\x00\xff"
    assert await raw.set(k, every) is True
    assert await raw.get(k) == every
    # others ask for any key, and for text
    assert await raw.delete(k) == 1
    await raw.set(key("empty"), b"")
    assert await raw.get(key("empty")) == b""
    assert await raw.hset(key("h"), every, every) == 1
    assert await raw.hgetall(key("h")) == {every: every}


async def test_lists(r, tagged):
    k, other = tagged("a"), tagged("b")
    assert await r.rpush(k, "1", "2", "3") == 3
    assert await r.lpush(k, "0") == 4
    assert await r.lrange(k, 0, -1) == ["0", "1", "2", "3"]
    assert await r.lindex(k, -1) == "3"
    assert await r.lpop(k) == "0"
    assert await r.rpop(k, 2) == ["3", "2"]
    assert await r.lmove(k, other, "LEFT", "RIGHT") == "1"
    assert await r.llen(k) == 0
    assert await r.linsert(other, "BEFORE", "1", "half") == 2
    assert await r.lset(other, 0, "zero") is True
    assert await r.lpos(other, "1") == 1
    assert await r.lmpop(2, k, other, direction="LEFT", count=5) == [other, ["zero", "1"]]
    assert await r.lpop(other) is None


async def test_hashes(r, key):
    k = key()
    assert await r.hset(k, mapping={"name": "Ada", "born": 1815}) == 2
    assert await r.hget(k, "name") == "Ada"
    assert await r.hgetall(k) == {"name": "Ada", "born": "1815"}
    assert await r.hmget(k, ["born", "nothing"]) == ["1815", None]
    assert await r.hincrby(k, "born", 1) == 1816
    assert await r.hexists(k, "nothing") is False
    assert sorted(await r.hkeys(k)) == ["born", "name"]
    assert await r.hdel(k, "name", "nothing") == 1
    assert await r.hlen(k) == 1
    assert dict((await r.hscan(k))[1]) == {"born": "1816"}


async def test_sets(r, tagged):
    a, b = tagged("a"), tagged("b")
    assert await r.sadd(a, "x", "y", "z") == 3
    assert await r.sadd(b, "y", "z", "q") == 3
    assert set(await r.smembers(a)) == {"x", "y", "z"}
    assert set(await r.sinter(a, b)) == {"y", "z"}
    assert set(await r.sunion(a, b)) == {"x", "y", "z", "q"}
    assert set(await r.sdiff(a, b)) == {"x"}
    assert await r.sinterstore(tagged("c"), a, b) == 2
    assert bool(await r.sismember(a, "x")) is True
    assert [int(n) for n in await r.smismember(a, ["x", "no"])] == [1, 0]
    assert bool(await r.smove(a, b, "x")) is True
    assert await r.scard(b) == 4
    assert await r.spop(tagged("c")) in {"y", "z"}
    assert await r.srandmember(a) in {"y", "z"}
    assert await r.srem(a, "y", "z") == 2


async def test_sorted_sets(r, tagged):
    k = tagged("board")
    assert await r.zadd(k, {"ann": 3, "bob": 1.5, "cid": 2}) == 3
    assert await r.zrange(k, 0, -1) == ["bob", "cid", "ann"]
    pairs = await r.zrange(k, 0, -1, withscores=True)
    assert [tuple(p) for p in pairs] == [("bob", 1.5), ("cid", 2.0), ("ann", 3.0)]
    assert await r.zscore(k, "bob") == 1.5
    assert await r.zincrby(k, 2, "bob") == 3.5
    assert await r.zrank(k, "bob") == 2
    assert await r.zrevrange(k, 0, 0) == ["bob"]
    assert await r.zrangebyscore(k, 2, 3) == ["cid", "ann"]
    assert await r.zcount(k, "-inf", "+inf") == 3
    assert await r.zmscore(k, ["ann", "nobody"]) == [3.0, None]
    assert await r.zadd(tagged("other"), {"ann": 10}) == 1
    assert await r.zunionstore(tagged("all"), [k, tagged("other")]) == 3
    assert await r.zscore(tagged("all"), "ann") == 13.0
    popped = await r.zpopmin(k)
    assert tuple(popped[0]) == ("cid", 2.0)
    assert await r.zrem(k, "ann", "nobody") == 1


async def test_expiry(r, key):
    k = key()
    await r.set(k, "v", ex=1000)
    assert 990 < await r.ttl(k) <= 1000
    assert 990_000 < await r.pttl(k) <= 1_000_000
    assert await r.persist(k) is True
    assert await r.ttl(k) == -1
    at = int(time.time()) + 5000
    assert await r.expireat(k, at) is True
    assert await r.expiretime(k) == at
    assert await r.expire(k, 10, nx=True) is False
    assert await r.getex(k, persist=True) == "v"
    assert await r.ttl(k) == -1
    assert await r.pexpire(k, 1) is True
    while await r.exists(k):
        time.sleep(0.005)
    assert await r.ttl(k) == -2
    assert await r.execute_command("SETEX", k, 100, "again") in (True, "OK")


async def test_streams(r, tagged):
    k, other = tagged("s"), tagged("t")
    first = await r.xadd(k, {"n": "1"}, id="1-1")
    assert first == "1-1"
    assert "-" in await r.xadd(other, {"n": "9"})
    await r.xadd(k, {"n": "2"}, id="1-2")
    assert await r.xlen(k) == 2
    assert [tuple(e) for e in await r.xrange(k)] == [("1-1", {"n": "1"}), ("1-2", {"n": "2"})]
    read = await r.xread({k: "0", other: "0"}, count=10)
    assert {len(batch) for batch in dict(read).values()} <= {1, 2} and len(read) == 2
    assert await r.xread({k: "$"}) in ([], {})
    assert await r.xgroup_create(k, "g", id="0") is True
    with pytest.raises(redis.ResponseError, match="BUSYGROUP"):
        await r.xgroup_create(k, "g")
    got = await r.xreadgroup("g", "alice", {k: ">"})
    assert list(dict(got)) == [k]
    assert (await r.xpending(k, "g"))["pending"] == 2
    assert await r.xack(k, "g", "1-1") == 1
    claimed = await r.xautoclaim(k, "g", "bob", 0)
    assert len(claimed[1]) == 1
    assert (await r.xinfo_stream(k))["length"] == 2
    assert await r.xtrim(k, maxlen=1, approximate=False) == 1


async def test_geo(r, key):
    k = key()
    places = (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")
    assert await r.geoadd(k, places) == 2
    assert round(float(await r.geodist(k, "Palermo", "Catania", unit="km"))) == 166
    near = await r.geosearch(k, longitude=15, latitude=37, radius=100, unit="km")
    assert near == ["Catania"]
    (lon, lat), = await r.geopos(k, "Palermo")
    assert (round(lon, 3), round(lat, 3)) == (13.361, 38.116)


async def test_hyperloglog_and_bitmaps(r, tagged):
    a, b = tagged("a"), tagged("b")
    assert await r.pfadd(a, *range(100)) == 1
    assert await r.pfadd(b, *range(50, 150)) == 1
    assert 140 <= await r.pfcount(a, b) <= 160
    assert await r.pfmerge(tagged("all"), a, b) is True
    bits = tagged("bits")
    assert await r.setbit(bits, 7, 1) == 0
    assert await r.getbit(bits, 7) == 1
    assert await r.bitcount(bits) == 1
    assert await r.bitop("NOT", tagged("not"), bits) == 1
    assert await r.bitpos(tagged("not"), 0) == 7
    assert await r.execute_command("BITFIELD", bits, "INCRBY", "u8", 0, 5) == [6]


async def test_sort_and_looking_inside(r, tagged):
    k = tagged("l")
    await r.rpush(k, 3, 1, 2)
    assert await r.sort(k, desc=True) == ["3", "2", "1"]
    assert await r.sort(k, store=tagged("sorted")) == 3
    assert await r.object("encoding", k) in ("quicklist", "listpack")
    assert await r.object("refcount", k) == 1
    assert await r.memory_usage(k) > 0
    assert await r.type(k) == "list"
    assert await r.rename(k, tagged("renamed")) is True
    assert await r.copy(tagged("renamed"), k) is True
    assert await r.lrange(k, 0, -1) == await r.lrange(tagged("renamed"), 0, -1)


async def test_dump_and_restore(raw, key):
    await raw.rpush(key("from"), b"a", b"\xff\x00")
    payload = await raw.dump(key("from"))
    assert await raw.restore(key("to"), 0, payload) is not None
    assert await raw.lrange(key("to"), 0, -1) == [b"a", b"\xff\x00"]


async def test_the_client_s_own_exceptions(r, key):
    await r.set(key(), "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await r.lpush(key(), "x")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        await r.incr(key())
    with pytest.raises(redis.DataError):
        await r.set(key(), {"a": "dict"})
    with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
        await r.execute_command("GET")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        await r.execute_command("NOSUCHCOMMAND", key())
    with pytest.raises(redis.exceptions.NoScriptError):
        await r.evalsha("f" * 40, 1, key())
    assert await r.get(key()) == "text"


async def test_names_and_information(r, server):
    assert await r.client_setname("billing-7") is True
    assert await r.client_getname() == "billing-7"
    assert await r.client_id() > 0
    info = await r.info()
    assert info["redis_version"].startswith("7.")
    assert (await r.info("server"))["redis_version"] == info["redis_version"]
    assert await r.ping() is True
    assert await r.echo("hello") == "hello"
    assert len(await r.execute_command("COMMAND")) > 200
    assert await r.command_count() > 200


async def test_connects_by_url_with_defaults(server, kind):
    """Nothing set but the address, as a tutorial does it."""
    host, port = server.addr
    if kind[0] == "sync":
        client = redis.Redis.from_url(f"redis://{host}:{port}/0")
        assert client.ping() is True
        client.close()
    else:
        client = redis.asyncio.from_url(f"redis://{host}:{port}")
        assert await client.ping() is True
        await client.aclose()
