//! SCAN over all shards with a cursor that contains the whole state: any slotway in front of the
//! cluster can continue the scan.
//!
//! A scan goes through the slots in ascending order. At a slot it scans the node that owns it to
//! the end; then all lower slots and all slots of that node are **covered**, and the scan continues
//! at the next slot that is not. While slots stay with their shards, a shard whose lowest slot is
//! below the current one has been scanned: each shard once, in the order of their lowest slots,
//! which a failover does not change. If slots have moved since the scan began, this does not hold:
//! a shard that was not scanned may have got a low slot. The scan is then **careful**, and skips
//! only the contiguous slots of the node just scanned. It may return keys twice, but misses no key
//! whose slot did not move; and since it only goes up, it ends.
//!
//! A node's cursor is meaningless at another node (each has its own hash seed), so the client's
//! cursor contains a mark of its node and, unless careful, of the slot layout. If the mark does not
//! match, the scan stays at its slot and starts with the node there from the beginning.

use crate::cluster::{Slot, UpstreamSet};
use crate::hash::Unkeyed;
use crate::resp::{Args, strict_i64, write};

const MARK_BITS: u32 = 10;
/// Bits of a slot of one cluster, and of a slot of several upstreams.
const SLOT_BITS: u32 = 14;
const WIDE_SLOT_BITS: u32 = 16;

/// A decoded client cursor. "0", the start and the end, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    /// The node's own cursor; 0 at the start of its scan.
    node: u64,
    careful: bool,
    /// Never 0, so that no cursor is 0 and arbitrary numbers are mostly rejected.
    mark: u16,
    slot: Slot,
}

impl Cursor {
    /// `None` if the node's cursor does not fit. `slot_bits`: bits of a slot.
    fn encode(self, slot_bits: u32) -> Option<u64> {
        let state_bits = 1 + MARK_BITS + slot_bits;
        (self.node < 1 << (u64::BITS - state_bits)).then_some(
            self.node << state_bits
                | u64::from(self.careful) << (MARK_BITS + slot_bits)
                | u64::from(self.mark) << slot_bits
                | u64::from(self.slot.0),
        )
    }

    /// `None` if [`Cursor::encode`] does not produce this number.
    fn decode(number: u64, slot_bits: u32) -> Option<Cursor> {
        let field = |at: u32, bits: u32| (number >> at & ((1 << bits) - 1)) as u16;
        let mark = field(slot_bits, MARK_BITS);
        (mark != 0).then_some(Cursor {
            node: number >> (1 + MARK_BITS + slot_bits),
            careful: field(slot_bits + MARK_BITS, 1) == 1,
            mark,
            slot: Slot(field(0, slot_bits)),
        })
    }
}

fn mark(of: &[u64]) -> u16 {
    let mut hasher = Unkeyed::default();
    of.iter().for_each(|part| hasher.number(*part));
    // The upper bits are mixed best.
    1 + ((hasher.finish() >> 32) % ((1 << MARK_BITS) - 1)) as u16
}

/// The identity of a node in cursors: a hash of its ID.
pub fn identity(node_id: &str) -> u64 {
    // Not keyed per process: all slotways must agree.
    let mut hasher = Unkeyed::default();
    hasher.bytes(node_id.as_bytes());
    hasher.finish()
}

/// Which slots belong to the same shard, independent of its nodes.
#[derive(Debug, Default)]
pub struct Layout {
    /// Generation of the snapshot that it was made from.
    generation: u64,
    /// The first slot of each contiguous piece, and the lowest slot of its shard.
    pieces: Vec<(Slot, Slot)>,
    /// The first and the last slot of each contiguous range of slots that are scanned.
    ranges: Vec<(Slot, Slot)>,
    /// Bits of a slot in cursors.
    slot_bits: u32,
    hash: u64,
}

