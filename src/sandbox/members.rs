//! The servers of a cluster.

use super::server::{Server, State};
use super::view::Node;
use super::{Error, Result};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A server and its node ID.
#[derive(Debug)]
pub(super) struct Member {
    pub id: String,
    pub server: Server,
}

/// All servers that were started and not removed, in the order of their start.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<Vec<Member>>);

impl Members {
    /// Calls `act` with the server of `node`.
    pub(super) fn with<T>(
        &self,
        node: &Node,
        act: impl FnOnce(&mut Server) -> Result<T>,
    ) -> Result<T> {
        let mut members = self.lock();
        let member = members.iter_mut().find(|member| member.id == node.id);
        act(&mut member.ok_or_else(|| no_such(&node.id))?.server)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ID and address of the nodes that are neither dead nor paused.
    pub(super) fn running(&self) -> Vec<(String, SocketAddr)> {
        let members = self.lock();
        let running = members.iter().filter(|member| member.server.state() == State::Running);
        running.map(|member| (member.id.clone(), member.server.addr())).collect()
    }
}

pub(super) fn no_such(id: &str) -> Error {
    Error::NoSuchNode(id.to_owned())
}
