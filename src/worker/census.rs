//! Who the clients are, when the status page asks.

use super::Worker;
use super::state::{Clients, Core};
use crate::client::Census;

impl Clients {
    /// This worker's clients, added up.
    pub(super) fn census(&self, core: &Core) -> Census {
        let mut census = Census::default();
        for (index, client) in self.slab.iter().filter(|(_, c)| !c.gone) {
            census.count(client);
            census.notice(client.output() as u64, || self.line(index, client, core));
        }
        census
    }
}
