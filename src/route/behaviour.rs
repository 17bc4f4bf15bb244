//! What slotway does about each command: by its key specs and policies where they say it, by
//! [`OWN`] where they cannot.

use super::filter::Filter;
use super::pubsub::{Ask, PubSub};
use super::server::{DEFAULT_COUNT, Server, SlotOrder};
use crate::channel::Kind;
use crate::command::{CommandSpec, Flags, KeySpec, RequestPolicy, ResponsePolicy};
use crate::errors::Failure;
use crate::resp::Args;

/// What slotway does about a command, known from its table entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// One key, at this argument: to its slot.
    Key(u8),
    /// Keys that must share a slot: to the first one's.
    Keys,
    /// The same, on a connection lent to the client: it may wait for an element.
    Blocking,
    /// The same, where its arguments say BLOCK (XREAD, XREADGROUP).
    BlockingIfAsked,
    /// SORT: the same, but that its patterns may name keys anywhere.
    Sort,
    /// Keys in any slots: split.
    Split(Merge),
    /// Keys that must share a slot, because the command is atomic.
    SameSlot,
    /// About Lua scripts, which slotway keeps.
    Script(Script),
    /// A slot's number, at this argument: to its primary.
    SlotAt(u8),
    /// To any primary.
    Any,
    /// To several nodes.
    Fan {
        /// Which.
        to: Fan,
        /// How the replies become one.
        merge: Merge,
    },
    /// SCAN: from shard to shard.
    Scan,
    /// RANDOMKEY: from every primary its size and a key.
    RandomKey,
    /// DEBUG, where it is allowed: by its subcommand, which the server's table does not have.
    Debug,
    /// MULTI and its kin.
    Transaction(Transaction),
    /// WAIT: on connections lent to the client, at the primaries that it has written to.
    Wait,
    /// KEYS: all primaries' lists as one, in bounded memory.
    Join,
    /// To every node, failed ones included, past what it is busy with: on connections lent to the
    /// client.
    Aside(Merge),
    /// MONITOR: on a connection lent to the client at every primary.
    Monitor,
    /// SUBSCRIBE and its kin.
    PubSub(PubSub),
    /// CONFIG SET: on every node, but for what would lock slotway out.
    ConfigSet,
    /// Answered here.
    Local(Local),
    /// CLIENT: by its subcommand, some of which the server's table may not have.
    Client,
    /// Refused here.
    Refused(Refused),
}

/// Which nodes a command goes to that is not for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fan {
    /// Every primary (`all_shards`).
    Primaries,
    /// Every node (`all_nodes`); one that has failed is an error.
    Nodes,
    /// Every node but those that have failed: what only reads has nothing to ask there.
    Answering,
    /// Every node that is reached at the moment.
    Reached,
    /// Any one primary.
    One,
}

/// How several replies become one (`response_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// One element per key, in the order of the keys.
    Array,
    /// All elements of all replies.
    Concat,
    /// The sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Logical and; of arrays, element by element.
    And,
    /// Logical or; of arrays, element by element.
    Or,
    /// The first reply, if none is an error.
    AllSucceeded,
    /// The first reply that is no error.
    OneSucceeded,
    /// INFO texts; with slotway's own section, or without.
    Info {
        /// The section is asked for.
        proxy: bool,
    },
    /// What servers say of themselves.
    Server(Server),
    /// One part: SCAN's, whose cursor becomes slotway's.
    Scan,
    /// What nodes say of their subscribers.
    PubSub(Ask),
    /// One part, without the nodes' secrets.
    Filtered(Filter),
}

/// What is done with Lua scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// EVAL, EVAL_RO: to its keys' slot, and remembered.
    Eval,
    /// EVALSHA, EVALSHA_RO: to its keys' slot, behind the script if need be.
    EvalSha,
    /// SCRIPT LOAD: remembered, and to every node that is reached.
    Load,
    /// FUNCTION LOAD: to every primary; its source is looked at.
    LoadLibrary,
    /// SCRIPT EXISTS: to every primary, behind the scripts that slotway has.
    Exists,
    /// SCRIPT FLUSH: forgotten, here and on every node.
    Flush,
    /// SCRIPT SHOW: answered here if slotway has the script, otherwise by any primary.
    Show,
}

