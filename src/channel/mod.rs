//! Channels as the protocol has them: the kinds of subscriptions, and Redis's glob patterns.
//! Not here: who is subscribed ([`crate::pubsub`]).
//!
//! <https://redis.io/docs/latest/develop/pubsub/>

pub mod glob;
mod kind;

pub use glob::{NOTIFICATIONS, can_match_prefix, is_notification, matches, may_notify};
pub use kind::TopicKind;
