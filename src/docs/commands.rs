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
        "The user that the client has logged in as; without users `upstream.user`, for every client",
    ),
    (
        "auth",
        "See *Users*. Without users, `AUTH default ANYTHING` is OK; other logins get the errors of a server without passwords",
    ),
    (
        "cluster",
        "The replies of a healthy cluster of one node, slotway at the address `announce`, with all slots. So cluster-aware clients work, too. `redis-cli --cluster check`, `info` and `call` need `announce_mode = \"cluster\"`, because they refuse a server whose `INFO` says `cluster_enabled:0`; commands that change the cluster have to be sent to the nodes. `redis-benchmark --cluster` refuses every cluster of one node: use it without `--cluster`, or with the nodes",
    ),
    ("cluster|countkeysinslot", "Slots are numbered as in the cluster, as by `CLUSTER KEYSLOT`"),
    ("cluster|getkeysinslot", "As `CLUSTER COUNTKEYSINSLOT`"),
    ("cluster|links", "None"),
    ("cluster|getslotmigrations", UNKNOWN),
    ("cluster|myshardid", "Slotway's own, the same for all slotways with the same `announce`"),
    ("cluster|slot-stats", "In the requested order and with the requested limit"),
    ("script|show", "Every script that slotway has, wherever it was executed"),
    ("commandlog|get", "The nodes' logs; `SLOWLOG GET` has commands as clients see them"),
    ("clusterscan", "`SCAN` goes through the whole cluster"),
    (
        "msetex",
        "Keys in several slots are refused in every configuration, because the command is atomic",
    ),
    ("asking", "`OK`, without effect"),
    ("subscribe", "See *Pub/sub*"),
    ("psubscribe", "See *Pub/sub*"),
    ("ssubscribe", "See *Pub/sub*. Channels of any slots"),
    ("publish", "See *Pub/sub*"),
    (
        "readonly",
        "Commands of this connection that only read and have their keys in one slot go to a replica of that slot, chosen by `read_from`, or any: see *Reading from replicas*",
    ),
    (
        "readwrite",
        "All commands of this connection go to primaries, whatever `read_from` is: see *Reading from replicas*",
    ),
    ("client", "Concerns slotway's clients, of all its workers"),
    ("client|caching", "As on a server where tracking is off"),
    ("client|getname", "The name given to slotway"),
    ("client|getredir", "-1: tracking is off"),
    ("client|info", "As `CLIENT LIST`"),
    (
        "client|kill",
        "The filters of the cluster's version: see *Answers as a server of the cluster's version*. Commands of killed clients that were already sent to nodes are executed",
    ),
    (
        "client|list",
        "The fields of the cluster's version: see *Answers as a server of the cluster's version*. Buffers that slotway does not have are 0 (`rbs`, `rbp`, `obl`, `argv-mem`); `omem` is the size of unread replies, `oll` the number of outstanding ones",
    ),
    (
        "client|pause",
        "Pauses the clients of this slotway, on all its workers; other proxies and direct clients of the nodes are not paused. `WRITE` also pauses commands that slotway does not know",
    ),
    (
        "client|reply",
        "Slotway discards the replies, which the nodes still send. Not in a transaction",
    ),
    (
        "client|tracking",
        "`OFF` is OK. `ON` is refused: see [client-side caching](#client-side-caching)",
    ),
    ("client|trackinginfo", "Always off"),
    ("client|unpause", "As on a server, it is paused itself while all commands are"),
    ("client|id", "Slotway's own number, unique while the process runs"),
    (
        "client|no-evict",
        "`OK`, without effect except for its letter in `CLIENT LIST`: slotway does not evict clients",
    ),
    ("client|no-touch", "`OK`, without effect, on a 7.0 cluster as well"),
    ("client|setinfo", "As on a 7.2 server, on a 7.0 cluster as well; at most 4096 bytes"),
    (
        "client|setname",
        "Known to slotway only, at most 4096 bytes; the nodes see `upstream.client_name`",
    ),
    ("command", "The nodes' own table"),
    (
        "config|set",
        "`requirepass` and announced addresses (`cluster-announce-ip` …) are refused: set them on the nodes",
    ),
    (
        "config|get",
        "One primary's values, without secrets: see *Secrets of the nodes*. Values that were set through slotway are the same on all nodes",
    ),
    ("copy", "`DB` is refused by the node: a cluster has one database"),
    ("dbsize", "The primaries count at different moments"),
    (
        "eval",
        "Every key must be among the declared ones (`numkeys`). A node refuses a call inside the script that accesses a key of another node; the effects of earlier calls stay. It does not refuse `KEYS`, `SCAN`, `DBSIZE`, `RANDOMKEY`, `FLUSHALL` and `FLUSHDB`, which then see only the keys of that node: see *Scripts*. Keys in several slots are refused with `CROSSSLOT`, in every configuration, and inside `MULTI` when the command is queued, because a script runs on one node. A common hash tag in the application's key prefix (`{myapp}:`) puts its keys into one slot. Without keys: any primary. The script is kept for `EVALSHA`",
    ),
    ("eval_ro", "As `EVAL`"),
    (
        "evalsha",
        "As `EVAL`. A script that slotway has seen in `EVAL` or `SCRIPT LOAD` is known on every node: see *Scripts*",
    ),
    ("evalsha_ro", "As `EVALSHA`"),
    ("fcall", "As `EVAL`. `FUNCTION LOAD` loads libraries on all primaries"),
    ("fcall_ro", "As `FCALL`"),
    ("flushall", "The primaries execute it at different moments; replicas follow their primaries"),
    ("flushdb", "As `FLUSHALL`"),
    (
        "function|dump",
        "One primary's libraries: the same on all primaries if they were loaded through slotway",
    ),
    ("function|list", "As `FUNCTION DUMP`"),
    (
        "hello",
        "`HELLO 2` and `HELLO 3`. The reply has mode `standalone` (or `cluster`: `announce_mode`), role `master`, and a node's `server`, `version` and `modules`. Its option `AUTH` is as the command `AUTH`. Waits until all earlier commands of the connection are answered",
    ),
    (
        "info",
        "Sums, extremes or the first value, depending on the field; `connected_clients`, `blocked_clients` and `maxclients` are slotway's own; `redis_mode` (Valkey: `server_mode`) and `cluster_enabled` follow `announce_mode`, `standalone` and `0` by default; a section `# Proxy` is added, and is selected by `INFO proxy`",
    ),
    ("discard", "Drops the queued commands, which no node has seen"),
    (
        "exec",
        "The transaction is sent as one `MULTI … EXEC` to its slot and is atomic there. A redirection is followed, because nothing was executed. If the connection is lost after it was sent, the error says so. Keys in several slots: refused, or one transaction per slot, see `transactions.cross_slot`; if a node discards its part of a split transaction, the reply has an `EXECABORT` error at that slot's commands and the other slots' replies at theirs. A script of `EVALSHA` that slotway knows is loaded first",
    ),
    (
        "multi",
        "Slotway checks and queues the commands that follow, with Redis's replies and errors",
    ),
    (
        "watch",
        "On a connection lent to the client (`limits.dedicated`) until `EXEC`, `DISCARD` or `UNWATCH`. If that connection or its node is lost, or the slot moves, `EXEC` replies null, as if the key had changed. Keys in several slots only with `transactions.cross_slot = \"split\"`: slotway then checks for changed keys just before it sends the parts",
    ),
    ("unwatch", ""),
    (
        "keys",
        "The primaries' lists one after the other, in bounded memory, over connections lent to the client (`limits.dedicated`). If a node is lost after the first key was sent, the client is closed",
    ),
    (
        "monitor",
        "The lines of all primaries in one stream, new primaries included. The address of commands that nodes execute is that of slotway's connection; that of commands that slotway answers itself (`PING`, `CLIENT` …) is the client's",
    ),
    (
        "wait",
        "Covers all acknowledged writes of this client: the smallest number over the primaries that it has written to. A primary lost while it waits is an error",
    ),
    ("lastsave", "The primaries' oldest time"),
    ("module|list", "One primary's, without the modules' arguments"),
    ("move", "Refused by the node: a cluster has one database"),
    (
        "reset",
        "Resets the connection to RESP2, without name and `CLIENT REPLY`. Waits as `HELLO` does",
    ),
    (
        "script|exists",
        "1 for every script that slotway has, which it loads first; otherwise the primaries' replies",
    ),
    (
        "script|kill",
        "Replicas and failed nodes are asked as well: a node may have been failed over while its script runs on. A node that cannot be asked is named in the error",
    ),
    ("function|kill", "As `SCRIPT KILL`"),
    ("script|flush", "Slotway drops its scripts, too: see *Scripts*"),
    (
        "script|load",
        "Kept by slotway, and loaded on every node that can be reached; on others when it is needed",
    ),
    (
        "select",
        "the databases of a single server, and of a Valkey 9 cluster with `cluster-databases`; other clusters have database 0 only, and other numbers get an error. Refused inside `MULTI` and while keys are watched; users of the nodes (`auth = \"passthrough\"`) have database 0",
    ),
    ("latency", "Nodes without data on the event are left out"),
    (
        "latency|histogram",
        "Commands executed by primaries; replicas, which execute the same again, are left out. Commands that slotway answers itself are not in it, commands that it sends to nodes by itself (`PING`, `CLIENT SETNAME`) are",
    ),
    ("latency|reset", "The largest number that a node has reset"),
    (
        "scan",
        "Each key that exists throughout the scan is returned at least once, as by a single server; also if a primary fails over in between, whose shard is then scanned again from its beginning. If slots move during a scan, shards may be scanned more than once; only keys of the slots that moved may be missed. (A cursor identifies the node and the layout of the slots by ten bits: one such change in a thousand is not noticed, and keys of that shard may then be missed.) A scan always ends. `COUNT` is per call, and so per shard; a call may return no keys and a cursor that is not 0, as always with `SCAN`. Any slotway in front of the cluster accepts the cursor; a number that no slotway has returned is an invalid cursor. Not inside a transaction",
    ),
    (
        "role",
        "`master`, the sum of the offsets, and no replicas, because a client that reads from them would be redirected",
    ),
    ("randomkey", "Shards are weighted by their numbers of keys. Not inside a transaction"),
    (
        "debug",
        "If it is allowed: forms with a key go to its slot, those that set something to every primary, others to any primary",
    ),
    (
        "slowlog|get",
        "Slotway's own log: the time that clients waited, with their addresses, each command as its client sent it (a transaction as `EXEC`). `PROXY SLOWLOG GET` shows where the time was spent, `PROXY SLOWLOG NODES GET` the nodes' own logs",
    ),
    ("slowlog|reset", "Slotway's own; `PROXY SLOWLOG NODES RESET` is for the nodes"),
    ("slowlog|len", "As `SLOWLOG GET`"),
    ("proxy|hotkeys", "`[COUNT n] [RESET]`: the most used keys at the moment"),
    ("proxy|bigkeys", "`[COUNT n] [RESET]`: the largest values seen in commands and replies"),
    ("proxy|slowlog", "`GET [n]`, `LEN`, `RESET`; `NODES GET [n]`, `NODES LEN`, `NODES RESET`"),
    ("acl|log", "`RESET` goes to every node"),
    ("swapdb", "A cluster has one database: if it is allowed, the node refuses it"),
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
        Behaviour::SwapDb => "refused",
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

