//! One server behind slotway, alone, with replicas, and watched by Sentinels.

use crate::common::errors::assert_is;
use crate::common::load::while_writing;
use crate::common::session::assert_same;
use crate::common::{self, Proxy, eventually};
use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{
    Cluster, ClusterOptions, MASTER, ReplicaSet, ReplicaSetOptions, Reply, Standalone,
    StandaloneOptions,
};
use std::net::SocketAddr;

fn listed(addrs: &[SocketAddr]) -> String {
    addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

/// Slotway in front of `set`, asked by its servers or by its Sentinels.
fn in_front(set: &ReplicaSet, kind: &str, seeds: &[SocketAddr], args: &[&str]) -> Proxy {
    let kind = format!("upstream.kind={kind}");
    let mut all = vec!["--set", &*kind];
    all.extend(args);
    let mut proxy = Proxy::launch(|name, program| set.command(name, program), &listed(seeds), &all);
    proxy.until_ready();
    proxy
}

#[test]
fn all_keys_of_one_server_may_be_used_together() {
    let server = Standalone::start(StandaloneOptions::default()).unwrap();
    // Each begins with FLUSHALL: both connections lead to the same server.
    let lines = [
        "FLUSHALL | MSET a 1 b 2 c 3 | MGET a b c missing | DEL a b c | EXISTS a b",
        "FLUSHALL | MSETNX a 1 b 2 | MSETNX b 3 c 4 | GET c",
        "FLUSHALL | SET a 1 | RENAME a b | GET b | RENAMENX b c | COPY c d | GET d",
        "FLUSHALL | SADD s 1 2 3 | SADD t 2 3 4 | SINTERSTORE u s t | SCARD u | SMOVE s t 1 | SCARD t",
        "FLUSHALL | ZADD x 1 a | ZADD y 2 b | ZUNIONSTORE z 2 x y | ZRANGE z 0 -1",
        "FLUSHALL | RPUSH l 3 1 2 | MSET w_1 9 w_2 8 w_3 7 | SORT l BY w_* GET # GET w_*",
        "FLUSHALL | SORT l BY w_* STORE m | RPUSH l 2 1 | SORT l STORE m | LRANGE m 0 -1",
        "FLUSHALL | EVAL \"return redis.call('set','b',redis.call('incr','a'))\" 0 | GET b",
        "FLUSHALL | EVAL \"return {KEYS[1],KEYS[2],ARGV[1]}\" 2 a b c",
        "FLUSHALL | SET b 1 | EVAL \"return redis.call('keys','*')\" 0",
        "FLUSHALL | MULTI | SET a 1 | SET b 2 | DBSIZE | KEYS b | EXEC",
        "FLUSHALL | MULTI | SET a 1 | CONFIG SET maxmemory-samples 6 | SCRIPT FLUSH | FLUSHDB | EXEC",
        "FLUSHALL | MULTI | SET a 1 | EVAL \"return redis.call('get','a')\" 0 | MGET a b | EXEC",
        "FLUSHALL | WATCH a b | MULTI | SET a 1 | EXEC | GET a",
        "FLUSHALL | RPUSH b 1 | BLPOP a b 1 | BLMPOP 1 2 a b LEFT",
        "FLUSHALL | RPUSH a 1 | RPOPLPUSH a b | LRANGE b 0 -1 | BLMOVE b c LEFT RIGHT 1",
        "FLUSHALL | PFADD p 1 2 | PFADD q 2 3 | PFMERGE r p q | PFCOUNT p q r",
        "FLUSHALL | SETBIT a 1 1 | SETBIT b 2 1 | BITOP OR c a b | BITCOUNT c",
        "FLUSHALL | XADD s 1-1 f v | XADD t 1-1 f v | XREAD STREAMS s t 0 0",
        "FLUSHALL | GEOADD g 1 1 a | GEOSEARCHSTORE h g FROMMEMBER a BYRADIUS 1 km | ZCARD h",
        "FLUSHALL | SET a 1 | SCAN 0 | RANDOMKEY | DBSIZE | KEYS *",
        "FLUSHALL | LCS a b | SET a xy | SET b y | LCS a b",
        "FLUSHALL | SET k 0 | SELECT 1 | GET k | SET k 1 | DBSIZE | SELECT 0 | GET k",
        "FLUSHALL | SET k 0 | MOVE k 2 | DBSIZE | SELECT 2 | GET k | MOVE k 2 | MOVE k 99",
        "FLUSHALL | SET a 1 | COPY a b DB 4 | GET b | SELECT 4 | GET b | FLUSHDB | DBSIZE",
        "FLUSHALL | SET a 1 | SWAPDB 0 5 | GET a | SELECT 5 | GET a | SWAPDB 0 5 | GET a",
        "FLUSHALL | SELECT 3 | MULTI | SET a 1 | SET b 2 | DBSIZE | EXEC | SELECT 0 | DBSIZE",
        "FLUSHALL | SELECT 2 | WATCH a | MULTI | SET a 1 | EXEC | SELECT 0 | GET a",
        "FLUSHALL | SELECT 6 | RPUSH l 1 | BLPOP k l 1 | RPUSH l 2 | RPOPLPUSH l m | LRANGE m 0 -1",
        "FLUSHALL | SELECT 7 | SET a 1 | EVAL \"return redis.call('keys','*')\" 0 | SCAN 0 | KEYS *",
        "FLUSHALL | SELECT 8 | SET a 1 | RESET | GET a | SELECT 8 | GET a",
        "SELECT 15 | SELECT 16 | SELECT -1 | SELECT x | SELECT | SELECT 99999999999 | PING",
    ];
    // What a cluster needs to come near to it has no effect here.
    let near = ["transactions.cross_slot=split", "commands.cross_slot=emulate"];
    for settings in [&near[..0], &near[..]] {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> =
            ["--set", "upstream.kind=standalone"].into_iter().chain(settings).collect();
        let mut proxy = Proxy::launch(
            |name, program| server.command(name, program),
            &server.addr().to_string(),
            &args,
        );
        proxy.until_ready();
        assert_same(&server, &proxy, &lines);
    }
}

#[test]
fn the_replica_that_is_promoted_is_written_to() {
    let options = ReplicaSetOptions { replicas: 2, sentinels: 0, ..ReplicaSetOptions::default() };
    let set = ReplicaSet::start(options).unwrap();
    let addrs = set.addrs();
    // One is enough: the others are named by it.
    let proxy = in_front(&set, "standalone", &addrs[..1], &["--set", "timeouts.command=30s"]);
    eventually("all three are known", || proxy.log().contains("nodes=3"));
    let mut other = proxy.connect();
    assert!(other.command(&["SELECT", "3"]).unwrap().is_ok());
    let seen = while_writing(proxy.listen, |load| {
        load.phase(1);
        set.promote(addrs[1]).unwrap();
        load.more(200);
        set.kill(addrs[1]).unwrap();
        // Nobody does it by himself.
        set.promote(addrs[2]).unwrap();
        load.more(200);
    });
    seen.assert_only_unknown_outcomes();
    // Whoever had selected a database is in it still.
    assert!(other.command(&["SET", "third", "3"]).unwrap().is_ok());
    let info = other.command(&["CLIENT", "INFO"]).unwrap().text().unwrap();
    assert!(info.contains(" db=3 "), "{info}");
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "last", "1"]).unwrap().is_ok());
    let mut there = set.connect(addrs[2]).unwrap();
    assert_eq!(there.command(&["GET", "last"]).unwrap(), Reply::Bulk(b"1".to_vec()));
    assert_eq!(there.command(&["GET", "third"]).unwrap(), Reply::Nil);
    assert!(there.command(&["SELECT", "3"]).unwrap().is_ok());
    assert_eq!(there.command(&["GET", "third"]).unwrap(), Reply::Bulk(b"3".to_vec()));
}

