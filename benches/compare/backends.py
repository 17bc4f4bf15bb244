"""The Redis servers behind the proxies: one cluster, and standalone servers for those
that cannot speak to a cluster. Every primary has one replica, wherever it stands, so
that a SET costs the machine the same behind every proxy."""

from procs import Fleet, Resp, RespError, call_once, free_ports, wait_until

_COMMON = [
    "--bind", "127.0.0.1",
    "--save", "",
    "--appendonly", "no",
    "--maxclients", "20000",
    "--loglevel", "warning",
    "--repl-diskless-sync-delay", "0",
    "--repl-backlog-size", "32mb",
    # A replica that falls behind on a busy machine must not start over in mid-measurement.
    "--client-output-buffer-limit", "replica", "0", "0", "0",
]


def _server(fleet: Fleet, port: int, *options):
    folder = fleet.folder / f"redis-{port}"
    folder.mkdir()
    child = fleet.start(f"redis-{port}", ["redis-server", "--port", port, "--dir", folder, *_COMMON, *options])
    wait_until(f"redis-server on {port}", lambda: call_once(port, "PING") == b"PONG", child)
    return child


def _link_up(port: int) -> bool:
    return b"master_link_status:up" in call_once(port, "INFO", "replication")


def standalone(fleet: Fleet, count: int, replicas: int) -> list:
    """Starts `count` primaries with their replicas; gives the primaries' ports."""
    primaries = free_ports(count)
    for port in primaries:
        _server(fleet, port)
    for primary in primaries:
        for port in free_ports(replicas):
            _server(fleet, port, "--replicaof", "127.0.0.1", primary)
            wait_until(f"replica {port} of {primary}", lambda: _link_up(port))
    return primaries


def cluster(fleet: Fleet, primaries: int, replicas: int, tls: dict | None = None) -> list:
    """Starts a Redis Cluster and waits until all of it agrees; gives the primaries' ports. With
    `tls` (files: ca, cert, key) its nodes speak TLS, too, on ports of their own: pairs of ports."""
    size = primaries * (1 + replicas)
    free = free_ports(3 * size)
    ports, bus, secured = free[:size], free[size:2 * size], free[2 * size:]
    for port, bus_port, tls_port in zip(ports, bus, secured):
        more = [] if tls is None else [
            "--tls-port", tls_port, "--tls-cluster", "yes", "--tls-replication", "yes", "--tls-auth-clients", "no",
            "--tls-cert-file", tls["cert"], "--tls-key-file", tls["key"], "--tls-ca-cert-file", tls["ca"],
        ]
        _server(
            fleet, port,
            "--cluster-enabled", "yes",
            "--cluster-port", bus_port,
            "--cluster-config-file", "nodes.conf",
            "--cluster-node-timeout", "15000",
            "--cluster-allow-replica-migration", "no",
            *more,
        )
    nodes = [Resp(port) for port in ports]
    for i, node in enumerate(nodes):
        node.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        if i < primaries:
            node.call("CLUSTER", "ADDSLOTSRANGE", 16384 * i // primaries, 16384 * (i + 1) // primaries - 1)
        if i > 0:
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", ports[i], bus[i])
    ids = [node.call("CLUSTER", "MYID") for node in nodes]

    def said(node, *lines):
        info = node.call("CLUSTER", "INFO").split(b"\r\n")
        return all(line in info for line in lines)

    known = b"cluster_known_nodes:%d" % size
    for node in nodes:
        wait_until("cluster: nodes know each other", lambda: said(node, known), seconds=30)
    for i in range(primaries, size):
        # Refused until the gossip has told this node that the other one is a primary.
        wait_until(
            "cluster: replicas",
            lambda: nodes[i].call("CLUSTER", "REPLICATE", ids[i % primaries]) == b"OK",
            seconds=30,
        )
    for i, node in enumerate(nodes):
        wait_until(
            "cluster: state ok",
            lambda: said(node, b"cluster_state:ok", b"cluster_slots_ok:16384", known),
            seconds=30,
        )
        if i >= primaries:
            wait_until("cluster: replication", lambda: _link_up(ports[i]), seconds=30)
    # Only when every node lists every replica do the proxies see the cluster as it will stay.
    for node in nodes:
        wait_until(
            "cluster: all agree",
            lambda: node.call("CLUSTER", "NODES").count(b" slave ") + node.call("CLUSTER", "NODES").count(b"myself,slave ")
            == size - primaries,
            seconds=30,
        )
        node.close()
    return ports[:primaries] if tls is None else list(zip(ports, secured))[:primaries]


def fill(port: int, keys: int, value: bytes, prefix: str = "key"):
    """Sets every key that the load generator may ask for, through the given port, and
    reads some back: what answers wrongly is not worth measuring."""
    with Resp(port, timeout=30) as conn:
        for start in range(0, keys, 500):
            batch = range(start, min(start + 500, keys))
            conn.send(*(("SET", f"{prefix}:{i:012d}", value) for i in batch))
            for _ in batch:
                if conn.read() != b"OK":
                    raise RespError("SET was not answered with OK")
        for i in range(0, keys, max(1, keys // 200)):
            if conn.call("GET", f"{prefix}:{i:012d}") != value:
                raise RespError(f"GET {prefix}:{i:012d} did not give what SET had stored")
