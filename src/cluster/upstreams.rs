//! Several upstreams behind one address: where the slots of each lie in the one range of slots
//! that workers know, and which keys belong to which. No I/O.
//!
//! A cluster has 16384 slots, a single server one. They are numbered one upstream after the
//! other, so that whatever deals with slots (holds, retries, splitting, SCAN) deals with several
//! upstreams as it does with one. With one upstream the numbers are those of its cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{NO_SHARD, Node, NodeAddr, Shard, Slot, SlotSpace, Snapshot, UpstreamId};

/// What an upstream is, as far as its slots are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCount {
    /// A cluster.
    Cluster,
    /// A single server, watched by Sentinels or not.
    One,
}

/// The upstreams need more slots than there are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "at most {clusters} clusters can be served at once, and {all} upstreams in all",
    clusters = SlotMap::MAX_CLUSTERS,
    all = UpstreamId::MAX
)]
pub struct TooManyUpstreams;

/// Where the slots of each upstream lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    spaces: Box<[SlotSpace]>,
}

impl Default for SlotMap {
    /// One cluster.
    fn default() -> Self {
        SlotMap { spaces: [SlotSpace::CLUSTER].into() }
    }
}

impl SlotMap {
    /// Limit on clusters: slots are numbered with 16 bits.
    pub const MAX_CLUSTERS: usize = 3;

    /// The map of these upstreams.
    ///
    /// # Errors
    /// There are more than [`UpstreamId::MAX`], or more than [`SlotMap::MAX_CLUSTERS`] clusters.
    pub fn new(upstreams: &[SlotCount]) -> Result<SlotMap, TooManyUpstreams> {
        let clusters = upstreams.iter().filter(|count| **count == SlotCount::Cluster).count();
        if clusters > Self::MAX_CLUSTERS || upstreams.len() > UpstreamId::MAX {
            return Err(TooManyUpstreams);
        }
        // One server alone answers for all numbers that a cluster has, as its topology does.
        let mut base = 0;
        let spaces = upstreams.iter().map(|count| {
            let kind = match count {
                SlotCount::Cluster => SlotSpace::CLUSTER,
                SlotCount::One => SlotSpace::ONE,
            };
            let space = kind.from(base);
            base += space.len();
            space
        });
        Ok(SlotMap { spaces: spaces.collect() })
    }

    /// Number of upstreams.
    pub fn upstreams(&self) -> usize {
        self.spaces.len()
    }

    /// The slots of an upstream; those of the first where there is no such upstream.
    pub fn space(&self, upstream: UpstreamId) -> SlotSpace {
        let space = self.spaces.get(upstream.at()).or(self.spaces.first());
        space.copied().unwrap_or(SlotSpace::CLUSTER)
    }

    /// The upstream that the slot belongs to.
    pub fn upstream_of(&self, slot: Slot) -> UpstreamId {
        let after = self.spaces.partition_point(|space| space.first().0 <= slot.0);
        UpstreamId(after.saturating_sub(1) as u8)
    }

    /// The upstream of a slot, or of what stands for the slot of a command without keys.
    pub fn owner_of(&self, slot: Slot) -> UpstreamId {
        slot.keyless_of().unwrap_or_else(|| self.upstream_of(slot))
    }

    /// One topology of all upstreams, given that of each in the order of the map. Of several the
    /// generation is 0; with one upstream it is that one's topology.
    ///
    /// An address belongs to one upstream: logins and TLS go by it. If several upstreams list it, as
    /// when a server has got the address of one that has failed elsewhere, it belongs to the first
    /// that calls it online, and the others do without it.
    pub fn compose(&self, parts: &[Arc<Snapshot>]) -> Arc<Snapshot> {
        if let [only] = parts {
            return Arc::clone(only);
        }
        let mut whole = Snapshot { slots: Box::default(), ..Snapshot::empty() };
        let mut slots = Vec::new();
        let mut owners: BTreeMap<&NodeAddr, (bool, usize)> = BTreeMap::new();
        for (i, part) in parts.iter().enumerate() {
            for node in &part.nodes {
                let owner = owners.entry(&node.addr).or_insert((node.is_online(), i));
                if node.is_online() && !owner.0 {
                    *owner = (true, i);
                }
            }
        }
        for (i, part) in parts.iter().enumerate() {
            let upstream = UpstreamId(i as u8);
            let first_shard = whole.shards.len() as u16;
            let mut places: Vec<Option<u16>> = Vec::with_capacity(part.nodes.len());
            for node in &part.nodes {
                let is_its = owners.get(&node.addr).is_some_and(|(_, owner)| *owner == i);
                places.push(is_its.then_some(whole.nodes.len() as u16));
                if is_its {
                    whole.nodes.push(Node { upstream, ..node.clone() });
                }
            }
            let place = |node: &u16| places.get(usize::from(*node)).copied().flatten();
            whole.shards.extend(part.shards.iter().map(|shard| Shard {
                primary: shard.primary.as_ref().and_then(place),
                replicas: shard.replicas.iter().filter_map(place).collect(),
            }));
            let own = part.slots.iter().take(usize::from(self.space(upstream).len()));
            slots.extend(own.map(|&shard| match shard {
                NO_SHARD => NO_SHARD,
                shard => first_shard + shard,
            }));
        }
        whole.slots = slots.into();
        Arc::new(whole)
    }
}