#[test]
fn databases_are_limited_as_users_are() {
    let server = Standalone::start(StandaloneOptions::default()).unwrap();
    let mut proxy = Proxy::launch(
        |name, program| server.command(name, program),
        &server.addr().to_string(),
        &["--set", "upstream.kind=standalone", "--set", "limits.users=2", "--workers", "1"],
    );
    proxy.until_ready();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    assert!(clients[0].command(&["SELECT", "1"]).unwrap().is_ok());
    assert!(clients[1].command(&["SELECT", "2"]).unwrap().is_ok());
    assert_is(&clients[2].command(&["SELECT", "3"]).unwrap(), FailureId::TooManyUsers);
    // One that is in use costs nothing more, and one that is left makes room.
    assert!(clients[2].command(&["SELECT", "2"]).unwrap().is_ok());
    assert!(clients[0].command(&["SELECT", "0"]).unwrap().is_ok());
    assert!(clients[2].command(&["SELECT", "3"]).unwrap().is_ok());
    assert!(clients[2].command(&["SET", "key", "value"]).unwrap().is_ok());
}

#[test]
fn users_of_the_server_are_in_database_0() {
    let server = Standalone::start(StandaloneOptions::default()).unwrap();
    let mut own = server.connect().unwrap();
    let rule = ["ACL", "SETUSER", "theirs", "on", ">secret", "~*", "+@all"];
    assert!(own.command(&rule).unwrap().is_ok());
    let mut proxy = Proxy::launch(
        |name, program| server.command(name, program),
        &server.addr().to_string(),
        &[
            "--set",
            "upstream.kind=standalone",
            "--set",
            "auth=passthrough",
            "--set",
            "users=ours on >secret ~* &* +@all",
        ],
    );
    proxy.until_ready();
    let mut conn = proxy.connect();
    assert!(conn.command(&["AUTH", "theirs", "secret"]).unwrap().is_ok());
    assert_is(&conn.command(&["SELECT", "1"]).unwrap(), FailureId::DatabaseOfUser);
    assert!(conn.command(&["SET", "key", "zero"]).unwrap().is_ok());
    // One of slotway's own users, and back: never in another database than is thought.
    assert!(conn.command(&["AUTH", "ours", "secret"]).unwrap().is_ok());
    assert!(conn.command(&["SELECT", "1"]).unwrap().is_ok());
    assert_is(&conn.command(&["AUTH", "theirs", "secret"]).unwrap(), FailureId::DatabaseOfUser);
    assert_eq!(conn.command(&["GET", "key"]).unwrap(), Reply::Nil);
    assert!(conn.command(&["SELECT", "0"]).unwrap().is_ok());
    assert!(conn.command(&["AUTH", "theirs", "secret"]).unwrap().is_ok());
    assert_eq!(conn.command(&["GET", "key"]).unwrap(), Reply::Bulk(b"zero".to_vec()));
}

