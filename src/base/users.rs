//! Users as they change, and what their clients may do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::base::Base;
use crate::client::{Grammar, Question, SessionModes};
use crate::clients::Flow;
use crate::command::{CommandId, CommandTable, Flags};
use crate::errors::Failure;
use crate::hash::{IntMap, IntSet};
use crate::metrics::{DenialReason, LoginOutcome};
use crate::resp::{Args, write};
use crate::route::{Local, Plan, PubSub, Router, Script, Transaction};
use crate::users::{
    Account, CheckResult, CommandTag, OWN_REALM, Reverified, SubscribedTopic, User, UserCheck,
    Users,
};

/// CLIENT ID is unique over all workers.
pub(crate) static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);
/// In every so many of these rounds the password is asked about as well: a user that was deleted and
/// made anew in between has another.
const PASSWORD: u32 = 10;

impl Base<'_> {
    /// CLIENT INFO, CLIENT REPLY, and those that all workers are asked about.
    pub(crate) fn client_command(
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
            Local::ClientInfo => {
                self.clients.listing().info(index, &mut reply, self.nodes, self.core)
            }
            Local::ClientReply => match reply_mode(args, client.session.modes) {
                Some(modes) => {
                    client.session.modes = modes;
                    if modes.intersects(SessionModes::SILENT | SessionModes::SKIP) {
                        self.core.stats.count_own(command, b"+");
                        return Flow::Next;
                    }
                    write::simple(&mut reply, "OK");
                }
                None => Failure::Syntax.write(&mut reply),
            },
            _ => match Question::parse(args, grammar, client.session.id, |n| users.accepts_name(n))
            {
                Ok(question) => {
                    return self.clients.ask_everyone(index, command, question, self.core);
                }
                Err(failure) => failure.write(&mut reply),
            },
        }
        self.core.stats.count_own(command, &reply);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.answer(&reply, &mut self.core.spare.pool, &mut self.core.spare.replies);
        }
        self.clients.mark_client(index, self.core);
        Flow::Next
    }

    pub(crate) fn set_commands(&mut self, table: Arc<CommandTable>) {
        // Commands under way carry their ids; an overlay keeps those of known commands, and only
        // "unknown", the entry past the end, moves.
        let old_unknown = self.core.router.unknown().index();
        self.core.router = Arc::new(Router::with_rules(
            table,
            self.core.router.rules().clone(),
            Arc::clone(self.core.router.views()),
        ));
        let new_unknown = self.core.router.unknown().index();
        for (_, client) in &mut self.clients.slab {
            if client.session.last_command.index() == old_unknown {
                client.session.last_command = self.core.router.unknown();
            }
        }
        if new_unknown > old_unknown {
            let unknown = self.core.stats.commands.get(old_unknown).copied().unwrap_or_default();
            self.core.stats.commands.resize(new_unknown + 1, Default::default());
            if let Some(slot) = self.core.stats.commands.get_mut(old_unknown) {
                *slot = Default::default();
            }
            if let Some(slot) = self.core.stats.commands.get_mut(new_unknown) {
                *slot = unknown;
            }
        }
        self.compile_users();
    }

    /// One round: those that hear something. The others' commands are seen by nodes.
    pub(crate) fn look_at_realms(&mut self) {
        self.access.looks.armed = false;
        self.access.looks.rounds = self.access.looks.rounds.wrapping_add(1);
        let password = self.access.looks.rounds.is_multiple_of(PASSWORD);
        let mut heard: IntMap<u16, IntSet<u32>> = IntMap::default();
        for (_, client) in &self.clients.slab {
            let (Some(account), Some(subscriptions)) =
                (&client.session.account, &client.subscriptions)
            else {
                continue;
            };
            if account.realm != OWN_REALM && !client.gone {
                heard.entry(account.realm).or_default().extend(subscriptions.topics.keys());
            }
        }
        let all = heard.values().map(|topics| topics.len() as u64).sum();
        for (realm, topics) in heard {
            let topics = topics.into_iter().filter_map(|index| {
                let local = self.subscribers.topics.local.get(index as usize)?;
                let place = (index, local.generation);
                Some(SubscribedTopic { kind: local.kind, name: local.name.clone(), place })
            });
            let topics = topics.collect();
            self.access.look_at_realm(realm, password, topics, self.core);
        }
        self.access.arm_looks(all, self.core);
    }

    /// The answer.
    pub(crate) fn looked(&mut self, looked: &Reverified) {
        let Some(realm) = self.access.realms.get_mut(&looked.realm) else { return };
        realm.looking = false;
        let doubted = std::mem::take(&mut realm.doubted);
        let mut close: Vec<usize> = Vec::new();
        if looked.gone {
            realm.dead = true;
            close.extend(self.clients.slab.iter().map(|(index, _)| index));
        } else if doubted {
            self.access.doubt_realm(looked.realm, self.core);
        }
        for &(index, generation) in &looked.denied {
            let local = self.subscribers.topics.local.get(index as usize);
            let local = local.filter(|local| local.generation == generation);
            let subscribers = local.into_iter().flat_map(|local| &local.subscribers);
            close.extend(subscribers.map(|subscriber| subscriber.client as usize));
        }
        close.retain(|index| self.clients.realm_of(*index) == looked.realm);
        for index in close {
            let Some(client) = self.clients.slab.get(index) else { continue };
            let hears = client.subscriptions.is_some() || client.lent.is_some();
            match hears || !looked.gone || client.is_drained() {
                true => self.clients.close(index, self.core),
                // What it waits for is answered first.
                false => self.clients.stop_reading(index, self.core),
            }
        }
    }

    /// A connection begins, or begins anew (RESET).
    pub(crate) fn begin_account(&mut self, index: usize) {
        self.leave_account(index);
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if self.access.users.is_open() {
            return;
        }
        let user = self.access.users.user_without_login().cloned();
        client.session.account = Some(Box::new(Account::without_login(user)));
        client.session.restrict();
        self.clients.logins().set_deadline(index, self.core);
    }

    /// The client is gone, or somebody else.
    pub(crate) fn leave_account(&mut self, index: usize) {
        let client = self.clients.slab.get_mut(index).filter(|client| client.gone);
        if let Some(client) = client {
            let database = std::mem::take(&mut client.session.database);
            self.access.change_database(database, 0, self.core);
        }
        let account = self.clients.slab.get_mut(index).and_then(|c| c.session.account.as_mut());
        let Some(account) = account else { return };
        let realm = account.leave();
        if realm != OWN_REALM {
            self.access.count_in_realm(realm, false, self.core);
            // What watches or monitors does so with the rights of the one who is not here any more.
            let lent = self.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut());
            let mut all = Vec::new();
            if let Some(lent) = lent {
                all.extend(lent.heard.iter().copied());
                all.extend(lent.watches.iter().filter_map(|watch| watch.upstream));
            }
            all.into_iter()
                .for_each(|conn| self.clients.lending().close(conn, self.nodes, self.core));
        }
    }

    /// The client is `name` by its certificate, and needs no password. `false`: there is no such
    /// user, or not any more.
    pub(crate) fn login_by_certificate(&mut self, index: usize, name: &str) -> bool {
        let Some(user) = self.access.users.login_by_certificate(name).cloned() else {
            return false;
        };
        self.core.stats.logins[LoginOutcome::Certificate as usize] += 1;
        self.enter_own(index, user);
        true
    }

    pub(crate) fn enter_own(&mut self, index: usize, user: Arc<User>) {
        self.leave_account(index);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.session.account.get_or_insert_default().user = Some(user);
            client.session.restrict();
        }
    }

    pub(crate) fn enter_realm(&mut self, index: usize, realm: u16, name: &[u8]) {
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
    pub(crate) fn set_users(&mut self, users: &Users) {
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
        if account.realm != OWN_REALM && !self.access.users.passes_through() {
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
            multi.discard();
        }
        // As Redis does with who listens to what it may not hear any more.
        !changed || self.subscribers.may_hear_all(index, &new, self.clients)
    }

    /// Other commands from now on.
    pub(crate) fn compile_users(&mut self) {
        let users = Arc::clone(&self.access.users);
        if !users.is_open() {
            self.set_users(&users);
        }
    }

    /// A node knows what users of the cluster may do. What no node would see it is asked about.
    pub(crate) fn check_in_realm(
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
        let channels = match self.core.router.plan(
            self.clients.view_of(index),
            command,
            args,
            &mut self.core.spare.keys,
        ) {
            Plan::PubSub(PubSub::Subscribe(_), _) => true,
            Plan::PubSub(PubSub::Unsubscribe(_), _) | Plan::Local(_) => false,
            // Its own connection could not be told from others' by a node that refuses MULTI.
            Plan::Transaction(which) if which != Transaction::Watch => false,
            // Slotway's own scripts go with it.
            Plan::Script(Script::Flush, _) => false,
            _ => return None,
        };
        let client = self.clients.slab.get_mut(index)?;
        let tag = CommandTag::of(args);
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
            Some(CheckResult::Allowed | CheckResult::Open | CheckResult::Waited) => None,
            Some(CheckResult::Refused(failure) | CheckResult::Told(failure)) => {
                if matches!(failure, Failure::UserGone { .. }) {
                    self.access.doubt_realm(realm, self.core);
                }
                let reason = if channels { DenialReason::Channel } else { DenialReason::Command };
                self.core.stats.denied[reason as usize] += 1;
                Some(
                    self.clients
                        .refusals()
                        .answer_user(index, command, &failure, self.nodes, self.core),
                )
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
                Some(self.clients.logins().ask_node(
                    index,
                    tag,
                    UserCheck::Command { user, args },
                    self.core,
                ))
            }
        }
    }
}

