//! Users: logging in, and what they may not do.
//!
//! A client has an account where there are users, and its session the mode
//! [`mode::RULED`]: each of its commands is looked at here before it is carried out. What has to be
//! asked of a node (a login of the cluster's, what such a user may do that no node sees) pauses the
//! client with the command in its buffer; the command is read once more when the answer is here.

use super::state::base;
use super::state::{Base, Clients, Core, Nodes, Subscribers};
use std::sync::Arc;

use super::Worker;
use super::downstream::Flow;
use crate::channel::Kind;
use crate::client::mode;
use crate::command::{CommandId, CommandSpec, Flags};
use crate::errors::Failure;
use crate::metrics::{DeniedFor, LoginOutcome};
use crate::resp::{Args, ProtocolError};
use crate::route::{Merge, Plan, PubSub, Script, Transaction};
use crate::users::{
    Account, Asking, Credentials, Denied, OWN, Tag, UNCHECKED_DENIED, User, Users, Verdict,
};

/// Failed logins are logged no more often, microseconds.
pub(super) const LOG_INTERVAL: u64 = 10_000_000;
/// The cluster's default user is not asked about more often, microseconds.
const STRANGERS_INTERVAL: u64 = 1_000_000;

/// What is kept about failed logins, for the log.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Since the last line.
    pub count: u64,
    pub(super) next_line: u64,
}

impl Core {
    pub(super) fn too_many(&mut self) -> Failure {
        self.stats.logins[LoginOutcome::TooMany as usize] += 1;
        let (configured, left) = (self.settings.users, self.shared.max_users());
        match configured <= left {
            true => Failure::TooManyUsers { limit: configured },
            false => Failure::TooManyUsersForFiles { configured, lowered: left },
        }
    }

    /// What may be sent by `user`, for ACL DRYRUN. `Err`: why not.
    pub(super) fn dry_run(&mut self, user: &User, args: &Args) -> Result<(), DryRunError> {
        let command = self.router.command(args);
        let spec: &CommandSpec = self.router.table().get(command);
        if command == self.router.unknown() || (spec.container && args.len() > 1) {
            let command = args.get(0).unwrap_or_default().escape_ascii().to_string().into();
            return Err(DryRunError::NoCommand(Failure::CommandNotFound { command }));
        }
        if !spec.arity_fits(args.len()) {
            let failure = Failure::WrongArity { command: spec.name.clone() };
            return Err(DryRunError::NoCommand(failure));
        }
        let name = &spec.name;
        let checked = user.check(command, spec, args, &mut self.spare.keys);
        let told = |why| match why {
            Denied::Command => {
                format!("This user has no permissions to run the '{name}' command")
            }
            Denied::Unchecked => format!(
                "This user has no permissions to run the '{name}' command: {UNCHECKED_DENIED}"
            ),
            Denied::Key | Denied::Sort(_) | Denied::Channel => {
                let what = if why == Denied::Channel { "channel" } else { "key" };
                let at = args.get(user.denied_argument(spec, args)).unwrap_or_default();
                format!(
                    "This user has no permissions to access the '{}' {what}",
                    String::from_utf8_lossy(at)
                )
            }
        };
        checked.map_err(|why| DryRunError::Denied(told(why)))
    }
}

impl Clients {
    /// It comes from elsewhere, and may not be a user that everybody may be.
    pub(super) fn is_kept_out(&self, index: usize, core: &Core) -> bool {
        self.slab.get(index).is_none_or(|c| core.settings.keeps_out(c))
    }

    /// The plan for this client: what the nodes themselves tell their users about users reaches
    /// these as it is.
    pub(super) fn filtered_for(&self, index: usize, plan: Plan) -> Plan {
        match plan {
            Plan::Fan { merge: Merge::Filtered(filter), .. }
                if !filter.holds_for_cluster_users() && self.realm_of(index) != OWN =>
            {
                Plan::Any
            }
            other => other,
        }
    }

