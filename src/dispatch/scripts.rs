//! Lua scripts: cached as they pass, and loaded into the nodes that lack them.
//!
//! Two mechanisms make a script that was seen once available at every node:
//! - **Before.** The first EVALSHA of a script on a connection is sent behind SCRIPT LOAD. So a
//!   node that is new, promoted or restarted has the script in time, and no command of the same
//!   client comes in between. While a client pipelines, this is done in every turn of the worker,
//!   because commands that follow a failed EVALSHA cannot be recalled.
//! - **After.** A node that answers NOSCRIPT nevertheless, because somebody has flushed its scripts,
//!   has not executed the command: this is a refusal like others, and the command is sent again
//!   behind its script.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::node_scripts::scripts::argument;
use crate::resp::{Args, write};
use crate::route::{PendingFlags, Script};
use crate::scripts::Sha;

impl Dispatcher<'_> {
    /// Dispatches a command about Lua scripts.
    pub(super) fn script(
        &mut self,
        index: usize,
        command: CommandId,
        (script, slot): (Script, Option<Slot>),
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        match script {
            Script::Eval => {
                let body = args.get(1).unwrap_or_default();
                if !self.engine.scripts.has_seen(body, self.engine.core.now) {
                    self.engine.scripts.remember_script(body, &mut self.engine.core);
                }
            }
            Script::Load => self
                .engine
                .scripts
                .remember_script(args.get(2).unwrap_or_default(), &mut self.engine.core),
            Script::LoadLibrary => self.engine.scripts.look_at_library(args, &mut self.engine.core),
            Script::Exists => base!(self.engine).scripts_to_primaries(index, command, args),
            // The nodes refuse any other argument.
            Script::Flush if args.len() == 2 || args.is(2, "async") || args.is(2, "sync") => {
                self.engine.scripts.store.flush();
            }
            Script::Show => {
                let sha = args.get(2).and_then(Sha::parse);
                if let Some(load) = sha.and_then(|sha| self.engine.scripts.store.load_of(&sha)) {
                    let mut reply = Vec::new();
                    write::bulk(&mut reply, argument(&load, 2).unwrap_or_default());
                    self.engine.clients.answer_own(index, command, &reply, &mut self.engine.core);
                    return Flow::Next;
                }
            }
            Script::EvalSha | Script::Flush => {}
        }
        if let Some((to, merge)) = script.fan() {
            return self.fan(index, command, to, merge, frame);
        }
        let node = match slot {
            Some(slot) => self.engine.nodes.route(slot),
            None => self.engine.nodes.any_primary(index, self.keyless(index)),
        };
        let number = slot.unwrap_or_else(|| self.keyless(index));
        let Some(node) = node else {
            return match slot {
                Some(_) => {
                    self.engine.ops.forward(index, command, number, frame, &mut base!(self.engine))
                }
                None => self.engine.ops.wait_for_a_node(
                    index,
                    command,
                    number,
                    frame,
                    &mut base!(self.engine),
                ),
            };
        };
        let Some((mut pending, conn)) =
            self.engine.ops.admit(index, command, number, node, &mut base!(self.engine))
        else {
            return Flow::Pause;
        };
        if script == Script::EvalSha
            && let Some(sha) = args.get(1).and_then(Sha::parse)
            && self.engine.scripts.script_before(
                conn,
                &sha,
                pending.command,
                frame.len() < self.engine.core.turn.unread,
                &mut self.engine.nodes,
                &mut self.engine.core,
            )
        {
            pending.flags.insert(PendingFlags::SCRIPT);
        }
        self.engine.nodes.send(conn, pending, frame, &mut self.engine.core);
        Flow::Next
    }
}
