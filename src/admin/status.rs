//! The JSON documents behind the status page and `slotway top`. Pure.
//!
//! Their format is internal, as both readers come with the same binary; others should use
//! `/metrics`.

use serde_json::{Value, json};

use super::history::COLUMNS;
use super::moment::{Interval, Moment};
use super::sampler::Timeline;
use crate::client::{Census, largest};
use crate::cluster::{NO_SHARD, Node, Role, SLOTS, ShardIdx, Snapshot};
use crate::command::CommandId;
use crate::config::{Config, key_entries};
use crate::control::UpstreamStatus;
use crate::metrics::NodeStats;

/// Number of most frequent commands shown.
const COMMANDS: usize = 12;
/// Number of most frequent users, libraries and client names shown.
const GROUPS: usize = 8;

/// The reader's position in the history and the events: what it has received already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Number of the last row of the history that it has; 0 for none.
    pub row: u64,
    /// Revision of the events that it has.
    pub events: Option<u64>,
}

impl Cursor {
    /// Parses a query such as `since=17&events=4`; values that are not numbers are ignored.
    pub fn parse(query: &str) -> Cursor {
        let mut known = Cursor::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (name, value.parse::<u64>()) {
                ("since", Ok(row)) => known.row = row,
                ("events", Ok(revision)) => known.events = Some(revision),
                _ => {}
            }
        }
        known
    }
}

/// Facts about the process that are no counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessInfo<'a> {
    /// Uptime in seconds.
    pub uptime: u64,
    /// The limits in force, by name.
    pub limits: &'a [(&'static str, usize)],
}

/// The body of `/status.json`; `None` before the first moment was sampled.
pub fn status(timeline: &Timeline, known: Cursor, process: ProcessInfo) -> Option<Value> {
    let now = timeline.now()?;
    let is = &now.is;
    let limits: serde_json::Map<String, Value> =
        process.limits.iter().map(|(name, limit)| ((*name).to_owned(), json!(limit))).collect();
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime": process.uptime,
        "at": is.millis,
        "draining": is.draining,
        "ready": is.readiness.ready,
        "reasons": is.readiness.reasons,
        "missing_slots": is.readiness.missing_slots,
        "totals": totals(&now),
        "workers": workers(is),
        "limits": limits,
        "commands": commands(&now),
        "topology": {
            "generation": is.topology.generation(),
            "age": is.topology.answered().map(|at| at.elapsed().as_secs_f64()),
            "slots": usize::from(SLOTS) * is.topology.upstreams.len(),
            "covered": is.topology.slots_covered(),
            "error": is.topology.error(),
        },
        "shards": shards(&now),
        "history": {
            "last": timeline.history.last(),
            "columns": COLUMNS,
            "rows": timeline.history.after(known.row).collect::<Vec<_>>(),
        },
        "events": { "revision": timeline.events.revision() },
    });
    if known.events != Some(timeline.events.revision())
        && let Some(events) = status.get_mut("events")
    {
        *events = json!({ "revision": timeline.events.revision(), "list": timeline.events.json() });
    }
    Some(status)
}

fn totals(now: &Interval) -> Value {
    let (was, is) = (&now.was, &now.is);
    let (commands_was, commands_is) = (was.commands(), is.commands());
    let latency = is.latency().since(&was.latency());
    let rest = &is.totals.rest;
    let nodes = || is.totals.nodes.values();
    json!({
        "ops": now.rate(
            commands_was.ok + commands_was.error + commands_was.refused,
            commands_is.ok + commands_is.error + commands_is.refused,
        ),
        "errors": now.rate(commands_was.error, commands_is.error),
        "refused": now.rate(commands_was.refused, commands_is.refused),
        "redirections": now.rate_of(|m| m.totals.rest.redirections.iter().sum()),
        "retries": now.rate_of(|m| m.totals.rest.retries.iter().sum()),
        "received": now.rate_of(|m| m.totals.rest.bytes_in),
        "sent": now.rate_of(|m| m.totals.rest.bytes_out),
        "p50": latency.quantile(0.5),
        "p99": latency.quantile(0.99),
        "p999": latency.quantile(0.999),
        "commands": commands_is.ok + commands_is.error + commands_is.refused,
        "clients": rest.clients,
        "clients_resp3": rest.clients_resp3,
        "clients_blocked": rest.clients_blocked,
        "subscribers": rest.subscribers,
        "accepted": now.rate_of(|m| m.totals.rest.clients_accepted),
        "in_flight": nodes().map(|n| n.in_flight).sum::<u64>(),
        "held": rest.held,
        "buffer_bytes": rest.buffer_bytes,
        "cpu": now.cpu_percent(),
        "memory": is.usage.resident_bytes,
    })
}

