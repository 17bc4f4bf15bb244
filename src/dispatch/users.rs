//! Users: logging in, and what they may not do.
//!
//! A client has an account where there are users, and its session the mode
//! [`SessionModes::RESTRICTED`]: each of its commands is looked at here before it is carried out.
//! What has to be asked of a node (a login of the cluster's, what such a user may do that no node
//! sees) pauses the client with the command in its buffer; the command is read once more when the
//! answer is here.

use crate::base::{Base, base};
use crate::client::SessionModes;
use crate::clients::{Flow, transaction};
use crate::command::{CommandId, Flags};
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::metrics::DenialReason;
use crate::resp::{Args, ProtocolError};
use crate::users::{CheckResult, CommandTag, Credentials, OWN_REALM, UserCheck};

/// The cluster's default user is not asked about more often, microseconds.
const STRANGERS_INTERVAL: u64 = 1_000_000;

impl Dispatcher<'_> {
    /// One command of a client in [`SessionModes::RESTRICTED`]. `None`: it may be carried out.
    #[inline]
    pub(super) fn check_user(&mut self, index: usize, args: &Args) -> Option<Flow> {
        let client = self.engine.clients.slab.get(index)?;
        let account = client.session.account.as_ref()?;
        let command = self.engine.core.router.command(args);
        let id = command;
        let spec = self.engine.core.router.table().get(id);
        if let Some(user) = &account.user
            && command != self.engine.core.router.unknown()
            && !spec.container
            && spec.arity_fits(args.len())
        {
            match user.check(id, spec, args, &mut self.engine.core.spare.keys) {
                Ok(()) if !spec.name.starts_with("acl|") && *spec.name != *"auth" => return None,
                Ok(()) => {}
                Err(why) => {
                    return Some(self.engine.clients.refusals().deny(
                        index,
                        command,
                        why,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    ));
                }
            }
        }
        self.check_rare(index, command, args)
    }

    /// What is wrong with it, who is not slotway's own user, and commands about users.
    #[cold]
    fn check_rare(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let client = self.engine.clients.slab.get(index)?;
        let account = client.session.account.as_ref()?;
        let in_multi = client.session.modes.contains(SessionModes::MULTI);
        let table = self.engine.core.router.table();
        let spec = table.get(command);
        // Subcommands of CLIENT that Redis has since 7.0: as those that they are like.
        let newer = spec.container && *spec.name == *"client" && is_newer(args);
        let unknown =
            command == self.engine.core.router.unknown() || (spec.container && args.len() > 1);
        let everything = account.user.as_ref().is_some_and(|user| user.is_unrestricted());
        let realm = account.realm;
        if unknown && !newer {
            // A browser that was led here is closed without a word, as ever.
            let browser = args.is(0, "post") || args.is(0, "host:");
            if everything || realm != OWN_REALM || in_multi || browser {
                // The cluster may know it; a transaction refuses it anyway.
                return None;
            }
            let failure = transaction::unknown_command(&spec.name, args);
            return Some(self.engine.clients.refusals().answer_user(
                index,
                command,
                &failure,
                &mut self.engine.nodes,
                &mut self.engine.core,
            ));
        }
        if !newer && !spec.arity_fits(args.len()) {
            // No node sees what a rule may forbid, even where it knows better.
            if in_multi || everything || realm != OWN_REALM {
                return None;
            }
            let failure = Failure::WrongArity { command: spec.name.clone() };
            return Some(self.engine.clients.refusals().answer_user(
                index,
                command,
                &failure,
                &mut self.engine.nodes,
                &mut self.engine.core,
            ));
        }
        if in_multi && *spec.name == *"auth" {
            return Some(self.engine.clients.refusals().answer_user(
                index,
                command,
                &Failure::AuthInMulti,
                &mut self.engine.nodes,
                &mut self.engine.core,
            ));
        }
        if !account.is_authenticated() {
            return self.check_stranger(index, command, args);
        }
        if let Some(user) = account.user.clone() {
            if newer {
                let like = table.by_name("client|setname")?;
                return match user.check(
                    like,
                    table.get(like),
                    args,
                    &mut self.engine.core.spare.keys,
                ) {
                    Ok(()) => None,
                    Err(why) => Some(self.engine.clients.refusals().deny(
                        index,
                        command,
                        why,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    )),
                };
            }
            // What is not a container was checked before it came here.
            if spec.container
                && let Err(why) = user.check(command, spec, args, &mut self.engine.core.spare.keys)
            {
                return Some(self.engine.clients.refusals().deny(
                    index,
                    command,
                    why,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ));
            }
            let name = spec.name.strip_prefix("acl|").map(str::to_owned);
            return match name {
                Some(_) if in_multi => Some(self.engine.clients.refusals().answer_user(
                    index,
                    command,
                    &Failure::AclInMulti,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                )),
                Some(name) => self.engine.access.own_acl(
                    index,
                    command,
                    &name,
                    &user,
                    args,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ),
                None => None,
            };
        }
        base!(self.engine).check_in_realm(index, command, realm, newer, args)
    }

    /// Who has not logged in may log in, and leave; it may be the cluster's default user.
    fn check_stranger(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let spec = self.engine.core.router.table().get(command);
        if spec.flags.contains(Flags::NO_AUTH) {
            return None;
        }
        match self.stranger_in_cluster(index) {
            Ok(Some(flow)) => Some(flow),
            // It is somebody now: once more.
            Ok(None) => self.check_user(index, args),
            Err(failure) => {
                self.engine.core.stats.denied[DenialReason::Login as usize] += 1;
                Some(self.engine.clients.refusals().answer_user(
                    index,
                    command,
                    &failure,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ))
            }
        }
    }

    /// Too much for who has not logged in: [`Flow::Next`] if that one need not, and is somebody
    /// now; [`Flow::Pause`] while that is asked; `None`: it is refused.
    #[cold]
    pub(crate) fn stranger_may_send(&mut self, index: usize, error: ProtocolError) -> Option<Flow> {
        if !error.is_unauthenticated() {
            return None;
        }
        match self.stranger_in_cluster(index) {
            Ok(None) => Some(Flow::Next),
            Ok(flow) => flow,
            Err(_) => None,
        }
    }

    /// Makes the client the cluster's default user, if that one needs no password. `Some`: it is
    /// asked first.
    pub(crate) fn stranger_in_cluster(&mut self, index: usize) -> Result<Option<Flow>, Failure> {
        if !self.engine.access.users.passes_through()
            || self.engine.access.users.get(b"default").is_some()
        {
            return Err(Failure::LogInFirst);
        }
        let kept_out = self.engine.clients.logins().is_kept_out(index, &self.engine.core);
        let account =
            self.engine.clients.slab.get_mut(index).and_then(|c| c.session.account.as_mut());
        match account.and_then(|account| account.answered(CommandTag::NO_LOGIN)) {
            None if kept_out && self.engine.core.now < self.engine.access.strangers_allowed => {
                Err(Failure::Protected)
            }
            // Who has just been found to be let in is not asked about for every connection.
            None if self.engine.core.now < self.engine.access.strangers_allowed => {
                let realm = self.realm_for(Credentials::default());
                let realm = realm.ok_or_else(|| self.engine.core.too_many())?;
                base!(self.engine).enter_realm(index, realm, b"");
                Ok(None)
            }
            Some(CheckResult::Allowed | CheckResult::Open | CheckResult::Waited) => {
                self.engine.access.strangers_allowed = self.engine.core.now + STRANGERS_INTERVAL;
                if kept_out {
                    return Err(Failure::Protected);
                }
                let realm = self
                    .realm_for(Credentials::default())
                    .ok_or_else(|| self.engine.core.too_many())?;
                base!(self.engine).enter_realm(index, realm, b"");
                Ok(None)
            }
            Some(CheckResult::Refused(failure) | CheckResult::Told(failure)) => {
                if failure == Failure::LogInFirst {
                    self.engine.access.strangers_refused =
                        self.engine.core.now + STRANGERS_INTERVAL;
                }
                Err(failure)
            }
            None if self.engine.core.now < self.engine.access.strangers_refused => {
                Err(Failure::LogInFirst)
            }
            None => Ok(Some(self.engine.clients.logins().ask_node(
                index,
                CommandTag::NO_LOGIN,
                UserCheck::NoLogin,
                &mut self.engine.core,
            ))),
        }
    }
}

fn is_newer(args: &Args) -> bool {
    args.is(1, "setinfo") || args.is(1, "no-touch")
}
