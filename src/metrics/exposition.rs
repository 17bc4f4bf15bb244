//! Exposition of metrics in Prometheus's text format. Pure: [`crate::admin`] gathers the values.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric as MetricProto,
    MetricFamily, MetricType,
};

use super::control::{ControlStats, loaded};
use super::merge::Totals;
use super::names::{self, METRICS, Metric, MetricKind};
use super::process::ProcessStats;
use super::stats::{
    BUCKETS_MICROS, DenialReason, DisconnectReason, EmulatedOutcome, Histogram, LimitHit,
    LoginOutcome, ProxyHeaderOutcome, RetryReason, TransactionKind,
};
use crate::channel::TopicKind;
use crate::cluster::Unfit;
use crate::cluster::trust::{AdoptionRule, RejectReason};
use crate::command::{Class, CommandId, CommandTable};
use crate::errors::Code;
use crate::placement::{ReadTo, Redirection};
use crate::pubsub::{GapReason, HubStats};
use crate::tls::{HandshakeOutcome, Side};

/// The values of one scrape.
#[derive(Debug)]
pub struct Exposition<'a> {
    /// Counters of the workers.
    pub totals: &'a Totals,
    /// Command table, for the names of commands.
    pub commands: &'a CommandTable,
    /// Counters of the control thread.
    pub control: ControlStats,
    /// Counters of the pub/sub hub.
    pub hub: &'a HubStats,
    /// The limits in force, by name.
    pub limits: &'a [(&'static str, usize)],
    /// Figures of this process.
    pub process: ProcessStats,
}

