//! Channels as the protocol has them: the kinds of subscriptions, and Redis's glob patterns.
//! Not here: who is subscribed ([`crate::pubsub`]).
//!
//! <https://redis.io/docs/latest/develop/pubsub/>

pub mod glob;
mod kind;

pub use glob::{
    NOTIFICATION_PREFIXES, can_match_prefix, can_receive_notifications, is_notification, matches,
};
pub use kind::TopicKind;
