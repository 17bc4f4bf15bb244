//! What nodes say: replies are taken off their connections, one after the other.

use std::io::Read;

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::common::Source;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::resp::ReplyProgress;
use crate::route::flag;
use crate::upstream::{ConnectionEnd, ConnectionState, Pending};
use crate::worker::Worker;

/// An unfinished reply of this size is handed to its client piece by piece; a smaller one is
/// waited for, so that it can still be asked for again if the connection is lost.
const STREAM_FROM: usize = 32 << 10;

impl Worker {
    pub(super) fn upstream_again(&mut self, u: usize) {
        if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.again = false;
            self.upstream_readable(u);
        }
    }

    /// One read per turn. HOT PATH: every reply passes here.
    pub(super) fn upstream_readable(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        if up.read_paused {
            return;
        }
        let Some(stream) = up.stream.as_mut() else { return };
        let mut scratch = std::mem::take(&mut self.core.spare.scratch);
        // As with clients: a short unfinished reply goes in front of what is read, a long one
        // (of a kind that cannot be handed on in pieces) is appended to.
        let append = up.tail.len() > scratch.len() / 2;
        let front = if append { 0 } else { up.tail.len() };
        if let Some(place) = scratch.get_mut(..front) {
            place.copy_from_slice(up.tail.get(..front).unwrap_or_default());
        }
        let room = scratch.len() - front;
        match stream.read(scratch.get_mut(front..).unwrap_or_default()) {
            Ok(0) => self.core.lose(u, ConnectionEnd::Closed),
            Ok(n) => {
                up.last_read = self.core.now;
                if up.window > 0 && up.state == ConnectionState::Ready {
                    up.widen();
                }
                if (n == room || up.peer_closed) && !up.again {
                    up.again = true;
                    self.core.turn.again.push(Source::Upstream(u));
                }
                if let Some(stats) = self.core.stats.nodes.get_mut(usize::from(up.node)) {
                    stats.bytes_received += n as u64;
                }
                let got = scratch.get(..front + n).unwrap_or_default();
                // A buffer that grows is there twice for a moment.
                let grows = up.tail.len() + n > up.tail.capacity();
                let grown = up.tail.len() + n;
                if append
                    && grows
                    && !self.clients.memory().has_room_for(grown, &mut self.nodes, &mut self.core)
                {
                    self.core.spare.scratch = scratch;
                    return self.clients.deliveries().refuse_reply(
                        u,
                        &mut self.nodes,
                        &mut self.core,
                    );
                }
                let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
                let outcome = if append {
                    let mut tail = std::mem::take(&mut up.tail);
                    tail.extend_from_slice(got);
                    self.core.turn.reading = u;
                    let outcome = self.replies(u, &tail);
                    self.core.turn.reading = usize::MAX;
                    // What is left is the end of what was there; most often all of it.
                    match (&outcome, self.nodes.upstreams.get_mut(u)) {
                        (Ok(0), Some(up)) => up.tail = tail,
                        (Ok(used), Some(up)) => {
                            up.tail = tail.get(*used..).unwrap_or_default().to_vec();
                        }
                        _ => {}
                    }
                    outcome
                } else {
                    let outcome = self.replies(u, got);
                    if let (Ok(used), Some(up)) = (&outcome, self.nodes.upstreams.get_mut(u)) {
                        let rest = got.get(*used..).unwrap_or_default();
                        up.tail.clear();
                        if rest.is_empty() && up.tail.capacity() > CHUNK {
                            up.tail = Vec::new();
                        }
                        up.tail.extend_from_slice(rest);
                    }
                    outcome
                };
                if let Err(why) = outcome {
                    self.core.lose(u, why);
                }
                self.nodes.mark_upstream(u, &mut self.core);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                if !up.again {
                    up.again = true;
                    self.core.turn.again.push(Source::Upstream(u));
                }
            }
            Err(error) => {
                let why = self.nodes.connections().tls_why(u, &error, &self.core);
                self.core.lose(u, why);
            }
        }
        self.core.spare.scratch = scratch;
    }

    /// Takes all complete replies off `buf`, which begins at a reply's first byte that was not
    /// handed on. Gives how many bytes are done with.
    fn replies(&mut self, u: usize, buf: &[u8]) -> Result<usize, ConnectionEnd> {
        let mut start = 0;
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Ok(buf.len()) };
        let mut at = std::mem::take(&mut up.scanned);
        let mut scan = up.scan;
        while at < buf.len() {
            let step = scan.advance(buf.get(at..).unwrap_or_default());
            match step? {
                ReplyProgress::Complete(n) => {
                    let frame = buf.get(start..at + n).unwrap_or_default();
                    at += n;
                    start = at;
                    self.reply(u, frame)?;
                    self.follow_up();
                }
                ReplyProgress::Partial(n) => {
                    at += n;
                    if at - start >= STREAM_FROM && self.stream_reply(u, buf, start, at) {
                        start = at;
                    }
                    break;
                }
            }
        }
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Ok(buf.len()) };
        up.scan = scan;
        up.scanned = at - start;
        Ok(start)
    }

    /// Hands the beginning of a large reply on, where it goes to one client as it is.
    fn stream_reply(&mut self, u: usize, buf: &[u8], start: usize, at: usize) -> bool {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return false };
        let piece = buf.get(start..at).unwrap_or_default();
        let Some(pending) = up.pending.front() else { return false };
        if let Dest::Join { join, part } = pending.dest {
            return up.state == ConnectionState::Ready && self.join_piece(u, join, part, piece);
        }
        let piece = match pending.dest {
            Dest::Part { gather, .. } => {
                match self.ops.hand_on_step(u, gather, piece, &mut base!(self)) {
                    Some(piece) => piece,
                    None => return false,
                }
            }
            _ => piece,
        };
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return false };
        let Some(pending) = up.pending.front() else { return false };
        let Dest::Client { index, generation, seq } = pending.dest else { return false };
        // Its counts of subscribers are put right when all of it is here.
        if up.skipped_replies < pending.before || pending.has(flag::PUBLISHES) {
            return false;
        }
        // An error may be one to be followed, and a push is nobody's reply.
        let whole_only = matches!(piece.first(), Some(b'-' | b'>' | b'!'));
        if up.state != ConnectionState::Ready || (!up.streaming && whole_only) {
            return false;
        }
        up.streaming = true;
        up.streamed += piece.len();
        if up.streamed >= CHUNK {
            self.core.turn.last_large = self.core.now;
        }
        if let Some(client) = self.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.stream(seq, piece, false, &mut self.core.spare.pool);
            client.transfer_sizes.at_least(up.streamed);
            self.clients.mark_client(index as usize, &mut self.core);
        }
        true
    }

    /// One complete reply, or the last piece of one that was handed on, whatever is special about
    /// it.
    #[inline(never)]
    pub(super) fn reply_rare(&mut self, u: usize, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Ok(()) };
        if up.state != ConnectionState::Ready {
            return base!(self).handshake_reply(u, frame);
        }
        if up.streaming {
            up.streaming = false;
            self.last_piece(u, frame);
            return Ok(());
        }
        if frame.first() == Some(&b'>') {
            // A push; nothing that slotway asked for on a shared connection makes one.
            return self.nodes.connections().strange_push(u, &mut self.core);
        }
        if up.pending.front().is_some_and(|p| p.before > 0) {
            return self.batch_reply(u, frame);
        }
        if up.dedicated.is_some() {
            return self.dedicated_reply(u, frame, frame);
        }
        if frame.first() == Some(&b'-') && self.refused(u, frame) {
            return Ok(());
        }
        self.answer_first(u, frame)
    }

    /// `frame` answers the connection's first command.
    #[inline]
    pub(super) fn answer_first(&mut self, u: usize, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(mut up) = self.nodes.upstreams.get_mut(u) else { return Ok(()) };
        let Some(pending) = up.pending.pop_front() else {
            return Err(ConnectionEnd::UnexpectedReply);
        };
        let node = up.node;
        let micros = self.core.now.saturating_sub(pending.started);
        if micros >= self.seeing.look_from || frame.len() >= self.seeing.big_from {
            self.seeing.look_back(u, &pending, frame, frame.len(), &mut self.ops, &mut base!(self));
            let Some(same) = self.nodes.upstreams.get_mut(u) else { return Ok(()) };
            up = same;
        }
        if pending.has(flag::PUBLISHES) {
            return self.answer_publish(u, &pending, frame);
        }
        up.queue.release(pending.len as usize, &mut self.core.spare.pool);
        if self.core.settings.measures {
            self.nodes.measure(u, &pending, &mut self.core);
        }
        self.deliver(node, &pending, frame);
        Ok(())
    }

    /// The same for a reply that counts subscribers.
    #[cold]
    fn answer_publish(
        &mut self,
        u: usize,
        pending: &Pending,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.nodes.upstreams.get(u) else { return Ok(()) };
        let node = up.node;
        let mut right = std::mem::take(&mut self.core.spare.line);
        right.clear();
        let sent = up.queue.front(pending.len as usize).unwrap_or_default();
        let changed = self
            .subscribers
            .count_subscribers(
                (node, pending.started),
                sent,
                frame,
                &mut right,
                &self.nodes,
                &self.core,
            )
            .is_some();
        if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.queue.release(pending.len as usize, &mut self.core.spare.pool);
        }
        self.deliver(node, pending, if changed { &right } else { frame });
        self.core.spare.line = right;
        Ok(())
    }

    /// One of the replies to a batch: those before the last are noted, the last one counts.
    ///
    /// A command that a node refuses while it is queued makes its EXEC fail, so nothing of the
    /// batch was executed: the refusal then holds for all of it.
    #[cold]
    fn batch_reply(&mut self, u: usize, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Ok(()) };
        let Some(pending) = up.pending.front() else { return Ok(()) };
        let is_error = frame.first() == Some(&b'-');
        let checks_shard = pending.checks_shard;
        if up.skipped_replies < pending.before {
            up.multi_refused |= is_error && up.skipped_replies == 0;
            up.skipped_replies += 1;
            if let Dest::Join { join, .. } = pending.dest {
                self.ops.joining().keys_checked(u, join, frame, &mut base!(self));
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
            return self.checked_reply(u, first.as_deref(), frame);
        }
        let said = match &first {
            Some(first) if is_error && !unwrapped => first,
            _ => frame,
        };
        if is_error && !dedicated && self.refused(u, said) {
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
            return self.dedicated_reply(u, said, answer);
        }
        self.answer_first(u, answer)
    }

    fn last_piece(&mut self, u: usize, frame: &[u8]) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let Some(pending) = up.pending.pop_front() else { return };
        let node = up.node;
        let bytes = std::mem::take(&mut up.streamed) + frame.len();
        self.seeing.look_back(u, &pending, frame, bytes, &mut self.ops, &mut base!(self));
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        up.queue.release(pending.len as usize, &mut self.core.spare.pool);
        up.skipped_replies = 0;
        up.skipped_error = None;
        let dedicated = up.dedicated.and_then(|d| d.client);
        if let Dest::Join { join, part } = pending.dest {
            return self.join_last(u, join, part, frame);
        }
        self.core.count_reply(node, &pending, true);
        if let Dest::Client { index, generation, seq } = pending.dest
            && let Some(client) = self.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.stream(seq, frame, true, &mut self.core.spare.pool);
            client.transfer_sizes.record(bytes);
            self.clients.mark_client(index as usize, &mut self.core);
        }
        self.ops.answered(&pending, &mut self.nodes, &mut self.core);
        if let Dest::Client { index, generation, seq } = pending.dest {
            self.clients.errands().end_handed_on(
                ClientId { index, generation },
                seq,
                &mut self.core,
            );
        }
        if let (Some(client), Dest::Client { seq, .. }) = (dedicated, pending.dest) {
            if !self.clients.watches().has(client, u) {
                self.clients.lending().give_back(u, &mut self.nodes, &mut self.core);
            }
            self.clients.errands().end(client, seq, &mut self.core);
        }
    }
}
