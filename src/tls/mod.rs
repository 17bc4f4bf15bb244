//! TLS of both sides: which certificates are used, and what becomes of a handshake.
//!
//! rustls is a state machine without sockets; here it is joined to the workers' sockets
//! ([`TlsStream`]), fed with certificates from files, and given new ones when the files change
//! (`watch`). A handshake is a few steps of the event loop, like everything else that a socket
//! has to say, and holds nobody up but for its cryptography (some 0.3 to 1 ms once).
//!
//! - `files`, `build`, `verify`: from files to rustls's configurations
//! - `der`: names and dates in certificates
//! - `stream`: a socket with TLS
//! - `watch`: files that change
//! - `stats`, `explain`: what is counted and said

mod build;
mod der;
mod explain;
mod files;
mod stats;
mod stream;
mod verify;
mod watch;

use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::config::{self, Config, TlsDownstream, TlsUpstream};
use build::Material;
pub use explain::outcome;
pub use files::Fault;
pub use stats::{Outcome, Side, TlsCounts, TlsStats};
pub use stream::TlsStream;

/// For what is not a node: with the machine's own CAs.
///
/// # Errors
/// It has none.
pub fn public_client() -> Result<Arc<ClientConfig>, Fault> {
    let config = TlsUpstream::default();
    let material = Material::upstream(&config).map_err(|faults| {
        let none = Fault { key: "tls".into(), reason: "cannot be used".into() };
        faults.into_iter().next().unwrap_or(none)
    })?;
    material.client(&config).map(Arc::new)
}

/// TLS as it is configured, with the certificates that are in use now. Shared by all threads.
#[derive(Debug)]
pub struct Tls {
    config: config::Tls,
    server: RwLock<Option<Arc<ServerConfig>>>,
    client: RwLock<Option<Arc<ClientConfig>>>,
    /// What the files were when they were last looked at, used or not.
    seen: Mutex<[u64; Side::COUNT]>,
    stats: Arc<TlsStats>,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(config: &Config) -> Result<Tls, Vec<Fault>> {
        let tls = Tls {
            config: config.tls.clone(),
            server: RwLock::default(),
            client: RwLock::default(),
            seen: Mutex::default(),
            stats: Arc::default(),
        };
        let mut faults = Vec::new();
        for side in tls.sides() {
            faults.extend(tls.read(side, true).err().unwrap_or_default());
        }
        if faults.is_empty() { Ok(tls) } else { Err(faults) }
    }

    /// Clients can connect with TLS.
    pub fn is_downstream(&self) -> bool {
        !self.config.downstream.listen.is_empty()
    }

    /// Connections to nodes use TLS.
    pub fn is_upstream(&self) -> bool {
        self.config.upstream.enabled
    }

    /// `[tls.downstream]`
    pub fn downstream(&self) -> &TlsDownstream {
        &self.config.downstream
    }

    /// `[tls.upstream]`
    pub fn upstream(&self) -> &TlsUpstream {
        &self.config.upstream
    }

    /// What is counted.
    pub fn stats(&self) -> &Arc<TlsStats> {
        &self.stats
    }

    fn sides(&self) -> impl Iterator<Item = Side> {
        let downstream = self.is_downstream().then_some(Side::Downstream);
        downstream.into_iter().chain(self.is_upstream().then_some(Side::Upstream))
    }

    /// Reads all files now: what SIGHUP is for. The machine's CAs are read again, too. What cannot
    /// be used is logged, and what was in use stays in use.
    pub fn reload(&self) {
        self.look(true);
    }

