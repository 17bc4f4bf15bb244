//! The nodes' `cluster-node-timeout`: read once, and compared with slotway's own timeouts.

use crate::common::{self, Proxy};
use slotway::sandbox::{Cluster, ClusterOptions, Conn};
use std::time::Duration;

/// Refreshes are waited for.
const OFTEN: [&str; 2] = ["--set", "topology.refresh=100ms"];
const METRIC: &str = "slotway_cluster_node_timeout_seconds";
const SHORTER: &str = "is shorter than a failover takes";

fn one_node(node_timeout: Duration) -> Cluster {
    let options = ClusterOptions { primaries: 1, replicas: 0, node_timeout, ..Default::default() };
    Cluster::start(options).expect("a cluster")
}

fn start(cluster: &Cluster, args: &[&str]) -> Proxy {
    Proxy::start(cluster, &[&OFTEN[..], args].concat())
}

fn known(proxy: &Proxy, seconds: f64) {
    common::eventually("the node timeout is known", || proxy.metric(METRIC, "") == seconds);
}

fn warnings(proxy: &Proxy) -> Vec<String> {
    proxy.log().lines().filter(|l| l.contains(SHORTER)).map(str::to_owned).collect()
}

fn direct(cluster: &Cluster) -> Conn {
    cluster.connect(&cluster.primaries().expect("primaries")[0]).expect("a connection")
}

#[test]
fn timeouts_that_are_over_before_a_failover_is_are_warned_of() {
    // Redis's default, which the sandbox's is not.
    let cluster = one_node(Duration::from_secs(15));
    let proxy = start(&cluster, &["--set", "timeouts.no_primary=17s"]);
    known(&proxy, 15.0);
    common::eventually("both are warned of", || warnings(&proxy).len() == 2);
    let text = warnings(&proxy).join("\n");
    for part in ["timeouts.command = 5s", "timeouts.no_primary = 17s", "15s", "18s or more"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let long = start(&cluster, &["--set", "timeouts.command=18s"]);
    let none = start(&cluster, &["--set", "timeouts.command=0"]);
    for proxy in [&long, &none] {
        known(proxy, 15.0);
        refreshed(proxy, 2.0);
        assert_eq!(warnings(proxy), Vec::<String>::new());
    }
    // Not again and again.
    refreshed(&proxy, 2.0);
    assert_eq!(warnings(&proxy).len(), 2);

    let mut node = direct(&cluster);
    assert!(node.command(&["ACL", "SETUSER", "default", "-config"]).expect("ACL SETUSER").is_ok());
    let unknown = start(&cluster, &[]);
    refreshed(&unknown, 2.0);
    assert!(!unknown.get("/metrics").expect("/metrics").1.contains(&format!("\n{METRIC} ")));
    assert_eq!(warnings(&unknown), Vec::<String>::new());
}

#[test]
fn it_is_read_again_when_nodes_change_and_not_at_every_refresh() {
    let cluster = one_node(Duration::from_secs(2));
    let proxy = start(&cluster, &[]);
    known(&proxy, 2.0);
    let asked = || {
        let nodes = cluster.nodes().expect("nodes");
        let calls = nodes.iter().map(|node| {
            let mut conn = cluster.connect(node).expect("a connection");
            let stats = conn.command(&["INFO", "commandstats"]).expect("INFO").text();
            let stats = stats.expect("a text");
            let line = stats.lines().find_map(|l| l.strip_prefix("cmdstat_config|get:calls="));
            line.and_then(|l| l.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
        });
        calls.sum::<u64>()
    };
    refreshed(&proxy, 20.0);
    assert_eq!(asked(), 1);
    assert_eq!(warnings(&proxy), Vec::<String>::new(), "5 s are enough for it");
    cluster.add_node(None).expect("one more node");
    common::eventually("it is asked for again", || asked() >= 2);
    // A node that joins has another ID at first.
    let before = asked();
    refreshed(&proxy, 20.0);
    assert!(asked() - before <= 1, "{before} {}", asked());
}

/// Waits for so many more refreshes.
fn refreshed(proxy: &Proxy, more: f64) {
    let count = || proxy.metric("slotway_topology_refreshes_total", "result=\"ok\"");
    let before = count();
    common::eventually("the topology is asked for", || count() >= before + more);
}
