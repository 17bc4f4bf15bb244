//! Merges what several nodes report about themselves into what one server would: replies to
//! SLOWLOG, LATENCY, MEMORY, ACL LOG, FUNCTION STATS, ROLE and RANDOMKEY, in RESP2 and RESP3.
//!
//! A merge reads whole reply frames and writes one. Elements are copied unchanged where possible;
//! numbers keep the form (integer, double, text) in which the first node sent them.

use std::collections::BTreeMap;

use crate::command::{REDACTED, is_secret_argument};
use crate::resp::reply::{element_count, elements, integer, text};
use crate::resp::tree::{Value, decode};
use crate::resp::{ArgRange, Args, Protocol, strict_i64, write};

/// How the replies to one of these commands are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportMerge {
    /// SLOWLOG GET: newest first, at most this many.
    SlowLog(Count),
    /// ACL LOG: newest first, at most this many; `OK` for ACL LOG RESET.
    AclLog(Count),
    /// LATENCY HISTORY: ordered by time.
    LatencyHistory,
    /// LATENCY LATEST: by event.
    LatencyLatest,
    /// LATENCY HISTOGRAM: by command.
    LatencyHistogram,
    /// Reports for people: each node's after its address.
    Texts,
    /// MEMORY STATS: field by field.
    MemoryStats,
    /// FUNCTION STATS: the script that has run longest.
    FunctionStats,
    /// ROLE: a primary.
    Role,
    /// CLUSTER SLOT-STATS: the slots of all nodes, in this order.
    SlotStats(SlotOrder),
    /// RANDOMKEY: each node answers DBSIZE and RANDOMKEY; every key is equally likely.
    RandomKey,
}

/// The order of CLUSTER SLOT-STATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotOrder {
    /// SLOTSRANGE: by slot number.
    BySlot,
    /// ORDERBY.
    ByMetric {
        /// The metric.
        metric: &'static str,
        /// Smallest value first.
        ascending: bool,
        /// Number of slots shown.
        limit: u32,
    },
}

impl SlotOrder {
    /// All metrics of the servers.
    const METRICS: [&str; 5] =
        ["key-count", "cpu-usec", "memory-bytes", "network-bytes-in", "network-bytes-out"];

    /// The order that a request asks for; an invalid one is the nodes' to reject.
    fn of(args: &Args) -> SlotOrder {
        if !args.is(2, "orderby") {
            return SlotOrder::BySlot;
        }
        let metric = SlotOrder::METRICS.into_iter().find(|metric| args.is(3, metric));
        let at = |word: &str| (4..args.len()).find(|&i| args.is(i, word));
        let limit = at("limit").and_then(|i| args.get(i + 1)).and_then(strict_i64);
        SlotOrder::ByMetric {
            metric: metric.unwrap_or_default(),
            ascending: at("asc").is_some(),
            limit: limit.and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX),
        }
    }
}

/// Number of log entries shown; `None` for all.
pub type Count = Option<u32>;

/// The default count of SLOWLOG GET and ACL LOG.
pub(super) const DEFAULT_COUNT: Count = Some(10);

impl ReportMerge {
    /// The merge with the options of the request; invalid ones are the nodes' to reject.
    pub fn with(self, args: &Args) -> ReportMerge {
        let asked = args.get(2).and_then(strict_i64);
        let count = asked.map_or(DEFAULT_COUNT, |n| u32::try_from(n).ok());
        match self {
            ReportMerge::SlowLog(_) => ReportMerge::SlowLog(count),
            // A negative count means none here.
            ReportMerge::AclLog(_) => ReportMerge::AclLog(Some(count.unwrap_or(0))),
            ReportMerge::SlotStats(_) => ReportMerge::SlotStats(SlotOrder::of(args)),
            other => other,
        }
    }

    /// Whether some nodes may fail: the others have nothing to report (LATENCY GRAPH).
    pub(super) fn tolerates_failures(self) -> bool {
        self == ReportMerge::Texts
    }

