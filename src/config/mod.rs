//! The configuration: file, environment, flags.
//!
//! [`KEYS`] is the one table of keys. Parsing of the file, of the `SLOTWAY_` variables and of
//! `--set`, the effective configuration that `slotway check` prints, `proxy.toml` and
//! `docs/configuration.md` are all derived from it, so that they cannot disagree. The defaults are
//! [`Config::default`].
//!
//! A new key needs a field below, a default, and an entry in `keys.rs`; a test fails until all
//! three are there.

mod access;
mod change;
mod field;
pub mod files;
mod keys;
mod listeners;
mod load;
mod loaded;
pub mod memory;
mod named_upstream;
mod node_zone;
mod origin;
mod problem;
mod proxy_protocol;
mod raw;
mod reference;
mod tls;
mod upstream_checks;
mod upstream_keys;
mod upstream_name;
mod upstreams;
mod upstreams_doc;
mod value;

use std::time::Duration;

pub use access::{is_public, unprotected_reason};
pub use change::{ChangedKey, ReloadPlan};
pub use keys::{Change, KEYS, Key, SECTIONS, Section};
pub use load::{Flag, Sources, load};
pub use loaded::Loaded;
pub use memory::Memory;
pub use node_zone::NodeZone;
pub use origin::Origin;
pub use problem::{ConfigError, Problem};
pub use proxy_protocol::ProxyProtocol;
pub use reference::{KeyEntry, docs_markdown, effective_toml, key_entries, proxy_toml};
pub use tls::{Tls, TlsAdmin, TlsDownstream, TlsUpstream};
pub use upstream_name::MAIN;
pub use upstreams::{DatabaseRoute, NamedUpstream, Route};
use value::Choice;
pub use value::{
    Address, AnnounceMode, Auth, ClientAuth, CrossSlot, CrossSlotCommand, HandOver, InFailover,
    Listen, LogFormat, Network, OnGap, OnOutcomeUnknown, ReadFrom, Secret, TlsVersion,
    UpstreamKind, UserFrom, Verify, Workers,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The whole configuration. [`KEYS`] documents the meaning of each key, for operators and readers
/// of the code alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Client addresses without TLS; not empty unless `tls.downstream.listen` has one.
    pub listen: Vec<Listen>,
    /// Whether another slotway may take over the listen addresses.
    pub hand_over: HandOver,
    /// Nodes to ask for the topology first. May be empty, but `slotway run` refuses that.
    pub seeds: Vec<Address>,
    /// Number of workers.
    pub workers: Workers,
    /// Address of the admin HTTP listener; `None` is off.
    pub admin: Option<Address>,
    /// Address that cluster clients are given; `None`: the one that they have connected to.
    pub announce: Option<Address>,
    /// Mode reported by INFO and HELLO.
    pub announce_mode: AnnounceMode,
    /// Nodes that answer commands that only read.
    pub read_from: ReadFrom,
    /// The zone that slotway runs in; empty if not configured.
    pub zone: String,
    /// Whether clients may log in as users of the cluster.
    pub auth: Auth,
    /// Slotway's own users.
    pub users: Vec<crate::users::User>,
    /// File with more of slotway's own users; empty is none.
    pub users_file: String,
    /// Whether a public listen address without a login is refused.
    pub protected_mode: bool,
    /// Bearer token for the admin listener; empty if none is required.
    pub admin_token: Secret,
    /// File with that token; empty is none.
    pub admin_token_file: String,
    /// Whether /healthz and /readyz require the token, too.
    pub admin_token_for_probes: bool,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[upstreams.NAME]`, by name.
    pub upstreams: Vec<NamedUpstream>,
    /// Listeners (of `listen` or `tls.downstream.listen`) whose clients have another upstream than
    /// the first, with its name.
    pub listener_upstreams: Vec<(Listen, String)>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<Route>,
    /// `[databases]`, by number.
    pub databases: Vec<DatabaseRoute>,
    /// `[tls.downstream]`, `[tls.upstream]` and `[tls.admin]`
    pub tls: Tls,
    /// `[proxy_protocol]`
    pub proxy_protocol: ProxyProtocol,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[retries]`
    pub retries: Retries,
    /// `[reconnect]`
    pub reconnect: Reconnect,
    /// `[topology]`
    pub topology: Topology,
    /// `[replicas]`
    pub replicas: Replicas,
    /// `[transactions]`
    pub transactions: Transactions,
    /// `[pubsub]`
    pub pubsub: PubSub,
    /// `[limits]`
    pub limits: Limits,
    /// `[observe]`
    pub observe: Observe,
    /// `[slowlog]`
    pub slowlog: SlowLog,
    /// `[tracing]`
    pub tracing: Tracing,
    /// `[commands]`: commands that clients may send.
    pub commands: crate::command::Rules,
    /// `[commands]`: the reply to a command whose outcome is unknown.
    pub on_outcome_unknown: OnOutcomeUnknown,
    /// `[commands]`: commands whose keys are in several slots.
    pub emulation: Emulation,
    /// `[log]`
    pub log: Log,
}

