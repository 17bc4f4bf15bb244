//! Clients: accept, read, write, close.

use std::io::Read;

use crate::base::{Base, base};
use crate::buf::{CHUNK, reserve_announced, resident};
use crate::client::Paused;
use crate::clients::Flow;
use crate::proxy_protocol::is_header_line;
use crate::resp::{Args, Request, RequestProgress, inline_to_array, scan_request};
use crate::worker::Worker;

/// What became of the command at the start of a large buffer.
enum Whole {
    /// It is under way; this came behind it.
    Sent(Vec<u8>),
    /// It is not complete.
    Unfinished(Vec<u8>),
    /// It is of a kind that needs it as bytes, or cannot go on now.
    Other(Vec<u8>),
}

impl Worker {
    /// The client's turn to be read from once more: it had more to say than one read takes.
    pub(super) fn client_again(&mut self, index: usize) {
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.again = false;
            self.client_readable(index);
        }
    }

    /// One read per turn, so that no client starves the others.
    pub(super) fn client_readable(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if client.gone || client.read_closed || client.paused != Paused::No {
            if client.paused == Paused::Handshake && !client.gone {
                return self.client_handshake(index);
            }
            // A pause may be long, and nothing of what it sent last is begun.
            if client.paused == Paused::Leaving {
                return self.clients.departures().drop_input(index, &mut self.core);
            }
            let suspended = client.paused == Paused::Suspended && client.peer_closed;
            if suspended || self.clients.errands().waits_in_vain(index) {
                self.clients.close(index, &mut self.core);
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.core.spare.scratch);
        // A short unfinished request is put in front of what is read now; a long one stays where
        // it is and what is read is appended to it.
        let front = if client.tail.len() <= scratch.len() / 2 { client.tail.len() } else { 0 };
        if let Some(place) = scratch.get_mut(..front) {
            place.copy_from_slice(client.tail.get(..front).unwrap_or_default());
        }
        let room = scratch.len() - front;
        let read = client.stream.read(scratch.get_mut(front..).unwrap_or_default());
        match read {
            Ok(0) => {
                client.read_closed = true;
                self.clients.mark_client(index, &mut self.core);
            }
            Ok(n) => {
                client.active = self.core.now;
                self.core.stats.bytes_in += n as u64;
                if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
                    traffic.bytes_in += n as u64;
                }
                // A read that did not fill the buffer has emptied the socket, and the next byte makes
                // an event. Not so the end that was announced with these bytes: it was an event.
                if n == room || client.peer_closed {
                    self.clients.read_again(index, &mut self.core);
                }
                self.take_in(index, scratch.get(..front + n).unwrap_or_default(), front);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                self.clients.read_again(index, &mut self.core)
            }
            Err(_) => self.clients.close(index, &mut self.core),
        }
        self.core.spare.scratch = scratch;
    }

    /// `bytes` came from the client; the first `front` of them are what its tail holds, 0 where
    /// the tail is to be extended.
    fn take_in(&mut self, index: usize, bytes: &[u8], front: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if client.tail.len() == front {
            let used = self.process(index, bytes);
            let Some(client) = self.clients.slab.get_mut(index) else { return };
            let rest = bytes.get(used..).unwrap_or_default();
            if client.tail.capacity() > CHUNK || (rest.is_empty() && client.tail.capacity() > 0) {
                client.tail = Vec::new();
            }
            client.tail.clear();
            client.tail.extend_from_slice(rest);
        } else {
            let grown = client.tail.len() + bytes.len();
            // A buffer that grows is there twice for a moment.
            if grown > client.tail.capacity()
                && !self.clients.memory().has_room_for(grown, &mut self.nodes, &mut self.core)
            {
                self.clients.refusals().announced(index, grown, &mut self.core);
            } else if let Some(client) = self.clients.slab.get_mut(index) {
                client.tail.extend_from_slice(bytes);
                self.process_tail(index);
            }
        }
        self.clients.memory().account(index, &mut self.core);
        self.check_request_memory(index);
    }

    /// Reads commands from the client's own buffer: a long request, or what waited.
    fn process_tail(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        let tail = std::mem::take(&mut client.tail);
        if tail.len() >= CHUNK {
            self.core.turn.last_large = self.core.now;
        }
        self.core.turn.at_hand = (index, resident(&tail));
        let left = self.process_large(index, tail);
        self.core.turn.at_hand = (usize::MAX, 0);
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if !client.gone && !client.paused.is_final() {
            client.tail = left;
        }
    }

    /// See [`Worker::process_tail`]. Returns what is left of the buffer.
    fn process_large(&mut self, index: usize, mut tail: Vec<u8>) -> Vec<u8> {
        while tail.len() >= CHUNK / 2 {
            match self.process_whole(index, tail) {
                Whole::Sent(rest) => tail = rest,
                Whole::Unfinished(tail) => return tail,
                Whole::Other(same) => {
                    tail = same;
                    break;
                }
            }
            self.core.turn.at_hand.1 = resident(&tail);
        }
        let used = self.process(index, &tail);
        if used > 0 {
            tail.drain(..used);
            if tail.is_empty() {
                tail = Vec::new();
            } else if tail.capacity() > CHUNK.max(4 * tail.len()) {
                tail.shrink_to_fit();
            }
        }
        tail
    }

    /// A large command at the start of the buffer goes on in it without being copied.
    fn process_whole(&mut self, index: usize, mut tail: Vec<u8>) -> Whole {
        let Some(client) = self.clients.slab.get_mut(index) else { return Whole::Other(tail) };
        if client.gone || client.paused != Paused::No {
            return Whole::Other(tail);
        }
        let limits = match client.session.must_log_in() {
            true => self.core.settings.request.before_login(),
            false => self.core.settings.request,
        };
        let mut ranges = std::mem::take(&mut self.core.spare.ranges);
        let (mut progress, is_ordinary) = (client.progress, client.session.is_ordinary());
        let scanned = scan_request(&tail, &limits, &mut progress, &mut ranges);
        if let Ok(Request::Array { len }) = scanned {
            client.transfer_sizes.begin(len);
        }
        let whole = match scanned {
            Ok(Request::Array { len })
                if is_ordinary
                    && len >= CHUNK / 2
                    && !self.clients.fairness().has_to_change_connection(index, &mut self.core) =>
            {
                let client = self.clients.slab.get_mut(index);
                let kept = client.map(|c| std::mem::take(&mut c.progress)).unwrap_or_default();
                let rest = tail.get(len..).unwrap_or_default().to_vec();
                tail.truncate(len);
                if len >= self.seeing.big_from {
                    self.seeing.look_at(
                        index,
                        &Args::new(&tail, &ranges),
                        len,
                        &mut self.clients,
                        &mut self.core,
                    );
                }
                match self.ops.dispatch_owned(index, tail, &ranges, &mut base!(self)) {
                    Ok(_) => {
                        if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
                            traffic.commands += 1;
                        }
                        Whole::Sent(rest)
                    }
                    Err(mut tail) => {
                        if let Some(client) = self.clients.slab.get_mut(index) {
                            client.progress = kept;
                        }
                        tail.extend_from_slice(&rest);
                        Whole::Other(tail)
                    }
                }
            }
            Ok(Request::Incomplete { need }) => {
                if let Some(client) = self.clients.slab.get_mut(index) {
                    client.progress = progress;
                }
                let missing = need.saturating_sub(tail.len());
                if missing > CHUNK
                    && !self.clients.memory().has_room_for(missing, &mut self.nodes, &mut self.core)
                {
                    self.clients.refusals().announced(index, need, &mut self.core);
                    tail = Vec::new();
                } else {
                    reserve_announced(&mut tail, need);
                }
                Whole::Unfinished(tail)
            }
            _ => Whole::Other(tail),
        };
        self.core.spare.ranges = ranges;
        whole
    }

    /// Reads commands from `buf` and gives how many bytes are done with.
    fn process(&mut self, index: usize, buf: &[u8]) -> usize {
        let mut ranges = std::mem::take(&mut self.core.spare.ranges);
        let limits = self.core.settings.request;
        let before_login = limits.before_login();
        let mut pos = 0;
        while let Some(client) = self.clients.slab.get_mut(index) {
            if client.gone || client.paused != Paused::No {
                break;
            }
            let rest = buf.get(pos..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            self.core.turn.unread = rest.len();
            let limits = if client.session.must_log_in() { &before_login } else { &limits };
            let (len, flow) = match scan_request(rest, limits, &mut client.progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    let args = Args::new(frame, &ranges);
                    let modes = client.session.modes;
                    client.transfer_sizes.begin(len);
                    let may_change = client.may_change_connection();
                    let flow = if may_change
                        && self.clients.fairness().has_to_change_connection(index, &mut self.core)
                    {
                        Flow::Pause
                    } else {
                        self.seeing.countdown = self.seeing.countdown.wrapping_sub(1);
                        if self.seeing.countdown == 0 || len >= self.seeing.big_from {
                            self.seeing.look_at(
                                index,
                                &args,
                                len,
                                &mut self.clients,
                                &mut self.core,
                            );
                        }
                        match modes {
                            0 => self.dispatch(index, frame, &args),
                            _ => self.dispatch_with_modes(index, frame, &args),
                        }
                    };
                    (len, flow)
                }
                Ok(Request::Inline { len, .. })
                    if self.clients.fairness().has_to_change_connection(index, &mut self.core) =>
                {
                    (len, Flow::Pause)
                }
                Ok(Request::Inline { line, len }) => {
                    let line = rest.get(..line).unwrap_or_default();
                    (len, self.dispatch_inline(index, line))
                }
                Ok(Request::Empty { len }) => (len, Flow::Next),
                Ok(Request::Incomplete { .. }) => break,
                Err(error) => match self.stranger_may_send(index, error) {
                    Some(Flow::Next) => continue,
                    Some(flow) => (0, flow),
                    None => {
                        self.clients.refusals().protocol_error(index, error, &mut self.core);
                        pos = buf.len();
                        break;
                    }
                },
            };
            self.follow_up();
            if flow != Flow::Pause {
                pos += len;
                if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
                    traffic.commands += 1;
                }
            }
            if let Some(client) = self.clients.slab.get_mut(index) {
                client.progress = RequestProgress::default();
            }
            match flow {
                Flow::Next => {}
                Flow::Pause => break,
                Flow::Stop => {
                    pos = buf.len();
                    break;
                }
            }
        }
        if ranges.capacity() > CHUNK {
            ranges = Vec::new();
            self.core.spare.keys = Vec::new();
            self.core.spare.slots = Vec::new();
        }
        self.core.spare.ranges = ranges;
        pos
    }

    fn dispatch_inline(&mut self, index: usize, line: &[u8]) -> Flow {
        if is_header_line(line) {
            return self.clients.refusals().unexpected_header(index, &mut self.core);
        }
        let mut array = std::mem::take(&mut self.core.spare.line);
        let flow = match inline_to_array(line, &mut array) {
            Ok(0) => Flow::Next,
            Ok(_) => {
                let mut ranges = Vec::new();
                let scanned = scan_request(
                    &array,
                    &self.core.settings.request,
                    &mut RequestProgress::default(),
                    &mut ranges,
                );
                match scanned {
                    Ok(Request::Array { .. }) => {
                        let args = Args::new(&array, &ranges);
                        self.dispatch_with_modes(index, &array, &args)
                    }
                    Err(error) => {
                        self.clients.refusals().protocol_error(index, error, &mut self.core);
                        Flow::Stop
                    }
                    Ok(_) => Flow::Next,
                }
            }
            Err(error) => {
                self.clients.refusals().protocol_error(index, error, &mut self.core);
                Flow::Stop
            }
        };
        self.core.spare.line = array;
        flow
    }

    /// A paused client goes on.
    pub(super) fn resume_client(&mut self, index: usize, generation: u32) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if client.generation != generation || client.gone || client.paused.is_final() {
            return;
        }
        client.paused = Paused::No;
        self.process_tail(index);
        self.clients.memory().account(index, &mut self.core);
        // What came while it was paused made its one event then; read again to be sure.
        self.clients.read_again(index, &mut self.core);
        self.clients.mark_client(index, &mut self.core);
    }

    /// The client's connection ends in place of a reply ([`Client::end_at`]); all that comes before
    /// it is in the socket.
    #[cold]
    pub(super) fn end_client(&mut self, index: usize) {
        self.release_lent(index);
        self.subscribers.leave_all(index, &mut self.clients, &mut self.core);
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        client.multi = None;
        if let Some(mut replies) = client.replies.take() {
            replies.reset(&mut self.core.spare.pool);
        }
        self.clients.departures().let_go(index, &mut self.core);
    }
}
