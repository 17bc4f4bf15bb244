//! Batches of a transaction over several slots on their way to nodes.

use crate::base::Base;
use crate::client::EXEC;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::operations::transaction::Transactions;
use crate::route::PendingFlags;

/// A part of a transaction: what one node gets.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) slot: Slot,
    pub(crate) frame: Vec<u8>,
    /// Where its replies belong.
    pub(crate) places: Vec<usize>,
    pub(crate) read_only: bool,
    /// It has an EVALSHA, or may have.
    pub(crate) by_sha: bool,
    /// It has a PUBLISH, or may have.
    pub(crate) publishes: bool,
}

impl Transactions<'_> {
    pub(crate) fn send_batch(
        &mut self,
        index: usize,
        command: CommandId,
        g: usize,
        group: u32,
        mut batch: Batch,
        base: &mut Base<'_>,
    ) {
        batch.frame.extend_from_slice(EXEC);
        let Some(client) = base.clients.slab.get(index) else { return };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let watching = client
            .lent
            .as_ref()
            .and_then(|l| l.watches.iter().find(|w| w.slot == batch.slot).and_then(|w| w.upstream));
        let dest = Dest::Part { gather: g as u32, first: group };
        let mut pending = self.ops.pending(
            dest,
            command,
            batch.slot,
            protocol,
            base.access,
            base.clients,
            base.core,
        );
        pending.before = batch.places.len() as u32 + 1;
        if batch.read_only {
            pending.flags.insert(PendingFlags::READ_ONLY);
        }
        if batch.by_sha {
            pending.flags.insert(PendingFlags::SCRIPT);
        }
        if batch.publishes {
            base.core.mark_batch(&mut pending, PendingFlags::PUBLISHES);
        }
        if let Some(conn) = watching {
            base.scripts.script_before_again(
                conn,
                &mut pending,
                &batch.frame,
                base.nodes,
                base.core,
            );
            base.clients.note_write(index, base.nodes.upstreams.get(conn).map(|up| up.node));
            return base.nodes.send_owned(conn, pending, batch.frame, base.core);
        }
        let node = match batch.slot {
            keyless if keyless.is_keyless() => base.nodes.any_primary(index, keyless),
            slot => base.nodes.route(slot),
        };
        match node {
            Some(node) => {
                base.clients.note_write(index, Some(node));
                let conn = base.upstream_for(node, protocol, index);
                base.scripts.script_before_again(
                    conn,
                    &mut pending,
                    &batch.frame,
                    base.nodes,
                    base.core,
                );
                base.nodes.send_owned(conn, pending, batch.frame, base.core);
            }
            None if batch.slot.is_keyless() && base.nodes.topology.snapshot.generation == 0 => {
                base.core.fail(&pending, "", &base.nodes.topology.no_cluster_failure(base.core));
            }
            None if !base.nodes.placement.slots.holds.fits(
                batch.slot,
                batch.frame.len(),
                base.core.settings.held,
            ) =>
            {
                base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                base.core.fail(&pending, "", &Failure::HoldsFull { slot: batch.slot });
            }
            None => self.ops.hold_pending(
                pending,
                ClientId::new(index, generation),
                batch.frame,
                base.nodes,
                base.core,
            ),
        }
    }
}