/// `[upstream]`: connections to the nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// What the seeds are.
    pub kind: UpstreamKind,
    /// The name by which Sentinels know the server.
    pub master: String,
    /// User name for AUTH at the Sentinels; empty is their default user.
    pub sentinel_user: String,
    /// Password for AUTH at the Sentinels; if user and password are empty, no AUTH is sent.
    pub sentinel_password: Secret,
    /// File with the Sentinels' password; empty is none.
    pub sentinel_password_file: String,
    /// User name for AUTH; empty is the node's default user.
    pub user: String,
    /// File with the user name; empty is none.
    pub user_file: String,
    /// Password for AUTH; if user and password are empty, no AUTH is sent.
    pub password: Secret,
    /// File with the password; empty is none.
    pub password_file: String,
    /// Name for CLIENT SETNAME; empty sets none.
    pub client_name: String,
    /// Shared connections per worker, node and protocol.
    pub connections: usize,
    /// TCP keepalive of connections to nodes; `None` is off.
    pub keepalive: Option<Duration>,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// Deadline of a command, from its arrival to its reply; `None` is no deadline.
    pub command: Option<Duration>,
    /// Limit for opening a connection to a node, handshake included.
    pub connect: Duration,
    /// Time after which commands for a slot without a primary fail at once; `None` is never.
    pub no_primary: Option<Duration>,
    /// Silence after which a node that owes replies is probed; `None` is never.
    pub probe: Option<Duration>,
    /// Limit for commands in flight at shutdown.
    pub drain: Duration,
    /// Limit for a client's login, from its connection on; `None` is no limit.
    pub login: Option<Duration>,
    /// Time after which an idle client is closed; `None` is never.
    pub idle: Option<Duration>,
    /// Age at which a client is closed between two commands; `None` is never.
    pub max_age: Option<Duration>,
    /// TCP keepalive of clients; `None` is off.
    pub keepalive: Option<Duration>,
}

/// `[retries]`: the budget of each worker's retries.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Retries per hundred answered commands.
    pub budget_percent: usize,
    /// Retries per second that are always allowed.
    pub min_per_second: usize,
}

/// `[reconnect]`: backoff between two attempts to connect to a node; `min <= max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconnect {
    /// Pause after the first failure.
    pub min: Duration,
    /// Longest pause.
    pub max: Duration,
}

/// `[topology]`: refreshes of the topology; `min_interval <= refresh`.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Interval of refreshes in the background.
    pub refresh: Duration,
    /// Shortest interval between two refreshes, for whatever reason.
    pub min_interval: Duration,
}

/// `[replicas]`: replicas that are read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicas {
    /// Longest time since a replica heard of its primary; `None` is no limit.
    pub max_lag: Option<Duration>,
    /// Most bytes of the replication stream that a replica may lack; 0 is no limit.
    pub max_lag_bytes: usize,
    /// Interval of checks of the nodes.
    pub check: Duration,
    /// Reads while their primary is not reached.
    pub in_failover: InFailover,
    /// Zones of nodes that do not report their own.
    pub zones: Vec<NodeZone>,
}

/// `[commands]`: commands whose keys are in several slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Emulation {
    /// Whether they are refused or emulated.
    pub cross_slot: CrossSlotCommand,
    /// Longest pause between two polls of a blocking command's keys.
    pub turn: Duration,
}

/// `[transactions]`
#[derive(Debug, Clone, PartialEq)]
pub struct Transactions {
    /// Transactions whose keys are in several slots.
    pub cross_slot: CrossSlot,
}

/// `[pubsub]`: `output_soft <= output_hard`.
#[derive(Debug, Clone, PartialEq)]
pub struct PubSub {
    /// Limit of a subscriber's unread output, in bytes.
    pub output_hard: usize,
    /// Limit that may be exceeded for `output_soft_time`, in bytes.
    pub output_soft: usize,
    /// Time that a subscriber may be above `output_soft`.
    pub output_soft_time: Duration,
    /// Subscribers that may have missed messages.
    pub on_gap: OnGap,
}

