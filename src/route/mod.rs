//! Routing: a command and its arguments give a [`Plan`] (answer here, one slot, split by slot, all
//! shards, refuse). Partial replies are merged ([`Gather`]). Not here: connections, and any I/O.

mod behaviour;
mod blocking;
mod exec;
mod filter;
mod gather;
mod info;
mod pending_flags;
mod pubsub;
mod scan;
mod server;
mod sort;

pub use behaviour::{
    Behaviour, Fan, Local, Merge, RefusalReason, Script, Transaction, behaviour_if_allowed,
    behaviour_of,
};
use behaviour::{asks_for_proxy_section, shown_name};
use blocking::blocks;
pub use blocking::{WaitTime, asks_to_block, wait_time, with_time_left};
pub use exec::{DISCARDED, ExecGather};
pub use filter::Filter;
pub use gather::Gather;
pub use info::{ProxyInfo, merge_info};
pub use pending_flags::PendingFlags;
pub use pubsub::{OwnSubscriptions, PubSub, PubSubQuery, publish_count};
pub use scan::{Layout, Scan, ScanRequest, SlotOwners, identity};
pub use server::{ReportMerge, SlotOrder};
pub use sort::sort_patterns;
use sort::{has_patterns, patterns_are_there};

use std::sync::Arc;

use crate::cluster::{SLOTS, Slot, View, ViewId, Views};
use crate::command::{
    Class, CommandId, CommandSpec, CommandTable, Flags, KeyError, RuleVerdict, Rules,
    is_announced_address, key_positions,
};
use crate::errors::Failure;
use crate::resp::Args;

/// What is done with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Forward it to the primary of this slot.
    Slot(Slot),
    /// Forward it to any primary.
    Any,
    /// Its keys lie in several slots: send each slot its own and merge the replies. The indexes of
    /// the keys are in the caller's `keys`.
    Split {
        /// How the replies are merged.
        merge: Merge,
        /// Arguments per key: 1 for MGET, 2 for MSET.
        step: u32,
    },
    /// Its keys lie in several slots, or in any slot (SORT … BY): emulate it in steps, or refuse
    /// it. The slot is that of the first key; the indexes of the key arguments are in the caller's
    /// `keys`.
    CrossSlot(Slot),
    /// Send it to several nodes and merge the replies.
    Fan {
        /// The nodes.
        to: Fan,
        /// How the replies are merged.
        merge: Merge,
    },
    /// A command about Lua scripts, which slotway caches; with the slot of its keys, if any.
    Script(Script, Option<Slot>),
    /// SCAN: the shard at which its cursor stands.
    Scan,
    /// RANDOMKEY: ask every primary for its size and a key.
    RandomKey,
    /// It may block: forward it to the primary of this slot, or any, on a dedicated connection.
    Block(Option<Slot>),
    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH.
    Transaction(Transaction),
    /// WAIT, WAITAOF.
    Wait,
    /// KEYS.
    Join,
    /// Send it to every node, on dedicated connections.
    OutOfBand(Merge),
    /// MONITOR.
    Monitor,
    /// A pub/sub command; SPUBLISH with the slot of its channel.
    PubSub(PubSub, Option<Slot>),
    /// Slotway answers it.
    Local(Local),
    /// Refuse it with an error.
    Refuse(RefusalReason),
}

/// The command table, with what slotway does about each command. Immutable.
#[derive(Debug)]
pub struct Router {
    table: Arc<CommandTable>,
    rules: Rules,
    /// Names in `commands.deny` that the table does not have; compared with unknown commands.
    denied_unlisted: Vec<Box<str>>,
    /// By command id; the last entry is for unknown commands.
    commands: Vec<Routed>,
    views: Arc<Views>,
}

/// What the hot path needs to know of a command, in one place.
#[derive(Debug, Clone, Copy)]
struct Routed {
    behaviour: Behaviour,
    /// Initial flags of such commands.
    flags: PendingFlags,
    class: u8,
    /// See [`Router::has_node_cursor`].
    node_cursor: bool,
}

