//! Dividing what a node sends into replies, and handling those that are not ordinary.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::delivery::Delivery;
use crate::dest::{ClientId, ConnId, Dest};
use crate::errors::Failure;
use crate::resp::ReplyProgress;
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, ConnectionState, Pending};

/// Size in bytes from which an unfinished reply is passed on to its client in pieces. A smaller one
/// is kept until it is complete, so that its command can be sent again if the connection is lost.
const STREAM_FROM: usize = 32 << 10;

impl Delivery<'_> {
    /// Handles all complete replies in `buf`, which begins with the first byte of a reply that was
    /// not passed on. Returns the number of bytes consumed.
    ///
    /// # Errors
    /// The connection has to be closed: the node violates the protocol or refuses the handshake.
    pub(crate) fn replies(&mut self, conn: ConnId, buf: &[u8]) -> Result<usize, ConnectionEnd> {
        let mut start = 0;
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(buf.len()) };
        let mut at = std::mem::take(&mut up.scanned);
        let mut scan = up.scan;
        while at < buf.len() {
            let step = scan.advance(buf.get(at..).unwrap_or_default());
            match step? {
                ReplyProgress::Complete(n) => {
                    let frame = buf.get(start..at + n).unwrap_or_default();
                    at += n;
                    start = at;
                    self.reply(conn, frame)?;
                    self.follow_up();
                }
                ReplyProgress::Partial(n) => {
                    at += n;
                    if at - start >= STREAM_FROM && self.stream_reply(conn, buf, start, at) {
                        start = at;
                    }
                    break;
                }
            }
        }
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(buf.len()) };
        up.scan = scan;
        up.scanned = at - start;
        Ok(start)
    }

    /// Passes on the beginning of a large reply if it goes to one client unchanged. `true`: it is
    /// consumed.
    fn stream_reply(&mut self, conn: ConnId, buf: &[u8], start: usize, at: usize) -> bool {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return false };
        let piece = buf.get(start..at).unwrap_or_default();
        let Some(pending) = up.pending.front() else { return false };
        if let Dest::Join { join, part } = pending.dest {
            return up.state == ConnectionState::Ready && self.join_piece(conn, join, part, piece);
        }
        let piece = match pending.dest {
            Dest::Part { gather, .. } => {
                match self.engine.ops.hand_on_step(conn, gather, piece, &mut base!(self.engine)) {
                    Some(piece) => piece,
                    None => return false,
                }
            }
            _ => piece,
        };
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return false };
        let Some(pending) = up.pending.front() else { return false };
        let Dest::Client { index, generation, seq } = pending.dest else { return false };
        // Replies inside a batch are not passed on, and counts of subscribers are corrected in the
        // complete reply.
        if up.skipped_replies < pending.before || pending.flags.contains(PendingFlags::PUBLISHES) {
            return false;
        }
        // An error may be a refusal, and a push answers no command.
        let whole_only = matches!(piece.first(), Some(b'-' | b'>' | b'!'));
        if up.state != ConnectionState::Ready || (!up.streaming && whole_only) {
            return false;
        }
        up.streaming = true;
        up.streamed += piece.len();
        if up.streamed >= CHUNK {
            self.engine.core.turn.last_large = self.engine.core.now;
        }
        if let Some(client) = self.engine.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.stream(seq, piece, false, &mut self.engine.core.spare.pool);
            client.transfer_sizes.at_least(up.streamed);
            self.engine.clients.mark_client(index as usize, &mut self.engine.core);
        }
        true
    }

    /// Handles any complete reply, or the last piece of one that was passed on in pieces.
    ///
    /// # Errors
    /// The connection has to be closed.
    #[inline(never)]
    pub(super) fn reply_rare(&mut self, conn: ConnId, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        if up.state != ConnectionState::Ready {
            return base!(self.engine).handshake_reply(conn, frame);
        }
        if up.streaming {
            up.streaming = false;
            self.last_piece(conn, frame);
            return Ok(());
        }
        if frame.first() == Some(&b'>') {
            // A push: no command that slotway sends on these connections causes one.
            return self.engine.nodes.connections().strange_push(conn, &mut self.engine.core);
        }
        if up.pending.front().is_some_and(|p| p.before > 0) {
            return self.batch_reply(conn, frame);
        }
        if up.dedicated.is_some() {
            return self.dedicated_reply(conn, frame, frame);
        }
        if frame.first() == Some(&b'-') && self.refused(conn, frame) {
            return Ok(());
        }
        self.answer_first(conn, frame)
    }

    /// Delivers `frame` as the reply to the connection's first command.
    ///
    /// # Errors
    /// No command awaits a reply.
    #[inline]
    pub(super) fn answer_first(&mut self, conn: ConnId, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(mut up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        let Some(pending) = up.pending.pop_front() else {
            return Err(ConnectionEnd::UnexpectedReply);
        };
        let node = up.node;
        let micros = self.engine.core.now.saturating_sub(pending.started);
        if micros >= self.engine.seeing.look_from || frame.len() >= self.engine.seeing.big_from {
            self.engine.seeing.look_back(
                conn,
                &pending,
                frame,
                frame.len(),
                &mut self.engine.ops,
                &mut base!(self.engine),
            );
            let Some(same) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
            up = same;
        }
        if pending.flags.contains(PendingFlags::PUBLISHES) {
            return self.answer_publish(conn, &pending, frame);
        }
        up.queue.release(pending.len as usize, &mut self.engine.core.spare.pool);
        if self.engine.core.settings.measures {
            self.engine.nodes.measure(conn, &pending, &mut self.engine.core);
        }
        self.engine.deliver(node, &pending, frame);
        Ok(())
    }

    /// Delivers the reply to a publication, with the count of subscribers corrected. The caller has
    /// removed `pending` from the queue, but not its bytes.
    #[cold]
    fn answer_publish(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get(conn) else { return Ok(()) };
        let node = up.node;
        let mut corrected = std::mem::take(&mut self.engine.core.spare.line);
        corrected.clear();
        let sent = up.queue.front(pending.len as usize).unwrap_or_default();
        let changed = self
            .engine
            .subscribers
            .count_subscribers(
                (node, pending.started),
                sent,
                frame,
                &mut corrected,
                &self.engine.nodes,
                &self.engine.core,
            )
            .is_some();
        if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.queue.release(pending.len as usize, &mut self.engine.core.spare.pool);
        }
        self.engine.deliver(node, pending, if changed { &corrected } else { frame });
        self.engine.core.spare.line = corrected;
        Ok(())
    }

    /// Handles one of the replies to a batch: the last one is delivered, and the first error among
    /// the others is kept for it.
    ///
    /// If a node refuses a command while queuing it, EXEC fails and nothing of the batch is
    /// executed: the refusal applies to the whole batch.
    ///
    /// # Errors
    /// The connection has to be closed.
    #[cold]
    fn batch_reply(&mut self, conn: ConnId, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        let Some(pending) = up.pending.front() else { return Ok(()) };
        let is_error = frame.first() == Some(&b'-');
        let checks_shard = pending.checks_shard;
        if up.skipped_replies < pending.before {
            up.multi_refused |= is_error && up.skipped_replies == 0;
            up.skipped_replies += 1;
            if let Dest::Join { join, .. } = pending.dest {
                self.engine.ops.joining().keys_checked(conn, join, frame, &mut base!(self.engine));
                return Ok(());
            }
            if is_error && up.skipped_error.is_none() {
                up.skipped_error = Some(frame.to_vec());
            }
            return Ok(());
        }
        up.skipped_replies = 0;
        let first = up.skipped_error.take();
        let unwrapped = std::mem::take(&mut up.multi_refused);
        let dedicated = up.dedicated.is_some();
        if checks_shard {
            return self.checked_reply(conn, first.as_deref(), frame);
        }
        let said = match &first {
            Some(first) if is_error && !unwrapped => first,
            _ => frame,
        };
        if is_error && !dedicated && self.refused(conn, said) {
            return Ok(());
        }
        let mut aborted = Vec::new();
        if is_error && let Some(first) = &first {
            let text = crate::resp::reply::error_text(first).unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            let text = text.into_owned();
            let failure = match unwrapped {
                false => Failure::Discarded { cause: text },
                true => Failure::MultiRefused { reason: text },
            };
            failure.write(&mut aborted);
        }
        let answer = if aborted.is_empty() { frame } else { &aborted };
        if dedicated {
            return self.dedicated_reply(conn, said, answer);
        }
        self.answer_first(conn, answer)
    }

    /// Handles the last piece of a reply that was passed on in pieces.
    fn last_piece(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        let Some(pending) = up.pending.pop_front() else { return };
        let node = up.node;
        let bytes = std::mem::take(&mut up.streamed) + frame.len();
        self.engine.seeing.look_back(
            conn,
            &pending,
            frame,
            bytes,
            &mut self.engine.ops,
            &mut base!(self.engine),
        );
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        up.queue.release(pending.len as usize, &mut self.engine.core.spare.pool);
        up.skipped_replies = 0;
        up.skipped_error = None;
        let dedicated = up.dedicated.and_then(|d| d.client);
        if let Dest::Join { join, part } = pending.dest {
            return self.join_last(conn, join, part, frame);
        }
        self.engine.core.count_reply(node, &pending, true);
        if let Dest::Client { index, generation, seq } = pending.dest
            && let Some(client) = self.engine.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.stream(seq, frame, true, &mut self.engine.core.spare.pool);
            client.transfer_sizes.record(bytes);
            self.engine.clients.mark_client(index as usize, &mut self.engine.core);
        }
        self.engine.ops.answered(&pending, &mut self.engine.nodes, &mut self.engine.core);
        if let Dest::Client { index, generation, seq } = pending.dest {
            self.engine.clients.errands().end_handed_on(
                ClientId { index, generation },
                seq,
                &mut self.engine.core,
            );
        }
        if let (Some(client), Dest::Client { seq, .. }) = (dedicated, pending.dest) {
            if !self.engine.clients.watches().has(client, conn) {
                self.engine.clients.lending().give_back(
                    conn,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
            }
            self.engine.clients.errands().end(client, seq, &mut self.engine.core);
        }
    }
}