impl Layout {
    /// Creates the layout from the shard numbers of all slots. Only those that are `scanned` are
    /// part of it.
    pub fn of(slots: &[u16], generation: u64, scanned: impl Fn(Slot) -> bool) -> Layout {
        let mut lowest: Vec<Option<Slot>> = Vec::new();
        let mut pieces = Vec::new();
        let mut ranges: Vec<(Slot, Slot)> = Vec::new();
        let mut before = None;
        for (slot, &shard) in Slot::first(slots.len()).zip(slots) {
            if !scanned(slot) {
                before = None;
                continue;
            }
            match ranges.last_mut() {
                Some((_, last)) if last.0 + 1 == slot.0 => *last = slot,
                _ => ranges.push((slot, slot)),
            }
            if before == Some(shard) {
                continue;
            }
            before = Some(shard);
            // Unassigned slots have the largest number, and count as one shard.
            let at = usize::from(shard.saturating_add(1)) % (usize::from(u16::MAX) + 1);
            if lowest.len() <= at {
                lowest.resize(at + 1, None);
            }
            let first = lowest.get_mut(at).map_or(slot, |known| *known.get_or_insert(slot));
            pieces.push((slot, first));
        }
        let mut hasher = Unkeyed::default();
        pieces.iter().for_each(|(slot, lowest)| {
            hasher.number(u64::from(slot.0) << 16 | u64::from(lowest.0));
        });
        let slot_bits = if slots.len() <= 1 << SLOT_BITS { SLOT_BITS } else { WIDE_SLOT_BITS };
        Layout { generation, hash: hasher.finish(), pieces, ranges, slot_bits }
    }

    /// The first slot of a scan.
    fn first(&self) -> Slot {
        self.ranges.first().map_or(Slot(0), |(first, _)| *first)
    }

    /// Whether the slot is scanned.
    fn contains(&self, slot: Slot) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// The slot behind this one.
    fn slot_behind(&self, slot: Slot) -> Option<Slot> {
        let mut ranges = self.ranges.iter();
        let (first, _) = ranges.find(|(_, last)| slot < *last)?;
        Some(Slot(slot.0 + 1).max(*first))
    }

    /// Generation of the snapshot that it was made from.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The slot where a scan continues after the owner of `slot`.
    fn next(&self, slot: Slot, careful: bool) -> Option<Slot> {
        let mut above = self.pieces.iter().filter(|(first, _)| *first > slot);
        above.find(|(first, lowest)| careful || first == lowest).map(|(first, _)| *first)
    }
}

/// A SCAN command for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// The upstreams that are scanned.
    pub upstreams: UpstreamSet,
    /// The slot whose owner is asked.
    pub slot: Slot,
    /// The cursor sent to the node.
    pub cursor: u64,
    careful: bool,
    /// The owner for which the cursor is valid.
    owner: Option<u64>,
    layout: u64,
}

/// A client's SCAN request without its cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// The request's bytes before and after the cursor.
    before: Vec<u8>,
    behind: Vec<u8>,
    /// Number of keys asked for (COUNT), approximately.
    pub count: u64,
}

impl ScanRequest {
    /// Parses the client's request.
    pub fn of(args: &Args) -> Self {
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        write::array_header(&mut before, args.len());
        write::bulk(&mut before, args.get(0).unwrap_or_default());
        args.iter().skip(2).for_each(|arg| write::bulk(&mut behind, arg));
        let at = (2..args.len()).step_by(2).find(|&i| args.is(i, "count"));
        let count = at.and_then(|at| args.get(at + 1)).and_then(strict_i64);
        // An invalid count is the node's to reject.
        let count = count.and_then(|n| u64::try_from(n).ok()).unwrap_or(10);
        ScanRequest { before, behind, count }
    }

    /// The request with a node's cursor.
    pub fn frame(&self, cursor: u64) -> Vec<u8> {
        let mut frame = self.before.clone();
        write::bulk(&mut frame, cursor.to_string().as_bytes());
        frame.extend_from_slice(&self.behind);
        frame
    }
}

