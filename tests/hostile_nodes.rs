//! Nodes that mean harm: whatever one answers, slotway stays up and within its memory, and the
//! others are served. The hostile node is made up here; the other is a real server.

use crate::common::errors::{DEADLINES, involves};
use crate::common::{self, Proxy};
use slotway::cluster::slot_of;
use slotway::resp::{
    Args, ReplyProgress, ReplyScan, Request, RequestLimits, RequestProgress, scan_request,
};
use slotway::sandbox::{Reply, Standalone, StandaloneOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Two at a time, as most of it is waiting.
#[test]
fn whatever_a_node_answers() {
    thread::scope(|scope| {
        for which in [0, 1] {
            scope.spawn(move || answers(MODES.iter().skip(which).step_by(2)));
        }
    });
}

fn answers(modes: impl Iterator<Item = &'static (&'static str, Mode)>) {
    let setting = Setting::start();
    let (evil_key, good_key) = (key_below(true), key_below(false));
    let mut bystander = setting.proxy.connect();
    for (name, mode) in modes {
        setting.fake.mode.store(*mode as usize, Ordering::SeqCst);
        let since = Instant::now();
        let (mut served, mut refused) = (0, 0);
        let (listen, evil_key) = (setting.proxy.listen, evil_key.as_str());
        let commands: [&[&str]; 4] = [
            &["GET", evil_key],
            &["SET", evil_key, "v"],
            &["MGET", evil_key, "other-key", "and-another"],
            &["SSUBSCRIBE", evil_key],
        ];
        thread::scope(|scope| {
            // Whatever they are told, an error, a reply or the end of their connection: they are
            // told it.
            let victims: Vec<_> =
                commands.iter().map(|words| scope.spawn(move || fate(listen, words))).collect();
            let enough = |served| served > 0 || since.elapsed() > common::PATIENCE;
            while !enough(served) || !victims.iter().all(|v| v.is_finished()) {
                let reply = bystander.command(&["SET", &good_key, name]).expect("SET");
                // Where an endless reply has just filled the memory, and until it is given up; or
                // where this machine has more to do than the short deadline allows.
                let late = |e: &str| e.starts_with("OOM ") || involves(e, &DEADLINES);
                let full = reply.error().is_some_and(late);
                assert!(reply.is_ok() || full, "{name}: {reply:?}");
                *if full { &mut refused } else { &mut served } += 1;
                let bytes = setting.proxy.metric("slotway_buffer_bytes", "") as usize;
                assert!(bytes < 64 * MIB, "{name}: {bytes} in buffers, limits.memory is 16 MiB");
                thread::sleep(Duration::from_millis(5));
            }
        });
        let millis = since.elapsed().as_millis();
        eprintln!("{name}: {millis} ms, {served} served meanwhile, {refused} refused");
        assert!(served > 0, "{name}: nobody was served meanwhile");
        setting.fake.mode.store(Mode::Good as usize, Ordering::SeqCst);
        common::eventually(&format!("{name}: it is worked with again"), || {
            let mut conn = setting.proxy.connect();
            conn.set_timeout(Some(Duration::from_secs(2))).expect("a timeout");
            conn.command(&["SET", evil_key, "v"]).is_ok_and(|reply| reply.is_ok())
        });
    }
    assert!(setting.proxy.metric("slotway_upstream_failures_total", "") > 2.0);
    let lines = setting.proxy.log().lines().count();
    assert!(lines < 400, "{lines} lines of log about one node");
    assert_eq!(setting.proxy.metric("slotway_worker_restarts_total", ""), 0.0);
}

/// What a client hears; at most a minute's worth of it.
fn fate(listen: SocketAddr, words: &[&str]) {
    let mut stream = TcpStream::connect(listen).expect("a connection");
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    stream.write_all(&request(words)).expect("to send");
    let (mut buffer, mut rest, mut got) = (vec![0; 64 << 10], Vec::new(), 0);
    let mut scan = ReplyScan::default();
    // An endless reply goes on for as long as its client reads.
    while got < 4 * MIB {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                got += n;
                rest.extend_from_slice(&buffer[..n]);
                match scan.advance(&rest).expect("what slotway hands on is RESP") {
                    ReplyProgress::Complete(_) => return,
                    ReplyProgress::Partial(n) => rest.drain(..n),
                };
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(e) => panic!("{words:?}: {got} bytes and then nothing: {e}"),
        }
    }
}

