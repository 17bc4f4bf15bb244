//! Clients: accept, read, write, close.

use super::state::base;
use super::state::{Base, Clients, Core};
use std::io::Read;
use std::sync::atomic::Ordering;

use super::effect::Effect;
use super::settings::too_large;
use super::{NEXT_CLIENT, Source, Worker, reaccount};
use crate::buf::{CHUNK, reserve_announced, resident};
use crate::client::{Client, Paused, Traffic, mode};
use crate::errors::Failure;
use crate::mailbox::{Arrival, Downstream};
use crate::metrics::LimitHit;
use crate::proxy_protocol::is_header_line;
use crate::resp::{Args, ProtocolError, Request, RequestProgress, inline_to_array, scan_request};
use crate::sparsely;
use crate::stream::Stream;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is under way or answered; the next one can be read.
    Next,
    /// It was not touched; the client is paused and the command stays in its buffer.
    Pause,
    /// No more commands are read.
    Stop,
}

/// What became of the command at the start of a large buffer.
enum Whole {
    /// It is under way; this came behind it.
    Sent(Vec<u8>),
    /// It is not complete.
    Unfinished(Vec<u8>),
    /// It is of a kind that needs it as bytes, or cannot go on now.
    Other(Vec<u8>),
}

impl Core {
    fn uncount_client(&self) {
        // Control and this thread both count; the last to leave must not make it less than none.
        let _ = self
            .link
            .client_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}

impl Clients {
    pub(super) fn read_again(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && !client.again
            && !client.gone
        {
            client.again = true;
            core.turn.again.push(Source::Client(index));
        }
    }

    /// A request is announced that is larger than what is left of `limits.memory`: it is refused
    /// before it has come.
    #[cold]
    fn refuse_announced(&mut self, index: usize, need: usize, core: &mut Core) {
        core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = too_large(&core.settings, need);
        self.answer_error(index, &failure, core);
        self.stop_reading(index, core);
    }

    /// A PROXY protocol header where none is accepted. Taken for a command it would be answered,
    /// and each reply that follows be taken for another's.
    fn unexpected_header(&mut self, index: usize, core: &mut Core) -> Flow {
        core.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let address = self.slab.get(index).map(|c| c.addresses().0);
        sparsely!(
            core.lines.protocol,
            warn,
            client = address,
            "a client is closed: it begins with a PROXY protocol header, and this address is not in \
             proxy_protocol.listen"
        );
        self.answer_error(index, &Failure::ProxyHeaderUnexpected, core);
        self.stop_reading(index, core);
        Flow::Stop
    }

    /// Redis's own text, then the connection closes, as Redis does.
    fn protocol_error(&mut self, index: usize, error: ProtocolError, core: &mut Core) {
        core.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let id = self.slab.get(index).map(|c| c.session.id);
        sparsely!(
            core.lines.protocol,
            warn,
            client = id,
            %error,
            "a client is closed: what it sends is no command"
        );
        self.answer_error(index, &Failure::Protocol { error }, core);
        self.stop_reading(index, core);
    }

    /// No more commands are read; the client is closed when all its replies are written.
    pub(super) fn stop_reading(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && client.paused != Paused::Leaving
        {
            client.paused = Paused::Closing;
            client.tail = Vec::new();
            self.mark_client(index, core);
        }
    }

