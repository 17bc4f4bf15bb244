//! A slotway with everything in its file, and a load that notices every error.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::process::Signal;
use slotway::sandbox::{Cluster, Conn, free_port};

use crate::common::{self, eventually, http_get, send, wait};

/// One cluster for all tests here; it ends with the process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(common::cluster)
}

/// A real slotway with everything in its file.
pub struct Slotway {
    pub folder: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub child: Child,
    pub log: PathBuf,
    pub ended: bool,
}

pub fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().expect("a free port")).into()
}

pub fn seeds() -> String {
    let seeds: Vec<String> = cluster().addrs().iter().map(|a| format!("\"{a}\"")).collect();
    seeds.join(", ")
}

impl Slotway {
    pub fn folder() -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("reload-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (_, folder) = cluster().command(&name, Path::new("true")).expect("a folder");
        folder
    }

    pub fn start(rest: &str) -> Slotway {
        Self::start_with(rest, |_| {})
    }

    /// `rest` is what follows `listen`, `admin` and `seeds` in the file.
    pub fn start_with(rest: &str, change: impl FnOnce(&mut Command)) -> Slotway {
        let (folder, listen, admin) = (Self::folder(), local(), local());
        write_file(&folder, &[listen.to_string()], admin, rest);
        let slotway = Self::spawn(&folder.join("proxy.toml"), folder.join("log"), change);
        let slotway =
            Slotway { folder, listen, admin, ended: false, child: slotway.0, log: slotway.1 };
        slotway.until_ready();
        slotway
    }

    pub fn spawn(file: &Path, log: PathBuf, change: impl FnOnce(&mut Command)) -> (Child, PathBuf) {
        let out = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.args(["run", "--config"]).arg(file).env_remove("LISTEN_FDS").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(out);
        change(&mut command);
        (command.spawn().expect("slotway"), log)
    }

    pub fn until_ready(&self) {
        eventually("slotway is ready", || {
            http_get(self.admin, "/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    pub fn write(&self, rest: &str) {
        write_file(&self.folder, &[self.listen.to_string()], self.admin, rest);
    }

    /// Writes and waits for what comes of it.
    pub fn change(&self, rest: &str, outcome: &str) {
        let label = format!("outcome=\"{outcome}\"");
        let before = self.metric("slotway_config_reloads_total", &label);
        self.write(rest);
        eventually(&format!("a reload: {outcome}"), || {
            self.metric("slotway_config_reloads_total", &label) > before
        });
    }

    /// Has it looked at its file at once.
    pub fn look(&self) {
        send(&self.child, Signal::HUP);
    }

    /// The same without the patience that a file needs.
    pub fn change_now(&self, rest: &str, outcome: &str) {
        let label = format!("outcome=\"{outcome}\"");
        let before = self.metric("slotway_config_reloads_total", &label);
        self.write(rest);
        self.look();
        eventually(&format!("a reload: {outcome}"), || {
            self.metric("slotway_config_reloads_total", &label) > before
        });
    }

    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.admin, name, labels)
    }

    pub fn connect(&self) -> Conn {
        Conn::tcp(self.listen).expect("a connection")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn stop(&mut self) {
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

pub fn stop(child: &mut Child, log: &Path) {
    send(child, Signal::TERM);
    let status = wait(child, "slotway ends");
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(log).unwrap_or_default());
}

pub fn write_file(folder: &Path, listen: &[String], admin: SocketAddr, rest: &str) {
    let listen: Vec<String> = listen.iter().map(|l| format!("\"{l}\"")).collect();
    let text = format!(
        "listen = [{}]\nadmin = \"{admin}\"\nseeds = [{}]\n{rest}",
        listen.join(", "),
        seeds()
    );
    std::fs::write(folder.join("proxy.toml"), text).expect("a file");
}

pub fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let Some((_, text)) = http_get(admin, "/metrics") else { return f64::NAN };
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| {
        rest.starts_with(['{', ' ']) && (labels.is_empty() || rest.contains(labels))
    });
    samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Where the load goes.
#[derive(Clone)]
pub enum To {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub trait Wire: Read + Write + AsFd + Send {
    fn is_unix(&self) -> bool;
}

impl Wire for TcpStream {
    fn is_unix(&self) -> bool {
        false
    }
}

impl Wire for UnixStream {
    fn is_unix(&self) -> bool {
        true
    }
}

impl To {
    pub fn connect(&self) -> std::io::Result<BufReader<Box<dyn Wire>>> {
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

/// One request: a write, or a read of what the one before has written. `false`: the connection was
/// closed between the look at it ([`is_closed`]) and the write, of which it took nothing. Only a
/// Unix socket tells that at once; over TCP the command would be lost, and slotway does not let it
/// come to that.
pub fn ask(conn: &mut BufReader<Box<dyn Wire>>, name: &str, number: usize) -> Result<bool, String> {
    let key = format!("{name}:{}", number / 2 % 100);
    let (command, wanted) = match number % 2 {
        0 => (format!("SET {key} 1\r\n"), "+OK\r\n"),
        _ => (format!("GET {key}\r\n"), "$1\r\n1\r\n"),
    };
    let told = |e: std::io::Error| format!("{command:?}: {e}");
    match conn.get_mut().write(command.as_bytes()) {
        Ok(taken) => assert_eq!(taken, command.len(), "a small command is taken whole"),
        Err(e) if e.kind() == ErrorKind::BrokenPipe && conn.get_ref().is_unix() => {
            return Ok(false);
        }
        Err(e) => return Err(told(e)),
    }
    let mut reply = vec![0; wanted.len()];
    conn.read_exact(&mut reply).map_err(told)?;
    if reply == wanted.as_bytes() {
        return Ok(true);
    }
    Err(format!("{command:?}: {:?}", String::from_utf8_lossy(&reply)))
}

/// The other side has closed it, and nothing was under way: what clients' pools look for.
pub fn is_closed(conn: &BufReader<Box<dyn Wire>>) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(conn.get_ref(), &mut byte[..], flags), Ok((0, _)))
}

#[derive(Default)]
pub struct Load {
    stop: AtomicBool,
    asked: AtomicUsize,
    reconnected: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    pub fn run(&self, name: &str, to: &To, keep: bool) {
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
                if !ask(&mut conn, name, number)? {
                    self.reconnected.fetch_add(1, Ordering::Relaxed);
                    conn = to.connect().map_err(|e| format!("connect: {e}"))?;
                    if !ask(&mut conn, name, number)? {
                        return Err("two connections in a row took nothing".to_owned());
                    }
                }
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
    pub fn more(&self) {
        let wanted = self.asked.load(Ordering::Relaxed) + 50;
        eventually("the load goes on", || {
            self.asked.load(Ordering::Relaxed) >= wanted
                || !self.failures.lock().unwrap().is_empty()
        });
    }
}

/// Clients that keep their connections and clients that make a new one each time, on all of `to`,
/// while `act` acts. Not one request fails. Gives how often a kept connection was closed.
pub fn under_load(name: &str, to: &[To], act: impl FnOnce(&Load)) -> usize {
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

pub struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A child that does not outlive a failing test.
pub struct KillOnPanic(pub Child);

impl Drop for KillOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
