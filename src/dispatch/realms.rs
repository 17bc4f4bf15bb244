//! Users of the cluster. Their connections carry the commands of all clients of the same user, so
//! that a node applies its own rules.
//!
//! A **realm** is a user of the cluster with its password, or slotway's own user in one database.
//! Each command in flight has the number of its realm ([`crate::upstream::Pending::realm`]), so a
//! command that is sent again keeps the rights of its user even if its client has disconnected.
//! Numbers of users are assigned in turn, and a number is reused only after some 49,000 others.
//! Number 0 ([`OWN_REALM`]) is slotway's own user in database 0.

use crate::access::realms::Realm;
use crate::base::{Base, base};
use crate::client::SessionModes;
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::hash::IntMap;
use crate::operations::gatherings::NOBODYS;
use crate::resp::{Args, strict_i64};
use crate::users::{Credentials, OWN_REALM, database_of, database_realm};

/// Maximum number of passwords of one user in use: a user that accepts any password must not use up
/// all realms.
const MAX_PASSWORDS: usize = 8;

impl Dispatcher<'_> {
    /// The realm of these credentials, which a node has verified; a new one if necessary. `None`:
    /// the limit of realms is reached.
    pub(super) fn realm_for(&mut self, who: Credentials) -> Option<u16> {
        if let Some((number, _)) =
            self.engine.access.realms.iter().find(|(_, r)| !r.dead && r.who == who)
        {
            return Some(*number);
        }
        let same: Vec<u16> = self.realms_of(&who.user).collect();
        let too_like = same.len() >= MAX_PASSWORDS;
        if !self.has_room_for_realm(too_like.then_some(&same)) {
            return None;
        }
        let taken = |number: &u16| {
            database_of(*number).is_some()
                || *number == NOBODYS
                || self.engine.access.realms.contains_key(number)
        };
        let mut next = self.engine.access.next_realm.wrapping_add(1);
        while taken(&next) {
            next = next.wrapping_add(1);
        }
        self.engine.access.next_realm = next;
        let realm = Realm {
            who,
            clients: 0,
            idle_since: self.engine.core.now,
            looked_at: false,
            looking: false,
            doubted: false,
            dead: false,
            shared: IntMap::default(),
            verdicts: IntMap::default(),
        };
        self.engine.access.realms.insert(next, realm);
        self.engine.access.realm_later(next, &mut self.engine.core);
        self.engine.access.arm_looks(0, &mut self.engine.core);
        Some(next)
    }

    /// Whether one more realm may be created, of a user or a database. At the limit, the realm that
    /// has been without clients for longest is closed to make room. With `these`, one of them has
    /// to be closed.
    pub(super) fn has_room_for_realm(&mut self, these: Option<&[u16]>) -> bool {
        let core = &self.engine.core;
        let limit = core.settings.users.min(core.shared.max_users());
        let realms = &self.engine.access.realms;
        if these.is_none() && realms.len() < limit {
            return true;
        }
        let may_go = |number: &u16| these.is_none_or(|these| these.contains(number));
        let unused = realms.iter().filter(|(n, realm)| realm.clients == 0 && may_go(n));
        let oldest = unused.min_by_key(|(_, realm)| realm.idle_since).map(|(n, _)| *n);
        oldest.is_some_and(|number| base!(self.engine).close_realm(number))
    }

    /// Why SELECT is refused for what the client's connections are; `None`: it is not.
    pub(super) fn refused_select(&mut self, index: usize, args: &Args) -> Option<Failure> {
        let number = u16::try_from(args.get(1).and_then(strict_i64)?).ok()?;
        let client = self.engine.clients.slab.get(index)?;
        let target = self.engine.core.settings.databases.target(&client.session, number);
        if target.database >= self.engine.nodes.topology.identity.databases_of(target.upstream) {
            return None; // it is no database
        }
        let databases = &self.engine.core.settings.databases;
        let after = databases.view(&client.session, target);
        let channels = |view| {
            let view = self.engine.core.router.view(view);
            (view.upstream(), view.channel_upstreams())
        };
        let moves = channels(after) != channels(client.session.view);
        if moves && client.session.modes.contains(SessionModes::SUBSCRIBED) {
            return Some(Failure::SelectWhileSubscribed);
        }
        (!self.may_select(target.database)).then(|| self.engine.core.too_many())
    }

    /// Whether a client may select `database`. At the limit of realms only if it is in use or
    /// another realm can be closed.
    pub(super) fn may_select(&mut self, database: u16) -> bool {
        let realm = database_realm(database);
        realm == OWN_REALM
            || self.engine.access.realms.contains_key(&realm)
            || self.has_room_for_realm(None)
    }

    /// The realms of a user of the cluster, one for each password in use.
    fn realms_of<'a>(&'a self, user: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
        let of = |realm: &Realm| !realm.dead && *realm.who.user == *user;
        self.engine
            .access
            .realms
            .iter()
            .filter(move |(_, realm)| of(realm))
            .map(|(number, _)| *number)
    }
}
