//! A reply for which `limits.memory` has no room, of a command that has taken elements away: it is
//! handed on as it arrives where it is the client's as it is. Otherwise the client must not be told to
//! try again, unless the command was refused before it was begun.

use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};

use crate::common::errors::{identified, named};
use crate::common::{self, Proxy};

const ELEMENTS: usize = 80;
const ELEMENT: usize = 256 << 10;

fn start(args: &[&str]) -> (Proxy, Cluster) {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let args = [&["--workers", "1", "--set", "limits.memory=8MiB"], args].concat();
    (Proxy::start(&cluster, &args), cluster)
}

/// A list of 20 MiB.
fn fill(conn: &mut Conn, key: &str) {
    let value = vec![b'v'; ELEMENT];
    for n in 1..=ELEMENTS {
        let args: [&[u8]; 3] = [b"RPUSH", key.as_bytes(), &value];
        assert_eq!(conn.command(&args).expect("RPUSH"), Reply::Int(n as i64));
    }
}

#[test]
fn of_emulated_commands() {
    let (proxy, _cluster) = start(&["--set", "commands.cross_slot=emulate"]);
    let mut conn = proxy.connect();
    let (full, empty) = ("lost:a", "lost:b");
    assert_ne!(slot_of(full.as_bytes()), slot_of(empty.as_bytes()));
    fill(&mut conn, full);
    // More than there is memory, but no more than the sockets' buffers and that, so that a client
    // that does not read for a moment is not closed.
    let half = (ELEMENTS / 2).to_string();
    let lmpop = ["LMPOP", "2", empty, full, "LEFT", "COUNT", &half];
    let blmpop = ["BLMPOP", "0", "2", empty, full, "LEFT", "COUNT", &half];
    for (command, left) in [(&lmpop[..], ELEMENTS / 2), (&blmpop[..], 0)] {
        let reply = conn.command(command).expect("a reply");
        assert_eq!(reply.error(), None);
        let [key, popped] = reply.items().unwrap_or_default() else { panic!("{}", size(&reply)) };
        assert_eq!(key.text().as_deref(), Some(full));
        assert_eq!(size(popped), ELEMENTS / 2 * ELEMENT);
        // The next command is read, and answered behind it.
        assert_eq!(conn.command(&["LLEN", full]).expect("LLEN"), Reply::Int(left as i64));
    }
    assert_eq!(proxy.metric("slotway_outcome_unknown_total", ""), 0.0);
    let labels = |command| format!("command=\"{command}\",outcome=\"ok\"");
    for command in ["lmpop", "blmpop"] {
        let count = proxy.metric("slotway_emulated_total", &labels(command));
        assert_eq!(count, 1.0, "{command}");
    }
    // What only reads may be tried again, and is said to be.
    fill(&mut conn, full);
    let reply = conn.command(&["SORT", full, "BY", "nothing:*", "GET", "#"]).expect("SORT");
    assert_eq!(id(&reply), FailureId::NoRoomForRead);
    assert_eq!(conn.command(&["LLEN", full]).expect("LLEN"), Reply::Int(ELEMENTS as i64));
}

#[test]
fn of_split_transactions() {
    let (proxy, _cluster) = start(&["--set", "transactions.cross_slot=split"]);
    let mut conn = proxy.connect();
    let (full, other) = ("lost:a", "lost:b");
    fill(&mut conn, full);
    for command in [&["MULTI"][..], &["LPOP", full, "80"], &["SET", other, "v"]] {
        assert!(conn.command(command).expect("a reply").error().is_none());
    }
    let reply = conn.command(&["EXEC"]).expect("EXEC");
    let [popped, set] = reply.items().unwrap_or_default() else { panic!("{} bytes", size(&reply)) };
    assert_eq!(id(popped), FailureId::NoRoomForWrite, "it was executed");
    assert!(set.is_ok(), "the other slot's part: {set:?}");
    assert_eq!(conn.command(&["LLEN", full]).expect("LLEN"), Reply::Int(0), "it was executed");
}

