//! A script that was seen once is known on every node: new, promoted, restarted, flushed.

use crate::common;
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, Conn, Node, Reply};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const APPEND: &str = "redis.call('APPEND', KEYS[1], ARGV[1]) return 'done'";

fn ask(conn: &mut Conn, args: &[&str]) -> Reply {
    conn.command(args).expect("a reply")
}

fn load(conn: &mut Conn, body: &str) -> String {
    ask(conn, &["SCRIPT", "LOAD", body]).text().expect("a SHA1")
}

/// A mark that makes a script another one than every other test's.
fn mark() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!(" -- {}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Behind slotway's back.
fn flush(cluster: &Cluster, node: &Node) {
    let reply = ask(&mut cluster.connect(node).expect("a connection"), &["SCRIPT", "FLUSH"]);
    assert!(reply.is_ok(), "{reply:?}");
}

fn flush_all(cluster: &Cluster) {
    for node in cluster.nodes().expect("the nodes").iter().filter(|n| n.pid.is_some()) {
        flush(cluster, node);
    }
}

/// One key on each primary.
fn key_per_primary(cluster: &Cluster, name: &str) -> Vec<String> {
    let primaries = cluster.primaries().expect("the primaries");
    let owns = |node: &Node, key: &str| {
        node.slots.iter().any(|range| range.contains(&slot_of(key.as_bytes()).0))
    };
    let key = |node: &Node| {
        (0..).map(|i| format!("{name}:{i}")).find(|key| owns(node, key)).expect("a key")
    };
    primaries.iter().filter(|node| node.slot_count() > 0).map(key).collect()
}

#[test]
fn loaded_once_flushed_behind_our_back() {
    let setting = common::setting(&[]);
    let keys = key_per_primary(&setting.cluster, "flushed");
    for mut conn in [setting.proxy.connect(), setting.proxy.connect3()] {
        let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
        for key in &keys {
            assert_eq!(ask(&mut conn, &["EVALSHA", &sha, "1", key, "a"]).text().unwrap(), "done");
        }
        let before = setting.proxy.metric("slotway_redirections_total", "noscript");
        flush_all(&setting.cluster);
        for key in &keys {
            assert_eq!(ask(&mut conn, &["EVALSHA", &sha, "1", key, "b"]).text().unwrap(), "done");
            assert_eq!(ask(&mut conn, &["GET", key]).text().unwrap(), "ab");
            assert!(ask(&mut conn, &["DEL", key]).int() == Some(1));
        }
        flush_all(&setting.cluster);
        let upper = sha.to_uppercase();
        assert!(ask(&mut conn, &["EVALSHA_RO", &upper, "1", &keys[0]]).error().is_some());
        let no_keys = load(&mut conn, &("return 'none'".to_owned() + &mark()));
        assert_eq!(ask(&mut conn, &["EVALSHA", &no_keys, "0"]).text().unwrap(), "none");
        flush_all(&setting.cluster);
        assert_eq!(ask(&mut conn, &["evalsha_ro", &no_keys, "0"]).text().unwrap(), "none");
        let healed = setting.proxy.metric("slotway_redirections_total", "noscript") - before;
        assert!(healed >= keys.len() as f64 + 2.0, "{healed}");
    }
}

#[test]
fn eval_is_remembered_as_well() {
    let setting = common::shared();
    let mut conn = setting.proxy.connect();
    for command in ["EVAL", "EVAL_RO"] {
        let body = format!("return 7{}", mark());
        assert_eq!(ask(&mut conn, &[command, &body, "1", "k"]).int(), Some(7));
        let sha = slotway::scripts::Sha::of(body.as_bytes()).to_string();
        for key in key_per_primary(&setting.cluster, "eval") {
            assert_eq!(ask(&mut conn, &["EVALSHA", &sha, "1", &key]).int(), Some(7));
        }
    }
}

#[test]
fn what_is_no_script_is_not_kept() {
    let setting = common::shared();
    let mut conn = setting.proxy.connect();
    for command in [["EVAL", "end", "0"].as_slice(), &["SCRIPT", "LOAD", "end"]] {
        let error = ask(&mut conn, command);
        assert!(error.error().unwrap().starts_with("ERR Error compiling script"), "{error:?}");
        let sha = slotway::scripts::Sha::of(b"end").to_string();
        let exists = ask(&mut conn, &["SCRIPT", "EXISTS", &sha]);
        assert_eq!(exists, Reply::Array(vec![Reply::Int(0)]));
        assert!(ask(&mut conn, &["EVALSHA", &sha, "0"]).error().unwrap().starts_with("NOSCRIPT"));
    }
}

#[test]
fn exists_and_flush() {
    let setting = common::setting(&[]);
    let mut conn = setting.proxy.connect();
    let sha = load(&mut conn, &format!("return 1{}", mark()));
    let missing = "f".repeat(40);
    flush_all(&setting.cluster);
    let exists = ask(&mut conn, &["SCRIPT", "EXISTS", &sha, &missing, &sha]);
    assert_eq!(exists, Reply::Array([1, 0, 1].map(Reply::Int).to_vec()));
    // And it is true.
    let primary = &setting.cluster.primaries().unwrap()[0];
    let mut node = setting.cluster.connect(primary).unwrap();
    assert_eq!(ask(&mut node, &["SCRIPT", "EXISTS", &sha]), Reply::Array(vec![Reply::Int(1)]));

    // Refused by the nodes: nothing is forgotten.
    assert!(ask(&mut conn, &["SCRIPT", "FLUSH", "NOW"]).error().is_some());
    assert_eq!(ask(&mut conn, &["EVALSHA", &sha, "0"]).int(), Some(1));
    for flush in [["SCRIPT", "FLUSH"].as_slice(), &["script", "flush", "async"]] {
        load(&mut conn, "return 2");
        load(&mut conn, "return 2");
        let two = slotway::scripts::Sha::of(b"return 2").to_string();
        assert!(ask(&mut conn, flush).is_ok());
        for sha in [&sha, &two] {
            let exists = ask(&mut conn, &["SCRIPT", "EXISTS", sha]);
            assert_eq!(exists, Reply::Array(vec![Reply::Int(0)]));
            let reply = ask(&mut conn, &["EVALSHA", sha, "0"]);
            assert_eq!(reply.error(), Some("NOSCRIPT No matching script. Please use EVAL."));
        }
    }
    assert_eq!(setting.proxy.metric("slotway_script_bytes", ""), 0.0);
}

#[test]
fn pipelined_with_other_commands_of_the_same_key() {
    let setting = common::setting(&[]);
    let mut conn = setting.proxy.connect();
    let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
    let keys = key_per_primary(&setting.cluster, "ordered");
    for round in 0..20 {
        flush_all(&setting.cluster);
        let mut commands: Vec<Vec<&str>> = Vec::new();
        for key in &keys {
            commands.push(vec!["DEL", key]);
            for part in ["a", "c"] {
                let next = if part == "a" { "b" } else { "d" };
                commands.push(vec!["EVALSHA", &sha, "1", key, part]);
                commands.push(vec!["APPEND", key, next]);
            }
            commands.push(vec!["GET", key]);
        }
        let replies = conn.pipeline(&commands).expect("replies");
        for (reply, command) in replies.iter().zip(&commands) {
            assert!(reply.error().is_none(), "{command:?}: {reply:?}");
            if command[0] == "GET" {
                assert_eq!(reply.text().unwrap(), "abcd", "round {round}");
            }
        }
    }
}

/// Scripts are flushed all the time; every push is done once, in order.
#[test]
fn flushed_under_load() {
    let setting = common::setting(&["--set", "workers=2"]);
    let sha = load(
        &mut setting.proxy.connect(),
        &format!("return redis.call('RPUSH', KEYS[1], ARGV[1]){}", mark()),
    );
    let stop = AtomicBool::new(false);
    let (stop, sha, setting) = (&stop, &sha, &setting);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                scope.spawn(move || {
                    let mut conn = setting.proxy.connect();
                    let key = format!("list:{client}");
                    let depth = [1, 1, 8, 8, 64, 64][client];
                    let mut pushed = 0;
                    while pushed < 1000 * depth.min(8) {
                        let numbers: Vec<String> =
                            (pushed..pushed + depth).map(|n| n.to_string()).collect();
                        let commands: Vec<Vec<&str>> =
                            numbers.iter().map(|n| vec!["EVALSHA", sha, "1", &key, n]).collect();
                        for reply in conn.pipeline(&commands).expect("replies") {
                            pushed += 1;
                            assert_eq!(reply, Reply::Int(pushed as i64), "client {client}");
                        }
                    }
                    let list = ask(&mut conn, &["LRANGE", &key, "0", "-1"]);
                    let list = list.items().unwrap().iter().map(|n| n.text().unwrap());
                    assert!(list.eq((0..pushed).map(|n| n.to_string())), "client {client}");
                })
            })
            .collect();
        let flusher = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                flush_all(&setting.cluster);
            }
        });
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        stop.store(true, Ordering::Relaxed);
        flusher.join().expect("the flusher");
        assert!(results.iter().all(Result::is_ok), "a client failed");
    });
    assert!(setting.proxy.metric("slotway_redirections_total", "noscript") > 0.0);
}

