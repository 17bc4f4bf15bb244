//! Transactions while slots move, primaries change and connections are lost: executed wholly and
//! once, or not at all.

use crate::common::errors::is_outcome_unknown;
use crate::common::transactions::{cas, each_primary, other_primary};
use crate::common::{self, Proxy, Setting};
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, Conn, Reply};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What the tests share that only move slots; not [`common::shared`], whose slots stay.
fn moving() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(common::cluster)
}

#[test]
fn a_transaction_follows_its_slot() {
    let cluster = moving();
    let proxy = Proxy::start(cluster, &["--workers", "1"]);
    let slot = slot_of(b"{ask}a");
    let from = cluster.owner_of(slot).expect("the owner");
    let to = other_primary(cluster, &from);
    let one = [vec!["MULTI"], vec!["INCR", "{ask}a"], vec!["INCR", "{ask}b"], vec!["EXEC"]];
    let new = [vec!["MULTI"], vec!["SET", "{ask}new", "v"], vec!["DEL", "{ask}new"], vec!["EXEC"]];
    let mut conn = proxy.connect();
    let mut count = 0;
    let mut check = |when: &str| {
        count += 1;
        let mut commands = one.to_vec();
        commands.push(vec!["PING"]);
        commands.extend(new.clone());
        commands.extend([vec!["WATCH", "{ask}a"], vec!["GET", "{ask}a"], vec!["MULTI"]]);
        commands.extend([vec!["GET", "{ask}b"], vec!["EXEC"], vec!["ECHO", "end"]]);
        let replies = conn.pipeline(&commands).expect("replies");
        let number = Reply::Int(count);
        assert_eq!(replies[3], Reply::Array(vec![number.clone(), number]), "{when}: {replies:?}");
        assert_eq!(replies[4], Reply::Simple("PONG".into()), "{when}: {replies:?}");
        let set = Reply::Array(vec![Reply::Simple("OK".into()), Reply::Int(1)]);
        assert_eq!(replies[8], set, "{when}: {replies:?}");
        let text = Reply::Bulk(count.to_string().into_bytes());
        assert_eq!(replies[10], text, "{when}: {replies:?}");
        assert_eq!(replies[13], Reply::Array(vec![text]), "{when}: {replies:?}");
        assert_eq!(replies[14], Reply::Bulk(b"end".to_vec()), "{when}: {replies:?}");
    };
    check("at first");
    cluster.begin_move(slot, &from, &to).expect("to begin");
    check("all keys are at the old node");
    while cluster.move_keys(slot, &from, &to, 10).expect("to move keys") > 0 {}
    check("all keys are at the new node");
    check("once more");
    cluster.finish_move(slot, &from, &to).expect("to finish");
    check("the slot has moved");
}

#[test]
fn a_transaction_whose_keys_are_at_two_nodes_waits() {
    let cluster = moving();
    let proxy = Proxy::start(cluster, &["--workers", "1"]);
    let slot = slot_of(b"{half}a");
    let from = cluster.owner_of(slot).expect("the owner");
    let to = other_primary(cluster, &from);
    let one = [vec!["MULTI"], vec!["INCR", "{half}a"], vec!["INCR", "{half}b"], vec!["EXEC"]];
    let mut conn = proxy.connect();
    conn.pipeline(&one).expect("replies");
    cluster.begin_move(slot, &from, &to).expect("to begin");
    assert_eq!(cluster.move_keys(slot, &from, &to, 1).expect("to move a key"), 1);
    let replies = thread::scope(|scope| {
        let waits = scope.spawn(|| conn.pipeline(&one).expect("replies"));
        common::eventually("it waits", || {
            proxy.metric("slotway_redirections_total", "kind=\"tryagain\"") > 0.0
        });
        while cluster.move_keys(slot, &from, &to, 1).expect("to move a key") > 0 {}
        cluster.finish_move(slot, &from, &to).expect("to finish");
        waits.join().expect("the client")
    });
    let wanted = Reply::Array(vec![Reply::Int(2), Reply::Int(2)]);
    assert_eq!(replies[3], wanted, "{replies:?}");
    assert_eq!(conn.command(&["ECHO", "end"]).expect("ECHO"), Reply::Bulk(b"end".to_vec()));
}

#[test]
fn slots_move_while_transactions_run() {
    let cluster = moving();
    let proxy = Proxy::start(cluster, &[]);
    let seen = while_transacting(proxy.listen, |load| {
        for round in 0..3 {
            for tag in 0..TAGS {
                let slot = slot_of(key(tag, 'a').as_bytes());
                let from = cluster.owner_of(slot).expect("the owner");
                let to = other_primary(cluster, &from);
                if round % 2 == 0 {
                    cluster.move_slot(slot, &from, &to).expect("to move a slot");
                } else {
                    // One key here, one there: nodes answer TRYAGAIN until the rest has followed.
                    cluster.begin_move(slot, &from, &to).expect("to begin");
                    cluster.move_keys(slot, &from, &to, 1).expect("to move a key");
                    thread::sleep(Duration::from_millis(50));
                    while cluster.move_keys(slot, &from, &to, 1).expect("to move a key") > 0 {}
                    cluster.finish_move(slot, &from, &to).expect("to finish");
                }
                load.more(20);
            }
        }
    });
    assert_eq!(seen.errors, [""; 0]);
    seen.assert_consistent(proxy.listen, true);
    assert!(proxy.metric("slotway_redirections_total", "") > 0.0, "nothing was redirected");
}

