//! Clients that pipeline large commands and commands with large replies: a quiet client's command
//! does not stand behind them on a connection to a node, how much of them is under way is bounded,
//! for every kind of command, and those clients share what there is by bytes. Recorded: the quiet client's latencies (`--nocapture`). Beside a bare server's:
//! `benches/large_replies.py`.

use crate::common::{self, PATIENCE, Proxy};
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const MB: usize = 1_000_000;
const CLIENTS: usize = 4;

/// Primaries only, and nobody takes one that stands still for failed.
fn cluster() -> Cluster {
    let conf = vec!["cluster-node-timeout 60000".to_owned()];
    Cluster::start(ClusterOptions { replicas: 0, conf, ..ClusterOptions::default() })
        .expect("a cluster")
}

fn start(cluster: &Cluster, workers: &str) -> Proxy {
    let calm = ["--set", "timeouts.command=60s", "--set", "timeouts.probe=60s"];
    Proxy::start(
        cluster,
        &[["--workers", workers], [calm[0], calm[1]], [calm[2], calm[3]]].concat(),
    )
}

/// Two keys of different slots that `node` has, and the one slot's hash tag.
fn keys_on(node: &Node) -> [String; 2] {
    let has = |key: &String| {
        let slot = slot_of(key.as_bytes());
        node.slots.iter().any(|range| range.contains(&slot.0))
    };
    let mut keys = (0..).map(|i| format!("{{large:{i}}}:value")).filter(has);
    [(); 2].map(|()| keys.next().expect("a key"))
}

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A kind of large command: its bytes and those of its reply, how many entries one of it is on the
/// connection to the node.
struct Kind {
    name: &'static str,
    command: Vec<u8>,
    reply: usize,
    parts: usize,
}

/// Every way in which a command takes large replies through a connection that others use.
fn kinds([one, other]: &[String; 2], value: usize, large: &[u8]) -> Vec<Kind> {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let bulk = format!("${value}\r\n\r\n").len() + value;
    let mut exec = encode(&[b"MULTI"]);
    (0..2).for_each(|_| exec.extend(encode(&[b"GET", one])));
    exec.extend(encode(&[b"EXEC"]));
    let (queued, pair) = ("+OK\r\n+QUEUED\r\n+QUEUED\r\n".len(), "*2\r\n".len() + 2 * bulk);
    let lua: &[u8] = b"return redis.call('GET', KEYS[1])";
    vec![
        Kind { name: "GET", command: encode(&[b"GET", one]), reply: bulk, parts: 1 },
        Kind { name: "MGET", command: encode(&[b"MGET", one, one]), reply: pair, parts: 1 },
        Kind {
            name: "MGET, two slots",
            command: encode(&[b"MGET", one, other]),
            reply: pair,
            parts: 2,
        },
        Kind { name: "EXEC", command: exec, reply: queued + pair, parts: 1 },
        Kind { name: "EVAL", command: encode(&[b"EVAL", lua, b"1", one]), reply: bulk, parts: 1 },
        Kind { name: "SET", command: encode(&[b"SET", other, large]), reply: 5, parts: 1 },
    ]
}

/// Reads `bytes` bytes, and adds them to `total` as they come.
fn take(stream: &mut TcpStream, bytes: usize, total: &AtomicUsize) {
    let mut room = vec![0; 256 << 10];
    let mut missing = bytes;
    while missing > 0 {
        let most = missing.min(room.len());
        let n = stream.read(&mut room[..most]).expect("replies");
        assert!(n > 0, "closed with {missing} bytes to come");
        missing -= n;
        total.fetch_add(n, SeqCst);
    }
}

fn open(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(4 * PATIENCE)).expect("a timeout");
    stream
}