impl Exposition<'_> {
    /// Renders the exposition. An error is a bug in this file, whatever the values.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let families: Vec<MetricFamily> = METRICS
            .iter()
            .map(|metric| {
                let mut family = Family { metric, samples: Vec::new() };
                self.fill(&mut family);
                family
            })
            // The encoder refuses families without samples (no command yet).
            .filter(|family| !family.samples.is_empty())
            .map(Family::proto)
            .collect();
        TextEncoder::new().encode_to_string(&families)
    }

    fn fill(&self, family: &mut Family) {
        let (totals, rest, control) = (self.totals, &self.totals.rest, &self.control);
        let (process, hub) = (&self.process, self.hub);
        match family.metric.name {
            n if n == names::COMMANDS.name => self.commands(family),
            n if n == names::COMMAND_DURATION.name => {
                for (class, histogram) in Class::NAMES.iter().zip(&rest.latency) {
                    if histogram.buckets.iter().any(|&b| b > 0) {
                        family.histogram(&[class], histogram);
                    }
                }
            }
            n if n == names::NODE_DURATION.name => {
                for (addr, node) in &totals.nodes {
                    family.histogram(&[&addr.to_string()], &node.latency);
                }
            }
            n if n == names::CLIENTS.name => {
                family.count(&["resp2"], rest.clients.saturating_sub(rest.clients_resp3));
                family.count(&["resp3"], rest.clients_resp3);
            }
            n if n == names::CONNECTIONS.name => {
                for (addr, node) in &totals.nodes {
                    let addr = addr.to_string();
                    family.count(&[&addr, "ready"], node.connections_ready);
                    family.count(&[&addr, "connecting"], node.connections_connecting);
                    family.count(&[&addr, "backoff"], node.connections_backoff);
                }
            }
            n if n == names::CONNECTIONS_ASIDE.name => {
                family.nodes(totals, |node| node.connections_aside);
            }
            n if n == names::CONNECTS.name => family.nodes(totals, |node| node.connects),
            n if n == names::FAILURES.name => family.nodes(totals, |node| node.failures),
            n if n == names::IN_FLIGHT.name => family.nodes(totals, |node| node.in_flight),
            n if n == names::IN_FLIGHT_BYTES.name => {
                family.nodes(totals, |node| node.in_flight_bytes);
            }
            n if n == names::NODE_SENT.name => family.nodes(totals, |node| node.bytes_sent),
            n if n == names::NODE_RECEIVED.name => family.nodes(totals, |node| node.bytes_received),
            n if n == names::REDIRECTIONS.name => {
                for (kind, count) in Redirection::NAMES.iter().zip(rest.redirections) {
                    family.count(&[kind], count);
                }
            }
            n if n == names::RETRIES.name => {
                for (reason, count) in RetryReason::NAMES.iter().zip(rest.retries) {
                    family.count(&[reason], count);
                }
            }
            n if n == names::LOGINS.name => {
                for (outcome, count) in LoginOutcome::NAMES.iter().zip(rest.logins) {
                    family.count(&[outcome], count);
                }
            }
            n if n == names::CLIENTS_DISCONNECTED.name => {
                for (reason, count) in DisconnectReason::NAMES.iter().zip(rest.disconnected) {
                    family.count(&[reason], count);
                }
            }
            n if n == names::PROXY_HEADERS.name => {
                for (result, count) in ProxyHeaderOutcome::NAMES.iter().zip(control.proxy_headers) {
                    family.count(&[result], count);
                }
            }
            n if n == names::DENIED.name => {
                for (reason, count) in DenialReason::NAMES.iter().zip(rest.denied) {
                    family.count(&[reason], count);
                }
            }
            n if n == names::READS.name => {
                for (to, count) in ReadTo::NAMES.iter().zip(rest.reads) {
                    family.count(&[to], count);
                }
            }
            n if n == names::REPLICAS.name => {
                let states = ["fit", "offline"].iter().chain(&Unfit::NAMES);
                for (state, count) in states.zip(control.replicas) {
                    family.count(&[state], count);
                }
            }
            n if n == names::TRANSACTIONS.name => {
                for (kind, count) in TransactionKind::NAMES.iter().zip(rest.transactions) {
                    family.count(&[kind], count);
                }
            }
            n if n == names::EMULATED.name => {
                for (entry, counts) in crate::emulate::TABLE.iter().zip(&rest.emulated) {
                    // Commands that no client has sent have no series.
                    if counts.iter().any(|&count| count > 0) {
                        for (outcome, count) in EmulatedOutcome::NAMES.iter().zip(counts) {
                            family.count(&[entry.name, outcome], *count);
                        }
                    }
                }
            }
            n if n == names::DEDICATED.name => {
                family.count(&["lent"], rest.dedicated_lent);
                family.count(&["idle"], rest.dedicated_idle);
            }
            n if n == names::PUBSUB_SUBSCRIPTIONS.name => family.topics(rest.subscriptions),
            n if n == names::PUBSUB_DELIVERIES.name => family.topics(rest.deliveries),
            n if n == names::PUBSUB_TOPICS.name => family.topics(loaded(&hub.topics)),
            n if n == names::PUBSUB_UPSTREAM.name => family.topics(loaded(&hub.upstream)),
            n if n == names::PUBSUB_RECEIVED.name => family.topics(loaded(&hub.messages)),
            n if n == names::PUBSUB_GAPS.name => {
                for (reason, count) in GapReason::NAMES.iter().zip(loaded(&hub.gaps)) {
                    family.count(&[reason], count);
                }
            }
            n if n == names::ERRORS.name => {
                for (code, count) in Code::labels().zip(rest.errors) {
                    family.count(&[code], count);
                }
            }
            n if n == names::LIMITS_HIT.name => {
                for (i, (limit, hit)) in LimitHit::NAMES.iter().zip(rest.limits_hit).enumerate() {
                    // The control thread counts clients over the limit, as it accepts them.
                    let at_accept =
                        if i == LimitHit::Clients as usize { control.clients_rejected } else { 0 };
                    family.count(&[limit], hit + at_accept);
                }
            }
            n if n == names::LIMIT.name => {
                for (limit, value) in self.limits {
                    family.value(&[limit], *value as f64);
                }
            }
            n if n == names::REFRESHES.name => {
                for up in &control.upstreams {
                    family.count(&[&up.name, "ok"], up.refreshes_ok);
                    family.count(&[&up.name, "failed"], up.refreshes_failed);
                }
            }
            n if n == names::VIEWS_REFUSED.name => {
                for up in &control.upstreams {
                    for (reason, count) in RejectReason::NAMES.iter().zip(up.views_refused) {
                        family.count(&[&up.name, reason], count);
                    }
                }
            }
            n if n == names::EXCEPTIONS.name => {
                for up in &control.upstreams {
                    let exceptional = AdoptionRule::NAMES.iter().zip(up.exceptions).skip(1);
                    for (rule, count) in exceptional {
                        family.count(&[&up.name, rule], count);
                    }
                }
            }
            n if n == names::RELOADS.name => {
                for (outcome, count) in
                    ["changed", "unchanged", "invalid"].iter().zip(control.reloads)
                {
                    family.count(&[outcome], count);
                }
            }
            n if n == names::CONFIG_LOADED.name => {
                family.value(&[], control.config_loaded_seconds);
            }
            n if n == names::NODE_TIMEOUT.name => {
                for up in &control.upstreams {
                    if let Some(timeout) = up.node_timeout_seconds {
                        family.value(&[&up.name], timeout);
                    }
                }
            }
            n if n == names::AGE.name => {
                for up in &control.upstreams {
                    if let Some(age) = up.age_seconds {
                        family.value(&[&up.name], age);
                    }
                }
            }
            n if n == names::CHANGES.name => {
                for up in &control.upstreams {
                    family.count(&[&up.name], up.changes);
                }
            }
            n if n == names::GENERATION.name => {
                for up in &control.upstreams {
                    family.count(&[&up.name], up.generation);
                }
            }
            n if n == names::COVERED.name => {
                for up in &control.upstreams {
                    family.count(&[&up.name], up.slots_covered as u64);
                }
            }
            n if n == names::TLS_HANDSHAKES.name => {
                for (side, counts) in Side::NAMES.iter().zip(control.tls.handshakes) {
                    for (result, count) in HandshakeOutcome::NAMES.iter().zip(counts) {
                        family.count(&[side, result], count);
                    }
                }
            }
            n if n == names::TLS_RELOADS.name => {
                for (result, count) in ["ok", "failed"].iter().zip(control.tls.reloads) {
                    family.count(&[result], count);
                }
            }
            n if n == names::TLS_EXPIRY.name => {
                for (side, at) in Side::NAMES.iter().zip(control.tls.expiry) {
                    if let Some(at) = at {
                        family.value(&[side], at as f64);
                    }
                }
            }
            n if n == names::SPANS.name => {
                for (outcome, count) in ["exported", "dropped", "failed"].iter().zip(control.spans)
                {
                    family.count(&[outcome], count);
                }
            }
            n if n == names::BUILD.name => family.count(&[env!("CARGO_PKG_VERSION")], 1),
            n if n == names::CPU.name => family.value(&[], process.cpu_seconds),
            n if n == names::START_TIME.name => family.value(&[], process.start_seconds),
            name => {
                for (metric, count) in [
                    (names::CLIENTS_PAUSED, rest.clients_paused),
                    (names::CLIENTS_ACCEPTED, rest.clients_accepted),
                    (names::CLIENTS_CLOSED, rest.clients_closed),
                    (names::CLIENTS_REJECTED, control.clients_rejected),
                    (names::ACCEPT_ERRORS, control.accept_errors),
                    (names::CLIENT_RECEIVED, rest.bytes_in),
                    (names::CLIENT_SENT, rest.bytes_out),
                    (names::RETRY_BUDGET, rest.retry_budget_exhausted),
                    (names::NO_PRIMARY, rest.no_primary),
                    (names::OUTCOME_UNKNOWN, rest.outcome_unknown),
                    (names::DEADLINE_EXCEEDED, rest.deadline_exceeded),
                    (names::SPLITS, rest.splits),
                    (names::KEY_BY_KEY, rest.key_by_key),
                    (names::LARGE_REPLY_WAITS, rest.large_reply_waits),
                    (names::SCRIPT_LOADS, rest.script_loads),
                    (names::COMMANDS_LEARNED, control.learned_blocking as u64),
                    (names::SCRIPTS_PARTIAL, rest.scripts_partial),
                    (names::SCRIPT_BYTES, control.script_bytes as u64),
                    (names::BUFFERS, rest.buffer_bytes),
                    (names::PUBSUB_CLIENTS, rest.subscribers),
                    (names::PUBSUB_CONNECTIONS, hub.connections.load(Relaxed)),
                    (names::PUBSUB_RECEIVED_BYTES, hub.bytes.load(Relaxed)),
                    (names::PUBSUB_IGNORED, hub.ignored.load(Relaxed)),
                    (names::PUBSUB_DROPPED, rest.messages_dropped),
                    (names::PUBSUB_PUBLISH_WAITS, rest.publish_waits),
                    (names::PUBSUB_RESUBSCRIPTIONS, hub.resubscriptions.load(Relaxed)),
                    (names::PUBSUB_FAILURES, hub.failures.load(Relaxed)),
                    (names::PUBSUB_RESTARTS, hub.restarts.load(Relaxed)),
                    (names::PUBSUB_HELD, hub.held.load(Relaxed) as u64),
                    (names::HELD, rest.held),
                    (names::CLUSTER_USERS, rest.users),
                    (names::BLOCKED, rest.clients_blocked),
                    (names::STRANGERS, rest.strangers + hub.strangers.load(Relaxed)),
                    (names::WORKERS, control.workers as u64),
                    (names::WORKER_FAILURES, control.worker_failures),
                    (names::TASK_FAILURES, control.task_failures),
                    (names::CONFIG_IN_USE, u64::from(control.config_in_use)),
                    (names::RESTART_KEYS, control.restart_keys),
                    (names::SAMPLED, rest.sampled),
                    (names::SLOW, control.slow_commands),
                    (names::TURNS, rest.turns),
                    (names::OPEN_FDS, process.open_fds),
                    (names::MAX_FDS, process.max_fds),
                    (names::DESCRIPTORS_RESERVED, control.descriptors_reserved as u64),
                    (names::VIRTUAL, process.virtual_bytes),
                    (names::RESIDENT, process.resident_bytes),
                    (names::THREADS, process.threads),
                ] {
                    if metric.name == name {
                        family.count(&[], count);
                    }
                }
            }
        }
    }

    fn commands(&self, family: &mut Family) {
        let known = (0u16..).zip(&self.totals.commands).map(|(id, stats)| {
            // A worker may have counted by a newer command table than this one.
            (self.commands.get(CommandId(id)).name.as_ref(), stats)
        });
        let mut unknown = self.totals.unknown;
        for (name, stats) in known {
            if name == "unknown" {
                unknown.ok += stats.ok;
                unknown.error += stats.error;
                unknown.refused += stats.refused;
            } else {
                family.outcomes(name, stats);
            }
        }
        family.outcomes("unknown", &unknown);
    }
}

