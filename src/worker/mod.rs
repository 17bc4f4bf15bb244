//! One core: owns its clients and its upstream connections, and runs them.
//!
//! A worker is a thread with an event loop. Each **turn** of the loop serves every socket that is
//! ready, then writes: first to the nodes, then to the clients. So fifty clients' commands leave
//! in one write, and their replies come back in one read. Everything a command touches belongs to
//! the worker: no lock, no atomic and no allocation stands on its way.
//!
//! The loop is mio's, without a scheduler of tasks above it: turns are explicit, and an idle client
//! costs no task (`benches/README.md` has the figures).
//!
//! What belongs to one part of a worker is in the room of that part (`core` in `common`, `nodes`,
//! `clients`, `access`, `subscribers`, `node_scripts`, `operations`, `recorder`; what takes several
//! of them in `base`). Here is what joins them:
//! - `downstream`, `writing`, `tls`: reads and writes of clients; `reading`, `upstreams`: of nodes
//! - `walk`: HOT PATH, an ordinary command to its node and the reply to its client
//! - `dispatch`: plans of all other commands; `clients`, `transaction`, `users`, `login`, `replicas`:
//!   commands that depend on the state of their client
//! - `split`, `scattered`, `emulation`, `join`, `keyspace`, `publish`, `scripts`: commands with parts
//!   at several nodes
//! - `answer`, `half_moved`, `shard_check`: replies find their clients; `refused`: refusals are carried
//!   out; `dedicated`, `errand`, `watch`: replies on connections that are lent to one client
//! - `effect`: what the parts leave for the worker to do; `loss`: lost connections
//! - `topology`, `renew`: another snapshot, another configuration
//! - `clock`: timers and deadlines; `pressure`: `limits.memory`; `drain`, `leave`: clients that leave
//! - `everyone`, `proxy`: questions to all workers

mod answer;
mod clients;
mod clock;
mod dedicated;
mod dispatch;
mod downstream;
mod drain;
mod effect;
mod emulation;
mod errand;
mod everyone;
mod fairness;
mod half_moved;
mod join;
mod keyspace;
mod leave;
mod login;
mod loss;
mod pressure;
mod proxy;
mod publish;
mod pubsub;
mod reading;
mod realms;
mod refused;
mod renew;
mod replicas;
mod scattered;
mod scripts;
mod shard_check;
mod split;
mod start;
pub use start::spawn;
mod subscribing;
mod tls;
mod topology;
mod transaction;
mod upstreams;
mod users;
mod walk;
mod watch;
mod writing;

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Events;

use crate::access::Access;
use crate::base::{Base, base};
use crate::client::{Client, Paused};
use crate::clients::Clients;
use crate::common::{Core, Source, micros};
use crate::mailbox::ToWorker;
use crate::metrics::{NodeStats, WorkerStats};
use crate::node_scripts::scripts::Scripts;
use crate::nodes::{Nodes, reaccount};
use crate::operations::Operations;
use crate::recorder::seen;
use crate::resp::Protocol;
use crate::subscribers::Subscribers;
use crate::upstream::Upstream;

/// Bytes that one read asks for: large enough that fifty clients' replies come in one read.
const SCRATCH: usize = 128 << 10;
/// When questions about clients (CLIENT LIST) have looked at so many, the rest is the next turn's.
const LOOKED_AT: usize = 2_000;
/// Large commands and replies are over when none has been seen for this long, microseconds.
const LARGE_ENDED: u64 = 20_000;

struct Worker {
    /// What all of its parts work with.
    core: Core,
    /// The cluster's nodes, and the connections to them.
    nodes: Nodes,
    clients: Clients,
    /// Who clients are, and what they may do.
    access: Access,
    /// Who is subscribed to what, and which PUBLISHes wait for it.
    subscribers: Subscribers,
    scripts: Scripts,
    /// Commands of more than one step that are under way.
    ops: Operations,
    /// What is seen of commands as they pass.
    seeing: seen::Seeing,
}

