//! Faults of the network: lost packets, partitions, changed addresses (in a network namespace of
//! our own, by `nft`), and a relay that delays.
//!
//! `tests/faults/run.sh` makes the namespace: a network with nothing but a loopback interface, and
//! an /etc/hosts that may be written to. Without it such faults are left out, and it is said.

use slotway::sandbox::{Cluster, Conn, Node, free_port};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Says that we are in the namespace.
const VARIABLE: &str = "FAULTS_NAMESPACE";
/// The chain that all rules go to.
const CHAIN: &str = "inet faults input";

/// Whether there is a namespace of our own.
pub fn own_namespace() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The namespace's packet filter. Everything passes, but for the rules that are set.
pub struct Filter;

impl Filter {
    /// An empty one.
    pub fn new() -> Filter {
        assert!(own_namespace(), "not in a network namespace of our own");
        let _ = nft(&["delete", "table", "inet", "faults"]);
        must(&["add", "table", "inet", "faults"]);
        must(&[&format!("add chain {CHAIN} {{ type filter hook input priority 0; }}")]);
        Filter
    }

    /// More rules, in nft's words, all at once: none of them comes before the others.
    pub fn rules(&self, rules: &[String]) {
        let lines = rules.iter().map(|rule| format!("add rule {CHAIN} {rule}"));
        must(&[&lines.collect::<Vec<_>>().join("\n")]);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        must(&[&format!("flush chain {CHAIN}")]);
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = nft(&["delete", "table", "inet", "faults"]);
    }
}

/// Between slotway (and this process) and the node; other nodes come from other addresses.
pub fn between_slotway_and(node: &Node) -> Vec<String> {
    let port = node.addr.port();
    vec![
        format!("ip saddr 127.0.0.1 tcp dport {port} drop"),
        format!("ip daddr 127.0.0.1 tcp sport {port} drop"),
    ]
}

/// Between the node and all others, on the bus and for replication. `number` is its place among
/// the cluster's nodes, as for [`give_nodes_addresses`].
pub fn between_nodes_and(node: &Node, number: usize) -> Vec<String> {
    let (port, bus) = (node.addr.port(), node.bus_port);
    let own = source(number);
    vec![
        format!("ip saddr {own} drop"),
        format!("ip daddr {own} drop"),
        format!("tcp dport {bus} drop"),
        format!("tcp sport {bus} drop"),
        format!("ip saddr 127.0.1.0/24 tcp dport {port} drop"),
        format!("ip daddr 127.0.1.0/24 tcp sport {port} drop"),
    ]
}

/// From which a node connects to others.
fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number as u8 + 1)
}

/// Every node connects to the others from an address of its own, so that rules can tell who sends:
/// those that are connected already are made to connect again.
pub fn give_nodes_addresses(cluster: &Cluster, filter: &Filter) {
    let nodes = cluster.nodes().expect("the nodes");
    for (number, node) in nodes.iter().enumerate() {
        let own = source(number).to_string();
        set(cluster, node, "bind-source-addr", &own);
    }
    let resets = nodes.iter().map(|n| format!("tcp dport {} reject with tcp reset", n.bus_port));
    filter.rules(&resets.collect::<Vec<_>>());
    // A connection is reset when something is sent on it: each carries a ping a second.
    let ports: Vec<u16> = nodes.iter().map(|node| node.bus_port).collect();
    crate::common::eventually("no old connection is left", || old_connections(&ports) == 0);
    filter.heal();
    for node in nodes.iter().filter(|node| node.is_primary()) {
        let mut conn = cluster.connect(node).expect("a connection");
        conn.command(&["CLIENT", "KILL", "TYPE", "replica"]).expect("CLIENT KILL");
    }
    cluster.settle().expect("a settled cluster");
}

/// Connections that were made from 127.0.0.1 to one of these ports, by the kernel's list.
fn old_connections(ports: &[u16]) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let old = text.lines().filter(|line| {
        // `0: 0100007F:8F2C 0100007F:3B1A 01 …`: local, remote, 01 is established
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, "01", ..] = words[..] else { return false };
        let port = remote.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        local.starts_with("0100007F") && port.is_some_and(|port| ports.contains(&port))
    });
    old.count()
}

/// CONFIG SET at one node.
pub fn set(cluster: &Cluster, node: &Node, what: &str, value: &str) {
    let mut conn = cluster.connect(node).expect("a connection");
    let reply = conn.command(&["CONFIG", "SET", what, value]).expect("CONFIG SET");
    assert!(reply.is_ok(), "CONFIG SET {what} {value}: {reply:?}");
}

/// What /etc/hosts says besides localhost; only in the namespace, where it is a file of our own.
pub fn write_hosts(names: &[(String, Ipv4Addr)]) {
    assert!(own_namespace(), "not in a namespace of our own");
    let mut text = "127.0.0.1 localhost\n".to_owned();
    names.iter().for_each(|(name, addr)| text += &format!("{addr} {name}\n"));
    std::fs::write("/etc/hosts", text).expect("to write /etc/hosts");
}

/// nft's arguments are words of one text, so they may be given in pieces or as a whole.
fn nft(words: &[&str]) -> Result<(), String> {
    let output = Command::new("nft").arg(words.join(" ")).output().map_err(|e| e.to_string())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(error) }
}

#[track_caller]
fn must(words: &[&str]) {
    if let Err(error) = nft(words) {
        panic!("nft {}: {error}", words.join(" "));
    }
}

/// TCP relays in front of the nodes, which announce their ports. What passes is delayed, in both
/// directions, and stays in order.
pub struct Relays {
    delay: Arc<AtomicU64>,
}

impl Relays {
    /// In front of every node; returns when all nodes tell the relays' ports.
    pub fn start(cluster: &Cluster) -> Relays {
        let delay = Arc::<AtomicU64>::default();
        let nodes = cluster.nodes().expect("the nodes");
        let mut ports = Vec::new();
        for node in &nodes {
            let port = free_port().expect("a free port");
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("to listen");
            let (to, delay) = (node.addr, delay.clone());
            thread::spawn(move || accept(&listener, to, &delay));
            set(cluster, node, "cluster-announce-port", &port.to_string());
            ports.push(port);
        }
        crate::common::eventually("all nodes tell the relays' ports", || {
            nodes.iter().all(|node| {
                let ask = |conn: &mut Conn| conn.command(&["CLUSTER", "NODES"]).ok()?.text();
                let text = cluster.connect(node).ok().and_then(|mut conn| ask(&mut conn));
                let text = text.unwrap_or_default();
                ports.iter().all(|port| text.contains(&format!(":{port}@")))
            })
        });
        Relays { delay }
    }

    /// From now on.
    pub fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, delay: &Arc<AtomicU64>) {
    for near in listener.incoming() {
        let Ok(near) = near else { return };
        // Who connects to a relay whose node is dead is closed.
        let Ok(far) = TcpStream::connect(to) else { continue };
        let _ = near.set_nodelay(true).and(far.set_nodelay(true));
        let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { continue };
        pass(near, far, delay.clone());
        pass(far2, near2, delay.clone());
    }
}

/// One direction: one thread reads and writes down when it is due, another writes it then.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Arc<AtomicU64>) {
    let (queue, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let at = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
            if queue.send((at, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
    });
    thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
