//! What is said to the hub, and which subscriptions a PUBLISH waits for.

use crate::channel::TopicKind;
use crate::common::Core;
use crate::common::shared::Shared;
use crate::mailbox::{Serial, ToHub};
use crate::resp::Args;

impl Shared {
    pub(crate) fn say_to_hub(&self, message: ToHub) {
        if self.hub.handle.send(message).is_err() {
            tracing::error!("the pub/sub hub has ended");
        }
    }
}

impl Core {
    /// The subscription command that `args` has to wait for; this worker is told when it ends.
    pub(crate) fn subscription_before(&self, args: &Args, limit: Serial) -> Option<Serial> {
        let kind = published(args)?;
        let channel = args.get(1).unwrap_or_default();
        let waiter = (self.link.index, &self.link.own);
        self.shared.pending_subscriptions.wait_for(kind, channel, limit, waiter)
    }
}

/// The kind of topic that a command publishes to.
fn published(args: &Args) -> Option<TopicKind> {
    match () {
        () if args.is(0, "publish") => Some(TopicKind::Channel),
        () if args.is(0, "spublish") => Some(TopicKind::Shard),
        () => None,
    }
}
