"""Programs written for one Redis, their keys in any slots, through slotway with
commands.cross_slot = "emulate"."""

import threading

import pytest
import redis


@pytest.fixture(scope="session")
def emulating(start):
    return start(settings=["commands.cross_slot=emulate"])


@pytest.fixture
def r(connect, emulating):
    return connect(addr=emulating.addr, decode_responses=True)


async def test_friends_in_common(r, key):
    ann, bob, eve = (key(f"friends:{who}") for who in ("ann", "bob", "eve"))
    await r.sadd(ann, "bob", "eve", "joe", "kim")
    await r.sadd(bob, "ann", "eve", "joe")
    await r.sadd(eve, "ann", "bob", "joe", "kim")
    assert await r.sinter(ann, bob) == {"eve", "joe"}
    assert await r.sinter(ann, bob, eve) == {"joe"}
    assert await r.sunion(ann, bob) == {"ann", "bob", "eve", "joe", "kim"}
    assert await r.sdiff(ann, bob) == {"bob", "kim"}
    assert await r.sintercard(3, [ann, bob, eve]) == 1
    assert await r.sintercard(2, [ann, eve], limit=1) == 1
    assert await r.sinterstore(key("common"), ann, bob) == 2
    assert await r.smembers(key("common")) == {"eve", "joe"}
    assert await r.smove(ann, bob, "kim") is True
    assert await r.sismember(ann, "kim") == 0 and await r.sismember(bob, "kim") == 1
    assert await r.smove(ann, bob, "nobody") is False
    assert await r.sinter(ann, key("nobody's")) == set()


async def test_published_under_another_name(r, key):
    draft, page, old = key("draft"), key("page"), key("page:old")
    await r.hset(draft, mapping={"title": "new", "text": "…"})
    await r.expire(draft, 1000)
    await r.hset(page, mapping={"title": "was"})
    assert await r.copy(page, old) is True
    assert await r.copy(page, old) is False
    assert await r.rename(draft, page) is True
    assert await r.hgetall(page) == {"title": "new", "text": "…"}
    assert 990 < await r.ttl(page) <= 1000
    assert await r.exists(draft) == 0
    assert await r.hgetall(old) == {"title": "was"}
    assert await r.renamenx(old, page) is False
    assert await r.copy(page, old, replace=True) is True
    with pytest.raises(redis.ResponseError, match="no such key"):
        await r.rename(draft, page)


async def test_rankings(r, key):
    week1, week2, total = key("week1"), key("week2"), key("total")
    await r.zadd(week1, {"ann": 10, "bob": 5.5, "eve": 1})
    await r.zadd(week2, {"ann": 1, "bob": 20, "joe": 2})
    assert await r.zunionstore(total, {week1: 1, week2: 0.5}) == 4
    ranking = await r.zrange(total, 0, -1, desc=True, withscores=True)
    assert [(name, score) for name, score in ranking] == [
        ("bob", 15.5),
        ("ann", 10.5),
        ("joe", 1.0),
        ("eve", 1.0),
    ]
    assert await r.zinterstore(total, [week1, week2], aggregate="MAX") == 2
    assert await r.zscore(total, "bob") == 20
    assert await r.zdiff([week1, week2]) == ["eve"]
    assert await r.zintercard(2, [week1, week2]) == 2
    assert await r.zrangestore(key("top"), week1, 0, 1) == 2
    assert await r.zrange(key("top"), 0, -1) == ["eve", "bob"]
    popped = await r.zmpop(2, [key("empty"), week2], max=True)
    assert popped[0] == week2 and popped[1][0][0] == "bob"


async def test_a_list_of_numbers_and_their_articles(r, key):
    ids, by = key("ids"), key("weight")
    await r.rpush(ids, 1, 2, 3)
    for i, weight in ((1, 30), (2, 10), (3, 20)):
        await r.set(f"{by}:{i}", weight)
        await r.hset(f"{by}:article:{i}", mapping={"title": f"title {i}"})
    found = await r.sort(ids, by=f"{by}:*", get=["#", f"{by}:article:*->title"])
    assert found == ["2", "title 2", "3", "title 3", "1", "title 1"]
    assert await r.sort(ids, by=f"{by}:*", desc=True, start=0, num=1) == ["1"]
    assert await r.sort(ids, by=f"{by}:*", store=key("sorted")) == 3
    assert await r.lrange(key("sorted"), 0, -1) == ["2", "3", "1"]