    fn deny(
        &mut self,
        index: usize,
        command: CommandId,
        why: Denied,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let spec = core.router.table().get(command);
        let failure = match why {
            Denied::Command => Failure::CommandDenied { command: spec.name.clone() },
            Denied::Unchecked => Failure::Unchecked { command: spec.name.clone() },
            Denied::Key => Failure::KeyDenied,
            Denied::Channel => Failure::ChannelDenied,
            Denied::Sort(option) => Failure::SortDenied { option },
        };
        let reason = match why {
            Denied::Command | Denied::Unchecked => DeniedFor::Command,
            Denied::Key | Denied::Sort(_) => DeniedFor::Key,
            Denied::Channel => DeniedFor::Channel,
        };
        core.stats.denied[reason as usize] += 1;
        self.refuse_to_user(index, command, &failure, nodes, core)
    }

    /// Answered with an error; a transaction will not be executed any more.
    fn refuse_to_user(
        &mut self,
        index: usize,
        command: CommandId,
        failure: &Failure,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let spec = core.router.table().get(command);
        let exec = *spec.name == *"exec";
        let multi = self.slab.get_mut(index).and_then(|c| c.multi.as_mut());
        if let Some(multi) = multi {
            multi.break_off();
            if exec {
                self.drop_transaction(index, nodes, core);
                let cause = failure.to_string();
                self.answer_own_error(index, command, &Failure::Discarded { cause }, core);
                return Flow::Next;
            }
        }
        if let Some(client) = self.slab.get_mut(index) {
            client.session.last_command = command;
        }
        self.answer_own_error(index, command, failure, core);
        Flow::Next
    }
}

impl Subscribers {
    /// What the client has begun while nobody had to log in, and hears without sending anything.
    fn may_go_on(&self, index: usize, clients: &Clients) -> bool {
        let Some(client) = clients.slab.get(index) else { return true };
        let Some(account) = &client.session.account else { return true };
        let hears = client.subscriptions.is_some() || client.lent.is_some();
        match &account.user {
            None => !hears,
            Some(user) if user.may_everything() => true,
            Some(user) => client.lent.is_none() && self.may_hear_all(index, user, clients),
        }
    }

    /// Its subscriptions are all within the user's rules.
    fn may_hear_all(&self, index: usize, user: &User, clients: &Clients) -> bool {
        let subscriptions = clients.slab.get(index).and_then(|c| c.subscriptions.as_ref());
        let mut topics = subscriptions.into_iter().flat_map(|s| s.topics.keys());
        topics.all(|&topic| {
            let local = self.topics.local.get(topic as usize);
            local.is_none_or(|local| user.may_hear(&local.name, local.kind == Kind::Pattern))
        })
    }
}

