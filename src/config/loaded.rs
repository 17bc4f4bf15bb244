//! A valid configuration with the origins of its values.

use std::collections::BTreeMap;

use super::keys::{Key, key};
use super::upstream_keys::upstream_path;
use super::{Config, ConfigError, MAIN, Origin, Problem};

/// A valid configuration with the origins of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where values come from, by the paths of their keys, and [`item_path`]s of lists; and where
    /// upstreams do, by `upstreams.NAME`.
    pub(super) origins: BTreeMap<String, Origin>,
    /// Whether the upstream `main` is written as `[upstreams.main]`.
    pub(super) main_is_named: bool,
}

impl Loaded {
    /// The origin of the value of the key at `path`.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// The origin of an item of the list at `path`.
    pub(super) fn origin_of_item(&self, path: &str, index: usize) -> &Origin {
        self.origins.get(&item_path(path, index)).unwrap_or(self.origin(path))
    }

    /// The path under which the value of the key at `path` was given, for messages:
    /// `upstreams.main.user` for `upstream.user` where `main` is written so.
    pub(super) fn key_name(&self, path: &str) -> String {
        let named = upstream_path(Some(MAIN).filter(|_| self.main_is_named), path);
        let inherited = key(path).is_some_and(Key::is_inherited);
        if inherited && !self.origins.contains_key(&named) { path.into() } else { named }
    }

    /// The path of the key of an upstream, for origins and messages, by that of its short form;
    /// `None` is `main`.
    pub(super) fn upstream_key_name(&self, upstream: Option<&str>, path: &str) -> String {
        match upstream {
            Some(_) => upstream_path(upstream, path),
            None => self.key_name(path),
        }
    }

    /// Refuses a configuration without seeds. Not part of [`super::load`], because `slotway check`
    /// may check a file whose seeds come from the environment later.
    pub fn require_seeds(&self) -> Result<(), ConfigError> {
        if !self.config.seeds.is_empty() || !self.config.upstreams.is_empty() {
            return Ok(());
        }
        Err(ConfigError {
            problems: vec![Problem {
                origin: self.origin("seeds").clone(),
                key: "seeds".into(),
                reason: "none given, so there is no cluster to connect to; name one or more of \
                         its nodes: --seeds 10.0.0.1:7000,10.0.0.2:7000, or \
                         SLOTWAY_SEEDS=10.0.0.1:7000,10.0.0.2:7000, or in the file \
                         seeds = [\"10.0.0.1:7000\", \"10.0.0.2:7000\"]"
                    .into(),
            }],
        })
    }
}

/// The path of an item of a list, for its origin.
pub(super) fn item_path(list: &str, index: usize) -> String {
    format!("{list}[{index}]")
}
