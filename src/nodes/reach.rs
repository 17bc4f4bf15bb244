//! Which nodes there are, and which of them are reached.

use crate::cluster::{NodeAddr, Slot, UpstreamId, UpstreamSet};
use crate::common::Core;
use crate::dest::{ConnId, NodeId};
use crate::metrics::NodeStats;
use crate::nodes::{Node, Nodes};
use crate::placement::Refusal;
use crate::upstream::ConnectionState;

impl Nodes {
    #[inline]
    pub(crate) fn route(&self, slot: Slot) -> Option<NodeId> {
        self.placement.slots.route(slot)
    }

    /// The primaries with slots of these upstreams, in the order of the topology.
    pub(crate) fn primaries_of(
        &self,
        upstreams: UpstreamSet,
    ) -> impl Iterator<Item = NodeId> + Clone {
        let all = self.placement.slots.primaries().iter().copied();
        all.filter(move |&node| upstreams.contains(self.upstream_of(node)))
    }

    /// The upstream that the node belongs to.
    pub(crate) fn upstream_of(&self, node: NodeId) -> UpstreamId {
        self.list.get(node.at()).map_or(UpstreamId::FIRST, |node| node.upstream)
    }

    /// The upstream that the connection belongs to; `None`: there is no such connection or node.
    pub(crate) fn upstream_behind(&self, conn: ConnId) -> Option<UpstreamId> {
        let up = self.upstreams.get(conn)?;
        self.list.get(up.node.at()).map(|node| node.upstream)
    }

    /// A primary for a command without keys, whose slot is `keyless`: the same for the same client,
    /// so that what it sends one after the other is answered in that order; another one only while
    /// that one is not reached.
    pub(crate) fn any_primary(&self, index: usize, keyless: Slot) -> Option<NodeId> {
        let upstream = keyless.keyless_of().unwrap_or_default();
        let all = self.primaries_of([upstream].into_iter().collect());
        let count = all.clone().count();
        let first = index.checked_rem(count)?;
        let in_turn = all.cycle().skip(first).take(count);
        let reached = in_turn.clone().find(|&node| self.is_reached(node));
        reached.or_else(|| in_turn.clone().next())
    }

    /// No connection to it is waiting for its next attempt, or for a sign of life.
    pub(crate) fn is_reached(&self, node: NodeId) -> bool {
        let shared = self.list.get(node.at()).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.all(|&conn| {
            self.upstreams
                .get(conn)
                .is_none_or(|up| up.state != ConnectionState::Backoff && !up.suspect)
        })
    }

    /// A shared connection to the node stands, and is not suspected of being dead.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        let shared = self.list.get(node.at()).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.any(|&conn| {
            self.upstreams
                .get(conn)
                .is_some_and(|up| up.state == ConnectionState::Ready && !up.suspect)
        })
    }

    /// The node that a redirection of `refuser` names, if it belongs to the same upstream: a script
    /// can make a node reply with anything.
    pub(crate) fn named_by(&self, refusal: &Refusal, refuser: NodeId) -> Option<NodeId> {
        let of = self.upstream_of(refuser);
        match refusal {
            Refusal::Moved(_, addr) | Refusal::Ask(_, addr) => {
                self.known_node(addr).filter(|&named| self.upstream_of(named) == of)
            }
            Refusal::Later(_) => None,
        }
    }

    /// The node at `addr`, if the cluster has it. Only such nodes are connected to: a redirection
    /// comes in a reply, and a script can make a node reply with anything.
    pub(crate) fn known_node(&self, addr: &NodeAddr) -> Option<NodeId> {
        let at = self.list.iter().position(|n| n.known && n.addr == *addr)?;
        Some(NodeId::new(at))
    }

    /// The worker's index of the node at `addr`; a new one if it is not known yet.
    pub(crate) fn node_at(&mut self, addr: &NodeAddr, core: &mut Core) -> NodeId {
        if let Some(i) = self.list.iter().position(|n| n.addr == *addr) {
            return NodeId::new(i);
        }
        // An IP address needs no name server; a name is resolved by control, with the topology.
        let ip: Option<std::net::IpAddr> = addr.host.parse().ok();
        // The last one is for large transfers.
        let connections = core.settings.connections + 1;
        let node = Node {
            addr: addr.clone(),
            ident: crate::pubsub::ident(addr),
            name: addr.host.clone(),
            id: "".into(),
            socket: ip.map(|ip| (ip, addr.port).into()),
            known: false,
            unreached_since: 0,
            shard_slot: Slot::NONE,
            upstream: UpstreamId::FIRST,
            slots: core.router.views().map().space(UpstreamId::FIRST),
            shared: [vec![None; connections], vec![None; connections]],
            replica: [vec![None; connections], vec![None; connections]],
            latency: Default::default(),
        };
        let lent_from = |i: usize| self.upstreams.iter().any(|(_, up)| up.node.at() == i);
        let mut unused = self.list.iter().enumerate().filter(|(_, n)| !n.known && n.is_unused());
        let free = unused.find(|(i, _)| !lent_from(*i)).map(|(i, _)| i);
        match free.and_then(|i| self.list.get_mut(i).map(|n| (i, n))) {
            Some((i, place)) => {
                *place = node;
                if let Some(stats) = core.stats.nodes.get_mut(i) {
                    *stats = NodeStats::default();
                }
                NodeId::new(i)
            }
            None => {
                self.list.push(node);
                core.stats.nodes.resize(self.list.len(), NodeStats::default());
                NodeId::new(self.list.len() - 1)
            }
        }
    }
}

impl Node {
    /// No connection is kept for it.
    pub(crate) fn is_unused(&self) -> bool {
        self.shared.iter().chain(&self.replica).flatten().all(Option::is_none)
    }
}
