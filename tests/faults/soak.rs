//! The soak: clients of all kinds and faults at random for a long time; then slotway must hold what
//! it held after the warm-up, with the same clients connected.
//!
//! What clients notice of a fault is the other tables' business; here errors are only counted. But
//! nobody may wait for a reply for ever, or find the connection closed.

use crate::acts::{FAULTS, Prepared, STAYS, Stage};
use crate::common::{self, Proxy};
use crate::load::Books;
use crate::report;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Faults that leave the cluster as it was; a node that is added is removed again.
const CHOICE: [&str; 13] = [
    "primary-killed",
    "killed-after-failover",
    "shard-killed",
    "failover",
    "failover-force",
    "failover-takeover",
    "resharding",
    "node-added",
    "connections-killed",
    "frozen-0.5",
    "frozen-3",
    "rolling-restart",
    "cluster-restart",
];
/// Longest pause between two faults.
const PAUSE: Duration = Duration::from_secs(5);

/// A kind of client: its name, how many, and one round of what it does.
type Kind = (&'static str, usize, fn(&mut Client) -> io::Result<()>);

const KINDS: [Kind; 8] = [
    ("strings", 8, strings),
    ("pipelines", 3, pipelines),
    ("large values", 1, large),
    ("transactions", 3, transactions),
    ("optimistic locks", 2, watches),
    ("blocking", 4, blocking),
    ("scripts", 3, scripts),
    ("coming and going", 4, visitors),
];
const SUBSCRIBERS: usize = 4;

/// What is compared: its name, the metric and its labels, and how much more may be left.
const HELD: [(&str, &str, &str, More); 13] = [
    ("clients", "slotway_clients", "", More::None),
    ("threads", "process_threads", "", More::None),
    ("clients blocked", "slotway_clients_blocked", "", More::None),
    ("commands held", "slotway_held_commands", "", More::None),
    ("dedicated connections, lent", "slotway_dedicated_connections", "state=\"lent\"", More::None),
    (
        "dedicated connections, idle",
        "slotway_dedicated_connections",
        "state=\"idle\"",
        More::Some(64.0),
    ),
    ("shared connections", "slotway_upstream_connections", "", More::Some(0.0)),
    ("subscriptions", "slotway_pubsub_subscriptions", "", More::None),
    ("subscriptions at nodes", "slotway_pubsub_upstream_subscriptions", "", More::None),
    ("subscription connections", "slotway_pubsub_connections", "", More::Some(6.0)),
    ("buffers (bytes)", "slotway_buffer_bytes", "", More::Some(65536.0)),
    ("file descriptors", "process_open_fds", "", More::Descriptors),
    ("resident memory (bytes)", "process_resident_memory_bytes", "", More::Part(0.25)),
];

/// The place of the shared connections in [`HELD`], behind the dedicated ones.
const SHARED: usize = 6;

/// How much more may be held at the end than after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum More {
    None,
    /// So many.
    Some(f64),
    /// This part of what it was, as allocators keep what they once had.
    Part(f64),
    /// As many as there are more connections to nodes, and a few of the control thread's.
    Descriptors,
}