#[test]
fn reads_go_to_the_replicas_of_one_server() {
    let options = ReplicaSetOptions { sentinels: 0, ..ReplicaSetOptions::default() };
    let set = ReplicaSet::start(options).unwrap();
    let proxy = in_front(&set, "standalone", &set.addrs(), &["--set", "read_from=prefer_replica"]);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "key", "value"]).unwrap().is_ok());
    eventually("a replica answers", || {
        let reply = conn.command(&["GET", "key"]).unwrap();
        assert!(matches!(reply, Reply::Bulk(_) | Reply::Nil), "{reply:?}");
        proxy.metric("slotway_reads_total", "to=\"replica\"") > 0.0
    });
}

#[test]
fn a_primary_that_is_no_seed_is_known_when_it_comes_back() {
    let options = ReplicaSetOptions { sentinels: 0, ..ReplicaSetOptions::default() };
    let set = ReplicaSet::start(options).unwrap();
    let addrs = set.addrs();
    let args = ["--set", "timeouts.command=1s"];
    let proxy = in_front(&set, "standalone", &addrs[1..2], &args);
    set.kill(addrs[0]).unwrap();
    eventually("it is known to be lost", || {
        proxy.get("/readyz").is_some_and(|(_, body)| body.contains("0-16383"))
    });
    let looks = || proxy.metric("slotway_topology_refreshes_total", "result=\"ok\"");
    let before = looks();
    eventually("several looks at those that are left", || looks() >= before + 5.0);
    set.restart(addrs[0]).unwrap();
    let mut conn = proxy.connect();
    eventually("writes", || conn.command(&["SET", "key", "value"]).unwrap().is_ok());
}

#[test]
fn nothing_is_written_to_a_server_that_a_replica_of_ours_is_made_to_follow() {
    let options = ReplicaSetOptions { replicas: 1, sentinels: 0, ..ReplicaSetOptions::default() };
    let (set, foreign) = (
        ReplicaSet::start(options).unwrap(),
        Standalone::start(StandaloneOptions::default()).unwrap(),
    );
    let addrs = set.addrs();
    let args = ["--set", "timeouts.command=1s"];
    // The primary is named by its replica, and by nothing else.
    let proxy = in_front(&set, "standalone", &addrs[1..], &args);
    let (ip, port) = (foreign.addr().ip().to_string(), foreign.addr().port().to_string());
    let mut replica = set.connect(addrs[1]).unwrap();
    assert!(replica.command(&["REPLICAOF", &ip, &port]).unwrap().is_ok());
    eventually("it follows", || {
        let info = replica.command(&["INFO", "replication"]).unwrap().text().unwrap();
        info.contains("master_link_status:up")
    });
    set.kill(addrs[0]).unwrap();
    let mut conn = proxy.connect();
    // Long enough for several looks at the servers.
    for _ in 0..3 {
        let reply = conn.command(&["SET", "key", "value"]).unwrap();
        assert!(reply.error().is_some(), "{reply:?}");
    }
    assert_eq!(foreign.connect().unwrap().command(&["DBSIZE"]).unwrap(), Reply::Int(0));
    // The primary is back: so is everything.
    set.restart(addrs[0]).unwrap();
    eventually("writes", || conn.command(&["SET", "key", "value"]).unwrap().is_ok());
}

