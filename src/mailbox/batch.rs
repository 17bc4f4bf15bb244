//! News of the pub/sub hub for a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::pubsub::HubEvent;

/// The news of one turn of the hub for one worker.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub news: Vec<HubEvent>,
    bytes: usize,
    transit: Arc<AtomicUsize>,
}

impl Batch {
    /// `transit` is how many bytes of messages this worker was sent and has not dealt with; those
    /// of this batch are on it until the batch is dropped.
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
