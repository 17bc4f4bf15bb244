//! A reply for which `limits.memory` has no room, of a command that has taken elements away: the
//! client must not be told to try again.

use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};

use crate::common::Proxy;

const ELEMENTS: usize = 80;

fn start(args: &[&str]) -> (Proxy, Cluster) {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let args = [&["--workers", "1", "--set", "limits.memory=8MiB"], args].concat();
    (Proxy::start(&cluster, &args), cluster)
}

/// A list of 20 MiB.
fn fill(conn: &mut Conn, key: &str) {
    let value = vec![b'v'; 256 << 10];
    for n in 1..=ELEMENTS {
        let args: [&[u8]; 3] = [b"RPUSH", key.as_bytes(), &value];
        assert_eq!(conn.command(&args).expect("RPUSH"), Reply::Int(n as i64));
    }
}

/// The error of a command that was executed says so as far as slotway can know.
fn assert_honest(error: &str) {
    assert!(error.contains("limits.memory"), "{error}");
    assert!(error.contains("may or may not have been"), "{error}");
    assert!(!error.contains("try again"), "{error}");
}

#[test]
fn of_emulated_commands() {
    let (proxy, _cluster) = start(&["--set", "commands.cross_slot=emulate"]);
    let mut conn = proxy.connect();
    let (full, empty) = ("lost:a", "lost:b");
    assert_ne!(slot_of(full.as_bytes()), slot_of(empty.as_bytes()));
    fill(&mut conn, full);
    let reply = conn.command(&["LMPOP", "2", empty, full, "LEFT", "COUNT", "80"]).expect("LMPOP");
    let error = reply.error().unwrap_or_else(|| panic!("an error, not {} bytes", size(&reply)));
    assert_honest(error);
    assert_eq!(proxy.metric("slotway_outcome_unknown_total", ""), 1.0);
    let left = conn.command(&["LLEN", full]).expect("LLEN");
    assert_eq!(left, Reply::Int(0), "it was executed");
    // What only reads may be tried again, and is said to be.
    fill(&mut conn, full);
    let reply = conn.command(&["SORT", full, "BY", "nothing:*", "GET", "#"]).expect("SORT");
    let error = reply.error().unwrap_or_else(|| panic!("an error, not {} bytes", size(&reply)));
    assert!(error.starts_with("OOM ") && error.contains("try again"), "{error}");
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
    assert_honest(popped.error().unwrap_or_else(|| panic!("not {} bytes", size(popped))));
    assert!(set.is_ok(), "the other slot's part: {set:?}");
    assert_eq!(conn.command(&["LLEN", full]).expect("LLEN"), Reply::Int(0), "it was executed");
}

fn size(reply: &Reply) -> usize {
    match reply {
        Reply::Array(items) => items.iter().map(size).sum(),
        other => other.text().map_or(8, |text| text.len()),
    }
}
