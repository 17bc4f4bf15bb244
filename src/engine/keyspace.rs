//! SCAN: several shards in one reply.

use crate::base::{Base, base};
use crate::engine::Engine;
use crate::route::Scan;

impl Engine {
    /// Continues with the next shard if one is scanned to its end and had fewer keys than the
    /// client asked for: a single server with few keys would return them all in one reply. `false`:
    /// the reply is complete.
    pub(super) fn scan_goes_on(&mut self, g: usize) -> bool {
        let Some(gathering) = self.ops.gatherings.get(g) else { return false };
        let Some(gather) = gathering.parts.merged() else { return false };
        if !gather.can_continue_scan() || !self.clients.slab.contains(gathering.lane.at()) {
            return false;
        }
        let Some((scan, node, 0)) = gather.scanned() else { return false };
        let by = self.nodes.identity(node).unwrap_or_default();
        let owners = self.nodes.owners_of(scan.upstreams, self.core.router.views().map());
        let Some(next) = scan.next(0, by, &owners).filter(|&next| next != 0) else {
            return false;
        };
        let next = Scan::begin(next.to_string().as_bytes(), scan.upstreams, &owners);
        let Some(next) = next else { return false };
        if let Some(gather) = self.ops.gatherings.merged(g) {
            gather.continue_scan(next);
        }
        self.ops.send_scan(g, next, &mut base!(self));
        true
    }
}
