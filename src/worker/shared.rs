//! What the workers of a process share. Nothing of it is touched for ordinary commands.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use std::time::Instant;

use crate::config::Config;
use crate::pubsub::Hub;
use crate::scripts::ScriptStore;
use crate::users::Throttle;

/// Shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// Dedicated connections that are lent, of all workers (`limits.dedicated`).
    dedicated: AtomicUsize,
    /// Clients that watch by MONITOR.
    pub monitors: AtomicUsize,
    /// Who has failed to log in lately.
    pub throttle: Mutex<Throttle>,
    /// The zero of its clock.
    pub started: Instant,
    /// Lua scripts.
    pub scripts: Arc<ScriptStore>,
    /// The pub/sub hub.
    pub hub: Hub,
}

impl Shared {
    /// What workers share that run by `config`.
    pub fn new(config: &Config, hub: Hub) -> Self {
        let scripts = Arc::new(ScriptStore::new(config.limits.scripts));
        Shared {
            dedicated: AtomicUsize::new(0),
            monitors: AtomicUsize::new(0),
            throttle: Mutex::default(),
            started: Instant::now(),
            scripts,
            hub,
        }
    }

    /// One more dedicated connection is lent. `false`: `most` are.
    pub fn lend(&self, most: usize) -> bool {
        let more = |n: usize| (n < most).then_some(n + 1);
        self.dedicated.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// One that was lent is not any more.
    pub fn give_back(&self) {
        // Each was counted when it was lent, so there is one to take off.
        let _ = self.dedicated.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }
}
