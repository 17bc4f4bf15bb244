"""What Python programs do with Redis, through slotway: a few lines for each thing.

    make run                              # in one terminal: a cluster and slotway
    .venv/bin/python examples/redis_py_tour.py [HOST:PORT]     # in another one

Nothing here is special to slotway or to a cluster but the {braces} in some keys' names. It runs
the same against a single redis-server. All keys start with "tour:" and are gone at the end.
"""

import asyncio
import json
import os
import queue
import sys
import threading
import time

import redis
import redis.asyncio

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TOUR_ADDR", "127.0.0.1:6380")
HOST, PORT = ADDRESS.rsplit(":", 1)


def connecting():
    """Connecting: a client is a pool of connections, and threads share it"""
    r = redis.Redis(host=HOST, port=int(PORT), decode_responses=True)
    assert r.ping()
    # the same as a URL, as it stands in most settings files
    assert redis.Redis.from_url(f"redis://{HOST}:{PORT}/0").ping()

    def visit():
        for _ in range(100):
            r.incr("tour:visits")

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert r.get("tour:visits") == "400"
    print("4 threads with one client counted", r.get("tour:visits"), "visits")


def strings(r):
    """Strings: text, numbers, bytes"""
    r.set("tour:greeting", "hello")
    r.append("tour:greeting", ", world")
    assert r.get("tour:greeting") == "hello, world"
    assert r.get("tour:nothing") is None
    assert r.set("tour:greeting", "again", nx=True) is None  # only if it is not there

    assert r.incrby("tour:stock", 10) == 10
    assert r.decr("tour:stock") == 9

    # many keys at once; they may be all over the cluster
    r.mset({"tour:user:1": "Ada", "tour:user:2": "Grace"})
    assert r.mget("tour:user:1", "tour:user:2", "tour:user:3") == ["Ada", "Grace", None]
    print("users:", r.mget("tour:user:1", "tour:user:2"))

    # decode_responses=True gives str; without it everything is bytes, as for pictures or pickles
    raw = redis.Redis(host=HOST, port=int(PORT))
    raw.set("tour:bytes", bytes(range(256)))
    assert raw.get("tour:bytes") == bytes(range(256))
    assert raw.get("tour:user:1") == b"Ada"
    print("bytes come back as they were:", raw.getrange("tour:bytes", 250, 255))


def lists(r):
    """Lists: a queue"""
    r.rpush("tour:queue", "first", "second", "third")
    assert r.lrange("tour:queue", 0, -1) == ["first", "second", "third"]
    assert r.lpop("tour:queue") == "first"
    assert r.llen("tour:queue") == 2
    # A worker waits for the next job; None after a second without one.
    assert r.blpop("tour:queue", timeout=1) == ("tour:queue", "second")
    # Commands with several keys need them in one place: what is in {braces} decides where.
    r.rpush("tour:{jobs}:waiting", "job 1")
    assert r.lmove("tour:{jobs}:waiting", "tour:{jobs}:running") == "job 1"
    print("running:", r.lrange("tour:{jobs}:running", 0, -1))


def hashes(r):
    """Hashes: a record with fields"""
    r.hset("tour:book:1", mapping={"title": "Notes", "author": "Ada", "sold": 0})
    assert r.hincrby("tour:book:1", "sold", 3) == 3
    assert r.hget("tour:book:1", "title") == "Notes"
    assert r.hgetall("tour:book:1") == {"title": "Notes", "author": "Ada", "sold": "3"}
    print("a book:", r.hgetall("tour:book:1"))


def sets(r):
    """Sets: tags, and what they have in common"""
    r.sadd("tour:{tags}:python", "redis-py", "pytest", "numpy")
    r.sadd("tour:{tags}:testing", "pytest", "jest")
    assert r.sismember("tour:{tags}:python", "numpy")
    both = r.sinter("tour:{tags}:python", "tour:{tags}:testing")
    assert both == {"pytest"}
    print("python and testing:", both)


