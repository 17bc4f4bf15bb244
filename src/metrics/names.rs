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
        "Commands answered: ok; error, the server's; refused, an error of slotway's own. Commands not in the table count as unknown.";
    COMMAND_DURATION: Histogram "slotway_command_duration_seconds" ["class"] ""
        "From a command read from its client to its reply ready for the client, by class of command; blocking commands that have waited (10 ms or more) are left out.";
    NODE_DURATION: Histogram "slotway_node_command_duration_seconds" ["node"] ""
        "From a command read from its client to its reply read from the node; blocking commands that have waited (10 ms or more) are left out.";
    CLIENTS: Gauge "slotway_clients" ["protocol"] "limits.clients"
        "Connected clients by the protocol they speak.";
    CLIENTS_PAUSED: Gauge "slotway_clients_paused" [] ""
        "Clients whose next command waits for the end of a CLIENT PAUSE.";
    CLIENTS_ACCEPTED: Counter "slotway_clients_accepted_total" [] ""
        "Clients accepted.";
    CLIENTS_CLOSED: Counter "slotway_clients_closed_total" [] ""
        "Clients closed, by either side.";
    CLIENTS_REJECTED: Counter "slotway_clients_rejected_total" [] "limits.clients"
        "Connections answered with \"max number of clients reached\" and closed: the limit, which is lower than limits.clients where file descriptors are short, is slotway_limit{limit=\"clients\"}.";
    CLIENTS_DISCONNECTED: Counter "slotway_clients_disconnected_total" ["reason"] "timeouts.max_age"
        "Clients that slotway closed for no fault in what they sent: login, they had to log in and had not within timeouts.login; idle, timeouts.idle; max_age, timeouts.max_age; descriptors, the cluster has grown or the limit on open files was lowered, and their file descriptors were needed for nodes; outcome_unknown, a command may or may not have been executed and commands.on_outcome_unknown is \"disconnect\".";
    PROXY_HEADERS: Counter "slotway_proxy_protocol_headers_total" ["result"] "proxy_protocol.listen"
        "Connections to proxy_protocol.listen by their header: ok; local, it names no client (health checks); or closed because the header is missing, invalid or longer in coming than proxy_protocol.timeout (timeout), because the connection comes from an address that is not in proxy_protocol.trusted (untrusted), or by the other side (closed).";
    TLS_HANDSHAKES: Counter "slotway_tls_handshakes_total" ["side", "result"] "tls.downstream.listen"
        "TLS handshakes with clients (downstream) and nodes (upstream): ok; or failed because a certificate was refused by either side or is missing (certificate), no version or cipher is common (incompatible), what came is no TLS (not_tls), it took too long (timeout), the other side closed the connection (closed), or another reason (other).";
    TLS_RELOADS: Counter "slotway_tls_reloads_total" ["result"] "tls.downstream.cert"
        "Certificates, keys and CAs read again because their files have changed: ok; failed, those before stay in use.";
    TLS_EXPIRY: Gauge "slotway_tls_certificate_expiry_timestamp_seconds" ["side"] "tls.downstream.cert"
        "When the certificate that is shown to clients (downstream) or nodes (upstream) ends, or one of its intermediates if that is earlier, in seconds since 1970.";
    ACCEPT_ERRORS: Counter "slotway_accept_errors_total" [] ""
        "Connections that could not be accepted, for want of file descriptors most often.";
    CLIENT_RECEIVED: Counter "slotway_client_received_bytes_total" [] ""
        "Bytes read from clients.";
    CLIENT_SENT: Counter "slotway_client_sent_bytes_total" [] ""
        "Bytes written to clients.";
    CONNECTIONS: Gauge "slotway_upstream_connections" ["node", "state"] "upstream.connections"
        "Connections to a node: ready; connecting, the handshake included; backoff, waiting for the next attempt.";
    CONNECTIONS_ASIDE: Gauge "slotway_upstream_connections_set_aside" ["node"] ""
        "Of the connections to a node, those set aside behind a script that keeps it busy: they get no new commands and are closed when the script has ended. At most 8 per node and worker.";
    CONNECTS: Counter "slotway_upstream_connects_total" ["node"] ""
        "Connections to a node made.";
    FAILURES: Counter "slotway_upstream_failures_total" ["node"] "reconnect.min"
        "Connections to a node that could not be made or were lost.";
    IN_FLIGHT: Gauge "slotway_upstream_in_flight" ["node"] ""
        "Commands sent to a node or waiting to be, and not answered yet.";
    IN_FLIGHT_BYTES: Gauge "slotway_upstream_in_flight_bytes" ["node"] "limits.upstream_in_flight"
        "Bytes of these commands.";
    NODE_SENT: Counter "slotway_node_sent_bytes_total" ["node"] ""
        "Bytes written to a node.";
    NODE_RECEIVED: Counter "slotway_node_received_bytes_total" ["node"] ""
        "Bytes read from a node.";
    REDIRECTIONS: Counter "slotway_redirections_total" ["kind"] ""
        "Answers of nodes that sent a command elsewhere or asked for patience.";
    RETRIES: Counter "slotway_retries_total" ["reason"] "retries.budget_percent"
        "Commands sent again, by reason: the node's refusal (moved, ask, tryagain, clusterdown, loading, masterdown, readonly, noscript); lost, the connection was lost; topology, it was not sent yet when its slot got another primary.";
    RETRY_BUDGET: Counter "slotway_retry_budget_exhausted_total" [] "retries.budget_percent"
        "Retries that had to wait because the budget of retries was exhausted.";
    NO_PRIMARY: Counter "slotway_no_primary_total" [] "timeouts.no_primary"
        "Commands answered with an error because their slot's primary had been missing for longer than timeouts.no_primary.";
    OUTCOME_UNKNOWN: Counter "slotway_outcome_unknown_total" [] ""
        "Commands answered with an error because their connection was lost and they may have been executed.";
    DEADLINE_EXCEEDED: Counter "slotway_deadline_exceeded_total" [] "timeouts.command"
        "Commands answered with an error at their deadline.";
    SPLITS: Counter "slotway_splits_total" [] ""
        "Commands split over several slots.";
    KEY_BY_KEY: Counter "slotway_key_by_key_total" [] ""
        "Commands with several keys of one slot (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH) that were sent key by key, because the slot is being migrated and its keys are at two nodes.";
    LARGE_REPLY_WAITS: Counter "slotway_large_reply_waits_total" [] ""
        "Times a client with large commands or replies waited for its turn, because those under way on a connection to a node would have held other clients up.";
    COMMANDS_LEARNED: Gauge "slotway_commands_learned_blocking" [] "commands.blocking"
        "Modules' commands that were seen to block a connection without the flag blocking in COMMAND, and go over connections lent to their clients since; the log names them.";
    SCRIPT_LOADS: Counter "slotway_script_loads_total" [] ""
        "SCRIPT LOADs put before a client's EVALSHA because its node may lack the script; that it did lack it is noscript in slotway_redirections_total.";
    SCRIPTS_PARTIAL: Counter "slotway_scripts_partial_total" [] ""
        "Scripts and function libraries, each once, that call KEYS, SCAN, DBSIZE, RANDOMKEY, FLUSHALL or FLUSHDB: they see and change only the keys of the node that they run on. The log has the SHA1 of each.";
    SCRIPT_BYTES: Gauge "slotway_script_bytes" [] "limits.scripts"
        "Bytes of the scripts kept for nodes that lack them.";
    LOGINS: Counter "slotway_logins_total" ["outcome"] "auth"
        "Logins (AUTH, HELLO … AUTH, a client's certificate): own and certificate, a user of slotway's own; cluster, a user of the cluster; wrong, a wrong name or password; too_many, more users of the cluster than limits.users; unavailable, no node could be asked; throttled, many have failed from the same address, and too many wait.";
    DENIED: Counter "slotway_denied_total" ["reason"] "users"
        "Commands that slotway refused to a user: login, it has not logged in; command, key, channel, its rules. What nodes refuse to their users is not in it.";
    CLUSTER_USERS: Gauge "slotway_cluster_users" [] "limits.users"
        "Users of the cluster with connections of their own, added up over the workers.";
    READS: Counter "slotway_reads_total" ["to"] "read_from"
        "Reads that need not go to their primary (read_from, replicas.in_failover, READONLY), by where they went: replica; zone_replica, in slotway's zone; failover_replica, because the primary is not reached; primary, as chosen; primary_fallback, for want of a replica. Not counted again: what a replica did not answer and the primary then did (slotway_retries_total).";
    REPLICAS: Gauge "slotway_replicas" ["state"] "replicas.check"
        "Replicas: fit; or not read from because they are offline (the cluster says so), unreachable (or another node answers at their address), link_down, syncing, silent (replicas.max_lag) or behind (replicas.max_lag_bytes). Until somebody reads from replicas all that are online count as fit.";
    EMULATED: Counter "slotway_emulated_total" ["command", "outcome"] "commands.cross_slot"
        "Commands over several slots that slotway carried out in steps: ok; error, nothing was changed; halfway, an error that says which steps were done.";
    TRANSACTIONS: Counter "slotway_transactions_total" ["kind"] "transactions.cross_slot"
        "Transactions sent: one_slot is one MULTI … EXEC, atomic; split is one per slot, each atomic by itself.";
    BLOCKED: Gauge "slotway_clients_blocked" [] ""
        "Clients whose next command waits for the one that occupies them (blocking commands, WATCH).";
    DEDICATED: Gauge "slotway_dedicated_connections" ["state"] "limits.dedicated"
        "Connections to nodes for one client at a time: lent, or idle.";
    PUBSUB_CLIENTS: Gauge "slotway_pubsub_clients" [] ""
        "Clients that are subscribed to something.";
    PUBSUB_SUBSCRIPTIONS: Gauge "slotway_pubsub_subscriptions" ["kind"] ""
        "Their subscriptions: to channels, patterns and shard channels.";
    PUBSUB_TOPICS: Gauge "slotway_pubsub_topics" ["kind"] ""
        "Different channels, patterns and shard channels that clients are subscribed to.";
    PUBSUB_UPSTREAM: Gauge "slotway_pubsub_upstream_subscriptions" ["kind"] ""
        "Slotway's own subscriptions at the nodes: one per channel or pattern, but one per primary for those that keyspace notifications can match.";
    PUBSUB_CONNECTIONS: Gauge "slotway_pubsub_connections" [] ""
        "Connections to nodes that carry them.";
    PUBSUB_RECEIVED: Counter "slotway_pubsub_messages_received_total" ["kind"] ""
        "Messages read from nodes, by kind of the subscription.";
    PUBSUB_RECEIVED_BYTES: Counter "slotway_pubsub_received_bytes_total" [] ""
        "Bytes read on these connections.";
    PUBSUB_IGNORED: Counter "slotway_pubsub_messages_ignored_total" [] ""
        "Messages read and not handed on: another node's copy, or nobody is subscribed any more.";
    PUBSUB_DELIVERIES: Counter "slotway_pubsub_deliveries_total" ["kind"] ""
        "Messages given to subscribers: one for each subscriber that got it.";
    PUBSUB_DROPPED: Counter "slotway_pubsub_dropped_total" [] "pubsub.output_hard"
        "Messages that were waiting for subscribers that were closed because they did not take them.";
    PUBSUB_PUBLISH_WAITS: Counter "slotway_pubsub_publish_waits_total" [] ""
        "Times that a PUBLISH, SPUBLISH or transaction with one waited for a subscription that was asked for before it and that the cluster had not confirmed.";
    PUBSUB_GAPS: Counter "slotway_pubsub_gaps_total" ["reason"] "pubsub.on_gap"
        "Topics that may have missed messages, each time: the connection was lost, its node has failed or left, the slot has moved, another node is primary, the hub itself failed.";
    PUBSUB_RESUBSCRIPTIONS: Counter "slotway_pubsub_resubscriptions_total" [] ""
        "Subscriptions that were made again after a gap.";
    PUBSUB_FAILURES: Counter "slotway_pubsub_connection_failures_total" [] "reconnect.min"
        "Subscription connections that could not be made or were lost.";
    PUBSUB_RESTARTS: Counter "slotway_pubsub_restarts_total" [] ""
        "Times that the hub failed and began anew.";
    PUBSUB_HELD: Gauge "slotway_pubsub_held_bytes" [] "limits.memory"
        "Bytes of messages that are not yet taken by all their subscribers, counted once whatever their number.";
    ERRORS: Counter "slotway_errors_total" ["code"] ""
        "Errors of slotway's own that clients got, by the code that docs/errors.md has; other stands for codes that only nodes give, repeated by slotway at a deadline. Errors of nodes that were passed on count in slotway_commands_total only.";
    LIMITS_HIT: Counter "slotway_limits_hit_total" ["limit"] ""
        "Times that a limit was reached, by its key under [limits]; pubsub_hard and pubsub_soft are pubsub.output_hard and output_soft, protocol stands for the limits on the size of a request.";
    LIMIT: Gauge "slotway_limit" ["limit"] ""
        "The limits of [limits] in force: bytes, clients or arguments. clients, dedicated and users are lower than configured where the limit on open files is too low for them.";
    BUFFERS: Gauge "slotway_buffer_bytes" [] "limits.memory"
        "Bytes in all buffers.";
    HELD: Gauge "slotway_held_commands" [] "limits.held"
        "Commands waiting because their slot moves or has no primary.";
    REFRESHES: Counter "slotway_topology_refreshes_total" ["result"] "topology.refresh"
        "Times that the cluster was asked for its topology: ok, or failed because no node gave an answer.";
    CHANGES: Counter "slotway_topology_changes_total" [] ""
        "Times that the answer differed from the one before.";
    VIEWS_REFUSED: Counter "slotway_topology_views_refused_total" ["reason"] "seeds"
        "Nodes' answers that could not replace the topology in use: foreign, of another cluster; older, of a node that has missed changes; unconfirmed, knowing less than the one in use and no other node says the same; no_slots, of a node without a cluster.";
    EXCEPTIONS: Counter "slotway_topology_exceptions_total" ["rule"] "seeds"
        "Topologies adopted although they do not continue the one before: replaced, all known nodes were gone and all seeds named another cluster; restored, most nodes agreed on an older state.";
    STRANGERS: Counter "slotway_upstream_strangers_total" [] "seeds"
        "Connections closed before the first command because another node answered than the one that the topology has at this address.";
    AGE: Gauge "slotway_topology_age_seconds" [] "topology.refresh"
        "Time since a node last gave the topology; absent before the first answer.";
    NODE_TIMEOUT: Gauge "slotway_cluster_node_timeout_seconds" [] "timeouts.command"
        "The nodes' cluster-node-timeout, which a failover takes and up to three seconds more; absent while the nodes do not tell it.";
    GENERATION: Gauge "slotway_topology_generation" [] ""
        "Number of the topology in use; 0 before the first one.";
    COVERED: Gauge "slotway_slots_covered" [] ""
        "Slots that have a primary which is not failed; 16384 in a healthy cluster.";
    WORKERS: Gauge "slotway_workers" [] "workers"
        "Workers running.";
    WORKER_FAILURES: Counter "slotway_worker_failures_total" [] "workers"
        "Workers that ended unexpectedly and were replaced.";
    TASK_FAILURES: Counter "slotway_task_failures_total" [] ""
        "Parts of the control thread (accepting, topology, admin) that failed and were started anew.";
    RELOADS: Counter "slotway_config_reloads_total" ["outcome"] ""
        "Times that the configuration was read anew (SIGHUP, a changed file): changed; unchanged, nothing in it differs; invalid, nothing was changed because something is wrong with it.";
    CONFIG_IN_USE: Gauge "slotway_config_in_use" [] ""
        "1: what the configuration file says is in use. 0: it is not, because it is invalid or a key needs a restart; the log says which.";
    CONFIG_LOADED: Gauge "slotway_config_loaded_timestamp_seconds" [] ""
        "When the configuration in use was read last, in seconds since 1970.";
    RESTART_KEYS: Gauge "slotway_config_restart_keys" [] ""
        "Keys whose value in the file is used after a restart only.";
    SAMPLED: Counter "slotway_sampled_commands_total" [] "observe.sample"
        "Commands whose keys were looked at for the hot keys.";
    SLOW: Counter "slotway_slow_commands_total" [] "slowlog.slower_than"
        "Commands that went into the slow log.";
    SPANS: Counter "slotway_trace_spans_total" ["outcome"] "tracing.endpoint"
        "Spans: exported, the collector has taken them; dropped, there was no room for them before they were sent; failed, the collector could not be reached or did not take them.";
    TURNS: Counter "slotway_worker_turns_total" [] ""
        "Turns of the workers' event loops.";
    BUILD: Gauge "slotway_build_info" ["version"] ""
        "Always 1; which slotway this is.";
    CPU: Counter "process_cpu_seconds_total" [] ""
        "User and system CPU time spent.";
    OPEN_FDS: Gauge "process_open_fds" [] ""
        "Open file descriptors.";
    MAX_FDS: Gauge "process_max_fds" [] "limits.clients"
        "The most file descriptors that may be open.";
    DESCRIPTORS_RESERVED: Gauge "slotway_descriptors_reserved" [] "limits.clients"
        "File descriptors that clients cannot have: those of connections to nodes, the admin listener and files. What is left of process_max_fds is the limit on clients, if limits.clients is not lower.";
    VIRTUAL: Gauge "process_virtual_memory_bytes" [] ""
        "Virtual memory size.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] ""
        "Resident memory size.";
    START_TIME: Gauge "process_start_time_seconds" [] ""
        "When the process started, in seconds since 1970.";
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
