//! Parses the replies of nodes into a [`Snapshot`]: `CLUSTER SHARDS` (7.0 and later), `CLUSTER
//! SLOTS` (older, or where ACLs deny the other), and the epochs of `CLUSTER INFO`.
//!
//! Nodes list the same cluster in different orders; snapshots are sorted, so that equal clusters
//! give equal snapshots.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use thiserror::Error;

use super::{
    NO_SHARD, Node, NodeAddr, NodeIdx, NodeState, Role, SLOTS, Shard, ShardIdx, Snapshot,
    UpstreamId,
};
use crate::resp::tree::{TreeError, Value, decode};

/// Maximum number of nodes in a credible reply. The specification recommends at most 1,000.
const MAX_NODES: usize = 16_384;

/// Why a reply gives no topology.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The node answered with this error.
    #[error("the node answered: {0}")]
    Refused(String),
    /// The bytes are not a reply.
    #[error(transparent)]
    Reply(#[from] TreeError),
    /// A reply, but not to this command.
    #[error("not an answer to CLUSTER {0}: {1}")]
    Unexpected(&'static str, &'static str),
    /// A reply, but not to INFO of a server.
    #[error("not a server's answer to INFO replication: {0}")]
    NotInfo(&'static str),
    /// A reply, but not of a Sentinel.
    #[error("not a Sentinel's answer to SENTINEL MASTER: {0}")]
    NotSentinel(&'static str),
}

/// Slot ranges as listed, both ends included.
type Ranges = Vec<(u16, u16)>;

/// A node as listed, before it has an index.
struct Listed {
    node: Node,
    offset: i64,
}

/// Parses a `CLUSTER SHARDS` reply of the node at `asked`, RESP2 or RESP3.
///
/// The snapshot's generation is 0, and host names are not resolved: both are left to the caller.
pub fn parse_shards(reply: &[u8], asked: &NodeAddr) -> Result<Snapshot, ParseError> {
    shards(reply, asked, false)
}

/// Like [`parse_shards`] for TLS: nodes are reached at their `tls-port`. (`CLUSTER SLOTS` reports
/// the port that matches the connection.)
pub fn parse_shards_tls(reply: &[u8], asked: &NodeAddr) -> Result<Snapshot, ParseError> {
    shards(reply, asked, true)
}

fn shards(reply: &[u8], asked: &NodeAddr, tls: bool) -> Result<Snapshot, ParseError> {
    snapshot(listed_shards(reply, asked, tls)?)
}

/// The replies of a node whose CLUSTER SHARDS contradicts its other replies
/// ([`Info::contradicts`]).
#[derive(Debug, Clone, Copy)]
pub struct Replies<'a> {
    /// `CLUSTER SHARDS`: has health and primaries without slots.
    pub shards: &'a [u8],
    /// `CLUSTER SLOTS`: correct about slots, primaries and their replicas.
    pub slots: &'a [u8],
    /// `CLUSTER NODES`, if nodes are missing in both: replicas whose primary the node does not
    /// know. Empty if not requested.
    pub nodes: &'a [u8],
}

/// Combines several replies into one topology. `tls`: see [`parse_shards_tls`].
///
/// # Errors
/// One of the replies gives no topology.
pub fn parse_replies(
    replies: &Replies,
    asked: &NodeAddr,
    tls: bool,
) -> Result<Snapshot, ParseError> {
    let mut merged = listed_slots(replies.slots, asked)?;
    for (more, _) in listed_shards(replies.shards, asked, tls)? {
        let mut home = None;
        let mut missing = Vec::new();
        for node in more {
            let found = merged.iter_mut().enumerate().find_map(|(i, (nodes, _))| {
                let same = |n: &&mut Listed| n.node.id == node.node.id && !node.node.id.is_empty();
                nodes.iter_mut().find(same).map(|n| (i, n))
            });
            match found {
                Some((i, known)) => {
                    home = Some(i);
                    known.offset = node.offset;
                    known.node.state = node.node.state;
                    if known.node.hostname.is_empty() {
                        known.node.hostname = node.node.hostname;
                    }
                }
                None => missing.push(node),
            }
        }
        match home.and_then(|i| merged.get_mut(i)) {
            // CLUSTER SLOTS has the primary of each shard with slots.
            Some((nodes, _)) => nodes.extend(missing.into_iter().map(as_replica)),
            None => merged.push((missing, Ranges::new())),
        }
    }
    if !replies.nodes.is_empty() {
        add_nodes(&mut merged, replies.nodes, asked)?;
    }
    snapshot(merged)
}

fn as_replica(mut listed: Listed) -> Listed {
    listed.node.role = Role::Replica;
    listed
}

/// Adds the nodes of a `CLUSTER NODES` reply that are missing so far.
fn add_nodes(merged: &mut ListedShards, reply: &[u8], asked: &NodeAddr) -> Result<(), ParseError> {
    let value = decode(reply)?;
    if let Value::Error(text) = value {
        return Err(refused(text));
    }
    let text = value.text().ok_or(ParseError::Unexpected("NODES", "not a text"))?;
    let all = || merged.iter().flat_map(|(nodes, _)| nodes);
    let known: HashSet<Box<str>> = all().map(|listed| listed.node.id.clone()).collect();
    // The cluster's preferred endpoint type, inferred from the nodes known so far.
    let by_name = all().any(|l| !l.node.hostname.is_empty() && l.node.addr.host == l.node.hostname);
    let by_asked = all().count() > 1 && all().all(|l| l.node.addr.host == asked.host);
    for line in text.lines() {
        let Some((primary, mut listed)) = node_line(line) else { continue };
        if known.contains(&listed.node.id) {
            continue;
        }
        if by_name && !listed.node.hostname.is_empty() {
            listed.node.addr.host = listed.node.hostname.clone();
        } else if by_asked || listed.node.addr.host.is_empty() {
            listed.node.addr.host = asked.host.clone();
        }
        let is_home = |nodes: &[Listed]| nodes.iter().any(|l| *l.node.id == *primary);
        match merged.iter_mut().find(|(nodes, _)| is_home(nodes)) {
            Some((nodes, _)) => nodes.push(as_replica(listed)),
            None => merged.push((vec![listed], Ranges::new())),
        }
    }
    Ok(())
}

/// Parses a line of `CLUSTER NODES`, `ID IP:PORT@BUS,HOSTNAME FLAGS PRIMARY …`, into the ID of the
/// primary and the node. `None`: the node has no address or is not a member yet.
fn node_line(line: &str) -> Option<(&str, Listed)> {
    let mut words = line.split(' ');
    let (id, at, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let has = |flag: &str| flags.split(',').any(|f| f == flag);
    if has("noaddr") || has("handshake") {
        return None;
    }
    let mut place = at.split(',');
    let (addr, _bus) = place.next()?.split_once('@')?;
    let (ip, port) = addr.rsplit_once(':')?;
    // Fields after the hostname are named: `shard-id=…`.
    let name = place.next().filter(|name| !name.contains('=')).unwrap_or_default();
    let node = Node {
        id: id.into(),
        addr: NodeAddr { host: ip.into(), port: port.parse().ok().filter(|&p| p != 0)? },
        hostname: hostname(name),
        socket: None,
        role: if has("master") { Role::Primary } else { Role::Replica },
        state: if has("fail") { NodeState::Failed } else { NodeState::Online },
        upstream: UpstreamId::FIRST,
    };
    Some((primary, Listed { node, offset: 0 }))
}

type ListedShards = Vec<(Vec<Listed>, Ranges)>;

fn snapshot(shards: ListedShards) -> Result<Snapshot, ParseError> {
    let mut builder = Builder::default();
    for (listed, ranges) in shards {
        builder.shard(listed, ranges)?;
    }
    Ok(builder.finish())
}

fn listed_shards(reply: &[u8], asked: &NodeAddr, tls: bool) -> Result<ListedShards, ParseError> {
    let mut shards = ListedShards::new();
    for shard in answer(&decode(reply)?, "SHARDS")? {
        let slots = shard.field("slots").ok_or(ParseError::Unexpected("SHARDS", "no slots"))?;
        let nodes = shard.field("nodes").ok_or(ParseError::Unexpected("SHARDS", "no nodes"))?;
        let pairs = slots.items().chunks_exact(2);
        let ranges: Ranges = pairs
            .filter_map(|pair| match pair {
                [start, end] => range(start, end),
                _ => None,
            })
            .collect();
        let listed = nodes.items().iter().filter_map(|n| shards_node(n, asked, tls)).collect();
        shards.push((listed, ranges));
    }
    Ok(shards)
}

/// Parses a `CLUSTER SLOTS` reply of the node at `asked`, RESP2 or RESP3. It lacks health and nodes
/// without slots.
pub fn parse_slots(reply: &[u8], asked: &NodeAddr) -> Result<Snapshot, ParseError> {
    snapshot(listed_slots(reply, asked)?)
}

fn listed_slots(reply: &[u8], asked: &NodeAddr) -> Result<ListedShards, ParseError> {
    // There is one entry per range; ranges with the same primary form one shard.
    let mut shards = ListedShards::new();
    let mut by_primary: HashMap<(Box<str>, NodeAddr), usize> = HashMap::new();
    for entry in answer(&decode(reply)?, "SLOTS")? {
        let [start, end, nodes @ ..] = entry.items() else {
            return Err(ParseError::Unexpected("SLOTS", "no slot range"));
        };
        let range =
            range(start, end).ok_or(ParseError::Unexpected("SLOTS", "slots that are not slots"))?;
        let mut listed: Vec<Listed> = nodes.iter().filter_map(|n| slots_node(n, asked)).collect();
        // The first node listed is the primary; if it cannot be parsed, there is none.
        let Some(first) = listed.first_mut() else { continue };
        if nodes.first().and_then(|n| slots_node(n, asked)).is_some() {
            first.node.role = Role::Primary;
        }
        let key = (first.node.id.clone(), first.node.addr.clone());
        match by_primary.get(&key).and_then(|&i| shards.get_mut(i)) {
            Some((_, ranges)) => ranges.push(range),
            None => {
                by_primary.insert(key, shards.len());
                shards.push((listed, vec![range]));
            }
        }
    }
    Ok(shards)
}

/// Fields of `CLUSTER INFO` that tell how far a node's view can be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// `cluster_state:ok`: the node sees a majority of primaries and all slots covered.
    pub state_ok: bool,
    /// `cluster_current_epoch`: grows with every failover and resharding known to the node.
    pub epoch: u64,
    /// `cluster_slots_assigned`: slots that have an owner, which may have failed.
    pub(super) slots_assigned: usize,
    /// `cluster_known_nodes`.
    pub(super) known_nodes: usize,
}

impl Info {
    /// That of a single server, which has no CLUSTER INFO: whether it is known, and the number of
    /// the last failover.
    pub fn of_server(is_known: bool, epoch: u64) -> Info {
        Info { state_ok: is_known, epoch, ..Info::default() }
    }

    /// Whether the node knows more slots or nodes than `snapshot`, its own CLUSTER SHARDS. Redis 8
    /// and Valkey 8 omit primaries of Redis 7.0, which have no shard IDs.
    pub fn contradicts(&self, snapshot: &Snapshot) -> bool {
        let assigned = snapshot.slots.iter().filter(|&&shard| shard != NO_SHARD).count();
        self.slots_assigned > assigned || self.known_nodes > snapshot.nodes.len()
    }
}

/// Parses a `CLUSTER INFO` reply.
pub fn parse_info(reply: &[u8]) -> Result<Info, ParseError> {
    let value = decode(reply)?;
    if let Value::Error(text) = value {
        return Err(refused(text));
    }
    let text = value.text().ok_or(ParseError::Unexpected("INFO", "not a text"))?;
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let state = field("cluster_state").ok_or(ParseError::Unexpected("INFO", "no cluster_state"))?;
    let number = |name: &str| field(name).and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(Info {
        state_ok: state.trim() == "ok",
        epoch: number("cluster_current_epoch"),
        slots_assigned: number("cluster_slots_assigned") as usize,
        known_nodes: number("cluster_known_nodes") as usize,
    })
}

/// Parses a `CONFIG GET cluster-node-timeout` reply, RESP2 or RESP3. `None`: the node refuses it
/// (an ACL, a renamed command) or has no such setting.
pub fn parse_node_timeout(reply: &[u8]) -> Option<Duration> {
    let value = decode(reply).ok()?;
    let millis = value.field("cluster-node-timeout")?.text()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// Parses the reply to CONFIG GET of `name`, a number of databases. `None`: the server refuses it
/// or has no such setting.
pub fn parse_databases(reply: &[u8], name: &str) -> Option<u16> {
    decode(reply).ok()?.field(name)?.text()?.parse().ok().filter(|&databases| databases > 0)
}

fn answer<'v, 'a>(
    value: &'v Value<'a>,
    command: &'static str,
) -> Result<&'v [Value<'a>], ParseError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Error(text) => Err(refused(text)),
        _ => Err(ParseError::Unexpected(command, "not an array")),
    }
}

