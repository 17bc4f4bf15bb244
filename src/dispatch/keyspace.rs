//! SCAN and RANDOMKEY: the keys of all shards as those of one server.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::requests;
use crate::dest::Dest;
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::resp::Args;
use crate::route::{Fan, Merge, PendingFlags, ReportMerge, Scan, ScanRequest};

const DBSIZE: &[u8] = b"*1\r\n$6\r\nDBSIZE\r\n";

impl Dispatcher<'_> {
    /// SCAN: sends the node's own cursor to the owner of the slot that the client's cursor is at,
    /// like any command for that slot.
    pub(super) fn scan(&mut self, index: usize, command: CommandId, args: &Args) -> Flow {
        if self.engine.nodes.topology.snapshot.generation == 0 {
            return self.engine.clients.refusals().no_cluster(
                index,
                command,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let router = &self.engine.core.router;
        let upstreams = router.view(self.engine.clients.view_of(index)).upstreams();
        let owners = self.engine.nodes.owners_of(upstreams, router.views().map());
        let Some(scan) = Scan::begin(args.get(1).unwrap_or_default(), upstreams, &owners) else {
            self.engine.clients.answer_own_error(
                index,
                command,
                &Failure::InvalidCursor,
                &mut self.engine.core,
            );
            return Flow::Next;
        };
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let node = self.engine.nodes.route(scan.slot);
        if let Some(conn) = node.and_then(|node| self.full_upstream(node, protocol, index)) {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let Some(g) = self.engine.ops.gatherings.begin(
            index,
            command,
            Merge::Scan,
            &mut self.engine.clients,
            &mut self.engine.core,
        ) else {
            return Flow::Stop;
        };
        if let Some(gather) = self.engine.ops.gatherings.merged(g) {
            gather.set_scan(scan, ScanRequest::of(args));
        }
        self.engine.ops.send_scan(g, scan, &mut base!(self.engine));
        Flow::Next
    }

    /// RANDOMKEY: asks every primary for its number of keys and for a key. The merge chooses among
    /// the keys.
    pub(super) fn random_key(&mut self, index: usize, command: CommandId, frame: &[u8]) -> Flow {
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let upstreams = self.engine.core.router.view(client.session.view).upstreams();
        let nodes = self.engine.nodes.fan_targets(upstreams, Fan::Primaries, &mut self.engine.core);
        if self.engine.nodes.topology.snapshot.generation == 0 || nodes.is_empty() {
            return self.engine.clients.refusals().no_cluster(
                index,
                command,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let mut reached = nodes.iter().filter_map(|n| n.as_ref().ok());
        if let Some(conn) = reached.find_map(|&n| self.full_upstream(n, protocol, index)) {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let merge = Merge::Report(ReportMerge::RandomKey);
        let Some(g) = self.engine.ops.gatherings.begin(
            index,
            command,
            merge,
            &mut self.engine.clients,
            &mut self.engine.core,
        ) else {
            return Flow::Stop;
        };
        let mut ranges = Vec::new();
        self.engine.ops.gatherings.keep_args(
            g,
            &requests::scan(frame, &self.engine.core.settings.accepted, &mut ranges),
            &mut self.engine.core,
        );
        if let Some(gather) = self.engine.ops.gatherings.merged(g) {
            (0..nodes.len() * 2).for_each(|_| gather.expect());
        }
        for target in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let mut pending = self.engine.ops.pending(
                dest,
                command,
                Slot::NONE,
                protocol,
                &self.engine.access,
                &self.engine.clients,
                &self.engine.core,
            );
            pending.flags.insert(PendingFlags::NODE_BOUND);
            for line in [DBSIZE, frame] {
                match &target {
                    Ok(node) => {
                        let conn = base!(self.engine).upstream_for(*node, protocol, index);
                        self.engine.nodes.checks().send_part(
                            conn,
                            pending,
                            line,
                            &mut self.engine.core,
                        );
                    }
                    Err(missing) => self.engine.ops.hold_part(
                        pending,
                        missing,
                        line,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    ),
                }
            }
        }
        Flow::Next
    }
}
