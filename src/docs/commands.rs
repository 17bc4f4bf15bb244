//! `docs/commands.md`: the reference of commands, generated from the command table and the
//! behaviours, so that it cannot differ from what slotway does.
//!
//! The preface and [`NOTES`] are written by hand: what the data of a command does not say.
//!
//! Long: most of it is the text of the reference.

use std::fmt::Write;

use crate::command::{Begin, Class, CommandSpec, CommandTable, Find, KeyPart, KeySpec, Native};
use crate::resp::{ArgRange, Args};
use crate::route::{
    Behaviour, Fan, Merge, Plan, PubSub, PubSubQuery, ReportMerge, behaviour_of, client_command,
};

/// The groups of commands with their headings, in the order of the page.
const GROUPS: [(Class, &str); Class::COUNT] = [
    (Class::String, "Strings"),
    (Class::Hash, "Hashes"),
    (Class::List, "Lists"),
    (Class::Set, "Sets"),
    (Class::SortedSet, "Sorted sets"),
    (Class::Stream, "Streams"),
    (Class::Geo, "Geo"),
    (Class::HyperLogLog, "HyperLogLog"),
    (Class::Bitmap, "Bitmaps"),
    (Class::Keyspace, "Keys of any type"),
    (Class::Scripting, "Scripts and functions"),
    (Class::Transaction, "Transactions"),
    (Class::PubSub, "Pub/sub"),
    (Class::Connection, "Connection"),
    (Class::Server, "Server"),
    (Class::Other, "Other"),
];

/// Subcommands of CLIENT that slotway answers, but Redis 7.0 does not have.
const NEWER_CLIENT: [&str; 2] = ["client|no-touch", "client|setinfo"];

/// The note on subcommands that slotway does not implement.
const UNKNOWN: &str = "Not built yet: `ERR unknown subcommand`";

/// Notes on commands, beyond what their behaviour says. A container's note applies to those of its
/// subcommands that have none.
const NOTES: &[(&str, &str)] = &[
    ("acl", "The nodes' users; see *Users*"),
    ("acl|dryrun", "See *Users*: for slotway's own users about these, answered by slotway"),
    (
        "acl|getuser",
        "See *Users*: for slotway's own users about these, answered by slotway; of the nodes' users without hashes, see *Secrets of the nodes*",
    ),
    ("acl|list", "As `ACL GETUSER`"),
    ("acl|users", "See *Users*: for slotway's own users about these, answered by slotway"),
    (
        "acl|whoami",
        "Who the client has logged in as; without users the one that slotway has logged in as (`upstream.user`), for every client",
    ),
    (
        "auth",
        "See *Users*. Without any, `AUTH default ANYTHING` is OK, all else gets the errors of a server without passwords",
    ),
    (
        "cluster",
        "As a healthy cluster answers that has one node, with all slots: slotway, at the address `announce`. So clients that speak to a cluster work here, too. `redis-cli --cluster check`, `info` and `call` need `announce_mode = \"cluster\"`, as they refuse a server whose `INFO` says `cluster_enabled:0`; what changes the cluster is for the nodes. `redis-benchmark --cluster` refuses every cluster of one node: use it without `--cluster`, or with the nodes",
    ),
    (
        "cluster|countkeysinslot",
        "Slots by the cluster's own numbers, which `CLUSTER KEYSLOT` gives",
    ),
    ("cluster|getkeysinslot", "As `CLUSTER COUNTKEYSINSLOT`"),
    ("cluster|links", "None"),
    ("cluster|getslotmigrations", UNKNOWN),
    ("cluster|myshardid", "Slotway's own, the same for all slotways with the same `announce`"),
    ("cluster|slot-stats", "In the order and with the limit asked for"),
    ("script|show", "Every script that slotway has, wherever it was executed"),
    ("commandlog|get", "What the nodes log; `SLOWLOG GET` has what clients waited for"),
    ("clusterscan", "`SCAN` goes through the whole cluster"),
    (
        "msetex",
        "Keys in several slots are refused in every configuration: the command is all or nothing",
    ),
    ("asking", "`OK`, without effect"),
    ("subscribe", "See *Pub/sub*"),
    ("psubscribe", "See *Pub/sub*"),
    ("ssubscribe", "See *Pub/sub*. Channels of any slots"),
    ("publish", "See *Pub/sub*"),
    (
        "readonly",
        "This connection's commands that only read and have their keys in one slot go to a replica of that slot, by `read_from` or any: see *Reading from replicas*",
    ),
    (
        "readwrite",
        "Everything of this connection goes to primaries, also with a `read_from` that says otherwise: see *Reading from replicas*",
    ),
    ("client", "About slotway's clients, over all its workers"),
    ("client|caching", "As on a server where tracking is off"),
    ("client|getname", "The name given to slotway"),
    ("client|getredir", "-1: tracking is off"),
    ("client|info", "As `CLIENT LIST`"),
    (
        "client|kill",
        "The filters of the cluster's version: see *Answers as a server of the cluster's version*. Commands of the killed that were sent to nodes are carried out",
    ),
    (
        "client|list",
        "The fields of the cluster's version: see *Answers as a server of the cluster's version*. Buffers that slotway has not are 0 (`rbs`, `rbp`, `obl`, `argv-mem`); `omem` are the replies not taken, `oll` those still owed",
    ),
    (
        "client|pause",
        "Holds the clients of this slotway, on all its workers; other proxies and clients of the nodes go on. `WRITE` also holds what slotway does not know",
    ),
    ("client|reply", "Replies are dropped by slotway; the nodes send them. Not in a transaction"),
    (
        "client|tracking",
        "`OFF` is OK. `ON` is refused: see [client-side caching](#client-side-caching)",
    ),
    ("client|trackinginfo", "Always off"),
    ("client|unpause", "As on a server it waits itself while all commands are paused"),
    ("client|id", "Slotway's own number, unique while the process runs"),
    (
        "client|no-evict",
        "`OK`, without effect but for its letter in `CLIENT LIST`: slotway evicts nobody",
    ),
    ("client|no-touch", "`OK`, without effect, on a 7.0 cluster as well"),
    ("client|setinfo", "As a 7.2 server answers, on a 7.0 cluster as well; at most 4096 bytes"),
    ("client|setname", "Kept by slotway, at most 4096 bytes; the nodes see `upstream.client_name`"),
    ("command", "The nodes' own table"),
    (
        "config|set",
        "`requirepass` and announced addresses (`cluster-announce-ip` …) are refused: set them on the nodes",
    ),
    (
        "config|get",
        "One primary's values, without secrets: see *Secrets of the nodes*. What was set through slotway is the same on all nodes",
    ),
    ("copy", "`DB` is refused by the node: a cluster has one database"),
    ("dbsize", "Each primary counts at its own moment"),
    (
        "eval",
        "Every key must be among the declared ones (`numkeys`). A node refuses the call that touches a key of another node's, when the script comes to it: what was done before stays. It does not refuse `KEYS`, `SCAN`, `DBSIZE`, `RANDOMKEY`, `FLUSHALL` and `FLUSHDB`, which then concern the keys of that node only: see *Scripts*. Keys in several slots are refused with `CROSSSLOT`, in every configuration and inside `MULTI` when the command is queued: a script runs on one node. A common hash tag in the application's key prefix (`{myapp}:`) puts its keys into one slot. Without keys: any primary. The script is kept for `EVALSHA`",
    ),
    ("eval_ro", "As `EVAL`"),
    (
        "evalsha",
        "As `EVAL`. A script that slotway has seen in `EVAL` or `SCRIPT LOAD` is known on every node: see *Scripts*",
    ),
    ("evalsha_ro", "As `EVALSHA`"),
    ("fcall", "As `EVAL`. `FUNCTION LOAD` puts libraries on all primaries"),
    ("fcall_ro", "As `FCALL`"),
    ("flushall", "Each primary at its own moment; replicas follow theirs"),
    ("flushdb", "As `FLUSHALL`"),
    (
        "function|dump",
        "One primary's libraries: all have the same if they were loaded through slotway",
    ),
    ("function|list", "As `FUNCTION DUMP`"),
    (
        "hello",
        "`HELLO 2` and `HELLO 3`. The reply says mode `standalone` (or `cluster`: `announce_mode`), role `master`, and a node's `server`, `version` and `modules`. `AUTH` as the command `AUTH`. Waits until all earlier commands of the connection are answered",
    ),
    (
        "info",
        "Sums, extremes or the first value, as fits the field; `connected_clients`, `blocked_clients` and `maxclients` are slotway's own; `redis_mode` (Valkey: `server_mode`) and `cluster_enabled` are those of `announce_mode`, `standalone` and `0` by default; a section `# Proxy` is added, or asked for with `INFO proxy`",
    ),
    ("discard", "What was queued is forgotten; no node has seen it"),
    (
        "exec",
        "All of the transaction leaves as one `MULTI … EXEC` for its slot and is atomic there. A redirection in it is followed: nothing was executed. A connection lost after it was sent is an error that says so. Keys in several slots: refused, or one transaction per slot, see `transactions.cross_slot`; if a node discards its part of a split transaction, the reply has an `EXECABORT` error at that slot's commands and the other slots' replies at theirs. A script of `EVALSHA` that slotway knows is loaded first",
    ),
    ("multi", "What follows is checked and queued by slotway, with Redis's replies and errors"),
    (
        "watch",
        "On a connection lent to the client (`limits.dedicated`) until `EXEC`, `DISCARD` or `UNWATCH`. If that connection or its node is lost, or the slot moves, `EXEC` answers null, as if the key had changed. Keys in several slots only with `transactions.cross_slot = \"split\"`: whether any was changed is asked just before the parts are sent",
    ),
    ("unwatch", ""),
    (
        "keys",
        "One primary's list after the other, in bounded memory, over connections lent to the client (`limits.dedicated`). If a node is lost after the first key was sent the client is closed",
    ),
    (
        "monitor",
        "The lines of all primaries in one stream, new primaries included; of commands that nodes carry out the address is that of slotway's connection; what slotway answers itself (`PING`, `CLIENT` …) has the client's",
    ),
    (
        "wait",
        "Covers all that this client has had acknowledged: the least number over the primaries that it has written to. A primary lost while it waits is an error",
    ),
    ("lastsave", "The oldest of the primaries"),
    ("module|list", "One primary's, without the modules' arguments"),
    ("move", "The node's refusal: a cluster has one database"),
    ("reset", "Back to RESP2, name and `CLIENT REPLY` forgotten. Waits as `HELLO` does"),
    (
        "script|exists",
        "1 for every script that slotway has, which it puts there first; else what all primaries say",
    ),
    (
        "script|kill",
        "Replicas and failed nodes are asked as well: a node may have been failed over while its script runs on. A node that cannot be asked is named in the error",
    ),
    ("function|kill", "As `SCRIPT KILL`"),
    ("script|flush", "Slotway forgets its scripts, too: see *Scripts*"),
    (
        "script|load",
        "Kept by slotway, and loaded on every node that is reached; one that is not reached is given it when it is needed",
    ),
    ("select", "`SELECT 0` is OK, other numbers get an error: a cluster has one database"),
    ("latency", "Where some nodes have nothing to say of the event, the others' is shown"),
    (
        "latency|histogram",
        "What primaries have done, once: replicas do the same again. What slotway answers itself is not in it, what it sends to nodes by itself (`PING`, `CLIENT SETNAME`) is",
    ),
    ("latency|reset", "The most that a node has reset"),
    (
        "scan",
        "Each key that is there all the time is returned at least once, as by a single server; also when a primary fails over in the middle, whose shard is then scanned again from its beginning. Once slots have moved during a scan, shards may be scanned more than once; only keys of the very slots that moved may be missed. (A cursor has room for ten bits that tell one node and one layout of the slots from another: one such change in a thousand is not noticed, and keys of that shard may then be missed.) It ends in any case. `COUNT` is per call, thus per shard; a call may return nothing and a cursor that is not 0, as always with `SCAN`. Any slotway in front of the cluster takes the cursor; a number that no slotway gave is an invalid cursor. Not inside a transaction",
    ),
    (
        "role",
        "`master`, the sum of the offsets, and no replicas: a client that would read from them would be redirected",
    ),
    ("randomkey", "Each shard counts for as many keys as it has. Not inside a transaction"),
    (
        "debug",
        "Where it is allowed: forms with a key go by it, those that set something to every primary, all else to any",
    ),
    (
        "slowlog|get",
        "Slotway's own: what clients waited for, with their own addresses, each command as its client sent it (a transaction as `EXEC`). `PROXY SLOWLOG GET` says where the time went, `PROXY SLOWLOG NODES GET` shows the nodes' own logs",
    ),
    ("slowlog|reset", "Slotway's own; `PROXY SLOWLOG NODES RESET` is for the nodes"),
    ("slowlog|len", "As `SLOWLOG GET`"),
    ("proxy|hotkeys", "`[COUNT n] [RESET]`: the keys that are used most at the moment"),
    ("proxy|bigkeys", "`[COUNT n] [RESET]`: the largest values seen in commands and replies"),
    ("proxy|slowlog", "`GET [n]`, `LEN`, `RESET`; `NODES GET [n]`, `NODES LEN`, `NODES RESET`"),
    ("acl|log", "`RESET` goes to every node"),
    ("swapdb", "A cluster has one database: where it is allowed, the node refuses it"),
    ("sort", "`BY` and `GET` with patterns are refused by the node: their keys may be anywhere"),
    ("sort_ro", "As `SORT`"),
    ("time", "One primary's clock"),
    ("xread", "With `BLOCK` as the blocking commands"),
    ("xreadgroup", "As `XREAD`"),
];

