//! What an operator sees: metrics as the real Prometheus reads them, health and readiness, logs;
//! and the end of the process.

use crate::common::{self, Proxy, Setting};
use rustix::process::Signal;
use serde_json::Value;
use slotway::sandbox::{Conn, Reply, free_port};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

#[test]
fn promtool_finds_nothing_to_say() {
    let proxy = &common::shared().proxy;
    use_a_little(proxy);
    let (status, metrics) = proxy.get("/metrics").expect("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (scripts/setup.sh test installs it)");
    let mut input = promtool.stdin.take().expect("its input");
    input.write_all(metrics.as_bytes()).expect("to write");
    drop(input);
    let output = promtool.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_scrapes_it() {
    let Setting { proxy, cluster } = common::shared();
    let (mut command, room) =
        cluster.command("prometheus", Path::new("prometheus")).expect("a folder for prometheus");
    let config = room.join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: slotway\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n  \
         static_configs:\n  - targets: ['{}']\n",
        proxy.admin
    );
    std::fs::write(&config, text).expect("its configuration");
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a free port")));
    let mut prometheus = command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", room.join("data").display()))
        .arg(format!("--web.listen-address={addr}"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(room.join("log")).expect("its log"))
        .spawn()
        .expect("prometheus (scripts/setup.sh test installs it)");

    // Something has to happen between two scrapes for a rate to be more than none.
    let scraped = |query: &str, wanted: &dyn Fn(f64) -> bool| {
        common::eventually(query, || {
            use_a_little(proxy);
            ask(addr, query).is_some_and(wanted)
        });
    };
    scraped("up{job='slotway'}", &|up| up == 1.0);
    scraped("slotway_slots_covered", &|slots| slots == 16384.0);
    scraped("count(slotway_upstream_connections{state='ready'} > 0)", &|nodes| nodes >= 3.0);
    scraped("sum(rate(slotway_commands_total{command='set',outcome='ok'}[5s]))", &|r| r > 0.0);
    scraped("sum(rate(slotway_commands_total{outcome='error'}[5s]))", &|r| r > 0.0);
    scraped("sum(rate(slotway_client_received_bytes_total[5s]))", &|r| r > 0.0);
    scraped("rate(process_cpu_seconds_total[5s])", &|r| r >= 0.0);
    let quantile =
        |name: &str| format!("histogram_quantile(0.99, sum by (le) (rate({name}_bucket[5s])))");
    for name in ["slotway_command_duration_seconds", "slotway_node_command_duration_seconds"] {
        // A write takes more than nothing and less than the test's patience.
        scraped(&quantile(name), &|s| s > 0.0 && s < common::PATIENCE.as_secs_f64());
    }
    common::send(&prometheus, Signal::TERM);
    common::wait(&mut prometheus, "prometheus ends");
}

/// The value of a query's first series.
fn ask(prometheus: SocketAddr, query: &str) -> Option<f64> {
    let escape = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (b as char).to_string(),
        other => format!("%{other:02X}"),
    };
    let query: String = query.bytes().map(escape).collect();
    let (_, body) = common::http_get(prometheus, &format!("/api/v1/query?query={query}"))?;
    let json: Value = serde_json::from_str(body.trim()).ok()?;
    json["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn series_do_not_grow_with_what_clients_send() {
    let setting = common::setting(&[]);
    let proxy = &setting.proxy;
    let strange = |conn: &mut Conn, n: usize| {
        let text = n.to_string();
        let replies = conn
            .pipeline(&[
                vec![format!("UNKNOWN{n}"), text.clone()],
                vec!["CONFIG".into(), format!("UNKNOWN{n}")],
                vec!["CLIENT".into(), "SETNAME".into(), format!("name-{n}")],
                vec!["SET".into(), format!("key:{n}"), text.clone()],
                vec!["MGET".into(), format!("key:{n}"), format!("other:{n}")],
                vec!["EVAL".into(), format!("return {n}"), "0".into()],
            ])
            .expect("replies");
        for at in [0, 1] {
            assert!(replies[at].error().is_some(), "{replies:?}");
        }
    };
    let mut conn = proxy.connect();
    for n in 0..100 {
        strange(&mut conn, n);
    }
    let series = || {
        let (_, text) = proxy.get("/metrics").expect("/metrics");
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<String> =
            names.filter_map(|l| Some(l.rsplit_once(' ')?.0.to_owned())).collect();
        names.sort();
        names
    };
    let before = series();
    assert!(
        before.contains(&"slotway_commands_total{command=\"unknown\",outcome=\"error\"}".into())
    );
    for n in 100..10_000 {
        strange(&mut conn, n);
    }
    let after = series();
    let new: Vec<&String> = after.iter().filter(|name| !before.contains(name)).collect();
    assert!(new.is_empty(), "{new:?}");
    let unknown = proxy.metric("slotway_commands_total", "command=\"unknown\"");
    assert!(unknown >= 10_000.0, "{unknown} unknown commands were counted");
}

#[test]
fn health_and_readiness_through_a_failover() {
    let Setting { proxy, cluster } = common::setting(&["--set", "topology.refresh=500ms"]);
    assert_eq!(proxy.get("/healthz"), Some((200, "ok\n".into())));
    assert_eq!(readiness(&proxy).0, 200);
    let primary = cluster.primaries().expect("primaries").remove(0);
    cluster.kill(&primary).expect("to kill a primary");
    let addr = primary.addr.to_string();
    common::eventually("what is missing is said", || {
        let (status, body) = readiness(&proxy);
        assert_eq!(proxy.get("/healthz"), Some((200, "ok\n".into())), "slotway itself lives");
        let unreachable = !body["unreachable"][&addr].is_null();
        let missing = body["missing_slots"].as_array().is_some_and(|slots| !slots.is_empty());
        status == 503 && body["ready"] == false && (unreachable || missing)
    });
    common::eventually("the replica has taken over", || readiness(&proxy).0 == 200);
    assert_eq!(proxy.metric("slotway_slots_covered", ""), 16384.0);
}

fn readiness(proxy: &Proxy) -> (u16, Value) {
    let (status, body) = proxy.get("/readyz").expect("/readyz");
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    let Setting { mut proxy, cluster } = common::setting(&[]);
    let node = cluster.primaries().expect("primaries").remove(0);
    let key = (0..)
        .map(|n| format!("key:{n}"))
        .find(|key| {
            let slot = slotway::cluster::slot_of(key.as_bytes());
            node.slots.iter().any(|range| range.contains(&slot.0))
        })
        .expect("a key");
    let (mut waits, mut idle) = (proxy.connect(), proxy.connect());
    assert!(waits.command(&["SET", &key, "0"]).expect("SET").is_ok());
    assert!(idle.command(&["PING"]).expect("PING").error().is_none());
    cluster.pause(&node).expect("SIGSTOP");
    waits.send(&["INCR", &key]).expect("to send");
    common::eventually("it is in flight", || {
        proxy.metric("slotway_upstream_in_flight", &format!("node=\"{}\"", node.addr)) == 1.0
    });
    proxy.signal(Signal::TERM);
    common::eventually("slotway is not ready any more", || {
        let (status, body) = readiness(&proxy);
        status == 503 && body["reasons"].to_string().contains("draining")
    });
    assert_eq!(proxy.get("/healthz"), Some((200, "ok\n".into())), "and is well");
    common::eventually("nobody is accepted any more", || TcpStream::connect(proxy.listen).is_err());
    assert!(idle.receive().is_err(), "an idle client is closed");
    cluster.resume(&node).expect("SIGCONT");
    assert_eq!(waits.receive().expect("its reply"), Reply::Int(1));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn what_is_not_answered_ends_with_the_drain() {
    let Setting { mut proxy, cluster } = common::setting(&["--set", "timeouts.drain=500ms"]);
    let mut conn = proxy.connect();
    for node in cluster.primaries().expect("primaries") {
        cluster.pause(&node).expect("SIGSTOP");
    }
    conn.send(&["SET", "key", "v"]).expect("to send");
    common::eventually("it is in flight", || proxy.metric("slotway_upstream_in_flight", "") == 1.0);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    // An error that says what is known, or the end of the connection; never success.
    assert!(conn.receive().map_or(true, |reply| reply.error().is_some()));
}

#[test]
fn sigterm_under_load_loses_no_reply() {
    let Setting { mut proxy, cluster } = common::setting(&[]);
    let addr = proxy.listen;
    let key = |client: usize| format!("load:{client}");
    let answered: Vec<i64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|c| scope.spawn(move || push(addr, &key(c)))).collect();
        common::eventually("the load is there", || {
            proxy.metric("slotway_commands_total", "command=\"incr\",outcome=\"ok\"") > 5_000.0
        });
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.wait().code(), Some(0));
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    for (client, answered) in answered.into_iter().enumerate() {
        let slot = slotway::cluster::slot_of(key(client).as_bytes());
        let node = cluster.owner_of(slot).expect("an owner");
        let mut conn = cluster.connect(&node).expect("a connection");
        let executed = conn.command(&["GET", &key(client)]).expect("GET").text();
        assert_eq!(executed, Some(answered.to_string()), "executed and answered, client {client}");
    }
}

