//! Behind load balancers: the PROXY protocol, which names the client, and `timeouts.max_age`, by
//! which clients spread over slotways that were started later.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::common::{PATIENCE, Proxy, eventually, shared, tls};
use slotway::sandbox::{Conn, Reply, free_port};

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [V2_SIGNATURE, &[version_command, family], &len, body].concat()
}

/// Slotway with another address that expects headers; gives that one's port.
fn start(args: &[&str]) -> (Proxy, u16) {
    let port = free_port().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let listen = format!("proxy_protocol.listen={address}");
    let mut all = vec!["--workers", "1", "--listen", &address, "--set", &listen];
    if !args.iter().any(|arg| arg.starts_with("proxy_protocol.trusted")) {
        all.extend(["--set", "proxy_protocol.trusted=127.0.0.1"]);
    }
    all.extend(args);
    (Proxy::start(&shared().cluster, &all), port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("to set it");
    stream
}

/// All that is sent until the other side closes.
fn read_all(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        text.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What follows `header` is CLIENT INFO; gives its reply's fields of that name.
fn info(stream: &mut (impl Read + Write), header: &[u8]) -> String {
    stream.write_all(header).expect("to send");
    stream.write_all(b"CLIENT INFO\r\nQUIT\r\n").expect("to send");
    read_all(stream)
}

fn headers(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("slotway_proxy_protocol_headers_total", &format!("result=\"{result}\""))
}

#[test]
fn the_client_is_seen_instead_of_the_load_balancer() {
    let (proxy, port) = start(&["--set", "slowlog.slower_than=1ms"]);
    let line = |header: &[u8]| info(&mut connect(port), header);
    let v4 = [192, 0, 2, 1, 198, 51, 100, 9, 0x9C, 0x40, 0x18, 0xEB];
    let mut v6 = [0u8; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[15] = 7;
    v6[31] = 1;
    v6[32..].copy_from_slice(&[0x9C, 0x40, 0x18, 0xEB]);
    for (header, client, local) in [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 6379\r\n".to_vec(),
            "192.0.2.1:40000",
            "198.51.100.9:6379",
        ),
        (b"PROXY TCP6 2001::7 ::1 40000 6379\r\n".to_vec(), "[2001::7]:40000", "[::1]:6379"),
        (v2(0x21, 0x11, &v4), "192.0.2.1:40000", "198.51.100.9:6379"),
        (v2(0x21, 0x11, &[&v4[..], &[4; 700]].concat()), "192.0.2.1:40000", "198.51.100.9:6379"),
        (v2(0x21, 0x21, &v6), "[2001::7]:40000", "[::1]:6379"),
    ] {
        let line = line(&header);
        assert!(line.contains(&format!(" addr={client} laddr={local} ")), "{line}");
        assert!(line.ends_with("+OK\r\n"), "{line}");
    }
    assert_eq!(headers(&proxy, "ok"), 5.0);
    // Nobody is named: the load balancer itself.
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ::1 ::1 1 1\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &v4),
        v2(0x21, 0x00, b"abc"),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        let line = line(&header);
        assert!(line.contains(" addr=127.0.0.1:"), "{line}");
    }
    assert_eq!(headers(&proxy, "local"), 6.0);

    // Byte by byte, and with the first command in the same packet.
    let mut slow = connect(port);
    for byte in b"PROXY TCP4 192.0.2.77 198.51.100.9 40000 6379\r\n" {
        slow.write_all(&[*byte]).expect("to send");
    }
    let line = info(&mut slow, b"");
    assert!(line.contains(" addr=192.0.2.77:40000 "), "{line}");
    let mut slow = connect(port);
    for byte in v2(0x21, 0x11, &v4) {
        slow.write_all(&[byte]).expect("to send");
    }
    assert!(info(&mut slow, b"").contains(" addr=192.0.2.1:40000 "));

    // Whatever names clients has the same address: CLIENT KILL, MONITOR, SLOWLOG.
    let mut named = Conn::tcp(([127, 0, 0, 1], port).into()).expect("a connection");
    named.send_raw(b"PROXY TCP4 192.0.2.5 198.51.100.9 1234 6379\r\n").expect("to send");
    let mut monitor = proxy.connect();
    assert!(monitor.command(&["MONITOR"]).expect("MONITOR").is_ok());
    named.send(&["BLPOP", "nothing", "0.1"]).expect("to send");
    named.receive().expect("BLPOP");
    named.command(&["CLIENT", "SETNAME", "x"]).expect("SETNAME");
    // The nodes' other clients are in its lines, too.
    let mut lines = std::iter::from_fn(|| monitor.receive().expect("a line").text());
    assert!(lines.any(|line| line.contains("192.0.2.5:1234")));
    let mut other = proxy.connect();
    let killed = other.command(&["CLIENT", "KILL", "ADDR", "192.0.2.5:1234"]).expect("KILL");
    assert_eq!(killed, Reply::Int(1));
    named.receive().expect_err("it is killed");
    // Where no header is expected nothing is different.
    let list = other.command(&["CLIENT", "INFO"]).expect("INFO").text().expect("a line");
    assert!(list.contains(" addr=127.0.0.1:"), "{list}");
}

