//! Who the clients are, when the status page asks.

use super::Worker;
use crate::client::Census;

impl Worker {
    /// This worker's clients, added up.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for (index, client) in self.clients.iter().filter(|(_, c)| !c.gone) {
            census.count(client);
            census.notice(client.output() as u64, || self.line(index, client));
        }
        census
    }
}
