"""Stopping, starting again, and what clients see of it."""

import pytest
import redis

from servers import Wire, encode


async def test_clients_come_back_after_a_restart(start, connect, key):
    server = start()
    r = connect(addr=server.addr, decode_responses=True)
    await r.set(key(), "before")
    server.stop()
    with pytest.raises(redis.ConnectionError):
        await r.get(key())
    server.start()
    assert await r.ping() is True
    assert await r.set(key(), "after") is True
    assert await r.get(key()) == "after"
    server.stop()


def test_sigterm_closes_idle_clients_and_exits_cleanly(start):
    server = start()
    with Wire(server.addr) as w:
        w.send(encode("PING"))
        assert w.exactly(7) == b"+PONG\r\n"
        server.stop()
        assert w.to_the_end() == b""
    with pytest.raises(OSError):
        Wire(server.addr)
