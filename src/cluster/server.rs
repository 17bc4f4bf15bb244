//! A single server and its replicas as a topology: one shard that has all slots. The replies of the
//! servers and the Sentinels are parsed and evaluated here. No I/O.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>

use thiserror::Error;

use super::{Node, NodeAddr, NodeState, ParseError, Role, SLOTS, Shard, Snapshot, UpstreamId};
use crate::resp::tree::{Value, decode};

/// Maximum number of replicas in a credible reply.
const MAX_REPLICAS: usize = 1_000;

/// The error for a reply to INFO replication without a role. A Sentinel's is empty.
const NO_ROLE: &str = "it names no role; if it is a Sentinel, set upstream.kind = \"sentinel\"";

/// A server's report about itself and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReply {
    /// The address at which it was asked, with the host name by which it was found.
    pub addr: NodeAddr,
    /// Its `run_id`, different after each start. Empty if the server hides it.
    pub run_id: Box<str>,
    /// Its current role.
    pub role: Role,
    /// The server that it replicates, if it is a replica.
    pub primary: Option<NodeAddr>,
    /// Its replicas. [`NodeState::Online`]: the replica is in sync.
    pub replicas: Vec<(NodeAddr, NodeState)>,
    /// Its offset in the replication stream.
    pub offset: i64,
}

/// A Sentinel's report about the primary that it monitors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelReply {
    /// The address of the primary.
    pub primary: NodeAddr,
    /// The Sentinels agree that it is down (`o_down`).
    pub is_down: bool,
    /// The configuration epoch, which increases with each failover.
    pub epoch: u64,
    /// The replicas.
    pub replicas: Vec<(NodeAddr, NodeState)>,
}

/// Why no primary can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPrimary {
    /// Two servers are primaries with the same number of replicas.
    #[error(
        "{0} and {1} both are primaries, with as many replicas each: are they two servers? keep the \
         one that is meant in seeds"
    )]
    Two(NodeAddr, NodeAddr),
    /// Sentinels name different primaries for the same epoch.
    #[error(
        "Sentinels disagree: after the same number of failovers they name {0} and {1}; do they \
         watch two servers of the same name?"
    )]
    SentinelsDisagree(NodeAddr, NodeAddr),
}

/// Parses the replies to `INFO replication` and `INFO server` of the server at `asked`.
///
/// # Errors
/// The server refuses INFO, or the reply is not one to INFO.
pub fn parse_server(
    replication: &[u8],
    server: &[u8],
    asked: &NodeAddr,
) -> Result<ServerReply, ParseError> {
    let value = decode(replication)?;
    if let Value::Error(text) = value {
        return Err(super::parse::refused(text));
    }
    let text = value.text().ok_or(ParseError::NotInfo("not a text"))?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let role = match field("role").ok_or(ParseError::NotInfo(NO_ROLE))? {
        "master" => Role::Primary,
        "slave" => Role::Replica,
        _ => return Err(ParseError::NotInfo("an unknown role")),
    };
    let address = |host: &str, port: &str| {
        Some(NodeAddr { host: host.into(), port: port.parse().ok().filter(|&port| port > 0)? })
    };
    let replicas = text.lines().filter_map(|line| {
        let (name, fields) = line.trim().split_once(':')?;
        name.strip_prefix("slave")?.parse::<u16>().ok()?;
        let field = |name: &str| fields.split(',').find_map(|f| f.strip_prefix(name));
        let state = match field("state=")? {
            "online" => NodeState::Online,
            _ => NodeState::Loading,
        };
        Some((address(field("ip=")?, field("port=")?)?, state))
    });
    let primary = field("master_host").zip(field("master_port"));
    let offset = match role {
        Role::Primary => "master_repl_offset",
        Role::Replica => "slave_repl_offset",
    };
    let server = decode(server).ok();
    let run_id = server
        .as_ref()
        .and_then(|value| value.text()?.lines().find_map(|line| line.strip_prefix("run_id:")))
        .map(str::trim);
    Ok(ServerReply {
        addr: asked.clone(),
        run_id: run_id.unwrap_or_default().into(),
        role,
        primary: primary.and_then(|(host, port)| address(host, port)),
        replicas: replicas.take(MAX_REPLICAS).collect(),
        offset: field(offset).and_then(|n| n.parse().ok()).unwrap_or(0),
    })
}

