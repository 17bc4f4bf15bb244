"""Pub/sub as redis-py programs use it: channels, patterns, shard channels, keyspace notifications.

Asked of a plain server as well (SLOTWAY_TEST_TARGET=standalone): its answers are the right ones.
"""

import queue
import threading
import time

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from conftest import PARSERS
from servers import Wire, encode, until

# the other two with asyncio
KINDS = [("sync", "hiredis", 2), ("sync", "python", 3)]
WAIT = 15  # seconds for a message that must come


@pytest.fixture(params=KINDS, ids=lambda p: f"{p[1]}-resp{p[2]}")
def kind(request):
    return request.param


@pytest.fixture
def client(server, kind):
    """Makes clients of this test's kind, that decode unless told otherwise."""
    opened = []

    def go(**options):
        pool = redis.ConnectionPool(
            **{
                "host": server.addr[0],
                "port": server.addr[1],
                "protocol": kind[2],
                "parser_class": PARSERS[kind],
                "decode_responses": True,
                "legacy_responses": False,
                "socket_timeout": WAIT,
                **options,
            }
        )
        opened.append(pool)
        return redis.Redis(connection_pool=pool)

    yield go
    for pool in opened:
        pool.disconnect()


@pytest.fixture
def r(client):
    return client()


@pytest.fixture
def pubsub(r):
    """Makes subscribers, closed at the end."""
    opened = []

    def go(of=None, **options):
        ps = (of or r).pubsub(**options)
        opened.append(ps)
        return ps

    yield go
    for ps in opened:
        ps.close()


def take(ps, count=1, ignore=True, about=""):
    """The next `count` messages as (type, pattern, channel, data), without confirmations.

    Only those with `about` in channel or data: a pattern like * hears everything.
    """
    got = []
    end = time.monotonic() + WAIT
    while len(got) < count:
        assert time.monotonic() < end, f"{len(got)} of {count} came: {got[-5:]}"
        message = ps.get_message(ignore_subscribe_messages=ignore, timeout=1)
        if message and (not about or about in message["channel"] or about in message["data"]):
            got.append(tuple(message[k] for k in ("type", "pattern", "channel", "data")))
    return got


def confirmed(ps, count=1):
    """The next `count` confirmations as (type, channel, how many subscriptions)."""
    return [(kind, channel, data) for kind, _, channel, data in take(ps, count, ignore=False)]


def silent(ps, seconds=0.1):
    """That nothing more comes: what would come is given a moment."""
    assert ps.get_message(ignore_subscribe_messages=True, timeout=seconds) is None


def test_messages_and_confirmations(r, pubsub, key):
    ps = pubsub()
    assert ps.get_message() is None and not ps.subscribed
    ps.subscribe(key("a"), key("b"))
    ps.psubscribe(key("p*"))
    assert confirmed(ps, 3) == [
        ("subscribe", key("a"), 1),
        ("subscribe", key("b"), 2),
        ("psubscribe", key("p*"), 3),
    ]
    assert r.publish(key("a"), "one") == 1
    assert take(ps) == [("message", None, key("a"), "one")]
    assert r.publish(key("pqr"), "two") == 1
    assert take(ps) == [("pmessage", key("p*"), key("pqr"), "two")]
    assert r.publish(key("c"), "nobody") == 0
    silent(ps)
    ps.unsubscribe(key("a"))
    assert confirmed(ps) == [("unsubscribe", key("a"), 2)]
    assert r.publish(key("a"), "late") == 0
    ps.unsubscribe()
    ps.punsubscribe()
    assert confirmed(ps, 2) == [("unsubscribe", key("b"), 1), ("punsubscribe", key("p*"), 0)]
    assert not ps.subscribed
    # and once more with the same connection
    ps.subscribe(key("a"))
    assert confirmed(ps) == [("subscribe", key("a"), 1)]
    assert r.publish(key("a"), "again") == 1
    assert take(ps) == [("message", None, key("a"), "again")]


