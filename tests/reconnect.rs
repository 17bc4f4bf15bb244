//! Connections to nodes are lost, refused, frozen, or carry nonsense: who notices, and what he is
//! told.

use crate::common::errors::{identified, is_outcome_unknown, waited};
use crate::common::load::while_writing;
use crate::common::{self, Proxy, Setting};
use slotway::cluster::{Slot, slot_of};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use slotway::upstream::ConnectionEnd;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Every test of this file breaks upstream connections; with one worker all clients share them.
const ONE_WORKER: [&str; 2] = ["--workers", "1"];

#[test]
fn all_connections_killed_under_load() {
    let Setting { proxy, cluster } = common::setting(&ONE_WORKER);
    let seen = while_writing(proxy.listen, |load| {
        for _ in 0..20 {
            for node in cluster.primaries().expect("primaries") {
                let mut conn = cluster.connect(&node).expect("a connection");
                let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
                conn.command(&kill).expect("CLIENT KILL");
            }
            load.more(50);
        }
    });
    seen.assert_only_unknown_outcomes();
    seen.assert_all_there(proxy.listen, |_, _| false);
    let unknown = proxy.metric("slotway_outcome_unknown_total", "");
    assert_eq!(seen.write_errors.len() as f64, unknown, "each is counted, and no other");
}

#[test]
fn a_node_frozen_for_a_second_is_waited_for() {
    let Setting { proxy, cluster } = common::setting(&ONE_WORKER);
    let seen = while_writing(proxy.listen, |load| {
        for node in cluster.primaries().expect("primaries").iter().take(2) {
            cluster.pause(node).expect("SIGSTOP");
            thread::sleep(Duration::from_secs(1));
            cluster.resume(node).expect("SIGCONT");
            load.more(100);
        }
    });
    seen.assert_no_errors();
    seen.assert_all_there(proxy.listen, |_, _| false);
}

#[test]
fn a_node_that_does_not_answer_is_named_at_the_deadline() {
    let args = ["--workers", "1", "--set", "timeouts.command=1s"];
    let Setting { proxy, cluster } = common::setting(&args);
    let primaries = cluster.primaries().expect("primaries");
    let (frozen, other) = (&primaries[0], &primaries[1]);
    let (key, key_elsewhere) = (key_on(frozen, "k"), key_on(other, "k"));
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", &key, "v"]).expect("SET").is_ok());
    cluster.pause(frozen).expect("SIGSTOP");
    let slot = format!(" {}", slot_of(key.as_bytes()).0);
    let addr = frozen.addr.to_string();
    for (command, writes) in [(vec!["INCR", &key], true), (vec!["GET", &key], false)] {
        // Sent before, answered after: both in one connection's queue, each on its own node.
        let mut others = proxy.connect();
        others.send(&["SET", &key_elsewhere, "v"]).expect("to send");
        let reply = conn.command(&command).expect("a reply");
        assert!(others.receive().expect("the other node's reply").is_ok());
        let error = identified(&reply);
        assert_eq!(error.id, FailureId::Deadline, "{reply:?}");
        assert_eq!(reply.error().map(is_outcome_unknown), Some(writes), "{reply:?}");
        assert!(error.field("slot").is_some_and(|said| said.ends_with(&slot)), "{reply:?}");
        assert_eq!(error.field("node"), Some(&*addr), "{reply:?}");
        assert!(waited(&error).is_some_and(|seconds| seconds >= 1.0), "{reply:?}");
    }
    assert_eq!(proxy.metric("slotway_deadline_exceeded_total", ""), 2.0);
    cluster.resume(frozen).expect("SIGCONT");
    assert_eq!(conn.command(&["SET", &key, "w"]).expect("SET"), Reply::Simple("OK".into()));
    assert_eq!(conn.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"w".to_vec()));
}

