//! Replies of slotway's own, put into clients' buffers.

use crate::clients::Clients;
use crate::command::CommandId;
use crate::common::Core;
use crate::common::settings::Settings;
use crate::errors::Failure;

impl Clients {
    /// An error of slotway's own instead of a reply, counted as refused.
    pub(crate) fn answer_own_error(
        &mut self,
        index: usize,
        command: CommandId,
        failure: &Failure,
        core: &mut Core,
    ) {
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.refused += 1;
        }
        self.answer_error(index, failure, core);
    }

    /// A reply of slotway's own, counted as answered.
    pub(crate) fn answer_own(
        &mut self,
        index: usize,
        command: CommandId,
        reply: &[u8],
        core: &mut Core,
    ) {
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.ok += 1;
        }
        self.answer_plain(index, reply, core);
    }

    pub(crate) fn answer_plain(&mut self, index: usize, reply: &[u8], core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index) {
            client.answer(reply, &mut core.spare.pool, &mut core.spare.replies);
        }
        self.mark_client(index, core);
    }

    pub(crate) fn answer_error(&mut self, index: usize, failure: &Failure, core: &mut Core) {
        core.stats.count_failure(failure);
        let mut reply = std::mem::take(&mut core.spare.reply);
        reply.clear();
        failure.write(&mut reply);
        if let Some(client) = self.slab.get_mut(index) {
            client.answer(&reply, &mut core.spare.pool, &mut core.spare.replies);
        }
        core.spare.reply = reply;
        self.mark_client(index, core);
    }
}

/// The error for a command that was not sent, or of which nothing was sent that changes data.
pub(crate) fn buffers_full(settings: &Settings) -> Failure {
    Failure::BuffersFull { limit: settings.memory_total }
}

/// The error for a request that there is no room for.
pub(crate) fn too_large(settings: &Settings, bytes: usize) -> Failure {
    Failure::RequestTooLarge { bytes, limit: settings.memory_total, workers: settings.workers }
}
