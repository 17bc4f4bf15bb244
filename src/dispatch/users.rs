//! Checking commands against the rights of the client's user.
//!
//! If there are users, a client has an account, and its session the mode [`mode::RESTRICTED`]: each
//! of its commands is checked here before it is carried out. A check that a node has to make (the
//! login of a user of the cluster, or a command of such a user that no node receives) pauses the
//! client with the command in its buffer; the command is read again when the answer arrives.

use crate::base::{Base, base};
use crate::client::SessionModes;
use crate::clients::{Flow, transaction};
use crate::command::{CommandId, Flags};
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::metrics::DenialReason;
use crate::resp::{Args, ProtocolError};
use crate::users::{CheckResult, CommandTag, Credentials, OWN_REALM, UserCheck};

/// Minimum time between two questions about the cluster's default user, in microseconds.
const STRANGERS_INTERVAL: u64 = 1_000_000;

impl Dispatcher<'_> {
    /// Checks a command of a client in [`mode::RESTRICTED`]. `None`: it is allowed.
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

    /// Checks what [`Self::check_user`] does not decide: invalid commands, commands about users,
    /// clients that are not users of slotway's own.
    #[cold]
    fn check_rare(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let client = self.engine.clients.slab.get(index)?;
        let account = client.session.account.as_ref()?;
        let in_multi = client.session.modes.contains(SessionModes::MULTI);
        let table = self.engine.core.router.table();
        let spec = table.get(command);
        // Subcommands of CLIENT that are newer than Redis 7.0 are checked like CLIENT SETNAME.
        let newer = spec.container && *spec.name == *"client" && is_newer(args);
        let unknown =
            command == self.engine.core.router.unknown() || (spec.container && args.len() > 1);
        let everything = account.user.as_ref().is_some_and(|user| user.is_unrestricted());
        let realm = account.realm;
        if unknown && !newer {
            // HTTP is answered by closing the client, as for all users.
            let browser = args.is(0, "post") || args.is(0, "host:");
            if everything || realm != OWN_REALM || in_multi || browser {
                // The cluster may know the command; a transaction refuses it anyway.
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
            // An invalid command of a restricted user goes to no node, even if a node might accept
            // it.
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
            // All other commands have been checked by `check_user`.
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

    /// Checks a command of a client that has not logged in: AUTH, QUIT and the like are allowed,
    /// others only if the client can be the cluster's default user.
    fn check_stranger(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let spec = self.engine.core.router.table().get(command);
        if spec.flags.contains(Flags::NO_AUTH) {
            return None;
        }
        match self.stranger_in_cluster(index) {
            Ok(Some(flow)) => Some(flow),
            // The client has a user now: check again.
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

    /// Decides about a request beyond the limits of clients that have not logged in: [`Flow::Next`]
    /// if the client is now the cluster's default user, [`Flow::Pause`] while a node is asked.
    /// `None`: the request is refused.
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

    /// Makes the client the cluster's default user, if that user needs no password. `Some`: a node
    /// is asked first.
    ///
    /// # Errors
    /// The client has to log in, or may not be this user.
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
            // A recent positive answer also holds for other connections.
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

/// Whether a subcommand of CLIENT is newer than Redis 7.0.
fn is_newer(args: &Args) -> bool {
    args.is(1, "setinfo") || args.is(1, "no-touch")
}
