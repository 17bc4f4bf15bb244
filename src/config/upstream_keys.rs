//! The keys of `[upstreams.NAME]`: those of `[upstream]` and `[tls.upstream]`, `seeds` and
//! `read_from`, under names of their own.

use super::keys::{KEYS, Key, key};

/// The section of the upstreams.
pub(super) const UPSTREAMS: &str = "upstreams";
/// The one key of an upstream that the short form does not have.
pub(super) const OPTIONAL: &str = "optional";

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

    /// Whether the key says which servers get the logins, and how they are known.
    pub(super) fn says_whose_login(&self) -> bool {
        ["seeds", "upstream.kind", "upstream.master"].contains(&self.path)
            || self.path.starts_with("tls.upstream.")
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

/// Splits `upstreams.NAME.KEY` into name and key.
pub(super) fn split_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(UPSTREAMS)?.strip_prefix('.')?.split_once('.')
}

/// The path of a key of an upstream, by that of its short form; `None` has the short form.
pub(super) fn upstream_path(upstream: Option<&str>, path: &str) -> String {
    match (upstream, key(path).and_then(Key::upstream_name)) {
        (Some(name), Some(own)) => format!("{UPSTREAMS}.{name}.{own}"),
        _ => path.into(),
    }
}
