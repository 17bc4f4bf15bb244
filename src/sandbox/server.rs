//! One `redis-server` process: started, found ready, killed, frozen, started again.

use super::conn::Conn;
use super::ports::free_ports;
use super::progress::Progress;
use super::unmet::Unmet;
use super::watchdog::{guarded, pid_file};
use super::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Attempts to start a server whose port another process keeps taking.
const MAX_PORT_ATTEMPTS: usize = 10;
/// Pause between two checks of a condition.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// Time limit for a server to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings that all servers of a sandbox share.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub program: PathBuf,
    pub password: Option<String>,
    /// Lines of redis.conf, after the sandbox's own. `{tls-port}` stands for a port of the server.
    pub conf: Vec<String>,
}

impl Setup {
    /// Checks that the program exists and is recent enough.
    pub(super) fn check(&self) -> Result<()> {
        let program = self.program.display().to_string();
        let output = match Command::new(&self.program).arg("--version").output() {
            Ok(output) => output,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoServer(program)),
            Err(source) => return Err(Error::Io { what: format!("running {program}"), source }),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = version_in(&text).unwrap_or("unknown").to_owned();
        let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        if major < 7 { Err(Error::OldServer { program, version }) } else { Ok(()) }
    }
}

/// The version: `7.0.15` in `Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 …`
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix("v="))
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerKind {
    /// A node of a cluster.
    Node,
    /// A server outside of a cluster.
    Single,
    /// A Sentinel. Its settings are all in [`Setup::conf`].
    Sentinel,
}

/// The state that the sandbox has put the process in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Paused,
    Dead,
}

/// One server. Dropping it kills the process; its folder goes with the sandbox's.
#[derive(Debug)]
pub(super) struct Server {
    setup: Setup,
    kind: ServerKind,
    dir: PathBuf,
    port: u16,
    /// `None` outside of a cluster.
    bus_port: Option<u16>,
    tls_port: u16,
    /// `None` while it is dead.
    child: Option<Child>,
    state: State,
}

impl Server {
    /// Starts the process; it is usable after [`Server::ready`].
    pub(super) fn spawn(setup: &Setup, dir: PathBuf, kind: ServerKind) -> Result<Server> {
        let mut server = Server {
            setup: setup.clone(),
            kind,
            dir,
            port: 0,
            bus_port: (kind == ServerKind::Node).then_some(0),
            tls_port: 0,
            child: None,
            state: State::Dead,
        };
        server.renumber()?;
        server.launch()?;
        Ok(server)
    }

    /// Waits until the server answers. If another process has taken one of its ports, it is started
    /// again on others.
    pub(super) fn ready(&mut self, progress: &dyn Progress) -> Result<()> {
        for attempt in 1.. {
            match self.answers(progress) {
                Err(Error::PortLost { .. }) if attempt < MAX_PORT_ATTEMPTS => {
                    self.kill();
                    // nodes.conf of the failed attempt holds the old ports.
                    let _ = fs::remove_file(self.dir.join("nodes.conf"));
                    self.renumber()?;
                    self.launch()?;
                }
                other => return other,
            }
        }
        Ok(())
    }