pub(super) fn refused(text: &[u8]) -> ParseError {
    ParseError::Refused(String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned())
}

fn range(start: &Value, end: &Value) -> Option<(u16, u16)> {
    let start = u16::try_from(start.int()?).ok()?;
    let end = u16::try_from(end.int()?).ok()?;
    (start <= end && end < SLOTS).then_some((start, end))
}

fn shards_node(value: &Value, asked: &NodeAddr, tls: bool) -> Option<Listed> {
    let text = |key: &str| value.field(key).and_then(Value::text).unwrap_or_default();
    // `port` is missing if the node accepts TLS only, `tls-port` if it does not accept TLS.
    let [first, second] = if tls { ["tls-port", "port"] } else { ["port", "tls-port"] };
    let port = value.field(first).or_else(|| value.field(second))?;
    let host = host(value.field("endpoint").unwrap_or(&Value::Null), text("ip"), asked);
    let state = match text("health") {
        "loading" => NodeState::Loading,
        // Redis 7.0 says "fail", its documentation "failed".
        h if h.starts_with("fail") => NodeState::Failed,
        _ => NodeState::Online,
    };
    Some(Listed {
        node: Node {
            id: text("id").into(),
            addr: NodeAddr { host: host.into(), port: port_number(port)? },
            hostname: hostname(text("hostname")),
            socket: None,
            role: if text("role") == "master" { Role::Primary } else { Role::Replica },
            state,
            upstream: UpstreamId::FIRST,
        },
        offset: value.field("replication-offset").and_then(Value::int).unwrap_or(0),
    })
}

