//! One connection to a node: connecting, handshake, the queue of commands that wait for their
//! replies, and what becomes of them when the connection is lost.
//! Not here: which command goes to which node, and what is done with the replies
//! ([`crate::worker`]).

mod end;
mod handshake;
mod pending;
mod stamps;
mod turns;

pub use end::ConnectionEnd;
pub use handshake::{Handshake, HandshakeError, verify_node_id};
pub use pending::{Pending, PendingQueue, Waiting};
pub use stamps::Stamps;
pub use turns::Turns;

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Write};

use crate::buf::{Pool, SendQueue, WRITE_LIMIT};
use crate::dest::{ClientId, Dest};
use crate::placement::{AfterLoss, Phase, Work, after_loss};
use crate::resp::{Protocol, ReplyScan};
use crate::route::flag;
use crate::scripts::CheckedScripts;
use crate::stream::Stream;

/// Where a connection is in its life. It never ends: a lost one backs off and connects anew, until
/// its node leaves the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not connected; the next attempt is due.
    Idle,
    /// The TCP connection is being made.
    Connecting {
        /// When the attempt is given up, microseconds.
        until: u64,
    },
    /// The TLS handshake goes on.
    Securing {
        /// When the attempt is given up, microseconds.
        until: u64,
    },
    /// Connected; the handshake's replies are awaited.
    Handshake {
        /// When the attempt is given up, microseconds.
        until: u64,
    },
    /// Takes commands.
    Ready,
    /// The last attempt failed; a timer starts the next one.
    Backoff,
}

impl State {
    /// A connection attempt is under way.
    pub fn is_under_way(self) -> bool {
        matches!(self, State::Connecting { .. } | State::Securing { .. } | State::Handshake { .. })
    }
}

/// What a dedicated connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dedicated {
    /// The client that has it; none while it is idle in the pool.
    pub client: Option<ClientId>,
    /// The connection's CLIENT ID at its node; 0 until it is known.
    pub id: i64,
}

/// One connection to a node, shared by many clients of one worker.
#[derive(Debug)]
pub struct Upstream {
    /// The worker's index of its node.
    pub node: u16,
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// The user that it is authenticated as: 0 for slotway's own, otherwise the worker's number for
    /// a user of the cluster.
    pub realm: u16,
    /// Where it is in its life.
    pub state: State,
    /// The socket, while there is one.
    pub stream: Option<Stream>,
    /// Commands, kept until answered.
    pub queue: SendQueue,
    /// Who waits for them, in the same order.
    pub pending: PendingQueue,
    /// Its handshake says READONLY: only reads of clients that said it go here.
    pub read_only: bool,
    /// Since it was made its node has accepted a command with a key of its shard.
    pub serves_shard: bool,
    /// Scripts that its node need not be given again.
    pub scripts: CheckedScripts,
    /// The handshake, while it goes on.
    pub handshake: Handshake,
    /// Bytes of an unfinished reply.
    pub tail: Vec<u8>,
    /// How many of them were scanned.
    pub scanned: usize,
    /// The scan of the unfinished reply.
    pub scan: ReplyScan,
    /// The unfinished reply's beginning was given to its client already.
    pub streaming: bool,
    /// So many bytes of it.
    pub streamed: usize,
    /// When what was written was written.
    pub stamps: Stamps,
    /// Of the first pending command's replies: how many of [`Pending::before`] have come.
    pub swallowed: u32,
    /// The first of them that was an error.
    pub swallowed_error: Option<Vec<u8>>,
    /// The very first of them was an error: MULTI was refused, and what followed was executed
    /// without it.
    pub unwrapped: bool,
    /// For clients with large transfers.
    pub bulk: bool,
    /// A script keeps its node busy: it takes no more commands, and goes when nothing waits on it.
    /// Not among its node's shared connections any more.
    pub aside: bool,
    /// Lent to one client at a time; not among its node's shared connections.
    pub dedicated: Option<Dedicated>,
    /// Not read from for now: what it says has to wait (KEYS).
    pub parked: bool,
    /// Stands in the worker's list of connections to flush.
    pub dirty: bool,
    /// Its write was put off by a turn.
    pub deferred: bool,
    /// The socket said that the node will send no more; what it sent is still to be read.
    pub peer_closed: bool,
    /// The socket is full: nothing is written until it says otherwise.
    pub blocked: bool,
    /// The socket is watched for writing.
    pub watching: bool,
    /// When the node last sent something, microseconds.
    pub last_read: u64,
    /// When it became ready, microseconds.
    pub ready_since: u64,
    /// What [`Upstream::last_read`] was when its silence was last looked at.
    pub seen_read: u64,
    /// Since when it owes an answer and the node has said nothing, microseconds; 0: it does not.
    pub quiet_since: u64,
    /// When control is asked about its node next, microseconds.
    pub next_ask: u64,
    /// When control is next asked whether a command blocks this connection, microseconds.
    pub next_block_check: u64,
    /// Its node gave no sign of life elsewhere either: nothing more is written here until it does,
    /// so that it can still be sent to another. [`Upstream::blocked`] is set with it.
    pub suspect: bool,
    /// When all its deadlines are looked at next, microseconds.
    pub next_check: u64,
    /// Stands in the worker's list of sockets that have more to read.
    pub again: bool,
    /// Attempts that failed one after the other.
    pub failures: u32,
    /// Limit of commands that are written and not answered, after commands were lost repeatedly: it
    /// doubles with each read. 0: no limit.
    pub window: usize,
    /// Pushes that nobody asked for, on this connection.
    pub strange: u32,
    /// Why the last attempt or connection ended.
    pub last_error: Option<ConnectionEnd>,
    /// The node's error that ended the handshake.
    pub refused: Option<Box<[u8]>>,
    /// Clients that stopped reading because this queue is full.
    pub waiters: Vec<ClientId>,
    /// Clients with large replies that wait for their turn.
    pub turns: Turns,
    /// When a client that has little of the queue last met it long, microseconds.
    pub shared_at: Cell<u64>,
    /// Bytes that the worker has put on its account.
    pub accounted: usize,
}

