//! The errors at `limits.memory`, all of them. What they promise depends on how far the command
//! was: "try again" is said of commands that changed nothing, and of no others.

use super::Worker;
use super::settings::Settings;
use crate::metrics::LimitHit;
use crate::upstream::{Pending, flag};

/// How far a command was when `limits.memory` had no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It was not sent, or what was sent of it changes nothing.
    Unchanged,
    /// It only reads; its reply is dropped.
    ReplyToRead,
    /// It may change data, and its reply is dropped.
    ReplyToWrite,
}

impl NoRoom {
    /// Of a command whose reply cannot be kept.
    pub fn for_reply(only_reads: bool) -> NoRoom {
        if only_reads { NoRoom::ReplyToRead } else { NoRoom::ReplyToWrite }
    }

    /// Nobody can say whether the command has changed anything.
    pub fn is_unknown(self) -> bool {
        self == NoRoom::ReplyToWrite
    }

    /// The error.
    pub fn text(self, settings: &Settings) -> String {
        let limit = settings.memory_total;
        match self {
            NoRoom::Unchanged => format!(
                "OOM slotway's buffers are full: limits.memory = {limit} bytes over all workers; \
                 try again, or raise it"
            ),
            NoRoom::ReplyToRead => format!(
                "OOM slotway's buffers have no room for the reply, which is dropped: \
                 limits.memory = {limit} bytes over all workers; nothing was changed: try again, \
                 ask for less at a time, or raise it"
            ),
            NoRoom::ReplyToWrite => crate::outcome::reply_dropped(limit),
        }
    }
}

impl Worker {
    /// Counts a dropped reply of `pending`'s command; the error in its place.
    pub(super) fn reply_dropped(&mut self, pending: &Pending) -> String {
        self.no_room_for_reply(pending.has(flag::READ_ONLY))
    }

    /// Counts a dropped reply; the error in its place.
    pub(super) fn no_room_for_reply(&mut self, only_reads: bool) -> String {
        let failure = NoRoom::for_reply(only_reads);
        self.stats.limits_hit[LimitHit::Memory as usize] += 1;
        self.stats.outcome_unknown += u64::from(failure.is_unknown());
        failure.text(&self.settings)
    }
}