fn slots_node(value: &Value, asked: &NodeAddr) -> Option<Listed> {
    let (endpoint, port, rest) = match value.items() {
        [endpoint, port, rest @ ..] => (endpoint, port, rest),
        _ => return None,
    };
    // The ID is there since 4.0, other metadata since 7.0.
    let id = rest.first().and_then(Value::text).unwrap_or_default();
    let known = |name| rest.get(1).and_then(|m| m.field(name)).and_then(Value::text);
    let ip = known("ip").unwrap_or_default();
    Some(Listed {
        node: Node {
            id: id.into(),
            addr: NodeAddr { host: host(endpoint, ip, asked).into(), port: port_number(port)? },
            hostname: hostname(known("hostname").unwrap_or_default()),
            socket: None,
            role: Role::Replica,
            state: NodeState::Online,
            upstream: UpstreamId::FIRST,
        },
        offset: 0,
    })
}

/// The announced name; empty for `?`, which means unknown.
fn hostname(text: &str) -> Box<str> {
    if text == "?" { "".into() } else { text.into() }
}

fn port_number(value: &Value) -> Option<u16> {
    u16::try_from(value.int()?).ok().filter(|&p| p != 0)
}

/// The host at which a node is reached. `cluster-preferred-endpoint-type` determines the endpoint:
/// - an IP address or a hostname: is used;
/// - `unknown-endpoint`: NULL, which means the host that was asked. So does an empty one, from a
///   node that does not know its own address yet;
/// - hostnames, of which this node has none: `?`. Its IP address in the same entry is used; the
///   asked node's host would be the wrong machine.
fn host<'v>(endpoint: &Value<'v>, ip: &'v str, asked: &'v NodeAddr) -> &'v str {
    match endpoint.text() {
        None | Some("") => &asked.host,
        Some("?") if ip.is_empty() || ip == "?" => &asked.host,
        Some("?") => ip,
        Some(host) => host,
    }
}

