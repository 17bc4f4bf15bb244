//! Errands: the commands that occupy their client, foremost the blocking ones.
//!
//! An errand begins when all earlier replies are there, and nothing more is read from the client
//! until it is answered: so what goes over a dedicated connection keeps its order with what goes
//! over the shared ones. A blocking command whose node is lost or demoted, or whose slot moves, is
//! sent again for the time that is left.

use super::state::base;
use super::state::{Base, Clients, Core, Nodes, Operations};
use std::sync::atomic::Ordering::Relaxed;

use super::clock::{Job, Timer};
use super::dedicated::LendError;
use super::downstream::Flow;
use super::refused::ASKING;
use super::retries::{NO_PRIMARY_PAUSE, Want};
use super::{NOBODY, Worker};
use crate::client::Paused;
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
use crate::metrics::RetryReason;
use crate::ops::{AfterRefusedErrand, Errand, Kind};
use crate::placement::{AfterLoss, Class, Redirection, Refusal, Retry, Scope};
use crate::resp::reply::error_text;
use crate::resp::{ArgRange, Protocol, write};
use crate::route::{left_of, wait_time};
use crate::upstream::{ConnectionEnd, Pending, State, Upstream};
use crate::users::OWN;

/// A timer outlives its errand. One that may wait for an hour and is answered at once, over and
/// over, must not leave an hour's timers: its end is looked at from time to time, microseconds.
const FARTHEST_TIMER: u64 = 10_000_000;

impl Core {
    pub(super) fn errand_later(&mut self, client: ClientId, seq: u32, delay: u64) {
        let job = Job::Errand(client, seq);
        self.clock.timers.push(Timer { due: self.now + delay, job });
    }

    fn only_reads(&self, errand: &Errand) -> bool {
        self.router.table().get(errand.command).is_read_only()
    }
}

impl Clients {
    /// From now on the client waits for `errand`; `own` is the time that it may take beside the
    /// deadline of every command, `None` for ever.
    pub(super) fn begin_errand(
        &mut self,
        index: usize,
        mut errand: Errand,
        own: Option<u64>,
        core: &mut Core,
    ) -> Option<Dest> {
        let client = self.slab.get_mut(index)?;
        let generation = client.generation;
        let seq = client.expect(&mut core.spare.replies);
        client.paused = Paused::Command;
        errand.seq = seq;
        // A client may name a time beyond the end of the clock's numbers.
        let end = |(own, timeout)| core.now.saturating_add(timeout).saturating_add(own);
        errand.until = own.zip(core.settings.command_timeout).map(end);
        if let Some(until) = errand.until {
            let due = until.min(core.now + FARTHEST_TIMER);
            core.clock
                .timers
                .push(Timer { due, job: Job::ErrandEnd(ClientId::new(index, generation), seq) });
        }
        if errand.is_blocking() {
            core.shared.blocked.fetch_add(1, Relaxed);
        }
        self.lent(index, |lent| lent.errand = Some(errand));
        Some(Dest::Client { index: index as u32, generation, seq })
    }

    /// Nodes refuse the slot: the client's errand waits at its gate. `false`: it may go.
    fn errand_waits(
        &mut self,
        client: ClientId,
        slot: u16,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        if !nodes.placement.slots.holds.wait_at_gate(slot, Class::Write, client) {
            return false;
        }
        // To fail fast in time.
        let seq = self.errand(client.at()).map(|errand| errand.seq);
        let since = nodes.placement.slots.holds.closed_since(slot, Class::Write);
        if let (Some(seq), Some(limit), Some(since)) = (seq, core.settings.no_primary, since) {
            let left = (since + limit).saturating_sub(core.now).max(NO_PRIMARY_PAUSE);
            core.errand_later(client, seq, left);
        }
        core.run_gate(slot, Class::Write);
        true
    }

    /// One try more has found no primary: how long until the next.
    pub(super) fn no_primary_pause(&mut self, index: usize, core: &mut Core) -> u64 {
        let Some(errand) = self.errand(index) else { return NO_PRIMARY_PAUSE };
        errand.tries = errand.tries.saturating_add(1);
        let tries = errand.tries;
        NO_PRIMARY_PAUSE.max(core.retry_pause(tries))
    }

