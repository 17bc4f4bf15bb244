//! Commands of lanes go to their nodes.

use crate::base::Base;
use crate::base::dedicated::protocol_of;
use crate::cluster::Slot;
use crate::dest::{ClientId, Dest, NodeId};
use crate::nodes::retries::Want;
use crate::placement::Moment;
use crate::route::PendingFlags;
use crate::upstream::{LaneCommand, Pending};

/// A slot that was not redirected for so long is calm again, microseconds.
const CALM_AFTER: u64 = 1_000_000;
pub(crate) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

impl Base<'_> {
    pub(crate) fn release_calm(&mut self) {
        if self.nodes.placement.slots.holds.is_empty() {
            return;
        }
        let since = Moment(self.core.now.saturating_sub(CALM_AFTER));
        for slot in self.nodes.placement.slots.holds.calm(since) {
            self.release_slot(slot);
        }
    }

    /// Sends the lane's next command if it may go and there is a node for it.
    pub(crate) fn lane_goes_on(&mut self, slot: Slot, lane: ClientId) {
        let Some(owner) = self.nodes.owner_for(slot, lane) else { return };
        let now = Moment(self.core.now);
        let Some(class) = self.nodes.placement.slots.holds.ready(slot, lane, now) else {
            return;
        };
        if self.nodes.placement.slots.holds.wait_at_gate(slot, class, lane) {
            return self.core.run_gate(slot, class);
        }
        if self.nodes.placement.slots.holds.owes(slot, lane, false)
            && !self.nodes.placement.may_retry(Want::Lane(slot, lane), self.core)
        {
            return;
        }
        self.nodes.placement.slots.holds.owes(slot, lane, true);
        let Some(held) = self.nodes.placement.slots.holds.next(slot, lane, now) else {
            return;
        };
        let mut pending = held.meta.pending;
        pending.flags.insert(PendingFlags::LANE);
        let owner =
            self.subscribers.node_of_held(&pending, &held.frame, owner, self.nodes, self.core);
        self.send_to(owner, pending, held.frame, lane.index);
    }

    pub(crate) fn send_to(
        &mut self,
        node: NodeId,
        mut pending: Pending,
        bytes: Vec<u8>,
        client: u32,
    ) {
        if !self.access.has_realm(&pending, self.core) {
            return;
        }
        if !pending.flags.contains(PendingFlags::READ_ONLY) {
            self.clients.note_write(client as usize, Some(node));
        }
        let protocol = protocol_of(&pending);
        let conn = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.scripts.script_before_again(conn, &mut pending, &bytes, self.nodes, self.core);
        let bytes = self
            .nodes
            .checks()
            .behind_check(conn, &mut pending, &bytes, self.core)
            .unwrap_or(bytes);
        self.nodes.send_owned(conn, pending, bytes, self.core);
    }

    pub(crate) fn send_asking(
        &mut self,
        node: NodeId,
        mut pending: Pending,
        bytes: Vec<u8>,
        client: u32,
    ) {
        if !self.access.has_realm(&pending, self.core) {
            return;
        }
        self.clients.note_write(client as usize, Some(node));
        let protocol = protocol_of(&pending);
        let conn = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.scripts.script_before_again(conn, &mut pending, &bytes, self.nodes, self.core);
        let asking = Pending {
            dest: Dest::Discard,
            flags: PendingFlags::empty(),
            slot: Slot::NONE,
            before: 0,
            checks_shard: false,
            expected: 0,
            ..pending
        };
        self.nodes.send(conn, asking, ASKING, self.core);
        pending.flags.insert(PendingFlags::ASKING);
        self.nodes.send_owned(conn, pending, bytes, self.core);
    }

    /// A slot is calm: it is pipelined again. If all that is under way for it is on its owner's
    /// connections, what waits goes right behind, in order; otherwise only what waits in lanes
    /// that have nothing under way.
    pub(crate) fn release_slot(&mut self, slot: Slot) {
        let owner = match slot {
            keyless if keyless.is_keyless() => self.nodes.any_primary(0, keyless),
            slot => self.nodes.placement.slots.owner(slot),
        };
        let Some(owner) = owner else { return };
        let ours = |p: &Pending| p.slot == slot && p.dest != Dest::Discard;
        let elsewhere = self.nodes.upstreams.iter().any(|(_, up)| {
            let asking = |p: &Pending| p.flags.contains(PendingFlags::ASKING);
            let away = |p: &Pending| ours(p) && (up.node != owner || asking(p));
            up.is_ordered() && up.pending.iter().any(away)
        });
        let elsewhere = elsewhere && !slot.is_keyless();
        if !elsewhere {
            for (_, up) in self.nodes.upstreams.iter_mut() {
                for pending in up.pending.iter_mut().filter(|p| p.slot == slot) {
                    pending.flags.remove(PendingFlags::SPECIAL);
                }
            }
        }
        let (waiting, ended) = self.nodes.placement.slots.release(slot, elsewhere);
        for held in waiting {
            let LaneCommand { mut pending, lane } = held.meta;
            if !ended {
                // The slot stays held for others: this client's next ones must not overtake.
                pending.flags.insert(PendingFlags::TRACKED);
                self.nodes.placement.slots.holds.track(slot, lane);
            }
            let owner =
                self.subscribers.node_of_held(&pending, &held.frame, owner, self.nodes, self.core);
            self.send_to(owner, pending, held.frame, lane.index);
        }
    }
}