Slotway routes by the nodes' own command table, so an addition to an existing command (an option, a type) is passed on, and a new command is routed by its server's description. The following is tested; "everything" is the differential test, which compares slotway's replies with those of a single server of the same version, and redis-py's test suite.

| server | tested | supported | not supported |
|---|---|---|---|
| Redis 7.0 | 7.0.15: everything, in every CI run | Everything: its table is built in | See the tables above |
| Redis 7.2, 7.4, 8.0 | Not these versions themselves | `CLIENT SETINFO`, `CLIENT NO-TOUCH`, `CLIENT KILL MAXAGE` and `CLUSTER MYSHARDID` (answered by slotway), `WAITAOF`, expiry of hash fields (`HEXPIRE` …) | `CLIENT TRACKING` |
| Redis 8.2 | 8.2.3: a part of the differential test and an upgrade of a 7.0 cluster, node by node, in every CI run; everything with `make conformance` | All commands below; `HGETEX`, `HSETEX`, `XDELEX`, `XACKDEL`, vector sets, the new operations of `BITOP`, `CLUSTER SLOT-STATS` | As 7.2; `CLUSTER MIGRATION`; of 7.2 and newer the shortest form of scores that slotway computes (*Keys in several slots*) |
| Redis 8.4 and newer | No | As their tables describe it | Commands without keys among their arguments and without a policy in the table go to any primary |
| Valkey 7.2, 8.0, 8.1 | Not these versions themselves | As Redis 7.2, of which Valkey 7.2 is a copy; `SET … IFEQ`, `COMMANDLOG`, `CLIENT CAPA`, `SCRIPT SHOW`, `MULTI` behind `MULTI` | As Redis 7.2 |
| Valkey 9.0, 9.1 | 9.1.2: as Redis 8.2 | All commands below; expiry of hash fields, `DELIFEQ`, `MSETEX` in one slot, `GEOSEARCH … BYPOLYGON`, all filters of `CLIENT LIST` and `CLIENT KILL` | As 8.1; `CLUSTERSCAN`, `MSETEX` over several slots. `SELECT` of another database (`cluster-databases`) inside `MULTI` or while keys are watched |

