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

pub use access::{is_public, unprotected};
pub use change::{Difference, Plan};
pub use keys::{Change, KEYS, Key, SECTIONS, Section};
pub use load::{Flag, Sources, load};
pub use loaded::Loaded;
pub use memory::Memory;
pub use origin::Origin;
pub use problem::{ConfigError, Problem};
pub use proxy_protocol::ProxyProtocol;
pub use reference::{Shown, docs_markdown, effective_toml, proxy_toml, shown};
pub use tls::{Tls, TlsAdmin, TlsDownstream, TlsUpstream};
use value::Choice;
pub use value::{
    Address, AnnounceMode, Auth, ClientAuth, CrossSlot, HandOver, InFailover, Listen, LogFormat,
    Network, NodeZone, OnGap, OnOutcomeUnknown, ReadFrom, Secret, SeveralSlots, TlsVersion,
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
    pub cross_slot: SeveralSlots,
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
                cross_slot: SeveralSlots::Reject,
                turn: Duration::from_millis(50),
            },
            log: Log { level: "info".into(), format: LogFormat::Text },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn from_flags<'a>(settings: impl IntoIterator<Item = &'a str>) -> Result<Loaded, ConfigError> {
        let flags = settings.into_iter().map(|text| Flag::Set(text.into())).collect();
        load(&Sources { flags, ..Sources::default() })
    }

    /// Paths of files may name systemd's credentials, and no other key may.
    #[test]
    fn credentials_of_systemd() {
        let with = |folder: Option<&str>, settings: &[&str]| {
            let env = folder.map(|f| ("CREDENTIALS_DIRECTORY".into(), f.into())).into_iter();
            let flags = settings.iter().map(|text| Flag::Set((*text).into())).collect();
            load(&Sources { env: env.collect(), flags, ..Sources::default() })
        };
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        std::fs::write(format!("{folder}/password"), "hunter2\n").unwrap();
        let path = "${CREDENTIALS_DIRECTORY}/password";
        let (file, key) =
            (format!("upstream.password_file={path}"), format!("tls.admin.key={path}"));
        let config = with(Some(folder), &[&file]).unwrap().config;
        assert_eq!(config.upstream.password_file, format!("{folder}/password"));
        assert_eq!(&*config.upstream.password.reveal(), "hunter2");
        let name = "tracing.service_name=${CREDENTIALS_DIRECTORY}/password";
        let other = with(Some(folder), &[name]).unwrap().config;
        assert_eq!(other.tracing.service_name, path);
        for wrong in [None, Some(""), Some("relative")] {
            let told = with(wrong, &[&file, &key]).unwrap_err().to_string();
            assert_eq!(told.matches("CREDENTIALS_DIRECTORY is not set").count(), 2, "{told}");
        }
        let missing = "upstream.password_file=${CREDENTIALS_DIRECTORY}/none";
        let told = with(Some(folder), &[missing]).unwrap_err().to_string();
        assert!(told.contains(&format!("{folder}/none: cannot be read")), "{told}");
    }

    /// A value that is not the default, for every key.
    pub(super) const OTHER: &[&str] = &[
        "listen=unix:/run/s.sock,[::1]:7",
        "hand_over=on",
        "seeds=a:1,b:2",
        "workers=2",
        "admin=",
        "announce=proxy:8",
        "announce_mode=cluster",
        "read_from=zone",
        "zone=z",
        "auth=passthrough",
        "users=app on nopass ~* resetchannels -@all +get",
        "users_file=",
        "protected_mode=false",
        "admin_token=hunter3",
        "admin_token_file=",
        "admin_token_for_probes=true",
        "upstream.user=u",
        "upstream.user_file=",
        "upstream.password=hunter2",
        "upstream.password_file=",
        "upstream.client_name=n",
        "upstream.connections=2",
        "upstream.keepalive=11s",
        "tls.downstream.listen=[::]:8,b:9",
        "tls.downstream.announce=proxy:10",
        "tls.downstream.cert=c1",
        "tls.downstream.key=k1",
        "tls.downstream.client_ca=ca1",
        "tls.downstream.client_auth=optional",
        "tls.downstream.user_from=san",
        "tls.downstream.min_version=1.3",
        "tls.downstream.handshake_timeout=13s",
        "tls.upstream.enabled=true",
        "tls.upstream.ca=ca2",
        "tls.upstream.verify=chain",
        "tls.upstream.server_name=name",
        "tls.upstream.cert=c2",
        "tls.upstream.key=k2",
        "tls.upstream.min_version=1.3",
        "tls.admin.cert=c3",
        "tls.admin.key=k3",
        "tls.admin.min_version=1.3",
        "proxy_protocol.listen=unix:/run/s.sock",
        "proxy_protocol.trusted=10.0.0.0/8,::1",
        "proxy_protocol.timeout=2s",
        "timeouts.command=0",
        "timeouts.connect=2s",
        "timeouts.no_primary=27s",
        "timeouts.probe=250ms",
        "timeouts.drain=3s",
        "timeouts.login=14s",
        "timeouts.idle=4m",
        "timeouts.max_age=15m",
        "timeouts.keepalive=12s",
        "retries.budget_percent=28",
        "retries.min_per_second=29",
        "reconnect.min=5ms",
        "reconnect.max=6s",
        "topology.refresh=7s",
        "topology.min_interval=8ms",
        "replicas.max_lag=20s",
        "replicas.max_lag_bytes=21MiB",
        "replicas.check=22s",
        "replicas.in_failover=read",
        "replicas.zones=a:1=z,b=y",
        "transactions.cross_slot=split",
        "pubsub.output_hard=18MiB",
        "pubsub.output_soft=19KiB",
        "pubsub.output_soft_time=9s",
        "pubsub.on_gap=disconnect",
        "limits.clients=9",
        "limits.client_output=10MiB",
        "limits.upstream_in_flight=11MiB",
        "limits.memory=12MiB",
        "limits.held=13MiB",
        "limits.scripts=17MiB",
        "limits.dedicated=17",
        "limits.users=18",
        "limits.bulk=14MiB",
        "limits.inline=15KiB",
        "limits.multibulk=16",
        "observe.hot_keys=false",
        "observe.sample=23",
        "slowlog.slower_than=24ms",
        "slowlog.max_len=25",
        "tracing.endpoint=http://collector:4318",
        "tracing.sample=26",
        "tracing.service_name=other",
        "commands.deny=keys,@dangerous",
        "commands.allow=config|set",
        "commands.on_outcome_unknown=disconnect",
        "commands.blocking=graph.query",
        "commands.cross_slot=emulate",
        "commands.cross_slot_turn=23ms",
        "log.level=debug",
        "log.format=json",
    ];

    #[test]
    fn every_key_reaches_its_own_field_and_every_field_has_a_key() {
        // Without `..`: a new field does not compile here until it has a key to be set by.
        let Config {
            listen,
            hand_over,
            seeds,
            workers,
            admin,
            announce,
            announce_mode,
            read_from,
            zone,
            auth,
            users: own_users,
            users_file,
            protected_mode,
            admin_token,
            admin_token_file,
            admin_token_for_probes,
            upstream,
            tls: Tls { downstream, upstream: secured, admin: admin_tls },
            timeouts,
            retries: Retries { budget_percent, min_per_second },
            reconnect,
            topology,
            replicas,
            transactions,
            pubsub,
            limits,
            observe: Observe { hot_keys, sample },
            slowlog: SlowLog { slower_than, max_len },
            tracing: Tracing { endpoint, sample: traced, service_name },
            commands,
            on_outcome_unknown,
            emulation,
            log,
            proxy_protocol,
        } = from_flags(OTHER.iter().copied()).unwrap().config;
        let Upstream {
            user,
            user_file,
            password,
            password_file,
            client_name,
            connections,
            keepalive,
        } = upstream;
        let TlsDownstream {
            listen: tls_listen,
            announce: tls_announce,
            cert,
            key,
            client_ca,
            client_auth,
            user_from,
            min_version,
            handshake_timeout,
        } = downstream;
        let files = [cert, key, client_ca].map(|file| file.unwrap().display().to_string());
        assert_eq!(files, ["c1", "k1", "ca1"]);
        assert_eq!((client_auth, user_from), (ClientAuth::Optional, UserFrom::San));
        let texts = |all: &[Address]| all.iter().map(Address::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&tls_listen), ["[::]:8", "b:9"]);
        assert_eq!(tls_announce.map(|a| a.to_string()).as_deref(), Some("proxy:10"));
        assert_eq!(handshake_timeout, Duration::from_secs(13));
        let TlsAdmin { cert, key, min_version: admin_version } = admin_tls;
        let files = [cert, key].map(|file| file.unwrap().display().to_string());
        assert_eq!(files, ["c3", "k3"]);
        let versions = [min_version, secured.min_version, admin_version];
        assert_eq!(versions, [TlsVersion::Tls13; 3]);
        let TlsUpstream { enabled, ca, verify, server_name, cert, key, min_version: _ } = secured;
        let files = [cert, key, ca].map(|file| file.unwrap().display().to_string());
        assert_eq!(files, ["c2", "k2", "ca2"]);
        assert_eq!((enabled, verify, server_name.as_str()), (true, Verify::Chain, "name"));
        assert_eq!((budget_percent, min_per_second), (28, 29));
        let Timeouts {
            command,
            connect,
            no_primary,
            probe,
            drain,
            login,
            idle,
            max_age,
            keepalive: client_keepalive,
        } = timeouts;
        let times = [login, max_age].map(|time| time.map(|time| time.as_secs()));
        assert_eq!(times, [Some(14), Some(900)]);
        let ProxyProtocol { listen: proxied, trusted, timeout } = proxy_protocol;
        assert_eq!((proxied.len(), trusted.len(), timeout.as_secs()), (1, 2, 2));
        let Reconnect { min, max } = reconnect;
        let Topology { refresh, min_interval } = topology;
        let Replicas { max_lag, max_lag_bytes, check, in_failover, zones } = replicas;
        let Limits {
            clients,
            client_output,
            upstream_in_flight,
            memory,
            held,
            scripts,
            dedicated,
            users,
            bulk,
            inline,
            multibulk,
        } = limits;
        let crate::command::Rules { deny, allow, blocking } = commands;
        let Transactions { cross_slot } = transactions;
        let PubSub { output_hard, output_soft, output_soft_time, on_gap } = pubsub;
        let Log { level, format } = log;

        assert_eq!(
            listen,
            [
                Listen::Unix("/run/s.sock".into()),
                Listen::Tcp(Address { host: "::1".into(), port: 7 })
            ]
        );
        assert_eq!(seeds.iter().map(Address::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!((workers.count(), admin, hand_over), (2, None, HandOver::On));
        assert_eq!(announce.map(|a| a.to_string()).as_deref(), Some("proxy:8"));
        assert_eq!(announce_mode, AnnounceMode::Cluster);
        assert_eq!((user.as_str(), &*password.reveal()), ("u", "hunter2"));
        assert_eq!((auth, protected_mode, users), (Auth::Passthrough, false, 18));
        assert_eq!((&*admin_token.reveal(), admin_token_for_probes), ("hunter3", true));
        assert_eq!((users_file + &admin_token_file + &password_file + &user_file).as_str(), "");
        assert_eq!(own_users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["app"]);
        assert_eq!((client_name.as_str(), connections), ("n", 2));
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!((command, connect, drain, idle), (None, s(2), s(3), Some(s(240))));
        assert_eq!((probe, keepalive, client_keepalive), (Some(ms(250)), Some(s(11)), Some(s(12))));
        assert_eq!(no_primary, Some(s(27)));
        assert_eq!((min, max, refresh, min_interval), (ms(5), s(6), s(7), ms(8)));
        assert_eq!(
            (read_from, zone.as_str(), in_failover),
            (ReadFrom::Zone, "z", InFailover::Read)
        );
        assert_eq!((max_lag, max_lag_bytes, check), (Some(s(20)), 21 * MIB, s(22)));
        assert_eq!(zones.iter().map(NodeZone::to_string).collect::<Vec<_>>(), ["a:1=z", "b=y"]);
        assert_eq!((clients, client_output, upstream_in_flight), (9, 10 * MIB, 11 * MIB));
        assert_eq!((memory, held, bulk), (Memory::Bytes(12 * MIB), 13 * MIB, 14 * MIB));
        assert_eq!(scripts, 17 * MIB);
        assert_eq!((cross_slot, dedicated), (CrossSlot::Split, 17));
        assert_eq!((output_hard, output_soft), (18 * MIB, 19 * KIB));
        assert_eq!((output_soft_time, on_gap), (s(9), OnGap::Disconnect));
        assert_eq!((inline, multibulk), (15 * KIB, 16));
        assert_eq!((hot_keys, sample), (false, 23));
        assert_eq!((slower_than, max_len), (Some(ms(24)), 25));
        assert_eq!((endpoint.as_str(), traced), ("http://collector:4318", 26));
        assert_eq!(service_name, "other");
        let texts = |rules: &[crate::command::Rule]| {
            rules.iter().map(|r| r.text().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            [texts(&deny), texts(&allow), texts(&blocking)],
            [
                vec!["keys".into(), "@dangerous".into()],
                vec!["config|set".into()],
                vec!["graph.query".to_owned()]
            ]
        );
        assert_eq!(on_outcome_unknown, OnOutcomeUnknown::Disconnect);
        assert_eq!((emulation.cross_slot, emulation.turn), (SeveralSlots::Emulate, ms(23)));
        assert_eq!((level.as_str(), format), ("debug", LogFormat::Json));

        let keys: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        let set: Vec<_> = OTHER.iter().filter_map(|text| text.split('=').next()).collect();
        assert_eq!(keys, set);
    }

    #[test]
    fn every_key_is_in_a_section_that_exists() {
        let sections: BTreeSet<_> = KEYS.iter().map(|key| key.section_and_name().0).collect();
        let listed = SECTIONS.iter().map(|section| section.name).chain([""]).collect();
        assert_eq!(sections, listed);
        for key in KEYS {
            assert_eq!(key.path, key.path.to_lowercase(), "variables are capitals of the path");
            assert!(!key.path.contains("__"), "would be a dot in the variable");
        }
    }

    #[test]
    fn what_check_prints_is_what_was_set() {
        let others: Vec<_> = OTHER.iter().copied().filter(|s| !s.contains("hunter")).collect();
        let loaded = from_flags(others).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("effective.toml");
        std::fs::write(&file, effective_toml(&loaded)).unwrap();
        let again = load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        assert_eq!(again.config, loaded.config);
    }

    #[test]
    fn proxy_toml_in_the_repository_is_the_default_with_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text == proxy_toml(), "out of date: slotway docs proxy-toml > proxy.toml");
        let loaded = load(&Sources { file: Some(path.into()), ..Sources::default() }).unwrap();
        assert_eq!(loaded.config, Config::default());
        for key in KEYS {
            assert_ne!(*loaded.origin(key.path), Origin::Default, "{} is missing", key.path);
        }
    }

    #[test]
    fn docs_configuration_md_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        assert!(
            std::fs::read_to_string(path).unwrap() == docs_markdown(),
            "out of date: slotway docs configuration > docs/configuration.md"
        );
    }

    #[test]
    fn no_secret_in_debug_output_nor_in_the_effective_configuration() {
        let loaded = from_flags(["upstream.password=hunter2"]).unwrap();
        assert!(!format!("{loaded:?}").contains("hunter2"));
        let shown = effective_toml(&loaded);
        assert!(!shown.contains("hunter2") && shown.contains("password = \"***\""), "{shown}");
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        for (setting, range) in [
            ("workers=0", "from 1 to"),
            ("upstream.connections=65", "from 1 to 64"),
            ("limits.bulk=3GiB", "\"2GiB\""),
            ("limits.multibulk=2147483648", "2147483647"),
            ("timeouts.connect=0", "\"1ms\""),
            ("timeouts.connect=48h", "\"1h\""),
            ("upstream.client_name=a b", "no spaces"),
            ("listen=", "at least one"),
            ("read_from=replica", "\"lowest_latency\" or \"zone\""),
            ("replicas.zones=a", "\"host=zone\""),
            ("commands.deny=keyz", "the nearest is \"keys\""),
            ("commands.allow=@dangerus", "the nearest is \"@dangerous\""),
            ("commands.allow=config set", "the nearest is \"config|set\""),
            ("commands.blocking=@all", "commands are named one by one"),
            ("commands.blocking=blpo", "the nearest is \"blpop\""),
        ] {
            let error = from_flags([setting]).unwrap_err().to_string();
            let key = setting.split('=').next().unwrap();
            assert!(error.starts_with(&format!("--set {key}: ")), "{error}");
            assert!(error.contains(range), "{error}");
        }
    }
}
