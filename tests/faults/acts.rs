//! The faults: what is done to the cluster, the network or slotway while the load runs, and what
//! the rules allow clients to notice of it.

use crate::DEADLINE;
use crate::common::{self, Proxy};
use crate::load::Books;
use crate::network::{self, Filter, Relays};
use slotway::cluster::{Slot, slot_of};
use slotway::sandbox::{Cluster, Conn, Node};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

/// One row of the table.
pub struct Fault {
    /// As it is called on the command line.
    pub name: &'static str,
    pub title: &'static str,
    /// Redis itself loses nothing that it has acknowledged. Otherwise replication, which it does
    /// not wait for, may be behind when the primary is lost.
    pub kept: bool,
    pub allowed: Allowed,
    /// Part of the short form, which CI runs.
    pub short: bool,
    /// Needs a network namespace of its own.
    pub namespace: bool,
    /// More lines for the nodes' redis.conf.
    pub conf: &'static [&'static str],
    /// `timeouts.command`.
    pub deadline: Duration,
    /// What slotway is given as seeds; `None` for the nodes' addresses.
    pub seeds: Option<fn(&Cluster) -> String>,
    /// Before slotway starts.
    pub prepare: fn(&Cluster) -> Prepared,
    /// Under load. How long slots had no primary because of it, at the longest.
    pub act: fn(&Stage, &Books) -> Option<Duration>,
}

/// Errors that are no fault of slotway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Nothing,
    /// Writes that were in flight when connections were lost: whether they were executed is unknown.
    InFlight,
    /// The same, of writes sent until slotway can know of the loss.
    Unknown,
    /// Connections closed, as slotway itself ends.
    Closed,
}

/// What a preparation leaves for the act.
#[derive(Default)]
pub struct Prepared {
    filter: Option<Filter>,
    relays: Option<Relays>,
}

/// Where a fault happens.
pub struct Stage {
    // Dropped in this order.
    pub proxy: RefCell<Proxy>,
    pub cluster: Cluster,
    pub prepared: Prepared,
}

/// Nodes keep on disk what they acknowledge, so that a restart loses nothing.
const DURABLE: &[&str] = &["appendonly yes", "appendfsync everysec"];

/// A primary that has lost its last slot stays one: it is to be removed, not to become a replica
/// while its last slot is still being handed over.
pub const STAYS: &str = "cluster-allow-replica-migration no";

const PLAIN: Fault = Fault {
    name: "none",
    title: "none: the load alone",
    kept: true,
    allowed: Allowed::Nothing,
    short: false,
    namespace: false,
    conf: &[],
    deadline: DEADLINE,
    seeds: None,
    prepare: |_| Prepared::default(),
    act: |_, load| {
        load.more(10_000);
        None
    },
};