#[test]
fn the_whole_cluster_restarts() {
    let args = ["--workers", "1", "--set", "timeouts.command=25s"];
    let Setting { proxy, cluster } = common::setting(&args);
    let nodes = cluster.nodes().expect("the nodes");
    let mut clients: Vec<Conn> = (0..6).map(|_| proxy.connect()).collect();
    for (i, conn) in clients.iter_mut().enumerate() {
        assert!(conn.command(&["SET", &format!("before:{i}"), "v"]).expect("SET").is_ok());
    }
    for node in &nodes {
        cluster.kill(node).expect("to kill a node");
    }
    common::eventually("slotway notices", || {
        proxy.get("/readyz").is_some_and(|(status, _)| status == 503)
    });
    // Nobody is there to take these: nothing is lost, so nobody needs an error.
    for (i, conn) in clients.iter_mut().enumerate() {
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        conn.send(&["SET", &format!("during:{i}"), "v"]).expect("to send");
    }
    for node in &nodes {
        cluster.restart(node).expect("to restart a node");
    }
    for conn in &mut clients {
        assert_eq!(conn.receive().expect("a reply"), Reply::Simple("OK".into()));
    }
    common::eventually("slotway is ready again", || {
        proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_refused_handshake_is_told_and_tried_again() {
    let options = ClusterOptions { password: Some("first".into()), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let seeds = cluster.addrs()[0].to_string();
    let mut wrong = vec!["--set", "upstream.password=wrong", "--set", "timeouts.command=1s"];
    let proxy = Proxy::spawn(&cluster, &seeds, &wrong);
    common::eventually("slotway says that it may not", || {
        proxy.get("/readyz").is_some_and(|(s, body)| s == 503 && body.contains("WRONGPASS"))
    });
    let reply = proxy.connect().command(&["GET", "k"]).expect("a reply");
    assert!(reply.error().is_some(), "{reply:?}");
    drop(proxy);

    wrong[1] = "upstream.password=first";
    let proxy = Proxy::start_with_seeds(&cluster, &seeds, &wrong);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "k", "v"]).expect("SET").is_ok());
    // The operator changes the nodes' password first.
    set_password(&cluster, "first", "second");
    let reply = conn.command(&["GET", "k"]).expect("a reply");
    let text = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
    let refused = ConnectionEnd::HandshakeRefused("WRONGPASS ".into()).to_string();
    assert!(text.contains(&refused), "{text}");
    assert!(!proxy.log().contains("first"), "the password is in the log");
    set_password(&cluster, "second", "first");
    common::eventually("slotway is ready again", || {
        proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
    });
    common::eventually("and serves", || {
        conn.command(&["GET", "k"]).expect("a reply") == Reply::Bulk(b"v".to_vec())
    });
}

fn set_password(cluster: &Cluster, from: &str, to: &str) {
    for addr in cluster.addrs() {
        let mut conn = Conn::tcp(addr).expect("a connection");
        for command in [
            vec!["AUTH", from],
            vec!["CONFIG", "SET", "requirepass", to, "masterauth", to],
            vec!["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        ] {
            let reply = conn.command(&command).expect("a reply");
            assert!(reply.error().is_none(), "{command:?}: {reply:?}");
        }
    }
}

#[test]
fn half_a_reply() {
    nonsense(Evil::Half);
}

#[test]
fn a_reply_of_no_known_type() {
    nonsense(Evil::WrongType);
}

/// A node answers a key's commands with nonsense: their client is told, the others on the same
/// connection are served.
fn nonsense(evil: Evil) {
    let relayed = Relayed::start(evil, &["--set", "timeouts.command=2s"]);
    let Relayed { proxy, key, good, .. } = &relayed;
    let mut conn = proxy.connect();
    let seen = while_writing(proxy.listen, |load| {
        let reply = conn.command(&["GETSET", key, MARKER]).expect("a reply to a write");
        let text = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
        assert!(is_outcome_unknown(text), "{text}");
        load.more(50);
    });
    // A read is sent again, in vain, and without haste.
    let before = proxy.metric("slotway_upstream_connects_total", &relayed.label());
    let reply = conn.command(&["GET", key]).expect("a reply to a read");
    assert!(reply.error().is_some(), "{reply:?}");
    let connects = proxy.metric("slotway_upstream_connects_total", &relayed.label()) - before;
    assert!(conn.command(&["SET", good, "v"]).expect("SET").is_ok());
    seen.assert_only_unknown_outcomes();
    seen.assert_all_there(proxy.listen, |_, _| false);
    assert!(connects < 200.0, "{connects} connections in two seconds: no backoff");
    let lines = proxy.log().lines().count();
    assert!(lines < 200, "{lines} lines of log about one lost node");
}

#[test]
fn a_reply_that_nobody_asked_for() {
    let relayed = Relayed::start(Evil::Extra, &[]);
    let Relayed { proxy, key, good, .. } = &relayed;
    let mut conn = proxy.connect();
    for _ in 0..5 {
        assert_eq!(conn.command(&["GET", key]).expect("a reply"), Reply::Simple("OK".into()));
        // The second +OK may come before slotway has given the connection up or after; in no case
        // may it be the answer to what is sent later.
        common::eventually("the connection is given up", || {
            proxy.metric("slotway_upstream_failures_total", &relayed.label()) > 0.0
        });
        assert_eq!(conn.command(&["INCR", good]).expect("INCR").int().map(|n| n > 0), Some(true));
    }
}

#[test]
fn an_endless_reply_ends_with_the_client_that_reads_it() {
    let relayed = Relayed::start(Evil::Endless, &["--set", "timeouts.command=1s"]);
    let Relayed { proxy, key, good, .. } = &relayed;
    let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    write!(stream, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).expect("to send");
    let mut buffer = vec![0; 64 << 10];
    let mut seen = Vec::new();
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < common::PATIENCE, "it goes on and on");
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                seen.clear();
                seen.extend_from_slice(&buffer[..n]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(e) => {
                let last = String::from_utf8_lossy(&seen[seen.len().saturating_sub(120)..]);
                panic!("the client has seen half a reply and is not closed ({e}); last: {last}");
            }
        }
    }
    assert!(seen.iter().all(|&b| b == b'x'), "an error in the middle of a reply");
    assert!(proxy.connect().command(&["SET", good, "v"]).expect("SET").is_ok());
}