impl Base<'_> {
    /// A connection begins, or begins anew (RESET).
    pub(super) fn begin_account(&mut self, index: usize) {
        self.leave_account(index);
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if self.access.users.is_open() {
            return;
        }
        let user = self.access.users.stranger().cloned();
        client.session.account = Some(Box::new(Account::of_stranger(user)));
        client.session.ruled();
        self.clients.await_login(index, self.core);
    }

    /// The client is gone, or somebody else.
    pub(super) fn leave_account(&mut self, index: usize) {
        let account = self.clients.slab.get_mut(index).and_then(|c| c.session.account.as_mut());
        let Some(account) = account else { return };
        let realm = account.leave();
        if realm != OWN {
            self.access.count_in_realm(realm, false, self.core);
            // What watches or monitors does so with the rights of the one who is not here any more.
            let lent = self.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut());
            let mut all = Vec::new();
            if let Some(lent) = lent {
                all.extend(lent.heard.iter().copied());
                all.extend(lent.watches.iter().filter_map(|watch| watch.upstream));
            }
            all.into_iter().for_each(|u| self.clients.close_dedicated(u, self.nodes, self.core));
        }
    }

    /// The client is `name` by its certificate, and needs no password. `false`: there is no such
    /// user, or not any more.
    pub(super) fn login_by_certificate(&mut self, index: usize, name: &str) -> bool {
        let Some(user) = self.access.users.login_by_certificate(name).cloned() else {
            return false;
        };
        self.core.stats.logins[LoginOutcome::Certificate as usize] += 1;
        self.enter_own(index, user);
        true
    }

    pub(super) fn enter_own(&mut self, index: usize, user: Arc<User>) {
        self.leave_account(index);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.session.account.get_or_insert_default().user = Some(user);
            client.session.ruled();
        }
    }

    pub(super) fn enter_realm(&mut self, index: usize, realm: u16, name: &[u8]) {
        self.leave_account(index);
        self.access.count_in_realm(realm, true, self.core);
        if let Some(client) = self.clients.slab.get_mut(index) {
            let account = client.session.account.get_or_insert_default();
            account.realm = realm;
            let name =
                if name.is_empty() { "default".into() } else { name.escape_ascii().to_string() };
            account.name = Some(name.into());
        }
    }

    /// Other users from now on. Who is not among them any more is closed.
    pub(super) fn set_users(&mut self, users: &Users) {
        self.access.users = Arc::new(users.compiled(self.core.router.table()));
        let all: Vec<usize> =
            self.clients.slab.iter().filter(|(_, c)| !c.gone).map(|(i, _)| i).collect();
        for index in all {
            if !self.still_welcome(index) {
                self.clients.close(index, self.core);
            }
        }
    }

    /// The client may stay now that there are other users: as the user that it was, by other rules.
    fn still_welcome(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.slab.get_mut(index) else { return true };
        let Some(account) = client.session.account.as_mut() else {
            // There were no users, and it could do everything.
            self.begin_account(index);
            return self.subscribers.may_go_on(index, self.clients);
        };
        if self.access.users.is_open() {
            // There are none any more, and it was one of them, or had not shown that it is.
            return false;
        }
        if account.realm != OWN && !self.access.users.passes_through() {
            return false;
        }
        let Some(user) = &account.user else { return true };
        let Some(new) = self.access.users.get(user.name.as_bytes()) else { return false };
        // Who was let in without a password has to show one now; who is switched off stays, as in
        // Redis, until it comes again.
        if user.nopass && !new.nopass {
            return false;
        }
        // By what is written: other commands make other users of the same rules, too.
        let (new, changed) = (Arc::clone(new), new.describe(true) != user.describe(true));
        account.user = Some(Arc::clone(&new));
        if changed && let Some(multi) = &mut client.multi {
            // What was queued was looked at by the rules before.
            multi.break_off();
        }
        // As Redis does with who listens to what it may not hear any more.
        !changed || self.subscribers.may_hear_all(index, &new, self.clients)
    }

    /// Other commands from now on.
    pub(super) fn compile_users(&mut self) {
        let users = Arc::clone(&self.access.users);
        if !users.is_open() {
            self.set_users(&users);
        }
    }

    /// A node knows what users of the cluster may do. What no node would see it is asked about.
    fn check_in_realm(
        &mut self,
        index: usize,
        command: CommandId,
        realm: u16,
        newer: bool,
        args: &Args,
    ) -> Option<Flow> {
        let spec = self.core.router.table().get(command);
        if spec.flags.contains(Flags::NO_AUTH) {
            return None;
        }
        // By its arguments, too; of other commands the name is enough.
        let channels = match self.core.router.plan(command, args, &mut self.core.spare.keys) {
            Plan::PubSub(PubSub::Subscribe(_), _) => true,
            Plan::PubSub(PubSub::Unsubscribe(_), _) | Plan::Local(_) => false,
            // Its own connection could not be told from others' by a node that refuses MULTI.
            Plan::Transaction(which) if which != Transaction::Watch => false,
            // Slotway's own scripts go with it.
            Plan::Script(Script::Flush, _) => false,
            _ => return None,
        };
        let client = self.clients.slab.get_mut(index)?;
        let tag = Tag::of(args);
        let answer = client.session.account.as_mut().and_then(|account| account.answered(tag));
        let answer = match (answer, channels) {
            (Some(answer), false) => {
                self.access.believe(realm, command, answer.clone(), self.core);
                Some(answer)
            }
            (None, false) => self.access.believed(realm, command, self.core),
            (answer, true) => answer,
        };
        match answer {
            Some(Verdict::Allowed | Verdict::Open | Verdict::Waited) => None,
            Some(Verdict::Refused(failure) | Verdict::Told(failure)) => {
                if matches!(failure, Failure::UserGone { .. }) {
                    self.access.doubt_realm(realm, self.core);
                }
                let reason = if channels { DeniedFor::Channel } else { DeniedFor::Command };
                self.core.stats.denied[reason as usize] += 1;
                Some(self.clients.refuse_to_user(index, command, &failure, self.nodes, self.core))
            }
            None => {
                let user = Arc::clone(&self.access.realms.get(&realm)?.who.user);
                let user = if user.is_empty() { (*b"default").into() } else { user };
                // No node knows PROXY: who may see a slow log may see what it shows.
                let proxy = self.core.router.table().get(command).name.starts_with("proxy");
                let like = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
                let args = match newer {
                    _ if proxy => like(&[b"slowlog", b"get"]),
                    true => like(&[b"client", b"setname", b"x"]),
                    false => args.iter().map(<[u8]>::to_vec).collect(),
                };
                Some(self.clients.ask_node(index, tag, Asking::May { user, args }, self.core))
            }
        }
    }
}