/// All of them, in the order of the table.
pub const FAULTS: &[Fault] = &[
    PLAIN,
    Fault {
        name: "primary-killed",
        title: "a primary killed (SIGKILL), back as a replica after the failover",
        kept: false,
        allowed: Allowed::InFlight,
        short: true,
        act: primary_killed,
        ..PLAIN
    },
    Fault {
        name: "primary-killed-15",
        title: "the same with Redis's default `cluster-node-timeout`, 15000",
        kept: false,
        allowed: Allowed::InFlight,
        conf: &["cluster-node-timeout 15000"],
        act: primary_killed,
        ..PLAIN
    },
    Fault {
        name: "primary-killed-15-30",
        title: "the same with `timeouts.command` = \"30s\" as well",
        kept: false,
        allowed: Allowed::InFlight,
        conf: &["cluster-node-timeout 15000"],
        deadline: Duration::from_secs(30),
        act: primary_killed,
        ..PLAIN
    },
    Fault {
        name: "killed-after-failover",
        title: "a primary killed right after a graceful failover away from it",
        allowed: Allowed::InFlight,
        act: killed_after_failover,
        ..PLAIN
    },
    Fault {
        name: "shard-killed",
        title: "both nodes of a shard killed and brought back (with AOF)",
        allowed: Allowed::InFlight,
        conf: DURABLE,
        act: shard_killed,
        ..PLAIN
    },
    Fault {
        name: "failover",
        title: "`CLUSTER FAILOVER` of every shard",
        short: true,
        act: |stage, load| failovers(stage, load, &[]),
        ..PLAIN
    },
    Fault {
        name: "failover-force",
        title: "`CLUSTER FAILOVER FORCE` of every shard",
        kept: false,
        act: |stage, load| failovers(stage, load, &["FORCE"]),
        ..PLAIN
    },
    Fault {
        name: "failover-takeover",
        title: "`CLUSTER FAILOVER TAKEOVER` of every shard",
        kept: false,
        act: |stage, load| failovers(stage, load, &["TAKEOVER"]),
        ..PLAIN
    },
    Fault { name: "resharding", title: "100 slots resharded and back", act: resharding, ..PLAIN },
    Fault {
        name: "node-added",
        title: "a node added and 200 slots moved to it",
        act: |stage, load| {
            add_and_fill(&stage.cluster, load.keys());
            Some(Duration::ZERO)
        },
        ..PLAIN
    },
    Fault {
        name: "node-removed",
        title: "the slots of a node moved away and the node removed",
        conf: &[STAYS],
        prepare: |cluster| {
            add_and_fill(cluster, std::iter::empty());
            Prepared::default()
        },
        act: node_removed,
        ..PLAIN
    },
    Fault {
        name: "connections-killed",
        title: "all connections to all nodes killed, 20 times",
        allowed: Allowed::InFlight,
        short: true,
        act: connections_killed,
        ..PLAIN
    },
    Fault {
        name: "frozen-0.5",
        title: "a primary frozen (SIGSTOP) for 0.5 s",
        short: true,
        act: |stage, load| frozen(stage, load, Duration::from_millis(500)),
        ..PLAIN
    },
    Fault {
        name: "frozen-3",
        title: "a primary frozen for 3 s",
        kept: false,
        act: |stage, load| frozen(stage, load, Duration::from_secs(3)),
        ..PLAIN
    },
    Fault {
        name: "frozen-30",
        title: "a primary frozen for 30 s",
        kept: false,
        allowed: Allowed::Unknown,
        act: |stage, load| frozen(stage, load, Duration::from_secs(30)),
        ..PLAIN
    },
    Fault {
        name: "partition-proxy-1",
        title: "slotway cut off from a primary for 1 s (packets dropped)",
        namespace: true,
        prepare: filtered,
        act: |stage, load| partition(stage, load, Cut::Slotway, Duration::from_secs(1)),
        ..PLAIN
    },
    Fault {
        name: "partition-proxy-3",
        title: "slotway cut off from a primary for 3 s",
        namespace: true,
        prepare: filtered,
        act: |stage, load| partition(stage, load, Cut::Slotway, Duration::from_secs(3)),
        ..PLAIN
    },
    Fault {
        name: "partition-nodes",
        title: "a primary cut off from all other nodes, not from slotway, for 10 s",
        kept: false,
        allowed: Allowed::Unknown,
        namespace: true,
        prepare: filtered,
        act: |stage, load| partition(stage, load, Cut::Nodes, Duration::from_secs(10)),
        ..PLAIN
    },
    Fault {
        name: "black-hole",
        title: "a primary's machine gone without a word for 15 s (all its packets dropped)",
        kept: false,
        allowed: Allowed::Unknown,
        namespace: true,
        prepare: filtered,
        act: |stage, load| partition(stage, load, Cut::All, Duration::from_secs(15)),
        ..PLAIN
    },
    Fault {
        name: "packet-loss",
        title: "2 % of all packets between slotway and the nodes lost, for 10 s",
        namespace: true,
        prepare: filtered,
        act: packet_loss,
        ..PLAIN
    },
    Fault {
        name: "delay",
        title: "all packets between slotway and the nodes 100 ms late, for 5 s",
        prepare: |cluster| Prepared { relays: Some(Relays::start(cluster)), ..Prepared::default() },
        act: delay,
        ..PLAIN
    },
    Fault {
        name: "rolling-restart",
        title: "every node restarted, primaries after a failover (with AOF)",
        allowed: Allowed::InFlight,
        conf: DURABLE,
        act: rolling_restart,
        ..PLAIN
    },
    Fault {
        name: "cluster-restart",
        title: "all nodes killed and brought back (with AOF)",
        allowed: Allowed::InFlight,
        conf: DURABLE,
        act: cluster_restart,
        ..PLAIN
    },
    Fault {
        name: "slotway-restart",
        title: "slotway itself restarted (SIGTERM), three times",
        allowed: Allowed::Closed,
        act: slotway_restart,
        ..PLAIN
    },
    Fault {
        name: "addresses-changed",
        title: "all nodes have new addresses and the old ones are dead; seeds are DNS names",
        allowed: Allowed::Unknown,
        namespace: true,
        conf: &["bind 0.0.0.0"],
        seeds: Some(names),
        prepare: named,
        act: addresses_changed,
        ..PLAIN
    },
];

