//! An upstream with a name, and its short form: the same keys in a configuration of its own.

use super::upstream_keys::{OPTIONAL, upstream_keys};
use super::{Config, NamedUpstream};

impl NamedUpstream {
    /// An upstream of this name with the default of each key.
    pub(super) fn new(name: &str) -> NamedUpstream {
        NamedUpstream::from_short(name.into(), Config::default(), false)
    }

    /// The upstream that `config` describes in the short form.
    pub(super) fn from_short(name: String, config: Config, optional: bool) -> NamedUpstream {
        let Config { seeds, upstream, read_from, tls, .. } = config;
        NamedUpstream { name, seeds, upstream, read_from, tls: tls.upstream, optional }
    }

    /// A configuration that describes the upstream in the short form.
    pub(super) fn to_short(&self) -> Config {
        let mut config = Config {
            seeds: self.seeds.clone(),
            upstream: self.upstream.clone(),
            read_from: self.read_from,
            ..Config::default()
        };
        config.tls.upstream = self.tls.clone();
        config
    }

    /// The keys that are not at their default, in one line.
    pub(super) fn describe(&self) -> String {
        let default = NamedUpstream::new(&self.name).values();
        let given = self.values().into_iter().zip(default).filter(|(own, default)| own != default);
        let given: Vec<_> = given.map(|((key, value), _)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", given.join(", "))
    }

    /// All keys of the upstream, and their values as TOML; secrets are masked.
    pub(super) fn values(&self) -> Vec<(String, toml::Value)> {
        let short = self.to_short();
        let keys = upstream_keys().map(|(key, name)| (name, key.show(&short)));
        keys.chain([(OPTIONAL.into(), self.optional.into())]).collect()
    }
}
