//! Two nodes that are relays to one real server each: they count what slotway asks of them, and one
//! of them is gone at the step that a test names, before the server has it or behind.
//!
//! A node gone is what clients of it see: connections closed, no reply to what was under way, and
//! either new connections that work or none. The servers behind stay, so that what was written is
//! there to be looked at.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use slotway::resp::{Args, Request, RequestLimits, RequestProgress, scan_request};
use slotway::sandbox::Conn;

/// What a node is sent, taken apart into steps: a command, or all from MULTI to EXEC.
#[derive(Default)]
pub struct Units {
    pending: Vec<u8>,
    begun: Unit,
}

#[derive(Default)]
pub struct Unit {
    pub bytes: Vec<u8>,
    /// The first two words of each command.
    pub commands: Vec<String>,
}

impl Units {
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next one that is there as a whole.
    pub fn next(&mut self) -> Option<Unit> {
        let (mut ranges, limits) = (Vec::new(), RequestLimits::default());
        while let Ok(Request::Array { len }) =
            scan_request(&self.pending, &limits, &mut RequestProgress::default(), &mut ranges)
        {
            let args = Args::new(&self.pending, &ranges);
            let words: Vec<String> =
                args.iter().take(2).map(|w| w.escape_ascii().to_string()).collect();
            let name = words.first().map(|w| w.to_ascii_uppercase()).unwrap_or_default();
            self.begun.commands.push(words.join(" "));
            self.begun.bytes.extend(self.pending.drain(..len));
            let within =
                self.begun.commands.first().is_some_and(|first| first.starts_with("MULTI"));
            if !within || name == "EXEC" || name == "DISCARD" {
                return Some(std::mem::take(&mut self.begun));
            }
        }
        None
    }
}

impl Unit {
    /// The server's replies.
    pub fn carried_out(&self, far: &mut Conn) -> std::io::Result<Vec<Vec<u8>>> {
        far.send_raw(&self.bytes)?;
        self.commands.iter().map(|_| far.receive_raw()).collect()
    }
}

/// When it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The server never sees the step.
    Before,
    /// The server has carried it out; its reply is lost.
    Behind,
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowLong {
    /// Who connects anew is served.
    AMoment,
    /// Until [`Relays::heal`].
    ForGood,
}

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// At this step, counted from 1.
    pub step: usize,
    pub when: When,
    pub how_long: HowLong,
}

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    /// The steps so far, as a person reads them.
    steps: Vec<String>,
    /// It has happened.
    struck: bool,
}

struct Shared {
    addrs: [SocketAddr; 2],
    plan: Mutex<Plan>,
    gone: [AtomicBool; 2],
    /// Connections from slotway, for each node.
    open: [Mutex<Vec<TcpStream>>; 2],
    made: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both of them. They end with the process.
pub struct Relays(Arc<Shared>);

/// The first half of the slots is the first node's.
pub fn is_first(slot: u16) -> bool {
    slot < 8192
}

impl Relays {
    pub fn start(servers: [SocketAddr; 2]) -> Relays {
        let listeners = servers.map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let addrs = listeners.each_ref().map(|l| l.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            addrs,
            plan: Mutex::default(),
            gone: Default::default(),
            open: Default::default(),
            made: AtomicUsize::new(0),
        });
        for (node, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for near in listener.incoming().flatten() {
                    if shared.gone[node].load(Ordering::SeqCst) {
                        continue;
                    }
                    shared.made.fetch_add(1, Ordering::SeqCst);
                    lock(&shared.open[node]).push(near.try_clone().expect("a handle"));
                    let (shared, server) = (Arc::clone(&shared), servers[node]);
                    thread::spawn(move || {
                        // It ends when one of the two has had enough.
                        let _ = shared.serve(node, &near, server);
                        let _ = near.shutdown(Shutdown::Both);
                    });
                }
            });
        }
        Relays(shared)
    }

    pub fn seeds(&self) -> String {
        self.0.addrs.map(|addr| addr.to_string()).join(",")
    }

    /// Counts from here on.
    pub fn arm(&self, fault: Option<Fault>) {
        *lock(&self.0.plan) = Plan { fault, ..Plan::default() };
    }

    /// Both nodes are there; the steps that were seen, and whether the fault was among them.
    pub fn heal(&self) -> (Vec<String>, bool) {
        let plan = std::mem::take(&mut *lock(&self.0.plan));
        self.0.gone.iter().for_each(|gone| gone.store(false, Ordering::SeqCst));
        (plan.steps, plan.struck)
    }
}

