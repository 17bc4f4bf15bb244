//! All parts of a worker together ([`Engine`]), and what both `dispatch` and `delivery` need of
//! them.
//!
//! - `answer`, `half_moved`: delivering replies to clients, and to the commands of their parts
//! - `emulation`, `keyspace`: the next step of commands that take several
//! - `errand`: ending errands, and taking back what a client was lent
//! - `everyone`: questions to all workers; `counters`: metrics
//! - `deadlines`: overdue commands; `renew`: a changed configuration

mod answer;
mod counters;
mod deadlines;
mod emulation;
mod errand;
mod everyone;
mod half_moved;
mod keyspace;
mod renew;

use crate::access::Access;
use crate::clients::Clients;
use crate::common::Core;
use crate::node_scripts::scripts::Scripts;
use crate::nodes::Nodes;
use crate::operations::Operations;
use crate::recorder::seen;
use crate::subscribers::Subscribers;

/// All parts of a worker.
pub(crate) struct Engine {
    /// State that all other parts share.
    pub core: Core,
    /// The nodes, and the connections to them.
    pub nodes: Nodes,
    pub clients: Clients,
    /// The users of clients, and their rights.
    pub access: Access,
    /// Subscriptions, and PUBLISH commands that wait for them.
    pub subscribers: Subscribers,
    pub scripts: Scripts,
    /// Commands of more than one step that are in progress.
    pub ops: Operations,
    /// Observed commands: hot keys, big keys, slow commands, spans.
    pub seeing: seen::Seeing,
}
