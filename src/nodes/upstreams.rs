//! A worker's connections to nodes, by their identities.

use slab::Slab;

use crate::dest::ConnId;
use crate::upstream::Upstream;

/// The connections of one worker to nodes.
#[derive(Debug, Default)]
pub(crate) struct Upstreams(Slab<Upstream>);

impl Upstreams {
    /// The connection, unless it has been forgotten.
    #[inline]
    pub(crate) fn get(&self, conn: ConnId) -> Option<&Upstream> {
        self.0.get(conn.at())
    }

    /// [`Upstreams::get`], mutable.
    #[inline]
    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Upstream> {
        self.0.get_mut(conn.at())
    }

    /// Keeps a connection, and returns what it is known by.
    pub(crate) fn insert(&mut self, up: Upstream) -> ConnId {
        ConnId::new(self.0.insert(up))
    }

    /// Forgets the connection. `None` if it has been forgotten already.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Upstream> {
        self.0.try_remove(conn.at())
    }

    /// Whether there is no connection.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All connections.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (ConnId, &Upstream)> {
        self.0.iter().map(|(index, up)| (ConnId::new(index), up))
    }

    /// [`Upstreams::iter`], mutable.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Upstream)> {
        self.0.iter_mut().map(|(index, up)| (ConnId::new(index), up))
    }
}
