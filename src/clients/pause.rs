//! CLIENT PAUSE.

use crate::client::{Pause, Paused, SessionModes};
use crate::clients::Clients;
use crate::common::Core;
use crate::dest::ClientId;
use crate::resp::Args;

/// The suspension of clients by CLIENT PAUSE.
pub(crate) struct Suspension<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The suspension of clients by CLIENT PAUSE.
    pub(crate) fn suspension(&mut self) -> Suspension<'_> {
        Suspension { clients: self }
    }
}

impl Suspension<'_> {
    /// CLIENT PAUSE: from now on clients' commands are looked at before they are carried out.
    pub(crate) fn begin(&mut self, pause: Pause) {
        self.clients.stop.pause = Some(pause.joined(self.clients.stop.pause));
        for (_, client) in &mut self.clients.slab {
            client.session.modes.insert(SessionModes::SUSPENDED);
        }
    }

    /// CLIENT UNPAUSE, or the pause's end: who waits goes on.
    pub(crate) fn end(&mut self, core: &mut Core) {
        if self.clients.stop.pause.take().is_none() {
            return;
        }
        for (index, client) in &mut self.clients.slab {
            client.session.modes.remove(SessionModes::SUSPENDED);
            if client.paused == Paused::Suspended {
                core.turn.resume.push(ClientId::new(index, client.generation));
            }
        }
    }

    /// The pause is for this command. As in Redis ALL holds everything but QUIT (CLIENT UNPAUSE,
    /// too), and what a server answers with an error before it looks at the pause.
    pub(crate) fn must_wait(&self, index: usize, args: &Args, core: &Core) -> bool {
        let Some(pause) = self.clients.stop.pause else { return false };
        let command = core.router.command(args);
        if command == core.router.unknown() {
            return true; // the cluster may know it, and it may write
        }
        let spec = core.router.table().get(command);
        if !spec.arity_fits(args.len()) || &*spec.name == "quit" {
            return false;
        }
        if &*spec.name == "exec"
            && let Some(multi) = self.clients.slab.get(index).and_then(|c| c.multi.as_ref())
        {
            return pause.all || multi.queue.iter().any(|q| core.may_write(q.command));
        }
        pause.all || core.may_write(command)
    }
}
