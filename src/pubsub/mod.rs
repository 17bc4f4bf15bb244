//! Pub/sub: who listens to what, one upstream subscription for all.
//!
//! One thread, the **hub** ([`crate::hub`]), holds the RESP3 subscription connections to the nodes
//! for all workers.
//! A worker tells it the first subscriber of a topic (a channel, a pattern, a shard channel) and
//! the last one that leaves; the hub reads each message once and hands it to the workers that have
//! subscribers, whose bytes are shared by all of them ([`Frames`]).
//!
//! - `link`: what the hub and the workers say to each other
//! - `topic`: what both know of a channel or pattern
//! - `frames`: messages on their way to subscribers
//! - `place`: which node an ordinary channel is subscribed at and published to
//! - `stats`: the hub's counters
//! - [`push`]: what a node says on a subscription connection
//! - [`book`]: the hub's logic, without any I/O
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
pub use link::{News, Token, Wish};
pub use place::{hash, ident, rank};
pub use push::{Said, read as read_push};
pub use stats::{GapReason, HubStats};
pub use topic::Topic;
