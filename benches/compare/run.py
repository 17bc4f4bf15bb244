#!/usr/bin/env python3
"""Measures slotway beside its peers. Method and last figures: benches/README.md.

    python3 benches/compare/run.py                    # all of it
    python3 benches/compare/run.py --quick            # does it work? (figures mean little)
    python3 benches/compare/run.py --only p16 --peers nutcracker --rounds 3

Needs Linux and Python 3.11; installs the rest (apt, PyPI) without asking.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent))

import backends  # noqa: E402
import fairness  # noqa: E402
import install  # noqa: E402
import load  # noqa: E402
import plot  # noqa: E402
import procs  # noqa: E402
import proxies  # noqa: E402
import pubsub  # noqa: E402
import report  # noqa: E402
import tls  # noqa: E402
import transactions  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).resolve().parent / "out"
IDLE_CONNECTIONS = 10_000
#: What --only knows beside the workloads.
MORE = ["workers", "transactions", "tls", "fairness", "idle", "pubsub", *pubsub.NAMES]
_started = time.monotonic()


def say(text: str):
    """Progress, on stderr: stdout is for the result."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def arguments():
    names = [w.name for w in load.WORKLOADS]
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--slotway", type=Path, default=target / "release/slotway", metavar="PATH", help="the binary to measure")
    p.add_argument("--only", type=lambda s: s.split(","), metavar="A,B",
                   help=f"only these of: {', '.join(names + MORE)}")
    p.add_argument("--peers", type=lambda s: [n for n in s.split(",") if n], default=proxies.ALL[1:], metavar="A,B",
                   help="peers to run; without nutcracker there are no ratios")
    p.add_argument("--rounds", type=int, default=5, help="how often each workload is measured")
    p.add_argument("--scale", type=float, default=1.0, help="factor on the number of commands")
    p.add_argument("--quick", action="store_true", help="one round of a tenth of the commands")
    p.add_argument("--replicas", type=int, choices=(0, 1), default=1, help="replicas of every primary")
    p.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    p.add_argument("--out", type=Path, default=OUT, help="folder for results.csv, results.svg and the rest")
    args = p.parse_args()
    for name in args.peers:
        if name not in proxies.ALL[1:]:
            p.error(f"--peers: unknown peer {name!r}; there are {', '.join(proxies.ALL[1:])}")
    for name in args.only or []:
        if name not in names + MORE:
            p.error(f"--only: unknown workload {name!r}; there are {', '.join(names + MORE)}")
    args.pubsub_only = bool(args.only) and all(name.startswith("pubsub") for name in args.only)
    args.tls_only = args.only == ["tls"]
    if args.pubsub_only or args.tls_only:
        # It brings a standalone server of its own, and peers have no pub/sub.
        args.peers = []
    if args.only == ["fairness"]:
        args.peers = []
    if args.quick:
        args.rounds, args.scale = 1, 0.1
    if args.rounds < 1 or args.scale <= 0:
        p.error("--rounds and --scale must be above zero")
    return args


def find_binaries(args) -> tuple:
    """What can be measured here: name -> binary, and what is left out, with the reason."""
    here, left_out = {}, {}
    apt = [n for n in ("nutcracker", "haproxy") if n in args.peers]
    found = install.debian(["redis-server", "redis-benchmark", *apt], say)
    for program in ("redis-server", "redis-benchmark"):
        if not found[program]:
            sys.exit(f"error: {program} is missing and could not be installed; install Debian's redis-server and redis-tools")
    for name in ["slotway", *args.peers]:
        if name == "slotway":
            path = args.slotway.resolve()
            if os.access(path, os.X_OK) and path.is_file():
                here[name] = str(path)
            else:
                left_out[name] = f"no binary at {path} (cargo build --release, or --slotway PATH)"
        elif name == "none":
            here[name] = None
        else:
            path = install.envoy(ROOT, say) if name == "envoy" else found[name]
            if path:
                here[name] = path
            else:
                left_out[name] = "could not be installed"
    return here, left_out


