//! A worker: a thread with an event loop, which owns its clients and its upstream connections.
//!
//! Each **turn** of the loop serves every socket that is ready, then writes: first to the nodes,
//! then to the clients. So the commands of fifty clients leave in one write, and their replies
//! arrive in one read. Everything that a command touches belongs to the worker: its path has no
//! lock, no atomic operation and no allocation.
//!
//! The loop uses mio without a task scheduler on top: turns are explicit, and an idle client costs
//! no task (`benches/README.md` has the figures).
//!
//! The parts of a worker are in `engine`; `dispatch` handles commands, `delivery` replies. This
//! room drives them:
//! - `downstream`, `writing`, `tls`: sockets of clients; `reading`, `upstreams`: sockets of nodes
//! - `topology`: a new snapshot; `subscribing`: clients that waited for a subscription
//! - `clock`: timers; `pressure`: `limits.memory`; `drain`, `leave`: disconnecting clients
//! - `start`: creating a worker

mod clock;
mod downstream;
mod drain;
mod leave;
mod pressure;
mod reading;
mod start;
pub use start::spawn;
mod subscribing;
mod tls;
mod topology;
mod upstreams;
mod writing;

use crate::base::{Base, base};
use crate::client::Client;
use crate::common::{Source, micros};
use crate::delivery::Delivery;
use crate::dispatch::Dispatcher;
use crate::engine::Engine;
use crate::mailbox::ToWorker;
use crate::nodes::reaccount;
use crate::upstream::Upstream;
use mio::Events;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Maximum size of one read in bytes: enough for the replies to fifty clients.
const SCRATCH: usize = 128 << 10;

/// Number of clients examined for inquiries (CLIENT LIST) after which other messages wait for the
/// next turn.
const MAX_EXAMINED: usize = 2_000;

/// Time in microseconds without large commands or replies after which these are considered over.
const LARGE_ENDED: u64 = 20_000;

struct Worker {
    engine: Engine,
}