impl Upstream {
    /// A connection that is not made yet.
    pub fn new(node: u16, protocol: Protocol) -> Self {
        Upstream {
            node,
            protocol,
            realm: 0,
            state: State::Idle,
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
            swallowed: 0,
            swallowed_error: None,
            unwrapped: false,
            bulk: false,
            aside: false,
            dedicated: None,
            parked: false,
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
            strange: 0,
            last_error: None,
            waiters: Vec::new(),
            turns: Turns::default(),
            shared_at: Cell::new(0),
            accounted: 0,
        }
    }

    /// Its commands keep the order of their clients with those of other connections.
    pub fn is_ordered(&self) -> bool {
        self.dedicated.is_none() && !self.read_only
    }

    /// Replies come on it, or will as soon as it is connected, as far as is known.
    pub fn delivers(&self) -> bool {
        (self.state == State::Ready || self.state.is_under_way()) && !self.suspect
    }

    /// Bytes that its buffers occupy.
    pub fn held(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, Stream::held);
        stream + self.queue.held() + self.tail.capacity() + self.pending.held()
    }

    /// Takes the stream of a connection attempt that was started.
    pub fn connecting(&mut self, stream: Stream, until: u64) -> &mut Stream {
        self.state = State::Connecting { until };
        self.stream.insert(stream)
    }

    /// Writes what the state allows, up to [`WRITE_LIMIT`] bytes or a little more. `true`: the
    /// socket is full.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> io::Result<(usize, bool)> {
        let Some(stream) = self.stream.as_mut() else { return Ok((0, false)) };
        match self.state {
            State::Ready => {
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
            State::Handshake { .. } => {
                stream.flush()?;
                let n = self.handshake.out.write_to(stream)?;
                Ok((n, self.handshake.out.unsent() > 0 || stream.unsent()))
            }
            _ => Ok((0, false)),
        }
    }

    /// The node has sent something: twice as many commands may be under way.
    #[cold]
    pub fn widen(&mut self) {
        self.window *= 2;
        if self.window >= self.pending.len() {
            self.window = 0;
        }
    }

    /// The connection is gone. Commands that may be sent again stay in the queue, in order: those
    /// that were not written whole, and those that only read. Gives those that may not, whose
    /// outcome nobody knows.
    ///
    /// A read is given up, too, where a later command of the same client and slot is given up that
    /// may have changed what it reads. `clients`: whose the commands are, one by one.
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
        self.strange = 0;
        self.swallowed = 0;
        self.swallowed_error = None;
        self.unwrapped = false;
        let mut written = self.queue.sent();
        let pending: Vec<Pending> = self.pending.drain().collect();
        let lens: Vec<usize> = pending.iter().map(|p| p.len as usize).collect();
        let frames = self.queue.take_frames(lens.into_iter(), pool);
        self.queue.clear(pool);
        let mut keep = vec![true; pending.len()];
        let mut lost_writes: Vec<(u16, ClientId)> = Vec::new();
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
                // ASKING is sent anew where it is needed: the node may know by now.
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

    /// How many commands were written, the last one perhaps in part.
    pub fn begun(&self) -> usize {
        let mut written = self.queue.sent();
        let begun = self.pending.iter().take_while(|p| {
            let begun = written > 0;
            written = written.saturating_sub(p.len as usize);
            begun
        });
        begun.count()
    }

    /// Writes no more commands until the node has said something.
    pub fn hold_back(&mut self) {
        let begun = self.begun().max(1);
        if self.window == 0 || self.window > begun {
            self.window = begun;
        }
    }

    /// Takes out the commands that need not wait for the first one, with their bytes, in order:
    /// those of clients that have nothing written here but what `repeatable` picks. What is taken
    /// and was written stays as well; nobody waits for it here. `clients`: whose the commands are,
    /// one by one. Gives the clients that stay, too.
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
                    p.flags &= !flag::SPECIAL;
                }
                self.queue.push_owned(frame, pool);
                self.pending.push_back(p);
            }
            self.queue.mark_sent(sent);
        }
        staying.remove(&ClientId::UNKNOWN);
        (taken, staying)
    }

    /// Takes out the commands that were not written (not even in part) and that `wanted` picks,
    /// with their bytes, in order.
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
