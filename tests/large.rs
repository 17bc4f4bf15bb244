//! Large things pass within the configured memory, and others are served meanwhile. What it takes
//! is printed (`cargo test --test integration large:: -- --nocapture`): the resident set and the
//! buffers before, at the peak and after; and how long another client's commands took. Beside a
//! single server's figures: `benches/large.py`.

use crate::common::{self, Proxy};
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// `limits.memory` of the slotway here. The sandbox's machine may be busy: the deadline is not what
/// is tested.
const SETTINGS: [&str; 4] = ["--set", "limits.memory=640MiB", "--set", "timeouts.command=60s"];
const MEMORY: usize = 640 * MIB;

#[test]
fn a_value_of_256_mib() {
    const SIZE: usize = 256 * MIB;
    let proxy = start();
    measured(&proxy, "SET of 256 MiB", || {
        let mut stream = open(&proxy);
        write!(stream, "*3\r\n$3\r\nSET\r\n$11\r\nlarge:value\r\n${SIZE}\r\n").expect("to send");
        let mut piece = vec![b'v'; MIB];
        for i in 0..SIZE / MIB {
            piece[..8].copy_from_slice(&i.to_le_bytes());
            stream.write_all(&piece).expect("to send");
        }
        stream.write_all(b"\r\n").expect("to send");
        assert_eq!(line(&mut BufReader::new(stream)), "+OK");
    });
    measured(&proxy, "GET of 256 MiB", || {
        let mut stream = open(&proxy);
        stream.write_all(b"GET large:value\r\n").expect("to send");
        let mut reader = BufReader::with_capacity(MIB, stream);
        assert_eq!(line(&mut reader), format!("${SIZE}"));
        let mut got = vec![0; MIB];
        for i in 0..SIZE / MIB {
            reader.read_exact(&mut got).expect("a piece");
            assert!(
                got[..8] == i.to_le_bytes() && got[8..].iter().all(|b| *b == b'v'),
                "piece {i}"
            );
        }
        assert_eq!(line(&mut reader), "");
    });
    proxy.connect().command(&["DEL", "large:value"]).expect("DEL");
}

#[test]
fn hgetall_of_a_million_fields() {
    const FIELDS: usize = 1_000_000;
    let proxy = start();
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let make =
        "for i = 1, ARGV[1] do redis.call('HSET', KEYS[1], 'field:' .. i, 'value:' .. i) end";
    for part in 1..=10 {
        // In parts, as a script keeps its server from everything else.
        let first = (part - 1) * FIELDS / 10;
        let make = make.replace("1, ARGV[1]", &format!("{first} + 1, {first} + ARGV[1]"));
        let made = conn.command(&["EVAL", &make, "1", "large:hash", &(FIELDS / 10).to_string()]);
        assert_eq!(made.expect("EVAL"), Reply::Nil);
    }
    for protocol in ["2", "3"] {
        measured(&proxy, &format!("HGETALL of a million fields, RESP{protocol}"), || {
            let mut stream = open(&proxy);
            write!(stream, "HELLO {protocol}\r\nPING\r\nHGETALL large:hash\r\n").expect("to send");
            let mut reader = BufReader::with_capacity(MIB, stream);
            while line(&mut reader) != "+PONG" {}
            let head = if protocol == "2" { "*2000000" } else { "%1000000" };
            assert_eq!(line(&mut reader), head);
            let mut sum = 0;
            for _ in 0..FIELDS {
                let [_, field, _, value] = [0; 4].map(|_| line(&mut reader));
                let number = field.strip_prefix("field:").expect("a field");
                assert_eq!(value.strip_prefix("value:"), Some(number));
                sum += number.parse::<usize>().expect("a number");
            }
            assert_eq!(sum, FIELDS * (FIELDS + 1) / 2, "each came once");
        });
    }
    conn.command(&["DEL", "large:hash"]).expect("DEL");
}

