//! Coverage of slots by a snapshot, and descriptions of the changes between two snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Node, NodeAddr, Role, Slot, Snapshot};

/// Maximum number of described changes: replacing a whole cluster must not log a thousand lines.
const MAX_CHANGES: usize = 24;

/// A range of slots, both ends included. Displayed like in Redis: `0-5460`, or `7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub start: u16,
    /// The last slot.
    pub end: u16,
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}

/// The slots in ranges.
fn ranges(slots: impl Iterator<Item = Slot>) -> Vec<SlotRange> {
    let mut found: Vec<SlotRange> = Vec::new();
    for Slot(slot) in slots {
        match found.last_mut() {
            Some(last) if last.end + 1 == slot => last.end = slot,
            _ => found.push(SlotRange { start: slot, end: slot }),
        }
    }
    found
}

impl Snapshot {
    /// All slots, in ascending order.
    pub fn each_slot(&self) -> impl ExactSizeIterator<Item = Slot> + DoubleEndedIterator + Clone {
        Slot::first(self.slots.len())
    }

    /// The first slot of each shard; `None`: it has none.
    pub fn first_slots(&self) -> Vec<Option<Slot>> {
        let mut first = vec![None; self.shards.len()];
        for (&shard, slot) in self.slots.iter().zip(self.each_slot()) {
            if let Some(place) = first.get_mut(usize::from(shard)) {
                place.get_or_insert(slot);
            }
        }
        first
    }

    /// Number of slots whose primary is not failed.
    pub fn slots_covered(&self) -> usize {
        self.each_slot().filter(|&slot| self.primary_of(slot).is_some()).count()
    }

    /// Whether every slot has a primary that is not failed.
    pub fn covered(&self) -> bool {
        self.slots_covered() == self.slots.len()
    }

    /// The slots without such a primary.
    pub fn missing_slots(&self) -> Vec<SlotRange> {
        ranges(self.each_slot().filter(|&slot| self.primary_of(slot).is_none()))
    }

    /// Whether each shard owns slots. One that does not is excluded from "every primary": it has no
    /// keys, and its node may already have become a replica of another.
    pub fn shards_with_slots(&self) -> Vec<bool> {
        let mut owning = vec![false; self.shards.len()];
        for &shard in &self.slots {
            if let Some(owns) = owning.get_mut(usize::from(shard)) {
                *owns = true;
            }
        }
        owning
    }

    /// The primaries that own slots, once each.
    pub fn slot_primaries(&self) -> Vec<&Node> {
        let owning = self.shards.iter().zip(self.shards_with_slots()).filter(|(_, owns)| *owns);
        owning.filter_map(|(shard, _)| self.nodes.get(shard.primary? as usize)).collect()
    }

    /// Whether both snapshots are equal except for their generation.
    pub fn same_as(&self, other: &Snapshot) -> bool {
        self.nodes == other.nodes && self.shards == other.shards && self.slots == other.slots
    }
}

/// Describes the differences of `new` for the log, one per line: nodes added, removed, promoted,
/// demoted, lost or back, slots moved. Empty: nothing noteworthy.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut changes = Vec::new();
    let before = by_identity(old);
    let after = by_identity(new);
    for (identity, node) in &after {
        let Some(was) = before.get(identity) else {
            changes.push(format!("node {} added ({})", node.addr, word(node.role)));
            continue;
        };
        if was.addr != node.addr {
            changes.push(format!("node {} is now at {}", was.addr, node.addr));
        }
        match (was.role, node.role) {
            (Role::Replica, Role::Primary) => {
                changes.push(format!("node {} promoted to primary", node.addr));
            }
            (Role::Primary, Role::Replica) => {
                changes.push(format!("node {} is a replica now", node.addr));
            }
            _ => {}
        }
        match (was.is_online(), node.is_online()) {
            (true, false) => changes.push(format!("node {} is not online", node.addr)),
            (false, true) => changes.push(format!("node {} is online", node.addr)),
            _ => {}
        }
        if was.socket != node.socket && was.addr == node.addr {
            changes.push(match node.socket {
                Some(socket) => format!("{} is {} now", node.addr.host, socket.ip()),
                None => format!("{} does not resolve", node.addr.host),
            });
        }
    }
    for (identity, node) in &before {
        if !after.contains_key(identity) {
            changes.push(format!("node {} removed ({})", node.addr, word(node.role)));
        }
    }
    changes.extend(moved_slots(old, new));
    let more = changes.len().saturating_sub(MAX_CHANGES);
    if more > 0 {
        changes.truncate(MAX_CHANGES);
        changes.push(format!("and {more} changes more"));
    }
    changes
}

/// Nodes by ID, or by address if they have none: a node with a new address is the same node.
fn by_identity(snapshot: &Snapshot) -> BTreeMap<String, &Node> {
    let identity = |n: &Node| if n.id.is_empty() { n.addr.to_string() } else { n.id.to_string() };
    snapshot.nodes.iter().map(|n| (identity(n), n)).collect()
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

/// Descriptions such as `slots 0-99, 200 moved from a:1 to b:2`, one per pair of owners.
fn moved_slots(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    type Owner<'a> = Option<&'a NodeAddr>;
    let owners = |slot: Slot| -> (Owner, Owner) {
        (old.primary_of(slot).map(|n| &n.addr), new.primary_of(slot).map(|n| &n.addr))
    };
    let pairs: BTreeSet<(Owner, Owner)> =
        new.each_slot().map(owners).filter(|(from, to)| from != to).collect();
    // There are few pairs of owners in practice; otherwise only the first ones are described, to
    // bound the work.
    pairs
        .into_iter()
        .take(MAX_CHANGES + 1)
        .map(|pair| {
            let slots = listed(&ranges(new.each_slot().filter(|&slot| owners(slot) == pair)));
            match pair {
                (None, Some(to)) => format!("slots {slots} are served by {to}"),
                (Some(from), None) => format!("slots {slots} lost their primary {from}"),
                (Some(from), Some(to)) => format!("slots {slots} moved from {from} to {to}"),
                (None, None) => String::new(),
            }
        })
        .collect()
}

/// The ranges as text: the first 16, and the number of the others.
pub fn listed(ranges: &[SlotRange]) -> String {
    const MAX_SHOWN: usize = 16;
    let mut text: Vec<String> = ranges.iter().take(MAX_SHOWN).map(ToString::to_string).collect();
    if ranges.len() > MAX_SHOWN {
        text.push(format!("and {} ranges more", ranges.len() - MAX_SHOWN));
    }
    text.join(", ")
}
