//! The steps of a SCAN on their way to nodes.

use crate::base::Base;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::operations::Operations;
use crate::route::Scan;

impl Operations {
    /// Asks the owner of the slot at which `scan` stands.
    pub(crate) fn send_scan(&mut self, g: usize, scan: Scan, base: &mut Base<'_>) {
        let Some(gathering) = self.gatherings.get_mut(g) else { return };
        let (command, lane) = (gathering.command, gathering.lane);
        let Some(gather) = gathering.parts.merged_mut() else { return };
        gather.expect();
        let (index, protocol) = (lane.at(), gather.protocol());
        let frame = gather.scan_request().map(|r| r.frame(scan.cursor));
        let frame = frame.unwrap_or_default();
        let node = base.nodes.route(scan.slot);
        let dest = Dest::Part { gather: g as u32, first: 0 };
        let pending =
            self.pending(dest, command, scan.slot, protocol, base.access, base.clients, base.core);
        match node {
            Some(node) => {
                // Its client may be gone by now, and another be in its place.
                if base.access.has_realm(&pending, base.core) {
                    let conn = base.upstream_as(pending.realm, node, protocol, index);
                    base.nodes.checks().send_part(conn, pending, &frame, base.core);
                }
            }
            None if !base.nodes.placement.slots.holds.fits(
                scan.slot,
                frame.len(),
                base.core.settings.held,
            ) =>
            {
                base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                base.core.fail(&pending, "slotway", &Failure::HoldsFull { slot: scan.slot });
            }
            None => self.hold_pending(pending, lane, frame, base.nodes, base.core),
        }
    }
}