impl Worker {
    /// One command of a client in [`mode::RULED`]. `None`: it may be carried out.
    #[inline]
    pub(super) fn check_user(&mut self, index: usize, args: &Args) -> Option<Flow> {
        let client = self.clients.slab.get(index)?;
        let account = client.session.account.as_ref()?;
        let command = self.core.router.command(args);
        let id = command;
        let spec = self.core.router.table().get(id);
        if let Some(user) = &account.user
            && command != self.core.router.unknown()
            && !spec.container
            && spec.arity_fits(args.len())
        {
            match user.check(id, spec, args, &mut self.core.spare.keys) {
                Ok(()) if !spec.name.starts_with("acl|") && *spec.name != *"auth" => return None,
                Ok(()) => {}
                Err(why) => {
                    return Some(self.clients.deny(
                        index,
                        command,
                        why,
                        &mut self.nodes,
                        &mut self.core,
                    ));
                }
            }
        }
        self.check_rare(index, command, args)
    }

    /// What is wrong with it, who is not slotway's own user, and commands about users.
    #[cold]
    fn check_rare(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let client = self.clients.slab.get(index)?;
        let account = client.session.account.as_ref()?;
        let in_multi = client.session.modes & mode::MULTI != 0;
        let table = self.core.router.table();
        let spec = table.get(command);
        // Subcommands of CLIENT that Redis has since 7.0: as those that they are like.
        let newer = spec.container && *spec.name == *"client" && is_newer(args);
        let unknown = command == self.core.router.unknown() || (spec.container && args.len() > 1);
        let everything = account.user.as_ref().is_some_and(|user| user.may_everything());
        let realm = account.realm;
        if unknown && !newer {
            // A browser that was led here is closed without a word, as ever.
            let browser = args.is(0, "post") || args.is(0, "host:");
            if everything || realm != OWN || in_multi || browser {
                // The cluster may know it; a transaction refuses it anyway.
                return None;
            }
            let failure = super::transaction::unknown_command(&spec.name, args);
            return Some(self.clients.refuse_to_user(
                index,
                command,
                &failure,
                &mut self.nodes,
                &mut self.core,
            ));
        }
        if !newer && !spec.arity_fits(args.len()) {
            // No node sees what a rule may forbid, even where it knows better.
            if in_multi || everything || realm != OWN {
                return None;
            }
            let failure = Failure::WrongArity { command: spec.name.clone() };
            return Some(self.clients.refuse_to_user(
                index,
                command,
                &failure,
                &mut self.nodes,
                &mut self.core,
            ));
        }
        if in_multi && *spec.name == *"auth" {
            return Some(self.clients.refuse_to_user(
                index,
                command,
                &Failure::AuthInMulti,
                &mut self.nodes,
                &mut self.core,
            ));
        }
        if !account.is_in() {
            return self.check_stranger(index, command, args);
        }
        if let Some(user) = account.user.clone() {
            if newer {
                let like = table.by_name("client|setname")?;
                return match user.check(like, table.get(like), args, &mut self.core.spare.keys) {
                    Ok(()) => None,
                    Err(why) => Some(self.clients.deny(
                        index,
                        command,
                        why,
                        &mut self.nodes,
                        &mut self.core,
                    )),
                };
            }
            // What is not a container was checked before it came here.
            if spec.container
                && let Err(why) = user.check(command, spec, args, &mut self.core.spare.keys)
            {
                return Some(self.clients.deny(
                    index,
                    command,
                    why,
                    &mut self.nodes,
                    &mut self.core,
                ));
            }
            let name = spec.name.strip_prefix("acl|").map(str::to_owned);
            return match name {
                Some(_) if in_multi => Some(self.clients.refuse_to_user(
                    index,
                    command,
                    &Failure::AclInMulti,
                    &mut self.nodes,
                    &mut self.core,
                )),
                Some(name) => self.access.own_acl(
                    index,
                    command,
                    &name,
                    &user,
                    args,
                    &mut self.clients,
                    &mut self.core,
                ),
                None => None,
            };
        }
        base!(self).check_in_realm(index, command, realm, newer, args)
    }

