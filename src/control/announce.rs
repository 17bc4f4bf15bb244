//! Announcements to all workers, and to those that start later.

use std::sync::Arc;

use bytes::Bytes;

use super::briefing::Learned;
use super::pool::{Inner, Pool};
use crate::client::Question;
use crate::cluster::{Health, Identity, Snapshot, UpstreamId};
use crate::command::{CommandTable, TableError};
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
    /// Sets the topology of an upstream. Workers and hub are told that of all.
    pub(super) fn topology(&self, upstream: UpstreamId, snapshot: Arc<Snapshot>) {
        let whole = {
            let mut inner = self.pool.inner();
            let Inner { upstreams, told, .. } = &mut *inner;
            let whole = upstreams.compose(upstream, snapshot, told.topology.as_ref());
            told.topology = Some(Arc::clone(&whole));
            whole
        };
        self.pool.tell_hub(ToHub::Topology(Arc::clone(&whole)));
        self.pool.tell(|| ToWorker::Topology(Arc::clone(&whole)));
        self.pool.descriptors().update();
    }

    /// Sets slotway's own users.
    pub(crate) fn users(&self, users: Arc<Users>) {
        self.pool.inner().told.users = Arc::clone(&users);
        self.pool.tell(|| ToWorker::Users(Arc::clone(&users)));
    }

    /// Sets the health of an upstream's replicas. Workers are told that of all.
    pub(super) fn health(&self, upstream: UpstreamId, health: Arc<Health>) {
        let health = {
            let mut inner = self.pool.inner();
            let health = inner.upstreams.merge(upstream, health);
            inner.told.health = Some(Arc::clone(&health));
            health
        };
        self.pool.tell(|| ToWorker::Health(Arc::clone(&health)));
    }

    /// Merges an upstream's answer to COMMAND into the command table, and sets that. Returns it
    /// without what was learned.
    ///
    /// # Errors
    /// It is no answer to COMMAND.
    pub(super) fn overlay(
        &self,
        upstream: UpstreamId,
        reply: &Bytes,
    ) -> Result<Arc<CommandTable>, TableError> {
        let table = self.pool.inner().upstreams.overlay(upstream, reply)?;
        self.commands(Arc::clone(&table));
        Ok(table)
    }

    /// Sets the command table; commands that were learned to block are marked in it.
    fn commands(&self, table: Arc<CommandTable>) {
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

    /// Sets the version and the like that clients are told: those of the first upstream.
    pub(super) fn identity(&self, mut identity: Identity) {
        let identity = {
            let mut inner = self.pool.inner();
            if let Some(before) = &inner.told.identity {
                identity.databases_of_others.clone_from(&before.databases_of_others);
            }
            let identity = Arc::new(identity);
            inner.told.identity = Some(Arc::clone(&identity));
            identity
        };
        self.pool.tell(|| ToWorker::Identity(Arc::clone(&identity)));
    }

    /// Sets the number of databases of an upstream that is not the first.
    pub(super) fn databases(&self, upstream: UpstreamId, databases: u16) {
        let identity = {
            let mut inner = self.pool.inner();
            let mut identity = inner.told.identity.as_deref().cloned().unwrap_or_default();
            identity.set_databases_of(upstream, databases);
            let identity = Arc::new(identity);
            inner.told.identity = Some(Arc::clone(&identity));
            identity
        };
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
