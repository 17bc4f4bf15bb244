//! TLS on both sides, each on its own and together: against a cluster whose nodes speak TLS, with
//! clients of two implementations (rustls here, OpenSSL in redis-cli).
//!
//! The nodes' certificates are for `localhost` and `nodes.test`, which is the hostname that the
//! nodes announce, and not for 127.0.0.1, at which they are reached: so every connection shows
//! which name was looked for.

use crate::common::tls::{Ca, Client, Identity, client_config};
use crate::common::{self, Proxy, eventually};
use slotway::sandbox::{Cluster, ClusterOptions, Reply, free_port};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// What all tests share; nobody breaks it.
struct Setting {
    cluster: Cluster,
    /// The nodes' TLS ports.
    seeds: String,
    folder: tempfile::TempDir,
    /// Of the nodes and of slotway towards them.
    inside: Ca,
    /// Of clients and of slotway towards them.
    outside: Ca,
    node: Identity,
    server: Identity,
    app: Identity,
}

fn shared() -> &'static Setting {
    static SHARED: OnceLock<Setting> = OnceLock::new();
    SHARED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = Ca::new(folder.path(), "inside");
        let outside = Ca::new(folder.path(), "outside");
        let node = inside.sign("node", &["localhost", "nodes.test"]);
        let server = outside.sign("server", &["localhost"]);
        let app = outside.sign("app-1", &["app.test"]);
        let lines = [
            "tls-port {tls-port}".to_owned(),
            "tls-cluster yes".to_owned(),
            "tls-replication yes".to_owned(),
            "cluster-announce-hostname nodes.test".to_owned(),
            format!("tls-cert-file {}", node.cert.display()),
            format!("tls-key-file {}", node.key.display()),
            format!("tls-ca-cert-file {}", inside.file.display()),
        ];
        let options = ClusterOptions { replicas: 1, conf: lines.into(), ..Default::default() };
        let cluster = Cluster::start(options).expect("a cluster with TLS");
        let port = |addr: SocketAddr| {
            let mut conn = slotway::sandbox::Conn::tcp(addr).expect("a node");
            match conn.command(&["CONFIG", "GET", "tls-port"]).expect("its port") {
                Reply::Array(pair) => pair[1].text().expect("a port"),
                other => panic!("{other:?}"),
            }
        };
        let seeds: Vec<String> =
            cluster.addrs().into_iter().map(|a| format!("localhost:{}", port(a))).collect();
        let seeds = seeds.join(",");
        Setting { cluster, seeds, folder, inside, outside, node, server, app }
    })
}

fn set(key: &str, value: impl std::fmt::Display) -> [String; 2] {
    ["--set".to_owned(), format!("{key}={value}")]
}

/// Seeds, flags, and what is said of them.
type Case<'a> = (&'a str, Vec<Vec<String>>, &'a [&'a str]);

/// A slotway, and where it speaks TLS.
struct Secured {
    proxy: Proxy,
    tls: SocketAddr,
}

/// Its flags for TLS to the nodes.
fn upstream() -> Vec<String> {
    let s = shared();
    [
        set("tls.upstream.enabled", true),
        set("tls.upstream.ca", s.inside.file.display()),
        set("tls.upstream.cert", s.node.cert.display()),
        set("tls.upstream.key", s.node.key.display()),
    ]
    .concat()
}

/// Its flags for TLS to clients.
fn downstream(server: &Identity) -> (SocketAddr, Vec<String>) {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    let flags = [
        set("tls.downstream.listen", listen),
        set("tls.downstream.cert", server.cert.display()),
        set("tls.downstream.key", server.key.display()),
    ];
    (listen, flags.concat())
}

fn mutual(how: &str) -> Vec<String> {
    let ca = set("tls.downstream.client_ca", shared().outside.file.display());
    [set("tls.downstream.client_auth", how), ca].concat()
}

fn spawn(seeds: &str, flags: &[Vec<String>]) -> Proxy {
    let flags: Vec<&str> = flags.iter().flatten().map(String::as_str).collect();
    Proxy::spawn(&shared().cluster, seeds, &flags)
}

fn start(seeds: &str, flags: &[Vec<String>]) -> Proxy {
    let flags: Vec<&str> = flags.iter().flatten().map(String::as_str).collect();
    Proxy::start_with_seeds(&shared().cluster, seeds, &flags)
}

