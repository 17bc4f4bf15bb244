//! Starts and stops a local cluster of real servers, for `make run`, tests and benches.
//!
//! A [`Cluster`] or a [`Standalone`] is a handful of `redis-server` processes in a temporary folder.
//! Dropping it kills the processes and removes the folder. If this process ends without dropping
//! it (Ctrl-C, SIGKILL, a `static` in a test), a watchdog does the same: see `watchdog`.
//!
//! Not for production, and not a proxy: [`run`] is handed the function that runs slotway, so this
//! room knows nobody but [`crate::cluster`]'s slots.

mod cluster;
mod conn;
mod form;
mod operate;
mod ports;
mod progress;
mod run;
mod server;
mod standalone;
mod unmet;
mod view;
mod watchdog;

pub use cluster::{Cluster, ClusterOptions};
pub use conn::{Conn, Reply};
pub use ports::{free_port, free_ports};
pub use progress::Watcher;
pub use run::{Front, Options, run};
pub use standalone::{Standalone, StandaloneOptions};
pub use unmet::Unmet;
pub use view::Node;

use crate::cluster::Slot;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a sandbox could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no server to start.
    #[error(
        "`{0}` was not found. The sandbox starts real Redis servers: install Redis 7.0 or newer \
         (Debian, Ubuntu: `apt-get install redis-server`)"
    )]
    NoServer(String),
    /// There is one, but it is too old.
    #[error(
        "`{program}` is version {version}; the sandbox needs Redis 7.0 or newer \
         (Debian 12, Ubuntu 24.04: `apt-get install redis-server`)"
    )]
    OldServer {
        /// The program asked.
        program: String,
        /// What it said.
        version: String,
    },
    /// More nodes than a sandbox can have, or no primary.
    #[error(
        "a sandbox has 1 to 100 primaries and at most 400 replicas, not {primaries} and {replicas}"
    )]
    Size {
        /// The primaries asked for.
        primaries: usize,
        /// The replicas asked for.
        replicas: usize,
    },
    /// The node is to be removed, but owns slots.
    #[error("{0} still owns slots: move them first")]
    OwnsSlots(SocketAddr),
    /// The node has no primary.
    #[error("{0} is not a replica")]
    NotReplica(SocketAddr),
    /// The server has no unix socket.
    #[error("this server was started without a unix socket")]
    NoUnixSocket,
    /// An address slotway was to listen on belongs to somebody else.
    #[error("{addr} is taken, perhaps by another sandbox. {way_out}")]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// What to write instead.
        way_out: &'static str,
    },
    /// A server ended although nobody asked it to.
    #[error("the server on {addr} ended by itself. Its last log lines:\n{log}")]
    Died {
        /// Where it was to listen.
        addr: SocketAddr,
        /// The end of its log.
        log: String,
    },
    /// Other processes were faster with the port, each time.
    #[error("the server on {addr} could not have its port. Its last log lines:\n{log}")]
    PortLost {
        /// Where it was to listen.
        addr: SocketAddr,
        /// The end of its log.
        log: String,
    },
    /// Something did not come about in time.
    #[error("{what}: not within {seconds} s: {reason}\n{log}", seconds = within.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// What was still missing at the end.
        reason: Box<Unmet>,
        /// The last log lines of the servers concerned.
        log: String,
    },
    /// A server answered a command of the sandbox with an error.
    #[error("{addr} answered {command} with: {error}")]
    Refused {
        /// The server.
        addr: SocketAddr,
        /// The command.
        command: String,
        /// The server's words.
        error: String,
    },
    /// No node with this ID is part of the cluster.
    #[error("this cluster has no node {0}")]
    NoSuchNode(String),
    /// No node owns the slot.
    #[error("no node owns slot {}", .slot.0)]
    NoOwner {
        /// The slot.
        slot: Slot,
    },
    /// No node of the cluster answers.
    #[error("no node of the cluster answers")]
    NoAnswer,
    /// The server does not run.
    #[error("the server on {0} does not run")]
    NotRunning(SocketAddr),
    /// The node that was added does not run.
    #[error("the new node does not run")]
    NewNodeEnded,
    /// A signal came while the sandbox was starting.
    #[error("stopped while starting")]
    Interrupted,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// Slotway itself failed in front of the cluster.
    #[error("{0}")]
    Proxy(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// For `map_err`: an [`Error::Io`] that says what was attempted.
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// The result of the sandbox's operations.
pub type Result<T> = std::result::Result<T, Error>;
