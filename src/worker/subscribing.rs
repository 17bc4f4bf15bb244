//! Clients whose PUBLISH waited for a subscription (`dispatch/subscribing.rs`) go on.

use crate::client::Paused;
use crate::clients::subscribers::WaitingPublisher;
use crate::mailbox::Serial;
use crate::worker::Worker;

impl Worker {
    /// Those that waited for this barrier go on.
    pub(super) fn others_have_read(&mut self, id: u64) {
        let waiting = self.engine.subscribers.waiting_publishers.by_barrier.remove(&id);
        self.resume_publishers(waiting.unwrap_or_default());
    }

    /// A subscription command is confirmed, refused or given up: those that waited for it go on.
    pub(super) fn subscription_ended(&mut self, serial: Serial) {
        let waiting = self.engine.subscribers.waiting_publishers.by_serial.remove(&serial);
        self.resume_publishers(waiting.unwrap_or_default());
    }

    fn resume_publishers(&mut self, waiting: Vec<WaitingPublisher>) {
        for WaitingPublisher { client, generation, progress } in waiting {
            let waits = self.engine.clients.slab.get(client as usize).is_some_and(|c| {
                c.generation == generation && !c.gone && c.paused == Paused::Subscription
            });
            if waits {
                self.engine.subscribers.waiting_publishers.resumed = Some(progress);
                self.resume_client(client as usize, generation);
                self.engine.subscribers.waiting_publishers.resumed = None;
            }
        }
    }
}
