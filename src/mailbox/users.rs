//! Questions of workers about users of the cluster, which the control thread puts to nodes.

use std::sync::Weak;

use super::WorkerHandle;
use crate::dest::ClientId;
use crate::users::{Credentials, SubscribedTopic, UserCheck};

/// A question about a user on behalf of a client, answered by [`super::ToWorker::Verified`].
#[derive(Debug, Clone)]
pub struct UserQuestion {
    /// The question.
    pub asking: UserCheck,
    /// The client that waits for the answer.
    pub client: ClientId,
    /// Dead once the client no longer waits.
    pub wanted: Weak<()>,
    /// The worker to answer.
    pub to: WorkerHandle,
}

/// The periodic check of a user of the cluster whose clients are connected: does the user still
/// exist, and may it still receive what it is subscribed to? Answered by
/// [`super::ToWorker::Reverified`].
#[derive(Debug)]
pub struct UserRecheck {
    /// The worker's number for the user.
    pub realm: u16,
    /// Name and password of the user.
    pub who: Credentials,
    /// Whether to check the password as well.
    pub password: bool,
    /// The topics that the user's clients are subscribed to.
    pub topics: Vec<SubscribedTopic>,
    /// The worker to answer.
    pub to: WorkerHandle,
}