/// The current owners of the slots.
pub trait SlotOwners {
    /// The slot layout.
    fn layout(&self) -> &Layout;
    /// The [`identity`] of the node to ask for a slot, if there is one.
    fn owner(&self, slot: Slot) -> Option<u64>;
    /// The owner according to the layout, which does not include the latest MOVED redirections.
    fn owner_in_layout(&self, slot: Slot) -> Option<u64>;
}

impl Scan {
    /// Decodes a client's cursor. `None` if it is invalid. The layout is that of `upstreams`.
    pub fn begin(cursor: &[u8], upstreams: UpstreamSet, cluster: &impl SlotOwners) -> Option<Scan> {
        let Layout { hash: layout, slot_bits, .. } = *cluster.layout();
        let first = cluster.layout().first();
        let text = std::str::from_utf8(cursor).ok()?;
        // Redis accepts an empty cursor as 0.
        let number: u64 = if text.is_empty() { 0 } else { text.parse().ok()? };
        let at = |cursor: u64, slot, careful| {
            Some(Scan { upstreams, slot, cursor, careful, owner: cluster.owner(slot), layout })
        };
        if number == 0 {
            return at(0, first, false);
        }
        let Cursor { node, careful, mark, slot } = Cursor::decode(number, slot_bits)?;
        // The cursor of another client, or of other upstreams.
        if !cluster.layout().contains(slot) {
            return None;
        }
        let fits = mark == Self::mark(node, careful, layout, cluster.owner(slot).unwrap_or(0));
        if fits { at(node, slot, careful) } else { at(0, slot, true) }
    }

    /// The start of a node's scan is valid for any owner, a careful scan for any layout.
    fn mark(node_cursor: u64, careful: bool, layout: u64, owner: u64) -> u16 {
        mark(&[if careful { 0 } else { layout }, if node_cursor == 0 { 0 } else { owner }])
    }

