//! Slots whose keys are at two nodes, because they are being migrated from one to the other.
//!
//! A node answers TRYAGAIN to a command with several keys of such a slot while it has some of them
//! and lacks others. A command that can be divided ([`Router::key_by_key`]: MGET, DEL …) is then
//! sent key by key: each key is at one of the two nodes, and ASK redirects to it. The parts take
//! the command's place in its client's lane together, so they keep their order with the client's
//! other commands. All other commands wait for the end of the migration; its target is looked up
//! for the error at their deadline.
//!
//! [`Router::key_by_key`]: crate::route::Router::key_by_key

use crate::dest::{Dest, NodeId};
use crate::engine::Engine;
use crate::errors::Cause;
use crate::operations::Gathering;

impl Engine {
    /// Delivers the reply to a divided command that is itself a part of another gathering.
    pub(super) fn deliver_part(&mut self, gathering: &mut Gathering, reply: Result<&[u8], Cause>) {
        let Dest::Part { gather, first } = gathering.to else { return };
        if let Some(slow) = gathering.slow.take()
            && let Some(whole) = self.ops.gatherings.get_mut(gather as usize)
        {
            whole.slow = Some(slow);
        }
        match reply {
            Ok(reply) => self.part(gather, first, NodeId::NONE, reply),
            Err(cause) => {
                self.fail_part(gather, first, "slotway".to_owned(), &cause.into_failure());
            }
        }
    }
}
