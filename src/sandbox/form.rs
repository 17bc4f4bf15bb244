//! Makes a cluster of servers.
//!
//! This does what `redis-cli --cluster create` does, over connections of our own, in two seconds
//! instead of five and more. Two seconds is the time for which a new primary does not call the
//! cluster ok.

use super::Result;
use super::cluster::Cluster;
use super::members::Member;
use super::progress::Progress;
use super::server::{Server, ServerKind};
use crate::cluster::SLOTS;
use std::net::SocketAddr;

impl Cluster {
    /// Starts `count` servers, which do not know each other yet.
    pub(super) fn spawn(&self, count: usize, progress: &mut dyn Progress) -> Result<()> {
        let first = self.members.lock().len();
        let mut servers = Vec::with_capacity(count);
        for number in 0..count {
            // Numbers are not used twice, not even those of removed nodes.
            let names = (first + number..).map(|n| format!("node-{n}"));
            let mut unused = names.filter(|name| !self.dir.path().join(name).exists());
            let dir = self.dir.subdir(&unused.next().unwrap_or_default())?;
            servers.push(Server::spawn(&self.setup, dir, ServerKind::Node)?);
        }
        for (number, mut server) in servers.into_iter().enumerate() {
            server.ready(progress)?;
            let id = self.ask(server.addr(), &["CLUSTER", "MYID"])?.text().unwrap_or_default();
            self.members.lock().push(Member { id, server });
            progress.detail(&format!("{} of {count} answer", number + 1));
        }
        Ok(())
    }

    /// Makes one cluster of the servers: the first `primaries` share the slots, the others become
    /// their replicas in turn.
    pub(super) fn form(&self, primaries: usize, progress: &mut dyn Progress) -> Result<()> {
        let nodes = self.members.running();
        let (first, others) = nodes.split_at(primaries.min(nodes.len()));
        for (number, (_, addr)) in nodes.iter().enumerate() {
            // Different epochs from the start, so that the nodes need not resolve conflicts later.
            self.ask(*addr, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (number, (_, addr)) in first.iter().enumerate() {
            let border = |n: usize| n * usize::from(SLOTS) / primaries;
            let (start, end) = (border(number), border(number + 1) - 1);
            let range = [start.to_string(), end.to_string()];
            self.ask(*addr, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]])?;
        }
        // Every node meets every other one, so that nothing depends on gossip.
        for (number, (_, addr)) in nodes.iter().enumerate() {
            for (_, other) in nodes.iter().skip(number + 1) {
                self.meet(*addr, *other)?;
            }
        }
        self.wait("waiting for the nodes to meet", progress, || self.checks().known(nodes.len()))?;
        for ((_, addr), (primary, _)) in others.iter().zip(first.iter().cycle()) {
            self.ask(*addr, &["CLUSTER", "REPLICATE", primary])?;
        }
        self.settle_with_progress(progress)
    }

    /// CLUSTER MEET: makes the server at `addr` known to the one at `other`, and the reverse.
    pub(super) fn meet(&self, addr: SocketAddr, other: SocketAddr) -> Result<()> {
        let bus_port = {
            let members = self.members.lock();
            let member = members.iter().find(|member| member.server.addr() == other);
            member.map_or(0, |member| member.server.bus_port())
        };
        let (port, bus_port) = (other.port().to_string(), bus_port.to_string());
        self.ask(addr, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).map(|_| ())
    }
}
