//! The counters and gauges of a worker, and the values of their labels.

use crate::channel::TopicKind;
use crate::cluster::NodeAddr;
use crate::command::{Class, CommandId};
use crate::errors::{Code, Failure};
use crate::placement::{ReadTo, Redirection};

/// Upper bounds of the latency buckets in microseconds, ascending. One more bucket (`+Inf`) has the
/// observations above the last bound.
pub const BUCKETS_MICROS: [u64; 18] = [
    50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000, 100_000,
    250_000, 1_000_000, 2_500_000, 10_000_000,
];

/// A latency histogram. Its buckets are not cumulative, unlike those of the exposition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations per bucket of [`BUCKETS_MICROS`], the last one `+Inf`.
    pub(super) buckets: [u64; BUCKETS_MICROS.len() + 1],
    /// Sum of all observations, in microseconds.
    pub(super) sum_micros: u64,
}

impl Histogram {
    /// Index of the bucket for a latency of `micros`.
    #[inline]
    pub fn bucket(micros: u64) -> usize {
        BUCKETS_MICROS.partition_point(|&b| b < micros)
    }

    /// Counts an observation. Callers pass the bucket, as one latency goes into several histograms.
    #[inline]
    pub fn record(&mut self, bucket: usize, micros: u64) {
        if let Some(b) = self.buckets.get_mut(bucket) {
            *b += 1;
        }
        self.sum_micros += micros;
    }

    /// Adds the observations of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
        self.sum_micros += other.sum_micros;
    }
}

/// Counters of a command (label `command`, bounded by the command table).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Commands answered without an error.
    pub ok: u64,
    /// Commands answered with an error of a node.
    pub error: u64,
    /// Commands answered with an error of slotway: refused, deadline, outcome unknown.
    pub refused: u64,
}

/// Reason for sending a command again (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// A node has refused the command.
    Refused(Redirection),
    /// The connection was lost.
    Lost,
    /// The command was still queued when its slot got another primary.
    Topology,
}

impl RetryReason {
    /// Number of reasons, each kind of refusal being one.
    pub const COUNT: usize = Redirection::COUNT + 2;
    /// Label values, by [`RetryReason::index`].
    pub const NAMES: [&'static str; Self::COUNT] = {
        let mut names = [""; Self::COUNT];
        let mut kind = 0;
        while kind < Redirection::COUNT {
            names[kind] = Redirection::NAMES[kind];
            kind += 1;
        }
        names[Self::Lost.index()] = "lost";
        names[Self::Topology.index()] = "topology";
        names
    };

    /// The index of the reason among all.
    pub const fn index(self) -> usize {
        match self {
            RetryReason::Refused(kind) => kind as usize,
            RetryReason::Lost => Redirection::COUNT,
            RetryReason::Topology => Redirection::COUNT + 1,
        }
    }
}

/// Outcome of reading a PROXY protocol header (label `result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderOutcome {
    /// The header names the client.
    Ok,
    /// The header names no client: a health check, or a client without an IP address.
    Local,
    /// The connection does not begin with a header.
    Missing,
    /// The header is invalid.
    Invalid,
    /// The header took longer than `proxy_protocol.timeout`.
    Timeout,
    /// The peer is not in `proxy_protocol.trusted`.
    Untrusted,
    /// The connection was closed before the end of the header.
    Closed,
}

impl ProxyHeaderOutcome {
    /// Number of outcomes.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["ok", "local", "missing", "invalid", "timeout", "untrusted", "closed"];
}

/// Reason for closing a client other than a fault in what it sent (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// `timeouts.login`
    Login,
    /// `timeouts.idle`
    Idle,
    /// `timeouts.max_age`
    MaxAge,
    /// Lowered limit of clients: the limit on open files was lowered, or the cluster has grown.
    Descriptors,
    /// `commands.on_outcome_unknown`
    OutcomeUnknown,
}

impl DisconnectReason {
    /// Number of reasons.
    pub const COUNT: usize = 5;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["login", "idle", "max_age", "descriptors", "outcome_unknown"];
}