/// `[limits]`: sizes are in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connected clients.
    pub clients: usize,
    /// Unread output of one client.
    pub client_output: usize,
    /// Commands of one upstream connection that are not answered yet, sent or not.
    pub upstream_in_flight: usize,
    /// All buffers together.
    pub memory: Memory,
    /// Commands held for a slot that is being moved or has no primary.
    pub held: usize,
    /// Lua scripts that are kept for nodes that lack them.
    pub scripts: usize,
    /// Connections lent to single clients, of all workers together.
    pub dedicated: usize,
    /// Users of the cluster with connections, per worker.
    pub users: usize,
    /// One argument of a command.
    pub bulk: usize,
    /// One inline command, or the line of a count.
    pub inline: usize,
    /// Number of arguments of one command.
    pub multibulk: usize,
}

/// `[observe]`: hot keys and big keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Observe {
    /// Whether hot keys and big keys are tracked.
    pub hot_keys: bool,
    /// One command in this many is sampled.
    pub sample: usize,
}

/// `[slowlog]`
#[derive(Debug, Clone, PartialEq)]
pub struct SlowLog {
    /// Shortest duration of a slow command; `None` is off.
    pub slower_than: Option<Duration>,
    /// Number of entries kept.
    pub max_len: usize,
}

/// `[tracing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Collector that spans are sent to; empty is none.
    pub endpoint: String,
    /// One command in this many is traced.
    pub sample: usize,
    /// The spans' service.name.
    pub service_name: String,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level, or directives per module: `info,slotway::upstream=debug`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![Listen::Tcp(Address { host: "127.0.0.1".into(), port: 6379 })],
            hand_over: HandOver::Off,
            seeds: Vec::new(),
            workers: Workers::Auto,
            admin: Some(Address { host: "127.0.0.1".into(), port: 9121 }),
            announce: None,
            announce_mode: AnnounceMode::Standalone,
            read_from: ReadFrom::Primary,
            zone: String::new(),
            auth: Auth::Own,
            users: Vec::new(),
            users_file: String::new(),
            protected_mode: true,
            admin_token: Secret::default(),
            admin_token_file: String::new(),
            admin_token_for_probes: false,
            upstream: Upstream {
                kind: UpstreamKind::Cluster,
                master: "mymaster".into(),
                sentinel_user: String::new(),
                sentinel_password: Secret::default(),
                sentinel_password_file: String::new(),
                user: String::new(),
                user_file: String::new(),
                password: Secret::default(),
                password_file: String::new(),
                client_name: "slotway".into(),
                connections: 1,
                keepalive: Some(Duration::from_secs(10)),
            },
            upstreams: Vec::new(),
            listener_upstreams: Vec::new(),
            routes: Vec::new(),
            databases: Vec::new(),
            tls: Tls::default(),
            proxy_protocol: ProxyProtocol::default(),
            timeouts: Timeouts {
                command: Some(Duration::from_secs(5)),
                connect: Duration::from_secs(1),
                no_primary: None,
                probe: Some(Duration::from_millis(500)),
                drain: Duration::from_secs(10),
                login: Some(Duration::from_secs(10)),
                idle: None,
                max_age: None,
                keepalive: Some(Duration::from_secs(300)),
            },
            retries: Retries { budget_percent: 20, min_per_second: 100 },
            reconnect: Reconnect { min: Duration::from_millis(10), max: Duration::from_secs(1) },
            topology: Topology {
                refresh: Duration::from_secs(10),
                min_interval: Duration::from_millis(100),
            },
            replicas: Replicas {
                max_lag: Some(Duration::from_secs(15)),
                max_lag_bytes: 16 * MIB,
                check: Duration::from_secs(1),
                in_failover: InFailover::Wait,
                zones: Vec::new(),
            },
            transactions: Transactions { cross_slot: CrossSlot::Reject },
            pubsub: PubSub {
                output_hard: 32 * MIB,
                output_soft: 8 * MIB,
                output_soft_time: Duration::from_secs(60),
                on_gap: OnGap::Keep,
            },
            limits: Limits {
                clients: 20_000,
                client_output: GIB,
                upstream_in_flight: 64 * MIB,
                memory: Memory::Auto,
                held: 64 * MIB,
                scripts: 16 * MIB,
                dedicated: 10_000,
                users: 100,
                bulk: 512 * MIB,
                inline: 64 * KIB,
                multibulk: i32::MAX as usize,
            },
            observe: Observe { hot_keys: true, sample: 100 },
            slowlog: SlowLog { slower_than: Some(Duration::from_millis(10)), max_len: 128 },
            tracing: Tracing {
                endpoint: String::new(),
                sample: 1000,
                service_name: "slotway".into(),
            },
            commands: crate::command::Rules::default(),
            on_outcome_unknown: OnOutcomeUnknown::Error,
            emulation: Emulation {
                cross_slot: CrossSlotCommand::Reject,
                turn: Duration::from_millis(50),
            },
            log: Log { level: "info".into(), format: LogFormat::Text },
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream_reload_tests;
#[cfg(test)]
mod upstream_tests;