#[test]
fn mget_of_a_hundred_thousand_keys() {
    const KEYS: usize = 100_000;
    let proxy = start();
    let mut mset = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * KEYS);
    let mut mget = format!("*{}\r\n$4\r\nMGET\r\n", 1 + KEYS);
    for i in 0..KEYS {
        mset += &format!("$14\r\nlarge:m:{i:06}\r\n$6\r\n{i:06}\r\n");
        mget += &format!("$14\r\nlarge:m:{i:06}\r\n");
    }
    measured(&proxy, "MSET of 100,000 keys", || {
        let mut stream = open(&proxy);
        stream.write_all(mset.as_bytes()).expect("to send");
        assert_eq!(line(&mut BufReader::new(stream)), "+OK");
    });
    measured(&proxy, "MGET of 100,000 keys", || {
        let mut stream = open(&proxy);
        stream.write_all(mget.as_bytes()).expect("to send");
        let mut reader = BufReader::new(stream);
        assert_eq!(line(&mut reader), format!("*{KEYS}"));
        for i in 0..KEYS {
            assert_eq!(line(&mut reader), "$6");
            assert_eq!(line(&mut reader), format!("{i:06}"));
        }
    });
    let del = mget.replacen("$4\r\nMGET", "$3\r\nDEL", 1);
    let mut stream = open(&proxy);
    stream.write_all(del.as_bytes()).expect("to send");
    assert_eq!(line(&mut BufReader::new(stream)), format!(":{KEYS}"));
}

#[test]
fn keys_over_a_million_keys() {
    const KEYS: usize = 1_000_000;
    const TAGS: usize = 20;
    let proxy = start();
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let before = conn.command(&["DBSIZE"]).expect("DBSIZE").int().expect("a number");
    let make = "for i = 1, 50000 do redis.call('SET', KEYS[1] .. i, '') end";
    for tag in 0..TAGS {
        let key = format!("large:k:{{{tag}}}:");
        assert_eq!(conn.command(&["EVAL", make, "1", &key]).expect("EVAL"), Reply::Nil);
    }
    let size = conn.command(&["DBSIZE"]).expect("DBSIZE").int().expect("a number");
    assert_eq!(size - before, KEYS as i64);
    measured(&proxy, "KEYS over a million keys", || {
        let mut stream = open(&proxy);
        stream.write_all(b"KEYS large:k:*\r\n").expect("to send");
        let mut reader = BufReader::with_capacity(MIB, stream);
        assert_eq!(line(&mut reader), format!("*{KEYS}"));
        let mut seen = vec![false; KEYS];
        for _ in 0..KEYS {
            line(&mut reader);
            let key = line(&mut reader);
            let number = key.strip_prefix("large:k:{").and_then(|key| {
                let (tag, n) = key.split_once("}:")?;
                Some(tag.parse::<usize>().ok()? * 50_000 + n.parse::<usize>().ok()? - 1)
            });
            let place = number.and_then(|n| seen.get_mut(n));
            let place = place.unwrap_or_else(|| panic!("{key}"));
            assert!(!std::mem::replace(place, true), "{key} came twice");
        }
    });
    measured(&proxy, "KEYS that finds one of a million", || {
        let got = conn.command(&["KEYS", "large:k:{7}:777"]).expect("KEYS");
        assert_eq!(got, Reply::Array(vec![Reply::Bulk(b"large:k:{7}:777".to_vec())]));
    });
    assert!(conn.command(&["FLUSHALL"]).expect("FLUSHALL").is_ok());
}

