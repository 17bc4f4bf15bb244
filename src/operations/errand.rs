//! Commands that wait at a node of their own: sent, sent again, ended.

use crate::base::Base;
use crate::base::lanes::ASKING;
use crate::clients::Flow;
use crate::clients::lending::LendError;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::requests;
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::errors::Failure;
use crate::metrics::RetryReason;
use crate::nodes::retries::Want;
use crate::operations::Operations;
use crate::ops::{AfterRefusedErrand, Errand, ErrandKind};
use crate::placement::{GateClass, Redirection, Refusal, Retry, Scope};
use crate::resp::ArgRange;
use crate::resp::reply::error_text;
use crate::route::{wait_time, with_time_left};
use crate::upstream::ConnectionEnd;

/// Commands that wait at a node of their own.
pub(crate) struct Errands<'a> {
    ops: &'a mut Operations,
}

impl Operations {
    /// The methods about commands that wait at a node of their own.
    #[inline]
    pub(crate) fn errands(&mut self) -> Errands<'_> {
        Errands { ops: self }
    }
}

impl Errands<'_> {
    /// A blocking command.
    pub(crate) fn block(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Option<Slot>,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.slab.get(index).is_some_and(|c| !c.is_drained()) {
            return base.clients.pause_until_replied(index, base.core);
        }
        let keyless = || base.core.router.view(base.clients.view_of(index)).keyless();
        let slot = slot.unwrap_or_else(keyless);
        self.start(index, ErrandKind::Block, command, slot, frame.to_vec(), base);
        Flow::Next
    }

    /// Begins an errand and sends its command.
    pub(crate) fn start(
        &mut self,
        index: usize,
        kind: ErrandKind,
        command: CommandId,
        slot: Slot,
        frame: Vec<u8>,
        base: &mut Base<'_>,
    ) {
        let mut ranges: Vec<ArgRange> = Vec::new();
        let args = requests::scan(&frame, &base.core.settings.accepted, &mut ranges);
        // Of a command that does not say that it blocks nothing is a waiting time.
        let says = base.core.router.table().get(command).may_block();
        let time = if kind == ErrandKind::Block && says { wait_time(&args) } else { None };
        // Its own time and the deadline of every command; for ever is for ever.
        let own = match time {
            Some(time) => time.micros,
            None => Some(0),
        };
        let mut errand = Errand::new(kind, command, slot, frame, base.core.now);
        errand.time = time;
        errand.repeatable = base.core.router.is_repeatable(command);
        let Some(Dest::Client { generation, .. }) =
            base.clients.errands().begin(index, errand, own, base.core)
        else {
            return;
        };
        if !base.clients.errands().waits_at_gate(
            ClientId::new(index, generation),
            slot,
            base.nodes,
            base.core,
        ) {
            self.send(index, None, base);
        }
    }

    /// Sends the errand's command to its slot's primary, or to `ask` with ASKING.
    pub(crate) fn send(&mut self, index: usize, ask: Option<NodeId>, base: &mut Base<'_>) {
        let Some(client) = base.clients.slab.get_mut(index) else { return };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_mut() else { return };
        let watching = lent.watches.iter().find(|w| w.slot == errand.slot).map(|w| w.upstream);
        let me = ClientId::new(index, generation);
        let (seq, slot, command) = (errand.seq, errand.slot, errand.command);
        let owner = base.nodes.owner_for(slot, me);
        let Some(node) = ask.or(owner) else {
            errand.last = Some(match slot {
                slot if slot.is_keyless() => Failure::NoPrimary.to_string(),
                slot => Failure::SlotWithoutPrimary { slot }.to_string(),
            });
            base.core.link.want_topology(None, Some(base.core.upstream_of(slot)));
            let pause = base.clients.errands().no_primary_pause(index, base.core);
            return base.core.errand_later(me, seq, pause);
        };
        // WATCH of more keys of a slot that is watched already, on a connection that was lost:
        // what was watched there may have changed, and EXEC will say so.
        if errand.kind == ErrandKind::Watch && watching == Some(None) {
            let dest = Dest::client(me, seq);
            base.clients.errands().end(me, seq, base.core);
            return base.clients.deliveries().own(dest, b"+OK\r\n", base.core);
        }
        let mut frame = std::mem::take(&mut base.core.spare.line);
        frame.clear();
        match errand.time_left(base.core.now) {
            Some((time, left)) => {
                let mut ranges = Vec::new();
                let args = requests::scan(&errand.frame, &base.core.settings.accepted, &mut ranges);
                frame.extend_from_slice(&with_time_left(&args, time, left));
            }
            _ => frame.extend_from_slice(&errand.frame),
        }
        let (started, tries) = (errand.started, errand.tries);
        let lent = match watching.flatten() {
            Some(conn) => Ok(conn),
            None => base.clients.lending().lend(node, protocol, me, base.nodes, base.core),
        };
        base.clients.note_write(index, Some(node));
        match lent {
            Ok(conn) => {
                if let Some(errand) = base.clients.errands().of(index) {
                    errand.upstream = Some(conn);
                    errand.asking = ask.is_some();
                }
                if ask.is_some() {
                    base.nodes.discard(conn, ASKING, base.core);
                }
                let dest = Dest::client(me, seq);
                let mut pending = self.ops.pending(
                    dest,
                    command,
                    slot,
                    protocol,
                    base.access,
                    base.clients,
                    base.core,
                );
                (pending.started, pending.tries) = (started, tries);
                base.nodes.send(conn, pending, &frame, base.core);
            }
            Err(LendError::NotNow) => {
                let pause = base.clients.errands().no_primary_pause(index, base.core);
                base.core.errand_later(me, seq, pause);
            }
            Err(LendError::Limit(failure)) => {
                base.clients.errands().fail(me, seq, failure, base.nodes, base.core)
            }
        }
        if frame.capacity() <= crate::buf::CHUNK {
            base.core.spare.line = frame;
        }
    }

    /// Its pause is over.
    pub(crate) fn again(&mut self, me: ClientId, seq: u32, base: &mut Base<'_>) {
        let current = |c: &&mut crate::client::Client| c.generation == me.generation && !c.gone;
        let Some(client) = base.clients.slab.get_mut(me.at()).filter(current) else { return };
        let errand = client.lent.as_ref().and_then(|l| l.errand.as_ref());
        let waits =
            |e: &&Errand| e.seq == seq && (e.kind == ErrandKind::Join || e.upstream.is_none());
        let Some(errand) = errand.filter(waits) else { return };
        let (kind, slot) = (errand.kind, errand.slot);
        if kind != ErrandKind::Join {
            if let Some(failure) = base.nodes.without_primary(slot, GateClass::Write, base.core) {
                base.core.stats.no_primary += 1;
                return base.clients.errands().fail(me, seq, failure, base.nodes, base.core);
            }
            if base.clients.errands().waits_at_gate(me, slot, base.nodes, base.core) {
                return;
            }
        }
        if !base.nodes.placement.may_retry(Want::Errand(me, seq), base.core) {
            return;
        }
        match kind {
            ErrandKind::Join => self.ops.joining().send(me.at(), base),
            _ => self.send(me.at(), None, base),
        }
    }

    /// The errand's command was refused, so it was not executed: again, there or elsewhere, as
    /// `when` and `scope` say.
    pub(crate) fn refused(
        &mut self,
        conn: ConnId,
        client: ClientId,
        refusal: Refusal,
        (when, scope): (Retry, Scope),
        said: &[u8],
        base: &mut Base<'_>,
    ) -> Result<(), ConnectionEnd> {
        let Some(&pending) = base.nodes.upstreams.get(conn).and_then(|up| up.pending.front())
        else {
            return Ok(());
        };
        base.nodes.pop_pending(conn, base.core);
        base.core.stats.redirections[refusal.kind() as usize] += 1;
        base.core.stats.count_retry(RetryReason::Refused(refusal.kind()));
        if !base.clients.watches().has(client, conn) {
            base.clients.lending().give_back(conn, base.nodes, base.core);
        }
        let refuser = base.nodes.upstreams.get(conn).map_or(NodeId::NONE, |up| up.node);
        let named = base.nodes.named_by(&refusal, refuser);
        let kind = refusal.kind();
        let of = Some(base.core.upstream_of(pending.slot));
        base.nodes.placement.note_migration(pending.slot, &refusal);
        match refusal {
            Refusal::Moved(slot, addr) => {
                if let Some(node) = named {
                    base.nodes.placement.slots.moved(slot, node);
                }
                base.core.link.want_topology(Some(addr), of);
            }
            Refusal::Ask(..) => {}
            Refusal::Later(_) => base.core.link.want_topology(None, of),
        }
        let index = client.at();
        let slot = pending.slot;
        // What was watched at a node that refuses the slot now may have changed elsewhere.
        let mut lost_watch = None;
        base.clients.lending().lent_of(client, |lent| {
            let watch = lent.watches.iter_mut().find(|w| w.slot == slot);
            lost_watch = watch.and_then(|w| w.upstream.take());
        });
        if let Some(watching) = lost_watch {
            base.clients.lending().close(watching, base.nodes, base.core);
        }
        let Some(errand) = base.clients.errands().of(index) else { return Ok(()) };
        let said = String::from_utf8_lossy(error_text(said).unwrap_or_default()).into_owned();
        let after = errand.refused(kind, said.clone(), when, scope);
        let (seq, tries) = (errand.seq, errand.tries);
        if kind == Redirection::TryAgain {
            let frame = errand.frame.clone();
            self.ops.probe_migration(slot, refuser, &frame, base);
        }
        match after {
            AfterRefusedErrand::SendToNamed => self.send(index, named, base),
            AfterRefusedErrand::SendToOwner => self.send(index, None, base),
            AfterRefusedErrand::SendLater => {
                let pause = base.core.retry_pause(tries);
                base.core.errand_later(client, seq, pause);
            }
            AfterRefusedErrand::WaitAtGate { wide } => {
                self.ops.hold_slot(slot, base.nodes, base.core);
                base.nodes.placement.slots.refused(slot, said);
                base.nodes.placement.close_gate(slot, GateClass::Write, refuser, wide, base.core);
                base.clients.errands().waits_at_gate(client, slot, base.nodes, base.core);
            }
        }
        Ok(())
    }
}
