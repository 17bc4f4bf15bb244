//! Several upstreams behind one address: routed by key, by database and by listener.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::common::errors::{assert_is, is_one_of};
use crate::common::load::while_writing;
use crate::common::{Proxy, eventually};
use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{
    Cluster, ClusterOptions, Conn, MASTER, ReplicaSet, ReplicaSetOptions, Reply, Standalone,
    StandaloneOptions, free_port,
};

/// A cluster called `main`, a server called `queues` for keys that begin with `rq:` and for
/// database 1, and one called `sessions` for database 2 only, which has a password.
struct Upstreams {
    main: Cluster,
    queues: Standalone,
    sessions: Standalone,
}

impl Upstreams {
    fn start() -> Upstreams {
        let main = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
        let sessions =
            StandaloneOptions { password: Some("theirs".into()), ..StandaloneOptions::default() };
        Upstreams {
            main: Cluster::start(main).unwrap(),
            queues: Standalone::start(StandaloneOptions::default()).unwrap(),
            sessions: Standalone::start(sessions).unwrap(),
        }
    }

    fn proxy(&self, args: &[&str]) -> Proxy {
        let seeds = |name: &str, addr: SocketAddr| format!("upstreams.{name}.seeds={addr}");
        let (queues, sessions) =
            (seeds("queues", self.queues.addr()), seeds("sessions", self.sessions.addr()));
        let settings = [
            "upstreams.queues.kind=standalone",
            &queues,
            "upstreams.sessions.kind=standalone",
            &sessions,
            "upstreams.sessions.password=theirs",
            "databases.1=queues",
            "databases.2=sessions:3",
            "routes=rq:=queues,&rq:=queues",
        ];
        let mut all: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
        all.extend(args);
        let seeds = self.main.addrs().first().unwrap().to_string();
        let mut proxy =
            Proxy::launch(|name, program| self.main.command(name, program), &seeds, &all);
        proxy.until_ready();
        // How many there are is asked once an upstream is known.
        let mut client = Session(proxy.connect());
        eventually("the databases are known", || client.ask("SELECT 2").is_ok());
        proxy
    }

    /// The number of keys at each upstream: in all of main, queues, sessions.
    fn keys(&self) -> [i64; 3] {
        let count = |conn: &mut Conn| match conn.command(&["DBSIZE"]).unwrap() {
            Reply::Int(count) => count,
            other => panic!("{other:?}"),
        };
        let main = self.main.addrs().into_iter().map(|addr| count(&mut connect(addr))).sum();
        let mut sessions = connect(self.sessions.addr());
        assert!(sessions.command(&["AUTH", "theirs"]).unwrap().is_ok());
        assert!(sessions.command(&["SELECT", "3"]).unwrap().is_ok());
        [main, count(&mut connect(self.queues.addr())), count(&mut sessions)]
    }
}

fn connect(addr: SocketAddr) -> Conn {
    Conn::tcp(addr).unwrap()
}

/// A client's session, for short.
struct Session(Conn);

