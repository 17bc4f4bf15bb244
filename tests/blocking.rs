//! Blocking commands through slotway: with data there, with a push later, with a timeout; a
//! thousand clients at once; while connections, primaries and slots change; and WAIT.
//!
//! Every reply beside a standalone server's: `tests/differential`.

use crate::common::errors::{DEADLINES, identified, involves, is_outcome_unknown, says};
use crate::common::{self, Proxy, Setting};
use slotway::cluster::{Slot, slot_of};
use slotway::errors::{Failure, FailureId, Unanswered};
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply, Standalone, StandaloneOptions};
use std::thread;
use std::time::{Duration, Instant};

/// Each blocking command on keys of its own: what it is, and what wakes it.
fn every_command(tag: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let words = |text: &str| {
        let text = text.replace("{}", &format!("{{{tag}}}"));
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    [
        ("BLPOP {}no {}blpop T", "RPUSH {}blpop a b"),
        ("BRPOP {}no {}brpop T", "RPUSH {}brpop a b"),
        ("BLMOVE {}blmove {}to LEFT RIGHT T", "RPUSH {}blmove a b"),
        ("BRPOPLPUSH {}brpoplpush {}to T", "RPUSH {}brpoplpush a b"),
        ("BLMPOP T 2 {}no {}blmpop LEFT COUNT 5", "RPUSH {}blmpop a b"),
        ("BZPOPMIN {}no {}bzpopmin T", "ZADD {}bzpopmin 1 a 2.5 b"),
        ("BZPOPMAX {}no {}bzpopmax T", "ZADD {}bzpopmax 1 a 2.5 b"),
        ("BZMPOP T 2 {}no {}bzmpop MAX COUNT 5", "ZADD {}bzmpop 1 a 2.5 b"),
        ("XREAD COUNT 9 BLOCK MS STREAMS {}no {}xread 0 0", "XADD {}xread 1-1 f v"),
        ("XREADGROUP GROUP g me BLOCK MS STREAMS {}xgroup >", "XADD {}xgroup 1-1 f v"),
    ]
    .into_iter()
    .map(|(command, wake)| (words(command), words(wake)))
    .collect()
}

/// With this timeout.
fn timed(command: &[String], seconds: &str, ms: &str) -> Vec<String> {
    let word = |w: &String| match w.as_str() {
        "T" => seconds.to_owned(),
        "MS" => ms.to_owned(),
        w => w.to_owned(),
    };
    command.iter().map(word).collect()
}

fn group(conn: &mut Conn, tag: &str) {
    let create = ["XGROUP", "CREATE", &format!("{{{tag}}}xgroup"), "g", "0", "MKSTREAM"];
    assert!(conn.command(&create).expect("XGROUP CREATE").is_ok());
}

#[test]
fn every_command_gives_the_bytes_of_a_standalone_server() {
    let proxy = &common::shared().proxy;
    let standalone = Standalone::start(StandaloneOptions::default()).expect("a server");
    for protocol in ["2", "3"] {
        for how in ["there", "later", "in vain"] {
            let tag = format!("{protocol}{}", how.replace(' ', "-"));
            let open = |addr| {
                let mut conn = Conn::tcp(addr).expect("a connection");
                conn.command(&["HELLO", protocol]).expect("HELLO");
                conn
            };
            let mut sides = [standalone.addr(), proxy.listen].map(|addr| (open(addr), open(addr)));
            for (conn, _) in &mut sides {
                group(conn, &tag);
            }
            for (command, wake) in every_command(&tag) {
                let time = if how == "in vain" { ("0.05", "50") } else { ("0", "0") };
                let command = timed(&command, time.0, time.1);
                let mut replies = Vec::new();
                for (conn, other) in &mut sides {
                    if how == "there" {
                        other.command(&wake).expect("to push");
                    }
                    conn.send(&command).expect("to send");
                    if how == "later" {
                        common::eventually("it is blocked", || blocked_clients(other) > 0);
                        other.command(&wake).expect("to push");
                    }
                    let reply = conn.receive_raw().expect("a reply");
                    replies.push(String::from_utf8_lossy(&reply).into_owned());
                }
                assert_eq!(replies[0], replies[1], "RESP{protocol}, data {how}: {command:?}");
            }
        }
    }
}

#[test]
fn not_before_its_time() {
    let mut conn = common::shared().proxy.connect();
    for (command, _) in every_command("patience") {
        if command[0] == "XREADGROUP" {
            group(&mut conn, "patience");
        }
        let since = Instant::now();
        let reply = conn.command(&timed(&command, "0.3", "300")).expect("a reply");
        assert_eq!(reply, Reply::Nil, "{command:?}");
        // The server's clock ticks in milliseconds.
        assert!(since.elapsed() > Duration::from_millis(295), "{command:?}: {:?}", since.elapsed());
    }
}

#[test]
fn a_command_longer_than_the_command_timeout() {
    let cluster = &common::shared().cluster;
    let proxy = Proxy::start(cluster, &["--set", "timeouts.command=300ms"]);
    let mut conn = proxy.connect();
    let since = Instant::now();
    assert_eq!(conn.command(&["BLPOP", "long", "1"]).expect("a reply"), Reply::Nil);
    assert!(since.elapsed() > Duration::from_millis(995), "{:?}", since.elapsed());
    conn.send(&["BLPOP", "long", "0"]).expect("to send");
    let node = cluster.owner_of(slot_of(b"long")).expect("the owner");
    common::eventually("it is blocked", || blocked_at(cluster, &node) > 0);
    thread::sleep(Duration::from_millis(700));
    proxy.connect().command(&["RPUSH", "long", "v"]).expect("RPUSH");
    assert_eq!(conn.receive().expect("a reply"), popped("long", "v"));
}

/// In milliseconds that a server takes, and in microseconds more than 64 bits hold.
#[test]
fn the_longest_times_that_there_are() {
    let proxy = &common::shared().proxy;
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    for time in ["18446744073709550", "18446744073709551", "9000000000000000000"] {
        let stream = format!("{{longest}}{time}");
        conn.send(&["XREAD", "BLOCK", time, "STREAMS", &stream, "0"]).expect("XREAD");
        let added = other.command(&["XADD", &stream, "1-1", "f", "v"]).expect("XADD");
        assert_eq!(added.error(), None);
        let reply = conn.receive().expect("a reply");
        assert!(reply.items().is_some(), "{time}: {reply:?}");
    }
}

#[test]
fn a_thousand_clients_blocked_at_once_are_all_served() {
    const CLIENTS: usize = 1_000;
    // Two connections for each client, one of them to a node.
    let proxy = Proxy::start(&common::shared().cluster, &["--set", "limits.dedicated=1500"]);
    let mut blocked: Vec<Conn> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    for (i, conn) in blocked.iter_mut().enumerate() {
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        conn.send(&["BLPOP", &format!("thousand:{i}"), "0"]).expect("to send");
    }
    common::eventually("all are blocked", || lent(&proxy) == CLIENTS as f64);
    // Meanwhile others are served.
    let mut other = proxy.connect();
    for i in 0..200 {
        let key = format!("thousand:other:{i}");
        assert!(other.command(&["SET", &key, "v"]).expect("SET").is_ok());
        assert_eq!(other.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"v".to_vec()));
    }
    let keys: Vec<String> = (0..CLIENTS).map(|i| format!("thousand:{i}")).collect();
    let pushes: Vec<Vec<&str>> = keys.iter().map(|key| vec!["RPUSH", key, key]).collect();
    let replies = other.pipeline(&pushes).expect("replies");
    assert!(replies.iter().all(|r| *r == Reply::Int(1)));
    for (key, conn) in keys.iter().zip(&mut blocked) {
        assert_eq!(conn.receive().expect("a reply"), popped(key, key));
    }
    common::eventually("nothing is lent", || lent(&proxy) == 0.0);
    let mut conn = blocked.pop().expect("a client");
    assert_eq!(conn.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn first_come_first_served() {
    let proxy = &common::shared().proxy;
    let mut clients: Vec<Conn> = (0..5).map(|_| proxy.connect()).collect();
    let mut other = proxy.connect();
    for (i, conn) in clients.iter_mut().enumerate() {
        conn.send(&["BLPOP", "{queue}l", "0"]).expect("to send");
        node_blocks(&common::shared().cluster, "{queue}l", i + 1);
    }
    for value in ["1", "2", "3", "4", "5"] {
        other.command(&["RPUSH", "{queue}l", value]).expect("RPUSH");
    }
    for (conn, value) in clients.iter_mut().zip(["1", "2", "3", "4", "5"]) {
        assert_eq!(conn.receive().expect("a reply"), popped("{queue}l", value));
    }
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let proxy = &common::shared().proxy;
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let commands: [&[&str]; 7] = [
        &["SET", "{pipe}k", "1"],
        &["BLPOP", "{pipe}l", "0"],
        &["PING"],
        &["INCR", "{pipe}k"],
        &["BLPOP", "{pipe}l", "0"],
        &["GET", "{pipe}k"],
        &["GET", "{another}slot"],
    ];
    for command in commands {
        conn.send(command).expect("to send");
    }
    assert!(conn.receive().expect("SET").is_ok());
    conn.set_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(conn.receive_raw().is_err(), "PING was answered before BLPOP");
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let mut other = proxy.connect();
    let waits = Reply::Bulk(b"1".to_vec());
    assert_eq!(other.command(&["GET", "{pipe}k"]).expect("GET"), waits, "INCR overtook BLPOP");
    other.command(&["RPUSH", "{pipe}l", "a", "b"]).expect("RPUSH");
    assert_eq!(conn.receive().expect("BLPOP"), popped("{pipe}l", "a"));
    assert_eq!(conn.receive().expect("PING"), Reply::Simple("PONG".into()));
    assert_eq!(conn.receive().expect("INCR"), Reply::Int(2));
    assert_eq!(conn.receive().expect("BLPOP"), popped("{pipe}l", "b"));
    assert_eq!(conn.receive().expect("GET"), Reply::Bulk(b"2".to_vec()));
    assert_eq!(conn.receive().expect("GET"), Reply::Nil);
}

#[test]
fn a_client_that_goes_away_takes_nothing() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let mut other = proxy.connect();
    for (i, (command, wake)) in every_command("gone").into_iter().enumerate() {
        if command[0] == "XREADGROUP" {
            group(&mut other, "gone");
        }
        let mut conn = proxy.connect();
        conn.send(&timed(&command, "0", "0")).expect("to send");
        node_blocks(&cluster, &wake[1], 1);
        if i % 2 == 0 {
            // With something behind it that will never be read.
            conn.send(&["PING"]).expect("to send");
        }
        drop(conn);
        node_blocks(&cluster, &wake[1], 0);
        assert_eq!(lent(&proxy), 0.0, "{command:?}");
        other.command(&wake).expect("to push");
        let count = match command[0].as_str() {
            "XREAD" => vec!["XLEN", &wake[1]],
            "XREADGROUP" => vec!["XLEN", &wake[1]],
            c if c.starts_with("BZ") => vec!["ZCARD", &wake[1]],
            _ => vec!["LLEN", &wake[1]],
        };
        let wanted = Reply::Int(if command[0].starts_with('X') { 1 } else { 2 });
        assert_eq!(other.command(&count).expect("a count"), wanted, "{command:?}");
    }
    let pending = other.command(&["XPENDING", "{gone}xgroup", "g"]).expect("XPENDING");
    assert_eq!(pending.items().map(|p| p[0].clone()), Some(Reply::Int(0)), "{pending:?}");
}

#[test]
fn the_limit_of_dedicated_connections() {
    let args = ["--workers", "2", "--set", "limits.dedicated=3"];
    let proxy = Proxy::start(&common::shared().cluster, &args);
    let mut blocked: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for (i, conn) in blocked.iter_mut().enumerate() {
        conn.send(&["BLPOP", &format!("limit:{i}"), "0"]).expect("to send");
    }
    common::eventually("all are blocked", || lent(&proxy) == 3.0);
    let mut other = proxy.connect();
    for command in [&["BLPOP", "limit:x", "0"][..], &["WATCH", "k"], &["WAIT", "0", "0"]] {
        let reply = other.command(command).expect("a reply");
        let error = identified(&reply);
        assert_eq!(error.id, FailureId::TooManyDedicated, "{command:?}: {reply:?}");
        assert_eq!(error.field("limit"), Some("3"), "{command:?}: {reply:?}");
        assert!(other.command(&["SET", "limit:ok", "v"]).expect("SET").is_ok());
    }
    assert!(proxy.metric("slotway_limits_hit_total", "limit=\"dedicated\"") >= 3.0);
    assert_eq!(proxy.metric("slotway_limit", "limit=\"dedicated\""), 3.0);
    other.command(&["RPUSH", "limit:0", "v"]).expect("RPUSH");
    assert_eq!(blocked[0].receive().expect("a reply"), popped("limit:0", "v"));
    // An idle connection to another node does not stand in the way of one to this.
    for i in 0..20 {
        let key = format!("limit:again:{i}");
        assert_eq!(other.command(&["BLPOP", &key, "0.01"]).expect("a reply"), Reply::Nil);
    }
}

/// A client that was told no takes every line for the reply to what it asks next.
#[test]
fn a_refused_monitor_hears_nothing() {
    let args = ["--workers", "1", "--set", "limits.dedicated=2"];
    let Setting { proxy, cluster } = common::setting(&args);
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    for _ in 0..3 {
        let refused = conn.command(&["MONITOR"]).expect("MONITOR");
        let text = refused.error().unwrap_or_default();
        assert!(involves(text, &[FailureId::TooManyDedicated]), "{refused:?}");
        for node in cluster.primaries().expect("primaries") {
            let key = key_on(&node, "monitored");
            assert!(other.command(&["SET", &key, "v"]).expect("SET").is_ok());
            assert_eq!(conn.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"v".to_vec()));
        }
    }
    common::eventually("none is lent", || lent(&proxy) == 0.0);
}