def sorted_sets(r):
    """Sorted sets: a leader board"""
    r.zadd("tour:points", {"Ada": 30, "Grace": 50, "Edsger": 20})
    r.zincrby("tour:points", 25, "Ada")
    assert r.zrange("tour:points", 0, 1, desc=True, withscores=True) == [
        ("Ada", 55.0), ("Grace", 50.0),
    ]  # fmt: skip
    assert r.zrevrank("tour:points", "Edsger") == 2
    print("ahead:", r.zrange("tour:points", 0, 0, desc=True))


def json_values(r):
    """JSON: values with a structure"""
    order = {"id": 7, "items": ["tea", "milk"], "paid": False}
    r.set("tour:order:7", json.dumps(order))
    assert json.loads(r.get("tour:order:7")) == order
    print("an order:", r.get("tour:order:7"))


def expiry(r):
    """Expiry: keys that go by themselves"""
    r.set("tour:code", "123456", ex=300)
    assert 290 < r.ttl("tour:code") <= 300
    r.persist("tour:code")
    assert r.ttl("tour:code") == -1  # it stays; -2 would be: there is no such key
    r.set("tour:blink", "!", px=20)
    while r.exists("tour:blink"):
        time.sleep(0.01)
    print("the key that was set for 20 ms is gone")


def errors(r):
    """Errors, and connections that break"""
    r.set("tour:text", "not a number")
    try:
        r.incr("tour:text")
        raise AssertionError("no error")
    except redis.ResponseError as error:
        print("the server says:", error)

    # A connection that breaks is opened again, and the command repeated, by the client itself.
    # Give up after what the program can wait:
    patient = redis.Redis(host=HOST, port=int(PORT), socket_connect_timeout=2, socket_timeout=5)
    r.client_kill_filter(_id=patient.client_id())
    assert patient.ping()
    print("the connection was killed; the next command went well")

    nobody = redis.Redis(host=HOST, port=1, retry=None)
    try:
        nobody.ping()
        raise AssertionError("no error")
    except redis.ConnectionError as error:
        print("nobody there:", error)


def pipelines(r):
    """Pipelines: many commands in one go"""
    # transaction=False: only saves round trips
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"tour:item:{i}", i)
        assert p.execute() == [True] * 1000

    # The default is MULTI … EXEC: nobody else's commands come in between. Its keys belong in one
    # place (braces) for this to hold for all of them.
    with r.pipeline() as p:
        p.decrby("tour:{bank}:ada", 10)
        p.incrby("tour:{bank}:grace", 10)
        assert p.execute() == [-10, 10]

    # One command's error does not stop the others; raise_on_error=False gives it in its place.
    with r.pipeline(transaction=False) as p:
        p.lpush("tour:item:0", "x").get("tour:item:0")
        wrong, value = p.execute(raise_on_error=False)
    assert isinstance(wrong, redis.ResponseError) and value == "0"
    print("1,000 keys in one go; then:", wrong)


def optimistic_locking(r):
    """WATCH: change a value only if nobody else has"""
    r.set("tour:seats", 2)

    def take_a_seat(p):
        seats = int(p.get("tour:seats"))  # at once: after WATCH and before MULTI
        p.multi()
        p.set("tour:seats", seats - 1)

    r.transaction(take_a_seat, "tour:seats")  # again and again, until nobody came in between
    assert r.get("tour:seats") == "1"

    # the same by hand, and somebody comes in between
    with r.pipeline() as p:
        p.watch("tour:seats")
        seats = int(p.get("tour:seats"))
        r.set("tour:seats", 0)
        p.multi()
        p.set("tour:seats", seats - 1)
        try:
            p.execute()
            raise AssertionError("no error")
        except redis.WatchError:
            print("the seat was taken by somebody else; nothing was changed")
    assert r.get("tour:seats") == "0"