const BLOCKING: &str = "Waits on a connection lent to the client (`limits.dedicated`). If its node \
                        is lost or demoted, or the slot moves, it waits on at the next primary \
                        for the time that is left; an element taken in the very moment of such a \
                        loss is lost with the reply";

/// A row of a table of commands.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// Where the command goes.
    to: &'static str,
    /// How replies of several nodes are merged.
    merge: &'static str,
    /// Whether the command is sent again after a lost connection.
    again: &'static str,
    notes: String,
}

/// The reference of the commands of `table`: `docs/commands.md`.
pub fn commands_markdown(table: &CommandTable) -> String {
    let mut out = String::from(PREFACE);
    let newer: Vec<CommandSpec> = NEWER_CLIENT.iter().filter_map(|n| newer(table, n)).collect();
    let mut specs: Vec<&CommandSpec> = table.iter_by_name().map(|(_, spec)| spec).collect();
    specs.extend(&newer);
    specs.sort_by(|a, b| a.name.split('|').cmp(b.name.split('|')));
    for (class, heading) in GROUPS {
        let of_class = specs.iter().filter(|s| class_of(table, s) == class && is_listed(s));
        let mut rows: Vec<(Vec<String>, &str, Row)> = Vec::new();
        for spec in of_class {
            let (container, row) = (container_of(&spec.name), row(spec));
            let name = format!("`{}`", shown(&spec.name));
            // Subcommands with equal rows share one: CLUSTER alone has 26.
            let same = rows
                .iter_mut()
                .find(|(_, c, r)| spec.name.contains('|') && *c == container && *r == row);
            match same {
                Some((names, ..)) => names.push(name),
                None => rows.push((vec![name], container, row)),
            }
        }
        if rows.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n## {heading}\n\n| command | where it goes | replies become one | sent again | notes |\n\
             |---|---|---|---|---|\n"
        );
        for (names, _, row) in rows {
            let Row { to, merge, again, notes } = row;
            let _ = writeln!(out, "| {} | {to} | {merge} | {again} | {notes} |", names.join(", "));
        }
    }
    out.push_str(VERSIONS);
    newer_commands(table, &mut out);
    out
}