#[test]
fn an_endless_part_of_a_split_reply_ends_with_an_error() {
    const MIB: f64 = (1 << 20) as f64;
    let args = ["--set", "timeouts.command=3s", "--set", "limits.memory=16MiB"];
    let relayed = Relayed::start(Evil::Endless, &args);
    let Relayed { proxy, key, good, .. } = &relayed;
    let mut conn = proxy.connect();
    let mut most = 0.0;
    let reply = thread::scope(|scope| {
        let reply = scope.spawn(|| conn.command(&["MGET", key, "another-key", "and-another"]));
        while !reply.is_finished() {
            most = proxy.metric("slotway_buffer_bytes", "").max(most);
            thread::sleep(Duration::from_millis(20));
        }
        reply.join().expect("the client").expect("a reply")
    });
    assert!(reply.error().is_some(), "{reply:?}");
    assert!(conn.command(&["SET", good, "v"]).expect("SET").is_ok());
    common::eventually("the buffers are given back", || {
        proxy.metric("slotway_buffer_bytes", "") < 10.0 * MIB
    });
    // What is kept for reuse (8 MiB), and a buffer that has just doubled, come on top of it.
    assert!(most < 64.0 * MIB, "{} MiB in buffers, limits.memory is 16 MiB", most / MIB);
}

#[test]
fn a_large_reply_cut_in_its_middle() {
    let relayed = Relayed::start(Evil::Cut, &[]);
    let Relayed { proxy, cluster, key, good, cuts, .. } = &relayed;
    let mut bystander = proxy.connect();
    assert!(bystander.command(&["SET", good, "v"]).expect("SET").is_ok());

    // This client has seen the beginning: nothing but the end of its connection is honest.
    cuts.store(1, Ordering::SeqCst);
    let mut conn = proxy.connect();
    let error = conn.command(&["GET", key]).expect_err("the connection ends");
    let kind = error.kind();
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    assert!(matches!(kind, UnexpectedEof | ConnectionReset), "{error}");
    assert_eq!(bystander.command(&["GET", good]).expect("GET"), Reply::Bulk(b"v".to_vec()));

    // This one has not, as the reply before is not there yet: it is asked for again.
    cuts.store(1, Ordering::SeqCst);
    let other = cluster.primaries().expect("primaries").remove(1);
    let slow = key_on(&other, "slow");
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", &slow, "v"]).expect("SET").is_ok());
    let lost = || proxy.metric("slotway_upstream_failures_total", "");
    let before = lost();
    cluster.pause(&other).expect("SIGSTOP");
    conn.send(&["GET", &slow]).expect("to send");
    conn.send(&["GET", key]).expect("to send");
    common::eventually("the reply is cut", || cuts.load(Ordering::SeqCst) == 0);
    common::eventually("slotway sees the cut", || lost() > before);
    cluster.resume(&other).expect("SIGCONT");
    assert_eq!(conn.receive().expect("the first"), Reply::Bulk(b"v".to_vec()));
    assert_eq!(conn.receive().expect("the second"), Reply::Bulk(MARKER.as_bytes().to_vec()));
    assert_eq!(bystander.command(&["GET", good]).expect("GET"), Reply::Bulk(b"v".to_vec()));
}

#[test]
fn a_client_that_has_said_all_gets_its_replies_and_then_the_end() {
    let proxy = &common::shared().proxy;
    // The last command and the end of the stream arrive together most of the time.
    for i in 0..20 {
        let mut stream = TcpStream::connect(proxy.listen).expect("a connection");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        stream.write_all(b"PING\r\nSET said:all 1\r\n").expect("to send");
        stream.shutdown(std::net::Shutdown::Write).expect("to end");
        let mut replies = String::new();
        let end = stream.read_to_string(&mut replies);
        assert!(end.is_ok(), "{i}: {end:?} after {replies:?}: the end was not noticed");
        assert_eq!(replies, "+PONG\r\n+OK\r\n");
    }
}

// ------------------------------------------------------------------------------------------------
// A real node behind a relay that falsifies one value's replies.

