//! All commands by name.

use super::class::Class;
use super::flags::Flags;
use super::parse::{Entry, TableError, parse};
use super::spec::{CommandSpec, KeySpec, RequestPolicy, ResponsePolicy};
use crate::resp::Args;

/// Redis 7.0.15's COMMAND reply, by `scripts/capture-command-table.py`.
const BUILTIN: &[u8] = include_bytes!("redis-7.0.15.resp");

/// What servers newer than the built-in table have besides, by the same script: `--besides`.
/// Slotway does not route by it, as such servers describe their commands themselves; it is for the
/// reference pages.
const NEWER: [(&str, &[u8]); 2] = [
    ("Redis 8.2", include_bytes!("newer/redis-8.2.3.resp")),
    ("Valkey 9.1", include_bytes!("newer/valkey-9.1.2.resp")),
];

/// Slotway's own commands, in the same form.
const OWN: &[u8] = b"*1\r\n*10\r\n+proxy\r\n:-2\r\n*3\r\n+admin\r\n+loading\r\n+stale\r\n\
    :0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n*0\r\n*0\r\n*4\r\n\
    *7\r\n+proxy|hotkeys\r\n:-2\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|bigkeys\r\n:-2\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|slowlog\r\n:-3\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n\
    *3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n\
    *7\r\n+proxy|help\r\n:2\r\n*1\r\n+stale\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n";

/// A command's number in its table. Tables made from one another by [`CommandTable::overlay`]
/// agree on the commands that the older one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u16);

impl CommandId {
    /// No table has it: stands for a command that is not known.
    pub const UNKNOWN: CommandId = CommandId(u16::MAX);

    /// Its place in tables by command.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// All commands by name. Immutable; a new server's commands make a new table.
pub struct CommandTable {
    /// By id.
    commands: Vec<Command>,
    /// What [`CommandTable::get`] gives for an id that is not in the table.
    unknown: CommandSpec,
    /// Open addressing, a power of two, at most half full.
    slots: Box<[Slot]>,
    /// Length of the longest name (or subcommand's name).
    longest: usize,
}

#[derive(Debug, Clone)]
struct Command {
    /// What a request says: for a subcommand without its container's name; in lower case.
    word: Box<[u8]>,
    /// The container's id, for a subcommand.
    parent: Option<CommandId>,
    spec: CommandSpec,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    /// [`TOP`] or the container's id: subcommands share the table of the commands.
    parent: u16,
    /// [`CommandId::UNKNOWN`] for an empty slot.
    id: CommandId,
}

/// The `parent` of what is not a subcommand. No container has it: ids end below it.
const TOP: u16 = u16::MAX;

impl std::fmt::Debug for CommandTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandTable").field("commands", &self.len()).finish_non_exhaustive()
    }
}

impl CommandTable {
    /// The commands of Redis 7.0.15, as slotway knows them without asking anyone.
    pub fn builtin() -> CommandTable {
        Self::empty()
            .overlay(BUILTIN)
            .and_then(|table| table.overlay(OWN))
            .expect("the embedded replies are well formed, a test shows it")
    }

    /// This table with the commands that servers newer than 7.0 have besides, by their versions.
    pub fn of_newer_servers(&self) -> [(&'static str, CommandTable); NEWER.len()] {
        NEWER.map(|(server, commands)| {
            let table = self.overlay(commands);
            (server, table.expect("the embedded replies are well formed, a test shows it"))
        })
    }

    fn empty() -> CommandTable {
        let unknown = CommandSpec {
            name: "unknown".into(),
            arity: -1,
            flags: Flags::NONE,
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

    /// This table with a live server's whole `COMMAND` (or `COMMAND INFO`) reply laid over it.
    /// Known commands keep their ids, new ones are appended; commands that are not in the reply
    /// stay, so that an older server's nodes still say themselves what they do not know.
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

    /// The same table, in which the commands called so are known to block.
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

    /// The command of a request: by its name in any letter case and, where the command is a
    /// container and has it, its subcommand. `None` for a name that is not in the table.
    #[inline]
    pub fn resolve(&self, args: &Args) -> Option<CommandId> {
        let id = self.find(TOP, args.get(0)?)?;
        if !self.get(id).container {
            return Some(id);
        }
        let sub = args.get(1).and_then(|name| self.find(id.0, name));
        Some(sub.unwrap_or(id))
    }

    /// The command called `name` (`get`, `config|set`), in any letter case.
    pub fn by_name(&self, name: &str) -> Option<CommandId> {
        match name.split_once('|') {
            Some((container, sub)) => {
                let container = self.find(TOP, container.as_bytes())?;
                self.find(container.0, sub.as_bytes())
            }
            None => self.find(TOP, name.as_bytes()),
        }
    }

    /// What is known of a command; of one that is not in the table: that it is unknown.
    #[inline]
    pub fn get(&self, id: CommandId) -> &CommandSpec {
        self.commands.get(usize::from(id.0)).map_or(&self.unknown, |c| &c.spec)
    }

    /// The container of a subcommand.
    pub fn container_of(&self, id: CommandId) -> Option<CommandId> {
        self.commands.get(usize::from(id.0))?.parent
    }

    /// How many commands and subcommands there are; ids are below it.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is no command.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// All commands by id.
    pub fn iter(&self) -> impl Iterator<Item = (CommandId, &CommandSpec)> {
        (0u16..).zip(&self.commands).map(|(id, c)| (CommandId(id), &c.spec))
    }

    /// All commands by name, each container before its subcommands.
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
        // Its name is where it stands, whatever the reply calls its container.
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
                // Its known subcommands stay, so it stays a container.
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

    /// Enters a new command into the slots, which grow as needed.
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

/// A hash that letter case does not change: bit 0x20 of every byte is set, which is all that
/// tells `a` from `A`. What else it makes equal, the comparison behind it tells apart.
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
    // The rest without a loop over bytes of unknown number: two halves that may overlap.
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