#[test]
fn failed_logins_of_one_client_do_not_delay_another_behind_the_same_load_balancer() {
    let (proxy, port) = start(&["--set", "users=app on >secret ~* &* +@all"]);
    let client = |ip: &str| {
        let mut conn = Conn::tcp(([127, 0, 0, 1], port).into()).expect("a connection");
        let header = format!("PROXY TCP4 {ip} 198.51.100.9 40000 6379\r\n");
        conn.send_raw(header.as_bytes()).expect("to send");
        conn
    };
    // Enough failures that logins from that address have to wait in a line and some are refused.
    let mut attackers: Vec<Conn> = (0..300).map(|_| client("192.0.2.66")).collect();
    for attacker in &mut attackers {
        attacker.send(&["AUTH", "app", "wrong"]).expect("to send");
    }
    eventually("logins from that address are refused", || {
        proxy.metric("slotway_logins_total", "outcome=\"throttled\"") > 0.0
    });
    let mut user = client("192.0.2.1");
    assert!(user.command(&["AUTH", "app", "secret"]).expect("AUTH").is_ok());
    assert!(proxy.log().contains("192.0.2.66"), "the log names who has failed");
}

#[test]
fn headers_come_before_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = tls::Ca::new(folder.path(), "ca");
    let server = ca.sign("server", &["localhost"]);
    let port = free_port().expect("a port");
    let settings = [
        format!("tls.downstream.listen=127.0.0.1:{port}"),
        format!("tls.downstream.cert={}", server.cert.display()),
        format!("tls.downstream.key={}", server.key.display()),
        format!("proxy_protocol.listen=127.0.0.1:{port}"),
        "proxy_protocol.trusted=127.0.0.0/8".to_owned(),
    ];
    let mut args = vec!["--workers", "1"];
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    let proxy = Proxy::start(&shared().cluster, &args);

    let config = Arc::new(tls::client_config(&ca.file, None, false));
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut socket = connect(port);
    socket.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 6379\r\n").expect("to send");
    let conn = rustls::ClientConnection::new(Arc::clone(&config), name).expect("a client");
    let mut stream = rustls::StreamOwned::new(conn, socket);
    let line = info(&mut stream, b"");
    assert!(line.contains(" addr=192.0.2.1:40000 "), "{line}");
    // Without one the handshake is not begun, and nothing that a TLS client would misread is sent.
    tls::Client::connect(([127, 0, 0, 1], port).into(), &config).err().expect("no handshake");
    eventually("it is counted", || headers(&proxy, "missing") == 1.0);
    assert_eq!(proxy.metric("slotway_tls_handshakes_total", "side=\"downstream\""), 1.0);
}

#[test]
fn a_unix_socket_is_trusted_and_a_reload_changes_who_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("slotway.sock");
    let listen = format!("unix:{}", path.display());
    let file = folder.path().join("more.toml");
    let write = |trusted: &str| {
        let text = format!("[proxy_protocol]\nlisten = [\"{listen}\"]\ntrusted = [{trusted}]\n");
        std::fs::write(&file, text).expect("to write");
    };
    write("");
    let args = ["--workers", "1", "--listen", &listen, "--config", file.to_str().expect("a path")];
    let proxy = Proxy::start(&shared().cluster, &args);
    let mut stream = UnixStream::connect(&path).expect("a connection");
    let line = info(&mut stream, b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 6379\r\n");
    assert!(line.contains(" addr=192.0.2.1:40000 "), "{line}");

    // The same address without a header.
    std::fs::write(&file, "[timeouts]\nidle = \"1h\"\n").expect("to write");
    eventually("the reload", || {
        proxy.metric("slotway_config_reloads_total", "outcome=\"changed\"") == 1.0
    });
    let mut stream = UnixStream::connect(&path).expect("a connection");
    let line = info(&mut stream, b"");
    assert!(line.contains(&format!(" addr={}:0 ", path.display())), "{line}");
}

