//! What slotway counts, and how it is shown to Prometheus.
//!
//! Workers count into a [`WorkerStats`] of their own, plain integers, no atomics; a scrape asks
//! every worker for a copy and merges them into [`Totals`], which a [`View`] shows. All metrics
//! stand in one table, [`METRICS`], with what `docs/metrics.md` says about them.

mod exposition;
mod merge;
mod names;
mod process;
mod quantile;
mod reloads;
mod stats;

pub use exposition::{ControlStats, View};
pub use merge::Totals;
pub use names::{METRICS, Metric, MetricKind, docs_markdown};
pub use process::{Process, Usage};
pub use reloads::{ReloadOutcome, ReloadStats};
pub use stats::{
    BUCKETS_MICROS, CommandStats, DeniedFor, DisconnectReason, EmulatedOutcome, Histogram,
    LimitHit, LoginOutcome, NodeStats, ProxyHeader, RetryReason, TransactionKind, WorkerStats,
};
