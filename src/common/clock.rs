//! Timers, and how long to wait.

use std::cmp::Ordering;

use crate::cluster::Slot;
use crate::common::{Core, micros};
use crate::dest::{ClientId, ConnId};
use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
use crate::ops::Errand;
use crate::placement::{GateClass, pause};
use crate::route::PendingFlags;
use crate::upstream::Pending;

/// How often all deadlines are looked at while something is under way, microseconds.
pub(crate) const TICK: u64 = 20_000;
/// How long a client that was told to leave may take to read its last reply and close its side,
/// microseconds.
const LAST_WORDS: u64 = 5_000_000;

/// Something to do at a time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub due: u64,
    pub job: Job,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Connect this upstream anew.
    Connect(ConnId),
    /// The errand of this client, of this reply's number, is sent again.
    Errand(ClientId, u32),
    /// This client, which monitors, looks for primaries that it does not hear.
    Listen(ClientId),
    /// A SUBSCRIBE's deadline.
    Subscribe(u64),
    /// This client had not taken much some time ago.
    SlowSubscriber(ClientId),
    /// An errand's deadline.
    ErrandEnd(ClientId, u32),
    /// The failed login of this client is answered.
    Login(ClientId),
    /// Users of the cluster are looked at.
    Looks,
    /// This realm may have no clients any more.
    Realm(u16),
    /// The pause of this emulated command (its gathering, its number) is over.
    Emulation(usize, u64),
    /// The closed gate of this slot may let the next command through.
    Gate(Slot, GateClass),
    /// The budget may have room for retries that wait.
    Retries,
    /// This client was told to leave, and has had its time for it.
    Close(ClientId),
    /// The allocator's freed pages go back to the system.
    Purge,
    /// This slot's lane may go on.
    Lane(Slot, ClientId),
}

impl Ord for Timer {
    /// The earliest is the greatest: it is on top of the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Up to `range` / 2, at random.
pub(crate) fn jitter(range: u64) -> u64 {
    fastrand::u64(..=range / 2)
}

impl Core {
    /// Something is under way: deadlines are looked at from time to time.
    #[inline]
    pub(crate) fn arm_tick(&mut self) {
        if self.clock.tick.is_none() {
            self.clock.tick = Some(self.now + TICK);
        }
    }

    /// The error for a command whose `timeouts.command` is over. Where the outcome is known, a
    /// node's own error, `last`, keeps its code. `migration` is behind the outcome.
    pub(crate) fn deadline_failure(
        &self,
        pending: &Pending,
        node: &str,
        outcome: Unanswered,
        migration: String,
        last: Option<String>,
    ) -> Failure {
        Failure::Deadline {
            code: outcome.code(last.as_deref().and_then(Code::of_node)),
            seconds: self.now.saturating_sub(pending.started) as f64 / 1e6,
            slot: ForSlot(pending.slot.known()),
            node: node.into(),
            tries: u32::from(pending.tries) + 1,
            outcome,
            migration: migration.into(),
            last: Last(last),
        }
    }

    pub(crate) fn errand_later(&mut self, client: ClientId, seq: u32, delay: u64) {
        let job = Job::Errand(client, seq);
        self.clock.timers.push(Timer { due: self.now + delay, job });
    }

    pub(crate) fn only_reads(&self, errand: &Errand) -> bool {
        self.router.table().get(errand.command).is_read_only()
    }

    /// The client was told to leave and has some time left for it.
    pub(crate) fn close_later(&mut self, index: usize, generation: u32) {
        let job = Job::Close(ClientId::new(index, generation));
        self.clock.timers.push(Timer { due: self.now + LAST_WORDS, job });
    }

    /// When a PUBLISH is sent. Not as of the turn's beginning: whoever was confirmed before the
    /// publisher spoke is counted.
    #[cold]
    pub(crate) fn publish_time(&self) -> u64 {
        micros(self.clock.epoch)
    }

    /// What a batch's commands say of it.
    #[inline]
    pub(crate) fn mark_batch(&self, pending: &mut Pending, flags: PendingFlags) {
        pending.flags.insert(flags);
        if flags.contains(PendingFlags::PUBLISHES) {
            pending.started = self.publish_time();
        }
    }

    /// The pause before try `tries`, with jitter.
    pub(crate) fn retry_pause(&self, tries: u8) -> u64 {
        let pause = pause(tries).0;
        pause / 2 + jitter(pause)
    }
}
