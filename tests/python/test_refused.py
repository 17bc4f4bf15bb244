"""Commands that slotway does not serve yet are refused by name, and the connection goes on.

A command that gets its support leaves this file.
"""

import pytest
import redis

NOT_YET = [
    ("WATCH", "k"),
    ("SUBSCRIBE", "channel"),
    ("PSUBSCRIBE", "chan*"),
    ("SSUBSCRIBE", "channel"),
    ("BLPOP", "k", "1"),
    ("BLMOVE", "a{k}", "b{k}", "LEFT", "RIGHT", "1"),
    ("BZPOPMIN", "k", "1"),
    ("XREAD", "BLOCK", "10", "STREAMS", "k", "$"),
    ("MONITOR",),
    ("WAIT", "1", "10"),
]


@pytest.mark.parametrize("command", NOT_YET, ids=lambda c: c[0])
async def test_refused_with_an_error_that_says_so(r, server, command):
    if not server.is_slotway:
        pytest.skip("a standalone server has all of these")
    with pytest.raises(redis.ResponseError) as refused:
        await r.execute_command(*command)
    text = str(refused.value).lower()
    assert "not supported" in text and command[0].lower() in text
    assert await r.ping() is True


async def test_nothing_of_a_refused_transaction_is_executed(r, server, key):
    """redis-py's pipeline() sends MULTI, the commands and EXEC in one go."""
    if not server.is_slotway:
        pytest.skip("a standalone server has transactions")
    pipeline = r.pipeline(transaction=True)
    pipeline.client.set(key("a"), "1")
    pipeline.client.incr(key("b"))
    with pytest.raises(redis.RedisError) as refused:
        await pipeline.execute()
    assert "not supported" in str(refused.value)
    # the transaction is over with its EXEC
    assert await r.exists(key("a"), key("b")) == 0
