//! A parser for CLUSTER NODES.
//!
//! It is independent of [`crate::cluster`]'s parser, which the sandbox is used to test.

use crate::cluster::Role;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// A node of a sandbox at the time of the call. The operations of [`super::Cluster`] identify a
/// node by its `id`, so an outdated value will do for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The 40-character node ID.
    pub id: String,
    /// Its address for clients.
    pub addr: SocketAddr,
    /// Its port for other nodes.
    pub bus_port: u16,
    /// Its process ID; `None` while it is dead.
    pub pid: Option<u32>,
    /// Primary or replica.
    pub role: Role,
    /// The ID of its primary, if it is a replica.
    pub primary: Option<String>,
    /// The slots it owns; none for replicas.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl Node {
    /// Whether it is a primary.
    pub fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// The number of slots that it owns.
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
    /// The configuration epoch: of two nodes that claim a slot, the one with the larger epoch owns
    /// it.
    pub epoch: u64,
    pub slots: Vec<RangeInclusive<u16>>,
    /// Whether this is the node that answered.
    pub(super) myself: bool,
    /// The flag of a node that has failed, may have failed, is in handshake or has no address.
    pub problem: Option<String>,
}

/// All lines of CLUSTER NODES, without those that cannot be parsed.
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
    let problems = ["fail", "fail?", "handshake", "noaddr"];
    let problem = flags.iter().find(|flag| problems.contains(flag)).map(|flag| flag.to_string());
    let epoch = words.nth(2)?.parse().ok()?;
    // Slots that are being moved are in brackets: `[93->-id]`.
    let slots = words.skip(1).filter(|word| !word.starts_with('[')).filter_map(range).collect();
    Some(Line { id, role, primary, epoch, slots, myself: flags.contains(&"myself"), problem })
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
        assert!(replica.myself && replica.slots.is_empty() && replica.problem.is_none());
        assert_eq!(primary.slots, [5461..=10922, 11000..=11000]);
        assert_eq!((primary.role, &primary.primary, primary.myself), (Role::Primary, &None, false));
        assert_eq!([replica.epoch, primary.epoch], [4, 2]);
        assert_eq!(failed.problem.as_deref(), Some("fail?"));
    }
}
