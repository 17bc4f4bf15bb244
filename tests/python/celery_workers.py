"""What kills of primaries do to Celery's workers behind slotway, by commands.on_outcome_unknown.

Celery is not among the requirements of the tests: `pip install 'celery[redis]'` first. Then

    python tests/python/celery_workers.py [--kills 5] [--workers 4] [error disconnect server]

For each choice it starts a cluster and slotway (SLOTWAY_TEST_BIN, as for the tests; `server`: one
redis-server without slotway), workers, and a producer; kills the primary of the queue's slot that
many times (a killed node is restarted and becomes the next replica); and prints how many workers
ended, and how many tasks of those that were sent have been done.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time

import redis
from celery import Celery

from servers import Cluster, Server, Slotway, until

URL = os.environ.get("CELERY_BROKER")
app = Celery("celery_workers", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # kombu's transactions, scripts and BRPOP have several keys: they need one slot
    broker_transport_options={"global_keyprefix": "{celery}:"},
    result_backend_transport_options={"global_keyprefix": "{celery}:"},
    worker_prefetch_multiplier=4,
)


@app.task
def add(a, b):
    return a + b


def started(server, number):
    log = server.dir / f"worker{number}.log"
    environment = {**os.environ, "CELERY_BROKER": f"redis://127.0.0.1:{server.port}/0"}
    command = [sys.executable, "-m", "celery", "-A", "celery_workers", "worker", "--pool", "threads",
               "--concurrency", "4", "-n", f"w{number}@%h", "--loglevel", "info"]
    child = subprocess.Popen(command, cwd=os.path.dirname(os.path.abspath(__file__)), env=environment,
                             stdout=open(log, "ab"), stderr=subprocess.STDOUT)
    return child, log


class Producer(threading.Thread):
    """Sends tasks; what fails is counted and not sent again."""

    def __init__(self, server):
        super().__init__()
        self.app = Celery("producer", broker=f"redis://127.0.0.1:{server.port}/0",
                          backend=f"redis://127.0.0.1:{server.port}/0")
        self.app.conf.update({k: app.conf[k] for k in ("broker_transport_options", "result_backend_transport_options")})
        self.app.conf.task_publish_retry = True
        self.over = threading.Event()
        self.results, self.errors = [], []

    def run(self):
        while not self.over.wait(0.01):
            try:
                self.results.append(self.app.send_task("celery_workers.add", (1, 2)))
            except Exception as error:  # whatever a producer would see
                self.errors.append(f"{type(error).__name__}: {error}")


def primary_of(cluster, key):
    """The node that has the slot of `key`, by the first node that answers."""
    for node in cluster.nodes:
        with contextlib.suppress(OSError, AssertionError):
            slot = int(node.ask("CLUSTER", "KEYSLOT", key)[1:])
            for line in node.ask("CLUSTER", "NODES").split("\n"):
                words = line.split()
                if len(words) > 8 and "master" in words[2] and "fail" not in words[2]:
                    for span in words[8:]:
                        first, _, last = span.partition("-")
                        if first.isdigit() and int(first) <= slot <= int(last or first):
                            port = int(words[1].split("@")[0].rsplit(":", 1)[1])
                            return next(n for n in cluster.nodes if n.port == port)
    return None


def killed(node):
    node.child.kill()
    node.child.wait()


def restarted(node):
    args = ["redis-server", "--port", node.port, "--bind", "127.0.0.1", "--save", "", *node.options]
    node.run(args)
    until("the node answers", lambda: node.answers(node.addr))


def tried(choice, kills, count):
    cluster = None
    if choice == "server":
        server = Server(options=["--appendonly", "yes"]).start()
    else:
        cluster = Cluster().start()
        server = Slotway(cluster, settings=[f"commands.on_outcome_unknown={choice}", "timeouts.command=10s"]).start()
    workers = [started(server, i) for i in range(count)]
    try:
        for child, log in workers:
            until("the worker is ready", lambda: b" ready." in log.read_bytes())
        producer = Producer(server)
        producer.start()
        for _ in range(kills):
            time.sleep(3)
            node = primary_of(cluster, "{celery}:celery") if cluster else server
            killed(node)
            if cluster:
                until("another node is primary", lambda: primary_of(cluster, "{celery}:celery") not in (None, node))
            restarted(node)
            if cluster:
                until("it is a replica", lambda: "link_status:up" in node.ask("INFO", "replication"))
        time.sleep(5)
        producer.over.set()
        producer.join()
        ended = [log for child, log in workers if child.poll() is not None]
        done = 0
        with contextlib.suppress(Exception):
            until("tasks are done", lambda: all(r.ready() for r in producer.results[-20:]))
        for result in producer.results:
            with contextlib.suppress(Exception):
                done += result.ready()
        print(f"{choice}: {kills} kills, {len(ended)} of {count} workers ended; {done} of {len(producer.results)} "
              f"tasks done, {len(producer.errors)} not sent", flush=True)
        for error in sorted(set(producer.errors))[:5]:
            print(f"  a producer saw {producer.errors.count(error)}x {error[:200]}")
        for log in ended:
            last = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line][-1:]
            print(f"  {log.name} ended: {' '.join(last)[:300]}", flush=True)
    finally:
        for child, _ in workers:
            child.kill()
            child.wait()
        server.kill()
        if cluster:
            cluster.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("choices", nargs="*", default=["error", "disconnect"])
    args = parser.parse_args()
    for choice in args.choices:
        tried(choice, args.kills, args.workers)


if __name__ == "__main__":
    main()
