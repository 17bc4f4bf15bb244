//! Clients: accept, read, write, close.

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

impl Worker {
    pub(super) fn accept(&mut self, arrival: Arrival) {
        let stream = match arrival.socket {
            Downstream::Tcp(s) => Stream::Tcp(mio::net::TcpStream::from_std(s)),
            Downstream::Unix(s) => Stream::Unix(mio::net::UnixStream::from_std(s)),
            Downstream::Tls(s) => match self.secured(s) {
                Some(stream) => stream,
                None => return self.uncount_client(),
            },
        };
        self.arrivals.next_generation = self.arrivals.next_generation.wrapping_add(1);
        let id = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(stream, self.arrivals.next_generation, id, self.now);
        let entry = self.clients.vacant_entry();
        let index = entry.key();
        self.shared.clients.fetch_add(1, Ordering::Relaxed);
        if self.arrivals.traffic.len() <= index {
            self.arrivals.traffic.resize(index + 1, Traffic::default());
        }
        if let Some(traffic) = self.arrivals.traffic.get_mut(index) {
            *traffic = Traffic::default();
        }
        let client = entry.insert(client);
        client.endpoints = arrival.endpoints.map(Box::new);
        if self.settings.reads.any() {
            client.session.reads_by_configuration();
        }
        if self.stop.pause.is_some() {
            client.session.modes |= mode::SUSPENDED;
        }
        if !self.access.users.is_open() {
            self.begin_account(index);
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        let token = Source::Client(index).token();
        self.stats.clients_accepted += 1;
        self.shared.pending_subscriptions.expect(self.now);
        if let Err(error) = client.stream.watch(self.link.poll.registry(), token, false, false) {
            sparsely!(self.lines.closed, warn, %error, "a client's socket cannot be watched");
            self.close(index);
        } else if self.stop.drain.is_some_and(|drain| !drain.is_polite()) {
            self.stop_reading(index);
        } else {
            self.begin_handshake(index);
        }
    }

    /// The client's turn to be read from once more: it had more to say than one read takes.
    pub(super) fn client_again(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.again = false;
            self.client_readable(index);
        }
    }

    pub(super) fn read_again(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && !client.again
            && !client.gone
        {
            client.again = true;
            self.turn.again.push(Source::Client(index));
        }
    }

    /// One read per turn, so that no client starves the others.
    pub(super) fn client_readable(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.gone || client.read_closed || client.paused != Paused::No {
            if client.paused == Paused::Handshake && !client.gone {
                return self.client_handshake(index);
            }
            // A pause may be long, and nothing of what it sent last is begun.
            if client.paused == Paused::Leaving {
                return self.client_leaves(index);
            }
            let suspended = client.paused == Paused::Suspended && client.peer_closed;
            if suspended || self.waits_in_vain(index) {
                self.close(index);
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.spare.scratch);
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
                self.mark_client(index);
            }
            Ok(n) => {
                client.active = self.now;
                self.stats.bytes_in += n as u64;
                if let Some(traffic) = self.arrivals.traffic.get_mut(index) {
                    traffic.bytes_in += n as u64;
                }
                // A read that did not fill the buffer has emptied the socket, and the next byte makes
                // an event. Not so the end that was announced with these bytes: it was an event.
                if n == room || client.peer_closed {
                    self.read_again(index);
                }
                self.take_in(index, scratch.get(..front + n).unwrap_or_default(), front);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.read_again(index),
            Err(_) => self.close(index),
        }
        self.spare.scratch = scratch;
    }

    /// `bytes` came from the client; the first `front` of them are what its tail holds, 0 where
    /// the tail is to be extended.
    fn take_in(&mut self, index: usize, bytes: &[u8], front: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.tail.len() == front {
            let used = self.process(index, bytes);
            let Some(client) = self.clients.get_mut(index) else { return };
            let rest = bytes.get(used..).unwrap_or_default();
            if client.tail.capacity() > CHUNK || (rest.is_empty() && client.tail.capacity() > 0) {
                client.tail = Vec::new();
            }
            client.tail.clear();
            client.tail.extend_from_slice(rest);
        } else {
            let grown = client.tail.len() + bytes.len();
            // A buffer that grows is there twice for a moment.
            if grown > client.tail.capacity() && !self.has_room_for(grown) {
                self.refuse_announced(index, grown);
            } else if let Some(client) = self.clients.get_mut(index) {
                client.tail.extend_from_slice(bytes);
                self.process_tail(index);
            }
        }
        self.account_client(index);
        self.check_request_memory(index);
    }

