//! An in-place upgrade from Redis 7.0 to a newer server, one node after the other: clients notice
//! nothing. Nodes of newer versions leave those of 7.0 out of their CLUSTER SHARDS, as they have no
//! shard IDs.

use crate::common::load::while_writing;
use crate::common::{self, Proxy};
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};

#[test]
fn redis_7_to_redis_8() {
    upgrade("redis");
}

#[test]
fn redis_7_to_valkey_9() {
    upgrade("valkey");
}

/// No node is new and the topology stays as it was: the answers are the newer server's all the same.
#[test]
fn answers_are_those_of_the_version_after_an_upgrade() {
    for server in ["redis", "valkey"] {
        let options = ClusterOptions { primaries: 1, replicas: 0, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).expect("a cluster");
        let proxy = Proxy::start(&cluster, &["--workers", "1"]);
        let node = cluster.primaries().expect("primaries").remove(0);
        let mut conn = proxy.connect();
        assert!(conn.command(&["SET", "k", "v"]).expect("SET").is_ok());
        let hello = |conn: &mut Conn| conn.command(&["HELLO"]).expect("HELLO").items().map(version);
        let old = hello(&mut conn);
        assert_eq!(old, hello(&mut cluster.connect(&node).expect("a connection")));
        cluster.upgrade(&node, &common::newer(server)).expect("an upgrade");
        cluster.settle().expect("a settled cluster");
        let new = hello(&mut cluster.connect(&node).expect("a connection"));
        assert_ne!(old, new, "another version");
        common::eventually("it is the newer one's", || hello(&mut conn) == new);
        // Commands, too, of which Redis 7.0 knew nothing.
        let reply = conn.command(&["CLIENT", "KILL", "MAXAGE", "999999"]).expect("a reply");
        assert_eq!(reply, Reply::Int(0));
    }
}

/// Server and version of HELLO's reply.
fn version(hello: &[Reply]) -> [Option<String>; 2] {
    [1, 3].map(|at| hello[at].text())
}

/// How many nodes `node` lists in CLUSTER SHARDS.
fn listed(cluster: &Cluster, node: &Node) -> usize {
    let mut conn = cluster.connect(node).expect("a connection");
    let shards = conn.command(&["CLUSTER", "SHARDS"]).expect("SHARDS");
    let nodes = |shard: &Reply| shard.items().and_then(|i| i[3].items().map(<[Reply]>::len));
    shards.items().expect("shards").iter().filter_map(nodes).sum()
}

fn upgrade(server: &str) {
    let program = common::newer(server);
    let cluster = common::cluster();
    let often = ["topology.refresh=100ms", "topology.min_interval=50ms"];
    let args: Vec<&str> = often.iter().flat_map(|set| ["--set", set]).collect();
    let proxy = Proxy::start(&cluster, &args);
    let nodes = cluster.nodes().expect("nodes");
    let (primaries, replicas): (Vec<_>, Vec<_>) = nodes.into_iter().partition(Node::is_primary);
    let refreshes = |proxy: &Proxy| {
        let count = || proxy.metric("slotway_topology_refreshes_total", "result=\"ok\"");
        // As often as makes it likely that each node was asked.
        let enough = count() + 20.0;
        common::eventually("the topology was asked for", || count() >= enough);
        assert_eq!(proxy.metric("slotway_slots_covered", ""), 16384.0);
    };
    let seen = while_writing(proxy.listen, |load| {
        for replica in &replicas {
            cluster.upgrade(replica, &program).expect("an upgrade");
            cluster.settle().expect("a settled cluster");
            refreshes(&proxy);
        }
        assert!(listed(&cluster, &replicas[0]) < 6, "this version does it right: what is tested?");
        // Who starts now, and has only nodes of the newer version to ask.
        let seeds = replicas.iter().map(|node| node.addr.to_string()).collect::<Vec<_>>();
        let late = Proxy::start_with_seeds(&cluster, &seeds.join(","), &args);
        refreshes(&late);
        let mut conn = late.connect();
        assert_eq!(conn.command(&["SET", "late", "v"]).expect("SET"), Reply::Simple("OK".into()));
        load.more(200);
        for primary in &primaries {
            let replica = cluster.replicas_of(primary).expect("replicas").remove(0);
            cluster.failover(&replica).expect("a failover");
            refreshes(&proxy);
            cluster.upgrade(primary, &program).expect("an upgrade");
            cluster.settle().expect("a settled cluster");
            refreshes(&proxy);
        }
        load.more(200);
    });
    seen.assert_no_errors();
    seen.assert_all_there(proxy.listen, |_, _| false);
    let lost = "no primary for slots";
    assert!(!proxy.log().contains(lost), "{}", proxy.log());
    assert_eq!(proxy.metric("slotway_topology_exceptions_total", ""), 0.0);
    assert_eq!(proxy.metric("slotway_topology_views_refused_total", "foreign"), 0.0);
}