    /// Starts the server again on the same ports, which are its address in the cluster.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.kill();
        for attempt in 1.. {
            self.launch()?;
            match self.answers(&()) {
                Err(Error::PortLost { .. }) if attempt < MAX_PORT_ATTEMPTS => {
                    self.kill();
                    std::thread::sleep(PAUSE * 10);
                }
                other => return other,
            }
        }
        Ok(())
    }

    /// The same with another program.
    pub(super) fn restart_with(&mut self, program: &Path) -> Result<()> {
        program.clone_into(&mut self.setup.program);
        self.restart()
    }

    /// Kills the process (SIGKILL). It has ended when this returns.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // The watchdog must not kill the next process with this ID.
            let _ = fs::remove_file(pid_file(&self.dir));
            let _ = child.wait();
        }
        self.state = State::Dead;
    }

    /// Pauses the process (SIGSTOP): it keeps its connections and does not answer.
    pub(super) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.state = State::Paused;
        Ok(())
    }

    /// Resumes the process (SIGCONT).
    pub(super) fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.state = State::Running;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(pid) = pid else {
            return Err(Error::NotRunning(self.addr()));
        };
        kill_process(pid, signal).map_err(|e| Error::Io {
            what: format!("sending a signal to the server on {}", self.addr()),
            source: e.into(),
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port.unwrap_or(0)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An authenticated connection.
    pub(super) fn connect(&self) -> Result<Conn> {
        connect(self.addr(), self.setup.password.as_deref())
    }

    /// The last lines of its log.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
        tail.iter().map(|line| format!("    {}| {line}\n", self.port)).collect()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn renumber(&mut self) -> Result<()> {
        let ports = free_ports(3).map_err(Error::io("looking for free ports"))?;
        if let [port, bus_port, tls_port] = ports[..] {
            self.port = port;
            self.tls_port = tls_port;
            self.bus_port = self.bus_port.map(|_| bus_port);
        }
        self.write_conf()
    }

    fn write_conf(&self) -> Result<()> {
        let mut conf = format!(
            "port {}\nbind 127.0.0.1\nprotected-mode no\ndir {}\ndaemonize no\n",
            self.port,
            quoted(&self.dir.display().to_string()),
        );
        if self.kind != ServerKind::Sentinel {
            conf +=
                "save \"\"\nappendonly no\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n";
        }
        if let Some(bus_port) = self.bus_port {
            // CLUSTER SHARDS calls a replica "loading" until the first byte of replication: without
            // writes that is the first ping, by default after up to ten seconds.
            conf += &format!(
                "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {bus_port}\n\
                 cluster-announce-ip 127.0.0.1\nrepl-ping-replica-period 1\n"
            );
        }
        if let Some(password) = &self.setup.password {
            let password = quoted(password);
            conf += &format!("requirepass {password}\n");
            if self.kind != ServerKind::Sentinel {
                conf += &format!("masterauth {password}\n");
            }
        }
        for line in &self.setup.conf {
            conf += &line.replace("{tls-port}", &self.tls_port.to_string());
            conf.push('\n');
        }
        fs::write(self.dir.join("redis.conf"), conf).map_err(Error::io("writing redis.conf"))
    }

    fn launch(&mut self) -> Result<()> {
        // A new log each time: "address in use" in the old one is about an earlier attempt.
        let log = File::create(self.log_file()).map_err(Error::io("making a server's log"))?;
        let errors = log.try_clone().map_err(Error::io("making a server's log"))?;
        let child = guarded(&self.dir, &self.setup.program)
            .arg("redis.conf")
            .args((self.kind == ServerKind::Sentinel).then_some("--sentinel"))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Error::io("starting a redis-server"))?;
        self.child = Some(child);
        self.state = State::Running;
        Ok(())
    }

    /// Waits until our own process, not another one, answers on the port.
    fn answers(&mut self, progress: &dyn Progress) -> Result<()> {
        let since = Instant::now();
        loop {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            let Some(child) = &mut self.child else {
                return Err(Error::Died { addr: self.addr(), log: self.log() });
            };
            let pid = child.id();
            if !matches!(child.try_wait(), Ok(None)) {
                let (addr, log) = (self.addr(), self.log());
                let lost =
                    log.contains("Address already in use") || log.contains("Failed listening");
                return Err(if lost {
                    Error::PortLost { addr, log }
                } else {
                    Error::Died { addr, log }
                });
            }
            match self.connect().ok().and_then(|mut conn| owner(&mut conn)) {
                Some(answering) if answering == pid => return Ok(()),
                // Another process's server: ours will fail to bind and end.
                Some(_) => return Err(Error::PortLost { addr: self.addr(), log: self.log() }),
                None => {}
            }
            if since.elapsed() > READY_TIMEOUT {
                return Err(Error::Deadline {
                    what: format!("waiting for the server on {} to answer", self.addr()),
                    within: READY_TIMEOUT,
                    reason: Box::new(Unmet::Starting),
                    log: self.log(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's process ID, once it has loaded its data.
fn owner(conn: &mut Conn) -> Option<u32> {
    let info = conn.command(&["INFO"]).ok()?.text()?;
    // A Sentinel has nothing to load.
    if info_field(&info, "loading").is_some_and(|loading| loading != "0") {
        return None;
    }
    info_field(&info, "process_id")?.parse().ok()
}

/// The value of `field` in a reply to INFO or CLUSTER INFO.
pub(super) fn info_field<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim_end)
}

/// A connection to `addr`, authenticated if there is a password.
pub(super) fn connect(addr: SocketAddr, password: Option<&str>) -> Result<Conn> {
    let mut conn = Conn::tcp(addr).map_err(Error::io(format!("connecting to {addr}")))?;
    if let Some(password) = password {
        let what = format!("authenticating to {addr}");
        let reply = conn.command(&["AUTH", password]).map_err(Error::io(what))?;
        if let Some(error) = reply.error() {
            return Err(Error::Refused { addr, command: "AUTH".into(), error: error.into() });
        }
    }
    Ok(conn)
}

/// `value` in quotes, as in redis.conf.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(version_in(redis), Some("7.0.15"));
        assert_eq!(version_in("something else"), None);
    }

    #[test]
    fn a_field_is_found_whole() {
        let info = "# Server\r\nloading_eta:3\r\nloading:0\r\nrole:slave\r\n";
        assert_eq!(info_field(info, "loading"), Some("0"));
        assert_eq!(info_field(info, "load"), None);
    }

    #[test]
    fn a_missing_server_is_named_with_the_way_out() {
        let program = PathBuf::from("/nonexistent/redis-server");
        let setup = Setup { program, password: None, conf: Vec::new() };
        let text = setup.check().unwrap_err().to_string();
        assert!(text.contains("/nonexistent/redis-server"), "{text}");
        assert!(text.contains("apt-get install redis-server"), "{text}");
    }
}
