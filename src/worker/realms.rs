//! Users of the cluster: their connections, which carry the commands of all clients of the same
//! user, so that a node applies its own rules.
//!
//! A **realm** is a user and its password; its number stands in everything that is under way
//! ([`crate::upstream::Pending::realm`]), so that a command that is sent again, elsewhere or later,
//! travels with the rights of its user also when its client has gone. Numbers are given in turn:
//! one that comes again has been out of use for 65,000 others. Number 0 ([`OWN`]) is slotway's own
//! user, for everything else.

use super::clock::{Job, Timer};
use super::state::base;
use super::state::{Access, Base, Clients, Core, Nodes, Operations};
use super::{Source, Worker, reaccount};
use crate::command::CommandId;
use crate::dest::Dest;
use crate::errors::{Code, Failure};
use crate::hash::IntMap;
use crate::resp::Protocol;
use crate::upstream::{Pending, Upstream};
use crate::users::{Credentials, OWN, Verdict};

/// Nobody's: what is under way for a client that is gone and had no gathering.
const NOBODYS: u16 = u16::MAX;
/// Connections of a user without clients are closed after so long, microseconds.
const IDLE: u64 = 60_000_000;
/// A user has no more passwords in use: who may be somebody with any is not to take all places.
const PASSWORDS: usize = 8;
/// What a node has said of a command is believed so long, microseconds.
const BELIEVED: u64 = 1_000_000;

/// A user of the cluster, as long as clients of it are here or were a moment ago.
#[derive(Debug)]
pub(super) struct Realm {
    pub who: Credentials,
    clients: usize,
    /// Since when there are none, microseconds.
    idle_since: u64,
    /// A timer will look at it.
    looked_at: bool,
    /// Its user is being looked at, see `revoke`; and is to be once more.
    pub looking: bool,
    pub(super) doubted: bool,
    /// Its user is not any more. One that logs in by the same name and password is another.
    pub dead: bool,
    /// By [`place`].
    shared: IntMap<(u16, u8), usize>,
    /// By command: what a node has said about it, and until when that holds.
    verdicts: IntMap<u16, (u64, Verdict)>,
}

/// Where a connection stands in [`Realm::shared`]: its node, and its protocol and whether it is for
/// large transfers as one number.
fn place(node: u16, protocol: Protocol, bulk: bool) -> (u16, u8) {
    (node, protocol as u8 | u8::from(bulk) << 1)
}

impl Nodes {
    /// The connection is not among its node's any more.
    pub(super) fn leave_node(&mut self, node: usize, u: usize) {
        if let Some(node) = self.list.get_mut(node) {
            let all = node.shared.iter_mut().chain(&mut node.replica).flatten();
            for slot in all.filter(|s| **s == Some(u)) {
                *slot = None;
            }
        }
    }
}

impl Clients {
    /// The realm of a client that is here.
    pub(super) fn realm_of(&self, client: usize) -> u16 {
        let account = self.slab.get(client).and_then(|c| c.session.account.as_ref());
        account.map_or(OWN, |account| account.realm)
    }
}

impl Access {
    /// Somebody is this user with another password.
    pub(super) fn has_realms_like(&self, user: &[u8], password: &[u8]) -> bool {
        let other = |realm: &Realm| {
            !realm.dead && *realm.who.user == *user && *realm.who.password != *password
        };
        self.realms.values().any(other)
    }

    /// Its clients are one more, or one fewer.
    pub(super) fn count_in_realm(&mut self, number: u16, more: bool, core: &mut Core) {
        let Some(realm) = self.realms.get_mut(&number) else { return };
        realm.clients = match more {
            true => realm.clients + 1,
            false => realm.clients.saturating_sub(1),
        };
        if realm.clients == 0 {
            realm.idle_since = core.now;
            self.realm_later(number, core);
        }
    }

    /// Looks whether it is still without clients, later. One timer is enough: who logs in and out
    /// again and again must not leave as many.
    fn realm_later(&mut self, number: u16, core: &mut Core) {
        let Some(realm) = self.realms.get_mut(&number) else { return };
        if !std::mem::replace(&mut realm.looked_at, true) {
            let due = core.now.max(realm.idle_since) + IDLE;
            core.clock.timers.push(Timer { due, job: Job::Realm(number) });
        }
    }

    /// The user of a command that is sent again is still here; otherwise it is answered.
    pub(super) fn has_realm(&mut self, pending: &Pending, core: &mut Core) -> bool {
        let here = pending.realm == OWN || self.realms.contains_key(&pending.realm);
        if !here {
            core.fail(pending, "slotway", &Failure::UserClosed);
        }
        here
    }

