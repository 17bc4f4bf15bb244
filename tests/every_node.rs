//! Commands for every node: `OK` only when every node of the cluster has carried the command out,
//! an error that names the others where some have not.

use crate::common::errors::identified;
use crate::common::{self, Proxy, Setting};
use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};

const SPLIT: [&str; 2] = ["--set", "transactions.cross_slot=split"];

/// A young cluster calls its replicas `loading`, although their links are up, until their primaries
/// have sent them something. Here these never do.
#[test]
fn replicas_that_the_cluster_calls_loading_are_asked() {
    let conf = vec!["repl-ping-replica-period 3600".to_owned()];
    let options = ClusterOptions { replicas: 0, conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let primaries = cluster.primaries().expect("primaries");
    // All of them first: a node is added when the cluster calls all others online.
    let replicas: Vec<Node> =
        primaries.iter().map(|_| cluster.add_node(None).expect("a node")).collect();
    for (primary, replica) in primaries.iter().zip(&replicas) {
        let mut conn = cluster.connect(replica).expect("a connection");
        let reply = conn.command(&["CLUSTER", "REPLICATE", &primary.id]).expect("REPLICATE");
        assert!(reply.is_ok(), "{reply:?}");
    }
    let nodes = cluster.nodes().expect("nodes");
    let mut direct: Vec<Conn> = nodes.iter().map(|n| cluster.connect(n).expect("it")).collect();
    common::eventually("all see three replicas that are loading", || {
        direct.iter_mut().all(|conn| loading(conn) == 3)
    });
    common::eventually("the replicas' links are up", || {
        let up = |conn: &mut Conn| text(conn, &["INFO", "replication"]).contains("link_status:up");
        direct.iter_mut().filter_map(|conn| up(conn).then_some(())).count() == 3
    });

    let proxy = Proxy::start(&cluster, &SPLIT);
    let mut conn = proxy.connect();
    let mut all = |args: &[&str]| direct.iter_mut().map(|c| text(c, args)).collect::<Vec<_>>();
    let mut ok = |args: &[&str]| {
        let reply = conn.command(args).expect("a reply");
        assert!(reply.error().is_none(), "{args:?}: {reply:?}");
        reply
    };
    ok(&["CONFIG", "SET", "maxmemory-samples", "7"]);
    let set = all(&["CONFIG", "GET", "maxmemory-samples"]);
    assert!(set.iter().all(|s| s.ends_with(" 7")), "{set:?}");

    ok(&["ACL", "SETUSER", "everywhere", "on", "nopass", "+get"]);
    let users = all(&["ACL", "GETUSER", "everywhere"]);
    assert!(users.iter().all(|u| u.contains("nopass")), "{users:?}");
    ok(&["ACL", "DELUSER", "everywhere"]);
    let users = all(&["ACL", "GETUSER", "everywhere"]);
    assert!(users.iter().all(|u| !u.contains("nopass")), "{users:?}");

    all(&["SCRIPT", "LOAD", "return 1"]);
    ok(&["SCRIPT", "FLUSH"]);
    let known = all(&["SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"]);
    assert!(known.iter().all(|k| **k == *"0"), "{known:?}");

    all(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    all(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
    ok(&["PROXY", "SLOWLOG", "NODES", "RESET"]);
    let left = all(&["SLOWLOG", "LEN"]);
    assert!(left.iter().all(|l| **l == *"0"), "{left:?}");

    let mut subscriber = cluster.connect(&replicas[0]).expect("a connection");
    subscriber.command(&["SUBSCRIBE", "at-a-loading-replica"]).expect("SUBSCRIBE");
    let channels = ok(&["PUBSUB", "CHANNELS", "at-*"]).items().expect("a list").len();
    assert_eq!(channels, 1, "a subscriber at a node that is loading");

    let status = || proxy.get("/status.json").expect("the status").1;
    common::eventually("the status page calls them loading", || {
        status().matches(r#""state":"loading""#).count() == 3
    });

    ok(&["MULTI"]);
    ok(&["CONFIG", "SET", "maxmemory-samples", "9"]);
    let reply = ok(&["EXEC"]);
    assert!(!format!("{reply:?}").contains("Error"), "{reply:?}");
    let set = all(&["CONFIG", "GET", "maxmemory-samples"]);
    assert!(set.iter().all(|s| s.ends_with(" 9")), "{set:?}");

    assert!(direct.iter_mut().all(|conn| loading(conn) == 3), "they were called so all the time");
}

#[test]
fn a_replica_that_is_not_reached_is_named() {
    let Setting { proxy, cluster } = common::setting(&SPLIT);
    let nodes = cluster.nodes().expect("nodes");
    let (dead, alive): (Vec<Node>, Vec<Node>) =
        nodes.into_iter().partition(|n| n.addr == cluster.addrs()[5]);
    let dead = &dead[0];
    assert!(!dead.is_primary());
    let name = dead.addr.to_string();
    let mut conn = proxy.connect();
    assert!(conn.command(&["CONFIG", "SET", "maxmemory-samples", "6"]).expect("a reply").is_ok());
    cluster.kill(dead).expect("SIGKILL");
    // Before and after the cluster says that it has failed.
    for (round, value) in ["7", "8"].iter().enumerate() {
        if round == 1 {
            common::eventually("the cluster calls it failed", || {
                proxy.metric("slotway_replicas", "state=\"offline\"") == 1.0
            });
        }
        let reply = conn.command(&["CONFIG", "SET", "maxmemory-samples", value]).expect("a reply");
        assert_one_failed(&reply, &name);
        for node in &alive {
            let mut direct = cluster.connect(node).expect("a connection");
            let set = text(&mut direct, &["CONFIG", "GET", "maxmemory-samples"]);
            assert!(set.ends_with(value), "{} {set}", node.addr);
        }
    }
    for args in [
        &["SCRIPT", "FLUSH"][..],
        &["ACL", "SETUSER", "u", "on"],
        &["ACL", "DELUSER", "u"],
        &["CONFIG", "RESETSTAT"],
        &["LATENCY", "RESET"],
        &["ACL", "LOG", "RESET"],
        &["PROXY", "SLOWLOG", "NODES", "RESET"],
    ] {
        let reply = conn.command(args).expect("a reply");
        let error = reply.error().unwrap_or_else(|| panic!("{args:?}: {reply:?}"));
        assert!(error.contains(&name), "{args:?}: {error}");
    }
    // What only reads shows what there is.
    for args in [&["LATENCY", "LATEST"][..], &["ACL", "LOG"], &["PROXY", "SLOWLOG", "NODES", "GET"]]
    {
        let reply = conn.command(args).expect("a reply");
        assert!(reply.items().is_some(), "{args:?}: {reply:?}");
    }
    assert!(conn.command(&["MULTI"]).expect("MULTI").is_ok());
    conn.command(&["CONFIG", "SET", "maxmemory-samples", "9"]).expect("QUEUED");
    let reply = conn.command(&["EXEC"]).expect("EXEC");
    assert_one_failed(&reply.items().expect("a list")[0], &name);
    // A script could run there.
    for args in [["SCRIPT", "KILL"], ["FUNCTION", "KILL"]] {
        let reply = conn.command(&args).expect("a reply");
        let error = reply.error().expect("an error");
        assert!(error.starts_with("NOTBUSY ") && error.contains(&name), "{error}");
    }

    cluster.restart(dead).expect("it starts again");
    cluster.settle().expect("the cluster is whole");
    common::eventually("it has the setting, too", || {
        let reply = conn.command(&["CONFIG", "SET", "maxmemory-samples", "10"]).expect("a reply");
        reply.is_ok()
    });
    let mut direct = cluster.connect(dead).expect("a connection");
    let set = text(&mut direct, &["CONFIG", "GET", "maxmemory-samples"]);
    assert!(set.ends_with(" 10"), "{set}");
}

/// A node that loads its data refuses some of these commands.
#[test]
fn a_replica_that_loads_its_data_is_waited_for_or_named() {
    let conf = ["key-load-delay 20000", "loading-process-events-interval-bytes 1024"];
    let cluster = common::cluster_with(&conf);
    let proxy = Proxy::start(&cluster, &[]);
    let primaries = cluster.primaries().expect("primaries");
    let slot = slot_of(b"{t}");
    let source = cluster.owner_of(slot).expect("an owner");
    let other = primaries.iter().find(|n| n.id != source.id).expect("another");
    let replica = cluster.replicas_of(other).expect("replicas").remove(0);
    let mut conn = proxy.connect();
    let value = "v".repeat(200);
    for i in 0..200 {
        let reply = conn.command(&["SET", &format!("{{t}}{i}"), &value]).expect("SET");
        assert!(reply.is_ok(), "{reply:?}");
    }
    let mut direct = cluster.connect(&replica).expect("a connection");
    text(&mut direct, &["SCRIPT", "LOAD", "return 1"]);
    // It takes all that its new primary has: 200 keys, 20 ms each.
    let reply = direct.command(&["CLUSTER", "REPLICATE", &source.id]).expect("REPLICATE");
    assert!(reply.is_ok(), "{reply:?}");
    let exists = ["SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"];
    common::eventually("it loads", || text(&mut direct, &exists).contains("LOADING"));
    let reply = conn.command(&["SCRIPT", "FLUSH"]).expect("a reply");
    match reply.error() {
        Some(error) => assert!(error.contains(&replica.addr.to_string()), "{error}"),
        None => {
            assert!(reply.is_ok(), "{reply:?}");
            common::eventually("it answers", || !text(&mut direct, &exists).contains("LOADING"));
            assert_eq!(text(&mut direct, &exists), "0", "OK was true");
        }
    }
    common::eventually("it takes part again", || {
        conn.command(&["SCRIPT", "FLUSH"]).expect("a reply").is_ok()
    });
    assert_eq!(text(&mut direct, &exists), "0");
}

/// A script without end on a node that has been failed over: SCRIPT KILL ends it there.
#[test]
fn a_script_is_killed_on_a_node_that_was_failed_over() {
    let cluster = common::cluster_with(&["busy-reply-threshold 50"]);
    let proxy = Proxy::start(&cluster, &[]);
    let busy = cluster.owner_of(slot_of(b"k")).expect("an owner");
    let replica = cluster.replicas_of(&busy).expect("replicas").remove(0);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "k", "1"]).expect("SET").is_ok());
    cluster.catch_up(&replica).expect("the replica has it");
    let mut runner = proxy.connect();
    runner.send(&["EVAL", "while true do end", "1", "k"]).expect("to send");
    let ping = |node: &Node| {
        let mut direct = cluster.connect(node).expect("a connection");
        text(&mut direct, &["PING"])
    };
    common::eventually("the node is busy", || ping(&busy).contains("BUSY"));
    let mut direct = cluster.connect(&replica).expect("a connection");
    let reply = direct.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]).expect("a reply");
    assert!(reply.is_ok(), "{reply:?}");
    common::eventually("slotway writes to the new primary", || {
        let reply = conn.command(&["SET", "k", "2"]).expect("a reply");
        reply.is_ok() && text(&mut direct, &["GET", "k"]) == "2"
    });
    assert!(ping(&busy).contains("BUSY"), "it still runs");
    let reply = conn.command(&["SCRIPT", "KILL"]).expect("a reply");
    assert!(reply.is_ok(), "{reply:?}");
    common::eventually("the script has ended", || ping(&busy).contains("PONG"));
    runner.receive().expect("an answer");
    cluster.settle().expect("the cluster is whole");
    let reply = conn.command(&["SCRIPT", "KILL"]).expect("a reply");
    let error = reply.error().expect("an error");
    assert!(error.starts_with("NOTBUSY No scripts"), "the nodes' own words: {error}");
}

