//! The upstreams as the tasks of the control thread see them: which one a node belongs to, and what
//! connecting to it requires.

use std::net::SocketAddr;
use std::sync::Arc;

use super::node::Access;
use super::pool::Pool;
use crate::cluster::{Node, NodeAddr, Snapshot, UpstreamId};
use crate::config::Config;

impl Pool {
    /// All upstreams, by ID.
    pub fn upstreams(&self) -> impl Iterator<Item = UpstreamId> + use<> {
        (0..self.inner().upstreams.count()).map(|at| UpstreamId(at as u8))
    }

    /// The configuration in use as it would be with this upstream alone.
    pub fn config_of(&self, id: UpstreamId) -> Arc<Config> {
        let inner = self.inner();
        Arc::clone(inner.upstreams.config_of(id).unwrap_or(&inner.config))
    }

    /// What connecting to nodes of an upstream requires.
    pub(super) fn access(&self, upstream: UpstreamId) -> Access {
        Access { upstream, config: self.config_of(upstream), tls: Arc::clone(self.tls()) }
    }

    /// The name of an upstream, for the log; `None` where there is only one.
    pub fn log_name(&self, id: UpstreamId) -> Option<Box<str>> {
        let inner = self.inner();
        if inner.upstreams.count() == 1 { None } else { inner.upstreams.name_of(id) }
    }

    /// Whether readiness does not depend on an upstream.
    pub fn is_optional(&self, id: UpstreamId) -> bool {
        self.inner().config.named_upstream(id).is_some_and(|named| named.optional)
    }

    /// The topology of all upstreams.
    pub fn topology(&self) -> Arc<Snapshot> {
        let topology = self.inner().told.topology.clone();
        topology.unwrap_or_else(|| Arc::new(Snapshot::empty()))
    }

    /// The upstream of the node at `socket`; `None`: it is not known. A single upstream is that of
    /// all nodes.
    pub fn upstream_of(&self, socket: SocketAddr) -> Option<UpstreamId> {
        self.upstream_where(|node| node.socket == Some(socket))
    }

    /// The upstream of the node called `addr`, as [`Pool::upstream_of`].
    pub fn upstream_at(&self, addr: &NodeAddr) -> Option<UpstreamId> {
        self.upstream_where(|node| node.addr == *addr)
    }

    fn upstream_where(&self, is_wanted: impl Fn(&Node) -> bool) -> Option<UpstreamId> {
        let inner = self.inner();
        if inner.upstreams.count() == 1 {
            return Some(UpstreamId::FIRST);
        }
        let mut nodes = inner.told.topology.iter().flat_map(|snapshot| &snapshot.nodes);
        nodes.find(|node| is_wanted(node)).map(|node| node.upstream)
    }
}
