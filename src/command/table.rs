//! The command table.

use super::class::Class;
use super::flags::Flags;
use super::parse::{Entry, TableError, parse};
use super::spec::{CommandSpec, KeySpec, RequestPolicy, ResponsePolicy};
use crate::resp::Args;

/// The COMMAND reply of Redis 7.0.15, captured by `scripts/capture-command-table.py`.
const BUILTIN: &[u8] = include_bytes!("redis-7.0.15.resp");

/// Commands of newer servers that the built-in table lacks, captured by the same script with
/// `--besides`. For the reference pages only: such servers describe their commands themselves.
const NEWER_SERVERS: [(&str, &[u8]); 2] = [
    ("Redis 8.2", include_bytes!("newer/redis-8.2.3.resp")),
    ("Valkey 9.1", include_bytes!("newer/valkey-9.1.2.resp")),
];

/// Slotway's own commands, in the same format.
const PROXY_COMMANDS: &[u8] =
    b"*1\r\n*10\r\n+proxy\r\n:-2\r\n*3\r\n+admin\r\n+loading\r\n+stale\r\n\
    :0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n*0\r\n*0\r\n*4\r\n\
    *7\r\n+proxy|hotkeys\r\n:-2\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|bigkeys\r\n:-2\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|slowlog\r\n:-3\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|help\r\n:2\r\n*1\r\n+stale\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n";

/// A command's index in its table. Tables derived from one another by [`CommandTable::overlay`]
/// agree on the commands of the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u16);

impl CommandId {
    /// Stands for an unknown command. Not used by any table.
    pub const UNKNOWN: CommandId = CommandId(u16::MAX);

    /// The index as `usize`.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// All commands by name. Immutable: a new server's commands make a new table.
pub struct CommandTable {
    /// Commands by ID.
    commands: Vec<Command>,
    /// The specification returned for unknown IDs.
    unknown: CommandSpec,
    /// A hash table with open addressing; its size is a power of two, at most half full.
    slots: Box<[Slot]>,
    /// Length of the longest name (without the container's).
    longest: usize,
}

#[derive(Debug, Clone)]
struct Command {
    /// The word in a request, in lower case: for a subcommand without its container's name.
    word: Box<[u8]>,
    /// ID of the container, for a subcommand.
    parent: Option<CommandId>,
    spec: CommandSpec,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    /// [`TOP`], or the ID of the container of a subcommand.
    parent: u16,
    /// [`CommandId::UNKNOWN`] for an empty slot.
    id: CommandId,
}

/// The `parent` of commands that are not subcommands. Not a container's ID: IDs are smaller.
const TOP: u16 = u16::MAX;

impl std::fmt::Debug for CommandTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandTable").field("commands", &self.len()).finish_non_exhaustive()
    }
}

impl CommandTable {
    /// The built-in table: the commands of Redis 7.0.15 and slotway's own.
    pub fn builtin() -> CommandTable {
        Self::empty()
            .overlay(BUILTIN)
            .and_then(|table| table.overlay(PROXY_COMMANDS))
            .expect("the embedded replies are well formed, a test shows it")
    }

    /// This table, extended by the commands of newer servers, once per server version.
    pub fn of_newer_servers(&self) -> [(&'static str, CommandTable); NEWER_SERVERS.len()] {
        NEWER_SERVERS.map(|(server, commands)| {
            let table = self.overlay(commands);
            (server, table.expect("the embedded replies are well formed, a test shows it"))
        })
    }

    fn empty() -> CommandTable {
        let unknown = CommandSpec {
            name: "unknown".into(),
            arity: -1,
            flags: Flags::empty(),
            class: Class::Other,
            categories: Box::default(),
            keys: KeySpec::None,
            keys_complete: false,
            access: Box::default(),
            request_policy: RequestPolicy::None,
            response_policy: ResponsePolicy::None,
            container: false,
            seen_blocking: false,
        };
        CommandTable { commands: Vec::new(), unknown, slots: Box::default(), longest: 0 }
    }

    /// This table, overlaid with a live server's `COMMAND` or `COMMAND INFO` reply. Known commands
    /// keep their IDs, new ones are appended. Commands missing in the reply stay: an older server's
    /// nodes will answer themselves that they do not know them.
    pub fn overlay(&self, command_reply: &[u8]) -> Result<CommandTable, TableError> {
        let entries = parse(command_reply)?;
        let mut table = CommandTable {
            commands: self.commands.clone(),
            unknown: self.unknown.clone(),
            slots: self.slots.clone(),
            longest: self.longest,
        };
        for entry in entries {
            table.put(None, entry)?;
        }
        Ok(table)
    }

    /// This table, with the named commands marked as observed to block.
    pub fn with_seen_blocking<'n>(&self, names: impl Iterator<Item = &'n str>) -> CommandTable {
        let mut table = CommandTable {
            commands: self.commands.clone(),
            unknown: self.unknown.clone(),
            slots: self.slots.clone(),
            longest: self.longest,
        };
        for id in names.filter_map(|name| self.by_name(name)) {
            if let Some(command) = table.commands.get_mut(usize::from(id.0)) {
                command.spec.seen_blocking = true;
            }
        }
        table
    }

    /// The command of a request: by its name in any case and, for a container, its subcommand if
    /// the table has it. `None`: the name is not in the table.
    #[inline]
    pub fn resolve(&self, args: &Args) -> Option<CommandId> {
        let id = self.find(TOP, args.get(0)?)?;
        if !self.get(id).container {
            return Some(id);
        }
        let sub = args.get(1).and_then(|name| self.find(id.0, name));
        Some(sub.unwrap_or(id))
    }