    /// Closes the client now. Commands that it has sent still go their way.
    pub(super) fn close(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        if client.gone {
            return;
        }
        client.gone = true;
        client.stream.unwatch(core.link.poll.registry());
        // The socket itself is closed at the end of the turn, with the client.
        client.stream.shut();
        client.tail = Vec::new();
        reaccount(&mut core.memory.accounted, &mut client.accounted, 0);
        core.stats.clients_closed += 1;
        core.shared.clients.fetch_sub(1, Ordering::Relaxed);
        core.turn.effects.push_back(Effect::Closed(index));
        core.uncount_client();
    }
}

impl Base<'_> {
    pub(super) fn accept(&mut self, arrival: Arrival) {
        let stream = match arrival.socket {
            Downstream::Tcp(s) => Stream::Tcp(mio::net::TcpStream::from_std(s)),
            Downstream::Unix(s) => Stream::Unix(mio::net::UnixStream::from_std(s)),
            Downstream::Tls(s) => match self.core.secured(s) {
                Some(stream) => stream,
                None => return self.core.uncount_client(),
            },
        };
        self.clients.arrivals.next_generation =
            self.clients.arrivals.next_generation.wrapping_add(1);
        let id = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(stream, self.clients.arrivals.next_generation, id, self.core.now);
        let entry = self.clients.slab.vacant_entry();
        let index = entry.key();
        self.core.shared.clients.fetch_add(1, Ordering::Relaxed);
        if self.clients.arrivals.traffic.len() <= index {
            self.clients.arrivals.traffic.resize(index + 1, Traffic::default());
        }
        if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
            *traffic = Traffic::default();
        }
        let client = entry.insert(client);
        client.endpoints = arrival.endpoints.map(Box::new);
        if self.core.settings.reads.any() {
            client.session.reads_by_configuration();
        }
        if self.clients.stop.pause.is_some() {
            client.session.modes |= mode::SUSPENDED;
        }
        if !self.access.users.is_open() {
            self.begin_account(index);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        let token = Source::Client(index).token();
        self.core.stats.clients_accepted += 1;
        self.core.shared.pending_subscriptions.expect(self.core.now);
        if let Err(error) = client.stream.watch(self.core.link.poll.registry(), token, false, false)
        {
            sparsely!(self.core.lines.closed, warn, %error, "a client's socket cannot be watched");
            self.clients.close(index, self.core);
        } else if self.clients.stop.drain.is_some_and(|drain| !drain.is_polite()) {
            self.clients.stop_reading(index, self.core);
        } else {
            self.clients.begin_handshake(index, self.core);
        }
    }
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
                return self.clients.client_leaves(index, &mut self.core);
            }
            let suspended = client.paused == Paused::Suspended && client.peer_closed;
            if suspended || self.clients.waits_in_vain(index) {
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
                && !self.clients.has_room_for(grown, &mut self.nodes, &mut self.core)
            {
                self.clients.refuse_announced(index, grown, &mut self.core);
            } else if let Some(client) = self.clients.slab.get_mut(index) {
                client.tail.extend_from_slice(bytes);
                self.process_tail(index);
            }
        }
        self.clients.account_client(index, &mut self.core);
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
        let limits = match client.session.is_stranger() {
            true => self.core.settings.request.of_stranger(),
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
                    && !self.clients.has_to_change_connection(index, &mut self.core) =>
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
                    && !self.clients.has_room_for(missing, &mut self.nodes, &mut self.core)
                {
                    self.clients.refuse_announced(index, need, &mut self.core);
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
        let of_stranger = limits.of_stranger();
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
            let limits = if client.session.is_stranger() { &of_stranger } else { &limits };
            let (len, flow) = match scan_request(rest, limits, &mut client.progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    let args = Args::new(frame, &ranges);
                    let modes = client.session.modes;
                    client.transfer_sizes.begin(len);
                    let may_change = client.may_change_connection();
                    let flow = if may_change
                        && self.clients.has_to_change_connection(index, &mut self.core)
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
                    if self.clients.has_to_change_connection(index, &mut self.core) =>
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
                        self.clients.protocol_error(index, error, &mut self.core);
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
            return self.clients.unexpected_header(index, &mut self.core);
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
                        self.clients.protocol_error(index, error, &mut self.core);
                        Flow::Stop
                    }
                    Ok(_) => Flow::Next,
                }
            }
            Err(error) => {
                self.clients.protocol_error(index, error, &mut self.core);
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
        self.clients.account_client(index, &mut self.core);
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
        self.clients.let_go(index, &mut self.core);
    }
}
