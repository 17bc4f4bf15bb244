//! CLIENT's subcommands about other connections than a client's own session, and what follows from
//! them: clients that are suspended (CLIENT PAUSE), clients that want no replies (CLIENT REPLY).

use super::Worker;
use super::downstream::Flow;
use super::state::{Base, Clients, Core, Nodes};
use crate::client::{Grammar, Pause, Paused, Question, mode};
use crate::command::{CommandId, Flags};
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::resp::{Args, write};
use crate::route::Local;

/// What replicas hear of though it is no write: COMMAND does not tell.
const MAY_REPLICATE: [&str; 3] = ["pfcount", "publish", "spublish"];

impl Core {
    /// Counts an answer that was made here.
    pub(super) fn count_own(&mut self, command: CommandId, reply: &[u8]) {
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            match reply.first() {
                Some(b'-') => stats.error += 1,
                _ => stats.ok += 1,
            }
        }
    }

    fn may_write(&self, command: CommandId) -> bool {
        let spec = self.router.table().get(command);
        spec.is_write()
            || spec.flags.contains(Flags::MAY_REPLICATE)
            || MAY_REPLICATE.contains(&&*spec.name)
    }
}

impl Clients {
    fn client_info(&self, index: usize, reply: &mut Vec<u8>, nodes: &Nodes, core: &Core) {
        let Some(client) = self.slab.get(index) else { return };
        let mut text = Vec::new();
        self.line(index, client, core).write(nodes.topology.identity.client_fields, &mut text);
        write::verbatim(reply, client.session.protocol, &text);
    }

    /// CLIENT PAUSE: from now on clients' commands are looked at before they are carried out.
    pub(super) fn suspend_clients(&mut self, pause: Pause) {
        self.stop.pause = Some(pause.joined(self.stop.pause));
        for (_, client) in &mut self.slab {
            client.session.modes |= mode::SUSPENDED;
        }
    }

    /// When the pause is over, microseconds. No timer: there would be one for every CLIENT PAUSE,
    /// for as long as that asked for.
    pub(super) fn pause_end(&self, core: &Core) -> Option<u64> {
        let until = self.stop.pause?.until.saturating_duration_since(core.clock.epoch);
        Some(until.as_micros() as u64)
    }

    /// CLIENT UNPAUSE, or the pause's end: who waits goes on.
    pub(super) fn end_pause(&mut self, core: &mut Core) {
        if self.stop.pause.take().is_none() {
            return;
        }
        for (index, client) in &mut self.slab {
            client.session.modes &= !mode::SUSPENDED;
            if client.paused == Paused::Suspended {
                core.turn.resume.push(ClientId::new(index, client.generation));
            }
        }
    }

    /// The pause is for this command. As in Redis ALL holds everything but QUIT (CLIENT UNPAUSE,
    /// too), and what a server answers with an error before it looks at the pause.
    fn must_wait(&self, index: usize, args: &Args, core: &Core) -> bool {
        let Some(pause) = self.stop.pause else { return false };
        let command = core.router.command(args);
        if command == core.router.unknown() {
            return true; // the cluster may know it, and it may write
        }
        let spec = core.router.table().get(command);
        if !spec.arity_fits(args.len()) || &*spec.name == "quit" {
            return false;
        }
        if &*spec.name == "exec"
            && let Some(multi) = self.slab.get(index).and_then(|c| c.multi.as_ref())
        {
            return pause.all || multi.queue.iter().any(|q| core.may_write(q.command));
        }
        pause.all || core.may_write(command)
    }
}

