//! The cluster changes and no client notices: nodes come and go, slots move, primaries change,
//! nodes are known by name or not at all. And slotway does not ask the cluster to death about it.

use crate::common::load::while_writing;
use crate::common::{self, Proxy, Setting};
use slotway::cluster::{Slot, slot_of};
use slotway::sandbox::{Cluster, ClusterOptions, Node, Reply, free_ports};
use std::time::{Duration, Instant};

#[test]
fn seeds_are_names_and_most_of_them_are_dead() {
    let cluster = common::cluster();
    let dead = free_ports(3).expect("free ports");
    let live = cluster.addrs()[4].port();
    let seeds = format!(
        "127.0.0.1:{},nowhere.invalid:{},localhost:{},localhost:{live}",
        dead[0], dead[1], dead[2]
    );
    let proxy = Proxy::start_with_seeds(&cluster, &seeds, &[]);
    let mut conn = proxy.connect();
    for i in 0..50 {
        assert!(conn.command(&["SET", &format!("key:{i}"), "v"]).expect("SET").is_ok());
    }
    assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(50), "on all nodes");
}

#[test]
fn nodes_announced_by_hostname() {
    changes_go_unnoticed(&[
        "cluster-announce-hostname localhost",
        "cluster-preferred-endpoint-type hostname",
    ]);
}

#[test]
fn nodes_announced_by_an_unknown_endpoint() {
    changes_go_unnoticed(&["cluster-preferred-endpoint-type unknown-endpoint"]);
}

#[test]
fn an_unknown_endpoint_is_the_address_that_was_asked_redis_7() {
    unknown_endpoint("redis-server".into());
}

#[test]
fn an_unknown_endpoint_is_the_address_that_was_asked_redis_8() {
    unknown_endpoint(common::newer("redis"));
}

#[test]
fn an_unknown_endpoint_is_the_address_that_was_asked_valkey() {
    unknown_endpoint(common::newer("valkey"));
}

/// The nodes know each other by 127.0.0.1 and do not tell; slotway reaches them by 127.0.0.2, as
/// from outside of a network with addresses of its own.
fn unknown_endpoint(program: std::path::PathBuf) {
    let conf = ["bind 127.0.0.1 127.0.0.2", "cluster-preferred-endpoint-type unknown-endpoint"];
    let conf = conf.map(str::to_owned).to_vec();
    let cluster = Cluster::start(ClusterOptions { conf, program, ..ClusterOptions::default() });
    let cluster = cluster.expect("a cluster");
    let outside = |port: u16| format!("127.0.0.2:{port}");
    let seeds: Vec<_> = cluster.addrs().iter().map(|addr| outside(addr.port())).collect();
    // It hears of changes by redirections only.
    let proxy =
        Proxy::start_with_seeds(&cluster, &seeds[..2].join(","), &["--set", "topology.refresh=1h"]);
    let (mut conn, mut conn3) = (proxy.connect(), proxy.connect3());
    let (here, moved) = ("{t}here", "{t}moved");
    let slot = slot_of(b"{t}");
    for key in [here, moved] {
        assert!(conn.command(&["SET", key, "v"]).expect("SET").is_ok());
    }
    let from = cluster.owner_of(slot).expect("an owner");
    let to = cluster.primaries().expect("primaries").into_iter().find(|n| n.id != from.id);
    let to = to.expect("another primary");
    cluster.begin_move(slot, &from, &to).expect("a move");
    while cluster.move_keys(slot, &from, &to, 10).expect("keys") > 0 {}
    let redirected =
        |kind: &str| proxy.metric("slotway_redirections_total", &format!("kind=\"{kind}\""));
    for key in [here, moved] {
        assert_eq!(conn.command(&["GET", key]).expect("GET").text().as_deref(), Some("v"));
        assert_eq!(conn3.command(&["APPEND", key, "w"]).expect("APPEND"), Reply::Int(2));
    }
    assert!(conn.command(&["LPUSH", "{t}list", "a", "b"]).expect("LPUSH").int() == Some(2));
    assert!(conn.command(&["BLPOP", "{t}list", "20"]).expect("BLPOP").items().is_some());
    assert!(redirected("ask") > 0.0);
    cluster.finish_move(slot, &from, &to).expect("a move");
    assert_eq!(conn.command(&["GET", here]).expect("GET").text().as_deref(), Some("vw"));
    assert!(redirected("moved") > 0.0);
    assert!(conn.command(&["BLPOP", "{t}list", "20"]).expect("BLPOP").items().is_some());
    conn3.send(&["SSUBSCRIBE", "{t}channel"]).expect("to send");
    conn3.receive().expect("a confirmation");
    common::eventually("a message arrives", || {
        conn.command(&["SPUBLISH", "{t}channel", "m"]).expect("SPUBLISH") == Reply::Int(1)
    });
    assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(2));
    let (_, text) = proxy.get("/metrics").expect("/metrics");
    let nodes: Vec<_> =
        text.lines().filter(|l| l.starts_with("slotway_upstream_connects_total{")).collect();
    assert!(
        !nodes.is_empty() && nodes.iter().all(|l| l.contains("node=\"127.0.0.2:")),
        "{nodes:?}"
    );
}

