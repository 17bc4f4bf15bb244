"""Users as redis-py logs them in: slotway's own and the cluster's, in both protocols, with pools,
pipelines and pub/sub."""

import inspect

import pytest
import redis

WHOEVER = ("app", "reader")
RULES = {
    "app": "on >app-pw ~app:* &app:* +@all -@admin -@dangerous",
    "reader": "on >reader-pw ~* +@read +@connection +acl|whoami",
}


@pytest.fixture(scope="module", params=["own", "cluster"])
def front(request, start):
    """Slotway with these users; or in front of a cluster with them."""
    if request.param == "own":
        users = ",".join(f"{name} {rules}" for name, rules in RULES.items())
        server = start(settings=[f"users={users}"])
        if not server.is_slotway:
            pytest.skip("a server's users are not in slotway's configuration")
        yield server
        return
    server = start(settings=["auth=passthrough"])
    nodes = [n.addr for n in server.cluster.nodes] if server.is_slotway else [server.addr]
    admins = [redis.Redis(host=host, port=port) for host, port in nodes]
    for admin in admins:
        for name, rules in RULES.items():
            admin.execute_command("ACL", "SETUSER", name, *rules.split())
    yield server
    for admin in admins:
        admin.execute_command("ACL", "DELUSER", *RULES)
        admin.close()


@pytest.fixture
def login(connect, front):
    """Makes clients that log in."""

    def go(name, password=None, **options):
        password = f"{name}-pw" if password is None else password
        options = {"decode_responses": True, **options}
        return connect(front.addr, username=name, password=password, **options)

    return go


async def test_who_it_is(login):
    for name in WHOEVER:
        assert await login(name).acl_whoami() == name


async def test_a_wrong_password(login, kind):
    if kind[:2] != ("sync", "hiredis"):
        pytest.skip("each failure is answered later than the one before")
    for name, password in [("app", "no"), ("nobody", "app-pw")]:
        with pytest.raises(redis.AuthenticationError, match="invalid username-password"):
            await login(name, password).ping()


async def test_rules(login, tagged):
    app, reader = login("app"), login("reader")
    key = "app:" + tagged()
    assert await app.set(key, "1")
    assert await reader.get(key) == "1"
    with pytest.raises(redis.exceptions.NoPermissionError, match="'set' command"):
        await reader.set(key, "2")
    with pytest.raises(redis.exceptions.NoPermissionError, match="one of the keys"):
        await app.set("other", "2")
    with pytest.raises(redis.exceptions.NoPermissionError, match="'config|get'"):
        await app.config_get("maxmemory")


async def test_keys_of_many_slots(login, key):
    app = login("app")
    values = {"app:" + key(f"many{n}"): str(n) for n in range(50)}
    assert await app.mset(values)
    assert await app.mget(list(values)) == list(values.values())
    with pytest.raises(redis.exceptions.NoPermissionError, match="one of the keys"):
        await app.mget([*values, "other"])
    assert await app.delete(*values) == 50


async def test_pipelines(login, tagged):
    app = login("app")
    for transaction in (False, True):
        key = f"app:{tagged()}:{transaction}"
        pipe = app.pipeline(transaction)
        for _ in range(100):
            pipe.client.incr(key)
        assert await pipe.execute() == list(range(1, 101))
    pipe = app.pipeline(True)
    pipe.client.incr(key)
    pipe.client.set("other", 1)
    with pytest.raises(redis.ResponseError):
        await pipe.execute()
    assert await app.get(key) == "100"


async def test_many_connections(login, key):
    app = login("app", max_connections=20)
    clients = [login("app") for _ in range(10)]
    for n, client in enumerate([app, *clients]):
        assert await client.set("app:" + key(str(n)), n)
        assert await client.acl_whoami() == "app"


async def test_pubsub(login, key):
    app = login("app")
    channel = "app:" + key()

    async def call(result):
        return await result if inspect.isawaitable(result) else result

    pubsub = app.client.pubsub(ignore_subscribe_messages=False)
    await call(pubsub.subscribe(channel))
    assert (await call(pubsub.get_message(timeout=10)))["type"] == "subscribe"
    assert await app.publish(channel, "hello") == 1
    message = await call(pubsub.get_message(timeout=10))
    assert (message["type"], message["data"]) == ("message", "hello")
    await call(pubsub.subscribe("other"))
    with pytest.raises(redis.exceptions.NoPermissionError, match="one of the channels"):
        await call(pubsub.get_message(timeout=10))
    await call(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())
    with pytest.raises(redis.exceptions.NoPermissionError, match="one of the channels"):
        await app.publish("other", "hello")
