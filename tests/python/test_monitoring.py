"""The Grafana dashboard and the alert rules of deploy/, with a real Prometheus that scrapes a real
slotway: every panel has something to show, every rule something to judge."""

import contextlib
import importlib.util
import itertools
import json
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
import redis
import yaml

from servers import REPOSITORY, Process, Wire, encode, free_ports, until

DEPLOY = REPOSITORY / "deploy"
RULES = DEPLOY / "prometheus/rules.yaml"
DASHBOARD = json.loads((DEPLOY / "grafana/slotway.json").read_text())


def panels():
    return [p for p in DASHBOARD["panels"] if p["type"] != "row"]


def alerts():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


class Prometheus(Process):
    """Scrapes a slotway four times a second, and judges the rules."""

    def __init__(self, target):
        super().__init__()
        (self.port,) = free_ports(1)
        # what is judged within seconds here takes minutes in production
        rules = re.sub(r"for: \w+", "for: 0s", RULES.read_text())
        (self.dir / "rules.yaml").write_text(rules)
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "slotway", "static_configs": [{"targets": [target]}]}],
        }
        (self.dir / "prometheus.yml").write_text(yaml.safe_dump(config))

    def start(self):
        self.run([
            "prometheus", f"--config.file={self.dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.dir / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}",
        ])
        until("prometheus is ready", self.ready)
        return self

    def ready(self):
        assert self.child.poll() is None, self.said()
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            return json.load(urllib.request.urlopen(url, timeout=10))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def values(self, query):
        """The values of a query's series, those that are no number left out."""
        result = self.get("query", query=query)["result"]
        return [v for v in (float(series["value"][1]) for series in result) if v == v]


@pytest.fixture(scope="module")
def prometheus(observed):
    prometheus = Prometheus(f"127.0.0.1:{observed.admin}")
    try:
        yield prometheus.start()
    finally:
        prometheus.kill()


@pytest.fixture(scope="module")
def everything(observed):
    """What panels show, over and over: what is usual and what is not."""
    over = threading.Event()
    # Its connections are there: the crowd takes all others.
    settled = threading.Event()

    def usual():
        r = redis.Redis(port=observed.port)
        subscriber = redis.Redis(port=observed.port).pubsub()
        subscriber.subscribe("news")
        subscriber.psubscribe("new*")
        script = r.register_script("return redis.call('INCR', KEYS[1])")
        reader = redis.Redis(port=observed.port, single_connection_client=True)
        reader.execute_command("READONLY")
        while not over.is_set():
            for i in range(50):
                r.set(f"m:{i}", i)
                r.get(f"m:{i}")
            r.mget([f"m:{i}" for i in range(20)])
            r.hset("m:h", "f", 1)
            script(keys=["m:n"])
            r.sadd("m:s", 1)
            r.sunion("m:s", "m:t")
            reader.get("m:1")
            with r.pipeline() as p:
                p.incr("m:a").incr("m:b").execute()
            r.publish("news", "x")
            r.blpop("m:none", timeout=0.02)
            subscriber.get_message(timeout=0.01)
            settled.set()
            over.wait(0.02)
        subscriber.close()

    def unusual():
        while not over.is_set():
            with contextlib.suppress(redis.RedisError):
                redis.Redis(port=observed.port).lpush("m:1", "of another type")
            with contextlib.suppress(redis.RedisError):
                redis.Redis(port=observed.port, username="app", password="app-secret").set("x", 1)
            with contextlib.suppress(redis.RedisError):
                redis.Redis(port=observed.port).execute_command("SHUTDOWN")
            with contextlib.suppress(OSError, AssertionError), Wire(observed.addr) as w:
                # larger than limits.bulk
                w.send(b"*2\r\n$3\r\nGET\r\n$9999999\r\n")
                w.to_the_end()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", observed.tls_port)) as plain:
                context = ssl.create_default_context(cafile=observed.certificate)
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    secured.sendall(encode("PING"))
                    secured.recv(100)
            over.wait(0.1)

    def stranger():
        for i in itertools.count():
            if over.wait(0.1):
                break
            # an address that fails again and again is made to wait
            with contextlib.suppress(OSError, AssertionError), Wire(observed.addr, 10, f"127.0.1.{i % 250 + 1}") as w:
                w.send(encode("AUTH", "app", "wrong"))
                w.exactly(5)

    def crowd():
        """Now and then more clients than limits.clients."""
        while not over.is_set():
            with contextlib.ExitStack() as many:
                for _ in range(110):
                    with contextlib.suppress(OSError):
                        many.enter_context(socket.create_connection(observed.addr, timeout=5))
                over.wait(0.5)
            over.wait(0.5)

    threads = [threading.Thread(target=what) for what in (usual, unusual, stranger, crowd)]
    threads[0].start()
    assert settled.wait(30)
    for thread in threads[1:]:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def filled_in(expression):
    for variable, value in {
        "$job": ".*", "$instance": ".*", "$__rate_interval": "5s", "$__interval": "5s",
    }.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def test_every_panel_shows_something(observed, prometheus, everything):
    waiting = {
        (panel["title"], filled_in(target["expr"])) for panel in panels() for target in panel["targets"]
    }
    assert len(waiting) > 60
    missing = set(waiting)

    def all_there():
        missing.difference_update([one for one in missing if prometheus.values(one[1])])
        return not missing

    try:
        until("every panel shows something", all_there)
    except BaseException:
        print("nothing in:", *sorted(missing), sep="\n  ")
        raise

    # and what was provoked is more than nothing
    for title in (
        "Commands by outcome", "Latency", "p99 by node", "Commands by node", "Commands that failed", "Logins",
        "Limits reached", "Clients turned away", "Commands denied to users", "TLS handshakes", "Messages",
        "Subscribers and subscriptions", "Reads by where they went", "Commands over several slots, transactions",
        "Connections lent to one client", "Bytes from and to clients", "CPU", "Memory", "Replicas",
    ):
        (panel,) = [p for p in panels() if p["title"] == title]
        for target in panel["targets"]:
            query = filled_in(target["expr"])
            # a slot that is half moved is another test's
            if "accept_errors" not in query and "key_by_key" not in query:
                until(query, lambda: max(prometheus.values(query), default=0) > 0)