/// What WAIT was lent is given back, also by a client that hears what the nodes do.
#[test]
fn monitor_goes_on_beside_other_errands() {
    let args = ["--workers", "1", "--set", "limits.dedicated=8"];
    let Setting { proxy, cluster } = common::setting(&args);
    let mut conn = proxy.connect();
    assert!(conn.command(&["MONITOR"]).expect("MONITOR").is_ok());
    let until = |conn: &mut Conn, wanted: &dyn Fn(&Reply) -> bool| {
        while !wanted(&conn.receive().expect("a line or a reply")) {}
    };
    for _ in 0..5 {
        conn.send(&["WAIT", "0", "100"]).expect("WAIT");
        until(&mut conn, &|reply| match reply {
            Reply::Int(_) => true,
            Reply::Error(text) => panic!("{text}"),
            _ => false,
        });
    }
    common::eventually("only MONITOR's are lent", || lent(&proxy) == 3.0);
    let mut other = proxy.connect();
    for round in 0..2 {
        for node in cluster.primaries().expect("primaries") {
            let key = key_on(&node, &format!("heard{round}"));
            other.command(&["SET", &key, "v"]).expect("SET");
            until(&mut conn, &|reply| reply.text().is_some_and(|line| line.contains(&key)));
        }
        if round == 0 {
            for node in cluster.primaries().expect("primaries") {
                let mut direct = cluster.connect(&node).expect("a connection");
                direct
                    .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .expect("KILL");
            }
            common::eventually("it listens again", || {
                let listens = |node: &Node| {
                    let mut direct = cluster.connect(node).expect("a connection");
                    let list = direct.command(&["CLIENT", "LIST"]).expect("CLIENT LIST");
                    list.text().expect("a list").contains("cmd=monitor")
                };
                cluster.primaries().expect("primaries").iter().all(listens)
            });
        }
    }
}

