//! The differences between two configurations: what a reload changes, and what needs a restart.

use std::collections::BTreeSet;

use super::keys::{Change, KEYS, Key, key};
use super::upstream_checks::both_sentinel;
use super::upstream_keys::{OPTIONAL, UPSTREAMS, upstream_keys};
use super::upstreams::{DATABASES, ROUTES, describe_routes};
use super::{Auth, Config, MAIN, NamedUpstream};

impl Change {
    /// The phrase of `docs/configuration.md`.
    pub fn describe(self) -> String {
        match self {
            Change::Now => "changes at run time".into(),
            Change::Next(what) => format!("changes at run time, for new {what}"),
            Change::Restart => "**needs a restart**".into(),
        }
    }
}

/// A key whose value differs. Secrets are masked.
#[derive(Debug, Clone)]
pub struct ChangedKey {
    /// The path of the key.
    pub path: String,
    /// The value in use, as TOML.
    pub old: String,
    /// The new value, as TOML.
    pub new: String,
}

/// The effects of a reload.
#[derive(Debug, Clone)]
pub struct ReloadPlan {
    /// The configuration to use: the new one, but for keys that need a restart.
    pub config: Config,
    /// The keys that the reload changes.
    pub changes: Vec<ChangedKey>,
    /// The keys that differ and need a restart.
    pub restart: Vec<ChangedKey>,
}

impl ReloadPlan {
    /// The plan for a reload from `running` to `wanted`.
    pub fn new(running: &Config, wanted: &Config) -> ReloadPlan {
        let (config, changes, restart) = (wanted.clone(), Vec::new(), Vec::new());
        let mut plan = ReloadPlan { config, changes, restart };
        // An upstream that comes or goes does so at a restart, `main` with all that it has.
        let has_main = |config: &Config| config.upstream_names().contains(&MAIN);
        let main_stays = has_main(running) == has_main(wanted);
        for key in KEYS {
            if !differs(key, running, wanted) {
                continue;
            }
            let show = |config: &Config| key.show(config).to_string();
            let at_restart =
                key.change == Change::Restart || (!main_stays && key.upstream_name().is_some());
            if at_restart {
                copy(key, running, &mut plan.config);
            }
            plan.add(at_restart, key.path.into(), [show(running), show(wanted)]);
        }
        plan.upstreams(running, wanted);
        plan.databases(running, wanted);
        if running.routes != wanted.routes {
            let shown = [running, wanted].map(|config| describe_routes(&config.routes));
            plan.add(false, ROUTES.into(), shown);
        }
        plan.keep_consistent(running);
        plan
    }

    fn add(&mut self, at_restart: bool, path: String, [old, new]: [String; 2]) {
        let difference = ChangedKey { path, old, new };
        if at_restart { &mut self.restart } else { &mut self.changes }.push(difference);
    }

    /// Compares `[upstreams.NAME]`. Which there are changes at a restart.
    fn upstreams(&mut self, running: &Config, wanted: &Config) {
        let of = |config: &Config, name: &str| {
            config.upstreams.iter().find(|named| named.name == name).cloned()
        };
        let all = running.upstreams.iter().chain(&wanted.upstreams);
        let names: BTreeSet<&str> = all.map(|named| named.name.as_str()).collect();
        self.config.upstreams.clear();
        for name in names {
            let (old, new) = (of(running, name), of(wanted, name));
            if let (Some(old), Some(new)) = (&old, &new) {
                let merged = self.upstream(old, new);
                self.config.upstreams.push(merged);
                continue;
            }
            let show = |named: &Option<NamedUpstream>| match named {
                Some(named) => named.describe(),
                None => "none".into(),
            };
            self.add(true, format!("{UPSTREAMS}.{name}"), [show(&old), show(&new)]);
            self.config.upstreams.extend(old);
        }
    }

    /// Compares the keys of an upstream. Returns the upstream to use. Logins change at run time, but
    /// with its servers at a restart: the servers in use must not get the password of others.
    fn upstream(&mut self, old: &NamedUpstream, new: &NamedUpstream) -> NamedUpstream {
        let (running, wanted) = (old.to_short(), new.to_short());
        let mut config = wanted.clone();
        let differing = || upstream_keys().filter(|(key, _)| differs(key, &running, &wanted));
        let other_servers = differing().any(|(key, _)| key.says_whose_login());
        for (key, own) in differing() {
            let at_restart = other_servers || !key.is_login();
            if at_restart {
                copy(key, &running, &mut config);
            }
            let shown = [&running, &wanted].map(|config| key.show(config).to_string());
            self.add(at_restart, format!("{UPSTREAMS}.{}.{own}", old.name), shown);
        }
        if old.optional != new.optional {
            let shown = [old, new].map(|named| named.optional.to_string());
            self.add(true, format!("{UPSTREAMS}.{}.{OPTIONAL}", old.name), shown);
        }
        NamedUpstream::from_short(old.name.clone(), config, old.optional)
    }

    /// Compares `[databases]`.
    fn databases(&mut self, running: &Config, wanted: &Config) {
        let of = |config: &Config, number: u16| {
            let route = config.databases.iter().find(|route| route.number == number);
            route.map_or("none".into(), |route| toml::Value::from(route.target()).to_string())
        };
        let all = running.databases.iter().chain(&wanted.databases);
        let numbers: BTreeSet<u16> = all.map(|route| route.number).collect();
        for number in numbers {
            let shown = [running, wanted].map(|config| of(config, number));
            if shown[0] != shown[1] {
                self.add(false, format!("{DATABASES}.{number}"), shown);
            }
        }
    }

