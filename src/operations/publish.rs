//! PUBLISH on its way to a node.

use crate::base::Base;
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::operations::Operations;
use crate::resp::Args;
use crate::subscribers::publish::is_lone_publish;
use crate::upstream::{ConnectionState, Upstream};

impl Operations {
    /// PUBLISH: to the node where slotway itself is subscribed to the channel or to a pattern that
    /// it matches, so that its messages stay in order; otherwise to the one where it would be.
    pub(crate) fn publish(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
        base: &mut Base<'_>,
    ) -> Flow {
        if base.subscribers.stranded {
            // What was published before must not be overtaken.
            self.send_stranded(base);
        }
        let channel = args.get(1).unwrap_or_default();
        let of = base.core.router.view(base.clients.view_of(index)).upstream_of_channel(channel);
        match base.subscribers.publish_node(of, channel, base.nodes) {
            Some(node) => self.forward_to(index, command, Slot::keyless(of), node, frame, base),
            None => self.wait_for_a_node(index, command, Slot::keyless(of), frame, base),
        }
    }

    /// SPUBLISH: to its channel's slot, like a write.
    pub(crate) fn shard_publish(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Option<Slot>,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        match slot {
            Some(slot) => self.forward(index, command, slot, frame, base),
            None => Flow::Next,
        }
    }

    /// PUBLISHes that wait for a node which is not reached go to where the hub has moved their
    /// topics meanwhile.
    pub(crate) fn send_stranded(&mut self, base: &mut Base<'_>) {
        base.subscribers.stranded = false;
        let waiting = |up: &Upstream| up.is_ordered() && up.state == ConnectionState::Backoff;
        let all = base.nodes.upstreams.iter().filter(|(_, up)| waiting(up));
        for conn in all.map(|(conn, _)| conn).collect::<Vec<_>>() {
            let Some(up) = base.nodes.upstreams.get_mut(conn) else { continue };
            let node = up.node;
            let of = base.nodes.upstream_of(node);
            let Some(up) = base.nodes.upstreams.get_mut(conn) else { continue };
            for (pending, frame) in up.take_unsent(&mut base.core.spare.pool, is_lone_publish) {
                let client = self.gatherings.lane_of(&pending).index;
                let to = base
                    .subscribers
                    .publish_node_of(of, &frame, base.nodes, base.core)
                    .unwrap_or(node);
                base.subscribers.stranded |= to == node;
                base.send_to(to, pending, frame, client);
            }
            base.nodes.mark_upstream(conn, base.core);
        }
    }
}
