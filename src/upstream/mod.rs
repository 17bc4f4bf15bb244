//! One connection to a node: connecting, handshake, the queue of commands that await their replies,
//! and what happens to them when the connection is lost. Not here: which command goes to which
//! node, and how replies are used ([`crate::worker`]).

mod end;
mod handshake;
mod pending;
mod stamps;
mod turns;

pub use end::ConnectionEnd;
pub use handshake::{Handshake, HandshakeError, verify_node_id};
pub use pending::{LaneCommand, Pending, PendingQueue};
pub use stamps::Stamps;
pub use turns::Turns;

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Write};

use crate::buf::{Pool, SendQueue, WRITE_LIMIT};
use crate::cluster::Slot;
use crate::dest::{ClientId, Dest, NodeId};
use crate::placement::{AfterLoss, Phase, Work, after_loss};
use crate::resp::{Protocol, ReplyScan};
use crate::route::PendingFlags;
use crate::scripts::CheckedScripts;
use crate::stream::Stream;

/// State of a connection. A lost connection backs off and reconnects while its node is in the
/// cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Not connected; an attempt is due.
    Idle,
    /// The TCP connection is being established.
    Connecting {
        /// Deadline of the attempt, in microseconds.
        until: u64,
    },
    /// The TLS handshake is in progress.
    Securing {
        /// Deadline of the attempt, in microseconds.
        until: u64,
    },
    /// Connected; replies to the handshake's commands are awaited.
    Handshake {
        /// Deadline of the attempt, in microseconds.
        until: u64,
    },
    /// Ready for commands.
    Ready,
    /// The last attempt failed; a timer starts the next one.
    Backoff,
}

impl ConnectionState {
    /// Whether a connection attempt is in progress.
    pub fn is_under_way(self) -> bool {
        matches!(
            self,
            ConnectionState::Connecting { .. }
                | ConnectionState::Securing { .. }
                | ConnectionState::Handshake { .. }
        )
    }
}

/// The use of a dedicated connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dedicated {
    /// The client that uses it; `None` while it is idle in the pool.
    pub client: Option<ClientId>,
    /// The connection's CLIENT ID at its node; 0 until it is known.
    pub id: i64,
}