    /// The client's next cursor after node `by` returned `cursor`. `None` if it does not fit.
    pub fn next(&self, cursor: u64, by: u64, cluster: &impl SlotOwners) -> Option<u64> {
        let layout = cluster.layout();
        let owner = cluster.owner(self.slot);
        let go = |node: u64, slot: Slot, careful: bool| {
            let mark = Self::mark(node, careful, self.layout, by);
            Cursor { node, careful, mark, slot }.encode(layout.slot_bits)
        };
        // Redirected: another node's answer to this cursor is meaningless.
        if self.cursor != 0 && self.owner != Some(by) {
            return go(0, self.slot, true);
        }
        if cursor != 0 {
            return go(cursor, self.slot, self.careful);
        }
        let careful = self.careful || self.layout != layout.hash;
        let in_layout = cluster.owner_in_layout(self.slot);
        let (next, careful) = match owner == Some(by) && in_layout == Some(by) {
            true => (layout.next(self.slot, careful), careful),
            // The slot has another owner now or in the next layout: it was not the shard that the
            // layout says, so nothing but this slot is known to be covered.
            false => (layout.slot_behind(self.slot), true),
        };
        next.map_or(Some(0), |slot| go(0, slot, careful))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SLOTS;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A cluster in which each node scans its slots in its own order, `page` at a time.
    struct Model {
        /// Shard of each slot.
        shards: Vec<u16>,
        /// Primary of each shard.
        primary: Vec<u64>,
        layout: Layout,
        /// Slots for which a MOVED was received, and their shards.
        heard: BTreeMap<Slot, u16>,
    }

    impl Model {
        fn new(shards: Vec<u16>) -> Model {
            let count = usize::from(*shards.iter().max().unwrap()) + 1;
            let layout = Layout::of(&shards, 0, |_| true);
            Model { shards, primary: (0..count as u64).collect(), layout, heard: BTreeMap::new() }
        }

        fn three() -> Model {
            Model::new((0..SLOTS).map(|slot| slot / 5462).collect())
        }

        fn change(&mut self, slot: Slot, shard: u16) {
            self.shards[slot.at()] = shard;
            self.layout = Layout::of(&self.shards, self.layout.generation + 1, |_| true);
        }

        /// Moves the slot in a MOVED redirection only.
        fn hear(&mut self, slot: Slot, shard: u16) {
            self.heard.insert(slot, shard);
        }

        /// The shard whose primary is asked.
        fn shard(&self, slot: Slot) -> u16 {
            self.heard.get(&slot).copied().unwrap_or(self.shards[slot.at()])
        }

        /// A node, and its slots in its order.
        fn node(&self, slot: Slot) -> (u64, Vec<Slot>) {
            let shard = self.shard(slot);
            let node = self.primary[usize::from(shard)];
            let mut slots: Vec<Slot> =
                Slot::all().filter(|s| self.shards[s.at()] == shard && s.0 % 64 == 0).collect();
            slots.sort_by_key(|s| identity(&format!("{node}.{s}")));
            (node, slots)
        }

        /// One SCAN: the slots whose keys were returned, and the next cursor.
        fn scan(&self, cursor: u64, page: usize) -> (Vec<Slot>, u64) {
            let scan = Scan::begin(cursor.to_string().as_bytes(), UpstreamSet::ALL, self)
                .expect("a cursor");
            let (node, slots) = self.node(scan.slot);
            let from = (scan.cursor as usize).min(slots.len());
            let to = (from + page).min(slots.len());
            let after = if to == slots.len() { 0 } else { to as u64 };
            (slots[from..to].to_vec(), scan.next(after, node, self).expect("room"))
        }
    }

    impl SlotOwners for Model {
        fn layout(&self) -> &Layout {
            &self.layout
        }
        fn owner(&self, slot: Slot) -> Option<u64> {
            Some(self.primary[usize::from(self.shard(slot))])
        }
        fn owner_in_layout(&self, slot: Slot) -> Option<u64> {
            let shard = self.shards[slot.at()];
            Some(self.primary[usize::from(shard)])
        }
    }

    fn sampled() -> BTreeSet<Slot> {
        Slot::all().filter(|s| s.0 % 64 == 0).collect()
    }

    #[test]
    fn each_shard_is_scanned_once_without_changes() {
        // 5 shards, interleaved in thousands of pieces.
        let model = Model::new((0..SLOTS).map(|slot| slot % 5).collect());
        let (mut cursor, mut seen, mut calls) = (0, Vec::new(), 0);
        loop {
            let (slots, next) = model.scan(cursor, 10);
            seen.extend(slots);
            calls += 1;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), sampled().len(), "nothing twice");
        assert_eq!(BTreeSet::from_iter(seen), sampled());
        assert!(calls < 40);
    }

    #[test]
    fn a_promoted_replica_is_scanned_from_its_beginning() {
        let mut model = Model::three();
        let (first, cursor) = model.scan(0, 10);
        model.primary[0] = 77;
        let (again, next) = model.scan(cursor, 1000);
        assert_eq!(first.len(), 10);
        assert_eq!(BTreeSet::from_iter(again).len(), 86, "all of the shard");
        let (_, next) = model.scan(next, 1000);
        let (_, next) = model.scan(next, 1000);
        assert_eq!(next, 0);
    }

    /// The last shard gets a slot below the one being scanned: it must not count as scanned.
    #[test]
    fn a_low_slot_does_not_hide_a_shard() {
        let mut model = Model::three();
        let (mut seen, cursor) = model.scan(0, 1000);
        let (more, mut cursor) = model.scan(cursor, 20);
        seen.extend(more);
        model.change(Slot(100), 2);
        while cursor != 0 {
            let (slots, next) = model.scan(cursor, 1000);
            seen.extend(slots);
            cursor = next;
        }
        assert_eq!(BTreeSet::from_iter(seen), sampled());
    }

