//! Pub/sub: who listens to what, one upstream subscription for all.
//!
//! One thread, the **hub**, holds the RESP3 subscription connections to the nodes for all workers.
//! A worker tells it the first subscriber of a topic (a channel, a pattern, a shard channel) and
//! the last one that leaves; the hub reads each message once and hands it to the workers that have
//! subscribers, whose bytes are shared by all of them ([`Frames`]).
//!
//! - `link`: what the hub and the workers say to each other
//! - `topic`: what both know of a channel or pattern
//! - `frames`: messages on their way to subscribers
//! - `place`: which node an ordinary channel is subscribed at and published to
//! - `stats`: the hub's counters
//! - `hub`: the hub's thread and event loop; `conn`: one of its connections; `push`: what a node
//!   says on it
//! - `book`: the hub's logic, without any I/O
//!
//! <https://redis.io/docs/latest/develop/pubsub/>

mod book;
mod conn;
mod frames;
mod hub;
#[cfg(test)]
mod hub_tests;
mod link;
mod place;
mod push;
mod stats;
mod topic;

pub use frames::Frames;
pub use hub::{Hub, spawn};
pub use link::{News, Token, Wish};
pub use place::{hash, ident, rank};
pub use push::{Said, read as read_push};
pub use stats::{GapReason, HubStats};
pub use topic::Topic;
