"""The whole keyspace and the server's own commands, as redis-py programs use them.

Other tests' keys are there, too: what is asked for here are this test's own.
"""

import pytest
import redis


@pytest.fixture
def own(key):
    """A prefix of this test's keys, all over the slots."""
    return key("whole").replace(":", "-")


async def scanned(r, **options):
    """All that scan() gives, call by call."""
    cursor, found = 0, []
    while True:
        cursor, keys = await r.scan(cursor, **options)
        found += keys
        if int(cursor) == 0:
            return found


async def test_scan_gives_every_key(r, own):
    names = {f"{own}:{i}" for i in range(200)}
    await r.mset(dict.fromkeys(names, "v"))
    assert set(await scanned(r, match=f"{own}:*", count=25)) == names
    assert set(await scanned(r, match=f"{own}:1?", count=1000)) == {
        f"{own}:1{i}" for i in range(10)
    }
    assert await scanned(r, match=f"{own}:nothing") == []


async def test_scan_by_type(r, own):
    for i in range(20):
        await r.set(f"{own}:s{i}", "v")
        await r.rpush(f"{own}:l{i}", "v")
    found = await scanned(r, match=f"{own}:*", _type="LIST")
    assert set(found) == {f"{own}:l{i}" for i in range(20)}


async def test_scan_iter(r, own, kind):
    names = {f"{own}:{i}" for i in range(50)}
    await r.mset(dict.fromkeys(names, "v"))
    keys = r.client.scan_iter(match=f"{own}:*", count=7)
    found = set(keys) if kind[0] == "sync" else {k async for k in keys}
    assert found == names


async def test_scan_with_wrong_arguments(r):
    for wrong, text in [
        (("SCAN", "not-a-cursor"), "invalid cursor"),
        (("SCAN", " 0"), "invalid cursor"),
        (("SCAN", "0", "COUNT", "0"), "syntax error"),
        (("SCAN", "0", "COUNT", "x"), "not an integer"),
        (("SCAN", "0", "MATCH"), "syntax error"),
        (("SCAN",), "wrong number of arguments"),
    ]:
        with pytest.raises(redis.ResponseError, match=text):
            await r.execute_command(*wrong)


async def test_random_key_is_one_that_is_there(r, own):
    await r.set(own, "v")
    for _ in range(20):
        # another test's key may just have gone
        assert isinstance(await r.randomkey(), str)


async def test_size_counts_all(r, own):
    before = await r.dbsize()
    await r.mset({f"{own}:{i}": "v" for i in range(50)})
    assert await r.dbsize() >= 50 and before >= 0
    assert await r.delete(*[f"{own}:{i}" for i in range(50)]) == 50


async def test_slow_log(r, own):
    slower = (await r.config_get("slowlog-log-slower-than"))["slowlog-log-slower-than"]
    await r.config_set("slowlog-log-slower-than", 0)
    try:
        for i in range(15):
            await r.get(f"{own}:{i}")
        assert len(await r.slowlog_get()) == 10
        entries = await r.slowlog_get(100)
        times = [entry["start_time"] for entry in entries]
        assert times == sorted(times, reverse=True) and len(times) >= 15
        assert {"id", "start_time", "duration", "command"} <= set(entries[0])
        assert await r.slowlog_len() >= 15
    finally:
        await r.config_set("slowlog-log-slower-than", slower)
    assert await r.slowlog_reset() in (True, "OK")


async def test_about_the_server(r, own):
    role = await r.role()
    assert role[0] == "master" and role[1] >= 0 and list(role[2]) == []
    stats = await r.memory_stats()
    assert stats["total.allocated"] > 0 and stats["keys.count"] >= 0
    assert 0 < float(stats["peak.percentage"]) <= 100
    assert await r.memory_purge() in (True, "OK")
    assert len(await r.memory_malloc_stats()) > 100
    # redis-py has no method for it that does anything
    assert await r.execute_command("MEMORY", "DOCTOR")
    seconds, micros = await r.time()
    assert int(seconds) > 0 and 0 <= int(micros) < 1_000_000
    assert await r.lastsave() is not None
    assert "Redis ver" in await r.lolwut()


async def test_latency(r):
    assert await r.latency_reset() >= 0
    assert await r.latency_latest() == []
    assert await r.latency_history("command") == []
    assert "Dave" in await r.execute_command("LATENCY", "DOCTOR")
    with pytest.raises(redis.ResponseError, match="No samples"):
        await r.execute_command("LATENCY", "GRAPH", "no-event")
    assert await r.execute_command("LATENCY", "HISTOGRAM", "no-command") in ([], {})
    await r.ping()
    await r.exists("x")
    counts = await r.execute_command("LATENCY", "HISTOGRAM", "exists")
    assert len(counts) in (1, 2), "a map, or the two items of one pair"


async def test_acl_log_and_users(r, own):
    assert await r.acl_log_reset() is True
    assert await r.acl_log() == []
    assert await r.acl_log(count=3) == []
    user = own.replace("-", "")
    assert await r.acl_setuser(user, enabled=True, nopass=True, commands=["+get"]) is True
    assert user in await r.acl_users()
    assert (await r.acl_getuser(user))["enabled"] is True
    assert await r.acl_deluser(user) == 1
    assert len(await r.acl_genpass()) == 64
    assert "dangerous" in await r.acl_cat()


async def test_functions_and_their_state(r):
    stats = await r.function_stats()
    text = str(stats)
    assert "running_script" in text and "LUA" in text


async def test_commands_describe_themselves(r):
    assert await r.command_count() > 200
    assert "get" in await r.command_list()
    assert await r.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]


DENIED = [
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("SLAVEOF", "NO", "ONE"),
    ("FAILOVER",),
    ("MIGRATE", "127.0.0.1", "1", "k", "0", "1"),
    ("DEBUG", "JMAP"),
    ("SWAPDB", "0", "1"),
    ("MODULE", "UNLOAD", "x"),
    ("SCRIPT", "DEBUG", "NO"),
    ("CLUSTER", "RESET"),
]


@pytest.mark.parametrize("command", DENIED, ids=lambda c: c[0])
async def test_what_would_break_the_cluster_is_denied(r, server, command):
    if not server.is_slotway:
        pytest.skip("a server of its own may be told to")
    with pytest.raises(redis.exceptions.NoPermissionError, match="commands.allow"):
        await r.execute_command(*command)
    assert await r.ping() is True
