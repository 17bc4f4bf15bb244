//! MULTI … EXEC and WATCH through slotway: replies as a server's, atomic and isolated, over several
//! slots as configured, and wholly or not at all when slots move and primaries change.
//!
//! Every reply and error text beside a standalone server's: `tests/differential`.

mod common;

use common::{Proxy, Setting};
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, Conn, Node, Reply};
use std::collections::HashSet;
use std::net::SocketAddr;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const SPLIT: [&str; 2] = ["--set", "transactions.cross_slot=split"];
const UNKNOWN: &str = "may or may not have been executed";

// ------------------------------------------------------------------------------------------------
// In one slot.

#[test]
fn a_burst_as_clients_send_it() {
    let mut conn = common::shared().proxy.connect();
    for round in 1..=3 {
        let commands = vec![
            vec!["MULTI"],
            vec!["INCR", "{burst}n"],
            vec!["SET", "{burst}s", "text"],
            vec!["INCR", "{burst}s"],
            vec!["GET", "{burst}s"],
            vec!["EXEC"],
            vec!["PING"],
        ];
        let replies = conn.pipeline(&commands).expect("replies");
        let queued = || Reply::Simple("QUEUED".into());
        assert!(replies[0].is_ok(), "{replies:?}");
        assert_eq!(replies[1..5], [queued(), queued(), queued(), queued()]);
        let Reply::Array(results) = &replies[5] else { panic!("{replies:?}") };
        assert_eq!(results[0], Reply::Int(round));
        assert!(results[1].is_ok());
        let wrong = "ERR value is not an integer or out of range";
        assert_eq!(results[2], Reply::Error(wrong.into()));
        assert_eq!(results[3], Reply::Bulk(b"text".to_vec()));
        assert_eq!(results.len(), 4);
        assert_eq!(replies[6], Reply::Simple("PONG".into()));
    }
}

#[test]
fn monitor_and_subscribe_are_refused_within() {
    let mut conn = common::shared().proxy.connect();
    // A server refuses MONITOR when it is executed: nobody would hear it.
    let replies = conn.pipeline(&[vec!["MULTI"], vec!["MONITOR"], vec!["EXEC"], vec!["PING"]]);
    let replies = replies.expect("replies");
    let refused =
        replies[1].error().is_some() || replies[2].items().is_some_and(|r| r[0].error().is_some());
    assert!(refused, "{replies:?}");
    assert_eq!(replies[3], Reply::Simple("PONG".into()));
}

