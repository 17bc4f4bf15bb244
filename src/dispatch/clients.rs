//! Commands of clients in special modes: suspended (CLIENT PAUSE), without replies (CLIENT REPLY).
//! Also CLIENT's subcommands in transactions.

use crate::client::{Grammar, Paused, Question, SessionModes};
use crate::clients::Flow;
use crate::dispatch::Dispatcher;
use crate::resp::Args;
use crate::route::Local;

impl Dispatcher<'_> {
    /// Dispatches a command of a client whose session is in any of the modes of [`mode`].
    pub(crate) fn dispatch_with_modes(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes == SessionModes::RESTRICTED {
            // No other mode is set.
            return match self.check_user(index, args) {
                Some(flow) => flow,
                None => self.dispatch(index, frame, args),
            };
        }
        if modes.contains(SessionModes::SUSPENDED)
            && self.engine.clients.suspension().must_wait(index, args, &self.engine.core)
        {
            if let Some(client) = self.engine.clients.slab.get_mut(index) {
                client.paused = Paused::Suspended;
            }
            return Flow::Pause;
        }
        if !modes.intersects(SessionModes::SILENT | SessionModes::SKIP) || is_heard(args, modes) {
            return self.dispatch_in_mode(index, frame, args);
        }
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        client.session.modes.remove(SessionModes::SKIP);
        client.mute(true, &mut self.engine.core.spare.replies);
        let flow = self.dispatch_in_mode(index, frame, args);
        if let Some(client) = self.engine.clients.slab.get_mut(index) {
            client.mute(false, &mut self.engine.core.spare.replies);
            if flow == Flow::Pause {
                // The command will be read again.
                client.session.modes.insert(modes & SessionModes::SKIP);
            }
        }
        self.engine.clients.mark_client(index, &mut self.engine.core);
        flow
    }

    /// Carries out a subcommand of CLIENT that was queued in a transaction. `Ok`: the reply; `Err`:
    /// the question to all workers.
    pub(super) fn client_in_exec(
        &self,
        index: usize,
        local: Local,
        args: &Args,
    ) -> Result<Vec<u8>, Question> {
        let mut reply = Vec::new();
        if local == Local::ClientInfo {
            self.engine.clients.listing().info(
                index,
                &mut reply,
                &self.engine.nodes,
                &self.engine.core,
            );
            return Ok(reply);
        }
        let me = self.engine.clients.slab.get(index).map_or(0, |c| c.session.id);
        let grammar = Grammar::of(&self.engine.nodes.topology.identity);
        match Question::parse(args, grammar, me, |name| self.engine.access.users.accepts_name(name))
        {
            Ok(question) => return Err(question),
            Err(failure) => failure.write(&mut reply),
        }
        Ok(reply)
    }
}

/// Whether a command is answered although replies are turned off: it turns them on again.
fn is_heard(args: &Args, modes: SessionModes) -> bool {
    let on = args.len() == 3 && args.is(0, "client") && args.is(1, "reply") && args.is(2, "on");
    let reset = args.len() == 1 && args.is(0, "reset") && !modes.contains(SessionModes::SKIP);
    on || reset
}