The commands that 7.0 does not have:

| command | servers | where it goes | replies become one | sent again | notes |
|---|---|---|---|---|---|
"#;

const PREFACE: &str = r#"# Commands

<!-- Written by `slotway docs commands` from src/docs/commands.rs, the command table and src/route/behaviour.rs: change it there. -->

The handling of each command of Redis 7.0 by slotway, and the differences from a single server. Generated from the table that slotway itself routes by. For newer servers see *Server versions* at the end.

## How commands are routed

Redis describes its commands itself (`COMMAND`): where their keys are, which nodes they are for, how several replies are merged. Slotway routes by that description. Redis 7.0.15's is built in; the cluster's own is merged into it at the start and whenever a new node appears or a lost one is reached again (as after an upgrade; at most every five seconds), so that commands of newer servers and of modules are routed by their server's description.

A module's command that blocks its connection should have the flag `blocking` there; then it is sent on a connection lent to its client, as `BLPOP` is. Without the flag all clients that share the connection would wait with it. `commands.blocking` names such commands. Others are detected: when a module's command has held others up for a tenth of a second, slotway asks its node with `CLIENT LIST`, on another connection, and if the connection is blocked (`flags=b`) the command is sent on lent connections from then on. A command that is slow, or keeps its node busy, is not blocked and is never detected as blocking; nor is a command of the server itself. The log names the detected commands, `slotway_commands_learned_blocking` counts them (64 at most; they are forgotten when slotway ends). This requires `CLIENT LIST` for `upstream.user`, and connections whose addresses are not translated on the way to the nodes. When the connection of a module's blocking command is lost, the command is sent again only if it has the flag `readonly`.

The column **where it goes** in the tables below:

- **its key's slot**: to the primary that serves the slot of its key, byte for byte as the client sent it.
- **the slot that all its keys share**: the same, for commands with several keys. If the keys are in different slots, the client gets an error that begins with `CROSSSLOT` and names two of them; with `commands.cross_slot = "emulate"` slotway carries the command out in steps, see *Keys in several slots*. Keys share a slot if they have the same hash tag: `{user:7}:name` and `{user:7}:mail`.
- **split by slot**: keys may be in any slots. If they share one, the command goes there unchanged. Otherwise each slot gets a command with its own keys, all at the same time, and slotway merges the replies. Each part is atomic, the whole is not. If a part fails, the reply is an error that names the nodes that failed; the other parts have been executed. If all parts fail with the same error, or if all failed parts do and the command only reads, the reply is that error. While a slot is being migrated, its part may be divided further, see [below](#when-slots-move-and-nodes-fail).
- **every primary** (of those that own slots; others have no keys), **every node** (replicas included, also those that the cluster reports as loading): to all of them, and the replies are merged. If some fail, the reply is an error that names them, and the others have executed the command; the exceptions are as above. A node that the cluster reports as failed is not waited for and counts as such an error, unless it is still connected. **Every node that has not failed** leaves failed nodes out, for commands that only read.
- **any primary**: one that answers for all; always the same one for a client while the cluster does not change.
- **answered by slotway**: no node is asked.
- **refused**: an error with the reason. Commands that would act on one node behind the cluster's back are refused with `NOPERM` unless `commands.allow` names them (or `@dangerous`); they then go to the node of their keys, or to any primary. Commands that would take over a connection that clients share (`SYNC`, `SCRIPT DEBUG` …) are always refused. `commands.deny` refuses any other command, by its name, a subcommand's or an ACL category ([configuration](configuration.md#commands)). Commands that scripts call are not checked.

**Sent again** says whether slotway repeats the command when the connection is lost before the reply: see below.

A request with the wrong number of arguments goes to any primary, whose error the client gets. So does a command or a subcommand that is not in the table (but all of `CLUSTER` is slotway's): if the cluster does know it, its redirection to the right node is followed and slotway reads the cluster's table again, at most every five seconds. A module's command whose server describes only some of its keys is routed by these. `HELP` subcommands are the server's own, from any primary, but for `PROXY HELP`; `CLUSTER HELP` therefore also lists what is refused here.

There is one database, 0, because a Redis Cluster has no other.

## Answers as a server of the cluster's version

Slotway's own replies are those of a server of the cluster's version. It asks a node for its version (`INFO server`, `HELLO`, `CLIENT INFO`) together with its command table. Until one has answered, and where it refuses, the replies are those of Redis 7.0.

- **All versions**: `HELLO` has a node's `server`, `version` and `modules` (modules without their arguments), but not its mode and role. `CLIENT LIST` and `CLIENT INFO` show the fields that a node shows, with numbers of slotway's own where it has them; `lib-name` and `lib-ver`, `CLIENT SETINFO` and `CLIENT NO-TOUCH` also on a 7.0 cluster.
- **Redis 7.2**: `WAITAOF`, as `WAIT`: at every primary that the client has written to, the smallest of each number. `CLUSTER MYSHARDID`: slotway's own, the same for all slotways with the same `announce`.
- **Redis 7.4, 8.0**: `CLIENT KILL MAXAGE`; the fields `watch` and `io-thread` (always 0).
- **Redis 8.2**: `BITOP` with `DIFF`, `DIFF1`, `ANDOR` and `ONE`, also over several slots (`emulate`); `CLUSTER SLOT-STATS` over all primaries, in the requested order and with the requested limit; the fields `tot-net-in`, `tot-net-out` and `tot-cmds`. Not known: `CLUSTER MIGRATION` (an unknown subcommand here).
- **Valkey 8.0**: `CLIENT CAPA` (slotway never redirects clients) and the field `capa`; `SCRIPT SHOW`, for every script that slotway has, wherever it was executed; `CLUSTER SLOT-STATS`; `CLIENT KILL MAXAGE`; the type `primary`; `MULTI` and `WATCH` behind `MULTI` are refused in Valkey's words and make `EXEC` fail.
- **Valkey 8.1**: several numbers after `ID`, and the filters of `CLIENT KILL` for `CLIENT LIST`. `COMMANDLOG` covers all nodes. `HELLO` reflects `CONFIG SET extended-redis-compatibility` sent to slotway within five seconds; if it is sent to the nodes directly, when slotway next asks them.
- **Valkey 9.0**: the filters `NAME`, `IDLE`, `FLAGS`, `LIB-NAME`, `LIB-VER`, `DB`, `CAPA` and `IP`, and the negations of all filters (`NOT-ID` …) but `MAXAGE` and `IDLE`. Not known: the subcommands of `CLUSTER` that migrate slots, and databases other than 0.

## Users

Without users every client has the rights of the user that slotway has logged in as (`upstream.user`). There are two kinds of users, which may be combined.

**Slotway's own users** (`users`, `users_file`) have rules in Redis's ACL syntax, which are checked before anything is sent, with Redis's own errors (`NOAUTH`, `WRONGPASS`, `NOPERM`); a command that is refused after `MULTI` makes `EXEC` fail. As in Redis a connection is the user `default` until it logs in. Unlike in Redis there is no `default` if only other users are configured: a client that has not logged in may then do nothing.

- Allowed commands are executed with the rights of `upstream.user`.
- **Scripts, functions and modules.** A server runs a script with the rights of the user that sent it. Slotway sees only the call, so it refuses commands that it cannot check (`NOPERM … slotway cannot check what it does …`) to every user whose rules refuse anything at all, that is, who does not have `~* &* +@all` in one selector: `EVAL`, `EVALSHA`, `FCALL` and their `_RO` forms, `SCRIPT LOAD`, `FUNCTION LOAD`, `FUNCTION RESTORE`, other commands that a newer server has in `@scripting`, modules' commands that do not declare their keys (`FT.SEARCH`) or run code (`TFCALL`, `RG.…`, `AI.SCRIPT…`), and `DEBUG` if `commands.allow` names it. A rule such as `+eval` alone does not allow them. The rule `unchecked-commands` does, for one user: that user's rules about commands and declared keys still apply to the call, but a script can then read, write and delete everything that `upstream.user` can. `slotway check`, the start and a changed `users_file` warn of every such user, and of users whose rules name refused commands. `ACL DRYRUN`, `ACL GETUSER` and `ACL LIST` show what is refused. The rule is slotway's own: a Redis server does not read a file with it.
- As at a server, rules about keys do not limit the commands that have no keys among their arguments: `KEYS`, `SCAN`, `RANDOMKEY`, `DBSIZE`, `FLUSHALL`, `MONITOR`, `CLUSTER GETKEYSINSLOT`. Deny them by command or category (`-@dangerous`).
- A command with a wrong number of arguments, or an unknown command, is refused here; only users with `+@all ~* &*` can send commands that slotway does not know. A module's command whose server describes only some of its keys is only for users with `~*`.
- `SORT` with `GET`, or with a pattern after `BY`, is only for users with `~*`.
- `ACL WHOAMI`, `USERS`, `LIST`, `GETUSER` and `DRYRUN` concern these users; `SETUSER`, `DELUSER`, `LOAD` and `SAVE` are refused, because the users are in the configuration. `CAT`, `GENPASS` and `LOG` are a node's.
- When `users_file` changes, new rules apply to existing connections. Clients of a removed user are disconnected, and so are subscribers of a channel that their user may no longer read. A user that is turned off (`off`) stays logged in, as in Redis.

**The cluster's users** (`auth = "passthrough"`) are those that the nodes know (`ACL SETUSER` through slotway sets them on every node). A node verifies each login, on a connection of its own, and from then on the client's commands are sent on connections of that user, which all its clients on a worker share; so the nodes apply their own rules, `ACL WHOAMI` is true, and scripts are limited to the user's keys as well. A client that has not logged in is the nodes' `default` user, if that user needs no password.

- A password that is changed, or a user that is deleted, ends the connections at the nodes; commands then get the node's own error, and the client is disconnected once no node accepts its password (one that is only subscribed, within half a minute). New rules apply at once.
- For commands that no node sees (`SUBSCRIBE`, `CLIENT`, `CLUSTER`, `PING`, `MULTI` …) slotway asks a node with `ACL DRYRUN`, for each subscription anew, for others at most once a second for each user and command. `upstream.user` needs `+acl|dryrun` for that, and the nodes Redis 7. Every few seconds it asks about the channels that users are subscribed to, and disconnects clients that may no longer read one.
- Messages are delivered by slotway's own subscriptions: `upstream.user` needs `&*`.
- Commands after `MULTI` are checked by the node when `EXEC` is sent: a refused one is answered `QUEUED`, and the reply to `EXEC` says what was refused.
- Reads go to primaries, whatever `read_from` and `READONLY` say.

- `DEL`, `UNLINK`, `MSET`, `MGET`, `EXISTS` and `TOUCH` over several slots are several commands, and each node checks only its own keys: if a user may use some of the keys, those are deleted or written although the reply is `NOPERM`. (Slotway's own users are checked before anything is sent.)
- Clients on other machines cannot be the `default` user while that user needs no password (`DENIED`), unless `protected_mode = false`. A user that accepts any password (`nopass`) is one user, whichever is sent; of any other at most eight passwords are in use at a time.

Before the login a client may send commands of at most 10 arguments of at most 16 KiB each, as to a server; a longer name or password is wrong.

A **failed login** is answered with a delay that grows with the failures from the same address in the last minute (up to 5 s); no other client is delayed by it. From ten failures on, logins from that address are checked one after the other, 50 in a second, and at most two seconds' worth of them wait, so that closing the connection instead of waiting is no faster. `slotway_logins_total` and `slotway_denied_total` count.

## Secrets of the nodes

No client can read the credentials of slotway or the nodes, by whatever command, also after `MULTI`, and whatever rights its user has at the nodes.

- `CONFIG GET` leaves out the settings that are secrets, as if the server did not have them: `requirepass`, `masterauth`, `masteruser`, `primaryauth`, `primaryuser`, `tls-key-file-pass`, `tls-client-key-file-pass`, and each one whose name has the word pass, password, passphrase, secret, token, credential or the like in it. They are not shown as empty, which would say that there is no password. `CONFIG SET` of `requirepass` is refused (`NOPERM`), because slotway would be locked out, and so is that of `cluster-announce-…` and `replica-announce-…`, because nodes would log in elsewhere with their password.
- `ACL LIST` and `ACL GETUSER` show the nodes' users with `(redacted)` in the place of each hash; users of the cluster (`auth = "passthrough"`) see what their node shows them.
- `MODULE LIST` shows no arguments; `INFO` no `config_file` and no `executable`. In slow logs (`SLOWLOG`, `PROXY SLOWLOG NODES`) and in `MONITOR` secret arguments are `(redacted)`.
- `REPLICAOF`, `FAILOVER`, `MIGRATE`, `MODULE LOAD` and the subcommands of `CLUSTER` that change the cluster are refused unless `commands.allow` names them: each of them can make a node log in elsewhere.

## Scripts

Slotway keeps every script that it sees in `EVAL`, `EVAL_RO` and `SCRIPT LOAD`, from any client, as a single server does. `limits.scripts` limits their size; at the limit the least recently used one is forgotten.

`EVALSHA` of a script that slotway has does not fail with `NOSCRIPT`. Slotway loads the script into a node that is new, was promoted or was restarted right before the first `EVALSHA` that goes there on a connection (`SCRIPT LOAD`, in the same write). If a node still replies `NOSCRIPT`, because another client has sent it `SCRIPT FLUSH`, nothing was executed, and slotway sends the script and the command again at once. For a client that pipelines, slotway loads the scripts ahead of the commands each time it reads from it, so that the commands after an `EVALSHA` are not executed before it either. (They can be if the scripts are flushed while a node executes the pipeline, or if a client sends more while a single `EVALSHA` is on its way to a node that has just been flushed.)

A script's own error with the words of the server's `NOSCRIPT` is passed to the client: if these words occur in the script or among its arguments, the command is not sent again. A script that assembles exactly these words at run time after a write may be run a second time.

**Commands about all keys.** A script runs on one node, so `KEYS`, `SCAN`, `DBSIZE`, `RANDOMKEY`, `FLUSHALL` and `FLUSHDB` inside a script or function see and change the keys of that node alone: with three primaries about a third of all keys, without an error. No proxy can change that. When slotway first sees such a script (`EVAL`, `SCRIPT LOAD`, `FUNCTION LOAD`, also after `MULTI`) it logs a warning with its SHA1, and `slotway_scripts_partial_total` counts it. Calls are recognized by the literal name in the first MiB of the source, such as `redis.call('keys', …)`. A name that the script assembles or gets as an argument is not recognized, nor are libraries of `FUNCTION RESTORE` and scripts that only the nodes know. Sent to slotway as commands of their own, these commands cover all shards.

The scripts of a transaction's `EVALSHA`s are loaded before its `MULTI` every time, because a transaction cannot be sent again in part.

`SCRIPT FLUSH` through one slotway makes that slotway forget its scripts and flushes the nodes; another slotway in front of the same cluster does not notice and goes on loading the scripts that it has. Functions are the nodes' own: `FUNCTION LOAD` loads them on every primary, which saves and replicates them; a primary that joins the cluster gets them from the tool that adds it (`redis-cli --cluster add-node` does that).

## Pub/sub

Clients subscribe at slotway, and slotway subscribes once to each channel and pattern at the cluster, whatever the number of its clients. A client gets its confirmation when a node has confirmed the subscription, so a message published after that is not missed. In RESP2 a subscriber may only send commands about its subscriptions, `PING`, `QUIT` and `RESET`; in RESP3 it may send anything.

- **Channels and patterns** are distributed over the primaries by a hash of their names, and `PUBLISH` goes to the same node. A message on a channel that only patterns match is published where such a pattern is subscribed (with a subscriber of `*`: all such messages at one node). A cluster forwards every ordinary message to all its nodes, so subscribers and publishers that are connected to the nodes directly, or to another slotway, are reached as well. A subscription stays at its node while slots move and when its node becomes a replica.
- **Shard channels** (`SSUBSCRIBE`, `SPUBLISH`) are at the primary of their slot, and move with it. A client may subscribe to shard channels of any slots in one command.
- **Keyspace notifications**: a node reports only on its own keys. Channels and patterns that can match `__keyspace@0__:…` or `__keyevent@0__:…` (`*` can, too) are subscribed at every primary, new and promoted ones included, and each notification is delivered once. The nodes have to send them: `CONFIG SET notify-keyspace-events KEA` through slotway sets it on every node. A message that a client itself publishes on such a channel cannot be distinguished from a notification, and arrives once from each primary.
- **Order**: the messages of one publisher on one channel arrive in the order in which they were published. Messages of different channels, and a message and the reply to the `PUBLISH` that sent it, arrive over different connections, in any order: a message that crosses the cluster's bus (mostly that of a pattern) can be tens of milliseconds later, and a new pattern may get a message that was published just before. So a client that publishes to itself and unsubscribes in the same pipeline may not get its message. In a failover the messages of a shard channel come from the former primary until it has confirmed that it has sent all, and from the new one after that; the gap that is counted lasts until then. A replica accepts `SPUBLISH` as well: a message that is published there after that by a client that does not use this slotway (or by a worker of slotway that was suspended for a second) crosses the cluster's bus, and can arrive after that client's next message.
- **Gaps**: when a node with subscriptions is lost, they are made again at other nodes at once. Messages published in between are missed, as by every Redis client that reconnects. `slotway_pubsub_gaps_total` counts each channel and pattern that may be affected, and `pubsub.on_gap = "disconnect"` closes the connections of their subscribers, to notify them.
- **Slow subscribers** are closed at `pubsub.output_hard`, or above `pubsub.output_soft` for `pubsub.output_soft_time`, as Redis does it with `client-output-buffer-limit pubsub`.
- **The nodes' own limit**: for a node slotway is one subscriber, whose connection carries all topics subscribed there. When messages of more than `client-output-buffer-limit pubsub` (32 MB) are waiting the node closes it, which is a gap for all these topics: raise the limit on the nodes if such messages are published. Names of more than 64 KiB cannot be subscribed to.
- **In a pipeline** commands after a subscription wait until it is confirmed.
- **From other connections** `PUBLISH`, `SPUBLISH` and an `EXEC` with one that arrive after a subscription that they can match wait until it is confirmed or given up (`timeouts.command`), so that an application that subscribes and publishes over two connections need not read the confirmation first. They do not wait for later subscriptions, and `slotway_pubsub_publish_waits_total` counts them. This does not cover a `PUBLISH` inside a script, keyspace notifications, other slotways' clients and a subscription that is the first command on a new connection; nor, with several workers, one that arrives less than about a millisecond before the `PUBLISH` on a connection older than a second when there was no other subscription in that second: read the confirmation in these cases.
- **Counts** (`PUBLISH`, `SPUBLISH`, `PUBSUB NUMSUB` …) are those of one server with slotway's clients and the nodes' own; of another slotway's clients only one per channel is counted. Inside a script `PUBLISH` returns the node's own count.
- **Inside a transaction** `PUBLISH` and `SPUBLISH` are allowed; subscribing and `PUBSUB` are refused.

## Reading from replicas

`read_from` in the configuration chooses the nodes that answer commands that only read: the primary (the default), replicas first, any node, the fastest ones, those in slotway's own zone. It applies to every connection, whatever its client library; a connection can override it:

- `READONLY`: reads go to replicas as chosen by `read_from`, and to any replica if that is `"primary"`;
- `READWRITE`: all its commands go to primaries, whatever the configuration is;
- `RESET`: back to the configuration.

A command may go to a replica if it only reads (**sent again: yes**) and has all its keys in one slot, outside of a transaction. `HSCAN`, `SSCAN` and `ZSCAN` go to the primary, also in a failover: a cursor is understood only by the node that returned it, and the next call may come on another connection. Commands over several slots or all nodes, scripts, a client's reads between `WATCH` and `EXEC`, and writes are routed as always; so are reads of a slot that this slotway sees moving.

**Which replica.** Those that the cluster reports as online, that answer, whose link to their primary is up, and that do not lag more than `replicas.max_lag` and `replicas.max_lag_bytes`; slotway checks them once per `replicas.check`. Reads are distributed over them by connection and slot: one connection reads a slot from the same node as long as that node is usable, so that it does not see newer data and then older. (`"lowest_latency"` gives that up when another node becomes faster.) Commands that a replica refuses (`LOADING`, `MASTERDOWN` …) or does not answer, because it is lost or frozen, go to the primary.

**How old the data is.** Replicas lag behind their primary, mostly by less than a millisecond, at worst by what the limits and the time between two checks allow. So with any value but `"primary"` a connection may not read what it has just written, also in the same pipeline; and a read that a replica has refused and that goes to the primary may be executed after a later write of the same pipeline. Programs that cannot tolerate this send `READWRITE`, read in a transaction, or leave `read_from` as it is. While a slot moves, a read from a replica of its old shard does not find keys that have moved already.

**In a failover.** While a slot's primary is not reached, its replicas answer reads even though their link is down: with any `read_from` but `"primary"`, and with `"primary"` if `replicas.in_failover` is `"read"`. Reads that were on their way to the primary go to a replica as well, unless they wait behind a write of the same connection. A node that considers the cluster to be down refuses reads with `CLUSTERDOWN`, and these wait for the new primary; `cluster-allow-reads-when-down yes` on the nodes changes that.

`slotway_reads_total` counts where such reads went, `slotway_replicas` the replicas that are read from, and those that are not, by reason.

## Keys in several slots

A cluster refuses every command whose keys are in several slots, and so does slotway, with `CROSSSLOT`, naming two of the keys and their slots. With `commands.cross_slot = "emulate"` it carries the command out with several commands that stay in one slot each, and replies as a single server does. The notes in the tables that begin with "Over several slots (`emulate`)" describe the steps of each command, and what is given up. A command whose keys share a slot is routed as always, with or without this setting. For all emulated commands:

- **Others see the steps.** There is no moment at which all of it takes effect; only a write to one key is atomic. Reads of several keys are not of one moment either.
- **Data is never only in slotway.** A target is written and confirmed before anything is removed from a source. If a node is lost in between, the data is in the source, in the target, or in both; the error says which steps were executed, and begins with `OUTCOMEUNKNOWN` if that is not known of one of them, otherwise with `ERR` (`slotway_emulated_total{outcome="halfway"}`).
- **Replicas are not waited for**, as Redis does not wait for them. A primary whose process is killed has usually sent its replica what it has confirmed. If it is lost with its machine, or the replica that takes its place was cut off from it, the cluster loses confirmed writes: of a move this may be the write of the target, while the removal from the source stays, and the moved data is in neither. `min-replicas-to-write 1` on the nodes makes a primary without a replica refuse writes, so that such a move ends before anything is removed; the primary notices a missing replica when the link is closed, or after `min-replicas-max-lag`.
- **Order.** Commands that a connection sends after such a command wait until it is answered.
- **Errors** are the server's: each command is sent once to a node with keys that do not exist, so that the node checks its other arguments.
- **Slotway's own keys** begin with `slotway:{`. Temporary sources and results exist only between `MULTI` and `EXEC`; `slotway:{N}:moving:…` excludes concurrent moves from the same source and expires after 5 seconds.
- **Rights.** For slotway's own users, the command is checked as they sent it. Users of the cluster (`auth = "passthrough"`) need the rights for the steps, such as `DUMP`, `RESTORE`, `EVAL` for `RENAME`, and `~slotway:{*` beside their keys for commands that need such a key (`ZRANGESTORE`, `GEOSEARCHSTORE`, `PFMERGE`, `LCS`). So does `upstream.user`.
- **Time and memory.** Each step may take `timeouts.command`. All data read for a command is in slotway's memory until it is answered; if `limits.memory` has no room for it, the command is refused (`OOM`) before anything is changed.
- **Full memory.** Commands that a server executes at `maxmemory` with `noeviction` are executed: pops, also blocking ones, `XREADGROUP`, `LCS`, and `SMOVE`, `RENAME` and `RENAMENX`, whose steps that need memory are sent as scripts with the flag `allow-oom` (servers from 7.0 on; the user that slotway logs in as needs `EVAL`). Data that is moved to another node can take that node above its `maxmemory` by its own size.
- **Waiting.** A blocking command polls its keys, first after a millisecond, then at doubling intervals up to `commands.cross_slot_turn`. The order of its keys is kept, but several waiting clients are not served in order of arrival. It keeps waiting through failovers until its timeout.
- **Numbers.** Scores that slotway computes are written with 17 digits, as Redis 7.0 writes them: `1.1000000000000001`, where servers since 7.2 write `1.1`, the same number.

`EVAL` and `FCALL` over several slots are always refused, and so are emulated commands after `MULTI`.

## Client-side caching

`CLIENT TRACKING ON` is refused, and never answered with `OK`, because a client that expects invalidation messages would keep outdated values. No error tells every client not to retry, so switch client-side caching off in clients behind slotway. Clients that have it switched on behave as follows:

- **node-redis** (5.12.1 and 6.3.1 were tried) with `clientSideCache` or `emitInvalidate` treats every error while it connects as temporary, whatever its code: each attempt emits `error` with slotway's text, and `connect()` does not return for as long as `reconnectStrategy` returns a time. A strategy that returns the cause if it names `CLIENT TRACKING` makes `connect()` reject at once (see below).
- **redis-py** (8.1.0) with `cache_config`: the first command raises `ResponseError` with slotway's text.
- **Jedis** with a cache: no connection, because its code fails if the reply to `CLIENT TRACKING` is not `OK` (read, not tried).
- **ioredis** has no such cache.

```js
const refused = (cause) => /CLIENT TRACKING/.test(cause?.message);
createClient({ socket: { reconnectStrategy: (retries, cause) => refused(cause) ? cause : Math.min(retries * 50, 2000) } });
```

## When slots move and nodes fail

A node that refuses a command with `MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `MASTERDOWN` or `READONLY` has not executed it. The client does not see these: slotway sends the command again, to the right node (`MOVED`, and `ASK` with `ASKING`) or after a short wait (the others), until it is answered or its deadline passes. Commands for a slot without a primary, as in a failover, wait in the same way, as far as `limits.held` allows; no slot may take more of it than is left for the others. So do the parts of commands for every primary (`DBSIZE`, `FLUSHALL`, `KEYS` …): each waits for its own shard's primary. Commands for every node are the exception: a node's refusal becomes part of their error.

**Commands without keys at a node that was restarted.** A primary that restarts without its data, while its replica has the data and is about to be promoted, refuses commands with keys (`CLUSTERDOWN`, later `MOVED`) and executes those without: it would count no keys, and reply `OK` to `FLUSHALL` although the replica still has the shard's data. So the first part of `DBSIZE`, `SCAN`, `RANDOMKEY`, `FLUSHALL`, `FLUSHDB`, `FUNCTION LOAD` and other such commands that read or change data is sent on each new connection to a node as `MULTI`, `EXISTS` of a key of the node's shard, the command, `EXEC`: if the node refuses the key nothing is executed, and the part waits as a command with that key would. `KEYS` is preceded by the `EXISTS`, without a transaction. Once the node has accepted it, commands on that connection are sent unchanged, because a restart ends the connection. Three limits remain. A primary that comes back without data before a replica is promoted is the shard's primary, and the data is lost. A node that is cut off from the cluster but still connected to slotway is used as before until slotway learns of its successor. And a user of the cluster (`auth = "passthrough"`) who may not read the key, or slotway's own user without `EXISTS`, is not protected in this way.

**A slot in the middle of its migration** has some keys at the old node and some at the new one, and neither node executes a command that names keys of both (`TRYAGAIN`). `MGET`, `MSET`, `DEL`, `UNLINK`, `EXISTS` and `TOUCH` are then sent key by key, all keys at the same time: each reaches its node, the replies are merged in the order of the keys, and the client's later commands for the slot wait for all of them. The slot's part is then not atomic: another client can see some keys of an `MSET` with their new values and some with their old ones, and after an error some may have been set or deleted (`slotway_key_by_key_total` counts such commands). All other commands with several keys (`SINTER`, `RENAME`, `MSETNX`, scripts, transactions, `BLPOP`) need them at one node: they wait until the last of their keys has been migrated, or until their deadline, whose error names the nodes between which the slot is being migrated:

```text
TRYAGAIN slotway waited 5.0 s (timeouts.command) for slot 12909, node 10.0.0.1:7000, 112 tries: the command was not executed, as slot 12909 is being migrated from 10.0.0.1:7000 to 10.0.0.2:7000, and SINTER needs all its keys at one node; let the migration finish, or raise timeouts.command; last: TRYAGAIN Multiple keys request during rehashing of slot
```

**Order.** The replies of one connection always come in the order of its commands. Commands of one connection with keys of the same slot take effect in the order sent, also while the slot moves and after a failover: while one of them waits, the later ones wait behind it. This does not cover commands that were already on their way to the node when an earlier one was refused, as for any client that pipelines: if the reason for the refusal passes in that moment (the slot comes back, the node has finished loading), the later one is executed first. Between keys of different slots, and between connections, no order is guaranteed; a command for every node (`FLUSHALL`) may overtake commands that wait for a slot. A client that needs an order there waits for the reply.

**Outcome unknown.** If a connection to a node is lost, commands that were not sent completely are sent on the next connection. Those that were sent and not answered may or may not have been executed. If they only read, they are sent again ("sent again: yes"; but not if the same connection's later write to that slot was lost with them). All others get an error with a code of its own, `OUTCOMEUNKNOWN`, and the client decides:

```text
OUTCOMEUNKNOWN slotway lost its connection to 10.0.0.1:7000 (closed by the node) after the command was sent: it may or may not have been executed
```

The code is used wherever the outcome of a command, or of a part of it, is unknown: at the deadline, when `limits.memory` has no room for a write's reply, in the error of a command over several slots, for a command of a split transaction. A blocking command whose connection is lost goes on waiting at the next primary; an error that ends it before it is sent there has the code, whatever its cause (the deadline, `timeouts.no_primary`, `CLIENT UNBLOCK`).

With `commands.on_outcome_unknown = "disconnect"` the client's connection is closed in place of that error, as when a server fails: the replies before it are delivered, later ones are not. This is for clients that treat an error as a bug in the application and a closed connection as a reason to retry, such as Celery's workers ([reliability.md](reliability.md#retries-of-clients)). It makes no write safe to repeat: a client that sends `INCR` again after the connection has closed may count twice.

A client that has already received the first part of a large reply when the rest is lost is disconnected.

**Deadlines.** `timeouts.command` (5 s by default) limits the time of a command from its arrival to its reply, retries included. After that its client gets an error that says what the command waited for, and whether it was sent. It begins with `OUTCOMEUNKNOWN` if the command was sent and may have been executed, otherwise with the code of the node's last refusal, if there was one (`CLUSTERDOWN`, `TRYAGAIN` …), or with `ERR`:

```text
OUTCOMEUNKNOWN slotway waited 5.0 s (timeouts.command) for slot 866, node 10.0.0.1:7000, 1 tries: the command was sent and not answered, so it may or may not have been executed
```

When a command's deadline passes, its connection to the node is closed, so that the other commands that were sent on it are treated as above.

**A node that a script keeps busy** answers all clients with `BUSY` once the script has run for `busy-reply-threshold` (5 s by default), and then executes only commands that end the script. Slotway's clients share connections, and commands behind the script on its connection would not be answered before its end. So when a command that may run a script (`@scripting`, `EXEC`) is a tenth of a second late, nothing more is written behind it, and its node is asked by `PING`, on another connection, twice a second. When the reply is `BUSY`, other clients' commands go over another connection, where the node replies to them itself, as a server does without slotway. The same applies to a module's command that keeps its node busy. A client that has already sent a command there that may change data stays on the connection, and slotway reads no more from it until that command is answered, because it will be executed when the script ends; commands that only read are sent again on the other connection. `SCRIPT KILL` and `FUNCTION KILL` always get through.

**Nodes that do not answer.** A node that owes replies and has been silent for `timeouts.probe` (half a second) is probed: slotway opens another connection to it, sends `PING`, and asks the cluster about it ten times a second. The possible results:

- The cluster has put another node in its place: commands that were sent are treated as on a lost connection, at once, and those that were not go to the other node. This ends the wait for a frozen or cut off primary, after the cluster's own `cluster-node-timeout` and election.
- The node accepts the connection and does not answer: it is frozen, or busy with a long script, which looks the same. Its connection stays until a command's deadline, but nothing more is sent on it, so that later commands can still go elsewhere.
- No connection can be made: commands that were sent and cannot be repeated wait in the same way, because the network may come back. A connection on which all outstanding commands can be repeated is replaced.
- The node answers on the new connection: the command takes long, or the old connection is dead. If only a `PING` was outstanding there, it is replaced.

An idle connection gets a `PING` after ten times `timeouts.probe`, so that a dead one is noticed before the first command after a quiet night. Connections lent for blocking commands may be silent for any time; `upstream.keepalive` detects dead ones.
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
