//! Requests as the command table and the settings see them. No I/O.

use crate::cluster::{Slot, SlotMap, View, ViewId, hash_tag};
use crate::command::{CommandId, invalid_key_count, key_positions};
use crate::common::Core;
use crate::dest::Dest;
use crate::emulate;
use crate::errors::{CrossSlotRemedy, Failure, Key};
use crate::metrics::EmulatedOutcome;
use crate::resp::{ArgRange, Args, Request, RequestProgress, scan_request, write};
use crate::route::{PendingFlags, sort_patterns};
use crate::upstream::Pending;
use crate::users::OWN_REALM;

/// End of the name of a key that no node has.
const ABSENT: &[u8] = b"slotway: where is this slot being migrated to?";

impl Core {
    /// The request with a number of keys that no node takes for one, where it is none. As it came, a
    /// node finds keys in several slots first, and then that the number is no number.
    #[cold]
    pub(crate) fn without_number(&self, command: CommandId, args: &Args) -> Option<Vec<u8>> {
        let spec = self.router.table().get(command);
        let at = invalid_key_count(spec, args).filter(|_| emulate::entry(&spec.name).is_some())?;
        let mut args: Vec<&[u8]> = args.iter().collect();
        *args.get_mut(at)? = b"none";
        let mut frame = Vec::new();
        write::request(&mut frame, &args);
        Some(frame)
    }

    pub(crate) fn count_emulated(&mut self, command: CommandId, outcome: EmulatedOutcome) {
        let name = &self.router.table().get(command).name;
        if let Some((at, _)) = emulate::entry(name)
            && let Some(counts) = self.stats.emulated.get_mut(at)
        {
            counts[outcome as usize] += 1;
        }
    }

    /// The error for keys in different slots, or on different upstreams.
    pub(crate) fn keys_apart(
        &self,
        view: ViewId,
        ((first, first_slot), (other, slot)): Apart<'_>,
        remedy: CrossSlotRemedy,
    ) -> Failure {
        let (views, map) = (self.router.views(), self.router.views().map());
        if map.upstream_of(first_slot) != map.upstream_of(slot) {
            let place = |key| views.place_of(view, key).into();
            let (first_place, place) = (place(first), place(other));
            let (first, other) = (Key::new(first), Key::new(other));
            return Failure::CrossUpstream { first, first_place, other, place };
        }
        // By the numbers that the upstream itself uses.
        let own = |slot| Slot(map.space(map.upstream_of(slot)).own(slot));
        let (first_slot, slot) = (own(first_slot), own(slot));
        let (first, other) = (Key::new(first), Key::new(other));
        Failure::CrossSlot { first, first_slot, other, slot, remedy }
    }

    /// Whether it is SORT with a pattern whose keys may be on another upstream than its key.
    pub(crate) fn has_foreign_pattern(&self, view: ViewId, name: &str, args: &Args) -> bool {
        let view = self.router.view(view);
        let space = view.space_of(args.get(1).unwrap_or_default());
        matches!(name, "sort" | "sort_ro")
            && sort_patterns(args).any(|pattern| view.space_of_pattern(pattern) != Some(space))
    }

    /// Why a command over several slots is refused behind MULTI. `None`: a node will say what it
    /// thinks of it.
    pub(crate) fn refused_in_multi(
        &self,
        view: ViewId,
        name: &str,
        args: &Args,
    ) -> Option<Failure> {
        let keys: Vec<usize> = self.spare.keys.iter().map(|&at| at as usize).collect();
        let map = self.router.views().map();
        let others = apart(map, self.router.view(view), args, &keys);
        if let Some(others) = others.filter(|_| runs_script(name)) {
            return Some(self.keys_apart(view, others, remedy_for(name)));
        }
        match others {
            Some(others) => Some(self.keys_apart(view, others, CrossSlotRemedy::InMulti)),
            None if self.has_foreign_pattern(view, name, args) => {
                Some(Failure::PatternOnUpstreams { command: name.to_ascii_uppercase().into() })
            }
            None if self.settings.emulate => {
                Some(Failure::PatternInMulti { command: name.to_ascii_uppercase().into() })
            }
            None => None,
        }
    }

