//! Merges the INFO replies of all primaries into one that reads like a standalone server's.
//!
//! How a field is merged is data: [`FIELD_RULES`] by field, [`default_rule`] for the others.
//! <https://redis.io/docs/latest/commands/info/>

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::config::AnnounceMode;
use crate::hash::KeyedMap;
use std::fmt::Write;

/// Slotway's part of INFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInfo {
    /// Number of clients, of all workers.
    pub clients: usize,
    /// Number of clients blocked by a command.
    pub blocked: usize,
    /// The effective limit on clients.
    pub max_clients: usize,
    /// The announced mode.
    pub announce_mode: AnnounceMode,
    /// Lines of slotway's own section, without heading; empty if it was not asked for.
    pub section: String,
}

impl Default for ProxyInfo {
    fn default() -> ProxyInfo {
        ProxyInfo {
            clients: 0,
            blocked: 0,
            max_clients: 0,
            announce_mode: AnnounceMode::Standalone,
            section: String::new(),
        }
    }
}

/// How a field is merged.
#[derive(Debug, Clone, Copy)]
enum FieldRule {
    /// The value of the first part.
    First,
    /// The sum if all values are numbers, otherwise the first value.
    Sum,
    /// The sum of limits: 0 means no limit, so a single 0 makes the sum 0.
    SumOfLimits,
    Max,
    Min,
    Mean,
    /// `ok`, unless another value occurs.
    Status,
    /// A constant.
    Fixed(&'static str),
    /// A text for `announce_mode`: "standalone", then "cluster".
    ByMode(&'static str, &'static str),
    /// Omitted.
    Drop,
    /// Slotway's own number; the sum if that is not known.
    Own(fn(&ProxyInfo) -> usize),
    /// Another field's result, in human-readable form.
    Human(&'static str),
    /// The sum of one field divided by the sum of another.
    Ratio(&'static str, &'static str),
    /// Like `Ratio`, in percent.
    Percent(&'static str, &'static str),
    /// Like `Percent`, with the last field subtracted from the divisor.
    PercentLess(&'static str, &'static str, &'static str),
}

use FieldRule::{
    ByMode, Drop, First, Fixed, Human, Max, Mean, Min, Own, Percent, PercentLess, Ratio, Status,
    Sum, SumOfLimits,
};

/// Fields that differ from the default rule of their section.
const FIELD_RULES: &[(&str, FieldRule)] = &[
    // Server
    ("redis_mode", ByMode("standalone", "cluster")),
    // The name in Valkey.
    ("server_mode", ByMode("standalone", "cluster")),
    // Paths on the nodes are not for clients.
    ("executable", Fixed("")),
    ("config_file", Fixed("")),
    // Clients
    ("connected_clients", Own(|info| info.clients)),
    ("blocked_clients", Own(|info| info.blocked)),
    ("maxclients", Own(|info| info.max_clients)),
    ("client_recent_max_input_buffer", Max),
    ("client_recent_max_output_buffer", Max),
    ("client_longest_output_list", Max),
    ("client_biggest_input_buf", Max),
    // Memory
    ("used_memory_human", Human("used_memory")),
    ("used_memory_rss_human", Human("used_memory_rss")),
    ("used_memory_peak_human", Human("used_memory_peak")),
    ("used_memory_peak_perc", Percent("used_memory", "used_memory_peak")),
    (
        "used_memory_dataset_perc",
        PercentLess("used_memory_dataset", "used_memory", "used_memory_startup"),
    ),
    ("total_system_memory_human", Human("total_system_memory")),
    ("used_memory_lua_human", Human("used_memory_lua")),
    ("used_memory_vm_total_human", Human("used_memory_vm_total")),
    ("used_memory_scripts_human", Human("used_memory_scripts")),
    // Scripts and functions are the same on every shard.
    ("number_of_cached_scripts", Max),
    ("number_of_functions", Max),
    ("number_of_libraries", Max),
    ("maxmemory", SumOfLimits),
    ("maxmemory_human", Human("maxmemory")),
    ("allocator_frag_ratio", Ratio("allocator_active", "allocator_allocated")),
    ("allocator_rss_ratio", Ratio("allocator_resident", "allocator_active")),
    ("rss_overhead_ratio", Ratio("used_memory_rss", "allocator_resident")),
    ("mem_fragmentation_ratio", Ratio("used_memory_rss", "used_memory")),
    ("active_defrag_running", Max),
    // Persistence
    ("loading", Max),
    ("async_loading", Max),
    ("loading_start_time", Min),
    ("loading_loaded_perc", Percent("loading_loaded_bytes", "loading_total_bytes")),
    ("loading_eta_seconds", Max),
    ("current_cow_size_age", Max),
    ("current_fork_perc", Mean),
    ("rdb_bgsave_in_progress", Max),
    // The age of the data on disk: that of the oldest.
    ("rdb_last_save_time", Min),
    ("rdb_last_bgsave_status", Status),
    ("rdb_last_bgsave_time_sec", Max),
    ("rdb_current_bgsave_time_sec", Max),
    ("aof_enabled", Max),
    ("aof_rewrite_in_progress", Max),
    ("aof_rewrite_scheduled", Max),
    ("aof_last_rewrite_time_sec", Max),
    ("aof_current_rewrite_time_sec", Max),
    ("aof_rewrites_consecutive_failures", Max),
    ("aof_last_bgrewrite_status", Status),
    ("aof_last_write_status", Status),
    ("module_fork_in_progress", Max),
    // Stats
    ("expired_stale_perc", Mean),
    ("current_eviction_exceeded_time", Max),
    ("latest_fork_usec", Max),
    ("current_active_defrag_time", Max),
    // Replication
    ("role", Fixed("master")),
    ("connected_slaves", Sum),
    ("min_slaves_good_slaves", Min),
    // Cluster
    ("cluster_enabled", ByMode("0", "1")),
];

/// The rule for a section's fields that [`FIELD_RULES`] does not name. Fields of an unknown section
/// (a module's) are taken from the first part, since they may not be additive.
fn default_rule(section: &str) -> FieldRule {
    match section {
        "Clients" | "Memory" | "Persistence" | "Stats" | "CPU" => Sum,
        _ => First,
    }
}

/// Merges INFO of all shards into one text, not yet encoded as a RESP string.
///
/// `parts` are the INFO texts of the primaries. Sections, their order, and whatever cannot be
/// merged are taken from the first one; slotway's own section follows.
pub fn merge_info(parts: &[&[u8]], proxy: Option<&ProxyInfo>) -> Vec<u8> {
    let texts: Vec<Cow<str>> = parts.iter().map(|p| String::from_utf8_lossy(p)).collect();
    let parts: Vec<Info> = texts.iter().map(|text| Info::parse(text)).collect();

    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        for section in &part.sections {
            // Each section appears once, where the first part that has it has it.
            let seen = parts.iter().take(i).any(|p| p.section(section.name).is_some());
            if !seen {
                let all: Vec<_> = parts.iter().filter_map(|p| p.section(section.name)).collect();
                heading(&mut out, section.name);
                merge_section(&all, proxy, &mut out);
            }
        }
    }
    if let Some(proxy) = proxy.filter(|p| !p.section.is_empty()) {
        heading(&mut out, "Proxy");
        proxy.section.lines().for_each(|l| line(&mut out, format_args!("{l}")));
    }
    out.into_bytes()
}

fn heading(out: &mut String, name: &str) {
    let blank = if out.is_empty() { "" } else { "\r\n" };
    line(out, format_args!("{blank}# {name}"));
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{text}\r\n");
}

/// INFO of one shard.
struct Info<'a> {
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    name: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    by_name: KeyedMap<&'a str, &'a str>,
}

impl<'a> Info<'a> {
    fn parse(text: &'a str) -> Info<'a> {
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines().filter(|l| !l.is_empty()) {
            if let Some(name) = line.strip_prefix("# ") {
                sections.push(Section { name, fields: Vec::new(), by_name: KeyedMap::default() });
            } else if let (Some(section), Some((name, value))) =
                (sections.last_mut(), line.split_once(':'))
            {
                section.fields.push((name, value));
                section.by_name.insert(name, value);
            }
        }
        Info { sections }
    }

    fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name)
    }
}

