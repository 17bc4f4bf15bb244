//! Delaying a PUBLISH until subscriptions that were requested before it are confirmed: see
//! [`crate::mailbox::PendingSubscriptions`].
//!
//! The publisher is not read from meanwhile, so its later commands keep their order. Each
//! subscription is confirmed, refused or abandoned by its own deadline, and the PUBLISH does not
//! wait for later ones.

use crate::clients::Clients;
use crate::clients::subscribers::Progress;
use crate::common::{Core, requests};
use crate::dispatch::Dispatcher;
use crate::mailbox::Serial;
use crate::resp::Args;

impl Dispatcher<'_> {
    /// Whether PUBLISH or SPUBLISH has to wait. If so, its client is paused.
    #[inline]
    pub(super) fn publish_waits(&mut self, index: usize, args: &Args) -> bool {
        let progress = self.engine.subscribers.waiting_publishers.resumed.take();
        !self.engine.core.shared.pending_subscriptions.is_quiet(self.engine.core.now)
            && self.wait_before_publish(index, progress, |_, core, limit| {
                core.subscription_before(args, limit)
            })
    }

    /// Whether EXEC has to wait because of a queued command. If so, its client is paused.
    pub(super) fn exec_waits(&mut self, index: usize) -> bool {
        let progress = self.engine.subscribers.waiting_publishers.resumed.take();
        !self.engine.core.shared.pending_subscriptions.is_quiet(self.engine.core.now)
            && self.wait_before_publish(index, progress, |clients, core, limit| {
                let multi = clients.slab.get(index)?.multi.as_ref()?;
                let mut ranges = Vec::new();
                let accepted = &core.settings.accepted;
                (0..multi.queue.len()).find_map(|i| {
                    let args = requests::scan(multi.frame(i), accepted, &mut ranges);
                    core.subscription_before(&args, limit)
                })
            })
    }

    /// Whether the client's publication has to wait. If so, the client is paused. `find` returns a
    /// subscription command, numbered up to its last argument, that has to be confirmed first.
    #[cold]
    fn wait_before_publish(
        &mut self,
        index: usize,
        progress: Option<Progress>,
        find: impl Fn(&Clients, &Core, Serial) -> Option<Serial>,
    ) -> bool {
        let limit = match progress {
            None if self.engine.core.settings.workers > 1 => {
                let progress = Progress::OthersHaveRead;
                let waiting = self.engine.clients.subscribed().pause_publisher(index, progress);
                self.engine.subscribers.waiting_publishers.unsent.extend(waiting);
                return waiting.is_some();
            }
            None | Some(Progress::OthersHaveRead) => {
                self.engine.core.shared.pending_subscriptions.last()
            }
            Some(Progress::Limit(limit)) => limit,
        };
        let Some(serial) = find(&self.engine.clients, &self.engine.core, limit) else {
            return false;
        };
        let Some(waiting) =
            self.engine.clients.subscribed().pause_publisher(index, Progress::Limit(limit))
        else {
            return false;
        };
        self.engine
            .subscribers
            .waiting_publishers
            .by_serial
            .entry(serial)
            .or_default()
            .push(waiting);
        self.engine.core.stats.publish_waits += 1;
        true
    }
}
