"""A headless Chromium, spoken to in its own protocol (CDP) over a pipe: no driver, no other package."""

import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

from servers import PATIENCE

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --hide-scrollbars
--remote-debugging-pipe --force-color-profile=srgb --lang=en-GB""".split()


class Browser:
    """One browser with a profile of its own and one tab."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slotway-browser-"))
        to_it, self.write_end = os.pipe()
        self.read_end, from_it = os.pipe()
        # The browser reads commands from 3 and writes answers to 4: the shell's to put there.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_it, from_it)]
        i, o = high
        shell = f'exec chromium {" ".join(FLAGS)} --user-data-dir="$0" about:blank 3<&{i} 4>&{o} {i}<&- {o}>&-'
        # Chromium's own thoughts are of no use, unless it does not start.
        self.log = open(self.folder / "log", "ab")
        self.child = subprocess.Popen(
            ["bash", "-c", shell, self.folder / "profile"],
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        for fd in (to_it, from_it, *high):
            os.close(fd)
        self.rest, self.number, self.session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.child.wait(10)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        for fd in (self.write_end, self.read_end):
            os.close(fd)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self.receive(end)
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def receive(self, end):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read_end], [], [], max(0, end - time.monotonic()))
            piece = os.read(self.read_end, 1 << 20) if ready else b""
            assert piece, f"no word of chromium:\n{(self.folder / 'log').read_text()[-2000:]}"
            self.rest += piece
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("the page is loaded", "document.readyState === 'complete'")

    def run(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def until(self, what, script):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"{what}: not in {PATIENCE} s; the page:\n{self.run('document.body.innerText')}")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def size(self, width, height, phone=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )

    def scheme(self, scheme):
        """light or dark, as the user's system says."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path, width, height):
        """The upper left part of the page, however much of it is to be seen."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def complaints(self):
        """What the console has of errors and warnings, and what the page was not allowed to do."""
        self.run("0")
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(params["args"])
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"])
        return found

    def asked_elsewhere(self, origin):
        """Requests that did not go to `origin`."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith((origin, "data:"))]
