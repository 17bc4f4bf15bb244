//! Scripts: what is logged of them.

use crate::common::Core;
use crate::scripts::PartialScript;
use crate::sparsely;

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
}