    /// Leaves to the restart what does not fit the upstreams in use.
    fn keep_consistent(&mut self, running: &Config) {
        let config = &mut self.config;
        let names: Vec<String> = config.upstream_names().into_iter().map(Into::into).collect();
        let unknown = |name: &String| !names.contains(name);
        let mut kept = Vec::new();
        if config.routes.iter().any(|route| unknown(&route.upstream)) {
            config.routes.clone_from(&running.routes);
            kept.push(ROUTES);
        }
        if config.databases.iter().any(|route| unknown(&route.upstream)) {
            config.databases.clone_from(&running.databases);
            kept.push(DATABASES);
        }
        let mut keys = Vec::new();
        if config.listener_upstreams.iter().any(|(_, name)| unknown(name)) {
            keys.extend(["listen", "tls.downstream.listen"]);
        }
        if names.len() > 1 && config.auth == Auth::Passthrough {
            keys.push("auth");
        }
        // A named upstream keeps its servers until the restart, even one that the new file does not
        // have; `main` cannot have them before, and its logins are for them.
        if config.upstreams.iter().any(|named| shares_servers(config, named)) {
            let of_main = KEYS.iter().filter(|key| key.is_login() || key.says_whose_login());
            keys.extend(of_main.map(|key| key.path));
        }
        keys.iter().filter_map(|path| key(path)).for_each(|key| copy(key, running, config));
        kept.extend(keys);
        let is_kept = |difference: &ChangedKey| {
            let path = difference.path.as_str();
            kept.iter().any(|kept| {
                path.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let (later, now) = std::mem::take(&mut self.changes).into_iter().partition(is_kept);
        self.changes = now;
        self.restart.extend::<Vec<_>>(later);
    }
}

/// Whether `main` would have a seed of `named`. Sentinels watch any number of servers.
fn shares_servers(main: &Config, named: &NamedUpstream) -> bool {
    named.seeds.iter().any(|seed| main.seeds.contains(seed))
        && !both_sentinel(&main.upstream, &named.upstream)
}

fn copy(key: &Key, from: &Config, to: &mut Config) {
    (key.field)(to).copy((key.field)(&mut from.clone()));
}

/// Whether the key's values differ. Compares the values and not their text, in which secrets are
/// masked.
fn differs(key: &Key, a: &Config, b: &Config) -> bool {
    let mut changed = a.clone();
    copy(key, b, &mut changed);
    changed != *a
}

#[cfg(test)]
mod tests {
    use super::super::tests::OTHER;
    use super::super::{Flag, Sources, load};
    use super::*;

    fn other() -> Config {
        let flags = OTHER.iter().map(|text| Flag::Set((*text).into())).collect();
        let mut other = load(&Sources { flags, ..Sources::default() }).unwrap().config;
        // Set here because `load` would read these files.
        other.users_file = "f1".into();
        other.admin_token_file = "f2".into();
        other.upstream.user_file = "f3".into();
        other.upstream.password_file = "f4".into();
        other.upstream.sentinel_password_file = "f5".into();
        other
    }

    const RESTART: [&str; 6] = [
        "upstream.kind",
        "upstream.connections",
        "tls.upstream.enabled",
        "tracing.endpoint",
        "tracing.service_name",
        "log.format",
    ];

    fn paths(differences: &[ChangedKey]) -> Vec<&str> {
        differences.iter().map(|d| d.path.as_str()).collect()
    }

    #[test]
    fn every_key_that_differs_is_seen_and_copied() {
        let (mut config, other) = (Config::default(), other());
        for key in KEYS {
            assert!(differs(key, &config, &other), "{}: add its kind to Field::copy", key.path);
            copy(key, &other, &mut config);
            assert!(!differs(key, &config, &other), "{}", key.path);
        }
        assert_eq!(config, other);
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named_and_the_rest_changes() {
        let (running, wanted) = (Config::default(), other());
        let plan = ReloadPlan::new(&running, &wanted);
        assert_eq!(paths(&plan.restart), RESTART);
        assert_eq!(plan.changes.len() + plan.restart.len(), KEYS.len());
        assert_eq!((plan.restart[1].old.as_str(), plan.restart[1].new.as_str()), ("1", "2"));
        assert_eq!(plan.config.upstream.connections, running.upstream.connections);
        assert_eq!(plan.config.log.format, running.log.format);
        assert_eq!(plan.config.limits, wanted.limits);
        // The configuration then in use differs from the file only in these keys.
        let again = ReloadPlan::new(&plan.config, &wanted);
        assert_eq!(paths(&again.restart), RESTART);
        assert_eq!((paths(&again.changes), again.config), (vec![], plan.config));
    }

    #[test]
    fn nothing_changes_by_the_same_file() {
        let plan = ReloadPlan::new(&other(), &other());
        assert!(plan.changes.is_empty() && plan.restart.is_empty());
        assert_eq!(plan.config, other());
    }

    #[test]
    fn a_changed_secret_is_seen_and_not_shown() {
        let mut wanted = Config::default();
        wanted.upstream.password = super::super::Secret::new("hunter2");
        let plan = ReloadPlan::new(&Config::default(), &wanted);
        assert_eq!(paths(&plan.changes), ["upstream.password"]);
        assert!(!format!("{:?}", plan.changes).contains("hunter2"));
        let mut again = wanted.clone();
        again.upstream.password = super::super::Secret::new("hunter3");
        let plan = ReloadPlan::new(&wanted, &again);
        assert_eq!(paths(&plan.changes), ["upstream.password"], "both are shown as stars");
    }
}
