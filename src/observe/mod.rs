//! What is seen of commands as they pass: which keys are hot, which are big, which commands were
//! slow, and spans of single commands. Bounded, and looked at by sample, so that it costs next to
//! nothing. No I/O.
//!
//! - [`HotKeys`]: one worker's sketch of the keys that are used most at the moment.
//! - [`BigKeys`]: one worker's largest values.
//! - [`SlowLog`]: the slow commands of all workers.
//! - [`TracedCommand`]: a traced command, which becomes [`Trace`]; [`otlp`]: how they are told.

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

/// Keys are kept up to this length; longer ones are told apart all the same.
const KEY_BYTES: usize = 128;

/// What PROXY shows of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyReport {
    /// HOTKEYS.
    Hot,
    /// BIGKEYS.
    Big,
}

/// What one worker has seen, copied.
#[derive(Debug, Clone, Default)]
pub struct ObservedKeys {
    /// The keys that it sees most.
    pub hot: HotKeyReport,
    /// The largest values that it has seen.
    pub big: Vec<BigKey>,
}

impl ObservedKeys {
    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: ObservedKeys) {
        self.hot.merge(other.hot);
        self.big = big::merged(std::mem::take(&mut self.big), other.big);
    }
}

/// A key, as far as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// Of the whole key.
    pub hash: u64,
    /// Its first [`KEY_BYTES`].
    pub bytes: Vec<u8>,
    /// There are more.
    truncated: bool,
    /// Its slot.
    pub slot: u16,
}

impl Name {
    /// Takes another key's place, in the same buffer.
    fn set(&mut self, hash: u64, key: &[u8]) {
        self.hash = hash;
        self.bytes.clear();
        self.bytes.extend_from_slice(key.get(..KEY_BYTES).unwrap_or(key));
        self.truncated = key.len() > KEY_BYTES;
        self.slot = crate::cluster::slot_of(key).0;
    }
}
