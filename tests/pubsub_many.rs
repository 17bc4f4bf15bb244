//! Thousands of subscribers, some of which never read: these are closed at their limit, all others
//! hear everything, and a message's bytes are held once however many wait for them.
//!
//! `PUBSUB_DIRECT=1` has it run straight against a server, whose own limits are the model.

use crate::common::{PATIENCE, Proxy, eventually, eventually_ok};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slotway::sandbox::{Cluster, ClusterOptions, Conn};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// As many as asked for, as long as there are files for them.
const SUBSCRIBERS: usize = 5_000;
/// Of each kind: those of `mid` get above the soft limit, those of `big` above the hard one.
const NEVER_READ: usize = 50;
/// Who reads what they hear beside those who do not.
const READ: usize = 10;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const HARD: usize = 4 * MIB;
/// Above the soft limit, which is 256 KiB, and below the hard one.
const SOFT_ENOUGH: usize = MIB;

#[test]
fn those_who_never_read_are_closed_and_the_others_hear_everything() {
    let files = getrlimit(Resource::Nofile);
    let most = files.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..files }).expect("a limit");
    let total = SUBSCRIBERS.min(most as usize - 200);
    eprintln!("{total} subscribers, {most} files");

    let target = Target::start();
    let mut crowd = Crowd::new();
    let mut stuck: Vec<TcpStream> = Vec::new();
    for i in 0..2 * NEVER_READ {
        stuck.push(never_read(target.addr, i % 2 == 1, if i < NEVER_READ { "mid" } else { "big" }));
    }
    for i in 0..READ {
        crowd.join(target.addr, i % 2 == 1, MID);
        crowd.join(target.addr, i % 2 == 1, BIG);
    }
    for i in 0..total - 2 * NEVER_READ - 2 * READ {
        crowd.join(target.addr, i % 2 == 1, SMALL);
    }
    crowd.until("all subscriptions are confirmed", |member| member.confirmed);
    let mut conn = Conn::tcp(target.addr).expect("a connection");
    let all = total - 2 * READ;
    eventually_ok("those who never read are subscribed", || {
        let reply = conn.command(&["PUBSUB", "NUMSUB", "small", "mid", "big"]).expect("NUMSUB");
        let counts: Vec<i64> =
            reply.items().expect("counts").iter().filter_map(|n| n.int()).collect();
        let wanted = [all, NEVER_READ + READ, NEVER_READ + READ].map(|n| n as i64);
        if counts == wanted { Ok(()) } else { Err(format!("{counts:?}, wanted {wanted:?}")) }
    });
    target.check("slotway_pubsub_clients", "", total);
    let since = Instant::now();
    for _ in 0..5 {
        let count = crowd.publish(&mut conn, SMALL, 200);
        assert_eq!(count, all as i64);
    }
    crowd.drain("small messages");
    eprintln!("5 messages to {all}: {:.1?}", since.elapsed());

    // Those of `mid` wait for more than the soft limit, each for the same bytes.
    let memory = target.resident();
    while target.queued() < SOFT_ENOUGH {
        crowd.publish(&mut conn, MID, 64 * KIB);
        crowd.drain("messages to those who read beside those who do not");
    }
    let (queued, grown) = (target.queued(), target.resident().saturating_sub(memory));
    eprintln!("{queued} bytes wait for {NEVER_READ}, the process has grown by {grown}");
    if target.proxy.is_some() {
        assert!(grown < NEVER_READ * SOFT_ENOUGH / 2, "each has a copy: {grown} bytes more");
    }
    crowd.publish(&mut conn, SMALL, 200);
    crowd.drain("a small message while others do not read");
    eventually("those above the soft limit are closed", || target.closed(all) >= NEVER_READ);
    assert_eq!(target.closed(all), NEVER_READ);
    target.check_limit("pubsub_soft", NEVER_READ..=NEVER_READ);

    // Those of `big` go above the hard one in a step or two.
    let since = Instant::now();
    while target.closed(all) < 2 * NEVER_READ {
        assert!(since.elapsed() < PATIENCE, "{} were closed", target.closed(all));
        crowd.publish(&mut conn, BIG, MIB);
        crowd.drain("big messages");
    }
    // Whoever was above the soft limit for too long before that was closed for it.
    target.check_limit("pubsub_hard", 1..=NEVER_READ);
    target.check_limit("pubsub_", 2 * NEVER_READ..=2 * NEVER_READ);

    let count = crowd.publish(&mut conn, SMALL, 200);
    assert_eq!(count, (all - 2 * NEVER_READ) as i64);
    crowd.drain("the last message");
    crowd.assert_nothing_more();
    for mut stream in stuck {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut got = Vec::new();
        match stream.read_to_end(&mut got) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
        assert!(!got.is_empty(), "it was confirmed at least");
    }
    target.check("slotway_pubsub_clients", "", total - 2 * NEVER_READ);
    target.check("slotway_pubsub_held_bytes", "", 0);
    if let Some(proxy) = &target.proxy {
        let dropped = proxy.metric("slotway_pubsub_dropped_total", "");
        assert!(dropped >= (2 * NEVER_READ) as f64, "{dropped} messages dropped");
        assert_eq!(proxy.metric("slotway_pubsub_gaps_total", ""), 0.0);
    }
    drop(crowd);
    target.check("slotway_pubsub_clients", "", 0);
}