    /// Reads commands from the client's own buffer: a long request, or what waited.
    fn process_tail(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let tail = std::mem::take(&mut client.tail);
        if tail.len() >= CHUNK {
            self.turn.last_large = self.now;
        }
        self.turn.at_hand = (index, resident(&tail));
        let left = self.process_large(index, tail);
        self.turn.at_hand = (usize::MAX, 0);
        let Some(client) = self.clients.get_mut(index) else { return };
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
            self.turn.at_hand.1 = resident(&tail);
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
        let Some(client) = self.clients.get_mut(index) else { return Whole::Other(tail) };
        if client.gone || client.paused != Paused::No {
            return Whole::Other(tail);
        }
        let limits = match client.session.is_stranger() {
            true => self.settings.request.of_stranger(),
            false => self.settings.request,
        };
        let mut ranges = std::mem::take(&mut self.spare.ranges);
        let (mut progress, is_ordinary) = (client.progress, client.session.is_ordinary());
        let scanned = scan_request(&tail, &limits, &mut progress, &mut ranges);
        if let Ok(Request::Array { len }) = scanned {
            client.transfer_sizes.begin(len);
        }
        let whole = match scanned {
            Ok(Request::Array { len })
                if is_ordinary && len >= CHUNK / 2 && !self.has_to_change_connection(index) =>
            {
                let client = self.clients.get_mut(index);
                let kept = client.map(|c| std::mem::take(&mut c.progress)).unwrap_or_default();
                let rest = tail.get(len..).unwrap_or_default().to_vec();
                tail.truncate(len);
                if len >= self.seeing.big_from {
                    self.look_at(index, &Args::new(&tail, &ranges), len);
                }
                match self.dispatch_owned(index, tail, &ranges) {
                    Ok(_) => {
                        if let Some(traffic) = self.arrivals.traffic.get_mut(index) {
                            traffic.commands += 1;
                        }
                        Whole::Sent(rest)
                    }
                    Err(mut tail) => {
                        if let Some(client) = self.clients.get_mut(index) {
                            client.progress = kept;
                        }
                        tail.extend_from_slice(&rest);
                        Whole::Other(tail)
                    }
                }
            }
            Ok(Request::Incomplete { need }) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.progress = progress;
                }
                let missing = need.saturating_sub(tail.len());
                if missing > CHUNK && !self.has_room_for(missing) {
                    self.refuse_announced(index, need);
                    tail = Vec::new();
                } else {
                    reserve_announced(&mut tail, need);
                }
                Whole::Unfinished(tail)
            }
            _ => Whole::Other(tail),
        };
        self.spare.ranges = ranges;
        whole
    }

    /// A request is announced that is larger than what is left of `limits.memory`: it is refused
    /// before it has come.
    #[cold]
    fn refuse_announced(&mut self, index: usize, need: usize) {
        self.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = too_large(&self.settings, need);
        self.answer_error(index, &failure);
        self.stop_reading(index);
    }

    /// Reads commands from `buf` and gives how many bytes are done with.
    fn process(&mut self, index: usize, buf: &[u8]) -> usize {
        let mut ranges = std::mem::take(&mut self.spare.ranges);
        let limits = self.settings.request;
        let of_stranger = limits.of_stranger();
        let mut pos = 0;
        while let Some(client) = self.clients.get_mut(index) {
            if client.gone || client.paused != Paused::No {
                break;
            }
            let rest = buf.get(pos..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            self.turn.unread = rest.len();
            let limits = if client.session.is_stranger() { &of_stranger } else { &limits };
            let (len, flow) = match scan_request(rest, limits, &mut client.progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    let args = Args::new(frame, &ranges);
                    let modes = client.session.modes;
                    client.transfer_sizes.begin(len);
                    let may_change = client.may_change_connection();
                    let flow = if may_change && self.has_to_change_connection(index) {
                        Flow::Pause
                    } else {
                        self.seeing.countdown = self.seeing.countdown.wrapping_sub(1);
                        if self.seeing.countdown == 0 || len >= self.seeing.big_from {
                            self.look_at(index, &args, len);
                        }
                        match modes {
                            0 => self.dispatch(index, frame, &args),
                            _ => self.dispatch_with_modes(index, frame, &args),
                        }
                    };
                    (len, flow)
                }
                Ok(Request::Inline { len, .. }) if self.has_to_change_connection(index) => {
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
                        self.protocol_error(index, error);
                        pos = buf.len();
                        break;
                    }
                },
            };
            self.follow_up();
            if flow != Flow::Pause {
                pos += len;
                if let Some(traffic) = self.arrivals.traffic.get_mut(index) {
                    traffic.commands += 1;
                }
            }
            if let Some(client) = self.clients.get_mut(index) {
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
            self.spare.keys = Vec::new();
            self.spare.slots = Vec::new();
        }
        self.spare.ranges = ranges;
        pos
    }

    fn dispatch_inline(&mut self, index: usize, line: &[u8]) -> Flow {
        if is_header_line(line) {
            return self.unexpected_header(index);
        }
        let mut array = std::mem::take(&mut self.spare.line);
        let flow = match inline_to_array(line, &mut array) {
            Ok(0) => Flow::Next,
            Ok(_) => {
                let mut ranges = Vec::new();
                let scanned = scan_request(
                    &array,
                    &self.settings.request,
                    &mut RequestProgress::default(),
                    &mut ranges,
                );
                match scanned {
                    Ok(Request::Array { .. }) => {
                        let args = Args::new(&array, &ranges);
                        self.dispatch_with_modes(index, &array, &args)
                    }
                    Err(error) => {
                        self.protocol_error(index, error);
                        Flow::Stop
                    }
                    Ok(_) => Flow::Next,
                }
            }
            Err(error) => {
                self.protocol_error(index, error);
                Flow::Stop
            }
        };
        self.spare.line = array;
        flow
    }

    /// A PROXY protocol header where none is accepted. Taken for a command it would be answered,
    /// and each reply that follows be taken for another's.
    fn unexpected_header(&mut self, index: usize) -> Flow {
        self.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let address = self.clients.get(index).map(|c| c.addresses().0);
        sparsely!(
            self.lines.protocol,
            warn,
            client = address,
            "a client is closed: it begins with a PROXY protocol header, and this address is not in \
             proxy_protocol.listen"
        );
        self.answer_error(index, &Failure::ProxyHeaderUnexpected);
        self.stop_reading(index);
        Flow::Stop
    }

    /// Redis's own text, then the connection closes, as Redis does.
    fn protocol_error(&mut self, index: usize, error: ProtocolError) {
        self.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let id = self.clients.get(index).map(|c| c.session.id);
        sparsely!(
            self.lines.protocol,
            warn,
            client = id,
            %error,
            "a client is closed: what it sends is no command"
        );
        self.answer_error(index, &Failure::Protocol { error });
        self.stop_reading(index);
    }

    /// No more commands are read; the client is closed when all its replies are written.
    pub(super) fn stop_reading(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && client.paused != Paused::Leaving
        {
            client.paused = Paused::Closing;
            client.tail = Vec::new();
            self.mark_client(index);
        }
    }

    /// A paused client goes on.
    pub(super) fn resume_client(&mut self, index: usize, generation: u32) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.generation != generation || client.gone || client.paused.is_final() {
            return;
        }
        client.paused = Paused::No;
        self.process_tail(index);
        self.account_client(index);
        // What came while it was paused made its one event then; read again to be sure.
        self.read_again(index);
        self.mark_client(index);
    }

    /// The client's connection ends in place of a reply ([`Client::end_at`]); all that comes before
    /// it is in the socket.
    #[cold]
    pub(super) fn end_client(&mut self, index: usize) {
        self.release_lent(index);
        self.leave_all(index);
        let Some(client) = self.clients.get_mut(index) else { return };
        client.multi = None;
        if let Some(mut replies) = client.replies.take() {
            replies.reset(&mut self.spare.pool);
        }
        self.let_go(index);
    }

    /// Closes the client now. Commands that it has sent still go their way.
    pub(super) fn close(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.gone {
            return;
        }
        client.gone = true;
        client.stream.unwatch(self.link.poll.registry());
        // The socket itself is closed at the end of the turn, with the client.
        client.stream.shut();
        client.tail = Vec::new();
        reaccount(&mut self.memory.accounted, &mut client.accounted, 0);
        self.stats.clients_closed += 1;
        self.shared.clients.fetch_sub(1, Ordering::Relaxed);
        self.turn.effects.push_back(Effect::Closed(index));
        self.uncount_client();
    }

    fn uncount_client(&self) {
        // Control and this thread both count; the last to leave must not make it less than none.
        let _ = self
            .link
            .client_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}
