"""`slotway top`: once, as a plain table, and on a terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
import redis

from servers import PATIENCE, Slotway, until

BINARY = os.environ.get("SLOTWAY_TEST_BIN") or str(
    __import__("servers").REPOSITORY / "target/release/slotway"
)


def once(*args, env=None):
    return subprocess.run(
        [BINARY, "top", "--once", *args], capture_output=True, text=True, timeout=PATIENCE, env=env
    )


def test_once(observed):
    r = redis.Redis(port=observed.port)

    def busy():
        """What it shows, once the last whole second had commands in it."""
        for i in range(300):
            r.set(f"top:{i}", i)
        out = once("--url", f"http://127.0.0.1:{observed.admin}")
        assert out.returncode == 0 and not out.stderr
        return out if re.search(r"commands/s (\S+)", out.stdout)[1] != "0" else None

    out = until("commands are seen", busy)
    assert "\x1b" not in out.stdout
    assert re.search(r"^slotway \S+ +up .* 2 workers +ready", out.stdout)
    nodes = out.stdout[out.stdout.index("SHARD") : out.stdout.index("HOT KEY")]
    rows = [line for line in nodes.splitlines() if re.search(r" (primary|replica) ", line)]
    shown = [node for node in observed.cluster.nodes if any(f"127.0.0.1:{node.port} " in r for r in rows)]
    assert len(shown) == len(rows) == 6, out.stdout
    assert sum(" primary " in row and " online " in row for row in rows) == 3
    for head in ("SHARD", "HOT KEY", "SLOW COMMAND", "EVENT"):
        assert head in out.stdout
    assert "nothing has happened yet" not in out.stdout


def test_nobody_there_and_no_token(observed, tmp_path):
    out = once("--url", "http://127.0.0.1:1")
    assert out.returncode == 1 and "no answer from the admin listener 127.0.0.1:1" in out.stderr
    out = once("--url", "https://127.0.0.1:1")
    assert out.returncode == 1 and "no answer" in out.stderr
    assert once("--url", "ftp://127.0.0.1:1").returncode == 2
    guarded = Slotway(observed.cluster, settings=["admin_token=open-sesame"])
    try:
        guarded.start()
        url = f"http://127.0.0.1:{guarded.admin}"
        out = once("--url", url)
        assert out.returncode == 1 and "--token-file" in out.stderr
        file = tmp_path / "token"
        file.write_text("open-sesame\n")
        assert once("--url", url, "--token-file", file).returncode == 0
        env = {**os.environ, "SLOTWAY_ADMIN_TOKEN": "open-sesame"}
        assert once("--url", url, env=env).returncode == 0
    finally:
        guarded.kill()


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, args, lines, columns):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execvpe(args[0], args, {**os.environ, "TERM": "xterm-256color"})
        self.seen = ""

    def read(self):
        while select.select([self.fd], [], [], 0)[0]:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                return
            if not piece:
                return
            self.seen += piece.decode(errors="replace")

    def until(self, what, check):
        def look():
            self.read()
            return check(self.seen)

        return until(what, look)

    def resize(self, lines, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def end(self):
        status = []

        def ended():
            self.read()
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(code)
            return pid

        until("it ends", ended)
        self.read()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status[-1])


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_on_a_terminal(observed, key):
    url = f"http://127.0.0.1:{observed.admin}"
    terminal = Terminal([BINARY, "top", "--url", url, "--interval", "200ms"], 50, 120)
    try:
        terminal.until("the screen", lambda seen: "\x1b[?1049h" in seen and "q quits" in seen)
        assert "commands/s" in terminal.seen and "primary" in terminal.seen

        def uptimes(seen):
            return set(re.findall(r"up ((?:\d+ h )?(?:\d+ min)? ?(?:\d+ s)?)", seen))

        terminal.until("it goes on", lambda seen: len(uptimes(seen)) >= 2)
        # fewer lines than there is to show
        terminal.seen = ""
        terminal.resize(12, 60)
        terminal.until("it says that there is more", lambda seen: "↓ has more" in seen)
        terminal.seen = ""
        os.write(terminal.fd, b"\x1b[6~")
        terminal.until("what is below", lambda seen: "HOT KEY" in seen or "EVENT" in seen)
    finally:
        os.write(terminal.fd, key.encode())
        code = terminal.end()
    assert code == 0
    assert terminal.seen.rstrip().endswith("\x1b[?1049l"), "the terminal is as it was"