#[test]
fn many_clients_interleaved_are_atomic_and_isolated() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 50;
    const DEPTH: usize = 16;
    let proxy = &common::shared().proxy;
    let writing = AtomicUsize::new(WRITERS);
    let (looks, writing) = (&AtomicUsize::new(0), &writing);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut conn = if writer.is_multiple_of(2) { proxy.connect() } else { proxy.connect3() };
                let one = [
                    vec!["MULTI"],
                    vec!["INCR", "{iso}a"],
                    vec!["LPUSH", "{iso}l", "x"],
                    vec!["INCR", "{iso}b"],
                    vec!["EXEC"],
                ];
                let batch: Vec<Vec<&str>> = (0..DEPTH).flat_map(|_| one.clone()).collect();
                for _ in 0..ROUNDS {
                    for replies in conn.pipeline(&batch).expect("replies").chunks(5) {
                        let Some([a, l, b]) = replies[4].items() else { panic!("{replies:?}") };
                        assert!(a == b && a == l, "one slipped between: {replies:?}");
                    }
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for reader in 0..2 {
            scope.spawn(move || {
                let mut conn = proxy.connect();
                while writing.load(Ordering::SeqCst) > 0 {
                    let got = if reader == 0 {
                        conn.command(&["MGET", "{iso}a", "{iso}b"]).expect("MGET")
                    } else {
                        let commands = [
                            vec!["MULTI"],
                            vec!["GET", "{iso}a"],
                            vec!["GET", "{iso}b"],
                            vec!["EXEC"],
                        ];
                        conn.pipeline(&commands).expect("replies").remove(3)
                    };
                    let Some([a, b]) = got.items() else { panic!("{got:?}") };
                    assert_eq!(a, b, "half of a transaction was seen");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(looks.load(Ordering::Relaxed) > 10, "nobody looked");
    let total = (WRITERS * ROUNDS * DEPTH).to_string().into_bytes();
    let mut conn = proxy.connect();
    assert_eq!(conn.command(&["GET", "{iso}b"]).expect("GET"), Reply::Bulk(total));
}

#[test]
fn a_transaction_may_be_queued_slowly_while_others_go_on() {
    let proxy = &common::shared().proxy;
    let (mut slow, mut other) = (proxy.connect(), proxy.connect());
    assert!(slow.command(&["MULTI"]).expect("MULTI").is_ok());
    for i in 0..20 {
        let queued = slow.command(&["APPEND", "{slow}k", "a"]).expect("APPEND");
        assert_eq!(queued, Reply::Simple("QUEUED".into()));
        let length = other.command(&["APPEND", "{slow}k", "b"]).expect("APPEND");
        assert_eq!(length, Reply::Int(i + 1), "nothing of it is executed before EXEC");
    }
    let exec = slow.command(&["EXEC"]).expect("EXEC");
    assert_eq!(exec.items().map(<[Reply]>::len), Some(20));
    let all = Reply::Bulk([[b'b'; 20], [b'a'; 20]].concat());
    assert_eq!(other.command(&["GET", "{slow}k"]).expect("GET"), all);
}

#[test]
fn a_client_that_leaves_in_the_middle_has_done_nothing() {
    let proxy = &common::shared().proxy;
    let mut conn = proxy.connect();
    conn.pipeline(&[vec!["MULTI"], vec!["SET", "{left}k", "v"]]).expect("replies");
    drop(conn);
    let mut other = proxy.connect();
    assert_eq!(other.command(&["GET", "{left}k"]).expect("GET"), Reply::Nil);
}

// ------------------------------------------------------------------------------------------------
// In several slots.

#[test]
fn several_slots_are_rejected_with_the_keys_the_slots_and_the_setting() {
    let proxy = &common::shared().proxy;
    let mut conn = proxy.connect();
    assert!(conn.command(&["MULTI"]).expect("MULTI").is_ok());
    let queued = conn.command(&["SET", "cross:one", "v"]).expect("SET");
    assert_eq!(queued, Reply::Simple("QUEUED".into()));
    let reply = conn.command(&["SET", "cross:two", "v"]).expect("SET");
    let text = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
    let slots = ["cross:one", "cross:two"].map(|key| slot_of(key.as_bytes()).0.to_string());
    assert!(text.starts_with("CROSSSLOT "), "{text}");
    for part in ["cross:one", "cross:two", &slots[0], &slots[1], "transactions.cross_slot"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let exec = conn.command(&["EXEC"]).expect("EXEC");
    let aborted = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(exec, Reply::Error(aborted.into()));
    let left = conn.command(&["EXISTS", "cross:one", "cross:two"]).expect("EXISTS");
    assert_eq!(left, Reply::Int(0));
    assert_eq!(conn.command(&["EXEC"]).expect("EXEC").error(), Some("ERR EXEC without MULTI"));
}

#[test]
fn a_command_over_several_slots_is_rejected_as_well() {
    let mut conn = common::shared().proxy.connect();
    for command in
        [vec!["MGET", "cross:a", "cross:b"], vec!["MSET", "cross:a", "1", "cross:b", "2"]]
    {
        let replies = conn.pipeline(&[vec!["MULTI"], command, vec!["EXEC"]]).expect("replies");
        let text = replies[1].error().unwrap_or_else(|| panic!("{replies:?}"));
        assert!(text.starts_with("CROSSSLOT ") && text.contains("cross:b"), "{text}");
        assert!(replies[2].error().is_some_and(|e| e.starts_with("EXECABORT ")), "{replies:?}");
    }
}

#[test]
fn split_gives_the_replies_in_the_order_asked_and_one_transaction_for_each_slot() {
    let Setting { proxy, cluster } = common::setting(&SPLIT);
    const KEYS: usize = 30;
    let keys: Vec<String> = (0..KEYS).map(|i| format!("split:{}", i % 20)).collect();
    let slots: HashSet<u16> = keys.iter().map(|k| slot_of(k.as_bytes()).0).collect();
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "split:warm", "v"]).expect("SET").is_ok());
    each_primary(&cluster, &["CONFIG", "RESETSTAT"]);
    let before = [
        proxy.metric("slotway_transactions_total", "kind=\"split\""),
        proxy.metric("slotway_transactions_total", "kind=\"one_slot\""),
    ];
    let mut commands = vec![vec!["MULTI"]];
    commands.extend(keys.iter().map(|k| vec!["APPEND", k, "ab"]));
    commands.push(vec!["EXEC"]);
    let replies = conn.pipeline(&commands).expect("replies");
    let wanted: Vec<Reply> = (0..KEYS).map(|i| Reply::Int(if i < 20 { 2 } else { 4 })).collect();
    assert_eq!(replies[KEYS + 1], Reply::Array(wanted));
    assert_eq!(calls(&cluster, "multi"), slots.len() as u64, "one MULTI for each slot");
    assert_eq!(calls(&cluster, "exec"), slots.len() as u64, "one EXEC for each slot");
    assert_eq!(proxy.metric("slotway_transactions_total", "kind=\"split\"") - before[0], 1.0);
    // All in one slot is still one.
    let one = [vec!["MULTI"], vec!["INCR", "{t}a"], vec!["INCR", "{t}b"], vec!["EXEC"]];
    conn.pipeline(&one).expect("replies");
    assert_eq!(calls(&cluster, "multi"), slots.len() as u64 + 1);
    assert_eq!(proxy.metric("slotway_transactions_total", "kind=\"one_slot\"") - before[1], 1.0);
}

#[test]
fn split_lets_in_commands_over_several_slots_and_all_shards() {
    let Setting { proxy, cluster: _cluster } = common::setting(&SPLIT);
    for mut conn in [proxy.connect(), proxy.connect3()] {
        assert!(conn.command(&["FLUSHALL"]).expect("FLUSHALL").is_ok());
        let replies = conn.pipeline(&[
            vec!["MULTI"],
            vec!["MSET", "a", "1", "b", "2", "c", "3", "d", "4"],
            vec!["MGET", "d", "nosuch", "a", "b"],
            vec!["DBSIZE"],
            vec!["INCR", "b"],
            vec!["DEL", "a", "c", "nosuch"],
            vec!["EXISTS", "a", "b", "c", "d"],
            vec!["PING"],
            vec!["LPUSH", "b", "x"],
            vec!["EXEC"],
        ]);
        let replies = replies.expect("replies");
        let Some(Reply::Array(results)) = replies.last() else { panic!("{replies:?}") };
        let bulk = |s: &str| Reply::Bulk(s.into());
        assert_eq!(results.len(), 8, "{replies:?}");
        assert!(results[0].is_ok(), "{results:?}");
        let mget = vec![bulk("4"), Reply::Nil, bulk("1"), bulk("2")];
        assert_eq!(results[1], Reply::Array(mget));
        // Each shard's part is carried out by itself: what DBSIZE sees of the others is open.
        assert!(matches!(results[2], Reply::Int(0..=4)), "{results:?}");
        assert_eq!(results[3], Reply::Int(3));
        assert_eq!(results[4], Reply::Int(2));
        assert_eq!(results[5], Reply::Int(2));
        assert_eq!(results[6], Reply::Simple("PONG".into()));
        assert!(results[7].error().is_some_and(|e| e.starts_with("WRONGTYPE ")), "{results:?}");
    }
}

#[test]
fn split_keeps_each_slot_atomic_among_many_clients() {
    const TAGS: usize = 6;
    let Setting { proxy, cluster: _cluster } = common::setting(&SPLIT);
    let keys: Vec<[String; 2]> =
        (0..TAGS).map(|t| [format!("{{{t}}}a"), format!("{{{t}}}b")]).collect();
    let keys = &keys;
    thread::scope(|scope| {
        for _ in 0..6 {
            let mut conn = proxy.connect();
            scope.spawn(move || {
                let mut one = vec![vec!["MULTI"]];
                one.extend(keys.iter().map(|[a, _]| vec!["INCR", a.as_str()]));
                one.extend(keys.iter().map(|[_, b]| vec!["INCR", b.as_str()]));
                one.push(vec!["EXEC"]);
                let batch: Vec<Vec<&str>> = (0..10).flat_map(|_| one.clone()).collect();
                for _ in 0..20 {
                    let replies = conn.pipeline(&batch).expect("replies");
                    for transaction in replies.chunks(one.len()) {
                        let results = transaction.last().and_then(Reply::items);
                        let Some(results) = results else { panic!("{transaction:?}") };
                        let (a, b) = results.split_at(TAGS);
                        assert_eq!(a, b, "one slot's part was not atomic");
                    }
                }
            });
        }
    });
    let mut conn = proxy.connect();
    for key in keys.iter().flatten() {
        assert_eq!(conn.command(&["GET", key]).expect("GET"), Reply::Bulk(b"1200".to_vec()));
    }
}

#[test]
fn split_answers_null_when_a_watched_key_of_any_slot_changed() {
    let Setting { proxy, cluster: _cluster } = common::setting(&SPLIT);
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    for changed in ["w:1", "w:2", "w:3"] {
        assert!(conn.command(&["WATCH", "w:1", "w:2", "w:3"]).expect("WATCH").is_ok());
        assert!(other.command(&["SET", changed, "other"]).expect("SET").is_ok());
        let commands = [
            vec!["MULTI"],
            vec!["SET", "w:1", "mine"],
            vec!["SET", "w:2", "mine"],
            vec!["SET", "w:3", "mine"],
            vec!["EXEC"],
        ];
        let replies = conn.pipeline(&commands).expect("replies");
        assert_eq!(replies[4], Reply::Nil, "{changed} was changed");
        let got = conn.command(&["MGET", "w:1", "w:2", "w:3"]).expect("MGET");
        let mine = Reply::Bulk(b"mine".to_vec());
        assert!(!got.items().unwrap_or_default().contains(&mine), "{got:?}");
    }
    assert!(conn.command(&["WATCH", "w:1", "w:2"]).expect("WATCH").is_ok());
    let commands =
        [vec!["MULTI"], vec!["SET", "w:1", "mine"], vec!["SET", "w:2", "mine"], vec!["EXEC"]];
    let replies = conn.pipeline(&commands).expect("replies");
    let Some([a, b]) = replies[3].items() else { panic!("{replies:?}") };
    assert!(a.is_ok() && b.is_ok());
}

// ------------------------------------------------------------------------------------------------
// WATCH.

#[test]
fn watched_and_changed_is_null_in_the_bytes_of_each_protocol() {
    let proxy = &common::shared().proxy;
    for (mut conn, null) in [(proxy.connect(), "*-1\r\n"), (proxy.connect3(), "_\r\n")] {
        let mut other = proxy.connect();
        assert!(conn.command(&["WATCH", "{null}k"]).expect("WATCH").is_ok());
        assert!(other.command(&["SET", "{null}k", "v"]).expect("SET").is_ok());
        conn.pipeline(&[vec!["MULTI"], vec!["GET", "{null}k"]]).expect("replies");
        conn.send(&["EXEC"]).expect("to send");
        assert_eq!(conn.receive_raw().expect("EXEC"), null.as_bytes());
    }
}

#[test]
fn a_compare_and_set_loop_of_many_clients_counts_right() {
    const CLIENTS: usize = 8;
    const EACH: usize = 40;
    let proxy = &common::shared().proxy;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut conn = proxy.connect();
            scope.spawn(move || {
                for _ in 0..EACH {
                    while cas(&mut conn, "{cas}n", "{cas}m").expect("no error").is_none() {}
                }
            });
        }
    });
    let mut conn = proxy.connect();
    let total = Reply::Bulk((CLIENTS * EACH).to_string().into_bytes());
    assert_eq!(conn.command(&["GET", "{cas}n"]).expect("GET"), total);
    assert_eq!(conn.command(&["GET", "{cas}m"]).expect("GET"), total);
    common::eventually("nothing is lent", || lent(proxy) == 0.0);
}

