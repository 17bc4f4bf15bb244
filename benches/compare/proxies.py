"""How each proxy is started: one worker, its own defaults, and nothing else changed."""

import json
import resource
import urllib.request

from procs import Fleet, call_once, free_ports, wait_until

#: Drawn and printed in this order.
ALL = ["slotway", "nutcracker", "envoy", "haproxy", "none"]
LABEL = {
    "slotway": "slotway",
    "nutcracker": "nutcracker",
    "envoy": "Envoy",
    "haproxy": "HAProxy (TCP)",
    "none": "no proxy",
}


class Proxy:
    """A running proxy: its name, the port to measure, and its process (None for "none")."""

    #: The port of /metrics, if it is slotway.
    admin = None

    def __init__(self, name, port, child):
        self.name, self.port, self.child = name, port, child

    @property
    def pid(self):
        return self.child.pid if self.child else None


def _ready(name, port, child, also=lambda: True):
    wait_until(
        name,
        lambda: call_once(port, "PING") == b"PONG" and call_once(port, "GET", "nothing") is None and also(),
        child,
        seconds=20,
    )
    return Proxy(name, port, child)


def none(fleet: Fleet, binary, backends) -> Proxy:
    return Proxy("none", backends["single"][0], None)


def slotway(fleet: Fleet, binary, backends, workers: int = 1, split: bool = False) -> Proxy:
    port, admin = free_ports(2)
    child = fleet.start(f"slotway-{port}", [
        binary, "run",
        "--listen", f"127.0.0.1:{port}",
        "--seeds", ",".join(f"127.0.0.1:{p}" for p in backends["cluster"]),
        "--admin", f"127.0.0.1:{admin}",
        "--workers", workers,
        "--set", f"transactions.cross_slot={'split' if split else 'reject'}",
    ])

    def readyz():
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as reply:
            return reply.status == 200

    proxy = _ready("slotway", port, child, readyz)
    proxy.admin = admin
    return proxy


def nutcracker(fleet: Fleet, binary, backends) -> Proxy:
    port, stats = free_ports(2)
    servers = "".join(f"    - 127.0.0.1:{p}:1\n" for p in backends["three"])
    config = fleet.folder / f"nutcracker-{port}.yml"
    config.write_text(
        "bench:\n"
        f"  listen: 127.0.0.1:{port}\n"
        "  hash: fnv1a_64\n"
        "  distribution: ketama\n"
        "  redis: true\n"
        "  preconnect: true\n"
        "  auto_eject_hosts: false\n"
        f"  servers:\n{servers}"
    )
    child = fleet.start(f"nutcracker-{port}", [binary, "-c", config, "-a", "127.0.0.1", "-s", stats])
    return _ready("nutcracker", port, child)


def haproxy_clients() -> int:
    """How many clients HAProxy may have here: each costs it two files."""
    return min(20000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)


def haproxy(fleet: Fleet, binary, backends) -> Proxy:
    (port,) = free_ports(1)
    config = fleet.folder / f"haproxy-{port}.cfg"
    config.write_text(
        "global\n"
        "  nbthread 1\n"
        f"  maxconn {haproxy_clients()}\n"
        "defaults\n"
        "  mode tcp\n"
        "  timeout connect 5s\n"
        "  timeout client 1h\n"
        "  timeout server 1h\n"
        "listen bench\n"
        f"  bind 127.0.0.1:{port}\n"
        f"  server redis 127.0.0.1:{backends['single'][0]}\n"
    )
    child = fleet.start(f"haproxy-{port}", [binary, "-db", "-f", config])
    return _ready("haproxy", port, child)


def envoy(fleet: Fleet, binary, backends) -> Proxy:
    (port,) = free_ports(1)
    ext = "type.googleapis.com/envoy.extensions"

    def address(p):
        return {"socket_address": {"address": "127.0.0.1", "port_value": p}}

    config = {
        "static_resources": {
            "listeners": [{
                "name": "bench",
                "address": address(port),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.redis_proxy",
                    "typed_config": {
                        "@type": f"{ext}.filters.network.redis_proxy.v3.RedisProxy",
                        "stat_prefix": "bench",
                        "settings": {"op_timeout": "5s", "enable_redirection": True},
                        "prefix_routes": {"catch_all_route": {"cluster": "bench"}},
                    },
                }]}],
            }],
            "clusters": [{
                "name": "bench",
                "connect_timeout": "5s",
                "lb_policy": "CLUSTER_PROVIDED",
                "load_assignment": {
                    "cluster_name": "bench",
                    "endpoints": [{"lb_endpoints": [
                        {"endpoint": {"address": address(p)}} for p in backends["cluster"]
                    ]}],
                },
                "cluster_type": {
                    "name": "envoy.clusters.redis",
                    "typed_config": {"@type": f"{ext}.clusters.redis.v3.RedisClusterConfig"},
                },
            }],
        },
    }
    path = fleet.folder / f"envoy-{port}.json"
    path.write_text(json.dumps(config, indent=1))
    child = fleet.start(f"envoy-{port}", [
        binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error",
    ])
    return _ready("envoy", port, child)


START = {"slotway": slotway, "nutcracker": nutcracker, "envoy": envoy, "haproxy": haproxy, "none": none}
