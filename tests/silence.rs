//! Nodes that say nothing, connections that are dead without anybody knowing, shards without a
//! primary, and failures of slotway's own: what its clients see of them.

use crate::common::errors::identified;
use crate::common::{self, Proxy, Setting};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use slotway::cluster::{Slot, slot_of};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Node, Reply};
use slotway::upstream::ConnectionEnd;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Nothing here is to end by a deadline: what takes longer than a test's patience has failed.
const NO_DEADLINE: [&str; 4] = ["--workers", "1", "--set", "timeouts.command=1h"];

/// One cluster, all that can happen to a shard whose primary is gone.
#[test]
fn a_frozen_primary_is_left_for_its_successor() {
    let Setting { proxy, cluster } = common::setting(&NO_DEADLINE);
    let primaries = cluster.primaries().expect("primaries");
    let (frozen, other) = (&primaries[0], &primaries[1]);
    let replica = cluster.replicas_of(frozen).expect("replicas").remove(0);
    let (key, elsewhere) = (key_on(frozen, "k"), key_on(other, "k"));
    let counter = key_on(frozen, "n");
    let mut conns = [(); 5].map(|()| proxy.connect());
    for conn in &mut conns {
        assert!(conn.command(&["SET", &key, "1"]).expect("SET").is_ok());
        assert!(conn.command(&["SET", &elsewhere, "1"]).expect("SET").is_ok());
        assert!(conn.command(&["SET", &counter, "1"]).expect("SET").is_ok());
    }
    cluster.catch_up(&replica).expect("the replica has it");
    cluster.pause(frozen).expect("SIGSTOP");

    let [read, write, size, keys, later] = &mut conns;
    read.send(&["GET", &key]).expect("to send");
    write.send(&["INCR", &counter]).expect("to send");
    size.send(&["DBSIZE"]).expect("to send");
    keys.send(&["KEYS", "*k"]).expect("to send");
    let generation = proxy.metric("slotway_topology_generation", "");
    // On a busy machine the cluster may have a successor before slotway asks it again.
    common::eventually("the cluster lacks a primary, or has another", || {
        proxy.metric("slotway_slots_covered", "") < 16384.0
            || proxy.metric("slotway_topology_generation", "") > generation
    });
    // It is known by now that nobody answers there.
    later.send(&["INCRBY", &counter, "10"]).expect("to send");
    let mut exists = proxy.connect();
    exists.send(&["SCRIPT", "EXISTS", "abc"]).expect("to send");

    assert_eq!(read.receive().expect("GET"), Reply::Bulk(b"1".to_vec()), "sent again");
    let unknown = write.receive().expect("INCR");
    let error = identified(&unknown);
    assert_eq!(error.id, FailureId::ConnectionLost, "{unknown:?}");
    assert_eq!(error.field("why"), Some(&*ConnectionEnd::NodeFailed.to_string()));
    assert_eq!(later.receive().expect("INCRBY"), Reply::Int(11), "not sent there");
    assert_eq!(size.receive().expect("DBSIZE"), Reply::Int(3));
    let Reply::Array(found) = keys.receive().expect("KEYS") else { panic!("no list") };
    assert_eq!(found.len(), 2);
    assert_eq!(exists.receive().expect("SCRIPT EXISTS"), Reply::Array(vec![Reply::Int(0)]));
    cluster.resume(frozen).expect("SIGCONT");
}

#[test]
fn a_busy_node_keeps_its_connection() {
    let Setting { proxy, cluster } =
        common::setting(&["--workers", "1", "--set", "timeouts.probe=50ms"]);
    let busy = cluster.primaries().expect("primaries").remove(0);
    let key = key_on(&busy, "n");
    let mut clients = [(); 3].map(|()| proxy.connect());
    assert_eq!(clients[0].command(&["INCR", &key]).expect("INCR"), Reply::Int(1));
    let made = proxy.metric("slotway_upstream_connects_total", "");
    clients[0].send(&["EVAL", BUSY_SCRIPT, "1", &key]).expect("to send");
    let label = format!("node=\"{}\"", busy.addr);
    common::eventually("the script is at its node", || {
        proxy.metric("slotway_upstream_in_flight", &label) > 0.0
    });
    // The node's silence is noticed meanwhile.
    thread::sleep(Duration::from_millis(300));
    for client in &mut clients[1..] {
        client.send(&["INCR", &key]).expect("to send");
    }
    assert_eq!(clients[0].receive().expect("EVAL"), Reply::Int(2));
    let mut last = [1, 2].map(|i| match clients[i].receive().expect("INCR") {
        Reply::Int(n) => n,
        other => panic!("{other:?}"),
    });
    last.sort_unstable();
    assert_eq!(last, [3, 4]);
    assert_eq!(proxy.metric("slotway_upstream_connects_total", ""), made);
    assert_eq!(proxy.metric("slotway_upstream_failures_total", ""), 0.0);
}

/// Works for 1.2 s by its node's clock.
const BUSY_SCRIPT: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000 + \
                           t[2] / 1000 end local s = now() while now() - s < 1200 do end return \
                           redis.call('INCR', KEYS[1])";

