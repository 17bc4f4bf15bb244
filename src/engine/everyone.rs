//! Questions of one client to all workers (CLIENT LIST, KILL, PAUSE …): each worker's answer, and
//! the reply that is made of all answers. See [`Inquiry`].

use crate::client::{Client, Paused, Question};
use crate::dest::{Dest, NodeId};
use crate::engine::Engine;
use crate::errors::Failure;
use crate::mailbox::{Answered, Inquiry};
use crate::resp::{Protocol, write};

impl Engine {
    /// Answers an inquiry on behalf of this worker.
    pub(crate) fn hear(&mut self, inquiry: &Inquiry) {
        match inquiry.question() {
            Question::List(selection) => {
                let wanted = |c: &Client| selection.may_want(c.session.id);
                let lines = self
                    .clients
                    .listing()
                    .lines(wanted, &self.core)
                    .filter(|(_, line)| selection.wants(line));
                let fields = self.nodes.topology.identity.client_fields;
                let lines: Vec<(u64, Vec<u8>)> = lines
                    .map(|(_, line)| {
                        let mut text = Vec::new();
                        line.write(fields, &mut text);
                        (line.id, text)
                    })
                    .collect();
                inquiry.answer(|answers| answers.lines.extend(lines));
            }
            Question::Kill { filter, .. } => {
                let wanted = |c: &Client| filter.may_match(c.session.id);
                let found = self
                    .clients
                    .listing()
                    .lines(wanted, &self.core)
                    .filter(|(_, line)| filter.matches(line));
                let found: Vec<(usize, u64)> = found.map(|(i, line)| (i, line.id)).collect();
                let asker_too = found.iter().any(|(_, id)| *id == inquiry.asker().id);
                for &(index, _) in found.iter().filter(|(_, id)| *id != inquiry.asker().id) {
                    self.clients.close(index, &mut self.core);
                }
                inquiry.answer(|answers| {
                    answers.count += found.len() as i64;
                    answers.asker_too |= asker_too;
                });
            }
            Question::Pause(pause) => self.clients.suspension().begin(*pause),
            Question::Show { line, .. } => self.clients.monitors().show_line(line, &mut self.core),
            Question::Unpause => self.clients.suspension().end(&mut self.core),
            Question::Seen { what, reset, .. } => {
                let seen = self.seeing.seen_for(*what, *reset, &mut self.core);
                inquiry.answer(|answers| answers.seen.merge(seen));
            }
            Question::Unblock { id, error } => {
                let found = self.clients.slab.iter().find(|(_, c)| c.session.id == *id && !c.gone);
                if let Some(index) = found.map(|(i, _)| i)
                    && self.unblock(index, *error)
                {
                    inquiry.answer(|answers| answers.count += 1);
                }
            }
        }
    }

    /// Replies to the client of this worker that made an inquiry, now that all workers have
    /// answered.
    pub(crate) fn finish_inquiry(&mut self, answered: Answered) {
        let Answered { question, asker, answers } = answered;
        let index = asker.client.at();
        // The client may have disconnected since.
        let here = |c: &&Client| c.generation == asker.client.generation;
        let client = self.clients.slab.get(index).filter(here);
        let protocol = client.map_or(Protocol::Resp2, |c| c.session.protocol);
        let (here, waits) = (client.is_some(), client.is_some_and(|c| c.paused == Paused::Command));
        let mut reply = Vec::new();
        match question {
            Question::Show { waits: next, .. } => {
                if next && waits {
                    self.core.turn.resume.push(asker.client);
                }
                return;
            }
            Question::Seen { what, count, .. } => {
                self.nodes.topology.write_seen(
                    (what, count),
                    answers.seen,
                    protocol,
                    &mut reply,
                    &self.core,
                );
            }
            Question::List(selection) => {
                write::verbatim(&mut reply, protocol, &selection.ordered(answers.lines));
            }
            Question::Kill { old_form: true, .. } if answers.count == 0 => {
                Failure::NoSuchClient.write(&mut reply);
            }
            Question::Kill { old_form: true, .. } | Question::Pause(_) | Question::Unpause => {
                write::simple(&mut reply, "OK");
            }
            Question::Kill { .. } | Question::Unblock { .. } => {
                write::integer(&mut reply, answers.count);
            }
        }
        if let Dest::Part { gather, first } = asker.to {
            // The transaction's gathering has to be completed even without its client.
            self.part(gather, first, NodeId::NONE, &reply);
        } else {
            self.core.stats.count_own(asker.command, &reply);
            self.clients.deliveries().own(asker.to, &reply, &mut self.core);
            // A drain may have stopped reading from the client since.
            if waits {
                self.core.turn.resume.push(asker.client);
            }
        }
        if here && answers.asker_too {
            self.clients.stop_reading(index, &mut self.core);
        }
    }
}
