"""Slow log, hot keys and big keys as a client's library sees them; spans as OpenTelemetry reads them.

SLOWLOG is asked of a plain server as well (SLOTWAY_TEST_TARGET=standalone): PROXY and spans are
slotway's own.
"""

import base64
import json
import os
import re
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import redis
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from servers import PATIENCE, until

OURS = os.environ.get("SLOTWAY_TEST_TARGET") != "standalone"
ours = pytest.mark.skipif(not OURS, reason="a plain server has no PROXY")


def as_dicts(reply):
    """Maps, whatever the protocol has in their place."""
    return [e if isinstance(e, dict) else dict(zip(e[::2], e[1::2])) for e in reply]


def text(value):
    """redis-py leaves what is in the log as bytes, whatever else it decodes."""
    return value.decode() if isinstance(value, bytes) else value


async def test_slow_log(r, key):
    name = key()
    slower = (await r.config_get("slowlog-log-slower-than"))["slowlog-log-slower-than"]
    await r.config_set("slowlog-log-slower-than", 0)
    try:
        await r.client_setname("slow-one")
        await r.set(name, "x" * 200)
        await r.get(name)
        entries = await r.slowlog_get(128)
        commands = [text(e["command"]) for e in entries]
        assert f"SET {name} {'x' * 128}... (72 more bytes)" in commands
        get = entries[commands.index(f"GET {name}")]
        assert text(get["client_name"]) == "slow-one" and ":" in text(get["client_address"])
        assert get["duration"] >= 0 and get["start_time"] > 1_600_000_000
        assert [e["id"] for e in entries] == sorted((e["id"] for e in entries), reverse=True)
        assert await r.slowlog_len() >= 3
        await r.slowlog_reset()
        assert f"GET {name}" not in [text(e["command"]) for e in await r.slowlog_get(-1)]
    finally:
        await r.config_set("slowlog-log-slower-than", slower)


@ours
async def test_where_the_time_went(r, key):
    name = key()
    slower = (await r.config_get("slowlog-log-slower-than"))["slowlog-log-slower-than"]
    await r.config_set("slowlog-log-slower-than", 0)
    try:
        await r.get(name)
        entries = as_dicts(await r.execute_command("PROXY", "SLOWLOG", "GET", -1))
        entry = next(e for e in entries if list(e["args"]) == ["GET", name])
        assert entry["duration"] == entry["queue"] + entry["node-time"] + entry["client-time"]
        assert ":" in entry["node"] and entry["tries"] >= 0
        nodes = await r.execute_command("PROXY", "SLOWLOG", "NODES", "GET", -1)
        assert ["GET", name] in [list(e[3]) for e in nodes]
    finally:
        await r.config_set("slowlog-log-slower-than", slower)


@ours
async def test_hot_and_big_keys(r, key):
    hot, big = key("hot"), key("big")
    pipe = r.pipeline()
    for _ in range(3000):
        pipe.client.incr(hot)
    await pipe.execute()
    await r.set(big, "x" * 600_000)
    keys = as_dicts(await r.execute_command("PROXY", "HOTKEYS", "COUNT", 50))
    mine = next(k for k in keys if k["key"] == hot)
    assert float(mine["writes-per-second"]) > 0 and float(mine["reads-per-second"]) == 0
    assert mine["command"] == "incrby" and ":" in mine["node"]
    keys = as_dicts(await r.execute_command("PROXY", "BIGKEYS", "COUNT", 50))
    mine = next(k for k in keys if k["key"] == big)
    assert (mine["bytes"], mine["direction"], mine["command"]) == (600_000, "request", "set")
    with pytest.raises(redis.ResponseError, match="syntax error"):
        await r.execute_command("PROXY", "HOTKEYS", "COUNT")
    assert any("HOTKEYS" in line for line in await r.execute_command("PROXY", "HELP"))


def export_request(body):
    """The OTLP/JSON in `body` as OpenTelemetry's own message, which has to have all its fields.

    OTLP writes ids in hexadecimal, where protobuf's JSON has bytes in Base64.
    """
    request = json.loads(body)
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return ParseDict(request, ExportTraceServiceRequest())


class Collector:
    """Takes spans as a collector does, decoded by OpenTelemetry's own messages."""

    def __init__(self):
        self.requests = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers["Content-Type"]
                collector.requests.append((self.path, kind, export_request(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def traces(self):
        """By trace: its spans."""
        found = {}
        for _, _, request in list(self.requests):
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found.setdefault(span.trace_id, []).append(span)
        return list(found.values())


def attributes(span):
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


@ours
def test_spans_reach_a_collector(start):
    collector = Collector()
    server = start(
        settings=[f"tracing.endpoint={collector.endpoint}", "tracing.sample=1"],
    )
    client = redis.Redis(host=server.addr[0], port=server.addr[1])
    client.set("secret-key", "secret-value")
    client.mget([f"traced:{i}" for i in range(20)])
    with pytest.raises(redis.ResponseError):
        client.incr("secret-key")
    client.ping()

    def named(name):
        traces = collector.traces()
        return [t for t in traces if any(s.name == name and not s.parent_span_id for s in t)]

    until("all four are told", lambda: all(named(n) for n in ("SET", "MGET", "INCRBY", "PING")))
    path, kind, request = collector.requests[0]
    assert (path, kind) == ("/v1/traces", "application/json")
    resource = {a.key: a.value.string_value for a in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "slotway" and resource["service.version"]
    for trace in collector.traces():
        (root,) = [s for s in trace if not s.parent_span_id]
        assert root.kind == 2 and len(root.trace_id) == 16 and len(root.span_id) == 8
        assert attributes(root)["db.system.name"] == "redis"
        assert attributes(root)["db.operation.name"] == root.name
        for span in trace:
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano
            assert span is root or span.parent_span_id == root.span_id
    (set_,) = named("SET")
    assert [s.name for s in set_] == ["SET", "queue", "SET", "reply"]
    (root, queue, upstream, reply) = set_
    assert (queue.kind, upstream.kind, reply.kind) == (1, 3, 1)
    assert queue.end_time_unix_nano <= upstream.start_time_unix_nano
    assert upstream.end_time_unix_nano <= reply.start_time_unix_nano
    assert attributes(upstream)["server.address"] == "127.0.0.1"
    assert attributes(upstream)["server.port"] > 1024
    assert "client.address" in attributes(root)
    (mget,) = named("MGET")
    nodes = {attributes(s)["server.port"] for s in mget if s.kind == 3}
    assert len(nodes) == 3, "a part for each primary"
    (incr,) = named("INCRBY")
    failed = next(s for s in incr if s.kind == 3)
    assert failed.status.code == 2 and attributes(failed)["db.response.status_code"] == "ERR"
    (ping,) = named("PING")
    assert [s.name for s in ping] == ["PING"], "no node was asked"
    assert not any(b"secret" in r.SerializeToString() for _, _, r in collector.requests)
    # What nobody takes is counted, and holds nobody up.
    collector.server.shutdown()
    collector.server.server_close()
    assert client.ping()

    def failed():
        page = urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=PATIENCE)
        counts = re.search(r'trace_spans_total{outcome="failed"} (\d+)', page.read().decode())
        return int(counts.group(1)) > 0

    until("it is counted", failed)
