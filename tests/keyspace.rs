//! The whole keyspace through one cursor, whatever the cluster does meanwhile; random keys; which
//! commands may be sent.

use crate::common::errors::{assert_is, identified, named};
use crate::common::load::while_writing;
use crate::common::{self, Proxy, Setting, shared};
use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Writes keys that begin with `prefix`, over all slots.
fn fill(conn: &mut Conn, prefix: &str, count: usize) -> BTreeSet<String> {
    let keys: Vec<String> = (0..count).map(|i| format!("{prefix}:{i}")).collect();
    for some in keys.chunks(500) {
        let sets: Vec<Vec<&str>> = some.iter().map(|key| vec!["SET", key, "v"]).collect();
        assert!(conn.pipeline(&sets).expect("SET").iter().all(Reply::is_ok));
    }
    keys.into_iter().collect()
}

/// One SCAN: the next cursor and the keys.
#[track_caller]
fn scan_once(conn: &mut Conn, cursor: &str, options: &[&str]) -> (String, Vec<String>) {
    let command: Vec<&str> = ["SCAN", cursor].into_iter().chain(options.iter().copied()).collect();
    let reply = conn.command(&command).expect("SCAN");
    let items = reply.items().unwrap_or_else(|| panic!("{command:?}: {reply:?}"));
    let keys = items[1].items().expect("keys").iter().filter_map(Reply::text).collect();
    (items[0].text().expect("a cursor"), keys)
}

/// A whole scan, with what happens after the call of that number.
fn scan_while(
    conn: &mut Conn,
    options: &[&str],
    mut happens: impl FnMut(usize),
) -> (Vec<String>, usize) {
    let (mut cursor, mut all, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let (next, keys) = scan_once(conn, &cursor, options);
        all.extend(keys);
        calls += 1;
        assert!(calls < 100_000, "the scan does not end");
        if next == "0" {
            return (all, calls);
        }
        cursor = next;
        happens(calls);
    }
}

fn those(keys: &[String], prefix: &str) -> BTreeSet<String> {
    keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
}

#[test]
fn every_key_once_where_nothing_changes() {
    let setting = common::setting(&[]);
    let proxy = &setting.proxy;
    for mut conn in [proxy.connect(), proxy.connect3()] {
        let wanted = fill(&mut conn, "once", 3_000);
        for count in ["1", "10", "1000", "100000"] {
            let (keys, _) = scan_while(&mut conn, &["COUNT", count], |_| {});
            assert_eq!(keys.len(), wanted.len(), "none twice, with COUNT {count}");
            assert_eq!(BTreeSet::from_iter(keys), wanted);
        }
    }
}

#[test]
fn options_are_the_nodes() {
    let proxy = &shared().proxy;
    let mut conn = proxy.connect();
    let wanted = fill(&mut conn, "options", 300);
    for i in 0..50 {
        let key = format!("options:list:{i}");
        assert!(conn.command(&["RPUSH", &key, "x"]).expect("RPUSH").int().is_some());
    }
    let (keys, _) = scan_while(&mut conn, &["MATCH", "options:*", "TYPE", "list"], |_| {});
    assert_eq!(keys.len(), 50);
    let (keys, _) = scan_while(&mut conn, &["TYPE", "string", "MATCH", "options:*"], |_| {});
    assert_eq!(BTreeSet::from_iter(keys), wanted);
    let (keys, calls) = scan_while(&mut conn, &["MATCH", "nothing-is-called-so"], |_| {});
    assert!(keys.is_empty() && calls >= 3);
    for cursor in ["x", "1"] {
        assert_is(&conn.command(&["SCAN", cursor]).expect("SCAN"), FailureId::InvalidCursor);
    }
    // In Redis's words.
    for (command, error) in [
        (&["SCAN", "0", "COUNT", "0"][..], "ERR syntax error"),
        (&["SCAN", "0", "COUNT", "x"], "ERR value is not an integer or out of range"),
        (&["SCAN", "0", "NONSENSE"], "ERR syntax error"),
        (&["SCAN"], "ERR wrong number of arguments for 'scan' command"),
    ] {
        assert_eq!(conn.command(command).expect("SCAN").error(), Some(error), "{command:?}");
    }
}