impl Worker {
    fn run(mut self) {
        tracing::debug!(worker = self.core.link.index, "worker runs");
        self.core.shared.workers().push((self.core.link.index, self.core.link.own.clone()));
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.time_to_wait();
            match self.core.link.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(worker = self.core.link.index, %error, "the event loop failed");
                    return;
                }
            }
            self.core.now = micros(self.core.clock.epoch);
            self.core.stats.turns += 1;
            self.seeing.look_around(&mut self.core);
            self.core.turn.held_now = 0;
            // First of all, so that a PUBLISH that is answered now counts the subscribers that the
            // hub told of before.
            self.read_inbox();
            self.follow_up();
            self.subscribers.account_messages(&mut self.core);
            let again = std::mem::take(&mut self.core.turn.again);
            for event in &events {
                match Source::of(event.token()) {
                    Source::Waker => {}
                    Source::Client(i) => {
                        if let Some(client) = self.clients.slab.get_mut(i) {
                            client.peer_closed |= event.is_read_closed();
                            client.blocked &= !event.is_writable();
                        }
                        if event.is_writable() {
                            self.clients.mark_client(i, &mut self.core);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.client_readable(i);
                        }
                    }
                    Source::Upstream(u) => self.upstream_event(u, event),
                }
                self.follow_up();
            }
            for source in again {
                match source {
                    Source::Client(i) => self.client_again(i),
                    Source::Upstream(u) => self.upstream_again(u),
                    Source::Waker => {}
                }
                self.follow_up();
            }
            self.subscribers.release_barriers(&mut self.core);
            self.run_timers();
            self.follow_up();
            self.flush();
            self.relieve();
            self.drain_goes_on();
            self.follow_up();
            if self.clients.departures().are_over(&self.core) {
                tracing::debug!(worker = self.core.link.index, "worker drained");
                return;
            }
            if self.clients.stop.retires && self.clients.slab.is_empty() {
                tracing::debug!(worker = self.core.link.index, "worker retired");
                return;
            }
        }
    }

    /// How long the event loop may sleep.
    fn time_to_wait(&self) -> Option<Duration> {
        if self.core.link.more_inbox
            // Another worker waits until this one has looked at its sockets once more.
            || !self.subscribers.barriers.is_empty()
            || !self.core.turn.again.is_empty()
            || !self.core.turn.resume.is_empty()
            || !self.core.turn.dirty_upstreams.is_empty()
            // Clients were closed behind the flush: their sockets, and what others heard of it.
            || !self.core.turn.graveyard.is_empty()
            || !self.core.turn.dirty_clients.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let timer = self.core.clock.timers.peek().map(|t| t.due);
        let idle = self.core.settings.idle_timeout.map(|_| self.core.clock.next_idle_check);
        let drain = self.clients.stop.drain.map(|drain| drain.next());
        let (probe, handshake) = (
            self.nodes.idle_probe_due(&self.core),
            self.clients.arrivals.handshakes.due(&self.core),
        );
        let (login, leave) = (
            self.clients.arrivals.logins.due(&self.core),
            self.clients.arrivals.leaving.due(&self.core),
        );
        let next = [
            timer,
            self.core.clock.tick,
            drain,
            self.clients.stop.pause_end(&self.core),
            idle,
            probe,
            handshake,
            login,
            leave,
        ];
        let next = next.into_iter().flatten().min()?;
        // The clock of the last turn is old by now: measure anew, it is only done when there is
        // something to wait for.
        let now = micros(self.core.clock.epoch);
        // A poll cannot wait for less than a millisecond; sleeping short would mean spinning.
        // Nor can it for much longer than days (a pause may be as long as one likes).
        Some(Duration::from_millis(next.saturating_sub(now).div_ceil(1000).min(3_600_000)))
    }

    /// The end of a turn: nodes first, so that they work while the clients are written to.
    fn flush(&mut self) {
        loop {
            while let Some(client) = self.core.turn.resume.pop() {
                self.resume_client(client.at(), client.generation);
                self.follow_up();
            }
            let mut dirty = std::mem::take(&mut self.core.turn.dirty_upstreams);
            let wrote = !dirty.is_empty();
            for u in dirty.drain(..) {
                self.flush_upstream(u);
                self.follow_up();
            }
            if self.core.turn.dirty_upstreams.is_empty() {
                self.core.turn.dirty_upstreams = dirty;
            }
            // Where clients, nodes and this worker share a core, the nodes that were just written
            // to go first: the next turn then finds the work of many rather than of one, and the
            // worker is not interrupted by them while it writes to its clients. Alone on a core it
            // costs a fraction of a microsecond per turn. Beside large commands and replies it costs
            // a whole slice: their clients and nodes have always something to do.
            if wrote {
                if self.core.now.saturating_sub(self.core.turn.last_large) > LARGE_ENDED {
                    std::thread::yield_now();
                }
                // Messages that came of it need no turn of their own.
                self.read_inbox();
                self.follow_up();
            }
            let mut dirty = std::mem::take(&mut self.core.turn.dirty_clients);
            for i in dirty.drain(..) {
                self.flush_client(i);
                self.follow_up();
            }
            if self.core.turn.dirty_clients.is_empty() {
                self.core.turn.dirty_clients = dirty;
            }
            let done = self.core.turn.dirty_upstreams.is_empty()
                && self.core.turn.dirty_clients.is_empty()
                && self.core.turn.resume.is_empty();
            if done {
                break;
            }
        }
        self.seeing.finish_seen(&mut self.clients, &mut self.core);
        self.subscribers.tell_hub(&mut self.core);
        self.subscribers.send_barrier(&mut self.core);
        // Empty by now; what was put off is the next turn's.
        std::mem::swap(&mut self.core.turn.dirty_upstreams, &mut self.core.turn.deferred);
        std::mem::swap(&mut self.core.turn.dirty_clients, &mut self.core.turn.unwritten);
        for u in std::mem::take(&mut self.nodes.dedicated.dead) {
            if let Some(mut up) = self.nodes.upstreams.try_remove(u) {
                reaccount(&mut self.core.memory.accounted, &mut up.accounted, 0);
            }
        }
        for i in std::mem::take(&mut self.core.turn.graveyard) {
            self.clients.slab.try_remove(i);
        }
        self.core.memory.meter.reset();
    }

    fn read_inbox(&mut self) {
        let mut looked_at = 0;
        self.core.link.more_inbox = false;
        self.core.link.own.looks();
        while let Ok(message) = self.core.link.inbox.try_recv() {
            match message {
                ToWorker::Accept(arrival) => base!(self).accept(arrival),
                ToWorker::Shed { keep } => self.clients.departures().shed(keep, &mut self.core),
                ToWorker::Topology(snapshot) => self.set_topology(snapshot),
                ToWorker::Health(health) => self.nodes.set_health(health, &mut self.core),
                ToWorker::Commands(table) => base!(self).set_commands(table),
                ToWorker::Identity(identity) => self.nodes.topology.identity = identity,
                ToWorker::Scrape(answer) => {
                    // Whoever asked may have given up: nobody to answer then.
                    let _ = answer.send(Box::new(self.counters()));
                }
                ToWorker::Census(answer) => {
                    // Its work is that of a list of all clients; see below.
                    let _ = answer.send(Box::new(self.clients.listing().census(&self.core)));
                    looked_at += self.clients.slab.len();
                    if looked_at > LOOKED_AT {
                        return self.core.link.more_inbox = true;
                    }
                }
                ToWorker::Seen(answer) => {
                    let _ = answer.send(Box::new(self.seeing.copy(self.core.now)));
                }
                ToWorker::Asked(inquiry) => {
                    self.hear(&inquiry);
                    // A thousand clients that all ask for the list of all must not make one turn.
                    looked_at += self.clients.slab.len();
                    if looked_at > LOOKED_AT {
                        return self.core.link.more_inbox = true;
                    }
                }
                ToWorker::Answered(answered) => self.finish_inquiry(*answered),
                ToWorker::Verified { client, answer } => {
                    self.clients.logins().verified(client, answer, &mut self.core)
                }
                ToWorker::Reverified(looked) => base!(self).looked(&looked),
                ToWorker::Users(users) => base!(self).set_users(&users),
                ToWorker::PubSub(batch) => {
                    self.subscribers.hear_hub(&batch, &mut self.clients, &mut self.core)
                }
                ToWorker::SubscriptionEnded(serial) => self.subscription_ended(serial),
                ToWorker::Read(barrier) => {
                    self.subscribers.barriers.push((self.core.stats.turns, barrier))
                }
                ToWorker::OthersHaveRead(id) => self.others_have_read(id),
                ToWorker::Probed(probed) => {
                    self.clients.lending().probed(&probed, &mut self.nodes, &mut self.core)
                }
                ToWorker::WrongNode(stranger) => {
                    self.nodes.silence().wrong_node_answers(&stranger, &mut self.core)
                }
                ToWorker::Busy(busy) => self.ops.node_is_busy(&busy, &mut base!(self)),
                #[cfg(debug_assertions)]
                ToWorker::Fail => panic!("told to fail"),
                ToWorker::Config { config, workers } => self.set_config(&config, workers),
                ToWorker::Retire => self.clients.stop.retires = true,
                ToWorker::Pause(pause) => self.clients.suspension().begin(pause),
                ToWorker::Drain { by } => self.start_drain(by),
            }
            self.follow_up();
        }
    }

    /// The counters with the gauges read.
    fn counters(&mut self) -> WorkerStats {
        let mut stats = self.core.stats.clone();
        stats.clients = self.clients.slab.len() as u64;
        let resp3 = |c: &Client| c.session.protocol == Protocol::Resp3;
        stats.clients_resp3 = self.clients.slab.iter().filter(|(_, c)| resp3(c)).count() as u64;
        let paused = |c: &Client| c.paused == Paused::Suspended;
        stats.clients_paused = self.clients.slab.iter().filter(|(_, c)| paused(c)).count() as u64;
        stats.buffer_bytes = (self.core.memory.accounted
            + self.nodes.placement.slots.holds.bytes()
            + self.core.spare.pool.bytes()) as u64;
        stats.held = self.nodes.placement.slots.holds.count() as u64;
        stats.users = self.access.realms.len() as u64;
        stats.dedicated_idle = self.nodes.dedicated.idle.len() as u64;
        stats.subscriptions = self.subscribers.topics.subscriptions();
        let subscribed = |c: &Client| c.subscriptions.is_some();
        stats.subscribers = self.clients.slab.iter().filter(|(_, c)| subscribed(c)).count() as u64;
        let lent = |up: &&Upstream| up.dedicated.is_some_and(|d| d.client.is_some());
        stats.dedicated_lent =
            self.nodes.upstreams.iter().map(|(_, up)| up).filter(lent).count() as u64;
        let blocked = |c: &Client| c.lent.as_ref().is_some_and(|l| l.errand.is_some());
        stats.clients_blocked = self.clients.slab.iter().filter(|(_, c)| blocked(c)).count() as u64;
        stats.nodes.resize(self.nodes.list.len(), NodeStats::default());
        for (node, stats) in self.nodes.list.iter().zip(&mut stats.nodes) {
            stats.addr = node.known.then(|| node.addr.clone());
        }
        for (_, up) in &self.nodes.upstreams {
            let Some(node) = stats.nodes.get_mut(usize::from(up.node)) else { continue };
            match up.state {
                crate::upstream::ConnectionState::Ready => node.connections_ready += 1,
                crate::upstream::ConnectionState::Backoff => node.connections_backoff += 1,
                _ => node.connections_connecting += 1,
            }
            node.connections_aside += u64::from(up.retiring);
            node.in_flight += up.pending.len() as u64;
            node.in_flight_bytes += up.queue.len() as u64;
        }
        stats
    }
}

impl Drop for Worker {
    /// However it ends, other workers and the one in its place may lend what it had lent.
    fn drop(&mut self) {
        let lent = |up: &Upstream| up.dedicated.is_some_and(|d| d.client.is_some());
        self.nodes
            .upstreams
            .iter()
            .filter(|(_, up)| lent(up))
            .for_each(|_| self.core.shared.give_back());
        let monitors = |c: &Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let count = self.clients.slab.iter().filter(|(_, c)| monitors(c)).count();
        self.core.shared.monitors.fetch_sub(count, Ordering::Relaxed);
        self.subscribers.topics.leave_all();
        self.core.shared.workers().retain(|(index, _)| *index != self.core.link.index);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.core.link.index).finish_non_exhaustive()
    }
}