async def test_visitors(r, key):
    monday, tuesday = key("visitors:mon"), key("visitors:tue")
    for i in range(0, 500, 50):
        await r.pfadd(monday, *(f"user-{n}" for n in range(i, i + 50)))
        await r.pfadd(tuesday, *(f"user-{n}" for n in range(i + 250, i + 300)))
    both = await r.pfcount(monday, tuesday)
    assert 700 < both < 800
    assert await r.pfmerge(key("visitors"), monday, tuesday)
    assert await r.pfcount(key("visitors")) == both
    day1, day2 = key("active:1"), key("active:2")
    for user in (1, 5, 9):
        await r.setbit(day1, user, 1)
    for user in (5, 9, 20):
        await r.setbit(day2, user, 1)
    assert await r.bitop("AND", key("active"), day1, day2) == 3
    assert await r.bitcount(key("active")) == 2
    assert await r.bitop("NOT", key("idle"), day1) == 2


async def test_one_job_after_the_other(r, key):
    waiting, working = key("waiting"), key("working")
    await r.rpush(waiting, "a", "b", "c")
    assert await r.lmove(waiting, working, "LEFT", "RIGHT") == "a"
    assert await r.rpoplpush(waiting, working) == "c"
    assert await r.blmove(waiting, working, 1, "LEFT", "LEFT") == "b"
    assert sorted(await r.lrange(working, 0, -1)) == ["a", "b", "c"]
    assert await r.lmove(waiting, working, "LEFT", "LEFT") is None
    assert await r.blmove(waiting, working, 0.05) is None
    assert await r.lmpop(2, waiting, working, direction="LEFT", count=2) is not None
    assert await r.llen(working) == 1


async def test_pipelines_of_all_of_it(r, key):
    a, b, c = key("a"), key("b"), key("c")
    pipe = r.pipeline()
    pipe.client.sadd(a, 1, 2, 3).sadd(b, 2, 3, 4).sinterstore(c, a, b).scard(c)
    pipe.client.rename(c, a).scard(a).get(a).msetnx({b + "x": 1, c + "x": 2}).exists(b, c)
    replies = await pipe.execute(raise_on_error=False)
    assert replies[:6] == [3, 3, 2, 2, True, 2]
    assert isinstance(replies[6], redis.ResponseError) and "WRONGTYPE" in str(replies[6])
    assert replies[7:] == [True, 1]


async def test_what_stays_refused(r, key):
    a, b = key("a"), key("b")
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await r.eval("return 1", 2, a, b)
    pipe = r.pipeline(transaction=True)
    pipe.client.sinter(a, b)
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await pipe.execute()


async def test_streams(r, key):
    a, b = key("a"), key("b")
    await r.xadd(a, {"n": 1}, id="1-1")
    await r.xadd(b, {"n": 2}, id="2-1")
    both = await r.xread({a: "0", b: "0"})
    assert len(both) == 2 and "1-1" in str(both) and "2-1" in str(both)
    assert not await r.xread({a: "$", b: "$"}, block=20)
    for name in (a, b):
        await r.xgroup_create(name, "g", id="0")
    assert len(await r.xreadgroup("g", "me", {a: ">", b: ">"})) == 2
    assert not await r.xreadgroup("g", "me", {a: ">", b: ">"}, block=20)


def test_workers_of_several_queues(emulating, key):
    """Each job is done once, the urgent ones first, by threads with one client."""
    urgent, normal, rare = key("urgent"), key("normal"), key("rare")
    client = redis.Redis(host=emulating.addr[0], port=emulating.addr[1], decode_responses=True)
    client.rpush(normal, "n0")
    client.rpush(urgent, "u0", "u1")
    firsts = [client.blpop([urgent, normal, rare], timeout=5)[1] for _ in range(3)]
    assert firsts == ["u0", "u1", "n0"]
    done, lock = [], threading.Lock()

    def work():
        while True:
            _, job = client.blpop([urgent, normal, rare], timeout=10)
            if job == "end":
                return
            with lock:
                done.append(job)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    jobs = [f"job-{i}" for i in range(200)]
    for i, job in enumerate(jobs):
        client.rpush((urgent, normal, rare)[i % 3], job)
    for _ in workers:
        client.rpush(rare, "end")
    for worker in workers:
        worker.join(timeout=30)
    assert sorted(done) == sorted(jobs)
    client.close()