fn workers(is: &Moment) -> Value {
    let one = |&(index, clients): &(usize, usize)| json!({ "index": index, "clients": clients });
    json!({
        "running": is.running,
        "answered": is.answered,
        "list": is.workers.iter().map(one).collect::<Vec<_>>(),
    })
}

/// The most frequent commands of the interval.
fn commands(now: &Interval) -> Value {
    let (was, is) = (&now.was.totals.commands, &now.is.totals.commands);
    let table = &now.is.topology.commands;
    let mut rates: Vec<(usize, f64, f64)> = is
        .iter()
        .enumerate()
        .map(|(id, is)| {
            let was = was.get(id).copied().unwrap_or_default();
            let failed = now.rate(was.error + was.refused, is.error + is.refused);
            (id, now.rate(was.ok, is.ok) + failed, failed)
        })
        .filter(|(_, rate, _)| *rate > 0.0)
        .collect();
    rates.sort_by(|a, b| b.1.total_cmp(&a.1));
    let name = |id: usize| {
        let known = u16::try_from(id).ok().filter(|_| id < table.len());
        known.map_or("unknown", |id| &*table.get(CommandId(id)).name)
    };
    let shown = rates.iter().take(COMMANDS);
    shown
        .map(|(id, ops, errors)| json!({ "name": name(*id), "ops": ops, "errors": errors }))
        .collect()
}

/// The shards of all upstreams.
fn shards(now: &Interval) -> Value {
    now.is.topology.named().flat_map(|(name, upstream)| shards_of(now, name, upstream)).collect()
}

/// The shards of an upstream in the order of their slots, those without slots last; with its name
/// where there are several.
fn shards_of(now: &Interval, name: Option<&str>, upstream: &UpstreamStatus) -> Vec<Value> {
    let snapshot = &upstream.snapshot;
    let ranges = ranges(snapshot);
    let mut order: Vec<usize> = (0..snapshot.shards.len()).collect();
    let first = |shard: &usize| ranges.get(*shard).and_then(|r| r.first()).map(|r| r.0);
    order.sort_by_key(|shard| (first(shard).is_none(), first(shard)));
    let one = |index: usize| {
        let shard = snapshot.shards.get(index)?;
        let ranges = ranges.get(index)?;
        let nodes = shard.primary.iter().chain(&shard.replicas);
        let nodes: Vec<Value> = nodes
            .filter_map(|&n| snapshot.nodes.get(usize::from(n)))
            .map(|n| node(now, upstream, n))
            .collect();
        let mut shard = json!({
            "slots": ranges,
            "count": ranges.iter().map(|(from, to)| u32::from(to - from) + 1).sum::<u32>(),
            "nodes": nodes,
        });
        if let (Some(name), Some(shard)) = (name, shard.as_object_mut()) {
            shard.insert("upstream".to_owned(), json!(name));
        }
        Some(shard)
    };
    order.into_iter().filter_map(one).collect()
}

/// Slot ranges of each shard, by shard index.
fn ranges(snapshot: &Snapshot) -> Vec<Vec<(u16, u16)>> {
    let mut all: Vec<Vec<(u16, u16)>> = vec![Vec::new(); snapshot.shards.len()];
    let mut last: ShardIdx = NO_SHARD;
    for (slot, &shard) in (0u16..).zip(snapshot.slots.iter()) {
        let Some(ranges) = all.get_mut(usize::from(shard)) else {
            last = shard;
            continue;
        };
        match ranges.last_mut() {
            Some(range) if last == shard => *range = (range.0, slot),
            _ => ranges.push((slot, slot)),
        }
        last = shard;
    }
    all
}

