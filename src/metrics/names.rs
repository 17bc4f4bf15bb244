//! The table of metrics: the source of the exposition and of `docs/metrics.md`.

use std::fmt::Write;

/// Prometheus's type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// Its name in Prometheus's text format.
    pub const fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Help text, in the exposition and in the documentation.
    pub help: &'static str,
    /// The configuration key that the metric helps to set; empty if there is none.
    pub key: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $key:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: &Metric = &Metric {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
                key: $key,
            };
        )*
        /// All metrics, in the order of the exposition and of the documentation.
        pub const METRICS: &[&Metric] = &[$($id),*];
    };
}

metrics! {
    COMMANDS: Counter "slotway_commands_total" ["command", "outcome"] ""
        "Commands answered, by outcome: ok; error, with an error of a node; refused, with an error of slotway. Commands that are not in the command table count as unknown.";
    COMMAND_DURATION: Histogram "slotway_command_duration_seconds" ["class"] ""
        "Time from reading a command from its client to its reply being ready for the client, by class of command. Blocking commands that waited (10 ms or more) are excluded.";
    NODE_DURATION: Histogram "slotway_node_command_duration_seconds" ["node"] ""
        "Time from reading a command from its client to reading its reply from the node. Blocking commands that waited (10 ms or more) are excluded.";
    CLIENTS: Gauge "slotway_clients" ["protocol"] "limits.clients"
        "Connected clients, by protocol version.";
    CLIENTS_PAUSED: Gauge "slotway_clients_paused" [] ""
        "Clients whose next command waits for the end of a CLIENT PAUSE.";
    CLIENTS_ACCEPTED: Counter "slotway_clients_accepted_total" [] ""
        "Clients accepted.";
    CLIENTS_CLOSED: Counter "slotway_clients_closed_total" [] ""
        "Clients closed, by either side.";
    CLIENTS_REJECTED: Counter "slotway_clients_rejected_total" [] "limits.clients"
        "Connections refused with \"max number of clients reached\". The limit is slotway_limit{limit=\"clients\"}, which is lower than limits.clients if file descriptors are short.";
    CLIENTS_DISCONNECTED: Counter "slotway_clients_disconnected_total" ["reason"] "timeouts.max_age"
        "Clients that slotway closed for other reasons than a fault in what they sent: login, no login within timeouts.login although one is required; idle, timeouts.idle; max_age, timeouts.max_age; descriptors, their file descriptors were needed for nodes after the cluster grew or the limit on open files was lowered; outcome_unknown, a command may or may not have been executed and commands.on_outcome_unknown is \"disconnect\".";
    PROXY_HEADERS: Counter "slotway_proxy_protocol_headers_total" ["result"] "proxy_protocol.listen"
        "Connections to proxy_protocol.listen, by the result of reading their header: ok; local, the header names no client (health checks). Connections with other results are closed: missing; invalid; timeout, no header within proxy_protocol.timeout; untrusted, the peer's address is not in proxy_protocol.trusted; closed, the peer closed the connection.";
    TLS_HANDSHAKES: Counter "slotway_tls_handshakes_total" ["side", "result"] "tls.downstream.listen"
        "TLS handshakes with clients (downstream), nodes (upstream) and the admin listener's clients (admin), by result: ok; certificate, a certificate was refused by either side or is missing; incompatible, no version or cipher in common; not_tls, the peer does not use TLS; timeout; closed, the peer closed the connection; other.";
    TLS_RELOADS: Counter "slotway_tls_reloads_total" ["result"] "tls.downstream.cert"
        "Reloads of certificates, keys and CAs after their files changed: ok; failed, the previous ones stay in use.";
    TLS_EXPIRY: Gauge "slotway_tls_certificate_expiry_timestamp_seconds" ["side"] "tls.downstream.cert"
        "Expiry of the certificate presented to clients (downstream), nodes (upstream) or the admin listener's clients (admin), or of one of its intermediates if that is earlier, in seconds since 1970.";
    ACCEPT_ERRORS: Counter "slotway_accept_errors_total" [] ""
        "Connections that could not be accepted, usually for lack of file descriptors.";
    CLIENT_RECEIVED: Counter "slotway_client_received_bytes_total" [] ""
        "Bytes read from clients.";
    CLIENT_SENT: Counter "slotway_client_sent_bytes_total" [] ""
        "Bytes written to clients.";
    CONNECTIONS: Gauge "slotway_upstream_connections" ["node", "state"] "upstream.connections"
        "Connections to a node, by state: ready; connecting, including the handshake; backoff, waiting for the next attempt.";
    CONNECTIONS_ASIDE: Gauge "slotway_upstream_connections_set_aside" ["node"] ""
        "Connections to a node that are set aside because a script keeps the node busy: they get no new commands and are closed when the script has ended. At most 8 per node and worker.";
    CONNECTS: Counter "slotway_upstream_connects_total" ["node"] ""
        "Connections to a node established.";
    FAILURES: Counter "slotway_upstream_failures_total" ["node"] "reconnect.min"
        "Connections to a node that could not be established or were lost.";
    IN_FLIGHT: Gauge "slotway_upstream_in_flight" ["node"] ""
        "Commands in flight: sent to a node or queued for it, and not answered yet.";
    IN_FLIGHT_BYTES: Gauge "slotway_upstream_in_flight_bytes" ["node"] "limits.upstream_in_flight"
        "Bytes of the commands in flight (slotway_upstream_in_flight).";
    NODE_SENT: Counter "slotway_node_sent_bytes_total" ["node"] ""
        "Bytes written to a node.";
    NODE_RECEIVED: Counter "slotway_node_received_bytes_total" ["node"] ""
        "Bytes read from a node.";
    REDIRECTIONS: Counter "slotway_redirections_total" ["kind"] ""
        "Errors of nodes that redirect a command or ask to retry it later, by kind.";
    RETRIES: Counter "slotway_retries_total" ["reason"] "retries.budget_percent"
        "Commands sent again, by reason: the node's error (moved, ask, tryagain, clusterdown, loading, masterdown, readonly, noscript); lost, the connection was lost; topology, the command was still queued when its slot got another primary.";
    RETRY_BUDGET: Counter "slotway_retry_budget_exhausted_total" [] "retries.budget_percent"
        "Retries delayed because the retry budget was exhausted.";
    NO_PRIMARY: Counter "slotway_no_primary_total" [] "timeouts.no_primary"
        "Commands answered with an error because their slot had no primary for timeouts.no_primary.";
    OUTCOME_UNKNOWN: Counter "slotway_outcome_unknown_total" [] ""
        "Commands answered with an error because the connection was lost after they were sent: they may or may not have been executed.";
    DEADLINE_EXCEEDED: Counter "slotway_deadline_exceeded_total" [] "timeouts.command"
        "Commands answered with an error at their deadline.";
    SPLITS: Counter "slotway_splits_total" [] ""
        "Commands split over several slots.";
    KEY_BY_KEY: Counter "slotway_key_by_key_total" [] ""
        "Commands with several keys of one slot (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH) that were sent key by key because the slot is being migrated and two nodes have its keys.";
    LARGE_REPLY_WAITS: Counter "slotway_large_reply_waits_total" [] ""
        "Waits of clients with large commands or replies for their turn, so that large transfers on a connection to a node do not delay other clients.";
    COMMANDS_LEARNED: Gauge "slotway_commands_learned_blocking" [] "commands.blocking"
        "Module commands found to block a connection although COMMAND does not flag them as blocking. They have used dedicated connections since; the log names them.";
    SCRIPT_LOADS: Counter "slotway_script_loads_total" [] ""
        "SCRIPT LOAD commands sent before a client's EVALSHA because the node may lack the script. Nodes that did lack a script count as noscript in slotway_redirections_total.";
    SCRIPTS_PARTIAL: Counter "slotway_scripts_partial_total" [] ""
        "Scripts and function libraries, each counted once, that call KEYS, SCAN, DBSIZE, RANDOMKEY, FLUSHALL or FLUSHDB: they read and change only the keys of the node that runs them. The log has the SHA1 of each.";
    SCRIPT_BYTES: Gauge "slotway_script_bytes" [] "limits.scripts"
        "Bytes of the scripts stored for nodes that lack them.";
    LOGINS: Counter "slotway_logins_total" ["outcome"] "auth"
        "Logins (AUTH, HELLO … AUTH, client certificates), by outcome: own, as a user of slotway; certificate, as a user of slotway by a client certificate; cluster, as a user of the cluster; wrong, wrong name or password; too_many, more users of the cluster than limits.users; unavailable, no node could be asked; throttled, many logins from the same address have failed, and too many are delayed.";
    DENIED: Counter "slotway_denied_total" ["reason"] "users"
        "Commands that slotway refused to users, by reason: login, the client has not logged in; command, key or channel, the user's rules. Refusals by nodes to users of the cluster are not included.";
    CLUSTER_USERS: Gauge "slotway_cluster_users" [] "limits.users"
        "Users of the cluster with connections of their own, summed over the workers.";
    READS: Counter "slotway_reads_total" ["to"] "read_from"
        "Reads that may go to a replica (read_from, replicas.in_failover, READONLY), by destination: replica; zone_replica, a replica in slotway's zone; failover_replica, a replica because the primary is unreachable; primary, by choice; primary_fallback, for lack of a replica. Reads that the primary answers in place of a replica are not counted again (see slotway_retries_total).";
    REPLICAS: Gauge "slotway_replicas" ["state"] "replicas.check"
        "Replicas, by state: fit, used for reads; offline, according to the cluster; unreachable, or another node answers at its address; link_down; syncing; silent, beyond replicas.max_lag; behind, beyond replicas.max_lag_bytes. Until a client reads from replicas, all online ones count as fit.";
    EMULATED: Counter "slotway_emulated_total" ["command", "outcome"] "commands.cross_slot"
        "Commands over several slots that slotway emulated in steps, by outcome: ok; error, no data was changed; halfway, with an error that names the completed steps.";
    TRANSACTIONS: Counter "slotway_transactions_total" ["kind"] "transactions.cross_slot"
        "Transactions sent, by kind: one_slot, one MULTI … EXEC, atomic; split, one per slot, each atomic by itself.";
    BLOCKED: Gauge "slotway_clients_blocked" [] ""
        "Clients whose next command waits for the end of a blocking command or of a WATCH.";
    DEDICATED: Gauge "slotway_dedicated_connections" ["state"] "limits.dedicated"
        "Dedicated connections to nodes, each for one client at a time, by state: lent; idle.";
    PUBSUB_CLIENTS: Gauge "slotway_pubsub_clients" [] ""
        "Clients with subscriptions.";
    PUBSUB_SUBSCRIPTIONS: Gauge "slotway_pubsub_subscriptions" ["kind"] ""
        "Subscriptions of clients to channels, patterns and shard channels.";
    PUBSUB_TOPICS: Gauge "slotway_pubsub_topics" ["kind"] ""
        "Topics: distinct channels, patterns and shard channels that clients are subscribed to.";
    PUBSUB_UPSTREAM: Gauge "slotway_pubsub_upstream_subscriptions" ["kind"] ""
        "Subscriptions of slotway at nodes: one per topic, but one per primary for topics that keyspace notifications can match.";
    PUBSUB_CONNECTIONS: Gauge "slotway_pubsub_connections" [] ""
        "Connections to nodes for subscriptions.";
    PUBSUB_RECEIVED: Counter "slotway_pubsub_messages_received_total" ["kind"] ""
        "Messages read from nodes, by kind of subscription.";
    PUBSUB_RECEIVED_BYTES: Counter "slotway_pubsub_received_bytes_total" [] ""
        "Bytes read on connections for subscriptions.";
    PUBSUB_IGNORED: Counter "slotway_pubsub_messages_ignored_total" [] ""
        "Messages read and not delivered: copies from other nodes, or the last subscriber has left.";
    PUBSUB_DELIVERIES: Counter "slotway_pubsub_deliveries_total" ["kind"] ""
        "Messages delivered, counted once per subscriber.";
    PUBSUB_DROPPED: Counter "slotway_pubsub_dropped_total" [] "pubsub.output_hard"
        "Undelivered messages of subscribers that were closed because they did not read them.";
    PUBSUB_PUBLISH_WAITS: Counter "slotway_pubsub_publish_waits_total" [] ""
        "Waits of a PUBLISH, SPUBLISH or transaction with one for an earlier subscription that the cluster had not confirmed yet.";
    PUBSUB_GAPS: Counter "slotway_pubsub_gaps_total" ["reason"] "pubsub.on_gap"
        "Gaps: topics that may have missed messages, by reason: the connection was lost, its node failed or left, the slot moved, another node became primary, or the hub itself failed.";
    PUBSUB_RESUBSCRIPTIONS: Counter "slotway_pubsub_resubscriptions_total" [] ""
        "Subscriptions renewed after a gap.";
    PUBSUB_FAILURES: Counter "slotway_pubsub_connection_failures_total" [] "reconnect.min"
        "Connections for subscriptions that could not be established or were lost.";
    PUBSUB_RESTARTS: Counter "slotway_pubsub_restarts_total" [] ""
        "Failures of the pub/sub hub, after each of which it was restarted.";
    PUBSUB_HELD: Gauge "slotway_pubsub_held_bytes" [] "limits.memory"
        "Bytes of messages that some subscribers have not read yet; each message counts once.";
    ERRORS: Counter "slotway_errors_total" ["code"] ""
        "Errors of slotway sent to clients, by the code in docs/errors.md; other stands for codes of nodes that slotway repeats at a deadline. Errors of nodes that are passed on count in slotway_commands_total only.";
    LIMITS_HIT: Counter "slotway_limits_hit_total" ["limit"] ""
        "Number of times a limit was reached, by its key under [limits]; pubsub_hard and pubsub_soft are pubsub.output_hard and pubsub.output_soft; protocol stands for the limits on the size of a request.";
    LIMIT: Gauge "slotway_limit" ["limit"] ""
        "Limits in force, by their key under [limits]: bytes, clients or arguments. clients, dedicated and users are lower than configured if the limit on open files is too low for them.";
    BUFFERS: Gauge "slotway_buffer_bytes" [] "limits.memory"
        "Bytes in all buffers.";
    HELD: Gauge "slotway_held_commands" [] "limits.held"
        "Commands held because their slot is moving or has no primary.";
    REFRESHES: Counter "slotway_topology_refreshes_total" ["upstream", "result"] "topology.refresh"
        "Topology refreshes, by result: ok; failed, no node answered.";
    CHANGES: Counter "slotway_topology_changes_total" ["upstream"] ""
        "Topology refreshes that found a changed topology.";
    VIEWS_REFUSED: Counter "slotway_topology_views_refused_total" ["upstream", "reason"] "seeds"
        "Nodes' views of the topology that were refused, by reason: foreign, of another cluster; older, of a node that has missed changes; unconfirmed, it knows less than the topology in use and no other node confirms it; no_slots, of a node without a cluster.";
    EXCEPTIONS: Counter "slotway_topology_exceptions_total" ["upstream", "rule"] "seeds"
        "Topologies adopted although they do not continue the previous one, by rule: replaced, all known nodes were gone and all seeds named another cluster; restored, most nodes agreed on an older state.";
    STRANGERS: Counter "slotway_upstream_strangers_total" [] "seeds"
        "Connections closed before the first command because a different node answered than the one that the topology has at this address.";
    AGE: Gauge "slotway_topology_age_seconds" ["upstream"] "topology.refresh"
        "Time since the last successful topology refresh; absent before the first one.";
    NODE_TIMEOUT: Gauge "slotway_cluster_node_timeout_seconds" ["upstream"] "timeouts.command"
        "The nodes' cluster-node-timeout; a failover takes up to three seconds longer. Absent while unknown.";
    GENERATION: Gauge "slotway_topology_generation" ["upstream"] ""
        "Number of the topology in use; 0 before the first one.";
    COVERED: Gauge "slotway_slots_covered" ["upstream"] ""
        "Slots whose primary has not failed; 16384 in a healthy cluster, and before a healthy single server.";
    WORKERS: Gauge "slotway_workers" [] "workers"
        "Running workers.";
    WORKER_FAILURES: Counter "slotway_worker_failures_total" [] "workers"
        "Workers that ended unexpectedly and were replaced.";
    TASK_FAILURES: Counter "slotway_task_failures_total" [] ""
        "Tasks of the control thread (accepting, topology, admin) that failed and were restarted.";
    RELOADS: Counter "slotway_config_reloads_total" ["outcome"] ""
        "Reloads of the configuration (SIGHUP, a changed file), by outcome: changed; unchanged; invalid, the configuration in use stays.";
    CONFIG_IN_USE: Gauge "slotway_config_in_use" [] ""
        "1 if the configuration in use is that of the file; 0 if the file is invalid or a changed key needs a restart (the log says which).";
    CONFIG_LOADED: Gauge "slotway_config_loaded_timestamp_seconds" [] ""
        "Time at which the configuration in use was last read, in seconds since 1970.";
    RESTART_KEYS: Gauge "slotway_config_restart_keys" [] ""
        "Configuration keys whose new value needs a restart.";
    SAMPLED: Counter "slotway_sampled_commands_total" [] "observe.sample"
        "Commands sampled for hot keys.";
    SLOW: Counter "slotway_slow_commands_total" [] "slowlog.slower_than"
        "Commands added to the slow log.";
    SPANS: Counter "slotway_trace_spans_total" ["outcome"] "tracing.endpoint"
        "Spans, by outcome: exported, accepted by the collector; dropped, the queue was full; failed, the collector was unreachable or did not accept them.";
    TURNS: Counter "slotway_worker_turns_total" [] ""
        "Turns of the workers' event loops.";
    BUILD: Gauge "slotway_build_info" ["version"] ""
        "Always 1; the label has the version of slotway.";
    CPU: Counter "process_cpu_seconds_total" [] ""
        "User and system CPU time spent.";
    OPEN_FDS: Gauge "process_open_fds" [] ""
        "Open file descriptors.";
    MAX_FDS: Gauge "process_max_fds" [] "limits.clients"
        "Limit on open file descriptors.";
    DESCRIPTORS_RESERVED: Gauge "slotway_descriptors_reserved" [] "limits.clients"
        "File descriptors reserved for connections to nodes, the admin listener and files. The rest of process_max_fds limits the number of clients, unless limits.clients is lower.";
    VIRTUAL: Gauge "process_virtual_memory_bytes" [] ""
        "Virtual memory size.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] ""
        "Resident memory size.";
    START_TIME: Gauge "process_start_time_seconds" [] ""
        "Start time of the process, in seconds since 1970.";
    THREADS: Gauge "process_threads" [] ""
        "Threads of the process.";
}

/// The text of `docs/metrics.md`.
pub fn docs_markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener (`admin` in the configuration), in the text format of \
         Prometheus. Durations are in seconds, sizes in bytes.\n\n\
         This page is generated from the table in `src/metrics/names.rs`; \
         `SLOTWAY_WRITE_DOCS=1 cargo test --lib metrics` writes it anew.\n\n\
         How many series there are depends on the cluster and on the command table, never on what \
         clients send: a command is exposed once it has been seen, and everything that the table \
         does not have is the one command `unknown`. `node` is a node's address.\n\n\
         | name | type | labels | meaning | configuration |\n\
         |---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let key = match metric.key {
            "" => String::new(),
            key => format!("`{key}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {key} |",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("SLOTWAY_WRITE_DOCS").is_some() {
            std::fs::write(path, docs_markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == docs_markdown(),
            "docs/metrics.md is out of date: SLOTWAY_WRITE_DOCS=1 cargo test --lib metrics"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert_eq!(metric.kind == MetricKind::Counter, metric.name.ends_with("_total"));
            if metric.kind == MetricKind::Histogram {
                assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
            }
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!metric.help.contains('|'), "{} breaks the table", metric.name);
        }
    }
}
