//! Commands whose keys are at two nodes are divided by key.

use crate::buf::CHUNK;
use crate::clients::Clients;
use crate::cluster::Slot;
use crate::common::Core;
use crate::common::requests::{part_frame, scan};
use crate::nodes::Nodes;
use crate::resp::ArgRange;
use crate::route::Merge;
use crate::upstream::Pending;

/// Bytes that one part of a divided command takes beside its arguments.
const PART: usize = 128;

/// The parts of a divided command.
pub(crate) struct Division {
    pub(crate) merge: Merge,
    /// For each part its command and the positions of its key in the request: several where the
    /// request has the same key several times.
    pub(crate) parts: Vec<(Vec<u8>, Vec<u32>)>,
}

impl Division {
    /// The parts of the command in `bytes`; `None`: it cannot be divided, or there is no room for
    /// its parts.
    pub(crate) fn of(
        pending: &Pending,
        bytes: &[u8],
        clients: &mut Clients,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Option<Division> {
        if pending.slot.is_keyless() || pending.before > 0 {
            return None;
        }
        let mut ranges: Vec<ArgRange> = Vec::new();
        let args = scan(bytes, &core.settings.accepted, &mut ranges);
        if args.len() > CHUNK / PART
            && !clients.memory().has_room_for(bytes.len() + args.len() * PART, nodes, core)
        {
            return None;
        }
        let mut keys = Vec::new();
        let (merge, step) = core.router.key_by_key(&args, &mut keys)?;
        let first_key = keys.first().copied()?;
        let key = |position: u32| args.get((first_key + position * step) as usize);
        let mut positions: Vec<(Slot, u32)> =
            (0..keys.len() as u32).map(|position| (pending.slot, position)).collect();
        // The same key several times is one part, in the order of the request: MSET's last value
        // is the one that stays.
        positions.sort_by(|a, b| key(a.1).cmp(&key(b.1)));
        let parts = positions.chunk_by(|a, b| key(a.1) == key(b.1));
        let part = |group: &[(Slot, u32)]| {
            let mut frame = Vec::new();
            part_frame(&mut frame, &args, first_key, step, group);
            (frame, group.iter().map(|(_, position)| *position).collect())
        };
        let parts: Vec<_> = parts.map(part).collect();
        (parts.len() > 1).then_some(Division { merge, parts })
    }
}