/// A metric and its samples so far.
struct Family {
    metric: &'static Metric,
    samples: Vec<MetricProto>,
}

impl Family {
    fn outcomes(&mut self, command: &str, stats: &super::CommandStats) {
        for (outcome, count) in
            [("ok", stats.ok), ("error", stats.error), ("refused", stats.refused)]
        {
            if count > 0 {
                self.count(&[command, outcome], count);
            }
        }
    }

    fn nodes(&mut self, totals: &Totals, value: impl Fn(&super::NodeStats) -> u64) {
        for (addr, node) in &totals.nodes {
            self.count(&[&addr.to_string()], value(node));
        }
    }

    /// Adds a sample per kind of topic.
    fn topics(&mut self, counts: [u64; TopicKind::COUNT]) {
        for (kind, count) in TopicKind::NAMES.iter().zip(counts) {
            self.count(&[kind], count);
        }
    }

    fn count(&mut self, labels: &[&str], value: u64) {
        self.value(labels, value as f64);
    }

    fn value(&mut self, labels: &[&str], value: f64) {
        let mut sample = self.labelled(labels);
        if self.metric.kind == MetricKind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        self.samples.push(sample);
    }

    /// Adds a histogram. Prometheus's buckets are cumulative; the encoder adds `+Inf`.
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let mut sample = self.labelled(labels);
        let mut below = 0;
        let buckets = BUCKETS_MICROS.iter().zip(&histogram.buckets).map(|(&bound, &count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket
        });
        let mut proto = HistogramProto::default();
        proto.set_bucket(buckets.collect());
        proto.set_sample_count(histogram.buckets.iter().sum());
        proto.set_sample_sum(histogram.sum_micros as f64 / 1e6);
        sample.set_histogram(proto);
        self.samples.push(sample);
    }

    fn labelled(&self, values: &[&str]) -> MetricProto {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let pairs = self.metric.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        MetricProto::from_label(pairs.collect())
    }

    fn proto(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(self.samples);
        family
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::UpstreamStats;
    use super::super::stats::{CommandStats, NodeStats, WorkerStats};
    use super::*;
    use crate::cluster::NodeAddr;
    use crate::tls::TlsCounts;

    fn shown() -> String {
        let commands = CommandTable::builtin();
        let get = usize::from(commands.by_name("get").unwrap().0);
        let mut stats = WorkerStats {
            commands: vec![CommandStats::default(); commands.len() + 1],
            clients: 5,
            clients_resp3: 3,
            limits_hit: [1; LimitHit::COUNT],
            errors: [4; Code::COUNT],
            emulated: vec![[0, 0, 3]],
            ..WorkerStats::default()
        };
        stats.commands[get].ok = 7;
        stats.commands[get].error = 1;
        stats.commands[commands.len()].error = 2;
        stats.latency[Class::String as usize].record(Histogram::bucket(60), 60);
        stats.latency[Class::String as usize].record(Histogram::bucket(99_000_000), 99_000_000);
        let mut node = NodeStats {
            addr: Some(NodeAddr { host: "::1".into(), port: 7000 }),
            connections_ready: 2,
            ..NodeStats::default()
        };
        node.latency.record(0, 10);
        stats.nodes.push(node);
        let mut totals = Totals::default();
        totals.add(&stats);
        let control = ControlStats {
            clients_rejected: 4,
            upstreams: vec![UpstreamStats {
                name: "main".into(),
                refreshes_ok: 3,
                age_seconds: Some(1.5),
                node_timeout_seconds: Some(15.0),
                ..UpstreamStats::default()
            }],
            tls: TlsCounts { expiry: [Some(1), None, None], ..TlsCounts::default() },
            workers: 2,
            ..ControlStats::default()
        };
        let view = Exposition {
            totals: &totals,
            commands: &commands,
            control,
            hub: &HubStats::default(),
            limits: &[("clients", 20_000)],
            process: ProcessStats::read(),
        };
        view.text().unwrap()
    }

    #[test]
    fn samples_as_prometheus_reads_them() {
        let text = shown();
        for line in [
            r#"slotway_commands_total{command="get",outcome="ok"} 7"#,
            r#"slotway_commands_total{command="get",outcome="error"} 1"#,
            r#"slotway_commands_total{command="unknown",outcome="error"} 2"#,
            r#"slotway_command_duration_seconds_bucket{class="string",le="0.00005"} 0"#,
            r#"slotway_command_duration_seconds_bucket{class="string",le="0.0001"} 1"#,
            r#"slotway_command_duration_seconds_bucket{class="string",le="10"} 1"#,
            r#"slotway_command_duration_seconds_bucket{class="string",le="+Inf"} 2"#,
            r#"slotway_command_duration_seconds_count{class="string"} 2"#,
            r#"slotway_command_duration_seconds_sum{class="string"} 99.00006"#,
            r#"slotway_clients{protocol="resp2"} 2"#,
            r#"slotway_clients{protocol="resp3"} 3"#,
            r#"slotway_upstream_connections{node="[::1]:7000",state="ready"} 2"#,
            r#"slotway_emulated_total{command="sinter",outcome="halfway"} 3"#,
            r#"slotway_limits_hit_total{limit="clients"} 5"#,
            r#"slotway_limits_hit_total{limit="memory"} 1"#,
            r#"slotway_errors_total{code="OUTCOMEUNKNOWN"} 4"#,
            r#"slotway_errors_total{code="other"} 4"#,
            r#"slotway_limit{limit="clients"} 20000"#,
            r#"slotway_topology_age_seconds{upstream="main"} 1.5"#,
            r#"slotway_cluster_node_timeout_seconds{upstream="main"} 15"#,
            r#"slotway_topology_refreshes_total{upstream="main",result="ok"} 3"#,
            "slotway_workers 2",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line}\n{text}");
        }
        assert!(!text.contains(r#"command="set""#), "only commands that were seen");
    }

    #[test]
    fn every_metric_of_the_table_is_exposed_with_its_type_and_nothing_else() {
        let text = shown();
        for metric in METRICS {
            let line = format!("# TYPE {} {}", metric.name, metric.kind.name());
            assert!(text.lines().any(|l| l == line), "no line {line}");
        }
        assert_eq!(text.matches("# TYPE ").count(), METRICS.len());
    }
}
