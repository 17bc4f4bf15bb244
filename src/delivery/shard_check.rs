//! Parts of commands without keys (DBSIZE, SCAN, KEYS, FLUSHALL …) at a node that may no longer
//! serve its shard.
//!
//! A node refuses commands with keys while it considers the cluster down (`CLUSTERDOWN`) and when
//! another node owns their slot (`MOVED`). Commands without keys it executes all the same: a
//! primary that was restarted without its data, while a replica has the data and is promoted,
//! answers DBSIZE with 0 and FLUSHALL with OK.
//!
//! A node that restarts loses its connections. Therefore the first part on each connection is sent
//! in a transaction behind a read of one of the shard's keys: if the node refuses the read, it
//! executes nothing, and the part is treated as refused. Once a node has accepted the read, later
//! parts on the connection are sent alone.
//!
//! KEYS uses a dedicated connection, and its list is passed on as it arrives. There the read is
//! sent before it without a transaction.

use crate::delivery::Delivery;
use crate::dest::{ConnId, NodeId};
use crate::nodes::shard_check::{command_behind_read, reply_behind_read};
use crate::placement::Refusal;
use crate::resp::reply::error_text;
use crate::upstream::ConnectionEnd;

impl Delivery<'_> {
    /// Handles the reply to EXEC if the first command of connection `u` is a part behind a read.
    /// `first` is the first error among the replies before it.
    ///
    /// # Errors
    /// The connection has to be closed: the reply is not one to such a transaction.
    #[cold]
    pub(super) fn checked_reply(
        &mut self,
        conn: ConnId,
        first: Option<&[u8]>,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        if frame.first() != Some(&b'-') {
            up.serves_shard = true;
            let reply = reply_behind_read(frame).ok_or(ConnectionEnd::NoExecReply)?;
            if reply.first() == Some(&b'-') && self.refused(conn, reply) {
                return Ok(());
            }
            return self.answer_first(conn, reply);
        }
        let said = first.unwrap_or(frame);
        let node = up.node;
        let refusal = self
            .engine
            .nodes
            .list
            .get(node.at())
            .and_then(|n| Refusal::parse(said, &n.addr, n.slots));
        let mut serves = false;
        let resend_alone = match &refusal {
            // Only a slot's owner answers ASK.
            Some(Refusal::Ask(..)) => {
                serves = true;
                true
            }
            // A slot that has moved to another shard says nothing about this node.
            Some(Refusal::Moved(..)) => {
                let moved = refusal.as_ref();
                let named = moved.and_then(|refusal| self.engine.nodes.named_by(refusal, node));
                let shard = |n: NodeId| self.engine.nodes.list.get(n.at()).map(|n| n.shard_slot);
                named.is_some_and(|named| shard(named) != shard(node))
            }
            Some(Refusal::Later(_)) => false,
            // The error is about the command itself, which is sent again to get its own error; or
            // the user may not read the key, and the node cannot be checked.
            None => {
                serves = error_text(said).is_some_and(|text| text.starts_with(b"NOPERM"));
                true
            }
        };
        if !resend_alone {
            return match self.refused(conn, said) {
                true => Ok(()),
                false => self.answer_first(conn, said),
            };
        }
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        up.serves_shard |= serves;
        let Some(mut pending) = up.pending.pop_front() else { return Ok(()) };
        let transaction =
            up.queue.take_front(pending.len as usize, &mut self.engine.core.spare.pool);
        let command = command_behind_read(&transaction).unwrap_or_default();
        pending.checks_shard = false;
        pending.before = 0;
        self.engine.nodes.send(conn, pending, command, &mut self.engine.core);
        Ok(())
    }
}
