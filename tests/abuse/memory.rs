//! Resident memory stays below `limits.memory` + 64 MiB whatever clients do, and is back within
//! 32 MiB of where it began when they are gone.
//!
//! What is asserted is what the kernel counts (`VmHWM`, `VmRSS`), not what slotway says of itself.
//! `cargo test --test integration abuse::memory -- --nocapture` prints each figure; `ABUSE_ONLY=GET`
//! takes those whose name has that in it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use slotway::sandbox::{Cluster, ClusterOptions, free_port};

use crate::common::tls::{Ca, client_config};
use crate::common::{PATIENCE, Proxy};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What the process may take above `limits.memory`.
const ABOVE: usize = 64 * MIB;
/// What may be left of a load that is gone.
const LEFT: usize = 32 * MIB;
/// Slotway has done what it can when nothing has moved for so many looks, [`LOOK`] apart.
const STILL: usize = 3;
/// The same while nodes owe replies: they may be working on them, or stand still.
const STILL_OWED: usize = 20;
const LOOK: Duration = Duration::from_millis(120);

/// One kind of abuse: its name, and what it does. It returns when all its clients are gone.
type Abuse = (String, Box<dyn Fn(&Setting)>);

/// How clients connect.
#[derive(Clone)]
enum Way {
    Plain,
    Tls(u16, Arc<ClientConfig>),
}

struct Setting {
    proxy: Proxy,
    limit: usize,
    way: Way,
}

impl Setting {
    fn start(cluster: &Cluster, workers: &str, limit: usize, args: &[&str], way: Way) -> Setting {
        let limits = format!("limits.memory={limit}B");
        let args = [&["--workers", workers, "--set", &limits], &SETTINGS[..], args].concat();
        Setting { proxy: Proxy::start(cluster, &args), limit, way }
    }

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

    /// Carries out one kind of abuse after the other, and fails with all that went wrong.
    fn withstands(&self, what: &str, abuses: &[Abuse]) {
        assert!(self.proxy.connect().command(&["PING"]).is_ok());
        let (limit, start) = (self.limit, self.status("VmRSS:"));
        let mut highest = 0;
        let mut wrong = String::new();
        let only = std::env::var("ABUSE_ONLY").unwrap_or_default();
        for (name, abuse) in abuses.iter().filter(|(name, _)| name.contains(&only)) {
            let begun = Instant::now();
            self.forget_peak();
            abuse(self);
            let peak = self.status("VmHWM:");
            // Freed pages go back within a second of quiet; the deadline is that long because the
            // machine may be busy with something else, and not reaching it is a failure.
            let until = Instant::now() + PATIENCE;
            let (mut left, mut buffers) = (usize::MAX, usize::MAX);
            while (left > start + LEFT || buffers > LEFT) && Instant::now() < until {
                left = self.status("VmRSS:");
                buffers = self.proxy.metric("slotway_buffer_bytes", "") as usize;
                thread::sleep(LOOK);
            }
            let figures = format!(
                "{what}: {name}: peak {} MiB of {} + 64, left {} MiB of {} + 32, {} KiB of it in \
                 buffers; {:.1} s\n",
                peak / MIB,
                limit / MIB,
                left / MIB,
                start / MIB,
                buffers / KIB,
                begun.elapsed().as_secs_f64(),
            );
            print!("{figures}");
            highest = highest.max(peak);
            if peak > limit + ABOVE || left > start + LEFT || buffers > LEFT {
                wrong += &figures;
            }
            let alive = self.proxy.connect().command(&["PING"]);
            assert!(alive.is_ok_and(|reply| reply.error().is_none()), "after {name}");
        }
        assert!(wrong.is_empty(), "too much memory:\n{wrong}");
        let reached = highest > limit / 4 * 3 || !only.is_empty();
        assert!(reached, "{what}: nothing came near the limit: {} MiB", highest / MIB);
    }

