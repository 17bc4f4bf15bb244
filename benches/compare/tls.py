"""What TLS costs: slotway with and without it, on either side and on both, before one cluster
whose nodes listen on plain ports and on ports with TLS.

redis-benchmark speaks TLS by OpenSSL; what counts is slotway's CPU per command. The certificates
are of P-256 keys, the version is 1.3, the cipher what both prefer (AES-256-GCM or so)."""

import subprocess
import time
import urllib.request
from pathlib import Path
from statistics import median

import backends
import load
import procs

NODES = 3
KINDS = ("plain", "clients", "nodes", "both")
LABEL = {
    "plain": "no TLS",
    "clients": "TLS with clients",
    "nodes": "TLS with nodes",
    "both": "TLS with both",
}
WORKLOADS = ("c50", "p16", "v16k")


def _openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def certificates(folder: Path) -> dict:
    """A CA and one certificate for everybody."""
    ca, ca_key, cert, key, request = (folder / f"tls-{n}" for n in ("ca.crt", "ca.key", "crt", "key", "csr"))
    names = folder / "tls-names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for file in (ca_key, key):
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file)
    _openssl("req", "-x509", "-new", "-key", ca_key, "-subj", "/CN=bench", "-days", "2", "-out", ca)
    _openssl("req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", request)
    _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
             "-extfile", names, "-out", cert)
    return {"ca": ca, "cert": cert, "key": key}


class Slotway:
    """One slotway with one worker."""

    def __init__(self, fleet, binary, files, ports, kind):
        plain, secured, admin = procs.free_ports(3)
        up, down = kind in ("nodes", "both"), kind in ("clients", "both")
        sets = {}
        if down:
            sets |= {"tls.downstream.listen": f"127.0.0.1:{secured}", "tls.downstream.cert": files["cert"],
                     "tls.downstream.key": files["key"]}
        if up:
            sets |= {"tls.upstream.enabled": "true", "tls.upstream.ca": files["ca"]}
        seeds = ",".join(f"127.0.0.1:{tls if up else port}" for port, tls in ports)
        args = [binary, "run", "--listen", f"127.0.0.1:{plain}", "--admin", f"127.0.0.1:{admin}", "--workers", 1,
                "--seeds", seeds]
        for key, value in sets.items():
            args += ["--set", f"{key}={value}"]
        self.child = fleet.start(f"slotway-{kind}", args)
        self.pid = self.child.pid
        self.port = secured if down else plain
        self.plain = plain
        self.client = ["--tls", "--cacert", str(files["ca"])] if down else []

        def ready():
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as reply:
                return reply.status == 200

        procs.wait_until(f"slotway ({kind})", ready, self.child)


def _once(fleet, proxy, work, scale) -> float:
    count = max(500, int(work.count * scale))
    before = procs.cpu(proxy.pid)
    for command in work.commands:
        load._generate(proxy.port, work, command, count, 1, proxy.client)
    after = procs.cpu(proxy.pid)
    return (after["total"] - before["total"]) / (count * len(work.commands)) * 1e6


def compare(fleet, binary, rounds: int, scale: float, say) -> dict:
    """CPU per command of every kind, and beside that without TLS in the same round."""
    files = certificates(fleet.folder)
    ports = backends.cluster(fleet, NODES, 0, files)
    running = {kind: Slotway(fleet, binary, files, ports, kind) for kind in KINDS}
    plain = running["plain"].plain
    backends.fill(plain, load.KEYS, load.VALUE)
    backends.fill(plain, load.BIG_KEYS, load.BIG_VALUE, "big")
    works = [w for w in load.WORKLOADS if w.name in WORKLOADS]
    found = {w.label: {kind: {"cpu_us": [], "ratio": []} for kind in KINDS} for w in works}
    for number in range(rounds):
        for w, work in enumerate(works):
            turn = (number + w) % len(KINDS)
            got = {}
            for kind in KINDS[turn:] + KINDS[:turn]:
                got[kind] = _once(fleet, running[kind], work, scale)
                time.sleep(0.1)
            for kind in KINDS:
                found[work.label][kind]["cpu_us"].append(got[kind])
                found[work.label][kind]["ratio"].append(got[kind] / got["plain"])
            say(f"round {number + 1}/{rounds}  {work.label:<36}" + ", ".join(f"{k} {got[k]:.2f}" for k in KINDS))
    for proxy in running.values():
        fleet.stop(proxy.child)
    return {label: {kind: {key: median(values) for key, values in row.items()} for kind, row in rows.items()}
            for label, rows in found.items()}


def text(found: dict) -> str:
    lines = ["\nTLS: CPU of slotway per command, beside that without TLS"]
    for label, rows in found.items():
        cells = "   ".join(f"{LABEL[k]} {row['cpu_us']:.2f} us x{row['ratio']:.2f}" for k, row in rows.items())
        lines.append(f"  {label:<36}{cells}")
    return "\n".join(lines)