/// Parses the replies to `SENTINEL MASTER` and `SENTINEL REPLICAS`.
///
/// # Errors
/// The Sentinel does not know the name, it refuses the commands, or the server is no Sentinel.
pub fn parse_sentinel(master: &[u8], replicas: &[u8]) -> Result<SentinelReply, ParseError> {
    let value = decode(master)?;
    if let Value::Error(text) = value {
        return Err(super::parse::refused(text));
    }
    let address = |value: &Value<'_>| {
        let port = value.field("port")?.text()?.parse().ok().filter(|&port| port > 0)?;
        Some(NodeAddr { host: value.field("ip")?.text()?.into(), port })
    };
    let flags = |value: &Value<'_>, flag: &str| {
        let flags = value.field("flags").and_then(|flags| flags.text().map(str::to_owned));
        flags.is_some_and(|flags| flags.split(',').any(|f| f == flag))
    };
    let primary = address(&value).ok_or(ParseError::NotSentinel("no address"))?;
    let number = |name: &str| value.field(name).and_then(|n| n.text()?.parse::<u64>().ok());
    let listed = decode(replicas)?;
    let replicas = listed.items().iter().filter_map(|replica| {
        let text = |name: &str| replica.field(name).and_then(|v| v.text());
        let state = match text("master-link-status") {
            _ if flags(replica, "s_down") || flags(replica, "o_down") => NodeState::Failed,
            Some("ok") => NodeState::Online,
            _ => NodeState::Loading,
        };
        Some((address(replica)?, state))
    });
    Ok(SentinelReply {
        is_down: flags(&value, "o_down"),
        epoch: number("config-epoch").unwrap_or(0),
        replicas: replicas.take(MAX_REPLICAS).collect(),
        primary,
    })
}

/// Chooses the primary among the servers that have answered, and returns its index: the one in use,
/// while it is a primary; otherwise the primary with the most replicas, and among equals the one
/// with the most data. `None`: no server is a primary.
///
/// # Errors
/// None is in use, and two primaries have the most replicas.
pub fn choose_primary(
    replies: &[ServerReply],
    in_use: Option<&NodeAddr>,
) -> Result<Option<usize>, NoPrimary> {
    let primaries = || replies.iter().enumerate().filter(|(_, r)| r.role == Role::Primary);
    if let Some((i, _)) = primaries().find(|(_, reply)| Some(&reply.addr) == in_use) {
        return Ok(Some(i));
    }
    let followers = |reply: &ServerReply| {
        let follows =
            |r: &&ServerReply| r.role == Role::Replica && r.primary.as_ref() == Some(&reply.addr);
        reply.replicas.len().max(replies.iter().filter(follows).count())
    };
    let rank = |reply: &ServerReply| (followers(reply), reply.offset);
    let Some((best, found)) = primaries().max_by_key(|(i, r)| (rank(r), std::cmp::Reverse(*i)))
    else {
        return Ok(None);
    };
    let other = primaries().find(|(i, r)| *i != best && followers(r) == followers(found));
    match other {
        // If another server was in use, its successor is the one with its data.
        Some((_, other)) if in_use.is_none() => {
            Err(NoPrimary::Two(found.addr.clone(), other.addr.clone()))
        }
        _ => Ok(Some(best)),
    }
}

/// Chooses among the Sentinels' replies with the greatest epoch one that names the primary that
/// most of them name, and returns its index. The order of the replies does not matter.
///
/// # Errors
/// Two primaries are named by as many of them.
pub fn choose_sentinel(replies: &[SentinelReply]) -> Result<Option<usize>, NoPrimary> {
    let Some(epoch) = replies.iter().map(|reply| reply.epoch).max() else { return Ok(None) };
    let latest = || replies.iter().enumerate().filter(move |(_, reply)| reply.epoch == epoch);
    let votes = |primary: &NodeAddr| latest().filter(|(_, r)| r.primary == *primary).count();
    let best = latest().max_by_key(|(i, r)| (votes(&r.primary), std::cmp::Reverse(*i)));
    let Some((best, found)) = best else { return Ok(None) };
    let rival = latest()
        .find(|(_, r)| r.primary != found.primary && votes(&r.primary) == votes(&found.primary));
    match rival {
        Some((_, other)) => {
            Err(NoPrimary::SentinelsDisagree(found.primary.clone(), other.primary.clone()))
        }
        None => Ok(Some(best)),
    }
}

/// A topology of one shard with all slots. `ids` returns the ID of the node at an address.
pub fn snapshot_of(
    primary: Option<&NodeAddr>,
    replicas: &[(NodeAddr, NodeState)],
    ids: impl Fn(&NodeAddr) -> Box<str>,
) -> Snapshot {
    let node = |addr: &NodeAddr, role, state| Node {
        id: ids(addr),
        addr: addr.clone(),
        hostname: "".into(),
        socket: None,
        role,
        state,
        upstream: UpstreamId::FIRST,
    };
    let mut replicas: Vec<&(NodeAddr, NodeState)> =
        replicas.iter().filter(|(addr, _)| Some(addr) != primary).collect();
    replicas.sort_by(|a, b| a.0.cmp(&b.0));
    replicas.dedup_by(|a, b| a.0 == b.0);
    let primaries = primary.iter().map(|addr| node(addr, Role::Primary, NodeState::Online));
    let nodes: Vec<Node> = primaries
        .chain(replicas.iter().map(|(addr, state)| node(addr, Role::Replica, *state)))
        .collect();
    let first_replica = u16::from(primary.is_some());
    let shard = Shard {
        primary: primary.map(|_| 0),
        replicas: (first_replica..).take(replicas.len()).collect(),
    };
    Snapshot {
        generation: 0,
        nodes,
        shards: vec![shard],
        slots: vec![0; usize::from(SLOTS)].into(),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
