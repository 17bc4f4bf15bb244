//! The walk of a reply to an ordinary command, from its node's buffer to its client's. HOT PATH:
//! everything rare is behind one call.

use crate::common::counters::BLOCKED;
use crate::delivery::Delivery;
use crate::dest::{ConnId, Dest};
use crate::metrics::Histogram;
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, ConnectionState};

impl Delivery<'_> {
    /// Puts a node's complete reply into the buffer of the client that waits for it. The buffer is
    /// written at the end of the turn, by `flush_client` in `worker/writing.rs`.
    ///
    /// # Errors
    /// The connection has to be closed: the node violates the protocol or refuses the handshake.
    #[inline]
    pub(super) fn reply(&mut self, conn: ConnId, frame: &[u8]) -> Result<(), ConnectionEnd> {
        // Is there anything to do besides passing it on?
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        let Some(pending) = up.pending.front() else { return self.reply_rare(conn, frame) };
        let micros = self.engine.core.now.saturating_sub(pending.started);
        let rare = up.state != ConnectionState::Ready
            || up.streaming
            || up.dedicated.is_some()
            || pending.before > 0
            || pending.flags.intersects(PendingFlags::SPECIAL | PendingFlags::PUBLISHES)
            || matches!(frame.first(), Some(b'-' | b'>'))
            || micros >= self.engine.seeing.look_from.min(BLOCKED)
            || frame.len() >= self.engine.seeing.big_from
            || self.engine.core.settings.measures;
        let (Dest::Client { index, generation, seq }, false) = (pending.dest, rare) else {
            return self.reply_rare(conn, frame);
        };
        // Count the command, and free its bytes.
        let (node, len, command) = (up.node, pending.len as usize, pending.command);
        up.pending.pop_front();
        up.queue.release(len, &mut self.engine.core.spare.pool);
        let bucket = Histogram::bucket(micros);
        if let Some(stats) = self.engine.core.stats.nodes.get_mut(node.at()) {
            stats.latency.record(bucket, micros);
        }
        if let Some(histogram) =
            self.engine.core.stats.latency.get_mut(self.engine.core.router.class(command))
        {
            histogram.record(bucket, micros);
        }
        if let Some(stats) = self.engine.core.stats.commands.get_mut(command.index()) {
            stats.ok += 1;
        }
        if command == self.engine.core.router.unknown() {
            self.engine.core.note_unknown();
        }
        // Deliver the reply, in the order of the client's commands.
        let Some(client) = self.engine.clients.slab.get_mut(index as usize) else { return Ok(()) };
        if client.generation == generation {
            client.complete(seq, frame, &mut self.engine.core.spare.pool);
            client.transfer_sizes.record(frame.len());
            if !client.dirty {
                client.dirty = true;
                self.engine.core.turn.dirty_clients.push(index as usize);
            }
        }
        Ok(())
    }
}
