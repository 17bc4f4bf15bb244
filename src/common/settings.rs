//! What a worker needs of the configuration, in the units it counts in.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::client::{AnnouncedNode, Client, DatabaseTarget, Databases};
use crate::cluster::UpstreamId;
use crate::config::{
    Address, AnnounceMode, ClientAuth, Config, CrossSlot, CrossSlotCommand, Listen, OnGap,
    OnOutcomeUnknown, ReadFrom, Secret, is_public,
};
use crate::placement::ReadPreferences;
use crate::resp::RequestLimits;
use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct Settings {
    /// By upstream.
    pub(crate) upstreams: Vec<UpstreamSettings>,
    /// Shared connections per node and protocol.
    pub connections: usize,
    /// Microseconds; `None` is no deadline.
    pub(crate) command_timeout: Option<u64>,
    pub connect_timeout: u64,
    /// `timeouts.no_primary`, microseconds.
    pub no_primary: Option<u64>,
    /// `retries.budget_percent` and `retries.min_per_second`.
    pub retries: (usize, usize),
    /// `timeouts.probe`
    pub probe: Option<u64>,
    pub(crate) idle_timeout: Option<u64>,
    /// `timeouts.login`
    pub(crate) login_timeout: Option<u64>,
    /// `timeouts.max_age`
    pub max_age: Option<u64>,
    pub(crate) reconnect: Backoff,
    pub client_output: usize,
    pub upstream_in_flight: usize,
    /// For subscribers; the time in microseconds.
    pub(crate) subscriber_hard: usize,
    pub(crate) subscriber_soft: usize,
    pub(crate) subscriber_soft_time: u64,
    pub on_gap: OnGap,
    /// Replies are measured for `reads`.
    pub(crate) measures: bool,
    /// How many workers there are, at least 1.
    pub workers: usize,
    /// This worker's share of `limits.memory`.
    pub memory: usize,
    /// This worker's share of `limits.held`.
    pub held: usize,
    pub request: RequestLimits,
    /// For what was let in before: the largest limits that there have been.
    pub accepted: RequestLimits,
    /// `announce_mode`
    pub announce_mode: AnnounceMode,
    announce: Option<Address>,
    /// The same for clients with TLS.
    announce_tls: Option<Address>,
    /// `tls.downstream.handshake_timeout`, microseconds.
    pub handshake_timeout: u64,
    /// For clients on a Unix socket.
    first_tcp: Option<Address>,
    /// `limits.dedicated`, of all workers.
    pub dedicated: usize,
    /// `limits.users`
    pub users: usize,
    /// `protected_mode`
    pub protected: bool,
    /// Who comes with TLS has shown a certificate.
    pub(crate) tls_shows: bool,
    /// `transactions.cross_slot` is "split".
    pub(crate) split_transactions: bool,
    /// `commands.on_outcome_unknown` is "disconnect".
    pub(crate) disconnect_on_unknown: bool,
    /// `commands.cross_slot` is "emulate".
    pub emulate: bool,
    /// `commands.cross_slot_turn`, microseconds.
    pub(crate) emulation_turn: u64,
    /// The databases that are another upstream.
    pub databases: Databases,
    /// For error texts: the configured values.
    pub(crate) memory_total: usize,
}

/// What connections to the nodes of one upstream are made by.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamSettings {
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) client_name: String,
    /// `keepalive`, and how long data that was sent may stay unacknowledged at least.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    /// `read_from`.
    pub(crate) reads: ReadPreferences,
}

impl UpstreamSettings {
    fn new(config: &Config, id: UpstreamId) -> Self {
        let upstream = config.upstream_of(id);
        UpstreamSettings {
            reads: ReadPreferences::new(config, config.read_from_of(id)),
            user: upstream.user.clone(),
            password: upstream.password.clone(),
            client_name: upstream.client_name.clone(),
            keepalive: upstream.keepalive.map(|idle| {
                // Without a deadline nothing that was sent is given up but by keepalive.
                (idle, config.timeouts.command.unwrap_or(Duration::from_secs(24 * 3600)))
            }),
        }
    }
}

impl Settings {
    /// Whether reads of any upstream may go elsewhere than to primaries.
    pub(crate) fn reads_elsewhere(&self) -> bool {
        self.upstreams.iter().any(|own| own.reads.any())
    }

    /// What connections to the nodes of this upstream are made by.
    pub(crate) fn upstream(&self, id: UpstreamId) -> Option<&UpstreamSettings> {
        self.upstreams.get(id.at())
    }

