//! A steady load of numbered writes and reads from many clients, and the balance of its books.
//!
//! A writer alone writes its keys: SET of a number that grows, RPUSH of the same number to a list.
//! So it can be told for each number whether it was acknowledged, refused or left unknown, and
//! afterwards whether it is there, there twice, there although refused, or behind a later one.
//! Everybody reads, and no read may see less than what was acknowledged before it was sent.

use crate::common::{self, errors::is_outcome_unknown};
use slotway::sandbox::{Conn, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Writers that send one command and wait for its reply.
const SINGLES: usize = 12;
/// Writers that send bursts.
const PIPELINES: usize = 4;
/// Clients that only read, what the others write.
const READERS: usize = 8;
/// Strings of each writer, and as many lists.
const KEYS: usize = 8;
/// Numbers written to each key in one burst.
const BURST: usize = 2;
/// Between two commands, or bursts: the load is to be there, not to be heavy.
const PACE: Duration = Duration::from_millis(4);
/// A command sent this long after the moment of a loss was not in flight at that moment. It is the
/// time in which slotway is told of the loss by its sockets.
const MOMENT: Duration = Duration::from_millis(20);

/// A string and a list that one writer numbers.
struct Key {
    string: String,
    list: String,
    /// The greatest number whose SET was answered with OK.
    acknowledged: AtomicU64,
    /// The greatest number sent.
    sent: AtomicU64,
}

/// What all threads know.
pub struct Books {
    addr: SocketAddr,
    keys: Vec<Key>,
    stop: AtomicBool,
    operations: AtomicU64,
    start: Instant,
    /// When connections were lost, from when to when: commands in flight then may fail.
    moments: Mutex<Vec<(Instant, Option<Instant>)>>,
    /// Clients that have got their first reply.
    ready: AtomicU64,
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Acknowledged,
    Unknown,
    Refused,
}

/// Errors of one text.
#[derive(Debug, Default, Clone)]
pub struct Errors {
    pub count: u64,
    /// Those of commands that were not in flight when connections were lost.
    pub outside: u64,
    /// Those of reads with a write to the same key behind them in the same burst: where that may
    /// have been executed, the read may not be sent again.
    pub before_write: u64,
    /// One of them in full.
    pub example: String,
}

/// The longest wait for a reply.
#[derive(Debug, Default, Clone)]
pub struct Longest {
    pub wait: Duration,
    /// For what, and when.
    pub what: String,
}

/// What the clients saw, and what was found afterwards.
#[derive(Debug, Default)]
pub struct Seen {
    pub operations: u64,
    /// By "read" or "write", and text.
    pub errors: BTreeMap<(&'static str, String), Errors>,
    pub longest: Longest,
    /// Reads that saw less than had been acknowledged, or more than had been sent.
    pub went_back: Vec<String>,
    pub acknowledged: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Acknowledged, and there behind a later one.
    pub disordered: u64,
    /// Of unknown outcome, and there behind a later one.
    pub late: u64,
    /// There more than once.
    pub twice: u64,
    /// Refused as not executed, and there.
    pub ghosts: u64,
    pushes: BTreeMap<usize, Vec<End>>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.operations += other.operations;
        for (kind, errors) in other.errors {
            let all = self.errors.entry(kind).or_default();
            all.count += errors.count;
            all.outside += errors.outside;
            all.before_write += errors.before_write;
            all.example = errors.example;
        }
        if other.longest.wait > self.longest.wait {
            self.longest = other.longest;
        }
        self.went_back.extend(other.went_back);
        self.acknowledged += other.acknowledged;
        self.pushes.extend(other.pushes);
    }

    /// Errors of reads or writes.
    pub fn count(&self, of: &str) -> u64 {
        self.errors.iter().filter(|((kind, _), _)| *kind == of).map(|(_, e)| e.count).sum()
    }
}

/// Sets a flag when the scope ends, also by a panic: the others must not run for ever.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs while `disturb` runs; then what was written is looked for at `addr`.
pub fn during<T>(addr: SocketAddr, disturb: impl FnOnce(&Books) -> T) -> (T, Seen) {
    let books = Books::new(addr);
    let (result, mut seen) = thread::scope(|scope| {
        let books = &books;
        let writers = SINGLES + PIPELINES;
        let mut clients: Vec<_> = (0..writers)
            .map(|writer| scope.spawn(move || Client::new(books, writer).write(writer)))
            .collect();
        clients.extend(
            (writers..writers + READERS).map(|n| scope.spawn(move || Client::new(books, n).read())),
        );
        let end = OnDrop(&books.stop);
        common::eventually("all clients have begun", || {
            books.ready.load(Ordering::Relaxed) as usize >= writers + READERS
        });
        books.more(1_000);
        let result = disturb(books);
        books.more(1_000);
        drop(end);
        let mut all = Seen::default();
        clients.into_iter().for_each(|client| all.add(client.join().expect("a client")));
        (result, all)
    });
    books.balance(&mut seen);
    (result, seen)
}

impl Books {
    /// Empty ones, for clients at `addr`.
    pub fn new(addr: SocketAddr) -> Books {
        let keys = (0..SINGLES + PIPELINES).flat_map(|writer| {
            (0..KEYS).map(move |k| Key {
                string: format!("string:{writer}:{k}"),
                list: format!("list:{writer}:{k}"),
                acknowledged: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            })
        });
        Books {
            addr,
            keys: keys.collect(),
            stop: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            start: Instant::now(),
            moments: Mutex::default(),
            ready: AtomicU64::new(0),
        }
    }

    /// Where the clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One more operation is done.
    pub fn count(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are done.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Waits for so many more operations: the load goes on.
    #[track_caller]
    pub fn more(&self, operations: u64) {
        let wanted = self.operations.load(Ordering::Relaxed) + operations;
        common::eventually("the load goes on", || self.operations.load(Ordering::Relaxed) > wanted);
    }

    /// Connections are lost by this: commands in flight meanwhile may end with an unknown outcome.
    pub fn moment<T>(&self, act: impl FnOnce() -> T) -> T {
        self.moments().push((Instant::now(), None));
        let result = act();
        if let Some((_, to)) = self.moments().last_mut() {
            *to = Some(Instant::now());
        }
        result
    }

    /// All keys that are written, for those who move their slots.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().flat_map(|key| [key.string.as_str(), key.list.as_str()])
    }

    fn moments(&self) -> MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for everything that was written.
    fn balance(&self, seen: &mut Seen) {
        let mut conn = Conn::tcp(self.addr).expect("a connection");
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        for (at, key) in self.keys.iter().enumerate() {
            let reply = conn.command(&["GET", &key.string]).expect("GET");
            let value = number(&reply).unwrap_or_else(|| panic!("GET {}: {reply:?}", key.string));
            if value < key.acknowledged.load(Ordering::Relaxed) {
                seen.lost += 1;
            }
            let list = conn.command(&["LRANGE", &key.list, "0", "-1"]).expect("LRANGE");
            let list = list.items().unwrap_or_else(|| panic!("{}: {list:?}", key.list));
            let ends = seen.pushes.remove(&at).unwrap_or_default();
            let (mut there, mut greatest) = (BTreeSet::new(), 0);
            for item in list {
                let n = number(item).unwrap_or_else(|| panic!("{}: {item:?}", key.list));
                let end = ends.get(n as usize - 1);
                if !there.insert(n) {
                    seen.twice += 1;
                } else if n < greatest {
                    match end {
                        Some(End::Acknowledged) => seen.disordered += 1,
                        _ => seen.late += 1,
                    }
                } else if end == Some(&End::Refused) {
                    seen.ghosts += 1;
                }
                greatest = greatest.max(n);
            }
            let acknowledged = ends.iter().enumerate().filter(|(_, e)| **e == End::Acknowledged);
            seen.lost +=
                acknowledged.filter(|(i, _)| !there.contains(&(*i as u64 + 1))).count() as u64;
        }
    }
}

/// One connection, made anew when it is lost.
struct Client<'a> {
    books: &'a Books,
    conn: Option<Conn>,
    resp3: bool,
    seen: Seen,
    random: fastrand::Rng,
}

