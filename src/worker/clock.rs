//! Deadlines, backoff, and what else waits for a time.

use super::state::base;
use super::state::{Base, Clients, Core, Nodes};
use std::cmp::Ordering;

use super::Worker;
use crate::client::Paused;
use crate::cluster::NO_SLOT;
use crate::dest::{ClientId, Dest};
use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
use crate::mailbox::ToControl;
use crate::metrics::DisconnectReason;
use crate::placement::{Class, Phase, Redirection, at_deadline};
use crate::route::flag;
use crate::upstream::{ConnectionEnd, Pending, State};

/// How often all deadlines are looked at while something is under way, microseconds.
const TICK: u64 = 20_000;
/// A reply that is arriving may take so many times `timeouts.command`.
const ARRIVING: u64 = 12;
/// A slot that was not redirected for so long is calm again, microseconds.
const CALM_AFTER: u64 = 1_000_000;

/// What nodes answer while a command's keys are at two of them.
const TRYAGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";

/// Something to do at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub due: u64,
    pub job: Job,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Connect this upstream anew.
    Connect(usize),
    /// The errand of this client, of this reply's number, is sent again.
    Errand(ClientId, u32),
    /// This client, which monitors, looks for primaries that it does not hear.
    Listen(ClientId),
    /// A SUBSCRIBE's deadline.
    Subscribe(u64),
    /// This client had not taken much some time ago.
    SlowSubscriber(ClientId),
    /// An errand's deadline.
    ErrandEnd(ClientId, u32),
    /// The failed login of this client is answered.
    Login(ClientId),
    /// Users of the cluster are looked at.
    Looks,
    /// This realm may have no clients any more.
    Realm(u16),
    /// The pause of this emulated command (its gathering, its number) is over.
    Emulation(usize, u64),
    /// The closed gate of this slot may let the next command through.
    Gate(u16, Class),
    /// The budget may have room for retries that wait.
    Retries,
    /// This client was told to leave, and has had its time for it.
    Close(ClientId),
    /// The allocator's freed pages go back to the system.
    Purge,
    /// This slot's lane may go on.
    Lane(u16, ClientId),
}

/// A random number below `range`; 0 where that is 0.
fn jitter(range: u64) -> u64 {
    match range {
        0 => 0,
        _ => fastrand::u64(..range),
    }
}

impl Ord for Timer {
    /// The earliest is the greatest: it is on top of the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Core {
    /// Something is under way: deadlines are looked at from time to time.
    #[inline]
    pub(super) fn arm_tick(&mut self) {
        if self.clock.tick.is_none() {
            self.clock.tick = Some(self.now + TICK);
        }
    }

    /// How long to wait after `failures` attempts: doubling from `reconnect.min` to
    /// `reconnect.max`, less up to half of it at random, so that not all come at once.
    pub(super) fn backoff(&self, failures: u32) -> u64 {
        let doubled = self
            .settings
            .reconnect_min
            .saturating_mul(1u64 << failures.saturating_sub(1).min(20))
            .min(self.settings.reconnect_max);
        doubled - jitter(doubled / 2)
    }

    /// Up to `range` / 2, at random.
    pub(super) fn backoff_jitter(&self, range: u64) -> u64 {
        jitter(range / 2 + 1)
    }

    /// The error for a command whose `timeouts.command` is over. Where the outcome is known, a
    /// node's own error, `last`, keeps its code. `migration` is behind the outcome.
    fn deadline_failure(
        &self,
        pending: &Pending,
        node: &str,
        outcome: Unanswered,
        migration: String,
        last: Option<String>,
    ) -> Failure {
        Failure::Deadline {
            code: outcome.code(last.as_deref().and_then(Code::of_node)),
            seconds: self.now.saturating_sub(pending.started) as f64 / 1e6,
            slot: ForSlot(Some(pending.slot).filter(|&slot| slot != NO_SLOT)),
            node: node.into(),
            tries: u32::from(pending.tries) + 1,
            outcome,
            migration: migration.into(),
            last: Last(last),
        }
    }

    /// Asks control for a new topology; `hint` is who is likely to know it.
    pub(super) fn want_topology(&self, hint: Option<crate::cluster::NodeAddr>) {
        // Control may be gone at the very end: nothing to refresh then.
        let _ = self.link.control.send(ToControl::RefreshTopology { hint });
    }
}

impl Nodes {
    fn check_connect_timeout(&mut self, u: usize, core: &mut Core) {
        let Some(up) = self.upstreams.get(u) else { return };
        if let State::Connecting { until } | State::Securing { until } | State::Handshake { until } =
            up.state
            && until <= core.now
        {
            let why = match up.state {
                State::Securing { .. } => ConnectionEnd::NoTlsHandshake,
                _ => ConnectionEnd::NoAnswer,
            };
            self.end_securing(u);
            core.lose(u, why);
        }
    }
}

