//! The counters of one worker.

use crate::channel::TopicKind;
use crate::cluster::NodeAddr;
use crate::command::Class;
use crate::errors::Code;
use crate::placement::{ReadTo, Redirection};

/// Upper bounds of the latency buckets, in microseconds, ascending; what is slower than the last
/// goes into one bucket more (`+Inf`).
pub const BUCKETS_MICROS: [u64; 18] = [
    50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000, 100_000,
    250_000, 1_000_000, 2_500_000, 10_000_000,
];

/// A latency histogram; not cumulative, the exposition adds the buckets up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations per bucket of [`BUCKETS_MICROS`], the last one `+Inf`.
    pub(super) buckets: [u64; BUCKETS_MICROS.len() + 1],
    /// Sum of all observations, in microseconds.
    pub(super) sum_micros: u64,
}

impl Histogram {
    /// The bucket that `micros` falls into.
    #[inline]
    pub fn bucket(micros: u64) -> usize {
        BUCKETS_MICROS.partition_point(|&b| b < micros)
    }

    /// Counts one observation whose bucket is known (one latency goes into several histograms).
    #[inline]
    pub fn record(&mut self, bucket: usize, micros: u64) {
        if let Some(b) = self.buckets.get_mut(bucket) {
            *b += 1;
        }
        self.sum_micros += micros;
    }

    /// Adds another worker's observations.
    pub fn merge(&mut self, other: &Histogram) {
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
        self.sum_micros += other.sum_micros;
    }
}

/// One command's counters (label `command`, bounded by the command table).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Answered, not with an error.
    pub ok: u64,
    /// Answered with an error by the server.
    pub error: u64,
    /// Answered with an error of slotway's own: refused, deadline, outcome unknown.
    pub refused: u64,
}

/// Why a command was sent again (label `reason`): the discriminants of [`Redirection`], and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RetryReason {
    Moved,
    Ask,
    TryAgain,
    ClusterDown,
    Loading,
    MasterDown,
    ReadOnly,
    NoScript,
    /// The connection was lost.
    Lost,
    /// It was not sent yet when its slot got another primary.
    Topology,
}

impl RetryReason {
    /// How many there are.
    pub const COUNT: usize = Redirection::COUNT + 2;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "moved",
        "ask",
        "tryagain",
        "clusterdown",
        "loading",
        "masterdown",
        "readonly",
        "noscript",
        "lost",
        "topology",
    ];

    /// After this refusal.
    pub fn of(refusal: Redirection) -> RetryReason {
        match refusal {
            Redirection::Moved => RetryReason::Moved,
            Redirection::Ask => RetryReason::Ask,
            Redirection::TryAgain => RetryReason::TryAgain,
            Redirection::ClusterDown => RetryReason::ClusterDown,
            Redirection::Loading => RetryReason::Loading,
            Redirection::MasterDown => RetryReason::MasterDown,
            Redirection::ReadOnly => RetryReason::ReadOnly,
            Redirection::NoScript => RetryReason::NoScript,
        }
    }
}

/// What became of a PROXY protocol header (label `result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderOutcome {
    /// It names the client.
    Ok,
    /// It names nobody: a health check, or a client without an IP address.
    Local,
    /// The connection begins with something else.
    Missing,
    /// It is not valid.
    Invalid,
    /// It took longer than `proxy_protocol.timeout`.
    Timeout,
    /// The connection comes from none of `proxy_protocol.trusted`.
    Untrusted,
    /// The connection was closed before its end.
    Closed,
}

impl ProxyHeaderOutcome {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["ok", "local", "missing", "invalid", "timeout", "untrusted", "closed"];
}

/// Why slotway has closed a client that did nothing wrong (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// `timeouts.login`
    Login,
    /// `timeouts.idle`
    Idle,
    /// `timeouts.max_age`
    MaxAge,
    /// The limit on open files leaves fewer clients than there were.
    Descriptors,
    /// `commands.on_outcome_unknown`
    OutcomeUnknown,
}

impl DisconnectReason {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["login", "idle", "max_age", "descriptors", "outcome_unknown"];
}

/// What became of a login (label `outcome`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// One of slotway's own users.
    Own,
    /// One of the cluster's users.
    Cluster,
    /// One of slotway's own users, by its certificate.
    Certificate,
    /// A wrong name or password.
    Wrong,
    /// More users of the cluster than `limits.users`.
    TooMany,
    /// No node could be asked, or it refused for another reason.
    Unavailable,
    /// Many have failed from the same address, and too many wait.
    Throttled,
}

impl LoginOutcome {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["own", "cluster", "certificate", "wrong", "too_many", "unavailable", "throttled"];
}

/// Why slotway refused a command to a user (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// It has not logged in.
    Login,
    /// Not this command.
    Command,
    /// Not one of its keys.
    Key,
    /// Not one of its channels.
    Channel,
}

impl DenialReason {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["login", "command", "key", "channel"];
}

/// How a transaction was carried out (label `kind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// As one MULTI … EXEC: atomic.
    OneSlot,
    /// As one per slot (`transactions.cross_slot = "split"`): atomic per slot.
    Split,
}

impl TransactionKind {
    /// How many kinds there are.
    pub const COUNT: usize = 2;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["one_slot", "split"];
}

