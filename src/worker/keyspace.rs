//! SCAN and RANDOMKEY: the keys of all shards as if they were one server's.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::common::requests;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::resp::Args;
use crate::route::{Fan, Merge, ReportMerge, Scan, ScanRequest, flag};
use crate::worker::Worker;

const DBSIZE: &[u8] = b"*1\r\n$6\r\nDBSIZE\r\n";

impl Worker {
    /// The owner of the slot at which the cursor stands gets its own cursor, as any command for
    /// that slot.
    pub(super) fn scan(&mut self, index: usize, command: CommandId, args: &Args) -> Flow {
        if self.nodes.topology.snapshot.generation == 0 {
            return self.clients.refusals().no_cluster(
                index,
                command,
                &mut self.nodes,
                &mut self.core,
            );
        }
        self.nodes.topology.refresh_layout();
        let Some(scan) = Scan::begin(args.get(1).unwrap_or_default(), &self.nodes) else {
            self.clients.answer_own_error(index, command, &Failure::InvalidCursor, &mut self.core);
            return Flow::Next;
        };
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let node = self.nodes.route(scan.slot);
        if let Some(u) = node.and_then(|node| self.full_upstream(node, protocol, index)) {
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        let Some(g) = self.ops.gatherings.begin(
            index,
            command,
            Merge::Scan,
            &mut self.clients,
            &mut self.core,
        ) else {
            return Flow::Stop;
        };
        if let Some(gather) = self.ops.gatherings.merged(g) {
            gather.set_scan(scan, ScanRequest::of(args));
        }
        self.ops.send_scan(g, scan, &mut base!(self));
        Flow::Next
    }

    /// A shard is scanned to its end and had fewer keys than the client asks for: the next one
    /// goes into the same reply, as a single server with few keys has them all in one.
    pub(super) fn scan_goes_on(&mut self, g: usize) -> bool {
        let Some(gathering) = self.ops.gatherings.get(g) else { return false };
        let Some(gather) = gathering.parts.merged() else { return false };
        if !gather.can_continue_scan() || !self.clients.slab.contains(gathering.lane.at()) {
            return false;
        }
        let Some((scan, node, 0)) = gather.scanned() else { return false };
        self.nodes.topology.refresh_layout();
        let by = self.nodes.identity(node).unwrap_or_default();
        let Some(next) = scan.next(0, by, &self.nodes).filter(|&next| next != 0) else {
            return false;
        };
        let Some(next) = Scan::begin(next.to_string().as_bytes(), &self.nodes) else {
            return false;
        };
        if let Some(gather) = self.ops.gatherings.merged(g) {
            gather.continue_scan(next);
        }
        self.ops.send_scan(g, next, &mut base!(self));
        true
    }

    /// Every primary's size and a key of each: the choice is made when all are there.
    pub(super) fn random_key(&mut self, index: usize, command: CommandId, frame: &[u8]) -> Flow {
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let nodes = self.nodes.fan_targets(Fan::Primaries, &mut self.core);
        if self.nodes.topology.snapshot.generation == 0 || nodes.is_empty() {
            return self.clients.refusals().no_cluster(
                index,
                command,
                &mut self.nodes,
                &mut self.core,
            );
        }
        let mut reached = nodes.iter().filter_map(|n| n.as_ref().ok());
        if let Some(u) = reached.find_map(|&n| self.full_upstream(n, protocol, index)) {
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        let merge = Merge::Report(ReportMerge::RandomKey);
        let Some(g) =
            self.ops.gatherings.begin(index, command, merge, &mut self.clients, &mut self.core)
        else {
            return Flow::Stop;
        };
        let mut ranges = Vec::new();
        self.ops.gatherings.keep_args(
            g,
            &requests::scan(frame, &self.core.settings.accepted, &mut ranges),
            &mut self.core,
        );
        if let Some(gather) = self.ops.gatherings.merged(g) {
            (0..nodes.len() * 2).for_each(|_| gather.expect());
        }
        for target in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let mut pending = self.ops.pending(
                dest,
                command,
                NO_SLOT,
                protocol,
                &self.access,
                &self.clients,
                &self.core,
            );
            pending.flags |= flag::NODE_BOUND;
            for line in [DBSIZE, frame] {
                match &target {
                    Ok(node) => {
                        let u = base!(self).upstream_for(*node, protocol, index);
                        self.nodes.checks().send_part(u, pending, line, &mut self.core);
                    }
                    Err(missing) => {
                        self.ops.hold_part(pending, missing, line, &mut self.nodes, &mut self.core)
                    }
                }
            }
        }
        Flow::Next
    }
}
