//! The configuration, the listeners and slotway itself are changed while clients are served.

mod access;
mod handover;
mod harness;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::common::{self, eventually, http_get, send};
use harness::{Slotway, To, ask, cluster, local, under_load, write_file};
use rustix::process::Signal;
use slotway::cluster::slot_of;
use slotway::sandbox::{Conn, Reply};

#[test]
fn a_changed_file_is_used_and_no_client_notices() {
    let slotway = Slotway::start_with("workers = 1\n[limits]\nheld = \"6MiB\"\n", |command| {
        command.env("SLOTWAY_LIMITS__HELD", "5MiB").args(["--set", "limits.scripts=3MiB"]);
    });
    let limit = |name: &str| slotway.metric("slotway_limit", &format!("limit=\"{name}\""));
    let mut conn = slotway.connect();
    let mut subscriber = slotway.connect();
    subscriber.command(&["SUBSCRIBE", "reload:news"]).unwrap();
    assert!(conn.command(&["FLUSHALL"]).unwrap().is_ok());
    let closed = under_load("changed", &[To::Tcp(slotway.listen)], |load| {
        slotway.change(
            "workers = 1\nread_from = \"prefer_replica\"\n[limits]\nclients = 77\nheld = \"7MiB\"\n\
             scripts = \"7MiB\"\nmemory = \"100MiB\"\nbulk = \"1KiB\"\n[commands]\ndeny = [\"flushall\"]\n[log]\n\
             level = \"debug\"\n[timeouts]\ncommand = \"4s\"\nprobe = \"100ms\"\n[topology]\nrefresh = \"1s\"\n[upstream]\n\
             client_name = \"other\"\n",
            "changed",
        );
        load.more();
    });
    assert_eq!(closed, 0, "kept connections were closed");
    assert_eq!((limit("clients"), limit("bulk")), (77.0, 1024.0));
    assert_eq!(
        (limit("held"), limit("scripts")),
        (5e0 * 1048576.0, 3.0 * 1048576.0),
        "the file won"
    );
    // On connections from before.
    let denied = conn.command(&["FLUSHALL"]).unwrap();
    assert!(denied.error().is_some_and(|e| e.contains("commands.deny")), "{denied:?}");
    assert!(conn.command(&["SET", "reload:r", "1"]).unwrap().is_ok());
    eventually("reads go to replicas", || {
        conn.command(&["GET", "reload:r"]).unwrap();
        slotway.metric("slotway_reads_total", "to=\"replica\"") > 0.0
    });
    conn.command(&["PUBLISH", "reload:news", "x"]).unwrap();
    let message = subscriber.receive().unwrap();
    assert_eq!(message.items().and_then(|m| m[2].text()).as_deref(), Some("x"), "{message:?}");
    let log = slotway.log();
    assert!(log.contains("commands.deny") && log.contains("flushall"), "{log}");
    assert!(!log.contains("key=\"limits.held\""), "{log}");
    assert!(!log.contains("that slotway takes beside it exceed"), "{log}");
    eventually("lines of level debug", || slotway.log().contains("DEBUG"));
    assert_eq!(slotway.metric("slotway_config_in_use", ""), 1.0);

    // What needs a restart is named, and the rest of the file is used.
    slotway.change("workers = 1\n[upstream]\nconnections = 2\n[limits]\nclients = 78\n", "changed");
    assert_eq!(limit("clients"), 78.0);
    assert_eq!(slotway.metric("slotway_config_in_use", ""), 0.0);
    assert_eq!(slotway.metric("slotway_config_restart_keys", ""), 1.0);
    let log = slotway.log();
    let line = log.lines().find(|line| line.contains("needs a restart")).unwrap_or_default();
    assert!(line.contains("upstream.connections") && line.contains("old=\"1\" new=\"2\""), "{log}");
    slotway.change("workers = 1\n[limits]\nclients = 78\n", "unchanged");
    let with_memory = "workers = 1\n[limits]\nclients = 78\nmemory = \"1024GiB\"\n";
    slotway.change(with_memory, "changed");
    let log = slotway.log();
    assert!(log.contains("limits.memory = 1048576 MiB and the 64 MiB that slotway takes"), "{log}");
    slotway.change("workers = 1\n[limits]\nclients = 78\n", "changed");
    assert_eq!(slotway.metric("slotway_config_in_use", ""), 1.0);
    assert!(conn.command(&["FLUSHALL"]).unwrap().is_ok(), "allowed again");
}