/// Slotway, or a server by itself.
struct Target {
    addr: SocketAddr,
    // Dropped in this order.
    proxy: Option<Proxy>,
    cluster: Cluster,
}

impl Target {
    fn start() -> Target {
        let limit = format!("client-output-buffer-limit pubsub {HARD} 262144 1");
        let direct = std::env::var_os("PUBSUB_DIRECT").is_some();
        let conf = if direct { vec![limit] } else { Vec::new() };
        let options =
            ClusterOptions { primaries: 1, replicas: 0, conf, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).expect("a cluster");
        let hard = format!("pubsub.output_hard={}MiB", HARD / MIB);
        let args = ["--workers", "2", "--set", &hard];
        let soft = ["--set", "pubsub.output_soft=256KiB", "--set", "pubsub.output_soft_time=1s"];
        let proxy = (!direct).then(|| Proxy::start(&cluster, &[&args[..], &soft].concat()));
        let addr = proxy.as_ref().map_or(cluster.addrs()[0], |proxy| proxy.listen);
        Target { addr, proxy, cluster }
    }

    /// The most that waits for anybody.
    fn queued(&self) -> usize {
        if let Some(proxy) = &self.proxy {
            return proxy.metric("slotway_pubsub_held_bytes", "") as usize;
        }
        let list = self.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        let omem = |line: &str| line.split(' ').find_map(|f| f.strip_prefix("omem=")?.parse().ok());
        list.lines().filter_map(omem).max().unwrap_or(0)
    }

    /// How many were closed of those who listen to `small`.
    fn closed(&self, all: usize) -> usize {
        match &self.proxy {
            Some(proxy) => proxy.metric("slotway_limits_hit_total", "limit=\"pubsub_") as usize,
            None => {
                let mut conn = Conn::tcp(self.addr).expect("a connection");
                let reply = conn.command(&["PUBSUB", "NUMSUB", "small"]).expect("NUMSUB");
                all - reply.items().and_then(|items| items[1].int()).expect("a number") as usize
            }
        }
    }

    fn resident(&self) -> usize {
        self.proxy.as_ref().map_or(0, |p| p.metric("process_resident_memory_bytes", "") as usize)
    }

    #[track_caller]
    fn check(&self, metric: &str, labels: &str, wanted: usize) {
        let Some(proxy) = &self.proxy else { return };
        eventually_ok(&format!("{metric} is {wanted}"), || {
            let now = proxy.metric(metric, labels);
            if now == wanted as f64 { Ok(()) } else { Err(format!("it is {now}")) }
        });
    }

    #[track_caller]
    fn check_limit(&self, limit: &str, wanted: std::ops::RangeInclusive<usize>) {
        let Some(proxy) = &self.proxy else { return };
        let hits = proxy.metric("slotway_limits_hit_total", &format!("limit=\"{limit}"));
        assert!(wanted.contains(&(hits as usize)), "{limit}: {hits}, wanted {wanted:?}");
    }

    fn ask(&self, command: &[&str]) -> String {
        let node = self.cluster.nodes().expect("nodes").remove(0);
        let mut conn = self.cluster.connect(&node).expect("a connection");
        conn.command(command).expect("a reply").text().unwrap_or_default()
    }
}

const NAMES: [&str; 3] = ["small", "mid", "big"];
const SMALL: usize = 0;
const MID: usize = 1;
const BIG: usize = 2;

/// All who read, in one thread: each is to get the very bytes of its channel's messages.
struct Crowd {
    poll: Poll,
    members: Vec<Member>,
    /// By channel and protocol: all messages so far, as they are heard.
    said: [[Vec<u8>; 2]; 3],
    numbers: usize,
}

struct Member {
    stream: mio::net::TcpStream,
    channel: usize,
    resp3: bool,
    confirmed: bool,
    /// Bytes up to the confirmation.
    before: Vec<u8>,
    /// How much of what was said it has heard.
    heard: usize,
}