/// While a node stands still, so few large commands are before a quiet client's; with 300 of each
/// of four clients waiting. All are answered in the end.
#[test]
fn few_large_replies_are_ahead_of_a_quiet_client() {
    const COMMANDS: usize = 100;
    let cluster = cluster();
    let proxy = start(&cluster, "1");
    let node = &cluster.primaries().expect("primaries")[0];
    let keys = keys_on(node);
    let large = vec![b'v'; MB];
    let mut quiet = proxy.connect();
    for key in &keys {
        let set = [b"SET", key.as_bytes(), &large];
        assert!(quiet.command(&set).expect("SET").is_ok());
    }
    let small = format!("{}:small", keys[0]);
    let ask = ["GET", &small];
    assert_eq!(quiet.command(&ask).expect("GET"), Reply::Nil);
    let in_flight = || proxy.metric("slotway_upstream_in_flight", "") as usize;
    for fresh in [false, true] {
        for kind in kinds(&keys, MB, &large) {
            let none = AtomicUsize::new(0);
            let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| open(proxy.listen)).collect();
            if !fresh {
                for client in &mut clients {
                    client.write_all(&kind.command).expect("to send");
                    take(client, kind.reply, &none);
                }
            }
            let received = || proxy.metric("slotway_client_received_bytes_total", "") as usize;
            let before = received();
            cluster.pause(node).expect("SIGSTOP");
            let block = kind.command.repeat(COMMANDS);
            // What is not read any more need not be read for the pipelines to stand at the node.
            let read = if kind.name == "SET" { CLIENTS * MB / 2 } else { CLIENTS * block.len() };
            thread::scope(|scope| {
                let mut senders = Vec::new();
                for client in &clients {
                    let (mut client, block) = (client.try_clone().expect("a handle"), &block);
                    senders.push(scope.spawn(move || client.write_all(block).expect("to send")));
                }
                common::eventually("the pipelines are read", || {
                    received() >= before + read && in_flight() > 0
                });
                let ahead = in_flight();
                quiet.send(&ask).expect("to send");
                common::eventually("the quiet client need not wait", || in_flight() > ahead);
                println!(
                    "{}, new clients {fresh}: {ahead} commands ahead of the quiet one",
                    kind.name
                );
                // Of clients that are known some 8 MB; of new ones, of whom 64 KiB are expected, as
                // many as are 1 MiB by that; and one of each.
                let most = if fresh { 16 + CLIENTS } else { 8 + CLIENTS } * kind.parts;
                assert!(ahead <= most, "{}, new clients {fresh}: {ahead} > {most}", kind.name);
                cluster.resume(node).expect("SIGCONT");
                assert_eq!(quiet.receive().expect("GET"), Reply::Nil);
                for client in &mut clients {
                    let none = &none;
                    scope.spawn(move || take(client, COMMANDS * kind.reply, none));
                }
            });
            common::eventually("nothing is left behind", || in_flight() == 0);
        }
    }
    assert!(proxy.metric("slotway_large_reply_waits_total", "") > 0.0);
}

/// The connections of slotway on which a node gets a quiet client's command and those of clients
/// with large transfers, as MONITOR names them.
#[test]
fn small_commands_share_no_connection_with_large_transfers() {
    const COMMANDS: usize = 3;
    let cluster = cluster();
    let proxy = start(&cluster, "1");
    let node = &cluster.primaries().expect("primaries")[0];
    let keys = keys_on(node);
    let large = vec![b'v'; MB];
    let mut quiet = proxy.connect();
    for key in &keys {
        assert!(quiet.command(&[b"SET", key.as_bytes(), &large]).expect("SET").is_ok());
    }
    let small = format!("{}:small", keys[0]);
    // Its own SETs were large: it returns to the other connections.
    for _ in 0..20 {
        assert_eq!(quiet.command(&["GET", &small]).expect("GET"), Reply::Nil);
    }
    let none = AtomicUsize::new(0);
    for kind in kinds(&keys, MB, &large) {
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| open(proxy.listen)).collect();
        for client in &mut clients {
            client.write_all(&kind.command).expect("to send");
            take(client, kind.reply, &none);
        }
        let mut monitor = cluster.connect(node).expect("a connection");
        monitor.set_timeout(Some(4 * PATIENCE)).expect("a timeout");
        assert!(monitor.command(&["MONITOR"]).expect("MONITOR").is_ok());
        thread::scope(|scope| {
            for client in &mut clients {
                let (kind, none) = (&kind, &none);
                scope.spawn(move || {
                    client.write_all(&kind.command.repeat(COMMANDS)).expect("to send");
                    take(client, COMMANDS * kind.reply, none);
                });
            }
            for _ in 0..10 {
                assert_eq!(quiet.command(&["GET", &small]).expect("GET"), Reply::Nil);
            }
        });
        let end = format!("the end of {}", kind.name);
        cluster.connect(node).expect("a connection").command(&["PING", &end]).expect("PING");
        let (mut of_quiet, mut of_large) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let line = monitor.receive().expect("a line of MONITOR").text().expect("text");
            if line.contains(&end) {
                break;
            }
            let from = line.split(['[', ']']).nth(1).expect("a database and an address").to_owned();
            // What a script calls comes from "lua"; the script itself has an address.
            if line.contains(&small) {
                of_quiet.insert(from);
            } else if line.contains("{large:") && !from.ends_with("lua") {
                of_large.insert(from);
            }
        }
        println!("{}: quiet {of_quiet:?}, large {of_large:?}", kind.name);
        assert!(!of_quiet.is_empty() && !of_large.is_empty(), "{}", kind.name);
        assert!(of_quiet.is_disjoint(&of_large), "{}: {of_quiet:?}, {of_large:?}", kind.name);
    }
}