impl Shared {
    fn serve(&self, node: usize, mut near: &TcpStream, server: SocketAddr) -> std::io::Result<()> {
        near.set_nodelay(true)?;
        let mut far = Conn::tcp(server)?;
        let (mut units, mut buffer) = (Units::default(), vec![0; 64 << 10]);
        loop {
            let n = near.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            units.push(&buffer[..n]);
            while let Some(unit) = units.next() {
                let last = unit.commands.last().map(String::as_str).unwrap_or_default();
                let mut words = last.split(' ').map(str::to_ascii_uppercase);
                let name = words.next().unwrap_or_default();
                let is_step = !CHORES.contains(&name.as_str());
                let fault = is_step.then(|| self.step(node, &unit.commands.join(", "))).flatten();
                if fault.is_some_and(|fault| fault.when == When::Before) {
                    return self.strike(node, fault);
                }
                let replies = match words.next() {
                    Some(sub) if name == "CLUSTER" && sub == "SHARDS" => vec![self.shards()],
                    Some(sub) if name == "CLUSTER" && sub == "INFO" => {
                        let text = "cluster_state:ok\r\ncluster_current_epoch:1\r\n";
                        vec![format!("${}\r\n{text}\r\n", text.len()).into_bytes()]
                    }
                    _ => unit.carried_out(&mut far)?,
                };
                if fault.is_some() {
                    return self.strike(node, fault);
                }
                near.write_all(&replies.concat())?;
            }
        }
    }

    /// Notes a step. The fault, if it is now.
    fn step(&self, node: usize, names: &str) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        plan.steps.push(format!("{}: {names}", ["first", "second"][node]));
        let now = plan.steps.len();
        let fault = plan.fault.filter(|fault| fault.step == now && !plan.struck)?;
        plan.struck = true;
        Some(fault)
    }

    fn strike(&self, node: usize, fault: Option<Fault>) -> std::io::Result<()> {
        let for_good = fault.is_some_and(|fault| fault.how_long == HowLong::ForGood);
        self.gone[node].store(for_good, Ordering::SeqCst);
        for stream in lock(&self.open[node]).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    /// CLUSTER SHARDS as both nodes tell it.
    fn shards(&self) -> Vec<u8> {
        let mut out = "*2\r\n".to_owned();
        for (addr, (from, to)) in self.addrs.iter().zip([(0, 8191), (8192, 16383)]) {
            let (host, port) = (addr.ip().to_string(), addr.port());
            out += &format!("*4\r\n$5\r\nslots\r\n*2\r\n:{from}\r\n:{to}\r\n$5\r\nnodes\r\n*1\r\n");
            out += &format!("*12\r\n$4\r\nport\r\n:{port}\r\n");
            let id = format!("{host}:{port}");
            for (name, value) in [
                ("id", id.as_str()),
                ("ip", &host),
                ("endpoint", &host),
                ("role", "master"),
                ("health", "online"),
            ] {
                out += &format!("${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len());
            }
        }
        out.into_bytes()
    }
}

/// What a connection needs, and what slotway asks for itself: no steps.
const CHORES: [&str; 12] = [
    "HELLO", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "INFO", "PING", "READONLY", "ASKING",
    "SELECT", "SCRIPT", "CONFIG",
];
