//! Clients that do not log in: they are closed at `timeouts.login` with an error, and what they
//! occupied is there for others.

use std::io::{Read, Write};
use std::net::TcpStream;

use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};

use crate::common::errors::assert_is;
use crate::common::tls::Ca;
use crate::common::{PATIENCE, Proxy, eventually, shared};

const WITH_USERS: [&str; 6] = [
    "--workers",
    "1",
    "--set",
    "users=app on >secret ~* &* +@all",
    "--set",
    "timeouts.login=300ms",
];

fn start(args: &[&str]) -> Proxy {
    Proxy::start(&shared().cluster, args)
}

fn closed_for(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("slotway_clients_disconnected_total", &format!("reason=\"{reason}\""))
}

#[test]
fn strangers_are_closed_with_an_error_and_their_places_are_free() {
    let args = [&WITH_USERS[..], &["--set", "limits.clients=20"]].concat();
    let proxy = start(&args);
    let mut user = proxy.connect();
    assert!(user.command(&["AUTH", "app", "secret"]).expect("AUTH").is_ok());
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("/proc").count();
    let before = descriptors();

    // Nothing, half a command, commands that need a login, and a wrong password.
    let mut strangers: Vec<Conn> = (0..19).map(|_| proxy.connect()).collect();
    strangers[0].send_raw(b"*2\r\n$4\r\nAUTH\r\n$").expect("to send");
    strangers[1].send(&["GET", "k"]).expect("to send");
    strangers[2].send(&["AUTH", "app", "wrong"]).expect("to send");
    for (at, stranger) in strangers.iter_mut().enumerate() {
        if at == 1 || at == 2 {
            assert!(stranger.receive().expect("a reply").error().is_some());
        }
        let error = stranger.receive().expect("the error");
        assert_is(&error, FailureId::LoginLate);
        stranger.receive().expect_err("and then the end");
    }
    assert_eq!(closed_for(&proxy, "login"), 19.0);
    assert_eq!(user.command(&["SET", "k", "v"]).expect("SET"), Reply::Simple("OK".into()));
    eventually("their descriptors are back", || descriptors() <= before + 6);
    drop(strangers);
    // Whoever logs in has a place, and stays.
    let mut others: Vec<Conn> = (0..18).map(|_| proxy.connect()).collect();
    for other in &mut others {
        assert!(other.command(&["AUTH", "app", "secret"]).expect("AUTH").is_ok());
    }
    // A login that comes later passes their deadline.
    proxy.connect().receive().expect("the error");
    assert_eq!(closed_for(&proxy, "login"), 20.0);
    assert!(others.iter_mut().all(|conn| conn.command(&["GET", "k"]).is_ok()));
}

#[test]
fn a_stranger_that_does_not_read_is_closed_too() {
    let proxy = start(&WITH_USERS);
    let mut deaf = TcpStream::connect(proxy.listen).expect("a connection");
    deaf.set_nonblocking(true).expect("to set it");
    // Errors that it never reads fill what there is between it and slotway.
    let commands = b"GET k\r\n".repeat(10_000);
    eventually("its errors are no longer taken", || {
        while deaf.write(&commands).is_ok_and(|n| n > 0) {}
        proxy.metric("slotway_buffer_bytes", "") > 100_000.0 || closed_for(&proxy, "login") == 1.0
    });
    eventually("it is closed", || proxy.metric("slotway_clients", "") == 0.0);
    assert_eq!(closed_for(&proxy, "login"), 1.0);
}

#[test]
fn a_logout_begins_the_time_again() {
    let proxy = start(&WITH_USERS);
    let mut conn = proxy.connect();
    assert!(conn.command(&["AUTH", "app", "secret"]).expect("AUTH").is_ok());
    assert_eq!(conn.command(&["RESET"]).expect("RESET"), Reply::Simple("RESET".into()));
    let error = conn.receive().expect("the error");
    assert_is(&error, FailureId::LoginLate);
}

#[test]
fn nobody_is_closed_where_nobody_has_to_log_in() {
    let open = ["--workers", "1", "--set", "timeouts.login=50ms"];
    let proxy = start(&open);
    let mut silent = proxy.connect();
    let mut other = proxy.connect();
    other.send(&["BLPOP", "nothing", "0.3"]).expect("to send");
    other.receive().expect("six times the limit");
    assert!(silent.command(&["SET", "k", "v"]).expect("SET").is_ok());
    assert_eq!(closed_for(&proxy, "login"), 0.0);
}

#[test]
fn the_clusters_users_have_to_log_in_only_where_its_default_user_has_a_password() {
    let passthrough =
        ["--workers", "1", "--set", "auth=passthrough", "--set", "timeouts.login=300ms"];
    // The default user is open: whoever has said nothing is that one.
    let proxy = start(&passthrough);
    let mut silent = proxy.connect();
    let mut other = proxy.connect();
    assert!(other.command(&["SET", "k", "v"]).expect("SET").is_ok());
    other.send(&["BLPOP", "nothing", "1"]).expect("to send");
    other.receive().expect("three times the limit");
    assert!(silent.command(&["SET", "k", "v"]).expect("SET").is_ok());
    assert_eq!(closed_for(&proxy, "login"), 0.0);
    drop(proxy);

    let options = ClusterOptions { password: Some("hunter2".into()), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let args = [&passthrough[..], &["--set", "upstream.password=hunter2"]].concat();
    let proxy = Proxy::start(&cluster, &args);
    let mut user = proxy.connect();
    assert!(user.command(&["AUTH", "default", "hunter2"]).expect("AUTH").is_ok());
    let mut stranger = proxy.connect();
    let error = stranger.receive().expect("the error");
    assert_is(&error, FailureId::LoginLate);
    assert!(user.command(&["SET", "k", "v"]).expect("SET").is_ok());
    assert_eq!(closed_for(&proxy, "login"), 1.0);
}

#[test]
fn a_handshake_is_no_login() {
    // The time begins at the handshake's end: whoever only connects is the handshake's to close.
    let folder = tempfile::tempdir().expect("a folder");
    let server = Ca::new(folder.path(), "ca").sign("server", &["localhost"]);
    let port = slotway::sandbox::free_port().expect("a port");
    let settings = [
        format!("tls.downstream.listen=127.0.0.1:{port}"),
        format!("tls.downstream.cert={}", server.cert.display()),
        format!("tls.downstream.key={}", server.key.display()),
        "tls.downstream.handshake_timeout=200ms".to_owned(),
    ];
    let mut args = WITH_USERS.to_vec();
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    let proxy = start(&args);
    let mut silent = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = Vec::new();
    let _ = silent.read_to_end(&mut text);
    assert!(text.is_empty() || text[0] != b'-', "no plain error on a TLS connection");
    assert_eq!(closed_for(&proxy, "login"), 0.0);
    assert_eq!(proxy.metric("slotway_tls_handshakes_total", "result=\"timeout\""), 1.0);
}