#[test]
fn whatever_a_node_says_of_the_cluster() {
    let setting = Setting::start();
    let good_key = key_below(false);
    let (fake, good) = (setting.fake.addr, setting.server.addr());
    let honest = setting.fake.shards.lock().expect("the topology").clone();
    let node =
        |addr: SocketAddr, role: &str| shards_node(&addr.ip().to_string(), addr.port(), role);
    let dead = |i: usize| shards_node(&format!("127.1.{}.{}", i / 250, 1 + i % 250), 1, "master");
    let many = |count: usize| {
        let shard = |i: usize| shard(&[(i % 16384, i % 16384)], &[dead(i)]);
        format!("*{count}\r\n{}", (0..count).map(shard).collect::<String>())
    };
    let one = |slots: &[(usize, usize)], nodes: &[String]| format!("*1\r\n{}", shard(slots, nodes));
    let cases = [
        ("two owners for all slots", {
            let both = [fake, good].map(|addr| shard(&[(0, 16383)], &[node(addr, "master")]));
            format!("*2\r\n{}", both.concat())
        }),
        ("two primaries in one shard", {
            one(&[(0, 16383)], &[node(fake, "master"), node(good, "master")])
        }),
        ("slots out of range", one(&[(0, 70_000), (5, 2)], &[node(good, "master")])),
        ("no nodes", one(&[(0, 16383)], &[])),
        ("empty hosts", one(&[(0, 16383)], &[shards_node("", good.port(), "master")])),
        ("a host that is none", one(&[(0, 16383)], &[shards_node("?\r\n*1", 1, "master")])),
        ("port 0", one(&[(0, 16383)], &[shards_node("127.0.0.1", 0, "master")])),
        ("thousands of nodes", many(4_000)),
        ("more nodes than there can be", many(20_000)),
        ("nothing at all", "*0\r\n".to_owned()),
        ("an error", "-ERR no\r\n".to_owned()),
        ("no topology", "+OK\r\n".to_owned()),
        ("deeper than deep", "*1\r\n".repeat(100_000) + "+OK\r\n"),
        ("a giant announced", "*9223372036854775807\r\n".to_owned()),
        ("two replies", "*0\r\n*0\r\n".to_owned()),
    ];
    let mut bystander = setting.proxy.connect();
    for (name, topology) in cases {
        let asked = setting.fake.asked.load(Ordering::SeqCst);
        *setting.fake.shards.lock().expect("the topology") = topology;
        common::eventually(&format!("{name}: the node is asked"), || {
            setting.fake.asked.load(Ordering::SeqCst) >= asked + 3
        });
        assert_eq!(bystander.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
        common::eventually(&format!("{name}: it is well"), || {
            setting.proxy.get("/healthz").is_some_and(|(status, _)| status == 200)
        });
        *setting.fake.shards.lock().expect("the topology") = honest.clone();
        common::eventually(&format!("{name}: the truth is believed again"), || {
            let mut conn = setting.proxy.connect();
            conn.command(&["SET", &good_key, name]).expect("SET").is_ok()
        });
    }
    let lines = setting.proxy.log().lines().count();
    assert!(lines < 1_000, "{lines} lines of log about one cluster");
}

/// A hostile node has slots 0 to 8191, a real server the others; slotway knows the former as its
/// seed, and believes it.
struct Setting {
    // Dropped in this order.
    proxy: Proxy,
    server: Standalone,
    fake: Arc<Fake>,
}

impl Setting {
    fn start() -> Setting {
        let server = Standalone::start(StandaloneOptions::default()).expect("a server");
        let fake = Fake::start(server.addr());
        let mut args = vec!["--workers", "1"];
        for set in [
            "timeouts.command=200ms",
            "reconnect.max=50ms",
            "timeouts.connect=500ms",
            "topology.refresh=100ms",
            "topology.min_interval=50ms",
            "limits.memory=16MiB",
        ] {
            args.extend(["--set", set]);
        }
        let make = |name: &str, program: &std::path::Path| server.command(name, program);
        let proxy = Proxy::launch(make, &fake.addr.to_string(), &args);
        common::eventually("slotway is ready", || {
            proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        Setting { proxy, server, fake }
    }
}

/// What the hostile node answers to ordinary commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Good,
    Garbage,
    GiantBulk,
    GiantArray,
    NegativeLength,
    Deep,
    EndlessNesting,
    EndlessLine,
    EndlessError,
    EndlessBulk,
    PushesBefore,
    EndlessPushes,
    EndlessPush,
    Extra,
    MovedToItself,
    MovedAway,
    MovedNowhere,
    AskLoop,
    TryAgain,
    Closed,
    HalfAndSilence,
    Nothing,
    Confirmations,
    Messages,
}

const MODES: &[(&str, Mode)] = &[
    ("garbage", Mode::Garbage),
    ("a giant bulk announced", Mode::GiantBulk),
    ("a giant array announced", Mode::GiantArray),
    ("a negative length", Mode::NegativeLength),
    ("a hundred thousand levels", Mode::Deep),
    ("endless nesting", Mode::EndlessNesting),
    ("an endless line", Mode::EndlessLine),
    ("an endless error", Mode::EndlessError),
    ("an endless bulk", Mode::EndlessBulk),
    ("pushes before the reply", Mode::PushesBefore),
    ("pushes without end", Mode::EndlessPushes),
    ("one push without end", Mode::EndlessPush),
    ("replies that nobody asked for", Mode::Extra),
    ("MOVED to itself", Mode::MovedToItself),
    ("MOVED to a stranger", Mode::MovedAway),
    ("MOVED to nowhere", Mode::MovedNowhere),
    ("ASK in a circle", Mode::AskLoop),
    ("TRYAGAIN for ever", Mode::TryAgain),
    ("the connection closed", Mode::Closed),
    ("half a reply", Mode::HalfAndSilence),
    ("no answer", Mode::Nothing),
    ("confirmations that nobody asked for", Mode::Confirmations),
    ("messages that nobody asked for", Mode::Messages),
];

struct Fake {
    addr: SocketAddr,
    mode: AtomicUsize,
    /// Its answer to CLUSTER SHARDS.
    shards: Mutex<String>,
    /// How often it was asked for it.
    asked: AtomicUsize,
}

impl Fake {
    /// Runs until the process ends.
    fn start(other: SocketAddr) -> Arc<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let node = |addr: SocketAddr| shards_node(&addr.ip().to_string(), addr.port(), "master");
        let halves = [(addr, (0, 8191)), (other, (8192, 16383))];
        let shards = halves.map(|(addr, slots)| shard(&[slots], &[node(addr)])).concat();
        let fake = Arc::new(Fake {
            addr,
            mode: AtomicUsize::new(Mode::Good as usize),
            shards: Mutex::new(format!("*2\r\n{shards}")),
            asked: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&fake);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = Arc::clone(&shared);
                thread::spawn(move || {
                    // It ends when slotway has had enough of it.
                    let _ = fake.serve(&stream);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        fake
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let (mut pending, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            pending.extend_from_slice(&buffer[..n]);
            let mut ranges = Vec::new();
            let limits = RequestLimits::default();
            while let Ok(Request::Array { len }) =
                scan_request(&pending, &limits, &mut RequestProgress::default(), &mut ranges)
            {
                let args = Args::new(&pending, &ranges);
                let words: Vec<String> =
                    args.iter().map(|w| String::from_utf8_lossy(w).to_ascii_uppercase()).collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.answer(&words, stream)?;
                pending.drain(..len);
            }
        }
    }

    fn answer(&self, words: &[&str], mut to: &TcpStream) -> std::io::Result<()> {
        match words {
            ["HELLO", ..] => to.write_all(b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
            ["CLUSTER", "INFO"] => {
                let text = "cluster_state:ok\r\ncluster_current_epoch:1\r\n";
                write!(to, "${}\r\n{text}\r\n", text.len())
            }
            ["CLUSTER", "SHARDS"] => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let shards = self.shards.lock().expect("the topology").clone();
                to.write_all(shards.as_bytes())
            }
            ["CLUSTER", ..] | ["COMMAND"] => to.write_all(b"-ERR not here\r\n"),
            ["INFO", ..] => to.write_all(b"$20\r\nredis_version:7.0.15\r\n"),
            ["PING"] => to.write_all(b"+PONG\r\n"),
            ["CLIENT", ..] | ["READONLY"] | ["ASKING"] => to.write_all(b"+OK\r\n"),
            _ => self.misbehave(words, to),
        }
    }

    fn misbehave(&self, words: &[&str], mut to: &TcpStream) -> std::io::Result<()> {
        let mode = self.mode.load(Ordering::SeqCst);
        let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
        let endless = |begin: &[u8], piece: &[u8]| {
            (&*to).write_all(begin)?;
            loop {
                (&*to).write_all(piece)?;
                // As fast as a network, not as this machine's memory.
                thread::sleep(Duration::from_millis(1));
            }
        };
        let mode = MODES.iter().map(|(_, m)| *m).find(|m| *m as usize == mode);
        let slot = slot_of(words.get(1).unwrap_or(&"").to_ascii_lowercase().as_bytes()).0;
        match mode.unwrap_or(Mode::Good) {
            Mode::Good if words[0] == "SSUBSCRIBE" => {
                let name = words[1].to_ascii_lowercase();
                write!(to, ">3\r\n$10\r\nssubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len())
            }
            Mode::Good => to.write_all(b"+OK\r\n"),
            Mode::Garbage => to.write_all(b"HTTP/1.1 200 OK\r\n\r\n<html>"),
            Mode::GiantBulk => endless(b"$9223372036854775807\r\n", &[b'x'; 64 << 10]),
            Mode::GiantArray => endless(b"*9223372036854775807\r\n", &b"$1\r\nx\r\n".repeat(9_000)),
            Mode::NegativeLength => to.write_all(b"$-5\r\n*-7\r\n"),
            Mode::Deep => {
                to.write_all(&b"*1\r\n".repeat(100_000))?;
                to.write_all(b"+OK\r\n")
            }
            Mode::EndlessNesting => endless(b"", &b"*1\r\n".repeat(16_000)),
            Mode::EndlessLine => endless(b"+", &[b'x'; 64 << 10]),
            Mode::EndlessError => endless(b"-", &[b'x'; 64 << 10]),
            Mode::EndlessBulk => endless(b"$1099511627776\r\n", &[b'x'; 64 << 10]),
            Mode::PushesBefore => {
                to.write_all(&push.repeat(1_000))?;
                to.write_all(b"+OK\r\n")
            }
            Mode::EndlessPushes => endless(b"", &push.repeat(1_000)),
            Mode::EndlessPush => endless(b">3\r\n$1099511627776\r\n", &[b'x'; 64 << 10]),
            Mode::Extra => to.write_all(&b"+OK\r\n".repeat(1_000)),
            Mode::MovedToItself => write!(to, "-MOVED {slot} {}\r\n", self.addr),
            Mode::MovedAway => write!(to, "-MOVED {slot} 127.0.0.1:1\r\n"),
            Mode::MovedNowhere => write!(to, "-MOVED 99999 :0\r\n"),
            Mode::AskLoop => write!(to, "-ASK {slot} {}\r\n", self.addr),
            Mode::TryAgain => to.write_all(b"-TRYAGAIN later\r\n"),
            Mode::Closed => Err(std::io::ErrorKind::ConnectionAborted.into()),
            Mode::HalfAndSilence => to.write_all(b"$10\r\nabc"),
            Mode::Nothing => Ok(()),
            Mode::Confirmations => {
                to.write_all(&b">3\r\n$10\r\nssubscribe\r\n$5\r\nother\r\n:1\r\n".repeat(100))?;
                to.write_all(b"+OK\r\n")
            }
            Mode::Messages => {
                let some = b">3\r\n$8\r\nsmessage\r\n$5\r\nother\r\n$2\r\nhi\r\n>3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n";
                to.write_all(&some.repeat(100))?;
                to.write_all(b"+OK\r\n")
            }
        }
    }
}

/// One node of CLUSTER SHARDS.
fn shards_node(host: &str, port: u16, role: &str) -> String {
    let id = format!("{host}:{port}");
    let fields = [
        ("id", id.as_str()),
        ("ip", host),
        ("endpoint", host),
        ("role", role),
        ("health", "online"),
    ];
    let mut out = "*12\r\n$4\r\nport\r\n".to_owned();
    out.push_str(&format!(":{port}\r\n"));
    for (name, value) in fields {
        out.push_str(&format!("${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len()));
    }
    out
}

/// One shard of CLUSTER SHARDS.
fn shard(slots: &[(usize, usize)], nodes: &[String]) -> String {
    let ranges: String = slots.iter().map(|(a, b)| format!(":{a}\r\n:{b}\r\n")).collect();
    let (ends, count) = (slots.len() * 2, nodes.len());
    format!("*4\r\n$5\r\nslots\r\n*{ends}\r\n{ranges}$5\r\nnodes\r\n*{count}\r\n{}", nodes.concat())
}

/// A key of the hostile node's slots, or of the others.
fn key_below(evil: bool) -> String {
    let mut keys = (0..).map(|i| format!("key-{i}"));
    keys.find(|key| (slot_of(key.as_bytes()).0 < 8192) == evil).expect("a key")
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    words.iter().for_each(|w| out.push_str(&format!("${}\r\n{w}\r\n", w.len())));
    out.into_bytes()
}
