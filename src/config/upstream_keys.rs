//! The keys of `[upstreams.NAME]`: those of `[upstream]` and `[tls.upstream]`, `seeds` and
//! `read_from`, under names of their own.

use super::keys::{KEYS, Key, key};
use super::{Config, NamedUpstream};

/// The section of the upstreams.
pub(super) const UPSTREAMS: &str = "upstreams";
/// The one key of an upstream that the short form does not have.
pub(super) const OPTIONAL: &str = "optional";
/// The longest name of an upstream, in bytes.
const NAME_MAX: usize = 32;

/// Keys whose value an upstream has that does not have its own. No login is among them: a password
/// must not go to another server.
const INHERITED: [&str; 4] =
    ["read_from", "upstream.client_name", "upstream.connections", "upstream.keepalive"];

impl Key {
    /// The key's name in `[upstreams.NAME]`: `password` for `upstream.password`, `tls.ca` for
    /// `tls.upstream.ca`. `None`: it is not a key of an upstream.
    pub(super) fn upstream_name(&self) -> Option<String> {
        match self.path {
            "seeds" | "read_from" => Some(self.path.into()),
            path => match path.strip_prefix("tls.upstream.") {
                Some(rest) => Some(format!("tls.{rest}")),
                None => path.strip_prefix("upstream.").map(Into::into),
            },
        }
    }

    /// Whether the key is a login of an upstream, which new connections use.
    pub(super) fn is_login(&self) -> bool {
        let own = self.path.strip_prefix("upstream.").unwrap_or_default();
        let own = own.strip_prefix("sentinel_").unwrap_or(own);
        ["user", "user_file", "password", "password_file"].contains(&own)
    }

    /// Whether upstreams without this key have the value of the key outside of `[upstreams]`.
    pub(super) fn is_inherited(&self) -> bool {
        INHERITED.contains(&self.path)
    }
}

/// The keys of an upstream with their names in `[upstreams.NAME]`, but for `optional`.
pub(super) fn upstream_keys() -> impl Iterator<Item = (&'static Key, String)> {
    KEYS.iter().filter_map(|key| key.upstream_name().map(|name| (key, name)))
}

/// The key with this name in `[upstreams.NAME]`.
pub(super) fn upstream_key(name: &str) -> Option<&'static Key> {
    upstream_keys().find(|(_, own)| own == name).map(|(key, _)| key)
}

/// The names of all keys of an upstream.
pub(super) fn names() -> Vec<String> {
    upstream_keys().map(|(_, name)| name).chain([OPTIONAL.into()]).collect()
}

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

/// Splits `upstreams.NAME.KEY` into name and key.
pub(super) fn split_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(UPSTREAMS)?.strip_prefix('.')?.split_once('.')
}

/// Whether `name` may be the name of an upstream.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// The error for what is no name of an upstream.
pub(super) fn not_a_name(name: &str) -> String {
    format!(
        "\"{name}\" is no name of an upstream; write 1 to {NAME_MAX} of a to z, 0 to 9, _ and -"
    )
}

/// The path of a key of an upstream, by that of its short form; `None` has the short form.
pub(super) fn upstream_path(upstream: Option<&str>, path: &str) -> String {
    match (upstream, key(path).and_then(Key::upstream_name)) {
        (Some(name), Some(own)) => format!("{UPSTREAMS}.{name}.{own}"),
        _ => path.into(),
    }
}