/// Outcome of a login (label `outcome`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// Logged in as a user of slotway.
    Own,
    /// Logged in as a user of the cluster.
    Cluster,
    /// Logged in as a user of slotway by a client certificate.
    Certificate,
    /// Refused: wrong name or password.
    Wrong,
    /// Refused: more users of the cluster than `limits.users`.
    TooMany,
    /// Refused: no node could be asked, or the node gave another reason.
    Unavailable,
    /// Refused: many logins from the same address have failed, and too many are delayed.
    Throttled,
}

impl LoginOutcome {
    /// Number of outcomes.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["own", "cluster", "certificate", "wrong", "too_many", "unavailable", "throttled"];
}

/// Reason for refusing a command to a user (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// The client has not logged in.
    Login,
    /// The user may not use the command.
    Command,
    /// The user may not access a key.
    Key,
    /// The user may not access a channel.
    Channel,
}

impl DenialReason {
    /// Number of reasons.
    pub const COUNT: usize = 4;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["login", "command", "key", "channel"];
}

/// Kind of a transaction, by how it is executed (label `kind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// One MULTI … EXEC: atomic.
    OneSlot,
    /// One MULTI … EXEC per slot (`transactions.cross_slot = "split"`): atomic per slot.
    Split,
}

impl TransactionKind {
    /// Number of kinds.
    pub const COUNT: usize = 2;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["one_slot", "split"];
}

/// Outcome of an emulated command (label `outcome`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmulatedOutcome {
    /// Answered without an error.
    Ok,
    /// Answered with an error; no data was changed.
    Error,
    /// Answered with an error that names the completed steps.
    Halfway,
}

impl EmulatedOutcome {
    /// Number of outcomes.
    pub const COUNT: usize = 3;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["ok", "error", "halfway"];
}

/// A configured limit that a worker can reach (label `limit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LimitHit {
    Clients,
    ClientOutput,
    UpstreamInFlight,
    Memory,
    Held,
    Scripts,
    Dedicated,
    PubSubHard,
    PubSubSoft,
    Protocol,
}

impl LimitHit {
    /// Number of limits.
    pub const COUNT: usize = 10;
    /// Label values, by discriminant: the key under `[limits]`; `pubsub_hard` and `pubsub_soft` for
    /// `pubsub.output_hard` and `output_soft`; `protocol` for the limits on the size of a request.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "clients",
        "client_output",
        "upstream_in_flight",
        "memory",
        "held",
        "scripts",
        "dedicated",
        "pubsub_hard",
        "pubsub_soft",
        "protocol",
    ];
}

/// Counters and gauges for a node (label `node`, bounded by the size of the cluster).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Address of the node; `None` for an unused entry.
    pub addr: Option<NodeAddr>,
    /// Time from reading a command from its client to reading its reply from this node.
    pub latency: Histogram,
    /// Gauge: connections ready for commands.
    pub connections_ready: u64,
    /// Gauge: connections being established, including the handshake.
    pub connections_connecting: u64,
    /// Gauge: connections waiting for their next attempt.
    pub connections_backoff: u64,
    /// Gauge: connections set aside behind a script; these also count by their state.
    pub connections_aside: u64,
    /// Gauge: commands in flight, which are sent or queued and not answered.
    pub in_flight: u64,
    /// Gauge: bytes of the commands in flight.
    pub in_flight_bytes: u64,
    /// Connections established.
    pub connects: u64,
    /// Connections that could not be established or were lost.
    pub failures: u64,
    /// Bytes written to the node.
    pub bytes_sent: u64,
    /// Bytes read from the node.
    pub bytes_received: u64,
}

