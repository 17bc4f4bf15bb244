//! WATCH through slotway: EXEC is null when a watched key changed or nobody can say, and the
//! connection lent for it is given back, clean.

use crate::common::errors::{DEADLINES, is_one_of};
use crate::common::transactions::{cas, each_primary};
use crate::common::{self, Proxy, Setting, shared};
use slotway::cluster::slot_of;
use slotway::sandbox::Reply;
use std::thread;

#[test]
fn watched_and_changed_is_null_in_the_bytes_of_each_protocol() {
    let proxy = &shared().proxy;
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
    let proxy = &shared().proxy;
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
            common::eventually("slotway sees it", || lent(&proxy) == 0.0);
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
    let proxy = Proxy::start(&shared().cluster, &["--workers", "1"]);
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

fn lent(proxy: &Proxy) -> f64 {
    proxy.metric("slotway_dedicated_connections", "state=\"lent\"")
}

/// A command that may block goes over the connection that watches, if its slot's keys are watched.
/// Its large reply is handed on in pieces, and must not take the connection away.
#[test]
fn a_large_reply_leaves_the_watch_alone() {
    let proxy = &common::shared().proxy;
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    let large = "x".repeat(300_000);
    conn.command(&["XADD", "{large}s", "1-1", "f", &large]).expect("XADD");
    assert!(conn.command(&["WATCH", "{large}k"]).expect("WATCH").is_ok());
    let read = conn.command(&["XREAD", "BLOCK", "1000", "STREAMS", "{large}s", "0"]);
    assert!(read.expect("XREAD").items().is_some());
    // It would get that connection, if it were free.
    other.send(&["BLPOP", "{large}list", "0"]).expect("BLPOP");
    assert_eq!(proxy.connect().command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    let queue = [vec!["MULTI"], vec!["RPUSH", "{large}list", "v"], vec!["EXEC"]];
    let replies = conn.pipeline(&queue).expect("replies");
    assert_eq!(replies[2].items().map(<[Reply]>::len), Some(1), "{replies:?}");
    let popped = other.receive().expect("BLPOP");
    assert_eq!(popped.items().and_then(|i| i[1].text()), Some("v".into()), "{popped:?}");
}

#[test]
fn a_protocol_changed_behind_watch_is_that_of_execs_reply() {
    let proxy = &common::shared().proxy;
    let execs = [false, true].map(|watch| {
        let mut conn = proxy.connect();
        conn.command(&["HSET", "{hello}h", "field", "value"]).expect("HSET");
        if watch {
            assert!(conn.command(&["WATCH", "{hello}k"]).expect("WATCH").is_ok());
        }
        conn.command(&["HELLO", "3"]).expect("HELLO");
        conn.pipeline(&[vec!["MULTI"], vec!["HGETALL", "{hello}h"]]).expect("replies");
        conn.send(&["EXEC"]).expect("EXEC");
        conn.receive_raw().expect("EXEC")
    });
    assert_eq!(execs[0], execs[1]);
}

/// The second WATCH of a slot is given up at its deadline, with the connection of the first one.
#[test]
fn a_watch_that_is_not_answered_is_no_watch() {
    let args = ["--set", "timeouts.command=500ms", "--workers", "1"];
    let Setting { proxy, cluster } = common::setting(&args);
    let owner = cluster.owner_of(slot_of(b"{mute}k")).expect("an owner");
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    assert!(conn.command(&["WATCH", "{mute}k"]).expect("WATCH").is_ok());
    cluster.pause(&owner).expect("SIGSTOP");
    let late = conn.command(&["WATCH", "{mute}other"]).expect("WATCH");
    cluster.resume(&owner).expect("SIGCONT");
    assert!(is_one_of(&late, &DEADLINES), "{late:?}");
    common::eventually("the node answers", || {
        other.command(&["SET", "{mute}k", "1"]).expect("SET").is_ok()
    });
    // It may get the place of the connection that was closed.
    other.send(&["BLPOP", "{mute}list", "0"]).expect("BLPOP");
    common::eventually("it is lent", || {
        proxy.metric("slotway_dedicated_connections", "state=\"lent\"") == 1.0
    });
    let queue = [vec!["MULTI"], vec!["SET", "{mute}k", "2"], vec!["EXEC"]];
    assert_eq!(conn.pipeline(&queue).expect("replies")[2], Reply::Nil);
    let mut third = proxy.connect();
    assert_eq!(third.command(&["RPUSH", "{mute}list", "v"]).expect("RPUSH"), Reply::Int(1));
    assert!(other.receive().expect("BLPOP").items().is_some());
}