impl Router {
    /// A router for `table` with default rules, for a cluster.
    pub fn new(table: Arc<CommandTable>) -> Self {
        Self::with_rules(table, Rules::default(), Arc::default())
    }

    /// A router with the rules of `commands.deny` and `commands.allow`, for clients with these
    /// views.
    pub fn with_rules(table: Arc<CommandTable>, rules: Rules, views: Arc<Views>) -> Self {
        let routed = |spec: &CommandSpec| Routed {
            behaviour: match rules.verdict(spec) {
                RuleVerdict::Open if *spec.name == *"swapdb" => Behaviour::SwapDb,
                RuleVerdict::Denied(_) => Behaviour::Refused(RefusalReason::Denied),
                RuleVerdict::Opened => behaviour_if_allowed(spec),
                RuleVerdict::Allowed | RuleVerdict::Open => {
                    let blocks = spec.seen_blocking || rules.is_blocking(spec);
                    if_blocking(behaviour_of(spec), blocks)
                }
            },
            flags: flags_of(spec),
            class: spec.class as u8,
            node_cursor: matches!(&*spec.name, "hscan" | "sscan" | "zscan"),
        };
        let mut commands: Vec<Routed> = table.iter().map(|(_, spec)| routed(spec)).collect();
        commands.push(routed(table.get(CommandId::UNKNOWN)));
        let unlisted = |name: &&str| !name.starts_with('@') && table.by_name(name).is_none();
        let denied = rules.deny.iter().map(|rule| rule.text());
        let denied_unlisted = denied.filter(unlisted).map(Into::into).collect();
        Router { table, rules, denied_unlisted, commands, views }
    }

    /// The command table.
    pub fn table(&self) -> &CommandTable {
        &self.table
    }

