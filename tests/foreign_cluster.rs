//! Nothing is read from or written to a server of another cluster, whatever address it has got and
//! whichever seed names it.

use crate::common::errors::{identified, says};
use crate::common::{self, Proxy};
use slotway::cluster::slot_of;
use slotway::errors::Unanswered;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

/// So that a topology is asked for several times while something happens.
const OFTEN: [&str; 4] = ["--set", "topology.refresh=100ms", "--set", "topology.min_interval=50ms"];
const SLOTS: u16 = 16384;

fn cluster(primaries: usize, replicas: usize) -> Cluster {
    let node_timeout = Duration::from_secs(1);
    let options = ClusterOptions { primaries, replicas, node_timeout, ..ClusterOptions::default() };
    Cluster::start(options).expect("a cluster")
}

fn seeds(cluster: &Cluster) -> String {
    cluster.addrs().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A key that `node` has.
fn key_of(node: &Node) -> String {
    let owned = |key: &String| node.slots.iter().any(|r| r.contains(&slot_of(key.as_bytes()).0));
    (0..).map(|i| format!("key:{i}")).find(owned).expect("a key")
}

fn write(conn: &mut Conn, count: usize) {
    for i in 0..count {
        let reply = conn.command(&["SET", &format!("key:{i}"), &format!("value:{i}")]);
        assert!(reply.expect("SET").is_ok());
    }
}

#[track_caller]
fn assert_all_there(conn: &mut Conn, count: usize) {
    for i in 0..count {
        let reply = conn.command(&["GET", &format!("key:{i}")]).expect("GET");
        assert_eq!(reply.text(), Some(format!("value:{i}")), "key:{i}");
    }
}

#[track_caller]
fn assert_empty(cluster: &Cluster) {
    for addr in cluster.addrs() {
        let mut conn = Conn::tcp(addr).expect("a connection");
        assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(0), "{addr}");
    }
}

/// A server that is or becomes a cluster of its own, at a port that others have used.
struct Stranger {
    child: Child,
    addr: SocketAddr,
}