    /// An error of slotway's own in place of the errand's reply.
    pub(super) fn fail_errand(
        &mut self,
        client: ClientId,
        seq: u32,
        failure: Failure,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let index = client.at();
        let Some(errand) = self.errand(index).filter(|e| e.seq == seq) else { return };
        let (command, kind) = (errand.command, errand.kind);
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.refused += 1;
        }
        let reads = self.errand_only_reads(index, core);
        let was_unknown = failure.is_outcome_unknown();
        let failure = match self.errand(index) {
            Some(errand) => errand.failure(reads, failure),
            None => failure,
        };
        core.stats.outcome_unknown += u64::from(!was_unknown && failure.is_outcome_unknown());
        self.end_errand(client, seq, core);
        if let Kind::Check { .. } = kind {
            self.drop_transaction(index, nodes, core);
        }
        let dest = Dest::client(client, seq);
        self.deliver_failure(dest, &failure, core);
    }

    /// Whether the command of the client's errand changes nothing.
    pub(super) fn errand_only_reads(&self, index: usize, core: &Core) -> bool {
        let lent = self.slab.get(index).and_then(|client| client.lent.as_ref());
        lent.and_then(|lent| lent.errand.as_ref()).is_some_and(|errand| core.only_reads(errand))
    }

    /// The client's errand is answered: it is read from again.
    pub(super) fn end_errand(&mut self, client: ClientId, seq: u32, core: &mut Core) {
        let index = client.at();
        let Some(c) = self.slab.get_mut(index).filter(|c| c.generation == client.generation) else {
            return;
        };
        let Some(lent) = c.lent.as_mut() else { return };
        if lent.errand.as_ref().is_none_or(|e| e.seq != seq) {
            return;
        }
        if lent.errand.take().is_some_and(|e| e.is_blocking()) {
            core.shared.blocked.fetch_sub(1, Relaxed);
        }
        if c.paused == Paused::Command {
            core.turn.resume.push(client);
        }
        self.forget_lent(index);
    }

    /// The client waits for an answer that it will not read: it has closed its connection.
    pub(super) fn waits_in_vain(&self, index: usize) -> bool {
        self.slab.get(index).is_some_and(|c| {
            let errand = c.lent.as_ref().and_then(|l| l.errand.as_ref());
            c.peer_closed
                && c.paused == Paused::Command
                && errand
                    .is_some_and(|e| matches!(e.kind, Kind::Block | Kind::Join) || e.time.is_some())
        })
    }

    /// The client has sent this node something that may change data.
    pub(super) fn note_write(&mut self, index: usize, node: Option<u16>) {
        if let (Some(client), Some(node)) = (self.slab.get_mut(index), node) {
            client.wrote |= 1 << (node & 63);
        }
    }

    pub(super) fn errand(&mut self, index: usize) -> Option<&mut Errand> {
        self.slab.get_mut(index)?.lent.as_mut()?.errand.as_mut()
    }

    pub(super) fn lent(&mut self, index: usize, change: impl FnOnce(&mut crate::client::Lent)) {
        if let Some(client) = self.slab.get_mut(index) {
            change(client.lent.get_or_insert_with(Box::default));
        }
    }

    pub(super) fn lent_of(
        &mut self,
        client: ClientId,
        change: impl FnOnce(&mut crate::client::Lent),
    ) {
        if let Some(c) = self.slab.get_mut(client.at())
            && c.generation == client.generation
            && let Some(lent) = c.lent.as_mut()
        {
            change(lent);
        }
    }

    pub(super) fn forget_lent(&mut self, index: usize) {
        if let Some(client) = self.slab.get_mut(index)
            && client.lent.as_ref().is_some_and(|l| l.is_over())
        {
            client.lent = None;
        }
    }
}

impl Operations {
    /// A blocking command.
    pub(super) fn block(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.slab.get(index).is_some_and(|c| !c.is_drained()) {
            return base.clients.pause_until_replied(index, base.core);
        }
        self.start_errand(index, Kind::Block, command, slot, frame.to_vec(), base);
        Flow::Next
    }