impl Base<'_> {
    /// CLIENT INFO, CLIENT REPLY, and those that all workers are asked about.
    pub(super) fn client_command(
        &mut self,
        index: usize,
        command: CommandId,
        local: Local,
        args: &Args,
    ) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let (users, grammar) = (&self.access.users, Grammar::of(&self.nodes.topology.identity));
        let mut reply = Vec::new();
        match local {
            Local::ClientInfo => self.clients.client_info(index, &mut reply, self.nodes, self.core),
            Local::ClientReply => match reply_mode(args, client.session.modes) {
                Some(modes) => {
                    client.session.modes = modes;
                    if modes & (mode::SILENT | mode::SKIP) != 0 {
                        self.core.count_own(command, b"+");
                        return Flow::Next;
                    }
                    write::simple(&mut reply, "OK");
                }
                None => Failure::Syntax.write(&mut reply),
            },
            _ => match Question::parse(args, grammar, client.session.id, |n| users.may_know(n)) {
                Ok(question) => {
                    return self.clients.ask_everyone(index, command, question, self.core);
                }
                Err(failure) => failure.write(&mut reply),
            },
        }
        self.core.count_own(command, &reply);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.answer(&reply, &mut self.core.spare.pool, &mut self.core.spare.replies);
        }
        self.clients.mark_client(index, self.core);
        Flow::Next
    }
}

impl Worker {
    /// One command of a client whose session is in any of the modes of [`mode`].
    pub(super) fn dispatch_with_modes(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes == mode::RULED {
            // Nothing else is special about it.
            return match self.check_user(index, args) {
                Some(flow) => flow,
                None => self.dispatch(index, frame, args),
            };
        }
        if modes & mode::SUSPENDED != 0 && self.clients.must_wait(index, args, &self.core) {
            if let Some(client) = self.clients.slab.get_mut(index) {
                client.paused = Paused::Suspended;
            }
            return Flow::Pause;
        }
        if modes & (mode::SILENT | mode::SKIP) == 0 || is_heard(args, modes) {
            return self.dispatch_in_mode(index, frame, args);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        client.session.modes &= !mode::SKIP;
        client.mute(true, &mut self.core.spare.replies);
        let flow = self.dispatch_in_mode(index, frame, args);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.mute(false, &mut self.core.spare.replies);
            if flow == Flow::Pause {
                // It will be read once more.
                client.session.modes |= modes & mode::SKIP;
            }
        }
        self.clients.mark_client(index, &mut self.core);
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
            self.clients.client_info(index, &mut reply, &self.nodes, &self.core);
            return Ok(reply);
        }
        let me = self.clients.slab.get(index).map_or(0, |c| c.session.id);
        let grammar = Grammar::of(&self.nodes.topology.identity);
        match Question::parse(args, grammar, me, |name| self.access.users.may_know(name)) {
            Ok(question) => return Err(question),
            Err(failure) => failure.write(&mut reply),
        }
        Ok(reply)
    }
}

/// The modes after CLIENT REPLY; `None` is a syntax error.
fn reply_mode(args: &Args, modes: u8) -> Option<u8> {
    let others = modes & !(mode::SILENT | mode::SKIP);
    if args.is(2, "on") {
        Some(others)
    } else if args.is(2, "off") {
        Some(others | mode::SILENT)
    } else if args.is(2, "skip") {
        Some(modes | if modes & mode::SILENT == 0 { mode::SKIP } else { 0 })
    } else {
        None
    }
}

/// What is answered all the same: what ends the silence.
fn is_heard(args: &Args, modes: u8) -> bool {
    let on = args.len() == 3 && args.is(0, "client") && args.is(1, "reply") && args.is(2, "on");
    let reset = args.len() == 1 && args.is(0, "reset") && modes & mode::SKIP == 0;
    on || reset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ArgRange;

    fn after(word: &str, modes: u8) -> Option<u8> {
        let text = format!("clientreply{word}");
        let ranges = [(0, 6), (6, 11), (11, text.len() as u32)];
        let ranges = ranges.map(|(start, end)| ArgRange { start, end });
        reply_mode(&Args::new(text.as_bytes(), &ranges), modes)
    }

    #[test]
    fn client_reply() {
        let other = mode::SUSPENDED;
        assert_eq!(after("OFF", other), Some(other | mode::SILENT));
        assert_eq!(after("skip", other), Some(other | mode::SKIP));
        assert_eq!(after("skip", mode::SILENT), Some(mode::SILENT));
        assert_eq!(after("On", other | mode::SILENT | mode::SKIP), Some(other));
        assert_eq!(after("x", 0), None);
    }
}
