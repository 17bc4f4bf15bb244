//! What all parts of a worker work with: the time, the settings, the turn, the counters.

pub(crate) mod clock;
pub(crate) mod connections;
pub(crate) mod counters;
pub(crate) mod effect;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod requests;
pub(crate) mod scripts;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod slow;
pub(crate) mod spare;
pub(crate) mod subscriptions;
pub(crate) mod tls;
pub(crate) mod users;

use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use mio::{Poll, Token};

use crate::arena::Arena;
use crate::buf::Pool;
use crate::client::{Multi, Replies};
use crate::cluster::Slot;
use crate::common::effect::Effect;
use crate::common::settings::Settings;
use crate::common::shared::Shared;
use crate::dest::{ClientId, ConnId};
use crate::lines::LogLimit;
use crate::mailbox::{ToControl, ToWorker, WorkerHandle};
use crate::meter::Meter;
use crate::metrics::WorkerStats;
use crate::resp::ArgRange;
use crate::route::{Gather, Router};

/// How often was logged what clients and nodes can cause without end.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    pub(crate) memory: LogLimit,
    pub(crate) closed: LogLimit,
    pub(crate) protocol: LogLimit,
    pub(crate) lost: LogLimit,
    pub(crate) pushes: LogLimit,
    pub(crate) subscribers: LogLimit,
    pub(crate) logins: LogLimit,
    pub(crate) scripts: LogLimit,
}

/// Which socket an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Waker,
    Client(usize),
    Upstream(ConnId),
}

impl Source {
    pub(crate) fn token(self) -> Token {
        match self {
            Source::Waker => Token(0),
            Source::Client(i) => Token(i << 2 | 1),
            Source::Upstream(conn) => Token(conn.at() << 2 | 2),
        }
    }

    pub(crate) fn of(token: Token) -> Source {
        match token.0 & 3 {
            1 => Source::Client(token.0 >> 2),
            2 => Source::Upstream(ConnId::new(token.0 >> 2)),
            _ => Source::Waker,
        }
    }
}

/// What workers measure time in, since `epoch`.
pub(crate) fn micros(epoch: Instant) -> u64 {
    epoch.elapsed().as_micros() as u64
}

/// What all parts of a worker work with: the time, the settings, the turn, the counters.
pub(crate) struct Core {
    /// How the worker is reached, and whom it tells.
    pub link: Link,
    pub settings: Settings,
    /// What time it is, and what waits for a time.
    pub clock: Clock,
    /// Microseconds since the clock's zero, read once per turn.
    pub now: u64,
    /// What is at hand in this turn of the loop, and what is left for its end or the next one.
    pub turn: Turn,
    pub router: Arc<Router>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    pub(crate) lines: LogLines,
    /// Buffers that are kept for their capacity.
    pub spare: Spare,
    /// What the buffers occupy.
    pub memory: Memory,
    pub stats: WorkerStats,
}

/// How the worker is reached, and whom it tells.
pub(crate) struct Link {
    pub index: usize,
    pub poll: Poll,
    pub(crate) inbox: mpsc::Receiver<ToWorker>,
    /// There is more in it than one turn is for.
    pub(crate) more_inbox: bool,
    pub control: tokio::sync::mpsc::UnboundedSender<ToControl>,
    pub(crate) client_count: Arc<AtomicUsize>,
    /// Its own address, for answers that others bring.
    pub own: WorkerHandle,
}

/// What time it is, and what waits for a time.
pub(crate) struct Clock {
    /// The clock's zero.
    pub epoch: Instant,
    pub(crate) timers: BinaryHeap<clock::Timer>,
    /// The next look at all deadlines; none while nothing is under way.
    pub tick: Option<u64>,
    pub(crate) next_idle_check: u64,
    /// The next look for connections that nothing was said on for a while.
    pub(crate) next_idle_probe: u64,
    /// When `Worker::relieve` may look for clients to close again.
    pub(crate) next_relief: u64,
    /// When an unknown command may make control look at the cluster's commands again.
    pub(crate) next_commands_wish: u64,
}

/// What is at hand in this turn of the loop, and what is left for its end or the next one.
pub(crate) struct Turn {
    /// Bytes of the client that is being read from, from the command at hand on.
    pub unread: usize,
    /// The client whose own buffer is being read from, which it does not hold meanwhile, and what
    /// that occupies.
    pub(crate) at_hand: (usize, usize),
    /// The connection whose own buffer is being read from, which it does not hold meanwhile.
    pub reading: ConnId,
    /// What the parts have left for the worker to do.
    pub effects: VecDeque<Effect>,
    /// Slots newly held in this turn.
    pub(crate) held_now: usize,
    /// When a piece of a large command or reply was last here, microseconds of the clock.
    pub(crate) last_large: u64,
    /// Clients and upstreams with something to write at the end of the turn.
    pub(crate) dirty_clients: Vec<usize>,
    pub(crate) dirty_upstreams: Vec<ConnId>,
    /// Upstreams whose write was put off to the next turn.
    pub deferred: Vec<ConnId>,
    /// Clients with more to be written than one turn is for.
    pub(crate) unwritten: Vec<usize>,
    /// Sockets that may have more to read, and clients that may go on.
    pub again: Vec<Source>,
    pub resume: Vec<ClientId>,
    /// Closed clients, whose indexes become free at the end of the turn.
    pub(crate) graveyard: Vec<usize>,
}

/// Buffers that are kept for their capacity.
pub(crate) struct Spare {
    pub scratch: Vec<u8>,
    pub ranges: Vec<ArgRange>,
    pub keys: Vec<u32>,
    pub slots: Vec<(Slot, u32)>,
    pub line: Vec<u8>,
    pub reply: Vec<u8>,
    pub pool: Pool,
    #[allow(clippy::vec_box)] // they move between here and the clients, boxes and all
    pub replies: Vec<Box<Replies>>,
    pub(crate) gathers: Vec<Gather>,
    #[allow(clippy::vec_box)] // as with `replies`: gatherings have them
    pub kept: Vec<Box<crate::observe::KeptArgs>>,
    #[allow(clippy::vec_box)] // as with `replies`
    pub(crate) multis: Vec<Box<Multi>>,
}

/// What the buffers occupy.
pub(crate) struct Memory {
    /// Bytes in all buffers, as of when each was last looked at.
    pub accounted: usize,
    /// Bytes that this thread has taken since the account was last true of all buffers.
    pub(crate) meter: Meter,
    /// What the allocator keeps for this thread.
    pub(crate) arena: Arena,
    /// [`Meter::activity`] when the arena was purged; None while a purge is due.
    pub(crate) purged_at: Option<u64>,
    /// Of these, its topics and its share of the messages that subscribers have not taken.
    pub(crate) accounted_messages: usize,
}