/// The modes after CLIENT REPLY; `None` is a syntax error.
fn reply_mode(args: &Args, modes: SessionModes) -> Option<SessionModes> {
    let others = modes.difference(SessionModes::SILENT | SessionModes::SKIP);
    if args.is(2, "on") {
        Some(others)
    } else if args.is(2, "off") {
        Some(others | SessionModes::SILENT)
    } else if args.is(2, "skip") {
        let silent = modes.contains(SessionModes::SILENT);
        Some(if silent { modes } else { modes | SessionModes::SKIP })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ArgRange;

    pub(crate) fn after(word: &str, modes: SessionModes) -> Option<SessionModes> {
        let text = format!("clientreply{word}");
        let ranges = [(0, 6), (6, 11), (11, text.len() as u32)];
        let ranges = ranges.map(|(start, end)| ArgRange { start, end });
        reply_mode(&Args::new(text.as_bytes(), &ranges), modes)
    }

    #[test]
    fn client_reply() {
        let other = SessionModes::SUSPENDED;
        assert_eq!(after("OFF", other), Some(other | SessionModes::SILENT));
        assert_eq!(after("skip", other), Some(other | SessionModes::SKIP));
        assert_eq!(after("skip", SessionModes::SILENT), Some(SessionModes::SILENT));
        assert_eq!(after("On", other | SessionModes::SILENT | SessionModes::SKIP), Some(other));
        assert_eq!(after("x", SessionModes::empty()), None);
    }
}
