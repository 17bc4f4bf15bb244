//! Lost connections and deadlines of errands: commands that occupy their client, mostly blocking
//! ones.
//!
//! An errand starts once all earlier commands of its client are answered, and nothing more is read
//! from the client until it is answered itself: so commands on dedicated connections keep their
//! order with those on shared ones. A blocking command whose node is lost or demoted, or whose slot
//! moves, is sent again with the rest of its timeout.

use crate::base::{Base, base, dedicated};
use crate::clients::errands::FARTHEST_TIMER;
use crate::common::clock::{Job, Timer};
use crate::delivery::Delivery;
use crate::dest::{ClientId, ConnId, Dest};
use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
use crate::metrics::RetryReason;
use crate::ops::ErrandKind;
use crate::placement::{AfterLoss, Redirection};
use crate::resp::Protocol;
use crate::upstream::{ConnectionEnd, Pending, Upstream};

impl Delivery<'_> {
    /// Handles the loss of an errand's connection as the retry policy decides. `sent`: a node may
    /// have executed the command, and it does not only read.
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
            self.engine.clients.slab.get(index).is_some_and(|c| c.generation == client.generation);
        let reads = self.engine.clients.errands().only_reads(index, &self.engine.core);
        let Some(errand) =
            self.engine.clients.errands().of(index).filter(|e| current && e.seq == seq)
        else {
            return;
        };
        let (kind, after) = (errand.kind, errand.lost(sent, reads, failure));
        let tries = errand.tries;
        match (kind, after) {
            // Their parts end one by one.
            (ErrandKind::Fleet | ErrandKind::Join | ErrandKind::Emulated, _) => {}
            (_, AfterLoss::Again) => {
                let delay = self.engine.core.retry_pause(tries);
                self.engine.core.stats.count_retry(RetryReason::Lost);
                self.engine.core.errand_later(client, seq, delay);
            }
            (ErrandKind::Check { left, .. }, _) => {
                self.checked(client, seq, left.saturating_sub(1), true);
            }
            (_, AfterLoss::Aborted) => {
                let null: &[u8] = match dedicated::protocol_of(pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                self.engine.clients.errands().end(client, seq, &mut self.engine.core);
                let dest = Dest::client(client, seq);
                self.engine.clients.deliveries().own(dest, null, &mut self.engine.core);
            }
            (_, AfterLoss::OutcomeUnknown) => {
                self.engine.core.stats.outcome_unknown += 1;
                self.engine.clients.errands().fail(
                    client,
                    seq,
                    failure.clone(),
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
            }
            (_, AfterLoss::NotExecuted | AfterLoss::Closed | AfterLoss::Dropped) => {
                self.engine.clients.errands().fail(
                    client,
                    seq,
                    failure.clone(),
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
            }
        }
    }

    /// Fails an errand whose deadline has passed. If the deadline is still to come, the timer is
    /// set again.
    pub(crate) fn errand_ends(&mut self, me: ClientId, seq: u32) {
        let Some(client) = self.engine.clients.slab.get(me.at()) else { return };
        let Some(lent) = client.lent.as_ref() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        if client.generation != me.generation || errand.seq != seq {
            return;
        }
        let Some(until) = errand.until else { return };
        if self.engine.core.now < until {
            let due = until.min(self.engine.core.now + FARTHEST_TIMER);
            let job = Job::ErrandEnd(me, seq);
            return self.engine.core.clock.timers.push(Timer { due, job });
        }
        self.engine.core.stats.deadline_exceeded += 1;
        let sent = errand.upstream.and_then(|conn| self.engine.nodes.upstreams.get(conn));
        let node = sent.map(|up| up.node).or(self.engine.nodes.placement.slots.owner(errand.slot));
        let node = node.and_then(|n| self.engine.nodes.list.get(n.at()));
        let node = node.map_or_else(|| "none".to_owned(), |n| n.addr.to_string());
        let waited = self.engine.core.now.saturating_sub(errand.started) as f64 / 1e6;
        let outcome = errand.overdue(self.engine.core.only_reads(errand), sent.is_some());
        self.engine.core.stats.outcome_unknown += u64::from(outcome == Unanswered::Unknown);
        let cause = (errand.refused == Some(Redirection::TryAgain)).then(|| {
            self.engine.nodes.half_moved_text(errand.slot, errand.command, &self.engine.core)
        });
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
            slot: ForSlot(errand.slot.known()),
            node: node.into(),
            tries: u32::from(errand.tries) + 1,
            outcome,
            migration: cause.into(),
            last: Last(errand.last.clone()),
        };
        if let Some(conn) = errand.upstream {
            self.engine.clients.lending().close(
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        // Connections on which a part of it is unanswered.
        let part = |p: &Pending| matches!(p.dest, Dest::Part { .. });
        let has_part = |up: &Upstream| {
            up.dedicated.is_some_and(|d| d.client == Some(me)) && up.pending.iter().any(part)
        };
        let silent: Vec<ConnId> = self
            .engine
            .nodes
            .upstreams
            .iter()
            .filter(|(_, up)| has_part(up))
            .map(|(conn, _)| conn)
            .collect();
        for conn in silent {
            self.dedicated_lost(conn, &ConnectionEnd::LentTimeout);
        }
        self.engine.ops.joining().end_all_of(me, &mut base!(self.engine));
        self.engine.clients.errands().fail(
            me,
            seq,
            failure,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
    }
}
