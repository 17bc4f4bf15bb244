//! What slotway counts, and how it is shown to Prometheus.
//!
//! Workers count into a [`WorkerStats`] of their own, plain integers, no atomics; a scrape asks
//! every worker for a copy and merges them.

mod stats;

pub use stats::{
    BUCKETS_MICROS, CommandStats, Histogram, LimitHit, NodeStats, Redirection, WorkerStats,
};