/// An error that a script makes itself, word for word the server's, after it has written.
#[test]
fn a_script_that_says_noscript_itself_runs_once() {
    const WORDS: &str = "NOSCRIPT No matching script. Please use EVAL.";
    let setting = common::shared();
    let mut conn = setting.proxy.connect();
    let said = format!("redis.call('INCR', KEYS[1]) return redis.error_reply('{WORDS}'){}", mark());
    let given = format!("redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1]){}", mark());
    for (i, body) in [said, given].iter().enumerate() {
        let sha = load(&mut conn, body);
        let key = format!("once:{i}");
        for n in 1..=3 {
            let reply = ask(&mut conn, &["EVALSHA", &sha, "1", &key, WORDS]);
            assert_eq!(reply.error(), Some(WORDS));
            assert_eq!(ask(&mut conn, &["GET", &key]).text(), Some(n.to_string()));
        }
    }
}

#[test]
fn failover_to_a_replica_that_lacks_the_script() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let mut conn = setting.proxy.connect();
    let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
    let primary = cluster.owner_of(slot_of(b"k")).expect("the owner");
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    assert!(ask(&mut conn, &["EVALSHA", &sha, "1", "k", "a"]).error().is_none());
    flush(cluster, &replica);
    cluster.failover(&replica).expect("a failover");
    let replies = conn
        .pipeline(&[
            vec!["EVALSHA", &sha, "1", "k", "b"],
            vec!["APPEND", "k", "c"],
            vec!["GET", "k"],
        ])
        .expect("replies");
    assert_eq!(replies[2].text().unwrap(), "abc", "{replies:?}");
}

