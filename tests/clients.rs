//! CLIENT and the other commands about connections: as a standalone server answers them, over the
//! clients of two workers.

use crate::common::errors::assert_is;
use crate::common::session::{assert_same, is_closed};
use crate::common::{self, Proxy, Setting, eventually};
use slotway::errors::FailureId;
use slotway::sandbox::{Conn, Reply, Standalone, StandaloneOptions};
use std::collections::{BTreeMap, BTreeSet};

const TWO_WORKERS: &[&str] = &["--workers", "2"];

/// Lines of one session each; `|` parts the commands. The same bytes must come from a server.
const SAME: &[&str] = &[
    // LIST
    "CLIENT LIST x",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE x",
    "CLIENT LIST TYPE normal ID 3",
    "CLIENT LIST TYPE pubsub",
    "CLIENT LIST TYPE MASTER",
    "CLIENT LIST TYPE replica",
    "CLIENT LIST TYPE slave",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 0 -1 999999",
    "CLIENT INFO x",
    // KILL
    "CLIENT KILL",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL ID",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID -1",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 999999",
    "CLIENT KILL ID 999999 ID",
    "CLIENT KILL TYPE foo",
    "CLIENT KILL TYPE pubsub",
    "CLIENT KILL TYPE master SKIPME no",
    "CLIENT KILL USER foo",
    "CLIENT KILL USER foo SKIPME x",
    "CLIENT KILL USER default SKIPME x",
    "CLIENT KILL MAXAGE 1",
    "CLIENT KILL ADDR 1.2.3.4:5 LADDR 3:4",
    "CLIENT KILL ID 999999 ADDR 1.2.3.4:5 TYPE normal USER default SKIPME no",
    // PAUSE
    "CLIENT PAUSE",
    "CLIENT PAUSE x",
    "CLIENT PAUSE x FOO",
    "CLIENT PAUSE -1",
    "CLIENT PAUSE -1 WRITE",
    "CLIENT PAUSE 10 FOO",
    "CLIENT PAUSE 10 WRITE x",
    "CLIENT Pause 10 FOO x",
    "CLIENT PAUSE 0|PING",
    "CLIENT PAUSE 50|PING|CLIENT UNPAUSE",
    "CLIENT PAUSE 60000 WRITE|PING|GET a|CLIENT UNPAUSE|SET a 1|DEL a",
    "CLIENT UNPAUSE x",
    "CLIENT UNPAUSE",
    // UNBLOCK
    "CLIENT UNBLOCK",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK x foo",
    "CLIENT UNBLOCK 1 foo",
    "CLIENT UNBLOCK 999999",
    "CLIENT UNBLOCK -1 error",
    "CLIENT UNBLOCK 999999 TIMEOUT",
    "CLIENT UNBLOCK 999999 TIMEOUT x",
    // REPLY
    "CLIENT REPLY",
    "CLIENT REPLY x",
    "CLIENT REPLY ON x",
    "CLIENT REPLY ON|PING",
    "CLIENT REPLY SKIP|CLIENT REPLY ON|PING",
    "CLIENT REPLY SKIP|CLIENT REPLY x|PING",
    "CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING 1|PING 2",
    "CLIENT REPLY SKIP|NOSUCH|PING",
    "CLIENT REPLY SKIP|RESET|PING",
    "CLIENT REPLY SKIP|HELLO 3|CLIENT TRACKINGINFO",
    "CLIENT REPLY SKIP|CLIENT LIST|CLIENT LIST ID 0",
    "CLIENT REPLY SKIP|CLIENT REPLY OFF|PING 1|CLIENT REPLY ON|PING 2",
    "CLIENT REPLY OFF|PING|SET a 1|GET a|CLIENT REPLY ON|PING 2",
    "CLIENT REPLY OFF|CLIENT REPLY x|CLIENT REPLY ON x|NOSUCH|SET a|CLIENT REPLY ON",
    "CLIENT REPLY OFF|CLIENT REPLY SKIP|PING 0|CLIENT REPLY ON|PING 1",
    "CLIENT REPLY OFF|MSET a 1 b 2 c 3|MGET a b c|DEL a b c|DBSIZE|INFO|CLIENT REPLY ON|GET a",
    "CLIENT REPLY OFF|PING|RESET|PING",
    "CLIENT REPLY OFF|HELLO 3|CLIENT REPLY ON|CLIENT TRACKINGINFO",
    "CLIENT REPLY OFF|MULTI|SET a 1|GET a|EXEC|CLIENT REPLY ON|DEL a",
    "CLIENT REPLY OFF|KEYS *|KEYS *|CLIENT REPLY ON|KEYS nothing",
    "CLIENT REPLY SKIP|KEYS *|PING",
    "CLIENT REPLY SKIP|MULTI|PING|EXEC",
    "MULTI|CLIENT REPLY SKIP x|EXEC",
    "MULTI|CLIENT LIST ID 0|CLIENT KILL ID 999999|CLIENT KILL TYPE foo|CLIENT UNPAUSE|EXEC|PING",
    "MULTI|SET {m}a 1|CLIENT LIST TYPE pubsub|INCR {m}a|CLIENT GETREDIR|DEL {m}a|EXEC",
    "CLIENT PAUSE 60000 WRITE|MULTI|GET a|EXEC|CLIENT UNPAUSE",
    "MULTI|CLIENT PAUSE 20|PING|EXEC|PING",
    "MULTI|RESET|EXEC",
    "SET a 1|CLIENT REPLY SKIP|GET a|GET b|CLIENT REPLY SKIP|DEL a|GET c",
    // tracking, and what is nearly nothing
    "CLIENT TRACKING",
    "CLIENT TRACKING x",
    "CLIENT TRACKING OFF",
    "CLIENT TRACKING OFF x",
    "CLIENT TRACKING OFF BCAST",
    "CLIENT TRACKING OFF PREFIX",
    "CLIENT TRACKING ON REDIRECT x",
    "CLIENT TRACKING ON REDIRECT",
    "CLIENT TRACKINGINFO",
    "CLIENT TRACKINGINFO x",
    "CLIENT CACHING",
    "CLIENT CACHING x",
    "CLIENT CACHING yes",
    "CLIENT GETREDIR",
    "CLIENT GETREDIR x",
    "CLIENT NO-EVICT",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT ON",
    "CLIENT NOSUCH",
    "CLIENT",
    "CLIENT HELP",
    // the session
    "CLIENT GETNAME",
    "CLIENT SETNAME",
    "CLIENT SETNAME me|CLIENT GETNAME",
    "CLIENT SETNAME a\tb|CLIENT GETNAME",
    "CLIENT SETNAME me|CLIENT SETNAME a\u{fc}|CLIENT GETNAME",
    "CLIENT SETNAME me|RESET|CLIENT GETNAME",
    "HELLO 3 SETNAME me BOGUS|CLIENT GETNAME|CLIENT TRACKINGINFO",
    "HELLO 3 AUTH default any SETNAME|CLIENT GETNAME",
    "HELLO 3 SETNAME a AUTH x y|CLIENT GETNAME",
    "HELLO 2 AUTH default",
    "HELLO 2 AUTH x y",
    "HELLO 2 SETNAME a\tb",
    "HELLO 4",
    "HELLO 0",
    "HELLO x",
    "HELLO 3 x",
    "HELLO AUTH default x",
    "AUTH",
    "AUTH x",
    "AUTH default x",
    "AUTH Default x",
    "AUTH x y",
    "AUTH a b c",
    "SELECT",
    "SELECT x",
    "SELECT 0",
    "SELECT 16",
    "SELECT -1",
    "SELECT 0 1",
    "SELECT 99999999999",
    "SELECT 2147483647",
    "SELECT 2147483648",
    "SELECT -2147483649",
    "SELECT 99999999999999999999",
    "RESET",
    "RESET x",
    "QUIT",
    "QUIT x",
    "QUIT|PING",
];