#[test]
fn a_watching_connection_lost_before_exec_means_null() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let mut conn = proxy.connect();
    for when in ["before MULTI", "after MULTI", "while idle"] {
        assert!(conn.command(&["WATCH", "k"]).expect("WATCH").is_ok());
        if when == "after MULTI" {
            conn.pipeline(&[vec!["MULTI"], vec!["SET", "k", "v"]]).expect("replies");
        }
        each_primary(&cluster, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        if when == "while idle" {
            thread::sleep(Duration::from_millis(100));
        }
        if when != "after MULTI" {
            conn.pipeline(&[vec!["MULTI"], vec!["SET", "k", "v"]]).expect("replies");
        }
        let exec = conn.command(&["EXEC"]).expect("EXEC");
        assert_eq!(exec, Reply::Nil, "killed {when}");
        common::eventually("reads are served again", || {
            conn.command(&["GET", "k"]).expect("GET") == Reply::Nil
        });
    }
    // And afterwards all is as before.
    let commands = [vec!["WATCH", "k"], vec!["MULTI"], vec!["SET", "k", "v"], vec!["EXEC"]];
    let replies = conn.pipeline(&commands).expect("replies");
    assert!(replies[3].items().is_some_and(|r| r[0].is_ok()), "{replies:?}");
}