def versions(here: dict) -> dict:
    how = {"slotway": ["--version"], "nutcracker": ["--version"], "envoy": ["--version"], "haproxy": ["-v"]}
    found = {"redis-server": install.version(["redis-server", "--version"])}
    found["redis-benchmark"] = install.version(["redis-benchmark", "--version"])
    for name, binary in here.items():
        if binary:
            found[name] = install.version([binary, *how[name]])
    return found


def start_backends(fleet, names, replicas) -> dict:
    ports = {}
    if any(n in names for n in ("slotway", "envoy")):
        say(f"starting a Redis Cluster, 3 primaries with {replicas} replica(s) each")
        ports["cluster"] = backends.cluster(fleet, 3, replicas)
    if "nutcracker" in names:
        say("starting 3 standalone servers for nutcracker")
        ports["three"] = backends.standalone(fleet, 3, replicas)
    if any(n in names for n in ("haproxy", "none")):
        say("starting 1 standalone server for HAProxy and for no proxy at all")
        ports["single"] = backends.standalone(fleet, 1, replicas)
    return ports


def start_proxies(fleet, here, ports, left_out, big) -> list:
    """The proxies that come up and hand back what was stored through them."""
    running = []
    for name in (n for n in proxies.ALL if n in here):
        try:
            proxy = proxies.START[name](fleet, here[name], ports)
            backends.fill(proxy.port, load.KEYS, load.VALUE)
            if big:
                backends.fill(proxy.port, load.BIG_KEYS, load.BIG_VALUE, "big")
        except (procs.StartError, procs.RespError, OSError, ValueError) as error:
            left_out[name] = str(error)
            say(f"{proxies.LABEL[name]} is left out: {error}")
            continue
        say(f"{proxies.LABEL[name]} is up on port {proxy.port} and filled")
        running.append(proxy)
    return running


def compare(args, fleet, running, workloads) -> tuple:
    """All rounds. In each, the proxies take turns within a workload, and who begins
    moves on by one from workload to workload and from round to round."""
    runs, failures = [], {}
    for number in range(args.rounds):
        for w, work in enumerate(workloads):
            turn = (number + w) % len(running)
            for proxy in running[turn:] + running[:turn]:
                try:
                    result = load.measure(fleet, proxy, work, args.scale)
                except (load.LoadError, OSError) as error:
                    failures[work.name, proxy.name] = f"{error} (round {number + 1})"
                    say(f"{work.label}: {proxies.LABEL[proxy.name]} failed: {error}")
                    continue
                runs.append({"round": number + 1, "workload": work.name, "proxy": proxy.name, **result})
                cpu = f"{result['cpu_us']:7.2f} us/command" if "cpu_us" in result else " " * 18
                say(f"round {number + 1}/{args.rounds}  {work.label:<36}{proxies.LABEL[proxy.name]:<15}{cpu}"
                    f"{result['rps']:>12,.0f} commands/s")
    return runs, failures


