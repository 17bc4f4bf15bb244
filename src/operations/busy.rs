//! Nodes that a script keeps busy.
//!
//! Such a node answers BUSY to everybody but those who are behind the script on its own connection,
//! which it does not read. A shared connection on which a script is late gets no more commands
//! ([`crate::nodes::silence`]). When the node has said that it is busy, the connection is set
//! aside: clients that have nothing on it, or only what it does no harm to ask again, go on over
//! another one, where the node answers them itself. A client that has anything else there is not
//! read from until that is answered, so that the order of its commands is kept, and a command that
//! will be executed is never answered as if it would not be.

use crate::base::Base;
use crate::client::Paused;
use crate::dest::ConnId;
use crate::mailbox::BusyNode;
use crate::operations::Operations;
use crate::route::PendingFlags;
use crate::upstream::{ConnectionState, Upstream};

/// Limit of connections to one node that are set aside. A node runs one script at a time; only one
/// that lies about it could make more.
const MOST_ASIDE: usize = 8;

impl Operations {
    /// A node has said BUSY to control.
    pub(crate) fn node_is_busy(&mut self, busy: &BusyNode, base: &mut Base<'_>) {
        let asked = busy.asked.saturating_duration_since(base.core.clock.epoch).as_micros() as u64;
        let here = |up: &Upstream| {
            let node = base.nodes.list.get(up.node.at());
            node.is_some_and(|n| n.socket == Some(busy.node))
        };
        let aside = base.nodes.upstreams.iter().filter(|(_, up)| up.retiring && here(up)).count();
        let behind_script = |up: &Upstream| {
            let first = up.pending.front().map(|p| p.command);
            up.is_ordered()
                && !up.retiring
                && up.state == ConnectionState::Ready
                && (1..=asked).contains(&up.quiet_since)
                && up.seen_read == up.last_read
                && !up.streaming
                && first.is_some_and(|command| {
                    base.core.router.may_run_script(command)
                        || base.core.router.may_block_others(command)
                })
        };
        let late = base.nodes.upstreams.iter().filter(|(_, up)| here(up) && behind_script(up));
        let late: Vec<ConnId> = late.map(|(conn, _)| conn).collect();
        for conn in late.into_iter().take(MOST_ASIDE.saturating_sub(aside)) {
            self.set_aside(conn, base);
        }
    }

    /// New commands go over another connection to the same node from now on.
    fn set_aside(&mut self, conn: ConnId, base: &mut Base<'_>) {
        let Some(up) = base.nodes.upstreams.get(conn) else { return };
        let node = up.node;
        let clients: Vec<_> = up.pending.iter().map(|p| self.gatherings.lane_of(p)).collect();
        base.access.leave_realm(conn, base.nodes);
        base.nodes.connections().leave_node(node, conn);
        let Some(up) = base.nodes.upstreams.get_mut(conn) else { return };
        up.retiring = true;
        let router = &base.core.router;
        let (taken, staying) = up.take_movable(&mut base.core.spare.pool, &clients, |p| {
            p.flags.contains(PendingFlags::READ_ONLY)
                && p.before == 0
                && !router.may_run_script(p.command)
        });
        let mut waiting = std::mem::take(&mut up.waiters);
        waiting.extend(up.turns.drain());
        waiting.retain(|client| !staying.contains(client));
        base.core.turn.resume.append(&mut waiting);
        for id in staying {
            let Some(client) = base.clients.slab.get_mut(id.at()) else { continue };
            let reads = matches!(
                client.paused,
                Paused::No | Paused::Upstream | Paused::Turn | Paused::Yielding
            );
            if client.generation == id.generation && reads {
                base.clients.pause_until_replied(id.at(), base.core);
            }
        }
        for (pending, frame) in taken {
            let lane = self.gatherings.lane_of(&pending);
            base.send_to(node, pending, frame, lane.index);
        }
        base.nodes.mark_upstream(conn, base.core);
    }
}
