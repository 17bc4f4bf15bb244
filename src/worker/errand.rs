//! Errands: the commands that occupy their client, foremost the blocking ones.
//!
//! An errand begins when all earlier replies are there, and nothing more is read from the client
//! until it is answered: so what goes over a dedicated connection keeps its order with what goes
//! over the shared ones. A blocking command whose node is lost or demoted, or whose slot moves, is
//! sent again for the time that is left.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::{Base, base, dedicated};
use crate::clients::errands::FARTHEST_TIMER;
use crate::cluster::NO_SLOT;
use crate::common::clock::{Job, Timer};
use crate::dest::{ClientId, Dest};
use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
use crate::metrics::RetryReason;
use crate::ops::ErrandKind;
use crate::placement::{AfterLoss, Redirection};
use crate::resp::{Protocol, write};
use crate::upstream::{ConnectionEnd, ConnectionState, Pending, Upstream};
use crate::users::OWN_REALM;
use crate::worker::Worker;

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
        let reads = self.clients.errands().only_reads(index, &self.core);
        let Some(errand) = self.clients.errands().of(index).filter(|e| current && e.seq == seq)
        else {
            return;
        };
        let (kind, after) = (errand.kind, errand.lost(sent, reads, failure));
        let tries = errand.tries;
        match (kind, after) {
            // Their parts have their own ends.
            (ErrandKind::Fleet | ErrandKind::Join | ErrandKind::Emulated, _) => {}
            (_, AfterLoss::Again) => {
                let delay = self.core.retry_pause(tries);
                self.core.stats.count_retry(RetryReason::Lost);
                self.core.errand_later(client, seq, delay);
            }
            (ErrandKind::Check { left, .. }, _) => {
                self.checked(client, seq, left.saturating_sub(1), true);
            }
            (_, AfterLoss::Aborted) => {
                let null: &[u8] = match dedicated::protocol_of(pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                self.clients.errands().end(client, seq, &mut self.core);
                let dest = Dest::client(client, seq);
                self.clients.deliveries().own(dest, null, &mut self.core);
            }
            (_, AfterLoss::OutcomeUnknown) => {
                self.core.stats.outcome_unknown += 1;
                self.clients.errands().fail(
                    client,
                    seq,
                    failure.clone(),
                    &mut self.nodes,
                    &mut self.core,
                );
            }
            (_, AfterLoss::NotExecuted | AfterLoss::Closed | AfterLoss::Dropped) => {
                self.clients.errands().fail(
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
            self.clients.lending().close(u, &mut self.nodes, &mut self.core);
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
        self.ops.joining().end_all_of(me, &mut base!(self));
        self.clients.errands().fail(me, seq, failure, &mut self.nodes, &mut self.core);
    }

    /// CLIENT UNBLOCK: the node that the client waits at is told, and answers it. `false`: the
    /// client is not blocked.
    pub(super) fn unblock(&mut self, index: usize, error: bool) -> bool {
        let Some(client) = self.clients.slab.get(index) else { return false };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_ref() else { return false };
        let Some(errand) = lent.errand.as_ref() else { return false };
        if errand.kind == ErrandKind::Emulated {
            return self.unblock_emulation(me, error);
        }
        let waits = errand.kind == ErrandKind::Block
            || (errand.kind == ErrandKind::Fleet && !lent.fleet.is_empty());
        if !waits {
            return false;
        }
        let (seq, mut at) = (errand.seq, lent.fleet.clone());
        at.extend(errand.upstream);
        let reachable = |u: &usize| {
            let up = self.nodes.upstreams.get(*u)?;
            // What has not left yet is taken back rather than ended at the node.
            let there = up.state == ConnectionState::Ready && up.queue.unsent() == 0;
            let id = up.dedicated.filter(|d| d.id != 0 && there)?.id;
            Some((up.node, id))
        };
        let told: Vec<(u16, i64)> = at.iter().filter_map(reachable).collect();
        if told.is_empty() {
            // It waits for its node to come back.
            at.into_iter()
                .for_each(|u| self.clients.lending().close(u, &mut self.nodes, &mut self.core));
            if self.clients.errands().of(index).is_none_or(|e| e.seq != seq) {
                return true; // its parts have made their reply
            }
            let dest = Dest::client(me, seq);
            let reads = self.clients.errands().only_reads(index, &self.core);
            let unblocked = Failure::UnblockedByClient;
            let lost = self.clients.errands().of(index).is_some_and(|errand| {
                errand.failure(reads, unblocked.clone()).is_outcome_unknown()
            });
            // Null would say that it has taken nothing.
            if error || lost {
                self.clients.errands().fail(me, seq, unblocked, &mut self.nodes, &mut self.core);
            } else {
                self.clients.errands().end(me, seq, &mut self.core);
                let null: &[u8] = if protocol == Protocol::Resp3 { b"_\r\n" } else { b"*-1\r\n" };
                self.clients.deliveries().own(dest, null, &mut self.core);
            }
            return true;
        }
        for (node, id) in told {
            let how: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
            let mut frame = Vec::new();
            write::request(&mut frame, &[b"CLIENT", b"UNBLOCK", id.to_string().as_bytes(), how]);
            let u = base!(self).upstream_as(OWN_REALM, node, protocol, index);
            self.nodes.discard(u, &frame, &mut self.core);
        }
        true
    }

    /// The client is closing: nothing of what it was lent waits for it any longer.
    pub(super) fn release_lent(&mut self, index: usize) {
        self.clients.watches().end(index, &mut self.nodes, &mut self.core);
        if let Some(client) = self.clients.slab.get(index).filter(|c| c.lent.is_some()) {
            let me = ClientId::new(index, client.generation);
            self.ops.joining().end_all_of(me, &mut base!(self));
            if self
                .clients
                .errands()
                .of(index)
                .is_some_and(|errand| errand.kind == ErrandKind::Emulated)
            {
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
            self.clients.lending().close(u, &mut self.nodes, &mut self.core);
        }
    }
}