/// For writes whose outcome is unknown, as a node that has been told not to write lets their deadline
/// pass.
#[test]
fn what_a_client_sees_of_an_unknown_outcome_changes() {
    let file = |value: &str| {
        format!("[commands]\non_outcome_unknown = \"{value}\"\n[timeouts]\ncommand = \"300ms\"\n")
    };
    let key = "reload:unknown";
    let node = cluster().owner_of(slot_of(key.as_bytes())).expect("the owner");
    let mut direct = cluster().connect(&node).expect("a connection");
    let slotway = Slotway::start(&file("error"));
    let mut lost = || {
        let mut conn = slotway.connect();
        assert!(conn.command(&["SET", key, "1"]).expect("a reply").is_ok());
        assert!(direct.command(&["CLIENT", "PAUSE", "60000", "WRITE"]).expect("PAUSE").is_ok());
        let reply = conn.command(&["INCR", key]);
        assert!(direct.command(&["CLIENT", "UNPAUSE"]).expect("UNPAUSE").is_ok());
        reply
    };
    let reply = lost().expect("a reply");
    assert!(reply.error().is_some_and(|e| e.starts_with("OUTCOMEUNKNOWN ")), "{reply:?}");
    slotway.change_now(&file("disconnect"), "changed");
    let reply = lost();
    assert!(reply.is_err(), "the connection is closed in place of {reply:?}");
    slotway.change_now(&file("error"), "changed");
    let reply = lost().expect("a reply");
    assert!(reply.error().is_some_and(|e| e.starts_with("OUTCOMEUNKNOWN ")), "{reply:?}");
}

#[test]
fn the_announced_mode_changes() {
    let slotway = Slotway::start("announce_mode = \"standalone\"\n");
    // Of a client that stays.
    let mut conn = slotway.connect();
    let mut enabled = || {
        let info = conn.command(&["INFO", "cluster"]).expect("INFO").text().expect("text");
        info.lines().find_map(|l| l.strip_prefix("cluster_enabled:")).map(str::to_owned)
    };
    assert_eq!(enabled().as_deref(), Some("0"));
    slotway.change_now("announce_mode = \"cluster\"\n", "changed");
    assert_eq!(enabled().as_deref(), Some("1"));
    slotway.change_now("announce_mode = \"standalone\"\n", "changed");
    assert_eq!(enabled().as_deref(), Some("0"));
}

#[test]
fn an_invalid_file_changes_nothing_and_says_why() {
    let slotway = Slotway::start("[limits]\nclients = 50\n");
    let clients = || slotway.metric("slotway_limit", "limit=\"clients\"");
    let mut conn = slotway.connect();
    slotway.change("[limits]\nclients = 51\n[timeouts]\ncommand = \"soon\"\n[upstream]\npasword = \"hunter2\"\n", "invalid");
    let log = slotway.log();
    assert!(log.contains("proxy.toml:7: timeouts.command: "), "{log}");
    assert!(log.contains("proxy.toml:9: upstream.pasword: unknown key"), "{log}");
    assert!(!log.contains("hunter2"));
    assert_eq!((clients(), slotway.metric("slotway_config_in_use", "")), (50.0, 0.0));
    // So does an address that somebody else has.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [slotway.listen.to_string(), taken.local_addr().unwrap().to_string()];
    write_file(&slotway.folder, &addresses, slotway.admin, "[limits]\nclients = 52\n");
    eventually("it is refused", || {
        slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\"") == 2.0
    });
    assert!(slotway.log().contains("it is taken"), "{}", slotway.log());
    assert_eq!(clients(), 50.0);
    // SIGHUP needs no change of the file.
    send(&slotway.child, Signal::HUP);
    eventually("it is refused again", || {
        slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\"") == 3.0
    });
    assert!(conn.command(&["SET", "reload:invalid", "1"]).unwrap().is_ok());
    slotway.change("[limits]\nclients = 53\n", "changed");
    assert_eq!((clients(), slotway.metric("slotway_config_in_use", "")), (53.0, 1.0));
}