#[test]
fn a_cursor_is_good_at_any_slotway() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let other = Proxy::start(&cluster, &[]);
    let mut conns = [proxy.connect(), other.connect()];
    let wanted = fill(&mut conns[0], "any", 2_000);
    let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
    for conn in (0..2).cycle() {
        let (next, keys) = scan_once(&mut conns[conn], &cursor, &["COUNT", "50"]);
        all.extend(keys);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(all.len(), wanted.len());
    assert_eq!(BTreeSet::from_iter(all), wanted);
}

#[test]
fn failovers_in_the_middle_under_writes() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut conn = proxy.connect();
    let wanted = fill(&mut conn, "stays", 4_000);
    let mut primaries = cluster.primaries().expect("primaries");
    primaries.sort_by_key(|node| *node.slots[0].start());
    let seen = while_writing(proxy.listen, |load| {
        let (keys, _) = scan_while(&mut conn, &["COUNT", "100"], |calls| {
            // The first in the middle of it, then one that comes later, then one that is over.
            let which = match calls {
                5 => &primaries[0],
                8 => &primaries[2],
                30 => &primaries[1],
                _ => return,
            };
            let replica = cluster.replicas_of(which).expect("replicas").remove(0);
            cluster.failover(&replica).expect("a failover");
            load.more(50);
        });
        let missed: Vec<_> = wanted.difference(&those(&keys, "stays:")).cloned().collect();
        assert!(missed.is_empty(), "{} keys missed: {missed:?}", missed.len());
    });
    seen.assert_no_errors();
}

#[test]
fn a_killed_primary_in_the_middle() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=25s"]);
    let mut conn = proxy.connect();
    let wanted = fill(&mut conn, "lives", 2_000);
    let mut primaries = cluster.primaries().expect("primaries");
    primaries.sort_by_key(|node| *node.slots[0].start());
    let victim = &primaries[1];
    let replica = cluster.replicas_of(victim).expect("replicas").remove(0);
    cluster.catch_up(&replica).expect("the replica has everything");
    let mut killed = false;
    let (keys, _) = scan_while(&mut conn, &["COUNT", "50"], |calls| {
        // 667 keys a shard: in the second.
        if calls == 18 {
            cluster.kill(victim).expect("to kill a primary");
            killed = true;
        }
    });
    assert!(killed);
    assert_eq!(BTreeSet::from_iter(keys), wanted);
}

#[test]
fn slots_that_move_in_the_middle() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut conn = proxy.connect();
    let wanted = fill(&mut conn, "moves", 4_000);
    let mut primaries = cluster.primaries().expect("primaries");
    primaries.sort_by_key(|node| *node.slots[0].start());
    let mut moved = BTreeSet::new();
    let (keys, calls) = scan_while(&mut conn, &["COUNT", "100"], |calls| {
        // In the first shard, then in the second: a low slot goes to the last shard, which is not
        // scanned yet; later slots come back.
        let (from, to, slot) = match calls {
            3 => (&primaries[0], &primaries[2], 7),
            5 => (&primaries[0], &primaries[1], 5_000),
            18 => (&primaries[0], &primaries[2], 100),
            25 => (&primaries[2], &primaries[0], 7),
            _ => return,
        };
        cluster.move_slot(slotway::cluster::Slot(slot), from, to).expect("a move");
        moved.insert(slot);
    });
    assert_eq!(moved.len(), 3, "they all happened, in {calls} calls");
    let seen = those(&keys, "moves:");
    let missed: Vec<_> = wanted.difference(&seen).cloned().collect();
    let stayed: Vec<_> =
        missed.iter().filter(|key| !moved.contains(&slot_of(key.as_bytes()).0)).collect();
    assert!(stayed.is_empty(), "{stayed:?}");
}

