//! Answers about clients, scripts and the server itself, as a server of the cluster's own version
//! gives them: Redis 7.0, and the newest Redis and Valkey.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::common::errors::identified;
use crate::common::session::assert_same;
use crate::common::{self, Proxy};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply, Standalone, StandaloneOptions};

/// A cluster of three primaries, slotway in front of it, and a single server of the same version.
struct Setting {
    proxy: Proxy,
    cluster: Cluster,
    server: Standalone,
}

fn setting(server: &str, args: &[&str]) -> Setting {
    let program: PathBuf = match server {
        "redis 7.0" => "redis-server".into(),
        newer => common::newer(newer),
    };
    let options = ClusterOptions { replicas: 0, program: program.clone(), ..Default::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let server = Standalone::start(StandaloneOptions { program, ..Default::default() });
    let proxy = Proxy::start(&cluster, args);
    Setting { proxy, cluster, server: server.expect("a server") }
}

/// The same bytes must come from a server of each version.
const SAME: &[&str] = &[
    "CLIENT KILL MAXAGE x",
    "CLIENT KILL MAXAGE 0",
    "CLIENT KILL MAXAGE -1",
    "CLIENT KILL MAXAGE 999999",
    "CLIENT KILL MAXAGE",
    "CLIENT KILL ID 999999 999998",
    "CLIENT KILL ID 999999 x",
    "CLIENT KILL ID 999999 0",
    "CLIENT KILL TYPE primary",
    "CLIENT KILL NAME nobody",
    "CLIENT KILL NOT-ID x",
    "CLIENT LIST ID 999999 TYPE normal",
    "CLIENT LIST ID x",
    "CLIENT LIST ID",
    "CLIENT LIST ID 0",
    "CLIENT LIST TYPE primary",
    "CLIENT LIST TYPE master MAXAGE 5",
    "CLIENT LIST USER nobody",
    "CLIENT LIST USER default ADDR 1.2.3.4:5",
    "CLIENT LIST SKIPME x",
    "CLIENT LIST SKIPME yes TYPE pubsub",
    "CLIENT LIST LADDR 1.2.3.4:5",
    "CLIENT LIST NAME nobody",
    "CLIENT LIST NAME",
    "CLIENT LIST IDLE x",
    "CLIENT LIST IDLE 0",
    "CLIENT LIST IDLE 999999",
    "CLIENT LIST FLAGS Zz",
    "CLIENT LIST FLAGS S",
    "CLIENT LIST NOT-FLAGS Zz",
    "CLIENT LIST CAPA x",
    "CLIENT LIST CAPA r",
    "CLIENT LIST NOT-CAPA x",
    "CLIENT LIST LIB-NAME nobody",
    "CLIENT LIST LIB-VER 0",
    "CLIENT LIST IP 1.2.3.4",
    "CLIENT LIST DB x",
    "CLIENT LIST NOT-DB 0",
    "CLIENT LIST NOT-TYPE normal",
    "CLIENT LIST NOT-USER default",
    "CLIENT LIST NOT-USER nobody",
    "CLIENT LIST NOT-IP 127.0.0.1",
    "CLIENT LIST NOT-MAXAGE 1",
    "CLIENT LIST NOT-IDLE 1",
    "CLIENT LIST NOT-ID 0",
    "CLIENT CAPA redirect",
    "CLIENT CAPA nosuch redirect",
    "CLIENT CAPA",
    "MULTI|MULTI|PING|EXEC",
    "MULTI|WATCH a|PING|EXEC",
    "MULTI|SYNC|EXEC",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE a b|PUNSUBSCRIBE|SUNSUBSCRIBE a",
    "INFO nosuch",
    "INFO nosuch other",
    "SCRIPT SHOW",
    "SCRIPT SHOW x",
    "SCRIPT SHOW 0000000000000000000000000000000000000000",
    "WAITAOF 0 0",
    "WAITAOF 0 0 0",
    "WAITAOF x 0 0",
    "WAITAOF 2 0 0",
    "WAITAOF 0 x 0",
    "WAITAOF 0 0 -1",
    "WAITAOF 0 0 x",
    "WAITAOF 1 0 10",
    "MULTI|WAITAOF 0 0 0|EXEC",
    "CONFIG SET nosuch 1",
    "LATENCY HISTOGRAM nosuch",
    "BITOP DIFF {a}d {a}x",
    "BITOP NAND {a}d {a}x {a}y",
];

fn says_the_same(server: &str) {
    let Setting { proxy, cluster: _cluster, server } = setting(server, &[]);
    assert_same(&server, &proxy, SAME);
}

#[test]
fn redis_7_0_says_the_same() {
    says_the_same("redis 7.0");
}

#[test]
fn newest_redis_says_the_same() {
    says_the_same("redis");
}

#[test]
fn newest_valkey_says_the_same() {
    says_the_same("valkey");
}

fn ask(conn: &mut Conn, words: &[&str]) -> Reply {
    conn.command(words).expect("an answer")
}

fn text(conn: &mut Conn, words: &[&str]) -> String {
    let reply = ask(conn, words);
    reply.text().unwrap_or_else(|| panic!("{words:?}: {reply:?}"))
}

fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.trim_end().split(' ').filter_map(|field| field.split_once('=')).collect()
}