    /// Reads the files that have changed.
    fn look(&self, all: bool) {
        for side in self.sides() {
            let side_name = Side::NAMES.get(side as usize).copied().unwrap_or_default();
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

    /// `true`: there is something new, and it is in use. `Err` once for each content that cannot
    /// be used.
    fn read(&self, side: Side, anyway: bool) -> Result<bool, Vec<Fault>> {
        let material = match side {
            Side::Downstream => Material::downstream(&self.config.downstream),
            Side::Upstream => Material::upstream(&self.config.upstream),
        };
        // A file that is missing for a moment while it is replaced has a print of its own.
        let print = material.as_ref().map_or(0, Material::fingerprint);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(before) = seen.get_mut(side as usize) else { return Ok(false) };
            if !anyway && *before == print {
                return Ok(false);
            }
            *before = print;
        }
        let material = material?;
        match side {
            Side::Downstream => {
                let server = material.server(&self.config.downstream).map_err(|f| vec![f])?;
                put(&self.server, server);
            }
            Side::Upstream => {
                let client = material.client(&self.config.upstream).map_err(|f| vec![f])?;
                put(&self.client, client);
            }
        }
        self.stats.expires(side, material.expiry());
        Ok(true)
    }

    /// A client's connection, its handshake about to begin; `None` without TLS.
    pub fn accept(&self, socket: mio::net::TcpStream) -> Option<io::Result<TlsStream>> {
        let config = get(&self.server)?;
        let conn = ServerConnection::new(config).map_err(io::Error::other);
        let user_from = self.config.downstream.user_from;
        let stats = &self.stats;
        Some(
            conn.map(|conn| {
                TlsStream::new(socket, conn.into(), Side::Downstream, stats, user_from)
            }),
        )
    }

    /// A connection to a node called `name`, its handshake about to begin; `None` without TLS.
    pub fn connect(
        &self,
        socket: mio::net::TcpStream,
        name: &str,
    ) -> Option<io::Result<TlsStream>> {
        let config = get(&self.client)?;
        let conn = self
            .server_name(name)
            .and_then(|name| ClientConnection::new(config, name).map_err(io::Error::other));
        let (stats, none) = (&self.stats, config::UserFrom::None);
        Some(conn.map(|conn| TlsStream::new(socket, conn.into(), Side::Upstream, stats, none)))
    }

    /// What rustls connects to nodes with; `None` without TLS. For connections that are not the
    /// workers'.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        get(&self.client)
    }

    /// The name to look for in the certificate of the node called `node`.
    ///
    /// # Errors
    /// It cannot be a name.
    pub fn server_name(&self, node: &str) -> io::Result<ServerName<'static>> {
        let name = self.name_of(node).to_owned();
        ServerName::try_from(name).map_err(|_| {
            let text = format!("{} cannot be the name of a server", self.name_of(node));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// The same as text.
    fn name_of<'a>(&'a self, node: &'a str) -> &'a str {
        match &*self.config.upstream.server_name {
            "" => node,
            name => name,
        }
    }

    /// Why a connection to the node called `node` is of no use, for log and errors.
    pub fn why(&self, error: &io::Error, node: &str) -> String {
        match explain::of_io(error) {
            Some(_) => {
                let name = self.name_of(node);
                format!("TLS, name {name}: {}", explain::words(error, Side::Upstream, name))
            }
            None => error.to_string(),
        }
    }

    /// What the files come to, as comments for `slotway check`.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for side in self.sides() {
            if out.is_empty() {
                out.push('\n');
            }
            let (name, material) = match side {
                Side::Downstream => ("downstream", Material::downstream(&self.config.downstream)),
                Side::Upstream => ("upstream", Material::upstream(&self.config.upstream)),
            };
            let Some(cert) = material.ok().and_then(|material| material.certificate()) else {
                continue;
            };
            let common = der::common_name(&cert).unwrap_or("none".into());
            let names = der::alternative_names(&cert).join(", ");
            let _ = write!(out, "# tls.{name}.cert: common name {common}");
            if !names.is_empty() {
                let _ = write!(out, "; names {names}");
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.map_or(0, |now| now.as_secs() as i64);
            let _ = match der::not_after(&cert).map(|end| (end - now).div_euclid(86_400)) {
                Some(days) if days < 0 => writeln!(out, "; EXPIRED {} days ago", -days),
                Some(days) => writeln!(out, "; valid for {days} days"),
                None => writeln!(out),
            };
        }
        out
    }
}

fn put<T>(place: &RwLock<Option<Arc<T>>>, value: T) {
    *place.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(value));
}

fn get<T>(place: &RwLock<Option<Arc<T>>>) -> Option<Arc<T>> {
    place.read().unwrap_or_else(PoisonError::into_inner).clone()
}
