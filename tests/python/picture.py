#!/usr/bin/env python3
"""Makes docs/status.png: the status page after three minutes of changing load and a failover. (The one
committed was then reduced to 200 colours, which is a third of the bytes.)

picture.py [FOLDER]: there, and with the whole page, dark, and as on a phone besides
"""

import math
import pathlib
import random
import sys
import threading
import time

import redis

from browser import Browser
from servers import REPOSITORY, Cluster, Slotway, until

SECONDS = 170
NAMES = ("checkout", "sessions", "search")


def client(port, number, over, began):
    r = redis.Redis(port=port, client_name=NAMES[number % 3], socket_timeout=10)
    dice = random.Random(number)
    while not over.is_set():
        try:
            for _ in range(10):
                key = f"user:{int(dice.paretovariate(0.9)) % 4000}"
                r.get(key)
                if dice.random() < 0.3:
                    r.set(key, "x" * dice.randrange(20, 400))
            if dice.random() < 0.2:
                r.mget([f"product:{dice.randrange(300)}" for _ in range(10)])
                r.hincrby("cart:totals", "items", 1)
            if dice.random() < 0.02:
                r.set(f"report:{dice.randrange(5)}", "x" * 300_000)
                r.lpush("user:1", "of another type")
        except redis.RedisError:
            pass
        busy = 0.5 + 0.5 * math.sin((time.monotonic() - began) / 19 + number)
        time.sleep(0.003 + 0.012 * busy)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    cluster = Cluster()
    server = Slotway(cluster, settings=[
        "transactions.cross_slot=split", "topology.refresh=2s", "slowlog.slower_than=8ms", "observe.sample=10",
    ])
    over, browser = threading.Event(), None
    try:
        cluster.start()
        server.start()
        began = time.monotonic()
        clients = [threading.Thread(target=client, args=(server.port, n, over, began)) for n in range(9)]
        for thread in clients:
            thread.start()
        time.sleep(SECONDS * 0.55)
        dead = cluster.primaries[1]
        dead.child.kill()
        dead.child.wait()
        time.sleep(SECONDS * 0.1)
        # it comes back, as a replica
        dead.start()
        until("the replica is up", lambda: "link_status:up" in dead.ask("INFO", "replication"))
        time.sleep(began + SECONDS - time.monotonic())
        browser = Browser()
        browser.size(1280, 900)
        browser.scheme("light")
        browser.open(f"http://127.0.0.1:{server.admin}/")
        browser.until("hot keys", "document.querySelectorAll('#hot tr').length > 5")
        time.sleep(2.5)
        whole = browser.run("document.documentElement.scrollHeight")
        browser.screenshot((folder or REPOSITORY / "docs") / "status.png", 1280, 1540)
        if folder:
            browser.screenshot(folder / "whole.png", 1280, whole)
            browser.scheme("dark")
            time.sleep(1.5)
            browser.screenshot(folder / "dark.png", 1280, whole)
            browser.size(390, 844, phone=True)
            time.sleep(1.5)
            browser.screenshot(folder / "phone.png", 390, 2600)
    finally:
        over.set()
        if browser:
            browser.close()
        server.kill()
        cluster.stop()


if __name__ == "__main__":
    main()