/// One section of all parts; never empty.
type Parts<'p, 'a> = &'p [&'p Section<'a>];

fn merge_section(parts: Parts, proxy: Option<&ProxyInfo>, out: &mut String) {
    let Some(first) = parts.first() else { return };
    match first.name {
        "Commandstats" | "Errorstats" | "Latencystats" | "Keyspace" => merge_lists(parts, out),
        // All its fields are called `module`.
        "Modules" => first.fields.iter().for_each(|(n, v)| line(out, format_args!("{n}:{v}"))),
        _ => {
            for (name, _) in &first.fields {
                if let Some(value) = merge_field(parts, proxy, first.name, name) {
                    line(out, format_args!("{name}:{value}"));
                }
            }
        }
    }
}

fn rule_of(section: &str, field: &str) -> FieldRule {
    // `slave0`, `slave1` …: replicas belong to the cluster, not to the server that clients see.
    let number = field.strip_prefix("slave").unwrap_or_default();
    if section == "Replication" && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    {
        return Drop;
    }
    let rule = FIELD_RULES.iter().find(|(name, _)| *name == field);
    rule.map_or_else(|| default_rule(section), |(_, rule)| *rule)
}

fn merge_field<'a>(
    parts: Parts<'_, 'a>,
    proxy: Option<&ProxyInfo>,
    section: &str,
    field: &str,
) -> Option<Cow<'a, str>> {
    let values = || parts.iter().filter_map(|p| p.by_name.get(field).copied());
    let first = values().next()?;
    let total = |field: &str| -> f64 {
        let values = parts.iter().filter_map(|p| p.by_name.get(field));
        values.filter_map(|v| v.parse::<f64>().ok()).sum()
    };
    let quotient = |over: f64, under: f64| if under > 0.0 { over / under } else { 0.0 };
    let merged = match rule_of(section, field) {
        First => None,
        Sum => sum(values()),
        Own(number) => match proxy {
            Some(proxy) => Some(number(proxy).to_string()),
            None => sum(values()),
        },
        SumOfLimits if values().any(|v| v == "0") => Some("0".to_owned()),
        SumOfLimits => sum(values()),
        Max => pick(values(), |a, b| a > b),
        Min => pick(values(), |a, b| a < b),
        Mean => {
            let mean = quotient(total(field), values().count() as f64);
            Some(format!("{mean:.*}", decimals(first)))
        }
        Status => values().find(|v| *v != "ok").map(str::to_owned),
        Fixed(value) => return Some(Cow::Borrowed(value)),
        ByMode(standalone, cluster) => {
            let mode = proxy.map_or(AnnounceMode::Standalone, |info| info.announce_mode);
            return Some(Cow::Borrowed(match mode {
                AnnounceMode::Standalone => standalone,
                AnnounceMode::Cluster => cluster,
            }));
        }
        Drop => return None,
        Human(of) => {
            let bytes = merge_field(parts, proxy, section, of).and_then(|v| v.parse().ok());
            bytes.map(human)
        }
        Ratio(over, under) => Some(format!("{:.2}", quotient(total(over), total(under)))),
        Percent(over, under) => {
            Some(format!("{:.2}%", 100.0 * quotient(total(over), total(under))))
        }
        PercentLess(over, under, less) => {
            let under = total(under) - total(less);
            Some(format!("{:.2}%", 100.0 * quotient(total(over), under)))
        }
    };
    Some(merged.map_or(Cow::Borrowed(first), Cow::Owned))
}