#[test]
fn nodes_announced_by_address() {
    changes_go_unnoticed(&[]);
}

/// A node is added, gets slots with keys in them, loses them and is removed; a primary and its
/// replica change places.
fn changes_go_unnoticed(conf: &[&str]) {
    let Setting { proxy, cluster } = cluster_with(conf, &[]);
    let seen = while_writing(proxy.listen, |load| {
        let new = cluster.add_node(None).expect("one more node");
        let slots: Vec<Slot> = (0..8).map(|n| slot_of(format!("load:0:{n}").as_bytes())).collect();
        let owners: Vec<Node> =
            slots.iter().map(|slot| cluster.owner_of(*slot).expect("an owner")).collect();
        for (slot, owner) in slots.iter().zip(&owners) {
            cluster.move_slot(*slot, owner, &new).expect("a move");
        }
        load.more(200);
        assert_eq!(cluster.node(&new.id).expect("the new node").slot_count(), slots.len());
        for (slot, owner) in slots.iter().zip(&owners) {
            cluster.move_slot(*slot, &new, owner).expect("a move back");
        }
        cluster.remove_node(&new).expect("a node less");
        load.more(200);
        let primary = cluster.owner_of(slots[0]).expect("an owner");
        let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
        cluster.failover(&replica).expect("a failover");
        load.more(200);
    });
    seen.assert_no_errors();
    seen.assert_all_there(proxy.listen, |_, _| false);
    common::eventually("slotway knows six nodes, as before", || {
        let (_, text) = proxy.get("/metrics").expect("/metrics");
        let nodes = text.lines().filter(|l| l.starts_with("slotway_upstream_connects_total{"));
        nodes.count() == 6
    });
}

#[test]
fn a_killed_primary_costs_only_what_was_on_its_way() {
    // The failover takes a node timeout and an election; nobody is to give up before.
    let Setting { proxy, cluster } = cluster_with(&[], &["--set", "timeouts.command=25s"]);
    let primary = cluster.primaries().expect("primaries").remove(0);
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    let seen = while_writing(proxy.listen, |load| {
        // Redis itself may lose what it has acknowledged and not yet replicated. Nothing that is
        // sent once the node is dead is acknowledged by it.
        load.phase(1);
        cluster.catch_up(&replica).expect("the replica has what was written so far");
        cluster.kill(&primary).expect("to kill a primary");
        load.phase(2);
        common::eventually("the replica is promoted", || {
            cluster.node(&replica.id).is_ok_and(|node| node.slot_count() > 0)
        });
        load.more(500);
    });
    seen.assert_only_unknown_outcomes();
    let lost = primary.slots.clone();
    seen.assert_all_there(proxy.listen, |slot, phase| {
        phase == 1 && lost.iter().any(|range| range.contains(&slot.0))
    });
    assert!(seen.acknowledged.iter().any(|(key, phase)| {
        *phase == 2 && lost.iter().any(|range| range.contains(&slot_of(key.as_bytes()).0))
    }));

    // It comes back as a replica, and nobody notices that either.
    let seen = while_writing(proxy.listen, |load| {
        cluster.restart(&primary).expect("to restart it");
        cluster.settle().expect("a settled cluster");
        load.more(200);
    });
    seen.assert_no_errors();
}

#[test]
fn thousands_of_redirections_are_a_handful_of_refreshes() {
    const COMMANDS: usize = 4_000;
    let Setting { proxy, cluster } = cluster_with(&["enable-debug-command yes"], &[]);
    let slot = slot_of(b"{t}");
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "{t}other", "v"]).expect("SET").is_ok());
    assert!(conn.command(&["DEL", "{t}other"]).expect("DEL").int() == Some(1));
    // A client whose replies are known to be small may have all of its commands under way.
    conn.pipeline(&vec![vec!["EXISTS", "{t}other"]; 100]).expect("replies");
    let moved = || proxy.metric("slotway_redirections_total", "kind=\"moved\"");
    let refreshes = || proxy.metric("slotway_topology_refreshes_total", "");
    let (before, since) = (refreshes(), Instant::now());
    // How many are redirected in a round is up to who hears first of the new owner.
    for round in (0..10).take_while(|_| moved() <= COMMANDS as f64) {
        let from = cluster.owner_of(slot).expect("an owner");
        let to = cluster.primaries().expect("primaries");
        let to = to.into_iter().find(|n| n.id != from.id).expect("another primary");
        let number = slot.0.to_string();
        let setslot = ["CLUSTER", "SETSLOT", &number, "NODE", &to.id].map(str::to_owned);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        // The old owner sleeps while the commands come, and does not own the slot any more when
        // it wakes.
        let mut sleeper = cluster.connect(&from).expect("a connection");
        for command in [words("MULTI"), words("DEBUG SLEEP 1"), setslot.to_vec()] {
            sleeper.command(&command).expect("to queue");
        }
        sleeper.send(&["EXEC"]).expect("to send");
        let mut new = cluster.connect(&to).expect("a connection");
        let import = ["CLUSTER", "SETSLOT", &number, "IMPORTING", &from.id];
        assert!(new.command(&import).expect("SETSLOT").is_ok());
        assert!(new.command(&setslot).expect("SETSLOT").is_ok());
        // From the first round on slotway may hear of the new owner before it asks.
        let commands = vec![vec!["RPUSH", "{t}list", "x"]; COMMANDS];
        let replies = conn.pipeline(&commands).expect("replies");
        let wanted: Vec<Reply> = (1..=COMMANDS as i64).map(Reply::Int).collect();
        assert!(
            replies == wanted,
            "round {round}: {:?}",
            replies.iter().find(|r| r.int().is_none())
        );
        let done = sleeper.receive().expect("EXEC");
        assert!(done.items().is_some_and(|items| items[1].is_ok()), "{done:?}");
        assert_eq!(conn.command(&["DEL", "{t}list"]).expect("DEL"), Reply::Int(1));
    }
    let moved = moved();
    assert!(moved > COMMANDS as f64, "only {moved} MOVED");
    let refreshed = refreshes() - before;
    // topology.min_interval is 100 ms: that is the most there can be.
    let most = since.elapsed().as_millis() as f64 / 100.0 + 2.0;
    assert!(refreshed <= most, "{refreshed} refreshes, {most} would be the limit");
    assert!(refreshed < moved / 50.0, "{refreshed} refreshes for {moved} MOVED");
}