def test_subscribed_twice_is_told_once(r, pubsub, key):
    ps = pubsub()
    for _ in range(2):
        ps.subscribe(key("a"))
        assert confirmed(ps) == [("subscribe", key("a"), 1)]
    ps.unsubscribe(key("never"))
    assert confirmed(ps) == [("unsubscribe", key("never"), 1)]
    assert r.publish(key("a"), "x") == 1
    assert take(ps) == [("message", None, key("a"), "x")]
    silent(ps)


def test_ignored_confirmations(r, pubsub, key):
    ps = pubsub(ignore_subscribe_messages=True)
    ps.subscribe(key("a"))
    assert ps.get_message(timeout=WAIT) is None  # the confirmation, read and ignored
    assert r.publish(key("a"), "x") == 1
    message = ps.get_message(timeout=WAIT)
    assert message == {"type": "message", "pattern": None, "channel": key("a"), "data": "x"}


def test_waiting_in_vain_takes_as_long_as_asked(pubsub, key):
    ps = pubsub(ignore_subscribe_messages=True)
    ps.subscribe(key("a"))
    ps.get_message(timeout=WAIT)
    since = time.monotonic()
    assert ps.get_message(timeout=0.2) is None
    assert time.monotonic() - since >= 0.19
    assert ps.get_message() is None


def test_a_message_for_several_subscriptions_of_one_client(r, pubsub, key):
    ps = pubsub()
    ps.subscribe(key("abc"))
    ps.psubscribe(key("a*"), key("?bc"), key("[xy]*"))
    confirmed(ps, 4)
    assert r.publish(key("abc"), "x") == 3
    # a server sends the channel's before the patterns'; a cluster has them come over several nodes
    got = take(ps, 3)
    assert got.count(("message", None, key("abc"), "x")) == 1
    patterns = sorted(pattern for kind, pattern, _, _ in got if kind == "pmessage")
    assert patterns == [key("?bc"), key("a*")]
    silent(ps)


def test_patterns_with_all_signs(r, pubsub, key):
    ps = pubsub()
    ps.psubscribe(key("h?llo"), key("h[^e]llo"), key("h[a-b]llo"), key(r"h\?llo"))
    confirmed(ps, 4)
    matching = {"hello": ["h?llo"], "hallo": ["h?llo", "h[^e]llo", "h[a-b]llo"], "hllo": []}
    matching["h?llo"] = ["h?llo", "h[^e]llo", r"h\?llo"]
    for channel, patterns in matching.items():
        assert r.publish(key(channel), channel) == len(patterns)
        got = take(ps, len(patterns))
        assert sorted(got) == sorted(
            ("pmessage", key(p), key(channel), channel) for p in patterns
        )


def test_binary_names_and_payloads(client, pubsub, key):
    raw = client(decode_responses=False)
    ps = pubsub(raw)
    every = bytes(range(256))
    channel = key("b").encode() + every
    ps.subscribe(channel)
    ps.psubscribe(b"\xff\x00" + channel[:10] + b"*")
    confirmed(ps, 2)
    for payload in (every * 3, b"", b"\r\n$-1\r\n", b"*3\r\n"):
        assert raw.publish(channel, payload) == 1
        assert take(ps) == [("message", None, channel, payload)]
    assert raw.publish(b"\xff\x00" + channel, b"\r\n") == 1
    pattern = b"\xff\x00" + channel[:10] + b"*"
    assert take(ps) == [("pmessage", pattern, b"\xff\x00" + channel, b"\r\n")]


def test_an_empty_name(r, pubsub):
    ps = pubsub()
    ps.subscribe("")
    assert confirmed(ps) == [("subscribe", "", 1)]
    assert r.publish("", "") == 1
    assert take(ps) == [("message", None, "", "")]


def test_five_megabytes(client, pubsub, key):
    raw = client(decode_responses=False)
    first, second = pubsub(raw), pubsub(raw)
    for ps in (first, second):
        ps.subscribe(key("big"))
        confirmed(ps)
    payload = bytes(range(256)) * 20_480
    assert raw.publish(key("big"), payload) == 2
    assert raw.publish(key("big"), b"small") == 2
    for ps in (first, second):
        (_, _, _, big), (_, _, _, small) = take(ps, 2)
        assert big == payload and small == b"small"