// ------------------------------------------------------------------------------------------------
// Nodes.

/// The first primary, its replica, and its place among the nodes.
fn a_shard(cluster: &Cluster) -> (Node, Node, usize) {
    let nodes = cluster.nodes().expect("the nodes");
    let at = nodes.iter().position(|n| n.is_primary() && n.slot_count() > 0).expect("a primary");
    let primary = nodes[at].clone();
    let replica = cluster.replicas_of(&primary).expect("its replicas").remove(0);
    (primary, replica, at)
}

/// How long after `since` one of `nodes` takes a write for a slot that was `primary`'s: what
/// whoever asks the nodes themselves has to wait.
fn until_served(cluster: &Cluster, primary: &Node, nodes: &[Node], since: Instant) -> Duration {
    let served = served_within(cluster, primary, nodes, since, common::PATIENCE * 2);
    served.unwrap_or_else(|| panic!("{} is not served again", primary.addr))
}

/// The same, if it is not longer than `limit`.
fn served_within(
    cluster: &Cluster,
    primary: &Node,
    nodes: &[Node],
    since: Instant,
    limit: Duration,
) -> Option<Duration> {
    let key = (0..).map(|n| format!("probe:{n}"));
    let mut key =
        key.filter(|k| primary.slots.iter().any(|r| r.contains(&slot_of(k.as_bytes()).0)));
    let key = key.next().expect("a key");
    let mut conns: BTreeMap<&str, Conn> = BTreeMap::new();
    loop {
        for node in nodes {
            if !conns.contains_key(node.id.as_str())
                && let Ok(conn) = cluster.connect(node)
            {
                conns.insert(&node.id, conn);
            }
            let reply = conns.get_mut(node.id.as_str()).map(|c| c.command(&["SET", &key, "v"]));
            match reply {
                Some(Ok(reply)) if reply.is_ok() => return Some(since.elapsed()),
                Some(Err(_)) => drop(conns.remove(node.id.as_str())),
                _ => {}
            }
        }
        if since.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn primary_killed(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let (primary, replica, _) = a_shard(cluster);
    let since = Instant::now();
    load.moment(|| cluster.kill(&primary).expect("to kill"));
    let served = until_served(cluster, &primary, &[replica], since);
    load.more(2_000);
    cluster.restart(&primary).expect("to restart");
    cluster.settle().expect("a settled cluster");
    Some(served)
}

fn killed_after_failover(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let (primary, replica, _) = a_shard(cluster);
    let mut conn = cluster.connect(&replica).expect("a connection");
    let since = Instant::now();
    assert!(conn.command(&["CLUSTER", "FAILOVER"]).expect("CLUSTER FAILOVER").is_ok());
    let served = until_served(cluster, &primary, &[replica], since);
    load.moment(|| cluster.kill(&primary).expect("to kill"));
    load.more(5_000);
    cluster.restart(&primary).expect("to restart");
    cluster.settle().expect("a settled cluster");
    Some(served)
}

fn shard_killed(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let (primary, replica, _) = a_shard(cluster);
    let since = Instant::now();
    load.moment(|| {
        // The replica first: it must not become a primary without the last writes.
        cluster.kill(&replica).expect("to kill");
        cluster.kill(&primary).expect("to kill");
    });
    thread::sleep(Duration::from_secs(1));
    cluster.restart(&primary).expect("to restart");
    cluster.restart(&replica).expect("to restart");
    let served = until_served(cluster, &primary, &[primary.clone(), replica], since);
    cluster.settle().expect("a settled cluster");
    Some(served)
}

fn failovers(stage: &Stage, load: &Books, how: &[&str]) -> Option<Duration> {
    let cluster = &stage.cluster;
    let mut longest = Duration::ZERO;
    for primary in cluster.primaries().expect("primaries") {
        let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
        let mut conn = cluster.connect(&replica).expect("a connection");
        let words = [&["CLUSTER", "FAILOVER"], how].concat();
        let since = Instant::now();
        assert!(conn.command(&words).expect("CLUSTER FAILOVER").is_ok());
        let served = until_served(cluster, &primary, &[replica], since);
        longest = longest.max(served);
        cluster.settle().expect("a settled cluster");
        load.more(500);
    }
    Some(longest)
}

fn rolling_restart(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    for node in cluster.nodes().expect("the nodes") {
        let node = cluster.node(&node.id).expect("the node");
        if node.is_primary() {
            let replica = cluster.replicas_of(&node).expect("replicas").remove(0);
            cluster.failover(&replica).expect("a failover");
        }
        load.moment(|| cluster.kill(&node).expect("to kill"));
        cluster.restart(&node).expect("to restart");
        cluster.settle().expect("a settled cluster");
        load.more(500);
    }
    None
}

fn cluster_restart(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let nodes = cluster.nodes().expect("the nodes");
    let since = Instant::now();
    load.moment(|| {
        // Replicas first: none of them may become a primary without the last writes.
        let (primaries, replicas): (Vec<_>, Vec<_>) = nodes.iter().partition(|n| n.is_primary());
        replicas.iter().for_each(|node| cluster.kill(node).expect("to kill"));
        primaries.iter().for_each(|node| cluster.kill(node).expect("to kill"));
    });
    thread::sleep(Duration::from_millis(500));
    nodes.iter().for_each(|node| cluster.restart(node).expect("to restart"));
    let primaries = nodes.iter().filter(|node| node.is_primary());
    let served = primaries.map(|node| until_served(cluster, node, &nodes, since)).max();
    cluster.settle().expect("a settled cluster");
    load.more(1_000);
    served
}

fn connections_killed(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    for _ in 0..20 {
        for node in cluster.nodes().expect("nodes") {
            let mut conn = cluster.connect(&node).expect("a connection");
            let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
            load.moment(|| conn.command(&kill).expect("CLIENT KILL"));
        }
        load.more(200);
    }
    Some(Duration::ZERO)
}

fn frozen(stage: &Stage, load: &Books, lasts: Duration) -> Option<Duration> {
    let cluster = &stage.cluster;
    let (primary, replica, _) = a_shard(cluster);
    let since = Instant::now();
    load.moment(|| cluster.pause(&primary).expect("SIGSTOP"));
    let thaw = || {
        thread::sleep(lasts.saturating_sub(since.elapsed()));
        cluster.resume(&primary).expect("SIGCONT");
        since.elapsed()
    };
    let served = if lasts < Duration::from_secs(2) {
        // Shorter than the node timeout: there is no failover.
        thaw()
    } else {
        thread::scope(|scope| {
            let served = scope.spawn(|| served_within(cluster, &primary, &[replica], since, lasts));
            let thawed = thaw();
            // The cluster may not have been faster.
            served.join().expect("the probe").unwrap_or(thawed)
        })
    };
    cluster.settle().expect("a settled cluster");
    load.more(1_000);
    Some(served)
}

// ------------------------------------------------------------------------------------------------
// Slots.

/// Slots that the load writes to and `from` owns, as many as `count`; filled up with others.
fn some_slots<'a>(from: &Node, count: usize, keys: impl Iterator<Item = &'a str>) -> Vec<Slot> {
    let owned = |slot: &Slot| from.slots.iter().any(|range| range.contains(&slot.0));
    let mut slots: Vec<Slot> = Vec::new();
    let all = from.slots.iter().flat_map(|range| range.clone().map(Slot));
    for slot in keys.map(|key| slot_of(key.as_bytes())).filter(owned).chain(all) {
        if slots.len() < count && !slots.contains(&slot) {
            slots.push(slot);
        }
    }
    slots
}

fn resharding(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let primaries = cluster.primaries().expect("primaries");
    let (from, to) = (&primaries[0], &primaries[1]);
    let slots = some_slots(from, 100, load.keys());
    for (from, to) in [(from, to), (to, from)] {
        for slot in &slots {
            cluster.move_slot(*slot, from, to).expect("to move a slot");
        }
        load.more(500);
    }
    Some(Duration::ZERO)
}

/// A new primary, with slots of all others.
fn add_and_fill<'a>(cluster: &Cluster, keys: impl Iterator<Item = &'a str>) -> Node {
    let keys: Vec<&str> = keys.collect();
    let primaries = cluster.primaries().expect("primaries");
    let new = cluster.add_node(None).expect("a new node");
    for from in primaries.iter().take(2) {
        for slot in some_slots(from, 100, keys.iter().copied()) {
            cluster.move_slot(slot, from, &new).expect("to move a slot");
        }
    }
    cluster.settle().expect("a settled cluster");
    new
}

