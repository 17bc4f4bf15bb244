//! A cluster in trouble is not asked to death: while nodes refuse commands (CLUSTERDOWN), one
//! command per slot probes and the rest waits, and a budget caps all retries together. What the
//! nodes were asked is counted at the nodes.

use super::{keys_where, words};
use crate::common::errors::{identified, involves, says};
use crate::common::{self, Proxy};
use slotway::cluster::slot_of;
use slotway::errors::{FailureId, Unanswered};
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use std::time::{Duration, Instant};

const CLIENTS: usize = 300;
/// The default of `retries.min_per_second`.
const MIN_PER_SECOND: u128 = 100;

/// Three primaries without replicas, of which one is down: the other two answer CLUSTERDOWN.
struct Broken {
    proxy: Proxy,
    cluster: Cluster,
    down: Node,
    asked: Node,
}

impl Broken {
    fn start(args: &[&str]) -> Broken {
        let options = ClusterOptions {
            replicas: 0,
            node_timeout: Duration::from_secs(1),
            conf: vec!["cluster-require-full-coverage yes".into()],
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).expect("a cluster");
        let mut all = vec!["--workers", "1", "--set", "timeouts.command=60s"];
        all.extend(args);
        let proxy = Proxy::start(&cluster, &all);
        let primaries = cluster.primaries().expect("primaries");
        let (down, asked) = (primaries[0].clone(), primaries[1].clone());
        let broken = Broken { proxy, cluster, down, asked };
        // Connected before: what follows is about commands, not about connections.
        let mut conn = broken.proxy.connect();
        for node in &primaries {
            assert!(conn.command(&["SET", &keys_on(node, 1)[0], "v"]).expect("SET").is_ok());
        }
        broken.cluster.kill(&broken.down).expect("to kill a primary");
        let key = &keys_on(&broken.asked, 1)[0];
        common::eventually("the others answer CLUSTERDOWN", || {
            let mut conn = broken.cluster.connect(&broken.asked).expect("a connection");
            let reply = conn.command(&["GET", key]).expect("a reply");
            reply.error().is_some_and(|text| text.starts_with("CLUSTERDOWN"))
        });
        broken
    }

