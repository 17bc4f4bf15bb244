//! All parts of a worker together, and what passes between them below commands and replies.
//!
//! - `answer`, `half_moved`: a reply finds its client, or the command that it is a part of
//! - `emulation`, `keyspace`: commands in steps go on
//! - `errand`: what a client had been lent is given back
//! - `everyone`: questions to all workers; `counters`: what is told to whoever counts
//! - `deadlines`: what has waited for too long; `renew`: another configuration

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
    /// What all other parts work with.
    pub core: Core,
    /// The cluster's nodes, and the connections to them.
    pub nodes: Nodes,
    pub clients: Clients,
    /// Who clients are, and what they may do.
    pub access: Access,
    /// Who is subscribed to what, and which PUBLISHes wait for it.
    pub subscribers: Subscribers,
    pub scripts: Scripts,
    /// Commands of more than one step that are under way.
    pub ops: Operations,
    /// What is seen of commands as they pass.
    pub seeing: seen::Seeing,
}