/// Slotway that closes clients after a second, and one that never does.
fn aging(age: &str) -> Proxy {
    let setting = format!("timeouts.max_age={age}");
    Proxy::start(&shared().cluster, &["--workers", "1", "--set", &setting])
}

fn aged(proxy: &Proxy) -> f64 {
    proxy.metric("slotway_clients_disconnected_total", "reason=\"max_age\"")
}

#[test]
fn old_connections_are_closed_between_replies() {
    let proxy = aging("1s");
    let mut silent = proxy.connect();
    let mut subscriber = proxy.connect();
    subscriber.command(&["SUBSCRIBE", "news"]).expect("SUBSCRIBE");
    // Many clients that never stop: each gets a reply to each command that it has sent.
    let addr = proxy.listen;
    let busy: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                let key = format!("age:{n}");
                let mut conn = Conn::tcp(addr).expect("a connection");
                let (mut sent, mut closed) = (0i64, 0);
                while closed < 2 {
                    match conn.command(&["INCR", &key]) {
                        Ok(reply) => {
                            sent += 1;
                            assert_eq!(reply.int(), Some(sent), "none was carried out unanswered");
                        }
                        // It was closed behind a reply: at most this one command was not taken.
                        Err(_) => {
                            closed += 1;
                            conn = Conn::tcp(addr).expect("a connection");
                        }
                    }
                }
            })
        })
        .collect();
    silent.receive().expect_err("a silent client is closed");
    subscriber.receive().expect_err("a subscriber is closed");
    for thread in busy {
        thread.join().expect("no client has lost a reply");
    }
    assert!(aged(&proxy) >= 2.0 + 16.0);
    eventually("all are gone", || proxy.metric("slotway_clients", "") == 0.0);
}

#[test]
fn transactions_and_blocking_commands_outlive_the_age() {
    let proxy = aging("300ms");
    let other = Proxy::start(&shared().cluster, &["--workers", "1"]);
    let mut transaction = proxy.connect();
    transaction.command(&["MULTI"]).expect("MULTI");
    transaction.command(&["SET", "age:t", "1"]).expect("SET");
    let mut watcher = proxy.connect();
    assert!(watcher.command(&["WATCH", "age:w"]).expect("WATCH").is_ok());
    let mut blocked = proxy.connect();
    blocked.send(&["BLPOP", "age:list", "0"]).expect("to send");
    // Its end shows that the age has passed, for those that are older, too.
    let mut silent = proxy.connect();
    silent.receive().expect_err("a silent client is closed");
    let mut late = proxy.connect();
    late.receive().expect_err("another one");

    assert_eq!(transaction.command(&["EXEC"]).expect("EXEC").items().map(<[_]>::len), Some(1));
    transaction.receive().expect_err("closed behind the reply");
    watcher.command(&["MULTI"]).expect("MULTI");
    watcher.command(&["SET", "age:w", "1"]).expect("SET");
    assert_eq!(watcher.command(&["EXEC"]).expect("EXEC").items().map(<[_]>::len), Some(1));
    watcher.receive().expect_err("closed behind the reply");
    let mut pusher = other.connect();
    assert_eq!(pusher.command(&["RPUSH", "age:list", "x"]).expect("RPUSH"), Reply::Int(1));
    assert_eq!(blocked.receive().expect("BLPOP").items().map(<[_]>::len), Some(2));
    blocked.receive().expect_err("closed behind the reply");
    assert_eq!(aged(&proxy), 5.0);
    assert_eq!(aged(&other), 0.0);
}

#[test]
fn a_client_that_reads_slowly_has_all_its_replies_first() {
    let proxy = aging("300ms");
    let mut slow = proxy.connect();
    let value = vec![b'v'; 1 << 20];
    let set: [&[u8]; 3] = [b"SET", b"age:large", &value];
    assert!(slow.command(&set).expect("SET").is_ok());
    for _ in 0..20 {
        slow.send(&["GET", "age:large"]).expect("to send");
    }
    // Younger ones have gone by then.
    for _ in 0..2 {
        proxy.connect().receive().expect_err("a silent client is closed");
    }
    for _ in 0..20 {
        assert!(slow.receive().expect("a reply") == Reply::Bulk(value.clone()));
    }
    slow.receive().expect_err("and then the end");
}
