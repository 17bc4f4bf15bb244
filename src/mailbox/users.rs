//! Workers' questions to nodes about users. The asking itself is control's.

use std::sync::Weak;

use super::WorkerHandle;
use crate::dest::ClientId;
use crate::users::{Credentials, SubscribedTopic, UserCheck};

/// A worker's question to a node, for one of its clients.
#[derive(Debug, Clone)]
pub struct UserQuestion {
    /// What is asked.
    pub asking: UserCheck,
    /// The client, which waits: its index and its generation.
    pub client: ClientId,
    /// Gone when nobody waits any more.
    pub wanted: Weak<()>,
    /// Who asks.
    pub to: WorkerHandle,
}

/// What a worker wants to know, from time to time, of a user of the cluster whose clients are here.
#[derive(Debug)]
pub struct UserRecheck {
    /// The worker's number of the user.
    pub realm: u16,
    /// The user.
    pub who: Credentials,
    /// Whether the password is still right is asked, too.
    pub password: bool,
    /// What may it still hear of this?
    pub topics: Vec<SubscribedTopic>,
    /// Who asks.
    pub to: WorkerHandle,
}