#[test]
fn a_standalone_server_says_the_same() {
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    // PAUSE is about everybody: nobody else's slotway.
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    assert_same(&server, &proxy, SAME);
}

fn text(reply: Reply) -> String {
    reply.text().unwrap_or_else(|| panic!("{reply:?}"))
}

/// A line's fields.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ').filter_map(|field| field.split_once('=')).collect()
}

fn names(line: &str) -> Vec<&str> {
    line.split(' ').map(|field| field.split('=').next().unwrap_or_default()).collect()
}

fn id(conn: &mut Conn) -> String {
    conn.command(&["CLIENT", "ID"]).expect("CLIENT ID").int().expect("a number").to_string()
}

/// The client's line as another client sees it; none if it is not there.
fn line_of(asker: &mut Conn, id: &str) -> Option<String> {
    let list = text(asker.command(&["CLIENT", "LIST", "ID", id]).expect("CLIENT LIST"));
    list.strip_suffix('\n').map(str::to_owned)
}

/// So many connections, some of them on each worker.
fn on_both_workers(proxy: &Proxy, count: usize) -> Vec<Conn> {
    let mut workers = BTreeSet::new();
    let conns: Vec<Conn> = (0..count)
        .map(|_| {
            let mut conn = proxy.connect();
            let info = text(conn.command(&["INFO", "server"]).expect("INFO"));
            let info = if info.contains("proxy_worker:") {
                info
            } else {
                text(conn.command(&["INFO"]).expect("INFO"))
            };
            let worker = info.lines().find_map(|line| line.strip_prefix("proxy_worker:"));
            workers.insert(worker.expect("proxy_worker").to_owned());
            conn
        })
        .collect();
    assert_eq!(workers.len(), 2, "all connections on one worker");
    conns
}

