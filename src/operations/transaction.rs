//! Transactions of one slot on their way to nodes.

use crate::base::Base;
use crate::buf::CHUNK;
use crate::client::{EXEC, SessionModes};
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::metrics::{LimitHit, TransactionKind};
use crate::operations::Operations;
use crate::resp::Args;
use crate::route::{PendingFlags, Transaction};

/// Transactions, and the watches that they depend on.
pub(crate) struct Transactions<'a> {
    pub(super) ops: &'a mut Operations,
}

impl Operations {
    /// The methods about transactions.
    #[inline]
    pub(crate) fn transactions(&mut self) -> Transactions<'_> {
        Transactions { ops: self }
    }
}

impl Transactions<'_> {
    /// One of these commands, outside a transaction.
    pub(crate) fn command(
        &mut self,
        index: usize,
        command: CommandId,
        which: Transaction,
        frame: &[u8],
        args: &Args,
        base: &mut Base<'_>,
    ) -> Flow {
        match which {
            Transaction::Multi => {
                let spare = base.core.spare.multis.pop().unwrap_or_default();
                let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
                let watched = client.lent.as_ref().and_then(|l| l.watches.first());
                let mut multi = spare;
                // A cluster's transaction is one slot's, and the watched keys are part of it.
                multi.first = watched.map(|w| (w.slot, w.key.clone()));
                client.multi = Some(multi);
                client.session.modes.insert(SessionModes::MULTI);
                base.clients.answer_own(index, command, b"+OK\r\n", base.core);
            }
            Transaction::Exec => {
                base.clients.answer_own_error(index, command, &Failure::ExecWithoutMulti, base.core)
            }
            Transaction::Discard => {
                base.clients.answer_own_error(
                    index,
                    command,
                    &Failure::DiscardWithoutMulti,
                    base.core,
                );
            }
            Transaction::Watch => return self.watch(index, command, frame, args, base),
            Transaction::Unwatch => {
                base.clients.watches().end(index, base.nodes, base.core);
                base.clients.answer_own(index, command, b"+OK\r\n", base.core);
            }
        }
        Flow::Next
    }

    /// The usual transaction: one batch on the shared connection.
    pub(crate) fn exec_batch(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        base: &mut Base<'_>,
    ) -> Flow {
        let node = match slot {
            keyless if keyless.is_keyless() => base.nodes.any_primary(index, keyless),
            slot => base.nodes.route(slot),
        };
        let admitted = match node {
            Some(node) => match self.ops.admit(index, command, slot, node, base) {
                Some(admitted) => Some(admitted),
                None => return Flow::Pause,
            },
            None => None,
        };
        let Some(mut multi) = base.clients.transactions().take(index) else { return Flow::Next };
        base.core.stats.transactions[TransactionKind::OneSlot as usize] += 1;
        multi.frames.extend_from_slice(EXEC);
        let before = multi.queue.len() as u32 + 1;
        let flags = multi.flags();
        match admitted {
            Some((mut pending, conn)) => {
                pending.before = before;
                base.core.mark_batch(&mut pending, flags);
                if let Some(client) = base.clients.slab.get_mut(index) {
                    client.session.cork();
                }
                if multi.by_sha {
                    base.scripts.scripts_before_batch(
                        conn,
                        &mut pending,
                        &multi.frames,
                        base.nodes,
                        base.core,
                    );
                }
                if multi.frames.len() < CHUNK / 2 {
                    base.nodes.send(conn, pending, &multi.frames, base.core);
                } else {
                    base.nodes.send_owned(
                        conn,
                        pending,
                        std::mem::take(&mut multi.frames),
                        base.core,
                    );
                }
            }
            None if slot.is_keyless() && base.nodes.topology.snapshot.generation == 0 => {
                base.clients.answer_own_error(
                    index,
                    command,
                    &base.nodes.topology.no_cluster_failure(base.core),
                    base.core,
                );
            }
            None if !base.nodes.placement.slots.holds.fits(
                slot,
                multi.frames.len(),
                base.core.settings.held,
            ) =>
            {
                base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                base.clients.answer_own_error(
                    index,
                    command,
                    &Failure::HoldsFull { slot },
                    base.core,
                );
            }
            None => {
                let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
                let (protocol, generation) = (client.session.protocol, client.generation);
                let seq = client.expect(&mut base.core.spare.replies);
                let dest = Dest::Client { index: index as u32, generation, seq };
                let mut pending = self.ops.pending(
                    dest,
                    command,
                    slot,
                    protocol,
                    base.access,
                    base.clients,
                    base.core,
                );
                pending.before = before;
                pending.flags.set(PendingFlags::SCRIPT, multi.by_sha);
                base.core.mark_batch(&mut pending, flags);
                let lane = ClientId::new(index, generation);
                self.ops.hold_pending(
                    pending,
                    lane,
                    std::mem::take(&mut multi.frames),
                    base.nodes,
                    base.core,
                );
            }
        }
        base.core.spare.keep_multi(multi);
        Flow::Next
    }

    /// The transaction on the one connection that watches.
    pub(crate) fn exec_watched(
        &mut self,
        index: usize,
        command: CommandId,
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(mut multi) = base.clients.transactions().take(index) else { return Flow::Next };
        base.core.stats.transactions[TransactionKind::OneSlot as usize] += 1;
        multi.frames.extend_from_slice(EXEC);
        let before = multi.queue.len() as u32 + 1;
        let frame = std::mem::take(&mut multi.frames);
        let flags = multi.flags() & PendingFlags::PUBLISHES;
        self.exec_where_watched(index, command, frame, before, flags, base);
        Flow::Next
    }
}