#[test]
fn client_unblock() {
    let Setting { proxy, cluster } = common::setting(&["--workers", "2"]);
    let mut other = proxy.connect();
    for (command, wake) in every_command("unblock") {
        if command[0] == "XREADGROUP" {
            group(&mut other, "unblock");
        }
        for (how, wanted) in [
            (None, Reply::Nil),
            (Some("TIMEOUT"), Reply::Nil),
            (Some("ERROR"), Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())),
        ] {
            let mut conn = proxy.connect();
            let id = conn.command(&["CLIENT", "ID"]).expect("CLIENT ID").int().expect("an ID");
            conn.send(&timed(&command, "0", "0")).expect("to send");
            node_blocks(&cluster, &wake[1], 1);
            let mut unblock = vec!["CLIENT".to_owned(), "UNBLOCK".into(), id.to_string()];
            unblock.extend(how.map(str::to_owned));
            assert_eq!(other.command(&unblock).expect("CLIENT UNBLOCK"), Reply::Int(1));
            assert_eq!(conn.receive().expect("a reply"), wanted, "{command:?} {how:?}");
            assert_eq!(other.command(&unblock).expect("CLIENT UNBLOCK"), Reply::Int(0));
            assert_eq!(conn.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
        }
    }
    common::eventually("nothing is lent", || lent(&proxy) == 0.0);
    let nobody = other.command(&["CLIENT", "UNBLOCK", "987654321"]).expect("CLIENT UNBLOCK");
    assert_eq!(nobody, Reply::Int(0));
}