/// Appends the commands that only servers newer than 7.0 have. Commands with equal rows share one.
fn newer_commands(table: &CommandTable, out: &mut String) {
    let mut by_name: Vec<(String, Vec<&str>, Row)> = Vec::new();
    for (server, newer) in table.of_newer_servers() {
        for (_, spec) in newer.iter_by_name() {
            let known = table.by_name(&spec.name).is_some();
            if known || NEWER_CLIENT.contains(&&*spec.name) || !is_listed(spec) {
                continue;
            }
            let (name, row) = (shown(&spec.name), row(spec));
            match by_name.iter_mut().find(|(n, _, r)| *n == name && *r == row) {
                Some((_, servers, _)) => servers.push(server),
                None => by_name.push((name, vec![server], row)),
            }
        }
    }
    by_name.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut lines: Vec<(Vec<String>, Vec<&str>, Row)> = Vec::new();
    for (name, servers, row) in by_name {
        let name = format!("`{name}`");
        match lines.iter_mut().find(|(_, s, r)| *s == servers && *r == row) {
            Some((names, ..)) => names.push(name),
            None => lines.push((vec![name], servers, row)),
        }
    }
    for (names, servers, Row { to, merge, again, notes }) in lines {
        let (names, servers) = (names.join(", "), servers.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {names} | {servers} | {to} | {merge} | {again} | {notes} |");
    }
}

/// Whether the command has a row of its own. Containers and HELP do not: the preface describes them.
fn is_listed(spec: &CommandSpec) -> bool {
    !spec.container && !spec.name.ends_with("|help")
}

/// The specification of a subcommand of CLIENT that `table` does not have; `None` if it has it.
fn newer(table: &CommandTable, name: &str) -> Option<CommandSpec> {
    let container = table.get(table.by_name("client")?);
    let known = table.by_name(name).is_some();
    (!known).then(|| CommandSpec { name: name.into(), container: false, ..container.clone() })
}

/// The group of a command; a subcommand is in that of its container.
fn class_of(table: &CommandTable, spec: &CommandSpec) -> Class {
    match spec.name.split_once('|') {
        Some((container, _)) => {
            table.by_name(container).map_or(spec.class, |id| table.get(id).class)
        }
        None => spec.class,
    }
}

fn container_of(name: &str) -> &str {
    name.split('|').next().unwrap_or(name)
}

fn shown(name: &str) -> String {
    name.replace('|', " ").to_ascii_uppercase()
}

fn row(spec: &CommandSpec) -> Row {
    let behaviour = match behaviour_of(spec) {
        Behaviour::Client => client(spec),
        // The row says where the command goes; the notes describe the handling of scripts.
        Behaviour::Script(script) => match script.fan() {
            Some((to, merge)) => Behaviour::Fan { to, merge },
            None => Behaviour::Keys,
        },
        other => other,
    };
    let again = match behaviour {
        Behaviour::Local(_) | Behaviour::Refused(_) | Behaviour::Client => "",
        Behaviour::PubSub(PubSub::Subscribe(_) | PubSub::Unsubscribe(_)) => "",
        _ if spec.is_read_only() => "yes",
        _ => "no",
    };
    let merge = match behaviour {
        Behaviour::Split(merge) | Behaviour::Fan { merge, .. } => merge_words(merge),
        Behaviour::ConfigSet => merge_words(Merge::AllSucceeded),
        Behaviour::Scan => merge_words(Merge::Scan),
        Behaviour::RandomKey => merge_words(Merge::Report(ReportMerge::RandomKey)),
        Behaviour::PubSub(PubSub::Query(ask)) => merge_words(Merge::PubSub(ask)),
        Behaviour::PubSub(PubSub::Publish | PubSub::ShardPublish) => {
            "the node's, slotway counts as its subscribers"
        }
        _ => "",
    };
    Row { to: destination(behaviour), merge, again, notes: notes(spec, behaviour) }
}

/// The behaviour of a subcommand of CLIENT, for which [`behaviour_of`] does not decide.
fn client(spec: &CommandSpec) -> Behaviour {
    let sub = spec.name.split_once('|').map_or("", |(_, sub)| sub);
    let known = !NEWER_CLIENT.contains(&&*spec.name);
    // Tries several numbers of arguments: it is answered locally only with the right one.
    let plans: Vec<Plan> = (2..=4)
        .map(|n| {
            let mut words = vec!["client", sub];
            words.resize(n, "x");
            let (mut buf, mut ranges) = (Vec::new(), Vec::new());
            for word in words {
                let start = buf.len() as u32;
                buf.extend_from_slice(word.as_bytes());
                ranges.push(ArgRange { start, end: buf.len() as u32 });
            }
            client_command(&Args::new(&buf, &ranges), known)
        })
        .collect();
    let local = plans.iter().find_map(|plan| match plan {
        Plan::Local(local) => Some(Behaviour::Local(*local)),
        _ => None,
    });
    local.unwrap_or_else(|| match plans.first() {
        Some(Plan::Refuse(why)) => Behaviour::Refused(*why),
        _ => Behaviour::Any,
    })
}

fn destination(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::Key(_) => "its key's slot",
        Behaviour::Keys
        | Behaviour::Sort
        | Behaviour::Blocking
        | Behaviour::BlockingIfAsked
        | Behaviour::SameSlot => "the slot that all its keys share",
        Behaviour::Transaction(_) => "answered by slotway; EXEC sends what was queued",
        Behaviour::Wait => "every primary that the client has written to",
        Behaviour::Monitor | Behaviour::Join => "every primary",
        Behaviour::Split(_) => "split by slot",
        Behaviour::Any | Behaviour::Fan { to: Fan::One, .. } => "any primary",
        Behaviour::Fan { to: Fan::Primaries, .. } => "every primary",
        Behaviour::SlotAt(_) => "the slot's primary",
        Behaviour::Script(_) => "by its keys",
        Behaviour::Fan { to: Fan::Nodes, .. } | Behaviour::ConfigSet | Behaviour::OutOfBand(_) => {
            "every node"
        }
        Behaviour::Fan { to: Fan::Answering, .. } => "every node that has not failed",
        Behaviour::Fan { to: Fan::Reached, .. } => "every node that is reached",
        Behaviour::Scan => "one shard after the other",
        Behaviour::RandomKey => "every primary",
        Behaviour::PubSub(PubSub::Subscribe(_)) => "answered by slotway, when a node has confirmed",
        Behaviour::PubSub(PubSub::Unsubscribe(_)) => "answered by slotway",
        Behaviour::PubSub(PubSub::Publish) => "the primary of the channel",
        Behaviour::PubSub(PubSub::ShardPublish) => "its channel's slot",
        Behaviour::PubSub(PubSub::Query(_)) => "every node that is reached",
        Behaviour::Debug => "by its subcommand",
        Behaviour::Local(_) | Behaviour::Client => "answered by slotway",
        Behaviour::Refused(_) => "refused",
    }
}

fn merge_words(merge: Merge) -> &'static str {
    match merge {
        Merge::Array => "one element per key, in the order of the keys",
        Merge::Concat => "all elements, one node's after another's",
        Merge::Sum => "the sum",
        Merge::Min => "the smallest",
        Merge::Max => "the largest",
        Merge::And => "logical and, element by element",
        Merge::Or => "logical or, element by element",
        Merge::AllSucceeded => "the first, if none is an error",
        Merge::OneSucceeded => "the first that is no error",
        Merge::Info { .. } => "field by field",
        Merge::Filtered(_) => "one primary's, without secrets",
        Merge::Scan => "the shard's, with slotway's cursor",
        Merge::PubSub(PubSubQuery::Channels(_)) => "all names, each once",
        Merge::PubSub(PubSubQuery::NumSub(_) | PubSubQuery::NumPat) => {
            "the sum, slotway counts as its subscribers"
        }
        Merge::Report(server) => match server {
            ReportMerge::SlowLog(_) | ReportMerge::AclLog(_) => {
                "the newest of all, as many as asked for"
            }
            ReportMerge::LatencyHistory => "all samples, by time",
            ReportMerge::LatencyLatest => "by event: the newest, and the worst of all",
            ReportMerge::LatencyHistogram => "by command: the sums",
            ReportMerge::Texts => "each node's under its address; once if all say the same",
            ReportMerge::MemoryStats => "field by field: sums, and ratios of sums",
            ReportMerge::FunctionStats => "the script that runs longest",
            ReportMerge::Role => "one primary's, without replicas",
            ReportMerge::SlotStats(_) => "all nodes' slots, in the order asked for",
            ReportMerge::RandomKey => "one of the keys, each of all equally likely",
        },
    }
}

