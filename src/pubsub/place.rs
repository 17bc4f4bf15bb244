//! The home node of a channel or pattern, at which it is subscribed and published: chosen by
//! rendezvous hashing, and the same in every worker of every slotway. Any node would do, since a
//! cluster forwards ordinary messages to all nodes; but if publishers and subscribers meet at one
//! node, messages do not have to cross the cluster bus and cannot overtake each other.

use crate::cluster::NodeAddr;

/// Hash of a name (FNV-1a, 64 bits).
pub fn hash(name: &[u8]) -> u64 {
    name.iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Hash of a node's address, never 0.
pub fn ident(addr: &NodeAddr) -> u64 {
    mix(hash(addr.host.as_bytes()) ^ u64::from(addr.port)).max(1)
}

/// Rank of a node (by its [`ident`]) for a name (by its [`hash`]). The node with the highest rank
/// is the home, so that a node that joins or leaves moves only its own share.
#[inline]
pub fn rank(name: u64, node: u64) -> u64 {
    mix(name ^ node)
}

/// Mixes all bits (the finalizer of SplitMix64).
#[inline]
fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ports: std::ops::Range<u16>) -> Vec<u64> {
        ports.map(|port| ident(&NodeAddr { host: "127.0.0.1".into(), port })).collect()
    }

    fn home(name: &str, nodes: &[u64]) -> u64 {
        let name = hash(name.as_bytes());
        *nodes.iter().max_by_key(|&&node| rank(name, node)).unwrap()
    }

    #[test]
    fn names_spread_evenly() {
        let nodes = nodes(7000..7005);
        let mut counts = [0; 5];
        for i in 0..5000 {
            let home = home(&format!("channel:{i}"), &nodes);
            counts[nodes.iter().position(|&n| n == home).unwrap()] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_removed_node_moves_only_its_share() {
        let (all, fewer) = (nodes(7000..7005), nodes(7000..7004));
        for i in 0..1000 {
            let name = format!("channel:{i}");
            let before = home(&name, &all);
            assert!(before == all[4] || before == home(&name, &fewer));
        }
    }
}
