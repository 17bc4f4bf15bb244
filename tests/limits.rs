//! Every limit of `[limits]` under pressure: what happens at it, that it is counted, and that
//! nobody else feels it. And what has to fit within: large values, many clients, deep pipelines.

use crate::common::errors::{assert_is, identified};
use crate::common::{self, Proxy, Setting};
use slotway::cluster::{Slot, slot_of};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;

const MIB: usize = 1 << 20;

#[test]
fn clients() {
    let proxy = start(&["--set", "limits.clients=3"]);
    let mut kept: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for conn in &mut kept {
        assert_eq!(conn.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    }
    let refused = proxy.connect().receive().expect("a reply");
    let error = identified(&refused);
    assert_eq!((error.id, error.field("limit")), (FailureId::TooManyClients, Some("3")));
    assert_eq!(hits(&proxy, "clients"), 1.0);
    assert_eq!(proxy.metric("slotway_clients_rejected_total", ""), 1.0);
    kept.pop();
    common::eventually("there is room for another", || {
        proxy.connect().command(&["PING"]).is_ok_and(|reply| reply.error().is_none())
    });
}

#[test]
fn client_output() {
    const TIMES: usize = 500;
    let proxy = start(&["--set", "limits.client_output=1MiB"]);
    // One slot gets no more than is left for the others.
    let mut bystander = proxy.connect();
    let value = vec![b'v'; 100 << 10];
    let set: [&[u8]; 3] = [b"SET", b"output:large", &value];
    assert!(bystander.command(&set).expect("SET").is_ok());
    let mut never_reads = proxy.connect();
    for _ in 0..TIMES {
        // An error means that it is closed already.
        if never_reads.send(&["GET", "output:large"]).is_err() {
            break;
        }
    }
    common::eventually("the limit is reached", || {
        assert!(bystander.command(&["INCR", "output:n"]).expect("INCR").int().is_some());
        hits(&proxy, "client_output") == 1.0
    });
    let got = std::iter::from_fn(|| never_reads.receive_raw().ok()).count();
    assert!(got < TIMES, "it was served in full");
    // One that takes its replies may ask for as much.
    let commands = vec![vec!["GET", "output:large"]; 20];
    for _ in 0..TIMES / 20 {
        let replies = bystander.pipeline(&commands).expect("replies");
        assert!(replies.iter().all(|r| *r == Reply::Bulk(value.clone())));
    }
    assert_eq!(hits(&proxy, "client_output"), 1.0);
    common::eventually("its buffers are free again", || buffers(&proxy) < 10 * MIB);
}

#[test]
fn upstream_in_flight() {
    // One client alone has to leave room for the others.
    const CLIENTS: usize = 20;
    const COMMANDS: i64 = 1_000;
    const LIMIT: usize = 64 << 10;
    let cluster = primaries_only(&["cluster-node-timeout 20000"]);
    let args = ["--workers", "1", "--set", "limits.upstream_in_flight=64KiB"];
    let proxy = Proxy::start(&cluster, &args);
    let nodes = cluster.primaries().expect("primaries");
    let (slow, other) = (&nodes[0], &nodes[1]);
    let mut clients: Vec<Conn> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    let mut bystander = proxy.connect();
    let (counter, elsewhere) = (key_on(slow, "counter"), key_on(other, "k"));
    // The connections are made before one of them is to stand still.
    assert!(
        bystander
            .command(&["MSET", &key_on(slow, "k"), "v", &elsewhere, "v"])
            .expect("MSET")
            .is_ok()
    );
    // Of a client that has had no reply yet only few commands are under way.
    for client in &mut clients {
        for _ in 0..50 {
            assert!(client.command(&["EXISTS", &counter]).expect("EXISTS").int().is_some());
        }
    }
    cluster.pause(slow).expect("SIGSTOP");
    {
        for (i, client) in clients.iter_mut().enumerate() {
            for _ in 0..COMMANDS {
                client.send(&["INCR", &format!("{counter}{i}")]).expect("to send");
            }
        }
        common::eventually("reading pauses", || hits(&proxy, "upstream_in_flight") > 0.0);
        let in_flight = proxy.metric("slotway_upstream_in_flight_bytes", "") as usize;
        assert!((LIMIT..LIMIT + 1024).contains(&in_flight), "{in_flight} bytes in flight");
        for _ in 0..100 {
            assert!(bystander.command(&["SET", &elsewhere, "w"]).expect("SET").is_ok());
        }
        // Others that want to go there wait as well, and are not forgotten.
        let mut waits = proxy.connect();
        waits.send(&["MGET", &counter, &elsewhere]).expect("to send");
        cluster.resume(slow).expect("SIGCONT");
        for client in &mut clients {
            for n in 1..=COMMANDS {
                assert_eq!(client.receive().expect("a reply"), Reply::Int(n));
            }
        }
        let both = waits.receive().expect("MGET");
        assert_eq!(both.items().map(<[Reply]>::len), Some(2), "{both:?}");
    }
    assert_eq!(proxy.metric("slotway_upstream_in_flight_bytes", ""), 0.0);
}

/// One client that pipelines without end leaves the others room long before any limit, and gets all
/// its replies.
#[test]
fn greedy_client() {
    const COMMANDS: i64 = 20_000;
    let cluster = primaries_only(&["cluster-node-timeout 20000"]);
    let proxy = Proxy::start(&cluster, &["--workers", "1", "--set", "timeouts.command=30s"]);
    let node = &cluster.primaries().expect("primaries")[0];
    let (counter, other) = (key_on(node, "counter"), key_on(node, "other"));
    let mut sending = proxy.connect();
    let mut receiving = sending.try_clone().expect("a second handle");
    let mut quiet = proxy.connect();
    assert!(quiet.command(&["SET", &other, "v"]).expect("SET").is_ok());
    cluster.pause(node).expect("SIGSTOP");
    std::thread::scope(|scope| {
        let counter = &counter;
        scope.spawn(move || {
            for _ in 0..COMMANDS {
                sending.send(&["INCR", counter]).expect("to send");
            }
        });
        let in_flight = || proxy.metric("slotway_upstream_in_flight_bytes", "") as usize;
        let mut before = 0;
        common::eventually("it waits", || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let now = in_flight();
            std::mem::replace(&mut before, now) == now && now > 0
        });
        assert!(in_flight() < 200 << 10, "{} bytes of one client", in_flight());
        quiet.send(&["GET", &other]).expect("to send");
        common::eventually("another need not wait", || in_flight() > before);
        cluster.resume(node).expect("SIGCONT");
        assert_eq!(quiet.receive().expect("GET").text().as_deref(), Some("v"));
        for n in 1..=COMMANDS {
            assert_eq!(receiving.receive().expect("a reply"), Reply::Int(n));
        }
    });
    assert_eq!(proxy.metric("slotway_limits_hit_total", "limit=\"upstream_in_flight\""), 0.0);
}

