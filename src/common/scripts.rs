//! Scripts: what is logged of them, and how they are loaded.

use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::Dest;
use crate::scripts::PartialScript;
use crate::sparsely;
use crate::upstream::Pending;

impl Core {
    /// Logs and counts a source that sees one node's keys where it asks for all.
    pub(crate) fn report_partial(&mut self, partial: Option<PartialScript>, kind: &str) {
        let Some(PartialScript { sha, command }) = partial else { return };
        self.stats.scripts_partial += 1;
        sparsely!(
            self.lines.scripts,
            warn,
            sha1 = %sha,
            command,
            "a {kind} calls {command}: it sees and changes only the keys of the node that it runs \
             on, a part of the cluster's; send {command} to slotway instead, which asks every shard"
        );
    }

    /// Nobody waits for what the node says to SCRIPT LOAD: if it refuses, EVALSHA says NOSCRIPT.
    pub(crate) fn loading(&self, command: CommandId) -> Pending {
        Pending {
            dest: Dest::Discard,
            len: 0,
            slot: NO_SLOT,
            command,
            flags: 0,
            realm: crate::users::OWN_REALM,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started: self.now,
            expected: 0,
        }
    }
}
