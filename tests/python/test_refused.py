"""Commands that slotway does not serve yet are refused by name, and the connection goes on.

A command that gets its support leaves this file.
"""

import pytest
import redis

NOT_YET = [
    ("SUBSCRIBE", "channel"),
    ("PSUBSCRIBE", "chan*"),
    ("SSUBSCRIBE", "channel"),
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