/// What all threads know.
struct Hall {
    books: Books,
    over: AtomicBool,
    /// Clients are to stop between two rounds.
    pause: AtomicBool,
    parked: AtomicUsize,
    subscribers: AtomicUsize,
    /// By kind of client and text.
    errors: Mutex<BTreeMap<(&'static str, String), u64>>,
    /// What may not happen.
    broken: Mutex<Vec<String>>,
}

/// Reads its options, runs, and writes the table.
pub fn run(args: &[String]) -> ExitCode {
    let option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1)?.parse::<u64>().expect("a number"))
    };
    let minutes = option("--minutes").unwrap_or(30);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the time");
    let seed = option("--seed").unwrap_or_else(|| u64::from(now().subsec_nanos()));
    println!("soak: {minutes} minutes, --seed {seed}");
    let conf = vec!["appendonly yes".to_owned(), STAYS.to_owned()];
    let options = ClusterOptions { conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let proxy = Proxy::start(&cluster, &[]);
    let hall = Hall {
        books: Books::new(proxy.listen),
        over: AtomicBool::new(false),
        pause: AtomicBool::new(false),
        parked: AtomicUsize::new(0),
        subscribers: AtomicUsize::new(0),
        errors: Mutex::default(),
        broken: Mutex::default(),
    };
    let stage = Stage { proxy: RefCell::new(proxy), cluster, prepared: Prepared::default() };
    let lasts = Duration::from_secs(minutes * 60);
    let (faults, before, after) = thread::scope(|scope| {
        let hall = &hall;
        let _end = OnDrop(&hall.over);
        for (name, count, round) in KINDS {
            for i in 0..count {
                scope.spawn(move || Client::new(hall, name, i, seed).work(round));
            }
        }
        for i in 0..SUBSCRIBERS {
            scope.spawn(move || subscribe(hall, i));
        }
        scope.spawn(move || publish(hall));
        let mut random = fastrand::Rng::with_seed(seed);
        // The warm-up: everything once.
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        for name in CHOICE {
            fault(&stage, hall, name);
        }
        let before = quiet(&stage, hall, None);
        let begin = Instant::now();
        while begin.elapsed() < lasts && hall.broken().is_empty() {
            thread::sleep(PAUSE.mul_f64(random.f64()));
            let name = CHOICE[random.usize(..CHOICE.len())];
            println!("{:6.1} s: {name}", begin.elapsed().as_secs_f64());
            fault(&stage, hall, name);
            *faults.entry(name).or_default() += 1;
        }
        let after = quiet(&stage, hall, Some(&before));
        (faults, before, after)
    });
    let comparison = compare(&before, &after);
    let table = table(&hall, minutes, seed, &faults, &comparison);
    println!("{table}");
    report::soak(&table);
    let broken = hall.broken();
    broken.iter().for_each(|text| println!("BROKEN: {text}"));
    let more = comparison.iter().filter(|line| !line.fine).count();
    if broken.is_empty() && more == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One fault, as in the other table.
fn fault(stage: &Stage, hall: &Hall, name: &str) {
    let act = |name: &str| {
        let fault = FAULTS.iter().find(|fault| fault.name == name).expect("a fault");
        (fault.act)(stage, &hall.books);
        stage.cluster.settle().expect("a settled cluster");
    };
    act(name);
    if name == "node-added" {
        act("node-removed");
    }
}

/// Sets a flag when the scope ends, also by a panic.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ------------------------------------------------------------------------------------------------
// What slotway holds.

/// Stops the clients, and reads the metrics; if there is something to compare with, as soon as it
/// is reached again, or when patience is over.
fn quiet(stage: &Stage, hall: &Hall, like: Option<&[f64]>) -> Vec<f64> {
    hall.pause.store(true, Ordering::Relaxed);
    let clients: usize = KINDS.iter().map(|(_, count, _)| count).sum();
    common::eventually("all clients pause", || {
        hall.parked.load(Ordering::Relaxed) == clients || !hall.broken().is_empty()
    });
    // Connections that are too many, and what allocators give back, take their time.
    thread::sleep(Duration::from_secs(5));
    let proxy = stage.proxy.borrow();
    let read = || {
        let mut held: Vec<f64> =
            HELD.iter().map(|(_, name, labels, _)| proxy.metric(name, labels)).collect();
        // The metric has all, the table each kind by itself.
        held[SHARED] -= held[SHARED - 1] + held[SHARED - 2];
        held
    };
    let mut held = read();
    let since = Instant::now();
    while let Some(like) = like
        && since.elapsed() < common::PATIENCE
        && compare(like, &held).iter().any(|line| !line.fine)
    {
        thread::sleep(Duration::from_millis(200));
        held = read();
    }
    hall.pause.store(false, Ordering::Relaxed);
    held
}

struct Line {
    name: &'static str,
    before: f64,
    after: f64,
    fine: bool,
}

fn compare(before: &[f64], after: &[f64]) -> Vec<Line> {
    let connections = |held: &[f64]| -> f64 {
        let all = HELD.iter().zip(held);
        all.filter(|((name, ..), _)| name.contains("connections")).map(|(_, n)| n).sum()
    };
    let rows = HELD.iter().zip(before.iter().zip(after));
    let lines = rows.map(|((name, _, _, more), (was, is))| {
        let most = match more {
            More::None => *was,
            More::Some(n) => was + n,
            More::Part(part) => was * (1.0 + part),
            More::Descriptors => was + (connections(after) - connections(before)).max(0.0) + 8.0,
        };
        Line { name, before: *was, after: *is, fine: *is <= most }
    });
    lines.collect()
}

fn table(
    hall: &Hall,
    minutes: u64,
    seed: u64,
    faults: &BTreeMap<&str, u64>,
    comparison: &[Line],
) -> String {
    let operations = hall.books.operations();
    let list =
        |counts: Vec<String>| if counts.is_empty() { "none".into() } else { counts.join(", ") };
    let faults = list(faults.iter().map(|(name, count)| format!("{count} {name}")).collect());
    let errors = hall.errors.lock().unwrap_or_else(PoisonError::into_inner);
    let errors = errors.iter().map(|((kind, text), count)| format!("{kind} {count} ({text})"));
    let errors = list(errors.collect());
    let mut text = format!(
        "{minutes} minutes, `--seed {seed}`: {operations} operations. Faults: {faults}. \
         Errors: {errors}.\n\n| held | after the warm-up | at the end | |\n|---|---|---|---|\n"
    );
    for Line { name, before, after, fine } in comparison {
        let fine = if *fine { "as before" } else { "more than before" };
        text += &format!("| {name} | {before} | {after} | {fine} |\n");
    }
    for broken in hall.broken() {
        text += &format!("\nBroken: {broken}\n");
    }
    text
}

// ------------------------------------------------------------------------------------------------
// The clients.

impl Hall {
    fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn breaks(&self, text: String) {
        if !self.over.load(Ordering::Relaxed) {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }

    fn connect(&self) -> io::Result<Conn> {
        let mut conn = Conn::tcp(self.books.addr())?;
        conn.set_timeout(Some(common::PATIENCE))?;
        Ok(conn)
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

struct Client<'a> {
    hall: &'a Hall,
    kind: &'static str,
    conn: Option<Conn>,
    number: usize,
    random: fastrand::Rng,
}

impl<'a> Client<'a> {
    fn new(hall: &'a Hall, kind: &'static str, number: usize, seed: u64) -> Client<'a> {
        let random = fastrand::Rng::with_seed(seed ^ (number as u64) << 8);
        Client { hall, kind, conn: None, number, random }
    }

    fn work(mut self, round: fn(&mut Client) -> io::Result<()>) {
        while !self.hall.over() {
            if self.hall.pause.load(Ordering::Relaxed) {
                self.hall.parked.fetch_add(1, Ordering::Relaxed);
                while self.hall.pause.load(Ordering::Relaxed) && !self.hall.over() {
                    thread::sleep(Duration::from_millis(10));
                }
                self.hall.parked.fetch_sub(1, Ordering::Relaxed);
            }
            if let Err(e) = round(&mut self) {
                self.hall.breaks(format!("{} {}: {e}", self.kind, self.number));
                self.conn = None;
            }
            thread::sleep(Duration::from_millis(self.random.u64(1..10)));
        }
    }

    /// Connected from the first use on; every second of a kind speaks RESP3.
    fn conn(&mut self) -> io::Result<&mut Conn> {
        if self.conn.is_none() {
            let mut conn = self.hall.connect()?;
            if self.number % 2 == 1 {
                conn.command(&["HELLO", "3"])?;
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn command(&mut self, words: &[&str]) -> io::Result<Reply> {
        let reply = self.conn()?.command(words)?;
        self.count(&reply);
        Ok(reply)
    }

    fn pipeline(&mut self, commands: &[Vec<&str>]) -> io::Result<Vec<Reply>> {
        let replies = self.conn()?.pipeline(commands)?;
        replies.iter().for_each(|reply| self.count(reply));
        Ok(replies)
    }

    fn count(&self, reply: &Reply) {
        self.hall.books.count();
        if let Some(error) = reply.error() {
            let key = (self.kind, report::brief(error));
            let mut errors = self.hall.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry(key).or_default() += 1;
        }
    }

    /// One of a hundred keys of this kind, so that the data does not grow.
    fn key(&mut self) -> String {
        format!("soak:{}:{}", self.kind, self.random.u8(..100))
    }
}

fn strings(client: &mut Client) -> io::Result<()> {
    let (key, other) = (client.key(), client.key());
    let value = "v".repeat(client.random.usize(1..5_000));
    client.command(&["SET", &key, &value, "PX", "10000"])?;
    client.command(&["GET", &key])?;
    client.command(&["MGET", &key, &other])?;
    client.command(&["DEL", &other])?;
    Ok(())
}

fn pipelines(client: &mut Client) -> io::Result<()> {
    let keys: Vec<String> = (0..50).map(|_| client.key()).collect();
    let commands: Vec<Vec<&str>> =
        keys.iter().flat_map(|key| [vec!["INCR", key], vec!["GET", key]]).collect();
    client.pipeline(&commands)?;
    Ok(())
}

fn large(client: &mut Client) -> io::Result<()> {
    let key = client.key();
    let value = "v".repeat(client.random.usize(100_000..2_000_000));
    client.command(&["SET", &key, &value, "PX", "5000"])?;
    client.command(&["GET", &key])?;
    thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn transactions(client: &mut Client) -> io::Result<()> {
    let (a, b) = (format!("{{t{}}}a", client.number), format!("{{t{}}}b", client.number));
    client.pipeline(&[vec!["MULTI"], vec!["INCR", &a], vec!["INCR", &b], vec!["EXEC"]])?;
    Ok(())
}

fn watches(client: &mut Client) -> io::Result<()> {
    let key = "soak:watched";
    client.command(&["WATCH", key])?;
    client.command(&["GET", key])?;
    client.pipeline(&[vec!["MULTI"], vec!["INCR", key], vec!["EXEC"]])?;
    Ok(())
}

/// Every second one pushes what the others wait for.
fn blocking(client: &mut Client) -> io::Result<()> {
    if client.number.is_multiple_of(2) {
        client.command(&["BLPOP", "soak:queue", "1"])?;
    } else {
        client.command(&["RPUSH", "soak:queue", "item"])?;
        client.command(&["LTRIM", "soak:queue", "-100", "-1"])?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn scripts(client: &mut Client) -> io::Result<()> {
    let key = client.key();
    let script = format!("return redis.call('INCR', KEYS[1]) -- {}", client.random.u8(..20));
    if let Reply::Bulk(sha) = client.command(&["SCRIPT", "LOAD", &script])? {
        let sha = String::from_utf8_lossy(&sha).into_owned();
        client.command(&["EVALSHA", &sha, "1", &key])?;
    }
    client.command(&["EVAL", &script, "1", &key])?;
    Ok(())
}

/// Connects and leaves, in every state that a client can be in.
fn visitors(client: &mut Client) -> io::Result<()> {
    client.conn = None;
    match client.random.u8(..7) {
        0 => drop(client.conn()?),
        1 => drop(client.command(&["PING"])?),
        2 => client.conn()?.send(&["BLPOP", "soak:nothing", "5"])?,
        3 => drop(client.command(&["WATCH", "soak:left"])?),
        4 => {
            let channel = format!("soak:channel:{}", client.random.u8(..10));
            client.command(&["SUBSCRIBE", &channel])?;
        }
        5 => client.conn()?.send_raw(b"*3\r\n$3\r\nSET\r\n$9\r\nsoak:left\r\n$100\r\nhalf")?,
        _ => {
            client.conn()?.send_raw("GET soak:left\r\n".repeat(100).as_bytes())?;
        }
    }
    client.conn = None;
    Ok(())
}

/// Hears something all the time, as the publisher never pauses.
fn subscribe(hall: &Hall, number: usize) {
    hall.subscribers.fetch_add(1, Ordering::Relaxed);
    let listen = || -> io::Result<()> {
        let mut conn = hall.connect()?;
        match number % 2 {
            0 => conn.send(&["SUBSCRIBE", "soak:news", &format!("soak:{number}")])?,
            _ => conn.send(&["PSUBSCRIBE", "soak:n*"])?,
        }
        while !hall.over() {
            conn.receive()?;
        }
        Ok(())
    };
    if let Err(e) = listen() {
        hall.breaks(format!("subscriber {number}: {e}"));
    }
    hall.subscribers.fetch_sub(1, Ordering::Relaxed);
}

fn publish(hall: &Hall) {
    let mut client = Client::new(hall, "publisher", 0, 0);
    // Until the last subscriber has heard that it is over.
    while !hall.over() || hall.subscribers.load(Ordering::Relaxed) > 0 {
        if let Err(e) = client.command(&["PUBLISH", "soak:news", "news"]) {
            hall.breaks(format!("publisher: {e}"));
            client.conn = None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