#[test]
fn random_keys_over_unequal_shards() {
    let Setting { proxy, cluster } = common::setting(&[]);
    let mut conn = proxy.connect3();
    assert_eq!(conn.command(&["RANDOMKEY"]).expect("RANDOMKEY"), Reply::Nil);
    let keys = fill(&mut conn, "all", 40);
    // A second shard gets ten times as many keys, the third keeps none.
    let owner = |key: &str| cluster.owner_of(slot_of(key.as_bytes())).expect("an owner").id;
    let mut by_owner: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for key in &keys {
        by_owner.entry(owner(key)).or_default().push(key);
    }
    let mut shards: Vec<_> = by_owner.into_values().collect();
    shards.sort_by_key(Vec::len);
    for key in &shards[0] {
        assert_eq!(conn.command(&["DEL", key]).expect("DEL"), Reply::Int(1));
    }
    let tag = shards[2][0];
    for i in 0..shards[1].len() * 10 {
        assert!(conn.command(&["SET", &format!("big{{{tag}}}{i}"), "v"]).expect("SET").is_ok());
    }
    let small: BTreeSet<&str> = shards[1].iter().map(|key| key.as_str()).collect();
    const DRAWS: usize = 2_000;
    let mut from_small = 0;
    for _ in 0..DRAWS {
        let key = conn.command(&["RANDOMKEY"]).expect("RANDOMKEY").text().expect("a key");
        assert!(small.contains(key.as_str()) || owner(&key) == owner(tag), "{key} is gone");
        from_small += usize::from(small.contains(key.as_str()));
    }
    let share = small.len() as f64 / (small.len() * 11 + shards[2].len()) as f64;
    let drawn = from_small as f64 / DRAWS as f64;
    // Six standard deviations; one in two would be 0.5.
    let deviation = (share * (1.0 - share) / DRAWS as f64).sqrt();
    assert!((drawn - share).abs() < 6.0 * deviation, "{drawn} instead of {share}");
}

#[test]
fn what_breaks_the_cluster_is_denied() {
    let proxy = &shared().proxy;
    let mut conn = proxy.connect();
    use FailureId::{ConnectionTakeover, OneNodeOnly};
    for (command, id) in [
        (&["SHUTDOWN", "NOSAVE"][..], OneNodeOnly),
        (&["REPLICAOF", "NO", "ONE"], OneNodeOnly),
        (&["FAILOVER"], OneNodeOnly),
        (&["MIGRATE", "127.0.0.1", "1", "k", "0", "10"], OneNodeOnly),
        (&["DEBUG", "SLEEP", "0"], OneNodeOnly),
        (&["SWAPDB", "0", "1"], OneNodeOnly),
        (&["MODULE", "LOAD", "/x.so"], OneNodeOnly),
        (&["SCRIPT", "DEBUG", "YES"], ConnectionTakeover),
        (&["CLUSTER", "RESET", "HARD"], OneNodeOnly),
        (&["CLUSTER", "FAILOVER"], OneNodeOnly),
        (&["PSYNC", "?", "-1"], ConnectionTakeover),
    ] {
        let reply = conn.command(command).expect("an answer");
        let error = identified(&reply);
        assert_eq!(error.id, id, "{reply:?}");
        assert!(error.field("command").is_some_and(|c| c.starts_with(command[0])), "{reply:?}");
        assert!(reply.error().is_some_and(|e| e.contains("commands.allow")), "{reply:?}");
    }
    assert_eq!(conn.command(&["PING"]).expect("PING").text().as_deref(), Some("PONG"));
}

#[test]
fn deny_and_allow() {
    let deny = "commands.deny=@dangerous,flushdb,config|set,multi";
    let setting = common::setting(&["--set", deny, "--set", "commands.allow=keys,swapdb,debug"]);
    let mut conn = setting.proxy.connect();
    let mut error = |command: &[&str]| {
        let reply = conn.command(command).expect("an answer");
        reply.error().map(str::to_owned)
    };
    for command in [
        &["FLUSHALL"][..],
        &["FLUSHDB"],
        &["CONFIG", "SET", "maxmemory", "0"],
        &["SHUTDOWN"],
        &["MULTI"],
    ] {
        let text = error(command).unwrap_or_else(|| panic!("{command:?} is let in"));
        let denied = named(&text);
        assert_eq!(denied.id, FailureId::DeniedByConfig, "{text}");
        assert!(denied.field("command").is_some_and(|c| c.starts_with(command[0])), "{text}");
        assert!(text.contains("commands.deny"), "{text}");
    }
    assert_eq!(error(&["SET", "k", "v"]), None);
    assert_eq!(error(&["KEYS", "*"]), None, "by its name, though its category is denied");
    let swapdb = error(&["SWAPDB", "0", "1"]).expect("a cluster has one database");
    assert!(swapdb.contains("not allowed in cluster mode"), "the node's words: {swapdb}");
    let debug = error(&["DEBUG", "OBJECT", "k"]).expect("nodes refuse it by themselves");
    assert!(debug.contains("enable-debug-command"), "the node's words: {debug}");
}

