"""Runs redis-py's own test suite straight against a standalone server and through slotway: before a
cluster, once as it comes and once with commands.cross_slot = "emulate", and before one server.

    make conformance                                 both protocols, all of it, each server version
    make conformance ARGS="--server valkey"          one of them: 7.0, redis (8.2) or valkey (9.1)
    make conformance ARGS="--emulated some"          emulated only what passes no other way (as in CI)
    make conformance ARGS="--protocol 3 commands"    one of them, the parts with this in their name

Fails unless every test that passes straight passes through slotway as well or is listed in
known.toml, and unless everything listed there is true. What the tests said is in
target/conformance afterwards, in a folder per server, one log for each part and column.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import known
import suite

sys.path.insert(0, str(suite.REPOSITORY / "tests/python"))
import newer_servers  # noqa: E402
from servers import Cluster, Server, Slotway  # noqa: E402

# The server versions: Debian's, and those of tests/python/servers-requirements.txt.
SERVERS = ("7.0", "redis", "valkey")
# Through slotway: before a cluster in two modes, and before one server.
MODES = ("through", "emulated", "single")
COLUMNS = ("straight", *MODES)
# Seconds for one test, the slowest of which takes 5 straight; and for one part.
TEST_PATIENCE = 30
PART_PATIENCE = 900

# The suite makes servers fail with DEBUG ERROR.
SERVER_OPTIONS = ["--enable-debug-command", "yes"]
# What a program that was written for one server needs, and what `make run` sets as well; and the
# users that the tests make are the cluster's.
SETTINGS = ["transactions.cross_slot=split", "auth=passthrough"]
EMULATE = ["commands.cross_slot=emulate"]
# One server can do what these are for.
ONE_SERVER = ["upstream.kind=standalone", "auth=passthrough"]

Result = collections.namedtuple("Result", "outcome seconds why")


def start(column, program, started):
    """Starts what this column tests: the processes, the address's first, go into `started`."""
    if column == "straight":
        started.append(Server(options=SERVER_OPTIONS, program=program))
    elif column == "single":
        behind = Server(options=SERVER_OPTIONS, program=program)
        started += [Slotway(One(behind), settings=ONE_SERVER), behind]
        behind.start()
    else:
        cluster = Cluster(options=SERVER_OPTIONS, program=program)
        settings = SETTINGS + (EMULATE if column == "emulated" else [])
        started += [Slotway(cluster, settings=settings), *cluster.nodes]
        cluster.start()
    started[0].start()


# What Slotway takes for a cluster: its nodes.
One = collections.namedtuple("One", "node")
One.nodes = property(lambda one: [one.node])


@contextlib.contextmanager
def server(column, program):
    """What this column tests, and the nodes behind it."""
    started = []
    try:
        for attempt in range(3):
            try:
                start(column, program, started)
                break
            except AssertionError:  # somebody else took one of the ports in between
                if attempt == 2:
                    raise
                while started:
                    started.pop().kill()
        yield started[0], started[1:]
    finally:
        for process in started:
            process.kill()


