//! Who clients are, and what they may do.

pub(crate) mod acl;
pub(crate) mod login;
pub(crate) mod realms;
pub(crate) mod revoke;

use std::sync::Arc;

use crate::hash::{IntMap, IntSet};
use crate::users::Users;

/// Who clients are, and what they may do.
pub(crate) struct Access {
    /// Slotway's own, their rules made for `router`'s commands.
    pub users: Arc<Users>,
    /// The cluster's, as far as clients of theirs are here.
    pub realms: IntMap<u16, realms::Realm>,
    pub(crate) next_realm: u16,
    /// Realms whose user may not ask nodes for their IDs.
    pub unverified: IntSet<u16>,
    pub looks: revoke::Looks,
    /// Until when the cluster's default user is known to need a password, microseconds.
    pub(crate) strangers_refused: u64,
    /// Until when it is known to need none.
    pub(crate) strangers_allowed: u64,
    pub failures: login::Failures,
}