def test_two_subscribers_of_one_channel(r, pubsub, key):
    both = [pubsub(), pubsub()]
    for n, ps in enumerate(both, 1):
        ps.subscribe(key("a"))
        confirmed(ps)
        assert r.publish(key("a"), f"for {n}") == n
    assert take(both[0], 2) == [("message", None, key("a"), f"for {n}") for n in (1, 2)]
    assert take(both[1]) == [("message", None, key("a"), "for 2")]
    both[0].unsubscribe(key("a"))
    confirmed(both[0])
    assert r.publish(key("a"), "for one") == 1
    assert take(both[1]) == [("message", None, key("a"), "for one")]
    silent(both[0], 0.05)
    both[1].close()
    until("nobody listens", lambda: r.publish(key("a"), "x") == 0)


def test_a_late_subscriber_gets_nothing_of_before(r, pubsub, key):
    assert r.publish(key("a"), "before") == 0
    ps = pubsub()
    ps.subscribe(key("a"))
    confirmed(ps)
    assert r.publish(key("a"), "after") == 1
    assert take(ps) == [("message", None, key("a"), "after")]


def test_nothing_is_missed_after_the_confirmation(r, pubsub, key):
    ps = pubsub()
    for n in range(150):
        channel = key(f"c{n}")
        ps.subscribe(channel)
        assert confirmed(ps) == [("subscribe", channel, n + 1)]
        assert r.publish(channel, n) == 1
        assert take(ps) == [("message", None, channel, str(n))]
    ps.unsubscribe()
    confirmed(ps, 150)
    # and patterns; of their own, as a cluster's bus may bring them what was published before
    for n in range(150):
        ps.psubscribe(key(f"p{n}.*"))
        assert confirmed(ps) == [("psubscribe", key(f"p{n}.*"), n + 1)]
        assert r.publish(key(f"p{n}.x"), n) == 1
        assert take(ps) == [("pmessage", key(f"p{n}.*"), key(f"p{n}.x"), str(n))]


def test_a_thousand_channels_on_one_connection(r, pubsub, key):
    names = [key(f"c{n}") for n in range(1000)]
    ps = pubsub()
    ps.subscribe(*names)
    assert confirmed(ps, 1000) == [("subscribe", name, n) for n, name in enumerate(names, 1)]
    assert sorted(r.pubsub_channels(key("c*"))) == sorted(names)
    with r.pipeline(transaction=False) as p:
        for name in names:
            p.publish(name, f"to {name}")
        assert p.execute() == [1] * 1000
    # channels have no order among each other
    assert sorted(take(ps, 1000)) == sorted(("message", None, n, f"to {n}") for n in names)
    ps.unsubscribe()
    ended = confirmed(ps, 1000)
    assert sorted(name for _, name, _ in ended) == sorted(names)
    assert [count for _, _, count in ended] == list(range(999, -1, -1))


def test_in_order_per_channel(r, pubsub, key):
    ps = pubsub()
    ps.subscribe(key("a"), key("b"))
    confirmed(ps, 2)
    with r.pipeline(transaction=False) as p:
        for n in range(1000):
            p.publish(key("ab"[n % 2]), n)
        assert p.execute() == [1] * 1000
    got = take(ps, 1000)
    for i, name in enumerate("ab"):
        assert [int(d) for _, _, c, d in got if c == key(name)] == list(range(i, 1000, 2))


