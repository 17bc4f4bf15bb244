//! The configuration: file, environment, flags.
//!
//! [`KEYS`] is the one table of keys. The file, the `SLOTWAY_` variables, `--set`, the effective
//! configuration that `slotway check` prints, `proxy.toml` and `docs/configuration.md` are all
//! read from it, so that they cannot disagree. The defaults are [`Config::default`].
//!
//! A new key is a field below, its default, and its entry in `keys.rs`; a test fails until all
//! three are there.

mod access;
mod change;
mod field;
pub mod files;
mod keys;
mod load;
mod loaded;
pub mod memory;
mod origin;
mod problem;
mod proxy_protocol;
mod reference;
mod tls;
mod value;

use std::time::Duration;

pub use access::{is_public, unprotected_reason};
pub use change::{ChangedKey, ReloadPlan};
pub use keys::{Change, KEYS, Key, SECTIONS, Section};
pub use load::{Flag, Sources, load};
pub use loaded::Loaded;
pub use memory::Memory;
pub use origin::Origin;
pub use problem::{ConfigError, Problem};
pub use proxy_protocol::ProxyProtocol;
pub use reference::{KeyEntry, docs_markdown, effective_toml, key_entries, proxy_toml};
pub use tls::{Tls, TlsAdmin, TlsDownstream, TlsUpstream};
use value::Choice;
pub use value::{
    Address, AnnounceMode, Auth, ClientAuth, CrossSlot, CrossSlotCommand, HandOver, InFailover,
    Listen, LogFormat, Network, NodeZone, OnGap, OnOutcomeUnknown, ReadFrom, Secret, TlsVersion,
    UserFrom, Verify, Workers,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Everything that can be configured. What each key means stands in [`KEYS`], for operators and
/// for readers of the code alike; here are the types.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect; at least one, or one of `tls.downstream.listen`.
    pub listen: Vec<Listen>,
    /// Whether another slotway may take over these addresses.
    pub hand_over: HandOver,
    /// Nodes to ask for the topology first; may be empty here, `slotway run` refuses that.
    pub seeds: Vec<Address>,
    /// How many workers.
    pub workers: Workers,
    /// The admin HTTP listener; `None` is off.
    pub admin: Option<Address>,
    /// What cluster clients are told; `None`: the address that they use.
    pub announce: Option<Address>,
    /// The mode that INFO and HELLO say.
    pub announce_mode: AnnounceMode,
    /// Which nodes answer commands that only read.
    pub read_from: ReadFrom,
    /// The zone that slotway runs in; empty if nobody has said.
    pub zone: String,
    /// Whose users clients log in as.
    pub auth: Auth,
    /// Slotway's own users.
    pub users: Vec<crate::users::User>,
    /// A file with more of them; empty is none.
    pub users_file: String,
    /// No listening on a public address without asking anybody for a password.
    pub protected_mode: bool,
    /// What the admin listener wants to see; empty is nothing.
    pub admin_token: Secret,
    /// The file that it is in; empty is none.
    pub admin_token_file: String,
    /// The health pages want to see it, too.
    pub admin_token_for_probes: bool,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[tls.downstream]` and `[tls.upstream]`
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
    /// `[commands]`: which commands clients may send.
    pub commands: crate::command::Rules,
    /// `[commands]`: what a client is told of one whose outcome is unknown.
    pub on_outcome_unknown: OnOutcomeUnknown,
    /// `[commands]`: what becomes of those whose keys lie in several slots.
    pub emulation: Emulation,
    /// `[log]`
    pub log: Log,
}

/// `[upstream]`: connections to the nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The user of AUTH; empty is the node's default user.
    pub user: String,
    /// The file that it is in; empty is none.
    pub user_file: String,
    /// The password of AUTH; empty with an empty user is no AUTH at all.
    pub password: Secret,
    /// The file that it is in; empty is none.
    pub password_file: String,
    /// The name of CLIENT SETNAME; empty sets none.
    pub client_name: String,
    /// Shared connections per worker, node and protocol.
    pub connections: usize,
    /// TCP keepalive; `None` is none.
    pub keepalive: Option<Duration>,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// A command's deadline, from its arrival to its reply; `None` is no deadline.
    pub command: Option<Duration>,
    /// For a connection to a node, its handshake included.
    pub connect: Duration,
    /// After which a slot whose primary is missing fails fast; `None` is never.
    pub no_primary: Option<Duration>,
    /// After which a node that owes an answer is looked at; `None` is never.
    pub probe: Option<Duration>,
    /// For what is in flight when slotway is told to stop.
    pub drain: Duration,
    /// For a client that has to log in, from its connection to its login; `None` is no limit.
    pub login: Option<Duration>,
    /// After which a client that says nothing is closed; `None` is never.
    pub idle: Option<Duration>,
    /// After which a client is closed between two commands; `None` is never.
    pub max_age: Option<Duration>,
    /// TCP keepalive of clients; `None` is none.
    pub keepalive: Option<Duration>,
}

/// `[retries]`: the budget of each worker's retries.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Retries for a hundred commands.
    pub budget_percent: usize,
    /// Retries per second in any case.
    pub min_per_second: usize,
}

/// `[reconnect]`: backoff between two attempts to connect to a node; `min <= max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconnect {
    /// After the first failure.
    pub min: Duration,
    /// After many.
    pub max: Duration,
}

/// `[topology]`: how often the cluster is asked; `min_interval <= refresh`.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// In the background, when nothing happens.
    pub refresh: Duration,
    /// The least time between two refreshes, whatever happens.
    pub min_interval: Duration,
}