    /// Merges `parts`, each a node's address and its reply, and appends the result.
    pub fn merge(self, parts: &[(&str, &[u8])], protocol: Protocol, out: &mut Vec<u8>) {
        let frames = || parts.iter().map(|(_, frame)| *frame);
        let Some(first) = frames().next() else { return write::null(out, protocol) };
        match self {
            ReportMerge::SlowLog(count) => {
                // By time, then by each node's entry number.
                let at = |v: &Value| (item_int(v, 1), item_int(v, 0));
                let mut entries = Vec::new();
                newest(frames(), |v| at(v), count, &mut entries);
                write_redacted_entries(&entries, out);
            }
            ReportMerge::AclLog(_) if first.first() == Some(&b'+') => out.extend_from_slice(first),
            ReportMerge::AclLog(count) => {
                let age = |v: &Value| {
                    let seconds = v.field("age-seconds").and_then(number).unwrap_or(0.0);
                    -(seconds * 1000.0) as i64
                };
                newest(frames(), age, count, out);
            }
            ReportMerge::LatencyHistory => latency_history(frames(), out),
            ReportMerge::LatencyLatest => latency_latest(frames(), out),
            ReportMerge::LatencyHistogram => latency_histogram(frames(), protocol, out),
            ReportMerge::Texts => texts(parts, protocol, out),
            ReportMerge::MemoryStats => {
                let frames: Vec<&[u8]> = frames().collect();
                memory_stats(&frames, out);
            }
            ReportMerge::FunctionStats => function_stats(frames(), first, out),
            ReportMerge::Role => {
                write::array_header(out, 3);
                write::bulk(out, b"master");
                let offsets = frames().filter_map(|f| elements(f).nth(1).and_then(integer));
                write::integer(out, offsets.fold(0, i64::saturating_add));
                write::array_header(out, 0);
            }
            ReportMerge::SlotStats(order) => slot_stats(frames(), order, out),
            ReportMerge::RandomKey => random_key(parts, protocol, fastrand::u64(..), out),
        }
    }
}

/// Writes entries of nodes' slow logs; redacts secret arguments, which older servers do not.
fn write_redacted_entries(list: &[u8], out: &mut Vec<u8>) {
    copy_header(list, out);
    for entry in elements(list) {
        let args: Vec<&[u8]> = elements(entry).nth(3).map(elements).into_iter().flatten().collect();
        let texts: Vec<&[u8]> = args.iter().map(|arg| text(arg).unwrap_or_default()).collect();
        let mut frame = Vec::new();
        let ranges: Vec<ArgRange> = texts
            .iter()
            .map(|text| {
                let start = frame.len() as u32;
                frame.extend_from_slice(text);
                ArgRange { start, end: frame.len() as u32 }
            })
            .collect();
        let words = Args::new(&frame, &ranges);
        if !(0..args.len()).any(|i| is_secret_argument(&words, i)) {
            out.extend_from_slice(entry);
            continue;
        }
        copy_header(entry, out);
        for (i, field) in elements(entry).enumerate() {
            if i != 3 {
                out.extend_from_slice(field);
                continue;
            }
            copy_header(field, out);
            for (i, arg) in args.iter().enumerate() {
                match is_secret_argument(&words, i) {
                    true => write::bulk(out, REDACTED.as_bytes()),
                    false => out.extend_from_slice(arg),
                }
            }
        }
    }
}

fn item_int(value: &Value, at: usize) -> i64 {
    value.items().get(at).and_then(Value::int).unwrap_or(0)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        other => other.text()?.parse().ok(),
    }
}

/// Writes all elements in descending order of `rank`, at most `count`.
fn newest<'a, R: Ord>(
    frames: impl Iterator<Item = &'a [u8]>,
    rank: impl Fn(&Value) -> R,
    count: Count,
    out: &mut Vec<u8>,
) {
    let mut entries: Vec<(Option<R>, &[u8])> = frames
        .flat_map(elements)
        .map(|entry| (decode(entry).ok().map(|value| rank(&value)), entry))
        .collect();
    entries.sort_by(|(a, _), (b, _)| b.cmp(a));
    entries.truncate(count.map_or(usize::MAX, |n| n as usize));
    write::array_header(out, entries.len());
    entries.iter().for_each(|(_, entry)| out.extend_from_slice(entry));
}