fn node_removed(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let nodes = cluster.nodes().expect("nodes");
    let last = nodes.last().expect("a node");
    let to = nodes.iter().find(|n| n.slot_count() > 0 && n.id != last.id).expect("a primary");
    // A slot may come back: nodes that have not heard of the move say otherwise for a moment, with
    // an epoch that counts more since the last failover. An operator sees that and moves it again.
    let left = || cluster.node(&last.id).expect("the node").slots;
    let mut slots = left();
    for _ in 0..5 {
        for slot in slots.into_iter().flatten() {
            cluster.move_slot(Slot(slot), last, to).expect("to move a slot");
        }
        cluster.settle().expect("a settled cluster");
        slots = left();
    }
    cluster.remove_node(last).expect("to remove the node");
    load.more(3_000);
    Some(Duration::ZERO)
}

// ------------------------------------------------------------------------------------------------
// The network.

/// From whom a node is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Slotway,
    Nodes,
    All,
}

fn filtered(cluster: &Cluster) -> Prepared {
    let filter = Filter::new();
    network::give_nodes_addresses(cluster, &filter);
    Prepared { filter: Some(filter), ..Prepared::default() }
}

fn partition(stage: &Stage, load: &Books, cut: Cut, lasts: Duration) -> Option<Duration> {
    let cluster = &stage.cluster;
    let filter = stage.prepared.filter.as_ref().expect("a filter");
    let (primary, replica, at) = a_shard(cluster);
    let mut rules = Vec::new();
    if cut != Cut::Nodes {
        rules.extend(network::between_slotway_and(&primary));
    }
    if cut != Cut::Slotway {
        rules.extend(network::between_nodes_and(&primary, at));
    }
    let since = Instant::now();
    load.moment(|| filter.rules(&rules));
    let served = if cut == Cut::Slotway {
        thread::sleep(lasts.saturating_sub(since.elapsed()));
        filter.heal();
        since.elapsed()
    } else {
        let served = until_served(cluster, &primary, &[replica], since);
        thread::sleep(lasts.saturating_sub(since.elapsed()));
        filter.heal();
        served
    };
    cluster.settle().expect("a settled cluster");
    load.more(1_000);
    Some(served)
}