impl Session {
    fn ask(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        self.0.command(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn is(&mut self, line: &str, expected: Reply) {
        assert_eq!(self.ask(line), expected, "{line}");
    }
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn bulks(texts: &[&str]) -> Reply {
    Reply::Array(texts.iter().map(|text| bulk(text)).collect())
}

#[test]
fn keys_go_by_their_prefix_and_are_one_keyspace() {
    let upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&[]);
    let mut client = Session(proxy.connect());
    // In pipelines of several upstreams replies come in order.
    for i in 0..50 {
        client.0.send(&["SET", &format!("key:{i}"), &i.to_string()]).unwrap();
        client.0.send(&["SET", &format!("rq:{i}"), &i.to_string()]).unwrap();
    }
    for _ in 0..100 {
        assert!(client.0.receive().unwrap().is_ok());
    }
    assert_eq!(upstreams.keys(), [50, 50, 0]);
    client.is(
        "MGET key:1 rq:2 none key:3",
        Reply::Array(vec![bulk("1"), bulk("2"), Reply::Nil, bulk("3")]),
    );
    client.is("EXISTS key:1 rq:1 rq:2 none", Reply::Int(3));
    client.is("DEL key:0 rq:0", Reply::Int(2));
    client.is("DBSIZE", Reply::Int(98));
    // All upstreams that its keys can be in are scanned, each key once.
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let reply = client.ask(&format!("SCAN {cursor} COUNT 7"));
        let [Reply::Bulk(next), Reply::Array(keys)] = reply.items().unwrap() else {
            panic!("{reply:?}")
        };
        seen.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8(next.clone()).unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((seen.len(), BTreeSet::from_iter(seen).len()), (98, 98));
    assert_eq!(client.ask("KEYS *").items().unwrap().len(), 98);
    let mut random = || client.ask("RANDOMKEY").text().unwrap().starts_with("rq:");
    let randoms: BTreeSet<bool> = (0..100).map(|_| random()).collect();
    assert_eq!(randoms.len(), 2, "from both");
    client.is("FLUSHALL", Reply::Simple("OK".into()));
    assert_eq!(upstreams.keys(), [0, 0, 0]);
}

#[test]
fn what_one_server_can_do_works_for_the_keys_of_its_route() {
    let upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&[]);
    let mut client = Session(proxy.connect());
    let ok = || Reply::Simple("OK".into());
    let queued = || Reply::Simple("QUEUED".into());
    client.is("MSET rq:a 1 rq:b 2 c 3", ok());
    client.is("RENAME rq:a rq:z", ok());
    client.is(
        "EVAL return{redis.call('get','rq:z'),redis.call('get','rq:b')} 1 rq:any",
        bulks(&["1", "2"]),
    );
    client.is("WATCH rq:z rq:b", ok());
    client.is("MULTI", ok());
    client.is("INCR rq:z", queued());
    client.is("INCR rq:b", queued());
    client.is("EXEC", Reply::Array(vec![Reply::Int(2), Reply::Int(3)]));
    client.is("RPUSH rq:list 2 1", Reply::Int(2));
    client.is("MSET rq:w_1 9 rq:w_2 8", ok());
    client.is("SORT rq:list BY rq:w_* GET rq:w_*", bulks(&["8", "9"]));
    client.is("BLPOP rq:none rq:list 1", bulks(&["rq:list", "2"]));
    client.is("SADD rq:s 1 2", Reply::Int(2));
    client.is("SUNIONSTORE rq:t rq:s rq:u", Reply::Int(2));
    // The cluster's keys are what they were.
    client.is("GET c", bulk("3"));
    client.is("INCR {c}d", Reply::Int(1));
}

#[test]
fn keys_of_two_upstreams_are_refused_with_their_places() {
    let upstreams = Upstreams::start();
    for args in [&[][..], &["--set", "commands.cross_slot=emulate"]] {
        let proxy = upstreams.proxy(args);
        let mut client = Session(proxy.connect());
        for line in ["RENAME rq:a b", "SUNIONSTORE rq:t rq:s u", "EVAL return(1) 2 a rq:b"] {
            let reply = client.ask(line);
            let error = reply.error().unwrap_or_else(|| panic!("{line}: {reply:?}")).to_owned();
            assert_is(&reply, FailureId::CrossUpstream);
            assert!(error.contains("queues (route \"rq:\")") && error.contains("main"), "{error}");
        }
        client.is("MULTI", Reply::Simple("OK".into()));
        client.is("SET a 1", Reply::Simple("QUEUED".into()));
        let reply = client.ask("SET rq:b 2");
        assert_is(&reply, FailureId::CrossUpstream);
        assert!(client.ask("EXEC").error().unwrap().starts_with("EXECABORT"));
        client.is("EXISTS a rq:b", Reply::Int(0));
        client.is("RPUSH rq:l 1", Reply::Int(1));
        for line in ["SORT rq:l BY weight_*", "SORT rq:l GET r*", "SORT list BY *"] {
            assert_is(&client.ask(line), FailureId::PatternOnUpstreams);
        }
        client.is("DEL rq:l", Reply::Int(1));
        // Of many keys, those on another upstream count, wherever they stand.
        for line in
            ["SUNIONSTORE a b rq:c", "SORT a BY rq:w_* STORE b", "EVAL return(1) 3 a b rq:c"]
        {
            let ids = [FailureId::CrossUpstream, FailureId::PatternOnUpstreams];
            let reply = client.ask(line);
            assert!(is_one_of(&reply, &ids), "{line}: {reply:?}");
        }
        client.is("MULTI", Reply::Simple("OK".into()));
        assert_is(&client.ask("SORT rq:l BY weight_*"), FailureId::PatternOnUpstreams);
        client.is("DISCARD", Reply::Simple("OK".into()));
    }
    // A transaction may be divided by slots where that is configured, and so by upstreams.
    let proxy = upstreams.proxy(&["--set", "transactions.cross_slot=split"]);
    let mut client = Session(proxy.connect());
    for line in ["MULTI", "SET a 1", "SET rq:b 2", "MGET rq:b a"] {
        client.ask(line);
    }
    let replies = client.ask("EXEC");
    assert_eq!(replies.items().unwrap().last(), Some(&bulks(&["2", "1"])), "{replies:?}");
    assert_eq!(upstreams.keys(), [1, 1, 0]);
}

#[test]
fn a_database_may_be_another_upstream() {
    let upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&[]);
    let mut client = Session(proxy.connect());
    let ok = || Reply::Simple("OK".into());
    client.is("SET a main", ok());
    client.is("SELECT 1", ok());
    client.is("GET a", Reply::Nil);
    client.is("MSET a 1 b 2", ok());
    client.is("DBSIZE", Reply::Int(2));
    client.is("RENAME b c", ok());
    assert!(client.ask("CLIENT INFO").text().unwrap().contains(" db=1 "));
    client.is("SELECT 2", ok());
    client.is("DBSIZE", Reply::Int(0));
    client.is("SET a sessions", ok());
    client.is("EVAL return(redis.call('get','a')) 0", bulk("sessions"));
    assert_eq!(upstreams.keys(), [1, 2, 1]);
    client.is("FLUSHALL", ok());
    assert_eq!(upstreams.keys(), [1, 2, 0], "its own upstream only");
    client.is("SELECT 0", ok());
    client.is("GET a", bulk("main"));
    // Not a database of the cluster, and no other upstream.
    assert_is(&client.ask("SELECT 3"), FailureId::OnlyDatabase0);
    client.is("SELECT 1", ok());
    client.is("RESET", Reply::Simple("RESET".into()));
    client.is("GET a", bulk("main"));
}

