"""TLS towards clients, with redis-py's own."""

import os
import ssl
import subprocess

import pytest
import redis

from servers import free_ports, until


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, another one, and certificates of the first for the server and for an application."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other", "server", "app"):
        key = folder / f"{name}.key"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        if name in ("ca", "other"):
            openssl("req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days", 2, "-out", folder / f"{name}.crt")
            continue
        names, request = folder / "names", folder / "request"
        names.write_text("subjectAltName=DNS:localhost\n")
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
                "-CAcreateserial", "-days", 2, "-extfile", names, "-out", folder / f"{name}.crt")
    return folder


@pytest.fixture(scope="module")
def secured(start, certificates):
    """Options for a client of a slotway that wants certificates of clients."""
    if os.environ.get("SLOTWAY_TEST_TARGET") == "standalone" or "SLOTWAY_TEST_ADDR" in os.environ:
        pytest.skip("needs a slotway of its own")
    (port,) = free_ports(1)
    start(settings=[
        f"tls.downstream.listen=127.0.0.1:{port}",
        f"tls.downstream.cert={certificates / 'server.crt'}",
        f"tls.downstream.key={certificates / 'server.key'}",
        f"tls.downstream.client_ca={certificates / 'ca.crt'}",
        "tls.downstream.client_auth=required",
    ])
    return {
        "host": "localhost",
        "port": port,
        "ssl": True,
        "ssl_ca_certs": str(certificates / "ca.crt"),
        "ssl_certfile": str(certificates / "app.crt"),
        "ssl_keyfile": str(certificates / "app.key"),
        "decode_responses": True,
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_an_application_over_tls(secured, key, protocol):
    with redis.Redis(**secured, protocol=protocol) as r:
        assert r.set(key(), "v" * 1_000_000) is True
        assert r.get(key()) == "v" * 1_000_000
        with r.pipeline(transaction=False) as p:
            for i in range(10_000):
                p.set(key(str(i)), i)
            assert p.execute() == [True] * 10_000
        with r.pipeline() as p:
            assert p.incr(key("n")).incr(key("n")).execute() == [1, 2]
        with r.pubsub() as listener:
            listener.subscribe(key("channel"))
            assert until("subscribed", listener.get_message)["type"] == "subscribe"
            assert r.publish(key("channel"), "hello") == 1
            assert until("a message", listener.get_message)["data"] == "hello"


def test_redis_cluster_client_over_tls(secured, key):
    options = {k: v for k, v in secured.items() if k not in ("host", "port")}
    # It goes where CLUSTER SLOTS sends it: to the address, which the certificate does not name.
    options["ssl_check_hostname"] = False
    with redis.RedisCluster(host="localhost", port=secured["port"], **options) as r:
        assert r.set(key(), "v") is True
        assert r.get(key()) == "v"


def test_who_is_not_let_in(secured, certificates):
    nobody = {**secured, "ssl_certfile": None, "ssl_keyfile": None}
    with redis.Redis(**nobody) as r, pytest.raises(redis.ConnectionError):
        r.ping()
    wrong = {**secured, "ssl_ca_certs": str(certificates / "other.crt")}
    with redis.Redis(**wrong) as r, pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        r.ping()
    old = {**secured, "ssl_min_version": ssl.TLSVersion.TLSv1_2}
    with redis.Redis(**old) as r:
        assert r.ping() is True
