//! Reading from replicas by configuration: `read_from`, its limits, and what a client can say
//! against it.
//!
//! One cluster of three shards with two replicas each; every test has a slotway of its own, and
//! reads with a command of its own, so that the nodes' counters tell its reads from the others'.
//! What breaks something breaks the second or the third shard.

use crate::common::{self, Proxy, eventually};
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The shared cluster. It ends with the process, by the sandbox's watchdog.
fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        // Otherwise one shard's failover would stop all the reads of the cluster.
        let conf = ["cluster-require-full-coverage no", "cluster-allow-reads-when-down yes"];
        let conf = conf.map(String::from).to_vec();
        let options = ClusterOptions { replicas: 6, conf, ..ClusterOptions::default() };
        Cluster::start(options).expect("a cluster")
    })
}

/// Tests that break something do it one after the other: they count what is broken.
fn breaking() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A primary with its replicas, and keys of its slots.
struct Shard {
    primary: Node,
    replicas: Vec<Node>,
    keys: Vec<String>,
}

impl Shard {
    /// The shard that owns slot `slot`, and keys that begin with `name`.
    fn of(slot: u16, name: &str) -> Shard {
        let owner = || cluster().owner_of(slotway::cluster::Slot(slot)).expect("the owner");
        eventually("the shard has two replicas", || {
            cluster().replicas_of(&owner()).is_ok_and(|replicas| replicas.len() == 2)
        });
        let primary = owner();
        let replicas = cluster().replicas_of(&primary).expect("replicas");
        let owns = |key: &String| {
            let slot = slot_of(key.as_bytes()).0;
            primary.slots.iter().any(|range| range.contains(&slot))
        };
        let keys = (0..).map(|i| format!("{name}:{i}")).filter(owns).take(60).collect();
        Shard { primary, replicas, keys }
    }

    fn nodes(&self) -> [&Node; 3] {
        [&self.primary, &self.replicas[0], &self.replicas[1]]
    }

    /// How often each node, the primary first, has executed `command`.
    fn calls(&self, command: &str) -> [u64; 3] {
        self.nodes().map(|node| calls(node, command))
    }

    /// Writes all keys; returns when the replicas have them.
    fn write(&self, proxy: &Proxy) {
        let mut conn = proxy.connect();
        for key in &self.keys {
            assert!(ask(&mut conn, &["SET", key, "value"]).is_ok());
        }
        for replica in &self.replicas {
            cluster().catch_up(replica).expect("to catch up");
        }
    }

    /// Reads all keys once; what the command answers with `value` in it is `wanted`.
    #[track_caller]
    fn read(&self, conn: &mut Conn, command: &str, wanted: &Reply) {
        for key in &self.keys {
            assert_eq!(ask(conn, &[command, key]), *wanted, "{command} {key}");
        }
    }

    /// How many of the reads of `reading` each node has answered.
    fn shares(&self, command: &str, reading: impl FnOnce()) -> [u64; 3] {
        let before = self.calls(command);
        reading();
        let after = self.calls(command);
        [0, 1, 2].map(|i| after[i] - before[i])
    }
}

fn ask(conn: &mut Conn, args: &[&str]) -> Reply {
    conn.command(args).expect("a reply")
}

