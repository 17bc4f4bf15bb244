//! SCAN and RANDOMKEY: the keys of all shards as if they were one server's.

use super::Worker;
use super::downstream::Flow;
use super::state::base;
use super::state::{Base, Nodes, Operations};
use crate::cluster::{NO_SLOT, Slot};
use crate::command::CommandId;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::resp::Args;
use crate::route::{Fan, Gather, Layout, Merge, Owners, Scan, ScanRequest, Server, flag, identity};

const DBSIZE: &[u8] = b"*1\r\n$6\r\nDBSIZE\r\n";

impl Owners for Nodes {
    fn layout(&self) -> &Layout {
        &self.topology.layout
    }

    fn owner(&self, slot: u16) -> Option<u64> {
        let node = self.placement.slots.owner(slot)?;
        self.identity(node)
    }

    fn owner_in_layout(&self, slot: u16) -> Option<u64> {
        self.identity(self.known_node(&self.topology.snapshot.primary_of(Slot(slot))?.addr)?)
    }
}

impl Nodes {
    /// What SCAN's cursors call a node: its ID, which all slotways know alike; where the cluster
    /// does not tell it, its address.
    fn identity(&self, node: u16) -> Option<u64> {
        let addr = &self.list.get(usize::from(node))?.addr;
        let known = self.topology.snapshot.nodes.iter().find(|n| n.addr == *addr);
        Some(match known.filter(|n| !n.id.is_empty()) {
            Some(known) => identity(&known.id),
            None => identity(&addr.to_string()),
        })
    }

    fn refresh_layout(&mut self) {
        if self.topology.layout.generation() != self.topology.snapshot.generation {
            self.topology.layout =
                Layout::of(&self.topology.snapshot.slots, self.topology.snapshot.generation);
        }
    }

    /// The cursor for the client in the place of the node's; for other gatherings nothing.
    pub(super) fn next_cursor(&mut self, gather: &mut Gather) -> String {
        let Some((scan, node, cursor)) = gather.scanned() else { return String::new() };
        self.refresh_layout();
        let by = self.identity(node).unwrap_or_default();
        match scan.next(cursor, by, self) {
            Some(next) => next.to_string(),
            None => {
                gather.refuse(Failure::CursorTooLarge);
                String::new()
            }
        }
    }
}

impl Operations {
    /// Asks the owner of the slot at which `scan` stands.
    fn send_scan(&mut self, g: usize, scan: Scan, base: &mut Base<'_>) {
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
                    let u = base.upstream_as(pending.realm, node, protocol, index);
                    base.nodes.send_part(u, pending, &frame, base.core);
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

impl Worker {
    /// The owner of the slot at which the cursor stands gets its own cursor, as any command for
    /// that slot.
    pub(super) fn scan(&mut self, index: usize, command: CommandId, args: &Args) -> Flow {
        if self.nodes.topology.snapshot.generation == 0 {
            return self.clients.no_cluster(index, command, &mut self.nodes, &mut self.core);
        }
        self.nodes.refresh_layout();
        let Some(scan) = Scan::begin(args.get(1).unwrap_or_default(), &self.nodes) else {
            self.clients.answer_own_error(index, command, &Failure::InvalidCursor, &mut self.core);
            return Flow::Next;
        };
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let node = self.nodes.route(scan.slot);
        if let Some(u) = node.and_then(|node| self.full_upstream(node, protocol, index)) {
            return self.clients.pause(index, u, &mut self.nodes, &mut self.core);
        }
        let Some(g) =
            self.ops.gathering(index, command, Merge::Scan, &mut self.clients, &mut self.core)
        else {
            return Flow::Stop;
        };
        if let Some(gather) = self.ops.merged(g) {
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
        if !gather.scan_may_go_on() || !self.clients.slab.contains(gathering.lane.at()) {
            return false;
        }
        let Some((scan, node, 0)) = gather.scanned() else { return false };
        self.nodes.refresh_layout();
        let by = self.nodes.identity(node).unwrap_or_default();
        let Some(next) = scan.next(0, by, &self.nodes).filter(|&next| next != 0) else {
            return false;
        };
        let Some(next) = Scan::begin(next.to_string().as_bytes(), &self.nodes) else {
            return false;
        };
        if let Some(gather) = self.ops.merged(g) {
            gather.go_on_scanning(next);
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
            return self.clients.no_cluster(index, command, &mut self.nodes, &mut self.core);
        }
        let mut reached = nodes.iter().filter_map(|n| n.as_ref().ok());
        if let Some(u) = reached.find_map(|&n| self.full_upstream(n, protocol, index)) {
            return self.clients.pause(index, u, &mut self.nodes, &mut self.core);
        }
        let merge = Merge::Server(Server::RandomKey);
        let Some(g) = self.ops.gathering(index, command, merge, &mut self.clients, &mut self.core)
        else {
            return Flow::Stop;
        };
        let mut ranges = Vec::new();
        self.ops.keep_args(
            g,
            &super::transaction::scan(frame, &self.core.settings.accepted, &mut ranges),
            &mut self.core,
        );
        if let Some(gather) = self.ops.merged(g) {
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
                        self.nodes.send_part(u, pending, line, &mut self.core);
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
