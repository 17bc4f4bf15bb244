//! The differences between two configurations: what a reload changes, and what needs a restart.

use super::Config;
use super::keys::{Change, KEYS, Key};

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
    /// The key.
    pub key: &'static Key,
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
        let mut config = wanted.clone();
        let (mut changes, mut restart) = (Vec::new(), Vec::new());
        for key in KEYS {
            if !differs(key, running, wanted) {
                continue;
            }
            let show = |config: &Config| key.show(config).to_string();
            let difference = ChangedKey { key, old: show(running), new: show(wanted) };
            if key.change == Change::Restart {
                copy(key, running, &mut config);
                restart.push(difference);
            } else {
                changes.push(difference);
            }
        }
        ReloadPlan { config, changes, restart }
    }
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
        differences.iter().map(|d| d.key.path).collect()
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
