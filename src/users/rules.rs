//! Redis's ACL rules of one user: parsing, and checking requests. No I/O.
//!
//! A user has one or more selectors, each with its own commands, keys and channels; a request is
//! allowed if one selector allows all of it.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>

use super::rule_error::RuleError;
use crate::channel::matches;
use crate::command::{
    Access, CommandId, CommandSpec, CommandTable, Flags, KeySpec, key_accesses, key_positions,
};
use crate::resp::Args;

/// Why a request is refused. Of several selectors' reasons the greatest is reported, as in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command is not allowed.
    Command,
    /// The rules allow the command, but its effects cannot be checked against them.
    Unchecked,
    /// A key is not allowed.
    Key,
    /// A channel is not allowed.
    Channel,
    /// BY or GET of SORT, which read keys computed from data.
    Sort(&'static str),
}

/// A rule about commands. Later rules override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CommandRule {
    /// A command or subcommand (`config|get`); allowed or denied.
    Command(Box<str>, bool),
    /// A category, without its `@`; allowed or denied.
    Category(Box<str>, bool),
    /// A command with this first argument only (`select|0`).
    FirstArg(Box<str>, Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    access: Access,
}

/// A set of allowed commands, keys and channels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// The last rule about all commands; `rules` has those that followed it.
    all: bool,
    rules: Vec<CommandRule>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Box<[u8]>>,
    /// Bit set of allowed commands by id, compiled from `rules` for one table.
    allowed: Box<[u64]>,
    /// Whether commands missing in the table are allowed.
    unknown_allowed: bool,
    /// Bit set of commands that `rules` allow, but that are refused because they cannot be checked.
    withheld: Box<[u64]>,
    /// No key pattern is limited to reading or writing.
    plain_keys: bool,
    first_args: Vec<(CommandId, Box<str>)>,
}

impl Selector {
    /// A selector that allows everything.
    pub fn everything() -> Selector {
        Selector { all: true, all_keys: true, all_channels: true, ..Selector::default() }
    }

