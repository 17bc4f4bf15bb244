"""The socket itself: how bytes come in, what closes a connection, what limits do."""

import threading

import pytest
import redis

from servers import Wire, encode

BIG = 64 * 1024 * 1024


@pytest.mark.parametrize("kind", [("sync", "hiredis", 2), ("asyncio", "python", 3)], indirect=True)
async def test_64_mib_there_and_back(raw, key):
    value = (b"0123456789abcde\n" * 65536) * (BIG >> 20)
    assert await raw.set(key(), value) is True
    assert await raw.get(key()) == value
    assert await raw.delete(key()) == 1


def test_a_million_commands_before_the_first_reply_is_read(server, key):
    count = 1_000_000
    batch = b"".join(encode("INCR", key(f"n{i}")) for i in range(1000))
    with Wire(server.addr) as w:
        for _ in range(count // 1000):
            w.send(batch)
        for turn in range(1, count // 1000 + 1):
            expected = b":%d\r\n" % turn * 1000
            assert w.exactly(len(expected)) == expected


def test_half_close_still_gets_every_reply(server, key):
    with Wire(server.addr) as w:
        w.send(b"".join(encode("APPEND", key(f"k{i}"), "x" * i) for i in range(1, 2001)))
        w.socket.shutdown(1)
        assert w.to_the_end() == b"".join(b":%d\r\n" % i for i in range(1, 2001))


def test_commands_in_any_pieces(server, key):
    stream = encode("SET", key(), "v\r\n") + encode("GET", key())
    stream += b"PING\r\n" + encode("DEL", key())
    expected = b"+OK\r\n$3\r\nv\r\n\r\n+PONG\r\n:1\r\n"
    with Wire(server.addr) as w:
        w.socket.setsockopt(6, 1, 1)  # TCP_NODELAY: each byte on its own
        for byte in stream:
            w.send(bytes([byte]))
        assert w.exactly(len(expected)) == expected


@pytest.mark.parametrize(
    "line, reply",
    [
        (b"PING\r\n", b"+PONG\r\n"),
        (b"ping\n", b"+PONG\r\n"),
        (b"\r\n\r\nPING\r\n", b"+PONG\r\n"),
        (b"  ECHO   hello  \r\n", b"$5\r\nhello\r\n"),
        (b'ECHO "two words\\x21\\n"\r\n', b"$11\r\ntwo words!\n\r\n"),
        (b"ECHO 'it\\'s'\r\n", b"$4\r\nit's\r\n"),
        (b'ECHO ""\r\n', b"$0\r\n\r\n"),
        (b"*0\r\n*-1\r\nPING\r\n", b"+PONG\r\n"),
    ],
)
def test_inline_commands(server, line, reply):
    with Wire(server.addr) as w:
        w.send(line)
        assert w.exactly(len(reply)) == reply


def test_inline_commands_reach_keys(server, key):
    with Wire(server.addr) as w:
        w.send(f'SET {key()} "a b"\r\nGET {key()}\r\n'.encode())
        assert w.exactly(14) == b"+OK\r\n$3\r\na b\r\n"


PROTOCOL_ERRORS = {
    "no dollar": b"*1\r\n+PING\r\n",
    "multibulk length": b"*abc\r\n",
    "multibulk too many": b"*2147483648\r\n",
    "multibulk digits": b"*" + b"1" * 65536,
    "bulk length": b"*1\r\n$abc\r\n",
    "bulk negative": b"*1\r\n$-1\r\n",
    "bulk too long": b"*1\r\n$536870913\r\n",
    "bulk digits": b"*1\r\n$" + b"1" * 65536,
    "bulk length with blank": b"*1\r\n$ 4\r\nPING\r\n",
    "inline too long": b"x" * 65537,
    "open quote": b'ECHO "half\r\n',
    "text after quote": b'ECHO "a"b\r\n',
    "http": b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "after good commands": encode("ECHO", "a") + encode("SET", "{p}k", "v") + b"*1\r\n!\r\n",
    "in the middle of a command": encode("ECHO", "a") + b"*2\r\n$4\r\nECHO\r\n#1\r\n",
    "commands behind it are lost": b"*x\r\n" + encode("PING"),
}


@pytest.mark.parametrize("what", PROTOCOL_ERRORS)
@pytest.mark.parametrize("protocol", [2, 3])
def test_protocol_errors_word_for_word(server, standalone, what, protocol):
    """The same bytes as a server sends, and then the connection is closed as well."""
    answers = []
    for addr in (standalone.addr, server.addr):
        with Wire(addr) as w:
            if protocol == 3:
                w.send(encode("HELLO", 3) + encode("ECHO", "ready"))
                seen = b""
                while not seen.endswith(b"$5\r\nready\r\n"):
                    seen += w.exactly(1)
            w.send(PROTOCOL_ERRORS[what])
            answers.append(w.to_the_end())
    assert answers[1] == answers[0]


def test_quit_answers_and_closes(server):
    with Wire(server.addr) as w:
        w.send(encode("PING") + encode("QUIT") + encode("PING"))
        assert w.to_the_end() == b"+PONG\r\n+OK\r\n"


def test_hello_says_what_the_connection_speaks(server):
    with Wire(server.addr) as w:
        w.send(encode("HELLO"))
        assert w.exactly(5) == b"*14\r\n"
    with Wire(server.addr) as w:
        w.send(encode("HELLO", 3))
        assert w.exactly(4) == b"%7\r\n"
    with Wire(server.addr) as w:
        w.send(encode("HELLO", 9) + encode("PING"))
        expected = b"-NOPROTO unsupported protocol version\r\n+PONG\r\n"
        assert w.exactly(len(expected)) == expected


def test_switching_protocols_in_a_pipeline(server, key):
    """A null is the shortest thing in which the two protocols differ."""
    get = encode("GET", key("missing"))
    with Wire(server.addr) as w:
        w.send(get + encode("HELLO", 3, "SETNAME", "x") + get + encode("RESET") + get)
        expected = b"$-1\r\n"
        assert w.exactly(5) == expected
        seen = b""
        while not seen.endswith(b"_\r\n+RESET\r\n$-1\r\n"):
            seen += w.exactly(1)
        assert seen.startswith(b"%7\r\n")


def test_who_never_reads_is_closed_and_nobody_else_feels_it(start, key):
    server = start(output_limit="1MiB")
    with Wire(server.addr) as other, Wire(server.addr) as w:
        other.send(encode("SET", key(), b"x" * 65536) + encode("SET", key("o"), "fine"))
        assert other.exactly(10) == b"+OK\r\n+OK\r\n"
        closed = []

        def ask():
            try:
                while True:
                    w.send(encode("GET", key()))
            except ConnectionError as e:
                closed.append(e)

        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            other.send(encode("GET", key("o")))
            assert other.exactly(10) == b"$4\r\nfine\r\n"
        asking.join()
        assert closed, "it may ask for ever without reading"
        for _ in range(100):
            other.send(encode("GET", key("o")))
            assert other.exactly(10) == b"$4\r\nfine\r\n"


def test_unix_socket(server, key):
    if not hasattr(server, "unix"):
        pytest.skip("SLOTWAY_TEST_ADDR names a TCP address only")
    with Wire(server.unix) as w, Wire(server.addr) as tcp:
        w.send(encode("SET", key(), "by unix socket"))
        assert w.exactly(5) == b"+OK\r\n"
        tcp.send(encode("GET", key()))
        assert tcp.exactly(21) == b"$14\r\nby unix socket\r\n"
    with redis.Redis(unix_socket_path=server.unix, decode_responses=True) as r:
        assert r.get(key()) == "by unix socket"