impl Script {
    /// Where it goes if not to its keys' slot.
    pub fn fan(self) -> Option<(Fan, Merge)> {
        match self {
            Script::Eval | Script::EvalSha | Script::Show => None,
            // One that has it is enough: the others are given it when they need it.
            Script::Load => Some((Fan::Reached, Merge::OneSucceeded)),
            Script::LoadLibrary => Some((Fan::Primaries, Merge::AllSucceeded)),
            Script::Exists => Some((Fan::Primaries, Merge::And)),
            Script::Flush => Some((Fan::Nodes, Merge::AllSucceeded)),
        }
    }
}

/// The commands about transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transaction {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

/// What slotway answers itself.
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
    /// CLUSTER: as the one node of a cluster.
    Cluster,
    /// CLUSTER MYSHARDID, which a 7.0 server does not have.
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
    /// CLIENT LIST, KILL, PAUSE, UNPAUSE, UNBLOCK: about all clients of all workers.
    ClientEveryone,
    /// Slotway's own SLOWLOG.
    SlowLog,
    /// What is seen of commands, and of slotway.
    Proxy,
}

/// Why slotway refuses a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refused {
    NotYet,
    /// CONFIG SET of the nodes' password, or of the address at which nodes log in to each other.
    NodesAccess,
    Dangerous,
    /// It would make a shared connection to a node another thing than it is: `commands.allow` does
    /// not open it either.
    Takeover,
    /// By `commands.deny`; [`super::Router::refusal`] knows the entry.
    Denied,
    /// What no node may see, or would look at the slots of first (MSET with a key that has no
    /// value).
    Arity,
}

/// A command's name as errors show it: `CONFIG SET`.
pub(super) fn shown_name(name: &str) -> Box<str> {
    name.to_ascii_uppercase().replace('|', " ").into()
}

impl Refused {
    /// The error for a client.
    pub fn failure(self, name: &str) -> Failure {
        let command = shown_name(name);
        match self {
            Refused::NotYet => Failure::NotSupported { command },
            Refused::NodesAccess => Failure::NodesAccess { command },
            Refused::Dangerous => Failure::OneNodeOnly { command, name: name.into() },
            Refused::Takeover => Failure::ConnectionTakeover { command },
            Refused::Denied => Failure::DeniedByConfig { command, entry: "".into() },
            Refused::Arity => Failure::WrongArity { command: name.into() },
        }
    }

    /// What `docs/commands.md` says of it.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::NotYet => "refused: not built yet",
            Refused::NodesAccess => {
                "`requirepass` and announced addresses are refused: set them on the nodes"
            }
            Refused::Dangerous => {
                "refused: would act on one node behind the cluster's back (`commands.allow`)"
            }
            Refused::Takeover => {
                "refused: about the connection to a node, which clients share (`commands.allow` does \
                 not open it)"
            }
            Refused::Denied => "refused: by `commands.deny`",
            Refused::Arity => "refused: a wrong number of arguments",
        }
    }
}

/// Whether INFO with these arguments is to show slotway's own section: as a module's.
pub(super) fn asks_for_proxy_section(args: &Args) -> bool {
    const WITH: [&str; 4] = ["default", "all", "everything", "proxy"];
    args.len() == 1 || (1..args.len()).any(|i| WITH.iter().any(|word| args.is(i, word)))
}

const PRIMARIES_OK: Behaviour = Behaviour::Fan { to: Fan::Primaries, merge: Merge::AllSucceeded };

const fn nodes(server: Server) -> Behaviour {
    Behaviour::Fan { to: Fan::Answering, merge: Merge::Server(server) }
}

const fn primaries(server: Server) -> Behaviour {
    Behaviour::Fan { to: Fan::Primaries, merge: Merge::Server(server) }
}

const NODES_OK: Behaviour = Behaviour::Fan { to: Fan::Nodes, merge: Merge::AllSucceeded };