impl Stranger {
    /// With the slots from `first` to `last`.
    fn start(cluster: &Cluster, addr: SocketAddr, (first, last): (u16, u16)) -> Stranger {
        let name = format!("stranger-{}", addr.port());
        let (mut command, dir) = cluster.command(&name, "redis-server".as_ref()).expect("a folder");
        let bus = slotway::sandbox::free_port().expect("a free port");
        let child = command
            .args(["--port", &addr.port().to_string(), "--dir", &dir.display().to_string()])
            .args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()])
            .args(["--save", "", "--protected-mode", "no", "--cluster-node-timeout", "1000"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        let stranger = Stranger { child, addr };
        common::eventually("the stranger answers", || {
            Conn::tcp(addr).is_ok_and(|mut conn| {
                conn.command(&["PING"]).is_ok_and(|reply| reply.error().is_none())
            })
        });
        stranger.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        if last - first + 1 == SLOTS {
            stranger.until_ok();
        }
        stranger
    }

    fn until_ok(&self) {
        common::eventually("the stranger's cluster is ok", || {
            let info = self.ask(&["CLUSTER", "INFO"]).text().unwrap_or_default();
            info.contains("cluster_state:ok")
        });
    }

    #[track_caller]
    fn ask(&self, command: &[&str]) -> Reply {
        let mut conn = Conn::tcp(self.addr).expect("a connection to the stranger");
        let reply = conn.command(command).expect("an answer of the stranger");
        assert_eq!(reply.error(), None, "{command:?}");
        reply
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn seeds_that_name_two_clusters_are_refused() {
    let (ours, other) = (cluster(3, 0), cluster(1, 0));
    let seeds = format!("{},{}", ours.addrs()[0], other.addrs()[0]);
    let proxy = Proxy::spawn(&ours, &seeds, &["--set", "timeouts.command=1s"]);
    common::eventually_ok("both seeds are named", || {
        let (status, text) = proxy.get("/readyz").ok_or("no answer")?;
        let named = seeds.split(',').all(|seed| text.contains(seed));
        let said = status == 503 && text.contains("two clusters") && named;
        if said { Ok(()) } else { Err(text) }
    });
    let mut conn = proxy.connect();
    let reply = conn.command(&["SET", "key", "value"]).expect("SET");
    let error = identified(&reply);
    assert!(says(&error, Unanswered::NotExecuted), "{reply:?}");
    // Behind the outcome is why.
    let why = error.field("outcome").unwrap_or_default();
    assert!(seeds.split(',').all(|seed| why.contains(seed)), "{reply:?}");
    assert_empty(&ours);
    assert_empty(&other);
}

/// A replica of ours is reset and joins another cluster, while slotway still lists it and none of
/// the other nodes answers.
#[test]
fn a_node_that_has_joined_another_cluster_does_not_take_slotway_along() {
    // Nodes that stand still for a while are not to be failed over.
    let options = ClusterOptions { node_timeout: Duration::from_secs(30), ..Default::default() };
    let (ours, other) = (Cluster::start(options).expect("a cluster"), cluster(3, 0));
    let args = [&OFTEN[..], &["--set", "timeouts.connect=300ms"]].concat();
    let proxy = Proxy::start(&ours, &args);
    write(&mut proxy.connect(), 300);
    let (mut moved, mut rest) = (None, Vec::new());
    for node in ours.nodes().expect("nodes") {
        if moved.is_none() && !node.is_primary() { moved = Some(node) } else { rest.push(node) }
    }
    let moved = moved.expect("a replica");
    rest.iter().for_each(|node| ours.pause(node).expect("to pause it"));
    let mut conn = ours.connect(&moved).expect("a connection");
    assert!(conn.command(&["CLUSTER", "RESET", "HARD"]).expect("RESET").is_ok());
    // Its epoch is 0 now; that of a cluster that it joins may be any.
    let host = other.primaries().expect("primaries").remove(0);
    let mut their = other.connect(&host).expect("a connection");
    for _ in 0..20 {
        their.command(&["CLUSTER", "BUMPEPOCH"]).expect("BUMPEPOCH");
    }
    let (port, bus) = (host.addr.port().to_string(), host.bus_port.to_string());
    let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
    assert!(conn.command(&meet).expect("MEET").is_ok());
    common::eventually("the node has joined the other cluster", || {
        let info = conn.command(&["CLUSTER", "INFO"]).expect("INFO").text().unwrap_or_default();
        info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384")
    });
    let refreshes = || proxy.metric("slotway_topology_refreshes_total", "");
    let enough = refreshes() + 4.0;
    common::eventually("the topology was asked for several times", || refreshes() >= enough);
    rest.iter().for_each(|node| ours.resume(node).expect("to resume it"));
    assert_all_there(&mut proxy.connect(), 300);
    write(&mut proxy.connect(), 600);
    assert_empty(&other);
    assert!(proxy.metric("slotway_topology_views_refused_total", "reason=\"foreign\"") > 0.0);
    assert_eq!(proxy.metric("slotway_topology_exceptions_total", ""), 0.0);
}

/// One seed is ours, the other leads to a cluster of one node at epoch 0. A primary and a replica of
/// another shard die, as if they had been on one machine.
#[test]
fn a_seed_of_another_cluster_is_not_believed_while_ours_fails() {
    let (ours, other) = (cluster(3, 3), cluster(1, 0));
    let foreign = other.nodes().expect("nodes").remove(0);
    other.kill(&foreign).expect("to kill it");
    let primaries = ours.primaries().expect("primaries");
    let seeds = format!("{},{}", primaries[0].addr, foreign.addr);
    let args = [&OFTEN[..], &["--set", "timeouts.command=25s"]].concat();
    let proxy = Proxy::start_with_seeds(&ours, &seeds, &args);
    other.restart(&foreign).expect("to restart it");
    other.settle().expect("a settled cluster");
    let mut conn = proxy.connect();
    write(&mut conn, 100);
    for primary in &primaries {
        for replica in ours.replicas_of(primary).expect("replicas") {
            ours.catch_up(&replica).expect("to catch up");
        }
    }
    let replica = ours.replicas_of(&primaries[2]).expect("replicas").remove(0);
    ours.kill(&primaries[1]).expect("to kill a primary");
    ours.kill(&replica).expect("to kill a replica");
    write(&mut conn, 600);
    assert_all_there(&mut conn, 600);
    assert_empty(&other);
    ours.restart(&primaries[1]).expect("to restart it");
    ours.restart(&replica).expect("to restart it");
    ours.settle().expect("a settled cluster");
    assert_all_there(&mut proxy.connect(), 600);
    assert_empty(&other);
}

/// A primary dies and a server of another cluster gets its address before slotway, or anyone else,
/// has heard of a failover.
#[test]
fn a_server_that_has_got_a_nodes_address_is_not_spoken_to() {
    let ours = cluster(3, 3);
    let proxy = Proxy::start(&ours, &["--set", "timeouts.command=25s"]);
    let primary = ours.primaries().expect("primaries").remove(0);
    let replica = ours.replicas_of(&primary).expect("replicas").remove(0);
    let key = key_of(&primary);
    let (mut conn, mut conn3) = (proxy.connect(), proxy.connect3());
    assert!(conn.command(&["SET", &key, "before"]).expect("SET").is_ok());
    ours.catch_up(&replica).expect("to catch up");
    let mut subscriber = proxy.connect3();
    subscriber.send(&["SSUBSCRIBE", &key]).expect("to send");
    subscriber.receive().expect("a confirmation");
    ours.kill(&primary).expect("to kill a primary");
    let stranger = Stranger::start(&ours, primary.addr, (0, SLOTS - 1));
    assert_eq!(conn.command(&["GET", &key]).expect("GET").text().as_deref(), Some("before"));
    assert!(conn3.command(&["APPEND", &key, "!"]).expect("APPEND").error().is_none());
    let popped = conn3.command(&["LPUSH", &format!("{{{key}}}list"), "x"]).expect("LPUSH");
    assert_eq!(popped, Reply::Int(1));
    let list = format!("{{{key}}}list");
    let popped = conn.command(&["BLPOP", &list, "20"]).expect("BLPOP");
    assert_eq!(popped.items().map(<[Reply]>::len), Some(2), "{popped:?}");
    common::eventually("the subscription is where it belongs", || {
        let mut other = proxy.connect();
        other.command(&["SPUBLISH", &key, "hello"]).expect("SPUBLISH") == Reply::Int(1)
    });
    assert!(proxy.metric("slotway_upstream_strangers_total", "") > 0.0);
    assert_eq!(stranger.ask(&["DBSIZE"]), Reply::Int(0));
    let seen = stranger.ask(&["INFO", "commandstats"]).text().unwrap_or_default();
    for command in ["get", "set", "append", "lpush", "blpop", "ssubscribe", "spublish"] {
        assert!(!seen.contains(&format!("cmdstat_{command}:")), "{command} came: {seen}");
    }
}

/// Every node is replaced by one with another ID, one after the other.
#[test]
fn nodes_are_replaced_one_by_one() {
    let ours = cluster(3, 0);
    let proxy = Proxy::start(&ours, &OFTEN);
    write(&mut proxy.connect(), 300);
    for old in ours.primaries().expect("primaries") {
        let new = ours.add_node(Some(&old)).expect("one more node");
        ours.catch_up(&new).expect("to catch up");
        ours.failover(&new).expect("a failover");
        ours.remove_node(&old).expect("a node less");
        common::eventually("slotway knows it", || {
            let log = proxy.log();
            let moved = format!("moved from {} to {}", old.addr, new.addr);
            log.contains(&moved) && log.contains(&format!("node {} removed", old.addr))
        });
    }
    assert_all_there(&mut proxy.connect(), 300);
    assert_eq!(proxy.metric("slotway_topology_exceptions_total", ""), 0.0);
}

/// All nodes are gone, and all seeds lead to another cluster: it takes their place, after a while,
/// and in so many words.
#[test]
fn a_cluster_that_was_replaced_as_a_whole_is_used_by_an_explicit_rule() {
    let ours = cluster(3, 0);
    let proxy = Proxy::start_with_seeds(&ours, &seeds(&ours), &OFTEN);
    write(&mut proxy.connect(), 10);
    let nodes = ours.nodes().expect("nodes");
    nodes.iter().for_each(|node| ours.kill(node).expect("to kill it"));
    let range = |i: u16| (i * 5461, if i == 2 { SLOTS - 1 } else { i * 5461 + 5460 });
    let new: Vec<Stranger> =
        (0..3).map(|i| Stranger::start(&ours, nodes[usize::from(i)].addr, range(i))).collect();
    // Three clusters of one node each, so far: nothing to go to.
    let refused = || proxy.metric("slotway_topology_views_refused_total", "reason=\"foreign\"");
    common::eventually("they are not believed", || refused() > 0.0);
    for (i, stranger) in new.iter().enumerate() {
        let epoch = (i + 1).to_string();
        stranger.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
    }
    for other in &new[1..] {
        let nodes = other.ask(&["CLUSTER", "NODES"]).text().unwrap_or_default();
        let bus = nodes.split(['@', ' ', ',']).nth(2).expect("a bus port").to_owned();
        new[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &other.addr.port().to_string(), &bus]);
    }
    new.iter().for_each(Stranger::until_ok);
    common::eventually("the new cluster is used", || {
        proxy.connect().command(&["SET", "new", "v"]).is_ok_and(|reply| reply.is_ok())
    });
    let replaced = proxy.metric("slotway_topology_exceptions_total", "rule=\"replaced\"");
    assert_eq!(replaced, 1.0);
    assert!(proxy.log().contains("all seeds name another cluster"), "{}", proxy.log());
}

/// A replica that slotway reads from is reset and becomes a replica of another cluster. Its
/// connections stand meanwhile.
#[test]
fn a_replica_that_has_joined_another_cluster_is_not_read_from_over_a_standing_connection() {
    // Nobody takes the replica for failed before it has joined the other cluster.
    let node_timeout = Duration::from_secs(120);
    let options = ClusterOptions { replicas: 3, node_timeout, ..ClusterOptions::default() };
    let (ours, other) = (Cluster::start(options).expect("a cluster"), cluster(1, 0));
    let args = ["--set", "read_from=prefer_replica", "--set", "replicas.check=100ms"];
    let impatient = ["--set", "timeouts.connect=300ms"];
    let proxy = Proxy::start(&ours, &[&OFTEN[..], &args, &impatient].concat());
    let primary = ours.primaries().expect("primaries").remove(0);
    let replica = ours.replicas_of(&primary).expect("replicas").remove(0);
    let key = key_of(&primary);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", &key, "ours"]).expect("SET").is_ok());
    ours.catch_up(&replica).expect("to catch up");
    let mut direct = Conn::tcp(replica.addr).expect("a connection");
    let gets = |direct: &mut Conn| {
        let stats = direct.command(&["INFO", "commandstats"]).expect("INFO").text();
        let stats = stats.unwrap_or_default();
        let line = stats.lines().find_map(|l| l.strip_prefix("cmdstat_get:calls="));
        line.map_or(0, |rest| rest.split(',').next().and_then(|n| n.parse().ok()).unwrap_or(0u64))
    };
    common::eventually("the replica is read from", || {
        let read = conn.command(&["GET", &key]).expect("GET");
        assert_eq!(read.text().as_deref(), Some("ours"));
        gets(&mut direct) > 0
    });
    // The other nodes would soon list it as failed. They stand still, so that nobody does.
    let mut rest = ours.nodes().expect("nodes");
    rest.retain(|node| node.id != replica.id);
    rest.iter().for_each(|node| ours.pause(node).expect("to pause it"));
    let unreachable = || proxy.metric("slotway_replicas", "state=\"unreachable\"");
    common::eventually("the other two replicas are not reached", || unreachable() == 2.0);
    let host = other.primaries().expect("primaries").remove(0);
    let mut their = other.connect(&host).expect("a connection");
    assert!(their.command(&["SET", &key, "theirs"]).expect("SET").is_ok());
    assert!(direct.command(&["CLUSTER", "RESET", "HARD"]).expect("RESET").is_ok());
    let (port, bus) = (host.addr.port().to_string(), host.bus_port.to_string());
    let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
    assert!(direct.command(&meet).expect("MEET").is_ok());
    common::eventually("it becomes a replica of the other cluster", || {
        direct.command(&["CLUSTER", "REPLICATE", &host.id]).expect("REPLICATE").is_ok()
    });
    common::eventually("it has the other cluster's data", || {
        let info = direct.command(&["INFO", "replication"]).expect("INFO").text();
        info.unwrap_or_default().contains("master_link_status:up")
    });
    common::eventually("slotway has noticed", || unreachable() == 3.0);
    // Its primary answers again, so that there is somebody to read from.
    let before = gets(&mut direct);
    rest.iter().for_each(|node| ours.resume(node).expect("to resume it"));
    common::eventually("our own data is read", || {
        conn.command(&["GET", &key]).expect("GET").text().as_deref() == Some("ours")
    });
    for _ in 0..200 {
        let read = conn.command(&["GET", &key]).expect("GET");
        assert_eq!(read.text().as_deref(), Some("ours"));
    }
    assert_eq!(gets(&mut direct), before, "it was read from");
}

/// A primary without keys is reset and becomes a cluster of its own, with the slots that it had. Its
/// connections stand meanwhile, and no other node can say what has happened.
#[test]
fn a_primary_that_has_left_for_another_cluster_is_not_written_to_over_a_standing_connection() {
    // Nobody takes a node that stands still for failed.
    let node_timeout = Duration::from_secs(120);
    let options = ClusterOptions { replicas: 3, node_timeout, ..ClusterOptions::default() };
    let ours = Cluster::start(options).expect("a cluster");
    let set = ["replicas.check=100ms", "timeouts.connect=300ms", "timeouts.command=25s"];
    let args: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let proxy = Proxy::start(&ours, &[&OFTEN[..], &args].concat());
    let primary = ours.primaries().expect("primaries").remove(0);
    let replica = ours.replicas_of(&primary).expect("replicas").remove(0);
    let key = key_of(&primary);
    let list = format!("{{{key}}}list");
    let mut conns = [proxy.connect(), proxy.connect3()];
    for conn in &mut conns {
        assert_eq!(conn.command(&["GET", &key]).expect("GET").text(), None);
    }
    let mut blocked = proxy.connect();
    blocked.send(&["BLPOP", &list, "0"]).expect("to send");
    let mut subscriber = proxy.connect3();
    subscriber.send(&["SSUBSCRIBE", &key]).expect("to send");
    subscriber.receive().expect("a confirmation");
    let mut direct = Conn::tcp(primary.addr).expect("a connection");
    let mut info = |section: &str| -> String {
        direct.command(&["INFO", section]).expect("INFO").text().unwrap_or_default()
    };
    common::eventually("BLPOP waits at the node", || info("clients").contains("blocked_clients:1"));
    // The others would soon forget its address. They stand still, so that nobody does.
    let mut rest = ours.nodes().expect("nodes");
    rest.retain(|node| node.id != primary.id);
    let mut promoter = ours.connect(&replica).expect("a connection");
    rest.iter().for_each(|node| ours.pause(node).expect("to pause it"));
    let mut stranger = Conn::tcp(primary.addr).expect("a connection");
    assert!(stranger.command(&["CLUSTER", "RESET", "HARD"]).expect("RESET").is_ok());
    let all = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    assert!(stranger.command(&all).expect("ADDSLOTSRANGE").is_ok());
    common::eventually("the new cluster is ok", || {
        let info = stranger.command(&["CLUSTER", "INFO"]).expect("INFO").text();
        info.unwrap_or_default().contains("cluster_state:ok")
    });
    let found = || proxy.metric("slotway_upstream_strangers_total", "");
    common::eventually("slotway has noticed", || found() > 0.0);
    common::eventually("all connections are closed", || {
        let list = stranger.command(&["CLIENT", "LIST"]).expect("CLIENT LIST").text();
        let list = list.unwrap_or_default();
        ["get", "blpop", "ssubscribe"].iter().all(|c| !list.contains(&format!("cmd={c} ")))
    });
    for (conn, value) in conns.iter_mut().zip(["a", "b"]) {
        conn.send(&["APPEND", &key, value]).expect("to send");
    }
    // So that there is somebody to write to.
    promoter.send(&["CLUSTER", "FAILOVER", "TAKEOVER"]).expect("to send");
    rest.iter().for_each(|node| ours.resume(node).expect("to resume it"));
    assert!(promoter.receive().expect("an answer").is_ok());
    for conn in &mut conns {
        assert!(conn.receive().expect("an answer").int().is_some());
    }
    let pushed = conns[0].command(&["LPUSH", &list, "x"]).expect("LPUSH");
    assert_eq!(pushed, Reply::Int(1));
    let popped = blocked.receive().expect("BLPOP's answer");
    assert_eq!(popped.items().map(<[Reply]>::len), Some(2), "{popped:?}");
    common::eventually("the subscription is where it belongs", || {
        conns[0].command(&["SPUBLISH", &key, "hello"]).expect("SPUBLISH") == Reply::Int(1)
    });
    let mut ours = Conn::tcp(replica.addr).expect("a connection");
    let size = ours.command(&["STRLEN", &key]).expect("STRLEN");
    assert_eq!(size, Reply::Int(2));
    assert_eq!(stranger.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(0));
    let seen = info("commandstats");
    for command in ["append", "lpush", "spublish"] {
        assert!(!seen.contains(&format!("cmdstat_{command}:")), "{command} came: {seen}");
    }
}
