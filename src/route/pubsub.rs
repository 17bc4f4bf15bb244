//! Pub/sub commands, and merging the replies to PUBSUB, corrected for slotway's own subscriptions.
//!
//! A node counts slotway as one subscriber per channel and pattern, however many clients it has; a
//! client expects the numbers that a single server with all these clients would report.

use std::collections::HashMap;

use crate::channel::TopicKind;
use crate::resp::reply::{elements, integer, text};
use crate::resp::write;

/// What is done with a pub/sub command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSub {
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE: one upstream subscription for all clients.
    Subscribe(TopicKind),
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe(TopicKind),
    /// PUBLISH: to the node where slotway is subscribed to the channel.
    Publish,
    /// SPUBLISH: to the channel's slot.
    ShardPublish,
    /// PUBSUB subcommands: to every node.
    Query(PubSubQuery),
}

/// A PUBSUB query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSubQuery {
    /// CHANNELS, SHARDCHANNELS.
    Channels(TopicKind),
    /// NUMSUB, SHARDNUMSUB.
    NumSub(TopicKind),
    /// NUMPAT.
    NumPat,
}

/// This process's subscriptions to a channel, or to all patterns together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnSubscriptions {
    /// Number of subscribed clients; for patterns, number of patterns with subscribers.
    pub subscribers: usize,
    /// How many of the subscribers that nodes count are slotway itself.
    pub upstream: usize,
}

impl OwnSubscriptions {
    /// Converts the nodes' count to that of a single server.
    fn corrected(self, counted: i64) -> i64 {
        counted
            .saturating_sub_unsigned(self.upstream as u64)
            .max(0)
            .saturating_add_unsigned(self.subscribers as u64)
    }
}

impl PubSubQuery {
    /// Merges the nodes' `replies` and appends the result. `own` returns this process's
    /// subscriptions to a channel; for [`TopicKind::Pattern`] and an empty name, those to all patterns.
    pub fn merge<'a>(
        self,
        replies: impl Iterator<Item = &'a [u8]>,
        own: impl Fn(TopicKind, &[u8]) -> OwnSubscriptions,
        out: &mut Vec<u8>,
    ) {
        match self {
            PubSubQuery::Channels(kind) => {
                let mut order: Vec<&[u8]> = Vec::new();
                let mut nodes: HashMap<&[u8], usize> = HashMap::new();
                for name in replies.flat_map(elements).filter_map(text) {
                    let count = nodes.entry(name).or_insert(0);
                    if *count == 0 {
                        order.push(name);
                    }
                    *count += 1;
                }
                // Omit channels whose only subscriber is slotway, about to unsubscribe.
                order.retain(|name| {
                    let own = own(kind, name);
                    own.subscribers > 0 || nodes.get(name).is_some_and(|&n| n > own.upstream)
                });
                write::array_header(out, order.len());
                order.iter().for_each(|name| write::bulk(out, name));
            }
            PubSubQuery::NumSub(kind) => {
                let mut counts: Vec<(&[u8], i64)> = Vec::new();
                for reply in replies {
                    let mut pairs = elements(reply);
                    let mut at = 0;
                    while let (Some(name), Some(count)) = (pairs.next(), pairs.next()) {
                        let (name, count) =
                            (text(name).unwrap_or_default(), integer(count).unwrap_or(0));
                        match counts.get_mut(at) {
                            Some((_, sum)) => *sum = sum.saturating_add(count),
                            None => counts.push((name, count)),
                        }
                        at += 1;
                    }
                }
                write::array_header(out, 2 * counts.len());
                for (name, count) in counts {
                    write::bulk(out, name);
                    write::integer(out, own(kind, name).corrected(count));
                }
            }
            PubSubQuery::NumPat => {
                let sum = replies.filter_map(integer).fold(0, i64::saturating_add);
                write::integer(out, own(TopicKind::Pattern, b"").corrected(sum));
            }
        }
    }
}

/// Appends the reply to PUBLISH; the node counted `counted` subscribers.
pub fn publish_count(counted: i64, own: OwnSubscriptions, out: &mut Vec<u8>) {
    write::integer(out, own.corrected(counted));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ask: PubSubQuery, replies: &[&str]) -> String {
        let own = |kind: TopicKind, name: &[u8]| match (kind, name) {
            (TopicKind::Channel, b"a") => OwnSubscriptions { subscribers: 3, upstream: 1 },
            (TopicKind::Channel, b"leaving") => OwnSubscriptions { subscribers: 0, upstream: 1 },
            (TopicKind::Pattern, b"") => OwnSubscriptions { subscribers: 2, upstream: 5 },
            _ => OwnSubscriptions::default(),
        };
        let mut out = Vec::new();
        ask.merge(replies.iter().map(|r| r.as_bytes()), own, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn slotways_clients_are_counted_instead_of_slotway() {
        let replies = [
            "*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n",
            "*4\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:4\r\n",
        ];
        assert_eq!(
            merged(PubSubQuery::NumSub(TopicKind::Channel), &replies),
            "*4 $1 a :5 $1 b :4 "
        );
        // A repeated name is answered each time.
        let twice = [
            "*4\r\n$1\r\na\r\n:1\r\n$1\r\na\r\n:1\r\n",
            "*4\r\n$1\r\na\r\n:0\r\n$1\r\na\r\n:0\r\n",
        ];
        assert_eq!(merged(PubSubQuery::NumSub(TopicKind::Channel), &twice), "*4 $1 a :3 $1 a :3 ");
        assert_eq!(merged(PubSubQuery::NumSub(TopicKind::Channel), &["*0\r\n", "*0\r\n"]), "*0 ");
        assert_eq!(merged(PubSubQuery::NumPat, &[":5\r\n", ":1\r\n"]), ":3 ");
    }

    #[test]
    fn channels_are_listed_once() {
        let replies = ["*2\r\n$1\r\na\r\n$7\r\nleaving\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"];
        assert_eq!(merged(PubSubQuery::Channels(TopicKind::Channel), &replies), "*2 $1 a $1 b ");
        let elsewhere = ["*1\r\n$7\r\nleaving\r\n", "*1\r\n$7\r\nleaving\r\n"];
        assert_eq!(merged(PubSubQuery::Channels(TopicKind::Channel), &elsewhere), "*1 $7 leaving ");
    }
}