#[test]
fn a_restarted_node_and_a_node_that_is_down() {
    // Without a deadline: what waits for the dead node would wait for ever.
    let setting = common::setting(&["--set", "timeouts.command=0"]);
    let cluster = &setting.cluster;
    let mut conn = setting.proxy.connect();
    let primary = cluster.owner_of(slot_of(b"k")).expect("the owner");
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    // Known to all but the replica, which is down; the cluster has not noticed yet.
    cluster.kill(&replica).expect("a dead replica");
    let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
    assert_eq!(sha.len(), 40);
    cluster.restart(&replica).expect("a restarted replica");
    cluster.settle().expect("a settled cluster");
    assert_eq!(load(&mut conn, "return 3").len(), 40);
    cluster.failover(&replica).expect("a failover");
    assert!(ask(&mut conn, &["EVALSHA", &sha, "1", "k", "a"]).error().is_none());
    assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "a");
}

#[test]
fn a_node_that_joins_later() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let mut conn = setting.proxy.connect();
    let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
    let slot = slot_of(b"k");
    let owner = cluster.owner_of(slot).expect("the owner");
    let new = cluster.add_node(None).expect("a new node");
    assert!(ask(&mut conn, &["EVALSHA", &sha, "1", "k", "a"]).error().is_none());
    cluster.move_slot(slot, &owner, &new).expect("a moved slot");
    let replies = conn
        .pipeline(&[
            vec!["EVALSHA", &sha, "1", "k", "b"],
            vec!["APPEND", "k", "c"],
            vec!["GET", "k"],
        ])
        .expect("replies");
    assert_eq!(replies[2].text().unwrap(), "abc", "{replies:?}");
}