#[test]
fn a_watching_connection_is_given_back() {
    let Setting { proxy, cluster: _cluster } = common::setting(&["--workers", "1"]);
    let ways: [(&str, &[&[&str]]); 5] = [
        ("UNWATCH", &[&["UNWATCH"]]),
        ("DISCARD", &[&["MULTI"], &["DISCARD"]]),
        ("EXEC", &[&["MULTI"], &["GET", "k"], &["EXEC"]]),
        ("an EXEC that is refused", &[&["MULTI"], &["GET"], &["EXEC"]]),
        ("RESET", &[&["RESET"]]),
    ];
    for (way, commands) in ways {
        let mut conn = proxy.connect();
        assert!(conn.command(&["WATCH", "k"]).expect("WATCH").is_ok());
        assert_eq!(lent(&proxy), 1.0, "WATCH");
        for command in commands {
            conn.command(command).expect("a reply");
        }
        common::eventually(&format!("{way} gives it back"), || lent(&proxy) == 0.0);
        // What was watched does no longer count.
        let mut other = proxy.connect();
        assert!(other.command(&["SET", "k", way]).expect("SET").is_ok());
        let commands = [vec!["MULTI"], vec!["GET", "k"], vec!["EXEC"]];
        let replies = conn.pipeline(&commands).expect("replies");
        assert!(replies[2].items().is_some(), "after {way}: {replies:?}");
    }
    let mut conn = proxy.connect();
    assert!(conn.command(&["WATCH", "k"]).expect("WATCH").is_ok());
    conn.pipeline(&[vec!["MULTI"], vec!["SET", "k", "gone"]]).expect("replies");
    drop(conn);
    common::eventually("the client's end gives it back", || lent(&proxy) == 0.0);
    // Whoever gets the connection next is not told of changes that he does not care about.
    for i in 0..10 {
        let mut conn = proxy.connect();
        let mut other = proxy.connect();
        assert!(conn.command(&["WATCH", "other"]).expect("WATCH").is_ok());
        assert!(other.command(&["SET", "k", &i.to_string()]).expect("SET").is_ok());
        let commands = [vec!["MULTI"], vec!["GET", "other"], vec!["EXEC"]];
        let replies = conn.pipeline(&commands).expect("replies");
        assert!(replies[2].items().is_some(), "{replies:?}");
    }
}

