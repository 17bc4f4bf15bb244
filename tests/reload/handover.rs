//! One process after another: `hand_over`, socket activation.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::harness::{KillOnPanic, Slotway, To, local, stop, under_load, write_file};
use crate::common::{self, eventually, eventually_ok, http_get};

#[test]
fn one_process_hands_over_to_the_next_under_load() {
    let folder = Slotway::folder();
    let (tcp, admin, path) = (local(), local(), folder.join("s.sock"));
    let addresses = [tcp.to_string(), format!("unix:{}", path.display())];
    write_file(&folder, &addresses, admin, "hand_over = \"on\"\nworkers = 2\n");
    let file = folder.join("proxy.toml");
    let (child, mut log) = Slotway::spawn(&file, folder.join("log-0"), |_| {});
    let mut child = KillOnPanic(child);
    let serves = |log: &Path| {
        std::fs::read_to_string(log).unwrap_or_default().contains("clients are accepted")
    };
    eventually("the first one serves", || serves(&log));
    let closed = under_load("hand", &[To::Tcp(tcp), To::Unix(path.clone())], |load| {
        for n in 1..=3 {
            let (next, next_log) = Slotway::spawn(&file, folder.join(format!("log-{n}")), |_| {});
            let next = KillOnPanic(next);
            eventually("the next one serves", || serves(&next_log));
            load.more();
            stop(&mut child.0, &log);
            load.more();
            assert!(path.exists(), "the old one has removed the new one's file");
            eventually("its admin listener answers", || {
                http_get(admin, "/readyz").is_some_and(|(status, _)| status == 200)
            });
            child = next;
            log = next_log;
        }
    });
    assert!(closed > 0, "connections were kept by a process that has ended");
    stop(&mut child.0, &log);
    assert!(!path.exists(), "the last one removes its file");
}

/// Over a Unix socket reply and end of the connection are two calls, and a client that is quick has
/// written its next command between them. It may find the connection closed when it writes; what it
/// could write is answered.
#[test]
fn what_a_client_could_write_to_a_unix_socket_is_answered() {
    for n in 0..3 {
        let folder = Slotway::folder();
        let path = folder.join("s.sock");
        write_file(&folder, &[format!("unix:{}", path.display())], local(), "workers = 1\n");
        let file = folder.join("proxy.toml");
        let (child, log) = Slotway::spawn(&file, folder.join("log"), |_| {});
        let mut child = KillOnPanic(child);
        eventually("it serves", || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("clients are accepted")
        });
        let (path, answered) = (&path, &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..24 {
                scope.spawn(move || {
                    let mut conn = UnixStream::connect(path).unwrap();
                    conn.set_read_timeout(Some(common::PATIENCE)).unwrap();
                    let command = format!("SET {n}:{client} 1\r\n");
                    while conn.write_all(command.as_bytes()).is_ok() {
                        let mut reply = [0; 5];
                        conn.read_exact(&mut reply).unwrap_or_else(|why| panic!("{why}"));
                        assert_eq!(&reply, b"+OK\r\n");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            eventually("they are answered", || answered.load(Ordering::Relaxed) > 2000);
            stop(&mut child.0, &log);
        });
    }
}

#[test]
fn a_new_process_that_does_not_know_the_cluster_gets_no_client() {
    let mut slotway = Slotway::start("hand_over = \"on\"\n");
    let wrong = Slotway::folder();
    write_file(
        &wrong,
        &[slotway.listen.to_string()],
        local(),
        "hand_over = \"on\"\n[upstream]\nuser = \"nobody\"\npassword = \"wrong\"\n",
    );
    let (child, log) = Slotway::spawn(&wrong.join("proxy.toml"), wrong.join("log"), |_| {});
    let mut other = KillOnPanic(child);
    eventually("it has tried", || {
        std::fs::read_to_string(&log).unwrap_or_default().contains("WARN")
    });
    under_load("wrong", &[To::Tcp(slotway.listen)], |load| load.more());
    stop(&mut other.0, &log);
    slotway.stop();
}

/// As systemd does it: the sockets as descriptors 3, 4 and 5, the process its own.
fn activate(file: &Path, log: &Path, sockets: [OwnedFd; 3]) -> Child {
    const SCRIPT: &str = "export LISTEN_FDS=3 LISTEN_PID=$$ LISTEN_FDNAMES=clients:local:admin; \
                          log=$1; shift; exec \"$@\" 3<&0 4<&1 5<&2 </dev/null >>\"$log\" 2>&1";
    let [first, second, third] = sockets;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(log).arg(env!("CARGO_BIN_EXE_slotway"));
    command.args(["run", "--config"]).arg(file);
    command.stdin(first).stdout(second).stderr(third);
    command.spawn().expect("sh")
}

#[test]
fn sockets_of_systemd_are_used_and_outlive_the_process() {
    let folder = Slotway::folder();
    let (tcp, http) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let path = folder.join("s.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let (listen, admin) = (tcp.local_addr().unwrap(), http.local_addr().unwrap());
    write_file(&folder, &[listen.to_string(), format!("unix:{}", path.display())], admin, "");
    let sockets = || -> [OwnedFd; 3] {
        [
            tcp.try_clone().unwrap().into(),
            unix.try_clone().unwrap().into(),
            http.try_clone().unwrap().into(),
        ]
    };
    let (file, log) = (folder.join("proxy.toml"), folder.join("log"));
    let mut child = KillOnPanic(activate(&file, &log, sockets()));
    let all = [To::Tcp(listen), To::Unix(path.clone())];
    under_load("activation", &all, |load| {
        for _ in 0..2 {
            eventually_ok("slotway answers on the admin socket", || {
                let page = http_get(admin, "/readyz");
                (page.as_ref().is_some_and(|(status, _)| *status == 200))
                    .then_some(())
                    .ok_or(format!("{page:?}"))
            });
            load.more();
            // Who connects in between waits in the sockets' queues.
            stop(&mut child.0, &log);
            child.0 = activate(&file, &log, sockets());
        }
    });
    stop(&mut child.0, &log);
    assert!(path.exists(), "the file is not slotway's");
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches("an inherited socket is used").count(), 9, "{log}");
}