#[test]
fn memory_is_bounded() {
    let setting = common::setting(&["--set", "limits.scripts=64KiB"]);
    let mut conn = setting.proxy.connect();
    let kept = load(&mut conn, "return 'kept'");
    for i in 0..2000 {
        let body = format!("return {i} -- {}", "x".repeat(200));
        let reply = match i % 2 {
            0 => ask(&mut conn, &["EVAL", &body, "0"]),
            _ => ask(&mut conn, &["SCRIPT", "LOAD", &body]),
        };
        assert!(reply.error().is_none(), "{reply:?}");
        if i % 20 == 0 {
            load(&mut conn, "return 'kept'");
        }
    }
    let bytes = setting.proxy.metric("slotway_script_bytes", "");
    assert!(bytes > 32.0 * 1024.0 && bytes <= 64.0 * 1024.0, "{bytes}");
    assert!(setting.proxy.metric("slotway_limits_hit_total", "scripts") > 1000.0);
    flush_all(&setting.cluster);
    assert_eq!(ask(&mut conn, &["EVALSHA", &kept, "0"]).text().unwrap(), "kept");
    let first = format!("return 0 -- {}", "x".repeat(200));
    let first = slotway::scripts::Sha::of(first.as_bytes()).to_string();
    let gone = ask(&mut conn, &["EVALSHA", &first, "0"]);
    assert!(gone.error().unwrap().starts_with("NOSCRIPT"), "{gone:?}");
}

#[test]
fn functions_on_every_primary() {
    let setting = common::setting(&[]);
    let mut conn = setting.proxy.connect();
    let library = "#!lua name=lib\n\
                   redis.register_function('put', function(k, a) \
                     return redis.call('SET', k[1], a[1]) end)\n\
                   redis.register_function{function_name='read', flags={'no-writes'}, \
                     callback=function(k) return redis.call('GET', k[1]) end}";
    assert_eq!(ask(&mut conn, &["FUNCTION", "LOAD", library]).text().unwrap(), "lib");
    let keys = key_per_primary(&setting.cluster, "function");
    let all_work = |conn: &mut Conn| {
        for key in &keys {
            assert!(ask(conn, &["FCALL", "put", "1", key, "v"]).is_ok());
            assert_eq!(ask(conn, &["FCALL_RO", "read", "1", key]).text().unwrap(), "v");
        }
    };
    all_work(&mut conn);
    let dump = ask(&mut conn, &["FUNCTION", "DUMP"]);
    assert!(ask(&mut conn, &["FUNCTION", "FLUSH"]).is_ok());
    for key in &keys {
        assert!(ask(&mut conn, &["FCALL", "put", "1", key, "v"]).error().is_some());
    }
    let Reply::Bulk(dump) = dump else { panic!("{dump:?}") };
    let restore = conn.command(&[b"FUNCTION".as_slice(), b"RESTORE", &dump]).unwrap();
    assert!(restore.is_ok(), "{restore:?}");
    all_work(&mut conn);
    assert!(ask(&mut conn, &["FUNCTION", "DELETE", "lib"]).is_ok());
    assert_eq!(ask(&mut conn, &["FUNCTION", "LIST"]), Reply::Array(Vec::new()));
}