    /// Begins an errand and sends its command.
    pub(super) fn start_errand(
        &mut self,
        index: usize,
        kind: Kind,
        command: CommandId,
        slot: u16,
        frame: Vec<u8>,
        base: &mut Base<'_>,
    ) {
        let mut ranges: Vec<ArgRange> = Vec::new();
        let args = super::transaction::scan(&frame, &base.core.settings.accepted, &mut ranges);
        // Of a command that does not say that it blocks nothing is a waiting time.
        let says = base.core.router.table().get(command).may_block();
        let time = if kind == Kind::Block && says { wait_time(&args) } else { None };
        // Its own time and the deadline of every command; for ever is for ever.
        let own = match time {
            Some(time) => time.micros,
            None => Some(0),
        };
        let mut errand = Errand::new(kind, command, slot, frame, base.core.now);
        errand.time = time;
        errand.repeatable = base.core.router.is_repeatable(command);
        let Some(Dest::Client { generation, .. }) =
            base.clients.begin_errand(index, errand, own, base.core)
        else {
            return;
        };
        if !base.clients.errand_waits(ClientId::new(index, generation), slot, base.nodes, base.core)
        {
            self.send_errand(index, None, base);
        }
    }

    /// Sends the errand's command to its slot's primary, or to `ask` with ASKING.
    pub(super) fn send_errand(&mut self, index: usize, ask: Option<u16>, base: &mut Base<'_>) {
        let any = base.nodes.any_primary(index);
        let slot_table = &base.nodes.placement.slots;
        let Some(client) = base.clients.slab.get_mut(index) else { return };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_mut() else { return };
        let watching = lent.watches.iter().find(|w| w.slot == errand.slot).map(|w| w.upstream);
        let me = ClientId::new(index, generation);
        let (seq, slot, command) = (errand.seq, errand.slot, errand.command);
        let owner = slot_table.owner(slot);
        let owner = if slot == NO_SLOT { any } else { owner };
        let Some(node) = ask.or(owner) else {
            errand.last = Some(match slot {
                NO_SLOT => Failure::NoPrimary.to_string(),
                slot => Failure::SlotWithoutPrimary { slot }.to_string(),
            });
            base.core.want_topology(None);
            let pause = base.clients.no_primary_pause(index, base.core);
            return base.core.errand_later(me, seq, pause);
        };
        // WATCH of more keys of a slot that is watched already, on a connection that was lost:
        // what was watched there may have changed, and EXEC will say so.
        if errand.kind == Kind::Watch && watching == Some(None) {
            let dest = Dest::client(me, seq);
            base.clients.end_errand(me, seq, base.core);
            return base.clients.deliver_own(dest, b"+OK\r\n", base.core);
        }
        let mut frame = std::mem::take(&mut base.core.spare.line);
        frame.clear();
        match errand.time_left(base.core.now) {
            Some((time, left)) => {
                let mut ranges = Vec::new();
                let args = super::transaction::scan(
                    &errand.frame,
                    &base.core.settings.accepted,
                    &mut ranges,
                );
                frame.extend_from_slice(&left_of(&args, time, left));
            }
            _ => frame.extend_from_slice(&errand.frame),
        }
        let (started, tries) = (errand.started, errand.tries);
        let lent = match watching.flatten() {
            Some(u) => Ok(u),
            None => base.clients.lend(node, protocol, me, base.nodes, base.core),
        };
        base.clients.note_write(index, Some(node));
        match lent {
            Ok(u) => {
                if let Some(errand) = base.clients.errand(index) {
                    errand.upstream = Some(u);
                    errand.asking = ask.is_some();
                }
                if ask.is_some() {
                    base.nodes.discard(u, ASKING, base.core);
                }
                let dest = Dest::client(me, seq);
                let mut pending = self.pending(
                    dest,
                    command,
                    slot,
                    protocol,
                    base.access,
                    base.clients,
                    base.core,
                );
                (pending.started, pending.tries) = (started, tries);
                base.nodes.send(u, pending, &frame, base.core);
            }
            Err(LendError::NotNow) => {
                let pause = base.clients.no_primary_pause(index, base.core);
                base.core.errand_later(me, seq, pause);
            }
            Err(LendError::Limit(failure)) => {
                base.clients.fail_errand(me, seq, failure, base.nodes, base.core)
            }
        }
        if frame.capacity() <= crate::buf::CHUNK {
            base.core.spare.line = frame;
        }
    }