    /// Who has not logged in may log in, and leave; it may be the cluster's default user.
    fn check_stranger(&mut self, index: usize, command: CommandId, args: &Args) -> Option<Flow> {
        let spec = self.core.router.table().get(command);
        if spec.flags.contains(Flags::NO_AUTH) {
            return None;
        }
        match self.stranger_in_cluster(index) {
            Ok(Some(flow)) => Some(flow),
            // It is somebody now: once more.
            Ok(None) => self.check_user(index, args),
            Err(failure) => {
                self.core.stats.denied[DeniedFor::Login as usize] += 1;
                Some(self.clients.refuse_to_user(
                    index,
                    command,
                    &failure,
                    &mut self.nodes,
                    &mut self.core,
                ))
            }
        }
    }

    /// Too much for who has not logged in: [`Flow::Next`] if that one need not, and is somebody
    /// now; [`Flow::Pause`] while that is asked; `None`: it is refused.
    #[cold]
    pub(super) fn stranger_may_send(&mut self, index: usize, error: ProtocolError) -> Option<Flow> {
        if !error.is_strangers() {
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
    pub(super) fn stranger_in_cluster(&mut self, index: usize) -> Result<Option<Flow>, Failure> {
        if !self.access.users.passes_through() || self.access.users.get(b"default").is_some() {
            return Err(Failure::LogInFirst);
        }
        let kept_out = self.clients.is_kept_out(index, &self.core);
        let account = self.clients.slab.get_mut(index).and_then(|c| c.session.account.as_mut());
        match account.and_then(|account| account.answered(Tag::STRANGER)) {
            None if kept_out && self.core.now < self.access.strangers_allowed => {
                Err(Failure::Protected)
            }
            // Who has just been found to be let in is not asked about for every connection.
            None if self.core.now < self.access.strangers_allowed => {
                let realm = self.realm_for(Credentials::default());
                let realm = realm.ok_or_else(|| self.core.too_many())?;
                base!(self).enter_realm(index, realm, b"");
                Ok(None)
            }
            Some(Verdict::Allowed | Verdict::Open | Verdict::Waited) => {
                self.access.strangers_allowed = self.core.now + STRANGERS_INTERVAL;
                if kept_out {
                    return Err(Failure::Protected);
                }
                let realm =
                    self.realm_for(Credentials::default()).ok_or_else(|| self.core.too_many())?;
                base!(self).enter_realm(index, realm, b"");
                Ok(None)
            }
            Some(Verdict::Refused(failure) | Verdict::Told(failure)) => {
                if failure == Failure::LogInFirst {
                    self.access.strangers_refused = self.core.now + STRANGERS_INTERVAL;
                }
                Err(failure)
            }
            None if self.core.now < self.access.strangers_refused => Err(Failure::LogInFirst),
            None => Ok(Some(self.clients.ask_node(
                index,
                Tag::STRANGER,
                Asking::Stranger,
                &mut self.core,
            ))),
        }
    }
}

/// Why a user may not send a command.
pub(super) enum DryRunError {
    /// There is no such command; ACL DRYRUN's error.
    NoCommand(Failure),
    /// The user's rules leave it out; ACL DRYRUN's reply.
    Denied(String),
}

fn is_newer(args: &Args) -> bool {
    args.is(1, "setinfo") || args.is(1, "no-touch")
}