def test_published_from_everywhere(r, server, pubsub, tagged):
    ps = pubsub()
    ps.subscribe(tagged("a"), tagged("b"))
    confirmed(ps, 2)
    with r.pipeline(transaction=True) as p:
        p.set(tagged("k"), "v").publish(tagged("a"), "in MULTI").get(tagged("k"))
        p.publish(tagged("a"), "twice").publish(tagged("nobody"), "x")
        assert p.execute() == [True, 1, "v", 1, 0]
    assert [data for _, _, _, data in take(ps, 2)] == ["in MULTI", "twice"]
    with r.pipeline(transaction=True) as p:
        assert p.publish(tagged("b"), "alone").execute() == [1]
    assert take(ps) == [("message", None, tagged("b"), "alone")]
    code = "return {redis.call('SET', KEYS[1], 1), redis.call('PUBLISH', ARGV[1], ARGV[2])}"
    done, receivers = r.eval(code, 1, tagged("k"), tagged("b"), "in Lua")
    # a node's script counts the subscriptions of that node only
    assert done == "OK" and receivers in ([0, 1] if server.is_slotway else [1])
    assert take(ps) == [("message", None, tagged("b"), "in Lua")]
    # a transaction that is given up publishes nothing
    with Wire(server.addr) as w:
        w.send(encode("MULTI") + encode("PUBLISH", tagged("a"), "no") + encode("DISCARD"))
        assert w.exactly(19) == b"+OK\r\n+QUEUED\r\n+OK\r\n"
    silent(ps)


def test_handlers(r, pubsub, key):
    seen = []
    ps = pubsub(ignore_subscribe_messages=True)
    ps.subscribe(**{key("a"): lambda m: seen.append(("channel", m["channel"], m["data"]))})
    ps.psubscribe(**{key("p*"): lambda m: seen.append(("pattern", m["channel"], m["data"]))})
    ps.subscribe(key("other"))
    for _ in range(3):
        ps.get_message(timeout=WAIT)
    r.publish(key("a"), "1")
    while len(seen) < 1:
        assert ps.get_message(timeout=WAIT) is None
    r.publish(key("pq"), "2")
    while len(seen) < 2:
        assert ps.get_message(timeout=WAIT) is None
    r.publish(key("other"), "3")
    assert take(ps) == [("message", None, key("other"), "3")]
    assert seen == [("channel", key("a"), "1"), ("pattern", key("pq"), "2")]


def test_listen(r, pubsub, key):
    ps = pubsub()
    ps.subscribe(key("a"), key("b"))
    seen = []
    for message in ps.listen():
        seen.append((message["type"], message["channel"], message["data"]))
        if len(seen) == 2:
            r.publish(key("a"), "x")
        elif message["data"] == "x":
            r.publish(key("b"), "y")
        elif message["data"] == "y":
            ps.unsubscribe(key("a"), key("b"))
    assert seen == [
        ("subscribe", key("a"), 1),
        ("subscribe", key("b"), 2),
        ("message", key("a"), "x"),
        ("message", key("b"), "y"),
        ("unsubscribe", key("a"), 1),
        ("unsubscribe", key("b"), 0),
    ]


def test_run_in_thread(r, pubsub, key):
    seen, failed = queue.Queue(), queue.Queue()

    def handle(message):
        if message["data"] == "fail":
            raise ValueError("the handler's own")
        seen.put((message["type"], message["data"]))

    def on_error(error, _ps, _thread):
        failed.put(error)

    ps = pubsub()
    ps.subscribe(**{key("a"): handle})
    ps.psubscribe(**{key("p*"): handle})
    confirmed(ps, 2)
    thread = ps.run_in_thread(sleep_time=0.05, exception_handler=on_error, daemon=True)
    for channel, data in (("a", "1"), ("a", "fail"), ("a", "2")):
        assert r.publish(key(channel), data) == 1
    assert [seen.get(timeout=WAIT) for _ in range(2)] == [("message", "1"), ("message", "2")]
    assert r.publish(key("p1"), "3") == 1
    assert seen.get(timeout=WAIT) == ("pmessage", "3")
    assert isinstance(failed.get(timeout=WAIT), ValueError)
    thread.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    until("its connection is closed", lambda: r.publish(key("a"), "x") == 0)
    assert seen.empty() and failed.empty()


def test_subscribing_while_a_thread_listens(r, pubsub, key):
    seen = queue.Queue()
    ps = pubsub()
    ps.subscribe(key("first"))
    confirmed(ps)
    ended = threading.Event()

    def listen():
        for message in ps.listen():
            seen.put(message["data"])
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    for n in range(50):
        ps.subscribe(key(f"c{n}"))
        assert seen.get(timeout=WAIT) == n + 2
        assert r.publish(key(f"c{n}"), f"m{n}") == 1
        assert seen.get(timeout=WAIT) == f"m{n}"
    ps.unsubscribe()
    assert ended.wait(WAIT)


