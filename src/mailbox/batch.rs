//! Pub/sub news from the hub to a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::pubsub::HubEvent;

/// The news for one worker from one turn of the hub.
#[derive(Debug)]
pub struct Batch {
    /// The news, in order.
    pub news: Vec<HubEvent>,
    bytes: usize,
    transit: Arc<AtomicUsize>,
}

impl Batch {
    /// A batch of `news`. `transit` counts the bytes of messages that the worker was sent and has
    /// not processed; it includes this batch until the batch is dropped.
    pub fn new(news: Vec<HubEvent>, transit: &Arc<AtomicUsize>) -> Self {
        let bytes = |news: &HubEvent| match news {
            HubEvent::Messages { frames, .. } => frames.len(),
            _ => 0,
        };
        let bytes = news.iter().map(bytes).sum();
        transit.fetch_add(bytes, Relaxed);
        Batch { news, bytes, transit: Arc::clone(transit) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.transit.fetch_sub(self.bytes, Relaxed);
    }
}