    /// The views of clients.
    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }

    /// A client's view.
    #[inline]
    pub fn view(&self, view: ViewId) -> &View {
        self.views.get(view)
    }

    /// The command table, for creating another router.
    pub fn shared_table(&self) -> Arc<CommandTable> {
        Arc::clone(&self.table)
    }

    /// The rules of `commands.deny` and `commands.allow`.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The error for a refused command.
    pub fn refusal(&self, command: CommandId, why: RefusalReason) -> Failure {
        let spec = self.table.get(command);
        let name = match command.index() == self.commands.len() - 1 {
            true => "this command, which slotway does not know,",
            false => &*spec.name,
        };
        match self.rules.verdict(spec) {
            RuleVerdict::Denied(rule) if why == RefusalReason::Denied => Failure::DeniedByConfig {
                command: shown_name(name),
                entry: format!(
                    ": its entry \"{}\" says so{}",
                    rule.text(),
                    match rule.text().starts_with('@') {
                        true => "; commands.allow makes exceptions, by name",
                        false => "",
                    }
                )
                .into(),
            },
            _ => why.failure(name),
        }
    }

    /// The id of all unknown commands.
    pub fn unknown(&self) -> CommandId {
        CommandId((self.commands.len() - 1) as u16)
    }

    /// The id of a request's command: [`Router::unknown`] if the table does not have it.
    #[inline]
    pub fn command(&self, args: &Args) -> CommandId {
        self.table.resolve(args).unwrap_or(self.unknown())
    }

    /// Whether the command only reads, so that it may be sent twice.
    #[inline]
    pub fn is_read_only(&self, command: CommandId) -> bool {
        self.flags(command).contains(PendingFlags::READ_ONLY)
    }

    /// Whether it is HSCAN, SSCAN or ZSCAN, whose cursors are valid at one node only.
    pub fn has_node_cursor(&self, command: CommandId) -> bool {
        self.commands.get(command.index()).is_some_and(|c| c.node_cursor)
    }

    /// Whether it is PUBLISH or SPUBLISH.
    #[inline]
    pub fn publishes(&self, command: CommandId) -> bool {
        self.flags(command).contains(PendingFlags::PUBLISHES)
    }

    /// Initial flags of such a command.
    #[inline]
    pub fn flags(&self, command: CommandId) -> PendingFlags {
        self.commands.get(command.index()).map_or(PendingFlags::empty(), |c| c.flags)
    }

    /// Whether it goes to every primary, once per shard.
    pub fn is_for_shards(&self, command: CommandId) -> bool {
        match self.commands.get(command.index()).map(|c| c.behaviour) {
            Some(Behaviour::Fan { to, .. }) => to == Fan::Primaries,
            Some(Behaviour::Script(script)) => {
                script.fan().is_some_and(|(to, _)| to == Fan::Primaries)
            }
            Some(Behaviour::RandomKey | Behaviour::Debug) => true,
            _ => false,
        }
    }

    /// Whether it reads or changes data of whole shards without a key, so that a node would execute
    /// it although it does not serve its shard. Excludes commands on dedicated connections.
    pub fn is_keyless_data(&self, command: CommandId) -> bool {
        let scans = self.commands.get(command.index()).map(|c| c.behaviour);
        let spec = self.table.get(command);
        (self.is_for_shards(command) || scans == Some(Behaviour::Scan))
            && (spec.flags.contains(Flags::READONLY) || spec.flags.contains(Flags::WRITE))
    }

    /// Whether it may block, and then uses a dedicated connection.
    pub fn may_block(&self, command: CommandId) -> bool {
        let behaviour = self.commands.get(command.index()).map(|c| c.behaviour);
        behaviour == Some(Behaviour::Blocking) || self.table.get(command).may_block()
    }

    /// Whether it is a module's command on a shared connection, which delays other commands if it
    /// blocks without having declared so.
    pub fn may_block_others(&self, command: CommandId) -> bool {
        self.table.get(command).flags.contains(Flags::MODULE) && !self.may_block(command)
    }

    /// Whether it may run a script or function, which keeps its node busy. EXEC runs queued ones.
    pub fn may_run_script(&self, command: CommandId) -> bool {
        let routed = self.commands.get(command.index());
        routed.is_some_and(|c| {
            c.behaviour == Behaviour::Transaction(Transaction::Exec)
                || self.table.get(command).class == Class::Scripting
        })
    }

    /// Whether a blocking command may be sent again although it may have been executed: it only
    /// reads, or waits for what it pops (BLPOP). Modules' commands are not known well enough.
    pub fn is_repeatable(&self, command: CommandId) -> bool {
        let spec = self.table.get(command);
        (spec.may_block() && !spec.flags.contains(Flags::MODULE)) || spec.is_read_only()
    }

    /// Whether it interrupts what a node is busy with: SCRIPT KILL, FUNCTION KILL.
    pub fn is_out_of_band(&self, command: CommandId) -> bool {
        let routed = self.commands.get(command.index());
        routed.is_some_and(|c| matches!(c.behaviour, Behaviour::OutOfBand(_)))
    }

    /// What the command does with Lua scripts, if anything.
    pub fn script(&self, command: CommandId) -> Option<Script> {
        match self.commands.get(command.index())?.behaviour {
            Behaviour::Script(script) => Some(script),
            _ => None,
        }
    }

    /// The command's [`crate::command::Class`], as a number.
    #[inline]
    pub fn class(&self, command: CommandId) -> usize {
        self.commands.get(command.index()).map_or(0, |c| usize::from(c.class))
    }

    /// How to split a command with keys of one slot into one command per key: how the replies are
    /// merged, and the number of arguments per key. Indexes of the key arguments are written to
    /// `keys`. `None` if the command cannot be split or has one key.
    pub fn key_by_key(&self, args: &Args, keys: &mut Vec<u32>) -> Option<(Merge, u32)> {
        let command = self.command(args);
        let Behaviour::Split(merge) = self.commands.get(command.index())?.behaviour else {
            return None;
        };
        key_positions(self.table.get(command), args, keys).ok()?;
        match keys.as_slice() {
            [a, b, ..] => Some((merge, b.saturating_sub(*a))),
            _ => None,
        }
    }

    /// Whether the request has keys.
    pub fn has_keys(&self, args: &Args, keys: &mut Vec<u32>) -> bool {
        let spec = self.table.get(self.command(args));
        key_positions(spec, args, keys).is_ok() && !keys.is_empty()
    }

    /// The plan for a request of a client with this view. `keys` is a scratch buffer, to avoid an
    /// allocation.
    #[inline]
    pub fn plan(&self, view: ViewId, command: CommandId, args: &Args, keys: &mut Vec<u32>) -> Plan {
        let view = self.view(view);
        let Some(routed) = self.commands.get(command.index()) else { return Plan::Any };
        match routed.behaviour {
            // With too few arguments it goes to any node, which reports that in its own words.
            Behaviour::Key(at) => match args.get(usize::from(at)) {
                Some(key) => Plan::Slot(view.slot_of(key)),
                None => Plan::Any,
            },
            Behaviour::Any | Behaviour::Client if self.is_denied_unlisted(args) => {
                Plan::Refuse(RefusalReason::Denied)
            }
            Behaviour::Any => any_primary(args),
            // A denied command never reaches a node, not even with invalid arguments.
            Behaviour::Refused(
                why @ (RefusalReason::Denied | RefusalReason::Dangerous | RefusalReason::Takeover),
            ) => {
                let fits = self.arity_fits(command, args);
                Plan::Refuse(if fits { why } else { RefusalReason::Arity })
            }
            // Behind one server there is nothing else on which it would have to act.
            Behaviour::SwapDb if view.is_one_server() => Plan::Any,
            Behaviour::SwapDb => {
                let fits = self.arity_fits(command, args);
                Plan::Refuse(if fits { RefusalReason::Dangerous } else { RefusalReason::Arity })
            }
            // No node knows this command.
            Behaviour::Local(Local::Proxy) if !self.arity_fits(command, args) => {
                Plan::Refuse(RefusalReason::Arity)
            }
            _ if !self.arity_fits(command, args) => any_primary(args),
            Behaviour::Local(local) => Plan::Local(local),
            Behaviour::Refused(why) => Plan::Refuse(why),
            Behaviour::Fan { to, merge: Merge::Report(server) } => {
                // ACL LOG RESET is a write: its OK must hold for every node.
                let resets = matches!(server, ReportMerge::AclLog(_)) && args.is(2, "reset");
                let to = if resets { Fan::Nodes } else { to };
                Plan::Fan { to, merge: Merge::Report(server.with(args)) }
            }
            Behaviour::Fan { to, merge: Merge::Info { .. } } => {
                Plan::Fan { to, merge: Merge::Info { proxy: asks_for_proxy_section(args) } }
            }
            Behaviour::Fan { to, merge } => Plan::Fan { to, merge },
            Behaviour::Script(script) if script.fan().is_some() => Plan::Script(script, None),
            Behaviour::Script(script) => match self.slots(view, command, args, keys) {
                Slots::One(slot) => Plan::Script(script, Some(slot)),
                Slots::Several(slot, _) => Plan::CrossSlot(slot),
                Slots::None | Slots::Unpaired => Plan::Script(script, None),
            },
            Behaviour::SlotAt(at) => {
                let number = args.get(usize::from(at)).and_then(crate::resp::strict_i64);
                match number.and_then(|n| u16::try_from(n).ok()).filter(|&n| n < SLOTS) {
                    Some(slot) => Plan::Slot(view.home().slot(slot)),
                    None => Plan::Any,
                }
            }
            Behaviour::ConfigSet => config_set(args),
            Behaviour::Scan => Plan::Scan,
            Behaviour::RandomKey => Plan::RandomKey,
            Behaviour::Debug => debug_command(view, args),
            Behaviour::Transaction(which) => Plan::Transaction(which),
            Behaviour::Wait => Plan::Wait,
            Behaviour::Monitor => Plan::Monitor,
            Behaviour::PubSub(PubSub::ShardPublish) => Plan::PubSub(
                PubSub::ShardPublish,
                args.get(1).map(|channel| view.home().slot_of(channel)),
            ),
            // Other numbers of arguments are a node's to reject.
            Behaviour::PubSub(ask @ PubSub::Query(PubSubQuery::Channels(_))) if args.len() <= 3 => {
                Plan::PubSub(ask, None)
            }
            Behaviour::PubSub(PubSub::Query(PubSubQuery::Channels(_))) => Plan::Any,
            Behaviour::PubSub(which) => Plan::PubSub(which, None),
            Behaviour::OutOfBand(merge) => Plan::OutOfBand(merge),
            Behaviour::Join => Plan::Join,
            Behaviour::Keys | Behaviour::Blocking | Behaviour::BlockingIfAsked => {
                let waits = match routed.behaviour {
                    Behaviour::BlockingIfAsked => blocks(args),
                    other => other == Behaviour::Blocking,
                };
                match self.slots(view, command, args, keys) {
                    Slots::One(slot) if waits => Plan::Block(Some(slot)),
                    Slots::One(slot) => Plan::Slot(slot),
                    Slots::Several(slot, _) => Plan::CrossSlot(slot),
                    // A module's command without keys.
                    Slots::None if waits && self.table.get(command).keys.is_none() => {
                        Plan::Block(None)
                    }
                    Slots::None | Slots::Unpaired => Plan::Any,
                }
            }
            Behaviour::Sort => match self.slots(view, command, args, keys) {
                // All keys of a single server are in reach of its patterns.
                Slots::One(slot) if view.is_one_server() || !has_patterns(args) => Plan::Slot(slot),
                // On a single server its keys are in reach of patterns that are there as well.
                Slots::One(slot) if patterns_are_there(view, args) => Plan::Slot(slot),
                Slots::One(slot) | Slots::Several(slot, _) => Plan::CrossSlot(slot),
                Slots::None | Slots::Unpaired => Plan::Any,
            },
            Behaviour::Split(merge) => match self.slots(view, command, args, keys) {
                Slots::One(slot) => Plan::Slot(slot),
                Slots::Several(_, step) => Plan::Split { merge, step },
                Slots::Unpaired => Plan::Refuse(RefusalReason::Arity),
                Slots::None => Plan::Any,
            },
            Behaviour::SameSlot => match self.slots(view, command, args, keys) {
                Slots::One(slot) => Plan::Slot(slot),
                Slots::Several(slot, _) => Plan::CrossSlot(slot),
                Slots::Unpaired => Plan::Refuse(RefusalReason::Arity),
                Slots::None => Plan::Any,
            },
            Behaviour::Client => {
                let spec = self.table.get(command);
                client_command(args, !spec.container)
            }
        }
    }

    /// Whether `commands.deny` names a command missing in the table: a newer subcommand of CLIENT
    /// that slotway answers, or a command that the cluster has not reported yet.
    fn is_denied_unlisted(&self, args: &Args) -> bool {
        self.denied_unlisted.iter().any(|denied| match denied.split_once('|') {
            Some((name, sub)) => args.is(0, name) && args.is(1, sub),
            None => args.is(0, denied),
        })
    }

    fn arity_fits(&self, command: CommandId, args: &Args) -> bool {
        self.table.get(command).arity_fits(args.len())
    }

    fn slots(&self, view: &View, command: CommandId, args: &Args, keys: &mut Vec<u32>) -> Slots {
        let spec = self.table.get(command);
        match key_positions(spec, args, keys) {
            Ok(()) => {}
            Err(KeyError::Unbalanced) => return Slots::Unpaired,
            Err(_) => return Slots::None,
        }
        let slot = |at: &u32| args.get(*at as usize).map(|key| view.slot_of(key));
        let Some(first) = keys.first().and_then(slot) else { return Slots::None };
        if keys.iter().skip(1).all(|at| slot(at) == Some(first)) {
            return Slots::One(first);
        }
        let step = match keys.as_slice() {
            [a, b, ..] => b.saturating_sub(*a),
            _ => 1,
        };
        Slots::Several(first, step)
    }
}