#[test]
fn a_failover_while_blocked_is_no_error() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut blocked = block_everywhere(&proxy, &cluster);
    for primary in cluster.primaries().expect("primaries") {
        let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
        cluster.failover(&replica).expect("a failover");
    }
    wake_all(&proxy, &mut blocked);
}

#[test]
fn the_primary_is_killed_while_blocked() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=25s"]);
    let mut blocked = block_everywhere(&proxy, &cluster);
    let primary = cluster.owner_of(slot_of(b"{failover0}blpop")).expect("the owner");
    for replica in cluster.replicas_of(&primary).expect("replicas") {
        cluster.catch_up(&replica).expect("to catch up");
    }
    cluster.kill(&primary).expect("to kill");
    common::eventually("another leads", || {
        let owner = cluster.owner_of(slot_of(b"{failover0}blpop"));
        owner.is_ok_and(|owner| owner.id != primary.id)
    });
    wake_all(&proxy, &mut blocked);
}

/// The primary dies, nobody follows it, and the commands that were sent to it come to their end here:
/// what they have taken is not known.
#[test]
fn a_lost_command_that_is_not_sent_again_is_not_said_to_have_done_nothing() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let by_deadline = Proxy::start(&cluster, &["--set", "timeouts.command=3s"]);
    let no_primary = ["--set", "timeouts.command=60s", "--set", "timeouts.no_primary=2s"];
    let by_no_primary = Proxy::start(&cluster, &no_primary);
    let patient = Proxy::start(&cluster, &["--set", "timeouts.command=0"]);
    let blocked = |proxy: &Proxy, command: &[&str]| {
        let mut conn = proxy.connect();
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        let id = conn.command(&["CLIENT", "ID"]).expect("CLIENT ID").int().expect("an ID");
        conn.send(command).expect("to send");
        (conn, id.to_string())
    };
    let mut all = vec![
        ("deadline", blocked(&by_deadline, &["BLPOP", "lost", "1"])),
        ("no primary", blocked(&by_no_primary, &["BLPOP", "lost", "0"])),
        ("UNBLOCK", blocked(&patient, &["BLMOVE", "lost", "{lost}to", "LEFT", "RIGHT", "0"])),
        ("UNBLOCK ERROR", blocked(&patient, &["BZPOPMIN", "{lost}set", "0"])),
    ];
    // It only reads: nothing can have been taken.
    let (mut reader, _) =
        blocked(&by_no_primary, &["XREAD", "BLOCK", "0", "STREAMS", "{lost}stream", "0"]);
    node_blocks(&cluster, "lost", all.len() + 1);
    let primary = cluster.owner_of(slot_of(b"lost")).expect("the owner");
    cluster.kill(&primary).expect("SIGKILL");
    common::eventually("slotway has lost its connections", || {
        [&by_deadline, &by_no_primary, &patient]
            .iter()
            .all(|p| p.metric("slotway_retries_total", "reason=\"lost\"") >= 1.0)
    });
    let mut other = patient.connect();
    for (name, (_, id)) in &all {
        let mut unblock = vec!["CLIENT", "UNBLOCK", id];
        unblock.extend(name.strip_prefix("UNBLOCK "));
        if name.starts_with("UNBLOCK") {
            assert_eq!(other.command(&unblock).expect("CLIENT UNBLOCK"), Reply::Int(1), "{name}");
        }
    }
    for (name, (conn, _)) in &mut all {
        let reply = conn.receive().unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = reply.error().unwrap_or_else(|| panic!("{name}: {reply:?}"));
        assert!(is_outcome_unknown(error), "{name}: {error}");
        assert!(!error.contains(&Unanswered::NotExecuted.to_string()), "{name}: {error}");
    }
    let reply = reader.receive().expect("a reply");
    assert!(reply.error().expect("an error").starts_with("CLUSTERDOWN "), "{reply:?}");
    for (proxy, count) in [(&by_deadline, 1.0), (&by_no_primary, 1.0), (&patient, 2.0)] {
        assert_eq!(proxy.metric("slotway_outcome_unknown_total", ""), count);
    }
}

