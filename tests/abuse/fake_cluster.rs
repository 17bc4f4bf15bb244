//! A cluster of two made-up primaries that answer as a test wants and count what they are asked.
//! For what real nodes cannot be brought to do on demand.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use slotway::cluster::slot_of;
use slotway::resp::{Args, Request, RequestLimits, RequestProgress, scan_request};
use slotway::sandbox::{Standalone, StandaloneOptions};

use crate::common::{self, Proxy};

/// What the nodes answer to commands, and to logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`, or what fits the command.
    Good,
    /// This error.
    Error(&'static str),
    /// A redirection to the other node, which redirects back. `MOVED` or `ASK`.
    Away(&'static str),
    /// All commands that have arrived are counted and the connection is closed.
    Lost,
    /// Commands get no answer.
    Silent,
    /// HELLO and AUTH get this error; commands are answered.
    NoLogin(&'static str),
}

#[derive(Debug)]
struct State {
    answer: Answer,
    /// By the command's name, both nodes together.
    calls: HashMap<String, u64>,
    addrs: [SocketAddr; 2],
    /// CLUSTER SHARDS calls the first node failed.
    failed: bool,
}

/// Two primaries, each with half of the slots. Their threads end with the process.
pub struct FakeCluster {
    state: Arc<Mutex<State>>,
    /// A real server, for the folder that slotway runs in.
    home: Standalone,
}

impl FakeCluster {
    pub fn start() -> FakeCluster {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let addrs = listeners.each_ref().map(|l| l.local_addr().expect("an address"));
        let (answer, calls) = (Answer::Good, HashMap::new());
        let state = State { answer, calls, addrs, failed: false };
        let state = Arc::new(Mutex::new(state));
        for (node, listener) in listeners.into_iter().enumerate() {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    thread::spawn(move || {
                        // An error is slotway's having closed the connection.
                        let _ = serve(&state, node, &stream);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            });
        }
        let home = Standalone::start(StandaloneOptions::default()).expect("a server");
        FakeCluster { state, home }
    }

    /// slotway in front of it, ready and connected.
    pub fn proxy(&self, args: &[&str]) -> Proxy {
        let seed = self.state.lock().expect("the state").addrs[0].to_string();
        let make = |name: &str, program: &Path| self.home.command(name, program);
        let proxy = Proxy::launch(make, &seed, args);
        common::eventually("slotway is ready", || {
            proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        proxy
    }

    pub fn answer(&self, answer: Answer) {
        self.state.lock().expect("the state").answer = answer;
    }

    /// Whether the topology calls the first node, which owns slots 0 to 8191, failed.
    pub fn fail_first(&self, failed: bool) {
        self.state.lock().expect("the state").failed = failed;
    }

    /// How often commands of this name have arrived, at both nodes together.
    pub fn calls(&self, name: &str) -> u64 {
        self.state.lock().expect("the state").calls.get(name).copied().unwrap_or(0)
    }
}

/// A transaction that a connection has begun.
#[derive(Debug, Default)]
struct Multi {
    /// The replies of its commands so far.
    replies: Vec<String>,
    /// One of its commands was refused.
    broken: bool,
}

fn serve(state: &Mutex<State>, node: usize, mut stream: &TcpStream) -> std::io::Result<()> {
    let (mut arrived, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let mut multi = None;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        arrived.extend_from_slice(&buffer[..n]);
        let (mut ranges, mut out, mut lost) = (Vec::new(), String::new(), false);
        let limits = RequestLimits::default();
        while let Ok(Request::Array { len }) =
            scan_request(&arrived, &limits, &mut RequestProgress::default(), &mut ranges)
        {
            let args = Args::new(&arrived, &ranges);
            let words: Vec<_> =
                args.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            arrived.drain(..len);
            lost |= !reply_in(&mut multi, state, node, &words, &mut out);
        }
        if lost {
            return Ok(());
        }
        stream.write_all(out.as_bytes())?;
    }
}

/// Adds the reply to `out`, inside of MULTI as a server gives it. `false`: the connection is to be
/// closed.
fn reply_in(
    multi: &mut Option<Multi>,
    state: &Mutex<State>,
    node: usize,
    words: &[String],
    out: &mut String,
) -> bool {
    let name = words[0].to_ascii_uppercase();
    match (multi.as_mut(), &*name) {
        (None, "MULTI") => {
            *multi = Some(Multi::default());
            out.push_str("+OK\r\n");
            true
        }
        (Some(_), "EXEC") => {
            let Multi { replies, broken } = multi.take().unwrap_or_default();
            let _ = match broken {
                true => {
                    write!(out, "-EXECABORT Transaction discarded because of previous errors.\r\n")
                }
                false => write!(out, "*{}\r\n{}", replies.len(), replies.concat()),
            };
            true
        }
        (None, _) => reply(state, node, words, out),
        (Some(multi), _) => {
            let mut said = String::new();
            let open = reply(state, node, words, &mut said);
            multi.broken |= said.starts_with('-');
            out.push_str(if said.starts_with('-') || said.is_empty() {
                &said
            } else {
                "+QUEUED\r\n"
            });
            multi.replies.push(said);
            open
        }
    }
}

/// Adds the reply to `out`. `false`: the connection is to be closed.
fn reply(state: &Mutex<State>, node: usize, words: &[String], out: &mut String) -> bool {
    let mut state = state.lock().expect("the state");
    let upper: Vec<String> = words.iter().take(2).map(|w| w.to_ascii_uppercase()).collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    *state.calls.entry(upper[0].to_owned()).or_default() += 1;
    let (answer, addrs) = (state.answer, state.addrs);
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match upper[..] {
        ["HELLO" | "AUTH", ..] if matches!(answer, Answer::NoLogin(_)) => {
            let Answer::NoLogin(error) = answer else { return false };
            let _ = write!(out, "-{error}\r\n");
        }
        ["HELLO", ..] => out.push_str("%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
        ["CLUSTER", "INFO"] => {
            let text = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\n\
                        cluster_known_nodes:2\r\ncluster_current_epoch:1\r\n";
            out.push_str(&bulk(text));
        }
        ["CLUSTER", "SHARDS"] => out.push_str(&shards(addrs, state.failed)),
        ["CLUSTER", "MYID"] => out.push_str(&bulk(&id(node))),
        ["CLUSTER", ..] | ["COMMAND", ..] => out.push_str("-ERR not here\r\n"),
        ["INFO", ..] => out.push_str(&bulk("redis_version:7.0.15")),
        ["PING"] => out.push_str("+PONG\r\n"),
        ["AUTH" | "CLIENT" | "READONLY" | "ASKING", ..] => out.push_str("+OK\r\n"),
        _ => {
            let slot = slot_of(words.get(1).map_or(&b""[..], |key| key.as_bytes())).0;
            match (answer, upper[0]) {
                (Answer::Good | Answer::NoLogin(_), "DBSIZE") => out.push_str(":7\r\n"),
                (Answer::Good | Answer::NoLogin(_), "EXISTS") => out.push_str(":0\r\n"),
                (Answer::Good | Answer::NoLogin(_), "KEYS") => out.push_str("*0\r\n"),
                (Answer::Good | Answer::NoLogin(_), "BLPOP") => out.push_str("*-1\r\n"),
                (Answer::Good | Answer::NoLogin(_), "SSUBSCRIBE") => {
                    for name in &words[1..] {
                        let name = bulk(name);
                        let _ = write!(out, ">3\r\n$10\r\nssubscribe\r\n{name}:1\r\n");
                    }
                }
                (Answer::Good | Answer::NoLogin(_), _) => out.push_str("+OK\r\n"),
                (Answer::Error(error), _) => {
                    let _ = write!(out, "-{error}\r\n");
                }
                (Answer::Away(kind), _) => {
                    let _ = write!(out, "-{kind} {slot} {}\r\n", addrs[1 - node]);
                }
                (Answer::Silent, _) => {}
                (Answer::Lost, _) => return false,
            }
        }
    }
    true
}

fn id(node: usize) -> String {
    format!("{node:040x}")
}

/// The reply to CLUSTER SHARDS.
fn shards(addrs: [SocketAddr; 2], failed: bool) -> String {
    let mut out = "*2\r\n".to_owned();
    for (node, (addr, slots)) in addrs.iter().zip([(0, 8191), (8192, 16383)]).enumerate() {
        let (first, last) = slots;
        let _ =
            write!(out, "*4\r\n$5\r\nslots\r\n*2\r\n:{first}\r\n:{last}\r\n$5\r\nnodes\r\n*1\r\n");
        let _ = write!(out, "*12\r\n$4\r\nport\r\n:{}\r\n", addr.port());
        let (id, ip) = (id(node), addr.ip().to_string());
        let fields = [
            ("id", &*id),
            ("ip", &ip),
            ("endpoint", &ip),
            ("role", "master"),
            ("health", if failed && node == 0 { "fail" } else { "online" }),
        ];
        for (name, value) in fields {
            let _ = write!(out, "${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len());
        }
    }
    out
}
