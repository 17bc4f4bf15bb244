//! PUBSUB: queries about the subscriptions of all nodes.

use crate::clients::Flow;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::route::{Fan, Merge, PubSubQuery};

impl Dispatcher<'_> {
    /// Sends a query to every reachable node.
    pub(super) fn ask_subscribers(
        &mut self,
        index: usize,
        command: CommandId,
        ask: PubSubQuery,
        frame: &[u8],
    ) -> Flow {
        self.fan(index, command, Fan::Reached, Merge::PubSub(ask), frame)
    }
}
