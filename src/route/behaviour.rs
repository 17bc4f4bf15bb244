//! What slotway does about each command: derived from its key specs and policies, or from
//! [`OVERRIDES`] where these do not suffice.

use super::filter::Filter;
use super::pubsub::{PubSub, PubSubQuery};
use super::server::{DEFAULT_COUNT, ReportMerge, SlotOrder};
use crate::channel::TopicKind;
use crate::command::{CommandSpec, Flags, KeySpec, RequestPolicy, ResponsePolicy};
use crate::errors::Failure;
use crate::resp::Args;

/// What slotway does about a command, derived from its table entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// SWAPDB: to the server if there is only one; otherwise refused, like what would act on one
    /// node only.
    SwapDb,
    /// One key, at this argument: to its slot.
    Key(u8),
    /// Keys that must share a slot: to that slot.
    Keys,
    /// Like `Keys`, on a dedicated connection: may block.
    Blocking,
    /// Like `Keys`, or `Blocking` if BLOCK is among the arguments (XREAD, XREADGROUP).
    BlockingIfAsked,
    /// Like `Keys`, but patterns may name keys in any slot (SORT).
    Sort,
    /// Keys in any slots: split by slot.
    Split(Merge),
    /// Keys that must share a slot because the command is atomic (MSETNX).
    SameSlot,
    /// About Lua scripts, which slotway caches.
    Script(Script),
    /// A slot number, at this argument: to its primary.
    SlotAt(u8),
    /// To any primary.
    Any,
    /// To several nodes.
    Fan {
        /// The nodes.
        to: Fan,
        /// How the replies are merged.
        merge: Merge,
    },
    /// SCAN: shard by shard.
    Scan,
    /// RANDOMKEY: a size and a key from every primary.
    RandomKey,
    /// DEBUG, if allowed: by its subcommand, which is missing in the server's table.
    Debug,
    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH.
    Transaction(Transaction),
    /// WAIT: on dedicated connections, at the primaries that the client has written to.
    Wait,
    /// KEYS: the lists of all primaries joined, in bounded memory.
    Join,
    /// To every node, failed ones included, on dedicated connections, to be executed at once.
    OutOfBand(Merge),
    /// MONITOR: on a dedicated connection to every primary.
    Monitor,
    /// Pub/sub commands.
    PubSub(PubSub),
    /// CONFIG SET: on every node, except for settings that would lock slotway out.
    ConfigSet,
    /// Answered by slotway.
    Local(Local),
    /// CLIENT: by its subcommand, which may be missing in the server's table.
    Client,
    /// Refused.
    Refused(RefusalReason),
}

/// The nodes to which a command without a slot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fan {
    /// Every primary (`all_shards`).
    Primaries,
    /// Every node (`all_nodes`); a failed node is an error.
    Nodes,
    /// Every node that has not failed: sufficient for reads.
    Answering,
    /// Every node that is reachable at the moment.
    Reached,
    /// Any one primary.
    One,
}

/// How several replies are merged (`response_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// One element per key, in the order of the keys.
    Array,
    /// All elements of all replies.
    Concat,
    /// The sum.
    Sum,
    /// The minimum.
    Min,
    /// The maximum.
    Max,
    /// Logical AND; of arrays, element by element.
    And,
    /// Logical OR; of arrays, element by element.
    Or,
    /// The first reply, if none is an error.
    AllSucceeded,
    /// The first reply that is not an error.
    OneSucceeded,
    /// INFO texts.
    Info {
        /// Whether to add slotway's own section.
        proxy: bool,
    },
    /// Servers' reports about themselves.
    Report(ReportMerge),
    /// The only reply, of SCAN: its cursor is replaced.
    Scan,
    /// Replies to PUBSUB.
    PubSub(PubSubQuery),
    /// The only reply, without the node's secrets.
    Filtered(Filter),
}