#[test]
fn subscribers_of_one_server_hear_what_is_published() {
    let options = ReplicaSetOptions { sentinels: 0, ..ReplicaSetOptions::default() };
    let set = ReplicaSet::start(options).unwrap();
    let proxy = in_front(&set, "standalone", &set.addrs(), &[]);
    let mut publisher = proxy.connect();
    for (subscribe, publish) in [("SUBSCRIBE", "PUBLISH"), ("SSUBSCRIBE", "SPUBLISH")] {
        let mut subscriber = proxy.connect();
        subscriber.command(&[subscribe, "channel"]).unwrap();
        assert_eq!(publisher.command(&[publish, "channel", "a"]).unwrap(), Reply::Int(1));
        let message = subscriber.receive().unwrap();
        let last = message.items().and_then(<[Reply]>::last).and_then(Reply::text);
        assert_eq!(last.as_deref(), Some("a"), "{message:?}");
    }
    let mut listener = proxy.connect();
    assert!(
        publisher.command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]).unwrap().is_ok()
    );
    listener.command(&["PSUBSCRIBE", "__keyspace@2__:*"]).unwrap();
    assert!(publisher.command(&["SELECT", "2"]).unwrap().is_ok());
    assert!(publisher.command(&["SET", "key", "value"]).unwrap().is_ok());
    let message = listener.receive().unwrap();
    let channel = message.items().and_then(|items| items.get(2)).and_then(Reply::text);
    assert_eq!(channel.as_deref(), Some("__keyspace@2__:key"), "{message:?}");
}

#[test]
fn a_failover_by_sentinels_is_a_wait() {
    let set = ReplicaSet::start(ReplicaSetOptions::default()).unwrap();
    let sentinels = set.sentinel_addrs();
    let args = ["--set", "timeouts.command=30s"];
    let proxy = in_front(&set, "sentinel", &sentinels, &args);
    let first = set.primary().unwrap();
    let seen = while_writing(proxy.listen, |load| {
        load.phase(1);
        set.kill(first).unwrap();
        set.settle(first, 1).unwrap();
        load.more(200);
        // It comes back, without its data, and is made a replica.
        set.restart(first).unwrap();
        let second = set.primary();
        eventually("it follows", || set.primary() == second && set.settle(first, 2).is_ok());
        load.more(200);
    });
    seen.assert_only_unknown_outcomes();
    // One that is asked for: nothing is lost, so nothing is unknown but what was under way.
    let second = set.primary().unwrap();
    let seen = while_writing(proxy.listen, |load| {
        load.phase(1);
        let mut sentinel = slotway::sandbox::Conn::tcp(sentinels[0]).unwrap();
        eventually("a failover begins", || {
            sentinel.command(&["SENTINEL", "FAILOVER", MASTER]).unwrap().is_ok()
        });
        set.settle(second, 1).unwrap();
        load.more(200);
    });
    seen.assert_only_unknown_outcomes();
}

#[test]
fn what_sentinels_say_is_heard() {
    let set = ReplicaSet::start(ReplicaSetOptions::default()).unwrap();
    // Without being told, slotway would look once an hour.
    let args = ["--set", "topology.refresh=1h"];
    let proxy = in_front(&set, "sentinel", &set.sentinel_addrs(), &args);
    let replica = set.addrs().into_iter().find(|addr| Some(*addr) != set.primary()).unwrap();
    set.kill(replica).unwrap();
    // No client's connection leads there.
    eventually("the replica is known to be down", || {
        let log = proxy.log();
        log.lines().any(|line| line.contains("topology:") && line.contains(&replica.to_string()))
    });
}

#[test]
fn one_sentinel_of_three_is_enough_and_their_passwords_are_their_own() {
    let set = ReplicaSet::start(ReplicaSetOptions {
        password: Some("server's".into()),
        sentinel_password: Some("theirs".into()),
        ..ReplicaSetOptions::default()
    })
    .unwrap();
    let sentinels = set.sentinel_addrs();
    set.kill(sentinels[0]).unwrap();
    set.pause(sentinels[1]).unwrap();
    let passwords = [
        "--set",
        "upstream.password=server's",
        "--set",
        "upstream.sentinel_password=theirs",
        "--set",
        "protected_mode=false",
    ];
    let proxy = in_front(&set, "sentinel", &sentinels, &passwords);
    assert!(proxy.connect().command(&["SET", "a", "1"]).unwrap().is_ok());
    set.resume(sentinels[1]).unwrap();
}

