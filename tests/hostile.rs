//! Clients that mean harm: slotway stays up and within `limits.memory`, and serves the others.

use crate::common::{self, Proxy};
use slotway::sandbox::{Cluster, ClusterOptions, Reply};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// `limits.memory` of the tests that try to break it.
const LIMIT: usize = 16 * MIB;
/// What may be on the account beside it: what came in the turn in which the limit was reached.
const TURN: usize = 16 * MIB;
/// What the process may have grown by when its buffers hold [`LIMIT`]: an allocator rounds up, and
/// keeps what is freed.
const GROWTH: usize = 3 * LIMIT;

/// Side by side, each behind a slotway of its own, as they share nothing but the cluster.
#[test]
fn clients_that_mean_harm() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let (some, others) = ATTACKS.split_at(ATTACKS.len() / 2);
    fill(&cluster);
    thread::scope(|scope| {
        for attacks in [some, others] {
            scope.spawn(|| memory_stays_within_its_limit(&cluster, attacks));
        }
        scope.spawn(|| useless_connections(&cluster));
    });
}

/// Whatever a client can make slotway hold for it, many times the limit of each.
fn memory_stays_within_its_limit(cluster: &Cluster, attacks: &[(&str, Attack)]) {
    let limit = format!("limits.memory={LIMIT}B");
    let args = ["--workers", "1", "--set", &limit, "--set", "limits.scripts=1MiB"];
    let proxy = Proxy::start(cluster, &args);
    let mut bystander = proxy.connect();
    for (name, attack) in attacks {
        let (before, refused_before) = (resident(&proxy), refused(&proxy));
        let (most, grown) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stop = AtomicBool::new(false);
        let attackers = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let held = proxy.metric("slotway_buffer_bytes", "") as usize;
                    most.fetch_max(held, Ordering::Relaxed);
                    grown.fetch_max(resident(&proxy).saturating_sub(before), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let _end = OnDrop(&stop);
            let attackers = attack(&proxy);
            // They stay, and so does what they hold.
            common::eventually(&format!("{name}: it fills the memory"), || {
                most.load(Ordering::Relaxed) > LIMIT / 2 || refused(&proxy) > refused_before
            });
            thread::sleep(Duration::from_millis(200));
            let served = bystander.command(&["PING"]).expect("PING");
            assert_eq!(served, Reply::Simple("PONG".into()), "{name}");
            attackers
        });
        let (most, grown) = (most.into_inner(), grown.into_inner());
        eprintln!("{name}: {} KiB on the account, grown by {} KiB", most >> 10, grown >> 10);
        assert!(most <= LIMIT + TURN, "{name}: {most} bytes in buffers, the limit is {LIMIT}");
        assert!(grown <= GROWTH, "{name}: the process has grown by {grown} bytes");
        // Those who are left may fill it up to the limit, never for others beyond it for long.
        common::eventually(&format!("{name}: others are served"), || {
            bystander.command(&["SET", "served", name]).expect("SET").is_ok()
        });
        drop(attackers);
        common::eventually(&format!("{name}: it is free again"), || {
            (proxy.metric("slotway_buffer_bytes", "") as usize) < 10 * MIB
        });
    }
    assert!(refused(&proxy) > 0.0);
    let lines = proxy.log().lines().filter(|l| l.contains("limits.memory")).count();
    assert!((1..200).contains(&lines), "{lines} lines of log about limits.memory");
}