/// All six nodes but this one have carried the command out.
#[track_caller]
fn assert_one_failed(reply: &Reply, name: &str) {
    let error = identified(reply);
    assert_eq!(error.id, FailureId::PartsFailed, "{reply:?}");
    assert_eq!([error.field("failed"), error.field("parts")], [Some("1"), Some("6")], "{reply:?}");
    assert!(error.field("which").is_some_and(|which| which.contains(name)), "{reply:?}");
}

/// The reply as one line of words.
fn text(conn: &mut Conn, args: &[&str]) -> String {
    fn words(reply: &Reply) -> String {
        match (reply.text(), reply.items()) {
            (Some(text), _) => text,
            (None, Some(items)) => items.iter().map(words).collect::<Vec<_>>().join(" "),
            (None, None) => reply.int().map_or_else(String::new, |n| n.to_string()),
        }
    }
    words(&conn.command(args).expect("a reply"))
}

/// Nodes that the one at the other end of `conn` calls so.
fn loading(conn: &mut Conn) -> usize {
    fn count(reply: &Reply) -> usize {
        match reply {
            Reply::Bulk(text) => usize::from(text == b"loading"),
            other => other.items().unwrap_or_default().iter().map(count).sum(),
        }
    }
    count(&conn.command(&["CLUSTER", "SHARDS"]).expect("CLUSTER SHARDS"))
}