fn calls(node: &Node, command: &str) -> u64 {
    let mut conn = cluster().connect(node).expect("a connection");
    let info = ask(&mut conn, &["INFO", "commandstats"]).text().expect("INFO");
    let line = info.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

fn proxy(args: &[&str]) -> Proxy {
    let mut all = vec!["--workers", "1"];
    for arg in args {
        all.extend(["--set", arg]);
    }
    Proxy::start(cluster(), &all)
}

fn text(value: &str) -> Reply {
    Reply::Bulk(value.as_bytes().to_vec())
}

/// The slots of the three shards.
const CALM: u16 = 0;
const LAGGING: u16 = 8000;
const FAILING: u16 = 16000;

/// What a read that may go elsewhere is counted as.
fn counted(proxy: &Proxy, to: &str) -> f64 {
    proxy.metric("slotway_reads_total", &format!("to=\"{to}\""))
}

/// Replicas in this state, as slotway sees them.
fn replicas(proxy: &Proxy, state: &str) -> f64 {
    proxy.metric("slotway_replicas", &format!("state=\"{state}\""))
}

/// Nothing is wrong with those that are there.
fn all_fit(proxy: &Proxy) -> bool {
    let unfit = ["unreachable", "link_down", "syncing", "silent", "behind"];
    unfit.into_iter().all(|unfit| replicas(proxy, unfit) == 0.0)
}

#[test]
fn primary_is_the_default_and_readonly_asks_for_replicas() {
    let shard = Shard::of(CALM, "default");
    let proxy = proxy(&[]);
    shard.write(&proxy);
    let mut conn = proxy.connect();
    let shares = shard.shares("get", || shard.read(&mut conn, "GET", &text("value")));
    assert_eq!(shares, [60, 0, 0]);
    assert!(ask(&mut conn, &["READONLY"]).is_ok());
    let shares = shard.shares("get", || shard.read(&mut conn, "GET", &text("value")));
    assert!(shares[0] == 0 && shares[1] > 5 && shares[2] > 5, "{shares:?}");
    assert_eq!(counted(&proxy, "replica"), 60.0);
}

#[test]
fn prefer_replica_and_what_a_connection_says_against_it() {
    let shard = Shard::of(CALM, "prefer");
    let proxy = proxy(&["read_from=prefer_replica"]);
    shard.write(&proxy);
    let five = Reply::Int(5);
    for mut conn in [proxy.connect(), proxy.connect3()] {
        let read = |conn: &mut Conn| shard.shares("strlen", || shard.read(conn, "STRLEN", &five));
        let first = read(&mut conn);
        assert!(first[0] == 0 && first[1] > 5 && first[2] > 5, "{first:?}");
        // The same node each time: what it has shown of a slot it does not take back.
        assert_eq!(read(&mut conn), first);
        assert!(ask(&mut conn, &["READWRITE"]).is_ok());
        assert_eq!(read(&mut conn), [60, 0, 0]);
        assert!(ask(&mut conn, &["READONLY"]).is_ok());
        assert_eq!(read(&mut conn), first);
        assert!(ask(&mut conn, &["READWRITE"]).is_ok());
        let protocol = ask(&mut conn, &["RESET"]);
        assert_eq!(protocol, Reply::Simple("RESET".into()));
        assert_eq!(read(&mut conn)[0], 0);
    }
    // Transactions, scripts, several slots and what is watched are the primaries'.
    let mut conn = proxy.connect();
    let key = shard.keys[0].as_str();
    let count = counted(&proxy, "replica");
    let shares = shard.shares("strlen", || {
        let commands = [vec!["MULTI"], vec!["STRLEN", key], vec!["EXEC"]];
        let replies = conn.pipeline(&commands).expect("replies");
        assert_eq!(replies[2], Reply::Array(vec![Reply::Int(5)]));
        let script = "return redis.call('STRLEN', KEYS[1])";
        assert_eq!(ask(&mut conn, &["EVAL_RO", script, "1", key]), Reply::Int(5));
        assert!(ask(&mut conn, &["WATCH", key]).is_ok());
        assert_eq!(ask(&mut conn, &["STRLEN", key]), Reply::Int(5));
        assert!(ask(&mut conn, &["UNWATCH"]).is_ok());
        let values = ask(&mut conn, &["MGET", key, &shard.keys[1]]);
        assert_eq!(values, Reply::Array(vec![text("value"), text("value")]));
    });
    assert_eq!(shares, [3, 0, 0]);
    assert_eq!(counted(&proxy, "replica"), count);
    // A large write passes as it does without read_from.
    let large = "x".repeat(1 << 20);
    assert!(ask(&mut conn, &["SET", key, &large]).is_ok());
}

/// The next call with a cursor may come on any connection of a pool, and only the node that gave the
/// cursor understands it.
#[test]
fn cursors_within_a_key_are_the_primarys() {
    let shard = Shard::of(CALM, "cursor");
    for from in ["prefer_replica", "any"] {
        let proxy = proxy(&[&format!("read_from={from}")]);
        let mut pool: Vec<Conn> = (0..30).map(|_| proxy.connect()).collect();
        let kinds = [("HSCAN", "HSET", 0), ("SSCAN", "SADD", 1), ("ZSCAN", "ZADD", 2)];
        for (scan, add, kind) in kinds {
            let key = shard.keys[kind].as_str();
            ask(&mut pool[0], &["DEL", key]);
            for i in 0..600 {
                let member = format!("member-{i}");
                let args: &[&str] = match add {
                    "SADD" => &[add, key, &member],
                    "HSET" => &[add, key, &member, "1"],
                    _ => &[add, key, "1", &member],
                };
                assert_eq!(ask(&mut pool[0], args), Reply::Int(1));
            }
            for replica in &shard.replicas {
                cluster().catch_up(replica).expect("to catch up");
            }
            let (mut found, mut cursor) = (std::collections::BTreeSet::new(), "0".to_owned());
            let shares = shard.shares(&scan.to_lowercase(), || {
                for call in 0.. {
                    let conn = &mut pool[call % 30];
                    let reply = ask(conn, &[scan, key, &cursor, "COUNT", "10"]);
                    let [next, elements] = reply.items().expect("a reply") else { panic!() };
                    let elements = elements.items().expect("elements").iter();
                    let texts = elements.filter_map(Reply::text);
                    found.extend(texts.filter(|text| text.starts_with("member-")));
                    cursor = next.text().expect("a cursor");
                    if cursor == "0" {
                        break;
                    }
                }
            });
            assert_eq!(found.len(), 600, "{scan} with {from}");
            assert_eq!([shares[1], shares[2]], [0, 0], "{scan} with {from}");
        }
    }
}

#[test]
fn any_reads_from_all_nodes_alike() {
    let shard = Shard::of(CALM, "any");
    let proxy = proxy(&["read_from=any"]);
    shard.write(&proxy);
    let mut conns: Vec<Conn> = (0..10).map(|_| proxy.connect()).collect();
    let shares = shard.shares("getrange", || {
        for conn in &mut conns {
            for key in &shard.keys {
                assert_eq!(ask(conn, &["GETRANGE", key, "0", "1"]), text("va"));
            }
        }
    });
    assert_eq!(shares.iter().sum::<u64>(), 600);
    assert!(shares.iter().all(|n| (120..280).contains(n)), "{shares:?}");
    assert_eq!(counted(&proxy, "replica") + counted(&proxy, "primary"), 600.0);
}

/// Zones by the configuration, as Redis 7.0 tells none.
#[test]
fn zone_reads_from_its_own_zone() {
    let shard = Shard::of(CALM, "zone");
    let [primary, first, second] = shard.nodes().map(|node| node.addr);
    let started = |zones: &str, to: &str| {
        let zones = format!("replicas.zones={zones}");
        let proxy = proxy(&["read_from=zone", "zone=here", &zones]);
        shard.write(&proxy);
        // Until the nodes' zones are known any replica will do.
        let mut conn = proxy.connect();
        eventually("the zones are known", || {
            shard.read(&mut conn, "TYPE", &Reply::Simple("string".into()));
            counted(&proxy, to) > 0.0
        });
        (proxy, conn)
    };
    let (here, mut conn) = started(&format!("{first}=here,{second}=there"), "zone_replica");
    let string = Reply::Simple("string".into());
    assert_eq!(shard.shares("type", || shard.read(&mut conn, "TYPE", &string)), [0, 60, 0]);
    assert!(counted(&here, "zone_replica") >= 60.0);
    // No replica there, but the primary.
    let (_here, mut conn) = started(&format!("{primary}=here,{second}=there"), "primary");
    assert_eq!(shard.shares("type", || shard.read(&mut conn, "TYPE", &string)), [60, 0, 0]);
}

#[test]
fn a_zone_that_nobody_is_in() {
    let shard = Shard::of(CALM, "nozone");
    // The host alone stands for all its nodes; the one with a port is more specific.
    let primary = shard.primary.addr;
    let zones = format!("replicas.zones=127.0.0.1=there,{primary}=elsewhere");
    let proxy = proxy(&["read_from=zone", "zone=here", &zones]);
    shard.write(&proxy);
    let mut conn = proxy.connect();
    let shares = shard.shares("ttl", || shard.read(&mut conn, "TTL", &Reply::Int(-1)));
    assert!(shares[0] == 0 && shares[1] > 5 && shares[2] > 5, "{shares:?}");
    eventually("the log says so", || proxy.log().contains("no node is known to be in"));
}

#[test]
fn lowest_latency_leaves_a_slow_node_and_comes_back() {
    let shard = Shard::of(CALM, "latency");
    let proxy = proxy(&["read_from=lowest_latency"]);
    shard.write(&proxy);
    let slow = &shard.replicas[0];
    let busy = AtomicBool::new(true);
    let mut conn = proxy.connect();
    std::thread::scope(|scope| {
        // A replica that is busy nearly all the time, 30 ms in one piece.
        scope.spawn(|| {
            let mut conn = cluster().connect(slow).expect("a connection");
            assert!(ask(&mut conn, &["READONLY"]).is_ok());
            let script = "local t = redis.call('TIME') \
                          local till = t[1] * 1000000 + t[2] + 30000 \
                          repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > till";
            while busy.load(Ordering::Relaxed) {
                assert!(ask(&mut conn, &["EVAL_RO", script, "0"]).error().is_none());
            }
        });
        let mut shares = [0; 3];
        let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the slow replica is hardly read from", || {
                shares = shard.shares("pttl", || {
                    shard.read(&mut conn, "PTTL", &Reply::Int(-1));
                    shard.read(&mut conn, "PTTL", &Reply::Int(-1));
                });
                shares[1] <= 3
            });
        }));
        busy.store(false, Ordering::Relaxed);
        assert!(left.is_ok(), "{shares:?}");
    });
    eventually("it is read from again", || {
        let shares = shard.shares("pttl", || shard.read(&mut conn, "PTTL", &Reply::Int(-1)));
        shares[1] > 3
    });
}

