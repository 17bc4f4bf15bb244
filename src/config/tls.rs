//! `[tls.downstream]`, `[tls.upstream]` and `[tls.admin]`: their types, and the conflicts between
//! their values.

use std::path::PathBuf;
use std::time::Duration;

use super::{Address, ClientAuth, Loaded, Origin, Problem, TlsVersion, UserFrom, Verify};

/// TLS for clients, for nodes and for the admin listener, independent of each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// TLS for clients.
    pub downstream: TlsDownstream,
    /// TLS for connections to nodes.
    pub upstream: TlsUpstream,
    /// TLS of the admin listener.
    pub admin: TlsAdmin,
}

/// `[tls.downstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsDownstream {
    /// Client addresses with TLS.
    pub listen: Vec<Address>,
    /// Address that cluster clients with TLS are given; `None`: the one that they have connected
    /// to.
    pub announce: Option<Address>,
    /// Certificate chain.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`.
    pub key: Option<PathBuf>,
    /// CAs of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients present a certificate.
    pub client_auth: ClientAuth,
    /// Field of a client's certificate that holds the user name.
    pub user_from: UserFrom,
    /// Oldest TLS version accepted.
    pub min_version: TlsVersion,
    /// Limit for a client's handshake.
    pub handshake_timeout: Duration,
}

/// `[tls.upstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsUpstream {
    /// Whether connections to nodes use TLS.
    pub enabled: bool,
    /// CAs of nodes' certificates; `None`: the machine's CAs.
    pub ca: Option<PathBuf>,
    /// How nodes' certificates are verified.
    pub verify: Verify,
    /// Name expected in every node's certificate; empty: each node's own.
    pub server_name: String,
    /// Client certificate chain presented to nodes.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`.
    pub key: Option<PathBuf>,
    /// Oldest TLS version accepted.
    pub min_version: TlsVersion,
}

/// `[tls.admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsAdmin {
    /// Certificate chain; `None`: plain HTTP.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`.
    pub key: Option<PathBuf>,
    /// Oldest TLS version accepted.
    pub min_version: TlsVersion,
}

impl Default for TlsAdmin {
    fn default() -> Self {
        TlsAdmin { cert: None, key: None, min_version: TlsVersion::Tls12 }
    }
}

impl Default for TlsDownstream {
    fn default() -> Self {
        TlsDownstream {
            listen: Vec::new(),
            announce: None,
            cert: None,
            key: None,
            client_ca: None,
            client_auth: ClientAuth::None,
            user_from: UserFrom::None,
            min_version: TlsVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for TlsUpstream {
    fn default() -> Self {
        TlsUpstream {
            enabled: false,
            ca: None,
            verify: Verify::Full,
            server_name: String::new(),
            cert: None,
            key: None,
            min_version: TlsVersion::Tls12,
        }
    }
}

/// The problems of values that are valid each, but not together.
pub(super) fn conflicts(loaded: &Loaded) -> Vec<Problem> {
    let Tls { downstream, upstream, admin } = &loaded.config.tls;
    let mut problems = Vec::new();
    let mut wrong = |key: &str, reason: &str| {
        let origin = loaded.origin(key).clone();
        problems.push(Problem { origin, key: key.into(), reason: reason.into() });
    };
    if loaded.config.listen.is_empty() && downstream.listen.is_empty() {
        wrong("listen", "is empty, and so is tls.downstream.listen; write at least one address");
    }
    if !downstream.listen.is_empty() {
        if downstream.cert.is_none() {
            wrong("tls.downstream.cert", "has to be given with tls.downstream.listen");
        }
        if downstream.client_auth != ClientAuth::None && downstream.client_ca.is_none() {
            let reason = "asks clients for certificates; write in tls.downstream.client_ca which \
                          CAs may have signed them";
            wrong("tls.downstream.client_auth", reason);
        }
        if downstream.client_auth == ClientAuth::None && downstream.client_ca.is_some() {
            let reason = "is given, and tls.downstream.client_auth = \"none\" asks no client for a \
                          certificate; write \"required\" or \"optional\" there";
            wrong("tls.downstream.client_ca", reason);
        }
        if downstream.client_auth == ClientAuth::None && downstream.user_from != UserFrom::None {
            let reason = "needs certificates of clients: tls.downstream.client_auth = \"required\" \
                          or \"optional\"";
            wrong("tls.downstream.user_from", reason);
        }
    }
    let mut in_pairs = |section: &str, cert: &Option<PathBuf>, key: &Option<PathBuf>| {
        let path = |key: &str| format!("{section}.{key}");
        if let Some((missing, given)) = missing_half(cert, key) {
            wrong(&path(missing), &format!("has to be given with {}", path(given)));
        }
    };
    in_pairs("tls.downstream", &downstream.cert, &downstream.key);
    in_pairs("tls.admin", &admin.cert, &admin.key);
    problems.extend(upstream_conflicts(loaded, None, upstream));
    for named in &loaded.config.upstreams {
        problems.extend(upstream_conflicts(loaded, Some(&named.name), &named.tls));
    }
    problems
}

/// The problems of `[tls.upstream]`, or of the TLS of a named upstream.
fn upstream_conflicts(loaded: &Loaded, name: Option<&str>, tls: &TlsUpstream) -> Vec<Problem> {
    let path = |key: &str| loaded.upstream_key_name(name, &format!("tls.upstream.{key}"));
    let mut problems = Vec::new();
    let mut wrong = |key: String, reason: String| {
        problems.push(Problem { origin: loaded.origin(&key).clone(), key, reason });
    };
    if let Some((missing, given)) = missing_half(&tls.cert, &tls.key) {
        wrong(path(missing), format!("has to be given with {}", path(given)));
    }
    // These keys suggest that the author believes TLS to be on.
    if !tls.enabled && *loaded.origin(&path("enabled")) == Origin::Default {
        for key in ["ca", "verify", "server_name", "cert", "key", "min_version"].map(path) {
            if *loaded.origin(&key) != Origin::Default {
                let enabled = path("enabled");
                let reason = format!(
                    "is given, and connections to nodes do not use TLS; write {enabled} = true, or \
                     = false if that is meant"
                );
                wrong(key, reason);
            }
        }
    }
    problems
}

/// Which of `cert` and `key` is missing where only one is given, and the other one.
fn missing_half(
    cert: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> Option<(&'static str, &'static str)> {
    match (cert, key) {
        (Some(_), None) => Some(("key", "cert")),
        (None, Some(_)) => Some(("cert", "key")),
        _ => None,
    }
}