impl Clients {
    fn close_idle_clients(&mut self, core: &mut Core) {
        let Some(timeout) = core.settings.idle_timeout else { return };
        if core.now < core.clock.next_idle_check {
            return;
        }
        core.clock.next_idle_check = core.now + (timeout / 4).clamp(10_000, 1_000_000);
        let before = core.now.saturating_sub(timeout);
        // Who monitors or is subscribed has nothing to say.
        let monitors = |c: &crate::client::Client| {
            c.subscriptions.is_some() || c.lent.as_ref().is_some_and(|lent| lent.monitor)
        };
        let idle: Vec<usize> = self
            .slab
            .iter()
            .filter(|(_, c)| c.active < before && c.is_idle() && c.paused == Paused::No)
            .filter(|(_, c)| !monitors(c))
            .map(|(i, _)| i)
            .collect();
        for index in idle {
            core.stats.disconnected[DisconnectReason::Idle as usize] += 1;
            self.close(index, core);
        }
    }
}

impl Base<'_> {
    fn release_calm(&mut self) {
        if self.nodes.placement.slots.holds.is_empty() {
            return;
        }
        for slot in self.nodes.placement.slots.holds.calm(self.core.now.saturating_sub(CALM_AFTER))
        {
            self.release_slot(slot);
        }
    }
}

impl Worker {
    pub(super) fn run_timers(&mut self) {
        while self.core.clock.timers.peek().is_some_and(|t| t.due <= self.core.now) {
            match self.core.clock.timers.pop().map(|t| t.job) {
                Some(Job::Connect(u)) => {
                    let waits =
                        self.nodes.upstreams.get(u).is_some_and(|up| up.state == State::Backoff);
                    if waits
                        && !base!(self).retire(u)
                        && !self.access.is_unwanted(u, &mut self.nodes, &mut self.core)
                    {
                        self.nodes.connect(u, &mut self.core);
                    }
                }
                Some(Job::Lane(slot, lane)) => self.core.run_lane(slot, lane),
                Some(Job::Gate(slot, class)) => {
                    self.nodes.placement.slots.holds.disarm(slot, class);
                    self.core.run_gate(slot, class);
                }
                Some(Job::Retries) => self.ops.run_retries(&mut base!(self)),
                Some(Job::Purge) => self.core.purge(),
                Some(Job::Errand(client, seq)) => {
                    self.ops.errand_again(client, seq, &mut base!(self));
                }
                Some(Job::Emulation(g, ticket)) => self.wake_emulation(g, ticket),
                Some(Job::Subscribe(id)) => {
                    self.subscribers.subscribe_ends(id, &mut self.clients, &mut self.core)
                }
                Some(Job::SlowSubscriber(client)) => {
                    self.clients.slow_subscriber(client, &mut self.core);
                }
                Some(Job::Login(client)) => self.clients.login_again(client, &mut self.core),
                Some(Job::Close(client)) => self.clients.close_if_leaving(client, &mut self.core),
                Some(Job::Looks) => base!(self).look_at_realms(),
                Some(Job::Realm(realm)) => base!(self).realm_ends(realm),
                Some(Job::Listen(client)) => {
                    self.clients.listen_again(client, &mut self.nodes, &mut self.core)
                }
                Some(Job::ErrandEnd(client, seq)) => {
                    self.errand_ends(client, seq);
                }
                None => {}
            }
            self.follow_up();
        }
        if self.clients.pause_end(&self.core).is_some_and(|due| due <= self.core.now) {
            self.clients.end_pause(&mut self.core);
        }
        if self.core.clock.tick.is_some_and(|due| due <= self.core.now) {
            self.core.clock.tick = None;
            self.look_at_deadlines();
        }
        self.clients.close_idle_clients(&mut self.core);
        self.clients.end_slow_handshakes(&mut self.core);
        self.end_late_logins();
        self.let_leave();
        self.nodes.probe_idle(&mut self.core);
    }

    fn look_at_deadlines(&mut self) {
        let mut busy = !self.nodes.placement.slots.holds.is_empty();
        let all: Vec<usize> = self.nodes.upstreams.iter().map(|(u, _)| u).collect();
        for u in all {
            self.nodes.check_connect_timeout(u, &mut self.core);
            self.check_commands(u);
            self.nodes.check_silence(u, &mut self.core);
            let waits = |up: &crate::upstream::Upstream| {
                (!up.pending.is_empty() && up.dedicated.is_none()) || up.state.is_under_way()
            };
            busy |= self.nodes.upstreams.get(u).is_some_and(waits);
        }
        self.expire_held();
        self.nodes.fail_without_primary(&mut self.core);
        base!(self).release_calm();
        if self.subscribers.stranded {
            self.ops.send_stranded(&mut base!(self));
            busy = true;
        }
        if busy {
            self.core.arm_tick();
        }
    }

