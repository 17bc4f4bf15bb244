"""Commands over keys in many slots, and commands about all keys."""

import pytest
import redis


async def test_mset_and_mget_keep_the_order_of_the_keys(r, key):
    values = {key(f"k{i}"): f"v{i}" for i in range(500)}
    assert await r.mset(values) is True
    assert await r.mget(list(values)) == list(values.values())
    backwards = list(reversed(values))
    assert await r.mget(backwards) == [values[k] for k in backwards]


async def test_mget_of_missing_wrong_and_repeated_keys(r, key):
    await r.set(key("a"), "1")
    await r.rpush(key("list"), "x")
    names = [key("missing"), key("a"), key("list"), key("a"), key("missing2")]
    assert await r.mget(names) == [None, "1", None, "1", None]
    assert await r.mget(key("missing")) == [None]


async def test_mset_replaces_any_type(r, key):
    await r.rpush(key("list"), "x")
    assert await r.mset({key("list"): "now a string", key("other"): "2"}) is True
    assert await r.get(key("list")) == "now a string"


async def test_the_last_of_repeated_keys_wins(r, key):
    a, b = key("a"), key("b")
    assert await r.execute_command("MSET", a, 1, b, 2, a, 3, b, 4) in (True, "OK")
    assert await r.mget(a, b) == ["3", "4"]


async def test_delete_exists_touch_unlink_count_over_slots(r, key):
    names = [key(f"k{i}") for i in range(300)]
    for name in names[::2]:
        await r.set(name, "x")
    assert await r.exists(*names) == 150
    assert await r.exists(names[0], names[0], names[1]) == 2
    assert await r.touch(*names) == 150
    assert await r.delete(*names[:100]) == 50
    assert await r.unlink(*names) == 100
    assert await r.exists(*names) == 0


async def test_wrong_number_of_arguments(r, key):
    for command in ("MGET", "MSET", "DEL", "EXISTS"):
        with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
            await r.execute_command(command)
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'mset'"):
        await r.execute_command("MSET", key("a"), "1", key("b"))


async def test_what_cannot_be_split_is_refused(r, key, tagged, server):
    assert await r.msetnx({tagged("a"): 1, tagged("b"): 2}) in (True, 1)
    if not server.is_slotway:
        return
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await r.msetnx({key(f"k{i}"): i for i in range(10)})
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await r.sunion([key(f"k{i}") for i in range(10)])
    assert await r.exists(key("k0")) == 0


async def test_dbsize_keys_and_flushing_see_every_shard(r, key):
    await r.flushall()
    assert await r.dbsize() == 0
    names = {key(f"k{i}") for i in range(200)}
    for name in names:
        await r.set(name, "x")
    assert await r.dbsize() == 200
    assert set(await r.keys(f"k*{key('')[1:]}")) == names
    assert await r.keys("none of these*") == []
    assert await r.flushdb() is True
    assert await r.dbsize() == 0
    assert await r.keys() == []


async def test_configuration_of_every_node(r):
    before = (await r.config_get("maxmemory-samples"))["maxmemory-samples"]
    assert await r.config_set("maxmemory-samples", 7) is True
    assert await r.config_get("maxmemory-samples") == {"maxmemory-samples": "7"}
    with pytest.raises(redis.ResponseError, match="nosuch"):
        await r.config_set("nosuch", 1)
    assert await r.config_set("maxmemory-samples", before) is True