/// What became of an emulated command (label `outcome`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmulatedOutcome {
    /// Answered.
    Ok,
    /// Answered with an error; nothing was changed.
    Error,
    /// Answered with an error that says which steps were done.
    Halfway,
}

impl EmulatedOutcome {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["ok", "error", "halfway"];
}

/// The limits of the configuration that a worker can hit (label `limit`).
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
    /// How many limits there are.
    pub const COUNT: usize = 10;
    /// Label values, by discriminant: the key under `[limits]`, `pubsub_hard` and `pubsub_soft` for
    /// `pubsub.output_hard` and `output_soft`, `protocol` for all the limits
    /// on the size of a request.
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

/// What one worker knows of one node (label `node`, bounded by the cluster's size).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// The node's address; `None` for an entry that is not in use.
    pub addr: Option<NodeAddr>,
    /// From a command read from its client to its reply read from this node.
    pub latency: Histogram,
    /// Gauge: connections that take commands.
    pub connections_ready: u64,
    /// Gauge: connections being made, the handshake included.
    pub connections_connecting: u64,
    /// Gauge: connections waiting for their next attempt.
    pub connections_backoff: u64,
    /// Gauge: connections set aside behind a script; also counted by their state.
    pub connections_aside: u64,
    /// Gauge: commands sent or queued and not answered.
    pub in_flight: u64,
    /// Gauge: their bytes.
    pub in_flight_bytes: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made or were lost.
    pub failures: u64,
    /// Bytes written to the node.
    pub bytes_sent: u64,
    /// Bytes read from the node.
    pub bytes_received: u64,
}

/// Everything one worker counts. Counters unless marked as a gauge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// By [`crate::command::CommandId`]; the entry past the table's end is "unknown".
    pub commands: Vec<CommandStats>,
    /// By [`Class`].
    pub latency: [Histogram; Class::COUNT],
    /// By the worker's own node index; merged by address.
    pub nodes: Vec<NodeStats>,
    /// Gauge: connected clients.
    pub clients: u64,
    /// Gauge: connected clients that speak RESP3.
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
    /// By [`Redirection`].
    pub redirections: [u64; Redirection::COUNT],
    /// Commands sent again, by [`RetryReason`].
    pub retries: [u64; RetryReason::COUNT],
    /// Retries that had to wait for the budget.
    pub retry_budget_exhausted: u64,
    /// Commands that failed at `timeouts.no_primary`.
    pub no_primary: u64,
    /// Commands answered with "outcome unknown".
    pub outcome_unknown: u64,
    /// Connections closed because another node answered than the one that was meant.
    pub strangers: u64,
    /// Commands answered with an error at their deadline.
    pub deadline_exceeded: u64,
    /// Commands split over several slots.
    pub splits: u64,
    /// Commands with keys of one slot that were sent key by key.
    pub key_by_key: u64,
    /// Times a client with large replies had to wait for its turn.
    pub large_reply_waits: u64,
    /// SCRIPT LOADs that slotway put before a client's command.
    pub script_loads: u64,
    /// Scripts that call a command about all keys, each once.
    pub scripts_partial: u64,
    /// By [`LoginOutcome`].
    pub logins: [u64; LoginOutcome::COUNT],
    /// Clients that were closed, by [`DisconnectReason`].
    pub disconnected: [u64; DisconnectReason::COUNT],
    /// Commands that slotway refused to a user, by [`DenialReason`].
    pub denied: [u64; DenialReason::COUNT],
    /// Gauge: users of the cluster that it has connections of.
    pub users: u64,
    /// Reads that need not go to their primary, by [`ReadTo`].
    pub reads: [u64; ReadTo::COUNT],
    /// By [`TransactionKind`].
    pub transactions: [u64; TransactionKind::COUNT],
    /// By place in [`crate::emulate::TABLE`] and by [`EmulatedOutcome`].
    pub emulated: Vec<[u64; EmulatedOutcome::COUNT]>,
    /// Gauge: clients whose next command waits for the one that occupies them (blocking commands,
    /// WATCH).
    pub clients_blocked: u64,
    /// Gauge: dedicated connections lent to clients.
    pub dedicated_lent: u64,
    /// Gauge: dedicated connections that wait to be lent.
    pub dedicated_idle: u64,
    /// Gauge: clients that are subscribed to something.
    pub subscribers: u64,
    /// Gauge: their subscriptions, by [`TopicKind`].
    pub subscriptions: [u64; TopicKind::COUNT],
    /// Messages given to subscribers, one for each that got it, by [`TopicKind`] of the subscription.
    pub deliveries: [u64; TopicKind::COUNT],
    /// Messages that were waiting for subscribers that were closed because they did not take them.
    pub messages_dropped: u64,
    /// PUBLISHes that waited for a subscription that was asked for before them.
    pub publish_waits: u64,
    /// Errors of slotway's own, by [`Code::index`].
    pub errors: [u64; Code::COUNT],
    /// By [`LimitHit`].
    pub limits_hit: [u64; LimitHit::COUNT],
    /// Gauge: bytes in all buffers of this worker.
    pub buffer_bytes: u64,
    /// Gauge: commands held back because their slot is being redirected or has no primary.
    pub held: u64,
    /// Commands whose keys were looked at.
    pub sampled: u64,
    /// Turns of the worker's loop.
    pub turns: u64,
}
