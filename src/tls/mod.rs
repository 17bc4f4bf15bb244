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

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::cluster::UpstreamId;
use crate::config::{self, ClientAuth, Config, TlsUpstream};
use build::Material;
pub use explain::outcome;
pub use files::Fault;
pub use pin::pinned;
pub use stats::{HandshakeOutcome, Side, TlsCounts, TlsStats};
pub use stream::TlsStream;

/// The section of the configuration for the upstream of `seeds`.
const UPSTREAM: &str = "tls.upstream";

/// A client configuration that trusts the machine's CAs: for what is not a node.
///
/// # Errors
/// The machine has no CAs.
pub fn public_client() -> Result<Arc<ClientConfig>, Fault> {
    let config = TlsUpstream::default();
    let material = Material::of_upstream(&config, UPSTREAM).map_err(|faults| {
        let none = Fault { key: "tls".into(), reason: "cannot be used".into() };
        faults.into_iter().next().unwrap_or(none)
    })?;
    material.client(&config, UPSTREAM).map(Arc::new)
}

/// TLS with the configuration and certificates in use. Shared by all threads.
#[derive(Debug, Default)]
pub struct Tls {
    used: RwLock<Arc<Used>>,
    /// The files when they were last read, whether they could be used or not.
    seen: Mutex<BTreeMap<Part, Seen>>,
    stats: Arc<TlsStats>,
}

/// What has a section of the configuration, and files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Downstream,
    Upstream(UpstreamId),
    Admin,
}

impl Part {
    fn side(self) -> Side {
        match self {
            Part::Downstream => Side::Downstream,
            Part::Upstream(_) => Side::Upstream,
            Part::Admin => Side::Admin,
        }
    }
}

/// The files of a part, as they were read.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    fingerprint: u64,
    /// When the certificate expires, seconds since 1970.
    expiry: Option<i64>,
}

/// The configurations in use, replaced as a whole.
#[derive(Debug, Default, Clone)]
struct Used {
    config: Arc<config::Tls>,
    server: Option<Arc<ServerConfig>>,
    /// By [`UpstreamId`].
    upstreams: Vec<UpstreamTls>,
    admin: Option<Arc<ServerConfig>>,
}

/// TLS to the nodes of one upstream.
#[derive(Debug, Default, Clone)]
struct UpstreamTls {
    /// Its section of the configuration.
    section: Arc<str>,
    config: Arc<TlsUpstream>,
    client: Option<Arc<ClientConfig>>,
}

/// A configuration that is valid and whose files are read, ready for [`Tls::take`].
#[derive(Debug, Default)]
pub struct Prepared {
    used: Used,
    seen: BTreeMap<Part, Seen>,
}

impl Tls {
    /// Reads all files of a configuration and uses them.
    ///
    /// # Errors
    /// All faults of the files.
    pub fn load(config: &Config) -> Result<Tls, Vec<Fault>> {
        let tls = Tls::default();
        tls.take(Tls::prepare(config)?);
        Ok(tls)
    }

    /// Reads all files of a configuration, for [`Tls::take`].
    ///
    /// # Errors
    /// All faults of the files.
    pub fn prepare(config: &Config) -> Result<Prepared, Vec<Fault>> {
        let mut used = Used::of(config);
        let mut seen = BTreeMap::new();
        let mut faults = Vec::new();
        for part in used.parts() {
            let material = match used.read(part) {
                Ok(material) => material,
                Err(wrong) => {
                    faults.extend(wrong);
                    continue;
                }
            };
            seen.insert(part, Seen::of(&material));
            faults.extend(used.make(part, &material).err());
        }
        if faults.is_empty() { Ok(Prepared { used, seen }) } else { Err(faults) }
    }

    /// Whether the configuration in use is that of `config`.
    pub fn is_of(&self, config: &Config) -> bool {
        let (used, wanted) = (self.used(), Used::of(config));
        let named = |used: &Used| {
            let one = |up: &UpstreamTls| (Arc::clone(&up.section), Arc::clone(&up.config));
            used.upstreams.iter().map(one).collect::<Vec<_>>()
        };
        used.config == wanted.config && named(&used) == named(&wanted)
    }

