//! A single server without a cluster, for comparison.

use super::conn::Conn;
use super::server::{Server, ServerKind, Setup};
use super::watchdog::{SandboxDir, guarded};
use super::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to start a [`Standalone`].
#[derive(Debug, Clone)]
pub struct StandaloneOptions {
    /// The server program: a name in `PATH` or a path.
    pub program: PathBuf,
    /// The server's password (`requirepass`), if any.
    pub password: Option<String>,
    /// Whether to listen on a unix socket in the server's folder as well.
    pub unix_socket: bool,
    /// Further lines of redis.conf.
    pub conf: Vec<String>,
}

impl Default for StandaloneOptions {
    fn default() -> Self {
        StandaloneOptions {
            program: "redis-server".into(),
            password: None,
            unix_socket: false,
            conf: Vec::new(),
        }
    }
}

/// One running server. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Standalone {
    // Dropped in this order: the process before its folder.
    server: Server,
    socket: Option<PathBuf>,
    dir: SandboxDir,
}

impl Standalone {
    /// Starts a server and waits until it answers.
    pub fn start(options: StandaloneOptions) -> Result<Standalone> {
        let StandaloneOptions { program, password, unix_socket, mut conf } = options;
        let dir = SandboxDir::new()?;
        let server_dir = dir.subdir("standalone")?;
        let socket = unix_socket.then(|| server_dir.join("redis.sock"));
        if let Some(socket) = &socket {
            conf.push(format!("unixsocket \"{}\"", socket.display()));
        }
        let setup = Setup { program, password, conf };
        setup.check()?;
        let mut server = Server::spawn(&setup, server_dir, ServerKind::Single)?;
        server.ready(&())?;
        Ok(Standalone { server, socket, dir })
    }

    /// The server's address.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Its unix socket, if it has one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Its process ID; `None` while it is dead.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Its folder, which lies in the sandbox's folder.
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// As [`Cluster::command`](super::Cluster::command).
    pub fn command(&self, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let dir = self.dir.subdir(name)?;
        Ok((guarded(&dir, program), dir))
    }

    /// An authenticated connection over TCP.
    pub fn connect(&self) -> Result<Conn> {
        self.server.connect()
    }

    /// An unauthenticated connection over the unix socket.
    pub fn connect_unix(&self) -> Result<Conn> {
        let Some(socket) = &self.socket else {
            return Err(Error::NoUnixSocket);
        };
        Conn::unix(socket).map_err(Error::io(format!("connecting to {}", socket.display())))
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, without its data, on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()
    }

    /// Pauses the process (SIGSTOP): it keeps its connections and does not answer.
    pub fn pause(&mut self) -> Result<()> {
        self.server.pause()
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&mut self) -> Result<()> {
        self.server.resume()
    }
}