/// Memory is full of what a node does not take. What has not been begun is refused, and that is true.
#[test]
fn what_is_not_begun_is_refused() {
    let args = ["--set", "commands.cross_slot=emulate", "--set", "timeouts.command=60s"];
    let calm = ["--set", "timeouts.probe=60s", "--set", "limits.memory=4MiB"];
    let conf = vec!["cluster-node-timeout 60000".to_owned()];
    let options = ClusterOptions { replicas: 0, conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let proxy = Proxy::start(&cluster, &[&["--workers", "1"][..], &args, &calm].concat());
    let [stopped, other] = &cluster.primaries().expect("primaries")[..2] else { panic!("two") };
    let key_on = |node: &Node, name: &str| {
        let has = |key: &String| {
            let slot = slot_of(key.as_bytes());
            node.slots.iter().any(|range| range.contains(&slot.0))
        };
        (0..).map(|i| format!("{name}:{i}")).find(has).expect("a key")
    };
    let full = key_on(stopped, "full");
    let (list, empty) = (key_on(other, "list"), key_on(other, "empty"));
    assert_ne!(slot_of(list.as_bytes()), slot_of(empty.as_bytes()));
    let mut transaction = proxy.connect();
    for command in [&["MULTI"][..], &["RPUSH", &empty, "no"]] {
        assert!(transaction.command(command).expect("a reply").error().is_none());
    }
    let mut waiting = proxy.connect();
    waiting.send(&["BLMPOP", "0", "2", &empty, &list, "LEFT"]).expect("to send");
    let mut asking = proxy.connect();
    common::eventually("it waits", || {
        asking
            .command(&["CLIENT", "LIST"])
            .expect("CLIENT LIST")
            .text()
            .expect("text")
            .contains("cmd=blmpop")
    });
    cluster.pause(stopped).expect("SIGSTOP");
    let mut senders: Vec<Conn> = Vec::new();
    let mut send = |bytes: usize| {
        let mut sender = proxy.connect();
        sender.send(&[b"SET", full.as_bytes(), &vec![b'v'; bytes]]).expect("to send");
        senders.push(sender);
    };
    (0..4).for_each(|_| send(1_000_000));
    // A larger one would not be read to its end.
    let text = |reply: Reply| reply.error().map(str::to_owned);
    common::eventually("memory is full", || {
        send(12_000);
        text(asking.command(&["GET", &list]).expect("GET")).is_some_and(|e| e.starts_with("OOM "))
    });
    let discarded = transaction.command(&["EXEC"]).expect("EXEC");
    let discarded = identified(&discarded);
    assert_eq!(discarded.id, FailureId::Discarded);
    let cause = discarded.field("cause").expect("a cause");
    assert_eq!(named(cause).id, FailureId::BuffersFull, "{cause}");
    let mut direct = cluster.connect(other).expect("a connection");
    assert_eq!(direct.command(&["RPUSH", &list, "element"]).expect("RPUSH"), Reply::Int(1));
    assert_eq!(id(&waiting.receive().expect("a reply")), FailureId::BuffersFull);
    assert_eq!(direct.command(&["LLEN", &list]).expect("LLEN"), Reply::Int(1), "nothing is taken");
    assert_eq!(direct.command(&["LLEN", &empty]).expect("LLEN"), Reply::Int(0), "nor pushed");
    assert_eq!(proxy.metric("slotway_outcome_unknown_total", ""), 0.0);
    cluster.resume(stopped).expect("SIGCONT");
    common::eventually("there is room again", || {
        asking.command(&["LLEN", &list]).expect("LLEN") == Reply::Int(1)
    });
    let popped = waiting.command(&["BLMPOP", "0", "2", &empty, &list, "LEFT"]).expect("BLMPOP");
    assert!(popped.error().is_none(), "{popped:?}");
}

/// The error that a reply is; the reply may be too large to be shown.
#[track_caller]
fn id(reply: &Reply) -> FailureId {
    let text = reply.error().unwrap_or_else(|| panic!("an error, not {} bytes", size(reply)));
    named(text).id
}

fn size(reply: &Reply) -> usize {
    match reply {
        Reply::Array(items) => items.iter().map(size).sum(),
        other => other.text().map_or(8, |text| text.len()),
    }
}