/// The other client that takes the only dedicated connection is there before the command is sent again.
#[test]
fn a_lost_command_that_limits_dedicated_refuses_is_not_said_to_have_done_nothing() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let args = ["--set", "limits.dedicated=1", "--set", "timeouts.command=0"];
    let proxy = Proxy::start(&cluster, &args);
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    conn.send(&["BLPOP", "lost", "0"]).expect("to send");
    node_blocks(&cluster, "lost", 1);
    let primary = cluster.owner_of(slot_of(b"lost")).expect("the owner");
    let elsewhere = (0..).map(|n| format!("other:{n}"));
    let elsewhere = elsewhere.into_iter().find(|key| {
        cluster.owner_of(slot_of(key.as_bytes())).expect("an owner").addr != primary.addr
    });
    let elsewhere = elsewhere.expect("a key of another node");
    cluster.kill(&primary).expect("SIGKILL");
    let mut other = proxy.connect();
    common::eventually("the other has the connection", || {
        other.command(&["WATCH", &elsewhere]).expect("WATCH").is_ok()
    });
    cluster.restart(&primary).expect("a restart");
    let reply = conn.receive().expect("a reply");
    let error = identified(&reply);
    assert_eq!(error.id, FailureId::NotSentAgain, "{reply:?}");
    // Without its promise that trying again is safe.
    let full = Failure::TooManyDedicated { limit: 1 }.statement();
    assert_eq!(error.field("cause"), Some(&*full), "{reply:?}");
}