    /// Applies one rule. `table` defines the commands and categories.
    ///
    /// # Errors
    /// The error in the rule.
    pub(super) fn apply(&mut self, rule: &str, table: &CommandTable) -> Result<(), RuleError> {
        let lower = rule.to_ascii_lowercase();
        match &*lower {
            "allkeys" | "~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            "resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            "allchannels" | "&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            "resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            "allcommands" | "+@all" => self.all_commands(true),
            "nocommands" | "-@all" => self.all_commands(false),
            _ => match (rule.as_bytes().first(), rule.get(1..)) {
                (Some(b'~'), Some(pattern)) => self.key_pattern(pattern, Access::ALL)?,
                (Some(b'%'), Some(rest)) => {
                    let (letters, pattern) = rest.split_once('~').ok_or(RuleError::Syntax)?;
                    let mut access = Access::default();
                    for letter in letters.chars() {
                        match letter.to_ascii_uppercase() {
                            'R' if !access.read => access.read = true,
                            'W' if !access.write => access.write = true,
                            _ => return Err(RuleError::Syntax),
                        }
                    }
                    if letters.is_empty() {
                        return Err(RuleError::Syntax);
                    }
                    self.key_pattern(pattern, access)?;
                }
                (Some(b'&'), Some(pattern)) => {
                    if self.all_channels {
                        return Err(RuleError::AfterAllChannels);
                    }
                    if !self.channels.iter().any(|p| **p == *pattern.as_bytes()) {
                        self.channels.push(pattern.as_bytes().into());
                    }
                }
                (Some(sign @ (b'+' | b'-')), Some(_)) => {
                    self.command(lower.get(1..).unwrap_or_default(), *sign == b'+', table)?;
                }
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn all_commands(&mut self, on: bool) {
        self.all = on;
        self.rules.clear();
    }

    fn key_pattern(&mut self, pattern: &str, access: Access) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        match self.keys.iter_mut().find(|p| *p.pattern == *pattern.as_bytes()) {
            Some(known) => {
                known.access.read |= access.read;
                known.access.write |= access.write;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.as_bytes().into(), access }),
        }
        Ok(())
    }

    fn command(&mut self, name: &str, on: bool, table: &CommandTable) -> Result<(), RuleError> {
        if let Some(category) = name.strip_prefix('@') {
            let known = |(_, spec): (_, &CommandSpec)| has_category(spec, category);
            if !table.iter().any(known) {
                return Err(RuleError::Unknown);
            }
            self.push(CommandRule::Category(category.into(), on));
            return Ok(());
        }
        let parent = name.split('|').next().unwrap_or_default();
        match (table.by_name(name), table.by_name(parent), name.split_once('|')) {
            (Some(_), ..) => self.push(CommandRule::Command(name.into(), on)),
            // A module's command, which only the cluster knows.
            (None, None, _) if parent.contains('.') => {
                self.push(CommandRule::Command(name.into(), on))
            }
            (None, Some(id), Some((_, arg))) => {
                let container = table.get(id).container;
                if arg.contains('|') {
                    return Err(RuleError::FirstArgOfSubcommand);
                }
                if arg.is_empty() {
                    return Err(RuleError::Syntax);
                }
                // CLIENT SETINFO and others, of servers newer than the table.
                let newer = container && NEWER_SUBCOMMANDS.contains(&name);
                if (container || !on) && !newer {
                    return Err(RuleError::Unknown);
                }
                match newer {
                    true => self.push(CommandRule::Command(name.into(), on)),
                    false => self.push(CommandRule::FirstArg(parent.into(), arg.into())),
                }
            }
            _ => return Err(RuleError::Unknown),
        }
        Ok(())
    }

    fn push(&mut self, rule: CommandRule) {
        // A repeated rule replaces the earlier one.
        let same = |old: &CommandRule| match (old, &rule) {
            (CommandRule::Command(a, _), CommandRule::Command(b, _)) => a == b,
            (CommandRule::Category(a, _), CommandRule::Category(b, _)) => a == b,
            (a, b) => a == b,
        };
        self.rules.retain(|old| !same(old));
        self.rules.push(rule);
    }

    /// Compiles the rules for the commands of `table`. Commands whose effects cannot be checked are
    /// refused unless `unchecked` or the rules allow everything.
    pub(super) fn compile(&mut self, table: &CommandTable, unchecked: bool) {
        let mut allowed = vec![if self.all { u64::MAX } else { 0 }; table.len().div_ceil(64)];
        let mut first_args: Vec<(CommandId, Box<str>)> = Vec::new();
        let mut unknown = self.all;
        for rule in &self.rules {
            let mut one = |id: CommandId, on: bool| {
                if let Some(word) = allowed.get_mut(usize::from(id.0 / 64)) {
                    match on {
                        true => *word |= 1 << (id.0 % 64),
                        false => *word &= !(1 << (id.0 % 64)),
                    }
                }
                first_args.retain(|(other, _)| *other != id);
            };
            match rule {
                CommandRule::Command(name, on) => {
                    let Some(id) = table.by_name(name) else {
                        unknown &= *on; // the unknown command may be this one
                        continue;
                    };
                    one(id, *on);
                    let own = table.iter().filter(|(sub, _)| table.container_of(*sub) == Some(id));
                    own.for_each(|(sub, _)| one(sub, *on));
                }
                CommandRule::Category(category, on) => {
                    for (id, spec) in table.iter() {
                        let of = |id| has_category(table.get(id), category);
                        let container = table.container_of(id);
                        if has_category(spec, category) || container.is_some_and(of) {
                            one(id, *on);
                        }
                    }
                    unknown &= *on;
                }
                CommandRule::FirstArg(name, arg) => {
                    first_args.extend(table.by_name(name).map(|id| (id, arg.clone())));
                }
            }
        }
        let mut withheld = vec![0; allowed.len()];
        if !unchecked && !self.allows_everything() {
            for (id, _) in table.iter().filter(|(_, spec)| is_uncheckable(spec)) {
                let bit = 1 << (id.0 % 64);
                let at = usize::from(id.0 / 64);
                let first_arg = first_args.iter().any(|(of, _)| *of == id);
                first_args.retain(|(of, _)| *of != id);
                if let (Some(allowed), Some(withheld)) = (allowed.get_mut(at), withheld.get_mut(at))
                {
                    *withheld |= if first_arg { bit } else { *allowed & bit };
                    *allowed &= !bit;
                }
            }
        }
        self.allowed = allowed.into();
        self.withheld = withheld.into();
        self.unknown_allowed = unknown;
        self.first_args = first_args;
        self.plain_keys = self.keys.iter().all(|p| p.access == Access::ALL);
    }

    /// Whether every request is allowed, unknown commands included.
    pub(super) fn allows_everything(&self) -> bool {
        self.all && self.rules.is_empty() && self.all_keys && self.all_channels
    }

    fn has_command(&self, id: CommandId) -> bool {
        let word = self.allowed.get(usize::from(id.0 / 64));
        word.map_or(self.unknown_allowed, |word| word & (1 << (id.0 % 64)) != 0)
    }

    /// Checks a request whose number of arguments is valid.
    #[inline]
    pub fn check(
        &self,
        id: CommandId,
        spec: &CommandSpec,
        args: &Args,
        keys: &mut Vec<u32>,
    ) -> Result<(), Denied> {
        // AUTH, HELLO, QUIT and RESET are always allowed.
        if !self.has_command(id)
            && !spec.flags.contains(Flags::NO_AUTH)
            && !self.has_first_arg(id, args)
        {
            return Err(if self.withholds(id) { Denied::Unchecked } else { Denied::Command });
        }
        if !self.all_keys {
            self.check_keys(spec, args, keys)?;
        }
        if !self.all_channels && spec.flags.contains(Flags::PUBSUB) {
            self.check_channels(spec, args)?;
        }
        Ok(())
    }

    /// Index of the first argument that names a refused key or channel.
    pub fn denied_argument(&self, spec: &CommandSpec, args: &Args) -> Option<usize> {
        if spec.flags.contains(Flags::PUBSUB) {
            let literal = *spec.name == *"psubscribe";
            let denied = |i: &usize| !self.may_subscribe(args.get(*i).unwrap_or_default(), literal);
            return (1..args.len()).find(denied);
        }
        let mut accesses = Vec::new();
        key_accesses(spec, args, &mut accesses).ok()?;
        let denied = accesses.into_iter().find(|&(at, access)| !self.allows_key(args, at, access));
        denied.map(|(at, _)| at as usize)
    }

    fn withholds(&self, id: CommandId) -> bool {
        let word = self.withheld.get(usize::from(id.0 / 64));
        word.is_some_and(|word| word & (1 << (id.0 % 64)) != 0)
    }

    /// Commands of `table` that the rules allow and that cannot be checked: those refused for that
    /// reason if `withheld`, otherwise those allowed all the same.
    pub(super) fn uncheckable<'t>(
        &self,
        table: &'t CommandTable,
        withheld: bool,
    ) -> impl Iterator<Item = &'t str> {
        let found = move |id: CommandId, spec: &CommandSpec| match withheld {
            true => self.withholds(id),
            false => is_uncheckable(spec) && self.has_command(id) && !self.allows_everything(),
        };
        table.iter().filter(move |(id, spec)| found(*id, spec)).map(|(_, spec)| &*spec.name)
    }

    /// Whether a rule names commands refused because they cannot be checked, or all scripting.
    pub(super) fn names_withheld(&self, table: &CommandTable) -> bool {
        self.rules.iter().any(|rule| match rule {
            CommandRule::Command(name, true) | CommandRule::FirstArg(name, _) => {
                table.by_name(name).is_some_and(|id| self.withholds(id))
            }
            CommandRule::Category(category, true) => {
                **category == *"scripting" && self.uncheckable(table, true).next().is_some()
            }
            _ => false,
        })
    }

    fn has_first_arg(&self, id: CommandId, args: &Args) -> bool {
        self.first_args.iter().any(|(of, arg)| *of == id && args.is(1, arg))
    }

    fn check_keys(
        &self,
        spec: &CommandSpec,
        args: &Args,
        keys: &mut Vec<u32>,
    ) -> Result<(), Denied> {
        if spec.flags.contains(Flags::PUBSUB) {
            return Ok(()); // the keys are channels
        }
        // Unknown keys (a module's) may be any.
        if !spec.keys_complete {
            return Err(Denied::Key);
        }
        if spec.keys.is_none() {
            return Ok(());
        }
        let may = |at: u32, access: Access| self.allows_key(args, at, access);
        let fits = match (&spec.keys, self.plain_keys) {
            (KeySpec::One(at), true) => may(u32::from(*at), Access::ALL),
            // Only users that may access all keys are told that the keys are invalid.
            (_, true) => {
                key_positions(spec, args, keys).is_ok()
                    && keys.iter().all(|&at| may(at, Access::ALL))
            }
            (_, false) => {
                let mut accesses = Vec::new();
                key_accesses(spec, args, &mut accesses).is_ok()
                    && accesses.iter().all(|&(at, access)| may(at, access))
            }
        };
        if !fits {
            return Err(Denied::Key);
        }
        let reads_all = || self.keys.iter().any(|p| *p.pattern == *b"*" && p.access.read);
        if matches!(&*spec.name, "sort" | "sort_ro")
            && let Some(option) = sort_option(args)
            && !reads_all()
        {
            return Err(Denied::Sort(option));
        }
        Ok(())
    }

    fn allows_key(&self, args: &Args, at: u32, access: Access) -> bool {
        let key = args.get(at as usize).unwrap_or_default();
        self.keys.iter().any(|p| {
            p.access.read >= access.read
                && p.access.write >= access.write
                && matches(&p.pattern, key)
        })
    }

    fn check_channels(&self, spec: &CommandSpec, args: &Args) -> Result<(), Denied> {
        let (count, literal) = match &*spec.name {
            "subscribe" | "ssubscribe" => (usize::MAX, false),
            "psubscribe" => (usize::MAX, true),
            "publish" | "spublish" => (1, false),
            _ => return Ok(()),
        };
        match args.iter().skip(1).take(count).all(|name| self.may_subscribe(name, literal)) {
            true => Ok(()),
            false => Err(Denied::Channel),
        }
    }

    /// Whether this channel or pattern may be subscribed.
    pub fn may_subscribe(&self, name: &[u8], is_pattern: bool) -> bool {
        let fits = |pattern: &[u8]| match is_pattern {
            // A pattern may match more than what is allowed, so it must itself be listed.
            true => *pattern == *name,
            false => matches(pattern, name),
        };
        self.all_channels || self.channels.iter().any(|pattern| fits(pattern))
    }

    /// The rules about commands, in the form of ACL GETUSER.
    pub fn commands(&self) -> String {
        let mut text = String::from(if self.all { "+@all" } else { "-@all" });
        for rule in &self.rules {
            let sign = |on: &bool| if *on { '+' } else { '-' };
            text += &match rule {
                CommandRule::Command(name, on) => format!(" {}{name}", sign(on)),
                CommandRule::Category(name, on) => format!(" {}@{name}", sign(on)),
                CommandRule::FirstArg(name, arg) => format!(" +{name}|{arg}"),
            };
        }
        text
    }

    /// Like [`Selector::commands`], then those refused because they cannot be checked.
    pub fn effective_commands(&self, table: &CommandTable) -> String {
        let withheld = self.uncheckable(table, true).map(|name| format!(" -{name}"));
        self.commands() + &withheld.collect::<String>()
    }

    /// The key patterns.
    pub fn keys(&self) -> String {
        if self.all_keys {
            return "~*".into();
        }
        let shown = self.keys.iter().map(|p| {
            let pattern = String::from_utf8_lossy(&p.pattern);
            match (p.access.read, p.access.write) {
                (true, false) => format!("%R~{pattern}"),
                (false, _) => format!("%W~{pattern}"),
                _ => format!("~{pattern}"),
            }
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The channel patterns.
    pub fn channels(&self) -> String {
        if self.all_channels {
            return "&*".into();
        }
        let shown = self.channels.iter().map(|p| format!("&{}", String::from_utf8_lossy(p)));
        shown.collect::<Vec<_>>().join(" ")
    }

    /// All rules in one line, in the form of ACL LIST.
    pub fn describe(&self) -> String {
        self.describe_with(&self.commands())
    }

    /// Like [`Selector::describe`], with another text for the commands.
    pub(super) fn describe_with(&self, commands: &str) -> String {
        let mut words = Vec::new();
        if self.all_keys || !self.keys.is_empty() {
            words.push(self.keys());
        }
        if !self.all_channels {
            words.push("resetchannels".into());
        }
        if self.all_channels || !self.channels.is_empty() {
            words.push(self.channels());
        }
        words.push(commands.into());
        words.join(" ")
    }
}

/// Subcommands newer than Redis 7.0 that slotway answers.
const NEWER_SUBCOMMANDS: [&str; 2] = ["client|setinfo", "client|no-touch"];

/// Commands about scripts and functions that neither run nor load any.
const SCRIPTS_UNTOUCHED: [&str; 14] = [
    "function",
    "function|delete",
    "function|dump",
    "function|flush",
    "function|help",
    "function|kill",
    "function|list",
    "function|stats",
    "script",
    "script|exists",
    "script|flush",
    "script|help",
    "script|kill",
    "script|show",
];
/// Commands of modules that run code which calls other commands, with declared keys or without:
/// RedisGears (two generations) and RedisAI.
const MODULES_THAT_RUN_CODE: [&str; 7] =
    ["tfcall", "tfcallasync", "tfunction", "rg.", "redisgears", "ai.script", "ai.dag"];

/// Whether a command's arguments do not tell which keys and channels it uses: it runs or loads a
/// script, or is a module's without declared keys.
pub(super) fn is_uncheckable(spec: &CommandSpec) -> bool {
    let name = &*spec.name;
    if has_category(spec, "scripting") {
        return !SCRIPTS_UNTOUCHED.contains(&name);
    }
    if name == "debug" || name.starts_with("debug|") {
        return true; // DEBUG OBJECT, POPULATE …: keys without key specs
    }
    let module = spec.flags.contains(Flags::MODULE) || name.contains('.');
    let undeclared = (spec.keys.is_none() && !spec.container) || !spec.keys_complete;
    (module && undeclared) || MODULES_THAT_RUN_CODE.iter().any(|known| name.starts_with(known))
}

fn has_category(spec: &CommandSpec, category: &str) -> bool {
    spec.categories.iter().any(|c| **c == *category)
}

/// The option of SORT that reads other keys: BY with a pattern, or GET.
fn sort_option(args: &Args) -> Option<&'static str> {
    let mut i = 2;
    while i < args.len() {
        let next = args.get(i + 1);
        if args.is(i, "by") && next.is_some() {
            if next.is_some_and(|pattern| pattern.contains(&b'*')) {
                return Some("BY");
            }
            i += 1;
        } else if args.is(i, "get") && next.is_some() {
            return Some("GET");
        } else if args.is(i, "limit") {
            i += 2;
        } else if args.is(i, "store") {
            i += 1;
        }
        i += 1;
    }
    None
}