/// Which upstream's slots a key is in, by the longest prefix that it begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRoutes {
    /// Sorted by prefix.
    routes: Box<[KeyRoute]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyRoute {
    prefix: Box<[u8]>,
    space: SlotSpace,
    /// The longest other prefix that this one begins with.
    within: Option<u32>,
}

impl KeyRoutes {
    /// Routes by these prefixes; of two with the same prefix the last counts.
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a [u8], SlotSpace)>) -> KeyRoutes {
        let sorted: std::collections::BTreeMap<&[u8], SlotSpace> = routes.into_iter().collect();
        let mut all: Vec<KeyRoute> = Vec::with_capacity(sorted.len());
        for (prefix, space) in sorted {
            // What the one before it is within may hold this one as well.
            let mut within = all.len().checked_sub(1);
            while let Some(route) = within.and_then(|at| all.get(at)) {
                if prefix.starts_with(&route.prefix) {
                    break;
                }
                within = route.within.map(|at| at as usize);
            }
            let within = within.map(|at| at as u32);
            all.push(KeyRoute { prefix: prefix.into(), space, within });
        }
        KeyRoutes { routes: all.into() }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The slots that `key` is among; `None`: no prefix fits.
    pub fn space_of(&self, key: &[u8]) -> Option<SlotSpace> {
        // A prefix of the key sorts before it, and whatever lies between begins with that prefix.
        let after = self.routes.partition_point(|route| *route.prefix <= *key);
        let mut at = after.checked_sub(1);
        while let Some(route) = at.and_then(|at| self.routes.get(at)) {
            if key.starts_with(&route.prefix) {
                return Some(route.space);
            }
            at = route.within.map(|at| at as usize);
        }
        None
    }

    /// Whether a prefix begins with `start` and is longer.
    pub fn is_below(&self, start: &[u8]) -> bool {
        self.routes.iter().any(|r| r.prefix.starts_with(start) && r.prefix.len() > start.len())
    }

    /// The prefix that decides on `key`, for messages.
    pub fn prefix_of(&self, key: &[u8]) -> Option<&[u8]> {
        let fits = self.routes.iter().filter(|route| key.starts_with(&route.prefix));
        fits.map(|route| &*route.prefix).max_by_key(|prefix| prefix.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::server::snapshot_of;
    use crate::cluster::{NodeAddr, NodeState, slot_of};

    fn addr(port: u16) -> NodeAddr {
        NodeAddr { host: "127.0.0.1".into(), port }
    }

    /// One server with a replica.
    fn server(port: u16) -> Arc<Snapshot> {
        let replicas = [(addr(port + 1), NodeState::Online)];
        Arc::new(snapshot_of(Some(&addr(port)), &replicas, |_| "".into()))
    }

    /// A cluster of two shards.
    fn cluster(port: u16) -> Arc<Snapshot> {
        let (mut a, b) = ((*server(port)).clone(), (*server(port + 10)).clone());
        a.nodes.extend(b.nodes.iter().cloned());
        a.shards.push(Shard { primary: Some(2), replicas: vec![3] });
        for slot in a.slots.iter_mut().skip(8192) {
            *slot = 1;
        }
        a.slots[16383] = NO_SHARD;
        Arc::new(a)
    }

    #[test]
    fn the_slots_of_upstreams_follow_each_other() {
        use SlotCount::{Cluster, One};
        let map = SlotMap::new(&[Cluster, One, Cluster, One]).unwrap();
        assert_eq!(map.upstreams(), 4);
        let firsts: Vec<u16> = (0..4).map(|i| map.space(UpstreamId(i)).first().0).collect();
        assert_eq!(firsts, [0, 16384, 16385, 32769]);
        let owner = |slot| map.upstream_of(Slot(slot)).0;
        assert_eq!(
            [0, 16383, 16384, 16385, 32768, 32769].map(owner),
            [0, 0, 1, 2, 2, 3],
            "each slot has one upstream"
        );
        let owners =
            [Slot(16385), Slot::keyless(UpstreamId(1)), Slot::NONE].map(|s| map.owner_of(s).0);
        assert_eq!(owners, [2, 1, 0], "so has what stands for none");
        for key in [&b"a"[..], b"b", b"{a}b"] {
            assert_eq!(map.space(UpstreamId(0)).slot_of(key), slot_of(key));
            assert_eq!(map.space(UpstreamId(1)).slot_of(key), Slot(16384));
            assert_eq!(map.space(UpstreamId(2)).slot_of(key), Slot(16385 + slot_of(key).0));
        }
        assert_eq!(SlotMap::new(&[Cluster; 4]), Err(TooManyUpstreams));
        assert_eq!(SlotMap::new(&[One; 65]), Err(TooManyUpstreams));
        assert!(SlotMap::new(&[One; 64]).is_ok());
    }

    #[test]
    fn the_topologies_of_upstreams_become_one() {
        let map = SlotMap::new(&[SlotCount::Cluster, SlotCount::One, SlotCount::Cluster]).unwrap();
        let whole = map.compose(&[cluster(7000), server(7100), cluster(7200)]);
        assert_eq!(whole.nodes.len(), 4 + 2 + 4);
        assert_eq!(whole.slots.len(), 16384 + 1 + 16384);
        let primary = |slot| whole.primary_of(Slot(slot)).map(|n| (n.addr.port, n.upstream.0));
        assert_eq!(primary(0), Some((7000, 0)));
        assert_eq!(primary(16382), Some((7010, 0)));
        assert_eq!(primary(16383), None, "a slot without a shard");
        assert_eq!(primary(16384), Some((7100, 1)));
        assert_eq!(primary(16385), Some((7200, 2)));
        assert_eq!(primary(16385 + 8192), Some((7210, 2)));
        assert_eq!(whole.shards[2], Shard { primary: Some(4), replicas: vec![5] });
        // One upstream is what it is.
        let one = SlotMap::new(&[SlotCount::One]).unwrap();
        let alone = server(7000);
        assert!(Arc::ptr_eq(&one.compose(std::slice::from_ref(&alone)), &alone));
    }

    #[test]
    fn an_address_belongs_to_the_upstream_that_calls_it_online() {
        let map = SlotMap::new(&[SlotCount::One, SlotCount::One, SlotCount::One]).unwrap();
        // The replica of the first has failed, and its address is the primary of the second now.
        let gone = [(addr(7100), NodeState::Failed)];
        let first = Arc::new(snapshot_of(Some(&addr(7000)), &gone, |_| "".into()));
        let whole = map.compose(&[first, server(7100), server(7100)]);
        let nodes: Vec<_> = whole.nodes.iter().map(|n| (n.addr.port, n.upstream.0)).collect();
        assert_eq!(nodes, [(7000, 0), (7100, 1), (7101, 1)]);
        assert_eq!(whole.shards[0], Shard { primary: Some(0), replicas: vec![] });
        assert_eq!(whole.shards[1], Shard { primary: Some(1), replicas: vec![2] });
        assert_eq!(whole.shards[2], Shard::default());
        assert!(whole.primary_of(Slot(2)).is_none());
    }

    #[test]
    fn an_upstream_that_is_not_known_yet_has_slots_without_a_shard() {
        let map = SlotMap::new(&[SlotCount::One, SlotCount::Cluster]).unwrap();
        let whole = map.compose(&[server(7000), Arc::new(Snapshot::empty())]);
        assert_eq!(whole.slots.len(), 1 + 16384);
        assert!(whole.primary_of(Slot(0)).is_some() && whole.primary_of(Slot(1)).is_none());
    }

    fn space(number: usize) -> SlotSpace {
        SlotSpace::ONE.from(number as u16)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let prefixes = [&b"rq:"[..], b"rq:job:", b"r", b"session:", b"rq:a"];
        let routes = KeyRoutes::new(prefixes.iter().enumerate().map(|(i, p)| (*p, space(i))));
        let found = |key: &[u8]| routes.space_of(key).map(|space| usize::from(space.first().0));
        assert_eq!(found(b"rq:job:1"), Some(1));
        assert_eq!(found(b"rq:jo"), Some(0));
        assert_eq!(found(b"rq:job"), Some(0));
        assert_eq!(found(b"rq:b"), Some(0));
        assert_eq!(found(b"rp"), Some(2));
        assert_eq!(found(b"session:1"), Some(3));
        assert_eq!(found(b"session"), None);
        assert_eq!(found(b""), None);
        assert!(KeyRoutes::default().is_empty() && !routes.is_empty());
        let everything = KeyRoutes::new([(&b""[..], space(1))]);
        assert_eq!(everything.space_of(b""), Some(space(1)));
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_comparison_of_all_finds(
            prefixes in proptest::collection::vec("[ab]{0,5}", 0..20),
            key in "[abc]{0,8}",
        ) {
            let pairs = prefixes.iter().enumerate().map(|(i, p)| (p.as_bytes(), space(i)));
            let routes = KeyRoutes::new(pairs);
            let longest = prefixes
                .iter()
                .enumerate()
                .filter(|(_, p)| key.starts_with(p.as_str()))
                .max_by_key(|(i, p)| (p.len(), *i));
            let expected = longest.map(|(i, _)| space(i));
            prop_assert_eq!(routes.space_of(key.as_bytes()), expected);
            let prefix = longest.map(|(_, p)| p.as_bytes());
            prop_assert_eq!(routes.prefix_of(key.as_bytes()), prefix);
        }
    }
}