#[test]
fn a_config_map_that_is_swapped_is_used() {
    let folder = Slotway::folder();
    let (listen, admin) = (local(), local());
    let version = |name: &str, clients: u32| {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        write_file(
            &folder,
            &[listen.to_string()],
            admin,
            &format!("[limits]\nclients = {clients}\n"),
        );
    };
    version("..1", 31);
    std::os::unix::fs::symlink("..1", folder.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/proxy.toml", folder.join("proxy.toml")).unwrap();
    let (child, log) = Slotway::spawn(&folder.join("proxy.toml"), folder.join("log"), |_| {});
    let slotway = Slotway { folder: folder.clone(), listen, admin, child, log, ended: false };
    slotway.until_ready();
    assert_eq!(slotway.metric("slotway_limit", "limit=\"clients\""), 31.0);
    version("..2", 32);
    std::os::unix::fs::symlink("..2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    std::fs::remove_dir_all(folder.join("..1")).unwrap();
    eventually("the new one is used", || {
        slotway.metric("slotway_limit", "limit=\"clients\"") == 32.0
    });
    assert_eq!(slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\""), 0.0);
}

#[test]
fn workers_come_and_go_and_no_client_notices() {
    let slotway = Slotway::start("workers = 1\n");
    let workers = || slotway.metric("slotway_workers", "");
    let mut old: Vec<Conn> = (0..4).map(|_| slotway.connect()).collect();
    let closed = under_load("workers", &[To::Tcp(slotway.listen)], |load| {
        slotway.change("workers = 3\n", "changed");
        assert_eq!(workers(), 3.0);
        load.more();
        old.extend((0..4).map(|_| slotway.connect()));
        for conn in &mut old {
            assert!(conn.command(&["SET", "reload:workers", "1"]).unwrap().is_ok());
        }
        slotway.change("workers = 1\n", "changed");
        load.more();
        for conn in &mut old {
            assert!(conn.command(&["SET", "reload:workers", "2"]).unwrap().is_ok());
        }
        assert!(workers() > 1.0, "workers with clients stay");
        old.clear();
    });
    assert_eq!(closed, 0, "kept connections were closed");
    eventually("the superfluous workers end", || workers() == 1.0);
    assert_eq!(slotway.metric("slotway_worker_failures_total", ""), 0.0);
    assert!(slotway.connect().command(&["SET", "reload:workers", "3"]).unwrap().is_ok());
}

#[test]
fn listeners_are_added_and_removed_and_their_clients_stay() {
    let mut slotway = Slotway::start("");
    let first = slotway.listen;
    let (second, path) = (local(), slotway.folder.join("s.sock"));
    let mut old = slotway.connect();
    let addresses = [first.to_string(), second.to_string(), format!("unix:{}", path.display())];
    write_file(&slotway.folder, &addresses, slotway.admin, "");
    eventually("the new ones are listened on", || UnixStream::connect(&path).is_ok());
    let all = [To::Tcp(second), To::Unix(path.clone())];
    under_load("listeners", &all, |load| {
        let admin = local();
        write_file(&slotway.folder, &addresses[1..], admin, "");
        eventually("the first one is not listened on", || TcpStream::connect(first).is_err());
        let before = std::mem::replace(&mut slotway.admin, admin);
        slotway.until_ready();
        eventually("the admin listener is elsewhere", || http_get(before, "/healthz").is_none());
        load.more();
        assert!(old.command(&["SET", "reload:listeners", "1"]).unwrap().is_ok());
    });
    write_file(&slotway.folder, &addresses[1..2], slotway.admin, "");
    eventually("the path is gone", || !path.exists());
    assert!(old.command(&["GET", "reload:listeners"]).unwrap().text().is_some());
    slotway.listen = second;
    assert!(slotway.connect().command(&["GET", "reload:listeners"]).is_ok());
}

#[test]
fn replies_are_what_they_seem() {
    // The load's own check: a reply that is none is a failure.
    let slotway = Slotway::start("[commands]\ndeny = [\"get\"]\n");
    let mut conn = To::Tcp(slotway.listen).connect().unwrap();
    assert!(ask(&mut conn, "reload:check", 0).is_ok());
    assert!(ask(&mut conn, "reload:check", 1).is_err());
    assert!(matches!(slotway.connect().command(&["PING"]), Ok(Reply::Simple(_))));
}

#[test]
fn a_signal_under_load_and_the_service_manager_is_told() {
    let socket = Slotway::folder().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let slotway = Slotway::start_with("workers = 2\n", |command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    let next = |wanted: &str| loop {
        let mut text = [0; 4096];
        let length = heard.recv(&mut text).expect("it is told");
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    };
    next("READY=1");
    let closed = under_load("hup", &[To::Tcp(slotway.listen)], |load| {
        for n in 0..8 {
            send(&slotway.child, Signal::HUP);
            assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
            next("READY=1");
            if n % 4 == 0 {
                load.more();
            }
        }
    });
    assert_eq!(closed, 0, "kept connections were closed");
    assert_eq!(slotway.metric("slotway_config_reloads_total", "outcome=\"unchanged\""), 8.0);
    slotway.write("workers = 2\nworkes = 3\n");
    next("RELOADING=1");
    assert!(next("READY=1").contains("the one from before stays in use"));
}
