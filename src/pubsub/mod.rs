//! Pub/sub: one upstream subscription per topic, shared by all subscribers.
//!
//! A single thread, the **hub** ([`crate::hub`]), holds the RESP3 subscription connections to the
//! nodes. A worker tells it when a topic (a channel, a pattern or a shard channel) gets its first
//! subscriber and when it loses its last one; the hub reads each message once and passes it to the
//! workers that have subscribers, which share its bytes ([`Frames`]).
//!
//! - `link`: messages between the hub and the workers
//! - `topic`: state of a topic that hub and workers share
//! - `frames`: published messages on their way to subscribers
//! - `place`: the node at which a channel or pattern is subscribed and published
//! - `stats`: the hub's metrics
//! - [`push`]: parses what nodes send on a subscription connection
//! - [`book`]: the hub's logic, without I/O
//!
//! <https://redis.io/docs/latest/develop/pubsub/>

pub mod book;
mod frames;
mod link;
mod place;
pub mod push;
mod stats;
mod topic;

pub use frames::Frames;
pub use link::{HubEvent, HubRequest, Token};
pub use place::{hash, ident, rank};
pub use push::{NodeFrame, read as read_push};
pub use stats::{GapReason, HubStats};
pub use topic::Topic;