#[test]
fn memory() {
    let cluster = primaries_only(&["cluster-node-timeout 20000"]);
    let args = ["--workers", "1", "--set", "limits.memory=16MiB", "--set", "timeouts.command=20s"];
    let proxy = Proxy::start(&cluster, &args);
    let nodes = cluster.primaries().expect("primaries");
    let mut bystander = proxy.connect();
    for node in &nodes {
        assert!(bystander.command(&["SET", &key_on(node, "k"), "v"]).expect("SET").is_ok());
    }

    // Commands that a node does not take fill it.
    const COMMANDS: usize = 1_600;
    cluster.pause(&nodes[0]).expect("SIGSTOP");
    // Small enough not to be refused while it is read.
    let value = vec![b'v'; 12 << 10];
    let key = key_on(&nodes[0], "large");
    let mut conns: Vec<Conn> = (0..COMMANDS).map(|_| proxy.connect()).collect();
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
    for some in conns.chunks_mut(50) {
        for conn in some {
            // At the limit it may be closed before it has said all.
            let _ = conn.send(&set);
        }
        // What comes in one turn is counted at its end: not all of it must.
        assert_eq!(bystander.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    }
    common::eventually("the limit is reached", || hits(&proxy, "memory") > 0.0);
    let reply = bystander.command(&["SET", &key_on(&nodes[1], "k"), "w"]).expect("a reply");
    assert_is(&reply, FailureId::BuffersFull);
    assert_eq!(bystander.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    assert_near_limit(&proxy);
    cluster.resume(&nodes[0]).expect("SIGCONT");
    // Who is closed in the middle of a request may lose the error with it.
    let replies: Vec<Reply> = conns.iter_mut().filter_map(|conn| conn.receive().ok()).collect();
    let stored = replies.iter().filter(|reply| reply.is_ok()).count();
    assert!((1_000..COMMANDS).contains(&stored), "{stored} of {COMMANDS} were stored");
    drop(conns);
    assert!(replies.iter().all(|r| r.is_ok() || r.error().is_some_and(|e| e.starts_with("OOM "))));
    common::eventually("there is memory again", || {
        bystander.command(&["SET", &key_on(&nodes[1], "k"), "w"]).expect("a reply").is_ok()
    });

    // So do requests that are never finished: those clients have to go.
    let mut unfinished: Vec<TcpStream> = Vec::new();
    for _ in 0..12 {
        let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\n").expect("to send");
        // It may be closed in the middle.
        let _ = stream.write_all(&[b'v'; 4 * MIB]);
        unfinished.push(stream);
    }
    common::eventually("some of them are closed", || {
        proxy.metric("slotway_clients", "") < 13.0 + 2.0
    });
    assert_near_limit(&proxy);
    common::eventually("there is memory for the others", || {
        bystander.command(&["SET", &key_on(&nodes[1], "k"), "x"]).expect("a reply").is_ok()
    });
    drop(unfinished);
    common::eventually("all of it is free again", || buffers(&proxy) < 10 * MIB);
}

/// What is kept for reuse (8 MiB) and what was under way when the limit was reached come on top.
#[track_caller]
fn assert_near_limit(proxy: &Proxy) {
    let bytes = buffers(proxy);
    assert!(bytes < 16 * MIB + 8 * MIB + 4 * MIB, "{bytes} bytes in buffers");
}

#[test]
fn held() {
    let (Setting { proxy, cluster: _cluster }, nodes) =
        one_primary_dead(&["--set", "limits.held=1MiB"]);
    let (dead, other) = (&nodes[0], &nodes[1]);
    let key = key_on(dead, "k");
    let value = vec![b'v'; 100 << 10];
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
    let mut conn = proxy.connect();
    for _ in 0..30 {
        conn.send(&set).expect("to send");
    }
    common::eventually("commands wait", || proxy.metric("slotway_held_commands", "") == 5.0);
    let mut bystander = proxy.connect();
    assert!(bystander.command(&["SET", &key_on(other, "k"), "v"]).expect("SET").is_ok());
    for n in 0..30 {
        let reply = conn.receive().expect("a reply");
        let error = identified(&reply);
        let wanted = if n < 5 { FailureId::Deadline } else { FailureId::HoldsFull };
        let slot = slot_of(key.as_bytes()).0.to_string();
        let is_named = error.field("slot").is_some_and(|named| named.ends_with(&slot));
        assert!(error.id == wanted && is_named, "reply {n}: {reply:?}");
    }
    assert_eq!(proxy.metric("slotway_held_commands", ""), 0.0);
    assert_eq!(hits(&proxy, "held"), 25.0);
}

#[test]
fn held_for_split_commands() {
    const COMMANDS: usize = 150;
    let (Setting { proxy, cluster: _cluster }, nodes) =
        one_primary_dead(&["--set", "limits.held=1MiB"]);
    let keys = [key_on(&nodes[0], "k"), format!("{}2", key_on(&nodes[0], "k"))];
    assert_eq!(slot_of(keys[0].as_bytes()), slot_of(keys[1].as_bytes()));
    let elsewhere = key_on(&nodes[1], "k");
    let value = vec![b'v'; 100 << 10];
    let mut conn = proxy.connect();
    for _ in 0..COMMANDS {
        let [a, b] = [&keys[0], &keys[1]].map(|key| key.as_bytes());
        let mset: [&[u8]; 7] = [b"MSET", a, &value, b, &value, elsewhere.as_bytes(), b"v"];
        conn.send(&mset).expect("to send");
    }
    let mut most = 0;
    let mut replies = 0;
    std::thread::scope(|scope| {
        let all = scope.spawn(|| (0..COMMANDS).map(|_| conn.receive().expect("a reply")).collect());
        while !all.is_finished() {
            most = buffers(&proxy).max(most);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let all: Vec<Reply> = all.join().expect("the client");
        for reply in all {
            assert!(reply.error().is_some(), "{reply:?}");
            replies += 1;
        }
    });
    assert_eq!(replies, COMMANDS);
    // One MiB may wait, 8 MiB are kept for reuse, and something is always under way.
    assert!(most < 10 * MIB, "{most} bytes in buffers, limits.held is 1 MiB");
}

/// Slotway in front of three primaries, the first of which is dead and has no replica.
fn one_primary_dead(args: &[&str]) -> (Setting, Vec<Node>) {
    let conf = ["cluster-require-full-coverage no", "cluster-node-timeout 1000"];
    let cluster = primaries_only(&conf);
    let mut all = vec!["--workers", "1", "--set", "topology.refresh=500ms"];
    all.extend(["--set", "timeouts.command=3s"].iter().chain(args));
    let proxy = Proxy::start(&cluster, &all);
    let nodes = cluster.primaries().expect("primaries");
    cluster.kill(&nodes[0]).expect("to kill a primary");
    common::eventually("its slots are known to have no primary", || {
        proxy.metric("slotway_slots_covered", "") < 16384.0
    });
    (Setting { proxy, cluster }, nodes)
}

#[test]
fn a_value_of_512_mib_goes_in_and_comes_out() {
    const SIZE: usize = 512 * MIB;
    let cluster = primaries_only(&[]);
    // The sandbox's machine may be busy; the deadline is not what is tested.
    let proxy = Proxy::start(&cluster, &["--set", "timeouts.command=60s"]);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "small", "v"]).expect("SET").is_ok());
    let before = resident(&proxy);

    // No two of its pieces are equal.
    let mut piece = vec![b'v'; MIB];
    let stamp = |i: usize, piece: &mut Vec<u8>| piece[..8].copy_from_slice(&i.to_le_bytes());
    let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    write!(stream, "*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${SIZE}\r\n").expect("to send");
    for i in 0..SIZE / MIB {
        stamp(i, &mut piece);
        stream.write_all(&piece).expect("to send");
    }
    stream.write_all(b"\r\n").expect("to send");
    let mut reader = BufReader::with_capacity(MIB, stream.try_clone().expect("a handle"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a reply");
    assert_eq!(line, "+OK\r\n");

    stream.write_all(b"GET large\r\n").expect("to send");
    line.clear();
    reader.read_line(&mut line).expect("a reply");
    assert_eq!(line, format!("${SIZE}\r\n"));
    let mut got = vec![0; MIB];
    for i in 0..SIZE / MIB {
        reader.read_exact(&mut got).expect("a piece");
        stamp(i, &mut piece);
        assert!(got == piece, "piece {i} is another");
    }
    line.clear();
    reader.read_line(&mut line).expect("the end");
    assert_eq!(line, "\r\n");
    assert_eq!(conn.command(&["GET", "small"]).expect("GET"), Reply::Bulk(b"v".to_vec()));
    // Still connected, as a pooled client is.
    common::eventually("slotway's memory comes back", || resident(&proxy) < before + 64 * MIB);
    stream.write_all(b"STRLEN large\r\n").expect("to send");
    line.clear();
    reader.read_line(&mut line).expect("a reply");
    assert_eq!(line, format!(":{SIZE}\r\n"));
}

#[test]
fn an_idle_client_costs_less_than_a_kilobyte() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const CLIENTS: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("more files");
    let proxy = start(&[]);
    let mut clients: Vec<TcpStream> = Vec::with_capacity(CLIENTS + 100);
    let mut open = |count: usize| {
        for i in 0..count {
            let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
            stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
            // Each has been of use before it became idle.
            write!(stream, "SET idle:{} v\r\n", i % 100).expect("to send");
            let mut reply = [0; 5];
            stream.read_exact(&mut reply).expect("a reply");
            assert_eq!(&reply, b"+OK\r\n");
            clients.push(stream);
        }
    };
    open(100);
    let before = resident(&proxy);
    open(CLIENTS);
    let each = resident(&proxy).saturating_sub(before) / CLIENTS;
    assert!(each < 1024, "{each} bytes for each idle client");
    assert_eq!(proxy.metric("slotway_clients", "") as usize, CLIENTS + 100);
}

#[test]
fn a_million_commands_before_the_first_reply_is_read() {
    const COMMANDS: usize = 1_000_000;
    let proxy = start(&[]);
    let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(common::PATIENCE)).expect("a timeout");
    // Three counters on different nodes: their replies come in any order.
    let commands: Vec<String> =
        (0..3).map(|c| format!("*2\r\n$4\r\nINCR\r\n$9\r\nmillion:{c}\r\n")).collect();
    let mut some = Vec::new();
    for i in 0..COMMANDS {
        some.extend_from_slice(commands[i % 3].as_bytes());
        if some.len() > 64 << 10 || i + 1 == COMMANDS {
            stream.write_all(&some).expect("slotway takes all commands");
            some.clear();
        }
    }
    let mut reader = BufReader::with_capacity(MIB, stream);
    let mut line = String::new();
    for i in 0..COMMANDS {
        line.clear();
        reader.read_line(&mut line).expect("a reply");
        let wanted = i / 3 + 1;
        assert!(
            line.strip_prefix(':').map(str::trim_end) == Some(&wanted.to_string()),
            "{i}: {line}"
        );
    }
    common::eventually("its buffers are free again", || buffers(&proxy) < 10 * MIB);
}

