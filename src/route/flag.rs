//! Flags of a command on its way to a node, one bit each.

/// Sending it twice does no harm.
pub const READ_ONLY: u8 = 1;
/// It came out of a lane of [`Holds`](crate::placement::Holds), which wants to know when it is answered.
pub const LANE: u8 = 2;
/// It was sent before its slot was held, and the hold counts on hearing of it.
pub const TRACKED: u8 = 4;
/// It is for this node and no other (a part of a command for several nodes).
pub const NODE_BOUND: u8 = 8;
/// ASKING goes before it, which is the entry in front.
pub const ASKING: u8 = 16;
/// Its client speaks RESP3.
pub const RESP3: u8 = 32;
/// The SCRIPT LOAD of its script went before it in the same turn. Of a batch: there is an
/// EVALSHA in it.
pub const SCRIPT: u8 = 64;
/// It is PUBLISH or SPUBLISH, or a batch that has one in it: its reply counts subscribers.
pub const PUBLISHES: u8 = 128;
/// Any of what makes the worker look twice when the reply is here.
pub const SPECIAL: u8 = LANE | TRACKED;
