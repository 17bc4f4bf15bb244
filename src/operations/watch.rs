//! WATCH, and the transactions of those who watch.
//!
//! Each slot's watched keys have a dedicated connection until EXEC, DISCARD or UNWATCH. If it is
//! lost a change may have been missed: EXEC then answers null, as if there had been one.

use crate::base::Base;
use crate::base::lanes::ASKING;
use crate::client::Watch;
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::{CommandId, key_positions};
use crate::dest::{ClientId, ConnId, Dest};
use crate::errors::{CrossSlotRemedy, Failure};
use crate::hash::fingerprint;
use crate::operations::transaction::Transactions;
use crate::ops::{Errand, ErrandKind};
use crate::resp::{Args, Protocol, write};
use crate::route::{Merge, PendingFlags};

const CLIENT_INFO: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n";

impl Transactions<'_> {
    pub(crate) fn watch(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.slab.get(index).is_some_and(|c| !c.is_drained()) {
            return base.clients.pause_until_replied(index, base.core);
        }
        let mut keys = Vec::new();
        let spec = base.core.router.table().get(command);
        // Its arity was looked at: it has keys.
        let _ = key_positions(spec, args, &mut keys);
        let view = base.clients.view_of(index);
        let mut slots: Vec<(Slot, &[u8])> = keys
            .iter()
            .filter_map(|&at| args.get(at as usize))
            .map(|key| (base.core.router.view(view).slot_of(key), key))
            .collect();
        slots.sort_by_key(|s| s.0);
        let watched = base.clients.slab.get(index).and_then(|c| c.lent.as_ref());
        let watched = watched.and_then(|l| l.watches.first());
        let before = watched.map(|w| (w.slot, &*w.key));
        if !base.core.settings.split_transactions
            && let Some(&first) = before.as_ref().or(slots.first())
            && let Some(&other) = slots.iter().find(|s| s.0 != first.0)
        {
            let apart = ((first.1, first.0), (other.1, other.0));
            let failure = base.core.keys_apart(view, apart, CrossSlotRemedy::Transaction);
            base.clients.answer_own_error(index, command, &failure, base.core);
            return Flow::Next;
        }
        match slots.as_slice() {
            [first, .., last] if first.0 != last.0 => {
                self.watch_slots(index, command, &slots, base);
            }
            [first, ..] => {
                self.ops.errands().start(
                    index,
                    ErrandKind::Watch,
                    command,
                    first.0,
                    frame.to_vec(),
                    base,
                );
            }
            [] => {}
        }
        Flow::Next
    }

    /// WATCH over several slots: one connection each; one reply for all.
    pub(crate) fn watch_slots(
        &mut self,
        index: usize,
        command: CommandId,
        keys: &[(Slot, &[u8])],
        base: &mut Base<'_>,
    ) {
        let Some(g) = self.ops.fleets().start(
            index,
            command,
            Slot::NONE,
            Merge::AllSucceeded,
            None,
            base.clients,
            base.core,
        ) else {
            return;
        };
        let groups: Vec<_> = keys.chunk_by(|a, b| a.0 == b.0).collect();
        if let Some(gather) = self.ops.gatherings.merged(g) {
            groups.iter().for_each(|_| gather.expect());
        }
        for group in groups {
            let Some(&(slot, key)) = group.first() else { continue };
            let mut args: Vec<&[u8]> = vec![b"WATCH"];
            args.extend(group.iter().map(|g| g.1));
            let mut frame = Vec::new();
            write::request(&mut frame, &args);
            let Some(client) = base.clients.slab.get(index) else { return };
            let of_slot = |l: &crate::client::Lent| {
                l.watches.iter().find(|w| w.slot == slot).and_then(|w| w.upstream)
            };
            let present = client.lent.as_ref().and_then(|l| of_slot(l));
            let owner = base.nodes.placement.slots.owner(slot);
            let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
            let lent = match (present, owner) {
                (Some(conn), _) => Ok(conn),
                (None, Some(node)) => base
                    .clients
                    .lending()
                    .lend(node, protocol, me, base.nodes, base.core)
                    .map_err(Failure::from),
                (None, None) => Err(Failure::SlotWithoutPrimary { slot }),
            };
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let pending = self.ops.pending(
                dest,
                command,
                slot,
                protocol,
                base.access,
                base.clients,
                base.core,
            );
            match lent {
                Ok(conn) => {
                    let hashes = group.iter().map(|(_, key)| fingerprint(key));
                    base.clients.lending().lent(index, |lent| {
                        match lent.watches.iter_mut().find(|w| w.upstream == Some(conn)) {
                            Some(watch) => watch.keys.extend(hashes),
                            None => lent.watches.push(Watch {
                                slot,
                                key: key.into(),
                                keys: hashes.collect(),
                                asking: false,
                                upstream: Some(conn),
                            }),
                        }
                    });
                    base.nodes.send_owned(conn, pending, frame, base.core);
                }
                Err(failure) => base.core.fail(&pending, "slotway", &failure),
            }
        }
    }

    /// EXEC on the connection that watches.
    pub(crate) fn exec_where_watched(
        &mut self,
        index: usize,
        command: CommandId,
        frame: Vec<u8>,
        before: u32,
        flags: PendingFlags,
        base: &mut Base<'_>,
    ) {
        let lent = base.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut());
        let watch = lent.and_then(|l| l.watches.pop());
        let asking = watch.as_ref().is_some_and(|w| w.asking);
        let Some((slot, Some(conn))) = watch.map(|w| (w.slot, w.upstream)) else { return };
        let mut errand = Errand::new(ErrandKind::Exec, command, slot, Vec::new(), base.core.now);
        errand.upstream = Some(conn);
        let Some(dest) = base.clients.errands().begin(index, errand, Some(0), base.core) else {
            return;
        };
        let protocol = base.clients.slab.get(index).map_or(Protocol::Resp2, |c| c.session.protocol);
        let mut pending =
            self.ops.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        pending.before = before;
        base.core.mark_batch(&mut pending, flags);
        base.clients.note_write(index, base.nodes.upstreams.get(conn).map(|up| up.node));
        base.scripts.scripts_before_batch(conn, &mut pending, &frame, base.nodes, base.core);
        if asking {
            // It lasts from MULTI to EXEC.
            base.nodes.discard(conn, ASKING, base.core);
        }
        base.nodes.send_owned(conn, pending, frame, base.core);
    }

    /// Before a transaction over several slots: every connection that watches is asked whether a
    /// key was changed. What changes after that is seen by its own slot's EXEC alone.
    pub(crate) fn check_watches(
        &mut self,
        index: usize,
        command: CommandId,
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(lent) = client.lent.as_mut() else { return Flow::Next };
        let all: Vec<ConnId> = lent.watches.iter().filter_map(|w| w.upstream).collect();
        let protocol = client.session.protocol;
        let kind = ErrandKind::Check { left: all.len(), changed: false };
        let errand = Errand::new(kind, command, Slot::NONE, Vec::new(), base.core.now);
        let Some(dest) = base.clients.errands().begin(index, errand, Some(0), base.core) else {
            return Flow::Stop;
        };
        for conn in all {
            let pending = self.ops.pending(
                dest,
                command,
                Slot::NONE,
                protocol,
                base.access,
                base.clients,
                base.core,
            );
            base.nodes.send(conn, pending, CLIENT_INFO, base.core);
        }
        Flow::Next
    }
}