fn packet_loss(stage: &Stage, load: &Books) -> Option<Duration> {
    let filter = stage.prepared.filter.as_ref().expect("a filter");
    let ports: Vec<String> =
        stage.cluster.addrs().iter().map(|addr| addr.port().to_string()).collect();
    let ports = ports.join(", ");
    let lose = "numgen random mod 100 < 2 drop";
    filter.rules(&[
        format!("ip saddr 127.0.0.1 tcp dport {{ {ports} }} {lose}"),
        format!("ip daddr 127.0.0.1 tcp sport {{ {ports} }} {lose}"),
    ]);
    thread::sleep(Duration::from_secs(10));
    filter.heal();
    load.more(1_000);
    None
}

fn delay(stage: &Stage, load: &Books) -> Option<Duration> {
    let relays = stage.prepared.relays.as_ref().expect("relays");
    relays.delay(Duration::from_millis(100));
    thread::sleep(Duration::from_secs(5));
    relays.delay(Duration::ZERO);
    load.more(1_000);
    None
}

/// The old addresses and the new ones.
const OLD: u8 = 2;
const NEW: u8 = 3;

/// A node's address, before and after.
fn address(series: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, series, number as u8 + 1)
}

fn name(number: usize) -> String {
    format!("node-{number}.slotway.test")
}

