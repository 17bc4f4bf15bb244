//! `[tls.downstream]`, `[tls.upstream]` and `[tls.admin]`: the types, and what in them cannot be together.

use std::path::PathBuf;
use std::time::Duration;

use super::{Address, ClientAuth, Loaded, Origin, Problem, TlsVersion, UserFrom, Verify};

/// TLS of all sides, which know nothing of each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// Towards clients.
    pub downstream: TlsDownstream,
    /// Towards nodes.
    pub upstream: TlsUpstream,
    /// Of the admin listener.
    pub admin: TlsAdmin,
}

/// `[tls.downstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsDownstream {
    /// Where clients connect with TLS; empty is nowhere.
    pub listen: Vec<Address>,
    /// What cluster clients that connect with TLS are told; `None`: the address that they use.
    pub announce: Option<Address>,
    /// The certificate, with its intermediates.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Who signs clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    pub client_auth: ClientAuth,
    /// What of it is the user's name.
    pub user_from: UserFrom,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// For a client's handshake.
    pub handshake_timeout: Duration,
}

/// `[tls.upstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsUpstream {
    /// All connections to nodes use TLS.
    pub enabled: bool,
    /// Who signs nodes' certificates; `None`: the machine's CAs.
    pub ca: Option<PathBuf>,
    /// What is checked.
    pub verify: Verify,
    /// The name in every node's certificate; empty: each node's own.
    pub server_name: String,
    /// The certificate that nodes are shown.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// `[tls.admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsAdmin {
    /// The certificate, with its intermediates; `None`: plain HTTP.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The oldest version that is spoken.
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

/// Values that are each valid and cannot be together.
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
    let pairs = [
        ("tls.downstream", &downstream.cert, &downstream.key),
        ("tls.upstream", &upstream.cert, &upstream.key),
        ("tls.admin", &admin.cert, &admin.key),
    ];
    for (section, cert, key) in pairs {
        match (cert, key) {
            (Some(_), None) => {
                wrong(&format!("{section}.key"), &format!("has to be given with {section}.cert"));
            }
            (None, Some(_)) => {
                wrong(&format!("{section}.cert"), &format!("has to be given with {section}.key"));
            }
            _ => {}
        }
    }
    // Whoever writes these believes that TLS is on.
    if !upstream.enabled && *loaded.origin("tls.upstream.enabled") == Origin::Default {
        for name in ["ca", "verify", "server_name", "cert", "key", "min_version"] {
            let key = format!("tls.upstream.{name}");
            if *loaded.origin(&key) != Origin::Default {
                let reason = "is given, and connections to nodes do not use TLS; write \
                              tls.upstream.enabled = true, or = false if that is meant";
                wrong(&key, reason);
            }
        }
    }
    problems
}
