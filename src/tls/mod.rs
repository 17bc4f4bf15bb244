//! TLS for clients, nodes and the admin listener: certificates, sockets, handshakes.
//!
//! rustls is a state machine without I/O. This room joins it to the workers' sockets
//! ([`TlsStream`]), loads certificates from files, and loads them again when the files change
//! (`watch`). A handshake advances with the events of its socket; the event loop waits only for its
//! cryptography (some 0.3 to 1 ms once).
//!
//! - `files`, `build`, `verify`: from files to configurations of rustls
//! - `pin`: for `slotway probe`
//! - `certificate`: names and dates in certificates
//! - `stream`: a socket with TLS
//! - `watch`: files that change
//! - `stats`, `explain`: counters, and error texts

mod build;
mod certificate;
mod explain;
mod files;
mod pin;
mod stats;
mod stream;
mod verify;
mod watch;

use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::config::{self, ClientAuth, Config};
use build::Material;
pub use explain::outcome;
pub use files::Fault;
pub use pin::pinned;
pub use stats::{HandshakeOutcome, Side, TlsCounts, TlsStats};
pub use stream::TlsStream;

/// A client configuration that trusts the machine's CAs: for what is not a node.
///
/// # Errors
/// The machine has no CAs.
pub fn public_client() -> Result<Arc<ClientConfig>, Fault> {
    let config = config::Tls::default();
    let material = Material::of(Side::Upstream, &config).map_err(|faults| {
        let none = Fault { key: "tls".into(), reason: "cannot be used".into() };
        faults.into_iter().next().unwrap_or(none)
    })?;
    material.client(&config.upstream).map(Arc::new)
}

/// TLS with the configuration and certificates in use. Shared by all threads.
#[derive(Debug, Default)]
pub struct Tls {
    used: RwLock<Arc<Used>>,
    /// Fingerprints of the files when they were last read, whether they could be used or not.
    seen: Mutex<[u64; Side::COUNT]>,
    stats: Arc<TlsStats>,
}

/// The configurations in use, replaced as a whole.
#[derive(Debug, Default, Clone)]
struct Used {
    config: Arc<config::Tls>,
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    admin: Option<Arc<ServerConfig>>,
}

/// A configuration that is valid and whose files are read, ready for [`Tls::take`].
#[derive(Debug, Default)]
pub struct Prepared {
    used: Used,
    seen: [u64; Side::COUNT],
    expiry: [Option<i64>; Side::COUNT],
}

impl Tls {
    /// Reads all files of a configuration and uses them.
    ///
    /// # Errors
    /// All faults of the files.
    pub fn load(config: &Config) -> Result<Tls, Vec<Fault>> {
        let tls = Tls::default();
        tls.take(Tls::prepare(&config.tls)?);
        Ok(tls)
    }

    /// Reads all files of a configuration, for [`Tls::take`].
    ///
    /// # Errors
    /// All faults of the files.
    pub fn prepare(config: &config::Tls) -> Result<Prepared, Vec<Fault>> {
        let mut prepared = Prepared::default();
        let mut faults = Vec::new();
        prepared.used.config = Arc::new(config.clone());
        for side in sides(config) {
            let material = match Material::of(side, config) {
                Ok(material) => material,
                Err(wrong) => {
                    faults.extend(wrong);
                    continue;
                }
            };
            if let Some(seen) = prepared.seen.get_mut(side as usize) {
                *seen = material.fingerprint();
            }
            if let Some(expiry) = prepared.expiry.get_mut(side as usize) {
                *expiry = material.expiry();
            }
            faults.extend(prepared.used.make(side, &material).err());
        }
        if faults.is_empty() { Ok(prepared) } else { Err(faults) }
    }

    /// Uses a configuration for new connections from now on.
    pub fn take(&self, prepared: Prepared) {
        // Held until both are replaced, so that `read` does not mix two configurations.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(prepared.used);
        *seen = prepared.seen;
        drop(seen);
        for (side, expiry) in Side::ALL.into_iter().zip(prepared.expiry) {
            self.stats.expires(side, expiry);
        }
    }