fn notes(spec: &CommandSpec, behaviour: Behaviour) -> String {
    let mut notes: Vec<String> = Vec::new();
    match behaviour {
        // The reason repeats the word that an earlier column has.
        Behaviour::Refused(why) => {
            let reason = why.reason();
            let reason = reason.strip_prefix("refused: ").unwrap_or(reason);
            notes.push(sentence(reason));
        }
        Behaviour::Split(_) if spec.is_read_only() => {
            notes.push("Over several slots each is read at its own moment".into());
        }
        Behaviour::Split(_) => notes.push(
            "Over several slots each is changed on its own: after an error some may be changed"
                .into(),
        ),
        Behaviour::Fan { merge: Merge::AllSucceeded, .. } => {
            notes.push("After an error some nodes may have done it".into());
        }
        _ => {}
    }
    notes.extend(crate::emulate::entry(&spec.name).map(|(_, entry)| entry.doc.into()));
    if behaviour == Behaviour::Blocking {
        notes.push(BLOCKING.into());
    }
    match behaviour {
        Behaviour::Key(at) if at != 1 => notes.push(format!("Its key is argument {at}")),
        Behaviour::Keys
        | Behaviour::Sort
        | Behaviour::Blocking
        | Behaviour::BlockingIfAsked
        | Behaviour::SameSlot => {
            notes.push(keys_words(&spec.keys));
        }
        _ => {}
    }
    let own = |name: &str| NOTES.iter().find(|(n, _)| *n == name).map(|(_, note)| *note);
    let refused = matches!(behaviour, Behaviour::Refused(_));
    let by_name = own(&spec.name).or_else(|| own(container_of(&spec.name)).filter(|_| !refused));
    notes.extend(by_name.filter(|n| !n.is_empty()).map(Into::into));
    if notes.is_empty() { String::new() } else { notes.join(". ") + "." }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// A description of the arguments that are keys.
fn keys_words(keys: &KeySpec) -> String {
    let words = match keys {
        KeySpec::None => return "No keys".into(),
        KeySpec::One(at) => return format!("Its key is argument {at}"),
        KeySpec::Range { first, last, step } => range_words(*first, *last, *step),
        KeySpec::Specs(parts) => {
            let parts: Vec<String> = parts.iter().map(part_words).collect();
            parts.join(", ")
        }
        KeySpec::Native(Native::Sort) => "argument 1, the one after `STORE`".into(),
        KeySpec::Native(Native::Georadius { .. }) => {
            "argument 1, those after `STORE` and `STOREDIST`".into()
        }
        KeySpec::Native(Native::Streams { .. }) => {
            "the first half of the arguments after `STREAMS`".into()
        }
        KeySpec::Native(Native::Migrate) => "argument 3, or those after `KEYS`".into(),
    };
    format!("Keys: {words}")
}

fn range_words(first: u32, last: i32, step: u32) -> String {
    let every = match step {
        0 | 1 => String::new(),
        2 => ", every other one".into(),
        n => format!(", every {n}th"),
    };
    match last {
        -1 => format!("arguments {first} to the last{every}"),
        last if i64::from(last) == i64::from(first) + 1 => {
            format!("arguments {first} and {last}{every}")
        }
        last if last < 0 => format!("arguments {first} to the last but {}{every}", -last - 1),
        last => format!("arguments {first} to {last}{every}"),
    }
}

fn part_words(part: &KeyPart) -> String {
    match (&part.begin, &part.find) {
        (Begin::Index(at), Find::Keynum { index, .. }) => {
            format!("as many as argument {} says", at + index)
        }
        (Begin::Index(at), Find::Range { last: 0, .. }) => format!("argument {at}"),
        (Begin::Index(at), Find::Range { last, step, .. }) => {
            let last = if *last < 0 { *last } else { last.saturating_add_unsigned(*at) };
            range_words(*at, last, *step)
        }
        (Begin::Keyword { word, .. }, Find::Keynum { .. }) => {
            format!("as many as the argument after `{word}` says")
        }
        (Begin::Keyword { word, .. }, Find::Range { limit, .. }) if *limit > 1 => {
            format!("the first {} of the arguments after `{word}`", fraction(*limit))
        }
        (Begin::Keyword { word, .. }, Find::Range { last: 0, .. }) => {
            format!("the one after `{word}`")
        }
        (Begin::Keyword { word, .. }, Find::Range { .. }) => format!("those after `{word}`"),
    }
}

fn fraction(of: u32) -> String {
    if of == 2 { "half".into() } else { format!("1/{of}") }
}

const VERSIONS: &str = r#"
## Server versions

Slotway routes by the command table of the nodes themselves, so what a newer server adds to an existing command (an option, a type) is passed on, and a new command goes where its server says. What is tested is this; "everything" is the differential test, which compares slotway's replies with those of a single server of the same version, and redis-py's test suite.

| server | tested | what of it is known | what is not |
|---|---|---|---|
| Redis 7.0 | 7.0.15: everything, in every CI run | Everything: its table is built in | What the tables above say |
| Redis 7.2, 7.4, 8.0 | Not these versions themselves | `CLIENT SETINFO`, `CLIENT NO-TOUCH`, `CLIENT KILL MAXAGE` and `CLUSTER MYSHARDID` (answered by slotway), `WAITAOF`, expiry of hash fields (`HEXPIRE` …) | `CLIENT TRACKING` |
| Redis 8.2 | 8.2.3: a part of the differential test and an upgrade of a 7.0 cluster, node by node, in every CI run; everything with `make conformance` | All commands below; `HGETEX`, `HSETEX`, `XDELEX`, `XACKDEL`, vector sets, the new operations of `BITOP`, `CLUSTER SLOT-STATS` | As 7.2; `CLUSTER MIGRATION`; of 7.2 and newer the shortest form of scores that slotway computes (*Keys in several slots*) |
| Redis 8.4 and newer | No | What their tables say | What has no key among its arguments, and no policy in the table, goes to any primary |
| Valkey 7.2, 8.0, 8.1 | Not these versions themselves | As Redis 7.2, of which Valkey 7.2 is a copy; `SET … IFEQ`, `COMMANDLOG`, `CLIENT CAPA`, `SCRIPT SHOW`, `MULTI` behind `MULTI` | As Redis 7.2 |
| Valkey 9.0, 9.1 | 9.1.2: as Redis 8.2 | All commands below; expiry of hash fields, `DELIFEQ`, `MSETEX` in one slot, `GEOSEARCH … BYPOLYGON`, all filters of `CLIENT LIST` and `CLIENT KILL` | As 8.1; `CLUSTERSCAN`, `MSETEX` over several slots. Numbered databases of a cluster (`cluster-databases`): clients are in database 0; `SELECT` of another is refused, and what `MOVE` or `COPY … DB` puts into another cannot be reached through slotway |

The commands that 7.0 does not have:

| command | servers | where it goes | replies become one | sent again | notes |
|---|---|---|---|---|---|
"#;

const PREFACE: &str = r#"# Commands

<!-- Written by `slotway docs commands` from src/docs/commands.rs, the command table and src/route/behaviour.rs: change it there. -->

What slotway does with each command of Redis 7.0, and what is different from a single server. Written from the table that slotway itself routes by. Newer servers are in *Server versions* at the end.

## How a command finds its way

Redis describes its commands itself (`COMMAND`): where their keys are, which nodes they are for, how several replies become one. Slotway routes by that description. Redis 7.0.15's is built in; the cluster's own is laid over it at the start and whenever a new node appears or one that was lost is reached again (as after an upgrade; at most every five seconds), so that a newer server's commands and modules' commands route as their server says.

A module's command that keeps its connection waiting should have the flag `blocking` there; then it goes over a connection lent to its client, as `BLPOP` does. Where it lacks the flag everybody who shares the connection would wait with it. `commands.blocking` names such commands. Those that it does not name are learned: when a module's command has held others up for a tenth of a second, slotway asks its node by `CLIENT LIST`, on another connection, and if the connection is blocked (`flags=b`) the command goes over lent connections from then on. A command that is slow, or keeps its node busy, is not blocked and is never learned; nor is a command of the server itself. The log names what was learned, `slotway_commands_learned_blocking` counts it (64 at most; it is forgotten when slotway ends). This needs the right to `CLIENT LIST` for `upstream.user`, and connections whose addresses the nodes see as they are. When the connection of a module's blocking command is lost, the command is sent again only if it has the flag `readonly`.

The column **where it goes** in the tables below:

- **its key's slot**: to the primary that serves the slot of its key, the bytes as the client sent them.
- **the slot that all its keys share**: the same, for commands with several keys. If the keys lie in different slots the client gets an error that begins with `CROSSSLOT` and names two of them; with `commands.cross_slot = "emulate"` slotway carries the command out in steps, see *Keys in several slots*. Keys share a slot if they have the same hash tag: `{user:7}:name` and `{user:7}:mail`.
- **split by slot**: keys may lie in any slots. If they share one, the command goes there as it is. Otherwise each slot gets a command with its own keys, all at the same time, and slotway makes one reply. Each part is atomic, the whole is not. If a part fails, the reply is an error that names the nodes that failed; the other parts have been done. If all parts fail with the same error, or those that fail do and the command only reads, the reply is that error. While a slot is being migrated, its part may be divided further, see [below](#when-slots-move-and-nodes-fail).
- **every primary** (every one that owns slots: another has no keys), **every node** (replicas included, also those that the cluster reports as loading): to all of them, and one reply is made. If some fail, the reply is an error that names them, and the others have carried the command out; the exceptions are the same. A node that the cluster reports as failed is not waited for, and is such an error, unless a connection to it stands. **Every node that has not failed** leaves those out: for commands that only read.
- **any primary**: one that answers for all. A client always gets the same one while the cluster stays as it is.
- **answered by slotway**: no node is asked.
- **refused**: an error that says why. What would act on one node behind the cluster's back is refused with `NOPERM` unless `commands.allow` names it (or `@dangerous`); it then goes to the node of its keys, or to any primary. What would take over a connection that clients share (`SYNC`, `SCRIPT DEBUG` …) is refused in any case. `commands.deny` refuses any other command, by its name, a subcommand's or an ACL category ([configuration](configuration.md#commands)). What scripts call is not looked at.

**Sent again** says whether slotway repeats the command when the connection is lost before the reply: see below.

A request with the wrong number of arguments goes to any primary, whose error the client gets. So does a command or a subcommand that is not in the table (but all of `CLUSTER` is slotway's): if the cluster knows it after all, its redirection to the right node is followed and slotway reads the cluster's table again, at most every five seconds. A module's command whose server does not say where all its keys are is routed by those that it does say. `HELP` subcommands are the server's own, from any primary, but for `PROXY HELP`; `CLUSTER HELP` therefore also lists what is refused here.

There is one database, 0, because a Redis Cluster has no other.

## Answers as a server of the cluster's version

The answers that slotway gives itself are those of a server of the cluster's own version. Slotway asks a node what it is (`INFO server`, `HELLO`, `CLIENT INFO`) together with its command table. Until one has answered, and of what it refuses to say, the answers are Redis 7.0's.

- **All versions**: `HELLO` says `server`, `version` and `modules` as a node does (modules without their arguments), but for mode and role. `CLIENT LIST` and `CLIENT INFO` show the fields that a node shows, with numbers of slotway's own where it has them; `lib-name` and `lib-ver`, `CLIENT SETINFO` and `CLIENT NO-TOUCH` also on a 7.0 cluster.
- **Redis 7.2**: `WAITAOF`, as `WAIT`: at every primary that the client has written to, the least of each number. `CLUSTER MYSHARDID`: slotway's own, the same for all slotways with the same `announce`.
- **Redis 7.4, 8.0**: `CLIENT KILL MAXAGE`; the fields `watch` and `io-thread` (always 0).
- **Redis 8.2**: `BITOP` with `DIFF`, `DIFF1`, `ANDOR` and `ONE`, also over several slots (`emulate`); `CLUSTER SLOT-STATS` over all primaries, in the order and with the limit asked for; the fields `tot-net-in`, `tot-net-out` and `tot-cmds`. Not known: `CLUSTER MIGRATION` (an unknown subcommand here).
- **Valkey 8.0**: `CLIENT CAPA` (slotway redirects nobody, whatever a client is capable of) and the field `capa`; `SCRIPT SHOW`, for every script that slotway has, wherever it was executed; `CLUSTER SLOT-STATS`; `CLIENT KILL MAXAGE`; the type `primary`; `MULTI` and `WATCH` behind `MULTI` are refused in Valkey's words and make `EXEC` fail.
- **Valkey 8.1**: several numbers behind `ID`, and the filters of `CLIENT KILL` for `CLIENT LIST`. `COMMANDLOG` is about all nodes. `HELLO` follows `CONFIG SET extended-redis-compatibility` sent to slotway within five seconds; set at the nodes directly it is seen when slotway asks them anew.
- **Valkey 9.0**: the filters `NAME`, `IDLE`, `FLAGS`, `LIB-NAME`, `LIB-VER`, `DB`, `CAPA` and `IP`, and the negations of all filters (`NOT-ID` …) but `MAXAGE` and `IDLE`. Not known: the subcommands of `CLUSTER` that migrate slots, and databases other than 0.

## Users

Without users every client may do everything, with the rights of the user that slotway has logged in as (`upstream.user`). There are two kinds of users, which may be combined.

**Slotway's own** (`users`, `users_file`) have rules in Redis's ACL syntax, which are checked before anything is sent, with Redis's own errors (`NOAUTH`, `WRONGPASS`, `NOPERM`); a command that is refused behind `MULTI` makes `EXEC` fail. As in Redis a connection is the user `default` until it logs in. Other than in Redis there is no `default` where only others are given: who has not logged in may then do nothing.

- What a user may do is done with the rights of `upstream.user`.
- **Scripts, functions and modules.** A server runs a script with the rights of the user that sent it. Slotway sees only the call, so it refuses what it cannot check (`NOPERM … slotway cannot check what it does …`) to every user whose rules refuse anything at all, that is, who does not have `~* &* +@all` in one selector: `EVAL`, `EVALSHA`, `FCALL` and their `_RO` forms, `SCRIPT LOAD`, `FUNCTION LOAD`, `FUNCTION RESTORE`, whatever a newer server has in `@scripting` beside them, modules' commands that do not declare their keys (`FT.SEARCH`) or run code (`TFCALL`, `RG.…`, `AI.SCRIPT…`), and `DEBUG` where `commands.allow` opens it. A rule such as `+eval` alone does not allow them. The rule `unchecked-commands` does, for one user: that user's rules about commands and declared keys still hold for the call, but a script can then read, write and delete everything that `upstream.user` can. `slotway check`, the start and a changed `users_file` warn of every such user, and of users whose rules name what is refused. `ACL DRYRUN`, `ACL GETUSER` and `ACL LIST` show what is refused. The rule is slotway's own: a Redis server does not read a file with it.
- As at a server, rules about keys do not limit the commands that have no keys among their arguments: `KEYS`, `SCAN`, `RANDOMKEY`, `DBSIZE`, `FLUSHALL`, `MONITOR`, `CLUSTER GETKEYSINSLOT`. Deny them by command or category (`-@dangerous`).
- A command with a wrong number of arguments, or one that nobody knows, is refused here; only users with `+@all ~* &*` can send what slotway does not know. The keys of a module's command that its server does not tell completely are only for users with `~*`.
- `SORT` with `GET`, or with a pattern behind `BY`, is for users with `~*`.
- `ACL WHOAMI`, `USERS`, `LIST`, `GETUSER` and `DRYRUN` are about these users; `SETUSER`, `DELUSER`, `LOAD` and `SAVE` are refused: the users are in the configuration. `CAT`, `GENPASS` and `LOG` are a node's.
- When `users_file` changes, new rules hold for the connections that are there. Who is not in it any more, or is subscribed to what it may not hear any more, is disconnected. A user that is turned off (`off`) stays logged in, as in Redis.

**The cluster's** (`auth = "passthrough"`) are those that the nodes know (`ACL SETUSER` through slotway sets them on every node). A node verifies each login, on a connection of its own, and from then on the client's commands travel on connections of that user, which all its clients on a worker share; so the nodes apply their own rules, `ACL WHOAMI` is true, and scripts are kept to their keys as well. A client that has not logged in is the nodes' `default` user where that one needs no password.

- A password that is changed, or a user that is deleted, ends the connections at the nodes; commands then get the node's own error, and the client is disconnected once no node takes its password (one that only listens within half a minute). New rules hold at once.
- What no node sees of it (`SUBSCRIBE`, `CLIENT`, `CLUSTER`, `PING`, `MULTI` …) slotway asks a node about with `ACL DRYRUN`, each subscription anew, the others at most once a second for each user and command. `upstream.user` needs `+acl|dryrun` for that, and the nodes Redis 7. Every few seconds it asks about what users are subscribed to: who may not hear something any more is disconnected.
- Messages come over slotway's own subscriptions: `upstream.user` needs `&*`.
- Commands behind `MULTI` are looked at by the node when `EXEC` comes: a refused one is answered `QUEUED`, and `EXEC` says what was refused.
- Reads go to primaries, whatever `read_from` and `READONLY` say.

- `DEL`, `UNLINK`, `MSET`, `MGET`, `EXISTS` and `TOUCH` over several slots are several commands, and each node looks at its own keys only: where a user may use some of the keys, those are deleted or written although the answer is `NOPERM`. (Slotway's own users are looked at before anything is sent.)
- From other machines nobody is the `default` user while that one needs no password (`DENIED`), unless `protected_mode = false`. A user that any password fits (`nopass`) is one user, whichever is shown; of any other at most eight passwords are in use at a time.

Before the login a client may send commands of at most 10 arguments of at most 16 KiB each, as to a server; a longer name or password is wrong.

A **failed login** is answered later and later, by the failures from the same address in the last minute (up to 5 s); nobody else waits for it. From ten of them on, logins from that address are looked at one after the other, 50 in a second, and no more than two seconds' worth of them wait; so whoever closes the connection instead of waiting is no faster. `slotway_logins_total` and `slotway_denied_total` count.

## Secrets of the nodes

No client gets what slotway or the nodes log in with, whichever way it asks, also behind `MULTI`, and whatever rights its user has at the nodes.

- `CONFIG GET` leaves out the settings that are secrets, as a server that does not have them: `requirepass`, `masterauth`, `masteruser`, `primaryauth`, `primaryuser`, `tls-key-file-pass`, `tls-client-key-file-pass`, and each one whose name has the word pass, password, passphrase, secret, token, credential or the like in it. They are not shown as empty, which would say that there is no password. `CONFIG SET` of `requirepass` is refused (`NOPERM`), because slotway would be locked out, and so is that of `cluster-announce-…` and `replica-announce-…`, because nodes would log in elsewhere with their password.
- `ACL LIST` and `ACL GETUSER` show the nodes' users with `(redacted)` in the place of each hash; users of the cluster (`auth = "passthrough"`) see what their node shows them.
- `MODULE LIST` shows no arguments; `INFO` no `config_file` and no `executable`. In slow logs (`SLOWLOG`, `PROXY SLOWLOG NODES`) and in `MONITOR` secret arguments are `(redacted)`.
- `REPLICAOF`, `FAILOVER`, `MIGRATE`, `MODULE LOAD` and what of `CLUSTER` changes the cluster are refused unless `commands.allow` names them: each of them can have a node log in elsewhere.

## Scripts

Slotway keeps every script that it sees in `EVAL`, `EVAL_RO` and `SCRIPT LOAD`, whichever client sent it, as a single server does. `limits.scripts` says how many bytes; at the limit the one that was used least recently is forgotten.

`EVALSHA` of a script that slotway has does not fail with `NOSCRIPT`. A node that is new, was promoted or was restarted is given the script right before the first `EVALSHA` that goes there on a connection (`SCRIPT LOAD`, in the same write). If a node says `NOSCRIPT` all the same, because somebody has sent it `SCRIPT FLUSH`, nothing was executed, and slotway sends the command again behind its script, at once. A client that pipelines has its scripts put before its commands each time slotway reads from it, so that the commands behind an `EVALSHA` are not executed before it either. (If the scripts are flushed in the very moment in which a node works on them, or a client sends more while a single `EVALSHA` is under way to a node that was flushed just now, they can be.)

A script's own error that reads like the server's `NOSCRIPT` is the client's: where these words stand in the script or among its arguments the command is not sent again. A script that puts exactly these words together from pieces after it has written something may be run a second time.

**Commands about all keys.** A script runs on one node, so `KEYS`, `SCAN`, `DBSIZE`, `RANDOMKEY`, `FLUSHALL` and `FLUSHDB` inside a script or function see and change the keys of that node alone: with three primaries about a third of all keys, without an error. No proxy can change that. When such a script is first given to slotway (`EVAL`, `SCRIPT LOAD`, `FUNCTION LOAD`, also behind `MULTI`) the log has a warning with its SHA1, and `slotway_scripts_partial_total` counts it. Calls are recognized by the name as it stands in the first MiB of the source, such as `redis.call('keys', …)`. A name that the script puts together or gets as an argument is not seen, nor are libraries of `FUNCTION RESTORE` and scripts that only the nodes know. Sent to slotway as commands of their own, these commands concern every shard.

The scripts of a transaction's `EVALSHA`s go before its `MULTI` every time, as it cannot be sent again in part.

`SCRIPT FLUSH` through one slotway makes that slotway forget its scripts and empties the nodes; another slotway before the same cluster does not hear of it and goes on giving the nodes the scripts that it has. Functions are the nodes' own: `FUNCTION LOAD` puts them on every primary, which saves and replicates them; a primary that joins the cluster gets them from the one who adds it (`redis-cli --cluster add-node` does that).

## Pub/sub

Clients subscribe at slotway, and slotway subscribes once to each channel and pattern at the cluster, whatever the number of its clients. A client has its confirmation when a node has confirmed the subscription, so a message published after that is not missed. In RESP2 a subscriber may only send what is about its subscriptions, `PING`, `QUIT` and `RESET`; in RESP3 it may send anything.

- **Channels and patterns** are spread over the primaries by a hash of their names; `PUBLISH` goes to the same node; what only patterns listen to is published where such a pattern is subscribed (with a subscriber of `*`: all of that at one node). A cluster hands every ordinary message to all its nodes, so subscribers and publishers that speak to the nodes directly, or to another slotway, are reached as well. A subscription stays where it is while slots move and while its node becomes a replica.
- **Shard channels** (`SSUBSCRIBE`, `SPUBLISH`) are at the primary of their slot, and move with it. A client may subscribe to shard channels of any slots in one command.
- **Keyspace notifications**: a node tells only of its own keys. Channels and patterns that can match `__keyspace@0__:…` or `__keyevent@0__:…` (`*` can, too) are subscribed at every primary, new and promoted ones included, and each notification is given once. The nodes have to send them: `CONFIG SET notify-keyspace-events KEA` through slotway sets it on every node. A message that a client itself publishes on such a channel cannot be told from a notification, and comes once from each primary.
- **Order**: the messages of one publisher on one channel come in the order in which they were published. Messages of different channels, and a message beside the reply of the `PUBLISH` that sent it, come over different connections: which comes first is open: a message that crosses the cluster's bus (a pattern's, most often) can be tens of milliseconds later, and a new pattern may be given what was published just before. So a client that publishes to itself and unsubscribes in the same pipeline may not get its message. In a failover the messages of a shard channel come from the former primary until it has answered that it has sent all, and from the new one after that; the gap that is counted lasts until then. A replica accepts `SPUBLISH` as well: what a client that does not go through this slotway publishes there after that (or a worker of slotway that the machine has stopped for a second) crosses the cluster's bus, and can come after its next message.
- **Gaps**: when a node with subscriptions is lost they are made again elsewhere at once. What was published in between is missed, as by every Redis client that reconnects. `slotway_pubsub_gaps_total` counts each channel and pattern that this may have happened to, and `pubsub.on_gap = "disconnect"` closes the connections of their subscribers, so that they know.
- **Slow subscribers** are closed at `pubsub.output_hard`, or above `pubsub.output_soft` for `pubsub.output_soft_time`, as Redis does it with `client-output-buffer-limit pubsub`.
- **The nodes' own limit**: to a node slotway is one subscriber, whose connection carries all topics that are there. Messages of more than `client-output-buffer-limit pubsub` (32 MB) at once have the node close it, which is a gap for all of these: where such messages are published, raise it on the nodes. Names of more than 64 KiB are not subscribed to.
- **In a pipeline** what follows a subscription waits until it is confirmed.
- **From other connections** `PUBLISH`, `SPUBLISH` and an `EXEC` with one, when they come to this slotway after a subscription that they can match, wait until it is confirmed or given up (`timeouts.command`), so that who subscribes and publishes over two connections need not read the confirmation first. They wait for no later one, and `slotway_pubsub_publish_waits_total` counts. Not seen are a `PUBLISH` inside a script, keyspace notifications, other slotways' clients and a subscription that is the first thing on a new connection; nor, with several workers, is one that comes less than about a millisecond before the `PUBLISH` on a connection older than a second when nobody has subscribed in that second: read the confirmation there.
- **Counts** (`PUBLISH`, `SPUBLISH`, `PUBSUB NUMSUB` …) are those of one server that had slotway's clients and the nodes' own; of another slotway's clients only one per channel is counted. Inside a script `PUBLISH` gives the node's own count.
- **Inside a transaction** `PUBLISH` and `SPUBLISH` are let in; subscribing and `PUBSUB` are refused.

## Reading from replicas

Which nodes answer commands that only read says `read_from` in the configuration: the primary (the default), replicas first, any node, the fastest ones, those in slotway's own zone. It holds for every connection, whatever client library is behind it; a connection can say otherwise:

- `READONLY`: reads go to replicas as `read_from` says, and to any replica where that is `"primary"`;
- `READWRITE`: all its commands go to primaries, whatever the configuration says;
- `RESET`: as the connection began.

What may go to a replica: a command that only reads (**sent again: yes**) and has all its keys in one slot, outside of a transaction. `HSCAN`, `SSCAN` and `ZSCAN` go to the primary, also in a failover: a cursor is understood only by the node that gave it, and the next call may come on another connection. Commands over several slots or all nodes, scripts, what a client reads between `WATCH` and `EXEC`, and what writes go where they always go; so do reads of a slot that this slotway sees moving.

**Which replica.** Those that the cluster reports as online, that answer, whose link to their primary is up, and that are not further behind than `replicas.max_lag` and `replicas.max_lag_bytes`; slotway asks them once per `replicas.check`. Reads are spread over them by connection and slot: one connection reads a slot from the same node as long as that is fit and reached, so that it does not see newer data and then older. (`"lowest_latency"` gives that up where another node becomes faster.) What a replica refuses (`LOADING`, `MASTERDOWN` …) or does not answer, because it is lost or frozen, goes to the primary.

**How old the data is.** Replicas are behind their primary, most often by less than a millisecond, at worst by what the limits and the time between two checks allow. So with anything but `"primary"` a connection may not read what it has written a moment ago, also in the same pipeline; and where a read that a replica refused goes to the primary, it may come behind a later write of the same pipeline. Programs that cannot have that say `READWRITE`, read in a transaction, or leave `read_from` as it is. While a slot moves, keys that have moved already are not there for a read from its old shard's replica.

**In a failover.** While a slot's primary is not reached, its replicas answer reads even though their link is down: with any `read_from` but `"primary"`, and with that one where `replicas.in_failover` is `"read"`. Reads that were on their way to the primary go to a replica as well, unless they wait behind a write of the same connection. A node that considers the cluster as down refuses reads with `CLUSTERDOWN`, and these wait for the new primary; `cluster-allow-reads-when-down yes` on the nodes changes that.

`slotway_reads_total` counts where such reads went, `slotway_replicas` how many replicas are read from, and why others are not.

## Keys in several slots

A cluster carries out no command whose keys lie in several slots, and so slotway refuses it with `CROSSSLOT`, naming two of the keys and their slots. With `commands.cross_slot = "emulate"` it carries it out with several commands that stay in one slot each, and answers as a single server does. The notes below that begin with "Over several slots (`emulate`)" say for each command how, and what is given up. A command whose keys share a slot goes its usual way, with this setting as without. What holds for all of them:

- **Others see the steps.** There is no moment at which all of it is done; only what is written to one key is written in one piece. What a command reads of several keys is not of one moment either.
- **Nothing is only in slotway.** A target is written and confirmed before anything is removed from a source. If a node is lost in the middle the data is in the source, in the target, or in both; the error says which steps were done, and begins with `OUTCOMEUNKNOWN` where that cannot be said of one of them, otherwise with `ERR` (`slotway_emulated_total{outcome="halfway"}`).
- **Replicas are not waited for**, as Redis does not wait for them. A primary whose process is killed has as a rule sent its replica what it has confirmed. If one is lost with its machine in that moment, or the replica that takes its place was cut off from it, the cluster loses writes that it has confirmed: of a move that may be the target's, while the source's removal stays, and what was moved is in neither. `min-replicas-to-write 1` on the nodes has a primary without a replica refuse writes, so that such a move ends before anything is removed; it sees a missing replica when the link is closed, or after `min-replicas-max-lag`.
- **Order.** What a connection sends behind such a command waits until it is answered.
- **Errors** are the server's: each command goes once to a node with keys that do not exist, so that the node finds what is wrong with its other arguments.
- **Keys of slotway's own** begin with `slotway:{`. Sources and results that are put beside each other exist only between `MULTI` and `EXEC`; `slotway:{N}:moving:…` keeps two moves from the same source apart and expires by itself after 5 seconds.
- **Rights.** Slotway's own users are checked for the command as they sent it. Users of the cluster (`auth = "passthrough"`) need the rights for the steps: `DUMP`, `RESTORE`, `EVAL` for `RENAME`, say, and `~slotway:{*` beside their keys for what needs such a key (`ZRANGESTORE`, `GEOSEARCHSTORE`, `PFMERGE`, `LCS`). So does `upstream.user`.
- **Time and memory.** Each step has the time of `timeouts.command`. All that is read for a command is in slotway's memory until it is answered, and where `limits.memory` has no room for it the command is refused (`OOM`), before anything is changed.
- **Full memory.** What a server carries out at `maxmemory` with `noeviction` is carried out: pops, also those that wait, `XREADGROUP`, `LCS`, and `SMOVE`, `RENAME` and `RENAMENX`, whose steps that need memory are sent as scripts with the flag `allow-oom` (servers from 7.0 on; the user that slotway logs in as needs `EVAL`). What is moved to another node can take that node above its `maxmemory` by its own size.
- **Waiting.** A blocking command looks at its keys again and again, at first after a millisecond, then twice as long and so on up to `commands.cross_slot_turn`. The order of its keys holds, but of several clients that wait none is first in line. It waits through failovers for as long as it has time.
- **Numbers.** Scores that slotway computes are written with 17 digits, as Redis 7.0 writes them: `1.1000000000000001`, where servers since 7.2 write `1.1`, the same number.

`EVAL` and `FCALL` over several slots stay refused, and so does behind `MULTI` what would be emulated.

## Client-side caching

`CLIENT TRACKING ON` is refused, and never answered with `OK`: a client that believes that it is told of changes keeps values that are wrong. No error can say to every client that it need not try again, so switch client-side caching off in clients behind slotway. What those do that have it switched on:

- **node-redis** (5.12.1 and 6.3.1 were tried) with `clientSideCache` or `emitInvalidate` takes every error while it connects for one that may pass, whatever its code: each attempt emits `error` with slotway's text, and `connect()` does not return for as long as `reconnectStrategy` gives a time. A strategy that returns the cause where it names `CLIENT TRACKING` makes `connect()` reject at once (see below).
- **redis-py** (8.1.0) with `cache_config`: the first command raises `ResponseError` with slotway's text.
- **Jedis** with a cache: no connection, as its code fails where `CLIENT TRACKING` is not answered with `OK` (read, not tried).
- **ioredis** has no such cache.

```js
const refused = (cause) => /CLIENT TRACKING/.test(cause?.message);
createClient({ socket: { reconnectStrategy: (retries, cause) => refused(cause) ? cause : Math.min(retries * 50, 2000) } });
```

## When slots move and nodes fail

A node that refuses a command with `MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `MASTERDOWN` or `READONLY` has not executed it. The client does not see these: slotway sends the command again, where it belongs (`MOVED`, and `ASK` with `ASKING`) or after a short wait (the others), until it is answered or its deadline is there. A slot without a primary, as in a failover, makes its commands wait in the same way, as far as `limits.held` allows; one slot gets no more of it than is left for the others. So do the parts of commands for every primary (`DBSIZE`, `FLUSHALL`, `KEYS` …): each waits for its own shard's primary. Only with commands for every node it is otherwise: a node's refusal becomes part of their error.

**Commands without keys at a node that was restarted.** A primary that restarts without its data, while its replica has the data and is about to be promoted, refuses commands with keys (`CLUSTERDOWN`, later `MOVED`) and carries out those without: it would count no keys, and say `OK` to `FLUSHALL` although the shard's data lives on in the replica. So the first part of `DBSIZE`, `SCAN`, `RANDOMKEY`, `FLUSHALL`, `FLUSHDB`, `FUNCTION LOAD` and other such commands that read or change data is sent on each new connection to a node as `MULTI`, `EXISTS` of a key of the node's shard, the command, `EXEC`: if the node refuses the key nothing is carried out, and the part waits as a command with that key would. `KEYS` has the `EXISTS` in front of it, without a transaction. Once the node has accepted it, commands on that connection are sent as they are: a restart ends the connection. Three limits remain. A primary that comes back without data before anyone has taken its place is the shard's primary, and the data is lost. A node that is cut off from the cluster while its connections to slotway stand is asked as before until slotway learns of its successor. And a user of the cluster (`auth = "passthrough"`) who may not read the key, or slotway's own user without `EXISTS`, is not protected in this way.

**A slot in the middle of its migration** has some keys at the old node and some at the new one, and neither node executes a command that names keys of both (`TRYAGAIN`). `MGET`, `MSET`, `DEL`, `UNLINK`, `EXISTS` and `TOUCH` are then sent key by key, all keys at the same time: each finds its node, the replies become one in the order asked, and the client's later commands for the slot wait for all of them. What is given up is that the slot's part is atomic: another client can see some keys of an `MSET` with their new values and some with their old ones, and after an error some may have been set or deleted (`slotway_key_by_key_total` counts such commands). All other commands with several keys (`SINTER`, `RENAME`, `MSETNX`, scripts, transactions, `BLPOP`) need them at one node: they wait until the migration has taken the last of their keys, or until their deadline, whose error says between which nodes the slot is being migrated:

```text
TRYAGAIN slotway waited 5.0 s (timeouts.command) for slot 12909, node 10.0.0.1:7000, 112 tries: the command was not executed, as slot 12909 is being migrated from 10.0.0.1:7000 to 10.0.0.2:7000, and SINTER needs all its keys at one node; let the migration finish, or raise timeouts.command; last: TRYAGAIN Multiple keys request during rehashing of slot
```

**Order.** The replies of one connection always come in the order of its commands. Commands of one connection with keys of the same slot take effect in the order sent, also while the slot moves and after a failover: while one of them waits, the later ones wait behind it. What was already on its way to the node when an earlier one was refused is beyond that, as it is for any client that pipelines: if the reason for the refusal passes in that moment (the slot comes back, the node has loaded), the later one is executed first. Between keys of different slots, and between connections, no order is promised; a command for every node (`FLUSHALL`) may overtake commands that wait for a slot. A client that needs an order there waits for the reply.

**Outcome unknown.** If a connection to a node is lost, commands that were not sent whole are sent on the next connection. Those that were sent and not answered may have been executed or not. If they only read, they are sent again ("sent again: yes"; but not where the same connection's later write to that slot was lost with them). All others get an error with a code of its own, `OUTCOMEUNKNOWN`, and the client decides:

```text
OUTCOMEUNKNOWN slotway lost its connection to 10.0.0.1:7000 (closed by the node) after the command was sent: it may or may not have been executed
```

The code stands wherever the outcome of a command, or of a part of it, is unknown: at the deadline, when `limits.memory` has no room for a write's reply, in the error of a command over several slots, at a command of a split transaction. A blocking command whose connection is lost waits on at the next primary; an error that ends it before it is sent there has the code, whatever its cause (the deadline, `timeouts.no_primary`, `CLIENT UNBLOCK`).

With `commands.on_outcome_unknown = "disconnect"` the client's connection is closed in place of that error, as a server's is that fails: the replies before it are delivered, what comes behind it is not. This is for clients that take an error for a bug in the application and a closed connection for a reason to try again, such as Celery's workers ([reliability.md](reliability.md#retries-of-clients)). It makes no write safe to repeat: a client that sends `INCR` again after the connection has closed may count twice.

A client that has already received the first part of a large reply when the rest is lost is disconnected.

**Deadlines.** `timeouts.command` (5 s by default) is the longest that a command may take from its arrival to its reply, retries included. After that its client gets an error that says what was waited for, and whether the command was sent. It begins with `OUTCOMEUNKNOWN` where the command was sent and may have been executed, otherwise with the word of the node's last refusal if there was one (`CLUSTERDOWN`, `TRYAGAIN` …), or with `ERR`:

```text
OUTCOMEUNKNOWN slotway waited 5.0 s (timeouts.command) for slot 866, node 10.0.0.1:7000, 1 tries: the command was sent and not answered, so it may or may not have been executed
```

A node that has let a command's deadline pass loses its connection with it, so that the other commands that were sent on it are treated as above.

**A node that a script keeps busy** answers everybody with `BUSY` once the script has run for `busy-reply-threshold` (5 s unless the node says otherwise), and executes nothing then but what ends the script. Slotway's clients share connections, and those behind the script on its connection would not be answered before its end. So when a command that may run a script (`@scripting`, `EXEC`) is a tenth of a second late, nothing more is written behind it, and its node is asked by `PING`, on another connection, twice a second. When that is answered with `BUSY`, other clients' commands go over another connection, where the node answers them itself: they get its own words, as at a server. The same for a module's command that keeps its node busy. A client of which something had been sent already that may change data stays where it is, and no more is read from it until that is answered, as it will be executed when the script ends; what only reads is asked again on the other connection. `SCRIPT KILL` and `FUNCTION KILL` always get through.

**Nodes that do not answer.** A node that owes answers and has said nothing for `timeouts.probe` (half a second) is looked at: slotway connects to it anew, says `PING`, and asks the cluster about it ten times a second. What it sees decides:

- The cluster has put another node in its place: what was sent is treated as a lost connection's, at once, and what was not sent goes to the other node. This is how a frozen or cut off primary ends, after the cluster's own `cluster-node-timeout` and election.
- The node takes the connection and does not answer: it is frozen, or busy with a long script, which looks the same. Its connection stays until a command's deadline, but nothing more is sent, so that it can still go elsewhere.
- No connection can be made: what is on its way and cannot be repeated waits in the same way, for the network may come back. A connection that owes nothing but what can be repeated is replaced.
- The node answers there: the command takes its time, or that one connection is dead. Where it was only `PING` that was not answered, it is replaced.

A connection that nobody uses gets a `PING` after ten times `timeouts.probe`, so that the first command after a quiet night does not find out. Connections lent for blocking commands may be silent for as long as they like: there `upstream.keepalive` finds out.
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Local;

    #[test]
    fn docs_commands_md_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
        assert!(
            std::fs::read_to_string(path).unwrap_or_default()
                == commands_markdown(&CommandTable::builtin()),
            "out of date: slotway docs commands > docs/commands.md"
        );
    }

    #[test]
    fn every_command_has_one_line() {
        let table = CommandTable::builtin();
        let page = commands_markdown(&table);
        for (_, spec) in table.iter_by_name() {
            let cell = format!("`{}`", shown(&spec.name));
            let first_cells = page.lines().filter_map(|l| l.strip_prefix("| ")?.split(" |").next());
            let lines = first_cells.filter(|c| c.split(", ").any(|name| name == cell)).count();
            assert_eq!(lines, usize::from(is_listed(spec)), "{}", spec.name);
        }
    }

    /// The preface describes these commands, which have no row.
    #[test]
    fn help_and_unknown_subcommands() {
        let table = CommandTable::builtin();
        for (_, spec) in table.iter_by_name().filter(|(_, s)| !is_listed(s)) {
            let want: &[Behaviour] = match &*spec.name {
                "cluster" => &[Behaviour::Local(Local::Cluster)],
                "client" => &[Behaviour::Client],
                "proxy" | "proxy|help" => &[Behaviour::Local(Local::Proxy)],
                _ => &[Behaviour::Any],
            };
            assert!(want.contains(&behaviour_of(spec)), "{}", spec.name);
        }
    }

    #[test]
    fn notes_are_about_commands_that_exist() {
        let table = CommandTable::builtin();
        for (name, _) in NOTES {
            let newer = table.of_newer_servers();
            let known = table.by_name(name).is_some()
                || NEWER_CLIENT.contains(name)
                || newer.iter().any(|(_, table)| table.by_name(name).is_some());
            assert!(known, "{name}");
        }
    }

    #[test]
    fn every_newer_command_has_one_line() {
        let table = CommandTable::builtin();
        let page = commands_markdown(&table);
        let (_, part) = page.split_once("## Server versions").expect("the section");
        for (server, newer) in table.of_newer_servers() {
            for (_, spec) in newer.iter().filter(|(_, spec)| is_listed(spec)) {
                let cell = format!("`{}`", shown(&spec.name));
                let is_its = |line: &&str| {
                    let mut cells = line.split('|').map(str::trim).skip(1);
                    let (names, servers) = (cells.next(), cells.next());
                    names.is_some_and(|names| names.split(", ").any(|name| name == cell))
                        && servers.is_some_and(|s| s.split(", ").any(|s| s == server))
                };
                let is_newer =
                    table.by_name(&spec.name).is_none() && !NEWER_CLIENT.contains(&&*spec.name);
                let lines = part.lines().filter(is_its).count();
                assert_eq!(lines, usize::from(is_newer), "{server}: {}", spec.name);
            }
        }
    }

    #[test]
    fn the_table_is_not_broken_by_its_words() {
        let page = commands_markdown(&CommandTable::builtin());
        let mut bars = None;
        for line in page.lines() {
            if line.starts_with('|') {
                let count = line.matches('|').count();
                assert_eq!(count, *bars.get_or_insert(count), "{line}");
            } else {
                bars = None;
            }
        }
    }
}
