//! What the workers of a process share. Nothing of it is touched for ordinary commands.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::config::Config;
use crate::scripts::ScriptStore;

/// Shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// Dedicated connections of all workers, lent or idle (`limits.dedicated`).
    pub dedicated: AtomicUsize,
    /// Lua scripts.
    pub scripts: Arc<ScriptStore>,
}

impl Shared {
    /// What workers share that run by `config`.
    pub fn new(config: &Config) -> Self {
        let scripts = Arc::new(ScriptStore::new(config.limits.scripts));
        Shared { dedicated: AtomicUsize::new(0), scripts }
    }
}