#[test]
fn a_listener_may_have_an_upstream() {
    let upstreams = Upstreams::start();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let proxy = upstreams.proxy(&["--listen", &format!("{addr}=queues")]);
    let mut client = Session(connect(addr));
    let ok = || Reply::Simple("OK".into());
    client.is("MSET a 1 b 2", ok());
    client.is("RENAME a c", ok());
    assert_eq!(upstreams.keys(), [0, 2, 0]);
    // The databases are the server's own.
    eventually("they are known", || client.ask("SELECT 2").is_ok());
    client.is("SELECT 0", ok());
    assert_is(&client.ask("SELECT 16"), FailureId::NoSuchDatabase);
    client.is("MULTI", ok());
    assert_is(&client.ask("SELECT 2"), FailureId::NotInMulti);
    client.is("DISCARD", ok());
    client.is("SELECT 2", ok());
    client.is("DBSIZE", Reply::Int(0));
    client.is("SET a 1", ok());
    client.is("RESET", Reply::Simple("RESET".into()));
    client.is("DBSIZE", Reply::Int(2));
    Session(proxy.connect()).is("DBSIZE", Reply::Int(2));
}

#[test]
fn an_upstream_that_is_down_leaves_the_others_alone() {
    let mut upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&["--set", "timeouts.command=1s"]);
    let mut client = Session(proxy.connect());
    let ok = || Reply::Simple("OK".into());
    client.is("MSET a 1 rq:a 1", ok());
    upstreams.queues.kill();
    let mut at_queues = Session(proxy.connect());
    at_queues.is("SELECT 1", ok());
    eventually("it is known to be down", || {
        let failed = at_queues.ask("EVAL return(1) 0").error().is_some();
        failed && at_queues.ask("SET a 1").error().is_some()
    });
    eventually("/readyz says which", || {
        proxy.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains("queues"))
    });
    // Commands without keys and all others of the first upstream do not wait.
    let since = std::time::Instant::now();
    for i in 0..100 {
        client.is(&format!("SET key:{i} 1"), ok());
        client.is("EVAL return(1) 0", Reply::Int(1));
    }
    client.is("SELECT 2", ok());
    client.is("SET a 1", ok());
    assert!(since.elapsed() < crate::common::PATIENCE);
}

