//! A server with replicas, and the Sentinels that watch it.

use super::conn::{Conn, Reply};
use super::server::{self, PAUSE, Server, ServerKind, Setup, info_field, quoted};
use super::unmet::Unmet;
use super::watchdog::{SandboxDir, guarded};
use super::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name by which the Sentinels know the server.
pub const MASTER: &str = "mymaster";

/// Time limit for what servers and Sentinels have to agree on.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a [`ReplicaSet`].
#[derive(Debug, Clone)]
pub struct ReplicaSetOptions {
    /// Replicas of the one primary.
    pub replicas: usize,
    /// Sentinels; 0: nobody watches.
    pub sentinels: usize,
    /// Silence after which a Sentinel takes a server for down.
    pub down_after: Duration,
    /// The server program: a name in `PATH` or a path.
    pub program: PathBuf,
    /// The servers' password (`requirepass`), if any.
    pub password: Option<String>,
    /// The Sentinels' own password, if any.
    pub sentinel_password: Option<String>,
}

impl Default for ReplicaSetOptions {
    fn default() -> Self {
        ReplicaSetOptions {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_secs(1),
            program: "redis-server".into(),
            password: None,
            sentinel_password: None,
        }
    }
}

/// A running primary with its replicas and Sentinels. Dropping it kills the processes and removes
/// their folder. All operations take `&self`, as those of a [`Cluster`](super::Cluster).
#[derive(Debug)]
pub struct ReplicaSet {
    // Dropped in this order: the processes before their folder.
    sentinels: Mutex<Vec<Server>>,
    servers: Mutex<Vec<Server>>,
    password: Option<String>,
    dir: SandboxDir,
}

impl ReplicaSet {
    /// Starts the servers and the Sentinels, and waits until all replicas are in sync and every
    /// Sentinel knows all the others.
    pub fn start(options: ReplicaSetOptions) -> Result<ReplicaSet> {
        let dir = SandboxDir::new()?;
        let ReplicaSetOptions { program, password, .. } = &options;
        let mut setup =
            Setup { program: program.clone(), password: password.clone(), conf: Vec::new() };
        setup.check()?;
        setup.conf.push("repl-ping-replica-period 1".into());
        let mut servers = vec![Server::spawn(&setup, dir.subdir("server-0")?, ServerKind::Single)?];
        for server in &mut servers {
            server.ready(&())?;
        }
        let primary = servers.first().map(Server::addr).ok_or(Error::NoAnswer)?;
        for number in 1..=options.replicas {
            let dir = dir.subdir(&format!("server-{number}"))?;
            let mut replica = Server::spawn(&setup, dir, ServerKind::Single)?;
            replica.ready(&())?;
            ask(&mut replica.connect()?, replica.addr(), &replica_of(primary))?;
            servers.push(replica);
        }
        let set = ReplicaSet {
            sentinels: Mutex::default(),
            servers: Mutex::new(servers),
            password: options.password.clone(),
            dir,
        };
        set.wait("waiting for replicas to be in sync", || set.in_sync(options.replicas))?;
        set.spawn_sentinels(&options, primary)?;
        Ok(set)
    }

    fn spawn_sentinels(&self, options: &ReplicaSetOptions, primary: SocketAddr) -> Result<()> {
        let (ip, port) = (primary.ip(), primary.port());
        let down_after = options.down_after.as_millis();
        let mut conf = vec![
            format!("sentinel monitor {MASTER} {ip} {port} {}", options.sentinels / 2 + 1),
            format!("sentinel down-after-milliseconds {MASTER} {down_after}"),
            format!("sentinel failover-timeout {MASTER} 10000"),
        ];
        if let Some(password) = &options.password {
            conf.push(format!("sentinel auth-pass {MASTER} {}", quoted(password)));
        }
        if let Some(password) = &options.sentinel_password {
            conf.push(format!("sentinel sentinel-pass {}", quoted(password)));
        }
        let setup = Setup {
            program: options.program.clone(),
            password: options.sentinel_password.clone(),
            conf,
        };
        let mut sentinels = Vec::new();
        for number in 0..options.sentinels {
            let dir = self.dir.subdir(&format!("sentinel-{number}"))?;
            let mut sentinel = Server::spawn(&setup, dir, ServerKind::Sentinel)?;
            sentinel.ready(&())?;
            sentinels.push(sentinel);
        }
        *lock(&self.sentinels) = sentinels;
        let (others, replicas) = (options.sentinels.saturating_sub(1), options.replicas);
        self.wait("waiting for the Sentinels to know each other", || self.watched(others, replicas))
    }

