//! Checks on the upstreams as a whole: which there are, and what names them.

use std::collections::HashMap;

use super::problem::nearest_word;
use super::upstream_keys::{OPTIONAL, UPSTREAMS};
use super::upstreams::{DATABASES, ROUTES};
use super::{Address, Auth, Listen, Loaded, MAIN, NamedUpstream, Problem, Upstream, UpstreamKind};
use crate::cluster::SlotMap;

/// The problems of upstreams that are valid each, but not together.
pub(super) fn conflicts(loaded: &Loaded) -> Vec<Problem> {
    let mut checks = Checks { loaded, problems: Vec::new() };
    checks.seeds();
    checks.default_upstream();
    checks.number();
    checks.passthrough();
    checks.listeners();
    checks.databases();
    checks.routes();
    checks.problems
}

struct Checks<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Records a problem of the key, or section, at `path`.
    fn problem(&mut self, path: &str, reason: String) {
        let origin = self.loaded.origin(path).clone();
        self.problems.push(Problem { origin, key: path.into(), reason });
    }

    /// Each upstream has seeds, and no seed is another one's.
    fn seeds(&mut self) {
        let config = &self.loaded.config;
        let short = self.loaded.key_name("seeds");
        let main = (MAIN, short, &config.seeds, &config.upstream);
        let named = config.upstreams.iter().map(|named| {
            let path = format!("{UPSTREAMS}.{}.seeds", named.name);
            (named.name.as_str(), path, &named.seeds, &named.upstream)
        });
        let mut seen: HashMap<&Address, (&str, String, &Upstream)> = HashMap::new();
        for (name, path, seeds, upstream) in std::iter::once(main).chain(named) {
            if seeds.is_empty() && (name != MAIN || self.loaded.main_is_named) {
                let reason = "none given, so there is nothing to connect to; write seeds = \
                              [\"host:port\"] there";
                let section = format!("{UPSTREAMS}.{name}");
                let origin = self.loaded.origin(&section).clone();
                self.problems.push(Problem { origin, key: path.clone(), reason: reason.into() });
            }
            for seed in seeds {
                match seen.get(seed) {
                    Some((other, ..)) if *other == name => {}
                    // Sentinels watch any number of servers.
                    Some((_, _, other)) if both_sentinel(upstream, other) => {}
                    Some((other, their_path, _)) => {
                        let reason = format!(
                            "\"{seed}\" is a seed of {other}, too ({}); a server belongs to one \
                             upstream",
                            self.loaded.origin(their_path)
                        );
                        self.problem(&path, reason);
                    }
                    None => {
                        seen.insert(seed, (name, path.clone(), upstream));
                    }
                }
            }
        }
    }

    /// One upstream is that of clients for which nothing else is configured, and is not optional.
    fn default_upstream(&mut self) {
        let config = &self.loaded.config;
        if !config.seeds.is_empty() || self.loaded.main_is_named {
            return;
        }
        match config.upstreams.as_slice() {
            [only] if only.optional => {
                let path = format!("{UPSTREAMS}.{}.{OPTIONAL}", only.name);
                self.problem(&path, NOT_OPTIONAL.into());
            }
            [first, _, ..] => {
                let names = self.names();
                let reason = format!(
                    "there are {names}, and none is called {MAIN}; name one of them {MAIN}: clients \
                     have that one where nothing else is configured for them"
                );
                let origin = self.loaded.origin(&format!("{UPSTREAMS}.{}", first.name)).clone();
                self.problems.push(Problem { origin, key: UPSTREAMS.into(), reason });
            }
            _ => {}
        }
    }

    /// There are no more than can be served.
    fn number(&mut self) {
        let config = &self.loaded.config;
        let Err(error) = SlotMap::new(&config.slot_counts()) else { return };
        let is_cluster = |named: &&NamedUpstream| named.upstream.kind == UpstreamKind::Cluster;
        let last = config.upstreams.iter().rfind(is_cluster).or(config.upstreams.last());
        let last = last.map(|named| format!("{UPSTREAMS}.{}", named.name));
        let origin = self.loaded.origin(&last.unwrap_or_default()).clone();
        self.problems.push(Problem { origin, key: UPSTREAMS.into(), reason: error.to_string() });
    }

    /// The users of several upstreams are not passed through.
    fn passthrough(&mut self) {
        let config = &self.loaded.config;
        if config.auth == Auth::Passthrough && config.upstream_names().len() > 1 {
            let reason = format!(
                "\"passthrough\" is for a single upstream, and there are {}; write users of \
                 slotway's own (users, users_file), and auth = \"own\"",
                self.names()
            );
            self.problem("auth", reason);
        }
    }

    /// The upstreams of listeners exist, and it is clear which listener is meant.
    fn listeners(&mut self) {
        let config = &self.loaded.config;
        let plain = config.listen.iter().cloned().enumerate();
        let plain = plain.map(|(at, listen)| ("listen", at, listen));
        let secured = config.tls.downstream.listen.iter().cloned().enumerate();
        let secured = secured.map(|(at, one)| ("tls.downstream.listen", at, Listen::Tcp(one)));
        let all: Vec<_> = plain.chain(secured).collect();
        for (path, at, listen) in &all {
            let named = config.listener_upstreams.iter().find(|(known, _)| known == listen);
            let Some((_, name)) = named else { continue };
            let unknown = self.unknown(name);
            // Only port 0 may be given twice.
            let twice = all.iter().filter(|(_, _, other)| other == listen).count() > 1;
            let twice = twice.then(|| {
                format!(
                    "\"{listen}\" is given twice, and for upstream \"{name}\"; give each a port"
                )
            });
            let origin = self.loaded.origin_of_item(path, *at);
            for reason in unknown.into_iter().chain(twice) {
                let (origin, key) = (origin.clone(), (*path).into());
                self.problems.push(Problem { origin, key, reason });
            }
        }
    }

    /// The upstreams of databases exist.
    fn databases(&mut self) {
        for route in &self.loaded.config.databases {
            if let Some(reason) = self.unknown(&route.upstream) {
                self.problem(&format!("{DATABASES}.{}", route.number), reason);
            }
        }
    }

    /// The upstreams of routes exist, and no prefix has two.
    fn routes(&mut self) {
        let mut seen = HashMap::new();
        for (at, route) in self.loaded.config.routes.iter().enumerate() {
            let origin = self.loaded.origin_of_item(ROUTES, at);
            let unknown = self.unknown(&route.upstream);
            let (key, prefix) = route.key_and_prefix();
            let twice = seen
                .get(&(key, prefix.clone()))
                .map(|there| format!("{key} \"{prefix}\" is given twice ({there})"));
            for reason in unknown.into_iter().chain(twice) {
                let (origin, key) = (origin.clone(), ROUTES.into());
                self.problems.push(Problem { origin, key, reason });
            }
            seen.entry((key, prefix)).or_insert(origin);
        }
    }

    /// The error if there is no upstream of this name.
    fn unknown(&self, name: &str) -> Option<String> {
        let names = self.loaded.config.upstream_names();
        if names.contains(&name) {
            return None;
        }
        let hint = match nearest_word(name, &mut names.iter().copied()) {
            Some(meant) => format!("the nearest is \"{meant}\""),
            None => format!("there are {}", names.join(", ")),
        };
        Some(format!("no upstream is called \"{name}\"; {hint}"))
    }

    /// The names of all upstreams, for messages.
    fn names(&self) -> String {
        self.loaded.config.upstream_names().join(", ")
    }
}

/// The error for the upstream that clients have by default.
pub(super) const NOT_OPTIONAL: &str =
    "cannot be true: clients have this upstream where nothing else is configured for them";

/// Whether the Sentinels of both may be the same, as they watch other servers for each.
pub(super) fn both_sentinel(a: &Upstream, b: &Upstream) -> bool {
    let sentinel = UpstreamKind::Sentinel;
    a.kind == sentinel && b.kind == sentinel && a.master != b.master
}