/// Elements `[second, latency]`; like a server, keeps the worst sample of each second.
fn latency_history<'a>(frames: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let mut samples: BTreeMap<i64, i64> = BTreeMap::new();
    for sample in frames.flat_map(elements).filter_map(|s| decode(s).ok()) {
        let worst = samples.entry(item_int(&sample, 0)).or_default();
        *worst = (*worst).max(item_int(&sample, 1));
    }
    write::array_header(out, samples.len());
    for (second, latency) in samples {
        write::array_header(out, 2);
        write::integer(out, second);
        write::integer(out, latency);
    }
}

/// Elements `[event, second, latency, worst]`.
fn latency_latest<'a>(frames: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let mut events: Vec<(&[u8], i64, i64, i64)> = Vec::new();
    for event in frames.flat_map(elements) {
        let Ok(value) = decode(event) else { continue };
        let name = elements(event).next().and_then(text).unwrap_or_default();
        let (second, latency, worst) =
            (item_int(&value, 1), item_int(&value, 2), item_int(&value, 3));
        match events.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, at, last, max)) => {
                if second > *at {
                    (*at, *last) = (second, latency);
                } else if second == *at {
                    *last = latency.max(*last);
                }
                *max = worst.max(*max);
            }
            None => events.push((name, second, latency, worst)),
        }
    }
    write::array_header(out, events.len());
    for (name, second, latency, worst) in events {
        write::array_header(out, 4);
        write::bulk(out, name);
        [second, latency, worst].into_iter().for_each(|n| write::integer(out, n));
    }
}

/// Elements `[slot, fields]`.
fn slot_stats<'a>(frames: impl Iterator<Item = &'a [u8]>, order: SlotOrder, out: &mut Vec<u8>) {
    let mut slots: Vec<(i64, i64, &[u8])> = frames
        .flat_map(elements)
        .map(|entry| {
            let mut items = elements(entry);
            let slot = items.next().and_then(integer).unwrap_or(0);
            let rank = match order {
                SlotOrder::BySlot => 0,
                SlotOrder::ByMetric { metric, ascending, .. } => {
                    let fields = items.next().and_then(|fields| decode(fields).ok());
                    let value = fields.and_then(|f| f.field(metric).and_then(Value::int));
                    let value = value.unwrap_or(0);
                    if ascending { value } else { value.saturating_neg() }
                }
            };
            (rank, slot, entry)
        })
        .collect();
    slots.sort_by_key(|(rank, slot, _)| (*rank, *slot));
    if let SlotOrder::ByMetric { limit, .. } = order {
        slots.truncate(limit as usize);
    }
    write::array_header(out, slots.len());
    slots.iter().for_each(|(.., entry)| out.extend_from_slice(entry));
}

/// Calls of a command; per node, the number that took no longer than each bound in microseconds.
#[derive(Default)]
struct Calls {
    calls: i64,
    nodes: Vec<BTreeMap<i64, i64>>,
}

