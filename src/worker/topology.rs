//! Applying a new snapshot: routes change, and unsent commands move to the nodes that now serve
//! their slots.

use crate::base::{Base, base};
use crate::cluster::Snapshot;
use crate::dest::ConnId;
use crate::mailbox::ToHub;
use crate::nodes::retries::unreached_since;
use crate::placement::Moment;
use crate::upstream::ConnectionEnd;
use crate::worker::Worker;
use std::sync::Arc;

impl Worker {
    /// Applies a new snapshot of the topology.
    pub(super) fn set_topology(&mut self, snapshot: Arc<Snapshot>) {
        for node in &mut self.engine.nodes.list {
            node.known = snapshot.nodes.iter().any(|n| n.addr == node.addr);
        }
        let mut by_snapshot = Vec::with_capacity(snapshot.nodes.len());
        for node in &snapshot.nodes {
            let id = self.engine.nodes.node_at(&node.addr, &mut self.engine.core);
            if let Some(mine) = self.engine.nodes.list.get_mut(id.at()) {
                mine.known = true;
                mine.upstream = node.upstream;
                mine.slots = self.engine.core.router.views().map().space(node.upstream);
                mine.socket = node.socket.or(mine.socket);
                if mine.id != node.id {
                    mine.id = node.id.clone();
                }
                if *mine.name != *node.server_name() {
                    mine.name = node.server_name().into();
                }
            }
            by_snapshot.push(id);
        }
        let primary = |shard: &crate::cluster::Shard| {
            shard.primary.and_then(|n| by_snapshot.get(usize::from(n)).copied())
        };
        let owning = snapshot.shards.iter().zip(snapshot.shards_with_slots());
        let owning = owning.filter(|(_, owns)| *owns).map(|(shard, _)| shard);
        let primaries = owning.filter_map(primary).collect();
        let shard_of = |&shard: &u16| snapshot.shards.get(usize::from(shard));
        let owners = snapshot.slots.iter().map(|shard| shard_of(shard).and_then(primary));
        // A probe of a slot takes nothing from the budget if the previous topology had another
        // primary. If only a redirection had, it does: nodes may redirect in circles.
        let named =
            |snapshot: &Snapshot, slot| snapshot.primary_of(slot).map(|node| node.addr.clone());
        let is_news =
            |slot| named(&self.engine.nodes.topology.snapshot, slot) != named(&snapshot, slot);
        let unreached = |node| unreached_since(&self.engine.nodes.list, node);
        self.engine.nodes.placement.slots.set_owners(
            owners,
            primaries,
            Moment(self.engine.core.now),
            is_news,
            unreached,
        );
        self.engine.nodes.topology.snapshot = snapshot;
        self.engine.nodes.shards().note_slots(&mut self.engine.core);
        self.engine.nodes.set_readable(&mut self.engine.core);
        self.engine.nodes.shards().leave_failed(&mut self.engine.core);
        self.delivery().follow_up();
        self.engine.ops.hold_overtaken(&mut self.engine.nodes, &mut self.engine.core);
        self.engine.nodes.placement.slots.set_routes();
        self.engine.ops.resends().redirect_unsent(&mut base!(self.engine));
        for slot in self.engine.nodes.placement.slots.holds.slots() {
            for lane in self.engine.nodes.placement.slots.holds.lanes(slot) {
                self.engine.core.run_lane(slot, lane);
            }
        }
        self.close_lent_at_failed();
        let all: Vec<ConnId> = self.engine.nodes.upstreams.iter().map(|(conn, _)| conn).collect();
        for conn in all {
            base!(self.engine).retire(conn);
        }
        let monitoring = |c: &crate::client::Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let monitors: Vec<usize> = self
            .engine
            .clients
            .slab
            .iter()
            .filter(|(_, c)| monitoring(c))
            .map(|(i, _)| i)
            .collect();
        monitors.into_iter().for_each(|i| {
            self.engine.clients.monitors().listen_to_others(
                i,
                &mut self.engine.nodes,
                &mut self.engine.core,
            )
        });
        // Nodes that were not resolved or were down are retried by their timers.
        self.engine.core.arm_tick();
        self.engine.core.shared.say_to_hub(ToHub::Follows {
            worker: self.engine.core.link.index,
            generation: self.engine.nodes.topology.snapshot.generation,
        });
    }

    /// Closes lent connections to nodes that have failed and are no longer primaries. A node that
    /// is frozen or cut off does not close its connections: a client blocked there without a
    /// timeout would wait forever, while the element that it waits for arrives at the slot's new
    /// primary.
    fn close_lent_at_failed(&mut self) {
        let lent = self
            .engine
            .nodes
            .upstreams
            .iter()
            .filter(|(_, up)| up.dedicated.is_some_and(|d| d.client.is_some()))
            // SCRIPT KILL has to reach exactly such nodes.
            .filter(|(_, up)| {
                !up.pending
                    .front()
                    .is_some_and(|p| self.engine.core.router.is_out_of_band(p.command))
            })
            .filter(|(_, up)| self.engine.nodes.is_failed(up.node));
        for conn in lent.map(|(conn, _)| conn).collect::<Vec<_>>() {
            self.delivery().dedicated_lost(conn, &ConnectionEnd::NodeFailed);
        }
    }
}
