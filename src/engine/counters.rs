//! A worker's counters and gauges.

use crate::client::{Client, Paused};
use crate::engine::Engine;
use crate::metrics::{NodeStats, WorkerStats};
use crate::resp::Protocol;
use crate::upstream::Upstream;
use crate::users::database_of;

impl Engine {
    /// A copy of the counters, with the current values of the gauges.
    pub(crate) fn counters(&mut self) -> WorkerStats {
        let mut stats = self.core.stats.clone();
        stats.clients = self.clients.slab.len() as u64;
        let resp3 = |c: &Client| c.session.protocol == Protocol::Resp3;
        stats.clients_resp3 = self.clients.slab.iter().filter(|(_, c)| resp3(c)).count() as u64;
        let paused = |c: &Client| c.paused == Paused::Suspended;
        stats.clients_paused = self.clients.slab.iter().filter(|(_, c)| paused(c)).count() as u64;
        stats.buffer_bytes = (self.core.memory.accounted
            + self.nodes.placement.slots.holds.bytes()
            + self.core.spare.pool.bytes()) as u64;
        stats.held = self.nodes.placement.slots.holds.count() as u64;
        stats.users =
            self.access.realms.keys().filter(|realm| database_of(**realm).is_none()).count() as u64;
        stats.dedicated_idle = self.nodes.dedicated.idle.len() as u64;
        stats.subscriptions = self.subscribers.topics.subscriptions();
        let subscribed = |c: &Client| c.subscriptions.is_some();
        stats.subscribers = self.clients.slab.iter().filter(|(_, c)| subscribed(c)).count() as u64;
        let lent = |up: &&Upstream| up.dedicated.is_some_and(|d| d.client.is_some());
        stats.dedicated_lent =
            self.nodes.upstreams.iter().map(|(_, up)| up).filter(lent).count() as u64;
        let blocked = |c: &Client| c.lent.as_ref().is_some_and(|l| l.errand.is_some());
        stats.clients_blocked = self.clients.slab.iter().filter(|(_, c)| blocked(c)).count() as u64;
        stats.nodes.resize(self.nodes.list.len(), NodeStats::default());
        for (node, stats) in self.nodes.list.iter().zip(&mut stats.nodes) {
            stats.addr = node.known.then(|| node.addr.clone());
        }
        for (_, up) in self.nodes.upstreams.iter() {
            let Some(node) = stats.nodes.get_mut(up.node.at()) else { continue };
            match up.state {
                crate::upstream::ConnectionState::Ready => node.connections_ready += 1,
                crate::upstream::ConnectionState::Backoff => node.connections_backoff += 1,
                _ => node.connections_connecting += 1,
            }
            node.connections_aside += u64::from(up.retiring);
            node.in_flight += up.pending.len() as u64;
            node.in_flight_bytes += up.queue.len() as u64;
        }
        stats
    }
}