    pub fn new(config: &Config, workers: usize) -> Self {
        let workers = workers.max(1);
        let request = RequestLimits {
            bulk: config.limits.bulk as u64,
            inline: config.limits.inline,
            multibulk: config.limits.multibulk as u64,
            unauthenticated: false,
        };
        let micros = |d: std::time::Duration| d.as_micros() as u64;
        let ids = (0..config.upstream_names().len()).map(|at| UpstreamId(at as u8));
        let upstreams: Vec<_> = ids.map(|id| UpstreamSettings::new(config, id)).collect();
        let measures = upstreams.iter().any(|own| own.reads.from == ReadFrom::LowestLatency);
        Settings {
            upstreams,
            connections: config.upstream_of(UpstreamId::FIRST).connections.max(1),
            command_timeout: config.timeouts.command.map(micros),
            connect_timeout: micros(config.timeouts.connect),
            no_primary: config.timeouts.no_primary.map(micros),
            retries: (config.retries.budget_percent, config.retries.min_per_second),
            probe: config.timeouts.probe.map(micros),
            idle_timeout: config.timeouts.idle.map(micros),
            login_timeout: config.timeouts.login.map(micros),
            max_age: config.timeouts.max_age.map(micros),
            reconnect: Backoff::new(config.reconnect.min, config.reconnect.max),
            client_output: config.limits.client_output,
            subscriber_hard: config.pubsub.output_hard,
            subscriber_soft: config.pubsub.output_soft,
            subscriber_soft_time: micros(config.pubsub.output_soft_time),
            on_gap: config.pubsub.on_gap,
            upstream_in_flight: config.limits.upstream_in_flight,
            measures,
            workers,
            memory: config.limits.memory.bytes() / workers,
            held: config.limits.held / workers,
            accepted: request,
            request,
            announce_mode: config.announce_mode,
            announce: config.announce.clone(),
            announce_tls: config.tls.downstream.announce.clone(),
            handshake_timeout: micros(config.tls.downstream.handshake_timeout),
            first_tcp: config.listen.iter().find_map(|listen| match listen {
                Listen::Tcp(address) => Some(address.clone()),
                Listen::Unix(_) => None,
            }),
            dedicated: config.limits.dedicated,
            users: config.limits.users,
            protected: config.protected_mode,
            tls_shows: config.tls.downstream.client_auth == ClientAuth::Required,
            split_transactions: config.transactions.cross_slot == CrossSlot::Split,
            disconnect_on_unknown: config.on_outcome_unknown == OnOutcomeUnknown::Disconnect,
            emulate: config.emulation.cross_slot == CrossSlotCommand::Emulate,
            databases: Databases::new(
                config.database_targets().map(|(number, upstream, database)| DatabaseTarget {
                    number,
                    upstream,
                    database,
                }),
            ),
            emulation_turn: micros(config.emulation.turn),
            memory_total: config.limits.memory.bytes(),
        }
    }

    /// The client could be anybody, and protected_mode is to keep those out.
    pub(crate) fn keeps_out(&self, client: &Client) -> bool {
        let shown = self.tls_shows && matches!(client.stream, Stream::Tls(_));
        self.protected && !shown && client.ip().is_some_and(is_public)
    }

    /// The address that a cluster client is told: as configured, the one that it uses, or, over a
    /// Unix socket, the first one that is listened on.
    pub fn announced(&self, client: &Client) -> AnnouncedNode {
        let tls = matches!(client.stream, Stream::Tls(_));
        let announce = if tls { &self.announce_tls } else { &self.announce };
        if let Some(Address { host, port }) = announce {
            return AnnouncedNode { host: host.to_string(), port: *port, tls };
        }
        if let Some(used) = client.local_addr() {
            // A client of IPv4 on a listener for both.
            return AnnouncedNode {
                host: used.ip().to_canonical().to_string(),
                port: used.port(),
                tls,
            };
        }
        let first = self.first_tcp.as_ref().filter(|a| a.port != 0);
        let any = |host: &str| host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
        let host = first.map(|a| a.host.as_ref()).filter(|host| !any(host));
        AnnouncedNode {
            host: host.unwrap_or("127.0.0.1").to_owned(),
            port: first.map_or(6379, |a| a.port),
            tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamedUpstream;

    #[test]
    fn connections_are_those_of_the_first_upstream_whatever_its_name() {
        let mut config = Config::default();
        config.upstream.connections = 2;
        let named = |name: &str, connections| NamedUpstream {
            name: name.into(),
            seeds: vec![Address { host: name.into(), port: 1 }],
            upstream: crate::config::Upstream { connections, ..config.upstream.clone() },
            read_from: config.read_from,
            tls: config.tls.upstream.clone(),
            optional: false,
        };
        let (queues, seeds) = (named("queues", 3), named("main", 1).seeds);
        config.upstreams = vec![queues];
        assert_eq!(Settings::new(&config, 1).connections, 3);
        config.seeds = seeds;
        assert_eq!(Settings::new(&config, 1).connections, 2, "main is the first");
    }
}