fn latency_histogram<'a>(
    frames: impl Iterator<Item = &'a [u8]>,
    protocol: Protocol,
    out: &mut Vec<u8>,
) {
    let mut commands: Vec<(Vec<u8>, Calls)> = Vec::new();
    for frame in frames {
        let Ok(reply) = decode(frame) else { continue };
        for (name, value) in pairs(&reply) {
            let Value::Text(name) = name else { continue };
            if !commands.iter().any(|(known, _)| known == name) {
                commands.push((name.to_vec(), Calls::default()));
            }
            let Some((_, of)) = commands.iter_mut().find(|(known, _)| known == name) else {
                continue;
            };
            let calls = value.field("calls").and_then(Value::int).unwrap_or(0);
            of.calls = of.calls.saturating_add(calls);
            let buckets = value.field("histogram_usec").map(pairs).unwrap_or_default();
            let buckets = buckets.into_iter().filter_map(|(k, v)| Some((k.int()?, v.int()?)));
            of.nodes.push(buckets.collect());
        }
    }
    write::map_header(out, protocol, commands.len());
    for (name, Calls { calls, nodes }) in commands {
        let mut bounds: Vec<i64> = nodes.iter().flat_map(|n| n.keys().copied()).collect();
        bounds.sort_unstable();
        bounds.dedup();
        write::bulk(out, &name);
        write::map_header(out, protocol, 2);
        write::bulk(out, b"calls");
        write::integer(out, calls);
        write::bulk(out, b"histogram_usec");
        write::map_header(out, protocol, bounds.len());
        for bound in bounds {
            // A bound missing at a node has the same count as the one before.
            let below = |n: &BTreeMap<i64, i64>| n.range(..=bound).next_back().map_or(0, |b| *b.1);
            write::integer(out, bound);
            write::integer(out, nodes.iter().map(below).fold(0, i64::saturating_add));
        }
    }
}

/// The pairs of a map, or of the flat array that RESP2 uses instead.
fn pairs<'v, 'a>(value: &'v Value<'a>) -> Vec<(&'v Value<'a>, &'v Value<'a>)> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(k, v)| (k, v)).collect(),
        Value::Array(items) => {
            items.chunks_exact(2).filter_map(|c| c.first().zip(c.get(1))).collect()
        }
        _ => Vec::new(),
    }
}

/// Equal reports of all nodes are shown once.
fn texts(parts: &[(&str, &[u8])], protocol: Protocol, out: &mut Vec<u8>) {
    let said: Vec<(&str, &[u8])> =
        parts.iter().map(|(node, frame)| (*node, text(frame).unwrap_or_default())).collect();
    if let (Some((_, first)), Some((_, frame))) = (said.first(), parts.first())
        && said.iter().all(|(_, text)| text == first)
    {
        // In the node's form: Valkey's malloc-stats are a plain string if the allocator has none.
        return match frame.first() {
            Some(b'$' | b'=') => out.extend_from_slice(frame),
            _ => write::verbatim(out, protocol, first),
        };
    }
    let mut all = Vec::new();
    for (node, text) in said {
        all.extend_from_slice(format!("# {node}\n").as_bytes());
        all.extend_from_slice(text);
        all.extend_from_slice(b"\n");
    }
    write::verbatim(out, protocol, &all);
}

/// Fields that are quotients: of sums over all nodes, times a factor.
const QUOTIENTS: &[(&str, &[&str], &[&str], f64)] = &[
    // field, summands (subtracted if prefixed by `-`), divisors, factor
    ("keys.bytes-per-key", &["total.allocated", "-startup.allocated"], &["keys.count"], 1.0),
    ("dataset.percentage", &["dataset.bytes"], &["total.allocated", "-startup.allocated"], 100.0),
    ("peak.percentage", &["total.allocated"], &["peak.allocated"], 100.0),
    ("allocator-fragmentation.ratio", &["allocator.active"], &["allocator.allocated"], 1.0),
    ("allocator-rss.ratio", &["allocator.resident"], &["allocator.active"], 1.0),
    (
        "rss-overhead.ratio",
        &["allocator.resident", "rss-overhead.bytes"],
        &["allocator.resident"],
        1.0,
    ),
    ("fragmentation", &["total.allocated", "fragmentation.bytes"], &["total.allocated"], 1.0),
];