/// What is sent behind MULTI cannot be sent again in part, so its scripts go before it.
#[test]
fn in_transactions() {
    for cross_slot in ["reject", "split"] {
        let setting = common::setting(&["--set", &format!("transactions.cross_slot={cross_slot}")]);
        let cluster = &setting.cluster;
        let mut conn = setting.proxy.connect();
        let sha = load(&mut conn, &(APPEND.to_owned() + &mark()));
        let keys = key_per_primary(cluster, "tx");
        let mut batch = vec![vec!["MULTI"], vec!["EVALSHA", &sha, "1", &keys[0], "a"]];
        if cross_slot == "split" {
            batch.extend(keys.iter().skip(1).map(|key| vec!["EVALSHA", &sha, "1", key, "a"]));
        }
        batch.push(vec!["EXEC"]);
        let done = |reply: &Reply| {
            let items = reply.items().unwrap_or_else(|| panic!("{cross_slot}: {reply:?}"));
            assert_eq!(items.len(), batch.len() - 2);
            assert!(items.iter().all(|r| r.text().unwrap() == "done"), "{cross_slot}: {reply:?}");
        };
        for _ in 0..5 {
            flush_all(cluster);
            done(conn.pipeline(&batch).expect("replies").last().expect("EXEC's"));
            flush_all(cluster);
            assert!(ask(&mut conn, &["WATCH", &keys[0]]).is_ok());
            done(conn.pipeline(&batch).expect("replies").last().expect("EXEC's"));
        }
        assert_eq!(ask(&mut conn, &["GET", &keys[0]]).text().unwrap(), "a".repeat(10));
        // Behind a slot that moved.
        let slot = slot_of(keys[0].as_bytes());
        let owner = cluster.owner_of(slot).expect("the owner");
        let others = cluster.primaries().expect("the primaries");
        let other = others.iter().find(|node| node.id != owner.id).expect("another");
        flush_all(cluster);
        cluster.move_slot(slot, &owner, other).expect("a moved slot");
        done(conn.pipeline(&batch).expect("replies").last().expect("EXEC's"));
        // What a transaction has brought is known as well.
        let body = format!("return 9{}", mark());
        for reply in [vec!["MULTI"], vec!["EVAL", &body, "1", &keys[0]], vec!["EXEC"]] {
            assert!(ask(&mut conn, &reply).error().is_none());
        }
        let sha = slotway::scripts::Sha::of(body.as_bytes()).to_string();
        assert_eq!(ask(&mut conn, &["EVALSHA", &sha, "0"]).int(), Some(9));
    }
}

/// A script sees the keys of its node only: that nobody is told when it asks for all of them.
#[test]
fn scripts_that_ask_for_all_keys_are_reported_once() {
    let args = ["--workers", "2", "--set", "transactions.cross_slot=split"];
    let setting = common::setting(&args);
    let library = |name: &str, command: &str| {
        format!(
            "#!lua name={name}\nredis.register_function('{name}', function() return \
             redis.call({command}) end)"
        )
    };
    let eval = "return #redis.call('keys', '*')";
    let loaded = "local call = redis.call return call(\"DBSIZE\")";
    let queued = "return redis.pcall([[scan]], 0)[1]";
    let loaded_in_multi = "return redis.call('FlushDB')";
    let (first, second) = (library("first", "'randomkey'"), library("second", "'flushall'"));
    for mut conn in [setting.proxy.connect(), setting.proxy.connect3(), setting.proxy.connect()] {
        let mut good = |args: &[&str]| {
            let reply = ask(&mut conn, args);
            assert!(reply.error().is_none(), "{args:?}: {reply:?}");
        };
        good(&["EVAL", eval, "0"]);
        good(&["EVAL", eval, "1", "k"]);
        good(&["SCRIPT", "LOAD", loaded]);
        good(&["FUNCTION", "LOAD", "REPLACE", &first]);
        good(&["MULTI"]);
        good(&["EVAL", queued, "0"]);
        good(&["SCRIPT", "LOAD", loaded_in_multi]);
        good(&["FUNCTION", "LOAD", "REPLACE", &second]);
        good(&["EXEC"]);
        // These are about keys, which the node looks at.
        good(&["EVAL", "return redis.call('hscan', KEYS[1], 0)", "1", "k"]);
        good(&["EVAL", "return 'keys' -- redis.call('keys', '*')", "0"]);
    }
    assert_eq!(setting.proxy.metric("slotway_scripts_partial_total", ""), 6.0);
    let log = setting.proxy.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("the node that it runs on")).collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    for (body, command) in [
        (eval, "KEYS"),
        (loaded, "DBSIZE"),
        (queued, "SCAN"),
        (loaded_in_multi, "FLUSHDB"),
        (first.as_str(), "RANDOMKEY"),
        (second.as_str(), "FLUSHALL"),
    ] {
        let sha = slotway::scripts::Sha::of(body.as_bytes()).to_string();
        let of_it = lines.iter().filter(|line| line.contains(&sha) && line.contains(command));
        assert_eq!(of_it.count(), 1, "{command}: {lines:?}");
    }
}
