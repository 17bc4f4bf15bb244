//! The configuration, the listeners and slotway itself are changed while clients are served.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use common::{eventually, eventually_ok, http_get, send, wait};
use rustix::net::RecvFlags;
use rustix::process::Signal;
use slotway::sandbox::{Cluster, Conn, Reply, free_port};

/// One cluster for all tests here; it ends with the process.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(common::cluster)
}

/// A real slotway with everything in its file.
struct Slotway {
    folder: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
    child: Child,
    log: PathBuf,
    ended: bool,
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().expect("a free port")).into()
}

fn seeds() -> String {
    let seeds: Vec<String> = cluster().addrs().iter().map(|a| format!("\"{a}\"")).collect();
    seeds.join(", ")
}

impl Slotway {
    fn folder() -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("reload-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (_, folder) = cluster().command(&name, Path::new("true")).expect("a folder");
        folder
    }

    fn start(rest: &str) -> Slotway {
        Self::start_with(rest, |_| {})
    }

    /// `rest` is what follows `listen`, `admin` and `seeds` in the file.
    fn start_with(rest: &str, change: impl FnOnce(&mut Command)) -> Slotway {
        let (folder, listen, admin) = (Self::folder(), local(), local());
        write_file(&folder, &[listen.to_string()], admin, rest);
        let slotway = Self::spawn(&folder.join("proxy.toml"), folder.join("log"), change);
        let slotway =
            Slotway { folder, listen, admin, ended: false, child: slotway.0, log: slotway.1 };
        slotway.until_ready();
        slotway
    }

    fn spawn(file: &Path, log: PathBuf, change: impl FnOnce(&mut Command)) -> (Child, PathBuf) {
        let out = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.args(["run", "--config"]).arg(file).env_remove("LISTEN_FDS").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(out);
        change(&mut command);
        (command.spawn().expect("slotway"), log)
    }

    fn until_ready(&self) {
        eventually("slotway is ready", || {
            http_get(self.admin, "/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    fn write(&self, rest: &str) {
        write_file(&self.folder, &[self.listen.to_string()], self.admin, rest);
    }

    /// Writes and waits for what comes of it.
    fn change(&self, rest: &str, outcome: &str) {
        let label = format!("outcome=\"{outcome}\"");
        let before = self.metric("slotway_config_reloads_total", &label);
        self.write(rest);
        eventually(&format!("a reload: {outcome}"), || {
            self.metric("slotway_config_reloads_total", &label) > before
        });
    }

    fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.admin, name, labels)
    }

    fn connect(&self) -> Conn {
        Conn::tcp(self.listen).expect("a connection")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn stop(&mut self) {
        self.ended = true;
        stop(&mut self.child, &self.log);
    }
}

impl Drop for Slotway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
        } else if !self.ended {
            self.stop();
        }
    }
}

fn stop(child: &mut Child, log: &Path) {
    send(child, Signal::TERM);
    let status = wait(child, "slotway ends");
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(log).unwrap_or_default());
}

fn write_file(folder: &Path, listen: &[String], admin: SocketAddr, rest: &str) {
    let listen: Vec<String> = listen.iter().map(|l| format!("\"{l}\"")).collect();
    let text = format!(
        "listen = [{}]\nadmin = \"{admin}\"\nseeds = [{}]\n{rest}",
        listen.join(", "),
        seeds()
    );
    std::fs::write(folder.join("proxy.toml"), text).expect("a file");
}

fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let Some((_, text)) = http_get(admin, "/metrics") else { return f64::NAN };
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| {
        rest.starts_with(['{', ' ']) && (labels.is_empty() || rest.contains(labels))
    });
    samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Where the load goes.
#[derive(Clone)]
enum To {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Wire: Read + Write + AsFd + Send {}
impl Wire for TcpStream {}
impl Wire for UnixStream {}

impl To {
    fn connect(&self) -> std::io::Result<BufReader<Box<dyn Wire>>> {
        let wire: Box<dyn Wire> = match self {
            To::Tcp(addr) => {
                let stream = TcpStream::connect_timeout(addr, common::PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(common::PATIENCE))?;
                Box::new(stream)
            }
            To::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(common::PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(BufReader::new(wire))
    }
}

/// One request: a write, or a read of what the one before has written.
fn ask(conn: &mut BufReader<Box<dyn Wire>>, name: &str, number: usize) -> Result<(), String> {
    let key = format!("{name}:{}", number / 2 % 100);
    let (command, wanted) = match number % 2 {
        0 => (format!("SET {key} 1\r\n"), "+OK\r\n"),
        _ => (format!("GET {key}\r\n"), "$1\r\n1\r\n"),
    };
    let told = |e: std::io::Error| format!("{command:?}: {e}");
    conn.get_mut().write_all(command.as_bytes()).map_err(told)?;
    let mut reply = vec![0; wanted.len()];
    conn.read_exact(&mut reply).map_err(told)?;
    if reply == wanted.as_bytes() {
        return Ok(());
    }
    Err(format!("{command:?}: {:?}", String::from_utf8_lossy(&reply)))
}

/// The other side has closed it, and nothing was under way: what clients' pools look for.
fn is_closed(conn: &BufReader<Box<dyn Wire>>) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(conn.get_ref(), &mut byte[..], flags), Ok((0, _)))
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicUsize,
    reconnected: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, name: &str, to: &To, keep: bool) {
        let mut kept = None;
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if kept.as_ref().is_some_and(is_closed) {
                kept = None;
                self.reconnected.fetch_add(1, Ordering::Relaxed);
            }
            let conn = match kept.take() {
                Some(conn) => Ok(conn),
                None => to.connect().map_err(|e| format!("connect: {e}")),
            };
            let outcome = conn.and_then(|mut conn| {
                ask(&mut conn, name, number)?;
                if keep {
                    kept = Some(conn);
                }
                Ok(())
            });
            match outcome {
                Ok(()) => _ = self.asked.fetch_add(1, Ordering::Relaxed),
                Err(why) => self.failures.lock().unwrap().push(format!("{name}: {why}")),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The load goes on.
    fn more(&self) {
        let wanted = self.asked.load(Ordering::Relaxed) + 50;
        eventually("the load goes on", || {
            self.asked.load(Ordering::Relaxed) >= wanted
                || !self.failures.lock().unwrap().is_empty()
        });
    }
}

/// Clients that keep their connections and clients that make a new one each time, on all of `to`,
/// while `act` acts. Not one request fails. Gives how often a kept connection was closed.
fn under_load(name: &str, to: &[To], act: impl FnOnce(&Load)) -> usize {
    let load = Load::default();
    std::thread::scope(|scope| {
        for (n, to) in to.iter().enumerate() {
            for (kind, keep) in [("kept", true), ("kept2", true), ("new", false), ("new2", false)] {
                let (load, name) = (&load, format!("{name}:{n}:{kind}"));
                scope.spawn(move || load.run(&name, to, keep));
            }
        }
        let stop = OnDrop(&load.stop);
        load.more();
        act(&load);
        load.more();
        drop(stop);
    });
    let failures = load.failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failures, such as {:#?}",
        failures.len(),
        &failures[..failures.len().min(10)]
    );
    load.reconnected.into_inner()
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

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
    assert_eq!(slotway.metric("slotway_config_in_use", ""), 1.0);
    assert!(conn.command(&["FLUSHALL"]).unwrap().is_ok(), "allowed again");
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

/// A child that does not outlive a failing test.
struct KillOnPanic(Child);

impl Drop for KillOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
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
    assert_eq!(log.matches("handed over is used").count(), 9, "{log}");
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
