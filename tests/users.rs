//! Users: slotway's own beside a real server with the same rules, and the cluster's; what is told of
//! secrets (nothing), and who may connect at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::errors::{assert_is, identified, is_one_of, named};
use crate::common::{self, Proxy, eventually};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, Conn, Reply, Standalone, StandaloneOptions};

/// One cluster for all tests; each has its own slotway and its own users.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(common::cluster)
}

fn ask(conn: &mut Conn, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    conn.command(&words).expect(line)
}

/// The same command on every node.
fn everywhere(line: &str) {
    for addr in cluster().addrs() {
        let reply = ask(&mut Conn::tcp(addr).expect("a node"), line);
        assert!(reply.error().is_none(), "{line}: {reply:?}");
    }
}

const RULES: &[(&str, &str)] = &[
    ("all", "on >pw ~* &* +@all"),
    ("nothing", "on >pw"),
    ("reader", "on >pw ~{t}* &* +@read +@connection"),
    ("writer", "on >pw %W~{t}* %R~{t}r* +@write +@read -@dangerous"),
    ("some", "on >pw ~{t}a ~{t}b* resetchannels &news.* &{t}x +@all -config +config|get -keys"),
    ("cats", "on >pw ~* &* +@all -@admin -@hash -@pubsub +publish +acl|whoami"),
    ("first", "on >pw ~{t}?[ab] +get +client|id +client|getname +select|0 +object|encoding +eval"),
    ("several", "on >pw ~{t}a* +get (~{t}b* +set +get) (%R~{t}c* &ch* +@all -subscribe)"),
    ("reset", "on >pw ~* &* +@all resetkeys ~{t}a nocommands +get +mget resetchannels"),
];

const COMMANDS: &[&str] = &[
    "GET {t}a",
    "GET {t}ra",
    "GET {t}zz",
    "GET other",
    "SET {t}a 1",
    "SET {t}b1 1",
    "SET {t}ra 1",
    "SET {t}ra 1 GET",
    "SET other 1",
    "GETSET {t}a 1",
    "GETEX {t}ra PERSIST",
    "GETDEL {t}ra",
    "MGET {t}a {t}b",
    "MGET {t}a {t}zz",
    "MSET {t}a 1 {t}b 2",
    "MSET {t}a 1 {t}zz 2",
    "DEL {t}a {t}ra",
    "UNLINK {t}c1",
    "EXISTS {t}a {t}c1",
    "TYPE {t}ra",
    "TTL {t}a",
    "EXPIRE {t}a 100",
    "APPEND {t}b1 x",
    "STRLEN {t}b1",
    "INCR {t}n",
    "RENAME {t}a {t}ra",
    "COPY {t}ra {t}a",
    "COPY {t}a {t}ra REPLACE",
    "DUMP {t}a",
    "OBJECT ENCODING {t}a",
    "OBJECT FREQ {t}a",
    "OBJECT HELP",
    "HSET {t}h f v",
    "HGETALL {t}h",
    "HGETALL {t}c1",
    "LPUSH {t}l a b",
    "LRANGE {t}l 0 -1",
    "LMOVE {t}l {t}a LEFT RIGHT",
    "BLPOP {t}l 0.01",
    "BLMPOP 0.01 2 {t}l {t}a LEFT",
    "LMPOP 2 {t}a {t}zz LEFT",
    "SADD {t}s a",
    "SMEMBERS {t}s",
    "SUNIONSTORE {t}b2 {t}ra {t}s",
    "SINTERCARD 2 {t}ra {t}s",
    "ZADD {t}z 1 a",
    "ZRANGE {t}z 0 -1",
    "ZRANGESTORE {t}b3 {t}ra 0 -1",
    "ZUNIONSTORE {t}b4 2 {t}ra {t}z",
    "ZUNION 2 {t}ra {t}z",
    "GEOADD {t}g 1 2 a",
    "GEORADIUS {t}ra 1 2 3 km STORE {t}b5",
    "XADD {t}b6 * f v",
    "XREAD COUNT 1 STREAMS {t}ra {t}b6 0 0",
    "XGROUP CREATE {t}b6 g 0 MKSTREAM",
    "XREADGROUP GROUP g c COUNT 1 STREAMS {t}b6 >",
    "PFADD {t}p a",
    "PFCOUNT {t}ra {t}p",
    "PFMERGE {t}b7 {t}ra",
    "SETBIT {t}b8 1 1",
    "BITFIELD {t}ra GET u8 0",
    "BITFIELD {t}ra SET u8 0 1",
    "BITFIELD_RO {t}ra GET u8 0",
    "BITOP AND {t}b9 {t}ra {t}a",
    "SORT {t}ra",
    "SORT {t}l ALPHA STORE {t}b10",
    "SORT_RO {t}ra",
    "EVAL return(1) 1 {t}a",
    "EVAL return(1) 1 {t}ra",
    "EVAL return(1) 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 {t}zz",
    "SCRIPT EXISTS ffffffffffffffffffffffffffffffffffffffff",
    "FUNCTION LIST",
    "KEYS none*",
    "SCAN 0 MATCH none*",
    "RANDOMKEY",
    "DBSIZE",
    "PUBLISH news.a x",
    "PUBLISH ch1 x",
    "PUBLISH other x",
    "SPUBLISH {t}x x",
    "SPUBLISH other x",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB a",
    "CONFIG GET maxmemory",
    "CONFIG RESETSTAT",
    "CONFIG NOSUCH",
    "CONFIG",
    "CLIENT ID",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT LIST",
    "CLIENT KILL ID 999999999",
    "CLIENT NO-EVICT off",
    "SLOWLOG LEN",
    "SLOWLOG GET 1",
    "LATENCY RESET",
    "MEMORY USAGE {t}a",
    "MEMORY USAGE {t}zz",
    "INFO server",
    "TIME",
    "COMMAND COUNT",
    "COMMAND INFO get",
    "LOLWUT",
    "ACL WHOAMI",
    "ACL CAT",
    "ACL GENPASS",
    "ACL USERS",
    "PING",
    "ECHO x",
    "SELECT 0",
    "MULTI",
    "GET {t}a",
    "DISCARD",
    "WATCH {t}a",
    "WATCH {t}ra",
    "WATCH {t}zz",
    "UNWATCH",
    "WAIT 0 1",
    "TOUCH {t}a",
    "NOSUCH a b",
    "GET",
    "GET a b",
    "MSET a",
    "OBJECT",
    "SUBSCRIBE other",
    "UNSUBSCRIBE other",
    "SUBSCRIBE news.a",
    "UNSUBSCRIBE",
    "PSUBSCRIBE news.*",
    "PUNSUBSCRIBE news.*",
    "PSUBSCRIBE news.a",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE {t}x",
    "SUNSUBSCRIBE",
];

