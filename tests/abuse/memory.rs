//! Resident memory stays below `limits.memory` + 64 MiB whatever clients do, and is back within
//! 32 MiB of where it began when they are gone.
//!
//! What is asserted is what the kernel counts (`VmHWM`, `VmRSS`), not what slotway says of itself.
//! `cargo test --test abuse memory -- --nocapture` prints each figure; `ABUSE_ONLY=GET` takes those
//! whose name has that in it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use slotway::sandbox::{Cluster, ClusterOptions};

use crate::common::{PATIENCE, Proxy};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What the process may take above `limits.memory`.
const ABOVE: usize = 64 * MIB;
/// What may be left of a load that is gone.
const LEFT: usize = 32 * MIB;
/// A client that slotway has not read from for so long is one that it does not read from.
const STUCK: Duration = Duration::from_millis(1500);

/// One kind of abuse: its name, and what it does. It returns when all its clients are gone.
type Abuse = (String, Box<dyn Fn(&Setting)>);

/// One setting at a time: each keeps all cores busy.
static ALONE: Mutex<()> = Mutex::new(());

struct Setting {
    proxy: Proxy,
    cluster: &'static Cluster,
    limit: usize,
}

impl Setting {
    /// Bytes in this line of `/proc/PID/status`.
    fn status(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.proxy.pid());
        let text = std::fs::read_to_string(path).expect("slotway runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().next().and_then(|n| n.parse::<usize>().ok()).expect("a number")
            * KIB
    }

    /// `VmHWM` counts from now on.
    fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.proxy.pid());
        std::fs::write(path, "5").expect("to forget the peak");
    }
}

/// Carries out one kind of abuse after the other, and fails with all that went wrong.
fn withstands(workers: &str, limit: usize, args: &[&str], abuses: &[Abuse]) {
    let limits = format!("limits.memory={limit}B");
    let args = [&["--workers", workers, "--set", &limits], args].concat();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let setting = Setting { proxy: Proxy::start(cluster(), &args), cluster: cluster(), limit };
    assert!(setting.proxy.connect().command(&["PING"]).is_ok());
    let start = setting.status("VmRSS:");
    let mut wrong = String::new();
    let only = std::env::var("ABUSE_ONLY").unwrap_or_default();
    for (name, abuse) in abuses.iter().filter(|(name, _)| name.contains(&only)) {
        let begun = Instant::now();
        setting.forget_peak();
        abuse(&setting);
        let peak = setting.status("VmHWM:");
        let until = Instant::now() + PATIENCE;
        let (mut left, mut buffers) = (usize::MAX, usize::MAX);
        while (left > start + LEFT || buffers > LEFT) && Instant::now() < until {
            left = setting.status("VmRSS:");
            buffers = setting.proxy.metric("slotway_buffer_bytes", "") as usize;
            thread::sleep(Duration::from_millis(20));
        }
        let figures = format!(
            "{name}, {workers} workers: peak {} MiB of {} + 64, left {} MiB of {} + 32, {} KiB of it in buffers; {:.1} s\n",
            peak / MIB,
            limit / MIB,
            left / MIB,
            start / MIB,
            buffers / KIB,
            begun.elapsed().as_secs_f64(),
        );
        print!("{figures}");
        if peak > limit + ABOVE || left > start + LEFT || buffers > LEFT {
            wrong += &figures;
        }
        let alive = setting.proxy.connect().command(&["PING"]);
        assert!(alive.is_ok_and(|reply| reply.error().is_none()), "after {name}");
    }
    assert!(wrong.is_empty(), "too much memory:\n{wrong}");
}

/// Primaries only, with values of several sizes at keys of each node: `v:SIZE:I`.
fn cluster() -> &'static Cluster {
    static CLUSTER: std::sync::OnceLock<Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
        let cluster = Cluster::start(ClusterOptions {
            conf: vec![
                "client-output-buffer-limit normal 0 0 0".into(),
                "client-output-buffer-limit pubsub 0 0 0".into(),
                "cluster-node-timeout 30000".into(),
            ],
            ..options
        })
        .expect("a cluster");
        let proxy = Proxy::start(&cluster, &["--set", "limits.memory=1GiB"]);
        for size in [KIB, 20 * KIB, 300 * KIB, 8 * MIB, 40 * MIB] {
            for i in 0..6 {
                let mut conn = proxy.connect();
                let key = format!("v:{size}:{i}");
                let value = vec![b'v'; size];
                let set: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
                assert!(conn.command(&set).expect("SET").is_ok());
            }
        }
        cluster
    })
}