#[test]
fn everybody_is_listed_whichever_worker_is_asked() {
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    let mut conns = on_both_workers(&proxy, 6);
    let ids: Vec<String> = conns.iter_mut().map(id).collect();
    for conn in &mut conns {
        let list = text(conn.command(&["CLIENT", "LIST"]).expect("CLIENT LIST"));
        let listed: Vec<&str> = list.lines().map(|line| fields(line)["id"]).collect();
        assert_eq!(listed, ids, "in the order in which they came");
    }
    // In the order asked for, as often as asked for.
    let [first, last] = [&ids[0], &ids[5]];
    let three = ["CLIENT", "LIST", "ID", last, first, last];
    let list = text(conns[0].command(&three).expect("CLIENT LIST"));
    let listed: Vec<&str> = list.lines().map(|line| fields(line)["id"]).collect();
    assert_eq!(listed, [last, first, last]);

    // Every field of a server's, in its order, and what 7.2 has more.
    let mut reference = server.connect().expect("a connection");
    let theirs = text(reference.command(&["CLIENT", "INFO"]).expect("CLIENT INFO"));
    let ours = text(conns[0].command(&["CLIENT", "INFO"]).expect("CLIENT INFO"));
    let mut want = names(theirs.trim_end());
    want.extend(["lib-name", "lib-ver"]);
    assert_eq!(names(ours.trim_end()), want);
    assert!(ours.ends_with('\n') && theirs.ends_with('\n'));

    // The values that say something.
    let mut one = proxy.connect3();
    for command in [
        ["CLIENT", "SETNAME", "billing-7", ""],
        ["CLIENT", "SETINFO", "LIB-NAME", "mylib"],
        ["CLIENT", "SETINFO", "LIB-VER", "1.2"],
        ["CLIENT", "NO-EVICT", "on", ""],
        ["SET", "some", "thing", ""],
    ] {
        let words: Vec<&str> = command.into_iter().filter(|w| !w.is_empty()).collect();
        assert!(one.command(&words).expect("an answer").is_ok(), "{command:?}");
    }
    let one_id = id(&mut one);
    one.command(&["GET", "some"]).expect("GET");
    let line = line_of(&mut conns[0], &one_id).expect("its line");
    let seen = fields(&line);
    for (field, value) in [
        ("name", "billing-7"),
        ("lib-name", "mylib"),
        ("lib-ver", "1.2"),
        ("flags", "e"),
        ("resp", "3"),
        ("cmd", "get"),
        ("user", "default"),
        ("db", "0"),
        ("multi", "-1"),
        ("laddr", &proxy.listen.to_string()),
    ] {
        assert_eq!(seen[field], value, "{field} in {line}");
    }
    assert!(seen["tot-mem"].parse::<usize>().expect("a number") > 0);
    assert!(text(one.command(&["CLIENT", "INFO"]).expect("INFO")).contains("cmd=client|info "));
    assert!(matches!(
        one.command(&["CLIENT", "LIST"]).expect("LIST"),
        Reply::Verbatim(kind, _) if kind == "txt"
    ));
    // A split command, one for all nodes, one that nobody knows.
    for (command, name) in
        [(&["MGET", "a", "b", "c"][..], "mget"), (&["DBSIZE"], "dbsize"), (&["NOSUCH"], "NULL")]
    {
        one.command(command).expect("an answer");
        let line = line_of(&mut conns[0], &one_id).expect("its line");
        assert_eq!(fields(&line)["cmd"], name);
    }
    // A pipeline goes on behind it, in order.
    let both = [vec!["CLIENT", "LIST"], vec!["ECHO", "x"], vec!["CLIENT", "LIST", "ID", "0"]];
    let replies = one.pipeline(&both).expect("three answers");
    assert!(text(replies[0].clone()).contains("name=billing-7"));
    assert_eq!(text(replies[1].clone()), "x");
    assert_eq!(text(replies[2].clone()), "");
}