    /// Commands are in the order of their age, but for those that were sent again: the first one
    /// is looked at every time, all of them now and then.
    fn check_commands(&mut self, u: usize) {
        let Some(timeout) = self.core.settings.command_timeout else { return };
        let before = self.core.now.saturating_sub(timeout);
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        if up.dedicated.is_some() {
            return; // its client's errand has a deadline of its own
        }
        let overdue = |p: &Pending| p.started <= before && p.dest != Dest::Discard;
        if self.core.now < timeout
            || !(self.core.now >= up.next_check || up.pending.front().is_some_and(overdue))
        {
            return;
        }
        up.next_check = self.core.now + (timeout / 16).max(TICK);
        if !up.pending.iter().any(overdue) {
            return;
        }
        // A node that has said nothing for as long does not answer any more: its old commands go
        // with an error of their own, the rest by the rules of a lost connection. A node that does
        // answer, if only with one large reply, keeps its connection.
        let endless = up.pending.front().is_some_and(|p| {
            up.streaming && self.core.now.saturating_sub(p.started) > timeout * ARRIVING
        });
        let silent =
            up.state == State::Ready && (endless || up.last_read.max(up.ready_since) <= before);
        self.expire_pending(u, before, silent);
        if silent {
            self.core.lose(u, ConnectionEnd::CommandTimeout);
        } else {
            self.nodes.mark_upstream(u, &mut self.core);
        }
    }

    fn expire_pending(&mut self, u: usize, before: u64, silent: bool) {
        if silent {
            self.clients.abandon_arriving(u, &mut self.nodes, &mut self.core);
        }
        self.seeing.note_expired(u, before, &mut self.ops, &mut base!(self));
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let node = up.node;
        let why = up.last_error.as_ref().map(ConnectionEnd::to_string);
        let mut written = if up.state == State::Ready { up.queue.sent() } else { 0 };
        let mut expired: Vec<(Pending, bool)> = Vec::new();
        for (i, pending) in up.pending.iter_mut().enumerate() {
            let sent = written > 0;
            written = written.saturating_sub(pending.len as usize);
            if up.streaming && i == 0 {
                continue; // its reply is on the way
            }
            if pending.started <= before && pending.dest != Dest::Discard {
                expired.push((*pending, sent));
                // Whoever waited has gone; the entry stays with its bytes.
                pending.dest = Dest::Discard;
                pending.flags &= !flag::SPECIAL;
            }
        }
        // What was not sent is forgotten for good, or "not sent" would be a lie a moment later
        // (ASKING goes with it; a command that needs it is redirected once more).
        up.take_unsent(&mut self.core.spare.pool, |p| p.dest == Dest::Discard);
        let name = self.nodes.list.get(usize::from(node)).map(|n| n.addr.to_string());
        let name = name.unwrap_or_default();
        for (pending, sent) in expired {
            self.core.stats.deadline_exceeded += 1;
            let phase = if sent { Phase::Sent } else { Phase::Unsent };
            let outcome = at_deadline(pending.work(), phase, pending.tries > 0);
            self.core.stats.outcome_unknown += u64::from(outcome == Unanswered::Unknown);
            let mut cause = String::new();
            if pending.refused == Some(Redirection::TryAgain) {
                let half_moved =
                    self.nodes.half_moved_text(pending.slot, pending.command, &self.core);
                cause = format!("; it was refused before, as {half_moved}");
            }
            let failure = self.core.deadline_failure(&pending, &name, outcome, cause, why.clone());
            self.core.fail(&pending, &name, &failure);
        }
    }

    fn expire_held(&mut self) {
        let Some(timeout) = self.core.settings.command_timeout else { return };
        if self.nodes.placement.slots.holds.is_empty() || self.core.now < timeout {
            return;
        }
        for (slot, held) in self.nodes.placement.slots.holds.expire(self.core.now - timeout) {
            self.core.stats.deadline_exceeded += 1;
            let owner = self.nodes.placement.slots.owner(slot);
            let node = owner.and_then(|n| self.nodes.list.get(usize::from(n)));
            let name = node.map_or_else(|| "none".to_owned(), |n| n.addr.to_string());
            let mut why = self.nodes.placement.slots.last_refusal(slot).cloned();
            if self.nodes.topology.snapshot.generation == 0 {
                why = why.or_else(|| self.core.shared.trouble());
            }
            let pending = held.meta.pending;
            self.seeing.note_held(&pending, &held.frame, &mut self.ops, &mut base!(self));
            let mut cause = String::new();
            if pending.refused == Some(Redirection::TryAgain) {
                why = Some(TRYAGAIN.to_owned());
                cause = format!(
                    ", as {}",
                    self.nodes.half_moved_text(slot, pending.command, &self.core)
                );
            }
            let outcome = at_deadline(pending.work(), Phase::Held, pending.was_lost());
            let failure = self.core.deadline_failure(&pending, &name, outcome, cause, why.clone());
            self.core.fail(&pending, &name, &failure);
        }
    }
}
