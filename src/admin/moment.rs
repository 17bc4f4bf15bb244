//! Moments, which are the figures of slotway at one time, and intervals between two of them. Pure
//! but for the clock and `/proc`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::ready::{Readiness, ReadinessInputs};
use crate::cluster::{Node, NodeAddr, NodeState, Role};
use crate::control::{Pool, Scrape, Status, TopologyStatus, UpstreamStatus};
use crate::metrics::{CommandStats, Histogram, NodeStats, ProcessUsage, Totals};
use crate::tls::HandshakeOutcome;

/// All figures at one time.
#[derive(Debug)]
pub struct Moment {
    /// Monotonic time, for rates.
    pub at: Instant,
    /// Wall-clock time, in milliseconds since 1970.
    pub millis: u64,
    /// Counters of the workers.
    pub totals: Totals,
    /// Number of running workers.
    pub running: usize,
    /// Number of workers that answered in time.
    pub answered: usize,
    /// Index and number of clients of each worker.
    pub workers: Vec<(usize, usize)>,
    /// Topologies, and the state of their refreshes.
    pub topology: TopologyStatus,
    /// Counters of the control thread and the hub.
    pub counts: Counts,
    /// Whether slotway is draining.
    pub draining: bool,
    /// Readiness.
    pub readiness: Readiness,
    /// CPU and memory of the process.
    pub(super) usage: ProcessUsage,
}

/// Counters of the control thread and the hub.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub(super) struct Counts {
    pub clients_rejected: u64,
    pub accept_errors: u64,
    pub worker_failures: u64,
    pub task_failures: u64,
    pub(super) tls_failures: u64,
    pub(super) pubsub_gaps: u64,
}

impl Moment {
    /// The current moment. Workers have `limit` to answer.
    pub async fn now(pool: &Pool, status: &Status, limit: Duration) -> Moment {
        let Scrape { totals, running, answered } = pool.survey().scrape(limit).await;
        let topology = status.topology();
        let draining = status.is_draining();
        let optional: Vec<bool> = pool.upstreams().map(|id| pool.is_optional(id)).collect();
        let readiness = Readiness::of(&ReadinessInputs {
            draining,
            workers: running,
            topology: &topology,
            optional: &optional,
            nodes: &totals.nodes,
        });
        let handshakes = pool.tls().stats().counts().handshakes;
        let failed = |side: &[u64; HandshakeOutcome::COUNT]| side.iter().skip(1).sum::<u64>();
        let counts = Counts {
            clients_rejected: status.clients_rejected.load(Relaxed),
            accept_errors: status.accept_errors.load(Relaxed),
            worker_failures: status.worker_failures.load(Relaxed),
            task_failures: status.task_failures.load(Relaxed),
            tls_failures: handshakes.iter().map(failed).sum(),
            pubsub_gaps: pool.hub_stats().gaps.iter().map(|gap| gap.load(Relaxed)).sum(),
        };
        Moment {
            at: Instant::now(),
            millis: millis_now(),
            totals,
            running,
            answered,
            workers: pool.clients_by_worker(),
            topology,
            counts,
            draining,
            readiness,
            usage: ProcessUsage::read(),
        }
    }

    /// Sum of all commands answered.
    pub fn commands(&self) -> CommandStats {
        let mut sum = self.totals.unknown;
        for command in &self.totals.commands {
            sum.ok += command.ok;
            sum.error += command.error;
            sum.refused += command.refused;
        }
        sum
    }

    /// Latencies of all commands.
    pub fn latency(&self) -> Histogram {
        let mut all = Histogram::default();
        self.totals.rest.latency.iter().for_each(|class| all.merge(class));
        all
    }

    /// The workers' counters for a node.
    pub fn node(&self, addr: &NodeAddr) -> Option<&NodeStats> {
        self.totals.nodes.get(addr)
    }

    /// The state of a node of an upstream as a word for the status page, and its reason.
    pub fn state(&self, upstream: &UpstreamStatus, node: &Node) -> (&'static str, Option<String>) {
        if node.state == NodeState::Failed {
            return ("failed", Some("the cluster says that it is not online".to_owned()));
        }
        let stats = self.node(&node.addr);
        let connected = stats.is_some_and(|s| s.connections_ready > 0);
        let waiting = stats.is_some_and(|s| s.connections_backoff > 0);
        if let (false, Some(Err(why))) = (connected, upstream.reached.get(&node.addr)) {
            return ("unreached", Some(why.to_string()));
        }
        if waiting && !connected {
            return ("unreached", Some("workers cannot connect to it".to_owned()));
        }
        if node.state == NodeState::Loading {
            let why = "the cluster says that it has received nothing from its primary yet";
            return ("loading", Some(why.to_owned()));
        }
        let unfit = upstream.health.get(&node.addr).and_then(|health| health.unfit);
        match unfit {
            Some(unfit) if node.role == Role::Replica => {
                (unfit.name(), Some("it is not read from".to_owned()))
            }
            _ => ("ok", None),
        }
    }
}

/// The interval between two moments.
#[derive(Debug, Clone)]
pub struct Interval {
    /// The earlier moment.
    pub was: Arc<Moment>,
    /// The later moment.
    pub is: Arc<Moment>,
}

impl Interval {
    /// Rate per second of a counter that grew from `was` to `is` in the interval.
    pub fn rate(&self, was: u64, is: u64) -> f64 {
        let seconds = self.is.at.saturating_duration_since(self.was.at).as_secs_f64();
        if seconds > 0.0 { is.saturating_sub(was) as f64 / seconds } else { 0.0 }
    }

    /// Rate per second of a counter of the moments.
    pub(super) fn rate_of(&self, counter: impl Fn(&Moment) -> u64) -> f64 {
        self.rate(counter(&self.was), counter(&self.is))
    }

    /// CPU use of the process, in percent of one core.
    pub(super) fn cpu_percent(&self) -> f64 {
        let spent = self.is.usage.cpu_seconds - self.was.usage.cpu_seconds;
        let seconds = self.is.at.saturating_duration_since(self.was.at).as_secs_f64();
        if seconds > 0.0 { (100.0 * spent / seconds).max(0.0) } else { 0.0 }
    }
}

#[cfg(test)]
impl Moment {
    /// A moment with this topology, all counters zero.
    pub fn of(snapshot: crate::cluster::Snapshot) -> Moment {
        let commands = Arc::new(crate::command::CommandTable::builtin());
        let mut topology = Status::new(&["main"], commands).topology();
        topology.upstreams[0].snapshot = Arc::new(snapshot);
        Moment {
            at: Instant::now(),
            millis: 0,
            totals: Totals::default(),
            running: 1,
            answered: 1,
            workers: Vec::new(),
            topology,
            counts: Counts::default(),
            draining: false,
            readiness: Readiness {
                ready: true,
                missing_slots: Vec::new(),
                unreachable: std::collections::BTreeMap::new(),
                reasons: Vec::new(),
                upstreams: Vec::new(),
            },
            usage: ProcessUsage::default(),
        }
    }
}

fn millis_now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