#[test]
fn a_connection_that_died_in_silence_is_replaced_before_it_is_needed() {
    let cluster = primaries_only(1);
    let node = cluster.primaries().expect("primaries").remove(0);
    let swallow = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let relay = relay(node.addr, Arc::clone(&swallow), Arc::clone(&made));
    let mut direct = cluster.connect(&node).expect("a connection");
    let announce = ["CONFIG", "SET", "cluster-announce-port", &relay.port().to_string()];
    assert!(direct.command(&announce).expect("CONFIG SET").is_ok());
    let args = [&NO_DEADLINE[..], &["--set", "timeouts.probe=50ms"]].concat();
    let proxy = Proxy::start_with_seeds(&cluster, &node.addr.to_string(), &args);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "k", "1"]).expect("SET").is_ok());
    let before = made.load(Ordering::SeqCst);
    // What stands is forgotten; what is new gets through.
    swallow.store(true, Ordering::SeqCst);
    common::eventually("it is replaced", || {
        proxy.metric("slotway_upstream_failures_total", "") >= 1.0
            && proxy.metric("slotway_upstream_connections", "state=\"ready\"") >= 1.0
    });
    assert!(made.load(Ordering::SeqCst) > before);
    assert_eq!(conn.command(&["GET", "k"]).expect("GET"), Reply::Bulk(b"1".to_vec()));
}

#[test]
fn no_file_descriptor_is_left() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let node = cluster.primaries().expect("primaries").remove(0);
    let key = key_on(&node, "k");
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", &key, "1"]).expect("SET").is_ok());
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).expect("a process ID")).expect("one");
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let set_limit = |n: u64| {
        let limit = Rlimit { current: Some(n), maximum };
        let before = prlimit(Some(pid), Resource::Nofile, limit).expect("prlimit");
        before.current.expect("a limit")
    };
    let refusal = || {
        let reply = proxy.connect().receive().expect("a refusal");
        let id = identified(&reply).id;
        // Both name the limit on open files.
        let known = [FailureId::TooManyClientsForFiles, FailureId::NoDescriptor];
        assert!(known.contains(&id), "{reply:?}");
        id
    };

    // Fewer than are open. A connection to a node that is lost still finds one for the next one.
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("/proc").count();
    let before = set_limit(open as u64);
    refusal();
    let mut direct = cluster.connect(&node).expect("a connection");
    direct.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("CLIENT KILL");
    assert_eq!(conn.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"1".to_vec()));

    // All that are allowed are open: the connection that is accepted with the spare one is told so.
    // The limit is one on the descriptors' numbers, and other connections come and go, so that it
    // takes an attempt or two to find none of them free.
    set_limit(before);
    common::eventually("no descriptor is left", || {
        set_limit(first_free(proxy.pid()));
        let id = refusal();
        set_limit(before);
        id == FailureId::NoDescriptor
    });
    assert!(proxy.metric("slotway_accept_errors_total", "") >= 1.0);

    // Not even the spare one: the connection waits.
    set_limit(3);
    let logged = proxy.log().matches("cannot accept").count();
    let mut waiting = proxy.connect();
    waiting.send(&["GET", &key]).expect("to send");
    common::eventually("it is logged", || proxy.log().matches("cannot accept").count() > logged);
    assert_eq!(conn.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"1".to_vec()));
    set_limit(before);
    assert_eq!(waiting.receive().expect("GET"), Reply::Bulk(b"1".to_vec()));
}

/// The lowest number that none of the process's open descriptors has.
fn first_free(pid: u32) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc");
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let numbers: std::collections::BTreeSet<u64> = numbers.collect();
    (0..).find(|number| !numbers.contains(number)).expect("a number")
}

#[test]
fn a_worker_that_fails_takes_only_its_own_clients_with_it() {
    let Setting { proxy, cluster: _cluster } = common::setting(&["--workers", "2"]);
    let mut conns = [(); 2].map(|()| proxy.connect());
    for conn in &mut conns {
        assert!(conn.command(&["SET", "k", "1"]).expect("SET").is_ok());
    }
    assert_eq!(proxy.get("/fail/worker").expect("the page").0, 200);
    common::eventually("it is counted", || {
        proxy.metric("slotway_worker_failures_total", "") == 1.0
    });
    let alive = conns.iter_mut().filter_map(|c| c.command(&["GET", "k"]).ok()).count();
    assert_eq!(alive, 1);
    common::eventually("there are two again", || proxy.metric("slotway_workers", "") == 2.0);
    for _ in 0..4 {
        let mut conn = proxy.connect();
        assert_eq!(conn.command(&["GET", "k"]).expect("GET"), Reply::Bulk(b"1".to_vec()));
    }
    assert!(proxy.log().contains("a worker ended unexpectedly"));
}

/// Hands bytes on both ways. While `swallow` is set, connections made before it swallow them.
fn relay(node: SocketAddr, swallow: Arc<AtomicBool>, made: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            made.fetch_add(1, Ordering::SeqCst);
            let Ok(far) = TcpStream::connect(node) else { continue };
            let _ = near.set_nodelay(true).and(far.set_nodelay(true));
            let swallow = (!swallow.load(Ordering::SeqCst)).then(|| Arc::clone(&swallow));
            let ends = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
            let other = swallow.clone();
            thread::spawn(move || pass(ends.0, ends.1, other));
            thread::spawn(move || pass(far, near, swallow));
        }
    });
    addr
}

fn pass(mut from: TcpStream, mut to: TcpStream, swallow: Option<Arc<AtomicBool>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let swallowed = swallow.as_ref().is_some_and(|s| s.load(Ordering::SeqCst));
        if !swallowed && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn primaries_only(primaries: usize) -> Cluster {
    let options = ClusterOptions { primaries, replicas: 0, ..ClusterOptions::default() };
    Cluster::start(options).expect("a cluster")
}

/// A key with `name` at its end whose slot `node` owns.
fn key_on(node: &Node, name: &str) -> String {
    let owned = |slot: Slot| node.slots.iter().any(|range| range.contains(&slot.0));
    let mut keys = (0..).map(|i| format!("{{{i}}}{name}"));
    keys.find(|key| owned(slot_of(key.as_bytes()))).expect("a key")
}