fn names(line: &str) -> Vec<&str> {
    line.trim_end().split(' ').map(|field| field.split('=').next().unwrap_or_default()).collect()
}

/// HELLO's fields that do not depend on the connection or the mode.
fn greeting(conn: &mut Conn) -> Vec<Reply> {
    let Reply::Map(pairs) = ask(conn, &["HELLO", "3"]) else { panic!("no map") };
    let wanted = ["server", "version", "modules"];
    let is_wanted = |key: &Reply| key.text().is_some_and(|key| wanted.contains(&&*key));
    pairs.into_iter().filter(|(key, _)| is_wanted(key)).flat_map(|(k, v)| [k, v]).collect()
}

fn describes_clients_the_same(server: &str) {
    let Setting { proxy, cluster: _cluster, server } = setting(server, &[]);
    let mut theirs = server.connect().expect("a connection");
    let mut ours = proxy.connect();
    assert_eq!(greeting(&mut ours), greeting(&mut theirs));

    // The same traffic on both, one command after the other.
    let [theirs, ours] = [&mut theirs, &mut ours].map(|conn| {
        assert!(ask(conn, &["SET", "{w}1", "some text"]).is_ok());
        assert!(ask(conn, &["WATCH", "{w}1", "{w}2"]).is_ok());
        assert!(ask(conn, &["WATCH", "{w}2", "{w}3"]).is_ok());
        assert!(ask(conn, &["MULTI"]).is_ok());
        ask(conn, &["GET", "{w}1"]);
        ask(conn, &["CLIENT", "ID"]);
        ask(conn, &["EXEC"]);
        assert!(ask(conn, &["WATCH", "{w}1", "{w}2"]).is_ok());
        ask(conn, &["GET", "{w}1"]);
        text(conn, &["CLIENT", "INFO"])
    });
    let (theirs, ours) = (theirs.as_str(), ours.as_str());
    assert_eq!(names(ours), names(theirs));
    let (theirs, ours) = (fields(theirs), fields(ours));
    for name in ["watch", "tot-net-in", "tot-cmds", "cmd", "capa", "multi", "resp"] {
        // Valkey keeps what MULTI has allocated.
        if name != "multi" || theirs["multi"] == "-1" {
            assert_eq!(ours.get(name), theirs.get(name), "{name}");
        }
    }
}

#[test]
fn newest_redis_describes_clients_the_same() {
    describes_clients_the_same("redis");
}

#[test]
fn newest_valkey_describes_clients_the_same() {
    describes_clients_the_same("valkey");
}