def compare_workers(args, fleet, binary, ports, one) -> dict:
    """slotway with two workers beside slotway with one, in turns."""
    two = proxies.slotway(fleet, binary, ports, workers=2)
    cores = len(os.sched_getaffinity(0))
    threads = min(4, cores // 2) if cores >= 4 else 1
    found = {}
    try:
        for work in (w for w in load.WORKLOADS if w.name in ("c50", "p16")):
            ratios = {"cpu": [], "rps": []}
            for number in range(args.rounds):
                order = [one, two] if number % 2 == 0 else [two, one]
                got = {p: load.measure(fleet, p, work, args.scale, threads) for p in order}
                ratios["cpu"].append(got[two]["cpu_us"] / got[one]["cpu_us"])
                ratios["rps"].append(got[two]["rps"] / got[one]["rps"])
                say(f"round {number + 1}/{args.rounds}  {work.label:<36}2 workers      "
                    f"{got[two]['cpu_us']:7.2f} us/command{got[two]['rps']:>12,.0f} commands/s")
            found[work.name] = {"cpu_ratio": median(ratios["cpu"]), "rps_ratio": median(ratios["rps"]) if cores >= 4 else None}
    finally:
        fleet.stop(two.child)
    return {"cores": cores, "workloads": found}


def compare_idle(args, fleet, here, ports) -> dict:
    """Each proxy started anew: what the workloads left in its heap would hide the cost."""
    found = {}
    count = IDLE_CONNECTIONS // 10 if args.quick else IDLE_CONNECTIONS
    for name in (n for n in proxies.ALL if n in here and n != "none"):
        mine = min(count, proxies.haproxy_clients() - 300) if name == "haproxy" else count
        proxy = None
        try:
            proxy = proxies.START[name](fleet, here[name], ports)
            cost = load.idle_cost(proxy, mine)
            say(f"{mine:,} idle connections: {proxies.LABEL[name]:<15}{cost:10,.0f} bytes each")
            found[name] = {"connections": mine, "bytes": cost}
        except (procs.StartError, load.LoadError, OSError) as error:
            say(f"{mine:,} idle connections: {proxies.LABEL[name]} failed: {error}")
            found[name] = {"connections": mine, "failed": str(error)}
        finally:
            if proxy:
                fleet.stop(proxy.child)
    return found


def print_extras(extras: dict):
    if "workers" in extras:
        print("\nslotway, two workers against one (wanted: the same CPU per command, "
              f"{report.SCALING_WANTED} times the commands/s where the machine has the cores)")
        for name, row in extras["workers"]["workloads"].items():
            label = next(w.label for w in load.WORKLOADS if w.name == name)
            rps = f"x{row['rps_ratio']:.2f}" if row["rps_ratio"] else f"not compared on {extras['workers']['cores']} cores"
            verdict = ""
            if row["rps_ratio"] and extras["workers"]["cores"] >= report.SCALING_CORES:
                verdict = "  " + report.mark(row["rps_ratio"] >= report.SCALING_WANTED)
            print(f"  {label:<36} CPU per command x{row['cpu_ratio']:.2f}   commands/s {rps}{verdict}")
    if "transactions" in extras:
        print(transactions.text(extras["transactions"]))
    if "fairness" in extras:
        print(fairness.text(extras["fairness"]))
    if "tls" in extras:
        print(tls.text(extras["tls"]))
    if "pubsub" in extras:
        print(pubsub.text(extras["pubsub"]))
    if "idle" in extras:
        print(f"\nMemory of an idle connection, bytes of RSS (wanted of slotway: below {report.IDLE_WANTED:,})")
        for name, row in extras["idle"].items():
            text = f"{row['bytes']:10,.0f}" if "bytes" in row else f"  failed: {row['failed']}"
            verdict = "  " + report.mark(row.get("bytes", report.IDLE_WANTED) < report.IDLE_WANTED) if name == "slotway" else ""
            print(f"  {proxies.LABEL[name]:<16}{text}{verdict}   ({row['connections']:,} connections)")


def raise_file_limit():
    """10,000 connections through HAProxy are 20,000 of its own; the children inherit this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return
        except (ValueError, OSError):
            continue
    say(f"the limit of open files stays at {soft}")


def main() -> int:
    args = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    raise_file_limit()
    workloads = [w for w in load.WORKLOADS if not args.only or w.name in args.only]
    here, left_out = find_binaries(args)
    for name, why in left_out.items():
        say(f"{proxies.LABEL[name]} is left out: {why}")
    if not here:
        sys.exit("error: nothing to measure")
    env = {"date": time.strftime("%Y-%m-%d"), **report.environment(), **versions(here),
           "rounds": args.rounds, "scale": args.scale, "replicas": args.replicas}

    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slotway-compare-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        fleet = procs.Fleet(folder)
        stack.callback(fleet.stop_all)
        ports = {} if args.tls_only else start_backends(fleet, here, args.replicas)
        big = any(w.name == "v16k" for w in workloads)
        running = [] if args.pubsub_only or args.tls_only else start_proxies(fleet, here, ports, left_out, big)
        alive = {p.name: here[p.name] for p in running}
        runs, failures = compare(args, fleet, running, workloads) if running else ([], {})
        extras = {}
        if "slotway" in alive and (not args.only or "workers" in args.only):
            one = next(p for p in running if p.name == "slotway")
            try:
                extras["workers"] = compare_workers(args, fleet, alive["slotway"], ports, one)
            except (procs.StartError, load.LoadError, OSError) as error:
                failures["workers", "slotway"] = str(error)
                say(f"two workers: failed: {error}")
        if "slotway" in alive and (not args.only or "transactions" in args.only):
            split = proxies.slotway(fleet, alive["slotway"], ports, split=True)
            try:
                extras["transactions"] = transactions.compare(split, args.rounds, args.scale, say)
            except (load.LoadError, OSError) as error:
                failures["transactions", "slotway"] = str(error)
                say(f"transactions: failed: {error}")
            finally:
                fleet.stop(split.child)
        if "slotway" in alive and (not args.only or "fairness" in args.only):
            one = next(p for p in running if p.name == "slotway")
            try:
                (bare,) = backends.standalone(fleet, 1, args.replicas)
                extras["fairness"] = fairness.compare(one, bare, args.rounds, args.scale, say)
            except (procs.StartError, procs.RespError, OSError) as error:
                failures["fairness", "slotway"] = str(error)
                say(f"fairness: failed: {error}")
        if "slotway" in here and any(pubsub.wanted(args.only, name) for name in pubsub.NAMES):
            try:
                extras["pubsub"] = pubsub.compare(args, fleet, ROOT, here["slotway"], ports, say)
                failures |= {("pubsub", what): why for what, why in extras["pubsub"]["failures"].items()}
            except (procs.StartError, load.LoadError, OSError) as error:
                failures["pubsub", "slotway"] = str(error)
                say(f"pub/sub: failed: {error}")
        if "slotway" in here and (not args.only or "tls" in args.only):
            try:
                extras["tls"] = tls.compare(fleet, here["slotway"], args.rounds, args.scale, say)
            except (procs.StartError, load.LoadError, OSError, subprocess.CalledProcessError) as error:
                failures["tls", "slotway"] = str(error)
                say(f"TLS: failed: {error}")
        if not args.only or "idle" in args.only:
            extras["idle"] = compare_idle(args, fleet, alive, ports)

    rows = report.summarize(runs, workloads)
    env |= report.disturbance(runs + extras.get("pubsub", {}).get("runs", []))
    found = report.verdicts(runs, rows, workloads)
    env["left out"] = "; ".join(f"{k}: {v}" for k, v in left_out.items()) or "nothing"
    everything = report.write(args.out, runs, rows, extras, found, env, plot.draw(rows, workloads, env, env["date"]))
    if "pubsub" in extras:
        report.write_csv(args.out / "pubsub.csv", extras["pubsub"]["rows"] + extras["pubsub"]["idle"])
        (args.out / "pubsub.svg").write_text(pubsub.picture(extras["pubsub"], env))
    if args.json:
        print(json.dumps(everything, indent=1))
    else:
        print("\n".join(f"{k}: {v}" for k, v in env.items()) + "\n")
        print(report.table(rows, found, workloads, failures))
        print_extras(extras)
        if args.quick:
            print("\nThis was --quick: it shows that everything works; its figures mean little.")
        print(f"\nWritten to {args.out}: results.csv, results.svg, runs.csv, results.json, environment.txt")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except procs.StartError as error:
        sys.exit(f"error: {error}")