/// One client with small commands and large ones, which go over different connections.
#[test]
fn a_client_with_small_and_large_commands_keeps_its_order() {
    const BURSTS: usize = 12;
    const SMALL: usize = 50;
    let cluster = cluster();
    let proxy = start(&cluster, "1");
    let node = &cluster.primaries().expect("primaries")[0];
    let [key, _] = keys_on(node);
    let counter = format!("{key}:counter");
    // The first SET of a burst may change the connection; the small commands behind it, too.
    let burst = |n: usize| {
        let incr = encode(&[b"INCR", counter.as_bytes()]).repeat(SMALL);
        let value = vec![b'v'; MB + n];
        let set = encode(&[b"SET", key.as_bytes(), &value]);
        let small = encode(&[b"SET", key.as_bytes(), b"small"]);
        let len = encode(&[b"STRLEN", key.as_bytes()]);
        [&incr[..], &small, &len, &set, &len, &incr].concat()
    };
    for waits in [true, false] {
        let mut conn = proxy.connect();
        conn.set_timeout(Some(4 * PATIENCE)).expect("a timeout");
        conn.command(&["DEL", &counter]).expect("DEL");
        let mut count = 0;
        let mut check = |conn: &mut Conn, n: usize| {
            let mut counts = |conn: &mut Conn| {
                for _ in 0..SMALL {
                    count += 1;
                    assert_eq!(conn.receive().expect("INCR"), Reply::Int(count), "burst {n}");
                }
            };
            counts(conn);
            for len in ["small".len(), MB + n] {
                assert!(conn.receive().expect("SET").is_ok());
                assert_eq!(conn.receive().expect("STRLEN"), Reply::Int(len as i64), "burst {n}");
            }
            counts(conn);
        };
        if waits {
            for n in 0..BURSTS {
                conn.send_raw(&burst(n)).expect("to send");
                check(&mut conn, n);
            }
        } else {
            let mut sender = conn.try_clone().expect("a handle");
            thread::scope(|scope| {
                scope.spawn(|| {
                    (0..BURSTS).for_each(|n| sender.send_raw(&burst(n)).expect("to send"))
                });
                (0..BURSTS).for_each(|n| check(&mut conn, n));
            });
        }
    }
    common::eventually("nothing is left behind", || {
        proxy.metric("slotway_upstream_in_flight", "") == 0.0
    });
}