impl Worker {
    /// The dispatcher of clients' commands.
    fn dispatcher(&mut self) -> Dispatcher<'_> {
        Dispatcher { engine: &mut self.engine }
    }

    /// The delivery of nodes' replies.
    fn delivery(&mut self) -> Delivery<'_> {
        Delivery { engine: &mut self.engine }
    }

    /// Runs the event loop until the worker is drained or retired.
    fn run(mut self) {
        tracing::debug!(worker = self.engine.core.link.index, "worker runs");
        self.engine
            .core
            .shared
            .workers()
            .push((self.engine.core.link.index, self.engine.core.link.own.clone()));
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.time_to_wait();
            match self.engine.core.link.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(worker = self.engine.core.link.index, %error, "the event loop failed");
                    return;
                }
            }
            self.engine.core.now = micros(self.engine.core.clock.epoch);
            self.engine.core.stats.turns += 1;
            self.engine.seeing.look_around(&mut self.engine.core);
            self.engine.core.turn.held_now = 0;
            // First, so that a PUBLISH that is answered in this turn counts the subscribers that
            // the hub has reported.
            self.read_inbox();
            self.delivery().follow_up();
            self.engine.subscribers.account_messages(&mut self.engine.core);
            let again = std::mem::take(&mut self.engine.core.turn.again);
            for event in &events {
                match Source::of(event.token()) {
                    Source::Waker => {}
                    Source::Client(i) => {
                        if let Some(client) = self.engine.clients.slab.get_mut(i) {
                            client.peer_closed |= event.is_read_closed();
                            client.blocked &= !event.is_writable();
                        }
                        if event.is_writable() {
                            self.engine.clients.mark_client(i, &mut self.engine.core);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.client_readable(i);
                        }
                    }
                    Source::Upstream(conn) => self.upstream_event(conn, event),
                }
                self.delivery().follow_up();
            }
            for source in again {
                match source {
                    Source::Client(i) => self.client_again(i),
                    Source::Upstream(conn) => self.upstream_again(conn),
                    Source::Waker => {}
                }
                self.delivery().follow_up();
            }
            self.engine.subscribers.release_barriers(&mut self.engine.core);
            self.run_timers();
            self.delivery().follow_up();
            self.flush();
            self.relieve();
            self.drain_goes_on();
            self.delivery().follow_up();
            if self.engine.clients.departures().are_over(&self.engine.core) {
                tracing::debug!(worker = self.engine.core.link.index, "worker drained");
                return;
            }
            if self.engine.clients.stop.retires && self.engine.clients.slab.is_empty() {
                tracing::debug!(worker = self.engine.core.link.index, "worker retired");
                return;
            }
        }
    }

    /// How long the event loop may wait for an event. `None`: without limit.
    fn time_to_wait(&self) -> Option<Duration> {
        if self.engine.core.link.more_inbox
            // Another worker waits until this one has polled its sockets again.
            || !self.engine.subscribers.barriers.is_empty()
            || !self.engine.core.turn.again.is_empty()
            || !self.engine.core.turn.resume.is_empty()
            || !self.engine.core.turn.dirty_upstreams.is_empty()
            // Clients were closed after the flush, and are not removed yet.
            || !self.engine.core.turn.graveyard.is_empty()
            || !self.engine.core.turn.dirty_clients.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let timer = self.engine.core.clock.timers.peek().map(|t| t.due);
        let idle =
            self.engine.core.settings.idle_timeout.map(|_| self.engine.core.clock.next_idle_check);
        let drain = self.engine.clients.stop.drain.map(|drain| drain.next());
        let (probe, handshake) = (
            self.engine.nodes.idle_probe_due(&self.engine.core),
            self.engine.clients.arrivals.handshakes.due(&self.engine.core),
        );
        let (login, leave) = (
            self.engine.clients.arrivals.logins.due(&self.engine.core),
            self.engine.clients.arrivals.leaving.due(&self.engine.core),
        );
        let next = [
            timer,
            self.engine.core.clock.tick,
            drain,
            self.engine.clients.stop.pause_end(&self.engine.core),
            idle,
            probe,
            handshake,
            login,
            leave,
        ];
        let next = next.into_iter().flatten().min()?;
        // The time of this turn is outdated; it is read again only if there is something to wait
        // for.
        let now = micros(self.engine.core.clock.epoch);
        // A poll waits for whole milliseconds: rounding down would spin. It cannot wait for as long
        // as CLIENT PAUSE may last, hence the limit of an hour.
        Some(Duration::from_millis(next.saturating_sub(now).div_ceil(1000).min(3_600_000)))
    }

    /// Writes at the end of a turn: to the nodes first, so that they work while the clients are
    /// written to.
    fn flush(&mut self) {
        loop {
            while let Some(client) = self.engine.core.turn.resume.pop() {
                self.resume_client(client.at(), client.generation);
                self.delivery().follow_up();
            }
            let mut dirty = std::mem::take(&mut self.engine.core.turn.dirty_upstreams);
            let wrote = !dirty.is_empty();
            for conn in dirty.drain(..) {
                self.flush_upstream(conn);
                self.delivery().follow_up();
            }
            if self.engine.core.turn.dirty_upstreams.is_empty() {
                self.engine.core.turn.dirty_upstreams = dirty;
            }
            // If clients, nodes and this worker share a core, yielding lets the nodes run that were
            // just written to: the next turn then finds the replies to many commands rather than
            // one, and the nodes do not interrupt the worker while it writes to its clients. On a
            // core of its own, the worker loses a fraction of a microsecond per turn. During large
            // transfers it would lose a whole time slice, because their clients and nodes always
            // have work.
            if wrote {
                if self.engine.core.now.saturating_sub(self.engine.core.turn.last_large)
                    > LARGE_ENDED
                {
                    std::thread::yield_now();
                }
                // Messages that arrived meanwhile need no turn of their own.
                self.read_inbox();
                self.delivery().follow_up();
            }
            let mut dirty = std::mem::take(&mut self.engine.core.turn.dirty_clients);
            for i in dirty.drain(..) {
                self.flush_client(i);
                self.delivery().follow_up();
            }
            if self.engine.core.turn.dirty_clients.is_empty() {
                self.engine.core.turn.dirty_clients = dirty;
            }
            let done = self.engine.core.turn.dirty_upstreams.is_empty()
                && self.engine.core.turn.dirty_clients.is_empty()
                && self.engine.core.turn.resume.is_empty();
            if done {
                break;
            }
        }
        self.engine.seeing.finish_seen(&mut self.engine.clients, &mut self.engine.core);
        self.engine.subscribers.tell_hub(&mut self.engine.core);
        self.engine.subscribers.send_barrier(&mut self.engine.core);
        // Both are empty now: the writes that were deferred take their place for the next turn.
        std::mem::swap(
            &mut self.engine.core.turn.dirty_upstreams,
            &mut self.engine.core.turn.deferred,
        );
        std::mem::swap(
            &mut self.engine.core.turn.dirty_clients,
            &mut self.engine.core.turn.unwritten,
        );
        for conn in std::mem::take(&mut self.engine.nodes.dedicated.dead) {
            if let Some(mut up) = self.engine.nodes.upstreams.remove(conn) {
                reaccount(&mut self.engine.core.memory.accounted, &mut up.accounted, 0);
            }
        }
        for i in std::mem::take(&mut self.engine.core.turn.graveyard) {
            self.engine.clients.slab.try_remove(i);
        }
        self.engine.core.memory.meter.reset();
    }

    /// Handles messages from other threads.
    fn read_inbox(&mut self) {
        let mut examined = 0;
        self.engine.core.link.more_inbox = false;
        self.engine.core.link.own.looks();
        while let Ok(message) = self.engine.core.link.inbox.try_recv() {
            match message {
                ToWorker::Accept(arrival) => base!(self.engine).accept(arrival),
                ToWorker::Shed { keep } => {
                    self.engine.clients.departures().shed(keep, &mut self.engine.core)
                }
                ToWorker::Topology(snapshot) => self.set_topology(snapshot),
                ToWorker::Health(health) => {
                    self.engine.nodes.set_health(health, &mut self.engine.core)
                }
                ToWorker::Commands(table) => base!(self.engine).set_commands(table),
                ToWorker::Identity(identity) => self.engine.nodes.topology.identity = identity,
                ToWorker::Scrape(answer) => {
                    // Fails only if the asker has given up.
                    let _ = answer.send(Box::new(self.engine.counters()));
                }
                ToWorker::Census(answer) => {
                    // As much work as a list of all clients; see below.
                    let _ = answer
                        .send(Box::new(self.engine.clients.listing().census(&self.engine.core)));
                    examined += self.engine.clients.slab.len();
                    if examined > MAX_EXAMINED {
                        return self.engine.core.link.more_inbox = true;
                    }
                }
                ToWorker::Seen(answer) => {
                    let _ = answer.send(Box::new(self.engine.seeing.copy(self.engine.core.now)));
                }
                ToWorker::Asked(inquiry) => {
                    self.engine.hear(&inquiry);
                    // A thousand clients that list all clients must not be served in one turn.
                    examined += self.engine.clients.slab.len();
                    if examined > MAX_EXAMINED {
                        return self.engine.core.link.more_inbox = true;
                    }
                }
                ToWorker::Answered(answered) => self.engine.finish_inquiry(*answered),
                ToWorker::Verified { client, answer } => {
                    self.engine.clients.logins().verified(client, answer, &mut self.engine.core)
                }
                ToWorker::Reverified(looked) => base!(self.engine).looked(&looked),
                ToWorker::Users(users) => base!(self.engine).set_users(&users),
                ToWorker::PubSub(batch) => self.engine.subscribers.hear_hub(
                    &batch,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ),
                ToWorker::SubscriptionEnded(serial) => self.subscription_ended(serial),
                ToWorker::Read(barrier) => {
                    self.engine.subscribers.barriers.push((self.engine.core.stats.turns, barrier))
                }
                ToWorker::OthersHaveRead(id) => self.others_have_read(id),
                ToWorker::Probed(probed) => self.engine.clients.lending().probed(
                    &probed,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ),
                ToWorker::WrongNode(stranger) => {
                    self.engine.nodes.silence().wrong_node_answers(&stranger, &mut self.engine.core)
                }
                ToWorker::Busy(busy) => {
                    self.engine.ops.node_is_busy(&busy, &mut base!(self.engine))
                }
                #[cfg(debug_assertions)]
                ToWorker::Fail => panic!("told to fail"),
                ToWorker::Config { config, workers } => self.engine.set_config(&config, workers),
                ToWorker::Retire => self.engine.clients.stop.retires = true,
                ToWorker::Pause(pause) => self.engine.clients.suspension().begin(pause),
                ToWorker::Drain { by } => self.start_drain(by),
            }
            self.delivery().follow_up();
        }
    }
}

impl Drop for Worker {
    /// However the worker ends, connections that it had lent no longer count against the limits
    /// that all workers share.
    fn drop(&mut self) {
        let lent = |up: &Upstream| up.dedicated.is_some_and(|d| d.client.is_some());
        self.engine
            .nodes
            .upstreams
            .iter()
            .filter(|(_, up)| lent(up))
            .for_each(|_| self.engine.core.shared.give_back());
        let monitors = |c: &Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let count = self.engine.clients.slab.iter().filter(|(_, c)| monitors(c)).count();
        self.engine.core.shared.monitors.fetch_sub(count, Ordering::Relaxed);
        self.engine.subscribers.topics.leave_all();
        self.engine
            .core
            .shared
            .workers()
            .retain(|(index, _)| *index != self.engine.core.link.index);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.engine.core.link.index)
            .finish_non_exhaustive()
    }
}