fn node(now: &Interval, upstream: &UpstreamStatus, node: &Node) -> Value {
    let nothing = NodeStats::default();
    let is = now.is.node(&node.addr).unwrap_or(&nothing);
    // The counters of a node that is new to the workers began at zero.
    let was = now.was.node(&node.addr).unwrap_or(&nothing);
    let latency = is.latency.since(&was.latency);
    let (state, why) = now.is.state(upstream, node);
    let zone = upstream.health.get(&node.addr).and_then(|health| health.zone.clone());
    json!({
        "addr": node.addr.to_string(),
        "name": &*node.hostname,
        "role": if node.role == Role::Primary { "primary" } else { "replica" },
        "state": state,
        "why": why,
        "zone": zone.as_deref(),
        "ops": now.rate(was.latency.count(), is.latency.count()),
        "p50": latency.quantile(0.5),
        "p99": latency.quantile(0.99),
        "sent": now.rate(was.bytes_sent, is.bytes_sent),
        "received": now.rate(was.bytes_received, is.bytes_received),
        "in_flight": is.in_flight,
        "in_flight_bytes": is.in_flight_bytes,
        "connections": is.connections_ready,
        "connecting": is.connections_connecting,
        "backoff": is.connections_backoff,
        "failures": is.failures,
    })
}

/// The body of `/clients.json`.
pub fn clients(census: &Census) -> Value {
    let groups = |groups| {
        let (top, others) = largest(groups, GROUPS);
        json!({ "top": top, "others": others })
    };
    let slow = census.slow_readers.iter().map(|c| {
        json!({
            "id": c.id,
            "addr": c.addr,
            "name": c.name,
            "user": c.user,
            "command": c.command,
            "output": c.output,
        })
    });
    json!({
        "clients": census.clients,
        "resp3": census.resp3,
        "users": groups(&census.users),
        "libraries": groups(&census.libraries),
        "names": groups(&census.names),
        "slow_readers": slow.collect::<Vec<_>>(),
    })
}

/// The body of `/config.json`: the configuration in use, secrets masked.
pub fn config(config: &Config) -> Value {
    let one = |key: crate::config::KeyEntry| json!({ "key": key.key, "value": key.value, "default": key.is_default, "doc": key.doc });
    key_entries(config).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeAddr, parse_shards};
    use crate::config::{Secret, load};

    #[test]
    fn what_the_reader_knows() {
        let known = |row, events| Cursor { row, events };
        assert_eq!(Cursor::parse(""), known(0, None));
        assert_eq!(Cursor::parse("since=17&events=4"), known(17, Some(4)));
        assert_eq!(Cursor::parse("events=x&since=-1&a&since=5"), known(5, None));
    }

    #[test]
    fn ranges_of_a_shard_may_have_gaps() {
        let asked = NodeAddr { host: "h".into(), port: 1 };
        let healthy = include_bytes!("../cluster/captured/shards.resp2");
        let mut snapshot = parse_shards(healthy, &asked).unwrap();
        let all = ranges(&snapshot);
        assert_eq!(all.iter().flatten().map(|r| u32::from(r.1 - r.0) + 1).sum::<u32>(), 16384);
        let first = snapshot.slots[0];
        snapshot.slots[10] = NO_SHARD;
        let gapped = &ranges(&snapshot)[usize::from(first)];
        assert_eq!(gapped[0], (0, 9));
        assert_eq!(gapped[1].0, 11);
    }

    #[test]
    fn the_configuration_shows_no_secret() {
        let mut shown = Config {
            users: load(&crate::config::Sources {
                env: vec![("SLOTWAY_USERS".into(), "user app on >hidden ~* +@all".into())],
                ..Default::default()
            })
            .unwrap()
            .config
            .users,
            ..Config::default()
        };
        shown.admin_token = Secret::new("hidden");
        shown.upstream.password = Secret::new("hidden");
        let text = config(&shown).to_string();
        assert!(!text.contains("hidden"), "{text}");
        assert!(text.contains(r#""key":"users""#) && text.contains("user app"), "{text}");
        let token = r#""key":"admin_token","value":"\"***\"""#;
        assert!(text.contains(token), "{text}");
        assert!(text.contains(r#""default":true"#) && text.contains(r#""default":false"#));
    }
}