#[test]
fn the_last_command_is_that_of_the_transaction() {
    let Setting { proxy, cluster: _cluster, server } = setting("redis 7.0", &[]);
    let theirs = || server.connect().expect("a connection");
    for (mut conn, mut other) in [(proxy.connect(), proxy.connect()), (theirs(), theirs())] {
        let id = ask(&mut conn, &["CLIENT", "ID"]).int().expect("a number").to_string();
        let mut last = |conn: &mut Conn, words: &[&str]| {
            ask(conn, words);
            let line = text(&mut other, &["CLIENT", "LIST", "ID", &id]);
            fields(&line)["cmd"].to_owned()
        };
        assert_eq!(last(&mut conn, &["MULTI"]), "multi");
        assert_eq!(last(&mut conn, &["SET", "k", "v"]), "set");
        assert_eq!(last(&mut conn, &["EXEC"]), "exec");
        ask(&mut conn, &["MULTI"]);
        assert_eq!(last(&mut conn, &["NOSUCH"]), "NULL");
        assert_eq!(last(&mut conn, &["DISCARD"]), "discard");
    }
}

#[test]
fn valkey_filters_find_clients() {
    let Setting { proxy, cluster: _cluster, server: _server } = setting("valkey", &[]);
    let mut asker = proxy.connect();
    let mut ids = Vec::new();
    let mut conns: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    for (i, conn) in conns.iter_mut().enumerate() {
        ids.push(ask(conn, &["CLIENT", "ID"]).int().expect("a number").to_string());
        assert!(ask(conn, &["CLIENT", "SETNAME", &format!("name-{i}")]).is_ok());
        assert!(ask(conn, &["CLIENT", "SETINFO", "LIB-NAME", &format!("lib-{}", i / 2)]).is_ok());
    }
    assert!(ask(&mut conns[3], &["CLIENT", "CAPA", "redirect"]).is_ok());
    assert!(ask(&mut conns[2], &["CLIENT", "NO-EVICT", "on"]).is_ok());
    let mut listed = |words: &[&str]| {
        let words: Vec<&str> =
            ["CLIENT", "LIST", "SKIPME", "yes"].iter().chain(words).copied().collect();
        let list = text(&mut asker, &words);
        // Each worker lists its own.
        let mut names: Vec<_> = list.lines().map(|l| fields(l)["name"].to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(&["NAME", "name-1"]), ["name-1"]);
    assert_eq!(listed(&["LIB-NAME", "lib-1"]), ["name-2", "name-3"]);
    assert_eq!(listed(&["LIB-NAME", "lib-1", "CAPA", "r"]), ["name-3"]);
    assert_eq!(listed(&["NOT-CAPA", "r", "NOT-FLAGS", "e"]), ["name-0", "name-1"]);
    assert_eq!(listed(&["ID", &ids[3], &ids[0], "IP", "127.0.0.1"]), ["name-0", "name-3"]);
    assert_eq!(listed(&["NOT-ID", &ids[3], &ids[0]]), ["name-1", "name-2"]);
    assert!(listed(&["NOT-IP", "127.0.0.1"]).is_empty());
    let mut kill = |words: &[&str]| {
        let words: Vec<&str> = ["CLIENT", "KILL"].iter().chain(words).copied().collect();
        ask(&mut asker, &words)
    };
    assert_eq!(kill(&["MAXAGE", "999999"]), Reply::Int(0));
    assert_eq!(kill(&["ID", &ids[0], &ids[1], "NOT-NAME", "name-1"]), Reply::Int(1));
    assert_eq!(kill(&["FLAGS", "e"]), Reply::Int(1));
    for (i, conn) in conns.iter_mut().enumerate() {
        let is_there = i == 1 || i == 3;
        assert_eq!(conn.command(&["PING"]).is_ok(), is_there, "name-{i}");
    }
}

#[test]
fn waitaof_asks_every_primary_that_was_written_to() {
    for server in ["redis", "valkey"] {
        let Setting { proxy, cluster, server: _server } = setting(server, &[]);
        let mut conn = proxy.connect();
        assert!(ask(&mut conn, &["CONFIG", "SET", "appendonly", "yes"]).is_ok());
        for i in 0..20 {
            assert!(ask(&mut conn, &["SET", &format!("key-{i}"), "v"]).is_ok());
        }
        let counts = |local, replicas| Reply::Array(vec![Reply::Int(local), Reply::Int(replicas)]);
        assert_eq!(ask(&mut conn, &["WAITAOF", "1", "0", "0"]), counts(1, 0));
        // It waits for what is not there as long as it is told to, and keeps nobody waiting.
        assert_eq!(ask(&mut conn, &["WAITAOF", "0", "1", "50"]), counts(1, 0));
        let nodes = cluster.nodes().expect("nodes");
        let asked: Vec<u64> = nodes.iter().map(|node| calls(&cluster, node, "waitaof")).collect();
        assert_eq!(asked, [2, 2, 2], "{server}");
    }
}

/// How often a node was sent a command.
fn calls(cluster: &Cluster, node: &Node, command: &str) -> u64 {
    let mut conn = cluster.connect(node).expect("a connection");
    let stats = text(&mut conn, &["INFO", "commandstats"]);
    let line = stats.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|l| l.split(',').next()).map_or(0, |n| n.parse().expect("a number"))
}

