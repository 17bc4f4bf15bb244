//! Resuming clients whose PUBLISH waited for a subscription (`dispatch/subscribing.rs`).

use crate::client::Paused;
use crate::clients::subscribers::WaitingPublisher;
use crate::mailbox::Serial;
use crate::worker::Worker;

impl Worker {
    /// Resumes the publishers that waited for barrier `id`.
    pub(super) fn others_have_read(&mut self, id: u64) {
        let waiting = self.engine.subscribers.waiting_publishers.by_barrier.remove(&id);
        self.resume_publishers(waiting.unwrap_or_default());
    }

    /// Resumes the publishers that waited for a subscription command, which is confirmed, refused
    /// or abandoned.
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
