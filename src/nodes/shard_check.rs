//! Parts at a node that may not serve its shard any more go with a check.

use crate::client::{EXEC, MULTI};
use crate::cluster::{Slot, key_in_slot};
use crate::common::Core;
use crate::dest::{ConnId, Dest, NodeId};
use crate::nodes::Nodes;
use crate::resp::write;
use crate::upstream::{ConnectionState, Pending};

/// Replies before EXEC's: those of MULTI, the read and the command.
const BEFORE_EXEC: u32 = 3;

/// Appends the read of a key of `slot`, by the number that its upstream uses.
pub(crate) fn read_of_slot(frame: &mut Vec<u8>, slot: Slot) {
    write::request(frame, &[b"EXISTS", &key_in_slot(slot)]);
}

/// What is sent to nodes that have not yet shown that they serve their shard.
pub(crate) struct ShardChecks<'a> {
    nodes: &'a mut Nodes,
}

impl Nodes {
    /// The methods about what goes behind a check.
    #[inline]
    pub(crate) fn checks(&mut self) -> ShardChecks<'_> {
        ShardChecks { nodes: self }
    }
}

impl ShardChecks<'_> {
    /// The slot whose key has to be read before `pending` is carried out at `node`, if any.
    fn slot_to_check(&self, node: NodeId, pending: &Pending, core: &Core) -> Option<Slot> {
        let is_part = matches!(pending.dest, Dest::Part { .. }) && pending.before == 0;
        if !is_part || !core.router.is_keyless_data(pending.command) {
            return None;
        }
        let slot = match pending.slot {
            slot if slot.is_keyless() => self.nodes.list.get(node.at())?.shard_slot,
            slot => slot,
        };
        slot.known()
    }

    /// Sends the part of a command for several nodes to the node of connection `conn`.
    pub(crate) fn send_part(
        &mut self,
        conn: ConnId,
        mut pending: Pending,
        frame: &[u8],
        core: &mut Core,
    ) {
        match self.behind_check(conn, &mut pending, frame, core) {
            Some(checked) => self.nodes.send_owned(conn, pending, checked, core),
            None => self.nodes.send(conn, pending, frame, core),
        }
    }

    /// The transaction to send in place of `frame`, where connection `conn` stands and its node has
    /// not yet shown that it serves its shard. `None`: `frame` goes as it is. What waits in the
    /// queue of a connection that does not stand is looked at when it does.
    #[inline]
    pub(crate) fn behind_check(
        &self,
        conn: ConnId,
        pending: &mut Pending,
        frame: &[u8],
        core: &Core,
    ) -> Option<Vec<u8>> {
        let up = self.nodes.upstreams.get(conn)?;
        if up.serves_shard || up.state != ConnectionState::Ready {
            return None;
        }
        self.with_check(up.node, pending, frame, core)
    }

    #[cold]
    fn with_check(
        &self,
        node: NodeId,
        pending: &mut Pending,
        frame: &[u8],
        core: &Core,
    ) -> Option<Vec<u8>> {
        let slot = self.slot_to_check(node, pending, core)?;
        let own = Slot(self.nodes.list.get(node.at())?.slots.own(slot));
        pending.checks_shard = true;
        pending.before = BEFORE_EXEC;
        let mut checked = MULTI.to_vec();
        read_of_slot(&mut checked, own);
        checked.extend_from_slice(frame);
        checked.extend_from_slice(EXEC);
        Some(checked)
    }

    /// Connection `conn` has just been made, and nothing in its queue has been sent.
    pub(crate) fn check_queued(&mut self, conn: ConnId, core: &mut Core) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        up.serves_shard = false;
        let node = up.node;
        if up.dedicated.is_some() {
            return;
        }
        let Some(up) = self.nodes.upstreams.get(conn) else { return };
        if !up.pending.iter().any(|p| self.slot_to_check(node, p, core).is_some()) {
            return;
        }
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let waiting = up.take_unsent(&mut core.spare.pool, |_| true);
        for (mut pending, frame) in waiting {
            let checked = self.with_check(node, &mut pending, &frame, core);
            self.nodes.send_owned(conn, pending, checked.unwrap_or(frame), core);
        }
    }

    /// The bytes to send for KEYS over connection `conn`, with the read in front of it where the node
    /// has not yet shown that it serves its shard.
    pub(crate) fn keys_behind_check(
        &self,
        conn: ConnId,
        pending: &mut Pending,
        frame: &[u8],
    ) -> Option<Vec<u8>> {
        let up = self.nodes.upstreams.get(conn).filter(|up| !up.serves_shard)?;
        let node = self.nodes.list.get(up.node.at())?;
        let slot = node.shard_slot;
        if slot.is_keyless() {
            return None;
        }
        let own = Slot(node.slots.own(slot));
        pending.before = 1;
        let mut checked = Vec::new();
        read_of_slot(&mut checked, own);
        checked.extend_from_slice(frame);
        Some(checked)
    }
}

/// The reply to the command in EXEC's reply, whose first element is the read's.
pub(crate) fn reply_behind_read(frame: &[u8]) -> Option<&[u8]> {
    let rest = frame.strip_prefix(b"*2\r\n:")?;
    let end = memchr::memchr(b'\n', rest)?;
    rest.get(end + 1..)
}

/// The command in the transaction `frame`.
pub(crate) fn command_behind_read(frame: &[u8]) -> Option<&[u8]> {
    let rest = frame.strip_prefix(MULTI)?.strip_suffix(EXEC)?;
    // Three lines: the array's length, and each argument's length and text.
    let mut lines = memchr::memchr_iter(b'\n', rest);
    rest.get(lines.nth(4)? + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_out_of_its_transaction_as_it_went_in() {
        let command = b"*2\r\n$8\r\nFLUSHALL\r\n$5\r\nASYNC\r\n";
        for slot in [0, 1, 100, 8191, 16383].map(Slot) {
            let mut frame = MULTI.to_vec();
            read_of_slot(&mut frame, slot);
            frame.extend_from_slice(command);
            frame.extend_from_slice(EXEC);
            assert_eq!(command_behind_read(&frame), Some(command.as_slice()));
        }
    }

    #[test]
    fn the_commands_reply_follows_the_reads() {
        assert_eq!(reply_behind_read(b"*2\r\n:0\r\n:200\r\n"), Some(b":200\r\n".as_slice()));
        let scan = b"*2\r\n:1\r\n*2\r\n$1\r\n0\r\n*0\r\n";
        assert_eq!(reply_behind_read(scan), Some(b"*2\r\n$1\r\n0\r\n*0\r\n".as_slice()));
        assert_eq!(reply_behind_read(b"*-1\r\n"), None);
    }
}