class Job:
    """One part of the suite in one column and protocol, with one server version."""

    def __init__(self, program, protocol, column, part, tests):
        self.program = program
        self.protocol, self.column, self.tests = protocol, column, tests
        self.name = f"{part}.resp{protocol}.{column}"
        self.results = {}

    def run(self, out):
        """Test name → Result, also for tests that a crash kept from being run."""
        began = time.monotonic()
        left = self.tests
        with server(self.column, self.program) as (front, nodes):
            while left:
                collected = self.pytest(front.addr, nodes, left, out)
                # A test that ended pytest itself has failed; the ones after it are run yet.
                left = [test for test in collected if test not in self.results]
                if left:
                    self.results[left[0]] = Result("failed", 0, "ended pytest or stood still")
                    left = left[1:]
                if time.monotonic() - began > PART_PATIENCE:
                    break
            if front.child.poll() is not None:
                why = f"the server ended with {front.child.returncode}"
                self.results[f"{self.tests[0].split('::')[0]}::{why}"] = Result("failed", 0, why)
            shutil.copy(front.dir / "log", out / f"{self.name}.server.log")
        for test in left:
            self.results[test] = Result("failed", 0, "was not run: the time was over")
        return self.results

    def pytest(self, addr, nodes, tests, out):
        """Runs pytest once; what it has collected."""
        lines = out / f"{self.name}.jsonl"
        lines.unlink(missing_ok=True)
        names = out / f"{self.name}.names"
        names.write_text("".join(f"{test}\n" for test in tests))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLOTWAY_", "PYTEST"))},
            "CONFORMANCE_RESULTS": str(lines),
            "CONFORMANCE_NODES": " ".join(f"127.0.0.1:{node.port}" for node in nodes),
            "CONFORMANCE_TURNS": str(out / "turns"),
            "PYTHONPATH": str(suite.HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        arguments = [f"--redis-url=redis://{addr[0]}:{addr[1]}/0", f"--protocol={self.protocol}"]
        arguments += ["-p", "recorder", "-p", "no:cacheprovider", "-m", suite.MARKS]
        arguments += [f"--timeout={TEST_PATIENCE}", "--tb=native", "-q", "-W", "ignore"]
        arguments += ["--capture=fd", f"@{names}"]
        with open(out / f"{self.name}.log", "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "pytest", *arguments],
                cwd=suite.folder(),
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                child.wait(PART_PATIENCE)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # with what its tests have forked
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        collected = None
        for line in map(json.loads, open(lines)) if lines.exists() else ():
            if "not collected" in line:
                raise RuntimeError(f"{self.name}: {line['not collected']}: {line['why']}")
            if "collected" in line:
                collected = line["collected"]
            else:
                result = Result(line["outcome"], line["seconds"], line["why"])
                self.results[line["test"]] = result
        if collected is None:
            raise RuntimeError(f"{self.name}: pytest found no tests; see its log in {out}")
        return collected


def run_all(jobs, at_once, out, results):
    """Runs the jobs; results[protocol][column] gets what came out, a pass standing over a failure."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(job.run, out): job for job in jobs}
        for done in concurrent.futures.as_completed(running):
            job = running[done]
            if done.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            of_column = results[job.protocol][job.column]
            for test, result in done.result().items():
                if test not in of_column or of_column[test].outcome != "passed":
                    of_column[test] = result
            count = collections.Counter(result.outcome for result in done.result().values())
            seconds = time.monotonic() - began
            print(
                f"{seconds:6.1f} s  {job.name:40} {count['passed']:5} passed, "
                f"{count['failed']} failed, {count['skipped']} skipped",
                flush=True,
            )


def to_try_again(results, entries, modes):
    """Failures that are no surprise if they come once: all but those listed and truly so."""
    again = {}
    for protocol, columns in results.items():
        failed = {
            (test, column)
            for mode in modes
            for column in ("straight", mode)
            for test, result in columns[column].items()
            if result.outcome == "failed"
            and not is_as_listed(columns, entries[mode], protocol, test)
            and (test in columns[mode] or mode != "emulated")
        }
        for test, column in failed:
            for each in {"straight", column}:
                again.setdefault((protocol, each), set()).add(test)
    return {key: sorted(tests) for key, tests in again.items()}


def is_as_listed(columns, entries, protocol, test):
    straight = columns["straight"].get(test)
    return (
        bool(known.find(entries, protocol, test))
        and straight is not None
        and straight.outcome == "passed"
    )


def passes(results, mode):
    """As known.judge wants them."""
    return {
        protocol: tuple(
            {test: result.outcome == "passed" for test, result in columns[column].items()}
            for column in ("straight", mode)
        )
        for protocol, columns in results.items()
    }


def only_those_run(results, mode):
    """The same, where a part of the tests was run."""
    return {
        protocol: ({test: passed for test, passed in straight.items() if test in ran}, ran)
        for protocol, (straight, ran) in passes(results, mode).items()
    }


def print_table(results, mode):
    for protocol, (straight, through) in results.items():
        lacking = known.missing(straight, through)
        rows = collections.defaultdict(lambda: [0, 0, 0])
        for i, tests in enumerate(
            (
                [test for test, passed in straight.items() if passed],
                [test for test, passed in through.items() if passed],
                lacking,
            )
        ):
            for test in tests:
                rows[test.split("::")[0]][i] += 1
        print(f"\nRESP{protocol:<45} straight {mode:>8}  missing")
        for name in sorted(rows):
            print("{:49} {:8} {:8} {:8}".format(name, *rows[name]))
        sums = [sum(row[i] for row in rows.values()) for i in range(3)]
        print("{:49} {:8} {:8} {:8}".format("all", *sums))


def print_missing(results, mode, entries):
    """Every test that passes straight only, under its reason; one line for all its parameters."""
    by_reason = collections.defaultdict(lambda: collections.defaultdict(list))
    for protocol, columns in only_those_run(results, mode).items():
        for test in known.missing(*columns):
            listed = known.find(entries, protocol, test)
            through = results[protocol][mode].get(test)
            why = through.why.split("\n")[0] if through else "was not run"
            reason = listed[0].reason if listed else f"NOT LISTED: {why}"
            name, _, parameters = test.partition("[")
            by_reason[reason][name].append(f"RESP{protocol}" + (parameters and f" [{parameters}"))
    for reason, tests in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        print(f"\n{reason}")
        for name, variants in sorted(tests.items()):
            print(f"    {name}  ({', '.join(sorted(variants))})")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="only parts of suite.toml with this in their name")
    parser.add_argument("--server", choices=SERVERS, action="append", help="default: all of them")
    parser.add_argument("--protocol", type=int, choices=(2, 3), action="append")
    parser.add_argument(
        "--emulated",
        choices=("all", "some", "none"),
        default="all",
        help="which tests with commands.cross_slot = emulate; some: those it is made for",
    )
    parser.add_argument(
        "--before",
        choices=("cluster", "server"),
        action="append",
        help="what slotway stands before; default: both",
    )
    parser.add_argument("--jobs", type=int, default=8, help="parts at the same time (default 8)")
    return parser.parse_args()


def main():
    # a SIGTERM ends it like any error: with everything stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = arguments()
    suite.fetch()
    wrong = []
    for name in wanted.server or SERVERS:
        print(f"\n==> {name}", flush=True)
        wrong += [f"{name}: {sentence}" for sentence in compare(name, wanted)]
    print()
    for sentence in wrong:
        print(sentence)
    print(f"{len(wrong)} things to put right" if wrong else "all is as known.toml has it")
    return 1 if wrong else 0


def compare(name, wanted):
    """Runs all that is wanted with one server version; what is wrong, as sentences."""
    program = "redis-server" if name == "7.0" else newer_servers.path(name)
    text = (suite.HERE / "known.toml").read_text()
    entries = {mode: known.read(text, mode, name) for mode in MODES}
    parts = {
        part: files
        for part, files in suite.parts(name).items()
        if not wanted.parts or any(word in part for word in wanted.parts)
    }
    protocols = wanted.protocol or [3, 2]
    before = wanted.before or ["cluster", "server"]
    modes = [mode for mode in MODES if ("server" if mode == "single" else "cluster") in before]
    out = suite.WORK / f"last-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    results = {p: {column: {} for column in COLUMNS} for p in protocols}
    run_all(
        [
            Job(program, protocol, column, part, files)
            for part, files in parts.items()
            for protocol in protocols
            for column in COLUMNS
            if column == "straight" or column in modes
            if column != "emulated" or wanted.emulated == "all"
        ],
        wanted.jobs,
        out,
        results,
    )
    if wanted.emulated == "some" and "emulated" in modes:
        run_all(made_for(program, results, entries), wanted.jobs, out, results)
    again = to_try_again(results, entries, modes)
    if again:
        print(f"\nonce more, what failed and is not listed: {sum(map(len, again.values()))} tests")
        jobs = [Job(program, p, column, "again", tests) for (p, column), tests in again.items()]
        run_all(jobs, wanted.jobs, out, results)

    files = {file for names in parts.values() for file in names}
    wrong = []
    for mode in modes:
        some = mode == "emulated" and wanted.emulated != "all"
        found = only_those_run(results, mode) if some else passes(results, mode)
        print_table(found, mode)
        print_missing(results, mode, entries[mode])
        wrong += known.judge(entries[mode], found, set() if some else files)
    return wrong


def made_for(program, results, entries):
    """Jobs for what is listed as not passing through slotway, but for emulation."""
    jobs = []
    for protocol, found in passes(results, "through").items():
        tests = [
            test
            for test in known.missing(*found)
            if known.find(entries["through"], protocol, test)
            and not known.find(entries["emulated"], protocol, test)
        ]
        by_file = collections.defaultdict(list)
        for test in tests:
            by_file[test.split("::")[0]].append(test)
        for file, its in by_file.items():
            part = "some-" + file.removesuffix(".py").replace("/", "-")
            jobs.append(Job(program, protocol, "emulated", part, its))
    return jobs


if __name__ == "__main__":
    sys.exit(main())
