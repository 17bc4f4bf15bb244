//! Counters: replies, errors and limits of this worker.

use crate::command::{CommandId, Flags};
use crate::common::Core;
use crate::dest::{Dest, NodeId};
use crate::errors::Failure;
use crate::mailbox::ToControl;
use crate::metrics::{Histogram, LimitHit};
use crate::route::PendingFlags;
use crate::upstream::Pending;

/// A command that stays unknown (a renamed one, say) is not asked about more often, microseconds.
const COMMANDS_WISH_PAUSE: u64 = 1_000_000;
/// From here on a blocking command (BLPOP, XREAD BLOCK) has waited as it was told to, microseconds.
pub(crate) const BLOCKED: u64 = 10_000;
/// What replicas hear of though it is no write: COMMAND does not tell.
const MAY_REPLICATE: [&str; 3] = ["pfcount", "publish", "spublish"];

impl Core {
    /// It may want to wait: what it takes is no latency.
    #[cold]
    pub(crate) fn may_block(&self, command: CommandId) -> bool {
        command < self.router.unknown() && self.router.may_block(command)
    }

    #[inline]
    pub(crate) fn count_reply(&mut self, node: NodeId, pending: &Pending, ok: bool) {
        if pending.dest == Dest::Discard {
            return;
        }
        let micros = self.now.saturating_sub(pending.started);
        let bucket = Histogram::bucket(micros);
        let waited = micros >= BLOCKED && self.may_block(pending.command);
        if let Some(stats) = self.stats.nodes.get_mut(node.at()).filter(|_| !waited) {
            stats.latency.record(bucket, micros);
        }
        if !matches!(pending.dest, Dest::Client { .. }) {
            return;
        }
        let histogram = self.stats.latency.get_mut(self.router.class(pending.command));
        if let Some(histogram) = histogram.filter(|_| !waited) {
            histogram.record(bucket, micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(pending.command.index()) {
            if ok {
                stats.ok += 1;
            } else {
                stats.error += 1;
            }
        }
        if ok && pending.command == self.router.unknown() {
            self.note_unknown();
        }
    }

    /// The cluster has a command that the table has not.
    #[cold]
    pub(crate) fn note_unknown(&mut self) {
        if self.now >= self.clock.next_commands_wish {
            self.clock.next_commands_wish = self.now + COMMANDS_WISH_PAUSE;
            // Control may be gone at the very end: nothing to refresh then.
            let _ = self.link.control.send(ToControl::RefreshCommands);
        }
    }

    pub(crate) fn count_gathering(&mut self, command: CommandId, started: u64, ok: bool) {
        let micros = self.now.saturating_sub(started);
        if let Some(histogram) = self.stats.latency.get_mut(self.router.class(command)) {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            if ok {
                stats.ok += 1;
            } else {
                stats.error += 1;
            }
        }
    }

    pub(crate) fn may_write(&self, command: CommandId) -> bool {
        let spec = self.router.table().get(command);
        spec.is_write()
            || spec.flags.contains(Flags::MAY_REPLICATE)
            || MAY_REPLICATE.contains(&&*spec.name)
    }

    /// Counts a dropped reply of `pending`'s command; the error in its place.
    pub(crate) fn reply_dropped(&mut self, pending: &Pending) -> Failure {
        self.no_room_for_reply(pending.flags.contains(PendingFlags::READ_ONLY))
    }

    /// Counts a dropped reply; the error in its place.
    pub(crate) fn no_room_for_reply(&mut self, only_reads: bool) -> Failure {
        let limit = self.settings.memory_total;
        self.stats.limits_hit[LimitHit::Memory as usize] += 1;
        self.stats.outcome_unknown += u64::from(!only_reads);
        match only_reads {
            true => Failure::NoRoomForRead { limit },
            false => Failure::NoRoomForWrite { limit },
        }
    }
}