fn message(channel: &str, text: &str) -> Reply {
    bulks(&["message", channel, text])
}

#[test]
fn channels_belong_to_an_upstream() {
    let upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&[]);
    let main = || connect(*upstreams.main.addrs().first().unwrap());
    let queues = || connect(upstreams.queues.addr());
    // The same name at two upstreams, by database, and one by its prefix.
    let mut at_main = Session(proxy.connect());
    let mut at_queues = Session(proxy.connect());
    let mut by_prefix = Session(proxy.connect());
    at_queues.is("SELECT 1", Reply::Simple("OK".into()));
    for (client, channel) in
        [(&mut at_main, "news"), (&mut at_queues, "news"), (&mut by_prefix, "rq:news")]
    {
        let reply = client.ask(&format!("SUBSCRIBE {channel}"));
        assert_eq!(reply.items().unwrap().last(), Some(&Reply::Int(1)), "{reply:?}");
    }
    let publish = |mut conn: Conn, channel, text| {
        conn.command(&["PUBLISH", channel, text]).unwrap().int().unwrap()
    };
    assert_eq!(publish(queues(), "news", "queues"), 1);
    // A node of a cluster counts those who are connected to it only.
    publish(main(), "news", "main");
    assert_eq!(publish(queues(), "rq:news", "by prefix"), 1);
    assert_eq!(at_main.0.receive().unwrap(), message("news", "main"));
    assert_eq!(at_queues.0.receive().unwrap(), message("news", "queues"));
    assert_eq!(by_prefix.0.receive().unwrap(), message("rq:news", "by prefix"));
    // What slotway publishes goes the same way, and counts who hears it.
    let mut publisher = Session(proxy.connect());
    publisher.is("PUBLISH news one", Reply::Int(1));
    publisher.is("PUBLISH rq:news two", Reply::Int(1));
    publisher.is("SELECT 1", Reply::Simple("OK".into()));
    publisher.is("PUBLISH news three", Reply::Int(1));
    for line in ["MULTI", "PUBLISH news four"] {
        publisher.ask(line);
    }
    publisher.is("EXEC", Reply::Array(vec![Reply::Int(1)]));
    publisher.is("PUBSUB CHANNELS n*", bulks(&["news"]));
    publisher.is("PUBSUB NUMSUB news", Reply::Array(vec![bulk("news"), Reply::Int(1)]));
    assert_eq!(at_main.0.receive().unwrap(), message("news", "one"));
    assert_eq!(by_prefix.0.receive().unwrap(), message("rq:news", "two"));
    assert_eq!(at_queues.0.receive().unwrap(), message("news", "three"));
    assert_eq!(at_queues.0.receive().unwrap(), message("news", "four"));
}

#[test]
fn a_subscriber_stays_at_its_upstream() {
    let upstreams = Upstreams::start();
    let proxy = upstreams.proxy(&[]);
    let mut client = Session(proxy.connect3());
    client.0.send(&["SUBSCRIBE", "a"]).unwrap();
    client.0.receive().unwrap();
    assert_is(&client.ask("SELECT 1"), FailureId::SelectWhileSubscribed);
    client.0.send(&["UNSUBSCRIBE", "a"]).unwrap();
    client.0.receive().unwrap();
    client.is("SELECT 1", Reply::Simple("OK".into()));
    // Shard channels are at the server of their upstream as well.
    client.0.send(&["SSUBSCRIBE", "s"]).unwrap();
    client.0.receive().unwrap();
    let mut server = connect(upstreams.queues.addr());
    eventually("a subscriber", || {
        server.command(&["SPUBLISH", "s", "x"]).unwrap().int().unwrap() > 0
    });
    let message = client.0.receive().unwrap();
    assert_eq!(message.items().unwrap().last(), Some(&bulk("x")), "{message:?}");
}