/// Sets a flag when it goes, also by a panic: the watcher must not watch for ever.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections in their thousands that are of no use to anybody, and nonsense: the others are
/// served, and everything is given back. `HOSTILE_CONNECTIONS` says how many connect and close.
fn useless_connections(cluster: &Cluster) {
    let proxy = Proxy::start(cluster, &["--workers", "1"]);
    let mut bystander = proxy.connect();
    let mut served = |what: &str| {
        let reply = bystander.command(&["INCR", "counted"]).expect("INCR");
        assert!(reply.int().is_some(), "{what}: {reply:?}");
    };
    served("before");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("fd").count();
    // The check of the nodes' IDs (`replicas.check`) has a connection to each, which may come later.
    let before = files() + cluster.addrs().len();

    let count = std::env::var("HOSTILE_CONNECTIONS").ok().and_then(|n| n.parse().ok());
    for i in 0..count.unwrap_or(3_000usize) {
        let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
        if i % 3 == 0 {
            let _ = stream.write_all(b"*1\r\n$4\r\nPI");
        }
        if i % 2 == 0 {
            // Closed with what it has not read: a reset.
            let _ = stream.write_all(b"PING\r\n");
        }
        drop(stream);
        if i % 100 == 0 {
            served("connect and close");
        }
    }

    // A byte now and then.
    let mut slow: Vec<TcpStream> =
        (0..1_000).map(|_| TcpStream::connect(proxy.listen).expect("a connection")).collect();
    for byte in b"*1\r\n$4\r\nPI" {
        slow.iter_mut().for_each(|s| s.write_all(&[*byte]).expect("to send"));
        served("slow loris");
    }
    slow.iter_mut().for_each(|s| s.write_all(b"NG\r\n").expect("to send"));
    for stream in &mut slow {
        let mut reply = [0; 7];
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    drop(slow);

    for nonsense in NONSENSE {
        let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        // It may be closed in the middle of it.
        let _ = stream.write_all(nonsense).and_then(|()| stream.write_all(&[b'x'; 100 << 10]));
        let _ = stream.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        served("nonsense");
    }
    let protocol = proxy.metric("slotway_limits_hit_total", "limit=\"protocol\"");
    assert!(protocol > 5.0, "{protocol} protocol errors counted");
    assert!(proxy.log().contains("what it sends is no command"), "{}", proxy.log());
    common::eventually("all is given back", || {
        proxy.metric("slotway_clients", "") == 1.0 && files() <= before + 2
    });
    assert!(proxy.log().lines().count() < 100, "{}", proxy.log());
}

const NONSENSE: [&[u8]; 14] = [
    b"\x00\x01\x02\xff\xfe",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: slotway\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: slotway\r\n\r\n",
    b"*-1\r\n*0\r\n*99999999999999999999\r\n",
    b"*2147483648\r\n",
    b"*2147483647\r\n$536870913\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n",
    b"*1\r\n$4\r\nPINGPINGPINGPING",
    b"SET \"unbalanced\r\n",
    b"\r\n\r\n\r\n\n\n\n",
    b"*1\n$4\nPING\n",
];

type Attack = fn(&Proxy) -> Vec<TcpStream>;

const ATTACKS: [(&str, Attack); 12] = [
    ("replies that are not read", |proxy| all(proxy, 12, &request(&["GET", "value"]).repeat(400))),
    ("errors that are not read", |proxy| all(proxy, 80, &request(&["SHUTDOWN"]).repeat(2_000))),
    ("echoes that are not read", |proxy| {
        all(proxy, 100, &request(&["ECHO", &"e".repeat(32 << 10)]).repeat(8))
    }),
    ("many small unfinished requests", |proxy| {
        let mut begun = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n".to_vec();
        begun.resize(60 << 10, b'v');
        all(proxy, 700, &begun)
    }),
    ("few giant unfinished requests", |proxy| {
        let mut begun = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$268435456\r\n".to_vec();
        begun.resize(MIB, b'v');
        let clients = all(proxy, 8, &begun);
        for _ in 0..4 {
            clients.iter().for_each(|c| push(c, &vec![b'v'; MIB]));
        }
        clients
    }),
    ("endless argument counts", |proxy| {
        let mut begun = b"*2147483647\r\n$4\r\nMGET\r\n".to_vec();
        begun.extend(b"$0\r\n\r\n".repeat(300_000));
        all(proxy, 15, &begun)
    }),
    ("MGET of a million empty keys", |proxy| {
        let mut whole = b"*1000001\r\n$4\r\nMGET\r\n".to_vec();
        (0..1_000_000).for_each(|i| whole.extend(format!("$1\r\n{}\r\n", i % 10).bytes()));
        all(proxy, 4, &whole)
    }),
    ("KEYS that are not read", |proxy| all(proxy, 15, &request(&["KEYS", "*"]).repeat(6))),
    ("transactions that are never executed", |proxy| {
        let mut begun = request(&["MULTI"]);
        begun.extend(request(&["SET", "k", &"v".repeat(10 << 10)]).repeat(60));
        all(proxy, 80, &begun)
    }),
    ("subscriptions without end", |proxy| {
        let clients = all(proxy, 25, b"");
        for i in 0..6 {
            for (c, client) in clients.iter().enumerate() {
                let name = |n: usize| format!("{}{c}:{i}:{n}", "n".repeat(40));
                let names: Vec<String> = (0..1_000).map(name).collect();
                let mut words = vec!["SUBSCRIBE"];
                words.extend(names.iter().map(String::as_str));
                push(client, &request(&words));
            }
        }
        clients
    }),
    ("messages that are not read", |proxy| {
        let clients = all(proxy, 20, &request(&["SUBSCRIBE", "news"]));
        let message = "m".repeat(32 << 10);
        let mut publisher = proxy.connect();
        for _ in 0..40 {
            let commands = vec![vec!["PUBLISH", "news", &message]; 20];
            // At the limit some are refused, or the publisher has to go with what it has begun.
            if publisher.pipeline(&commands).is_err() {
                publisher = proxy.connect();
            }
        }
        clients
    }),
    ("clients' own lists that are not read", |proxy| {
        let clients = all(proxy, 100, &request(&["CLIENT", "SETNAME", &"n".repeat(4 << 10)]));
        clients.iter().take(5).for_each(|c| push(c, &request(&["CLIENT", "LIST"]).repeat(25)));
        clients
    }),
];

/// Values and keys that replies are made of.
fn fill(cluster: &Cluster) {
    let proxy = Proxy::start(cluster, &[]);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "value", &"v".repeat(32 << 10)]).expect("SET").is_ok());
    for from in (0..20_000).step_by(1_000) {
        let name = |i: usize| format!("{}:{i}", "key".repeat(20));
        let commands: Vec<Vec<String>> =
            (from..from + 1_000).map(|i| vec!["SET".into(), name(i), "v".into()]).collect();
        assert!(conn.pipeline(&commands).expect("replies").iter().all(Reply::is_ok));
    }
}

/// So many clients that send `bytes`, and read nothing.
fn all(proxy: &Proxy, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let clients: Vec<TcpStream> = (0..count).map(|_| deaf(proxy.listen)).collect();
    // Some are not read from for a while: others need not wait for that.
    thread::scope(|scope| {
        for some in clients.chunks(count.div_ceil(8)) {
            scope.spawn(move || some.iter().for_each(|c| push(c, bytes)));
        }
    });
    clients
}

/// A connection that takes next to nothing, so that what is not read is slotway's to keep and not
/// the kernel's.
fn deaf(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    socket.connect(&addr.into()).expect("a connection");
    let stream: TcpStream = socket.into();
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    stream
}

/// Sends as much as is taken: it may be closed, or not be read from.
fn push(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    words.iter().for_each(|w| out.push_str(&format!("${}\r\n{w}\r\n", w.len())));
    out.into_bytes()
}

/// How often something or somebody had to go for memory.
fn refused(proxy: &Proxy) -> f64 {
    proxy.metric("slotway_limits_hit_total", "limit=\"memory\"")
}

/// Resident bytes of slotway.
fn resident(proxy: &Proxy) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", proxy.pid())).expect("statm");
    let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("pages");
    pages * 4096
}