#[test]
fn the_killed_are_gone_and_the_others_stay() {
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    let mut conns = on_both_workers(&proxy, 6);
    let ids: Vec<String> = conns.iter_mut().map(id).collect();
    let mut asker = conns.remove(0);
    let gone = |conn: &mut Conn| match conn.command(&["PING"]) {
        Ok(reply) => panic!("not closed: {reply:?}"),
        Err(error) => assert!(is_closed(&error), "{error}"),
    };
    let kill = |asker: &mut Conn, words: &[&str]| {
        let words: Vec<&str> = ["CLIENT", "KILL"].iter().chain(words).copied().collect();
        asker.command(&words).expect("CLIENT KILL")
    };
    // Two by number, whichever workers they are on.
    assert_eq!(kill(&mut asker, &["ID", &ids[1]]), Reply::Int(1));
    assert_eq!(kill(&mut asker, &["ID", &ids[2]]), Reply::Int(1));
    assert_eq!(kill(&mut asker, &["ID", &ids[2]]), Reply::Int(0));
    conns.drain(..2).for_each(|mut conn| gone(&mut conn));
    // Two by address, in the new form and the old.
    for form in [&["ADDR"][..], &[]] {
        let mut conn = conns.remove(0);
        let me = id(&mut conn);
        let addr = fields(&line_of(&mut asker, &me).expect("its line"))["addr"].to_owned();
        let reply = kill(&mut asker, &[form, &[&addr]].concat());
        assert!(reply == Reply::Int(1) || (form.is_empty() && reply.is_ok()), "{reply:?}");
        gone(&mut conn);
    }
    // Not oneself, unless one says so; then the answer comes first.
    let mut last = conns.remove(0);
    assert_eq!(last.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
    assert_eq!(kill(&mut asker, &["LADDR", &proxy.listen.to_string()]), Reply::Int(1));
    gone(&mut last);
    let mut other = proxy.connect();
    id(&mut other);
    assert_eq!(kill(&mut asker, &["TYPE", "normal", "SKIPME", "no"]), Reply::Int(2));
    gone(&mut asker);
    gone(&mut other);
    eventually("nobody is left", || proxy.metric("slotway_clients", "") == 0.0);
}

#[test]
fn a_pause_holds_writes_on_every_worker_until_it_is_over() {
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    let mut conns = on_both_workers(&proxy, 6);
    let ids: Vec<String> = conns.iter_mut().map(id).collect();
    let mut asker = proxy.connect();
    // Transactions, queued before: one that writes, one that does not.
    let [mut writing, mut reading] = [(); 2].map(|()| proxy.connect());
    for (conn, command) in [(&mut writing, "INCR"), (&mut reading, "GET")] {
        let queued = [vec!["MULTI"], vec![command, "in-multi"]];
        let replies = conn.pipeline(&queued).expect("two answers");
        assert_eq!(replies[1], Reply::Simple("QUEUED".into()));
    }
    assert!(asker.command(&["CLIENT", "PAUSE", "3600000", "WRITE"]).expect("PAUSE").is_ok());
    assert_eq!(reading.command(&["EXEC"]).expect("EXEC"), Reply::Array(vec![Reply::Nil]));
    writing.send(&["EXEC"]).expect("to send");
    eventually("EXEC is held", || proxy.metric("slotway_clients_paused", "") == 1.0);
    let writes: [&[&str]; 6] = [
        &["SET", "held", "1"],
        &["DEL", "a", "b", "c"],
        &["EVAL", "return 1", "0"],
        &["PFCOUNT", "hll"],
        &["FLUSHALL"],
        &["XADD", "stream", "*", "a", "b"],
    ];
    for (conn, write) in conns.iter_mut().zip(writes) {
        // What reads goes on, what comes behind a write waits with it.
        assert_eq!(conn.command(&["GET", "held"]).expect("GET"), Reply::Nil);
        conn.send(write).expect("to send");
        conn.send(&["PING"]).expect("to send");
    }
    for id in &ids {
        eventually(&format!("{id} is held"), || {
            fields(&line_of(&mut asker, id).expect("its line"))["flags"] == "b"
        });
    }
    assert_eq!(proxy.metric("slotway_clients_paused", ""), 7.0);
    // One who comes later is held too; one who goes away is let go.
    let mut late = proxy.connect();
    let late_id = id(&mut late);
    late.send(&["SET", "later", "1"]).expect("to send");
    eventually("it is held", || proxy.metric("slotway_clients_paused", "") == 8.0);
    drop(late);
    eventually("it is gone", || line_of(&mut asker, &late_id).is_none());
    assert_eq!(asker.command(&["GET", "held"]).expect("GET"), Reply::Nil);

    assert!(asker.command(&["CLIENT", "UNPAUSE"]).expect("UNPAUSE").is_ok());
    assert!(matches!(writing.receive().expect("EXEC's"), Reply::Array(_)));
    for conn in &mut conns {
        let reply = conn.receive().expect("the write's answer");
        assert!(reply.error().is_none(), "{reply:?}");
        assert_eq!(conn.receive().expect("PING's"), Reply::Simple("PONG".into()));
    }
    assert_eq!(asker.command(&["GET", "later"]).expect("GET"), Reply::Nil);
    assert_eq!(proxy.metric("slotway_clients_paused", ""), 0.0);
}

#[test]
fn a_pause_of_everything_ends_by_itself() {
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    let mut conns = on_both_workers(&proxy, 4);
    // The shorter, laxer pause does not shorten the other.
    assert!(conns[0].command(&["CLIENT", "PAUSE", "1500"]).expect("PAUSE").is_ok());
    let words: [&[&str]; 4] =
        [&["CLIENT", "PAUSE", "1", "WRITE"], &["PING"], &["CLIENT", "UNPAUSE"], &["HELLO", "3"]];
    for (conn, words) in conns.iter_mut().zip(words) {
        conn.send(words).expect("to send");
    }
    eventually("all are held", || proxy.metric("slotway_clients_paused", "") == 4.0);
    for conn in &mut conns {
        assert!(conn.receive().expect("an answer").error().is_none());
    }
    assert_eq!(proxy.metric("slotway_clients_paused", ""), 0.0);
    for conn in &mut conns {
        assert!(conn.command(&["SET", "x", "1"]).expect("SET").is_ok());
    }
}

#[test]
fn the_blocked_are_unblocked_whichever_worker_is_asked() {
    let Setting { proxy, cluster: _cluster } = common::setting(TWO_WORKERS);
    let mut conns = on_both_workers(&proxy, 4);
    let mut blocked = conns.remove(0);
    let me = id(&mut blocked);
    for asker in &mut conns {
        for (how, want) in [
            (None, Reply::Nil),
            (Some("TIMEOUT"), Reply::Nil),
            (Some("ERROR"), Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())),
        ] {
            let words: Vec<&str> = ["CLIENT", "UNBLOCK", &me].into_iter().chain(how).collect();
            assert_eq!(asker.command(&words).expect("UNBLOCK"), Reply::Int(0));
            blocked.send(&["BLPOP", "nothing", "0"]).expect("to send");
            eventually("it is blocked", || {
                let line = line_of(asker, &me).expect("its line");
                fields(&line)["flags"] == "b" && fields(&line)["cmd"] == "blpop"
            });
            assert_eq!(asker.command(&words).expect("UNBLOCK"), Reply::Int(1));
            assert_eq!(blocked.receive().expect("an answer"), want);
        }
    }
    // In a transaction: how much is queued.
    assert!(blocked.command(&["MULTI"]).expect("MULTI").is_ok());
    blocked.command(&["GET", "x"]).expect("QUEUED");
    let line = line_of(&mut conns[0], &me).expect("its line");
    assert_eq!((fields(&line)["multi"], fields(&line)["flags"]), ("1", "x"));
}