    /// Commands that the node has refused with CLUSTERDOWN so far.
    fn refused(&self) -> u128 {
        let mut conn = self.cluster.connect(&self.asked).expect("a connection");
        let info = conn.command(&["INFO", "errorstats"]).expect("INFO").text().expect("text");
        let line = info.lines().find_map(|l| l.strip_prefix("errorstat_CLUSTERDOWN:count="));
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    fn held(&self) -> f64 {
        self.proxy.metric("slotway_held_commands", "")
    }

    fn repair(&self) {
        self.cluster.restart(&self.down).expect("to restart a primary");
    }

    /// One client for each of these commands, which wait.
    fn send(&self, commands: impl Iterator<Item = Vec<String>>) -> Vec<Conn> {
        let mut clients = Vec::new();
        for command in commands {
            let mut conn = self.proxy.connect();
            conn.set_timeout(Some(common::PATIENCE * 2)).expect("a timeout");
            conn.send(&command).expect("to send");
            clients.push(conn);
        }
        clients
    }

    /// How many commands the node refuses while it refuses `least` at least, and how many
    /// milliseconds that takes.
    fn watch(&self, least: u128) -> (u128, u128) {
        let (before, since) = (self.refused(), Instant::now());
        let mut more = 0;
        common::eventually("some seconds of CLUSTERDOWN", || {
            more = self.refused() - before;
            more >= least && since.elapsed() > Duration::from_secs(2)
        });
        (more, since.elapsed().as_millis())
    }
}

/// Keys of the node, each in a slot of its own.
fn keys_on(node: &Node, count: usize) -> Vec<String> {
    keys_where(count, |slot, _| node.slots.iter().any(|range| range.contains(&slot.0)))
}

#[test]
fn one_command_of_a_slot_probes_and_the_rest_waits() {
    let broken = Broken::start(&[]);
    let key = &keys_on(&broken.asked, 1)[0];
    // Each client adds two numbers, so that their order can be seen.
    let commands = (0..CLIENTS).map(|i| words(&format!("RPUSH {key}:{{{key}}} {i}.a {i}.b")));
    let before = broken.refused();
    let mut clients = broken.send(commands);
    for (i, conn) in clients.iter_mut().enumerate() {
        conn.send(&words(&format!("RPUSH {key}:{{{key}}} {i}.c"))).expect("to send");
    }
    common::eventually("all wait", || broken.held() >= (2 * CLIENTS - 1) as f64);
    let first = broken.refused() - before;
    assert!(first <= CLIENTS as u128, "{first} calls before all waited");
    let (calls, millis) = broken.watch(20);
    // The pauses between two probes grow to between 25 and 50 ms.
    let most = millis / 25 + 20;
    assert!(calls <= most, "{calls} calls in {millis} ms, at most {most} for one slot's probes");
    broken.repair();
    for conn in &mut clients {
        for _ in 0..2 {
            let reply = conn.receive().expect("a reply");
            assert!(reply.int().is_some(), "{reply:?}");
        }
    }
    let mut conn = broken.proxy.connect();
    let list = conn.command(&["LRANGE", &format!("{key}:{{{key}}}"), "0", "-1"]).expect("a list");
    let list: Vec<String> = list.items().expect("items").iter().filter_map(Reply::text).collect();
    assert_eq!(list.len(), 3 * CLIENTS, "each once");
    for i in 0..CLIENTS {
        let own = list.iter().filter(|item| item.split('.').next() == Some(&i.to_string()));
        let own: String = own.filter_map(|item| item.chars().last()).collect();
        assert_eq!(own, "abc", "client {i}");
    }
}

#[test]
fn the_budget_caps_the_probes_of_many_slots() {
    let broken = Broken::start(&[]);
    let keys = keys_on(&broken.asked, CLIENTS);
    let mut clients = broken.send(keys.iter().map(|key| words(&format!("SET {key} v"))));
    common::eventually("all wait", || broken.held() >= (CLIENTS - 1) as f64);
    let (calls, millis) = broken.watch(100);
    // A second's worth may have been saved.
    let most = millis * MIN_PER_SECOND / 1000 + MIN_PER_SECOND + 1;
    assert!(calls <= most, "{calls} calls in {millis} ms, {most} are the budget");
    assert!(broken.proxy.metric("slotway_retry_budget_exhausted_total", "") > 0.0);
    let retries = broken.proxy.metric("slotway_retries_total", "reason=\"clusterdown\"");
    assert!(retries >= calls as f64, "{retries} counted, {calls} seen at one node");
    broken.repair();
    for conn in &mut clients {
        assert!(conn.receive().expect("a reply").is_ok());
    }
    assert_eq!(broken.held(), 0.0);
}

#[test]
fn the_budget_caps_blocking_commands() {
    let broken = Broken::start(&[]);
    let keys = keys_on(&broken.asked, CLIENTS);
    let many = broken.send(keys.iter().map(|key| words(&format!("BLPOP {key}:list{{{key}}} 0"))));
    let (calls, millis) = broken.watch(100);
    let most = millis * MIN_PER_SECOND / 1000 + MIN_PER_SECOND + CLIENTS as u128 + 1;
    assert!(calls <= most, "{calls} calls in {millis} ms, {most} are the budget");
    drop(many);
}

#[test]
fn blocking_commands_of_one_slot_probe_one_at_a_time() {
    let broken = Broken::start(&[]);
    let key = &keys_on(&broken.asked, 1)[0];
    let all = (0..CLIENTS).map(|i| words(&format!("BLPOP {{{key}}}:{i} 0")));
    let mut clients = broken.send(all);
    common::eventually("all wait", || {
        broken.proxy.metric("slotway_clients_blocked", "") >= CLIENTS as f64
    });
    common::eventually("all were refused or wait", || broken.refused() >= 1);
    // What was sent before the first refusal has come back by now.
    let _ = broken.watch(20);
    let (calls, millis) = broken.watch(20);
    let most = millis / 20 + 20;
    assert!(calls <= most, "{calls} calls in {millis} ms, at most {most} for one slot's probes");
    broken.repair();
    let mut conn = broken.proxy.connect();
    conn.set_timeout(Some(common::PATIENCE * 2)).expect("a timeout");
    for i in 0..CLIENTS {
        let reply = conn.command(&["RPUSH", &format!("{{{key}}}:{i}"), "v"]).expect("RPUSH");
        assert_eq!(reply.int(), Some(1));
    }
    for conn in &mut clients {
        let reply = conn.receive().expect("a reply");
        assert!(reply.items().is_some(), "{reply:?}");
    }
}

#[test]
fn a_slot_without_a_primary_fails_fast_where_that_is_asked_for() {
    let broken = Broken::start(&["--set", "timeouts.no_primary=500ms"]);
    let (down, asked) = (&keys_on(&broken.down, 1)[0], &keys_on(&broken.asked, 1)[0]);
    let mut conn = broken.proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    for (key, node) in [(down, &broken.down), (asked, &broken.asked)] {
        // timeouts.command is a minute, and the client's patience half of that.
        for command in [format!("SET {key} v"), format!("GET {key}"), format!("BLPOP {key} 0")] {
            let reply = conn.command(&words(&command)).expect("a reply");
            let error = identified(&reply);
            assert_eq!(error.id, FailureId::PrimaryMissing, "{command}: {reply:?}");
            let slot = slot_of(key.as_bytes()).0.to_string();
            assert!(error.field("place").is_some_and(|place| place.contains(&slot)), "{reply:?}");
            assert_eq!(error.field("primary"), Some(&*node.addr.to_string()), "{reply:?}");
            assert!(says(&error, Unanswered::NotExecuted), "{command}: {reply:?}");
        }
    }
    assert!(broken.proxy.metric("slotway_no_primary_total", "") >= 6.0);
    // Commands for all primaries tell the same of the one that is missing.
    let reply = conn.command(&["DBSIZE"]).expect("a reply");
    let text = reply.error().unwrap_or_default();
    assert!(involves(text, &[FailureId::PrimaryMissing]), "{reply:?}");
    broken.repair();
    for key in [down, asked] {
        common::eventually("it serves again", || {
            conn.command(&["SET", key, "w"]).expect("a reply").is_ok()
        });
    }
}
