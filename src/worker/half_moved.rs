//! Slots whose keys are at two nodes, because they are being migrated from one to the other.
//!
//! A node answers TRYAGAIN to a command with several keys of such a slot while it has some of them
//! and lacks others. A command that can be divided ([`Router::key_by_key`]: MGET, DEL …) is then
//! sent key by key: each key is at one of the two nodes, and ASK leads there. Its parts take its
//! turn in its client's lane together, so that what the client sent before and after keeps its
//! order. All other commands wait for the end of the migration; where it leads is found out for the
//! error that they get at their deadline.
//!
//! [`Router::key_by_key`]: crate::route::Router::key_by_key

use super::dedicated::protocol_of;
use super::split::part_frame;
use super::state::{Base, Clients, Core, Nodes, Operations};
use super::transaction::scan;
use super::{Gathering, NOBODY, Worker};
use crate::buf::CHUNK;
use crate::cluster::{NO_SLOT, hash_tag, slot_of};
use crate::command::CommandId;
use crate::dest::Dest;
use crate::errors::Cause;
use crate::ops::Parts;
use crate::placement::{MigrationNews, Refusal};
use crate::resp::{ArgRange, Args, Protocol, Request, RequestProgress, scan_request, write};
use crate::route::{Merge, flag};
use crate::upstream::Pending;
use crate::users::OWN;

/// Bytes that one part of a divided command takes beside its arguments.
const PART: usize = 128;
/// End of the name of a key that no node has.
const ABSENT: &[u8] = b"slotway: where is this slot being migrated to?";

/// The parts of a divided command.
struct Division {
    merge: Merge,
    /// For each part its command and the positions of its key in the request: several where the
    /// request has the same key several times.
    parts: Vec<(Vec<u8>, Vec<u32>)>,
}

impl Core {
    /// A key of `slot` that nobody uses, made of the hash tag of a key in the request or requests
    /// in `bytes`.
    fn absent_key(&self, slot: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut at, mut ranges, mut keys) = (0, Vec::new(), Vec::new());
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            ranges.clear();
            let mut progress = RequestProgress::default();
            let scanned =
                scan_request(rest, &self.settings.accepted, &mut progress, &mut ranges).ok()?;
            let Request::Array { len } = scanned else { return None };
            let args = Args::new(rest, &ranges);
            if self.router.has_keys(&args, &mut keys) {
                let key = keys.first().and_then(|&key| args.get(key as usize))?;
                let absent = [b"{", hash_tag(key), b"}", ABSENT].concat();
                return (slot_of(&absent).0 == slot).then_some(absent);
            }
            at += len;
        }
    }
}

impl Nodes {
    /// What a refusal says of its slot's migration.
    pub(super) fn note_migration(&mut self, slot: u16, refusal: &Refusal) {
        match MigrationNews::of(refusal) {
            _ if slot == NO_SLOT => {}
            MigrationNews::To(addr) => {
                self.placement.slots.migration_mut(slot).leads_to(addr.clone())
            }
            MigrationNews::Over => self.placement.slots.migrated(slot),
            MigrationNews::None => {}
        }
    }

    /// The answer to a probe.
    #[cold]
    pub(super) fn note_probe(&mut self, u: usize, frame: &[u8]) {
        let Some(up) = self.upstreams.get(u) else { return };
        let Some(slot) = up.pending.front().map(|pending| pending.slot) else { return };
        let Some(node) = self.list.get(usize::from(up.node)) else { return };
        if let Some(refusal @ Refusal::Ask(at, _)) = Refusal::parse(frame, &node.addr)
            && at.0 == slot
        {
            self.note_migration(slot, &refusal);
        }
    }

    /// Why a command that was refused with TRYAGAIN could not be executed.
    pub(super) fn half_moved_text(&self, slot: u16, command: CommandId, core: &Core) -> String {
        let owner = self.placement.slots.owner(slot).and_then(|n| self.list.get(usize::from(n)));
        let from = owner.map(|node| &node.addr);
        let to = self.placement.slots.migration(slot).and_then(|migration| migration.to());
        let way = match (from, to) {
            (Some(from), Some(to)) if from != to => format!("from {from} to {to}"),
            (Some(from), _) => format!("away from {from}"),
            (None, _) => "to another node".to_owned(),
        };
        let name = core.router.table().get(command).name.to_ascii_uppercase();
        format!(
            "slot {slot} is being migrated {way}, and {} needs all its keys at one node; let the \
             migration finish, or raise timeouts.command",
            name.replace('|', " ")
        )
    }
}