def lua(r):
    """Lua: several steps as one, on the server"""
    # All keys a script touches are passed as KEYS, and lie in one place.
    take = r.register_script("""
        local left = tonumber(redis.call('GET', KEYS[1]) or '0')
        if left < tonumber(ARGV[1]) then return -1 end
        return redis.call('DECRBY', KEYS[1], ARGV[1])
    """)
    r.set("tour:tickets", 5)
    assert take(keys=["tour:tickets"], args=[3]) == 2
    assert take(keys=["tour:tickets"], args=[3]) == -1
    print("tickets left:", r.get("tour:tickets"))


def streams(r):
    """Streams: workers share what comes in, and nothing is lost when one fails"""
    r.xgroup_create("tour:events", "mailers", id="0", mkstream=True)
    for n in range(4):
        r.xadd("tour:events", {"mail": n}, maxlen=1000, approximate=True)

    def read(worker, count):
        [(_, entries)] = r.xreadgroup("mailers", worker, {"tour:events": ">"}, count=count)
        return entries

    def done(entries):
        return r.xack("tour:events", "mailers", *(entry_id for entry_id, _ in entries))

    first, second = read("anna", 2), read("bert", 2)
    assert [fields["mail"] for _, fields in first + second] == ["0", "1", "2", "3"]
    assert done(first) == 2
    # bert never says that he is done, so anna takes over what he had
    assert r.xpending("tour:events", "mailers")["pending"] == 2
    _, taken, _ = r.xautoclaim("tour:events", "mailers", "anna", min_idle_time=0)
    assert taken == second and done(taken) == 2
    # a worker with nothing to do waits, here for 50 ms
    assert not r.xreadgroup("mailers", "anna", {"tour:events": ">"}, block=50)
    print("anna's mails, and bert's that she took over:", [f["mail"] for _, f in first + taken])


def publish_subscribe(r):
    """Pub/sub: whoever listens hears it, now or never"""
    assert r.publish("tour:news", "nobody listens yet") == 0

    def message(subscriber):
        got = subscriber.get_message(ignore_subscribe_messages=True, timeout=5)
        while got is None:  # a confirmation was read and ignored
            got = subscriber.get_message(ignore_subscribe_messages=True, timeout=5)
        return got["channel"], got["data"]

    # A subscriber has a connection of its own. A pattern hears all channels that match it.
    with r.pubsub() as reader, r.pubsub() as archive:
        reader.subscribe("tour:news")
        archive.psubscribe("tour:*")
        # Until it is confirmed, messages may be missed; from then on, none is.
        assert reader.get_message(timeout=5)["type"] == "subscribe"
        assert archive.get_message(timeout=5)["type"] == "psubscribe"
        assert r.publish("tour:news", "hello") == 2
        assert r.publish("tour:weather", "rain") == 1
        assert message(reader) == ("tour:news", "hello")
        # each channel's messages come in order, those of several channels in any
        both = {message(archive), message(archive)}
        assert both == {("tour:news", "hello"), ("tour:weather", "rain")}

        # What was published before is not kept (a stream would keep it).
        with r.pubsub() as late:
            late.subscribe("tour:news")
            assert late.get_message(timeout=5)["type"] == "subscribe"
            assert late.get_message(timeout=0.1) is None
            r.publish("tour:news", "good night")
            assert message(late) == message(reader) == ("tour:news", "good night")

        # or a function for each message, in a thread
        heard = queue.Queue()
        archive.psubscribe(**{"tour:*": lambda got: heard.put(got["data"])})
        thread = archive.run_in_thread(sleep_time=0.1, daemon=True)
        r.publish("tour:weather", "sun")
        while (last := heard.get(timeout=5)) != "sun":
            pass  # "good night"
        thread.stop()
        thread.join()
    print("the reader heard: hello, good night; the late one: good night; the archive last:", last)