def test_what_is_listened_to(r, pubsub, key):
    until("nobody of before listens", lambda: r.pubsub_numpat() == 0)
    one, two = pubsub(), pubsub()
    one.subscribe(key("a"), key("b"))
    two.subscribe(key("b"))
    one.psubscribe(key("p*"), key("q*"))
    two.psubscribe(key("p*"))
    confirmed(one, 4)
    confirmed(two, 2)
    mark = key("").lstrip(":")
    assert sorted(r.pubsub_channels(f"*{mark}")) == [key("a"), key("b")]
    assert r.pubsub_channels(key("b")) == [key("b")]
    assert key("a") in r.pubsub_channels()
    counts = r.pubsub_numsub(key("a"), key("nobody"), key("b"), key("a"))
    expected = [(key("a"), 1), (key("nobody"), 0), (key("b"), 2), (key("a"), 1)]
    assert [tuple(pair) for pair in counts] == expected
    assert not r.pubsub_numsub()
    # patterns, not who listens to them
    assert r.pubsub_numpat() == 2
    assert r.pubsub_shardchannels(f"*{mark}") == []
    one.close()
    until("one is gone", lambda: r.pubsub_channels(f"*{mark}") == [key("b")])
    until("one is gone", lambda: r.pubsub_numpat() == 1)
    two.close()
    until("two is gone", lambda: r.pubsub_channels(f"*{mark}") == [])
    until("two is gone", lambda: r.pubsub_numpat() == 0)


def test_shard_channels(r, pubsub, key):
    ps, other = pubsub(), pubsub()
    names = [key(f"s{n}") for n in range(20)]  # all over the slots
    for n, name in enumerate(names, 1):
        ps.ssubscribe(name)
        assert confirmed(ps) == [("ssubscribe", name, n)]
    other.ssubscribe(names[0])
    assert confirmed(other) == [("ssubscribe", names[0], 1)]
    ps.subscribe(names[0])
    ps.psubscribe(key("s*"))
    # counted apart from the others
    assert confirmed(ps, 2) == [("subscribe", names[0], 1), ("psubscribe", key("s*"), 2)]
    for n, name in enumerate(names):
        assert r.spublish(name, n) == (2 if n == 0 else 1)
    # a shard channel is neither the channel of that name nor matched by patterns
    assert sorted(take(ps, 20)) == sorted(("smessage", None, c, str(n)) for n, c in enumerate(names))
    assert take(other) == [("smessage", None, names[0], "0")]
    assert r.publish(names[0], "to all") == 2
    assert sorted(take(ps, 2)) == [
        ("message", None, names[0], "to all"),
        ("pmessage", key("s*"), names[0], "to all"),
    ]
    silent(other)
    mark = key("").lstrip(":")
    assert sorted(r.pubsub_shardchannels(f"*{mark}")) == sorted(names)
    assert r.pubsub_channels(f"*{mark}") == [names[0]]
    counts = r.pubsub_shardnumsub(names[1], key("nobody"), names[0])
    expected = [(names[1], 1), (key("nobody"), 0), (names[0], 2)]
    assert [tuple(pair) for pair in counts] == expected
    ps.sunsubscribe(names[0])
    assert confirmed(ps) == [("sunsubscribe", names[0], 19)]
    assert r.spublish(names[0], "x") == 1
    assert take(other) == [("smessage", None, names[0], "x")]
    ps.sunsubscribe()
    assert [count for _, _, count in confirmed(ps, 19)] == list(range(18, -1, -1))
    assert r.spublish(names[1], "x") == 0


def test_several_shard_channels_of_one_slot_at_once(r, pubsub, tagged):
    ps = pubsub()
    ps.ssubscribe(tagged("a"), tagged("b"))
    assert confirmed(ps, 2) == [("ssubscribe", tagged("a"), 1), ("ssubscribe", tagged("b"), 2)]
    assert r.spublish(tagged("b"), "x") == 1
    assert ps.get_sharded_message(timeout=WAIT)["data"] == "x"