/// Merges lines `name:key=value,key=value` by name; names missing in the first part come last.
fn merge_lists(parts: Parts, out: &mut String) {
    let mut seen: KeyedMap<&str, ()> = KeyedMap::default();
    for (name, value) in parts.iter().flat_map(|p| &p.fields) {
        if seen.insert(name, ()).is_some() {
            continue;
        }
        let lists: Vec<KeyedMap<&str, &str>> = (parts.iter())
            .filter_map(|p| p.by_name.get(name))
            .map(|list| list.split(',').filter_map(|item| item.split_once('=')).collect())
            .collect();
        let items: Vec<String> = (value.split(','))
            .filter_map(|item| item.split_once('='))
            .map(|(key, first)| {
                let merged = merge_item(&lists, key);
                format!("{key}={}", merged.as_deref().unwrap_or(first))
            })
            .collect();
        line(out, format_args!("{name}:{}", items.join(",")));
    }
}

fn merge_item(lists: &[KeyedMap<&str, &str>], key: &str) -> Option<String> {
    let values = || lists.iter().filter_map(|list| list.get(key).copied());
    let number = |list: &KeyedMap<&str, &str>, key: &str| -> f64 {
        list.get(key).and_then(|v| v.parse().ok()).unwrap_or(0.0)
    };
    let total = |key: &str| -> f64 { lists.iter().map(|list| number(list, key)).sum() };
    match key {
        "usec_per_call" => {
            let calls = total("calls");
            Some(format!("{:.2}", if calls > 0.0 { total("usec") / calls } else { 0.0 }))
        }
        // An average over the keys with an expiry time.
        "avg_ttl" => {
            let weighted = lists.iter().map(|l| number(l, "avg_ttl") * number(l, "expires"));
            let expires = total("expires");
            Some(format!(
                "{:.0}",
                if expires > 0.0 { weighted.sum::<f64>() / expires } else { 0.0 }
            ))
        }
        // Percentiles cannot be merged: the slowest shard's is an upper bound.
        _ if key.starts_with('p') => pick(values(), |a, b| a > b),
        _ => sum(values()),
    }
}

/// The sum; `None` if a value is not a number.
fn sum<'v>(values: impl Iterator<Item = &'v str> + Clone) -> Option<String> {
    let integers = values.clone().map(|v| v.parse::<i128>().ok());
    if let Some(sum) = integers.sum::<Option<i128>>() {
        return Some(sum.to_string());
    }
    let decimals = values.clone().map(decimals).max()?;
    let sum: f64 = values.map(|v| v.parse::<f64>().ok()).sum::<Option<f64>>()?;
    Some(format!("{sum:.decimals$}"))
}

/// The best value, unchanged; `None` if a value is not a number.
fn pick<'v>(
    values: impl Iterator<Item = &'v str>,
    better: impl Fn(f64, f64) -> bool,
) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for value in values {
        let number: f64 = value.parse().ok()?;
        if best.is_none_or(|(so_far, _)| better(number, so_far)) {
            best = Some((number, value));
        }
    }
    best.map(|(_, value)| value.to_owned())
}

fn decimals(number: &str) -> usize {
    number.split_once('.').map_or(0, |(_, fraction)| fraction.len().min(9))
}

/// A number of bytes in the server's human-readable form.
fn human(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        Some((unit, shift)) => format!("{:.2}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes}B"),
    }
}