impl Clients {
    /// The parts of the command in `bytes`; `None`: it cannot be divided, or there is no room for
    /// its parts.
    fn divide(
        &mut self,
        pending: &Pending,
        bytes: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Option<Division> {
        if pending.slot == NO_SLOT || pending.before > 0 {
            return None;
        }
        let mut ranges: Vec<ArgRange> = Vec::new();
        let args = scan(bytes, &core.settings.accepted, &mut ranges);
        if args.len() > CHUNK / PART
            && !self.has_room_for(bytes.len() + args.len() * PART, nodes, core)
        {
            return None;
        }
        let mut keys = Vec::new();
        let (merge, step) = core.router.key_by_key(&args, &mut keys)?;
        let first_key = keys.first().copied()?;
        let key = |position: u32| args.get((first_key + position * step) as usize);
        let mut positions: Vec<(u16, u32)> =
            (0..keys.len() as u32).map(|position| (pending.slot, position)).collect();
        // The same key several times is one part, in the order of the request: MSET's last value
        // is the one that stays.
        positions.sort_by(|a, b| key(a.1).cmp(&key(b.1)));
        let parts = positions.chunk_by(|a, b| key(a.1) == key(b.1));
        let part = |group: &[(u16, u32)]| {
            let mut frame = Vec::new();
            part_frame(&mut frame, &args, first_key, step, group);
            (frame, group.iter().map(|(_, position)| *position).collect())
        };
        let parts: Vec<_> = parts.map(part).collect();
        (parts.len() > 1).then_some(Division { merge, parts })
    }
}

impl Operations {
    /// Sends a command key by key that `refuser` has answered with TRYAGAIN. Gives its bytes back
    /// where it has to wait instead.
    pub(super) fn send_key_by_key(
        &mut self,
        refuser: u16,
        pending: Pending,
        from_lane: bool,
        bytes: Vec<u8>,
        base: &mut Base<'_>,
    ) -> Option<Vec<u8>> {
        let slot = pending.slot;
        let lane = self.lane_of(&pending);
        let Some(division) = base.clients.divide(&pending, &bytes, base.nodes, base.core) else {
            self.probe_migration(slot, refuser, &bytes, base);
            return Some(bytes);
        };
        let owner = base.nodes.placement.slots.owner(slot);
        let Some(owner) = owner else { return Some(bytes) };
        // What the client sent before and was refused as well goes first.
        if !from_lane && !base.nodes.placement.slots.holds.begin(slot, lane) {
            return Some(bytes);
        }
        drop(bytes);
        base.core.stats.key_by_key += 1;
        let protocol = protocol_of(&pending);
        let mut gather = base.core.spare.gathers.pop().unwrap_or_default();
        gather.start(division.merge, protocol);
        division.parts.iter().for_each(|_| gather.expect());
        let count = division.parts.len() as u32;
        let parts = Parts::Merged(gather);
        let g = self.gatherings.insert(Gathering {
            realm: pending.realm,
            started: pending.started,
            ..self.gathering_of(lane, pending.command, pending.dest, parts, base.clients, base.core)
        });
        let gate = base.nodes.placement.slots.holds.divide(slot, lane, count);
        for (frame, positions) in division.parts {
            let mut first = 0;
            if division.merge == Merge::Array
                && let Some(gather) = self.merged(g)
            {
                first = gather.next_key();
                for position in positions {
                    gather.expect_key(position);
                }
            }
            let part = Pending {
                dest: Dest::Part { gather: g as u32, first },
                flags: pending.flags | flag::LANE,
                tries: 0,
                refused: None,
                expected: pending.expected / count.max(1),
                ..pending
            };
            base.send_to(owner, part, frame, lane.index);
        }
        if let Some(class) = gate {
            base.core.run_gate(slot, class);
        }
        None
    }

    /// Asks the node that has refused a command with TRYAGAIN where its slot is being migrated to:
    /// for a key that it lacks, its answer is ASK.
    pub(super) fn probe_migration(
        &mut self,
        slot: u16,
        refuser: u16,
        bytes: &[u8],
        base: &mut Base<'_>,
    ) {
        let owner = base.nodes.placement.slots.owner(slot);
        let Some(node) = base.nodes.list.get(usize::from(refuser)).filter(|_| slot != NO_SLOT)
        else {
            return;
        };
        let addr = node.addr.clone();
        let now = base.core.now;
        let migration = base.nodes.placement.slots.migration_mut(slot);
        if owner != Some(refuser) {
            // Only the node that imports the slot answers TRYAGAIN beside the owner.
            return migration.leads_to(addr);
        }
        if !migration.may_be_probed(now) || !base.nodes.placement.retries.budget.has() {
            return;
        }
        migration.probed(now);
        let Some(key) = base.core.absent_key(slot, bytes) else { return };
        base.nodes.placement.retries.budget.take(1);
        let mut frame = Vec::new();
        write::request(&mut frame, &[b"EXISTS", &key]);
        let exists =
            base.core.router.table().by_name("exists").unwrap_or(base.core.router.unknown());
        let mut pending = self.pending(
            Dest::Discard,
            exists,
            slot,
            Protocol::Resp2,
            base.access,
            base.clients,
            base.core,
        );
        pending.flags |= flag::READ_ONLY;
        let u = base.upstream_as(OWN, refuser, Protocol::Resp2, 0);
        base.nodes.send_owned(u, pending, frame, base.core);
    }
}

impl Worker {
    /// All parts of a divided command have answered, and it is a part of another command.
    pub(super) fn deliver_part(&mut self, gathering: &mut Gathering, reply: Result<&[u8], Cause>) {
        let Dest::Part { gather, first } = gathering.to else { return };
        if let Some(slow) = gathering.slow.take()
            && let Some(whole) = self.ops.gatherings.get_mut(gather as usize)
        {
            whole.slow = Some(slow);
        }
        match reply {
            Ok(reply) => self.part(gather, first, NOBODY, reply),
            Err(cause) => {
                self.fail_part(gather, first, "slotway".to_owned(), &cause.into_failure());
            }
        }
    }
}
