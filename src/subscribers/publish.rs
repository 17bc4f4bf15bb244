//! PUBLISH and PUBSUB: where they go, and what is counted.

use crate::channel::{TopicKind, matches};
use crate::cluster::UpstreamId;
use crate::common::Core;
use crate::dest::NodeId;
use crate::nodes::{Node, Nodes};
use crate::pubsub::{Topic, hash, rank};
use crate::resp::reply::{elements, integer};
use crate::resp::{Args, Request, RequestProgress, scan_request, write};
use crate::route::{OwnSubscriptions, PendingFlags, publish_count};
use crate::subscribers::Subscribers;
use crate::upstream::Pending;

/// PUBLISH, not in a batch: any node takes it.
pub(crate) fn is_lone_publish(pending: &Pending) -> bool {
    pending.flags.contains(PendingFlags::PUBLISHES)
        && pending.before == 0
        && pending.slot.is_keyless()
}

impl Subscribers {
    /// Where messages for `channel` of an upstream are published.
    pub(crate) fn publish_node(
        &self,
        of: UpstreamId,
        channel: &[u8],
        nodes: &Nodes,
    ) -> Option<NodeId> {
        let home = self.home_of(of, channel);
        let ident = |node: NodeId| nodes.list.get(node.at()).map_or(0, |n| n.ident);
        if home != 0 {
            // It need not be a primary any more. Nor need it be reached at the moment: as long as
            // the hub has the topic there, it is waited for, because nodes answer PUBLISH before
            // they have told the others, and a message sent elsewhere could overtake.
            let ours = |n: &Node| n.known && n.ident == home && n.upstream == of;
            let found = nodes.list.iter().position(ours);
            if let Some(node) = found {
                return Some(NodeId::new(node));
            }
        }
        let name = hash(channel);
        let best = |reached: bool| {
            let ours = nodes.primaries_of([of].into_iter().collect());
            let fit = ours.filter(|&n| !reached || nodes.is_reached(n));
            fit.max_by_key(|&node| rank(name, ident(node)))
        };
        best(true).or_else(|| best(false))
    }

    /// Where slotway itself hears what is published at `channel`; 0: nowhere. Without a subscriber
    /// of its own that is a pattern's home, which stays where it is when primaries change. Were it
    /// published at whoever is primary, a message to a node that has just been demoted could be
    /// overtaken by the next one to another: nodes answer before they have told the others.
    fn home_of(&self, of: UpstreamId, channel: &[u8]) -> u64 {
        match self.topics.known(of, TopicKind::Channel, channel).map_or(0, Topic::home) {
            0 => {
                let patterns = self.topics.all_known(of, TopicKind::Pattern);
                let patterns = patterns.filter(|t| t.home() != 0);
                let fit = patterns.filter(|t| matches(&t.name, channel));
                // The same in every worker, so that it does not matter whose client publishes; and
                // by name, so that the others' homes may change without a message overtaking.
                fit.min_by_key(|t| (hash(&t.name), &t.name)).map_or(0, Topic::home)
            }
            home => home,
        }
    }

    /// The same for a command's bytes that come back from a node that is not reached.
    pub(crate) fn publish_node_of(
        &self,
        of: UpstreamId,
        frame: &[u8],
        nodes: &Nodes,
        core: &Core,
    ) -> Option<NodeId> {
        let mut ranges = Vec::new();
        let limits = &core.settings.accepted;
        match scan_request(frame, limits, &mut RequestProgress::default(), &mut ranges) {
            Ok(Request::Array { .. }) => {
                let args = Args::new(frame, &ranges);
                self.publish_node(of, args.get(1).unwrap_or_default(), nodes)
            }
            _ => None,
        }
    }