#[test]
fn slots_and_shards_of_the_whole_cluster() {
    for server in ["redis", "valkey"] {
        let Setting { proxy, cluster: _cluster, server: _server } = setting(server, &[]);
        let mut conn = proxy.connect();
        let id = text(&mut conn, &["CLUSTER", "MYSHARDID"]);
        assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(id, text(&mut proxy.connect(), &["CLUSTER", "MYSHARDID"]));
        let mut slots = Vec::new();
        for (key, more) in [("a", 2), ("b", 1), ("c", 3)] {
            for i in 0..more {
                assert!(ask(&mut conn, &["SET", &format!("{{{key}}}{i}"), "v"]).is_ok());
            }
            let slot = ask(&mut conn, &["CLUSTER", "KEYSLOT", key]).int().expect("a slot");
            slots.push((more, slot));
        }
        slots.sort_by_key(|(keys, _)| -keys);
        let stats = |conn: &mut Conn, words: &[&str]| -> Vec<(i64, i64)> {
            let words: Vec<&str> = ["CLUSTER", "SLOT-STATS"].iter().chain(words).copied().collect();
            let reply = ask(conn, &words);
            let items = reply.items().unwrap_or_else(|| panic!("{reply:?}")).iter();
            let of = |entry: &Reply| {
                let entry = entry.items().expect("an entry");
                let keys = entry[1].items().expect("fields")[1].int().expect("key-count");
                (keys, entry[0].int().expect("a slot"))
            };
            items.map(of).collect()
        };
        let top = ["ORDERBY", "key-count", "LIMIT", "3", "DESC"];
        assert_eq!(stats(&mut conn, &top), slots, "{server}");
        let all = stats(&mut conn, &["SLOTSRANGE", "0", "16383"]);
        assert!(all.iter().map(|(_, slot)| *slot).eq(0..16384), "each slot once, in order");
        assert_eq!(all.iter().map(|(keys, _)| keys).sum::<i64>(), 6);
    }
}

#[test]
fn script_show_knows_scripts_of_eval() {
    let Setting { proxy, cluster: _cluster, server: _server } = setting("valkey", &[]);
    let mut conn = proxy.connect();
    // The keys are on different nodes: none of these has all scripts.
    for (i, key) in ["a", "b", "c", "d"].iter().enumerate() {
        let body = format!("return {i} -- of {key}");
        assert_eq!(ask(&mut conn, &["EVAL", &body, "1", key]), Reply::Int(i as i64));
        let sha = text(&mut conn, &["SCRIPT", "LOAD", &body]);
        assert!(ask(&mut conn, &["SCRIPT", "FLUSH"]).is_ok());
        assert_eq!(ask(&mut conn, &["EVAL", &body, "1", key]), Reply::Int(i as i64));
        for mut conn in [proxy.connect(), proxy.connect(), proxy.connect()] {
            assert_eq!(text(&mut conn, &["SCRIPT", "SHOW", &sha]), body);
        }
    }
}

