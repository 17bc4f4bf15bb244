//! Starts and stops a local cluster of real servers, for `make run`, tests and benches.
//!
//! A [`Cluster`], a [`Standalone`] or a [`ReplicaSet`] consists of `redis-server` processes in a temporary folder.
//! Dropping it kills the processes and removes the folder. If this process ends without dropping it
//! (Ctrl-C, SIGKILL, a `static` in a test), a watchdog does the same: see `watchdog`.
//!
//! Not for production, and not a proxy: [`run`] is given the function that runs slotway, so this
//! room uses [`crate::cluster`] only.

mod cluster;
mod conn;
mod form;
mod members;
mod operate;
mod ports;
mod progress;
mod replica_set;
mod run;
mod server;
mod settle;
mod standalone;
mod unmet;
mod view;
mod watchdog;

pub use cluster::{Cluster, ClusterOptions};
pub use conn::{Conn, Reply};
pub use ports::{free_port, free_ports};
pub use replica_set::{MASTER, ReplicaSet, ReplicaSetOptions};
pub use run::{Options, ProxyAddrs, SandboxKind, run};
pub use standalone::{Standalone, StandaloneOptions};
pub use unmet::Unmet;
pub use view::Node;

use crate::cluster::Slot;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why an operation of the sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server program was not found.
    #[error(
        "`{0}` was not found. The sandbox starts real Redis servers: install Redis 7.0 or newer \
         (Debian, Ubuntu: `apt-get install redis-server`)"
    )]
    NoServer(String),
    /// The server program is too old.
    #[error(
        "`{program}` is version {version}; the sandbox needs Redis 7.0 or newer \
         (Debian 12, Ubuntu 24.04: `apt-get install redis-server`)"
    )]
    OldServer {
        /// The program.
        program: String,
        /// Its version.
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
    /// Another process listens on an address that slotway was to listen on.
    #[error("{addr} is taken, perhaps by another sandbox. {remedy}")]
    AddressTaken {
        /// The address.
        addr: SocketAddr,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A server ended by itself.
    #[error("the server on {addr} ended by itself. Its last log lines:\n{log}")]
    Died {
        /// The server's address.
        addr: SocketAddr,
        /// The last lines of its log.
        log: String,
    },
    /// Other processes took the server's port at every attempt.
    #[error("the server on {addr} could not have its port. Its last log lines:\n{log}")]
    PortLost {
        /// The server's address.
        addr: SocketAddr,
        /// The last lines of its log.
        log: String,
    },
    /// A condition did not hold within its time limit.
    #[error("{what}: not within {seconds} s: {reason}\n{log}", seconds = within.as_secs())]
    Deadline {
        /// What the sandbox was doing.
        what: String,
        /// The time limit.
        within: Duration,
        /// Why the condition did not hold at the end.
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
        /// The error reply.
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
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What the sandbox was doing.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// Slotway, in front of the cluster, failed.
    #[error("{0}")]
    Proxy(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A function for `map_err` that makes an [`Error::Io`] of a system's error.
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// The result of the sandbox's operations.
pub type Result<T> = std::result::Result<T, Error>;