/// `[replicas]`: which replicas are read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicas {
    /// Since when a replica may have heard nothing of its primary; `None` is no limit.
    pub max_lag: Option<Duration>,
    /// How many bytes of the replication stream it may lack; 0 is no limit.
    pub max_lag_bytes: usize,
    /// How often that is looked at.
    pub check: Duration,
    /// Where a primary is not reached.
    pub in_failover: InFailover,
    /// The nodes' zones, as far as they do not tell them.
    pub zones: Vec<NodeZone>,
}

/// `[commands]`, of those whose keys lie in several slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Emulation {
    /// What becomes of them.
    pub cross_slot: CrossSlotCommand,
    /// The longest pause between two looks at what a command waits for.
    pub turn: Duration,
}

/// `[transactions]`
#[derive(Debug, Clone, PartialEq)]
pub struct Transactions {
    /// A transaction over several slots.
    pub cross_slot: CrossSlot,
}

/// `[pubsub]`: `output_soft <= output_hard`.
#[derive(Debug, Clone, PartialEq)]
pub struct PubSub {
    /// Output waiting for one subscriber, in bytes.
    pub output_hard: usize,
    /// The same, for longer than `output_soft_time`.
    pub output_soft: usize,
    /// How long.
    pub output_soft_time: Duration,
    /// Subscribers that may have missed messages.
    pub on_gap: OnGap,
}

/// `[limits]`: all sizes in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connected clients.
    pub clients: usize,
    /// Output waiting for one client.
    pub client_output: usize,
    /// Sent or waiting to be sent on one upstream connection and not yet answered.
    pub upstream_in_flight: usize,
    /// All buffers together.
    pub memory: Memory,
    /// Commands waiting for a slot that moves or has no primary.
    pub held: usize,
    /// Lua scripts that are kept for nodes that lack them.
    pub scripts: usize,
    /// Connections lent to single clients, of all workers.
    pub dedicated: usize,
    /// Users of the cluster at the same time, per worker.
    pub users: usize,
    /// One argument of a command.
    pub bulk: usize,
    /// One inline command, or the line of a count.
    pub inline: usize,
    /// Arguments of one command.
    pub multibulk: usize,
}

/// `[observe]`: what is seen of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Observe {
    /// Hot keys and big keys are looked for.
    pub hot_keys: bool,
    /// In one command of so many.
    pub sample: usize,
}

/// `[slowlog]`
#[derive(Debug, Clone, PartialEq)]
pub struct SlowLog {
    /// What takes as long is slow; `None` is nothing.
    pub slower_than: Option<Duration>,
    /// Entries that are kept.
    pub max_len: usize,
}

/// `[tracing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where spans are sent; empty is nowhere.
    pub endpoint: String,
    /// One command of so many.
    pub sample: usize,
    /// What slotway is called there.
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
                user: String::new(),
                user_file: String::new(),
                password: Secret::default(),
                password_file: String::new(),
                client_name: "slotway".into(),
                connections: 1,
                keepalive: Some(Duration::from_secs(10)),
            },
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
