//! What a worker owns, part by part.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use mio::Poll;
use slab::Slab;

use super::effect::Effect;
use super::scripts::Scripts;
use super::settings::Settings;
use super::{
    Gathering, LogLines, Node, Shared, Source, clock, drain, join, leave, realms, retries, revoke,
    subscribing, tls, topics, users,
};
use crate::arena::Arena;
use crate::buf::Pool;
use crate::client::{Client, Multi, Pause, Replies, Traffic};
use crate::cluster::{Health, Identity, Snapshot};
use crate::dest::ClientId;
use crate::hash::{IntMap, IntSet};
use crate::mailbox::{ToControl, ToWorker, WorkerHandle};
use crate::meter::Meter;
use crate::metrics::WorkerStats;
use crate::placement::{Readable, Retries, SlotTable};
use crate::resp::ArgRange;
use crate::route::{Gather, Router};
use crate::upstream::{Upstream, Waiting};
use crate::users::Users;

/// What all parts of a worker work with: the time, the settings, the turn, the counters.
pub(super) struct Core {
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
    pub(super) lines: LogLines,
    /// Buffers that are kept for their capacity.
    pub spare: Spare,
    /// What the buffers occupy.
    pub memory: Memory,
    pub stats: WorkerStats,
}

/// The cluster's nodes, the connections to them, and what goes where.
pub(super) struct Nodes {
    pub(super) list: Vec<Node>,
    pub upstreams: Slab<Upstream>,
    /// Connections that are lent to one client at a time.
    pub dedicated: DedicatedPool,
    /// What the cluster is.
    pub topology: Topology,
    /// Where commands go, and what becomes of those that do not get there.
    pub placement: Placement,
    /// Whom reads may go to.
    pub reads: Reads,
}

/// The clients, those that come and those that go.
pub(super) struct Clients {
    pub slab: Slab<Client>,
    pub arrivals: Arrivals,
    /// What keeps the worker from serving clients.
    pub stop: Stop,
}

/// How the worker is reached, and whom it tells.
pub(super) struct Link {
    pub index: usize,
    pub poll: Poll,
    pub(super) inbox: mpsc::Receiver<ToWorker>,
    /// There is more in it than one turn is for.
    pub(super) more_inbox: bool,
    pub control: tokio::sync::mpsc::UnboundedSender<ToControl>,
    pub(super) client_count: Arc<AtomicUsize>,
    /// Its own address, for answers that others bring.
    pub own: WorkerHandle,
}

/// What time it is, and what waits for a time.
pub(super) struct Clock {
    /// The clock's zero.
    pub epoch: Instant,
    pub(super) timers: BinaryHeap<clock::Timer>,
    /// The next look at all deadlines; none while nothing is under way.
    pub tick: Option<u64>,
    pub(super) next_idle_check: u64,
    /// The next look for connections that nothing was said on for a while.
    pub(super) next_idle_probe: u64,
    /// When [`Worker::relieve`] may look for clients to close again.
    pub(super) next_relief: u64,
    /// When an unknown command may make control look at the cluster's commands again.
    pub(super) next_commands_wish: u64,
}

/// What the cluster is.
pub(super) struct Topology {
    pub snapshot: Arc<Snapshot>,
    /// What the cluster's servers are.
    pub identity: Arc<Identity>,
    /// The slots as SCAN goes through them; made when it is asked for.
    pub layout: crate::route::Layout,
}

/// Where commands go, and what becomes of those that do not get there.
pub(super) struct Placement {
    /// Which node serves each slot, and what waits for it.
    pub slots: SlotTable<Waiting>,
    pub retries: Retries<retries::Want>,
}

/// Whom reads may go to.
pub(super) struct Reads {
    /// By shard of the snapshot: whom reads may go to.
    pub(super) readable: Vec<Readable>,
    /// From which that was made, beside the snapshot.
    pub health: Arc<Health>,
    /// Control was told to look at replicas.
    pub(super) watches_replicas: bool,
}

/// Who clients are, and what they may do.
pub(super) struct Access {
    /// Slotway's own, their rules made for `router`'s commands.
    pub users: Arc<Users>,
    /// The cluster's, as far as clients of theirs are here.
    pub realms: IntMap<u16, realms::Realm>,
    pub(super) next_realm: u16,
    /// Realms whose user may not ask nodes for their IDs.
    pub unverified: IntSet<u16>,
    pub looks: revoke::Looks,
    /// Until when the cluster's default user is known to need a password, microseconds.
    pub(super) strangers_refused: u64,
    /// Until when it is known to need none.
    pub(super) strangers_allowed: u64,
    pub failures: users::Failures,
}

/// Who is subscribed to what, and which PUBLISHes wait for it.
pub(super) struct Subscribers {
    pub topics: topics::Topics,
    /// PUBLISHes may wait for a node that is not reached.
    pub(super) stranded: bool,
    pub(super) waiting_publishers: subscribing::WaitingPublishers,
    /// Other workers' barriers, and the turn in which each came.
    pub barriers: Vec<(u64, Arc<crate::mailbox::ReadBarrier>)>,
}

