//! Announcements to all workers, and to those that start later.

use std::sync::Arc;

use super::briefing::Learned;
use super::pool::Pool;
use crate::client::Question;
use crate::cluster::{Health, Identity, Snapshot};
use crate::command::CommandTable;
use crate::mailbox::{Inquiry, ToHub, ToWorker};
use crate::users::Users;

/// Announcements to the workers of a pool, remembered for those that start later.
pub(crate) struct Announce<'a> {
    pool: &'a Pool,
}

impl Pool {
    /// Announcements to the workers.
    pub(crate) fn announce(&self) -> Announce<'_> {
        Announce { pool: self }
    }
}

impl Announce<'_> {
    /// Sets the topology of workers and hub.
    pub(super) fn topology(&self, snapshot: Arc<Snapshot>) {
        self.pool.tell_hub(ToHub::Topology(Arc::clone(&snapshot)));
        self.pool.inner().told.topology = Some(Arc::clone(&snapshot));
        self.pool.tell(|| ToWorker::Topology(Arc::clone(&snapshot)));
        self.pool.descriptors().update();
    }

    /// Sets slotway's own users.
    pub(crate) fn users(&self, users: Arc<Users>) {
        self.pool.inner().told.users = Arc::clone(&users);
        self.pool.tell(|| ToWorker::Users(Arc::clone(&users)));
    }

    /// Sets the health of replicas.
    pub(super) fn health(&self, health: Arc<Health>) {
        self.pool.inner().told.health = Some(Arc::clone(&health));
        self.pool.tell(|| ToWorker::Health(Arc::clone(&health)));
    }

    /// Sets the command table; commands that were learned to block are marked in it.
    pub(super) fn commands(&self, table: Arc<CommandTable>) {
        let table = self.pool.inner().told.mark(table);
        self.pool.tell(|| ToWorker::Commands(Arc::clone(&table)));
    }

    /// Notes that the command called `name` blocks its connection: from now on it goes over
    /// dedicated connections.
    pub(super) fn learn_blocking(&self, name: &str) -> Learned {
        let table = {
            let mut inner = self.pool.inner();
            match inner.told.learn(name) {
                Learned::Now => Arc::clone(&inner.told.commands),
                other => return other,
            }
        };
        self.commands(table);
        Learned::Now
    }

    /// Sets the version and the like that clients are told.
    pub(super) fn identity(&self, identity: Arc<Identity>) {
        self.pool.inner().told.identity = Some(Arc::clone(&identity));
        self.pool.tell(|| ToWorker::Identity(Arc::clone(&identity)));
    }

    /// Sends a client's question to all workers. The state that it sets (CLIENT PAUSE) is sent to
    /// workers that start later as well.
    pub(crate) fn inquiry(&self, inquiry: Arc<Inquiry>) {
        match *inquiry.question() {
            Question::Pause(pause) => {
                let mut inner = self.pool.inner();
                inner.told.pause = Some(pause.joined(inner.told.pause));
            }
            Question::Unpause => self.pool.inner().told.pause = None,
            _ => {}
        }
        self.pool.tell(|| ToWorker::Asked(Arc::clone(&inquiry)));
    }
}