    /// A key of `slot` that nobody uses, made of the hash tag of a key in the request or requests
    /// in `bytes`.
    pub(crate) fn absent_key(&self, slot: Slot, bytes: &[u8]) -> Option<Vec<u8>> {
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
                let map = self.router.views().map();
                let space = map.space(map.upstream_of(slot));
                return (space.slot_of(&absent) == slot).then_some(absent);
            }
            at += len;
        }
    }

    /// A command over several slots as one command per slot: the slot, the bytes, the positions
    /// of its keys.
    pub(crate) fn in_slots(
        &self,
        view: ViewId,
        command: CommandId,
        args: &Args,
        mut each: impl FnMut(Slot, &[u8], Vec<u32>),
    ) {
        let spec = self.router.table().get(command);
        let mut keys = Vec::new();
        // A list of keys that cannot be read was refused when it was queued.
        let _ = key_positions(spec, args, &mut keys);
        let step = match keys.as_slice() {
            [a, b, ..] => b.saturating_sub(*a),
            _ => 1,
        };
        let view = self.router.view(view);
        let mut slots: Vec<(Slot, u32)> = (0..)
            .zip(&keys)
            .map(|(position, &at)| {
                (view.slot_of(args.get(at as usize).unwrap_or_default()), position)
            })
            .collect();
        slots.sort_unstable();
        let first = keys.first().copied().unwrap_or(1);
        let mut frame = Vec::new();
        for group in slots.chunk_by(|a, b| a.0 == b.0) {
            frame.clear();
            part_frame(&mut frame, args, first, step, group);
            let slot = group.first().map_or(Slot(0), |g| g.0);
            each(slot, &frame, group.iter().map(|g| g.1).collect());
        }
    }
}

/// A command whose reply is nobody's.
pub(crate) fn discarded(command: CommandId, now: u64) -> Pending {
    Pending {
        dest: Dest::Discard,
        len: 0,
        slot: Slot::NONE,
        command,
        flags: PendingFlags::empty(),
        realm: OWN_REALM,
        tries: 0,
        refused: None,
        before: 0,
        checks_shard: false,
        started: now,
        expected: 0,
    }
}

/// Two keys in different slots.
type Apart<'a> = ((&'a [u8], Slot), (&'a [u8], Slot));

/// Two keys in different slots; on different upstreams if there are two such keys.
pub(crate) fn apart<'a>(
    map: &SlotMap,
    view: &View,
    args: &Args<'a>,
    keys: &[usize],
) -> Option<Apart<'a>> {
    let mut keys = keys.iter().filter_map(|&at| args.get(at)).map(|key| (key, view.slot_of(key)));
    let first = keys.next()?;
    let upstream = map.upstream_of(first.1);
    let mut other = None;
    for (key, slot) in keys {
        if map.upstream_of(slot) != upstream {
            return Some((first, (key, slot)));
        }
        other = other.or(Some((key, slot)).filter(|_| slot != first.1));
    }
    Some((first, other?))
}

/// What may be done about a command whose keys are in different slots.
pub(crate) fn remedy_for(name: &str) -> CrossSlotRemedy {
    match emulate::entry(name) {
        Some(_) => CrossSlotRemedy::Emulate(name.to_ascii_uppercase().replace('|', " ").into()),
        None if runs_script(name) => CrossSlotRemedy::Script,
        None => CrossSlotRemedy::HashTag,
    }
}

/// Whether the command runs a Lua script or a function, which one node executes as a whole.
fn runs_script(name: &str) -> bool {
    matches!(name, "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro")
}

/// The command `args` with the keys of one slot: those at the positions of `group`, with `step`
/// arguments each.
pub(crate) fn part_frame(
    frame: &mut Vec<u8>,
    args: &Args,
    first_key: u32,
    step: u32,
    group: &[(Slot, u32)],
) {
    // At once: a large part is not copied as it grows.
    let positions = group.iter().map(|&(_, position)| first_key + position * step);
    let values = positions.flat_map(|at| at..at + step);
    let value = |i: u32| args.get(i as usize).map_or(0, <[u8]>::len) + write::HEADER;
    frame.reserve(128 + values.map(value).sum::<usize>());
    write::array_header(frame, 1 + group.len() * step as usize);
    write::bulk(frame, args.get(0).unwrap_or_default());
    for &(_, position) in group {
        let at = first_key + position * step;
        for i in at..at + step {
            write::bulk(frame, args.get(i as usize).unwrap_or_default());
        }
    }
}

/// The arguments of a queued command.
pub(crate) fn scan<'a>(
    frame: &'a [u8],
    limits: &crate::resp::RequestLimits,
    ranges: &'a mut Vec<ArgRange>,
) -> Args<'a> {
    ranges.clear();
    // It was scanned when it came.
    let _ = scan_request(frame, limits, &mut RequestProgress::default(), ranges);
    Args::new(frame, ranges)
}