#[test]
fn debug_goes_by_its_key() {
    let cluster = slotway::sandbox::Cluster::start(slotway::sandbox::ClusterOptions {
        conf: vec!["enable-debug-command yes".into()],
        ..Default::default()
    })
    .expect("a cluster");
    let proxy = Proxy::start(&cluster, &["--set", "commands.allow=debug"]);
    let mut conn = proxy.connect();
    for key in fill(&mut conn, "debugged", 30) {
        let reply = conn.command(&["DEBUG", "OBJECT", &key]).expect("DEBUG OBJECT");
        assert!(reply.text().is_some_and(|t| t.contains("encoding")), "{reply:?}");
    }
    let reply = conn.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]).expect("DEBUG");
    assert!(reply.is_ok(), "{reply:?}");
}

#[test]
fn server_commands_of_many_nodes() {
    let setting = common::setting(&[]);
    let proxy = &setting.proxy;
    for mut conn in [proxy.connect(), proxy.connect3()] {
        let mut ask = |command: &[&str]| conn.command(command).expect("an answer");
        assert!(ask(&["SLOWLOG", "RESET"]).is_ok());
        assert!(ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).is_ok());
        for i in 0..30 {
            assert!(ask(&["SET", &format!("slow:{i}"), "v"]).is_ok());
        }
        assert!(ask(&["CONFIG", "SET", "slowlog-log-slower-than", "10000"]).is_ok());
        let log = ask(&["SLOWLOG", "GET"]);
        assert_eq!(log.items().expect("entries").len(), 10);
        let log = ask(&["SLOWLOG", "GET", "-1"]);
        let entries = log.items().expect("entries");
        let times: Vec<i64> = entries.iter().filter_map(|e| e.items()?.get(1)?.int()).collect();
        assert!(entries.len() >= 30 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
        assert_eq!(ask(&["SLOWLOG", "LEN"]).int(), Some(entries.len() as i64));
        let role = ask(&["ROLE"]);
        let role = role.items().expect("a role");
        assert_eq!(role[0].text().as_deref(), Some("master"));
        assert_eq!(role[2], Reply::Array(Vec::new()));
        assert_eq!(ask(&["ACL", "LOG", "RESET"]), Reply::Simple("OK".into()));
        assert_eq!(ask(&["ACL", "LOG"]), Reply::Array(Vec::new()));
        assert!(ask(&["LATENCY", "RESET"]).int().is_some());
        assert_eq!(ask(&["LATENCY", "LATEST"]), Reply::Array(Vec::new()));
        assert!(ask(&["MEMORY", "DOCTOR"]).text().is_some());
        assert!(ask(&["SLOWLOG", "GET", "-2"]).error().is_some());
    }
    // The sums of all shards.
    let mut conn = proxy.connect3();
    let Reply::Map(stats) = conn.command(&["MEMORY", "STATS"]).expect("MEMORY STATS") else {
        panic!("no map")
    };
    let keys = stats.iter().find(|(name, _)| name.text().as_deref() == Some("keys.count"));
    assert_eq!(keys.expect("a field").1.int(), conn.command(&["DBSIZE"]).expect("DBSIZE").int());
    let Reply::Map(calls) = conn.command(&["LATENCY", "HISTOGRAM", "set"]).expect("HISTOGRAM")
    else {
        panic!("no map")
    };
    let Reply::Map(set) = &calls[0].1 else { panic!("no map") };
    assert_eq!(set[0].1.int(), Some(2 * 30), "as often as they were sent, not on replicas too");
}

