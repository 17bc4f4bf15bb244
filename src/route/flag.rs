//! Bit flags of a command on its way to a node.

/// It only reads, so it may be sent twice.
pub const READ_ONLY: u8 = 1;
/// Sent from a lane of [`Holds`](crate::placement::Holds), which must be told when it is answered.
pub const LANE: u8 = 2;
/// Sent before its slot was held; the hold must be told when it is answered.
pub const TRACKED: u8 = 4;
/// For this node only: part of a command for several nodes.
pub const NODE_BOUND: u8 = 8;
/// Preceded by ASKING, which is the entry in front.
pub const ASKING: u8 = 16;
/// The client uses RESP3.
pub const RESP3: u8 = 32;
/// Its script was sent before it, by SCRIPT LOAD in the same turn. For a batch: contains EVALSHA.
pub const SCRIPT: u8 = 64;
/// PUBLISH or SPUBLISH, or a batch with one of them: the reply counts subscribers.
pub const PUBLISHES: u8 = 128;
/// Flags that need work when the reply arrives.
pub const SPECIAL: u8 = LANE | TRACKED;