/// What is done with Lua scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// EVAL, EVAL_RO: to the slot of the keys, and cached.
    Eval,
    /// EVALSHA, EVALSHA_RO: to the slot of the keys, after the script if necessary.
    EvalSha,
    /// SCRIPT LOAD: cached, and to every reachable node.
    Load,
    /// FUNCTION LOAD: to every primary; its source is inspected.
    LoadLibrary,
    /// SCRIPT EXISTS: to every primary, after the cached scripts.
    Exists,
    /// SCRIPT FLUSH: clears the cache, and to every node.
    Flush,
    /// SCRIPT SHOW: answered from the cache, otherwise by any primary.
    Show,
}

impl Script {
    /// The nodes and the merge of a command that does not go to the slot of its keys.
    pub fn fan(self) -> Option<(Fan, Merge)> {
        match self {
            Script::Eval | Script::EvalSha | Script::Show => None,
            // One node is enough: the others get the script when they need it.
            Script::Load => Some((Fan::Reached, Merge::OneSucceeded)),
            Script::LoadLibrary => Some((Fan::Primaries, Merge::AllSucceeded)),
            Script::Exists => Some((Fan::Primaries, Merge::And)),
            Script::Flush => Some((Fan::Nodes, Merge::AllSucceeded)),
        }
    }
}

/// Transaction commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transaction {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

/// Commands that slotway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Local {
    Ping,
    Echo,
    Quit,
    Select,
    Hello,
    Auth,
    Reset,
    ClientId,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientCapa,
    ClientSwitch,
    /// CLUSTER: slotway appears as the only node of a cluster.
    Cluster,
    /// CLUSTER MYSHARDID, which Redis 7.0 does not have.
    ClusterMyShardId,
    ReadOnly,
    ReadWrite,
    Asking,
    ClientTracking,
    ClientTrackingInfo,
    ClientCaching,
    ClientGetRedir,
    ClientInfo,
    ClientReply,
    /// CLIENT LIST, KILL, PAUSE, UNPAUSE, UNBLOCK: concern all clients of all workers.
    ClientEveryone,
    /// SLOWLOG, from slotway's own log.
    SlowLog,
    /// PROXY: reports about commands and about slotway.
    Proxy,
}

/// Why slotway refuses a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RefusalReason {
    NotYet,
    /// CONFIG SET of the nodes' password, or of the address at which nodes reach each other.
    NodesAccess,
    Dangerous,
    /// It would change the nature of a shared connection; `commands.allow` does not open it.
    Takeover,
    /// Denied by `commands.deny`; [`super::Router::refusal`] knows the entry.
    Denied,
    /// Wrong number of arguments, if no node may see the command or a node would check the slots
    /// first (MSET with a key that has no value).
    Arity,
}

/// A command's name as error texts show it: `CONFIG SET`.
pub(super) fn shown_name(name: &str) -> Box<str> {
    name.to_ascii_uppercase().replace('|', " ").into()
}

impl RefusalReason {
    /// The error for the client.
    pub fn failure(self, name: &str) -> Failure {
        let command = shown_name(name);
        match self {
            RefusalReason::NotYet => Failure::NotSupported { command },
            RefusalReason::NodesAccess => Failure::NodesAccess { command },
            RefusalReason::Dangerous => Failure::OneNodeOnly { command, name: name.into() },
            RefusalReason::Takeover => Failure::ConnectionTakeover { command },
            RefusalReason::Denied => Failure::DeniedByConfig { command, entry: "".into() },
            RefusalReason::Arity => Failure::WrongArity { command: name.into() },
        }
    }

    /// The reason in `docs/commands.md`.
    pub fn reason(self) -> &'static str {
        match self {
            RefusalReason::NotYet => "refused: not built yet",
            RefusalReason::NodesAccess => {
                "`requirepass` and announced addresses are refused: set them on the nodes"
            }
            RefusalReason::Dangerous => {
                "refused: would act on one node behind the cluster's back (`commands.allow`)"
            }
            RefusalReason::Takeover => {
                "refused: about the connection to a node, which clients share (`commands.allow` does \
                 not open it)"
            }
            RefusalReason::Denied => "refused: by `commands.deny`",
            RefusalReason::Arity => "refused: a wrong number of arguments",
        }
    }
}