/// The behaviour of a command that blocks although its server does not say so: if it goes to one
/// node, it uses a dedicated connection.
fn if_blocking(behaviour: Behaviour, blocks: bool) -> Behaviour {
    match behaviour {
        Behaviour::Key(_)
        | Behaviour::Keys
        | Behaviour::SameSlot
        | Behaviour::Split(_)
        | Behaviour::Any
            if blocks =>
        {
            Behaviour::Blocking
        }
        other => other,
    }
}

fn flags_of(spec: &CommandSpec) -> PendingFlags {
    let publishes =
        matches!(behaviour_of(spec), Behaviour::PubSub(PubSub::Publish | PubSub::ShardPublish));
    let mut flags = PendingFlags::empty();
    flags.set(PendingFlags::READ_ONLY, spec.is_read_only());
    flags.set(PendingFlags::PUBLISHES, publishes);
    flags
}

enum Slots {
    None,
    /// A key without a value.
    Unpaired,
    One(Slot),
    /// The slot of the first key, and the number of arguments per key.
    Several(Slot, u32),
}

fn debug_command(view: &View, args: &Args) -> Plan {
    let is_one = |words: &[&str]| words.iter().any(|word| args.is(1, word));
    match args.get(2) {
        Some(key) if is_one(&behaviour::DEBUG_BY_KEY) => Plan::Slot(view.slot_of(key)),
        _ if is_one(&behaviour::DEBUG_EVERYWHERE) => {
            Plan::Fan { to: Fan::Primaries, merge: Merge::AllSucceeded }
        }
        _ => Plan::Any,
    }
}