/// What the table's data does not tell, or tells otherwise than a proxy needs it: what concerns
/// the connection, what answers for one node only, what a cluster must not be asked through a
/// proxy. A container's entry (`cluster`) holds for its subcommands without one of their own.
const OWN: &[(&str, Behaviour)] = &[
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
    ("cluster|addslots", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|addslotsrange", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|bumpepoch", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|delslots", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|delslotsrange", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|failover", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|flushslots", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|forget", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|meet", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|replicate", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|reset", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|saveconfig", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|set-config-epoch", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|setslot", Behaviour::Refused(Refused::Dangerous)),
    // Of Valkey 9: the atomic migration of slots. SYNCSLOTS is the migrating nodes' own.
    ("cluster|cancelslotmigrations", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|flushslot", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|migrateslots", Behaviour::Refused(Refused::Dangerous)),
    ("cluster|syncslots", Behaviour::Refused(Refused::Takeover)),
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
    // Said of one node, the server's word has no policy; for a client they are about "the server".
    ("config|set", Behaviour::ConfigSet),
    ("config|resetstat", NODES_OK),
    ("config|rewrite", NODES_OK),
    ("acl|setuser", NODES_OK),
    ("acl|deluser", NODES_OK),
    ("acl|load", NODES_OK),
    ("acl|save", NODES_OK),
    ("acl|log", nodes(Server::AclLog(DEFAULT_COUNT))),
    // Of Valkey 8.1: the slow log's successor. Slotway keeps no such log itself.
    ("commandlog|get", nodes(Server::SlowLog(DEFAULT_COUNT))),
    ("slowlog|get", Behaviour::Local(Local::SlowLog)),
    ("slowlog|len", Behaviour::Local(Local::SlowLog)),
    ("slowlog|reset", Behaviour::Local(Local::SlowLog)),
    ("proxy", Behaviour::Local(Local::Proxy)),
    ("proxy|help", Behaviour::Local(Local::Proxy)),
    ("latency|doctor", nodes(Server::Texts)),
    ("latency|graph", nodes(Server::Texts)),
    ("latency|histogram", primaries(Server::LatencyHistogram)),
    ("latency|history", nodes(Server::LatencyHistory)),
    ("latency|latest", nodes(Server::LatencyLatest)),
    ("latency|reset", Behaviour::Fan { to: Fan::Nodes, merge: Merge::Max }),
    ("memory|doctor", primaries(Server::Texts)),
    ("memory|malloc-stats", primaries(Server::Texts)),
    ("memory|stats", primaries(Server::MemoryStats)),
    ("function|stats", primaries(Server::FunctionStats)),
    ("role", primaries(Server::Role)),
    ("scan", Behaviour::Scan),
    ("randomkey", Behaviour::RandomKey),
    ("save", PRIMARIES_OK),
    ("bgsave", PRIMARIES_OK),
    ("bgrewriteaof", PRIMARIES_OK),
    ("lastsave", Behaviour::Fan { to: Fan::Primaries, merge: Merge::Min }),
    ("monitor", Behaviour::Monitor),
    ("script|kill", Behaviour::Aside(Merge::OneSucceeded)),
    ("function|kill", Behaviour::Aside(Merge::OneSucceeded)),
    ("keys", Behaviour::Join),
    ("wait", Behaviour::Wait),
    // Of 7.2, with or without its flag "blocking". On a shared connection all would wait with it.
    ("waitaof", Behaviour::Wait),
    ("cluster|myshardid", Behaviour::Local(Local::ClusterMyShardId)),
    ("cluster|slot-stats", primaries(Server::SlotStats(SlotOrder::BySlot))),
    ("script|show", Behaviour::Script(Script::Show)),
    ("multi", Behaviour::Transaction(Transaction::Multi)),
    ("exec", Behaviour::Transaction(Transaction::Exec)),
    ("discard", Behaviour::Transaction(Transaction::Discard)),
    ("watch", Behaviour::Transaction(Transaction::Watch)),
    ("unwatch", Behaviour::Transaction(Transaction::Unwatch)),
    ("subscribe", Behaviour::PubSub(PubSub::Subscribe(Kind::Channel))),
    ("psubscribe", Behaviour::PubSub(PubSub::Subscribe(Kind::Pattern))),
    ("ssubscribe", Behaviour::PubSub(PubSub::Subscribe(Kind::Shard))),
    ("unsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(Kind::Channel))),
    ("punsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(Kind::Pattern))),
    ("sunsubscribe", Behaviour::PubSub(PubSub::Unsubscribe(Kind::Shard))),
    ("publish", Behaviour::PubSub(PubSub::Publish)),
    ("spublish", Behaviour::PubSub(PubSub::ShardPublish)),
    // The container alone, and subcommands that it has not, are a node's to refuse.
    ("pubsub", Behaviour::Any),
    ("pubsub|channels", Behaviour::PubSub(PubSub::Ask(Ask::Channels(Kind::Channel)))),
    ("pubsub|numsub", Behaviour::PubSub(PubSub::Ask(Ask::NumSub(Kind::Channel)))),
    ("pubsub|numpat", Behaviour::PubSub(PubSub::Ask(Ask::NumPat))),
    ("pubsub|shardchannels", Behaviour::PubSub(PubSub::Ask(Ask::Channels(Kind::Shard)))),
    ("pubsub|shardnumsub", Behaviour::PubSub(PubSub::Ask(Ask::NumSub(Kind::Shard)))),
    ("debug", Behaviour::Refused(Refused::Dangerous)),
    ("failover", Behaviour::Refused(Refused::Dangerous)),
    ("migrate", Behaviour::Refused(Refused::Dangerous)),
    ("module|load", Behaviour::Refused(Refused::Dangerous)),
    ("module|loadex", Behaviour::Refused(Refused::Dangerous)),
    ("module|unload", Behaviour::Refused(Refused::Dangerous)),
    ("psync", Behaviour::Refused(Refused::Takeover)),
    ("replconf", Behaviour::Refused(Refused::Takeover)),
    ("replicaof", Behaviour::Refused(Refused::Dangerous)),
    ("script|debug", Behaviour::Refused(Refused::Takeover)),
    ("shutdown", Behaviour::Refused(Refused::Dangerous)),
    ("slaveof", Behaviour::Refused(Refused::Dangerous)),
    ("swapdb", Behaviour::Refused(Refused::Dangerous)),
    ("sync", Behaviour::Refused(Refused::Takeover)),
];

/// What slotway does about a command.
pub fn behaviour_of(spec: &CommandSpec) -> Behaviour {
    let own = |name: &str| OWN.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
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

/// What slotway does about a command that it refuses unless it is allowed: what its data say.
pub fn behaviour_if_allowed(spec: &CommandSpec) -> Behaviour {
    match behaviour_of(spec) {
        Behaviour::Refused(Refused::Dangerous) if *spec.name == *"debug" => Behaviour::Debug,
        Behaviour::Refused(Refused::Dangerous) => by_data(spec),
        other => other,
    }
}

/// The forms of DEBUG that are about a key, which is the argument behind.
pub(super) const DEBUG_BY_KEY: [&str; 7] =
    ["object", "listpack", "ziplist", "quicklist", "sdslen", "htstats-key", "digest-value"];
/// The forms of DEBUG that change how a server behaves, or its whole data: for every primary.
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
        // Of a newer server: it might make a subscriber of a connection that all share.
        return Behaviour::Refused(Refused::NotYet);
    }
    if spec.may_block() {
        return Behaviour::Blocking;
    }
    match spec.request_policy {
        RequestPolicy::MultiShard => match (&spec.keys, merge_of(spec)) {
            (KeySpec::Range { first: 1, last: -1, .. }, Some(merge)) => Behaviour::Split(merge),
            // With arguments beside the keys (a module's, say) a part could not be put together:
            // over several slots it is the node's to refuse.
            (_, Some(_)) => Behaviour::Keys,
            (_, None) => Behaviour::SameSlot,
        },
        RequestPolicy::AllShards | RequestPolicy::AllNodes => match merge_of(spec) {
            Some(merge) => Behaviour::Fan { to: fan_of(spec), merge },
            None => Behaviour::Refused(Refused::NotYet),
        },
        RequestPolicy::Special => Behaviour::Refused(Refused::NotYet),
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

    /// Every command that newer servers have besides is looked at here once.
    #[test]
    fn commands_of_newer_servers() {
        let builtin = CommandTable::builtin();
        let dangerous = Behaviour::Refused(Refused::Dangerous);
        let not_yet = Behaviour::Refused(Refused::NotYet);
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
                    "cluster|syncslots" => Behaviour::Refused(Refused::Takeover),
                    "cluster|myshardid" => Behaviour::Local(Local::ClusterMyShardId),
                    "cluster|slot-stats" => primaries(Server::SlotStats(SlotOrder::BySlot)),
                    name if name.starts_with("cluster|") => Behaviour::Local(Local::Cluster),
                    name if name.starts_with("client|") => Behaviour::Client,
                    "clusterscan" => not_yet,
                    "waitaof" => Behaviour::Wait,
                    "script|show" => Behaviour::Script(Script::Show),
                    "commandlog|get" => nodes(Server::SlowLog(DEFAULT_COUNT)),
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
    fn only_what_is_all_keys_is_split() {
        let table = CommandTable::builtin();
        let mget = table.get(table.by_name("mget").unwrap());
        assert_eq!(behaviour_of(mget), Behaviour::Split(Merge::Array));
        // As a module's command with a path behind its keys.
        let mut with_path = mget.clone();
        with_path.name = "json.mget".into();
        with_path.keys = KeySpec::Range { first: 1, last: -2, step: 1 };
        assert_eq!(behaviour_of(&with_path), Behaviour::Keys);
    }
}
