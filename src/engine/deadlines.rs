//! Deadlines of commands (`timeouts.command`) that are held or queued on a shared connection.

use crate::base::{Base, base};
use crate::common::clock::TICK;
use crate::dest::{ConnId, Dest};
use crate::engine::Engine;
use crate::errors::Unanswered;
use crate::placement::{Moment, Phase, Redirection, at_deadline};
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, ConnectionState, Pending};

/// Maximum age of a command whose reply is arriving, as a multiple of `timeouts.command`.
const ARRIVING_FACTOR: u64 = 12;

/// The nodes' error while the keys of a command are at two of them.
const TRYAGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";

impl Engine {
    /// Checks the deadlines of all connections and commands, and sets the tick again while there
    /// are any.
    pub(crate) fn look_at_deadlines(&mut self) {
        let mut busy = !self.nodes.placement.slots.holds.is_empty();
        let all: Vec<ConnId> = self.nodes.upstreams.iter().map(|(conn, _)| conn).collect();
        for conn in all {
            self.nodes.connections().check_timeout(conn, &mut self.core);
            self.check_commands(conn);
            self.nodes.silence().check(conn, &mut self.core);
            let waits = |up: &crate::upstream::Upstream| {
                (!up.pending.is_empty() && up.dedicated.is_none()) || up.state.is_under_way()
            };
            busy |= self.nodes.upstreams.get(conn).is_some_and(waits);
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

    /// Fails the overdue commands of a shared connection, and closes it if its node is silent. The
    /// first command is checked at every tick; all are checked at longer intervals, because only
    /// resent commands can be older than the first.
    fn check_commands(&mut self, conn: ConnId) {
        let Some(timeout) = self.core.settings.command_timeout else { return };
        let before = self.core.now.saturating_sub(timeout);
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
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
        // A node that has been silent for the whole timeout is given up: overdue commands get the
        // deadline's error, the others are treated as on a lost connection. A node that sends
        // anything keeps its connection, unless a single reply takes [`ARRIVING_FACTOR`] times as
        // long.
        let endless = up.pending.front().is_some_and(|p| {
            up.streaming && self.core.now.saturating_sub(p.started) > timeout * ARRIVING_FACTOR
        });
        let silent = up.state == ConnectionState::Ready
            && (endless || up.last_read.max(up.ready_since) <= before);
        self.expire_pending(conn, before, silent);
        if silent {
            self.core.lose(conn, ConnectionEnd::CommandTimeout);
        } else {
            self.nodes.mark_upstream(conn, &mut self.core);
        }
    }

    /// Fails the commands of a connection that were started at or before the time `before`.
    /// `silent`: the connection will be closed, so a reply that is arriving is abandoned.
    fn expire_pending(&mut self, conn: ConnId, before: u64, silent: bool) {
        if silent {
            self.clients.deliveries().abandon_arriving(conn, &mut self.nodes, &mut self.core);
        }
        self.seeing.note_expired(conn, before, &mut self.ops, &mut base!(self));
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let node = up.node;
        let why = up.last_error.as_ref().map(ConnectionEnd::to_string);
        let mut written = if up.state == ConnectionState::Ready { up.queue.sent() } else { 0 };
        let mut expired: Vec<(Pending, bool)> = Vec::new();
        for (i, pending) in up.pending.iter_mut().enumerate() {
            let sent = written > 0;
            written = written.saturating_sub(pending.len as usize);
            if up.streaming && i == 0 {
                continue; // its reply is arriving
            }
            if pending.started <= before && pending.dest != Dest::Discard {
                expired.push((*pending, sent));
                // The entry stays for the node's reply, which is discarded.
                pending.dest = Dest::Discard;
                pending.flags.remove(PendingFlags::SPECIAL);
            }
        }
        // Unsent commands are removed, or their error "not sent" could become wrong. (An unsent
        // ASKING is removed too; the command behind it is redirected again.)
        up.take_unsent(&mut self.core.spare.pool, |p| p.dest == Dest::Discard);
        let name = self.nodes.list.get(node.at()).map(|n| n.addr.to_string());
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

    /// Fails overdue commands that are held.
    fn expire_held(&mut self) {
        let Some(timeout) = self.core.settings.command_timeout else { return };
        if self.nodes.placement.slots.holds.is_empty() || self.core.now < timeout {
            return;
        }
        let before = Moment(self.core.now - timeout);
        for (slot, held) in self.nodes.placement.slots.holds.expire(before) {
            self.core.stats.deadline_exceeded += 1;
            let owner = self.nodes.placement.slots.owner(slot);
            let node = owner.and_then(|n| self.nodes.list.get(n.at()));
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