/// Counts up, in windows of commands, until the connection ends. Returns the last reply.
fn push(addr: SocketAddr, key: &str) -> i64 {
    let mut conn = Conn::tcp(addr).expect("a connection");
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let window = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len()).repeat(100);
    let mut last = 0;
    loop {
        // What slotway has answered is still to be read when it does not take any more.
        let sent = conn.send_raw(window.as_bytes());
        for _ in 0..100 {
            match conn.receive() {
                Ok(reply) => {
                    assert_eq!(reply, Reply::Int(last + 1));
                    last += 1;
                }
                Err(_) => return last,
            }
        }
        if sent.is_err() {
            return last;
        }
    }
}

#[test]
fn logs_are_structured_and_silent_about_commands() {
    for format in ["text", "json"] {
        let Setting { proxy, cluster } =
            common::setting(&["--set", &format!("log.format={format}"), "--workers", "1"]);
        use_a_little(&proxy);
        // The first commands have opened the connections; nothing is worth a line from here on.
        let before = proxy.log().lines().count();
        let mut conn = proxy.connect();
        let commands: Vec<Vec<String>> = (0..2_000)
            .flat_map(|n| {
                let key = format!("secret-key:{n}");
                [
                    vec!["SET".into(), key.clone(), "secret-value".into()],
                    vec!["LPUSH".into(), key.clone(), "wrong type".into()],
                    vec!["NOSUCHCOMMAND".into(), key],
                ]
            })
            .collect();
        let replies = conn.pipeline(&commands).expect("replies");
        assert_eq!(replies.iter().filter(|reply| reply.error().is_some()).count(), 4_000);
        drop(conn);
        proxy.connect().send_raw(b"*1\r\nnonsense\r\n").expect("to send");
        let log = proxy.log();
        assert!(log.lines().count() <= before + 1, "{log}");

        // Something that is.
        let node = cluster.primaries().expect("primaries").remove(0);
        let mut admin = cluster.connect(&node).expect("a connection");
        admin.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("CLIENT KILL");
        let addr = node.addr.to_string();
        common::eventually("a lost connection is told", || {
            proxy.log().lines().any(|line| line.contains("lost") && line.contains(&addr))
        });
        let log = proxy.log();
        assert!(!log.contains("secret"), "what clients send is in the log");
        assert!(!log.contains('\x1b'), "colours in a file");
        for line in log.lines() {
            let level = if format == "json" {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                for field in ["timestamp", "level", "message", "target"] {
                    assert!(line[field].is_string(), "no {field}: {line}");
                }
                if line["message"].as_str().is_some_and(|text| text.contains("lost")) {
                    assert_eq!(line["node"], addr);
                }
                line["level"].as_str().unwrap_or_default().to_owned()
            } else {
                let mut words = line.split_whitespace();
                let time = words.next().unwrap_or_default();
                assert!(time.starts_with("20") && time.ends_with('Z'), "no time: {line}");
                words.next().unwrap_or_default().to_owned()
            };
            assert!(["ERROR", "WARN", "INFO"].contains(&level.as_str()), "{level}: {line}");
        }
    }
}

/// Some of everything, errors too.
fn use_a_little(proxy: &Proxy) {
    let mut conn = proxy.connect();
    for n in 0..20 {
        let key = format!("little:{n}");
        assert!(conn.command(&["SET", &key, "v"]).expect("SET").is_ok());
        assert_eq!(conn.command(&["GET", &key]).expect("GET"), Reply::Bulk(b"v".to_vec()));
        assert!(conn.command(&["LPUSH", &key, "v"]).expect("LPUSH").error().is_some());
    }
}