fn cluster_with(conf: &[&str], args: &[&str]) -> Setting {
    // A primary that gave its last slot away would become a replica by itself, at any moment.
    let conf = ["cluster-allow-replica-migration no"].iter().chain(conf);
    let options = ClusterOptions {
        node_timeout: Duration::from_secs(1),
        conf: conf.map(|line| (*line).to_owned()).collect(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).expect("a cluster");
    let proxy = Proxy::start(&cluster, args);
    Setting { proxy, cluster }
}

/// Slotway knows a primary without slots, and does not hear that it has become a replica.
#[test]
fn a_primary_without_slots_is_not_one_of_every_primary() {
    let cluster = Cluster::start(ClusterOptions::default()).expect("a cluster");
    let empty = cluster.add_node(None).expect("one more node");
    let never = ["--set", "topology.refresh=1h"];
    let proxy = Proxy::start(&cluster, &never);
    let mut conn = proxy.connect();
    // More than one client, as which primary answers a command without keys is chosen by client.
    let mut others: Vec<_> = (0..8).map(|_| proxy.connect()).collect();
    let keys: Vec<String> = (0..60).map(|i| format!("key:{i}")).collect();
    for key in &keys {
        assert!(conn.command(&["SET", key, "v"]).expect("SET").is_ok());
    }
    let all = |conn: &mut slotway::sandbox::Conn| {
        assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(60));
        let mut found: Vec<_> = conn
            .command(&["KEYS", "*"])
            .expect("KEYS")
            .items()
            .expect("keys")
            .iter()
            .filter_map(Reply::text)
            .collect();
        found.sort();
        let mut wanted = keys.clone();
        wanted.sort();
        assert_eq!(found, wanted);
        let info = conn.command(&["INFO", "keyspace"]).expect("INFO").text().unwrap_or_default();
        assert!(info.contains("db0:keys=60,"), "{info}");
    };
    all(&mut conn);
    let primary = cluster.primaries().expect("primaries").remove(0);
    let mut direct = cluster.connect(&empty).expect("a connection");
    assert!(direct.command(&["CLUSTER", "REPLICATE", &primary.id]).expect("REPLICATE").is_ok());
    cluster.settle().expect("a settled cluster");
    let replica = cluster.node(&empty.id).expect("the node");
    cluster.catch_up(&replica).expect("to catch up");
    let refreshes = proxy.metric("slotway_topology_refreshes_total", "");
    all(&mut conn);
    assert_eq!(proxy.metric("slotway_topology_refreshes_total", ""), refreshes, "it was told");
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    for conn in &mut others {
        let loaded = conn.command(&["FUNCTION", "LOAD", "REPLACE", library]).expect("LOAD");
        assert_eq!(loaded.text().as_deref(), Some("lib"), "{loaded:?}");
        let waited = conn.command(&["WAIT", "0", "1000"]).expect("WAIT");
        assert!(waited.int().is_some(), "{waited:?}");
        assert!(conn.command(&["RANDOMKEY"]).expect("RANDOMKEY").text().is_some());
        let script = conn.command(&["EVAL", "return 1", "0"]).expect("EVAL");
        assert_eq!(script, Reply::Int(1));
        let exists = conn.command(&["SCRIPT", "EXISTS", "0000"]).expect("SCRIPT EXISTS");
        assert!(exists.items().is_some(), "{exists:?}");
    }
    assert!(conn.command(&["SCRIPT", "FLUSH"]).expect("SCRIPT FLUSH").is_ok());
    assert!(conn.command(&["FLUSHALL"]).expect("FLUSHALL").is_ok());
    assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(0));
}