/// A primary that died comes back empty when its replica has taken over, and for a moment it does
/// not know that: it would answer for keys that it does not have.
#[test]
fn a_primary_that_comes_back_empty_is_not_believed() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=20s"]);
    let keys = fill(&mut proxy.connect(), "back", 600);
    let primary = cluster.primaries().expect("primaries").remove(0);
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    cluster.catch_up(&replica).expect("the replica to catch up");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for what in ["DBSIZE", "SCAN"] {
            let (proxy, keys, over) = (&proxy, &keys, &over);
            scope.spawn(move || {
                let mut conn = proxy.connect();
                conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
                while !over.load(Ordering::Relaxed) {
                    if what == "DBSIZE" {
                        let size = conn.command(&["DBSIZE"]).expect("DBSIZE");
                        // Between two primaries there is none to be asked.
                        if size.error().is_none_or(|e| !e.starts_with("CLUSTERDOWN ")) {
                            assert_eq!(size, Reply::Int(keys.len() as i64));
                        }
                    } else {
                        let (all, _) = scan_while(&mut conn, &["COUNT", "100"], |_| {});
                        let missed = keys.difference(&those(&all, "back")).count();
                        assert_eq!(missed, 0, "keys were missed");
                    }
                }
            });
        }
        cluster.kill(&primary).expect("to kill");
        common::eventually("the replica leads", || {
            cluster.node(&replica.id).is_ok_and(|n| n.is_primary() && n.slot_count() > 0)
        });
        cluster.restart(&primary).expect("to restart");
        cluster.settle().expect("a settled cluster");
        over.store(true, Ordering::Relaxed);
    });
}

/// A primary that restarts without data while all other nodes stand still. It answers commands
/// without keys although it refuses all others (`CLUSTERDOWN`). Its replica, which has the data, is
/// promoted before the others go on.
struct EmptyRestart {
    cluster: Cluster,
    proxy: Proxy,
    keys: BTreeSet<String>,
}

/// What a client asks, and the command that the empty node must not carry out for it, if there is
/// one.
type Question<'a> = (&'a (dyn Fn(&mut Conn) + Sync), Option<&'a str>);

impl EmptyRestart {
    fn start() -> EmptyRestart {
        // Nobody takes a node that stands still for failed.
        let options =
            ClusterOptions { node_timeout: Duration::from_secs(120), ..Default::default() };
        let cluster = Cluster::start(options).expect("a cluster");
        let args = ["timeouts.command=60s", "transactions.cross_slot=split"];
        let args: Vec<&str> = args.iter().flat_map(|set| ["--set", set]).collect();
        let proxy = Proxy::start(&cluster, &args);
        let keys = fill(&mut proxy.connect(), "empty", 600);
        EmptyRestart { cluster, proxy, keys }
    }

    /// Asks everything in both protocols while the primary is empty and no other node has noticed.
    fn ask(&self, questions: &[Question]) {
        let mut primaries = self.cluster.primaries().expect("primaries");
        primaries.sort_by_key(|node| *node.slots[0].start());
        // SCAN begins there.
        let primary = primaries.remove(0);
        let replica = self.cluster.replicas_of(&primary).expect("replicas").remove(0);
        self.cluster.catch_up(&replica).expect("the replica to catch up");
        // What a connection has shown before does not hold for the next one.
        for mut conn in [self.proxy.connect(), self.proxy.connect3()] {
            assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(600));
        }
        let mut promoter = self.cluster.connect(&replica).expect("a connection");
        let mut rest = self.cluster.nodes().expect("nodes");
        rest.retain(|node| node.id != primary.id);
        rest.iter().for_each(|node| self.cluster.pause(node).expect("to pause it"));
        self.cluster.kill(&primary).expect("to kill it");
        thread::scope(|scope| {
            for connect in [Proxy::connect, Proxy::connect3] {
                for (ask, _) in questions {
                    scope.spawn(move || {
                        let mut conn = connect(&self.proxy);
                        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
                        ask(&mut conn);
                    });
                }
            }
            self.cluster.restart(&primary).expect("to restart it");
            let mut direct = Conn::tcp(primary.addr).expect("a connection");
            let wanted = 2 * questions.len() as u64;
            let commands = || questions.iter().filter_map(|(_, command)| *command);
            let mut carried_out = 0;
            common::eventually("slotway has come to the empty node", || {
                let info = direct.command(&["INFO", "commandstats"]).expect("INFO");
                let stats = info.text().unwrap_or_default();
                carried_out = commands().map(|c| count(&stats, c, "calls")).sum();
                carried_out > 0 || count(&stats, "exists", "rejected_calls") >= wanted
            });
            // The first thing that the replica reads when it goes on.
            promoter.send(&["CLUSTER", "FAILOVER", "TAKEOVER"]).expect("to send");
            self.cluster.resume(&replica).expect("to resume it");
            assert!(promoter.receive().expect("an answer").is_ok());
            rest.iter().for_each(|node| self.cluster.resume(node).expect("to resume it"));
            assert_eq!(carried_out, 0, "the empty node has carried out what it was asked");
        });
    }
}

