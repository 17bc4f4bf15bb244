//! What the workers of a process share. Nothing of it is touched for ordinary commands.

use std::sync::atomic::AtomicUsize;

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Shared {
    /// Dedicated connections of all workers, lent or idle (`limits.dedicated`).
    pub dedicated: AtomicUsize,
}