    /// The command with the name `name` (`get`, `config|set`), in any case.
    pub fn by_name(&self, name: &str) -> Option<CommandId> {
        match name.split_once('|') {
            Some((container, sub)) => {
                let container = self.find(TOP, container.as_bytes())?;
                self.find(container.0, sub.as_bytes())
            }
            None => self.find(TOP, name.as_bytes()),
        }
    }

    /// The specification of a command; for an unknown ID a specification that says so.
    #[inline]
    pub fn get(&self, id: CommandId) -> &CommandSpec {
        self.commands.get(usize::from(id.0)).map_or(&self.unknown, |c| &c.spec)
    }

    /// The container of a subcommand.
    pub fn container_of(&self, id: CommandId) -> Option<CommandId> {
        self.commands.get(usize::from(id.0))?.parent
    }

    /// Number of commands and subcommands; IDs are smaller.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// All commands, ordered by ID.
    pub fn iter(&self) -> impl Iterator<Item = (CommandId, &CommandSpec)> {
        (0u16..).zip(&self.commands).map(|(id, c)| (CommandId(id), &c.spec))
    }

    /// All commands, ordered by name, each container before its subcommands.
    pub fn iter_by_name(&self) -> impl Iterator<Item = (CommandId, &CommandSpec)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by(|(_, a), (_, b)| a.name.split('|').cmp(b.name.split('|')));
        all.into_iter()
    }

    #[inline]
    fn find(&self, parent: u16, name: &[u8]) -> Option<CommandId> {
        if name.len() > self.longest || self.slots.is_empty() {
            return None;
        }
        let hash = hash(parent, name);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            if slot.id == CommandId::UNKNOWN {
                return None;
            }
            if slot.hash == hash && slot.parent == parent {
                let command = self.commands.get(usize::from(slot.id.0))?;
                if command.word.eq_ignore_ascii_case(name) {
                    return Some(slot.id);
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn put(&mut self, parent: Option<CommandId>, entry: Entry) -> Result<(), TableError> {
        let Entry { mut spec, keys_untold, subcommands } = entry;
        let word = match parent {
            Some(_) => spec.name.rsplit('|').next().unwrap_or_default(),
            None => &*spec.name,
        };
        let word: Box<[u8]> = word.as_bytes().into();
        // The name follows from the position, whatever the reply calls the container.
        if let Some(parent) = parent {
            let name = [self.get(parent).name.as_bytes(), b"|", &word].concat();
            spec.name = String::from_utf8_lossy(&name).into();
        }
        let known = self.find(parent.map_or(TOP, |p| p.0), &word);
        let id = match known.and_then(|id| Some((id, self.commands.get_mut(usize::from(id.0))?))) {
            Some((id, old)) => {
                if keys_untold {
                    spec.keys = old.spec.keys.clone();
                    spec.keys_complete = old.spec.keys_complete;
                    spec.access = old.spec.access.clone();
                }
                // Known subcommands stay, so it stays a container.
                spec.container |= old.spec.container;
                old.spec = spec;
                id
            }
            None => {
                let id = u16::try_from(self.commands.len()).ok().filter(|id| *id != TOP);
                let id = id.ok_or(TableError::TooMany)?;
                self.longest = self.longest.max(word.len());
                self.commands.push(Command { word, parent, spec });
                self.index(CommandId(id));
                CommandId(id)
            }
        };
        subcommands.into_iter().try_for_each(|sub| self.put(Some(id), sub))
    }

    /// Inserts a new command into the hash table, which grows as needed.
    fn index(&mut self, id: CommandId) {
        if self.slots.len() < self.commands.len() * 2 {
            let empty = Slot { hash: 0, parent: TOP, id: CommandId::UNKNOWN };
            let capacity = (self.commands.len() * 4).next_power_of_two();
            self.slots = vec![empty; capacity].into();
            (0..id.0).for_each(|id| self.place(CommandId(id)));
        }
        self.place(id);
    }

    fn place(&mut self, id: CommandId) {
        let Some(command) = self.commands.get(usize::from(id.0)) else { return };
        let parent = command.parent.map_or(TOP, |p| p.0);
        let hash = hash(parent, &command.word);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.id == CommandId::UNKNOWN {
                *slot = Slot { hash, parent, id };
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

/// A case-insensitive hash: bit 0x20 of every byte is set, which is the difference between `a` and
/// `A`. Other bytes that this makes equal are distinguished by the comparison that follows.
#[inline]
fn hash(parent: u16, name: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    const CASE: u64 = 0x2020_2020_2020_2020;
    let mut h = u64::from(parent) ^ ((name.len() as u64) << 32);
    let mut mix = |word: u64| h = (h.rotate_left(23) ^ (word | CASE)).wrapping_mul(MULTIPLIER);
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        mix(chunk.iter().fold(0, |w, b| w << 8 | u64::from(*b)));
    }
    // The remaining bytes without a loop of unknown length: two halves that may overlap.
    match chunks.remainder() {
        [] => {}
        [a] => mix(u64::from(*a)),
        [a, b] => mix(u64::from(*a) << 8 | u64::from(*b)),
        [a, b, c] => mix(u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c)),
        [a, b, c, d, ..] => {
            let rest = chunks.remainder();
            let high = u32::from_be_bytes([*a, *b, *c, *d]);
            let low = match rest {
                [.., w, x, y, z] => u32::from_be_bytes([*w, *x, *y, *z]),
                _ => 0,
            };
            mix(u64::from(high) << 32 | u64::from(low));
        }
    }
    (h >> 32) as u32
}
