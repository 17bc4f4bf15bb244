//! Reading from clients, and processing their requests.

use crate::base::{Base, base};
use crate::buf::{CHUNK, reserve_announced, resident};
use crate::client::Paused;
use crate::clients::Flow;
use crate::proxy_protocol::is_header_line;
use crate::resp::{Args, Request, RequestProgress, inline_to_array, scan_request};
use crate::worker::Worker;
use std::io::Read;

/// What happened to the command at the start of a large buffer.
enum Whole {
    /// It was dispatched. Contains the bytes behind it.
    Sent(Vec<u8>),
    /// It is incomplete. Contains the buffer.
    Unfinished(Vec<u8>),
    /// It needs a borrowed buffer, or cannot be dispatched now. Contains the buffer.
    Other(Vec<u8>),
}

impl Worker {
    /// Reads again from a client that had sent more than one read takes.
    pub(super) fn client_again(&mut self, index: usize) {
        if let Some(client) = self.engine.clients.slab.get_mut(index) {
            client.again = false;
            self.client_readable(index);
        }
    }

    /// Reads from a client, once per turn so that no client starves the others.
    pub(super) fn client_readable(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        if client.gone || client.read_closed || client.paused != Paused::No {
            if client.paused == Paused::Handshake && !client.gone {
                return self.client_handshake(index);
            }
            if client.paused == Paused::Leaving {
                return self.engine.clients.departures().drop_input(index, &mut self.engine.core);
            }
            // A suspension may be long, and the client's last command has not been started.
            let suspended = client.paused == Paused::Suspended && client.peer_closed;
            if suspended || self.engine.clients.errands().waits_in_vain(index) {
                self.engine.clients.close(index, &mut self.engine.core);
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.engine.core.spare.scratch);
        // A short unfinished request is copied in front of the new bytes; to a long one the new
        // bytes are appended.
        let front = if client.tail.len() <= scratch.len() / 2 { client.tail.len() } else { 0 };
        if let Some(place) = scratch.get_mut(..front) {
            place.copy_from_slice(client.tail.get(..front).unwrap_or_default());
        }
        let room = scratch.len() - front;
        let read = client.stream.read(scratch.get_mut(front..).unwrap_or_default());
        match read {
            Ok(0) => {
                client.read_closed = true;
                self.engine.clients.mark_client(index, &mut self.engine.core);
            }
            Ok(n) => {
                client.active = self.engine.core.now;
                self.engine.core.stats.bytes_in += n as u64;
                if let Some(traffic) = self.engine.clients.arrivals.traffic.get_mut(index) {
                    traffic.bytes_in += n as u64;
                }
                // A read that did not fill the buffer has emptied the socket, and the next byte
                // causes an event. An end of the stream that was announced with these bytes does
                // not.
                if n == room || client.peer_closed {
                    self.engine.clients.read_again(index, &mut self.engine.core);
                }
                self.take_in(index, scratch.get(..front + n).unwrap_or_default(), front);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                self.engine.clients.read_again(index, &mut self.engine.core)
            }
            Err(_) => self.engine.clients.close(index, &mut self.engine.core),
        }
        self.engine.core.spare.scratch = scratch;
    }

    /// Processes `bytes` from the client. The first `front` of them are a copy of the client's
    /// tail; if `front` is 0, they follow the tail.
    fn take_in(&mut self, index: usize, bytes: &[u8], front: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        if client.tail.len() == front {
            let used = self.process(index, bytes);
            let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
            let rest = bytes.get(used..).unwrap_or_default();
            if client.tail.capacity() > CHUNK || (rest.is_empty() && client.tail.capacity() > 0) {
                client.tail = Vec::new();
            }
            client.tail.clear();
            client.tail.extend_from_slice(rest);
        } else {
            let grown = client.tail.len() + bytes.len();
            // A buffer that grows exists twice for a moment.
            if grown > client.tail.capacity()
                && !self.engine.clients.memory().has_room_for(
                    grown,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                )
            {
                self.engine.clients.refusals().announced(index, grown, &mut self.engine.core);
            } else if let Some(client) = self.engine.clients.slab.get_mut(index) {
                client.tail.extend_from_slice(bytes);
                self.process_tail(index);
            }
        }
        self.engine.clients.memory().account(index, &mut self.engine.core);
        self.check_request_memory(index);
    }

    /// Processes the client's own buffer: a long request, or what arrived while the client was
    /// paused.
    fn process_tail(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        let tail = std::mem::take(&mut client.tail);
        if tail.len() >= CHUNK {
            self.engine.core.turn.last_large = self.engine.core.now;
        }
        self.engine.core.turn.at_hand = (index, resident(&tail));
        let left = self.process_large(index, tail);
        self.engine.core.turn.at_hand = (usize::MAX, 0);
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        if !client.gone && !client.paused.is_final() {
            client.tail = left;
        }
    }

    /// Processes a client's own buffer, large commands without copying them. Returns the bytes that
    /// are left.
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
            self.engine.core.turn.at_hand.1 = resident(&tail);
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

    /// Dispatches a large command at the start of the buffer together with the buffer, without
    /// copying the command.
    fn process_whole(&mut self, index: usize, mut tail: Vec<u8>) -> Whole {
        let Some(client) = self.engine.clients.slab.get_mut(index) else {
            return Whole::Other(tail);
        };
        if client.gone || client.paused != Paused::No {
            return Whole::Other(tail);
        }
        let limits = match client.session.must_log_in() {
            true => self.engine.core.settings.request.before_login(),
            false => self.engine.core.settings.request,
        };
        let mut ranges = std::mem::take(&mut self.engine.core.spare.ranges);
        let (mut progress, is_ordinary) = (client.progress, client.session.is_ordinary());
        let scanned = scan_request(&tail, &limits, &mut progress, &mut ranges);
        if let Ok(Request::Array { len }) = scanned {
            client.transfer_sizes.begin(len);
        }
        let whole = match scanned {
            Ok(Request::Array { len })
                if is_ordinary
                    && len >= CHUNK / 2
                    && !self
                        .engine
                        .clients
                        .fairness()
                        .has_to_change_connection(index, &mut self.engine.core) =>
            {
                let client = self.engine.clients.slab.get_mut(index);
                let kept = client.map(|c| std::mem::take(&mut c.progress)).unwrap_or_default();
                let rest = tail.get(len..).unwrap_or_default().to_vec();
                tail.truncate(len);
                if len >= self.engine.seeing.big_from {
                    self.engine.seeing.look_at(
                        index,
                        &Args::new(&tail, &ranges),
                        len,
                        &mut self.engine.clients,
                        &mut self.engine.core,
                    );
                }
                match self.engine.ops.dispatch_owned(index, tail, &ranges, &mut base!(self.engine))
                {
                    Ok(_) => {
                        if let Some(traffic) = self.engine.clients.arrivals.traffic.get_mut(index) {
                            traffic.commands += 1;
                        }
                        Whole::Sent(rest)
                    }
                    Err(mut tail) => {
                        if let Some(client) = self.engine.clients.slab.get_mut(index) {
                            client.progress = kept;
                        }
                        tail.extend_from_slice(&rest);
                        Whole::Other(tail)
                    }
                }
            }
            Ok(Request::Incomplete { need }) => {
                if let Some(client) = self.engine.clients.slab.get_mut(index) {
                    client.progress = progress;
                }
                let missing = need.saturating_sub(tail.len());
                if missing > CHUNK
                    && !self.engine.clients.memory().has_room_for(
                        missing,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    )
                {
                    self.engine.clients.refusals().announced(index, need, &mut self.engine.core);
                    tail = Vec::new();
                } else {
                    reserve_announced(&mut tail, need);
                }
                Whole::Unfinished(tail)
            }
            _ => Whole::Other(tail),
        };
        self.engine.core.spare.ranges = ranges;
        whole
    }

    /// Processes the commands in `buf`. Returns the number of bytes consumed.
    fn process(&mut self, index: usize, buf: &[u8]) -> usize {
        let mut ranges = std::mem::take(&mut self.engine.core.spare.ranges);
        let limits = self.engine.core.settings.request;
        let before_login = limits.before_login();
        let mut pos = 0;
        while let Some(client) = self.engine.clients.slab.get_mut(index) {
            if client.gone || client.paused != Paused::No {
                break;
            }
            let rest = buf.get(pos..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            self.engine.core.turn.unread = rest.len();
            let limits = if client.session.must_log_in() { &before_login } else { &limits };
            let (len, flow) = match scan_request(rest, limits, &mut client.progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    let args = Args::new(frame, &ranges);
                    let modes = client.session.modes;
                    client.transfer_sizes.begin(len);
                    let may_change = client.may_change_connection();
                    let flow = if may_change
                        && self
                            .engine
                            .clients
                            .fairness()
                            .has_to_change_connection(index, &mut self.engine.core)
                    {
                        Flow::Pause
                    } else {
                        self.engine.seeing.countdown = self.engine.seeing.countdown.wrapping_sub(1);
                        if self.engine.seeing.countdown == 0 || len >= self.engine.seeing.big_from {
                            self.engine.seeing.look_at(
                                index,
                                &args,
                                len,
                                &mut self.engine.clients,
                                &mut self.engine.core,
                            );
                        }
                        match modes.is_empty() {
                            true => self.dispatcher().dispatch(index, frame, &args),
                            false => self.dispatcher().dispatch_with_modes(index, frame, &args),
                        }
                    };
                    (len, flow)
                }
                Ok(Request::Inline { len, .. })
                    if self
                        .engine
                        .clients
                        .fairness()
                        .has_to_change_connection(index, &mut self.engine.core) =>
                {
                    (len, Flow::Pause)
                }
                Ok(Request::Inline { line, len }) => {
                    let line = rest.get(..line).unwrap_or_default();
                    (len, self.dispatch_inline(index, line))
                }
                Ok(Request::Empty { len }) => (len, Flow::Next),
                Ok(Request::Incomplete { .. }) => break,
                Err(error) => match self.dispatcher().stranger_may_send(index, error) {
                    Some(Flow::Next) => continue,
                    Some(flow) => (0, flow),
                    None => {
                        self.engine.clients.refusals().protocol_error(
                            index,
                            error,
                            &mut self.engine.core,
                        );
                        pos = buf.len();
                        break;
                    }
                },
            };
            self.delivery().follow_up();
            if flow != Flow::Pause {
                pos += len;
                if let Some(traffic) = self.engine.clients.arrivals.traffic.get_mut(index) {
                    traffic.commands += 1;
                }
            }
            if let Some(client) = self.engine.clients.slab.get_mut(index) {
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
            self.engine.core.spare.keys = Vec::new();
            self.engine.core.spare.slots = Vec::new();
        }
        self.engine.core.spare.ranges = ranges;
        pos
    }

    /// Dispatches an inline command.
    fn dispatch_inline(&mut self, index: usize, line: &[u8]) -> Flow {
        if is_header_line(line) {
            return self.engine.clients.refusals().unexpected_header(index, &mut self.engine.core);
        }
        let mut array = std::mem::take(&mut self.engine.core.spare.line);
        let flow = match inline_to_array(line, &mut array) {
            Ok(0) => Flow::Next,
            Ok(_) => {
                let mut ranges = Vec::new();
                let scanned = scan_request(
                    &array,
                    &self.engine.core.settings.request,
                    &mut RequestProgress::default(),
                    &mut ranges,
                );
                match scanned {
                    Ok(Request::Array { .. }) => {
                        let args = Args::new(&array, &ranges);
                        self.dispatcher().dispatch_with_modes(index, &array, &args)
                    }
                    Err(error) => {
                        self.engine.clients.refusals().protocol_error(
                            index,
                            error,
                            &mut self.engine.core,
                        );
                        Flow::Stop
                    }
                    Ok(_) => Flow::Next,
                }
            }
            Err(error) => {
                self.engine.clients.refusals().protocol_error(index, error, &mut self.engine.core);
                Flow::Stop
            }
        };
        self.engine.core.spare.line = array;
        flow
    }

    /// Resumes a paused client.
    pub(super) fn resume_client(&mut self, index: usize, generation: u32) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        if client.generation != generation || client.gone || client.paused.is_final() {
            return;
        }
        client.paused = Paused::No;
        self.process_tail(index);
        self.engine.clients.memory().account(index, &mut self.engine.core);
        // Bytes that arrived during the pause have already caused their event.
        self.engine.clients.read_again(index, &mut self.engine.core);
        self.engine.clients.mark_client(index, &mut self.engine.core);
    }

    /// Ends a client's connection in place of a reply ([`Client::end_at`]). All earlier replies are
    /// in the socket.
    #[cold]
    pub(super) fn end_client(&mut self, index: usize) {
        self.engine.release_lent(index);
        self.engine.subscribers.leave_all(index, &mut self.engine.clients, &mut self.engine.core);
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        client.multi = None;
        if let Some(mut replies) = client.replies.take() {
            replies.reset(&mut self.engine.core.spare.pool);
        }
        self.engine.clients.departures().let_go(index, &mut self.engine.core);
    }
}
