//! Counters and gauges, and their exposition for Prometheus.
//!
//! Each worker counts in its own [`WorkerStats`], in plain integers without atomics. A scrape asks
//! every worker for a copy, merges the copies into [`Totals`] and renders an [`Exposition`]. All
//! metrics are declared in one table, [`METRICS`], from which `docs/metrics.md` is generated.

mod control;
mod exposition;
mod merge;
mod names;
mod process;
mod quantile;
mod reloads;
mod stats;

pub use control::{ControlStats, UpstreamStats};
pub use exposition::Exposition;
pub use merge::Totals;
pub use names::{METRICS, Metric, MetricKind, docs_markdown};
pub use process::{ProcessStats, ProcessUsage};
pub use reloads::{ReloadOutcome, ReloadStats};
pub use stats::{
    BUCKETS_MICROS, CommandStats, DenialReason, DisconnectReason, EmulatedOutcome, Histogram,
    LimitHit, LoginOutcome, NodeStats, ProxyHeaderOutcome, RetryReason, TransactionKind,
    WorkerStats,
};