    fn used(&self) -> Arc<Used> {
        Arc::clone(&self.used.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The configuration in use.
    pub fn config(&self) -> Arc<config::Tls> {
        Arc::clone(&self.used().config)
    }

    /// Whether connections to nodes use TLS.
    pub fn is_upstream(&self) -> bool {
        self.used().config.upstream.enabled
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<TlsStats> {
        &self.stats
    }

    /// Reads files again that have changed; with `all` also those that have not.
    fn read_changed(&self, all: bool) {
        for side in sides(&self.config()) {
            let side_name = side.name();
            match self.read(side, all) {
                Ok(false) => {}
                Ok(true) => {
                    self.stats.reloaded(true);
                    tracing::info!(side = side_name, "certificates read again, in use from now on");
                }
                Err(faults) => {
                    self.stats.reloaded(false);
                    for fault in faults {
                        tracing::error!(
                            side = side_name,
                            key = fault.key,
                            "certificates have changed and cannot be used, those before stay in \
                             use: {}",
                            fault.reason
                        );
                    }
                }
            }
        }
    }

    /// Reads the files of one side, and uses them if they have changed or `anyway`. `true`: they
    /// are in use.
    ///
    /// # Errors
    /// The faults of the files, once for each content.
    fn read(&self, side: Side, anyway: bool) -> Result<bool, Vec<Fault>> {
        let before = self.used();
        let material = Material::of(side, &before.config);
        // A file may be missing for a moment while it is replaced: a fingerprint of its own, so
        // that the fault is reported once.
        let print = material.as_ref().map_or(0, Material::fingerprint);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(seen) = seen.get_mut(side as usize) else { return Ok(false) };
            if !anyway && *seen == print || !Arc::ptr_eq(&self.used().config, &before.config) {
                return Ok(false);
            }
            *seen = print;
        }
        let material = material?;
        let mut made = Used { config: Arc::clone(&before.config), ..Used::default() };
        made.make(side, &material).map_err(|fault| vec![fault])?;
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&used.config, &before.config) {
            // Another configuration was taken meanwhile, with files of its own.
            return Ok(false);
        }
        let old = Used::clone(&used);
        *used = Arc::new(match side {
            Side::Downstream => Used { server: made.server, ..old },
            Side::Upstream => Used { client: made.client, ..old },
            Side::Admin => Used { admin: made.admin, ..old },
        });
        drop(used);
        self.stats.expires(side, material.expiry());
        Ok(true)
    }

    /// TLS on the socket of a client, its handshake still to come; `None` where clients have no
    /// TLS.
    pub fn accept(&self, socket: mio::net::TcpStream) -> Option<io::Result<TlsStream>> {
        let used = self.used();
        let config = used.server.clone()?;
        let conn = ServerConnection::new(config).map_err(io::Error::other);
        let user_from = used.config.downstream.user_from;
        let stats = &self.stats;
        Some(
            conn.map(|conn| {
                TlsStream::new(socket, conn.into(), Side::Downstream, stats, user_from)
            }),
        )
    }

    /// TLS on a socket to the node called `name`, its handshake still to come; `None` where nodes
    /// have no TLS.
    pub fn connect(
        &self,
        socket: mio::net::TcpStream,
        name: &str,
    ) -> Option<io::Result<TlsStream>> {
        let used = self.used();
        let config = used.client.clone()?;
        let conn = used
            .server_name(name)
            .and_then(|name| ClientConnection::new(config, name).map_err(io::Error::other));
        let (stats, none) = (&self.stats, config::UserFrom::None);
        Some(conn.map(|conn| TlsStream::new(socket, conn.into(), Side::Upstream, stats, none)))
    }

    /// The configuration for connections to nodes that are tokio's; `None` where nodes have no TLS.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.used().client.clone()
    }

    /// The configuration for the admin listener; `None`: plain HTTP.
    pub fn admin(&self) -> Option<Arc<ServerConfig>> {
        self.used().admin.clone()
    }

    /// The name that the certificate of the node called `node` must have.
    ///
    /// # Errors
    /// It is no valid name of a server.
    pub fn server_name(&self, node: &str) -> io::Result<ServerName<'static>> {
        self.used().server_name(node)
    }

    /// The text of an error on a connection to the node called `node`, for logs and error replies.
    pub fn why(&self, error: &io::Error, node: &str) -> String {
        match explain::of_io(error) {
            Some(_) => {
                let used = self.used();
                let name = used.name_of(node);
                format!("TLS, name {name}: {}", explain::words(error, Side::Upstream, name))
            }
            None => error.to_string(),
        }
    }

    /// The names and expiry dates of the certificates, as comments for `slotway check`.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        let config = self.config();
        for side in sides(&config) {
            if out.is_empty() {
                out.push('\n');
            }
            let name = side.name();
            let Some(cert) =
                Material::of(side, &config).ok().and_then(|material| material.certificate())
            else {
                continue;
            };
            let common = certificate::common_name(&cert).unwrap_or("none".into());
            let names = certificate::alternative_names(&cert).join(", ");
            let _ = write!(out, "# tls.{name}.cert: common name {common}");
            if !names.is_empty() {
                let _ = write!(out, "; names {names}");
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.map_or(0, |now| now.as_secs() as i64);
            let _ = match certificate::not_after(&cert).map(|end| (end - now).div_euclid(86_400)) {
                Some(days) if days < 0 => writeln!(out, "; EXPIRED {} days ago", -days),
                Some(days) => writeln!(out, "; valid for {days} days"),
                None => writeln!(out),
            };
        }
        out
    }
}

impl Used {
    /// Builds the configuration of one side from its files.
    fn make(&mut self, side: Side, material: &Material) -> Result<(), Fault> {
        match side {
            Side::Downstream => {
                let config = &self.config.downstream;
                let (least, auth) = (config.min_version, config.client_auth);
                self.server = Some(Arc::new(material.server(side, least, auth)?));
            }
            Side::Upstream => {
                self.client = Some(Arc::new(material.client(&self.config.upstream)?));
            }
            Side::Admin => {
                let least = self.config.admin.min_version;
                self.admin = Some(Arc::new(material.server(side, least, ClientAuth::None)?));
            }
        }
        Ok(())
    }

    fn server_name(&self, node: &str) -> io::Result<ServerName<'static>> {
        let name = self.name_of(node).to_owned();
        ServerName::try_from(name).map_err(|_| {
            let text = format!("{} cannot be the name of a server", self.name_of(node));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// The name that a node's certificate must have, as text.
    fn name_of<'a>(&'a self, node: &'a str) -> &'a str {
        match &*self.config.upstream.server_name {
            "" => node,
            name => name,
        }
    }
}

/// The sides that use TLS.
fn sides(config: &config::Tls) -> impl Iterator<Item = Side> + use<> {
    let downstream = (!config.downstream.listen.is_empty()).then_some(Side::Downstream);
    let upstream = config.upstream.enabled.then_some(Side::Upstream);
    let admin = config.admin.cert.is_some().then_some(Side::Admin);
    [downstream, upstream, admin].into_iter().flatten()
}