/// The nodes that answer have been asked, and their lists are thrown away.
#[test]
fn keys_that_one_node_does_not_answer_are_not_said_to_be_not_executed() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let proxy = Proxy::start(&cluster, &["--set", "timeouts.command=2s"]);
    let frozen = cluster.owner_of(slot_of(b"k")).expect("the owner");
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    cluster.pause(&frozen).expect("SIGSTOP");
    let reply = conn.command(&["KEYS", "*"]);
    cluster.resume(&frozen).expect("SIGCONT");
    let reply = reply.expect("a reply");
    let error = identified(&reply);
    assert!(DEADLINES.contains(&error.id) && says(&error, Unanswered::Harmless), "{reply:?}");
}

/// It closes no connection, and says nothing.
#[test]
fn the_primary_freezes_while_blocked() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=2s"]);
    let mut blocked = block_everywhere(&proxy, &cluster);
    let primary = cluster.owner_of(slot_of(b"{failover0}blpop")).expect("the owner");
    for replica in cluster.replicas_of(&primary).expect("replicas") {
        cluster.catch_up(&replica).expect("to catch up");
    }
    cluster.pause(&primary).expect("SIGSTOP");
    let mut other = proxy.connect();
    common::eventually("another leads", || {
        other.command(&["SET", "{failover0}", "v"]).expect("SET").is_ok()
    });
    wake_all(&proxy, &mut blocked);
    cluster.resume(&primary).expect("SIGCONT");
}

