//! Slots whose keys are at two nodes, because they are being migrated from one to the other.
//!
//! A node answers TRYAGAIN to a command with several keys of such a slot while it has some of them
//! and lacks others. A command that can be divided ([`Router::key_by_key`]: MGET, DEL …) is then
//! sent key by key: each key is at one of the two nodes, and ASK leads there. Its parts take its
//! turn in its client's lane together, so that what the client sent before and after keeps its
//! order. All other commands wait for the end of the migration; where it leads is found out for the
//! error that they get at their deadline.
//!
//! [`Router::key_by_key`]: crate::route::Router::key_by_key

use crate::dest::{Dest, NodeId};
use crate::engine::Engine;
use crate::errors::Cause;
use crate::operations::Gathering;

impl Engine {
    /// All parts of a divided command have answered, and it is a part of another command.
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