    /// What this process has to do with a channel of an upstream, whatever the node; with an empty
    /// name with all patterns.
    pub(crate) fn own_part(
        &self,
        of: UpstreamId,
        kind: TopicKind,
        name: &[u8],
    ) -> OwnSubscriptions {
        if kind == TopicKind::Pattern && name.is_empty() {
            let patterns = || self.topics.all_known(of, TopicKind::Pattern);
            return OwnSubscriptions {
                subscribers: patterns().filter(|t| t.subscribers() > 0).count(),
                upstream: patterns().map(|t| t.upstream()).sum(),
            };
        }
        let topic = self.topics.known(of, kind, name);
        topic.map_or_else(OwnSubscriptions::default, |topic| OwnSubscriptions {
            subscribers: topic.subscribers(),
            upstream: topic.upstream(),
        })
    }

    /// What this process has to do with a message published at `node` that was sent at `time`.
    fn own_receivers(
        &self,
        kind: TopicKind,
        channel: &[u8],
        (of, node): (UpstreamId, u64),
        time: u64,
    ) -> OwnSubscriptions {
        let mut own = OwnSubscriptions::default();
        let mut add = |topic: &Topic| {
            own.subscribers += topic.subscribers_at(time);
            // At every primary, at one node that is its home, or (0) it is not said where.
            let home = topic.home();
            let there = home == 0 || home == node || topic.upstream() > 1;
            own.upstream += usize::from(there && topic.upstream() > 0);
        };
        if let Some(topic) = self.topics.known(of, kind, channel) {
            add(topic);
        }
        if kind == TopicKind::Channel {
            let patterns = self.topics.all_known(of, TopicKind::Pattern);
            patterns.filter(|topic| matches(&topic.name, channel)).for_each(add);
        }
        own
    }

    /// The reply of `node` to the command `sent` at `time`, or to a batch that ends with EXEC, with
    /// its counts of subscribers put right; `None`: it is right as it is.
    pub(crate) fn count_subscribers(
        &self,
        (node, time): (NodeId, u64),
        sent: &[u8],
        reply: &[u8],
        out: &mut Vec<u8>,
        nodes: &Nodes,
        core: &Core,
    ) -> Option<()> {
        if self.topics.none_known() {
            return None;
        }
        let node = nodes.list.get(node.at())?;
        let node = (node.upstream, node.ident);
        let limits = &core.settings.accepted;
        let mut ranges = Vec::new();
        let mut next = |from: usize| {
            let rest = sent.get(from..)?;
            let mut progress = RequestProgress::default();
            match scan_request(rest, limits, &mut progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let own = self.own_of_request(&Args::new(rest, &ranges), node, time);
                    Some((from + len, own))
                }
                _ => None,
            }
        };
        let (mut at, own) = next(0)?;
        if let Some(own) = own {
            publish_count(integer(reply)?, own, out);
            return Some(());
        }
        // MULTI; its commands follow, one element each.
        let count = crate::resp::reply::element_count(reply)?;
        write::array_header(out, count as usize);
        for element in elements(reply) {
            let own = next(at).and_then(|(end, own)| {
                at = end;
                own
            });
            match (own, integer(element)) {
                (Some(own), Some(counted)) => publish_count(counted, own, out),
                _ => out.extend_from_slice(element),
            }
        }
        Some(())
    }

    fn own_of_request(
        &self,
        args: &Args,
        node: (UpstreamId, u64),
        time: u64,
    ) -> Option<OwnSubscriptions> {
        let channel = args.get(1)?;
        if args.is(0, "publish") {
            Some(self.own_receivers(TopicKind::Channel, channel, node, time))
        } else if args.is(0, "spublish") {
            Some(self.own_receivers(TopicKind::Shard, channel, node, time))
        } else {
            None
        }
    }

    /// Where a command goes that was held: to its slot's `owner`, a message where it is heard.
    pub(crate) fn node_of_held(
        &self,
        pending: &Pending,
        frame: &[u8],
        owner: NodeId,
        nodes: &Nodes,
        core: &Core,
    ) -> NodeId {
        match is_lone_publish(pending) {
            true => {
                let of = pending.slot.keyless_of().unwrap_or_default();
                self.publish_node_of(of, frame, nodes, core).unwrap_or(owner)
            }
            false => owner,
        }
    }
}