#[test]
fn the_time_that_is_left_is_kept() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let since = Instant::now();
    conn.send(&["BLPOP", "left", "4"]).expect("to send");
    node_blocks(&cluster, "left", 1);
    let primary = cluster.owner_of(slot_of(b"left")).expect("the owner");
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    cluster.failover(&replica).expect("a failover");
    assert_eq!(conn.receive().expect("a reply"), Reply::Nil);
    assert!(since.elapsed() > Duration::from_millis(3_990), "{:?}", since.elapsed());
}

#[test]
fn the_connection_is_killed_while_blocked() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut blocked = block_everywhere(&proxy, &cluster);
    for node in cluster.primaries().expect("primaries") {
        let mut conn = cluster.connect(&node).expect("a connection");
        let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
        conn.command(&kill).expect("CLIENT KILL");
    }
    // A pop that was not answered may have been carried out: nothing was pushed, so it was not.
    wake_all(&proxy, &mut blocked);
}

#[test]
fn the_slot_is_moved_while_blocked() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut blocked = block_everywhere(&proxy, &cluster);
    for tag in TAGS {
        let slot = slot_of(format!("{{{tag}}}").as_bytes());
        let from = cluster.owner_of(slot).expect("the owner");
        let primaries = cluster.primaries().expect("primaries");
        let to = primaries.into_iter().find(|node| node.id != from.id).expect("another");
        cluster.move_slot(slot, &from, &to).expect("to move a slot");
    }
    wake_all(&proxy, &mut blocked);
}

const TAGS: [&str; 3] = ["failover0", "failover1", "failover2"];

/// Clients blocked in every command, in several slots.
fn block_everywhere(proxy: &Proxy, cluster: &Cluster) -> Vec<(Conn, Vec<String>, Vec<String>)> {
    let mut other = proxy.connect();
    let mut blocked = Vec::new();
    for tag in TAGS {
        group(&mut other, tag);
        for (command, wake) in every_command(tag) {
            let command = timed(&command, "0", "0");
            let mut conn = proxy.connect();
            conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
            conn.send(&command).expect("to send");
            blocked.push((conn, command, wake));
        }
    }
    let count = |node: &Node| blocked_at(cluster, node);
    common::eventually("all are blocked", || {
        let primaries = cluster.primaries().expect("primaries");
        primaries.iter().map(count).sum::<usize>() == blocked.len()
    });
    blocked
}

/// Each gets what is pushed now, and only once.
#[track_caller]
fn wake_all(proxy: &Proxy, blocked: &mut [(Conn, Vec<String>, Vec<String>)]) {
    let mut other = proxy.connect();
    other.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    for (_, _, wake) in blocked.iter() {
        let reply = other.command(wake).expect("to push");
        assert!(reply.error().is_none(), "{wake:?}: {reply:?}");
    }
    for (conn, command, _) in blocked.iter_mut() {
        let reply = conn.receive().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(reply.error().is_none() && reply != Reply::Nil, "{command:?}: {reply:?}");
    }
    for (_, command, wake) in blocked.iter() {
        let (count, wanted) = match command[0].as_str() {
            "BLPOP" | "BRPOP" | "BLMOVE" | "BRPOPLPUSH" => ("LLEN", 1),
            "BLMPOP" => ("LLEN", 0),
            "BZPOPMIN" | "BZPOPMAX" => ("ZCARD", 1),
            "BZMPOP" => ("ZCARD", 0),
            _ => continue,
        };
        let left = other.command(&[count, &wake[1]]).expect("a count");
        assert_eq!(left, Reply::Int(wanted), "{command:?}: popped once");
    }
}

// ------------------------------------------------------------------------------------------------
// WAIT.