/// To any primary; secrets are removed from the reply.
fn any_primary(args: &Args) -> Plan {
    match Filter::of(args) {
        Some(filter) => Plan::Fan { to: Fan::One, merge: Merge::Filtered(filter) },
        None => Plan::Any,
    }
}

fn config_set(args: &Args) -> Plan {
    let mut names = args.iter().skip(2).step_by(2);
    let refused =
        |name: &[u8]| name.eq_ignore_ascii_case(b"requirepass") || is_announced_address(name);
    match names.any(refused) {
        true => Plan::Refuse(RefusalReason::NodesAccess),
        false => Plan::Fan { to: Fan::Nodes, merge: Merge::AllSucceeded },
    }
}

/// The plan for a subcommand of CLIENT; `known`: the cluster's table has it.
pub fn client_command(args: &Args, known: bool) -> Plan {
    // With their arity, because the table of a 7.0 server lacks some of them.
    const SUBCOMMANDS: [(&str, i32, Local); 17] = [
        ("id", 2, Local::ClientId),
        ("getname", 2, Local::ClientGetName),
        ("setname", 3, Local::ClientSetName),
        ("setinfo", 4, Local::ClientSetInfo),
        ("no-evict", 3, Local::ClientSwitch),
        ("no-touch", 3, Local::ClientSwitch),
        ("list", -2, Local::ClientEveryone),
        ("info", 2, Local::ClientInfo),
        ("kill", -3, Local::ClientEveryone),
        ("pause", -3, Local::ClientEveryone),
        ("unpause", 2, Local::ClientEveryone),
        ("unblock", -3, Local::ClientEveryone),
        ("reply", 3, Local::ClientReply),
        ("tracking", -3, Local::ClientTracking),
        ("trackinginfo", 2, Local::ClientTrackingInfo),
        ("caching", 3, Local::ClientCaching),
        ("getredir", 2, Local::ClientGetRedir),
    ];
    let fits = |arity: i32| match usize::try_from(arity) {
        Ok(exact) => args.len() == exact,
        Err(_) => args.len() >= arity.unsigned_abs() as usize,
    };
    let own = SUBCOMMANDS.iter().find(|(word, arity, _)| fits(*arity) && args.is(1, word));
    if let Some((.., local)) = own {
        return Plan::Local(*local);
    }
    if known && args.is(1, "capa") {
        return Plan::Local(Local::ClientCapa);
    }
    // A subcommand in the table concerns the connection, which is shared; any other is a node's to
    // reject.
    if known && !args.is(1, "help") {
        return Plan::Refuse(RefusalReason::NotYet);
    }
    Plan::Any
}

#[cfg(test)]
mod tests;