/// Whether INFO with these arguments includes slotway's own section: like a module's.
pub(super) fn asks_for_proxy_section(args: &Args) -> bool {
    const WITH: [&str; 4] = ["default", "all", "everything", "proxy"];
    args.len() == 1 || (1..args.len()).any(|i| WITH.iter().any(|word| args.is(i, word)))
}

const PRIMARIES_OK: Behaviour = Behaviour::Fan { to: Fan::Primaries, merge: Merge::AllSucceeded };

const fn nodes(server: ReportMerge) -> Behaviour {
    Behaviour::Fan { to: Fan::Answering, merge: Merge::Report(server) }
}

const fn primaries(server: ReportMerge) -> Behaviour {
    Behaviour::Fan { to: Fan::Primaries, merge: Merge::Report(server) }
}

const NODES_OK: Behaviour = Behaviour::Fan { to: Fan::Nodes, merge: Merge::AllSucceeded };

/// Commands for which the table's data do not suffice or do not fit a proxy: those about the
/// connection, about one node only, or dangerous for the cluster. The entry of a container
/// (`cluster`) covers its subcommands without an entry of their own.
const OVERRIDES: &[(&str, Behaviour)] = &[
    ("ping", Behaviour::Local(Local::Ping)),
    ("echo", Behaviour::Local(Local::Echo)),
    ("quit", Behaviour::Local(Local::Quit)),
    ("select", Behaviour::Local(Local::Select)),
    ("hello", Behaviour::Local(Local::Hello)),
    ("auth", Behaviour::Local(Local::Auth)),
    ("reset", Behaviour::Local(Local::Reset)),
    ("client", Behaviour::Client),
    ("cluster", Behaviour::Local(Local::Cluster)),
    ("cluster|countkeysinslot", Behaviour::SlotAt(2)),
    ("cluster|getkeysinslot", Behaviour::SlotAt(2)),
    ("cluster|addslots", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|addslotsrange", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|bumpepoch", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|delslots", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|delslotsrange", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|failover", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|flushslots", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|forget", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|meet", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|replicate", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|reset", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|saveconfig", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|set-config-epoch", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|setslot", Behaviour::Refused(RefusalReason::Dangerous)),
    // Valkey 9: atomic slot migration. SYNCSLOTS is used between the migrating nodes.
    ("cluster|cancelslotmigrations", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|flushslot", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|migrateslots", Behaviour::Refused(RefusalReason::Dangerous)),
    ("cluster|syncslots", Behaviour::Refused(RefusalReason::Takeover)),
    ("readonly", Behaviour::Local(Local::ReadOnly)),
    ("readwrite", Behaviour::Local(Local::ReadWrite)),
    ("asking", Behaviour::Local(Local::Asking)),
    ("eval", Behaviour::Script(Script::Eval)),
    ("eval_ro", Behaviour::Script(Script::Eval)),
    ("evalsha", Behaviour::Script(Script::EvalSha)),
    ("evalsha_ro", Behaviour::Script(Script::EvalSha)),
    ("script|load", Behaviour::Script(Script::Load)),
    ("function|load", Behaviour::Script(Script::LoadLibrary)),
    ("script|exists", Behaviour::Script(Script::Exists)),
    ("script|flush", Behaviour::Script(Script::Flush)),
    ("info", Behaviour::Fan { to: Fan::Primaries, merge: Merge::Info { proxy: true } }),
    ("msetnx", Behaviour::SameSlot),
    ("sort", Behaviour::Sort),
    ("sort_ro", Behaviour::Sort),
    ("xread", Behaviour::BlockingIfAsked),
    ("xreadgroup", Behaviour::BlockingIfAsked),
    // About one node, so without a policy in the server's table; to a client slotway is the server.
    ("config|set", Behaviour::ConfigSet),
    ("config|resetstat", NODES_OK),
    ("config|rewrite", NODES_OK),
    ("acl|setuser", NODES_OK),
    ("acl|deluser", NODES_OK),
    ("acl|load", NODES_OK),
    ("acl|save", NODES_OK),
    ("acl|log", nodes(ReportMerge::AclLog(DEFAULT_COUNT))),
    // Valkey 8.1: the successor of the slow log. Slotway keeps no such log.
    ("commandlog|get", nodes(ReportMerge::SlowLog(DEFAULT_COUNT))),
    ("slowlog|get", Behaviour::Local(Local::SlowLog)),
    ("slowlog|len", Behaviour::Local(Local::SlowLog)),
    ("slowlog|reset", Behaviour::Local(Local::SlowLog)),
    ("proxy", Behaviour::Local(Local::Proxy)),
    ("proxy|help", Behaviour::Local(Local::Proxy)),
    ("latency|doctor", nodes(ReportMerge::Texts)),
    ("latency|graph", nodes(ReportMerge::Texts)),
    ("latency|histogram", primaries(ReportMerge::LatencyHistogram)),
    ("latency|history", nodes(ReportMerge::LatencyHistory)),
    ("latency|latest", nodes(ReportMerge::LatencyLatest)),
    ("latency|reset", Behaviour::Fan { to: Fan::Nodes, merge: Merge::Max }),
    ("memory|doctor", primaries(ReportMerge::Texts)),
    ("memory|malloc-stats", primaries(ReportMerge::Texts)),
    ("memory|stats", primaries(ReportMerge::MemoryStats)),
    ("function|stats", primaries(ReportMerge::FunctionStats)),
    ("role", primaries(ReportMerge::Role)),
    ("scan", Behaviour::Scan),
    ("randomkey", Behaviour::RandomKey),
    ("save", PRIMARIES_OK),
    ("bgsave", PRIMARIES_OK),
    ("bgrewriteaof", PRIMARIES_OK),
    ("lastsave", Behaviour::Fan { to: Fan::Primaries, merge: Merge::Min }),
    ("monitor", Behaviour::Monitor),
    ("script|kill", Behaviour::OutOfBand(Merge::OneSucceeded)),
    ("function|kill", Behaviour::OutOfBand(Merge::OneSucceeded)),
    ("keys", Behaviour::Join),
    ("wait", Behaviour::Wait),
    // Redis 7.2, with or without its flag "blocking". A shared connection would block for everyone.
    ("waitaof", Behaviour::Wait),
    ("cluster|myshardid", Behaviour::Local(Local::ClusterMyShardId)),
    ("cluster|slot-stats", primaries(ReportMerge::SlotStats(SlotOrder::BySlot))),
    ("script|show", Behaviour::Script(Script::Show)),
    ("multi", Behaviour::Transaction(Transaction::Multi)),
    ("exec", Behaviour::Transaction(Transaction::Exec)),
    ("discard", Behaviour::Transaction(Transaction::Discard)),
    ("watch", Behaviour::Transaction(Transaction::Watch)),
    ("unwatch", Behaviour::Transaction(Transaction::Unwatch)),
    ("subscribe", Behaviour::PubSub(PubSub::Subscribe(TopicKind::Channel))),
    ("psubscribe", Behaviour::PubSub(PubSub::Subscribe(TopicKind::Pattern))),
    ("ssubscribe", Behaviour::PubSub(PubSub::Subscribe(TopicKind::Shard))),
    ("unsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(TopicKind::Channel))),
    ("punsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(TopicKind::Pattern))),
    ("sunsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(TopicKind::Shard))),
    ("publish", Behaviour::PubSub(PubSub::Publish)),
    ("spublish", Behaviour::PubSub(PubSub::ShardPublish)),
    // The container alone, and unknown subcommands, are a node's to reject.
    ("pubsub", Behaviour::Any),
    (
        "pubsub|channels",
        Behaviour::PubSub(PubSub::Query(PubSubQuery::Channels(TopicKind::Channel))),
    ),
    ("pubsub|numsub", Behaviour::PubSub(PubSub::Query(PubSubQuery::NumSub(TopicKind::Channel)))),
    ("pubsub|numpat", Behaviour::PubSub(PubSub::Query(PubSubQuery::NumPat))),
    (
        "pubsub|shardchannels",
        Behaviour::PubSub(PubSub::Query(PubSubQuery::Channels(TopicKind::Shard))),
    ),
    ("pubsub|shardnumsub", Behaviour::PubSub(PubSub::Query(PubSubQuery::NumSub(TopicKind::Shard)))),
    ("debug", Behaviour::Refused(RefusalReason::Dangerous)),
    ("failover", Behaviour::Refused(RefusalReason::Dangerous)),
    ("migrate", Behaviour::Refused(RefusalReason::Dangerous)),
    ("module|load", Behaviour::Refused(RefusalReason::Dangerous)),
    ("module|loadex", Behaviour::Refused(RefusalReason::Dangerous)),
    ("module|unload", Behaviour::Refused(RefusalReason::Dangerous)),
    ("psync", Behaviour::Refused(RefusalReason::Takeover)),
    ("replconf", Behaviour::Refused(RefusalReason::Takeover)),
    ("replicaof", Behaviour::Refused(RefusalReason::Dangerous)),
    ("script|debug", Behaviour::Refused(RefusalReason::Takeover)),
    ("shutdown", Behaviour::Refused(RefusalReason::Dangerous)),
    ("slaveof", Behaviour::Refused(RefusalReason::Dangerous)),
    ("swapdb", Behaviour::Refused(RefusalReason::Dangerous)),
    ("sync", Behaviour::Refused(RefusalReason::Takeover)),
];

/// What slotway does about a command by default.
pub fn behaviour_of(spec: &CommandSpec) -> Behaviour {
    let own = |name: &str| OVERRIDES.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
    if let Some(found) = own(&spec.name) {
        return found;
    }
    if let Some((container, sub)) = spec.name.split_once('|')
        && sub != "help"
        && let Some(found) = own(container)
    {
        return found;
    }
    by_data(spec)
}

/// What slotway does about a command if `commands.allow` opens it: derived from its data.
pub fn behaviour_if_allowed(spec: &CommandSpec) -> Behaviour {
    match behaviour_of(spec) {
        Behaviour::Refused(RefusalReason::Dangerous) if *spec.name == *"debug" => Behaviour::Debug,
        Behaviour::Refused(RefusalReason::Dangerous) => by_data(spec),
        other => other,
    }
}

/// Subcommands of DEBUG about a key, which follows.
pub(super) const DEBUG_BY_KEY: [&str; 7] =
    ["object", "listpack", "ziplist", "quicklist", "sdslen", "htstats-key", "digest-value"];
/// Subcommands of DEBUG that change a server's behaviour or all its data: for every primary.
pub(super) const DEBUG_EVERYWHERE: [&str; 6] = [
    "set-active-expire",
    "quicklist-packed-threshold",
    "set-disable-deny-scripts",
    "replicate",
    "reload",
    "loadaof",
];

fn by_data(spec: &CommandSpec) -> Behaviour {
    if spec.flags.contains(Flags::PUBSUB) {
        // A newer server's command: it might turn a shared connection into a subscriber.
        return Behaviour::Refused(RefusalReason::NotYet);
    }
    if spec.may_block() {
        return Behaviour::Blocking;
    }
    match spec.request_policy {
        RequestPolicy::MultiShard => match (&spec.keys, merge_of(spec)) {
            (KeySpec::Range { first: 1, last: -1, .. }, Some(merge)) => Behaviour::Split(merge),
            // Arguments other than keys (of a module's command) cannot be split: a node rejects the
            // command if its keys lie in several slots.
            (_, Some(_)) => Behaviour::Keys,
            (_, None) => Behaviour::SameSlot,
        },
        RequestPolicy::AllShards | RequestPolicy::AllNodes => match merge_of(spec) {
            Some(merge) => Behaviour::Fan { to: fan_of(spec), merge },
            None => Behaviour::Refused(RefusalReason::NotYet),
        },
        RequestPolicy::Special => Behaviour::Refused(RefusalReason::NotYet),
        RequestPolicy::None => match &spec.keys {
            KeySpec::None => Behaviour::Any,
            KeySpec::One(at) => Behaviour::Key(*at),
            _ => Behaviour::Keys,
        },
    }
}

fn fan_of(spec: &CommandSpec) -> Fan {
    match spec.request_policy {
        RequestPolicy::AllNodes => Fan::Nodes,
        _ => Fan::Primaries,
    }
}

fn merge_of(spec: &CommandSpec) -> Option<Merge> {
    Some(match spec.response_policy {
        ResponsePolicy::None if spec.keys.is_none() => Merge::Concat,
        ResponsePolicy::None => Merge::Array,
        ResponsePolicy::OneSucceeded => Merge::OneSucceeded,
        ResponsePolicy::AllSucceeded => Merge::AllSucceeded,
        ResponsePolicy::AggLogicalAnd => Merge::And,
        ResponsePolicy::AggLogicalOr => Merge::Or,
        ResponsePolicy::AggMin => Merge::Min,
        ResponsePolicy::AggMax => Merge::Max,
        ResponsePolicy::AggSum => Merge::Sum,
        ResponsePolicy::Special => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;

    /// Each command that only newer servers have is listed here.
    #[test]
    fn commands_of_newer_servers() {
        let builtin = CommandTable::builtin();
        let dangerous = Behaviour::Refused(RefusalReason::Dangerous);
        let not_yet = Behaviour::Refused(RefusalReason::NotYet);
        let mut seen = 0;
        for (server, table) in builtin.of_newer_servers() {
            for (_, spec) in table.iter().filter(|(_, spec)| !spec.container) {
                if builtin.by_name(&spec.name).is_some() {
                    continue;
                }
                let want = match &*spec.name {
                    "cluster|cancelslotmigrations"
                    | "cluster|flushslot"
                    | "cluster|migrateslots" => dangerous,
                    "cluster|syncslots" => Behaviour::Refused(RefusalReason::Takeover),
                    "cluster|myshardid" => Behaviour::Local(Local::ClusterMyShardId),
                    "cluster|slot-stats" => primaries(ReportMerge::SlotStats(SlotOrder::BySlot)),
                    name if name.starts_with("cluster|") => Behaviour::Local(Local::Cluster),
                    name if name.starts_with("client|") => Behaviour::Client,
                    "clusterscan" => not_yet,
                    "waitaof" => Behaviour::Wait,
                    "script|show" => Behaviour::Script(Script::Show),
                    "commandlog|get" => nodes(ReportMerge::SlowLog(DEFAULT_COUNT)),
                    "commandlog|len" => Behaviour::Fan { to: Fan::Nodes, merge: Merge::Sum },
                    "commandlog|reset" => NODES_OK,
                    "commandlog|help" => Behaviour::Any,
                    "msetex" => Behaviour::Keys,
                    _ => Behaviour::Key(1),
                };
                assert_eq!(behaviour_of(spec), want, "{server}: {}", spec.name);
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen} commands");
    }

    #[test]
    fn only_commands_with_nothing_but_keys_are_split() {
        let table = CommandTable::builtin();
        let mget = table.get(table.by_name("mget").unwrap());
        assert_eq!(behaviour_of(mget), Behaviour::Split(Merge::Array));
        // Like a module's command with a path after its keys.
        let mut with_path = mget.clone();
        with_path.name = "json.mget".into();
        with_path.keys = KeySpec::Range { first: 1, last: -2, step: 1 };
        assert_eq!(behaviour_of(&with_path), Behaviour::Keys);
    }
}