/// One connection of a worker to a node: shared by its clients, or dedicated to one of them. Times
/// are in microseconds of the worker's clock.
#[derive(Debug)]
pub struct Upstream {
    /// The worker's index of the node.
    pub node: NodeId,
    /// The protocol version spoken.
    pub protocol: Protocol,
    /// The user that it is authenticated as: 0 for slotway's own, otherwise the worker's number of
    /// a cluster user.
    pub realm: u16,
    /// The state of the connection.
    pub state: ConnectionState,
    /// The socket, while there is one.
    pub stream: Option<Stream>,
    /// The bytes of commands, kept until they are answered.
    pub queue: SendQueue,
    /// The commands, in the same order.
    pub pending: PendingQueue,
    /// The handshake sends READONLY: only reads that may go to replicas use the connection.
    pub read_only: bool,
    /// The node has accepted a command with a key of its shard on this connection.
    pub serves_shard: bool,
    /// Scripts that the node is known to have.
    pub scripts: CheckedScripts,
    /// The handshake in progress.
    pub handshake: Handshake,
    /// Bytes of an unfinished reply.
    pub tail: Vec<u8>,
    /// Number of scanned bytes of the tail.
    pub scanned: usize,
    /// The scan of the unfinished reply.
    pub scan: ReplyScan,
    /// The beginning of the unfinished reply was passed on to its client.
    pub streaming: bool,
    /// Number of bytes passed on of it.
    pub streamed: usize,
    /// Times of the writes.
    pub stamps: Stamps,
    /// Number of replies of [`Pending::before`] that have arrived for the first pending command.
    pub skipped_replies: u32,
    /// The first of those replies that was an error.
    pub skipped_error: Option<Vec<u8>>,
    /// The first of those replies was an error: MULTI was refused, so the commands behind it were
    /// executed outside a transaction.
    pub multi_refused: bool,
    /// The connection is for clients with large transfers.
    pub bulk: bool,
    /// A script keeps the node busy: the connection takes no more commands, is no longer among the
    /// node's shared connections, and is closed when nothing waits on it.
    pub retiring: bool,
    /// Set for a dedicated connection, which is used by one client at a time and is not among the
    /// node's shared connections.
    pub dedicated: Option<Dedicated>,
    /// Not read from for now: its reply has to wait (KEYS).
    pub read_paused: bool,
    /// In the worker's list of connections to flush.
    pub dirty: bool,
    /// The write was put off by a turn.
    pub deferred: bool,
    /// The node will send no more; what it sent is still to be read.
    pub peer_closed: bool,
    /// The socket is full: nothing is written until it is writable again.
    pub blocked: bool,
    /// The socket is watched for writing.
    pub watching: bool,
    /// When the node last sent something.
    pub last_read: u64,
    /// When the connection became ready.
    pub ready_since: u64,
    /// Value of [`Upstream::last_read`] at the last check for silence.
    pub seen_read: u64,
    /// Since when the node has been silent while it owes a reply; 0: it owes none or is not silent.
    pub quiet_since: u64,
    /// When the control thread is next asked about the node.
    pub next_ask: u64,
    /// When the control thread is next asked whether a command blocks this connection.
    pub next_block_check: u64,
    /// The node shows no sign of life elsewhere either: nothing more is written until it does, so
    /// that unsent commands can still go to another node. [`Upstream::blocked`] is set too.
    pub suspect: bool,
    /// When the deadlines of all its commands are next checked.
    pub next_check: u64,
    /// In the worker's list of sockets with more to read.
    pub again: bool,
    /// Number of consecutive failed attempts.
    pub failures: u32,
    /// Maximum number of unanswered commands after repeated losses; doubles per read. 0: none.
    pub window: usize,
    /// Number of unexpected pushes on this connection.
    pub unexpected_pushes: u32,
    /// The reason for the end of the last attempt or connection.
    pub last_error: Option<ConnectionEnd>,
    /// The node's error reply that ended the handshake.
    pub refused: Option<Box<[u8]>>,
    /// Clients that are not read from because this queue is full.
    pub waiters: Vec<ClientId>,
    /// Clients with large replies that wait for their turn.
    pub turns: Turns,
    /// When a client with few commands in the queue last found it long.
    pub shared_at: Cell<u64>,
    /// Memory that the worker has accounted for, in bytes.
    pub accounted: usize,
}

impl Upstream {
    /// A connection that is not established yet.
    pub fn new(node: NodeId, protocol: Protocol) -> Self {
        Upstream {
            node,
            protocol,
            realm: 0,
            state: ConnectionState::Idle,
            stream: None,
            queue: SendQueue::default(),
            pending: PendingQueue::default(),
            read_only: false,
            serves_shard: false,
            scripts: CheckedScripts::default(),
            handshake: Handshake::default(),
            tail: Vec::new(),
            scanned: 0,
            scan: ReplyScan::default(),
            streaming: false,
            streamed: 0,
            stamps: Stamps::default(),
            skipped_replies: 0,
            skipped_error: None,
            multi_refused: false,
            bulk: false,
            retiring: false,
            dedicated: None,
            read_paused: false,
            refused: None,
            dirty: false,
            deferred: false,
            peer_closed: false,
            blocked: false,
            watching: false,
            last_read: 0,
            ready_since: 0,
            seen_read: 0,
            quiet_since: 0,
            next_ask: 0,
            next_block_check: 0,
            suspect: false,
            next_check: 0,
            again: false,
            failures: 0,
            window: 0,
            unexpected_pushes: 0,
            last_error: None,
            waiters: Vec::new(),
            turns: Turns::default(),
            shared_at: Cell::new(0),
            accounted: 0,
        }
    }

    /// Whether its commands keep their order with the same clients' commands on other connections.
    pub fn is_ordered(&self) -> bool {
        self.dedicated.is_none() && !self.read_only
    }

    /// Whether replies can be expected: it is connected or connecting, and not suspect.
    pub fn delivers(&self) -> bool {
        (self.state == ConnectionState::Ready || self.state.is_under_way()) && !self.suspect
    }