    /// The shared connection of a realm to `node` that `client` uses, if there is one.
    pub(super) fn realm_connection(
        &self,
        realm: u16,
        node: u16,
        protocol: Protocol,
        client: usize,
        clients: &Clients,
    ) -> Option<usize> {
        let bulk = clients.slab.get(client).is_some_and(|c| c.bulk);
        self.realms.get(&realm)?.shared.get(&place(node, protocol, bulk)).copied()
    }

    /// A connection of a user of the cluster that nothing waits for is not made anew, but when
    /// something does: the user may be gone. `true`: it is forgotten.
    pub(super) fn is_unwanted(&mut self, u: usize, nodes: &mut Nodes, core: &mut Core) -> bool {
        let unwanted =
            |up: &Upstream| up.realm != OWN && up.dedicated.is_none() && up.pending.is_empty();
        let unwanted = nodes.upstreams.get(u).is_some_and(unwanted);
        if unwanted {
            self.remove_upstream(u, nodes, core);
        }
        unwanted
    }

    /// A connection is forgotten.
    pub(super) fn leave_realm(&mut self, u: usize, nodes: &mut Nodes) {
        let Some(up) = nodes.upstreams.get(u).filter(|up| up.realm != OWN) else { return };
        let place = place(up.node, up.protocol, up.bulk);
        if let Some(realm) = self.realms.get_mut(&up.realm)
            && realm.shared.get(&place) == Some(&u)
        {
            realm.shared.remove(&place);
        }
    }

    /// A shared connection is not kept any longer; nothing waits on it.
    pub(super) fn remove_upstream(&mut self, u: usize, nodes: &mut Nodes, core: &mut Core) {
        self.leave_realm(u, nodes);
        let Some(up) = nodes.upstreams.get_mut(u) else { return };
        let node = usize::from(up.node);
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(core.link.poll.registry());
        }
        core.turn.resume.append(&mut up.waiters);
        core.turn.resume.extend(up.turns.drain());
        reaccount(&mut core.memory.accounted, &mut up.accounted, 0);
        up.queue.clear(&mut core.spare.pool);
        nodes.upstreams.remove(u);
        nodes.leave_node(node, u);
        core.turn.again.retain(|s| *s != Source::Upstream(u));
    }

    /// The node does not let the user in (any more): who waits is told in the node's words.
    pub(super) fn realm_refused(
        &mut self,
        u: usize,
        text: &str,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(realm) = nodes.upstreams.get(u).map(|up| up.realm) else { return };
        if realm != OWN && crate::users::is_refusal(text.as_bytes()) {
            self.doubt_realm(realm, core);
        }
        let Some(up) = nodes.upstreams.get_mut(u) else { return };
        if up.realm == OWN || up.dedicated.is_some() {
            return;
        }
        // HELLO words it for those who say HELLO.
        let failure = match Code::of_node(text) {
            Some(Code::NoAuth) => Failure::LogInFirst,
            _ => Failure::Verbatim(text.as_bytes().into()),
        };
        let node = usize::from(up.node);
        let all = up.take_unsent(&mut core.spare.pool, |_| true);
        let name = nodes.list.get(node).map(|n| n.addr.to_string()).unwrap_or_default();
        for (pending, _) in all.iter().filter(|(pending, _)| pending.dest != Dest::Discard) {
            core.fail(pending, &name, &failure);
        }
    }

    /// What a node said lately about this command and this user.
    pub(super) fn believed(&self, realm: u16, command: CommandId, core: &Core) -> Option<Verdict> {
        let (until, verdict) = self.realms.get(&realm)?.verdicts.get(&command.0)?;
        (core.now < *until).then(|| verdict.clone())
    }

    pub(super) fn believe(
        &mut self,
        realm: u16,
        command: CommandId,
        verdict: Verdict,
        core: &mut Core,
    ) {
        if let Some(realm) = self.realms.get_mut(&realm) {
            realm.verdicts.insert(command.0, (core.now + BELIEVED, verdict));
        }
    }
}