    /// Uses a configuration for new connections from now on.
    pub fn take(&self, prepared: Prepared) {
        // Held until both are replaced, so that `read` does not mix two configurations.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(prepared.used);
        *seen = prepared.seen;
        self.tell_expiry(&seen);
    }

    /// Sets for each side when the first of its certificates expires.
    fn tell_expiry(&self, seen: &BTreeMap<Part, Seen>) {
        for side in Side::ALL {
            let own = seen.iter().filter(|(part, _)| part.side() == side);
            self.stats.expires(side, own.filter_map(|(_, seen)| seen.expiry).min());
        }
    }

    fn used(&self) -> Arc<Used> {
        Arc::clone(&self.used.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether anything has TLS.
    fn is_any(&self) -> bool {
        !self.used().parts().is_empty()
    }

    /// Whether connections to nodes of `upstream` use TLS.
    pub fn is_upstream(&self, upstream: UpstreamId) -> bool {
        self.used().upstream(upstream).is_some_and(|up| up.config.enabled)
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<TlsStats> {
        &self.stats
    }

    /// Reads files again that have changed; with `all` also those that have not.
    fn read_changed(&self, all: bool) {
        let used = self.used();
        for part in used.parts() {
            let side = part.side().name();
            // Named where it is not that of the short form.
            let section = match part {
                Part::Upstream(id) => used.upstream(id).map(|up| &*up.section),
                _ => None,
            };
            let section = section.filter(|section| *section != UPSTREAM);
            match self.read(part, all) {
                Ok(false) => {}
                Ok(true) => {
                    self.stats.reloaded(true);
                    tracing::info!(side, section, "certificates read again, in use from now on");
                }
                Err(faults) => {
                    self.stats.reloaded(false);
                    for fault in faults {
                        tracing::error!(
                            side,
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

    /// Reads the files of one part, and uses them if they have changed or `anyway`. `true`: they
    /// are in use.
    ///
    /// # Errors
    /// The faults of the files, once for each content.
    fn read(&self, part: Part, anyway: bool) -> Result<bool, Vec<Fault>> {
        let before = self.used();
        let material = before.read(part);
        // A file may be missing for a moment while it is replaced: a fingerprint of its own, so
        // that the fault is reported once.
        let print = material.as_ref().map_or(0, Material::fingerprint);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(seen) = seen.get_mut(&part) else { return Ok(false) };
            let known = seen.fingerprint == print;
            if !anyway && known || !Arc::ptr_eq(&self.used().config, &before.config) {
                return Ok(false);
            }
            seen.fingerprint = print;
        }
        let material = material?;
        let mut made = Used::clone(&before);
        made.make(part, &material).map_err(|fault| vec![fault])?;
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&used.config, &before.config) {
            // Another configuration was taken meanwhile, with files of its own.
            return Ok(false);
        }
        // Other parts may have been read meanwhile.
        let mut now = Used::clone(&used);
        match part {
            Part::Downstream => now.server = made.server,
            Part::Upstream(id) => {
                if let (Some(place), Some(made)) =
                    (now.upstreams.get_mut(id.at()), made.upstreams.get(id.at()))
                {
                    place.client.clone_from(&made.client);
                }
            }
            Part::Admin => now.admin = made.admin,
        }
        *used = Arc::new(now);
        drop(used);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(&part) {
            seen.expiry = material.expiry();
        }
        self.tell_expiry(&seen);
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

    /// TLS on a socket to the node of `upstream` called `name`, its handshake still to come; `None`
    /// where its nodes have no TLS.
    pub fn connect(
        &self,
        upstream: UpstreamId,
        socket: mio::net::TcpStream,
        name: &str,
    ) -> Option<io::Result<TlsStream>> {
        let used = self.used();
        let up = used.upstream(upstream)?;
        let config = up.client.clone()?;
        let conn = up
            .server_name(name)
            .and_then(|name| ClientConnection::new(config, name).map_err(io::Error::other));
        let (stats, none) = (&self.stats, config::UserFrom::None);
        Some(conn.map(|conn| TlsStream::new(socket, conn.into(), Side::Upstream, stats, none)))
    }

    /// The configuration for connections to nodes of `upstream` that are tokio's; `None` where they
    /// have no TLS.
    pub fn client(&self, upstream: UpstreamId) -> Option<Arc<ClientConfig>> {
        self.used().upstream(upstream)?.client.clone()
    }

    /// The configuration for the admin listener; `None`: plain HTTP.
    pub fn admin(&self) -> Option<Arc<ServerConfig>> {
        self.used().admin.clone()
    }

    /// The name that the certificate of the node of `upstream` called `node` must have.
    ///
    /// # Errors
    /// It is no valid name of a server.
    pub fn server_name(&self, upstream: UpstreamId, node: &str) -> io::Result<ServerName<'static>> {
        let used = self.used();
        used.upstream(upstream).unwrap_or(&UpstreamTls::default()).server_name(node)
    }

    /// The text of an error on a connection to the node of `upstream` called `node`, for logs and
    /// error replies.
    pub fn why(&self, upstream: UpstreamId, error: &io::Error, node: &str) -> String {
        match explain::of_io(error) {
            Some(_) => {
                let used = self.used();
                let name = used.upstream(upstream).map_or(node, |up| up.name_of(node));
                format!("TLS, name {name}: {}", explain::words(error, Side::Upstream, name))
            }
            None => error.to_string(),
        }
    }

    /// The names and expiry dates of the certificates, as comments for `slotway check`.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        let used = self.used();
        for part in used.parts() {
            if out.is_empty() {
                out.push('\n');
            }
            let section = used.section(part);
            let Some(cert) = used.read(part).ok().and_then(|material| material.certificate())
            else {
                continue;
            };
            let common = certificate::common_name(&cert).unwrap_or("none".into());
            let names = certificate::alternative_names(&cert).join(", ");
            let _ = write!(out, "# {section}.cert: common name {common}");
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

impl Seen {
    fn of(material: &Material) -> Seen {
        Seen { fingerprint: material.fingerprint(), expiry: material.expiry() }
    }
}

impl Used {
    /// The configuration, its files not read yet.
    fn of(config: &Config) -> Used {
        let upstream = |at: usize| match config.named_upstream(UpstreamId(at as u8)) {
            Some(named) => UpstreamTls {
                section: format!("upstreams.{}.tls", named.name).into(),
                config: Arc::new(named.tls.clone()),
                client: None,
            },
            None => UpstreamTls {
                section: UPSTREAM.into(),
                config: Arc::new(config.tls.upstream.clone()),
                client: None,
            },
        };
        Used {
            config: Arc::new(config.tls.clone()),
            upstreams: (0..config.upstream_names().len()).map(upstream).collect(),
            ..Used::default()
        }
    }

    /// The parts that use TLS.
    fn parts(&self) -> Vec<Part> {
        let downstream = (!self.config.downstream.listen.is_empty()).then_some(Part::Downstream);
        let enabled = self.upstreams.iter().enumerate().filter(|(_, up)| up.config.enabled);
        let upstreams = enabled.map(|(at, _)| Part::Upstream(UpstreamId(at as u8)));
        let admin = self.config.admin.cert.is_some().then_some(Part::Admin);
        downstream.into_iter().chain(upstreams).chain(admin).collect()
    }

    /// The section of the configuration.
    fn section(&self, part: Part) -> Arc<str> {
        match part {
            Part::Upstream(id) => {
                self.upstream(id).map(|up| Arc::clone(&up.section)).unwrap_or_default()
            }
            part => format!("tls.{}", part.side().name()).into(),
        }
    }

    fn upstream(&self, id: UpstreamId) -> Option<&UpstreamTls> {
        self.upstreams.get(id.at())
    }

    /// Reads the files of one part.
    fn read(&self, part: Part) -> Result<Material, Vec<Fault>> {
        match part {
            Part::Downstream => Material::of_downstream(&self.config.downstream),
            Part::Upstream(id) => match self.upstream(id) {
                Some(up) => Material::of_upstream(&up.config, &up.section),
                None => Err(Vec::new()),
            },
            Part::Admin => Material::of_admin(&self.config.admin),
        }
    }

    /// Builds the configuration of one part from its files.
    fn make(&mut self, part: Part, material: &Material) -> Result<(), Fault> {
        match part {
            Part::Downstream => {
                let config = &self.config.downstream;
                let (least, auth) = (config.min_version, config.client_auth);
                self.server = Some(Arc::new(material.server(part.side(), least, auth)?));
            }
            Part::Upstream(id) => {
                if let Some(up) = self.upstreams.get_mut(id.at()) {
                    up.client = Some(Arc::new(material.client(&up.config, &up.section)?));
                }
            }
            Part::Admin => {
                let least = self.config.admin.min_version;
                let server = material.server(part.side(), least, ClientAuth::None)?;
                self.admin = Some(Arc::new(server));
            }
        }
        Ok(())
    }
}

impl UpstreamTls {
    fn server_name(&self, node: &str) -> io::Result<ServerName<'static>> {
        let name = self.name_of(node).to_owned();
        ServerName::try_from(name).map_err(|_| {
            let text = format!("{} cannot be the name of a server", self.name_of(node));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// The name that a node's certificate must have, as text.
    fn name_of<'a>(&'a self, node: &'a str) -> &'a str {
        match &*self.config.server_name {
            "" => node,
            name => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, NamedUpstream, ReadFrom, Verify};

    /// The upstream of `seeds`, and one that is named.
    fn config(main: TlsUpstream, named: TlsUpstream) -> Config {
        let seeds = vec![Address { host: "a".into(), port: 1 }];
        let mut config = Config { seeds, ..Config::default() };
        config.tls.upstream = main;
        config.upstreams.push(NamedUpstream {
            name: "queues".into(),
            seeds: config.seeds.clone(),
            upstream: config.upstream.clone(),
            read_from: ReadFrom::Primary,
            tls: named,
            optional: false,
        });
        config
    }

    fn without_files(server_name: &str) -> TlsUpstream {
        let server_name = server_name.into();
        TlsUpstream { enabled: true, verify: Verify::None, server_name, ..TlsUpstream::default() }
    }

    #[test]
    fn each_upstream_has_tls_of_its_own() {
        let (main, queues) = (UpstreamId::FIRST, UpstreamId(1));
        let first = config(TlsUpstream::default(), without_files("q.example"));
        let tls = Tls::load(&first).unwrap();
        assert!(!tls.is_upstream(main) && tls.client(main).is_none());
        assert!(tls.is_upstream(queues) && tls.client(queues).is_some());
        assert!(!tls.is_upstream(UpstreamId(2)), "there is none");
        let name = |tls: &Tls, upstream| tls.server_name(upstream, "node.example").unwrap();
        assert_eq!(name(&tls, main), ServerName::try_from("node.example").unwrap());
        assert_eq!(name(&tls, queues), ServerName::try_from("q.example").unwrap());

        let both = config(without_files(""), without_files("q.example"));
        assert!(tls.is_of(&first) && !tls.is_of(&both));
        tls.take(Tls::prepare(&both).unwrap());
        assert!(tls.is_of(&both));
        assert!(!Arc::ptr_eq(&tls.client(main).unwrap(), &tls.client(queues).unwrap()));
    }

    #[test]
    fn a_fault_names_the_key_of_its_upstream() {
        let named = TlsUpstream { ca: Some("/nowhere.pem".into()), ..without_files("") };
        let faults = Tls::prepare(&config(TlsUpstream::default(), named.clone())).unwrap_err();
        assert_eq!(faults[0].key, "upstreams.queues.tls.ca");
        let faults = Tls::prepare(&config(named, TlsUpstream::default())).unwrap_err();
        assert_eq!(faults[0].key, "tls.upstream.ca");
    }
}