#[test]
fn a_second_cluster_is_another_upstream() {
    let options = || ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let (main, other) = (Cluster::start(options()).unwrap(), Cluster::start(options()).unwrap());
    let seeds = format!("upstreams.other.seeds={}", other.addrs().first().unwrap());
    let settings = [&*seeds, "routes=o:=other", "databases.1=other", "commands.cross_slot=emulate"];
    let args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let seeds = main.addrs().first().unwrap().to_string();
    let mut proxy = Proxy::launch(|name, program| main.command(name, program), &seeds, &args);
    proxy.until_ready();
    let mut client = Session(proxy.connect());
    let ok = || Reply::Simple("OK".into());
    let keys = |cluster: &Cluster| -> i64 {
        let count = |addr| connect(addr).command(&["DBSIZE"]).unwrap().int().unwrap();
        cluster.addrs().into_iter().map(count).sum()
    };
    for i in 0..40 {
        client.is(&format!("SET k:{i} {i}"), ok());
        client.is(&format!("SET o:{i} {i}"), ok());
    }
    assert_eq!((keys(&main), keys(&other)), (40, 40));
    client.is("MGET o:1 k:2 o:3", bulks(&["1", "2", "3"]));
    // Over slots of the second cluster.
    client.is("RENAME o:1 o:renamed", ok());
    client.is("GET o:renamed", bulk("1"));
    client.is("SADD o:s 1 2", Reply::Int(2));
    client.is("SADD o:t 2 3", Reply::Int(2));
    client.is("SINTERSTORE o:u o:s o:t", Reply::Int(1));
    assert_is(&client.ask("RENAME o:2 k:x"), FailureId::CrossUpstream);
    // A slot of it moves: its redirections are about its own slots.
    let slot = slot_of(b"7");
    let from = other.owner_of(slot).unwrap();
    let primaries = other.primaries().unwrap();
    let to = primaries.iter().find(|node| node.id != from.id).unwrap();
    let (before, same) = (keys(&main), client.ask("GET k:7"));
    other.move_slot(slot, &from, to).unwrap();
    for i in 0..20 {
        client.is(&format!("SET o:{{7}}{i} {i}"), ok());
        client.is(&format!("GET o:{{7}}{i}"), bulk(&i.to_string()));
    }
    assert_eq!((keys(&main), client.ask("GET k:7")), (before, same));
    // A script cannot give a slot of the one to a node of the other.
    let stranger = other.addrs()[0];
    let slot = slot_of(b"k:1").0;
    let reply = client.0.command(&[
        "EVAL",
        &format!("return redis.error_reply('MOVED {slot} {stranger}')"),
        "1",
        "k:1",
    ]);
    assert!(reply.unwrap().error().is_some());
    client.is("GET k:1", bulk("1"));
    // All keys of all shards of both, behind a check of each shard.
    assert_eq!(client.ask("KEYS *").items().unwrap().len(), 40 + 63);
    client.is("DBSIZE", Reply::Int(40 + 63));
    let reply = client.ask("SCAN 0 COUNT 1");
    let cursor = reply.items().unwrap()[0].text().unwrap();
    client.is("SELECT 1", ok());
    client.is("GET o:7", bulk("7"));
    client.is("DBSIZE", Reply::Int(63));
    assert_eq!(client.ask("KEYS *").items().unwrap().len(), 63);
    // A cursor of the whole leads nowhere in the second alone.
    assert_is(&client.ask(&format!("SCAN {cursor}")), FailureId::InvalidCursor);
}

