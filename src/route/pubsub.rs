//! What is done with the commands of pub/sub, and what PUBSUB answers: the nodes' replies with
//! slotway's own subscriptions put right.
//!
//! A node counts slotway as one subscriber of each channel and pattern, whatever the number of
//! clients behind it; a client wants to know what one server would say that had all of them.

use std::collections::HashMap;

use crate::channel::Kind;
use crate::resp::reply::{elements, integer, text};
use crate::resp::write;

/// What is done with a command of pub/sub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSub {
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE: held by slotway, one upstream subscription for all.
    Subscribe(Kind),
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe(Kind),
    /// PUBLISH: to the node where slotway is subscribed to the channel.
    Publish,
    /// SPUBLISH: to the channel's slot.
    ShardPublish,
    /// PUBSUB's subcommands: every node is asked.
    Ask(Ask),
}

/// What PUBSUB asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// CHANNELS, SHARDCHANNELS.
    Channels(Kind),
    /// NUMSUB, SHARDNUMSUB.
    NumSub(Kind),
    /// NUMPAT.
    NumPat,
}

/// What this process has to do with a channel, or with patterns altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// Clients that are subscribed; of patterns: patterns that somebody is subscribed to.
    pub subscribers: usize,
    /// How many of the nodes' subscribers are slotway itself.
    pub upstream: usize,
}

impl Own {
    /// `counted` by the nodes becomes what one server would count.
    fn put_right(self, counted: i64) -> i64 {
        counted
            .saturating_sub_unsigned(self.upstream as u64)
            .max(0)
            .saturating_add_unsigned(self.subscribers as u64)
    }
}

impl Ask {
    /// Appends the reply made of the nodes' `replies`. `own` tells what this process has to do with
    /// a channel, and with an empty name and [`Kind::Pattern`] with all patterns.
    pub fn merge<'a>(
        self,
        replies: impl Iterator<Item = &'a [u8]>,
        own: impl Fn(Kind, &[u8]) -> Own,
        out: &mut Vec<u8>,
    ) {
        match self {
            Ask::Channels(kind) => {
                let mut order: Vec<&[u8]> = Vec::new();
                let mut nodes: HashMap<&[u8], usize> = HashMap::new();
                for name in replies.flat_map(elements).filter_map(text) {
                    let count = nodes.entry(name).or_insert(0);
                    if *count == 0 {
                        order.push(name);
                    }
                    *count += 1;
                }
                // Where slotway is about to unsubscribe, it is the only one left.
                order.retain(|name| {
                    let own = own(kind, name);
                    own.subscribers > 0 || nodes.get(name).is_some_and(|&n| n > own.upstream)
                });
                write::array_header(out, order.len());
                order.iter().for_each(|name| write::bulk(out, name));
            }
            Ask::NumSub(kind) => {
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
                    write::integer(out, own(kind, name).put_right(count));
                }
            }
            Ask::NumPat => {
                let sum = replies.filter_map(integer).fold(0, i64::saturating_add);
                write::integer(out, own(Kind::Pattern, b"").put_right(sum));
            }
        }
    }
}

/// Appends the integer that PUBLISH is answered with, `counted` by the node.
pub fn publish_count(counted: i64, own: Own, out: &mut Vec<u8>) {
    write::integer(out, own.put_right(counted));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ask: Ask, replies: &[&str]) -> String {
        let own = |kind: Kind, name: &[u8]| match (kind, name) {
            (Kind::Channel, b"a") => Own { subscribers: 3, upstream: 1 },
            (Kind::Channel, b"leaving") => Own { subscribers: 0, upstream: 1 },
            (Kind::Pattern, b"") => Own { subscribers: 2, upstream: 5 },
            _ => Own::default(),
        };
        let mut out = Vec::new();
        ask.merge(replies.iter().map(|r| r.as_bytes()), own, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn slotway_counts_as_its_clients() {
        let replies = [
            "*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n",
            "*4\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:4\r\n",
        ];
        assert_eq!(merged(Ask::NumSub(Kind::Channel), &replies), "*4 $1 a :5 $1 b :4 ");
        // The same name twice is answered twice.
        let twice = [
            "*4\r\n$1\r\na\r\n:1\r\n$1\r\na\r\n:1\r\n",
            "*4\r\n$1\r\na\r\n:0\r\n$1\r\na\r\n:0\r\n",
        ];
        assert_eq!(merged(Ask::NumSub(Kind::Channel), &twice), "*4 $1 a :3 $1 a :3 ");
        assert_eq!(merged(Ask::NumSub(Kind::Channel), &["*0\r\n", "*0\r\n"]), "*0 ");
        assert_eq!(merged(Ask::NumPat, &[":5\r\n", ":1\r\n"]), ":3 ");
    }

    #[test]
    fn channels_are_listed_once() {
        let replies = ["*2\r\n$1\r\na\r\n$7\r\nleaving\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"];
        assert_eq!(merged(Ask::Channels(Kind::Channel), &replies), "*2 $1 a $1 b ");
        let elsewhere = ["*1\r\n$7\r\nleaving\r\n", "*1\r\n$7\r\nleaving\r\n"];
        assert_eq!(merged(Ask::Channels(Kind::Channel), &elsewhere), "*1 $7 leaving ");
    }
}