#[test]
fn a_transaction_of_a_hundred_thousand_commands() {
    const COMMANDS: usize = 100_000;
    let proxy = start();
    measured(&proxy, "a transaction of 100,000 commands", || {
        let mut bytes = String::from("*1\r\n$5\r\nMULTI\r\n");
        for i in 0..COMMANDS {
            let command = if i % 2 == 0 { "INCR" } else { "DECR" };
            bytes += &format!("*2\r\n$4\r\n{command}\r\n$9\r\n{{large}}:t\r\n");
        }
        bytes += "*1\r\n$4\r\nEXEC\r\n*2\r\n$3\r\nGET\r\n$9\r\n{large}:t\r\n";
        let stream = open(&proxy);
        let mut writer = stream.try_clone().expect("a handle");
        thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes.as_bytes()).expect("to send"));
            let mut reader = BufReader::with_capacity(MIB, stream);
            assert_eq!(line(&mut reader), "+OK");
            for i in 0..COMMANDS {
                assert_eq!(line(&mut reader), "+QUEUED", "command {i}");
            }
            assert_eq!(line(&mut reader), format!("*{COMMANDS}"));
            for i in 0..COMMANDS {
                let wanted = if i % 2 == 0 { ":1" } else { ":0" };
                assert_eq!(line(&mut reader), wanted, "command {i}");
            }
            assert_eq!(line(&mut reader), "$1");
            assert_eq!(line(&mut reader), "0");
        });
    });
}

// ------------------------------------------------------------------------------------------------

/// Slotway in front of the cluster that these tests have one after the other.
struct Alone {
    proxy: Proxy,
    _alone: MutexGuard<'static, Cluster>,
}

impl std::ops::Deref for Alone {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

fn start() -> Alone {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        // A server busy for seconds must not be taken for dead.
        let node_timeout = Duration::from_secs(30);
        let options = ClusterOptions { replicas: 0, node_timeout, ..ClusterOptions::default() };
        Mutex::new(Cluster::start(options).expect("a cluster"))
    });
    let alone = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    Alone { proxy: Proxy::start(&alone, &SETTINGS), _alone: alone }
}

/// Does it while another client goes on, and prints what it took. The buffers stay within the
/// configured memory, and are given back.
fn measured(proxy: &Proxy, what: &str, act: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let before = (resident(proxy), buffers(proxy));
    let since = Instant::now();
    let (peak, mut times) = thread::scope(|scope| {
        let done = &done;
        let watching = scope.spawn(move || {
            let mut peak = (0, 0);
            while !done.load(Ordering::Relaxed) {
                peak = (resident(proxy).max(peak.0), buffers(proxy).max(peak.1));
                thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        let other = scope.spawn(move || bystander(proxy, done));
        struct OnDrop<'a>(&'a AtomicBool);
        impl Drop for OnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = OnDrop(done);
        act();
        drop(end);
        (watching.join().expect("the metrics"), other.join().expect("the other client"))
    });
    let took = since.elapsed();
    common::eventually("the buffers are given back", || buffers(proxy) < 16 * MIB);
    let after = (resident(proxy), buffers(proxy));
    let mib = |bytes: usize| bytes / MIB;
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: {took:.1?}; MiB before/peak/after: resident {}/{}/{}, buffers {}/{}/{}; another \
         client's {} commands: median {:.1?}, 99% {:.1?}, longest {:.1?}",
        mib(before.0),
        mib(peak.0),
        mib(after.0),
        mib(before.1),
        mib(peak.1),
        mib(after.1),
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    assert!(peak.1 <= MEMORY, "{what}: {} MiB in buffers", mib(peak.1));
}

/// Another client: PING, and GETs over all nodes; how long each took.
fn bystander(proxy: &Proxy, done: &AtomicBool) -> Vec<Duration> {
    let mut conn: Conn = proxy.connect();
    // It shares the nodes with what is large; what they do not answer it cannot have.
    conn.set_timeout(Some(2 * common::PATIENCE)).expect("a timeout");
    let mut times = Vec::new();
    for i in 0.. {
        let since = Instant::now();
        let reply = match i % 4 {
            0 => conn.command(&["PING"]),
            n => conn.command(&["GET", ["a", "b", "c"][n - 1]]),
        };
        times.push(since.elapsed());
        let reply = reply.expect("the other client is answered");
        assert!(matches!(&reply, Reply::Simple(p) if p == "PONG") || reply == Reply::Nil);
        if done.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    times
}

fn open(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.listen).expect("a connection");
    stream.set_read_timeout(Some(2 * common::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(2 * common::PATIENCE)).expect("a timeout");
    stream
}

/// A line without its end.
fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert!(line.ends_with("\r\n"), "the connection ended: {line:?}");
    line.truncate(line.len() - 2);
    line
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
