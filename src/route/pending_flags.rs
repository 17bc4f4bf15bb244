//! What is known of a command on its way to a node, one bit each.

use crate::resp::Protocol;

bitflags::bitflags! {
    /// The flags of a command on its way to a node.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PendingFlags: u8 {
        /// It only reads, so it may be sent twice.
        const READ_ONLY = 1;
        /// Sent from a lane of [`Holds`](crate::placement::Holds), which must be told when it is
        /// answered.
        const LANE = 2;
        /// Sent before its slot was held; the hold must be told when it is answered.
        const TRACKED = 4;
        /// For this node only: part of a command for several nodes.
        const NODE_BOUND = 8;
        /// Preceded by ASKING, which is the entry in front.
        const ASKING = 16;
        /// The client uses RESP3.
        const RESP3 = 32;
        /// Its script was sent before it, by SCRIPT LOAD in the same turn. For a batch: contains
        /// EVALSHA.
        const SCRIPT = 64;
        /// PUBLISH or SPUBLISH, or a batch with one of them: the reply counts subscribers.
        const PUBLISHES = 128;
        /// Flags that need work when the reply arrives.
        const SPECIAL = Self::LANE.bits() | Self::TRACKED.bits();
    }
}

impl PendingFlags {
    /// The flags that a client's protocol gives its commands.
    #[inline]
    pub const fn of_protocol(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Resp2 => PendingFlags::empty(),
            Protocol::Resp3 => PendingFlags::RESP3,
        }
    }
}