/// What a reply says about rights: the error if it is about them, or that it is not.
fn about_rights(reply: &Reply) -> String {
    match reply.error() {
        Some(text) if text.starts_with("NOPERM") || text.starts_with("NOAUTH") => text.to_owned(),
        // Slotway or the server says what is wrong with it; the words are others' tests.
        Some(text) if text.starts_with("ERR unknown") || text.starts_with("ERR wrong number") => {
            text.split(", with").next().unwrap_or(text).to_owned()
        }
        _ => "allowed".to_owned(),
    }
}

#[test]
fn rules_are_a_servers() {
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let mut admin = server.connect().expect("the server");
    let mut lines = Vec::new();
    for (name, rules) in RULES {
        let set = ask(&mut admin, &format!("ACL SETUSER {name} {rules}"));
        assert!(set.is_ok(), "{name}: {set:?}");
        lines.push(format!("{name} {rules}"));
    }
    let users = format!("users={}", lines.join(","));
    // What slotway denies everybody by itself is not asked here, so nothing needs to be allowed.
    let proxy = Proxy::start(cluster(), &["--set", &users]);
    let (mut compared, mut denied, mut unchecked, mut wrong) = (0, 0, 0, Vec::new());
    for protocol in ["2", "3"] {
        for (name, _) in RULES {
            let mut theirs = server.connect().expect("the server");
            let mut ours = proxy.connect();
            let login = format!("HELLO {protocol} AUTH {name} pw");
            for conn in [&mut theirs, &mut ours] {
                assert!(ask(conn, &login).error().is_none(), "{login}");
            }
            for line in COMMANDS {
                let (expected, got) = (ask(&mut theirs, line), ask(&mut ours, line));
                let (mut expected, got) = (about_rights(&expected), about_rights(&got));
                // A server keeps a script to its user's rules; slotway cannot.
                let runs = line.starts_with("EVAL") && *name != "all";
                if runs && !expected.contains("permissions to run") {
                    unchecked += 1;
                    expected = got.clone();
                    assert_eq!(named(&got).id, FailureId::Unchecked, "{name} {line}: {got}");
                }
                compared += 1;
                denied += usize::from(expected.starts_with("NOPERM"));
                if expected != got {
                    wrong.push(format!("{name} {line}: {expected} / {got}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "server / slotway:\n{}", wrong.join("\n"));
    assert!(unchecked > 8, "{unchecked}");
    assert!(compared > 2000 && denied > 700, "{compared} compared, {denied} denied");
    assert!(proxy.metric("slotway_denied_total", "reason=\"key\"") > 0.0);
    assert!(proxy.metric("slotway_logins_total", "outcome=\"own\"") >= 18.0);
}

/// All texts of a reply in one, for what is in it somewhere.
fn flat(reply: &Reply) -> String {
    match reply.items() {
        Some(items) => items.iter().map(|item| flat(item) + "\n").collect(),
        None => reply.text().or(reply.error().map(str::to_owned)).unwrap_or_default(),
    }
}

/// A script does with the rights of upstream.user what its user may not, so it does not run.
#[test]
fn scripts_are_no_way_out_of_a_users_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let limited = "user in-file on >pw ~{e}a:* +@all -@dangerous -@admin +acl";
    let free = "user free on >pw unchecked-commands ~{e}a:* +@all";
    std::fs::write(&file, format!("{limited}\n{free}\n")).unwrap();
    let users_file = format!("users_file={}", file.display());
    let users =
        "users=inline on >pw ~{e}a:* +@all -@dangerous -@admin +acl,root on >pw ~* &* +@all";
    let args = ["--set", &users_file, "--set", users, "--set", "commands.cross_slot=emulate"];
    let proxy = Proxy::start(cluster(), &args);
    let mut root = proxy.connect();
    assert!(ask(&mut root, "AUTH root pw").is_ok());
    assert!(ask(&mut root, "SET {e}b:secret told").is_ok());
    let script = "return(redis.call('get','{e}b:secret'))";
    let digest = ask(&mut root, &format!("SCRIPT LOAD {script}")).text().expect("a digest");
    let library = "#!lua name=escape\nredis.register_function('escape',function() return 1 end)";
    let loaded = root.command(&["FUNCTION", "LOAD", "REPLACE", library]).expect("a reply");
    assert_eq!(loaded.text().as_deref(), Some("escape"));
    assert_eq!(
        ask(&mut root, &format!("EVAL {script} 1 {{e}}a:1")).text().as_deref(),
        Some("told")
    );
    let lines = [
        format!("EVAL {script} 1 {{e}}a:1"),
        format!("EVAL_RO {script} 1 {{e}}a:1"),
        format!("EVALSHA {digest} 1 {{e}}a:1"),
        format!("EVALSHA_RO {digest} 1 {{e}}a:1"),
        "FCALL escape 1 {e}a:1".into(),
        "FCALL_RO escape 1 {e}a:1".into(),
        format!("SCRIPT LOAD {script}"),
        "FUNCTION LOAD x".into(),
        "FUNCTION RESTORE x".into(),
        "eval return(redis.call('flushall')) 0".into(),
    ];
    let refused = |reply: &Reply| is_one_of(reply, &[FailureId::Unchecked]);
    for name in ["inline", "in-file"] {
        let mut conn = proxy.connect();
        assert!(ask(&mut conn, &format!("AUTH {name} pw")).is_ok());
        for line in &lines {
            let reply = ask(&mut conn, line);
            assert!(refused(&reply), "{name} {line}: {reply:?}");
            assert!(ask(&mut conn, "MULTI").is_ok());
            let reply = ask(&mut conn, line);
            assert!(refused(&reply), "{name} MULTI {line}: {reply:?}");
            let exec = ask(&mut conn, "EXEC");
            assert!(exec.error().is_some_and(|e| e.starts_with("EXECABORT")), "{exec:?}");
        }
        // What ACL says agrees.
        let dry = ask(&mut conn, &format!("ACL DRYRUN {name} EVAL x 1 {{e}}a:1"));
        assert!(dry.text().is_some_and(|t| t.contains("unchecked-commands")), "{dry:?}");
        assert!(ask(&mut conn, "ACL DRYRUN free EVAL x 1 {e}a:1").is_ok());
        let shown = flat(&ask(&mut conn, &format!("ACL GETUSER {name}")));
        assert!(shown.contains("-evalsha_ro") && shown.contains("-function|load"), "{shown}");
        let shown = flat(&ask(&mut conn, "ACL GETUSER free"));
        assert!(shown.contains("unchecked-commands") && !shown.contains("-eval"), "{shown}");
        let shown = flat(&ask(&mut conn, "ACL LIST"));
        assert!(shown.contains("user free on unchecked-commands"), "{shown}");
        // A command in steps, which slotway itself may compose of scripts, is looked at as it came.
        assert!(ask(&mut conn, "SET {e}a:1 x").is_ok());
        let moved = ask(&mut conn, "RENAME {e}a:1 {e}b:1");
        assert!(moved.error().is_some_and(|e| e.starts_with("NOPERM")), "{moved:?}");
    }
    assert_eq!(ask(&mut root, "GET {e}b:secret").text().as_deref(), Some("told"), "not flushed");
    let mut conn = proxy.connect();
    assert!(ask(&mut conn, "AUTH free pw").is_ok());
    assert_eq!(ask(&mut conn, &lines[0]).text().as_deref(), Some("told"));
    assert_eq!(ask(&mut conn, "FCALL escape 1 {e}a:1"), Reply::Int(1));
    let other = ask(&mut conn, &format!("EVAL {script} 1 {{e}}b:1"));
    assert_is(&other, FailureId::KeyDenied);
    // It is said at the start, by `slotway check`, and when the file changes.
    assert!(proxy.log().contains("user 'free' has unchecked-commands"), "{}", proxy.log());
    assert!(!proxy.log().contains("user 'in-file'"), "{}", proxy.log());
    let check = Command::new(env!("CARGO_BIN_EXE_slotway")).arg("check").args(args).output();
    let check = String::from_utf8_lossy(&check.expect("check").stderr).into_owned();
    assert!(check.contains("warning: user 'free' has unchecked-commands"), "{check}");
    std::fs::write(&file, format!("{limited} +eval\n{free} -eval\n")).unwrap();
    eventually("its rules name what is refused", || {
        proxy.log().contains("user 'in-file': its rules")
    });
    eventually("new rules hold", || ask(&mut conn, &lines[0]).error().is_some());
}

/// Logins and what comes of them: each line of a connection, in RESP2, word for word.
#[test]
fn logins_are_a_servers() {
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let mut admin = server.connect().expect("the server");
    let users = [
        "default on >dpw ~* &* +@all",
        "app on >pw >second ~{t}* &* +@all",
        "old off >pw ~* &* +@all",
        "open on nopass ~* &* +get",
        "tx on >pw ~{t}* +multi +exec +discard +get +watch +ping",
    ];
    let proxy = Proxy::start(cluster(), &["--set", &format!("users={}", users.join(","))]);
    // The default user last, as it is the one who sets them.
    for user in users.iter().rev() {
        assert!(ask(&mut admin, &format!("ACL SETUSER {user}")).is_ok(), "{user}");
    }
    let scripts: &[&[&str]] = &[
        &[
            "PING",
            "GET a",
            "NOSUCH",
            "GET",
            "MULTI",
            "CLIENT ID",
            "SUBSCRIBE a",
            "HELLO",
            "HELLO 3",
        ],
        &["AUTH dpw", "PING", "ACL WHOAMI", "RESET", "PING", "AUTH default dpw", "PING"],
        &["AUTH app pw", "ACL WHOAMI", "AUTH second", "AUTH app second", "SET {t}k 1", "SET k 1"],
        &["AUTH app", "AUTH", "AUTH a b c", "AUTH nobody pw", "PING"],
        &["AUTH old pw", "PING"],
        &["AUTH open anything", "GET k", "SET k 1"],
        &["HELLO 2 AUTH app wrong", "HELLO 2 SETNAME x", "HELLO 4", "HELLO x", "PING"],
        &["HELLO 2 AUTH app", "HELLO 2 NOSUCH", "HELLO 9 AUTH app pw", "PING"],
        &["AUTH tx pw", "MULTI", "GET {t}k", "SET {t}k 1", "EXEC", "GET {t}k"],
        &["AUTH tx pw", "MULTI", "GET other", "EXEC", "MULTI", "GET", "EXEC"],
        &["AUTH tx pw", "MULTI", "MULTI", "GET {t}none", "EXEC", "DISCARD", "ECHO x", "PING"],
        &[
            "AUTH app pw",
            "ACL DRYRUN tx get {t}a",
            "ACL DRYRUN tx get b",
            "ACL DRYRUN tx set {t}a b",
        ],
        &[
            "AUTH app pw",
            "ACL DRYRUN nobody get a",
            "ACL DRYRUN tx mget {t}a b c",
            "ACL DRYRUN tx nosuch",
            "ACL DRYRUN tx get",
        ],
        &[
            "AUTH app pw",
            "ACL USERS",
            "ACL GETUSER nobody",
            "ACL GETUSER open",
            "CLIENT KILL USER x",
        ],
        &["AUTH open x", "AUTH app no", "GET k", "SET k 1", "ACL WHOAMI"],
    ];
    for script in scripts {
        let mut theirs = Conn::tcp(server.addr()).expect("the server");
        let mut ours = proxy.connect();
        for line in *script {
            let (expected, got) = (ask(&mut theirs, line), ask(&mut ours, line));
            assert_eq!(got, expected, "{line} in {script:?}");
        }
    }
    assert!(proxy.metric("slotway_logins_total", "outcome=\"wrong\"") >= 5.0);
    // HELLO tells who it is, CLIENT LIST too.
    let mut app = proxy.connect();
    assert!(ask(&mut app, "HELLO 3 AUTH app pw SETNAME it").error().is_none());
    assert!(ask(&mut app, "CLIENT LIST").text().expect("lines").contains(" name=it "));
    assert!(ask(&mut app, "CLIENT INFO").text().expect("a line").contains(" user=app "));
    assert_eq!(ask(&mut app, "CLIENT KILL USER tx"), Reply::Int(0));
    let refused = ask(&mut app, "ACL SETUSER x on");
    assert_is(&refused, FailureId::UsersInConfig);
}

#[test]
fn the_clusters_users() {
    everywhere("ACL SETUSER pt-app on >pw ~{t}* &news.* +@all -@admin +client|list");
    everywhere("ACL SETUSER pt-ro on >pw ~* &* +@read +multi +exec +subscribe");
    let proxy = Proxy::start(cluster(), &["--set", "auth=passthrough", "--workers", "2"]);
    // The cluster's default user needs no password.
    let mut stranger = proxy.connect();
    assert_eq!(ask(&mut stranger, "ACL WHOAMI").text().as_deref(), Some("default"));
    assert_eq!(ask(&mut proxy.connect3(), "ACL WHOAMI").text().as_deref(), Some("default"));
    let wrong = ask(&mut stranger, "AUTH pt-app nope");
    assert_eq!(
        wrong.error(),
        Some("WRONGPASS invalid username-password pair or user is disabled.")
    );
    for protocol in ["2", "3"] {
        let mut app = proxy.connect();
        let hello = ask(&mut app, &format!("HELLO {protocol} AUTH pt-app pw"));
        assert!(hello.error().is_none(), "{hello:?}");
        assert_eq!(ask(&mut app, "ACL WHOAMI").text().as_deref(), Some("pt-app"));
        assert!(ask(&mut app, "SET {t}a 1").is_ok());
        let noperm = |reply: Reply, what: &str| {
            let text = reply.error().unwrap_or_default().to_owned();
            assert!(text.starts_with("NOPERM") && text.contains(what), "{what}: {reply:?}");
        };
        noperm(ask(&mut app, "SET other 1"), "one of the keys");
        noperm(ask(&mut app, "MGET {t}a other x y z"), "one of the keys");
        noperm(ask(&mut app, "CONFIG GET maxmemory"), "'config|get'");
        noperm(ask(&mut app, "CLIENT KILL ID 1"), "'client|kill'");
        noperm(ask(&mut app, "SUBSCRIBE other"), "one of the channels");
        noperm(ask(&mut app, "PSUBSCRIBE *"), "one of the channels");
        assert!(ask(&mut app, "CLIENT LIST").text().expect("lines").contains(" user=pt-app "));
        assert_eq!(
            ask(&mut app, "EVAL return(redis.call('get','{t}a')) 1 {t}a").text().unwrap(),
            "1"
        );
        let inside = ask(&mut app, "EVAL return(redis.call('get','{t}'..'x'..KEYS[1])) 1 {t}a");
        assert!(inside.error().is_none(), "{inside:?}");
        ask(&mut app, "DEL {t}q");
        assert_eq!(ask(&mut app, "BLPOP {t}q 0.01"), Reply::Nil);
        assert!(ask(&mut app, "WATCH {t}a").is_ok());
        assert!(ask(&mut app, "MULTI").is_ok());
        ask(&mut app, "INCR {t}n");
        assert!(ask(&mut app, "EXEC").items().is_some_and(|items| items.len() == 1));
        assert!(ask(&mut app, "SUBSCRIBE news.a").error().is_none());
    }
    let mut ro = proxy.connect();
    assert!(ask(&mut ro, "AUTH pt-ro pw").is_ok());
    let refused = "NOPERM this user has no permissions to run the 'set' command";
    assert_eq!(ask(&mut ro, "SET {t}a 2").error(), Some(refused));
    assert_eq!(ask(&mut ro, "GET {t}a").text().as_deref(), Some("1"));
    // Scripts that slotway knows are not his to remove, either.
    let mut app = proxy.connect();
    assert!(ask(&mut app, "AUTH pt-app pw").is_ok());
    let sha = ask(&mut app, "SCRIPT LOAD return(7)").text().unwrap();
    let flush = ask(&mut ro, "SCRIPT FLUSH");
    assert!(flush.error().is_some_and(|e| e.starts_with("NOPERM")), "{flush:?}");
    everywhere("SCRIPT FLUSH");
    assert_eq!(ask(&mut app, &format!("EVALSHA {sha} 0")), Reply::Int(7));
    assert!(ask(&mut ro, "MULTI").is_ok());
    ask(&mut ro, "SET {t}a 2");
    assert!(ask(&mut ro, "EXEC").error().is_some_and(|e| e.starts_with("EXECABORT")));
    assert_eq!(ask(&mut ro, "GET {t}a").text().as_deref(), Some("1"), "not executed");
    assert!(ask(&mut ro, "DISCARD").error().is_some());
    // Somebody else on the same connection.
    assert!(ask(&mut ro, "AUTH pt-app pw").is_ok());
    assert!(ask(&mut ro, "SET {t}a 3").is_ok());
    assert_eq!(ask(&mut ro, "RESET").text().as_deref(), Some("RESET"));
    assert_eq!(ask(&mut ro, "ACL WHOAMI").text().as_deref(), Some("default"));
    // Two users' connections and the default user's, on each of two workers at most.
    assert!((3.0..=6.0).contains(&proxy.metric("slotway_cluster_users", "")));
    // Another password: who logged in by the old one is told by the node, and closed.
    assert!(ask(&mut ro, "AUTH pt-app pw").is_ok());
    let is_told = |conn: &mut Conn| match conn.command(&["GET", "{t}a"]) {
        Ok(reply) => reply.error().is_some_and(|e| e.starts_with("WRONGPASS")),
        Err(_) => true,
    };
    let is_closed = |conn: &mut Conn| conn.command(&["PING"]).is_err();
    everywhere("ACL SETUSER pt-app resetpass >new");
    everywhere("CLIENT KILL USER pt-app");
    eventually("the old password is not taken any more", || is_told(&mut ro));
    eventually("whose password it was is closed", || is_closed(&mut ro));
    let mut ro = proxy.connect();
    assert!(ask(&mut ro, "AUTH pt-app pw").error().is_some());
    assert!(ask(&mut ro, "AUTH pt-app new").is_ok());
    assert_eq!(ask(&mut ro, "GET {t}a").text().as_deref(), Some("3"));
    everywhere("ACL DELUSER pt-app");
    // Somebody else of the same name, whose sessions these are not.
    everywhere("ACL SETUSER pt-app on >third ~* &* +@all");
    eventually("a deleted user is told so", || is_told(&mut ro));
    eventually("a deleted user's client is closed", || is_closed(&mut ro));
    everywhere("ACL DELUSER pt-app");
    everywhere("ACL DELUSER pt-ro");
}

/// A blocking command that is lost may have taken something. It is not sent again where its user's
/// login is refused now, and neither that refusal nor a null would tell its client the truth.
#[test]
fn a_lost_pop_whose_login_is_refused_may_have_popped() {
    everywhere("ACL SETUSER popper on >pw ~* &* +@all");
    let proxy = Proxy::start(cluster(), &["--set", "auth=passthrough", "--workers", "1"]);
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    assert!(ask(&mut conn, "AUTH popper pw").is_ok());
    conn.send(&["BLPOP", "{pop}q", "0"]).expect("to send");
    let waits = |addr: SocketAddr| {
        let list = ask(&mut Conn::tcp(addr).expect("a node"), "CLIENT LIST");
        list.text()
            .expect("lines")
            .lines()
            .any(|line| line.contains(" user=popper ") && line.contains(" cmd=blpop "))
    };
    eventually("it waits at its node", || cluster().addrs().into_iter().any(waits));
    everywhere("ACL SETUSER popper resetpass >new");
    everywhere("CLIENT KILL USER popper");
    // Whose password it was is closed soon, and then it may be so before its reply.
    if let Ok(reply) = conn.receive() {
        let text = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
        assert!(text.starts_with("OUTCOMEUNKNOWN ") && text.contains("WRONGPASS"), "{text}");
        assert!(conn.receive().is_err(), "it is closed");
    }
    everywhere("ACL DELUSER popper");
}

/// As at a server: what a user may not hear any more it does not hear, and without a user nothing.
#[test]
fn subscribers_lose_their_rights() {
    everywhere("ACL SETUSER ear on >pw ~* resetchannels &ch:* +@all");
    let proxy = Proxy::start(cluster(), &["--set", "auth=passthrough", "--workers", "1"]);
    let hears = |line: &str| {
        let mut conn = proxy.connect();
        assert!(ask(&mut conn, "AUTH ear pw").is_ok());
        assert!(ask(&mut conn, line).error().is_none(), "{line}");
        conn
    };
    let mut taken = [hears("SUBSCRIBE ch:x"), hears("SSUBSCRIBE ch:s"), hears("PSUBSCRIBE ch:*")];
    let mut kept = hears("SUBSCRIBE ch:y");
    let mut others = proxy.connect();
    assert!(ask(&mut others, "SUBSCRIBE ch:x").error().is_none());
    everywhere("ACL SETUSER ear resetchannels &ch:y");
    for conn in &mut taken {
        eventually("it is closed", || conn.command(&["PING"]).is_err());
    }
    assert!(kept.command(&["PING"]).is_ok() && others.command(&["PING"]).is_ok());
    everywhere("ACL DELUSER ear");
    eventually("there is no such user any more", || kept.command(&["PING"]).is_err());
    assert!(others.command(&["PING"]).is_ok());
}

#[test]
fn both_kinds_of_users_and_a_limit() {
    everywhere("ACL SETUSER both-1 on >pw ~* &* +@all");
    everywhere("ACL SETUSER both-2 on >pw ~* &* +@all");
    let args = ["auth=passthrough", "users=own on >pw ~own:* +@all,default off", "limits.users=1"];
    let args: Vec<&str> =
        args.iter().flat_map(|a| ["--set", a]).chain(["--workers", "1"]).collect();
    let proxy = Proxy::start(cluster(), &args);
    let mut conn = proxy.connect();
    let noauth = Some("NOAUTH Authentication required.");
    assert_eq!(ask(&mut conn, "PING").error(), noauth, "default is slotway's own here");
    assert!(ask(&mut conn, "AUTH own pw").is_ok());
    assert_eq!(ask(&mut conn, "ACL WHOAMI").text().as_deref(), Some("own"));
    assert!(ask(&mut conn, "SET other 1").error().is_some());
    assert!(ask(&mut conn, "AUTH both-1 pw").is_ok());
    assert_eq!(ask(&mut conn, "ACL WHOAMI").text().as_deref(), Some("both-1"));
    assert!(ask(&mut conn, "SET other 1").is_ok());
    let mut second = proxy.connect();
    let full = ask(&mut second, "AUTH both-2 pw");
    let error = identified(&full);
    assert_eq!((error.id, error.field("limit")), (FailureId::TooManyUsers, Some("1")), "{full:?}");
    drop(conn);
    eventually("the first user's place is free", || ask(&mut second, "AUTH both-2 pw").is_ok());
    assert_eq!(ask(&mut second, "ACL WHOAMI").text().as_deref(), Some("both-2"));
    assert!(proxy.metric("slotway_logins_total", "outcome=\"too_many\"") >= 1.0);
}

#[test]
fn files_are_read_again() {
    everywhere("ACL SETUSER files-proxy on >one ~* &* +@all");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("users", "user a on >pw ~* &* +@all\nuser b on >pw ~* &* +@all\n");
    write("password", "one\n");
    write("token", "first\n");
    let at = |key: &str, name: &str| format!("{key}={}", path(name).display());
    let files = [
        at("users_file", "users"),
        at("upstream.password_file", "password"),
        at("admin_token_file", "token"),
        "upstream.user=files-proxy".into(),
    ];
    let args: Vec<&str> = files.iter().flat_map(|f| ["--set", f]).collect();
    let proxy = Proxy::start(cluster(), &args);
    assert_eq!(with_token(proxy.admin, "/metrics", "first"), 200);
    assert_eq!(with_token(proxy.admin, "/metrics", "second"), 401);
    assert_eq!(proxy.get("/metrics").map(|(status, _)| status), Some(401));
    assert_eq!(proxy.get("/").map(|(status, _)| status), Some(401));
    assert_eq!(proxy.get("/healthz").map(|(status, _)| status), Some(200));

    let login = |name: &str| {
        let mut conn = proxy.connect();
        assert!(ask(&mut conn, &format!("AUTH {name} pw")).is_ok());
        conn
    };
    let (mut a, mut b) = (login("a"), login("b"));
    assert!(ask(&mut a, "SET files:k 1").is_ok());
    // A mistake changes nothing.
    write("users", "user a on >pw +nosuch\n");
    eventually("the mistake is logged", || proxy.log().contains("+nosuch"));
    assert!(ask(&mut a, "SET files:k 1").is_ok());
    // a may only read now, b is gone.
    let mut queued = login("a");
    assert!(ask(&mut queued, "MULTI").is_ok());
    assert_eq!(ask(&mut queued, "SET files:k 9").text().as_deref(), Some("QUEUED"));
    write("users", "user a on >pw ~* +@read\nuser c on >pw ~* +@all\n");
    eventually("new rules hold", || ask(&mut a, "SET files:k 1").error().is_some());
    let aborted = ask(&mut queued, "EXEC");
    assert!(aborted.error().is_some_and(|e| e.starts_with("EXECABORT")), "{aborted:?}");
    assert_eq!(ask(&mut a, "GET files:k").text().as_deref(), Some("1"));
    assert!(b.command(&["PING"]).is_err(), "b is disconnected");
    assert!(ask(&mut login("c"), "SET files:k 2").is_ok());
    // An empty file lets nobody in.
    write("users", "");
    eventually("nobody may log in", || {
        proxy.connect().command(&["PING"]).is_ok_and(|r| r.error().is_some())
    });
    write("users", "user c on >pw ~* +@all\n");
    write("token", "second\n");
    eventually("the new token counts", || with_token(proxy.admin, "/metrics", "second") == 200);

    // The nodes' password for slotway changes: the file says it, and new connections use it.
    everywhere("ACL SETUSER files-proxy resetpass >two");
    write("password", "two");
    everywhere("CLIENT KILL USER files-proxy");
    eventually("slotway logs in with the new password", || {
        let mut c = proxy.connect();
        ask(&mut c, "AUTH c pw").is_ok()
            && ask(&mut c, "GET files:k").text().as_deref() == Some("2")
    });
}

/// The status of a page that is asked for with a token.
fn with_token(addr: SocketAddr, path: &str, token: &str) -> u16 {
    let mut stream = TcpStream::connect(addr).expect("the admin listener");
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    write!(stream, "{head}Authorization: Bearer {token}\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a page");
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// None of the passwords, hashes and tokens is anywhere that others look.
#[test]
fn secrets_are_nowhere() {
    const SECRETS: [&str; 6] =
        ["s3cret-up", "s3cret-app", "s3cret-try", "s3cret-token", "s3cret-pt", "s3cret-name"];
    everywhere("ACL SETUSER sec-proxy on >s3cret-up ~* &* +@all");
    everywhere("ACL SETUSER sec-pt on >s3cret-pt ~* &* +@all");
    let settings = [
        "upstream.user=sec-proxy",
        "upstream.password=s3cret-up",
        "users=sec-app on >s3cret-app ~* &* +@all",
        "admin_token=s3cret-token",
        "auth=passthrough",
        "log.level=trace",
    ];
    let args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let proxy = Proxy::start(cluster(), &args);
    let mut watcher = proxy.connect();
    assert!(ask(&mut watcher, "AUTH sec-app s3cret-app").is_ok());
    assert!(ask(&mut watcher, "MONITOR").is_ok());
    let mut conn = proxy.connect();
    let mut told = Vec::new();
    for line in [
        "AUTH sec-app s3cret-try",
        "AUTH s3cret-name s3cret-try",
        "HELLO 3 AUTH sec-app s3cret-try",
        "HELLO 3 AUTH sec-pt s3cret-pt SETNAME x",
        "CLIENT LIST",
        "INFO",
        "AUTH sec-app s3cret-app",
        "CLIENT LIST",
        "CLIENT INFO",
        "INFO all",
        "SLOWLOG GET 128",
        "ACL LOG",
        "ACL USERS",
        "PING",
        "PING last",
    ] {
        told.push((line.to_owned(), format!("{:?}", ask(&mut conn, line))));
    }
    loop {
        let line = watcher.receive().expect("a line").text().expect("text");
        told.push(("MONITOR".into(), line.clone()));
        if line.contains("last") {
            break;
        }
    }
    assert!(told.iter().any(|(from, line)| from == "MONITOR" && line.contains("(redacted)")));
    for page in ["/", "/metrics", "/healthz", "/readyz"] {
        told.push((page.to_owned(), proxy.get(page).expect(page).1));
    }
    told.push(("log".into(), proxy.log()));
    let check = Command::new(env!("CARGO_BIN_EXE_slotway"))
        .arg("check")
        .args(&args)
        .args(["--set", "users=bad on s3cret-name"])
        .output()
        .expect("check");
    told.push(("a wrong configuration".into(), String::from_utf8_lossy(&check.stderr).into()));
    let check = Command::new(env!("CARGO_BIN_EXE_slotway")).arg("check").args(&args).output();
    let check = check.expect("check");
    told.push(("check".into(), String::from_utf8_lossy(&check.stdout).into()));
    assert!(
        check.status.success() && told.last().is_some_and(|(_, text)| text.contains("sec-app"))
    );
    let hash = slotway::users::Hash::of(b"s3cret-app").hex();
    for (from, text) in told {
        for secret in SECRETS.iter().copied().chain([&*hash]) {
            // A name that was asked for is not secret, but may be a password in the wrong place.
            assert!(!text.contains(secret), "{secret} in {from}: {text}");
        }
    }
}

#[test]
fn a_public_address_wants_logins() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.args(["run", "--seeds", "127.0.0.1:1", "--admin", ""]).args(args);
        let output = command.output().expect("slotway");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for listen in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0,10.1.2.3:0"] {
        for users in ["", "default on nopass +get"] {
            let users = format!("users={users}");
            let (code, said) = run(&["--listen", listen, "--set", &users]);
            assert_eq!(code, Some(2), "{listen}: {said}");
            assert!(said.contains("protected_mode = false") && said.contains("users"), "{said}");
        }
    }
    let open = [&["--set", "protected_mode=false"][..], &["--set", "users=a on >pw +@all"]];
    for way_out in open.into_iter().chain([&["--set", "auth=passthrough"][..]]) {
        let mut args = vec!["check", "--listen", "0.0.0.0:0", "--seeds", "127.0.0.1:1"];
        args.extend(way_out);
        let check =
            Command::new(env!("CARGO_BIN_EXE_slotway")).args(&args).output().expect("check");
        assert!(check.status.success(), "{way_out:?}: {check:?}");
    }
}

/// A failed login is told late, and nobody else waits for it.
#[test]
fn failures_take_longer_and_longer() {
    let proxy = Proxy::start(cluster(), &["--set", "users=a on >pw ~* +@all", "--workers", "1"]);
    let mut guesser = proxy.connect();
    for _ in 0..5 {
        guesser.send(&["AUTH", "a", "guess"]).expect("a guess");
    }
    guesser.send(&["PING"]).expect("a PING");
    let mut other = proxy.connect();
    let mut answered = 0;
    // Those that are over before the guesser has all its answers: one each if they waited with it.
    loop {
        for _ in 0..20 {
            assert!(ask(&mut other, "AUTH a pw").is_ok());
        }
        if proxy.metric("slotway_logins_total", "outcome=\"wrong\"") >= 5.0 {
            break;
        }
        answered += 20;
    }
    assert!(answered > 0, "others wait with it");
    for _ in 0..5 {
        let reply = guesser.receive().expect("an answer");
        assert!(reply.error().is_some_and(|e| e.starts_with("WRONGPASS")), "{reply:?}");
    }
    assert!(guesser.receive().expect("an answer").error().is_some_and(|e| e.starts_with("NOAUTH")));
    let log = proxy.log();
    assert!(log.contains("logins failed") && !log.contains("guess"), "{log}");
    assert_eq!(log.matches("logins failed").count(), 1, "{log}");
}

/// Who has not logged in says no more than a login needs, as at a server.
#[test]
fn strangers_have_the_limits_of_a_servers_strangers() {
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let mut admin = server.connect().expect("the server");
    assert!(ask(&mut admin, "ACL SETUSER default on >dpw").is_ok());
    everywhere("ACL SETUSER big on >pw ~* &* +@all");
    let proxy = Proxy::start(cluster(), &["--set", "users=default on >dpw ~* &* +@all"]);
    let passing = ["auth=passthrough", "users=default off"];
    let args: Vec<&str> = passing.iter().flat_map(|s| ["--set", s]).collect();
    let passing = Proxy::start(cluster(), &args);
    let large = "x".repeat((16 << 10) + 1);
    let fits = "x".repeat(16 << 10);
    for bytes in [
        "*11\r\n".to_owned(),
        format!("*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n${}\r\n", large.len()),
        format!("*2\r\n$4\r\nAUTH\r\n${}\r\n", 500 << 20),
        "*-1x\r\n".to_owned(),
        "*10\r\n$-1\r\n".to_owned(),
        format!("*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n${}\r\n{fits}\r\n*11\r\n", fits.len()),
    ] {
        let all = [server.addr(), proxy.listen, passing.listen].map(|addr| {
            let mut stream = TcpStream::connect(addr).expect("a connection");
            stream.write_all(bytes.as_bytes()).expect("bytes");
            let mut said = String::new();
            stream.read_to_string(&mut said).expect("the end");
            said
        });
        assert!(all[0].contains("Protocol error"), "{}", all[0]);
        let start = bytes.get(..40.min(bytes.len())).unwrap_or_default();
        assert_eq!(all[1], all[0], "{start}");
        assert_eq!(all[2], all[0], "{start}");
    }
    // Who is in may say more; a password of that size is nobody's.
    let mut conn = proxy.connect();
    assert!(ask(&mut conn, "AUTH dpw").is_ok());
    assert!(conn.command(&["SET", "big", &large]).expect("an answer").is_ok());
    let wrong = conn.command(&["AUTH", "default", &large]).expect("an answer");
    assert!(wrong.error().is_some_and(|e| e.starts_with("WRONGPASS")), "{wrong:?}");
    let mut conn = passing.connect();
    assert!(ask(&mut conn, "AUTH big pw").is_ok());
    assert!(conn.command(&["SET", "big", &large]).expect("an answer").is_ok());
    // The cluster's default user need not log in: its first command may be any.
    let open = Proxy::start(cluster(), &["--set", "auth=passthrough"]);
    let mut conn = open.connect();
    assert!(conn.command(&["SET", "big", &large]).expect("an answer").is_ok());
    let many: Vec<&str> = std::iter::once("MSET").chain(["big", "1"].repeat(20)).collect();
    assert!(open.connect().command(&many).expect("an answer").is_ok());
}

/// An address of this machine that is not loopback: who comes to it comes from it.
fn elsewhere() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent.
    socket.connect("192.0.2.1:9").expect("a route to somewhere");
    socket.local_addr().expect("an address").ip()
}

/// The cluster's default user is not everybody's, unless it has a password or protected_mode is off.
#[test]
fn strangers_from_elsewhere_are_not_the_default_user() {
    everywhere("ACL SETUSER far on >pw ~* &* +@all");
    let ip = elsewhere();
    assert!(!ip.is_loopback(), "this machine has no other address");
    let free = std::net::TcpListener::bind((ip, 0)).expect("a port").local_addr().expect("it");
    let start = |more: &[&str]| {
        let listen = free.to_string();
        let mut args = vec!["--set", "auth=passthrough", "--listen", &listen];
        args.extend(more);
        Proxy::start(cluster(), &args)
    };
    let proxy = start(&[]);
    for line in ["GET far:k", "AUTH default guess", "HELLO 2 AUTH default guess", "SUBSCRIBE a"] {
        let reply = ask(&mut Conn::tcp(free).expect("elsewhere"), line);
        assert!(reply.error().is_some_and(|e| e.starts_with("DENIED")), "{line}: {reply:?}");
    }
    let mut far = Conn::tcp(free).expect("elsewhere");
    assert!(ask(&mut far, "AUTH far pw").is_ok());
    assert!(ask(&mut far, "SET far:k 1").is_ok());
    assert!(ask(&mut proxy.connect(), "GET far:k").error().is_none(), "from this machine");
    assert!(ask(&mut proxy.connect(), "AUTH default any").is_ok());
    drop(proxy);
    let proxy = start(&["--set", "protected_mode=false"]);
    assert!(ask(&mut Conn::tcp(free).expect("elsewhere"), "GET far:k").error().is_none());
    drop(proxy);
}

/// Any password is right for such a user: that is one user, not as many as there are words.
#[test]
fn who_may_be_anybody_takes_one_place() {
    everywhere("ACL SETUSER wide on nopass ~* &* +@all");
    let passwords: Vec<String> = (0..12).map(|n| format!(">pw{n}")).collect();
    everywhere(&format!("ACL SETUSER many on {} ~* &* +@all", passwords.join(" ")));
    let args = ["--set", "auth=passthrough", "--set", "limits.users=12", "--workers", "1"];
    let proxy = Proxy::start(cluster(), &args);
    let mut held = Vec::new();
    for n in 0..15 {
        for name in ["default", "wide"] {
            let mut conn = proxy.connect();
            assert!(ask(&mut conn, &format!("AUTH {name} pw{n}")).is_ok(), "{name} {n}");
            assert_eq!(ask(&mut conn, "ACL WHOAMI").text().as_deref(), Some(name));
            held.push(conn);
        }
    }
    assert!(proxy.metric("slotway_cluster_users", "") <= 3.0);
    let mut refused = 0;
    for n in 0..12 {
        let mut conn = proxy.connect();
        let reply = ask(&mut conn, &format!("AUTH many pw{n}"));
        refused += usize::from(reply.error().is_some());
        held.push(conn);
    }
    assert_eq!(refused, 4, "eight passwords of one user at once");
    everywhere("ACL SETUSER another on >pw ~* &* +@all");
    assert!(ask(&mut proxy.connect(), "AUTH another pw").is_ok(), "others have places");
}

/// Who closes instead of waiting for the answer does not try passwords any faster.
#[test]
fn closing_the_connection_is_no_way_around_the_wait() {
    let proxy = Proxy::start(cluster(), &["--set", "users=a on >pw ~* +@all"]);
    let mut held = Vec::new();
    for _ in 0..600 {
        let mut conn = proxy.connect();
        conn.send(&["AUTH", "a", "guess"]).expect("a guess");
        held.push(conn);
    }
    eventually("the line is full", || {
        proxy.metric("slotway_logins_total", "outcome=\"throttled\"") > 0.0
    });
    drop(held);
    eventually("who knows the password gets in", || ask(&mut proxy.connect(), "AUTH a pw").is_ok());
}

/// A file of users that lets everybody in is not taken where everybody can come.
#[test]
fn an_open_file_of_users_is_refused_while_slotway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, "user a on >pw ~* +@all\n").unwrap();
    let free = std::net::TcpListener::bind("0.0.0.0:0").expect("a port").local_addr().expect("it");
    let (listen, users) = (free.to_string(), format!("users_file={}", file.display()));
    let proxy = Proxy::start(cluster(), &["--listen", &listen, "--set", &users]);
    let connect = || Conn::tcp((std::net::Ipv4Addr::LOCALHOST, free.port()).into()).expect("it");
    std::fs::write(&file, "user a on >pw ~* +@all\nuser default on nopass ~* +@all\n").unwrap();
    eventually("it is refused", || proxy.log().contains("can be reached from other machines"));
    let noauth = Some("NOAUTH Authentication required.");
    assert_eq!(ask(&mut connect(), "GET x").error(), noauth);
    std::fs::write(&file, "user b on >pw ~* +@all\n").unwrap();
    eventually("the next one is taken", || ask(&mut connect(), "AUTH b pw").is_ok());
}