/// All counters and gauges of a worker. Fields are counters unless marked as gauges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Commands answered, by [`crate::command::CommandId`]; the last entry counts unknown commands.
    pub commands: Vec<CommandStats>,
    /// Time from reading a command to its reply, by [`Class`].
    pub latency: [Histogram; Class::COUNT],
    /// Nodes, by the worker's own index; merged by address.
    pub nodes: Vec<NodeStats>,
    /// Gauge: connected clients.
    pub clients: u64,
    /// Gauge: connected clients that use RESP3.
    pub clients_resp3: u64,
    /// Gauge: clients whose next command waits for the end of a CLIENT PAUSE.
    pub clients_paused: u64,
    /// Clients accepted since the start.
    pub clients_accepted: u64,
    /// Clients closed since the start.
    pub clients_closed: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Redirections and other refusals by nodes, by [`Redirection`].
    pub redirections: [u64; Redirection::COUNT],
    /// Commands sent again, by [`RetryReason`].
    pub retries: [u64; RetryReason::COUNT],
    /// Retries delayed by the retry budget.
    pub retry_budget_exhausted: u64,
    /// Commands whose slot had no primary for `timeouts.no_primary`.
    pub no_primary: u64,
    /// Commands whose outcome is unknown.
    pub outcome_unknown: u64,
    /// Connections closed because a node other than the expected one answered.
    pub strangers: u64,
    /// Commands answered with an error at their deadline.
    pub deadline_exceeded: u64,
    /// Commands split over several slots.
    pub splits: u64,
    /// Commands with keys of one slot that were sent key by key.
    pub key_by_key: u64,
    /// Waits of clients with large replies for their turn.
    pub large_reply_waits: u64,
    /// SCRIPT LOAD commands that slotway sent before a client's command.
    pub script_loads: u64,
    /// Scripts that call a command about all keys; each counts once.
    pub scripts_partial: u64,
    /// Logins, by [`LoginOutcome`].
    pub logins: [u64; LoginOutcome::COUNT],
    /// Clients closed, by [`DisconnectReason`].
    pub disconnected: [u64; DisconnectReason::COUNT],
    /// Commands refused to users, by [`DenialReason`].
    pub denied: [u64; DenialReason::COUNT],
    /// Gauge: users of the cluster with connections of their own.
    pub users: u64,
    /// Reads that may go to a replica, by [`ReadTo`].
    pub reads: [u64; ReadTo::COUNT],
    /// Transactions sent, by [`TransactionKind`].
    pub transactions: [u64; TransactionKind::COUNT],
    /// Emulated commands, by index in [`crate::emulate::TABLE`] and by [`EmulatedOutcome`].
    pub emulated: Vec<[u64; EmulatedOutcome::COUNT]>,
    /// Gauge: clients whose next command waits for the one that occupies them (blocking commands,
    /// WATCH).
    pub clients_blocked: u64,
    /// Gauge: dedicated connections lent to clients.
    pub dedicated_lent: u64,
    /// Gauge: idle dedicated connections.
    pub dedicated_idle: u64,
    /// Gauge: clients with subscriptions.
    pub subscribers: u64,
    /// Gauge: subscriptions of clients, by [`TopicKind`].
    pub subscriptions: [u64; TopicKind::COUNT],
    /// Messages delivered, counted per subscriber, by [`TopicKind`] of the subscription.
    pub deliveries: [u64; TopicKind::COUNT],
    /// Undelivered messages of subscribers closed for not reading them.
    pub messages_dropped: u64,
    /// PUBLISH commands that waited for an earlier, unconfirmed subscription.
    pub publish_waits: u64,
    /// Errors of slotway, by [`Code::index`].
    pub errors: [u64; Code::COUNT],
    /// Limits reached, by [`LimitHit`].
    pub limits_hit: [u64; LimitHit::COUNT],
    /// Gauge: bytes in all buffers of the worker.
    pub buffer_bytes: u64,
    /// Gauge: commands held because their slot is being redirected or has no primary.
    pub held: u64,
    /// Commands sampled for hot keys.
    pub sampled: u64,
    /// Turns of the event loop.
    pub turns: u64,
}

impl WorkerStats {
    /// A client gets this error.
    pub fn count_failure(&mut self, failure: &Failure) {
        if let Some(count) = self.errors.get_mut(failure.code().index()) {
            *count += 1;
        }
    }

    /// Counts an answer of slotway's own to a command.
    pub fn count_own(&mut self, command: CommandId, reply: &[u8]) {
        if let Some(stats) = self.commands.get_mut(command.index()) {
            match reply.first() {
                Some(b'-') => stats.error += 1,
                _ => stats.ok += 1,
            }
        }
    }

    /// A command is sent again.
    pub fn count_retry(&mut self, reason: RetryReason) {
        self.retries[reason.index()] += 1;
    }
}
