//! MULTI … EXEC in one slot: replies as a server's, atomic and isolated.
//!
//! Over several slots: `tests/cross_slot.rs`; with WATCH: `tests/watch.rs`; while slots and primaries
//! change: `tests/transactions_moving.rs`. Every reply and error text beside a standalone server's:
//! `tests/differential`.

use crate::common;
use slotway::sandbox::Reply;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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
                let mut conn =
                    if writer.is_multiple_of(2) { proxy.connect() } else { proxy.connect3() };
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
