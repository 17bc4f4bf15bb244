//! Clients that speak to a Redis Cluster, pointed at slotway; and reads from replicas.

use std::process::Command;

use crate::common;
use redis::Commands;
use redis::cluster::ClusterClient;
use redis::cluster_read_routing::RandomReplicaStrategy;
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};

fn ask(conn: &mut Conn, args: &[&str]) -> Reply {
    conn.command(args).expect("a reply")
}

/// How often `node` has executed `command`.
fn calls(cluster: &Cluster, node: &Node, command: &str) -> u64 {
    let mut conn = cluster.connect(node).expect("a connection");
    let info = ask(&mut conn, &["INFO", "commandstats"]).text().expect("INFO");
    let line = info.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// The owner of a key, and its replica.
fn pair(cluster: &Cluster, key: &str) -> (Node, Node) {
    let primary = cluster.owner_of(slot_of(key.as_bytes())).expect("the owner");
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    (primary, replica)
}

#[test]
fn the_redis_crates_cluster_client() {
    let addr = common::shared().proxy.listen;
    for end in ["", "?protocol=resp3"] {
        let client = ClusterClient::new([format!("redis://{addr}/{end}")]).expect("a client");
        let mut r = client.get_connection().expect("a connection");
        for i in 0..300 {
            let _: () = r.set(format!("crate:{i}"), i).expect("SET");
        }
        for i in 0..300 {
            assert_eq!(r.get::<_, i32>(format!("crate:{i}")).expect("GET"), i);
        }
        let keys: Vec<String> = (0..300).map(|i| format!("crate:{i}")).collect();
        let values: Vec<i32> = r.mget(&keys).expect("MGET");
        assert!(values.into_iter().eq(0..300));
        let mut pipe = redis::cluster::cluster_pipe();
        for key in &keys {
            pipe.incr(key, 1).ignore();
            pipe.get(key);
        }
        let values: Vec<i32> = pipe.query(&mut r).expect("a pipeline");
        assert!(values.into_iter().eq(1..301));
        let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
        assert_eq!(script.key("crate:5").invoke::<i32>(&mut r).expect("a script"), 7);
        assert_eq!(r.del::<_, i32>(&keys).expect("DEL"), 300);
    }
    let reading = ClusterClient::builder([format!("redis://{addr}/")])
        .read_routing_strategy(RandomReplicaStrategy);
    let mut r = reading.build().expect("a client").get_connection().expect("a connection");
    let _: () = r.set("crate:reading", 1).expect("SET");
    let _: Option<i32> = r.get("crate:reading").expect("GET");
}

#[test]
fn a_cluster_of_one_node() {
    let setting = common::shared();
    let addr = setting.proxy.listen;
    let mut conn = setting.proxy.connect();
    let slots = ask(&mut conn, &["CLUSTER", "SLOTS"]);
    let [range] = slots.items().unwrap() else { panic!("{slots:?}") };
    let [from, to, node] = range.items().unwrap() else { panic!("{range:?}") };
    assert_eq!((from.int(), to.int()), (Some(0), Some(16383)));
    let node = node.items().unwrap();
    assert_eq!(node[0].text().unwrap(), addr.ip().to_string());
    assert_eq!(node[1].int(), Some(addr.port().into()));
    let id = ask(&mut conn, &["CLUSTER", "MYID"]).text().unwrap();
    assert_eq!(node[2].text().unwrap(), id);
    assert!(ask(&mut conn, &["CLUSTER", "NODES"]).text().unwrap().starts_with(&id));
    assert!(matches!(
        ask(&mut setting.proxy.connect3(), &["CLUSTER", "SHARDS"]).items().unwrap(),
        [Reply::Map(_)]
    ));
    // What is asked of the nodes.
    let slot = slot_of(b"{in a slot}").0.to_string();
    for n in 0..5 {
        assert!(ask(&mut conn, &["SET", &format!("{{in a slot}}{n}"), "v"]).is_ok());
    }
    assert_eq!(ask(&mut conn, &["CLUSTER", "COUNTKEYSINSLOT", &slot]).int(), Some(5));
    let keys = ask(&mut conn, &["CLUSTER", "GETKEYSINSLOT", &slot, "3"]);
    assert!(keys.items().unwrap().iter().all(|k| k.text().unwrap().starts_with("{in a slot}")));
    assert_eq!(keys.items().unwrap().len(), 3);
    let wrong = ask(&mut conn, &["CLUSTER", "COUNTKEYSINSLOT", "16384"]);
    assert_eq!(wrong.error(), Some("ERR Invalid slot"));
    assert!(ask(&mut conn, &["CLUSTER", "SLOTS", "x"]).error().unwrap().contains("arguments"));
    assert!(!ask(&mut conn, &["CLUSTER", "HELP"]).items().unwrap().is_empty());
    for change in [["FAILOVER", ""], ["FORGET", &id], ["ADDSLOTS", "1"], ["RESET", ""]] {
        let command: Vec<&str> =
            ["CLUSTER"].into_iter().chain(change).filter(|word| !word.is_empty()).collect();
        assert!(ask(&mut conn, &command).error().is_some(), "{command:?}");
    }
    // Clients that are not made for a cluster still see none.
    let info = ask(&mut conn, &["INFO", "cluster"]).text().unwrap();
    assert!(info.contains("cluster_enabled:0"), "{info}");
}

/// redis-cli's exit code and what it printed.
fn redis_cli(args: &[&str]) -> (bool, String) {
    let output = Command::new("redis-cli").args(args).output().expect("redis-cli");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn redis_cli_checks_a_cluster_of_one_node_where_it_is_announced() {
    for (program, mode_field) in
        [("redis-server".into(), "redis_mode"), (common::newer("valkey"), "server_mode")]
    {
        let options = ClusterOptions { replicas: 0, program, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).expect("a cluster");
        let modes = |proxy: &common::Proxy| {
            let info = ask(&mut proxy.connect(), &["INFO"]).text().expect("INFO");
            let field = |name: &str| {
                let values = info.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
                values.map(str::to_owned).collect::<Vec<_>>()
            };
            let hello = ask(&mut proxy.connect(), &["HELLO", "2"]);
            let hello: Vec<_> = hello.items().expect("HELLO").iter().map(Reply::text).collect();
            let at = hello.iter().position(|word| word.as_deref() == Some("mode"));
            let mode = hello[at.expect("a mode") + 1].clone().expect("a mode");
            (field(mode_field).concat(), field("cluster_enabled").concat(), mode)
        };
        let is = |mode: &str, enabled: &str| (mode.into(), enabled.into(), mode.into());

        let proxy = common::Proxy::start(&cluster, &[]);
        assert_eq!(modes(&proxy), is("standalone", "0"));
        let (done, text) = redis_cli(&["--cluster", "check", &proxy.listen.to_string()]);
        assert!(!done && text.contains("not configured as a cluster node"), "{text}");
        drop(proxy);

        let proxy = common::Proxy::start(&cluster, &["--set", "announce_mode=cluster"]);
        let addr = proxy.listen.to_string();
        assert_eq!(modes(&proxy), is("cluster", "1"));
        for n in 0..10 {
            assert!(ask(&mut proxy.connect(), &["SET", &format!("checked:{n}"), "v"]).is_ok());
        }
        for (command, said) in [
            (&["check", &addr][..], "[OK] All 16384 slots covered."),
            (&["check", &addr], "[OK] All nodes agree about slots configuration."),
            (&["check", &addr], "[OK] 10 keys in 1 masters."),
            (&["info", &addr], "[OK] 10 keys in 1 masters."),
            (&["fix", &addr], "[OK] All 16384 slots covered."),
            (&["call", &addr, "DBSIZE"], &format!("{addr}: 10")),
        ] {
            let (done, text) = redis_cli(&[&["--cluster"], command].concat());
            assert!(done && text.contains(said), "{command:?}: {text}");
            assert!(!text.contains("ERR") && !text.contains("WARNING"), "{command:?}: {text}");
        }
        let (host, port) = addr.split_once(':').expect("a host and a port");
        let (done, text) = redis_cli(&["-h", host, "-p", port, "-c", "GET", "checked:1"]);
        assert!(done && text == "v\n", "{text}");
        let (_, keys) = redis_cli(&["-h", host, "-p", port, "-c", "MGET", "checked:1", "other"]);
        assert_eq!(keys, "v\n\n");
    }
}

#[test]
fn the_address_announced() {
    let cluster = common::cluster();
    let socket = cluster.dir().join("s.sock");
    let listen = |proxy: &common::Proxy| proxy.listen.to_string();
    let told = |conn: &mut Conn| {
        let nodes = ask(conn, &["CLUSTER", "NODES"]).text().unwrap();
        nodes.split(' ').nth(1).unwrap().split('@').next().unwrap().to_owned()
    };
    let unix = format!("unix:{}", socket.display());
    let proxy = common::Proxy::start(&cluster, &["--set", "announce=proxy.test:7777"]);
    assert_eq!(told(&mut proxy.connect()), "proxy.test:7777");
    drop(proxy);
    let proxy = common::Proxy::start(&cluster, &[]);
    assert_eq!(told(&mut proxy.connect()), listen(&proxy));
    drop(proxy);
    let proxy = common::Proxy::start(&cluster, &["--listen", &unix]);
    assert_eq!(told(&mut Conn::unix(&socket).expect("a connection")), listen(&proxy));
}

#[test]
fn readonly_reads_from_replicas() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let (primary, replica) = pair(cluster, "k");
    let mut writer = setting.proxy.connect();
    assert!(ask(&mut writer, &["SET", "k", "v"]).is_ok());
    cluster.catch_up(&replica).expect("to catch up");
    let counts = || (calls(cluster, &primary, "get"), calls(cluster, &replica, "get"));
    for mut conn in [setting.proxy.connect(), setting.proxy.connect3()] {
        assert!(ask(&mut conn, &["READONLY"]).is_ok());
        let before = counts();
        for _ in 0..10 {
            assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
        }
        assert_eq!(counts(), (before.0, before.1 + 10));
        // What writes goes to the primary, and others' reads do.
        assert!(ask(&mut conn, &["SET", "k", "v"]).is_ok());
        assert_eq!(ask(&mut writer, &["GET", "k"]).text().unwrap(), "v");
        assert_eq!(counts(), (before.0 + 1, before.1 + 10));
        assert!(ask(&mut conn, &["READWRITE"]).is_ok());
        assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
        assert!(ask(&mut conn, &["READONLY"]).is_ok());
        ask(&mut conn, &["RESET"]);
        assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
        assert_eq!(counts(), (before.0 + 3, before.1 + 10));
        assert!(ask(&mut conn, &["ASKING"]).is_ok());
    }
    assert_eq!(setting.proxy.metric("slotway_reads_total", r#"to="replica""#), 20.0);
}

/// EXEC says that nothing has changed since WATCH: what was read in between must be as new.
#[test]
fn what_is_read_after_watch_is_the_primarys() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let (_, replica) = pair(cluster, "k");
    let mut conn = setting.proxy.connect();
    assert!(ask(&mut conn, &["SET", "k", "old"]).is_ok());
    cluster.catch_up(&replica).expect("to catch up");
    assert!(ask(&mut conn, &["READONLY"]).is_ok());
    assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "old");
    let reads = calls(cluster, &replica, "get");
    assert!(ask(&mut conn, &["WATCH", "k"]).is_ok());
    assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "old");
    assert_eq!(calls(cluster, &replica, "get"), reads);
    assert!(ask(&mut conn, &["UNWATCH"]).is_ok());
    assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "old");
    assert_eq!(calls(cluster, &replica, "get"), reads + 1);
}

