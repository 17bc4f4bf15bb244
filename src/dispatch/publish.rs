//! PUBLISH and SPUBLISH, and what PUBSUB asks: where they go, and the nodes' counts put right.

use crate::clients::Flow;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::route::{Fan, Merge, PubSubQuery};

impl Dispatcher<'_> {
    /// PUBSUB: every node is asked.
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
