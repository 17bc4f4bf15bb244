//! What one node says about the cluster: its CLUSTER NODES, parsed.
//!
//! Not [`crate::cluster`]'s parser: that one is under test here.

use crate::cluster::Role;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// A node of a sandbox as it was when asked for. The operations of [`super::Cluster`] know it by its
/// `id`, so an old one is as good as a new one for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The 40-character node ID.
    pub id: String,
    /// Where it listens for clients.
    pub addr: SocketAddr,
    /// Where it listens for other nodes.
    pub bus_port: u16,
    /// Its process; `None` while it is dead.
    pub pid: Option<u32>,
    /// Primary or replica.
    pub role: Role,
    /// The ID of the primary it copies.
    pub primary: Option<String>,
    /// The slots it owns; none for replicas.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl Node {
    /// Whether it is a primary.
    pub fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// How many slots it owns.
    pub fn slot_count(&self) -> usize {
        self.slots.iter().map(|range| range.len()).sum()
    }
}

/// One line of CLUSTER NODES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub id: String,
    pub role: Role,
    pub primary: Option<String>,
    /// Of two nodes that claim a slot, the one whose epoch is larger has it.
    pub epoch: u64,
    pub slots: Vec<RangeInclusive<u16>>,
    pub(super) myself: bool,
    /// Failed, maybe failed, in handshake or without an address.
    pub trouble: Option<String>,
}

/// All lines of CLUSTER NODES; a line it cannot make sense of is left out.
pub(super) fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(line).collect()
}

/// `<id> <ip:port@bus> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`
fn line(text: &str) -> Option<Line> {
    let mut words = text.split_whitespace();
    let id = words.next()?.to_owned();
    let flags: Vec<&str> = words.nth(1)?.split(',').collect();
    let primary = words.next().filter(|id| *id != "-").map(str::to_owned);
    let role = if flags.contains(&"master") { Role::Primary } else { Role::Replica };
    let trouble = ["fail", "fail?", "handshake", "noaddr"];
    let trouble = flags.iter().find(|flag| trouble.contains(flag)).map(|flag| flag.to_string());
    let epoch = words.nth(2)?.parse().ok()?;
    // Slots on the move stand in brackets: `[93->-id]`.
    let slots = words.skip(1).filter(|word| !word.starts_with('[')).filter_map(range).collect();
    Some(Line { id, role, primary, epoch, slots, myself: flags.contains(&"myself"), trouble })
}

fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let text = "\
            aa 127.0.0.1:30004@31004,host myself,slave bb 0 1426238317239 4 connected\n\
            bb 127.0.0.1:30002@31002 master - 0 14 2 connected 5461-10922 11000 [93->-aa]\n\
            cc :0@0 master,fail?,noaddr - 0 14 2 disconnected\n\
            \n";
        let lines = parse(text);
        let [replica, primary, failed] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((replica.role, replica.primary.as_deref()), (Role::Replica, Some("bb")));
        assert!(replica.myself && replica.slots.is_empty() && replica.trouble.is_none());
        assert_eq!(primary.slots, [5461..=10922, 11000..=11000]);
        assert_eq!((primary.role, &primary.primary, primary.myself), (Role::Primary, &None, false));
        assert_eq!([replica.epoch, primary.epoch], [4, 2]);
        assert_eq!(failed.trouble.as_deref(), Some("fail?"));
    }
}
