//! Observations of passing commands: hot keys, big keys, the slow log and traces. No I/O. Memory is
//! bounded, and hot keys and traces are sampled, so that the cost per command is negligible.
//!
//! - [`HotKeys`]: a worker's sketch of its most frequently used keys.
//! - [`BigKeys`]: a worker's keys with the largest values.
//! - [`SlowLog`]: the slow commands of all workers.
//! - [`TracedCommand`]: a traced command in progress, which becomes a [`Trace`]; [`otlp`] encodes
//!   traces for a collector.

use crate::cluster::Slot;

mod big;
mod endpoint;
mod hot;
pub mod otlp;
mod redact;
mod show;
mod slowlog;
mod span;

pub use big::{BigKey, BigKeys};
pub use endpoint::Endpoint;
pub use hot::{HALF_LIFE, HotKey, HotKeyReport, HotKeys};
pub use redact::{KeptArgs, logged_args};
pub use show::{Renderer, slow_reply};
pub use slowlog::{SLOW_LOG_OFF, SlowEntry, SlowLog, SlowLogSettings, TimeBreakdown};
pub use span::{Attempt, SpanCounts, Trace, TracedCommand};

/// Length at which stored keys are truncated, in bytes. Their hashes cover the whole key, so that
/// longer keys stay distinct.
const KEY_BYTES: usize = 128;

/// A report on keys: PROXY HOTKEYS or PROXY BIGKEYS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyReport {
    /// HOTKEYS.
    Hot,
    /// BIGKEYS.
    Big,
}

/// The hot and big keys of one worker, or of several, merged.
#[derive(Debug, Clone, Default)]
pub struct ObservedKeys {
    /// The most frequently used keys.
    pub hot: HotKeyReport,
    /// The keys with the largest values, largest first.
    pub big: Vec<BigKey>,
}

impl ObservedKeys {
    /// Adds the keys of another worker.
    pub fn merge(&mut self, other: ObservedKeys) {
        self.hot.merge(other.hot);
        self.big = big::merged(std::mem::take(&mut self.big), other.big);
    }
}

/// A key, truncated to [`KEY_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyName {
    /// Hash of the whole key.
    pub hash: u64,
    /// The first [`KEY_BYTES`] bytes.
    pub bytes: Vec<u8>,
    /// Whether the key is longer than `bytes`.
    truncated: bool,
    /// Slot of the whole key.
    pub slot: Slot,
}

impl KeyName {
    /// Replaces the name by that of `key`, reusing the buffer.
    fn set(&mut self, hash: u64, key: &[u8]) {
        self.hash = hash;
        self.bytes.clear();
        self.bytes.extend_from_slice(key.get(..KEY_BYTES).unwrap_or(key));
        self.truncated = key.len() > KEY_BYTES;
        self.slot = crate::cluster::slot_of(key);
    }
}