#[test]
fn muted_replies_are_dropped_however_they_come() {
    let Setting { proxy, .. } = common::shared();
    let mut conn = proxy.connect();
    let large = "v".repeat(1 << 20);
    assert!(conn.command(&["SET", "{m}large", &large]).expect("SET").is_ok());
    let mut commands: Vec<Vec<&str>> = Vec::new();
    let keys: Vec<String> = (0..12).map(|i| format!("m{i}")).collect();
    commands.push(vec!["GET", "{m}large"]);
    commands.push(vec!["CLIENT", "REPLY", "OFF"]);
    for key in &keys {
        commands.push(vec!["SET", key, "x"]);
        commands.push(vec!["GET", "{m}large"]);
        commands.push(vec!["MGET", key, "{m}large", "other"]);
    }
    commands.push(vec!["CLIENT", "REPLY", "ON"]);
    for key in &keys {
        commands.push(vec!["CLIENT", "REPLY", "SKIP"]);
        commands.push(vec!["GET", "{m}large"]);
        commands.push(vec!["GET", key]);
    }
    for command in &commands {
        conn.send(command).expect("to send");
    }
    assert_eq!(conn.receive().expect("the large value"), Reply::Bulk(large.into_bytes()));
    assert!(conn.receive().expect("ON's OK").is_ok());
    for key in &keys {
        assert_eq!(conn.receive().expect(key), Reply::Bulk(b"x".to_vec()), "{key}");
    }
    assert_eq!(conn.command(&["PING"]).expect("PING"), Reply::Simple("PONG".into()));
}

