//! CLIENT's subcommands about other connections than a client's own session, and what follows from
//! them: clients that are suspended (CLIENT PAUSE), clients that want no replies (CLIENT REPLY).

use crate::client::{Grammar, Paused, Question, SessionModes};
use crate::clients::Flow;
use crate::dispatch::Dispatcher;
use crate::resp::Args;
use crate::route::Local;

impl Dispatcher<'_> {
    /// One command of a client whose session is in any mode.
    pub(crate) fn dispatch_with_modes(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes == SessionModes::RESTRICTED {
            // Nothing else is special about it.
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
                // It will be read once more.
                client.session.modes.insert(modes & SessionModes::SKIP);
            }
        }
        self.engine.clients.mark_client(index, &mut self.engine.core);
        flow
    }

    /// The same in a transaction. `Ok`: the reply; `Err`: what all workers are to be asked.
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

/// What is answered all the same: what ends the silence.
fn is_heard(args: &Args, modes: SessionModes) -> bool {
    let on = args.len() == 3 && args.is(0, "client") && args.is(1, "reply") && args.is(2, "on");
    let reset = args.len() == 1 && args.is(0, "reset") && !modes.contains(SessionModes::SKIP);
    on || reset
}
