//! What workers have been told, and what a new one has to be told therefore.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client::Pause;
use crate::cluster::{Health, Identity, Snapshot};
use crate::command::{CommandTable, Flags};
use crate::mailbox::{ToWorker, WorkerHandle};
use crate::users::Users;

/// Limit on modules' commands that are learned to block.
pub(super) const MAX_LEARNED: usize = 64;

/// The result of an observation that a command blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// The command counts as blocking from now on.
    Now,
    /// It counted as blocking before, or is not a module's command.
    NotConcerned,
    /// [`MAX_LEARNED`] is reached.
    TooMany,
}

/// The last of each message that a new worker gets too.
#[derive(Debug)]
pub(super) struct Briefing {
    pub(super) topology: Option<Arc<Snapshot>>,
    pub(super) health: Option<Arc<Health>>,
    pub(super) commands: Arc<CommandTable>,
    /// Commands that were observed to block although COMMAND does not say so; at most
    /// [`MAX_LEARNED`].
    learned: BTreeSet<Box<str>>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) users: Arc<Users>,
    pub(super) pause: Option<Pause>,
}

impl Briefing {
    /// The beginning: commands and users only.
    pub(super) fn new(commands: Arc<CommandTable>, users: Arc<Users>) -> Self {
        Briefing {
            topology: None,
            health: None,
            commands,
            learned: BTreeSet::new(),
            identity: None,
            users,
            pause: None,
        }
    }

    /// Tells a new worker, which knows commands and users already.
    pub(super) fn tell(&self, worker: &WorkerHandle) {
        if let Some(topology) = &self.topology {
            worker.send(ToWorker::Topology(Arc::clone(topology)));
        }
        if let Some(health) = &self.health {
            worker.send(ToWorker::Health(Arc::clone(health)));
        }
        if let Some(identity) = &self.identity {
            worker.send(ToWorker::Identity(Arc::clone(identity)));
        }
        if let Some(pause) = self.pause {
            worker.send(ToWorker::Pause(pause));
        }
    }

    /// Keeps the command table and returns it with the commands marked that were learned to block.
    pub(super) fn mark(&mut self, table: Arc<CommandTable>) -> Arc<CommandTable> {
        let learned = self.learned.iter().map(|name| &**name);
        let table = match self.learned.is_empty() {
            true => table,
            false => Arc::new(table.with_seen_blocking(learned)),
        };
        self.commands = Arc::clone(&table);
        table
    }

    /// Notes that the command called `name` blocks its connection.
    pub(super) fn learn(&mut self, name: &str) -> Learned {
        let id = self.commands.by_name(name);
        let spec = id.map(|id| self.commands.get(id));
        let modules = spec.filter(|spec| spec.flags.contains(Flags::MODULE));
        if modules.is_none_or(|spec| spec.may_block() || spec.seen_blocking) {
            return Learned::NotConcerned;
        }
        if self.learned.len() >= MAX_LEARNED {
            return Learned::TooMany;
        }
        self.learned.insert(name.to_ascii_lowercase().into());
        Learned::Now
    }

    /// Number of commands that were learned to block.
    pub(super) fn learned(&self) -> usize {
        self.learned.len()
    }
}
