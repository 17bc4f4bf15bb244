//! What slotway counts, and how it is shown to Prometheus.
//!
//! Workers count into a [`WorkerStats`] of their own, plain integers, no atomics; a scrape asks
//! every worker for a copy and merges them into [`Totals`], which a [`Exposition`] shows. All metrics
//! stand in one table, [`METRICS`], with what `docs/metrics.md` says about them.

mod exposition;
mod merge;
mod names;
mod process;
mod quantile;
mod reloads;
mod stats;

pub use exposition::{ControlStats, Exposition};
pub use merge::Totals;
pub use names::{METRICS, Metric, MetricKind, docs_markdown};
pub use process::{ProcessStats, ProcessUsage};
pub use reloads::{ReloadOutcome, ReloadStats};
pub use stats::{
    BUCKETS_MICROS, CommandStats, DenialReason, DisconnectReason, EmulatedOutcome, Histogram,
    LimitHit, LoginOutcome, NodeStats, ProxyHeaderOutcome, RetryReason, TransactionKind,
    WorkerStats,
};
