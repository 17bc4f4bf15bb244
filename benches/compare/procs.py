"""Processes that this run starts, what they cost, and that all of them end with it."""

import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_TICK = os.sysconf("SC_CLK_TCK")


class StartError(Exception):
    """A process did not come up; the text carries the end of its log."""


def die_with_parent():
    """For `preexec_fn`."""
    # A run that is itself killed with -9 cannot clean up; the kernel does it for it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Fleet:
    """Every child of this run. Each has its own session, so that Ctrl-C reaches only
    this program, which then ends them in its own order."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.children = []

    def start(self, name: str, argv: list, stdin=subprocess.DEVNULL, stdout=None) -> subprocess.Popen:
        log_path = self.folder / f"{name}.log"
        with open(log_path, "ab") as log:
            child = subprocess.Popen(
                [str(a) for a in argv],
                cwd=self.folder,
                stdin=stdin,
                stdout=stdout or log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        child.log_path = log_path
        self.children.append(child)
        return child

    def stop(self, child: subprocess.Popen):
        if child in self.children:
            self.children.remove(child)
        _end([child])

    def stop_all(self):
        children, self.children = self.children, []
        _end(children)


def _end(children):
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + 5
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_until(what: str, check, child=None, seconds: float = 15):
    """Calls `check` until it is true; what it raises counts as "not yet"."""
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        if child is not None and child.poll() is not None:
            raise StartError(f"{what}: ended with {child.returncode}; {log_tail(child)}")
        try:
            if check():
                return
        except (OSError, ValueError, RespError) as error:
            last = f": {error}"
        if time.monotonic() > deadline:
            tail = f"; {log_tail(child)}" if child is not None else ""
            raise StartError(f"{what}: not ready after {seconds:.0f} s{last}{tail}")
        time.sleep(0.05)


def log_tail(child, lines: int = 5) -> str:
    text = child.log_path.read_text(errors="replace").strip().splitlines()[-lines:]
    return "its log ends: " + " | ".join(text) if text else "its log is empty"


def free_ports(count: int) -> list:
    """Ports below the range that outgoing connections take theirs from: a load
    generator with thousands of connections cannot take one of these meanwhile."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(10000, low) if low > 12000 else range(20000, 60000)
    held, ports = [], []
    try:
        while len(ports) < count:
            port = random.choice(candidates)
            sock = socket.socket()
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                sock.close()
                continue
            held.append(sock)
            ports.append(port)
    finally:
        for sock in held:
            sock.close()
    return ports


# ---- what a process costs ---------------------------------------------------------


def _family(pid: int) -> list:
    """The process and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += _family(int(child))
    return pids


def cpu(pid: int) -> dict:
    """User, system and total CPU seconds of a process and its descendants, all threads.

    /proc/PID/stat counts in ticks of 10 ms, which is several percent of a short run.
    The process's CPU clock is the same account (user + system) in nanoseconds, so the
    total comes from there and the ticks only tell how it divides.
    """
    total = user = system = 0.0
    for member in _family(pid):
        total += time.clock_gettime((~member << 3) | 2)  # what clock_getcpuclockid() makes
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) / _TICK
        system += int(fields[12]) / _TICK
    return {"total": total, "user": user, "system": system}


class MachineUse:
    """How much of the machine's CPU, since this was made, went to others than this run:
    other processes (`other`) and, on a virtual machine, other guests (`stolen`)."""

    def __init__(self, fleet):
        self._fleet = fleet
        self._start = self._now()

    def _now(self):
        fields = [int(f) / _TICK for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = fields
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        mine = sum(use.ru_utime + use.ru_stime for use in ours)
        mine += sum(cpu(child.pid)["total"] for child in self._fleet.children if child.poll() is None)
        # A process's CPU clock runs on through the interrupts that its packets cause, while
        # /proc/stat lists them apart: without them here, as much of others' work would be
        # hidden. (A kernel with IRQ_TIME_ACCOUNTING stops the clock; there `other` is too
        # high by the interrupts, which errs on the safe side.)
        return sum(fields), user + nice + system + irq + softirq - mine, steal

    def disturbance(self) -> dict:
        """Shares of all the CPU time there was, between 0 and 1."""
        passed, other, stolen = (b - a for a, b in zip(self._start, self._now()))
        return {"other": max(0.0, other / passed), "stolen": stolen / passed} if passed > 0 else {}


def rss(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * page for p in _family(pid))


# ---- the little RESP that setting up needs ----------------------------------------


class RespError(Exception):
    """An error reply."""


class Resp:
    """One blocking connection that speaks RESP2."""

    def __init__(self, port: int, timeout: float = 5):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, *commands):
        self.sock.sendall(b"".join(encode(c) for c in commands))

    def call(self, *args):
        self.send(args)
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RespError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.read() for _ in range(int(rest))]
        raise ValueError(f"not RESP2: {line!r}")


def encode(args) -> bytes:
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def call_once(port: int, *args):
    with Resp(port) as conn:
        return conn.call(*args)
