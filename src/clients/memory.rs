//! The bytes that the buffers of clients and connections occupy.

use crate::buf::CHUNK;
use crate::clients::Clients;
use crate::common::Core;
use crate::nodes::{Nodes, reaccount};

/// The account of the bytes that buffers occupy, with the clients that are on it.
pub(crate) struct Memory<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The account of the bytes that buffers occupy.
    pub(crate) fn memory(&mut self) -> Memory<'_> {
        Memory { clients: self }
    }
}

impl Memory<'_> {
    /// This worker's share of `limits.memory` is used up. What was taken since the buffers were last
    /// looked at counts, too.
    #[inline]
    pub(crate) fn is_over_limit(&mut self, nodes: &mut Nodes, core: &mut Core) -> bool {
        core.memory.accounted + nodes.placement.slots.holds.bytes() + core.memory.meter.grown()
            > core.settings.memory
            && !self.has_room_up_to_date(0, nodes, core)
    }

    /// So many bytes more are within this worker's share of `limits.memory`.
    pub(crate) fn has_room_for(
        &mut self,
        bytes: usize,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        core.keep_or_give_back(
            nodes.placement.slots.holds.bytes() + core.memory.meter.grown() + bytes,
        );
        core.memory.accounted
            + nodes.placement.slots.holds.bytes()
            + core.memory.meter.grown()
            + bytes
            <= core.settings.memory
            || self.has_room_up_to_date(bytes, nodes, core)
    }

    /// The same with the account brought up to date, where that may make a difference.
    #[cold]
    fn has_room_up_to_date(&mut self, bytes: usize, nodes: &mut Nodes, core: &mut Core) -> bool {
        let limit = core.settings.memory;
        if core.memory.accounted + nodes.placement.slots.holds.bytes() + bytes > limit {
            return false;
        }
        // Looking at all that has changed in this turn has a price: so much has to have come of it.
        if core.memory.meter.grown() <= CHUNK {
            return true;
        }
        self.bring_up_to_date(nodes, core);
        core.memory.accounted + nodes.placement.slots.holds.bytes() + bytes <= limit
    }

    /// Brings the account up to date in the middle of a turn.
    fn bring_up_to_date(&mut self, nodes: &mut Nodes, core: &mut Core) {
        let clients = std::mem::take(&mut core.turn.dirty_clients);
        clients.iter().for_each(|&index| self.account(index, core));
        core.turn.dirty_clients = clients;
        let upstreams = std::mem::take(&mut core.turn.dirty_upstreams);
        for &conn in upstreams.iter().filter(|conn| **conn != core.turn.reading) {
            if let Some(up) = nodes.upstreams.get_mut(conn) {
                let held = up.memory();
                reaccount(&mut core.memory.accounted, &mut up.accounted, held);
            }
        }
        core.turn.dirty_upstreams = upstreams;
        core.memory.meter.reset();
    }

    /// Brings what the client occupies up to date.
    pub(crate) fn account(&mut self, index: usize, core: &mut Core) {
        // A closed one is on no account any more.
        if let Some(client) = self.clients.slab.get_mut(index).filter(|client| !client.gone) {
            let at_hand = if core.turn.at_hand.0 == index { core.turn.at_hand.1 } else { 0 };
            let held = client.memory() + at_hand;
            reaccount(&mut core.memory.accounted, &mut client.accounted, held);
        }
    }
}