/// A request's bytes.
fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Sends `piece` until `total` bytes are sent, slotway closes the connection, or does not read on.
fn pour(stream: &mut TcpStream, piece: &[u8], total: usize) -> bool {
    stream.set_write_timeout(Some(STUCK)).expect("a timeout");
    let mut sent = 0;
    while sent < total {
        let from = sent % piece.len();
        match stream.write(&piece[from..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn open(setting: &Setting) -> TcpStream {
    TcpStream::connect(setting.proxy.listen).expect("a connection")
}

/// `clients` at once: each sends `before`, then `piece` again and again up to `total` bytes, never
/// reads, and stays until all have sent what they could.
fn never_reading(setting: &Setting, clients: usize, before: &[u8], piece: &[u8], total: usize) {
    let mut streams: Vec<TcpStream> = (0..clients).map(|_| open(setting)).collect();
    thread::scope(|scope| {
        for stream in &mut streams {
            scope.spawn(move || {
                if pour(stream, before, before.len()) {
                    pour(stream, piece, total);
                }
            });
        }
    });
    // Until what they asked for has come as far as it will.
    quiet(setting);
}

/// Waits until slotway has nothing more to do for those that are connected, so that the peak is
/// reached; for a while at most, as what is asserted holds at any moment.
fn quiet(setting: &Setting) {
    let (mut last, until) = ((0.0, Instant::now()), Instant::now() + PATIENCE / 3);
    while Instant::now() < until {
        let moved = setting.proxy.metric("slotway_node_received_bytes_total", "")
            + setting.proxy.metric("slotway_client_received_bytes_total", "")
            + setting.proxy.metric("slotway_buffer_bytes", "");
        if moved != last.0 {
            last = (moved, Instant::now());
        }
        // A node that stands still owes its replies for ever.
        let owed = setting.proxy.metric("slotway_upstream_in_flight_bytes", "") > 0.0;
        if last.1.elapsed() > if owed { 2 * STUCK } else { STUCK / 5 } {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn named(name: impl Into<String>, abuse: impl Fn(&Setting) + 'static) -> Abuse {
    (name.into(), Box::new(abuse))
}

fn size_name(size: usize) -> String {
    if size >= MIB { format!("{} MiB", size / MIB) } else { format!("{} KiB", size / KIB) }
}

/// ECHO whose replies nobody takes, each client twice the limit or eight commands.
fn echoes(size: usize) -> Abuse {
    named(format!("ECHO of {}", size_name(size)), move |setting| {
        let piece = request(&[b"ECHO", &vec![b'e'; size]]);
        let clients = (3 * setting.limit / size.max(MIB)).clamp(6, 60);
        let total = (3 * setting.limit / clients / piece.len()).max(2) * piece.len();
        never_reading(setting, clients, b"", &piece, total);
    })
}

/// GETs whose replies nobody takes.
fn gets(size: usize, clients: usize) -> Abuse {
    named(format!("GET of {} by {clients}", size_name(size)), move |setting| {
        let mut piece = Vec::new();
        for i in 0..6 {
            piece.extend(request(&[b"GET", format!("v:{size}:{i}").as_bytes()]));
        }
        let times = (2 * setting.limit / clients / (6 * size)).max(1);
        never_reading(setting, clients, b"", &piece, times * piece.len());
    })
}

/// The same several at once: what cannot be handed on in pieces.
fn mgets(size: usize, clients: usize) -> Abuse {
    named(format!("MGET of 6 × {} by {clients}", size_name(size)), move |setting| {
        let keys: Vec<String> = (0..6).map(|i| format!("v:{size}:{i}")).collect();
        let mut args: Vec<&[u8]> = vec![b"MGET"];
        args.extend(keys.iter().map(|key| key.as_bytes()));
        let piece = request(&args);
        let times = (2 * setting.limit / clients / (6 * size)).max(1);
        never_reading(setting, clients, b"", &piece, times * piece.len());
    })
}

/// Uploads that break off half-way, and their clients stay.
fn unfinished(size: usize) -> Abuse {
    named(format!("half a SET of {}", size_name(size)), move |setting| {
        let clients = (4 * setting.limit / size).clamp(8, 200);
        let whole = request(&[b"SET", b"half", &vec![b'h'; size]]);
        never_reading(setting, clients, &whole[..whole.len() / 2], b"", 0);
    })
}

/// A transaction that is queued and never ends.
fn queued(size: usize) -> Abuse {
    named(format!("MULTI and SETs of {}", size_name(size)), move |setting| {
        let clients = (4 * setting.limit / size.max(MIB)).clamp(4, 30);
        let piece = request(&[b"SET", b"{q}", &vec![b'q'; size]]);
        let total = (4 * setting.limit / clients / piece.len()).max(2) * piece.len();
        never_reading(setting, clients, &request(&[b"MULTI"]), &piece, total);
    })
}

/// A transaction whose reply is large and in one piece.
fn executed(size: usize, split: bool) -> Abuse {
    let kind = if split { "over several slots" } else { "in one slot" };
    named(format!("EXEC {kind} of 6 GETs of {}", size_name(size)), move |setting| {
        let mut piece = request(&[b"MULTI"]);
        for i in 0..6 {
            let i = if split { i } else { 0 };
            piece.extend(request(&[b"GET", format!("v:{size}:{i}").as_bytes()]));
        }
        piece.extend(request(&[b"EXEC"]));
        let times = (setting.limit / 4 / (6 * size)).max(1);
        never_reading(setting, 8, b"", &piece, times * piece.len());
    })
}

/// Small commands without end, by clients that do not read.
fn pipelined(name: &str, command: &'static [&'static [u8]], commands: usize) -> Abuse {
    named(format!("{commands} × {name}"), move |setting| {
        const CLIENTS: usize = 20;
        let piece = request(command).repeat(100);
        let total = piece.len() * (commands / CLIENTS / 100);
        never_reading(setting, CLIENTS, b"", &piece, total);
    })
}

/// Commands of many small arguments.
fn many_arguments() -> Abuse {
    named("MGETs of 20,000 keys", |setting| {
        let piece = request(&vec![&b"MGET"[..]; 20_000]);
        never_reading(setting, 6, b"", &piece, 20 * piece.len());
    })
}

/// Messages to subscribers that never read.
fn messages(size: usize) -> Abuse {
    named(format!("messages of {}", size_name(size)), move |setting| {
        let mut subscribers: Vec<TcpStream> = (0..4).map(|_| open(setting)).collect();
        for stream in &mut subscribers {
            stream.write_all(&request(&[b"SUBSCRIBE", b"news"])).expect("to send");
            let mut begin = [0; 1];
            stream.read_exact(&mut begin).expect("subscribed");
        }
        let piece = request(&[b"PUBLISH", b"news", &vec![b'm'; size]]);
        let times = (3 * setting.limit / size).clamp(6, 50_000);
        let mut publisher = setting.proxy.connect();
        for _ in 0..times.div_ceil(100) {
            let batch = piece.repeat(times.min(100).min((8 * MIB).div_ceil(size)));
            if publisher.send_raw(&batch).is_err() {
                break;
            }
            for _ in 0..batch.len() / piece.len() {
                let Ok(_) = publisher.receive_raw() else { return };
            }
        }
        quiet(setting);
    })
}

/// SETs for a node that stands still.
fn standing_still(size: usize) -> Abuse {
    named(format!("SET of {} to a node that stands still", size_name(size)), move |setting| {
        let cluster = setting.cluster;
        let node = &cluster.primaries().expect("primaries")[0];
        let key = (0..).map(|i| format!("still:{i}")).find(|key| {
            let slot = slotway::cluster::slot_of(key.as_bytes());
            node.slots.iter().any(|range| range.contains(&slot.0))
        });
        let piece = request(&[b"SET", key.expect("a key").as_bytes(), &vec![b's'; size]]);
        cluster.pause(node).expect("SIGSTOP");
        let clients = (4 * setting.limit / size.max(MIB)).clamp(8, 60);
        let total = (4 * setting.limit / clients / piece.len()).max(2) * piece.len();
        never_reading(setting, clients, b"", &piece, total);
        cluster.resume(node).expect("SIGCONT");
    })
}

const SETTINGS: [&str; 6] = [
    "--set",
    "transactions.cross_slot=split",
    "--set",
    "timeouts.command=60s",
    "--set",
    "commands.cross_slot=emulate",
];

/// Each kind of abuse in every other size, so that both lists together have all.
fn shapes(other: usize) -> Vec<Abuse> {
    let every_other =
        |sizes: &[usize]| -> Vec<usize> { sizes.iter().skip(other).step_by(2).copied().collect() };
    let mut all = Vec::new();
    for size in every_other(&[KIB, 20 * KIB, 300 * KIB, MIB, 8 * MIB, 64 * MIB]) {
        all.push(echoes(size));
        all.push(unfinished(size));
        all.push(queued(size));
    }
    for size in every_other(&[20 * KIB, KIB, 300 * KIB, 8 * MIB]) {
        all.push(gets(size, [20, 1][other]));
        all.push(mgets(size, 4));
        all.push(executed(size, false));
        all.push(executed(size, true));
    }
    if other == 0 {
        all.push(echoes(64 * MIB));
        all.push(unfinished(64 * MIB));
    }
    all.push(gets(40 * MIB, 1));
    all.push(mgets(40 * MIB, 2));
    match other {
        0 => all.push(pipelined("PING", &[b"PING"], 1_000_000)),
        _ => all.push(pipelined("GET", &[b"GET", b"v:1024:0"], 100_000)),
    }
    all.push(pipelined("COMMAND", &[b"COMMAND"], 2_000));
    all.push(pipelined("CLIENT LIST", &[b"CLIENT", b"LIST"], 10_000));
    all.push(many_arguments());
    for size in every_other(&[KIB, MIB, 8 * MIB]) {
        all.push(messages(size));
        all.push(standing_still(size));
    }
    all
}

#[test]
fn one_worker_stays_within_its_memory() {
    withstands("1", 96 * MIB, &SETTINGS, &shapes(0));
}

#[test]
fn two_workers_stay_within_their_memory() {
    withstands("2", 96 * MIB, &SETTINGS, &shapes(1));
}
