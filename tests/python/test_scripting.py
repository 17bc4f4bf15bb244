"""Lua: scripts by text and by hash, functions."""

import pytest
import redis

LIBRARY = """#!lua name=pylib
redis.register_function('py_incr', function(keys, args)
  return redis.call('INCRBY', keys[1], args[1])
end)
redis.register_function{function_name='py_len', callback=function(keys, args)
  return redis.call('STRLEN', keys[1])
end, flags={'no-writes'}}
"""


async def test_eval(r, tagged):
    code = "redis.call('SET', KEYS[1], ARGV[1]); return {redis.call('GET', KEYS[1]), KEYS[2]}"
    assert await r.eval(code, 2, tagged("a"), tagged("b"), "v") == ["v", tagged("b")]
    assert await r.eval("return 7", 0) == 7
    with pytest.raises(redis.ResponseError, match="mine"):
        await r.eval("return redis.error_reply('mine')", 0)


async def test_registered_script_runs_at_every_node(r, key):
    """redis-py sends EVALSHA, and on NOSCRIPT loads the script and sends it again."""
    mark = key("mark")
    script = r.register_script(f"return redis.call('INCR', KEYS[1]) -- {mark}")
    for i in range(50):
        assert await script(keys=[key(f"k{i}")]) == 1
        assert await script(keys=[key(f"k{i}")]) == 2


async def test_script_load_reaches_every_node(r, key):
    sha = await r.script_load(f"return redis.call('SET', KEYS[1], ARGV[1]) -- {key()}")
    assert await r.script_exists(sha, "f" * 40) == [True, False]
    for i in range(50):
        assert await r.evalsha(sha, 1, key(f"k{i}"), i) in ("OK", True)
    await r.script_flush()
    assert await r.script_exists(sha) == [False]


async def test_a_script_outlives_a_flush_of_the_nodes(r, server, key):
    """Somebody has sent SCRIPT FLUSH to every node: slotway gives them the script again."""
    if not hasattr(server, "cluster"):
        pytest.skip("not slotway, or not ours to disturb")
    sha = await r.script_load(f"return redis.call('APPEND', KEYS[1], ARGV[1]) -- {key()}")
    script = r.register_script(f"return redis.call('INCR', KEYS[1]) -- {key()}")
    for round in range(3):
        for node in server.cluster.nodes:
            with redis.Redis(port=node.port) as direct:
                direct.script_flush()
        for i in range(10):
            assert await r.evalsha(sha, 1, key(f"s{i}"), "x") == round + 1
            assert await script(keys=[key(f"n{i}")]) == round + 1
        pipeline = r.pipeline()
        for i in range(10):
            pipeline.client.evalsha(sha, 1, key(f"p{i}"), "a")
            pipeline.client.append(key(f"p{i}"), "b")
        assert await pipeline.execute() == [2 * round + n for _ in range(10) for n in (1, 2)]


async def test_functions_at_every_node(r, key):
    assert await r.function_load(LIBRARY, replace=True) == "pylib"
    for i in range(50):
        assert await r.fcall("py_incr", 1, key(f"k{i}"), 10) == 10
        assert await r.fcall_ro("py_len", 1, key(f"k{i}")) == 2
    assert len(await r.function_list("pylib")) == 1
    with pytest.raises(redis.ResponseError, match="already exists"):
        await r.function_load(LIBRARY)
    assert await r.function_delete("pylib") in (True, "OK")
    with pytest.raises(redis.ResponseError, match="not found"):
        await r.fcall("py_incr", 1, key(), 1)


async def test_keys_of_several_slots_are_refused(r, key, server):
    if not server.is_slotway:
        pytest.skip("a standalone server has no slots")
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await r.eval("return 1", 10, *[key(f"k{i}") for i in range(10)])