/// A value that the relay replaces on its way out of the node.
const MARKER: &str = "what-the-relay-falsifies";

#[derive(Debug, Clone, Copy)]
enum Evil {
    /// The beginning of a reply, then the connection ends.
    Half,
    /// Not RESP.
    WrongType,
    /// Two replies for one.
    Extra,
    /// A bulk string that does not end.
    Endless,
    /// Half of a large reply, then the connection ends; as often as `cuts` says.
    Cut,
}

/// Three primaries, the first of which is announced at a relay's address, and slotway.
struct Relayed {
    proxy: Proxy,
    cluster: Cluster,
    relay: SocketAddr,
    /// Holds [`MARKER`], on the relayed node.
    key: String,
    /// Another key on that node.
    good: String,
    cuts: Arc<AtomicUsize>,
}

impl Relayed {
    fn start(evil: Evil, args: &[&str]) -> Relayed {
        // Replicas would be fed through the relay, too.
        let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).expect("a cluster");
        let node = cluster.primaries().expect("primaries").remove(0);
        let cuts = Arc::new(AtomicUsize::new(0));
        let relay = relay(node.addr, evil, Arc::clone(&cuts));
        let (key, good) = (key_on(&node, "evil"), key_on(&node, "good"));
        let mut conn = cluster.connect(&node).expect("a connection");
        let port = relay.port().to_string();
        for command in
            [vec!["CONFIG", "SET", "cluster-announce-port", &port], vec!["SET", &key, MARKER]]
        {
            assert!(conn.command(&command).expect("a reply").is_ok(), "{command:?}");
        }
        for other in cluster.primaries().expect("primaries") {
            let mut conn = cluster.connect(&other).expect("a connection");
            common::eventually("all know the relay's address", || {
                let shards = conn.command(&["CLUSTER", "SLOTS"]).expect("CLUSTER SLOTS");
                format!("{shards:?}").contains(&format!("Int({port})"))
            });
        }
        let args: Vec<&str> = ONE_WORKER.iter().chain(args).copied().collect();
        let proxy = Proxy::start(&cluster, &args);
        Relayed { proxy, cluster, relay, key, good, cuts }
    }

    fn label(&self) -> String {
        format!("node=\"{}\"", self.relay)
    }
}

/// Relays connections to `node` until the process ends.
fn relay(node: SocketAddr, evil: Evil, cuts: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(node) else { continue };
            let _ = near.set_nodelay(true).and(far.set_nodelay(true));
            let ends = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
            let cuts = Arc::clone(&cuts);
            thread::spawn(move || {
                let (mut near, mut far) = ends;
                let _ = std::io::copy(&mut near, &mut far);
                let _ = far.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = falsify(&far, &near, evil, &cuts);
                let _ = near.shutdown(std::net::Shutdown::Both);
                let _ = far.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    addr
}

fn falsify(
    mut node: &TcpStream,
    mut to: &TcpStream,
    evil: Evil,
    cuts: &AtomicUsize,
) -> std::io::Result<()> {
    let marked = format!("${}\r\n{MARKER}\r\n", MARKER.len()).into_bytes();
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = node.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..n]);
        // The end may be the marked reply's beginning.
        if (1..marked.len()).any(|n| pending.ends_with(&marked[..n])) {
            continue;
        }
        while let Some(at) = pending.windows(marked.len()).position(|w| w == marked) {
            to.write_all(&pending[..at])?;
            pending.drain(..at + marked.len());
            let cut = |n: usize| n.checked_sub(1);
            match evil {
                Evil::Half => return to.write_all(b"$10\r\nabc"),
                Evil::WrongType => to.write_all(b"?what is this\r\n")?,
                Evil::Extra => to.write_all(b"+OK\r\n+OK\r\n")?,
                Evil::Endless => {
                    to.write_all(b"$1099511627776\r\n")?;
                    loop {
                        to.write_all(&[b'x'; 64 << 10])?;
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                Evil::Cut if cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok() => {
                    to.write_all(b"$200000\r\n")?;
                    to.write_all(&[b'x'; 100_000])?;
                    // Slotway is to see the beginning as data, not as part of the end.
                    thread::sleep(Duration::from_millis(100));
                    return Ok(());
                }
                Evil::Cut => to.write_all(&marked)?,
            }
        }
        to.write_all(&pending)?;
        pending.clear();
    }
}

/// A key with `name` in it whose slot `node` owns.
fn key_on(node: &Node, name: &str) -> String {
    let owned = |slot: Slot| node.slots.iter().any(|range| range.contains(&slot.0));
    let mut keys = (0..).map(|i| format!("{{{i}}}{name}"));
    keys.find(|key| owned(slot_of(key.as_bytes()))).expect("a key")
}