impl<'a> Client<'a> {
    fn new(books: &'a Books, number: usize) -> Client<'a> {
        let random = fastrand::Rng::with_seed(number as u64);
        // Half of them speak RESP3, as it travels on connections of its own.
        Client { books, conn: None, resp3: number % 2 == 1, seen: Seen::default(), random }
    }

    fn write(mut self, writer: usize) -> Seen {
        let keys = writer * KEYS..(writer + 1) * KEYS;
        self.begin();
        while !self.over() {
            if writer < SINGLES {
                for key in keys.clone() {
                    for command in self.numbered(key) {
                        self.send(&[command]);
                        thread::sleep(PACE);
                        if self.over() {
                            return self.seen;
                        }
                    }
                }
            } else {
                let mut burst = Vec::new();
                for _ in 0..BURST {
                    keys.clone().for_each(|key| burst.extend(self.numbered(key)));
                }
                self.send(&burst);
                thread::sleep(PACE * 10);
            }
        }
        self.seen
    }

    fn read(mut self) -> Seen {
        self.begin();
        while !self.over() {
            let key = self.random.usize(..self.books.keys.len());
            // Most for one node; some for several, and a few for all of them.
            let command = match self.random.u8(..16) {
                0 => Command::Size,
                1..=3 => Command::Several(key),
                _ => Command::Get(key),
            };
            self.send(&[command]);
            thread::sleep(PACE);
        }
        self.seen
    }

    fn begin(&mut self) {
        self.send(&[Command::Get(0)]);
        self.books.ready.fetch_add(1, Ordering::Relaxed);
    }

    fn over(&self) -> bool {
        self.books.stop.load(Ordering::Relaxed)
    }

    /// The next number of a key, written to the string and the list, and the string read back.
    fn numbered(&self, key: usize) -> [Command; 3] {
        let n = self.books.keys[key].sent.fetch_add(1, Ordering::SeqCst) + 1;
        [Command::Set(key, n), Command::Push(key, n), Command::Get(key)]
    }

    fn send(&mut self, commands: &[Command]) {
        let words: Vec<Vec<String>> =
            commands.iter().map(|command| command.words(&self.books.keys)).collect();
        // What a read may not fall behind: for one in a burst, the writes before it are not yet
        // acknowledged, but must have been executed before it if they are.
        let mut least: Vec<Vec<u64>> =
            commands.iter().map(|command| self.acknowledged(command)).collect();
        let since = Instant::now();
        let mut sent = self.connected().and_then(|conn| {
            let bytes: Vec<u8> = words.iter().flat_map(|words| encode(words)).collect();
            conn.send_raw(&bytes)
        });
        for (at, command) in commands.iter().enumerate() {
            let reply = match &sent {
                Ok(()) => self.conn.as_mut().map_or(Err(gone()), Conn::receive),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            };
            if let Err(e) = &reply {
                sent = Err(io::Error::new(e.kind(), e.to_string()));
                self.conn = None;
            }
            self.seen.operations += 1;
            self.books.count();
            let took = since.elapsed();
            if took > self.seen.longest.wait {
                let when = since.duration_since(self.books.start).as_secs_f64();
                let what = format!("{}, sent at {when:.3} s", words[at].join(" "));
                self.seen.longest = Longest { wait: took, what };
            }
            let behind = commands.get(at + 1..).unwrap_or_default();
            let acknowledged = self.entry(command, behind, &reply, &least[at], since);
            if let (true, Command::Set(key, n)) = (acknowledged, command) {
                for (behind, least) in commands.iter().zip(&mut least).skip(at + 1) {
                    if matches!(behind, Command::Get(k) if k == key) {
                        least[0] = least[0].max(*n);
                    }
                }
            }
        }
        if sent.is_err() {
            // A user's library waits as well before it connects again.
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes down what a command was answered with. Whether it is an acknowledged write.
    fn entry(
        &mut self,
        command: &Command,
        behind: &[Command],
        reply: &io::Result<Reply>,
        least: &[u64],
        since: Instant,
    ) -> bool {
        let end = match (command, reply) {
            (Command::Set(..), Ok(reply)) if reply.is_ok() => End::Acknowledged,
            (Command::Push(..), Ok(Reply::Int(_))) => End::Acknowledged,
            (Command::Size, Ok(Reply::Int(_))) => return false,
            (Command::Get(_) | Command::Several(_), Ok(reply)) if reply.error().is_none() => {
                let values = reply.items().unwrap_or(std::slice::from_ref(reply));
                let keys = command.reads(&self.books.keys);
                assert_eq!(values.len(), keys.len(), "{command:?}: {reply:?}");
                for ((key, value), least) in keys.into_iter().zip(values).zip(least) {
                    let Key { string, sent, .. } = &self.books.keys[key];
                    let most = sent.load(Ordering::SeqCst);
                    let value = number(value).unwrap_or_else(|| panic!("{string}: {reply:?}"));
                    if !(*least..=most).contains(&value) {
                        let text = format!("{string}: {value}, not from {least} to {most}");
                        self.seen.went_back.push(text);
                    }
                }
                return false;
            }
            (_, Ok(Reply::Error(text))) => {
                self.error(command, behind, text, since);
                if is_outcome_unknown(text) { End::Unknown } else { End::Refused }
            }
            (_, Err(e)) => {
                let text = match e.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no reply".to_owned(),
                    io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                    _ => "connection closed".to_owned(),
                };
                self.error(command, behind, &text, since);
                End::Unknown
            }
            (command, Ok(reply)) => panic!("{command:?}: {reply:?}"),
        };
        match command {
            Command::Set(key, n) if end == End::Acknowledged => {
                self.books.keys[*key].acknowledged.fetch_max(*n, Ordering::SeqCst);
            }
            Command::Push(key, n) => {
                let ends = self.seen.pushes.entry(*key).or_default();
                ends.resize(*n as usize - 1, End::Unknown);
                ends.push(end);
            }
            _ => {}
        }
        let acknowledged = end == End::Acknowledged;
        self.seen.acknowledged += u64::from(acknowledged);
        acknowledged
    }

    fn error(&mut self, command: &Command, behind: &[Command], text: &str, since: Instant) {
        let moments = self.books.moments().clone();
        let in_flight = moments.iter().any(|(_, to)| to.is_none_or(|to| since <= to + MOMENT));
        let writes = matches!(command, Command::Set(..) | Command::Push(..));
        let kind = if writes { "write" } else { "read" };
        let errors = self.seen.errors.entry((kind, normal(text))).or_default();
        errors.count += 1;
        errors.outside += u64::from(!in_flight);
        let before_write = match command {
            Command::Get(_) | Command::Several(_) => {
                let read = command.reads(&self.books.keys);
                behind.iter().any(|b| matches!(b, Command::Set(k, _) if read.contains(k)))
            }
            _ => false,
        };
        errors.before_write += u64::from(before_write);
        let at = since.duration_since(self.books.start).as_secs_f64();
        errors.example =
            format!("sent at {at:.3} s, after {:.3} s: {text}", since.elapsed().as_secs_f64());
    }

    /// What is acknowledged of each key that it reads.
    fn acknowledged(&self, command: &Command) -> Vec<u64> {
        let keys = &self.books.keys;
        command.reads(keys).iter().map(|k| keys[*k].acknowledged.load(Ordering::SeqCst)).collect()
    }

    fn connected(&mut self) -> io::Result<&mut Conn> {
        if self.conn.is_none() {
            let mut conn = Conn::tcp(self.books.addr)?;
            // Nothing may wait for longer than this.
            conn.set_timeout(Some(common::PATIENCE))?;
            if self.resp3 {
                conn.command(&["HELLO", "3"])?;
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().ok_or_else(gone)
    }
}

/// A command; the number of its key.
#[derive(Debug, Clone, Copy)]
enum Command {
    Set(usize, u64),
    Push(usize, u64),
    Get(usize),
    /// MGET of this one and others, in other slots.
    Several(usize),
    /// DBSIZE
    Size,
}

impl Command {
    /// The keys whose values it returns.
    fn reads(self, keys: &[Key]) -> Vec<usize> {
        match self {
            Command::Get(key) => vec![key],
            Command::Several(key) => (0..4).map(|n| (key + n * 37) % keys.len()).collect(),
            _ => Vec::new(),
        }
    }

    fn words(self, keys: &[Key]) -> Vec<String> {
        match self {
            Command::Set(key, n) => vec!["SET".into(), keys[key].string.clone(), n.to_string()],
            Command::Push(key, n) => vec!["RPUSH".into(), keys[key].list.clone(), n.to_string()],
            Command::Get(key) => vec!["GET".into(), keys[key].string.clone()],
            Command::Several(_) => {
                let names = self.reads(keys).into_iter().map(|key| keys[key].string.clone());
                std::iter::once("MGET".to_owned()).chain(names).collect()
            }
            Command::Size => vec!["DBSIZE".into()],
        }
    }
}

fn encode(words: &[String]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// A key that is not there counts from 0.
fn number(reply: &Reply) -> Option<u64> {
    if *reply == Reply::Nil { Some(0) } else { reply.text()?.parse().ok() }
}

/// An error's text without what is different each time: numbers are N, addresses NODE.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out.replace("N.N.N.N:N", "NODE").replace("N.N s", "N s")
}