    /// A shard's lowest slot has moved, known only from a MOVED: another shard is scanned there.
    #[test]
    fn a_slot_redirected_by_moved_does_not_hide_a_shard() {
        for lowest in [0, 5462, 10924].map(Slot) {
            let mut model = Model::three();
            model.hear(lowest, if lowest == Slot(5462) { 0 } else { 1 });
            let (mut seen, mut cursor) = model.scan(0, 20);
            while cursor != 0 {
                let (slots, next) = model.scan(cursor, 20);
                seen.extend(slots);
                cursor = next;
            }
            seen.push(lowest);
            assert_eq!(BTreeSet::from_iter(seen), sampled().into_iter().chain([lowest]).collect());
        }
    }

    /// The slot moves, and the command is redirected with the old owner's cursor.
    #[test]
    fn another_nodes_cursor_is_not_used() {
        let model = Model::three();
        let (_, cursor) = model.scan(0, 10);
        let scan = Scan::begin(cursor.to_string().as_bytes(), UpstreamSet::ALL, &model).unwrap();
        assert_eq!(scan.cursor, 10);
        let next = scan.next(30, 2, &model).unwrap();
        let again = Scan::begin(next.to_string().as_bytes(), UpstreamSet::ALL, &model).unwrap();
        assert_eq!((again.slot, again.cursor), (Slot(0), 0));
        // The end of another node's scan is not the end of the shard's.
        let next = scan.next(0, 2, &model).unwrap();
        let again = Scan::begin(next.to_string().as_bytes(), UpstreamSet::ALL, &model).unwrap();
        assert_eq!((again.slot, again.cursor), (Slot(0), 0));
        // At the start any node's answer is valid, and covers the slot.
        let scan = Scan::begin(b"0", UpstreamSet::ALL, &model).unwrap();
        let next = scan.next(0, 2, &model).unwrap();
        let again = Scan::begin(next.to_string().as_bytes(), UpstreamSet::ALL, &model).unwrap();
        assert_eq!((again.slot, again.cursor), (Slot(1), 0));
    }

    #[test]
    fn a_scan_of_some_upstreams_leaves_the_others_out() {
        // A cluster of three shards, a single server, and another cluster of two shards.
        let second = usize::from(SLOTS);
        let slots: Vec<u16> = (0..2 * SLOTS + 1)
            .map(|slot| match usize::from(slot) {
                slot if slot < second => slot as u16 / 5462,
                slot if slot == second => 3,
                slot => 4 + u16::from(slot > second + 8000),
            })
            .collect();
        let scanned = |wanted: fn(usize) -> bool| {
            let mut model = Model::new(slots.clone());
            model.layout = Layout::of(&slots, 0, |slot| wanted(slot.at()));
            let (mut cursor, mut shards) = (0, Vec::new());
            loop {
                let text = cursor.to_string();
                let scan = Scan::begin(text.as_bytes(), UpstreamSet::ALL, &model).unwrap();
                shards.push(model.shard(scan.slot));
                let node = model.owner(scan.slot).unwrap();
                cursor = scan.next(0, node, &model).unwrap();
                if cursor == 0 {
                    return shards;
                }
            }
        };
        assert_eq!(scanned(|_| true), [0, 1, 2, 3, 4, 5]);
        assert_eq!(scanned(|slot| slot < 16384), [0, 1, 2]);
        assert_eq!(scanned(|slot| slot == 16384), [3]);
        assert_eq!(scanned(|slot| slot != 16384), [0, 1, 2, 4, 5]);
        assert_eq!(scanned(|slot| slot > 16384), [4, 5]);
        // A cursor that leads to an upstream that is not the client's.
        let whole = Model::new(slots.clone());
        let scan = Scan::begin(b"0", UpstreamSet::ALL, &whole).unwrap();
        let cursor = scan.next(7, whole.owner(Slot(0)).unwrap(), &whole).unwrap().to_string();
        assert!(Scan::begin(cursor.as_bytes(), UpstreamSet::ALL, &whole).is_some());
        let mut other = Model::new(slots);
        other.layout = Layout::of(&other.shards, 0, |slot| slot.at() == second);
        assert_eq!(Scan::begin(cursor.as_bytes(), UpstreamSet::ALL, &other), None);
    }