/// What arrives for others between a quiet client's command and its reply.
#[test]
fn few_bytes_of_others_pass_before_a_quiet_client() {
    const COMMANDS: usize = 60;
    const ROUNDS: usize = 2;
    let cluster = cluster();
    let nodes = cluster.primaries().expect("primaries");
    let (keys, far) = (keys_on(&nodes[0]), keys_on(&nodes[1]));
    let large = vec![b'v'; MB];
    for workers in ["1", "2"] {
        let proxy = start(&cluster, workers);
        assert!(
            proxy.connect().command(&[b"SET", keys[0].as_bytes(), &large]).expect("SET").is_ok()
        );
        let get = encode(&[b"GET", keys[0].as_bytes()]);
        let reply = format!("${MB}\r\n\r\n").len() + MB;
        for (place, key) in [("the same node", &keys[1]), ("another node", &far[0])] {
            let mut quiet = proxy.connect();
            let total = &AtomicUsize::new(0);
            let all = CLIENTS * COMMANDS * ROUNDS * reply;
            let mut passed: Vec<(usize, Duration)> = Vec::new();
            thread::scope(|scope| {
                for _ in 0..CLIENTS {
                    let (mut client, get) = (open(proxy.listen), &get);
                    scope.spawn(move || {
                        for _ in 0..ROUNDS {
                            client.write_all(&get.repeat(COMMANDS)).expect("to send");
                            take(&mut client, COMMANDS * reply, total);
                        }
                    });
                }
                common::eventually("replies come", || total.load(SeqCst) > 0);
                while total.load(SeqCst) < all * 9 / 10 {
                    let (before, since) = (total.load(SeqCst), Instant::now());
                    quiet.send(&["EXISTS", key]).expect("to send");
                    assert!(quiet.receive().expect("a reply").int().is_some());
                    passed.push((total.load(SeqCst) - before, since.elapsed()));
                }
            });
            passed.sort();
            let median = passed[passed.len() / 2].0;
            passed.sort_by_key(|(_, took)| *took);
            let p99 = passed[(passed.len() - 1) * 99 / 100].1;
            println!(
                "{workers} workers, {place}: {} commands, median {:.1} MB of others, p99 {p99:?}",
                passed.len(),
                median as f64 / 1e6
            );
            // All that is under way, and what waits in sockets' buffers.
            assert!(median <= 24 * MB, "{workers} workers, {place}: {median} bytes of others");
        }
    }
}

/// Two clients that ask for as many bytes, one in large pieces and one in small ones, get about as
/// many.
#[test]
fn clients_with_large_replies_share_by_bytes() {
    const TOTAL: usize = 160 * MB;
    let cluster = cluster();
    let proxy = start(&cluster, "1");
    let node = &cluster.primaries().expect("primaries")[0];
    let keys = keys_on(node);
    let sizes = [MB, 40_000];
    let mut conn = proxy.connect();
    for (key, size) in keys.iter().zip(sizes) {
        assert!(conn.command(&[b"SET", key.as_bytes(), &vec![b'v'; size]]).expect("SET").is_ok());
    }
    let taken = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let done = AtomicUsize::new(0);
    let at_first_end = thread::scope(|scope| {
        for ((key, size), taken) in keys.iter().zip(sizes).zip(&taken) {
            let (mut client, done) = (open(proxy.listen), &done);
            scope.spawn(move || {
                let count = TOTAL / size;
                client
                    .write_all(&encode(&[b"GET", key.as_bytes()]).repeat(count))
                    .expect("to send");
                take(&mut client, count * (format!("${size}\r\n\r\n").len() + size), taken);
                done.fetch_add(1, SeqCst);
            });
        }
        common::eventually("one has got everything", || done.load(SeqCst) > 0);
        taken.each_ref().map(|taken| taken.load(SeqCst))
    });
    let (least, most) =
        (at_first_end[0].min(at_first_end[1]), at_first_end[0].max(at_first_end[1]));
    println!("bytes when the first one is done: {at_first_end:?}");
    assert!(most <= 3 * least, "{at_first_end:?}");
}

/// A client that waits for its turn and goes away is nobody's hindrance.
#[test]
fn closed_clients_give_up_their_turn() {
    let cluster = cluster();
    let proxy = start(&cluster, "1");
    let node = &cluster.primaries().expect("primaries")[0];
    let keys = keys_on(node);
    let mut conn: Conn = proxy.connect();
    assert!(conn.command(&[b"SET", keys[0].as_bytes(), &vec![b'v'; MB]]).expect("SET").is_ok());
    let get = encode(&[b"GET", keys[0].as_bytes()]);
    let reply = format!("${MB}\r\n\r\n").len() + MB;
    for _ in 0..3 {
        cluster.pause(node).expect("SIGSTOP");
        let mut clients: Vec<TcpStream> = (0..40).map(|_| open(proxy.listen)).collect();
        let waits = || proxy.metric("slotway_large_reply_waits_total", "");
        let before = waits();
        for client in &mut clients {
            client.write_all(&get.repeat(20)).expect("to send");
        }
        common::eventually("they wait", || waits() > before + 20.0);
        let mut last = clients.pop().expect("a client");
        drop(clients);
        cluster.resume(node).expect("SIGCONT");
        take(&mut last, 20 * reply, &AtomicUsize::new(0));
        common::eventually("they are gone", || proxy.metric("slotway_clients", "") <= 2.0);
    }
}
