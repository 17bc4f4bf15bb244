//! Creating a worker, and starting its thread.

use crate::access::{Access, revoke};
use crate::arena::Arena;
use crate::buf::Pool;
use crate::clients::{Arrivals, Clients, Stop, leave, login, tls};
use crate::cluster::Snapshot;
use crate::command::CommandTable;
use crate::common::settings::Settings;
use crate::common::shared::Shared;
use crate::common::{Clock, Core, Link, LogLines, Memory, Source, Spare, Turn};
use crate::config::Config;
use crate::dest::ConnId;
use crate::engine::Engine;
use crate::hash::{IntMap, IntSet};
use crate::mailbox::{ToControl, ToWorker, WorkerHandle};
use crate::meter::Meter;
use crate::metrics::WorkerStats;
use crate::node_scripts::scripts;
use crate::nodes::upstreams::Upstreams;
use crate::nodes::{DedicatedPool, Nodes, Placement, Reads, Topology};
use crate::operations::Operations;
use crate::placement::{Budget, Retries, SlotTable};
use crate::recorder::seen;
use crate::route::Router;
use crate::subscribers::{Subscribers, topics};
use crate::worker::{SCRATCH, Worker};
use mio::{Poll, Waker};
use slab::Slab;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

/// Starts worker `index` on a thread of its own.
///
/// # Errors
/// The event loop or the thread cannot be created.
pub fn spawn(
    index: usize,
    config: Arc<Config>,
    commands: Arc<CommandTable>,
    shared: Arc<Shared>,
    control: tokio::sync::mpsc::UnboundedSender<ToControl>,
) -> io::Result<WorkerHandle> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
    let (sender, inbox) = mpsc::channel();
    let client_count = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&client_count);
    let handle = WorkerHandle::new(sender, waker, client_count);
    let own = handle.clone();
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let notice =
            ExitNotice { control: control.clone(), worker: index, clients: Arc::clone(&count) };
        Worker::new(index, &config, commands, shared, poll, control, (own, inbox)).run();
        drop(notice);
    })?;
    Ok(handle)
}

/// A random number from which a worker counts its emulated commands. No other worker has it, not
/// even of another process.
fn random_start(index: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The keys of `RandomState` are random; the low bits are left for counting.
    RandomState::new().hash_one((index, std::process::id())) << 20
}

/// Notifies control of the end of the thread, however it ends.
struct ExitNotice {
    control: tokio::sync::mpsc::UnboundedSender<ToControl>,
    worker: usize,
    clients: Arc<AtomicUsize>,
}

impl Drop for ExitNotice {
    fn drop(&mut self) {
        self.clients.store(0, Ordering::Relaxed);
        // Fails only if control has ended before.
        let _ = self.control.send(ToControl::Exited { worker: self.worker });
    }
}

impl Worker {
    #[allow(clippy::too_many_arguments)] // all that a worker is given, once
    fn new(
        index: usize,
        config: &Config,
        commands: Arc<CommandTable>,
        shared: Arc<Shared>,
        poll: Poll,
        control: tokio::sync::mpsc::UnboundedSender<ToControl>,
        (own, inbox): (WorkerHandle, mpsc::Receiver<ToWorker>),
    ) -> Self {
        let (percent, min) = (config.retries.budget_percent, config.retries.min_per_second);
        let budget = Budget::new(percent, min);
        let router = Arc::new(Router::with_rules(
            commands,
            config.commands.clone(),
            Arc::new(config.views()),
        ));
        let stats = WorkerStats {
            commands: vec![Default::default(); router.unknown().index() + 1],
            emulated: vec![Default::default(); crate::emulate::TABLE.len()],
            ..WorkerStats::default()
        };
        Worker {
            engine: Engine {
                access: Access {
                    users: Arc::default(),
                    realms: IntMap::default(),
                    next_realm: 0,
                    unverified: IntSet::default(),
                    looks: revoke::Looks::default(),
                    strangers_refused: 0,
                    strangers_allowed: 0,
                    failures: crate::access::login::Failures::default(),
                },
                subscribers: Subscribers {
                    topics: topics::Topics::default(),
                    stranded: false,
                    waiting_publishers: Default::default(),
                    barriers: Vec::new(),
                },
                scripts: scripts::Scripts::new(Arc::clone(&shared.scripts)),
                ops: Operations {
                    gatherings: Default::default(),
                    joins: Slab::new(),
                    next_emulation: 0,
                    born: random_start(index),
                },
                seeing: seen::Seeing::new(config),
                nodes: Nodes {
                    list: Vec::new(),
                    upstreams: Upstreams::default(),
                    dedicated: DedicatedPool { idle: Vec::new(), dead: Vec::new() },
                    topology: Topology {
                        snapshot: Arc::new(Snapshot::empty()),
                        identity: Arc::default(),
                        layouts: Vec::new(),
                    },
                    placement: Placement {
                        slots: SlotTable::default(),
                        retries: Retries::new(budget),
                    },
                    reads: Reads {
                        readable: Vec::new(),
                        health: Arc::default(),
                        watches_replicas: false,
                    },
                },
                clients: Clients {
                    slab: Slab::new(),
                    arrivals: Arrivals {
                        handshakes: tls::Handshakes::default(),
                        logins: login::LoginDeadlines::default(),
                        leaving: leave::Leaving::default(),
                        next_generation: 0,
                        traffic: Vec::new(),
                    },
                    stop: Stop { drain: None, retires: false, pause: None },
                },
                core: Core {
                    link: Link {
                        index,
                        poll,
                        inbox,
                        more_inbox: false,
                        control,
                        client_count: Arc::clone(&own.clients),
                        own,
                    },
                    settings: Settings::new(config, config.workers.count()),
                    clock: Clock {
                        epoch: shared.started,
                        timers: BinaryHeap::new(),
                        tick: None,
                        next_idle_check: 0,
                        next_idle_probe: 0,
                        next_relief: 0,
                        next_commands_wish: 0,
                    },
                    now: 0,
                    turn: Turn {
                        unread: 0,
                        at_hand: (usize::MAX, 0),
                        reading: ConnId::NONE,
                        effects: VecDeque::new(),
                        held_now: 0,
                        last_large: 0,
                        dirty_clients: Vec::new(),
                        dirty_upstreams: Vec::new(),
                        deferred: Vec::new(),
                        unwritten: Vec::new(),
                        again: Vec::new(),
                        resume: Vec::new(),
                        graveyard: Vec::new(),
                    },
                    router,
                    lines: LogLines::default(),
                    spare: Spare {
                        scratch: vec![0; SCRATCH],
                        ranges: Vec::new(),
                        keys: Vec::new(),
                        slots: Vec::new(),
                        line: Vec::new(),
                        reply: Vec::new(),
                        pool: Pool::of_one(config.workers.count()),
                        replies: Vec::new(),
                        gathers: Vec::new(),
                        kept: Vec::new(),
                        multis: Vec::new(),
                    },
                    memory: Memory {
                        accounted: 0,
                        meter: Meter::new(),
                        arena: Arena::of_thread(),
                        purged_at: Some(0),
                        accounted_messages: 0,
                    },
                    stats,
                    shared,
                },
            },
        }
    }
}
