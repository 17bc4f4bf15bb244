"""The status page in a real browser, before a real cluster under load."""

import threading
import time

import pytest
import redis

from browser import Browser
from servers import Slotway, Wire, encode, until

TOKEN = "the-token"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def load(observed):
    """Commands of every kind, some of them wrong, as long as the tests last."""
    over = threading.Event()

    def client(number):
        r = redis.Redis(port=observed.port, client_name=f"app-{number}", socket_timeout=10)
        while not over.is_set():
            try:
                for i in range(8):
                    r.set(f"page:{i}", "x" * 100 * number)
                    r.get(f"page:{i}")
                r.mget([f"page:{i}" for i in range(8)])
                for _ in range(20):
                    r.get("page:hot")
                r.lpush("page:1", "of another type")
            except redis.RedisError:
                pass
            time.sleep(0.002)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def page(observed, browser, load):
    """The page, open and alive."""
    browser.size(1280, 900)
    browser.scheme("light")
    browser.open(f"http://127.0.0.1:{observed.admin}/")
    alive(browser)
    return browser


def alive(browser):
    browser.until("the page is alive", "document.getElementById('live-text').textContent.startsWith('live')")


def count(browser, selector):
    return browser.run(f"document.querySelectorAll({selector!r}).length")


def test_everything_is_there(page, observed):
    assert page.text("#ready") == "● ready"
    assert count(page, ".tile") == 6
    assert count(page, ".shard") == 3 and count(page, "#slots > span") == 3
    for node in observed.cluster.nodes:
        row = f"[data-addr='127.0.0.1:{node.port}']"
        role = "PRIMARY" if node in observed.cluster.primaries else "REPLICA"
        assert page.text(f"{row} .role") == role
        page.until("its state", f"document.querySelector(\"{row} .pill\").textContent === '● online'")
    page.until("both workers", "document.querySelectorAll('#client-groups > div:first-child li').length === 2")
    page.until("the clients", "document.getElementById('clients').innerText.includes('redis-py')")
    page.until("their names", "document.getElementById('clients').innerText.includes('app-3')")
    page.until("the configuration", "document.querySelectorAll('#config-list > div').length > 3")
    # what is a secret there, is none here
    page.run("document.getElementById('config-all').click()")
    config = page.text("#config-list")
    assert "limits.client_output" in config and "user app" in config and "app-secret" not in config
    page.run("document.getElementById('config-all').click()")
    # every part that the page's own links name, and labels for what is no text
    assert page.run("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")
    unlabelled = "[...document.querySelectorAll('[role=img]')].filter((e) => !e.getAttribute('aria-label'))"
    assert page.run(f"{unlabelled}.length") == 0


def test_numbers_live(page):
    rate = "parseFloat(document.querySelector('#tile-ops .value').textContent)"
    first = page.until("load", rate)
    page.until("it moves", f"{rate} !== {first}")
    page.until("latency", "document.querySelector('#tile-latency .value').textContent !== '–'")
    page.until("nodes' load", "[...document.querySelectorAll('.node.primary dl > div:first-child dd')].every((e) => e.textContent !== '0')")
    for plot in ("ops", "latency", "bytes", "errors"):
        line = f"#plot-{plot} > svg path.line"
        length = f"(document.querySelector({line!r}).getAttribute('d') ?? '').length"
        grown = page.until(f"a line in {plot}", length)
        page.until(f"{plot} goes on", f"{length} > {grown}")
    for command in ("set", "get", "lpush"):
        page.until(command, f"document.getElementById('command-list').innerText.includes({command!r})")
    page.until("the hottest key", "document.getElementById('hot').innerText.includes('page:hot')")


def test_what_happens_is_told(page, observed):
    with Wire(observed.addr, source="127.0.2.1") as w:
        w.send(encode("AUTH", "app", "wrong"))
        assert b"WRONGPASS" in w.socket.recv(100)
    page.until("a refused login", "document.getElementById('event-list').innerText.includes('logins refused')")
    assert "ready" in page.text("#event-list")


def test_what_clients_say_is_text(page, observed):
    r = redis.Redis(port=observed.port, client_name="<img/src=x/onerror=alert(1)>")
    key = "<b>key</b><script>alert(2)</script>"
    for _ in range(2000):
        r.get(key)
    page.until("the name", "document.getElementById('clients').innerText.includes('<img/src=x')")
    page.until("the key", f"document.getElementById('hot').innerText.includes({key[:12]!r})")
    assert count(page, "main img, main b > b, main script, #hot b") == 0
    r.close()


def test_light_dark_and_a_phone(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = {}
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        for width in (1280, 390, 320):
            page.size(width, 844, phone=width < 500)
            page.until("plots as wide as there is room", "document.querySelector('#plot-ops > svg').clientWidth > 200")
            wide = "document.documentElement.scrollWidth"
            assert page.run(wide) <= width, f"{scheme} {width}: {page.run(wide)}"
        colours[scheme] = page.run(ground)
    assert colours["light"] != colours["dark"]
    page.scheme("light")
    page.size(1280, 900)


def test_no_complaints_and_nobody_else_is_asked(page, observed):
    assert page.complaints() == []
    assert page.asked_elsewhere(f"http://127.0.0.1:{observed.admin}/") == []


def test_a_failover_is_shown(page, observed):
    dead = observed.cluster.primaries[1]
    heir = observed.cluster.nodes[3 + 1]
    dead.child.kill()
    dead.child.wait()
    began = time.monotonic()
    row = f"[data-addr='127.0.0.1:{dead.port}']"
    page.until("that it is lost", f"document.querySelector(\"{row} .pill\").textContent !== '● online'")
    noticed = time.monotonic()
    until("the heir has taken over", lambda: "role:master" in heir.ask("INFO", "replication"))
    promoted = time.monotonic()
    events = "document.getElementById('event-list').innerText"
    page.until("the failover", f"{events}.includes('node 127.0.0.1:{heir.port} promoted to primary')")
    row = f"[data-addr='127.0.0.1:{heir.port}']"
    page.until("the new primary", f"document.querySelector(\"{row} .role\").textContent === 'primary'")
    shown = time.monotonic()
    page.until("ready again", "document.getElementById('ready').textContent === '● ready'")
    assert page.run("document.getElementById('trouble').hidden")
    print(f"lost node shown after {noticed - began:.1f} s, new primary {shown - promoted:.1f} s after its promotion")


def test_a_token_is_asked_for(page, observed):
    guarded = Slotway(observed.cluster, settings=[f"admin_token={TOKEN}"])
    try:
        guarded.start()
        page.open(f"http://127.0.0.1:{guarded.admin}/")
        page.until("it asks", "document.getElementById('login').open")
        assert page.run("fetch('/status.json').then((answer) => answer.status)") == 401

        def show(token):
            page.run(f"document.getElementById('token').value = {token!r}")
            page.run("document.getElementById('login-form').requestSubmit()")

        show("wrong")
        page.until("a wrong one", "document.getElementById('login-error').textContent !== ''")
        show(TOKEN)
        alive(page)
        assert not page.run("document.getElementById('login').open")
        page.until("the configuration", "document.querySelectorAll('#config-list > div').length > 3")
        assert TOKEN not in page.run("document.body.innerText")
        # what was refused is all that the console has
        assert {c.get("text", "")[-22:] for c in page.complaints()} <= {"status of 401 (Unauthorized)"[-22:]}
        guarded.stop()
        page.until("that nobody answers", "document.getElementById('live-text').textContent.startsWith('no answer')")
    finally:
        guarded.kill()