#[test]
fn a_failover_of_one_upstream_is_a_wait_for_its_clients_only() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let main = Cluster::start(options).unwrap();
    let set = ReplicaSet::start(ReplicaSetOptions::default()).unwrap();
    let sentinels: Vec<String> = set.sentinel_addrs().iter().map(ToString::to_string).collect();
    let seeds = format!("upstreams.queues.seeds={}", sentinels.join(","));
    let master = format!("upstreams.queues.master={MASTER}");
    let settings = ["upstreams.queues.kind=sentinel", &*master, &*seeds, "timeouts.command=30s"];
    let at_queues = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let listen = format!("{at_queues}=queues");
    let mut args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    args.extend(["--listen", &listen]);
    let seeds = main.addrs().first().unwrap().to_string();
    let mut proxy = Proxy::launch(|name, program| main.command(name, program), &seeds, &args);
    proxy.until_ready();
    let first = set.primary().unwrap();
    let mut of_main = None;
    let of_queues = while_writing(at_queues, |queues| {
        of_main = Some(while_writing(proxy.listen, |main| {
            queues.phase(1);
            set.kill(first).unwrap();
            set.settle(first, 1).unwrap();
            queues.more(200);
            main.more(200);
        }));
    });
    of_queues.assert_only_unknown_outcomes();
    let of_main = of_main.unwrap();
    assert!(of_main.write_errors.is_empty() && of_main.read_errors.is_empty(), "{of_main:?}");
    assert!(!of_main.acknowledged.is_empty());
}

#[test]
fn an_optional_upstream_keeps_nobody_from_being_ready() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let main = Cluster::start(options).unwrap();
    // Nobody listens there.
    let nobody = format!("upstreams.queues.seeds=127.0.0.1:{}", free_port().unwrap());
    let settings = ["upstreams.queues.kind=standalone", &*nobody, "upstreams.queues.optional=true"];
    let args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let seeds = main.addrs().first().unwrap().to_string();
    let mut proxy = Proxy::launch(|name, program| main.command(name, program), &seeds, &args);
    proxy.until_ready();
    Session(proxy.connect()).is("SET a 1", Reply::Simple("OK".into()));
    let (_, body) = proxy.get("/readyz").unwrap();
    let ready: serde_json::Value = serde_json::from_str(&body).unwrap();
    let of = |at: usize| (&ready["upstreams"][at]["name"], &ready["upstreams"][at]["ready"]);
    assert_eq!(of(0), (&"main".into(), &true.into()), "{body}");
    assert_eq!(of(1), (&"queues".into(), &false.into()), "{body}");
}

#[test]
fn routes_change_at_run_time() {
    let upstreams = Upstreams::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slotway.toml");
    let configure = |routes: &str| {
        let (queues, sessions) = (upstreams.queues.addr(), upstreams.sessions.addr());
        let text = format!(
            "[upstreams.queues]\nkind = \"standalone\"\nseeds = [\"{queues}\"]\n\
             [upstreams.sessions]\nkind = \"standalone\"\nseeds = [\"{sessions}\"]\n\
             password = \"theirs\"\n{routes}"
        );
        std::fs::write(&file, text).unwrap();
    };
    configure("");
    let seeds = upstreams.main.addrs().first().unwrap().to_string();
    let args = ["--config", file.to_str().unwrap()];
    let mut proxy =
        Proxy::launch(|name, program| upstreams.main.command(name, program), &seeds, &args);
    proxy.until_ready();
    let mut client = Session(proxy.connect());
    let ok = || Reply::Simple("OK".into());
    client.is("SET rq:a main", ok());
    configure(
        "[[routes]]\nprefix = \"rq:\"\nupstream = \"queues\"\n[databases]\n7 = \"sessions\"\n",
    );
    eventually("the route is in force", || client.ask("GET rq:a") == Reply::Nil);
    client.is("SET rq:a queues", ok());
    eventually("the database is another upstream", || client.ask("SELECT 7").is_ok());
    client.is("SET rq:a sessions", ok());
    client.is("SELECT 0", ok());
    client.is("GET rq:a", bulk("queues"));
    configure("");
    eventually("the route is gone", || client.ask("GET rq:a") == bulk("main"));
}
