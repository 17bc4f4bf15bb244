//! Commands whose keys are at two nodes, because their slot is being migrated.

use crate::base::Base;
use crate::base::dedicated::protocol_of;
use crate::clients::half_moved::Division;
use crate::cluster::Slot;
use crate::dest::{Dest, NodeId};
use crate::operations::{Gathering, Operations};
use crate::ops::Parts;
use crate::placement::Moment;
use crate::resp::{Protocol, write};
use crate::route::{Merge, PendingFlags};
use crate::upstream::Pending;
use crate::users::OWN_REALM;

impl Operations {
    /// Sends a command key by key that `refuser` has answered with TRYAGAIN. Gives its bytes back
    /// where it has to wait instead.
    pub(crate) fn send_key_by_key(
        &mut self,
        refuser: NodeId,
        pending: Pending,
        from_lane: bool,
        bytes: Vec<u8>,
        base: &mut Base<'_>,
    ) -> Option<Vec<u8>> {
        let slot = pending.slot;
        let lane = self.gatherings.lane_of(&pending);
        let Some(division) = Division::of(&pending, &bytes, base.clients, base.nodes, base.core)
        else {
            self.probe_migration(slot, refuser, &bytes, base);
            return Some(bytes);
        };
        let owner = base.nodes.placement.slots.owner(slot);
        let Some(owner) = owner else { return Some(bytes) };
        // What the client sent before and was refused as well goes first.
        if !from_lane && !base.nodes.placement.slots.holds.begin(slot, lane) {
            return Some(bytes);
        }
        drop(bytes);
        base.core.stats.key_by_key += 1;
        let protocol = protocol_of(&pending);
        let mut gather = base.core.spare.gathers.pop().unwrap_or_default();
        gather.start(division.merge, protocol);
        division.parts.iter().for_each(|_| gather.expect());
        let count = division.parts.len() as u32;
        let parts = Parts::Merged(gather);
        let g = self.gatherings.insert(Gathering {
            realm: pending.realm,
            started: pending.started,
            ..Gathering::new(lane, pending.command, pending.dest, parts, base.clients, base.core)
        });
        let gate = base.nodes.placement.slots.holds.divide(slot, lane, count);
        for (frame, positions) in division.parts {
            let mut first = 0;
            if division.merge == Merge::Array
                && let Some(gather) = self.gatherings.merged(g)
            {
                first = gather.next_key();
                for position in positions {
                    gather.expect_key(position);
                }
            }
            let part = Pending {
                dest: Dest::Part { gather: g as u32, first },
                flags: pending.flags | PendingFlags::LANE,
                tries: 0,
                refused: None,
                expected: pending.expected / count.max(1),
                ..pending
            };
            base.send_to(owner, part, frame, lane.index);
        }
        if let Some(class) = gate {
            base.core.run_gate(slot, class);
        }
        None
    }

    /// Asks the node that has refused a command with TRYAGAIN where its slot is being migrated to:
    /// for a key that it lacks, its answer is ASK.
    pub(crate) fn probe_migration(
        &mut self,
        slot: Slot,
        refuser: NodeId,
        bytes: &[u8],
        base: &mut Base<'_>,
    ) {
        let owner = base.nodes.placement.slots.owner(slot);
        let Some(node) = base.nodes.list.get(refuser.at()).filter(|_| !slot.is_keyless()) else {
            return;
        };
        let addr = node.addr.clone();
        let now = Moment(base.core.now);
        let migration = base.nodes.placement.slots.migration_mut(slot);
        if owner != Some(refuser) {
            // Only the node that imports the slot answers TRYAGAIN beside the owner.
            return migration.leads_to(addr);
        }
        if !migration.may_be_probed(now) || !base.nodes.placement.retries.budget.has() {
            return;
        }
        migration.probed(now);
        let Some(key) = base.core.absent_key(slot, bytes) else { return };
        base.nodes.placement.retries.budget.take(1);
        let mut frame = Vec::new();
        write::request(&mut frame, &[b"EXISTS", &key]);
        let exists =
            base.core.router.table().by_name("exists").unwrap_or(base.core.router.unknown());
        let mut pending = self.pending(
            Dest::Discard,
            exists,
            slot,
            Protocol::Resp2,
            base.access,
            base.clients,
            base.core,
        );
        pending.flags.insert(PendingFlags::READ_ONLY);
        let conn = base.upstream_as(OWN_REALM, refuser, Protocol::Resp2, 0);
        base.nodes.send_owned(conn, pending, frame, base.core);
    }
}