fn memory_stats(frames: &[&[u8]], out: &mut Vec<u8>) {
    let replies: Vec<Value> = frames.iter().filter_map(|frame| decode(frame).ok()).collect();
    // A node without keys has no field for its database.
    let Some(first) = frames.iter().max_by_key(|f| element_count(f)) else { return };
    let sum = |name: &str| -> f64 {
        let (sign, name) = name.strip_prefix('-').map_or((1.0, name), |name| (-1.0, name));
        sign * replies.iter().filter_map(|r| r.field(name).and_then(number)).sum::<f64>()
    };
    copy_header(first, out);
    let mut fields = elements(first);
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        out.extend_from_slice(name);
        let name = text(name).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or_default();
        let quotient = QUOTIENTS.iter().find(|(field, ..)| *field == name);
        match (quotient, value.first()) {
            (Some((_, over, under, factor)), _) => {
                let total = |fields: &[&str]| fields.iter().map(|f| sum(f)).sum::<f64>();
                let under = total(under);
                let result = if under > 0.0 { factor * total(over) / under } else { 0.0 };
                write_like(value, result, out);
            }
            // Fields of a database.
            (None, Some(b'%' | b'*')) => {
                copy_header(value, out);
                let mut inner = elements(value);
                while let (Some(key), Some(value)) = (inner.next(), inner.next()) {
                    out.extend_from_slice(key);
                    let key = text(key).and_then(|k| std::str::from_utf8(k).ok()).unwrap_or("");
                    let of = |r: &Value| r.field(name)?.field(key).and_then(number);
                    write_like(value, replies.iter().filter_map(of).sum(), out);
                }
            }
            _ => write_like(value, sum(name), out),
        }
    }
}

/// Copies the first line of an aggregate.
fn copy_header(frame: &[u8], out: &mut Vec<u8>) {
    let end = memchr::memchr(b'\n', frame).map_or(0, |at| at + 1);
    out.extend_from_slice(frame.get(..end).unwrap_or_default());
}

/// Writes a number in the form of `like`; if that is not a number, copies it.
fn write_like(like: &[u8], number: f64, out: &mut Vec<u8>) {
    match like.first() {
        Some(b':') => write::integer(out, number as i64),
        Some(b',') => out.extend_from_slice(format!(",{number}\r\n").as_bytes()),
        Some(b'$') if text(like).is_some_and(is_number) => {
            write::bulk(out, number.to_string().as_bytes());
        }
        _ => out.extend_from_slice(like),
    }
}

fn is_number(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|t| t.parse::<f64>().is_ok())
}

/// The engines are taken from the first node: all have the same libraries.
fn function_stats<'a>(frames: impl Iterator<Item = &'a [u8]>, first: &'a [u8], out: &mut Vec<u8>) {
    const RUNNING: &[u8] = b"running_script";
    let running = |frame: &'a [u8]| -> Option<(i64, &'a [u8])> {
        let mut fields = elements(frame);
        while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
            if text(key) == Some(RUNNING) {
                let script = decode(value).ok().filter(|v| *v != Value::Null)?;
                return Some((script.field("duration_ms").and_then(Value::int)?, value));
            }
        }
        None
    };
    let longest = frames.filter_map(running).max_by_key(|(duration, _)| *duration);
    copy_header(first, out);
    let mut fields = elements(first);
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        out.extend_from_slice(key);
        let is_running = text(key) == Some(RUNNING);
        out.extend_from_slice(longest.filter(|_| is_running).map_or(value, |(_, script)| script));
    }
}

/// Picks a key at random, weighted by the nodes' sizes; `random` is any number.
fn random_key(parts: &[(&str, &[u8])], protocol: Protocol, random: u64, out: &mut Vec<u8>) {
    let keys = parts.iter().filter(|(_, reply)| text(reply).is_some());
    let keys: Vec<(u64, &[u8])> = keys
        .map(|(node, key)| {
            let ours = parts.iter().filter(|(other, _)| other == node);
            let size = ours.filter_map(|(_, reply)| integer(reply)).max().unwrap_or(1);
            // A key set after the count makes it at least 1.
            (u64::try_from(size).unwrap_or(1).max(1), *key)
        })
        .collect();
    let total = keys.iter().fold(0u64, |sum, (size, _)| sum.saturating_add(*size));
    let mut left = random.checked_rem(total).unwrap_or(0);
    for (size, key) in keys {
        if left < size {
            return out.extend_from_slice(key);
        }
        left -= size;
    }
    write::null(out, protocol);
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