/// A name is kept as long as its client is connected: limits.memory could not take it back.
#[test]
fn what_a_client_says_of_itself_is_bounded() {
    let mut conn = common::shared().proxy.connect();
    let (fits, long) = ("n".repeat(4096), "n".repeat(4097));
    for (command, id) in [
        (["CLIENT", "SETNAME", &long].as_slice(), FailureId::ClientNameTooLong),
        (&["HELLO", "2", "SETNAME", &long], FailureId::ClientNameTooLong),
        (&["CLIENT", "SETINFO", "LIB-NAME", &long], FailureId::LibNameTooLong),
        (&["CLIENT", "SETINFO", "LIB-VER", &long], FailureId::LibNameTooLong),
    ] {
        assert_is(&conn.command(command).expect("an answer"), id);
    }
    assert!(conn.command(&["CLIENT", "SETNAME", &fits]).expect("an answer").is_ok());
    assert_eq!(text(conn.command(&["CLIENT", "GETNAME"]).expect("an answer")), fits);
}

#[test]
fn tracking_is_refused_with_the_reason() {
    let mut conn = common::shared().proxy.connect3();
    for words in [&["CLIENT", "TRACKING", "ON"][..], &["CLIENT", "TRACKING", "ON", "BCAST"]] {
        assert_is(&conn.command(words).expect("an answer"), FailureId::TrackingNotSupported);
    }
}
