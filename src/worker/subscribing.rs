//! A PUBLISH waits for the subscriptions that were asked for before it: see
//! [`crate::mailbox::PendingSubscriptions`].
//!
//! Its client is not read from meanwhile, so what the client sent later keeps its place. Each
//! subscription is confirmed, refused or given up by its own deadline, and the PUBLISH does not wait
//! for later ones.

use super::state::{Clients, Core, Subscribers};
use std::sync::Arc;

use super::Worker;
use crate::channel::Kind;
use crate::client::Paused;
use crate::hash::IntMap;
use crate::mailbox::ToWorker;
use crate::mailbox::{ReadBarrier, Serial};
use crate::resp::Args;

/// Clients whose PUBLISH waits.
#[derive(Debug, Default)]
pub(super) struct WaitingPublishers {
    /// For the barrier that is sent when the turn ends.
    unsent: Vec<WaitingPublisher>,
    /// By barrier: until all other workers have read what had arrived.
    by_barrier: IntMap<u64, Vec<WaitingPublisher>>,
    last_barrier: u64,
    /// By the subscription command that is waited for.
    by_serial: IntMap<Serial, Vec<WaitingPublisher>>,
    /// How far the client has come that is being resumed.
    resumed: Option<Progress>,
}

/// How far a PUBLISH that waits has come.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// The other workers have read what had arrived before it.
    OthersHaveRead,
    /// It waits for subscription commands up to this one, the last that had come before it.
    Limit(Serial),
}

#[derive(Debug, Clone, Copy)]
struct WaitingPublisher {
    client: u32,
    generation: u32,
    progress: Progress,
}

/// The kind of topic that a command publishes to.
fn published(args: &Args) -> Option<Kind> {
    match () {
        () if args.is(0, "publish") => Some(Kind::Channel),
        () if args.is(0, "spublish") => Some(Kind::Shard),
        () => None,
    }
}

impl Core {
    /// The subscription command that `args` has to wait for; this worker is told when it ends.
    fn subscription_before(&self, args: &Args, limit: Serial) -> Option<Serial> {
        let kind = published(args)?;
        let channel = args.get(1).unwrap_or_default();
        let waiter = (self.link.index, &self.link.own);
        self.shared.pending_subscriptions.wait_for(kind, channel, limit, waiter)
    }
}

impl Clients {
    fn pause_publisher(&mut self, index: usize, progress: Progress) -> Option<WaitingPublisher> {
        let client = self.slab.get_mut(index)?;
        client.paused = Paused::Subscription;
        Some(WaitingPublisher { client: index as u32, generation: client.generation, progress })
    }
}

impl Subscribers {
    /// The turn ends: the other workers are told of those that have begun to wait in it.
    pub(super) fn send_barrier(&mut self, core: &mut Core) {
        let waiting = &mut self.waiting_publishers;
        if waiting.unsent.is_empty() {
            return;
        }
        waiting.last_barrier += 1;
        let id = waiting.last_barrier;
        waiting.by_barrier.insert(id, std::mem::take(&mut waiting.unsent));
        let barrier = Arc::new(ReadBarrier { id, worker: core.link.own.clone() });
        for (_, worker) in
            core.shared.workers().iter().filter(|(index, _)| *index != core.link.index)
        {
            // One that has ended lets go of it at once.
            let _ = worker.send(ToWorker::Read(Arc::clone(&barrier)));
        }
    }

    /// All that the last poll said is readable has been read. What arrived before a barrier may not
    /// have been among it when the barrier came in this very turn.
    #[inline]
    pub(super) fn release_barriers(&mut self, core: &mut Core) {
        if !self.barriers.is_empty() {
            let turn = core.stats.turns;
            self.barriers.retain(|(came, _)| *came == turn);
        }
    }
}

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
                    let args = super::transaction::scan(multi.frame(i), accepted, &mut ranges);
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
                let waiting = self.clients.pause_publisher(index, progress);
                self.subscribers.waiting_publishers.unsent.extend(waiting);
                return waiting.is_some();
            }
            None | Some(Progress::OthersHaveRead) => self.core.shared.pending_subscriptions.last(),
            Some(Progress::Limit(limit)) => limit,
        };
        let Some(serial) = find(&self.clients, &self.core, limit) else { return false };
        let Some(waiting) = self.clients.pause_publisher(index, Progress::Limit(limit)) else {
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