def test_every_metric_is_on_the_dashboard_or_left_out_on_purpose():
    documented = set(re.findall(r"^\| `(\w+)`", (REPOSITORY / "docs/metrics.md").read_text(), re.M))
    shown = " ".join(t["expr"] for p in panels() for t in p["targets"]) + RULES.read_text()
    used = {name for name in documented if re.search(rf"\b{name}(_bucket|_count|_sum)?\b", shown)}
    assert documented - used <= {
        "slotway_config_loaded_timestamp_seconds", "process_virtual_memory_bytes", "process_start_time_seconds", "process_threads",
        "slotway_pubsub_connections", "slotway_pubsub_connection_failures_total", "slotway_pubsub_messages_ignored_total",
        "slotway_pubsub_received_bytes_total", "slotway_pubsub_restarts_total", "slotway_pubsub_resubscriptions_total",
        "slotway_pubsub_topics", "slotway_script_bytes", "slotway_commands_learned_blocking",
    }
    named = set(re.findall(r"\b(?:slotway|process)_\w+", shown))
    assert {re.sub(r"_(bucket|count|sum)$", "", n) for n in named} <= documented, "no such metric"


def judged(expression):
    """The parts of an alert's expression that have something to say in health: without their comparisons."""
    parts = re.split(r"\b(?:and|unless) on \([\w, ]+\)", expression)
    return [re.sub(r"[<>=]=? *[\d.]+\s*$", "", part.strip()) for part in parts]


def test_every_alert_has_something_to_judge_and_those_provoked_are_told(observed, prometheus, everything):
    for rule in alerts():
        if rule["expr"].startswith("absent("):
            continue
        for part in judged(rule["expr"]):
            until(f"{rule['alert']}: {part}", lambda: prometheus.values(part))
    for alert in ("ClientsRejected", "LimitHit", "LoginsRefused"):
        query = f'ALERTS{{alertname="Slotway{alert}", alertstate="firing"}}'
        until(query, lambda: prometheus.values(query) == [1])
    (group,) = prometheus.get("rules")["groups"]
    assert {(rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {("ok", "")}
    silent = {"SlotwayDown", "SlotwayAbsent", "SlotwayClusterUnknown", "SlotwaySlotsUncovered", "SlotwayTopologyStale",
              "SlotwayPartFailed", "SlotwayMemoryNearLimit", "SlotwayCertificateExpires", "SlotwayFilesNearLimit"}
    firing = {rule["name"] for rule in group["rules"] if rule["state"] == "firing"}
    assert not silent & firing


@pytest.mark.parametrize("args", [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]])
def test_by_promtool(args):
    out = subprocess.run(["promtool", *args], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    assert out.returncode == 0 and "SUCCESS" in out.stdout, out.stdout + out.stderr


def test_every_alert_is_tested_and_explained():
    names = [rule["alert"] for rule in alerts()]
    cases = (DEPLOY / "prometheus/rules.test.yaml").read_text()
    explained = (REPOSITORY / "docs/observing.md").read_text()
    for rule in alerts():
        name = rule["alert"]
        assert f'alertname="{name}"' in cases, name
        assert f"### {name}\n" in explained, name
        assert rule["annotations"]["runbook"] == f"docs/observing.md#{name.lower()}"
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert re.findall(r"^### (Slotway\w+)$", explained, re.M) == names


def test_what_is_generated_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "grafana/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.files().items():
        assert pathlib.Path(path).read_text() == text, f"deploy/grafana/generate.py writes {path}"
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and len({p["id"] for p in DASHBOARD["panels"]}) == len(places)