    /// Memory of the buffers, in bytes.
    pub fn memory(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, Stream::memory);
        stream + self.queue.memory() + self.tail.capacity() + self.pending.memory()
    }

    /// Takes the stream of a connection attempt that was started.
    pub fn connecting(&mut self, stream: Stream, until: u64) -> &mut Stream {
        self.state = ConnectionState::Connecting { until };
        self.stream.insert(stream)
    }

    /// Writes what the state allows, up to about [`WRITE_LIMIT`] bytes. Returns the number of bytes
    /// and whether the socket is full.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> io::Result<(usize, bool)> {
        let Some(stream) = self.stream.as_mut() else { return Ok((0, false)) };
        match self.state {
            ConnectionState::Ready => {
                if stream.unsent() {
                    stream.flush()?;
                }
                if self.window > 0 {
                    let allowed = self.pending.iter().take(self.window);
                    let end = allowed.map(|p| p.len as usize).sum();
                    let n = self.queue.write_until(end, stream)?;
                    return Ok((n, self.queue.sent() < end || stream.unsent()));
                }
                let n = self.queue.write_share_to(stream)?;
                let left = self.queue.unsent() > 0 && n < WRITE_LIMIT;
                Ok((n, left || stream.unsent()))
            }
            ConnectionState::Handshake { .. } => {
                stream.flush()?;
                let n = self.handshake.out.write_to(stream)?;
                Ok((n, self.handshake.out.unsent() > 0 || stream.unsent()))
            }
            _ => Ok((0, false)),
        }
    }

    /// Doubles the window after a read.
    #[cold]
    pub fn widen(&mut self) {
        self.window *= 2;
        if self.window >= self.pending.len() {
            self.window = 0;
        }
    }

    /// Resets the lost connection. Commands that may be resent stay in the queue, in order: those
    /// not fully written, and those that only read. Returns the commands that must not be resent
    /// and whose outcome is unknown.
    ///
    /// A read is returned too if it is followed by a returned command of the same client and slot
    /// that may have changed what it reads. `clients`: the client of each command.
    pub fn lost(&mut self, pool: &mut Pool, clients: &[ClientId]) -> Vec<Pending> {
        self.stream = None;
        self.peer_closed = false;
        self.blocked = false;
        self.suspect = false;
        self.quiet_since = 0;
        self.watching = false;
        self.handshake = Handshake::default();
        self.tail = Vec::new();
        self.scanned = 0;
        self.scan = ReplyScan::default();
        self.streaming = false;
        self.streamed = 0;
        self.unexpected_pushes = 0;
        self.skipped_replies = 0;
        self.skipped_error = None;
        self.multi_refused = false;
        let mut written = self.queue.sent();
        let pending: Vec<Pending> = self.pending.drain().collect();
        let lens: Vec<usize> = pending.iter().map(|p| p.len as usize).collect();
        let frames = self.queue.take_frames(lens.into_iter(), pool);
        self.queue.clear(pool);
        let mut keep = vec![true; pending.len()];
        let mut lost_writes: Vec<(Slot, ClientId)> = Vec::new();
        let sent = pending
            .iter()
            .take_while(|p| {
                let whole = written >= p.len as usize;
                written = written.saturating_sub(p.len as usize);
                whole
            })
            .count();
        for (i, (p, keep)) in pending.iter().zip(&mut keep).enumerate().take(sent).rev() {
            let whose = clients.get(i).copied().unwrap_or(ClientId::UNKNOWN);
            let may_be_same = |other: ClientId| {
                whose == other || whose == ClientId::UNKNOWN || other == ClientId::UNKNOWN
            };
            let overtaken =
                || lost_writes.iter().any(|&(slot, other)| slot == p.slot && may_be_same(other));
            let phase = if overtaken() { Phase::Overtaken } else { Phase::Sent };
            *keep = after_loss(p.work(), phase) == AfterLoss::Again;
            if p.work() == (Work::Shared { reads: false }) {
                lost_writes.push((p.slot, whose));
            }
        }
        let mut given_up = Vec::new();
        for (i, ((mut p, frame), keep)) in pending.into_iter().zip(frames).zip(keep).enumerate() {
            if keep {
                // The retry decides anew whether ASKING is needed.
                if p.dest == Dest::Discard {
                    continue;
                }
                if i < sent {
                    p.tries = p.tries.saturating_add(1);
                }
                self.queue.push_owned(frame, pool);
                self.pending.push_back(p);
            } else if p.dest != Dest::Discard {
                given_up.push(p);
            }
        }
        given_up
    }

    /// Number of commands written, the last one perhaps in part.
    pub fn begun(&self) -> usize {
        let mut written = self.queue.sent();
        let begun = self.pending.iter().take_while(|p| {
            let begun = written > 0;
            written = written.saturating_sub(p.len as usize);
            begun
        });
        begun.count()
    }

    /// Stops writing further commands until the node has sent something.
    pub fn stop_writing(&mut self) {
        let begun = self.begun().max(1);
        if self.window == 0 || self.window > begun {
            self.window = begun;
        }
    }

    /// Takes out the commands that need not wait for the first one, with their bytes, in order:
    /// those of clients all of whose written commands here are `repeatable`. A written one also
    /// stays in the queue, with its reply discarded. `clients`: the client of each command. Also
    /// returns the clients whose commands stay.
    pub fn take_movable(
        &mut self,
        pool: &mut Pool,
        clients: &[ClientId],
        repeatable: impl Fn(&Pending) -> bool,
    ) -> (Vec<(Pending, Vec<u8>)>, HashSet<ClientId>) {
        let begun = self.begun();
        let whose = |i: usize| clients.get(i).copied().unwrap_or(ClientId::UNKNOWN);
        let written = self.pending.iter().enumerate().take(begun);
        let staying = written.filter(|(i, p)| *i == 0 || !repeatable(p));
        let mut staying: HashSet<ClientId> = staying.map(|(i, _)| whose(i)).collect();
        staying.insert(ClientId::UNKNOWN);
        let moves = |i: usize, p: &Pending| p.dest != Dest::Discard && !staying.contains(&whose(i));
        let mut taken = Vec::new();
        if self.pending.iter().enumerate().any(|(i, p)| moves(i, p)) {
            let sent = self.queue.sent();
            let pending: Vec<Pending> = self.pending.drain().collect();
            let lens: Vec<usize> = pending.iter().map(|p| p.len as usize).collect();
            let frames = self.queue.take_frames(lens.into_iter(), pool);
            self.queue.clear(pool);
            for (i, (mut p, frame)) in pending.into_iter().zip(frames).enumerate() {
                let moves = moves(i, &p);
                if moves && i >= begun {
                    taken.push((p, frame));
                    continue;
                }
                if moves {
                    let again = Pending { tries: p.tries.saturating_add(1), ..p };
                    taken.push((again, frame.clone()));
                    p.dest = Dest::Discard;
                    p.flags.remove(PendingFlags::SPECIAL);
                }
                self.queue.push_owned(frame, pool);
                self.pending.push_back(p);
            }
            self.queue.mark_sent(sent);
        }
        staying.remove(&ClientId::UNKNOWN);
        (taken, staying)
    }

    /// Takes out the `wanted` commands of which nothing was written, with their bytes, in order.
    pub fn take_unsent(
        &mut self,
        pool: &mut Pool,
        mut wanted: impl FnMut(&Pending) -> bool,
    ) -> Vec<(Pending, Vec<u8>)> {
        let started = self.begun();
        if !self.pending.iter().skip(started).any(&mut wanted) {
            return Vec::new();
        }
        let sent = self.queue.sent();
        let pending: Vec<Pending> = self.pending.drain().collect();
        let lens: Vec<usize> = pending.iter().map(|p| p.len as usize).collect();
        let frames = self.queue.take_frames(lens.into_iter(), pool);
        self.queue.clear(pool);
        let mut taken = Vec::new();
        for (i, (p, frame)) in pending.into_iter().zip(frames).enumerate() {
            if i >= started && wanted(&p) {
                taken.push((p, frame));
            } else {
                self.queue.push_owned(frame, pool);
                self.pending.push_back(p);
            }
        }
        self.queue.mark_sent(sent);
        taken
    }
}

#[cfg(test)]
mod tests;