/// The slotway with TLS on both sides that most tests use.
fn both() -> &'static Secured {
    static BOTH: OnceLock<Secured> = OnceLock::new();
    BOTH.get_or_init(|| {
        let (tls, flags) = downstream(&shared().server);
        let more = [
            set("tls.downstream.user_from", "cn"),
            set("tls.downstream.handshake_timeout", "700ms"),
            set("log.level", "debug"),
        ];
        let flags = [upstream(), flags, mutual("optional"), more.concat()];
        Secured { proxy: start(&shared().seeds, &flags), tls }
    })
}

fn config(identity: Option<&Identity>) -> Arc<rustls::ClientConfig> {
    Arc::new(client_config(&shared().outside.file, identity, false))
}

fn client(at: &Secured) -> Client {
    Client::connect(at.tls, &config(None)).expect("a connection with TLS")
}

/// redis-cli with TLS: exit code and what it printed.
fn redis_cli(port: u16, args: &[&str]) -> (bool, String) {
    let output = Command::new("redis-cli")
        .args(["-h", "localhost", "-p", &port.to_string(), "--tls", "--cacert"])
        .arg(&shared().outside.file)
        .args(args)
        .output()
        .expect("redis-cli");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.trim().to_owned())
}

/// How many clients the nodes say slotway has, and how many of them came in plain text.
fn plain_connections() -> usize {
    let nodes = shared().cluster.addrs();
    let count = |addr: SocketAddr| {
        let mut conn = slotway::sandbox::Conn::tcp(addr).expect("a node");
        let list = conn.command(&["CLIENT", "LIST"]).expect("CLIENT LIST").text();
        let list = list.expect("a list");
        let ours = list.lines().filter(|line| line.contains("name=slotway-tls "));
        ours.filter(|line| line.contains(&format!("laddr={addr}"))).count()
    };
    nodes.into_iter().map(count).sum()
}

