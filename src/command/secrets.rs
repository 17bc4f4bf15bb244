//! Secrets in arguments and settings, for code that shows commands or passes replies on.

use crate::resp::Args;

/// Replacement for a secret.
pub const REDACTED: &str = "(redacted)";

/// Settings of a node whose values are secrets.
const SECRET_SETTINGS: [&str; 7] = [
    "requirepass",
    "masterauth",
    "masteruser",
    "primaryauth", // Valkey's names
    "primaryuser",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];
/// Words in the name of any other setting (of a module or a newer server) whose value is a secret.
const SECRET_WORDS: [&str; 9] = [
    "pass",
    "passwd",
    "password",
    "passphrase",
    "secret",
    "token",
    "credential",
    "credentials",
    "apikey",
];
/// Prefixes of settings that announce a node's address. Whoever changes them makes the node's
/// replicas log in elsewhere, with their password.
const ANNOUNCED: [&str; 3] = ["cluster-announce-", "replica-announce-", "slave-announce-"];

/// Whether the value of a node's setting is a secret.
pub fn is_secret_setting(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let secret = |word: &str| SECRET_WORDS.contains(&word);
    SECRET_SETTINGS.contains(&&*name) || name.split(|c: char| !c.is_alphanumeric()).any(secret)
}

/// Whether a node's setting decides at which address other nodes log in to it.
pub fn is_announced_address(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    ANNOUNCED.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether argument `i` is a secret.
pub fn is_secret_argument(args: &Args, i: usize) -> bool {
    let name = args.get(0).unwrap_or_default();
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    // HELLO 3 AUTH user password, MIGRATE … AUTH password, MIGRATE … AUTH2 user password.
    let after = |word: &str, many: usize| (1..=many).any(|n| i > n && args.is(i - n, word));
    if is("auth") {
        i > 0
    } else if is("hello") {
        i > 2 && after("auth", 2)
    } else if is("migrate") {
        after("auth", 1) || after("auth2", 2)
    } else if is("acl") {
        i > 1 && args.is(1, "setuser")
    } else if is("config") {
        i > 2 && i % 2 == 1 && args.is(1, "set") && args.get(i - 1).is_some_and(is_secret_setting)
    } else if is("module") {
        // Arguments of the module.
        i > 2 && (args.is(1, "load") || args.is(1, "loadex"))
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_by_their_names() {
        for name in [
            "requirepass",
            "MasterAuth",
            "masteruser",
            "primaryauth",
            "tls-key-file-pass",
            "tls-client-key-file-pass",
            "search.password",
            "bus_auth.token",
        ] {
            assert!(is_secret_setting(name.as_bytes()), "{name}");
        }
        // The settings of Redis 7.0 that look like secrets and are not.
        for name in [
            "tls-auth-clients",
            "tls-key-file",
            "tls-cert-file",
            "acl-pubsub-default",
            "acllog-max-len",
            "aclfile",
            "list-compress-depth",
            "lua-time-limit",
            "maxmemory",
            "key-load-delay",
            "",
        ] {
            assert!(!is_secret_setting(name.as_bytes()), "{name}");
        }
        assert!(is_announced_address(b"Cluster-Announce-IP"));
        assert!(is_announced_address(b"replica-announce-port"));
        assert!(!is_announced_address(b"cluster-node-timeout"));
    }
}