/// Slotway in front of a cluster that the tests share which do nothing to it.
fn start(args: &[&str]) -> Proxy {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let args: Vec<&str> = ["--workers", "1"].iter().chain(args).copied().collect();
    Proxy::start(SHARED.get_or_init(|| primaries_only(&[])), &args)
}

fn primaries_only(conf: &[&str]) -> Cluster {
    let options = ClusterOptions {
        replicas: 0,
        conf: conf.iter().map(|line| (*line).to_owned()).collect(),
        ..ClusterOptions::default()
    };
    Cluster::start(options).expect("a cluster")
}

fn hits(proxy: &Proxy, limit: &str) -> f64 {
    proxy.metric("slotway_limits_hit_total", &format!("limit=\"{limit}\""))
}

fn buffers(proxy: &Proxy) -> usize {
    proxy.metric("slotway_buffer_bytes", "") as usize
}

/// What the operating system says, in bytes.
fn resident(proxy: &Proxy) -> usize {
    let path = format!("/proc/{}/status", proxy.pid());
    let status = std::fs::read_to_string(path).expect("slotway's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    kib * 1024
}

/// A key with `name` in it whose slot `node` owns.
fn key_on(node: &Node, name: &str) -> String {
    let owned = |slot: Slot| node.slots.iter().any(|range| range.contains(&slot.0));
    let mut keys = (0..).map(|i| format!("{{{i}}}{name}"));
    keys.find(|key| owned(slot_of(key.as_bytes()))).expect("a key")
}
