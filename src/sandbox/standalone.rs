//! A single server without a cluster, to compare with.

use super::conn::Conn;
use super::server::{Server, Setup};
use super::watchdog::{Home, guarded};
use super::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to start a [`Standalone`].
#[derive(Debug, Clone)]
pub struct StandaloneOptions {
    /// The server to run: a name in `PATH` or a path.
    pub program: PathBuf,
    /// Asked of every connection, if set.
    pub password: Option<String>,
    /// Listen on a unix socket in the sandbox's folder as well.
    pub unix_socket: bool,
    /// More lines for redis.conf.
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
    home: Home,
}

impl Standalone {
    /// Starts a server and waits until it answers.
    pub fn start(options: StandaloneOptions) -> Result<Standalone> {
        let StandaloneOptions { program, password, unix_socket, mut conf } = options;
        let home = Home::new()?;
        let room = home.room("standalone")?;
        let socket = unix_socket.then(|| room.join("redis.sock"));
        if let Some(socket) = &socket {
            conf.push(format!("unixsocket \"{}\"", socket.display()));
        }
        let setup = Setup { program, password, conf };
        setup.check()?;
        let mut server = Server::spawn(&setup, room, false)?;
        server.ready(&())?;
        Ok(Standalone { server, socket, home })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Its unix socket, if there was to be one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Its process; `None` while it is dead.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Its folder; the sandbox's folder is the one above.
    pub fn dir(&self) -> &Path {
        self.server.room()
    }

    /// As [`Cluster::command`](super::Cluster::command).
    pub fn command(&self, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let room = self.home.room(name)?;
        Ok((guarded(&room, program), room))
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

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.server.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.server.resume()
    }
}