    #[test]
    fn rejects_invalid_cursors() {
        let model = Model::three();
        for text in ["x", "1x", " 1", "-1", "1", "16383", "99999999999999999999999"] {
            assert_eq!(Scan::begin(text.as_bytes(), UpstreamSet::ALL, &model), None, "{text}");
        }
        let too_large = Cursor { node: 1 << 39, careful: false, mark: 1, slot: Slot(0) };
        assert_eq!(too_large.encode(SLOT_BITS), None);
    }

    proptest! {
        #[test]
        fn cursors_read_back(
            node in 0u64..1 << 39, careful: bool, mark in 1u16..1024, slot in 0u16..SLOTS,
        ) {
            let cursor = Cursor { node, careful, mark, slot: Slot(slot) };
            let number = cursor.encode(SLOT_BITS).expect("room");
            prop_assert_ne!(number, 0);
            prop_assert_eq!(Cursor::decode(number, SLOT_BITS), Some(cursor));
        }

        #[test]
        fn arbitrary_cursors_never_panic(text in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = Scan::begin(&text, UpstreamSet::ALL, &Model::three());
        }

        /// Whatever changes, every slot that stayed with its shard is returned, and the scan ends.
        #[test]
        fn keys_that_did_not_move_are_returned(
            pieces in proptest::collection::vec((0u16..6, 1u16..3000), 1..12),
            changes in proptest::collection::vec((0usize..40, any::<bool>(), 0u16..SLOTS, 0u16..6), 0..12),
            page in 1usize..60,
        ) {
            let mut shards: Vec<u16> = Vec::new();
            for (shard, len) in pieces {
                shards.extend(std::iter::repeat_n(shard, usize::from(len)));
            }
            shards.resize(usize::from(SLOTS), 0);
            // Each of the six shards has a slot.
            shards[usize::from(SLOTS) - 1] = 5;
            let mut model = Model::new(shards);
            let (mut cursor, mut seen, mut moved) = (0, BTreeSet::new(), BTreeSet::new());
            let mut changes = changes;
            changes.sort();
            let mut changes = changes.into_iter().peekable();
            let mut calls = 0;
            loop {
                let before = (model.layout.hash, Cursor::decode(cursor, SLOT_BITS).map(|c| model.owner(c.slot)));
                while let Some((_, failover, slot, shard)) = changes.next_if(|c| c.0 <= calls) {
                    if failover {
                        model.primary[usize::from(shard)] += 10;
                    } else {
                        // Often one of the sampled slots.
                        let slot = Slot(slot / 64 * 64);
                        model.change(slot, shard);
                        moved.insert(slot);
                    }
                }
                // The mark has ten bits: one change in a thousand goes unnoticed.
                let scan = Scan::begin(cursor.to_string().as_bytes(), UpstreamSet::ALL, &model).expect("a cursor");
                let owner = Cursor::decode(cursor, SLOT_BITS).map(|c| model.owner(c.slot));
                let layout_unseen = !scan.careful && before.0 != model.layout.hash;
                let owner_unseen = scan.cursor != 0 && before.1 != owner;
                prop_assume!(cursor == 0 || !(layout_unseen || owner_unseen));
                let (slots, next) = model.scan(cursor, page);
                seen.extend(slots);
                cursor = next;
                calls += 1;
                prop_assert!(calls < 20_000, "it does not end");
                if cursor == 0 {
                    break;
                }
            }
            let stayed: BTreeSet<Slot> = sampled().difference(&moved).copied().collect();
            let missed: Vec<_> = stayed.difference(&seen).collect();
            prop_assert!(missed.is_empty(), "missed {missed:?}");
        }
    }
}
