//! Commands of more than one step that are under way.

pub(crate) mod busy;
pub(crate) mod emulation;
pub(crate) mod errand;
pub(crate) mod fleet;
pub(crate) mod forward;
pub(crate) mod gatherings;
pub(crate) mod half_moved;
pub(crate) mod holds;
pub(crate) mod join;
pub(crate) mod keyspace;
pub(crate) mod publish;
pub(crate) mod resends;
pub(crate) mod scattered;
pub(crate) mod transaction;
pub(crate) mod watch;

use slab::Slab;

use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::ops::Parts;

/// A command that went to several slots or nodes, until all have answered.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(crate) parts: Parts,
    /// Who waits for the reply.
    pub(crate) to: Dest,
    /// Its client's index and generation.
    pub(crate) lane: ClientId,
    /// With whose rights it goes on, see `realms`.
    pub(crate) realm: u16,
    pub(crate) command: CommandId,
    pub(crate) started: u64,
    /// What a slow log shows of it, where its parts are other commands.
    pub(crate) kept: Option<Box<crate::observe::KeptArgs>>,
    /// The last of its parts that was slow.
    pub(crate) slow: Option<Box<crate::observe::SlowEntry>>,
    /// What it sets, if the nodes agree (CONFIG SET).
    pub(crate) sets: Option<crate::observe::SlowLogSettings>,
    /// A CONFIG SET of what a node says of itself: when the nodes agree, they are asked again.
    pub(crate) renames: bool,
    /// Bytes of its parts' replies.
    pub(crate) received: usize,
    /// Bytes that the worker has put on its account.
    pub(crate) accounted: usize,
}

/// Commands of more than one step that are under way.
pub(crate) struct Operations {
    pub(crate) gatherings: gatherings::Gatherings,
    pub(crate) joins: Slab<join::Join>,
    /// The number of the last emulated command.
    pub(crate) next_emulation: u64,
    /// From where these are counted: another number for each worker that ever was.
    pub born: u64,
}