fn names(cluster: &Cluster) -> String {
    let addrs = cluster.addrs();
    let seeds = addrs.iter().enumerate().map(|(n, addr)| format!("{}:{}", name(n), addr.port()));
    seeds.collect::<Vec<_>>().join(",")
}

fn announce(cluster: &Cluster, series: u8) {
    let nodes = cluster.nodes().expect("the nodes");
    let hosts: Vec<_> = (0..nodes.len()).map(|n| (name(n), address(series, n))).collect();
    network::write_hosts(&hosts);
    for (number, node) in nodes.iter().enumerate() {
        let addr = address(series, number).to_string();
        network::set(cluster, node, "cluster-announce-ip", &addr);
    }
}

fn named(cluster: &Cluster) -> Prepared {
    let filter = Filter::new();
    announce(cluster, OLD);
    known_as(cluster, OLD);
    Prepared { filter: Some(filter), ..Prepared::default() }
}

/// Waits until all nodes know all others by these addresses.
fn known_as(cluster: &Cluster, series: u8) {
    let nodes = cluster.nodes().expect("the nodes");
    common::eventually("all nodes know the addresses", || {
        nodes.iter().all(|node| {
            let mut conn = cluster.connect(node).expect("a connection");
            let text = conn.command(&["CLUSTER", "NODES"]).ok().and_then(|r| r.text());
            let text = text.unwrap_or_default();
            (0..nodes.len()).all(|n| text.contains(&format!(" {}:", address(series, n))))
        })
    });
    cluster.settle().expect("a settled cluster");
}

fn addresses_changed(stage: &Stage, load: &Books) -> Option<Duration> {
    let cluster = &stage.cluster;
    let filter = stage.prepared.filter.as_ref().expect("a filter");
    let ports: Vec<String> = cluster.addrs().iter().map(|addr| addr.port().to_string()).collect();
    let ports = ports.join(", ");
    let since = Instant::now();
    load.moment(|| {
        filter.rules(&[
            format!("ip daddr 127.0.{OLD}.0/24 tcp dport {{ {ports} }} drop"),
            format!("ip saddr 127.0.{OLD}.0/24 tcp sport {{ {ports} }} drop"),
        ]);
        announce(cluster, NEW);
    });
    let changed = since.elapsed();
    known_as(cluster, NEW);
    load.more(3_000);
    Some(changed)
}

// ------------------------------------------------------------------------------------------------
// Slotway.

fn slotway_restart(stage: &Stage, load: &Books) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let since = Instant::now();
        load.moment(|| stage.proxy.borrow_mut().restart());
        longest = longest.max(since.elapsed());
        load.more(1_000);
    }
    Some(longest)
}
