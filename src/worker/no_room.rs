//! The errors at `limits.memory`, all of them. What they promise depends on how far the command
//! was: "try again" is said of commands that changed nothing, and of no others.

use super::Worker;
use super::settings::Settings;
use super::state::Core;
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::route::flag;
use crate::upstream::Pending;

/// The error for a command that was not sent, or of which nothing was sent that changes data.
pub(super) fn buffers_full(settings: &Settings) -> Failure {
    Failure::BuffersFull { limit: settings.memory_total }
}

impl Core {
    /// Counts a dropped reply of `pending`'s command; the error in its place.
    pub(super) fn reply_dropped(&mut self, pending: &Pending) -> Failure {
        self.no_room_for_reply(pending.has(flag::READ_ONLY))
    }

    /// Counts a dropped reply; the error in its place.
    pub(super) fn no_room_for_reply(&mut self, only_reads: bool) -> Failure {
        let limit = self.settings.memory_total;
        self.stats.limits_hit[LimitHit::Memory as usize] += 1;
        self.stats.outcome_unknown += u64::from(!only_reads);
        match only_reads {
            true => Failure::NoRoomForRead { limit },
            false => Failure::NoRoomForWrite { limit },
        }
    }
}