#[test]
fn tls_on_both_sides() {
    let both = both();
    let mut app = client(both);
    for i in 0..50 {
        assert_eq!(app.ask(&format!("SET both:{i} {i}")).unwrap(), "+OK");
        assert_eq!(
            app.ask(&format!("GET both:{i}")).unwrap(),
            format!("$1\r\n{i}").replace("$1", &format!("${}", i.to_string().len()))
        );
    }
    // A plain client of the same slotway, and one of OpenSSL.
    let mut plain = both.proxy.connect();
    assert_eq!(plain.command(&["GET", "both:7"]).unwrap(), Reply::Bulk(b"7".to_vec()));
    let (well, said) = redis_cli(both.tls.port(), &["GET", "both:8"]);
    assert!(well && said == "8", "{said}");
    // A dedicated connection, one of control's and one of the hub's have TLS, too.
    assert_eq!(app.ask("BLPOP both:none 0.01").unwrap(), "*-1");
    assert_eq!(app.ask("WATCH both:1").unwrap(), "+OK");
    let dbsize = app.ask("DBSIZE").unwrap();
    assert!(dbsize.starts_with(':'), "{dbsize}");
    assert!(
        both.proxy.metric("slotway_tls_handshakes_total", r#"side="upstream",result="ok""#) > 3.0
    );
    // Cluster clients are told the port that speaks TLS.
    let slots = app.ask("CLUSTER SLOTS").unwrap();
    assert!(slots.contains(&format!(":{}", both.tls.port())), "{slots}");
    assert!(app.ask("CLUSTER SHARDS").unwrap().contains("tls-port"));
    let expiry = "slotway_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(both.proxy.metric(expiry, "downstream"), 2_840_140_800.0);
}

#[test]
fn every_connection_to_a_node_has_tls() {
    let flags = [upstream(), set("upstream.client_name", "slotway-tls").to_vec()];
    let more = set("read_from", "any").to_vec();
    let proxy = start(&shared().seeds, &[flags[0].clone(), flags[1].clone(), more]);
    let mut conn = proxy.connect3();
    for i in 0..100 {
        let key = format!("every:{i}");
        assert!(conn.command(&["SET", &key, "v"]).unwrap().is_ok());
        conn.command(&["GET", &key]).unwrap();
    }
    conn.command(&["BLPOP", "every:none", "0.01"]).unwrap();
    conn.command(&["SUBSCRIBE", "every"]).unwrap();
    assert_eq!(plain_connections(), 0);
}

#[test]
fn tls_towards_clients_only() {
    let (tls, flags) = downstream(&shared().server);
    let mut seeds: Vec<String> = shared().cluster.addrs().iter().map(ToString::to_string).collect();
    seeds.truncate(2);
    let newest = set("tls.downstream.min_version", "1.3").to_vec();
    let proxy = start(&seeds.join(","), &[flags, mutual("required"), newest]);
    let good = Arc::new(client_config(&shared().outside.file, Some(&shared().app), false));
    let mut app = Client::connect(tls, &good).unwrap();
    assert_eq!(app.ask("SET only:1 v").unwrap(), "+OK");
    assert_eq!(app.ask("GET only:1").unwrap(), "$1\r\nv");

    let outside = &shared().outside.file;
    let expired = shared().outside.sign_for("expired", &["app.test"], 1);
    for (what, result, config) in [
        ("TLS 1.2", "incompatible", client_config(outside, Some(&shared().app), true)),
        ("no certificate", "certificate", client_config(outside, None, false)),
        ("another CA's", "certificate", client_config(outside, Some(&shared().node), false)),
        ("an expired one", "certificate", client_config(outside, Some(&expired), false)),
    ] {
        let label = format!(r#"side="downstream",result="{result}""#);
        let count = || proxy.metric("slotway_tls_handshakes_total", &label);
        let before = count();
        let asked = Client::connect(tls, &Arc::new(config)).and_then(|mut c| c.ask("PING"));
        assert!(asked.is_err(), "{what}: {asked:?}");
        eventually("it is counted", || count() == before + 1.0);
    }
    assert!(proxy.log().contains("a TLS handshake has failed"), "{}", proxy.log());
    assert_eq!(app.ask("PING").unwrap(), "+PONG");
}

#[test]
fn the_certificate_names_the_user() {
    let both = both();
    let mut app = Client::connect(both.tls, &config(Some(&shared().app))).unwrap();
    assert_eq!(app.ask("PING").unwrap(), "+PONG");
    eventually("the name is known", || both.proxy.log().contains("name=app-1"));
}

#[test]
fn a_check_of_a_node_that_fails_is_told_to_the_client_and_in_the_log() {
    let s = shared();
    let [enabled, ca, cert, key] = [0, 2, 4, 6].map(|at| upstream()[at..at + 2].to_vec());
    let by_ip = s.seeds.replace("localhost", "127.0.0.1");
    let wrong_ca = set("tls.upstream.ca", s.outside.file.display()).to_vec();
    let wrong_name = set("tls.upstream.server_name", "other.test").to_vec();
    let quick = set("timeouts.command", "300ms").to_vec();
    let identity = [cert, key].concat();
    let cases: [Case<'_>; 5] = [
        (
            &s.seeds,
            vec![enabled.clone(), wrong_ca, identity.clone()],
            &["name localhost", "signed by none of the CAs in tls.upstream.ca"],
        ),
        (
            &s.seeds,
            vec![enabled.clone(), ca.clone(), identity.clone(), wrong_name.clone()],
            &["not for the name other.test", "only for", "nodes.test"],
        ),
        (
            &by_ip,
            vec![enabled.clone(), ca.clone(), identity.clone()],
            &["not for the name 127.0.0.1"],
        ),
        (
            &s.seeds,
            vec![enabled.clone(), ca.clone()],
            &["refuses slotway's certificate or misses one, see tls.upstream.cert"],
        ),
        // The plain port of a node.
        (
            &s.cluster.addrs()[0].to_string().replace("127.0.0.1", "localhost"),
            vec![upstream()],
            &["TLS, name localhost"],
        ),
    ];
    for (seeds, mut flags, told) in cases {
        flags.push(quick.clone());
        let proxy = spawn(seeds, &flags);
        eventually("it is in the log", || told.iter().all(|text| proxy.log().contains(text)));
        let mut conn = proxy.connect();
        let reply = conn.command(&["GET", "check:1"]).unwrap();
        let error = reply.error().expect("an error").to_owned();
        assert!(told.iter().all(|text| error.contains(text)), "{told:?}: {error}");
    }
    // The same name is of no interest where only the CA is checked.
    let chain = set("tls.upstream.verify", "chain").to_vec();
    let proxy = start(&by_ip, &[enabled, ca, identity, wrong_name, chain]);
    assert!(proxy.connect().command(&["SET", "check:1", "v"]).unwrap().is_ok());
}

#[test]
fn certificates_are_read_again_without_losing_a_connection() {
    // As Kubernetes does it: the folder is a symbolic link that is replaced.
    let room = shared().folder.path().join("secret");
    std::fs::create_dir(&room).unwrap();
    let fill = |name: &str, identity: &Identity| {
        let folder = room.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(&identity.cert, folder.join("tls.crt")).unwrap();
        std::fs::copy(&identity.key, folder.join("tls.key")).unwrap();
    };
    let swap = |to: &str| {
        let fresh = room.join("fresh");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        std::fs::rename(fresh, room.join("data")).unwrap();
    };
    fill("one", &shared().server);
    let second = shared().outside.sign_for("second", &["localhost"], 50);
    fill("two", &second);
    // Whose key is another's.
    fill("three", &Identity { cert: second.cert.clone(), key: shared().server.key.clone() });
    swap("one");
    let data = room.join("data");
    let served = Identity { cert: data.join("tls.crt"), key: data.join("tls.key") };
    let (tls, flags) = downstream(&served);
    let proxy = start(&shared().seeds, &[upstream(), flags]);
    let config = config(None);
    let serial = |client: &Client| client.stream.conn.peer_certificates().unwrap()[0].to_vec();
    let mut old = Client::connect(tls, &config).unwrap();
    let first = serial(&old);
    assert_eq!(old.ask("SET again:1 v").unwrap(), "+OK");
    swap("two");
    proxy.signal(rustix::process::Signal::HUP);
    eventually("a new connection sees the new certificate", || {
        // Without what the client remembers of the session.
        let config = self::config(None);
        serial(&Client::connect(tls, &config).unwrap()) != first
    });
    assert_eq!(old.ask("GET again:1").unwrap(), "$1\r\nv");
    let expiry = "slotway_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(proxy.metric(expiry, "downstream"), 3_155_760_000.0);
    // A broken one changes nothing; it is found without a signal.
    swap("three");
    eventually("it is said", || proxy.log().contains("is not this certificate's"));
    assert_eq!(proxy.metric("slotway_tls_reloads_total", "failed"), 1.0);
    assert_ne!(serial(&Client::connect(tls, &self::config(None)).unwrap()), first);
    assert_eq!(old.ask("GET again:1").unwrap(), "$1\r\nv");
}

#[test]
fn large_values_and_long_pipelines() {
    const LARGE: usize = 16 << 20;
    const MANY: usize = 10_000;
    let both = both();
    let mut app = client(both);
    let value: Vec<u8> = (0..LARGE).map(|i| ((i * 31) >> 3) as u8).collect();
    assert_eq!(app.command(&[b"SET", b"large:1", &value]).unwrap(), b"+OK\r\n");
    let got = app.command(&[b"GET", b"large:1"]).unwrap();
    assert_eq!(got.len(), LARGE + format!("${LARGE}\r\n\r\n").len());
    assert!(
        got.windows(1 << 16).next().is_some()
            && got[got.len() - 2 - LARGE..got.len() - 2] == value[..]
    );
    let pipeline: Vec<u8> =
        (0..MANY).flat_map(|i| format!("SET p:{i} {i}\r\nGET p:{i}\r\n").into_bytes()).collect();
    app.send(&pipeline).unwrap();
    for i in 0..MANY {
        assert_eq!(app.receive().unwrap(), b"+OK\r\n");
        let text = i.to_string();
        assert_eq!(app.receive().unwrap(), format!("${}\r\n{text}\r\n", text.len()).into_bytes());
    }
    app.ask("DEL large:1").unwrap();
}

#[test]
fn pubsub_over_tls() {
    let both = both();
    let (mut listener, mut speaker) = (client(both), client(both));
    assert!(listener.ask("HELLO 3").unwrap().starts_with('%'));
    assert_eq!(
        listener.ask("SUBSCRIBE tls:news").unwrap(),
        ">3\r\n$9\r\nsubscribe\r\n$8\r\ntls:news\r\n:1"
    );
    for i in 0..1000 {
        assert_eq!(speaker.ask(&format!("PUBLISH tls:news m{i:04}")).unwrap(), ":1");
    }
    for i in 0..1000 {
        let message = String::from_utf8(listener.receive().unwrap()).unwrap();
        assert!(message.contains(&format!("m{i:04}")), "{message}");
    }
}

#[test]
fn garbage_and_silence_on_the_tls_port() {
    let both = both();
    let count = |result: &str| {
        both.proxy.metric(
            "slotway_tls_handshakes_total",
            &format!(r#"side="downstream",result="{result}""#),
        )
    };
    let mut app = client(both);
    let (not_tls, timeout) = (count("not_tls"), count("timeout"));
    // Somebody who does not know about TLS.
    let mut plain = TcpStream::connect(both.tls).unwrap();
    plain.set_read_timeout(Some(common::PATIENCE)).unwrap();
    plain.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    let mut got = Vec::new();
    let _ = plain.read_to_end(&mut got);
    assert!(!got.contains(&b'+'), "{got:?}");
    eventually("it is counted", || count("not_tls") == not_tls + 1.0);
    // Some who say nothing, and some who begin and go no further: a ClientHello's first bytes.
    let half: Vec<TcpStream> = (0..20)
        .map(|i| {
            let mut socket = TcpStream::connect(both.tls).unwrap();
            if i % 2 == 0 {
                socket.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).unwrap();
            }
            socket
        })
        .collect();
    // Nobody else waits for them.
    for _ in 0..100 {
        assert_eq!(app.ask("PING").unwrap(), "+PONG");
    }
    assert_eq!(client(both).ask("PING").unwrap(), "+PONG");
    eventually("they are closed", || count("timeout") == timeout + 20.0);
    for mut socket in half {
        socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
    assert_eq!(app.ask("PING").unwrap(), "+PONG");
}

#[test]
fn what_is_wrong_with_the_files_is_said_before_anything_runs() {
    let s = shared();
    let folder: &Path = s.folder.path();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let check = |flags: &[[String; 2]]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slotway"))
            .args(["check", "--seeds", "a:1"])
            .args(flags.iter().flatten())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let cert = set("tls.downstream.cert", s.server.cert.display());
    let key = set("tls.downstream.key", s.server.key.display());
    let listen = set("tls.downstream.listen", "127.0.0.1:0");
    let (code, text) = check(&[listen.clone(), cert.clone(), key.clone()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("# tls.downstream.cert: common name server; names localhost; valid for"),
        "{text}"
    );
    assert!(!text.contains("PRIVATE"), "{text}");

    let missing = set("tls.downstream.cert", "/nonexistent/tls.crt");
    let empty = set("tls.downstream.key", write("empty.key", "").display());
    let swapped = set("tls.downstream.key", s.server.cert.display());
    let others = set("tls.downstream.key", s.app.key.display());
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = set("tls.downstream.key", write("locked.key", locked).display());
    for (flags, told) in [
        (
            vec![listen.clone(), missing, key.clone()],
            "--set tls.downstream.cert: /nonexistent/tls.crt cannot be read: No such file",
        ),
        (vec![listen.clone(), cert.clone(), empty], "has no private key in PEM format"),
        (vec![listen.clone(), cert.clone(), swapped], "it has CERTIFICATE"),
        (vec![listen.clone(), cert.clone(), others], "is not this certificate's"),
        (vec![listen.clone(), cert.clone(), locked], "the private key is encrypted"),
        (vec![listen.clone()], "tls.downstream.cert: has to be given with tls.downstream.listen"),
        (
            vec![listen, cert.clone()],
            "tls.downstream.key: has to be given with tls.downstream.cert",
        ),
        (vec![set("tls.upstream.verify", "chain")], "write tls.upstream.enabled = true"),
        (vec![set("tls.downstream.min_version", "1.1")], "\"1.2\" or \"1.3\""),
        (vec![set("listen", "")], "listen: is empty, and so is tls.downstream.listen"),
    ] {
        let (code, text) = check(&flags);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(told), "{told}: {text}");
    }
}