impl Crowd {
    fn new() -> Crowd {
        let poll = Poll::new().expect("a poll");
        Crowd { poll, members: Vec::new(), said: Default::default(), numbers: 0 }
    }

    fn join(&mut self, addr: SocketAddr, resp3: bool, channel: usize) {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.write_all(&subscribe(resp3, &[NAMES[channel]])).expect("to subscribe");
        stream.set_nonblocking(true).expect("not to block");
        let mut stream = mio::net::TcpStream::from_std(stream);
        let token = Token(self.members.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE).expect("to register");
        let (confirmed, before, heard) = (false, Vec::new(), 0);
        self.members.push(Member { stream, channel, resp3, confirmed, before, heard });
        if self.members.len().is_multiple_of(100) {
            self.turn(Duration::ZERO);
        }
    }

    /// Publishes one message of so many bytes; returns the reply.
    fn publish(&mut self, conn: &mut Conn, channel: usize, bytes: usize) -> i64 {
        self.numbers += 1;
        let name = NAMES[channel];
        let number = format!("{:09}", self.numbers);
        let text = number + &"x".repeat(bytes - 9);
        let len = name.len();
        let frame = format!("3\r\n$7\r\nmessage\r\n${len}\r\n{name}\r\n${bytes}\r\n{text}\r\n",);
        for (resp3, said) in self.said[channel].iter_mut().enumerate() {
            said.push(if resp3 == 1 { b'>' } else { b'*' });
            said.extend(frame.as_bytes());
        }
        let reply = conn.command(&["PUBLISH", name, &text]).expect("PUBLISH");
        reply.int().unwrap_or_else(|| panic!("PUBLISH {name}: {reply:?}"))
    }

    /// Reads until all have heard everything.
    #[track_caller]
    fn drain(&mut self, what: &str) {
        let lengths = self.said.each_ref().map(|said| said[0].len());
        self.until(what, |member| member.heard == lengths[member.channel]);
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Member) -> bool) {
        let since = Instant::now();
        loop {
            let missing = self.members.iter().filter(|member| !done(member)).count();
            if missing == 0 {
                return;
            }
            let all = self.members.len();
            assert!(since.elapsed() < PATIENCE, "{what}: {missing} of {all} have not got it");
            self.turn(Duration::from_millis(20));
        }
    }

    /// Nobody has got, or will get, more than was said: an answer is the last thing to come.
    #[track_caller]
    fn assert_nothing_more(&mut self) {
        let done = |crowd: &mut Crowd| {
            crowd.turn(Duration::from_millis(200));
            crowd.members.iter().all(|m| m.heard == crowd.said[m.channel][0].len())
        };
        assert!(done(self), "somebody has got more than was said");
    }

    /// Reads what there is.
    fn turn(&mut self, wait: Duration) {
        let mut events = Events::with_capacity(1024);
        self.poll.poll(&mut events, Some(wait)).expect("to poll");
        let mut buffer = vec![0; 256 * KIB];
        for event in &events {
            let member = &mut self.members[event.token().0];
            loop {
                match member.stream.read(&mut buffer) {
                    Ok(0) => panic!("a subscriber that reads was closed"),
                    Ok(n) => member.take(&buffer[..n], &self.said),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("a subscriber that reads: {e}"),
                }
            }
        }
    }
}

impl Member {
    fn take(&mut self, mut bytes: &[u8], said: &[[Vec<u8>; 2]; 3]) {
        if !self.confirmed {
            self.before.extend(bytes);
            let (sign, name) = (if self.resp3 { '>' } else { '*' }, NAMES[self.channel]);
            let len = name.len();
            let wanted = format!("{sign}3\r\n$9\r\nsubscribe\r\n${len}\r\n{name}\r\n:1\r\n");
            // Nothing is published before all are confirmed.
            self.confirmed = self.before.ends_with(wanted.as_bytes());
            bytes = &[];
        }
        let said = &said[self.channel][usize::from(self.resp3)];
        let wanted = said.get(self.heard..self.heard + bytes.len());
        assert!(wanted == Some(bytes), "not what was said, at byte {}", self.heard);
        self.heard += bytes.len();
    }
}

/// One that subscribes and takes in as little as can be.
fn never_read(addr: SocketAddr, resp3: bool, channel: &str) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 * KIB).expect("a small buffer");
    socket.connect(&addr.into()).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream.write_all(&subscribe(resp3, &["small", channel])).expect("to subscribe");
    stream
}

fn subscribe(resp3: bool, channels: &[&str]) -> Vec<u8> {
    let hello = if resp3 { "HELLO 3\r\n" } else { "" };
    format!("{hello}SUBSCRIBE {}\r\n", channels.join(" ")).into_bytes()
}