#[test]
fn without_a_replica_the_primary_answers() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let (primary, replica) = pair(cluster, "k");
    let mut conn = setting.proxy.connect();
    assert!(ask(&mut conn, &["SET", "k", "v"]).is_ok());
    cluster.catch_up(&replica).expect("to catch up");
    assert!(ask(&mut conn, &["READONLY"]).is_ok());
    assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
    assert!(calls(cluster, &replica, "get") > 0);
    // Killed while reads are under way: none of them fails.
    cluster.pause(&replica).expect("a paused replica");
    for _ in 0..100 {
        conn.send(&["GET", "k"]).expect("to send");
    }
    cluster.kill(&replica).expect("a dead replica");
    for _ in 0..100 {
        assert_eq!(conn.receive().expect("a reply").text().unwrap(), "v");
    }
    let before = calls(cluster, &primary, "get");
    for _ in 0..10 {
        assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
    }
    assert!(calls(cluster, &primary, "get") > before);
    // And it is used again when it is back.
    cluster.restart(&replica).expect("a restarted replica");
    cluster.settle().expect("a settled cluster");
    common::eventually("the replica is read from", || {
        assert_eq!(ask(&mut conn, &["GET", "k"]).text().unwrap(), "v");
        calls(cluster, &replica, "get") > 0
    });
}

#[test]
fn a_replica_that_became_the_primary_and_back() {
    let setting = common::setting(&[]);
    let cluster = &setting.cluster;
    let (_, replica) = pair(cluster, "k");
    let mut writer = setting.proxy.connect();
    let mut reader = setting.proxy.connect();
    assert!(ask(&mut reader, &["READONLY"]).is_ok());
    for round in 0..3 {
        let value = round.to_string();
        assert!(ask(&mut writer, &["SET", "k", &value]).is_ok());
        // The connections that said READONLY and those that did not are never taken for another.
        assert_eq!(ask(&mut writer, &["GET", "k"]).text().unwrap(), value);
        let (_, now) = pair(cluster, "k");
        cluster.catch_up(&now).expect("to catch up");
        assert_eq!(ask(&mut reader, &["GET", "k"]).text().unwrap(), value);
        cluster.failover(if round == 0 { &replica } else { &now }).expect("a failover");
        assert_eq!(ask(&mut writer, &["GET", "k"]).text().unwrap(), value);
    }
}