#[test]
fn wait_counts_the_replicas() {
    let Setting { proxy, cluster: _cluster } = common::setting(&[]);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "wait:k", "v"]).expect("SET").is_ok());
    assert_eq!(conn.command(&["WAIT", "1", "5000"]).expect("WAIT"), Reply::Int(1));
    // More than there are: what there are, at the timeout.
    let since = Instant::now();
    assert_eq!(conn.command(&["WAIT", "2", "300"]).expect("WAIT"), Reply::Int(1));
    assert!(since.elapsed() > Duration::from_millis(295), "{:?}", since.elapsed());
    // Over several shards: the least of them.
    let keys: Vec<String> = (0..30).map(|i| format!("wait:{i}")).collect();
    let sets: Vec<Vec<&str>> = keys.iter().map(|k| vec!["SET", k, "v"]).collect();
    conn.pipeline(&sets).expect("replies");
    assert_eq!(conn.command(&["WAIT", "1", "5000"]).expect("WAIT"), Reply::Int(1));
    // In a pipeline behind its writes.
    let replies = conn.pipeline(&[vec!["SET", "wait:k", "w"], vec!["WAIT", "1", "5000"]]);
    assert_eq!(replies.expect("replies")[1], Reply::Int(1));
}

#[test]
fn wait_does_not_count_a_replica_that_stands_still() {
    // Neither may the replica be given up nor its primary lead it away.
    let options = ClusterOptions { node_timeout: Duration::from_secs(30), ..Default::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let proxy = Proxy::start(&cluster, &[]);
    let mut conn = proxy.connect();
    let primaries = cluster.primaries().expect("primaries");
    let [here, elsewhere] = [0, 1].map(|i| key_on(&primaries[i], "wait"));
    assert!(conn.command(&["MSET", &here, "v", &elsewhere, "v"]).expect("MSET").is_ok());
    assert_eq!(conn.command(&["WAIT", "1", "5000"]).expect("WAIT"), Reply::Int(1));
    let replica = cluster.replicas_of(&primaries[0]).expect("replicas").remove(0);
    cluster.pause(&replica).expect("SIGSTOP");
    for _ in 0..3 {
        assert!(conn.command(&["SET", &here, "w"]).expect("SET").is_ok());
        assert!(conn.command(&["SET", &elsewhere, "w"]).expect("SET").is_ok());
        assert_eq!(conn.command(&["WAIT", "1", "300"]).expect("WAIT"), Reply::Int(0));
    }
    // A client of another shard does not feel it.
    let mut other = proxy.connect();
    assert!(other.command(&["SET", &elsewhere, "x"]).expect("SET").is_ok());
    assert_eq!(conn.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    conn.send(&["WAIT", "1", "0"]).expect("to send");
    node_blocks(&cluster, &here, 1);
    cluster.resume(&replica).expect("SIGCONT");
    assert_eq!(conn.receive().expect("WAIT"), Reply::Int(1));
}

// ------------------------------------------------------------------------------------------------

fn popped(key: &str, value: &str) -> Reply {
    Reply::Array(vec![Reply::Bulk(key.into()), Reply::Bulk(value.into())])
}

fn lent(proxy: &Proxy) -> f64 {
    proxy.metric("slotway_dedicated_connections", "state=\"lent\"")
}

/// Waits until the owner of `key` has so many clients that are blocked.
#[track_caller]
fn node_blocks(cluster: &Cluster, key: &str, count: usize) {
    let node = cluster.owner_of(slot_of(key.as_bytes())).expect("the owner");
    common::eventually(&format!("{count} are blocked for {key}"), || {
        blocked_at(cluster, &node) == count
    });
}

fn blocked_at(cluster: &Cluster, node: &Node) -> usize {
    blocked_clients(&mut cluster.connect(node).expect("a connection"))
}

fn blocked_clients(conn: &mut Conn) -> usize {
    let info = conn.command(&["INFO", "clients"]).expect("INFO").text().expect("text");
    let field = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    field.and_then(|n| n.trim().parse().ok()).expect("blocked_clients")
}

/// A key with `name` in it whose slot `node` owns.
fn key_on(node: &Node, name: &str) -> String {
    let owned = |slot: Slot| node.slots.iter().any(|range| range.contains(&slot.0));
    let mut keys = (0..).map(|i| format!("{{{i}}}{name}"));
    keys.find(|key| owned(slot_of(key.as_bytes()))).expect("a key")
}