    /// Its pause is over.
    pub(super) fn errand_again(&mut self, me: ClientId, seq: u32, base: &mut Base<'_>) {
        let current = |c: &&mut crate::client::Client| c.generation == me.generation && !c.gone;
        let Some(client) = base.clients.slab.get_mut(me.at()).filter(current) else { return };
        let errand = client.lent.as_ref().and_then(|l| l.errand.as_ref());
        let waits = |e: &&Errand| e.seq == seq && (e.kind == Kind::Join || e.upstream.is_none());
        let Some(errand) = errand.filter(waits) else { return };
        let (kind, slot) = (errand.kind, errand.slot);
        if kind != Kind::Join {
            if let Some(failure) = base.nodes.without_primary(slot, Class::Write, base.core) {
                base.core.stats.no_primary += 1;
                return base.clients.fail_errand(me, seq, failure, base.nodes, base.core);
            }
            if base.clients.errand_waits(me, slot, base.nodes, base.core) {
                return;
            }
        }
        if !base.nodes.may_retry(Want::Errand(me, seq), base.core) {
            return;
        }
        match kind {
            Kind::Join => self.send_join(me.at(), base),
            _ => self.send_errand(me.at(), None, base),
        }
    }

    /// The errand's command was refused, so it was not executed: again, there or elsewhere, as
    /// `when` and `scope` say.
    pub(super) fn errand_refused(
        &mut self,
        u: usize,
        client: ClientId,
        refusal: Refusal,
        (when, scope): (Retry, Scope),
        said: &[u8],
        base: &mut Base<'_>,
    ) -> Result<(), ConnectionEnd> {
        let Some(&pending) = base.nodes.upstreams.get(u).and_then(|up| up.pending.front()) else {
            return Ok(());
        };
        base.nodes.pop_pending(u, base.core);
        base.core.stats.redirections[refusal.kind() as usize] += 1;
        base.core.count_retry(RetryReason::of(refusal.kind()));
        if !base.clients.is_watching(client, u) {
            base.clients.give_back(u, base.nodes, base.core);
        }
        let refuser = base.nodes.upstreams.get(u).map_or(NOBODY, |up| up.node);
        let named = base.nodes.named_by(&refusal);
        let kind = refusal.kind();
        base.nodes.note_migration(pending.slot, &refusal);
        match refusal {
            Refusal::Moved(slot, addr) => {
                if let Some(node) = named {
                    base.nodes.placement.slots.moved(slot.0, node);
                }
                base.core.want_topology(Some(addr));
            }
            Refusal::Ask(..) => {}
            Refusal::Later(_) => base.core.want_topology(None),
        }
        let index = client.at();
        let slot = pending.slot;
        // What was watched at a node that refuses the slot now may have changed elsewhere.
        let mut lost_watch = None;
        base.clients.lent_of(client, |lent| {
            let watch = lent.watches.iter_mut().find(|w| w.slot == slot);
            lost_watch = watch.and_then(|w| w.upstream.take());
        });
        if let Some(watching) = lost_watch {
            base.clients.close_dedicated(watching, base.nodes, base.core);
        }
        let Some(errand) = base.clients.errand(index) else { return Ok(()) };
        let said = String::from_utf8_lossy(error_text(said).unwrap_or_default()).into_owned();
        let after = errand.refused(kind, said.clone(), when, scope);
        let (seq, tries) = (errand.seq, errand.tries);
        if kind == Redirection::TryAgain {
            let frame = errand.frame.clone();
            self.probe_migration(slot, refuser, &frame, base);
        }
        match after {
            AfterRefusedErrand::SendToNamed => self.send_errand(index, named, base),
            AfterRefusedErrand::SendToOwner => self.send_errand(index, None, base),
            AfterRefusedErrand::SendLater => {
                let pause = base.core.retry_pause(tries);
                base.core.errand_later(client, seq, pause);
            }
            AfterRefusedErrand::WaitAtGate { wide } => {
                self.hold_slot(slot, base.nodes, base.core);
                base.nodes.placement.slots.refused(slot, said);
                base.nodes.close_gate(slot, Class::Write, refuser, wide, base.core);
                base.clients.errand_waits(client, slot, base.nodes, base.core);
            }
        }
        Ok(())
    }
}

