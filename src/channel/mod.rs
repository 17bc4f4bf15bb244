//! Pub/sub topics as the protocol defines them: their kinds, and Redis's glob patterns. No I/O.
//! Subscriptions themselves are in [`crate::pubsub`].
//!
//! <https://redis.io/docs/latest/develop/pubsub/>

pub mod glob;
mod kind;

pub use glob::{
    NOTIFICATION_PREFIXES, can_match_prefix, can_receive_notifications, is_notification, matches,
};
pub use kind::TopicKind;