/// All that is wrong with one replica after the other: frozen, cut off from its primary, behind.
#[test]
fn replicas_that_lag_are_not_read_from() {
    let _alone = breaking();
    let shard = Shard::of(LAGGING, "lag");
    let proxy = proxy(&[
        "read_from=prefer_replica",
        "replicas.check=100ms",
        "replicas.max_lag=3s",
        "replicas.max_lag_bytes=256KiB",
        "timeouts.connect=500ms",
    ]);
    shard.write(&proxy);
    let mut conn = proxy.connect();
    let one = Reply::Int(1);
    let state = |state: &str| replicas(&proxy, state);
    let all_fit = || all_fit(&proxy);

    // Frozen in the middle of reads: they are answered by others, within the second that it takes
    // to find it out, and not with the deadline's error after five.
    let frozen = &shard.replicas[0];
    cluster().pause(frozen).expect("a frozen replica");
    shard.read(&mut conn, "EXISTS", &one);
    eventually("it is unreachable", || state("unreachable") == 1.0);
    let mut conns: Vec<Conn> = (0..5).map(|_| proxy.connect()).collect();
    conns.iter_mut().for_each(|conn| shard.read(conn, "EXISTS", &one));
    cluster().resume(frozen).expect("it goes on");
    eventually("it is fit again", all_fit);
    eventually("it is read from again", || {
        shard.shares("exists", || shard.read(&mut conn, "EXISTS", &one))[1] > 5
    });

    // It follows a primary that does not let it in: the link is down, what it has grows old.
    let cut = &shard.replicas[1];
    let mut on_cut = cluster().connect(cut).expect("a connection");
    let set = |conn: &mut Conn, key: &str, value: &str| {
        assert!(ask(conn, &["CONFIG", "SET", key, value]).is_ok());
    };
    let kill = |what: &str| {
        let mut on_primary = cluster().connect(&shard.primary).expect("a connection");
        ask(&mut on_primary, &["CLIENT", "KILL", "TYPE", what]);
    };
    set(&mut on_cut, "masterauth", "wrong");
    set(&mut on_cut, "masteruser", "nobody");
    // Its own end of the link is what closes it; the primary's would close the other replica's.
    ask(&mut on_cut, &["CLIENT", "KILL", "TYPE", "master"]);
    eventually("its link is down", || state("link_down") == 1.0);
    let shares = shard.shares("exists", || shard.read(&mut conn, "EXISTS", &one));
    assert_eq!((shares[0], shares[1], shares[2]), (0, 60, 0));

    // The other one, too: the primary answers.
    let other = &shard.replicas[0];
    let mut on_other = cluster().connect(other).expect("a connection");
    set(&mut on_other, "masterauth", "wrong");
    set(&mut on_other, "masteruser", "nobody");
    kill("replica");
    eventually("both links are down", || state("link_down") == 2.0);
    let before = counted(&proxy, "primary_fallback");
    let shares = shard.shares("exists", || shard.read(&mut conn, "EXISTS", &one));
    assert_eq!(shares, [60, 0, 0]);
    assert_eq!(counted(&proxy, "primary_fallback"), before + 60.0);

    // What is written meanwhile makes them too far behind.
    let big = "x".repeat(300 << 10);
    assert!(ask(&mut conn, &["SET", &shard.keys[0], &big]).is_ok());
    eventually("both are behind", || state("behind") == 2.0);
    for conn in [&mut on_cut, &mut on_other] {
        set(conn, "masteruser", "");
        set(conn, "masterauth", "");
    }
    eventually("they have caught up", all_fit);
    let shares = shard.shares("exists", || shard.read(&mut conn, "EXISTS", &one));
    assert!(shares[0] == 0 && shares[1] > 5 && shares[2] > 5, "{shares:?}");
}

