//! What is seen of commands: hot keys under load, big keys, slow commands and where their time
//! went; by PROXY, SLOWLOG and the admin listener.

use crate::common::errors::{assert_is, is_one_of};
use crate::common::{self, Proxy, Setting, eventually};
use serde_json::Value;
use slotway::cluster::slot_of;
use slotway::errors::FailureId;
use slotway::sandbox::{Conn, Node, Reply};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// Two workers and small samples, so that little load is enough.
const FLAGS: [&str; 6] =
    ["--workers", "2", "--set", "observe.sample=10", "--set", "slowlog.slower_than=60ms"];

fn setting() -> &'static Setting {
    static SHARED: OnceLock<Setting> = OnceLock::new();
    SHARED.get_or_init(|| common::setting(&FLAGS))
}

fn json(proxy: &Proxy, path: &str) -> Value {
    let (status, body) = proxy.get(path).expect(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// A map's field, of RESP3 or of RESP2's flat list.
fn field(reply: &Reply, name: &str) -> Reply {
    let found = match reply {
        Reply::Map(pairs) => pairs.iter().find(|(k, _)| k.text().as_deref() == Some(name)),
        Reply::Array(items) => {
            let mut pairs = items.chunks_exact(2);
            let at = pairs.find(|pair| pair[0].text().as_deref() == Some(name));
            return at.unwrap_or_else(|| panic!("no {name} in {reply:?}"))[1].clone();
        }
        other => panic!("no map: {other:?}"),
    };
    found.unwrap_or_else(|| panic!("no {name} in {reply:?}")).1.clone()
}

fn text(reply: &Reply, name: &str) -> String {
    field(reply, name).text().unwrap_or_default()
}

fn number(reply: &Reply, name: &str) -> f64 {
    match field(reply, name) {
        Reply::Double(x) => x,
        other => other
            .int()
            .map(|n| n as f64)
            .or_else(|| other.text()?.parse().ok())
            .unwrap_or_else(|| panic!("{name} is no number: {other:?}")),
    }
}

/// Of 20 commands: 6 GETs of one key, 2 SETs of another, the rest of keys all over.
fn load(proxy: &Proxy, stop: &AtomicBool, seed: usize) {
    let mut conn = proxy.connect();
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        let mut commands: Vec<Vec<String>> = Vec::new();
        let mut add = |words: &[&str]| commands.push(words.iter().map(|w| w.to_string()).collect());
        for i in 0..20 {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let other = format!("other:{}", (n >> 33) % 20_000);
            match i {
                0..6 => add(&["GET", "hot:read"]),
                6..8 => add(&["SET", "hot:write", "v"]),
                8..14 => add(&["GET", &other]),
                _ => add(&["SET", &other, "v"]),
            }
        }
        for reply in conn.pipeline(&commands).expect("replies") {
            assert!(reply.error().is_none(), "{reply:?}");
        }
    }
}

#[test]
fn hot_keys_are_found_under_load() {
    let Setting { proxy, cluster } = setting();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..4 {
            let stop = &stop;
            scope.spawn(move || load(proxy, stop, seed));
        }
        let top = || json(proxy, "/hotkeys?count=2");
        // A thousand samples are enough to tell 30 % from 10 % from next to nothing.
        common::eventually("samples", || proxy.metric("slotway_sampled_commands_total", "") > 1e3);
        let shown = top();
        stop.store(true, Ordering::Relaxed);
        assert_eq!((&shown["enabled"], &shown["sample"]), (&true.into(), &10.into()));
        let keys = shown["keys"].as_array().expect("keys");
        let names: Vec<&str> = keys.iter().filter_map(|k| k["key"].as_str()).collect();
        assert_eq!(names, ["hot:read", "hot:write"], "{shown}");
        let rate = |at: usize, name: &str| keys[at][name].as_f64().expect("a rate");
        let all = shown["commands_per_second"].as_f64().expect("a rate");
        for (at, share) in [(0, 0.3), (1, 0.1)] {
            let seen = rate(at, "per_second") / all;
            assert!((share * 0.7..share * 1.3).contains(&seen), "{names:?}: {seen} of {share}");
        }
        assert_eq!(rate(0, "writes_per_second"), 0.0);
        assert_eq!(rate(1, "reads_per_second"), 0.0);
        assert_eq!((&keys[0]["command"], &keys[1]["command"]), (&"get".into(), &"set".into()));
        for (key, shown) in [("hot:read", &keys[0]), ("hot:write", &keys[1])] {
            let slot = slot_of(key.as_bytes());
            let owner = cluster.owner_of(slot).expect("an owner").addr.to_string();
            assert_eq!(shown["slot"], u64::from(slot.0));
            assert_eq!(shown["node"], owner.as_str());
        }
    });
    for mut conn in [proxy.connect(), proxy.connect3()] {
        let reply = conn.command(&["PROXY", "HOTKEYS", "COUNT", "1"]).expect("a reply");
        let keys = reply.items().expect("keys");
        assert_eq!(keys.len(), 1, "both workers' keys are one list");
        assert_eq!(text(&keys[0], "key"), "hot:read");
        assert!(number(&keys[0], "per-second") > number(&keys[0], "error-per-second"));
        assert_eq!(number(&keys[0], "writes-per-second"), 0.0);
    }
    let mut conn = proxy.connect();
    let mut ask = |args: &[&str]| conn.command(args).expect("a reply");
    assert!(ask(&["PROXY", "HOTKEYS", "RESET"]).items().is_some_and(|keys| keys.len() > 1));
    let left = ask(&["PROXY", "HOTKEYS", "COUNT", "100"]);
    let left = left.items().expect("keys").iter().map(|key| text(key, "key"));
    assert!(!left.collect::<Vec<_>>().contains(&"hot:read".to_owned()), "forgotten");
    assert!(ask(&["PROXY", "HOTKEYS", "COUNT", "-1"]).error().is_some());
    assert!(ask(&["PROXY", "HOTKEYS", "NOSUCH"]).error().is_some());
    for wrong in [&["PROXY"][..], &["PROXY", "SLOWLOG"], &["PROXY", "NOSUCH"]] {
        let reply = ask(wrong);
        let unknown = [FailureId::WrongArity, FailureId::UnknownSubcommandOrArity];
        assert!(is_one_of(&reply, &unknown), "{wrong:?}: {reply:?}");
    }
    assert!(ask(&["PROXY", "HELP"]).items().is_some_and(|lines| lines.len() > 5));
}