// ------------------------------------------------------------------------------------------------
// While the cluster changes.

#[test]
fn a_transaction_follows_its_slot() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let slot = slot_of(b"{ask}a");
    let from = cluster.owner_of(slot).expect("the owner");
    let to = other_primary(&cluster, &from);
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
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let slot = slot_of(b"{half}a");
    let from = cluster.owner_of(slot).expect("the owner");
    let to = other_primary(&cluster, &from);
    let one = [vec!["MULTI"], vec!["INCR", "{half}a"], vec!["INCR", "{half}b"], vec!["EXEC"]];
    let mut conn = proxy.connect();
    conn.pipeline(&one).expect("replies");
    cluster.begin_move(slot, &from, &to).expect("to begin");
    assert_eq!(cluster.move_keys(slot, &from, &to, 1).expect("to move a key"), 1);
    let replies = thread::scope(|scope| {
        let waits = scope.spawn(|| conn.pipeline(&one).expect("replies"));
        thread::sleep(Duration::from_millis(300));
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
    let Setting { proxy, cluster } = common::setting(&[]);
    let seen = while_transacting(proxy.listen, |load| {
        for round in 0..3 {
            for tag in 0..TAGS {
                let slot = slot_of(key(tag, 'a').as_bytes());
                let from = cluster.owner_of(slot).expect("the owner");
                let to = other_primary(&cluster, &from);
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
        assert!(error.contains(UNKNOWN), "{error}");
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
        assert!(error.contains(UNKNOWN), "{error}");
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
                seen.unknown[tag] += usize::from(error.contains(UNKNOWN));
                seen.errors.push(error);
                // A transaction that was begun is over.
                let _ = conn.command(&["DISCARD"]).expect("a reply");
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    seen
}

/// Counts up in both keys unless somebody else does: WATCH, GET, MULTI, SET, INCR, EXEC.
fn cas(conn: &mut Conn, a: &str, b: &str) -> Result<Option<()>, String> {
    let reply = conn.command(&["WATCH", a]).expect("WATCH");
    if let Reply::Error(error) = reply {
        return Err(error);
    }
    let now = match conn.command(&["GET", a]).expect("GET") {
        Reply::Error(error) => return Err(error),
        Reply::Nil => 0,
        value => value.text().and_then(|n| n.parse::<u64>().ok()).expect("a number"),
    };
    let next = (now + 1).to_string();
    let commands = [vec!["MULTI"], vec!["SET", a, &next], vec!["INCR", b], vec!["EXEC"]];
    match conn.pipeline(&commands).expect("replies").remove(3) {
        Reply::Error(error) => Err(error),
        Reply::Nil => Ok(None),
        Reply::Array(results) => {
            assert!(results.len() == 2 && results[0].is_ok(), "{results:?}");
            assert_eq!(results[1], Reply::Int(now as i64 + 1), "another slipped between");
            Ok(Some(()))
        }
        other => panic!("EXEC: {other:?}"),
    }
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

// ------------------------------------------------------------------------------------------------

/// A command to every primary, on connections of its own.
fn each_primary(cluster: &Cluster, command: &[&str]) {
    for node in cluster.primaries().expect("primaries") {
        let reply = cluster.connect(&node).map(|mut conn| {
            conn.command(command).unwrap_or_else(|e| panic!("{}: {e}", node.addr))
        });
        let reply = reply.expect("a connection");
        assert!(reply.error().is_none(), "{command:?}: {reply:?}");
    }
}

/// How often all primaries together were asked a command since CONFIG RESETSTAT.
fn calls(cluster: &Cluster, command: &str) -> u64 {
    let nodes = cluster.primaries().expect("primaries");
    let of_node = |node: &Node| {
        let mut conn = cluster.connect(node).expect("a connection");
        let info = conn.command(&["INFO", "commandstats"]).expect("INFO").text().expect("text");
        let start = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next());
        line.map_or(0, |n| n.parse::<u64>().expect("a number"))
    };
    nodes.iter().map(of_node).sum()
}

fn other_primary(cluster: &Cluster, than: &Node) -> Node {
    let primaries = cluster.primaries().expect("primaries");
    primaries.into_iter().find(|node| node.id != than.id).expect("another primary")
}

fn lent(proxy: &Proxy) -> f64 {
    proxy.metric("slotway_dedicated_connections", "state=\"lent\"")
}