impl Worker {
    pub(super) fn errand_lost(
        &mut self,
        client: ClientId,
        seq: u32,
        pending: &Pending,
        sent: bool,
        failure: &Failure,
    ) {
        let index = client.at();
        let current =
            self.clients.slab.get(index).is_some_and(|c| c.generation == client.generation);
        let reads = self.clients.errand_only_reads(index, &self.core);
        let Some(errand) = self.clients.errand(index).filter(|e| current && e.seq == seq) else {
            return;
        };
        let (kind, after) = (errand.kind, errand.lost(sent, reads, failure));
        let tries = errand.tries;
        match (kind, after) {
            // Their parts have their own ends.
            (Kind::Fleet | Kind::Join | Kind::Emulated, _) => {}
            (_, AfterLoss::Again) => {
                let delay = self.core.retry_pause(tries);
                self.core.count_retry(RetryReason::Lost);
                self.core.errand_later(client, seq, delay);
            }
            (Kind::Check { left, .. }, _) => {
                self.checked(client, seq, left.saturating_sub(1), true);
            }
            (_, AfterLoss::Aborted) => {
                let null: &[u8] = match super::dedicated::protocol_of(pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                self.clients.end_errand(client, seq, &mut self.core);
                let dest = Dest::client(client, seq);
                self.clients.deliver_own(dest, null, &mut self.core);
            }
            (_, AfterLoss::OutcomeUnknown) => {
                self.core.stats.outcome_unknown += 1;
                self.clients.fail_errand(
                    client,
                    seq,
                    failure.clone(),
                    &mut self.nodes,
                    &mut self.core,
                );
            }
            (_, AfterLoss::NotExecuted | AfterLoss::Closed | AfterLoss::Forgotten) => {
                self.clients.fail_errand(
                    client,
                    seq,
                    failure.clone(),
                    &mut self.nodes,
                    &mut self.core,
                );
            }
        }
    }

    /// The errand's deadline has come, or is still some time off.
    pub(super) fn errand_ends(&mut self, me: ClientId, seq: u32) {
        let Some(client) = self.clients.slab.get(me.at()) else { return };
        let Some(lent) = client.lent.as_ref() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        if client.generation != me.generation || errand.seq != seq {
            return;
        }
        let Some(until) = errand.until else { return };
        if self.core.now < until {
            let due = until.min(self.core.now + FARTHEST_TIMER);
            let job = Job::ErrandEnd(me, seq);
            return self.core.clock.timers.push(Timer { due, job });
        }
        self.core.stats.deadline_exceeded += 1;
        let sent = errand.upstream.and_then(|u| self.nodes.upstreams.get(u));
        let node = sent.map(|up| up.node).or(self.nodes.placement.slots.owner(errand.slot));
        let node = node.and_then(|n| self.nodes.list.get(usize::from(n)));
        let node = node.map_or_else(|| "none".to_owned(), |n| n.addr.to_string());
        let waited = self.core.now.saturating_sub(errand.started) as f64 / 1e6;
        let outcome = errand.overdue(self.core.only_reads(errand), sent.is_some());
        self.core.stats.outcome_unknown += u64::from(outcome == Unanswered::Unknown);
        let cause = (errand.refused == Some(Redirection::TryAgain))
            .then(|| self.nodes.half_moved_text(errand.slot, errand.command, &self.core));
        let (other, cause) = match (cause, outcome) {
            (None, _) => (None, String::new()),
            (Some(cause), Unanswered::NotExecuted) => {
                (Some(Code::TryAgain), format!(", as {cause}"))
            }
            (Some(cause), _) => (None, format!("; it was refused before, as {cause}")),
        };
        let failure = Failure::BlockingDeadline {
            code: outcome.code(other),
            seconds: waited,
            slot: ForSlot(Some(errand.slot).filter(|&slot| slot != NO_SLOT)),
            node: node.into(),
            tries: u32::from(errand.tries) + 1,
            outcome,
            migration: cause.into(),
            last: Last(errand.last.clone()),
        };
        if let Some(u) = errand.upstream {
            self.clients.close_dedicated(u, &mut self.nodes, &mut self.core);
        }
        // All that has a part of it and has not answered.
        let part = |p: &Pending| matches!(p.dest, Dest::Part { .. });
        let has_part = |up: &Upstream| {
            up.dedicated.is_some_and(|d| d.client == Some(me)) && up.pending.iter().any(part)
        };
        let silent: Vec<usize> =
            self.nodes.upstreams.iter().filter(|(_, up)| has_part(up)).map(|(u, _)| u).collect();
        for u in silent {
            self.dedicated_lost(u, &ConnectionEnd::LentTimeout);
        }
        self.ops.end_joins_of(me, &mut base!(self));
        self.clients.fail_errand(me, seq, failure, &mut self.nodes, &mut self.core);
    }

    /// CLIENT UNBLOCK: the node that the client waits at is told, and answers it. `false`: the
    /// client is not blocked.
    pub(super) fn unblock(&mut self, index: usize, error: bool) -> bool {
        let Some(client) = self.clients.slab.get(index) else { return false };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_ref() else { return false };
        let Some(errand) = lent.errand.as_ref() else { return false };
        if errand.kind == Kind::Emulated {
            return self.unblock_emulation(me, error);
        }
        let waits =
            errand.kind == Kind::Block || (errand.kind == Kind::Fleet && !lent.fleet.is_empty());
        if !waits {
            return false;
        }
        let (seq, mut at) = (errand.seq, lent.fleet.clone());
        at.extend(errand.upstream);
        let reachable = |u: &usize| {
            let up = self.nodes.upstreams.get(*u)?;
            // What has not left yet is taken back rather than ended at the node.
            let there = up.state == State::Ready && up.queue.unsent() == 0;
            let id = up.dedicated.filter(|d| d.id != 0 && there)?.id;
            Some((up.node, id))
        };
        let told: Vec<(u16, i64)> = at.iter().filter_map(reachable).collect();
        if told.is_empty() {
            // It waits for its node to come back.
            at.into_iter()
                .for_each(|u| self.clients.close_dedicated(u, &mut self.nodes, &mut self.core));
            if self.clients.errand(index).is_none_or(|e| e.seq != seq) {
                return true; // its parts have made their reply
            }
            let dest = Dest::client(me, seq);
            let reads = self.clients.errand_only_reads(index, &self.core);
            let unblocked = Failure::UnblockedByClient;
            let lost = self.clients.errand(index).is_some_and(|errand| {
                errand.failure(reads, unblocked.clone()).is_outcome_unknown()
            });
            // Null would say that it has taken nothing.
            if error || lost {
                self.clients.fail_errand(me, seq, unblocked, &mut self.nodes, &mut self.core);
            } else {
                self.clients.end_errand(me, seq, &mut self.core);
                let null: &[u8] = if protocol == Protocol::Resp3 { b"_\r\n" } else { b"*-1\r\n" };
                self.clients.deliver_own(dest, null, &mut self.core);
            }
            return true;
        }
        for (node, id) in told {
            let how: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
            let mut frame = Vec::new();
            write::request(&mut frame, &[b"CLIENT", b"UNBLOCK", id.to_string().as_bytes(), how]);
            let u = base!(self).upstream_as(OWN, node, protocol, index);
            self.nodes.discard(u, &frame, &mut self.core);
        }
        true
    }

    /// The client is closing: nothing of what it was lent waits for it any longer.
    pub(super) fn release_lent(&mut self, index: usize) {
        self.clients.unwatch(index, &mut self.nodes, &mut self.core);
        if let Some(client) = self.clients.slab.get(index).filter(|c| c.lent.is_some()) {
            let me = ClientId::new(index, client.generation);
            self.ops.end_joins_of(me, &mut base!(self));
            if self.clients.errand(index).is_some_and(|errand| errand.kind == Kind::Emulated) {
                self.leave_emulation(me);
            }
        }
        let Some(lent) = self.clients.slab.get_mut(index).and_then(|c| c.lent.take()) else {
            return;
        };
        if lent.errand.as_ref().is_some_and(|e| e.is_blocking()) {
            self.core.shared.blocked.fetch_sub(1, Relaxed);
        }
        if lent.monitor {
            self.core.shared.monitors.fetch_sub(1, Relaxed);
        }
        // A command under way ends with its connection, at the node as well.
        let all = lent.errand.and_then(|e| e.upstream).into_iter().chain(lent.fleet);
        for u in all.chain(lent.heard) {
            self.clients.close_dedicated(u, &mut self.nodes, &mut self.core);
        }
    }
}
