//! Parts of commands without keys (DBSIZE, SCAN, KEYS, FLUSHALL …) at a node that may not serve its
//! shard any more.
//!
//! A node refuses a command with keys while it does not know of a working cluster (`CLUSTERDOWN`)
//! and when its slots are another node's (`MOVED`). Commands without keys it carries out all the
//! same. So a primary that was restarted without its data, and whose replica has the data and is
//! about to be promoted or is so already, counts no keys and says OK to FLUSHALL.
//!
//! A node that restarts loses its connections. Therefore the first part on each connection goes in
//! a transaction behind a read of a key of the shard: if the node refuses the read it carries out
//! nothing, and the part is treated as refused, as a command with that key would be. Once a node
//! has accepted the read, later parts on that connection are sent as they are.
//!
//! KEYS has a connection of its own, and its list is handed on as it comes. There the read goes in
//! front of it without a transaction.

use crate::delivery::Delivery;
use crate::dest::NodeId;
use crate::nodes::shard_check::{command_behind_read, reply_behind_read};
use crate::placement::Refusal;
use crate::resp::reply::error_text;
use crate::upstream::ConnectionEnd;

impl Delivery<'_> {
    /// The reply to EXEC where the first command of connection `u` is a part behind a read. `first`
    /// is the first error among the replies before.
    #[cold]
    pub(super) fn checked_reply(
        &mut self,
        u: usize,
        first: Option<&[u8]>,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get_mut(u) else { return Ok(()) };
        if frame.first() != Some(&b'-') {
            up.serves_shard = true;
            let reply = reply_behind_read(frame).ok_or(ConnectionEnd::NoExecReply)?;
            if reply.first() == Some(&b'-') && self.refused(u, reply) {
                return Ok(());
            }
            return self.answer_first(u, reply);
        }
        let said = first.unwrap_or(frame);
        let node = up.node;
        let refusal =
            self.engine.nodes.list.get(node.at()).and_then(|n| Refusal::parse(said, &n.addr));
        let mut serves = false;
        let again = match &refusal {
            // Only the owner of a slot tells where its key may be. And a slot that is now another
            // shard's says nothing against the node.
            Some(Refusal::Ask(..)) => {
                serves = true;
                true
            }
            Some(Refusal::Moved(_, addr)) => {
                let shard = |n: NodeId| self.engine.nodes.list.get(n.at()).map(|n| n.shard_slot);
                self.engine.nodes.known_node(addr).is_some_and(|named| shard(named) != shard(node))
            }
            Some(Refusal::Later(_)) => false,
            // It is about the command itself, which is sent once more to be refused in its own
            // words; or the user may not read the key, and nothing can be found out.
            None => {
                serves = error_text(said).is_some_and(|text| text.starts_with(b"NOPERM"));
                true
            }
        };
        if !again {
            return match self.refused(u, said) {
                true => Ok(()),
                false => self.answer_first(u, said),
            };
        }
        let Some(up) = self.engine.nodes.upstreams.get_mut(u) else { return Ok(()) };
        up.serves_shard |= serves;
        let Some(mut pending) = up.pending.pop_front() else { return Ok(()) };
        let transaction =
            up.queue.take_front(pending.len as usize, &mut self.engine.core.spare.pool);
        let command = command_behind_read(&transaction).unwrap_or_default();
        pending.checks_shard = false;
        pending.before = 0;
        self.engine.nodes.send(u, pending, command, &mut self.engine.core);
        Ok(())
    }
}