#[test]
fn newer_bit_operations_over_slots() {
    let emulate = ["--set", "commands.cross_slot=emulate"];
    let Setting { proxy, cluster: _cluster, server } = setting("redis", &emulate);
    let [mut ours, mut theirs] = [proxy.connect(), server.connect().expect("a connection")];
    let values: [&[u8]; 4] = [b"\xf0\xff", b"\x33", b"\x55\x0f\x81", b""];
    let run = |conn: &mut Conn| -> Vec<Reply> {
        for (key, value) in ["k0", "k1", "k2", "k3"].iter().zip(values) {
            assert!(
                conn.command(&[b"SET".as_slice(), key.as_bytes(), value]).expect("SET").is_ok()
            );
        }
        let mut replies = Vec::new();
        for operation in ["DIFF", "DIFF1", "ANDOR", "ONE", "diff", "AND", "NAND"] {
            for sources in [
                &["k0", "k1", "k2"][..],
                &["k2", "k0"],
                &["k1", "k2", "k3"],
                &["k3", "none"],
                &["none", "k2"],
                &["k0", "k0"],
                &["k0"],
            ] {
                let words: Vec<&str> =
                    ["BITOP", operation, "target"].iter().chain(sources).copied().collect();
                replies.push(ask(conn, &words));
                replies.push(ask(conn, &["GET", "target"]));
            }
        }
        replies
    };
    assert_eq!(run(&mut ours), run(&mut theirs));
}

#[test]
fn info_counts_the_clients_of_slotway() {
    let args = ["--workers", "2", "--set", "limits.clients=777"];
    let Setting { proxy, cluster: _cluster, server: _server } = setting("redis 7.0", &args);
    let mut conns: Vec<Conn> = (0..5).map(|_| proxy.connect()).collect();
    conns.iter_mut().for_each(|conn| drop(ask(conn, &["PING"])));
    let mut asker = proxy.connect();
    let mut number = |field: &str| {
        let info = text(&mut asker, &["INFO", "clients"]);
        let value = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        value.expect(field).trim().parse::<u64>().expect("a number")
    };
    assert_eq!(number("connected_clients"), 6);
    assert_eq!(number("maxclients"), 777);
    assert_eq!(number("blocked_clients"), 0);
    conns[0].send(&["BLPOP", "list", "0"]).expect("to send");
    conns[1].send(&["WAIT", "1", "0"]).expect("to send");
    common::eventually("two are blocked", || number("blocked_clients") == 2);
    assert_eq!(ask(&mut conns[2], &["LPUSH", "list", "x"]), Reply::Int(1));
    conns[0].receive().expect("BLPOP's reply");
    common::eventually("one is blocked", || number("blocked_clients") == 1);
    conns.remove(1);
    common::eventually("none is blocked", || number("blocked_clients") == 0);
    common::eventually("one has gone", || number("connected_clients") == 5);
    // Its own section stands where a module's would.
    for (words, shown) in [
        (&["INFO"][..], true),
        (&["INFO", "everything"], true),
        (&["INFO", "server", "Proxy"], true),
        (&["INFO", "proxy"], true),
        (&["INFO", "server"], false),
        (&["INFO", "nosuch"], false),
    ] {
        let info = text(&mut asker, words);
        assert_eq!(info.contains("# Proxy\r\n"), shown, "{words:?}");
    }
}

#[test]
fn a_read_says_busy_in_the_words_of_the_node() {
    let Setting { proxy, cluster: _cluster, server: _server } =
        setting("redis 7.0", &["--workers", "2"]);
    let mut conn = proxy.connect();
    assert!(ask(&mut conn, &["CONFIG", "SET", "busy-reply-threshold", "10"]).is_ok());
    let mut busy = proxy.connect();
    busy.send(&["EVAL", "while true do end", "1", "a"]).expect("to send");
    let words =
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    common::eventually(
        "the node is busy",
        || matches!(ask(&mut conn, &["GET", "a"]), Reply::Error(text) if text == words),
    );
    for read in [&["DBSIZE"][..], &["MGET", "a", "b", "c"], &["EXISTS", "a", "b"], &["INFO"]] {
        assert_eq!(ask(&mut conn, read), Reply::Error(words.into()), "{read:?}");
    }
    // What may have been done in part says so.
    let reply = ask(&mut conn, &["DEL", "a", "b", "c"]);
    let error = identified(&reply);
    assert_eq!((error.id, error.field("failed")), (FailureId::PartsFailed, Some("1")));
    let text = reply.error().unwrap_or_default();
    assert!(text.starts_with("BUSY ") && text.ends_with(words), "{text}");
    assert!(ask(&mut conn, &["SCRIPT", "KILL"]).is_ok());
    busy.receive().expect("EVAL's reply");
}