#[test]
fn big_keys_are_found_whichever_way_they_pass() {
    let proxy = &setting().proxy;
    let mut conn = proxy.connect3();
    let big = |n: usize| "x".repeat(n);
    let mut ask = |args: &[&str]| conn.command(args).expect("a reply");
    assert!(ask(&["SET", "big:written", &big(400_000)]).is_ok());
    assert!(ask(&["MSET", "big:a", &big(50_000), "big:b", &big(60_000), "small", "x"]).is_ok());
    // Written in pieces too small to be told: seen when it is read.
    for _ in 0..300 {
        assert!(ask(&["APPEND", "big:read", &big(1000)]).int().is_some());
    }
    assert!(ask(&["GET", "big:read"]).text().is_some());
    assert!(ask(&["RPUSH", "big:list", &big(1020), &big(1020)]).int().is_some());
    for _ in 0..20 {
        assert!(ask(&["RPUSH", "big:list", &big(1000)]).int().is_some());
    }
    assert!(ask(&["LRANGE", "big:list", "0", "-1"]).items().is_some());
    assert!(ask(&["MSET", "big:c", &big(900), "big:d", &big(900), "big:e", &big(900)]).is_ok());
    assert!(ask(&["SETRANGE", "big:c", "20000", "end"]).int().is_some());
    assert!(ask(&["MGET", "big:c", "big:d", "big:e"]).items().is_some());
    // No value: an error, and a transaction.
    assert!(ask(&["SET", &big(5000), "x", &big(2000)]).error().is_some());

    let reply = ask(&["PROXY", "BIGKEYS", "COUNT", "6"]);
    let keys = reply.items().expect("keys");
    let seen: Vec<(String, f64, String, String)> = keys
        .iter()
        .map(|k| (text(k, "key"), number(k, "bytes"), text(k, "direction"), text(k, "command")))
        .collect();
    let want = [
        ("big:written", 400_000, "request", "set"),
        ("big:read", 300_000, "reply", "get"),
        ("big:b", 60_000, "request", "mset"),
        ("big:a", 50_000, "request", "mset"),
        ("big:list", 22_040, "reply", "lrange"),
        ("big:c", 20_003, "reply", "mget"),
    ];
    for ((key, bytes, direction, command), want) in seen.iter().zip(want) {
        assert_eq!((key.as_str(), direction.as_str(), command.as_str()), (want.0, want.2, want.3));
        // A reply that was handed on in pieces counts with its frame.
        let (bytes, want) = (*bytes as usize, want.1);
        assert!((want..want + 32).contains(&bytes), "{key}: {bytes}");
    }
    let shown = json(proxy, "/bigkeys?count=1");
    assert_eq!(shown["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["keys"][0]["key"], "big:written");
    assert_eq!(shown["keys"][0]["bytes"], 400_000);
    assert!(shown["keys"][0]["node"].is_string());
    let odd: &[&[u8]] = &[b"SET", b"odd\xff\"\n", &[b'x'; 500_000]];
    assert!(conn.command(odd).expect("a reply").is_ok());
    assert_eq!(json(proxy, "/bigkeys")["keys"][0]["key"], "odd\\xff\\\"\\n");
    let reset = conn.command(&["PROXY", "BIGKEYS", "RESET"]).expect("a reply");
    assert!(reset.items().is_some_and(|keys| keys.len() >= 6));
    assert_eq!(json(proxy, "/bigkeys")["keys"], Value::Array(Vec::new()));
    assert_eq!(proxy.get("/bigkeys?count=0").map(|(status, _)| status), Some(400));
}

/// The key's node answers nothing for a while: until `act` waits for it by way of `proxy`, and for
/// longer than is slow.
fn while_paused<T>(proxy: &Proxy, node: &Node, act: impl FnOnce() -> T) -> T {
    let cluster = &setting().cluster;
    let label = format!("node=\"{}\"", node.addr);
    cluster.pause(node).expect("to pause it");
    let resume = || {
        common::eventually("it is waited for", || {
            proxy.metric("slotway_upstream_in_flight", &label) > 0.0
        });
        thread::sleep(Duration::from_millis(150));
        cluster.resume(node).expect("to resume it");
    };
    thread::scope(|scope| {
        scope.spawn(resume);
        act()
    })
}

fn slow(conn: &mut Conn, what: &str) -> Reply {
    let mut found = None;
    common::eventually(what, || {
        let reply = conn.command(&["PROXY", "SLOWLOG", "GET", "-1"]).expect("a reply");
        let entries = reply.items().expect("entries").iter();
        let args = |entry: &Reply| -> String {
            let args = field(entry, "args");
            let args = args.items().expect("arguments").iter().filter_map(Reply::text);
            args.collect::<Vec<_>>().join(" ")
        };
        found = { entries }.find(|entry| args(entry) == what).cloned();
        found.is_some()
    });
    found.expect("it was found")
}

#[test]
fn slow_commands_say_where_their_time_went() {
    let Setting { proxy, cluster } = setting();
    let mut conn = proxy.connect3();
    let mut looking = proxy.connect();
    assert!(conn.command(&["CLIENT", "SETNAME", "patient"]).expect("a reply").is_ok());
    let keys = ["slow:1", "slow:2", "slow:3", "slow:4", "slow:5", "slow:6"];
    let node = cluster.owner_of(slot_of(b"slow:1")).expect("an owner");
    let elsewhere = keys
        .iter()
        .find(|key| cluster.owner_of(slot_of(key.as_bytes())).expect("an owner").addr != node.addr);
    let elsewhere = elsewhere.expect("a key of another node");
    let long = "x".repeat(200);

    // The connections are there: a node that is paused makes none.
    for key in keys {
        assert!(conn.command(&["GET", key]).expect("a reply").error().is_none());
    }
    // One slow command, and one that only waits behind it.
    let commands = [vec!["SET", "slow:1", &long], vec!["GET", elsewhere]];
    while_paused(proxy, &node, || conn.pipeline(&commands.map(Vec::from)).expect("replies"));
    let cut = format!("SET slow:1 {}... (72 more bytes)", "x".repeat(128));
    let entry = slow(&mut looking, &cut);
    assert_eq!(text(&entry, "node"), node.addr.to_string());
    assert_eq!(text(&entry, "client-name"), "patient");
    assert!(text(&entry, "client").starts_with("127.0.0.1:"));
    let times = ["duration", "queue", "node-time", "client-time"].map(|t| number(&entry, t));
    let [all, queue, node_time, client] = times;
    assert_eq!(all, queue + node_time + client);
    assert!(node_time >= 60_000.0 && queue < node_time && client < node_time, "{times:?}");

    // A command of many parts is shown by the part that it has waited for.
    let mut mget = vec!["MGET"];
    mget.extend(keys);
    while_paused(proxy, &node, || conn.command(&mget).expect("a reply"));
    // It is written down when its reply has been sent, which the client may see first.
    let (mut shown, mut entry) = Default::default();
    eventually("MGET is in the slow log", || {
        shown = json(proxy, "/slowlog?count=100");
        let entries = shown["entries"].as_array().expect("entries");
        entry = entries.iter().find(|entry| entry["command"] == "mget").cloned();
        entry.is_some()
    });
    let entry = entry.expect("MGET's entry");
    assert_eq!(entry["node"], node.addr.to_string().as_str());
    assert_eq!((&shown["slower_than_micros"], &shown["max_len"]), (&60_000.into(), &128.into()));
    assert!(shown["total"].as_u64() >= shown["len"].as_u64());

    // What is given up has waited longest of all.
    let impatient = Proxy::start(cluster, &["--set", "timeouts.command=500ms"]);
    let mut hasty = impatient.connect();
    assert!(hasty.command(&["GET", "slow:1"]).expect("a reply").error().is_none());
    cluster.pause(&node).expect("to pause it");
    let reply = hasty.command(&["SET", "slow:1", "late"]);
    cluster.resume(&node).expect("to resume it");
    assert_is(&reply.expect("a reply"), FailureId::Deadline);
    let entry = slow(&mut hasty, "SET slow:1 late");
    assert_eq!(text(&entry, "node"), node.addr.to_string());
    assert!(number(&entry, "duration") >= 500_000.0);

    // A transaction is one entry. Who waits because it wants to is none.
    let commands = [vec!["MULTI"], vec!["GET", "slow:1"], vec!["EXEC"]].map(Vec::from);
    while_paused(proxy, &node, || conn.pipeline(&commands).expect("replies"));
    slow(&mut looking, "EXEC");
    assert!(conn.command(&["BLPOP", "slow:none", "0.2"]).expect("a reply").error().is_none());

    // Redis's own form.
    let reply = looking.command(&["SLOWLOG", "GET", "-1"]).expect("a reply");
    let entries = reply.items().expect("entries");
    let line = |entry: &Reply| {
        let args = entry.items().expect("six")[3].items().expect("arguments").iter();
        args.filter_map(Reply::text).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = entries.iter().map(line).collect();
    for name in ["SET", "MGET", "EXEC"] {
        assert!(lines.iter().any(|line| line.starts_with(name)), "{lines:?}");
    }
    for entry in entries {
        assert_eq!(entry.items().map(<[Reply]>::len), Some(6));
    }
    let behind = format!("GET {elsewhere}");
    let innocent = |line: &String| line.starts_with("BLPOP") || *line == behind;
    assert!(!lines.iter().any(innocent), "{lines:?}");
    assert!(proxy.metric("slotway_slow_commands_total", "") >= 3.0);
}

#[test]
fn the_slow_log_is_set_as_a_server_s() {
    let setting = common::setting(&["--workers", "1"]);
    let proxy = &setting.proxy;
    let mut conn = proxy.connect();
    let mut ask = |args: &[&str]| conn.command(args).expect("a reply");
    assert_eq!(json(proxy, "/slowlog")["slower_than_micros"], 10_000);
    // What the nodes refuse holds nowhere.
    let both = ["CONFIG", "SET", "slowlog-log-slower-than", "0", "maxmemory", "nonsense"];
    assert!(ask(&both).error().is_some());
    assert_eq!(json(proxy, "/slowlog")["slower_than_micros"], 10_000);
    assert!(ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).is_ok());
    assert!(ask(&["SLOWLOG", "RESET"]).is_ok());
    assert!(ask(&["PING"]).error().is_none());
    assert!(ask(&["GET", "k"]).error().is_none());
    ask(&["AUTH", "default", "hunter2"]);
    ask(&["ACL", "SETUSER", "somebody", ">hunter2"]);
    ask(&["CONFIG", "SET", "masterauth", "hunter2"]);
    let many: Vec<String> = (0..40).map(|i| format!("{{t}}{i}")).collect();
    let del: Vec<&str> = ["DEL"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(ask(&del).int(), Some(0));
    assert!(ask(&["CONFIG", "SET", "masterauth", ""]).is_ok());
    let log = ask(&["SLOWLOG", "GET", "-1"]);
    let lines: Vec<String> = log
        .items()
        .expect("entries")
        .iter()
        .filter_map(|entry| entry.items()?.get(3)?.items().map(<[Reply]>::to_vec))
        .map(|args| args.iter().filter_map(Reply::text).collect::<Vec<_>>().join(" "))
        .collect();
    for want in [
        "SLOWLOG RESET",
        "PING",
        "GET k",
        "AUTH (redacted) (redacted)",
        "ACL SETUSER (redacted) (redacted)",
        "CONFIG SET masterauth (redacted)",
    ] {
        assert!(lines.iter().any(|line| line == want), "{want} is not in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.ends_with("{t}29 ... (10 more arguments)")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("hunter2")), "{lines:#?}");
    let ids: Vec<i64> = log
        .items()
        .expect("entries")
        .iter()
        .filter_map(|entry| entry.items()?.first()?.int())
        .collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "the newest first: {ids:?}");

    assert!(ask(&["CONFIG", "SET", "slowlog-max-len", "2"]).is_ok());
    assert_eq!(ask(&["SLOWLOG", "LEN"]).int(), Some(2));
    assert!(ask(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]).is_ok());
    assert!(ask(&["SLOWLOG", "RESET"]).is_ok());
    assert_eq!(ask(&["SLOWLOG", "LEN"]).int(), Some(0));
    assert_eq!(json(proxy, "/slowlog")["slower_than_micros"], -1);
    // The nodes have logs of their own.
    let nodes = ask(&["PROXY", "SLOWLOG", "NODES", "GET", "-1"]);
    assert!(nodes.items().is_some_and(|entries| entries.len() > 2), "{nodes:?}");
    assert!(ask(&["PROXY", "SLOWLOG", "NODES", "LEN"]).int().is_some_and(|n| n > 2));
    assert!(ask(&["PROXY", "SLOWLOG", "NODES", "RESET"]).is_ok());
    assert_eq!(ask(&["PROXY", "SLOWLOG", "NODES", "LEN"]).int(), Some(0));
    assert!(ask(&["PROXY", "SLOWLOG", "NODES", "NOSUCH"]).error().is_some());

    // Who may see what others do.
    let users = "users=reader on nopass ~* +@read,admin on nopass ~* +@all";
    let guarded =
        Proxy::start(&setting.cluster, &["--set", users, "--set", "observe.hot_keys=false"]);
    let mut conn = guarded.connect();
    assert!(conn.command(&["AUTH", "reader", "x"]).expect("a reply").is_ok());
    for denied in [&["PROXY", "HOTKEYS"][..], &["PROXY", "SLOWLOG", "GET"], &["SLOWLOG", "GET"]] {
        let reply = conn.command(denied).expect("a reply");
        assert!(reply.error().is_some_and(|e| e.starts_with("NOPERM")), "{denied:?}: {reply:?}");
    }
    assert!(conn.command(&["AUTH", "admin", "x"]).expect("a reply").is_ok());
    let reply = conn.command(&["PROXY", "HOTKEYS"]).expect("a reply");
    assert_eq!(reply, Reply::Array(Vec::new()), "nothing is looked at");
    assert_eq!(json(&guarded, "/hotkeys")["enabled"], false);
}

/// A collector that takes everything: the bodies of its requests. What is in them is read with
/// OpenTelemetry's own messages by tests/python/test_seen.py.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    let (sender, bodies) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a header");
                let line = line.trim().to_ascii_lowercase();
                match line.strip_prefix("content-length: ") {
                    Some(n) => length = n.parse().expect("a length"),
                    None if line.is_empty() => break,
                    None => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("the body");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.get_mut().write_all(answer).expect("to answer");
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    (endpoint, bodies)
}

#[test]
fn a_redirection_is_a_span_of_its_own() {
    let cluster = &setting().cluster;
    let (endpoint, bodies) = collector();
    let endpoint = format!("tracing.endpoint={endpoint}");
    let proxy = Proxy::start(cluster, &["--set", &endpoint, "--set", "tracing.sample=1"]);
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "moving:key", "hidden"]).expect("a reply").is_ok());
    let slot = slot_of(b"moving:key");
    let from = cluster.owner_of(slot).expect("an owner");
    let mut others = cluster.primaries().expect("primaries").into_iter();
    let to = others.find(|node| node.addr != from.addr).expect("another");
    cluster.move_slot(slot, &from, &to).expect("to move it");
    let reply = conn.command(&["GET", "moving:key"]).expect("a reply");
    assert_eq!(reply.text().as_deref(), Some("hidden"));
    let mut spans: Vec<Value> = Vec::new();
    let followed = serde_json::json!({"key": "slotway.followed", "value": {"boolValue": true}});
    let is_followed = |span: &Value| {
        span["attributes"].as_array().is_some_and(|attributes| attributes.contains(&followed))
    };
    while !spans.iter().any(is_followed) {
        let body = bodies.recv_timeout(common::PATIENCE).expect("spans of the redirection");
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("hidden") && !text.contains("moving:key"), "no keys, no values");
        let request: Value = serde_json::from_slice(&body).expect("OTLP/JSON");
        let found = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
        spans.extend(found.expect("spans").iter().cloned());
    }
    let redirected = spans.iter().find(|span| is_followed(span)).expect("it");
    assert_eq!((&redirected["name"], &redirected["kind"]), (&"GET".into(), &3.into()));
    assert_eq!(redirected["status"]["message"], "MOVED");
    assert!(spans.iter().any(|span| span["name"] == "queue"));
    assert!(proxy.metric("slotway_redirections_total", "moved") >= 1.0);
    common::eventually("it is counted", || {
        proxy.metric("slotway_trace_spans_total", "exported") >= 8.0
    });
    cluster.move_slot(slot, &to, &from).expect("to move it back");
}