#[test]
fn a_cluster_of_valkey_9_has_databases() {
    let cluster = Cluster::start(ClusterOptions {
        program: common::newer("valkey"),
        conf: vec!["cluster-databases 16".into()],
        ..ClusterOptions::default()
    })
    .unwrap();
    let proxy = Proxy::start(&cluster, &[]);
    let mut conn = proxy.connect();
    let mut ask = |line: &str| conn.command(&line.split(' ').collect::<Vec<_>>()).unwrap();
    // Keys of all three shards.
    for key in ["a", "b", "c", "d", "e"] {
        assert!(ask(&format!("SET {key} zero")).is_ok());
    }
    assert!(ask("SELECT 1").is_ok());
    assert_eq!(ask("DBSIZE"), Reply::Int(0));
    assert_eq!(ask("MSET a 1 b 1 c 1"), Reply::Simple("OK".into()));
    assert_eq!(ask("DBSIZE"), Reply::Int(3));
    assert_eq!(ask("GET d"), Reply::Nil);
    assert!(ask("SELECT 0").is_ok());
    assert_eq!(ask("MOVE d 1"), Reply::Int(1));
    assert_eq!(ask("DBSIZE"), Reply::Int(4));
    assert_eq!(ask("MGET a d").items().map(<[Reply]>::len), Some(2));
    assert!(ask("SELECT 16").error().is_some());
    // A node that fails over keeps its clients in their database.
    let owner = cluster.owner_of(slot_of(b"a")).unwrap();
    assert!(ask("SELECT 1").is_ok());
    cluster.failover(&cluster.replicas_of(&owner).unwrap()[0]).unwrap();
    assert_eq!(ask("GET a"), Reply::Bulk(b"1".to_vec()));
    assert_eq!(ask("GET d"), Reply::Bulk(b"zero".to_vec()));
    assert_eq!(ask("DBSIZE"), Reply::Int(4));
}

#[test]
fn the_sentinels_password_is_read_again_when_its_file_changes() {
    let set = ReplicaSet::start(ReplicaSetOptions {
        replicas: 0,
        sentinels: 1,
        sentinel_password: Some("theirs".into()),
        ..ReplicaSetOptions::default()
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "another").unwrap();
    let setting = format!("upstream.sentinel_password_file={}", file.display());
    let args = ["--set", "upstream.kind=sentinel", "--set", &setting];
    let seeds = listed(&set.sentinel_addrs());
    let mut proxy = Proxy::launch(|name, program| set.command(name, program), &seeds, &args);
    says_why(&proxy, &["upstream.sentinel_password"]);
    std::fs::write(&file, "theirs").unwrap();
    proxy.until_ready();
    assert!(proxy.connect().command(&["SET", "a", "1"]).unwrap().is_ok());
}

/// What `/readyz` says while slotway cannot start, until it has all of `words`.
fn says_why(proxy: &Proxy, words: &[&str]) {
    let mut last = String::new();
    eventually(&format!("the reason with {words:?}"), || {
        last = proxy.get("/readyz").map(|(_, body)| body).unwrap_or_default() + &proxy.log();
        words.iter().all(|word| last.contains(word))
    });
}

#[test]
fn what_the_seeds_are_not_is_said() {
    let set =
        ReplicaSet::start(ReplicaSetOptions { replicas: 0, sentinels: 1, ..Default::default() })
            .unwrap();
    let (servers, sentinels) = (set.addrs(), set.sentinel_addrs());
    let launch = |seeds: &[SocketAddr], kind: &str, more: &[&str]| {
        let kind = format!("upstream.kind={kind}");
        let mut args = vec!["--set", &*kind];
        args.extend(more);
        Proxy::launch(|name, program| set.command(name, program), &listed(seeds), &args)
    };
    let unknown = launch(&sentinels, "sentinel", &["--set", "upstream.master=other"]);
    says_why(&unknown, &["no server of the name", "other", "upstream.master"]);
    says_why(&launch(&servers, "sentinel", &[]), &["no Sentinel", "upstream.kind"]);
    says_why(&launch(&sentinels, "standalone", &[]), &["Sentinel", "upstream.kind"]);
    says_why(&launch(&servers, "cluster", &[]), &["upstream.kind", "standalone"]);
    says_why(&launch(&sentinels, "cluster", &[]), &["upstream.kind", "sentinel"]);
}