/// The third shard's primary is killed: three kinds of slotway before it, at the same time.
#[test]
fn in_a_failover_replicas_answer_where_stale_reads_are_allowed() {
    let _alone = breaking();
    let shard = Shard::of(FAILING, "failover");
    // The failover begins when enough was read, which may take longer than a command usually has.
    const TIME: &str = "timeouts.command=30s";
    let patient = proxy(&[TIME]);
    let reading = proxy(&[TIME, "replicas.in_failover=read", "replicas.check=100ms"]);
    let preferring = proxy(&[TIME, "read_from=any", "replicas.check=100ms"]);
    shard.write(&patient);
    let one = Reply::Int(1);
    let mut reader = reading.connect();
    let shares = shard.shares("object|encoding", || {
        for key in &shard.keys {
            assert!(ask(&mut reader, &["OBJECT", "ENCODING", key]).error().is_none());
        }
    });
    assert_eq!(shares, [60, 0, 0], "the primary, while there is one");
    let mut strict = reading.connect();
    assert!(ask(&mut strict, &["READWRITE"]).is_ok());
    let mut any = preferring.connect();
    shard.read(&mut any, "EXISTS", &one);

    // There is no failover before enough was read.
    let node_timeout = |millis: &str| {
        for node in cluster().nodes().expect("nodes") {
            // Not the dead one.
            let Ok(mut conn) = cluster().connect(&node) else { continue };
            assert!(ask(&mut conn, &["CONFIG", "SET", "cluster-node-timeout", millis]).is_ok());
        }
    };
    let usual = {
        let mut conn = cluster().connect(&shard.primary).expect("a connection");
        match ask(&mut conn, &["CONFIG", "GET", "cluster-node-timeout"]) {
            Reply::Array(pair) => pair[1].text().expect("a number"),
            other => panic!("{other:?}"),
        }
    };
    node_timeout("60000");
    // What is on its way to the primary when it dies is not left waiting either.
    let mut stuck = reading.connect();
    stuck.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    cluster().pause(&shard.primary).expect("a frozen primary");
    stuck.send(&["EXISTS", &shard.keys[0]]).expect("to send");
    eventually("it was sent", || {
        let of_it = format!("node=\"{}\"", shard.primary.addr);
        reading.metric("slotway_upstream_in_flight", &of_it) >= 1.0
    });
    assert_eq!(counted(&reading, "failover_replica"), 0.0);
    cluster().kill(&shard.primary).expect("a dead primary");
    assert_eq!(stuck.receive().expect("a reply"), one);
    assert_eq!(counted(&reading, "failover_replica"), 1.0);
    // These wait for the primary's successor.
    let mut waiting = [patient.connect(), strict];
    for conn in &mut waiting {
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        conn.send(&["EXISTS", &shard.keys[0]]).expect("to send");
    }
    let mut writer = reading.connect();
    writer.send(&["SET", &shard.keys[0], "new"]).expect("to send");
    let mut rounds = 0;
    let promoted = || {
        shard.replicas.iter().any(|replica| {
            let mut conn = cluster().connect(replica).expect("a connection");
            matches!(ask(&mut conn, &["ROLE"]), Reply::Array(role) if role[0] == text("master"))
        })
    };
    // These do not.
    for conn in [&mut reader, &mut any] {
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    }
    let mut both = || {
        shard.read(&mut reader, "EXISTS", &one);
        shard.read(&mut any, "EXISTS", &one);
    };
    (0..3).for_each(|_| both());
    assert!(!promoted(), "what was read may have waited for the promotion");
    node_timeout(&usual);
    while !promoted() {
        both();
        rounds += 1;
        assert!(rounds < 100_000, "no failover");
    }
    assert!(counted(&reading, "failover_replica") > 60.0);
    assert_eq!(counted(&patient, "failover_replica"), 0.0);
    for conn in &mut waiting {
        assert_eq!(conn.receive().expect("a reply"), one);
    }
    assert!(writer.receive().expect("a reply").is_ok());
    // Back to the primary, with what was written last.
    eventually("the new primary is read from", || {
        ask(&mut reader, &["GET", &shard.keys[0]]) == text("new")
    });
    let before = counted(&reading, "primary");
    eventually("the primary answers", || {
        shard.read(&mut reader, "EXISTS", &one);
        counted(&reading, "primary") >= before + 60.0
    });
    // The next test finds a calm cluster.
    eventually("the other replica follows", || all_fit(&reading));
}