#[test]
fn failover_while_transactions_run() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let seen = while_transacting(proxy.listen, |load| {
        for primary in cluster.primaries().expect("primaries") {
            let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
            cluster.failover(&replica).expect("a failover");
            load.more(50);
        }
    });
    assert_eq!(seen.errors, [""; 0]);
    seen.assert_consistent(proxy.listen, true);
}

#[test]
fn connections_killed_while_transactions_run() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let seen = while_transacting(proxy.listen, |load| {
        for _ in 0..20 {
            each_primary(&cluster, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            load.more(30);
        }
    });
    for error in &seen.errors {
        assert!(is_outcome_unknown(error), "{error}");
    }
    seen.assert_consistent(proxy.listen, true);
}

#[test]
fn a_primary_is_killed_while_transactions_run() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=25s"]);
    let seen = while_transacting(proxy.listen, |load| {
        let slot = slot_of(key(0, 'a').as_bytes());
        let primary = cluster.owner_of(slot).expect("the owner");
        cluster.kill(&primary).expect("to kill");
        common::eventually("another leads", || {
            cluster.owner_of(slot).is_ok_and(|owner| owner.id != primary.id)
        });
        load.more(200);
    });
    for error in &seen.errors {
        assert!(is_outcome_unknown(error), "{error}");
    }
    // What the dead primary had not told its replica yet is lost, but wholly.
    seen.assert_consistent(proxy.listen, false);
}

/// Hash tags of the keys that [`while_transacting`] counts in, and writers.
const TAGS: usize = 6;

fn key(tag: usize, name: char) -> String {
    format!("{{t{tag}}}{name}")
}

/// What [`while_transacting`] saw.
struct Seen {
    acknowledged: [usize; TAGS],
    unknown: [usize; TAGS],
    errors: Vec<String>,
}

struct Load<'a>(&'a AtomicUsize);

impl Load<'_> {
    #[track_caller]
    fn more(&self, transactions: usize) {
        let wanted = self.0.load(Ordering::Relaxed) + transactions;
        common::eventually("transactions go on", || self.0.load(Ordering::Relaxed) >= wanted);
    }
}

/// Clients that count in two keys of a slot at once, half of them by WATCH, while `disturb` runs.
fn while_transacting(addr: SocketAddr, disturb: impl FnOnce(&Load)) -> Seen {
    struct OnDrop<'a>(&'a AtomicBool);
    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut all = Seen { acknowledged: [0; TAGS], unknown: [0; TAGS], errors: Vec::new() };
    thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        let writers: Vec<_> =
            (0..TAGS).map(|n| scope.spawn(move || transact(addr, n, stop, done))).collect();
        let end = OnDrop(stop);
        Load(done).more(100);
        disturb(&Load(done));
        Load(done).more(100);
        drop(end);
        for writer in writers {
            let seen = writer.join().expect("a writer");
            for tag in 0..TAGS {
                all.acknowledged[tag] += seen.acknowledged[tag];
                all.unknown[tag] += seen.unknown[tag];
            }
            all.errors.extend(seen.errors);
        }
    });
    all
}

fn transact(addr: SocketAddr, writer: usize, stop: &AtomicBool, done: &AtomicUsize) -> Seen {
    let mut seen = Seen { acknowledged: [0; TAGS], unknown: [0; TAGS], errors: Vec::new() };
    let mut conn = Conn::tcp(addr).expect("a connection");
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let mut tag = writer;
    while !stop.load(Ordering::Relaxed) {
        tag = (tag + 1) % TAGS;
        let (a, b) = (key(tag, 'a'), key(tag, 'b'));
        let outcome = if writer.is_multiple_of(2) {
            let commands = [vec!["MULTI"], vec!["INCR", &a], vec!["INCR", &b], vec!["EXEC"]];
            let exec = conn.pipeline(&commands).expect("replies").remove(3);
            match exec {
                Reply::Error(error) => Err(error),
                Reply::Array(both) => {
                    assert!(both.len() == 2 && both[0] == both[1], "{both:?}");
                    Ok(Some(()))
                }
                other => panic!("EXEC: {other:?}"),
            }
        } else {
            cas(&mut conn, &a, &b)
        };
        match outcome {
            Ok(Some(())) => {
                seen.acknowledged[tag] += 1;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => {}
            Err(error) => {
                seen.unknown[tag] += usize::from(is_outcome_unknown(&error));
                seen.errors.push(error);
                // A transaction that was begun is over.
                let _ = conn.command(&["DISCARD"]).expect("a reply");
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    seen
}

impl Seen {
    /// Each was executed wholly and once, or not at all.
    #[track_caller]
    fn assert_consistent(&self, addr: SocketAddr, nothing_lost: bool) {
        let mut conn = Conn::tcp(addr).expect("a connection");
        for tag in 0..TAGS {
            let [a, b] = ['a', 'b'].map(|name| {
                let reply = conn.command(&["GET", &key(tag, name)]).expect("GET");
                reply.text().and_then(|n| n.parse::<usize>().ok()).unwrap_or_default()
            });
            assert_eq!(a, b, "tag {tag}: half of a transaction was executed");
            let (sure, most) = (self.acknowledged[tag], self.acknowledged[tag] + self.unknown[tag]);
            assert!(a <= most, "tag {tag}: {a} executed, at most {most} were sent");
            assert!(!nothing_lost || a >= sure, "tag {tag}: {a} executed, {sure} acknowledged");
        }
    }
}