impl Base<'_> {
    /// It may have had no clients for a while.
    pub(super) fn realm_ends(&mut self, number: u16) {
        let Some(realm) = self.access.realms.get_mut(&number) else { return };
        realm.looked_at = false;
        // With clients it is looked at again when the last of them has gone.
        if realm.clients > 0 {
            return;
        }
        let over = self.core.now >= realm.idle_since + IDLE;
        if !over || !self.close_realm(number) {
            self.access.realm_later(number, self.core);
        }
    }

    /// Closes its connections. `false`: something is under way on them.
    fn close_realm(&mut self, number: u16) -> bool {
        let Some(realm) = self.access.realms.get(&number) else { return true };
        let all: Vec<usize> = realm.shared.values().copied().collect();
        let busy =
            |&u: &usize| self.nodes.upstreams.get(u).is_some_and(|up| !up.pending.is_empty());
        if all.iter().any(busy) {
            return false;
        }
        self.access.realms.remove(&number);
        self.access.unverified.remove(&number);
        for u in all {
            self.access.remove_upstream(u, self.nodes, self.core);
        }
        let lent = |&u: &usize| self.nodes.upstreams.get(u).is_some_and(|up| up.realm == number);
        let idle: Vec<usize> = self.nodes.dedicated.idle.iter().copied().filter(lent).collect();
        idle.into_iter().for_each(|u| self.clients.close_dedicated(u, self.nodes, self.core));
        true
    }

    /// The shared connection of a realm to `node` that `client` uses; made if there is none.
    pub(super) fn realm_upstream(
        &mut self,
        realm: u16,
        node: u16,
        protocol: Protocol,
        client: usize,
    ) -> usize {
        if let Some(u) = self.access.realm_connection(realm, node, protocol, client, self.clients) {
            return u;
        }
        let mut up = Upstream::new(node, protocol);
        up.realm = realm;
        up.bulk = self.clients.slab.get(client).is_some_and(|c| c.bulk);
        let place = place(node, protocol, up.bulk);
        let u = self.nodes.upstreams.insert(up);
        if let Some(realm) = self.access.realms.get_mut(&realm) {
            realm.shared.insert(place, u);
        }
        self.nodes.connect(u, self.core);
        u
    }
}

impl Operations {
    /// With whose rights a command of `dest` is sent.
    #[cold]
    pub(super) fn realm_of_dest(&self, dest: &Dest, clients: &Clients) -> u16 {
        match *dest {
            Dest::Client { index, generation, .. } => {
                let client = clients.slab.get(index as usize);
                match client.is_some_and(|c| c.generation == generation) {
                    true => clients.realm_of(index as usize),
                    false => NOBODYS,
                }
            }
            Dest::Part { gather, .. } => {
                self.gatherings.get(gather as usize).map_or(NOBODYS, |g| g.realm)
            }
            // They go over connections that are lent, which know their realm.
            Dest::Join { .. } => NOBODYS,
            Dest::Discard => OWN,
        }
    }
}

impl Worker {
    /// The realm of these credentials, which a node has found right. `None`: there are too many.
    pub(super) fn realm_for(&mut self, who: Credentials) -> Option<u16> {
        if let Some((number, _)) = self.access.realms.iter().find(|(_, r)| !r.dead && r.who == who)
        {
            return Some(*number);
        }
        let same: Vec<u16> = self.realms_of(&who.user).collect();
        let too_like = same.len() >= PASSWORDS;
        if too_like
            || self.access.realms.len()
                >= self.core.settings.users.min(self.core.shared.max_users())
        {
            // One that nobody is left of makes room.
            let unused = self
                .access
                .realms
                .iter()
                .filter(|(n, realm)| realm.clients == 0 && (!too_like || same.contains(n)));
            let oldest = unused.min_by_key(|(_, realm)| realm.idle_since).map(|(n, _)| *n);
            if !oldest.is_some_and(|number| base!(self).close_realm(number)) {
                return None;
            }
        }
        let taken = |number: &u16| {
            matches!(*number, OWN | NOBODYS) || self.access.realms.contains_key(number)
        };
        let mut next = self.access.next_realm.wrapping_add(1);
        while taken(&next) {
            next = next.wrapping_add(1);
        }
        self.access.next_realm = next;
        let realm = Realm {
            who,
            clients: 0,
            idle_since: self.core.now,
            looked_at: false,
            looking: false,
            doubted: false,
            dead: false,
            shared: IntMap::default(),
            verdicts: IntMap::default(),
        };
        self.access.realms.insert(next, realm);
        self.access.realm_later(next, &mut self.core);
        self.access.arm_looks(0, &mut self.core);
        Some(next)
    }

    fn realms_of<'a>(&'a self, user: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
        let of = |realm: &Realm| !realm.dead && *realm.who.user == *user;
        self.access.realms.iter().filter(move |(_, realm)| of(realm)).map(|(number, _)| *number)
    }
}