/// A number out of `INFO commandstats`.
fn count(stats: &str, command: &str, field: &str) -> u64 {
    let line = stats.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:")));
    let mut fields = line.into_iter().flat_map(|line| line.split(','));
    let value = fields.find_map(|f| f.strip_prefix(field)?.strip_prefix('='));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[test]
fn an_empty_primary_has_no_say_in_what_keys_there_are() {
    let setting = EmptyRestart::start();
    let keys = &setting.keys;
    let size = |conn: &mut Conn| {
        assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(600));
    };
    let in_transaction = |conn: &mut Conn| {
        assert!(conn.command(&["MULTI"]).expect("MULTI").is_ok());
        conn.command(&["DBSIZE"]).expect("DBSIZE");
        let replies = conn.command(&["EXEC"]).expect("EXEC");
        assert_eq!(replies, Reply::Array(vec![Reply::Int(600)]));
    };
    let list = |conn: &mut Conn| {
        let list = conn.command(&["KEYS", "empty:*"]).expect("KEYS");
        let list = list.items().unwrap_or_else(|| panic!("KEYS: {list:?}"));
        let list = list.iter().filter_map(Reply::text).collect();
        assert_eq!(keys.difference(&list).count(), 0, "KEYS left keys out");
    };
    let scan = |conn: &mut Conn| {
        let (all, _) = scan_while(conn, &["COUNT", "100"], |_| {});
        assert_eq!(keys.difference(&those(&all, "empty")).count(), 0, "SCAN left keys out");
    };
    let random = |conn: &mut Conn| {
        let key = conn.command(&["RANDOMKEY"]).expect("RANDOMKEY");
        assert!(key.text().is_some_and(|key| keys.contains(&key)), "{key:?}");
    };
    setting.ask(&[
        (&size, Some("dbsize")),
        (&in_transaction, Some("dbsize")),
        // A read, whose list is thrown away.
        (&list, None),
        (&scan, Some("scan")),
        (&random, Some("randomkey")),
    ]);
}

#[test]
fn what_an_empty_primary_would_change_its_successor_changes() {
    let setting = EmptyRestart::start();
    let flush = |conn: &mut Conn| {
        assert!(conn.command(&["FLUSHALL"]).expect("FLUSHALL").is_ok());
    };
    let load = |conn: &mut Conn| {
        let code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
        let loaded = conn.command(&["FUNCTION", "LOAD", "REPLACE", code]).expect("FUNCTION LOAD");
        assert_eq!(loaded.text().as_deref(), Some("lib"));
    };
    setting.ask(&[(&flush, Some("flushall")), (&load, Some("function|load"))]);
    for primary in setting.cluster.primaries().expect("primaries") {
        let mut conn = setting.cluster.connect(&primary).expect("a connection");
        assert_eq!(conn.command(&["DBSIZE"]).expect("DBSIZE"), Reply::Int(0), "{}", primary.addr);
        let known = conn.command(&["FUNCTION", "LIST"]).expect("FUNCTION LIST");
        assert_eq!(known.items().map(<[Reply]>::len), Some(1), "{}", primary.addr);
    }
}