def test_ping_while_subscribed(r, kind, pubsub, key):
    ps = pubsub()
    ps.subscribe(key("a"))
    confirmed(ps)
    ps.ping("hello")
    assert r.publish(key("a"), "x") == 1
    answer = ps.parse_response(timeout=WAIT)
    assert answer == (["pong", "hello"] if kind[2] == 2 else "hello")
    assert take(ps) == [("message", None, key("a"), "x")]


def answered(ps):
    """No PING is under way; messages would be an error."""
    assert ps.health_check_response_counter == 0 or ps.get_message(timeout=0.02) is None
    return ps.health_check_response_counter == 0


def test_health_checks_of_a_subscribed_connection(client, r, pubsub, key):
    ps = pubsub(client(health_check_interval=0.05))
    ps.subscribe(key("a"))
    confirmed(ps)
    connection = ps.connection._sock
    for _ in range(4):
        time.sleep(0.06)
        assert ps.get_message(timeout=0.02) is None
        until("the PING is answered", lambda: answered(ps))
    assert r.publish(key("a"), "x") == 1
    assert take(ps) == [("message", None, key("a"), "x")]
    assert ps.connection._sock is connection


def test_a_killed_connection_subscribes_again(client, r, pubsub, key):
    # redis.Redis() has retries by itself, a pool made by hand has not
    ps = pubsub(client(retry=Retry(ConstantBackoff(0.01), 3)))
    ps.subscribe(key("a"), key("b"))
    ps.psubscribe(key("p*"))
    ps.ssubscribe(key("s"))
    confirmed(ps, 4)
    assert r.client_kill_filter(_type="pubsub") == 1
    # redis-py opens it again by itself and is confirmed everything once more
    again = confirmed(ps, 4)
    assert sorted(name for _, name, _ in again) == sorted(key(n) for n in ("a", "b", "p*", "s"))
    for publish, channel in ((r.publish, "a"), (r.publish, "p1"), (r.spublish, "s")):
        assert publish(key(channel), "still") == 1
        assert take(ps)[0][2:] == (key(channel), "still")


@pytest.fixture
def notifications(r):
    """With keyspace notifications on; and off again."""
    before = r.config_get("notify-keyspace-events")["notify-keyspace-events"]
    r.config_set("notify-keyspace-events", "KEA")
    yield
    r.config_set("notify-keyspace-events", before)


def test_keyspace_notifications_of_all_slots(r, pubsub, key, notifications):
    names = [key(f"k{n}") for n in range(200)]
    mark = key("").lstrip(":")
    keyspace, event, keys, everything = pubsub(), pubsub(), pubsub(), pubsub()
    keyspace.psubscribe(f"__keyspace@0__:*{mark}")
    event.subscribe("__keyevent@0__:set", "__keyevent@0__:del")
    keys.subscribe(*(f"__keyspace@0__:{name}" for name in names[:20]))
    everything.psubscribe("*")
    for ps, count in ((keyspace, 1), (event, 2), (keys, 20), (everything, 1)):
        confirmed(ps, count)
    with r.pipeline(transaction=False) as p:
        for n, name in enumerate(names):
            p.set(name, n).publish(f"ordinary:{name}", n)
        p.execute()
        for name in names:
            p.delete(name)
        p.execute()
    both = ("set", "del")

    def pmessages(pattern, channels):
        return [("pmessage", pattern, channel, data) for channel, data in channels]

    spaces = [(f"__keyspace@0__:{name}", event) for name in names for event in both]
    events = [(f"__keyevent@0__:{event}", name) for name in names for event in both]
    ordinary = [(f"ordinary:{name}", str(n)) for n, name in enumerate(names)]
    got = take(keyspace, 400)
    assert sorted(got) == sorted(pmessages(f"__keyspace@0__:*{mark}", spaces))
    # in order for each key
    assert [d for _, _, c, d in got if c.endswith(names[7])] == ["set", "del"]
    assert sorted(take(event, 400)) == sorted(("message", None, c, d) for c, d in events)
    assert sorted(take(keys, 40)) == sorted(("message", None, c, d) for c, d in spaces[:40])
    expected = pmessages("*", spaces + events + ordinary)
    assert sorted(take(everything, 1000, about=mark)) == sorted(expected)
    for ps in (keyspace, event, keys):
        silent(ps, 0.05)
    # what other tests have published may still be on the cluster's bus, but nothing of this one
    while message := everything.get_message(timeout=0.05):
        assert mark not in message["channel"] + message["data"]


