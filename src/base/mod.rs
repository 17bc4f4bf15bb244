//! The parts that operations work with, and what takes several of them.

pub(crate) mod arrivals;
pub(crate) mod connections;
pub(crate) mod dedicated;
pub(crate) mod lanes;
pub(crate) mod realms;
pub(crate) mod users;

use crate::access::Access;
use crate::clients::Clients;
use crate::common::Core;
use crate::node_scripts::scripts::Scripts;
use crate::nodes::Nodes;
use crate::subscribers::Subscribers;

/// The parts that operations work with, each borrowed.
pub(crate) struct Base<'a> {
    pub core: &'a mut Core,
    pub nodes: &'a mut Nodes,
    pub clients: &'a mut Clients,
    pub access: &'a mut Access,
    pub subscribers: &'a mut Subscribers,
    pub scripts: &'a mut Scripts,
}

/// The [`Base`] of a worker, whose other parts stay free to be borrowed.
macro_rules! base {
    ($worker:expr) => {
        Base {
            core: &mut $worker.core,
            nodes: &mut $worker.nodes,
            clients: &mut $worker.clients,
            access: &mut $worker.access,
            subscribers: &mut $worker.subscribers,
            scripts: &mut $worker.scripts,
        }
    };
}

pub(crate) use base;