    /// The addresses of all servers, in the order of their start; the first one began as primary.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        lock(&self.servers).iter().map(Server::addr).collect()
    }

    /// The addresses of the Sentinels.
    pub fn sentinel_addrs(&self) -> Vec<SocketAddr> {
        lock(&self.sentinels).iter().map(Server::addr).collect()
    }

    /// The address of the one server that answers and is a primary; `None`: none or several.
    pub fn primary(&self) -> Option<SocketAddr> {
        let roles = self.addrs().into_iter().filter(|addr| {
            let info = self.info(*addr).unwrap_or_default();
            info_field(&info, "role") == Some("master")
        });
        let primaries: Vec<SocketAddr> = roles.collect();
        match primaries.as_slice() {
            [primary] => Some(*primary),
            _ => None,
        }
    }

    /// Waits for one primary, other than `former`, with at least `replicas` in sync.
    pub fn settle(&self, former: SocketAddr, replicas: usize) -> Result<()> {
        self.wait("waiting for another primary", || {
            match self.primary() {
                None => return Err(Unmet::NoNodeRuns),
                Some(addr) if addr == former => return Err(Unmet::NotInSync(addr)),
                Some(_) => {}
            }
            self.in_sync(replicas)
        })
    }

    /// Makes the server at `addr` a primary, and all other servers that run its replicas, as an
    /// operator does.
    pub fn promote(&self, addr: SocketAddr) -> Result<()> {
        ask(&mut self.connect(addr)?, addr, &["REPLICAOF".into(), "NO".into(), "ONE".into()])?;
        for other in self.addrs().into_iter().filter(|other| *other != addr) {
            if let Ok(mut conn) = self.connect(other) {
                ask(&mut conn, other, &replica_of(addr))?;
            }
        }
        Ok(())
    }

    /// The folder of all processes.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An authenticated connection to the server at `addr`.
    pub fn connect(&self, addr: SocketAddr) -> Result<Conn> {
        server::connect(addr, self.password.as_deref())
    }

    /// Kills the server or Sentinel at `addr` (SIGKILL).
    pub fn kill(&self, addr: SocketAddr) -> Result<()> {
        self.with(addr, |server| {
            server.kill();
            Ok(())
        })
    }

    /// Starts it again on the same port, without its data.
    pub fn restart(&self, addr: SocketAddr) -> Result<()> {
        self.with(addr, Server::restart)
    }

    /// Pauses it (SIGSTOP).
    pub fn pause(&self, addr: SocketAddr) -> Result<()> {
        self.with(addr, Server::pause)
    }

    /// Resumes it (SIGCONT).
    pub fn resume(&self, addr: SocketAddr) -> Result<()> {
        self.with(addr, Server::resume)
    }

    /// As [`Cluster::command`](super::Cluster::command).
    pub fn command(&self, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let dir = self.dir.subdir(name)?;
        Ok((guarded(&dir, program), dir))
    }

    fn with(&self, addr: SocketAddr, act: impl FnOnce(&mut Server) -> Result<()>) -> Result<()> {
        for servers in [&self.servers, &self.sentinels] {
            if let Some(server) = lock(servers).iter_mut().find(|server| server.addr() == addr) {
                return act(server);
            }
        }
        Err(Error::NotRunning(addr))
    }

    fn info(&self, addr: SocketAddr) -> std::result::Result<String, Unmet> {
        let mut conn = self.connect(addr)?;
        let reply = conn.command(&["INFO", "replication"]);
        Ok(reply.map_err(|source| Unmet::Connection { addr, source })?.text().unwrap_or_default())
    }

    /// Whether the primary has so many replicas in sync.
    fn in_sync(&self, replicas: usize) -> std::result::Result<(), Unmet> {
        let primary = self.primary().ok_or(Unmet::NoNodeRuns)?;
        let online = self.info(primary)?.matches("state=online").count();
        if online >= replicas { Ok(()) } else { Err(Unmet::NotInSync(primary)) }
    }

    /// Whether every Sentinel knows so many others and so many replicas.
    fn watched(&self, others: usize, replicas: usize) -> std::result::Result<(), Unmet> {
        for sentinel in lock(&self.sentinels).iter() {
            let (addr, mut conn) = (sentinel.addr(), sentinel.connect()?);
            let reply = conn.command(&["SENTINEL", "MASTER", MASTER]);
            let reply = reply.map_err(|source| Unmet::Connection { addr, source })?;
            let words: Vec<String> =
                reply.items().unwrap_or_default().iter().filter_map(Reply::text).collect();
            let number = |name: &str| {
                let at = words.iter().position(|word| word == name)?;
                words.get(at + 1)?.parse::<usize>().ok()
            };
            let known = number("num-other-sentinels").unwrap_or(0);
            if known < others || number("num-slaves").unwrap_or(0) < replicas {
                return Err(Unmet::Unknown { addr, known, count: others });
            }
        }
        Ok(())
    }

    fn wait(
        &self,
        what: &str,
        mut check: impl FnMut() -> std::result::Result<(), Unmet>,
    ) -> Result<()> {
        let since = Instant::now();
        loop {
            let Err(reason) = check() else { return Ok(()) };
            if since.elapsed() > SETTLE_TIMEOUT {
                let log = [&self.servers, &self.sentinels]
                    .iter()
                    .flat_map(|all| lock(all).iter().map(Server::log).collect::<Vec<_>>())
                    .collect();
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    within: SETTLE_TIMEOUT,
                    reason: Box::new(reason),
                    log,
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn lock(servers: &Mutex<Vec<Server>>) -> MutexGuard<'_, Vec<Server>> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn replica_of(primary: SocketAddr) -> [String; 3] {
    ["REPLICAOF".into(), primary.ip().to_string(), primary.port().to_string()]
}

fn ask(conn: &mut Conn, addr: SocketAddr, command: &[String; 3]) -> Result<()> {
    let what = format!("asking {addr}");
    let reply = conn.command(command).map_err(Error::io(what))?;
    match reply.error() {
        None => Ok(()),
        Some(error) => {
            Err(Error::Refused { addr, command: command.join(" "), error: error.into() })
        }
    }
}