def locks(r):
    """Locks: one at a time, over all machines"""
    # It goes by itself after ten seconds if its holder dies.
    with r.lock("tour:lock:report", timeout=10):
        second = r.lock("tour:lock:report", timeout=10)
        assert not second.acquire(blocking=False)
    assert second.acquire(blocking_timeout=1)
    second.release()
    print("the second one got the lock when the first had gone")


def rate_limiter(r):
    """A rate limiter: three requests a minute"""

    def allowed(user):
        key = f"tour:rate:{user}:{int(time.time() // 60)}"
        with r.pipeline() as p:
            count, _ = p.incr(key).expire(key, 60).execute()
        return count <= 3

    def requests():
        return [allowed("ada") for _ in range(5)]

    answers = requests()
    if answers != [True, True, True, False, False]:
        answers = requests()  # a new minute began in between
    assert answers == [True, True, True, False, False]
    print("five requests:", answers)


def sessions(r):
    """Sessions: a hash for each visitor, gone half an hour after the last visit"""

    def visit(session_id, **changes):
        key = f"tour:session:{session_id}"
        with r.pipeline() as p:
            if changes:
                p.hset(key, mapping=changes)
            p.hgetall(key).expire(key, 1800)
            return p.execute()[-2]

    visit("s1", user="Ada")
    assert visit("s1", basket="tea") == {"user": "Ada", "basket": "tea"}
    assert visit("s2") == {}
    assert 1700 < r.ttl("tour:session:s1") <= 1800
    print("the session:", visit("s1"))


def cache_aside(r):
    """Cache-aside: ask Redis first, then the database"""
    asked = []

    def slow_database(product_id):
        asked.append(product_id)
        return {"id": product_id, "name": "Tea"}

    def product(product_id):
        key = f"tour:cache:product:{product_id}"
        cached = r.get(key)
        if cached is not None:
            return json.loads(cached)
        found = slow_database(product_id)
        r.set(key, json.dumps(found), ex=60)
        return found

    assert product(1) == product(1) == {"id": 1, "name": "Tea"}
    assert asked == [1]
    r.unlink("tour:cache:product:1")  # the product has changed
    product(1)
    assert asked == [1, 1]
    print("asked three times, the database was asked", len(asked), "times")


def with_asyncio():
    """asyncio: the same with await"""

    async def main():
        async with redis.asyncio.Redis(host=HOST, port=int(PORT), decode_responses=True) as r:
            await asyncio.gather(*(r.set(f"tour:async:{i}", i) for i in range(100)))
            async with r.pipeline(transaction=False) as p:
                return await p.get("tour:async:1").get("tour:async:99").execute()

    values = asyncio.run(main())
    assert values == ["1", "99"]
    print("100 commands at once; two of the values:", values)


def leaving(r):
    """Leaving: all keys with a pattern, bit by bit"""
    keys = list(r.scan_iter(match="tour:*", count=1000))
    for key in keys:
        r.unlink(key)
    assert list(r.scan_iter(match="tour:*", count=1000)) == []
    print("removed", len(set(keys)), "keys")


PARTS = [
    strings, lists, hashes, sets, sorted_sets, json_values, expiry, errors, pipelines,
    optimistic_locking, lua, streams, publish_subscribe, locks, rate_limiter, sessions, cache_aside,
]  # fmt: skip


def heading(part):
    print(f"\n{part.__doc__}\n{'-' * len(part.__doc__)}")


def main():
    with redis.Redis(host=HOST, port=int(PORT), decode_responses=True) as r:
        # what a tour that was broken off has left
        for key in r.scan_iter(match="tour:*", count=1000):
            r.unlink(key)
        try:
            heading(connecting)
            connecting()
            for part in PARTS:
                heading(part)
                part(r)
            heading(with_asyncio)
            with_asyncio()
        finally:
            heading(leaving)
            leaving(r)


if __name__ == "__main__":
    main()
