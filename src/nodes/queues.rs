//! What is put on connections to nodes, and taken off them again.

use std::sync::Arc;

use crate::command::CommandId;
use crate::common::Core;
use crate::common::requests::discarded;
use crate::dest::ConnId;
use crate::errors::Failure;
use crate::nodes::{Nodes, reaccount};
use crate::route::{PendingFlags, Script};
use crate::upstream::Pending;

impl Nodes {
    /// Puts a command into a connection's queue.
    #[inline]
    pub(crate) fn send(
        &mut self,
        conn: ConnId,
        mut pending: Pending,
        frame: &[u8],
        core: &mut Core,
    ) {
        let Some(up) = self.upstreams.get_mut(conn) else { return };
        pending.len = frame.len() as u32;
        up.queue.push(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(conn, core);
    }

    pub(crate) fn send_owned(
        &mut self,
        conn: ConnId,
        mut pending: Pending,
        frame: Vec<u8>,
        core: &mut Core,
    ) {
        let Some(up) = self.upstreams.get_mut(conn) else { return };
        pending.len = frame.len() as u32;
        up.queue.push_owned(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(conn, core);
    }

    /// Sends something whose reply is nobody's.
    pub(crate) fn discard(&mut self, conn: ConnId, frame: &[u8], core: &mut Core) {
        self.send(conn, discarded(CommandId(0), core.now), frame, core);
    }

    /// The connection has something to be written at the end of the turn.
    #[inline]
    pub(crate) fn mark_upstream(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(up) = self.upstreams.get_mut(conn)
            && !up.dirty
        {
            up.dirty = true;
            core.turn.dirty_upstreams.push(conn);
        }
    }

    pub(crate) fn pop_pending(&mut self, conn: ConnId, core: &mut Core) {
        let Some(up) = self.upstreams.get_mut(conn) else { return };
        if let Some(pending) = up.pending.pop_front() {
            up.queue.release(pending.len as usize, &mut core.spare.pool);
        }
    }

    /// A node is not reached: SCRIPT LOAD does not wait for it, as it is given the script when it is
    /// needed.
    pub(crate) fn loads_without(&mut self, conn: ConnId, node: &str, core: &mut Core) {
        let of = self.upstreams.get(conn).map(|up| self.upstream_of(up.node));
        if !self.primaries_of(of.into_iter().collect()).any(|n| self.is_reached(n)) {
            return; // somebody has to take it
        }
        let router = Arc::clone(&core.router);
        let Some(up) = self.upstreams.get_mut(conn) else { return };
        let loads = up.take_unsent(&mut core.spare.pool, |p| {
            p.flags.contains(PendingFlags::NODE_BOUND)
                && router.script(p.command) == Some(Script::Load)
        });
        for (pending, _) in loads {
            core.fail(&pending, node, &Failure::NodeNotReached);
        }
    }

    /// What is only kept for reuse.
    pub(crate) fn trim(&mut self, core: &mut Core) {
        core.spare.trim();
        for (_, up) in self.upstreams.iter_mut().filter(|(_, up)| up.pending.is_empty()) {
            up.pending.shrink_to_fit();
            let held = up.memory();
            reaccount(&mut core.memory.accounted, &mut up.accounted, held);
        }
    }
}
