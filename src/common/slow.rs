//! The slow log: what of a command goes into it, and how it is asked.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::CommandId;
use crate::common::requests::scan;
use crate::common::settings::Settings;
use crate::common::shared::Shared;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::observe::{SlowEntry, logged_args, slow_reply};
use crate::resp::{Args, Protocol, strict_i64, write};
use crate::route::Router;
use crate::upstream::Pending;

/// Entries that SLOWLOG GET shows if it is not told, and keys that PROXY HOTKEYS does.
pub(crate) const SHOWN: i64 = 10;

impl Shared {
    /// GET, LEN or RESET at argument `at`; with `more` where the time went.
    pub(crate) fn slowlog(
        &self,
        args: &Args,
        at: usize,
        more: Option<Protocol>,
        reply: &mut Vec<u8>,
    ) {
        let log = &self.slow;
        let rest = args.len().saturating_sub(at + 1);
        if args.is(at, "get") && rest <= 1 {
            let count = match args.get(at + 1) {
                None => Some(SHOWN),
                Some(count) => strict_i64(count).filter(|count| *count >= -1),
            };
            match count {
                Some(-1) => slow_reply(&log.newest(usize::MAX), more, reply),
                Some(count) => slow_reply(&log.newest(count as usize), more, reply),
                None => Failure::CountTooSmall.write(reply),
            }
        } else if args.is(at, "len") && rest == 0 {
            write::integer(reply, log.len() as i64);
        } else if args.is(at, "reset") && rest == 0 {
            log.reset();
            write::simple(reply, "OK");
        } else {
            let container = if more.is_some() { "PROXY" } else { "SLOWLOG" };
            unknown(args, at, container).write(reply);
        }
    }

    pub(crate) fn finish_slow(&self, slow: Unfinished, now: u64) {
        let Unfinished { mut entry, replied, .. } = slow;
        let took = &mut entry.took;
        took.client = now.saturating_sub(replied);
        took.total = took.queue + took.node + took.client;
        entry.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        self.slow.add(entry);
    }
}

impl Settings {
    /// What the slow log shows of the request `frame`.
    pub(crate) fn slow_args(&self, pending: &Pending, frame: &[u8]) -> Vec<Vec<u8>> {
        if pending.before > 0 {
            return vec![b"EXEC".to_vec()];
        }
        let mut ranges = Vec::new();
        logged_args(&scan(frame, &self.request, &mut ranges))
    }
}

/// Whether it is WAIT or WAITAOF, which go behind a PING.
pub(crate) fn is_wait(command: CommandId, router: &Router) -> bool {
    let name = &router.table().get(command).name;
    matches!(&**name, "wait" | "waitaof")
}

pub(crate) fn unknown(args: &Args, at: usize, container: &str) -> Failure {
    let sub = args.get(at).unwrap_or_default();
    let name = String::from_utf8_lossy(sub.get(..128).unwrap_or(sub)).into();
    Failure::UnknownSubcommandOrArity { name, container: container.into() }
}

/// A slow command that has its reply, which is on its way to the client.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) entry: SlowEntry,
    pub(crate) to: Dest,
    /// When the reply came.
    pub(crate) replied: u64,
}
