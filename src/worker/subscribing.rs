//! A PUBLISH waits for the subscriptions that were asked for before it: see
//! [`crate::mailbox::PendingSubscriptions`].
//!
//! Its client is not read from meanwhile, so what the client sent later keeps its place. Each
//! subscription is confirmed, refused or given up by its own deadline, and the PUBLISH does not wait
//! for later ones.

use crate::client::Paused;
use crate::clients::Clients;
use crate::clients::subscribers::{Progress, WaitingPublisher};
use crate::common::{Core, requests};
use crate::mailbox::Serial;
use crate::resp::Args;
use crate::worker::Worker;

impl Worker {
    /// PUBLISH or SPUBLISH: whether it has to wait; its client is paused then.
    #[inline]
    pub(super) fn publish_waits(&mut self, index: usize, args: &Args) -> bool {
        let progress = self.subscribers.waiting_publishers.resumed.take();
        !self.core.shared.pending_subscriptions.is_quiet(self.core.now)
            && self.wait_before_publish(index, progress, |_, core, limit| {
                core.subscription_before(args, limit)
            })
    }

    /// The same for EXEC, and all that is queued.
    pub(super) fn exec_waits(&mut self, index: usize) -> bool {
        let progress = self.subscribers.waiting_publishers.resumed.take();
        !self.core.shared.pending_subscriptions.is_quiet(self.core.now)
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

    /// `find` gives a subscription command up to a limit that has to be confirmed first.
    #[cold]
    fn wait_before_publish(
        &mut self,
        index: usize,
        progress: Option<Progress>,
        find: impl Fn(&Clients, &Core, Serial) -> Option<Serial>,
    ) -> bool {
        let limit = match progress {
            None if self.core.settings.workers > 1 => {
                let progress = Progress::OthersHaveRead;
                let waiting = self.clients.subscribed().pause_publisher(index, progress);
                self.subscribers.waiting_publishers.unsent.extend(waiting);
                return waiting.is_some();
            }
            None | Some(Progress::OthersHaveRead) => self.core.shared.pending_subscriptions.last(),
            Some(Progress::Limit(limit)) => limit,
        };
        let Some(serial) = find(&self.clients, &self.core, limit) else { return false };
        let Some(waiting) =
            self.clients.subscribed().pause_publisher(index, Progress::Limit(limit))
        else {
            return false;
        };
        self.subscribers.waiting_publishers.by_serial.entry(serial).or_default().push(waiting);
        self.core.stats.publish_waits += 1;
        true
    }

    /// Those that waited for this barrier go on.
    pub(super) fn others_have_read(&mut self, id: u64) {
        let waiting = self.subscribers.waiting_publishers.by_barrier.remove(&id);
        self.resume_publishers(waiting.unwrap_or_default());
    }

    /// A subscription command is confirmed, refused or given up: those that waited for it go on.
    pub(super) fn subscription_ended(&mut self, serial: Serial) {
        let waiting = self.subscribers.waiting_publishers.by_serial.remove(&serial);
        self.resume_publishers(waiting.unwrap_or_default());
    }

    fn resume_publishers(&mut self, waiting: Vec<WaitingPublisher>) {
        for WaitingPublisher { client, generation, progress } in waiting {
            let waits = self.clients.slab.get(client as usize).is_some_and(|c| {
                c.generation == generation && !c.gone && c.paused == Paused::Subscription
            });
            if waits {
                self.subscribers.waiting_publishers.resumed = Some(progress);
                self.resume_client(client as usize, generation);
                self.subscribers.waiting_publishers.resumed = None;
            }
        }
    }
}