    /// What moves while slotway has something to do: bytes received from clients and sent to them,
    /// bytes in buffers, and bytes of commands that nodes have not answered.
    fn progress(&self) -> [f64; 4] {
        const NAMES: [&str; 4] = [
            "slotway_client_received_bytes_total",
            "slotway_client_sent_bytes_total",
            "slotway_buffer_bytes",
            "slotway_upstream_in_flight_bytes",
        ];
        let (_, text) = self.proxy.get("/metrics").expect("/metrics");
        let mut sums = [0.0; 4];
        for line in text.lines().filter(|line| line.starts_with("slotway_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let name = name.split('{').next().unwrap_or_default();
            if let Some(at) = NAMES.iter().position(|wanted| *wanted == name) {
                sums[at] += value.parse::<f64>().expect("a number");
            }
        }
        sums
    }

    /// Waits until slotway has received something since `before` and does not move any more: it has
    /// read from all clients what it wants to, and its buffers are as full as they get.
    fn settles(&self, before: [f64; 4]) {
        // Gigabytes may have to pass on a machine that is busy with other tests.
        let until = Instant::now() + 4 * PATIENCE;
        let (mut last, mut still) = (self.progress(), 0);
        while still < if last[3] > 0.0 { STILL_OWED } else { STILL } {
            assert!(Instant::now() < until, "slotway is still busy: {before:?}, now {last:?}");
            thread::sleep(LOOK);
            let now = self.progress();
            // Connections to nodes come and go meanwhile, and their buffers with them.
            let moved = now[0] != last[0]
                || now[1] != last[1]
                || now[3] != last[3]
                || (now[2] - last[2]).abs() > (256 * KIB) as f64;
            still = if !moved && now[0] > before[0] { still + 1 } else { 0 };
            last = now;
        }
    }

    /// `clients` at once: each sends `before`, then `piece` again and again up to `total` bytes, never
    /// reads, and stays until slotway has done what it can.
    fn never_reading(&self, clients: usize, before: &[u8], piece: &[u8], total: usize) {
        let begin = self.progress();
        thread::scope(|scope| {
            let mut open = Open(Vec::new());
            for _ in 0..clients {
                let mut stream = self.open();
                open.0.push(stream.socket());
                scope.spawn(move || {
                    if pour(&mut stream, before, before.len()) {
                        pour(&mut stream, piece, total);
                    }
                });
            }
            self.settles(begin);
        });
    }

    fn open(&self) -> Stream {
        match &self.way {
            Way::Plain => {
                Stream::Plain(TcpStream::connect(self.proxy.listen).expect("a connection"))
            }
            Way::Tls(port, config) => {
                let socket = TcpStream::connect(("127.0.0.1", *port)).expect("a connection");
                let name = ServerName::try_from("localhost").expect("a name");
                let conn = ClientConnection::new(Arc::clone(config), name).expect("a client");
                Stream::Tls(Box::new(StreamOwned::new(conn, socket)))
            }
        }
    }
}

/// Sockets that are shut down in the end, which wakes those that still want to send.
struct Open(Vec<TcpStream>);

impl Drop for Open {
    fn drop(&mut self) {
        for socket in &self.0 {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A client's connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> TcpStream {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        };
        socket.try_clone().expect("the same socket")
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }
}

/// Sends `piece` until `total` bytes are sent, or the connection is closed.
fn pour(stream: &mut Stream, piece: &[u8], total: usize) -> bool {
    let mut sent = 0;
    while sent < total {
        let from = sent % piece.len();
        match stream.write(&piece[from..piece.len().min(from + MIB)]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

const VALUES: usize = 6;

/// Primaries only, with values of several sizes at keys of each node (`v:SIZE:I`), keys with long
/// names, and large sets in several slots.
fn cluster() -> &'static Cluster {
    static CLUSTER: std::sync::OnceLock<Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = primaries();
        let proxy = Proxy::start(
            &cluster,
            &["--set", "limits.memory=1GiB", "--set", "timeouts.command=60s"],
        );
        let mut conn = proxy.connect();
        for size in [KIB, 20 * KIB, 300 * KIB, MIB, 8 * MIB, 40 * MIB] {
            for i in 0..VALUES {
                let key = format!("v:{size}:{i}");
                let value = vec![b'v'; size];
                let set: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
                assert!(conn.command(&set).expect("SET").is_ok());
            }
        }
        for tag in ["a", "b", "c", "d"] {
            // 20,000 keys of 150 bytes, and sets of 30,000 members of 40 bytes, of which two pairs
            // have half in common.
            let script = "
                local long = string.rep('k', 140)
                for i = 1, 20000 do redis.call('SET', KEYS[1] .. long .. i, '') end
                local from = tonumber(ARGV[1])
                for i = from, from + 29999 do
                    redis.call('SADD', KEYS[1] .. 'set', string.format('%040d', i))
                end
                return redis.status_reply('OK')";
            let (key, from) = (format!("{{{tag}}}"), if tag < "c" { "0" } else { "15000" });
            let filled = conn.command(&["EVAL", script, "1", &key, from]).expect("EVAL");
            assert!(filled.is_ok(), "{filled:?}");
        }
        cluster
    })
}

fn primaries() -> Cluster {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    Cluster::start(ClusterOptions {
        conf: vec![
            "client-output-buffer-limit normal 0 0 0".into(),
            "client-output-buffer-limit pubsub 0 0 0".into(),
            "cluster-node-timeout 30000".into(),
        ],
        ..options
    })
    .expect("a cluster")
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

fn named(name: impl Into<String>, abuse: impl Fn(&Setting) + 'static) -> Abuse {
    (name.into(), Box::new(abuse))
}

fn size_name(size: usize) -> String {
    if size >= MIB { format!("{} MiB", size / MIB) } else { format!("{} KiB", size / KIB) }
}

/// ECHO whose replies nobody takes: in all half as much again as the limit.
fn echoes(size: usize) -> Abuse {
    named(format!("ECHO of {}", size_name(size)), move |setting| {
        let piece = request(&[b"ECHO", &vec![b'e'; size]]);
        let clients = (2 * setting.limit / size.max(MIB)).clamp(6, 40);
        let times = (3 * setting.limit / 2 / clients / piece.len()).max(2);
        setting.never_reading(clients, b"", &piece, times * piece.len());
    })
}

/// What the issue reported: a hundred clients, 8 MB each.
fn echoes_of_many(clients: usize) -> Abuse {
    named(format!("ECHO of 8 MB by {clients}"), move |setting| {
        let piece = request(&[b"ECHO", &vec![b'e'; 8_000_000]]);
        setting.never_reading(clients, b"", &piece, piece.len());
    })
}

/// GETs whose replies nobody takes.
fn gets(size: usize, clients: usize, times: usize) -> Abuse {
    named(format!("{times} × GET of {} by {clients}", size_name(size)), move |setting| {
        let mut piece = Vec::new();
        for i in 0..times.div_ceil(clients) {
            piece.extend(request(&[b"GET", format!("v:{size}:{}", i % VALUES).as_bytes()]));
        }
        setting.never_reading(clients, b"", &piece, piece.len());
    })
}

/// The same several at once: what cannot be handed on in pieces.
fn mgets(size: usize, clients: usize, times: usize) -> Abuse {
    named(format!("{times} × MGET of 6 × {} by {clients}", size_name(size)), move |setting| {
        let keys: Vec<String> = (0..VALUES).map(|i| format!("v:{size}:{i}")).collect();
        let mut args: Vec<&[u8]> = vec![b"MGET"];
        args.extend(keys.iter().map(|key| key.as_bytes()));
        let piece = request(&args);
        setting.never_reading(clients, b"", &piece, times.div_ceil(clients) * piece.len());
    })
}

/// Uploads that break off half-way, and their clients stay.
fn unfinished(size: usize) -> Abuse {
    named(format!("half a SET of {}", size_name(size)), move |setting| {
        let clients = (3 * setting.limit / size).clamp(8, 100);
        let whole = request(&[b"SET", b"half", &vec![b'h'; size]]);
        setting.never_reading(clients, &whole[..whole.len() / 2], b"", 0);
    })
}

/// A transaction that is queued and never ends.
fn queued(size: usize) -> Abuse {
    named(format!("MULTI and SETs of {}", size_name(size)), move |setting| {
        let clients = (2 * setting.limit / size.max(MIB)).clamp(4, 20);
        let piece = request(&[b"SET", b"{q}", &vec![b'q'; size]]);
        let times = (3 * setting.limit / 2 / clients / piece.len()).max(2);
        setting.never_reading(clients, &request(&[b"MULTI"]), &piece, times * piece.len());
    })
}

/// A transaction whose reply is large and in one piece.
fn executed(size: usize, split: bool, clients: usize, times: usize) -> Abuse {
    let kind = if split { "over several slots" } else { "in one slot" };
    named(format!("EXEC {kind} of 6 GETs of {}", size_name(size)), move |setting| {
        let mut piece = request(&[b"MULTI"]);
        for i in 0..VALUES {
            let i = if split { i } else { 0 };
            piece.extend(request(&[b"GET", format!("v:{size}:{i}").as_bytes()]));
        }
        piece.extend(request(&[b"EXEC"]));
        setting.never_reading(clients, b"", &piece, times.div_ceil(clients) * piece.len());
    })
}

/// The same command again and again, by clients that do not read.
fn repeated(name: &str, args: &[&str], clients: usize, times: usize) -> Abuse {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let piece = request(&args);
    named(format!("{times} × {name} by {clients}"), move |setting| {
        let piece = piece.repeat(times.div_ceil(clients));
        setting.never_reading(clients, b"", &piece, piece.len());
    })
}

/// Messages to subscribers that never read.
fn messages(size: usize) -> Abuse {
    named(format!("messages of {}", size_name(size)), move |setting| {
        let mut subscribers: Vec<TcpStream> = (0..4)
            .map(|_| TcpStream::connect(setting.proxy.listen).expect("a connection"))
            .collect();
        for stream in &mut subscribers {
            stream.write_all(&request(&[b"SUBSCRIBE", b"news"])).expect("to send");
            let mut begin = [0; 1];
            stream.read_exact(&mut begin).expect("subscribed");
        }
        let begin = setting.progress();
        let piece = request(&[b"PUBLISH", b"news", &vec![b'm'; size]]);
        let times = (setting.limit / size).clamp(6, 10_000);
        let mut publisher = setting.proxy.connect();
        let each = times.min(100).min((8 * MIB).div_ceil(size));
        for _ in 0..times / each {
            let sent = publisher.send_raw(&piece.repeat(each));
            if sent.is_err() || (0..each).any(|_| publisher.receive_raw().is_err()) {
                break; // it holds most, and was closed
            }
        }
        setting.settles(begin);
    })
}

/// SETs for a node that stands still.
fn standing_still(cluster: &Cluster, setting: &Setting, size: usize) {
    let node = &cluster.primaries().expect("primaries")[0];
    let key = (0..).map(|i| format!("still:{i}")).find(|key| {
        let slot = slotway::cluster::slot_of(key.as_bytes());
        node.slots.iter().any(|range| range.contains(&slot.0))
    });
    let piece = request(&[b"SET", key.expect("a key").as_bytes(), &vec![b's'; size]]);
    cluster.pause(node).expect("SIGSTOP");
    let clients = (2 * setting.limit / size.max(MIB)).clamp(8, 40);
    let times = (3 * setting.limit / 2 / clients / piece.len()).max(2);
    setting.never_reading(clients, b"", &piece, times * piece.len());
    cluster.resume(node).expect("SIGCONT");
}

const SETTINGS: [&str; 6] = [
    "--set",
    "transactions.cross_slot=split",
    "--set",
    "timeouts.command=60s",
    "--set",
    "commands.cross_slot=emulate",
];

/// Small values: what counts is how many there are.
fn small(size: usize, clients: usize) -> Vec<Abuse> {
    // Half as much again as the limit of 16 MiB.
    let times = 24 * MIB / size;
    vec![
        echoes(size),
        unfinished(size),
        queued(size),
        gets(size, clients, times),
        mgets(size, 4, times / VALUES),
        executed(size, false, 8, times / VALUES),
        executed(size, true, 8, times / VALUES),
        messages(size),
    ]
}

/// Large values: what counts is what is there twice.
fn large(sizes: &[usize]) -> Vec<Abuse> {
    let mut all = Vec::new();
    for &size in sizes {
        all.extend([echoes(size), unfinished(size), queued(size)]);
        if size == MIB || size == 8 * MIB {
            all.push(messages(size));
        }
    }
    all
}

/// Replies whose values the nodes have, in all half as much again as the limit of 128 MiB, or more.
fn large_replies(size: usize) -> Vec<Abuse> {
    let times = (192 * MIB / size).div_ceil(VALUES);
    vec![
        gets(size, 10, VALUES * times),
        mgets(size, 4, times),
        executed(size, false, 4, times),
        executed(size, true, 4, times),
    ]
}

/// What is not made of values.
fn many() -> Vec<Abuse> {
    let keys = ["MGET"].repeat(20_000);
    let sets = ["{a}set", "{b}set", "{c}set", "{d}set"];
    vec![
        repeated("PING", &["PING"], 20, 200_000),
        repeated("GET", &["GET", "v:1024:0"], 20, 20_000),
        repeated("COMMAND", &["COMMAND"], 20, 200),
        repeated("CLIENT LIST", &["CLIENT", "LIST"], 20, 1_000),
        repeated("MGET of 20,000 keys", &keys, 4, 16),
        repeated("KEYS of 80,000", &["KEYS", "*kkk*"], 8, 16),
        repeated("SUNION of 4 × 30,000", &[&["SUNION"][..], &sets].concat(), 4, 4),
        repeated("SINTER of 4 × 30,000", &[&["SINTER"][..], &sets].concat(), 4, 4),
    ]
}

#[test]
fn small_values_one_worker() {
    let setting = Setting::start(cluster(), "1", 16 * MIB, &[], Way::Plain);
    setting.withstands("1 worker", &small(KIB, 20));
}

#[test]
fn small_values_two_workers() {
    let setting = Setting::start(cluster(), "2", 16 * MIB, &[], Way::Plain);
    setting.withstands("2 workers", &small(20 * KIB, 1));
}

#[test]
fn large_values_one_worker() {
    let setting = Setting::start(cluster(), "1", 128 * MIB, &[], Way::Plain);
    let mut all = large(&[300 * KIB, 8 * MIB, 64 * MIB]);
    all.extend(large_replies(300 * KIB));
    setting.withstands("1 worker", &all);
}

#[test]
fn large_values_two_workers() {
    let setting = Setting::start(cluster(), "2", 128 * MIB, &[], Way::Plain);
    let mut all = large(&[MIB, 64 * MIB]);
    all.extend(large_replies(8 * MIB));
    setting.withstands("2 workers", &all);
}

#[test]
fn giant_replies() {
    for workers in ["1", "2"] {
        let setting = Setting::start(cluster(), workers, 96 * MIB, &[], Way::Plain);
        let all = [gets(40 * MIB, 1, 20), mgets(40 * MIB, 2, 2), executed(40 * MIB, true, 2, 2)];
        setting.withstands(workers, &all);
    }
}

#[test]
fn a_hundred_clients() {
    for (workers, clients) in [("1", 100), ("2", 50)] {
        let limit = 384 * MIB / 100 * clients;
        let setting = Setting::start(cluster(), workers, limit, &[], Way::Plain);
        setting.withstands(workers, &[echoes_of_many(clients)]);
    }
}

#[test]
fn many_small_parts() {
    for workers in ["1", "2"] {
        let setting = Setting::start(cluster(), workers, 48 * MIB, &[], Way::Plain);
        setting.withstands(workers, &many());
    }
}

#[test]
fn clients_with_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let identity = ca.sign("localhost", &["localhost"]);
    let port = free_port().expect("a free port");
    let values = [
        format!("tls.downstream.listen=127.0.0.1:{port}"),
        format!("tls.downstream.cert={}", identity.cert.display()),
        format!("tls.downstream.key={}", identity.key.display()),
    ];
    let args: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
    let config = Arc::new(client_config(&ca.file, None, false));
    for (workers, size) in [("1", MIB), ("2", 20 * KIB)] {
        let way = Way::Tls(port, Arc::clone(&config));
        let setting = Setting::start(cluster(), workers, 64 * MIB, &args, way);
        let all = [echoes(size), unfinished(size), queued(size), gets(size, 10, 80 * MIB / size)];
        setting.withstands(&format!("TLS, {workers}"), &all);
    }
}

#[test]
fn a_node_that_stands_still() {
    let cluster = Arc::new(primaries());
    for (workers, sizes) in [("1", [KIB, 8 * MIB]), ("2", [20 * KIB, MIB])] {
        let setting = Setting::start(&cluster, workers, 64 * MIB, &[], Way::Plain);
        let abuse = |size| {
            let cluster = Arc::clone(&cluster);
            let name = format!("SET of {} to a node that stands still", size_name(size));
            named(name, move |setting: &Setting| standing_still(&cluster, setting, size))
        };
        setting.withstands(workers, &sizes.map(abuse));
    }
}