#[test]
fn hello_follows_extended_redis_compatibility() {
    let Setting { proxy, cluster, server: _server } = setting("valkey", &["--workers", "1"]);
    let mut conn = proxy.connect();
    let node = cluster.primaries().expect("primaries").remove(0);
    let mut direct = cluster.connect(&node).expect("a connection");
    // `server` and `version`.
    let said = |conn: &mut Conn| {
        let hello = ask(conn, &["HELLO"]);
        let items = hello.items().expect("HELLO's reply");
        [0, 1, 2, 3].map(|at| items[at].text())
    };
    let before = said(&mut conn);
    assert_eq!(before, said(&mut direct));
    for value in ["yes", "no"] {
        let set = ["CONFIG", "SET", "extended-redis-compatibility", value];
        assert!(ask(&mut conn, &set).is_ok());
        assert_eq!(said(&mut direct) == before, value == "no");
        common::eventually("HELLO is the nodes'", || said(&mut conn) == said(&mut direct));
    }
}

#[test]
fn the_slow_log_shows_what_clients_sent() {
    let emulate = ["--set", "commands.cross_slot=emulate"];
    let Setting { proxy, cluster: _cluster, server } = setting("redis 7.0", &emulate);
    let long = "x".repeat(200);
    let many: Vec<String> = (0..40).map(|i| format!("key-{i}")).collect();
    let many = |command: &str| format!("{command} {}", many.join(" "));
    let commands = [
        format!("MSET a {long} b 2 c 3"),
        many("MGET"),
        many("DEL"),
        "EXISTS a b c".into(),
        "SADD s1 x".into(),
        "SUNION s1 s2 s3".into(),
        "RANDOMKEY".into(),
        "KEYS *".into(),
        "DBSIZE".into(),
        format!("EVAL return(1) 0 {long}"),
        "AUTH default secret".into(),
        "CONFIG SET masterauth secret".into(),
        "ACL SETUSER somebody >secret".into(),
        "ACL DELUSER somebody".into(),
        "HELLO 2 AUTH default secret".into(),
    ];
    let logged = |mut conn: Conn| -> Vec<Vec<String>> {
        let setting = ["CONFIG", "SET", "slowlog-log-slower-than", "0"];
        assert!(ask(&mut conn, &setting).is_ok());
        assert!(ask(&mut conn, &["SLOWLOG", "RESET"]).is_ok());
        for command in &commands {
            let words: Vec<&str> = command.split(' ').collect();
            let reply = ask(&mut conn, &words);
            assert!(reply.error().is_none(), "{command}: {reply:?}");
        }
        ask(&mut conn, &["WAIT", "1", "1"]);
        let log = ask(&mut conn, &["SLOWLOG", "GET", "100"]);
        let entries = log.items().expect("entries").iter().rev();
        let args = |entry: &Reply| -> Vec<String> {
            let args = entry.items().expect("an entry")[3].items().expect("arguments");
            args.iter().map(|arg| arg.text().expect("text")).collect()
        };
        let is_other = |args: &Vec<String>| args[0] != "SLOWLOG" && args[0] != "WAIT";
        entries.map(args).filter(is_other).collect()
    };
    let (ours, theirs) = (logged(proxy.connect()), logged(server.connect().expect("a connection")));
    assert_eq!(theirs.len(), commands.len());
    assert_eq!(ours, theirs);
}