/// Collects shards, sorts them and assigns indices.
#[derive(Default)]
struct Builder {
    /// Nodes, index of the primary, and slots of each shard.
    shards: Vec<(Vec<Listed>, Option<usize>, Ranges)>,
    nodes: usize,
}

impl Builder {
    fn shard(&mut self, mut listed: Vec<Listed>, ranges: Ranges) -> Result<(), ParseError> {
        self.nodes += listed.len();
        if self.nodes > MAX_NODES {
            return Err(ParseError::Unexpected("SHARDS", "more nodes than a cluster can have"));
        }
        listed.sort_by(|a, b| (&a.node.addr, &a.node.id).cmp(&(&b.node.addr, &b.node.id)));
        // During a failover a shard can list its failed primary and the new one. Of several that
        // claim to be primary, the healthiest counts, then the one that has replicated most. A
        // failed one takes no writes, so it never counts.
        let primary = listed
            .iter()
            .enumerate()
            .filter(|(_, l)| l.node.role == Role::Primary && l.node.state != NodeState::Failed)
            .max_by_key(|(_, l)| (l.node.state, l.offset))
            .map(|(i, _)| i);
        self.shards.push((listed, primary, united(ranges)));
        Ok(())
    }

    fn finish(mut self) -> Snapshot {
        let first_addr = |listed: &[Listed]| listed.first().map(|l| l.node.addr.clone());
        self.shards.sort_by_cached_key(|(listed, _, ranges)| {
            let first = ranges.iter().map(|r| r.0).min().unwrap_or(SLOTS);
            (first, first_addr(listed))
        });
        // A node that was recreated at its old address has a new ID; the old one is listed as
        // failed for a while and is dropped.
        let mut alive: HashMap<NodeAddr, NodeState> = HashMap::new();
        for listed in self.shards.iter().flat_map(|s| &s.0) {
            let best = alive.entry(listed.node.addr.clone()).or_insert(listed.node.state);
            *best = listed.node.state.max(*best);
        }
        let mut snapshot = Snapshot::empty();
        for (listed, primary, ranges) in self.shards {
            let mut shard = Shard::default();
            for (i, l) in listed.into_iter().enumerate() {
                let superseded = l.node.state == NodeState::Failed
                    && alive.get(&l.node.addr).is_some_and(|&state| state > NodeState::Failed);
                if superseded {
                    continue;
                }
                // MAX_NODES keeps indices within their type.
                let index = snapshot.nodes.len() as NodeIdx;
                snapshot.nodes.push(resolve_ip(l.node));
                if Some(i) == primary {
                    shard.primary = Some(index);
                } else {
                    shard.replicas.push(index);
                }
            }
            let index = snapshot.shards.len() as ShardIdx;
            for slot in ranges.iter().flat_map(|&(start, end)| start..=end) {
                // While views differ, two shards can claim a slot: prefer one that serves it.
                if let Some(owner) = snapshot.slots.get_mut(slot as usize)
                    && (*owner == NO_SHARD || shard.primary.is_some())
                {
                    *owner = index;
                }
            }
            snapshot.shards.push(shard);
        }
        snapshot
    }
}

/// Merges overlapping ranges: next to nodes of 7.0, those of Redis 8 list a range again and again,
/// more often from minute to minute.
fn united(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut united = Ranges::new();
    for (start, end) in ranges {
        match united.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => united.push((start, end)),
        }
    }
    united
}

fn resolve_ip(mut node: Node) -> Node {
    node.socket =
        node.addr.host.parse().ok().map(|ip: std::net::IpAddr| (ip, node.addr.port).into());
    node
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