/// Clients that come and go.
pub(super) struct Arrivals {
    pub handshakes: tls::Handshakes,
    pub logins: leave::Logins,
    pub leaving: leave::Leaving,
    pub(super) next_generation: u32,
    /// What has passed over the connection of each client, by its index.
    pub traffic: Vec<Traffic>,
}

/// What is at hand in this turn of the loop, and what is left for its end or the next one.
pub(super) struct Turn {
    /// Bytes of the client that is being read from, from the command at hand on.
    pub unread: usize,
    /// The client whose own buffer is being read from, which it does not hold meanwhile, and what
    /// that occupies.
    pub(super) at_hand: (usize, usize),
    /// The connection whose own buffer is being read from, which it does not hold meanwhile.
    pub reading: usize,
    /// What the parts have left for the worker to do.
    pub effects: VecDeque<Effect>,
    /// Slots newly held in this turn.
    pub(super) held_now: usize,
    /// When a piece of a large command or reply was last here, microseconds of the clock.
    pub(super) last_large: u64,
    /// Clients and upstreams with something to write at the end of the turn.
    pub(super) dirty_clients: Vec<usize>,
    pub(super) dirty_upstreams: Vec<usize>,
    /// Upstreams whose write was put off to the next turn.
    pub deferred: Vec<usize>,
    /// Clients with more to be written than one turn is for.
    pub(super) unwritten: Vec<usize>,
    /// Sockets that may have more to read, and clients that may go on.
    pub again: Vec<Source>,
    pub resume: Vec<ClientId>,
    /// Closed clients, whose indexes become free at the end of the turn.
    pub(super) graveyard: Vec<usize>,
}

/// Connections that are lent to one client at a time.
pub(super) struct DedicatedPool {
    /// Dedicated connections that are not lent to anybody.
    pub idle: Vec<usize>,
    /// Dedicated connections that are closed; their indexes become free at the end of the turn.
    pub dead: Vec<usize>,
}

/// Commands of more than one step that are under way.
pub(super) struct Operations {
    pub(super) gatherings: Slab<Gathering>,
    pub(super) joins: Slab<join::Join>,
    /// The number of the last emulated command.
    pub(super) next_emulation: u64,
    /// From where these are counted: another number for each worker that ever was.
    pub born: u64,
}

/// What keeps the worker from serving clients.
pub(super) struct Stop {
    pub drain: Option<drain::Drain>,
    /// It ends with its last client.
    pub(super) retires: bool,
    /// CLIENT PAUSE, while it lasts.
    pub pause: Option<Pause>,
}

/// Buffers that are kept for their capacity.
pub(super) struct Spare {
    pub scratch: Vec<u8>,
    pub ranges: Vec<ArgRange>,
    pub keys: Vec<u32>,
    pub slots: Vec<(u16, u32)>,
    pub line: Vec<u8>,
    pub reply: Vec<u8>,
    pub pool: Pool,
    #[allow(clippy::vec_box)] // they move between here and the clients, boxes and all
    pub replies: Vec<Box<Replies>>,
    pub(super) gathers: Vec<Gather>,
    #[allow(clippy::vec_box)] // as with `replies`: gatherings have them
    pub kept: Vec<Box<crate::seen::KeptArgs>>,
    #[allow(clippy::vec_box)] // as with `replies`
    pub(super) multis: Vec<Box<Multi>>,
}

/// What the buffers occupy.
pub(super) struct Memory {
    /// Bytes in all buffers, as of when each was last looked at.
    pub accounted: usize,
    /// Bytes that this thread has taken since the account was last true of all buffers.
    pub(super) meter: Meter,
    /// What the allocator keeps for this thread.
    pub(super) arena: Arena,
    /// [`Meter::activity`] when the arena was purged; None while a purge is due.
    pub(super) purged_at: Option<u64>,
    /// Of these, its topics and its share of the messages that subscribers have not taken.
    pub(super) accounted_messages: usize,
}

/// The parts that operations work with, each borrowed.
pub(super) struct Base<'a> {
    pub core: &'a mut Core,
    pub nodes: &'a mut Nodes,
    pub clients: &'a mut Clients,
    pub access: &'a mut Access,
    pub subscribers: &'a mut Subscribers,
    pub scripts: &'a mut Scripts,
}

/// The [`Base`] of a worker, whose other parts stay free to be borrowed.
macro_rules! base {
    ($worker:expr) => {
        Base {
            core: &mut $worker.core,
            nodes: &mut $worker.nodes,
            clients: &mut $worker.clients,
            access: &mut $worker.access,
            subscribers: &mut $worker.subscribers,
            scripts: &mut $worker.scripts,
        }
    };
}
pub(super) use base;
