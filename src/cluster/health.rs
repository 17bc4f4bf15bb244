//! Health of replicas: whether reads may go to them, judged by the `INFO replication` of a replica
//! and its primary.
//!
//! <https://redis.io/docs/latest/commands/info/>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::NodeAddr;
use crate::resp::tree::decode;

/// Why no reads go to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The node does not answer.
    Unreachable,
    /// The link to its primary is down; the replica had the primary's data before.
    LinkDown,
    /// The replica does not have its primary's data yet, or is in a full resynchronization.
    Syncing,
    /// The replica has received nothing from its primary for longer than `replicas.max_lag`.
    Silent,
    /// The replica lacks more of the replication stream than `replicas.max_lag_bytes`.
    Behind,
}

impl Unfit {
    /// Number of reasons.
    pub const COUNT: usize = 5;
    /// Label values, indexed by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["unreachable", "link_down", "syncing", "silent", "behind"];

    /// The label value.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// Whether the only fault is the loss of the primary, so that its data is the latest.
    pub fn is_only_lost_primary(self) -> bool {
        matches!(self, Unfit::LinkDown | Unfit::Silent)
    }
}

/// Properties of a node that are not part of the topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// Why no reads go to the node; for a primary only [`Unfit::Unreachable`].
    pub unfit: Option<Unfit>,
    /// Availability zone of the node.
    pub zone: Option<Arc<str>>,
}

/// Health of all nodes that were checked. A missing node was not checked yet.
pub type Health = BTreeMap<NodeAddr, NodeHealth>;

/// Limits on the lag of a replica.
#[derive(Debug, Clone, Copy)]
pub struct LagLimits {
    /// Maximum time since data from the primary; `None`: no limit.
    pub silence: Option<Duration>,
    /// Maximum lag in the replication stream, in bytes; 0: no limit.
    pub bytes: u64,
}

/// The `INFO replication` of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replication {
    /// The node is a primary.
    pub primary: bool,
    /// Offset in the replication stream, in bytes.
    pub offset: i64,
    link_up: bool,
    syncing: bool,
    /// The link was up at some time.
    was_up: bool,
    /// Seconds since data from the primary.
    silence: Option<u64>,
}

/// Parses the reply to `INFO replication`; `None` if it is something else.
pub fn parse_replication(reply: &[u8]) -> Option<Replication> {
    let value = decode(reply).ok()?;
    let fields: Vec<(&str, &str)> =
        value.text()?.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let field = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    let number = |name: &str| field(name).and_then(|value| value.parse::<i64>().ok());
    let primary = field("role")? == "master";
    let offset = if primary { "master_repl_offset" } else { "slave_repl_offset" };
    Some(Replication {
        primary,
        offset: number(offset).unwrap_or(0),
        link_up: field("master_link_status") == Some("up"),
        syncing: field("master_sync_in_progress") == Some("1"),
        was_up: number("master_link_down_since_seconds").is_none_or(|since| since >= 0),
        silence: number("master_last_io_seconds_ago").and_then(|s| u64::try_from(s).ok()),
    })
}

/// Parses `availability_zone` from the reply to `INFO server`; `None` if it is missing or empty.
pub fn parse_zone(reply: &[u8]) -> Option<String> {
    let value = decode(reply).ok()?;
    let zone = value.text()?.lines().find_map(|l| l.strip_prefix("availability_zone:"))?.trim();
    (!zone.is_empty()).then(|| zone.to_owned())
}

impl Replication {
    /// Why no reads go to this replica. `primary`: its primary's offset a moment before, if known.
    pub fn unfit(&self, primary: Option<i64>, limits: LagLimits) -> Option<Unfit> {
        if self.primary {
            // The replica was promoted, and the topology is about to follow.
            return None;
        }
        if self.syncing || (!self.link_up && !self.was_up) {
            return Some(Unfit::Syncing);
        }
        let behind = primary.map_or(0, |primary| primary.saturating_sub(self.offset));
        if limits.bytes > 0 && u64::try_from(behind).is_ok_and(|behind| behind > limits.bytes) {
            return Some(Unfit::Behind);
        }
        if !self.link_up {
            return Some(Unfit::LinkDown);
        }
        let silence = self.silence.map(Duration::from_secs);
        let limit = limits.silence.unwrap_or(Duration::MAX);
        silence.is_some_and(|silence| silence > limit).then_some(Unfit::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LagLimits = LagLimits { silence: Some(Duration::from_secs(15)), bytes: 1000 };

    fn parsed(lines: &str) -> Replication {
        let text = format!("# Replication\r\n{}\r\n", lines.replace(' ', "\r\n"));
        parse_replication(format!("${}\r\n{text}\r\n", text.len()).as_bytes()).unwrap()
    }

    /// The reply of a replica of Redis 7.0.15.
    fn replica(status: &str, io: i64, syncing: u8, offset: i64, more: &str) -> Replication {
        parsed(&format!(
            "role:slave master_host:127.0.0.1 master_port:7000 master_link_status:{status} \
             master_last_io_seconds_ago:{io} master_sync_in_progress:{syncing} \
             slave_read_repl_offset:{offset} slave_repl_offset:{offset} {more}slave_priority:100 \
             slave_read_only:1 connected_slaves:0 master_repl_offset:{offset}"
        ))
    }

    #[test]
    fn a_primary() {
        let primary = parsed("role:master connected_slaves:1 master_repl_offset:4711");
        assert!(primary.primary);
        assert_eq!(primary.offset, 4711);
        assert_eq!(primary.unfit(Some(1 << 40), LIMITS), None);
    }

    #[test]
    fn replicas_are_judged() {
        let judge = |r: Replication| r.unfit(Some(5000), LIMITS);
        assert_eq!(judge(replica("up", 1, 0, 5000, "")), None);
        assert_eq!(judge(replica("up", 1, 0, 6000, "")), None, "asked later than its primary");
        assert_eq!(judge(replica("up", 15, 0, 4000, "")), None, "at both limits");
        assert_eq!(judge(replica("up", 16, 0, 5000, "")), Some(Unfit::Silent));
        assert_eq!(judge(replica("up", 1, 0, 3999, "")), Some(Unfit::Behind));
        assert_eq!(judge(replica("up", 1, 1, 5000, "")), Some(Unfit::Syncing));
        let down = "master_link_down_since_seconds:3 ";
        assert_eq!(judge(replica("down", -1, 0, 5000, down)), Some(Unfit::LinkDown));
        assert_eq!(judge(replica("down", -1, 0, 10, down)), Some(Unfit::Behind));
        let never = "master_link_down_since_seconds:-1 ";
        assert_eq!(judge(replica("down", -1, 0, 5000, never)), Some(Unfit::Syncing));
    }

    #[test]
    fn without_limits_and_without_a_primary() {
        let none = LagLimits { silence: None, bytes: 0 };
        assert_eq!(replica("up", 9999, 0, 0, "").unfit(Some(1 << 40), none), None);
        assert_eq!(replica("up", 1, 0, 10, "").unfit(None, LIMITS), None);
    }

    #[test]
    fn zones() {
        let reply = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let valkey = reply("# Server\r\nredis_version:7.2.4\r\navailability_zone:eu-1a\r\n");
        assert_eq!(parse_zone(valkey.as_bytes()).as_deref(), Some("eu-1a"));
        let unset = reply("# Server\r\navailability_zone:\r\nos:Linux\r\n");
        assert_eq!(parse_zone(unset.as_bytes()), None);
        assert_eq!(parse_zone(b"-NOPERM no\r\n"), None);
        assert_eq!(parse_replication(b"-NOPERM no\r\n"), None);
    }
}