def test_published_notification_channels(r, server, pubsub, key, notifications):
    """Whoever publishes to a channel of that name himself reaches its subscribers.

    Through slotway once from every primary: it listens at all of them, and cannot tell such a
    message from a notification.
    """
    most = 3 if server.is_slotway else 1
    ps = pubsub()
    ps.psubscribe("__key*__:*")
    ps.subscribe("__keyevent@0__:mine")
    confirmed(ps, 2)
    assert r.publish("__keyevent@0__:mine", key()) == 2
    r.publish("__keyevent@0__:mine", "end")
    kinds = {"message": 0, "pmessage": 0}
    while min(kinds.values()) < 1:
        [(kind, _, channel, data)] = take(ps)
        assert channel == "__keyevent@0__:mine" and data in (key(), "end")
        kinds[kind] += data == key()
    while message := ps.get_message(timeout=0.05):
        kinds[message["type"]] += message["data"] == key()
    assert max(kinds.values()) <= most


def test_notifications_that_are_not_wanted(r, pubsub, key):
    assert r.config_get("notify-keyspace-events")["notify-keyspace-events"] == ""
    ps = pubsub()
    ps.psubscribe("__key*", "*")
    confirmed(ps, 2)
    r.set(key(), "v")
    r.publish(key("a"), "end")
    assert take(ps, about=key("").lstrip(":")) == [("pmessage", "*", key("a"), "end")]


def test_many_threads_publish_and_listen(client, r, pubsub, key):
    """Each subscriber gets everything, each publisher's messages in order."""
    subscribers = [pubsub(client()) for _ in range(4)]
    for ps in subscribers:
        ps.subscribe(key("a"))
        confirmed(ps)

    def publish(who):
        for n in range(100):
            assert r.publish(key("a"), f"{who} {n}") == 4

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for ps in subscribers:
        got = [data.split() for _, _, _, data in take(ps, 400)]
        for who in range(4):
            assert [int(n) for w, n in got if w == str(who)] == list(range(100))
    for thread in threads:
        thread.join()


def test_subscribers_that_come_and_go_leave_nothing(client, r, key):
    for n in range(30):
        ps = r.pubsub()
        ps.subscribe(key("a"), key(f"b{n}"))
        ps.psubscribe(key(f"p{n % 3}*"))
        if n % 2:
            confirmed(ps, 3)
        ps.close()
    mark = key("").lstrip(":")
    until("nothing is left", lambda: r.pubsub_channels(f"*{mark}") == [])
    until("nothing is left", lambda: r.publish(key("p1"), "x") == 0)


def test_a_monitoring_client_subscribes(server, r, kind, key):
    """It gets both; which of the two comes first is the server's own."""
    push = b"*" if kind[2] == 2 else b">"
    with Wire(server.addr) as w:
        w.send(encode("HELLO", kind[2]))
        until("HELLO is answered", lambda: b"modules" in w.socket.recv(1 << 16))
        w.send(encode("MONITOR") + encode("SUBSCRIBE", key("a")))
        name = key("a").encode()
        got = b""

        def comes(what):
            nonlocal got
            while what not in got:
                piece = w.socket.recv(1 << 16)
                assert piece, got
                got += piece

        comes(push + b"3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(name), name))
        assert r.publish(key("a"), "x") == 1
        comes(push + b"3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$1\r\nx\r\n" % (len(name), name))
        comes(b'"PUBLISH" "%s" "x"\r\n' % name)
