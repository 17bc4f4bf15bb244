"""Pub/sub: what a delivery costs slotway, beside a standalone server that does it directly.

The load is benches/pubsub_load.rs, which counts and checks every message; here it is told when to
publish, and the CPU clocks are read before and after. Both systems have their subscribers at the
same time, and are published to in turns."""

import contextlib
import json
import os
import re
import select
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import backends
import plot
import procs
import proxies
from load import LoadError

#: Wanted of slotway: its CPU per delivery beside the server's, what it reads from the cluster for
#: one published message, and the bytes of an idle subscriber.
CPU_WANTED, UPSTREAM_WANTED, IDLE_WANTED = 1.0, 1.0, 2048
#: Many short turns: how the kernel places the processes on the cores changes from second to second.
ROUNDS = 5
SECONDS = 1.2
WARM_UP = 0.3
IDLE_SUBSCRIBERS = 10_000
SYSTEMS = {"slotway": "slotway", "redis": "Redis server"}
FORMS = {1: "one at a time", 16: "pipelined by 16"}


@dataclass(frozen=True)
class Case:
    #: What --only calls it.
    group: str
    #: What the results call it.
    name: str
    label: str
    kind: str
    topics: int
    subscribers: int
    #: In the plot.
    short: str = ""
    forms: tuple = (1, 16)
    protocol: int = 3

    def argv(self) -> list:
        return ["--kind", self.kind, "--topics", self.topics, "--subscribers", self.subscribers,
                "--protocol", self.protocol, "--per-connection", self.per_connection()]

    def per_connection(self) -> int:
        """Channels of one connection: 1, where as many connections as that can be had."""
        room = os.sysconf("SC_OPEN_MAX") - 500
        return -(-self.topics * self.subscribers // room)


CASES = [
    Case("pubsub-fan", "fan", "1 channel, 1,000 subscribers", "channels", 1, 1000, "1 × 1,000"),
    Case("pubsub-fan", "fan-resp2", "the same, RESP2", "channels", 1, 1000, "1 × 1,000, RESP2", (1,), 2),
    Case("pubsub-spread", "spread", "1,000 channels, 10 subscribers each", "channels", 1000, 10, "1,000 × 10"),
    Case("pubsub-patterns", "patterns", "100 patterns, 10 subscribers each", "patterns", 100, 10, "100 patterns × 10"),
    Case("pubsub-patterns", "overlapping", "the same, all match each message", "overlapping", 100, 10, "all 100 match"),
]
IDLE = [
    Case("pubsub-idle", "idle-own", "a channel each", "channels", IDLE_SUBSCRIBERS, 1),
    Case("pubsub-idle", "idle-common", "one channel for all", "channels", 1, IDLE_SUBSCRIBERS),
]
NAMES = list(dict.fromkeys(c.group for c in CASES + IDLE))


def wanted(only, group: str) -> bool:
    return not only or "pubsub" in only or group in only


def build(root: Path, say) -> Path:
    """The load generator; cargo names the file that it makes."""
    say("building the load generator for pub/sub")
    done = subprocess.run(["cargo", "build", "--release", "--quiet", "--bench", "pubsub_load", "--message-format=json"],
                          cwd=root, stdout=subprocess.PIPE, stderr=None, text=True)
    made = [m for m in map(json.loads, done.stdout.splitlines())
            if m.get("executable") and m.get("target", {}).get("name") == "pubsub_load"]
    if done.returncode != 0 or not made:
        raise LoadError("cargo could not build benches/pubsub_load.rs")
    return Path(made[-1]["executable"])


class Load:
    """Subscribers and a publisher at one port."""

    def __init__(self, fleet, binary: Path, port: int, case: Case):
        self._fleet = fleet
        self.child = fleet.start(f"pubsub-load-{port}", [binary, "--port", port, *case.argv()],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._line() != "ready":
            raise LoadError("the load generator is out of step")

    def _line(self, seconds: float = 60) -> str:
        # It writes whole lines and nothing more until it is asked.
        if not select.select([self.child.stdout], [], [], seconds)[0]:
            raise LoadError(f"nothing from the load generator in {seconds:.0f} s")
        line = self.child.stdout.readline().decode().strip()
        if not line:
            self.child.wait(5)
            raise LoadError(procs.log_tail(self.child, 1).removeprefix("its log ends: "))
        return line

    def run(self, pipeline: int, seconds: float) -> dict:
        self.child.stdin.write(f"run {pipeline} {seconds}\n".encode())
        self.child.stdin.flush()
        return json.loads(self._line(seconds + 60))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._fleet.stop(self.child)
        with contextlib.suppress(OSError):
            self.child.stdin.close()
        self.child.stdout.close()


def _received(proxy) -> float:
    """Messages that slotway has read from the cluster's subscriptions."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    found = re.findall(r"^slotway_pubsub_messages_received_total(?:\{[^}]*\})? (\S+)$", text, re.M)
    if not found:
        raise LoadError("/metrics has no slotway_pubsub_messages_received_total")
    return sum(map(float, found))


def _nodes(fleet) -> float:
    """CPU seconds of all nodes of the cluster."""
    return sum(procs.cpu(c.pid)["total"] for c in fleet.children if "--cluster-enabled" in c.args and c.poll() is None)


def _measure(fleet, name: str, proxy, load: Load, pipeline: int, seconds: float) -> dict:
    machine = procs.MachineUse(fleet)
    received = _received(proxy) if name == "slotway" else 0
    nodes, before = _nodes(fleet), procs.cpu(proxy.pid)
    got = load.run(pipeline, seconds)
    after, nodes = procs.cpu(proxy.pid), _nodes(fleet) - nodes
    result = {
        "deliveries_s": got["deliveries"] / got["seconds"],
        "published": got["published"],
        "behind": got["behind"],
        **{into: (after[key] - before[key]) / got["deliveries"] * 1e6
           for key, into in (("total", "cpu_us"), ("user", "user_us"), ("system", "system_us"))},
        **machine.disturbance(),
    }
    if name == "slotway":
        result["upstream"] = (_received(proxy) - received) / got["published"]
        result["nodes_us"] = nodes / got["deliveries"] * 1e6
    return result


def _case(fleet, binary, systems: dict, case: Case, rounds: int, seconds: float, say) -> tuple:
    runs, failures = [], {}
    with contextlib.ExitStack() as stack:
        loads = {}
        for name, proxy in systems.items():
            try:
                loads[name] = stack.enter_context(Load(fleet, binary, proxy.port, case))
                for pipeline in case.forms:
                    loads[name].run(pipeline, WARM_UP)
            except (LoadError, OSError) as error:
                loads.pop(name, None)
                failures[name] = str(error)
                say(f"{case.label}: {SYSTEMS[name]} failed: {error}")
        for number in range(rounds):
            for pipeline in case.forms:
                order = list(loads)[::-1 if number % 2 else 1]
                for name in order:
                    try:
                        result = _measure(fleet, name, systems[name], loads[name], pipeline, seconds)
                    except (LoadError, OSError) as error:
                        loads.pop(name)
                        failures[name] = f"{error} (round {number + 1}, {FORMS[pipeline]})"
                        say(f"{case.label}: {SYSTEMS[name]} failed: {error}")
                        continue
                    runs.append({"round": number + 1, "workload": case.name, "pipeline": pipeline, "system": name, **result})
                    say(f"round {number + 1}/{rounds}  {case.label:<36}{FORMS[pipeline]:<17}{SYSTEMS[name]:<14}"
                        f"{result['cpu_us']:7.2f} us/delivery{result['deliveries_s']:>12,.0f} deliveries/s")
    return runs, failures


def _row(case: Case, pipeline: int, runs: list) -> dict:
    """Medians; ratios are taken within a round."""
    mine = [r for r in runs if r["workload"] == case.name and r["pipeline"] == pipeline]
    row = {"workload": case.name, "pipeline": pipeline, "connections": case.topics * case.subscribers // case.per_connection()}
    for name in SYSTEMS:
        for key in ("cpu_us", "user_us", "system_us", "deliveries_s", "upstream", "nodes_us", "behind"):
            values = [r[key] for r in mine if r["system"] == name and key in r]
            if values:
                row[f"{name}_{key}"] = median(values)
    pairs = {name: {r["round"]: r for r in mine if r["system"] == name} for name in SYSTEMS}
    for key, into in (("cpu_us", "cpu_ratio"), ("deliveries_s", "rate_ratio")):
        ratios = [r[key] / pairs["redis"][n][key] for n, r in pairs["slotway"].items() if n in pairs["redis"]]
        if ratios:
            row[into] = median(ratios)
    return row


def _idle(fleet, binary, case: Case, start) -> float:
    """Bytes of resident memory per subscriber. Started anew for each: what is left in its heap
    would hide the cost."""
    system = start()
    try:
        # What the first ones make it allocate once is not the cost of a subscriber.
        few = Case(case.group, case.name, case.label, "channels", min(case.topics, 200), 200 if case.topics == 1 else 1)
        with Load(fleet, binary, system.port, few):
            pass
        time.sleep(0.5)
        before = procs.rss(system.pid)
        with Load(fleet, binary, system.port, case):
            time.sleep(0.5)
            return (procs.rss(system.pid) - before) / (case.topics * case.subscribers)
    finally:
        fleet.stop(system.child)


def compare(args, fleet, root: Path, slotway: str, ports: dict, say) -> dict:
    """Everything that --only names of pub/sub."""
    binary = build(root, say)

    def server():
        # No replica: PUBLISH to it would cost the server more.
        (port,) = backends.standalone(fleet, 1, 0)
        return proxies.Proxy("redis", port, next(c for c in fleet.children if c.args[:3] == ["redis-server", "--port", str(port)]))

    start = {"slotway": lambda: proxies.slotway(fleet, slotway, ports), "redis": server}
    rounds = min(args.rounds, ROUNDS)
    seconds = SECONDS * args.scale
    found = {"runs": [], "rows": [], "idle": [], "failures": {}}
    cases = [c for c in CASES if wanted(args.only, c.group)]
    systems = {name: make() for name, make in start.items()} if cases else {}
    try:
        for case in cases:
            runs, failures = _case(fleet, binary, systems, case, rounds, seconds, say)
            found["runs"] += runs
            found["rows"] += [_row(case, pipeline, runs) for pipeline in case.forms]
            found["failures"] |= {f"{case.label}: {SYSTEMS[name]}": why for name, why in failures.items()}
    finally:
        for system in systems.values():
            fleet.stop(system.child)
    for case in (c for c in IDLE if wanted(args.only, c.group)):
        row = {"workload": case.name, "subscribers": case.topics * case.subscribers}
        for name in SYSTEMS:
            try:
                row[f"{name}_bytes"] = _idle(fleet, binary, case, start[name])
                say(f"{row['subscribers']:,} idle subscribers, {case.label}: {SYSTEMS[name]:<14}{row[f'{name}_bytes']:10,.0f} bytes each")
            except (LoadError, procs.StartError, OSError) as error:
                found["failures"][f"idle, {case.label}: {SYSTEMS[name]}"] = str(error)
                say(f"idle subscribers, {case.label}: {SYSTEMS[name]} failed: {error}")
        found["idle"].append(row)
    return found


_LOOK = plot.Look(
    "CPU per delivery of pub/sub (µs, lower is better)",
    {"slotway": "#1b6ac9", "redis": "#e08a2e"},
    {"slotway": "slotway, one worker", "redis": "a standalone Redis server, directly"},
    "redis",
    (
        "User and system time of slotway's process, and of the server's in its own run; median over the rounds; "
        "×: relative to the server in the same round. Each panel has its own scale.",
        "slotway stands before a Redis Cluster whose nodes have their own share of the work, which is not in it.",
    ),
)


@dataclass(frozen=True)
class _Panel:
    name: tuple
    label: str
    wanted: float = CPU_WANTED


def picture(found: dict, env: dict) -> str:
    panels, bars = [], []
    for row in found["rows"]:
        case = next(c for c in CASES if c.name == row["workload"])
        panels.append(_Panel((case.name, row["pipeline"]), f"{case.short}, {FORMS[row['pipeline']]}"))
        bars += [{"workload": panels[-1].name, "proxy": name, "cpu_us": row[f"{name}_cpu_us"], "cpu_ratio": row.get("cpu_ratio")}
                 for name in SYSTEMS if f"{name}_cpu_us" in row]
    return plot.draw(bars, panels, env, env["date"], _LOOK)


def _mark(value, limit) -> str:
    return "" if value is None else "pass" if round(value, 2) <= limit else "MISS"


def text(found: dict) -> str:
    """The table."""
    def num(row, key, digits=2):
        return f"{row[key]:,.{digits}f}" if key in row else "-"

    lines = []
    if found["rows"]:
        lines += [f"\nPub/sub: CPU us per delivery, slotway beside a standalone server (wanted: at most {CPU_WANTED:.2f} of it; "
                  f"at most {UPSTREAM_WANTED:.2f} messages from the cluster per PUBLISH and matching topic)",
                  f"  {'':<37}{'':<17}{'slotway':>9}{'server':>9}{'ratio':>8}{'':>6}{'deliveries/s':>14}{'server':>12}{'upstream':>10}{'nodes us':>10}"]
    labels = {c.name: c for c in CASES + IDLE}
    for row in found["rows"]:
        case = labels[row["workload"]]
        # A node sends a message once for every subscription that matches it.
        upstream = _mark(row.get("slotway_upstream"), UPSTREAM_WANTED * (case.topics if case.kind == "overlapping" else 1))
        lines.append(
            f"  {case.label:<37}{FORMS[row['pipeline']]:<17}{num(row, 'slotway_cpu_us'):>9}{num(row, 'redis_cpu_us'):>9}"
            f"{num(row, 'cpu_ratio'):>8}{_mark(row.get('cpu_ratio'), CPU_WANTED):>6}{num(row, 'slotway_deliveries_s', 0):>14}"
            f"{num(row, 'redis_deliveries_s', 0):>12}{num(row, 'slotway_upstream'):>10}{num(row, 'slotway_nodes_us'):>10}"
            f"{'  ' + upstream if upstream == 'MISS' else ''}")
        if case.per_connection() > 1:
            lines.append(f"    (the limit of open files allows {row['connections']:,} connections, {case.per_connection()} channels each)")
    if found["idle"]:
        lines.append(f"\nMemory of an idle subscriber, bytes of RSS (wanted of slotway: below {IDLE_WANTED:,})")
    for row in found["idle"]:
        lines.append(f"  {labels[row['workload']].label:<37}slotway {num(row, 'slotway_bytes', 0):>7}  "
                     f"{_mark(row.get('slotway_bytes'), IDLE_WANTED):<6}server {num(row, 'redis_bytes', 0):>7}   ({row['subscribers']:,} subscribers)")
    lines += [f"  failed: {what}: {why}" for what, why in found["failures"].items()]
    return "\n".join(lines)
