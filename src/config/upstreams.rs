//! Several upstreams: `[upstreams.NAME]`, and who goes to which of them.

use super::{Address, Config, Listen, MAIN, ReadFrom, TlsUpstream, Upstream, UpstreamKind};
use crate::cluster::{SlotCount, SlotMap, UpstreamId, Views};

/// The section of the databases.
pub(super) const DATABASES: &str = "databases";
/// The list of the routes.
pub(super) const ROUTES: &str = "routes";

/// `[upstreams.NAME]`: an upstream beside the one of `seeds` and `[upstream]`, or instead of it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedUpstream {
    /// Its name.
    pub name: String,
    /// Nodes, Sentinels or servers to ask first; not empty.
    pub seeds: Vec<Address>,
    /// Kind, logins and connections.
    pub upstream: Upstream,
    /// Nodes that answer commands that only read.
    pub read_from: ReadFrom,
    /// TLS to its nodes.
    pub tls: TlsUpstream,
    /// Whether `/readyz` does without it.
    pub optional: bool,
}

/// `[[routes]]`: keys, or channels, that begin with `prefix` belong to another upstream than the
/// first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What keys begin with, for a route of keys.
    pub prefix: Option<Vec<u8>>,
    /// What channels and patterns begin with, for a route of channels.
    pub channel_prefix: Option<Vec<u8>>,
    /// The upstream's name.
    pub upstream: String,
}

/// `[databases]`: a database of clients that is another upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRoute {
    /// The number that clients SELECT.
    pub number: u16,
    /// The upstream's name.
    pub upstream: String,
    /// The database there.
    pub database: u16,
}

impl Config {
    /// The names of all upstreams, in the order of their [`UpstreamId`]s: the first is the one of
    /// clients for which nothing else is configured.
    pub fn upstream_names(&self) -> Vec<&str> {
        let short = (!self.seeds.is_empty() || self.upstreams.is_empty()).then_some(MAIN);
        short.into_iter().chain(self.upstreams.iter().map(|named| named.name.as_str())).collect()
    }

    /// The upstream of this name.
    pub fn upstream_id(&self, name: &str) -> Option<UpstreamId> {
        let at = self.upstream_names().iter().position(|known| *known == name)?;
        u8::try_from(at).ok().map(UpstreamId)
    }

    /// The `[upstreams.NAME]` of an upstream; `None`: it is the one of `seeds` and `[upstream]`.
    pub fn named_upstream(&self, id: UpstreamId) -> Option<&NamedUpstream> {
        let short = self.upstream_names().len() - self.upstreams.len();
        self.upstreams.get(id.at().checked_sub(short)?)
    }

    /// Kind, logins and connections of an upstream.
    pub fn upstream_of(&self, id: UpstreamId) -> &Upstream {
        self.named_upstream(id).map_or(&self.upstream, |named| &named.upstream)
    }

    /// `[upstream]`, and that of each `[upstreams.NAME]` with its name.
    pub(super) fn all_upstreams(&self) -> impl Iterator<Item = (Option<&str>, &Upstream)> {
        let named = self.upstreams.iter().map(|one| (Some(one.name.as_str()), &one.upstream));
        std::iter::once((None, &self.upstream)).chain(named)
    }

    /// The same, to be changed.
    pub(super) fn all_upstreams_mut(
        &mut self,
    ) -> impl Iterator<Item = (Option<&str>, &mut Upstream)> {
        let named = self.upstreams.iter_mut();
        let named = named.map(|one| (Some(one.name.as_str()), &mut one.upstream));
        std::iter::once((None, &mut self.upstream)).chain(named)
    }

    /// The nodes of an upstream that answer commands that only read.
    pub fn read_from_of(&self, id: UpstreamId) -> ReadFrom {
        self.named_upstream(id).map_or(self.read_from, |named| named.read_from)
    }

    /// The configuration as it would be with this upstream alone, in the short form.
    pub fn of_upstream(&self, id: UpstreamId) -> Config {
        let mut config = self.clone();
        if let Some(named) = self.named_upstream(id) {
            config.seeds.clone_from(&named.seeds);
            config.upstream = named.upstream.clone();
            config.read_from = named.read_from;
            config.tls.upstream = named.tls.clone();
        }
        config.upstreams = Vec::new();
        config.listener_upstreams = Vec::new();
        config.routes = Vec::new();
        config.databases = Vec::new();
        config
    }

    /// The upstream of a listener's clients; `None`: the listener has none of its own.
    pub fn upstream_of_listener(&self, listener: &Listen) -> Option<UpstreamId> {
        let (_, name) = self.listener_upstreams.iter().find(|(at, _)| at == listener)?;
        self.upstream_id(name)
    }

    /// Where the slots of the upstreams lie.
    pub fn slot_map(&self) -> SlotMap {
        // Loading a configuration has refused one with too many.
        SlotMap::new(&self.slot_counts()).unwrap_or_default()
    }

    /// What the upstreams are, in the order of their [`UpstreamId`]s.
    pub(super) fn slot_counts(&self) -> Vec<SlotCount> {
        let short = self.upstream_names().len() - self.upstreams.len();
        let main = std::iter::repeat_n(&self.upstream, short);
        let all = main.chain(self.upstreams.iter().map(|named| &named.upstream));
        all.map(|upstream| match upstream.kind {
            UpstreamKind::Cluster => SlotCount::Cluster,
            UpstreamKind::Sentinel | UpstreamKind::Standalone => SlotCount::One,
        })
        .collect()
    }

    /// The databases that are another upstream: the number that clients select, the upstream, its
    /// database there.
    pub fn database_targets(&self) -> impl Iterator<Item = (u16, UpstreamId, u16)> {
        let target = |route: &DatabaseRoute| {
            Some((route.number, self.upstream_id(&route.upstream)?, route.database))
        };
        self.databases.iter().filter_map(target)
    }

    /// What clients see of the upstreams.
    pub fn views(&self) -> Views {
        let routes = self.routes.iter().filter_map(|route| {
            Some((route.prefix.as_deref()?, self.upstream_id(&route.upstream)?))
        });
        let channels = self.routes.iter().filter_map(|route| {
            Some((route.channel_prefix.as_deref()?, self.upstream_id(&route.upstream)?))
        });
        Views::new(self.slot_map(), &self.upstream_names(), routes, channels)
    }
}

impl Route {
    /// What keys, or channels, begin with.
    fn prefix_text(&self) -> String {
        let prefix = self.prefix.as_ref().or(self.channel_prefix.as_ref());
        String::from_utf8_lossy(prefix.map_or(&[], Vec::as_slice)).into_owned()
    }

    /// The key of the prefix, and the prefix, as in the file.
    pub(super) fn key_and_prefix(&self) -> (&'static str, String) {
        let key = if self.prefix.is_some() { "prefix" } else { "channel_prefix" };
        (key, self.prefix_text())
    }

    /// The route as in a flag.
    fn describe(&self) -> String {
        let prefix = self.prefix_text();
        let mark = match &self.prefix {
            None => "&",
            Some(_) if prefix.starts_with(['&', '~']) => "~",
            Some(_) => "",
        };
        format!("{mark}{prefix}={}", self.upstream)
    }
}

/// The routes as in a flag.
pub(super) fn describe_routes(routes: &[Route]) -> String {
    toml::Value::Array(routes.iter().map(|route| route.describe().into()).collect()).to_string()
}

impl DatabaseRoute {
    /// The upstream and its database, as in the file.
    pub(super) fn target(&self) -> String {
        match self.database {
            0 => self.upstream.clone(),
            database => format!("{}:{database}", self.upstream),
        }
    }
}
