//! Configurations of rustls, built from slotway's and the files that it names.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::certificate;
use super::files::{Fault, File, system_roots};
use super::stats::Side;
use super::verify::Lenient;
use crate::config::{ClientAuth, TlsAdmin, TlsDownstream, TlsUpstream, TlsVersion, Verify};

/// Number of sessions with nodes that are kept for resumption.
const SESSIONS: usize = 1024;

/// The contents of one side's files.
pub(super) struct Material {
    cert: Option<File>,
    key: Option<File>,
    ca: Option<File>,
}

impl Material {
    /// Reads the files that `[tls.downstream]` names.
    ///
    /// # Errors
    /// All files that cannot be read.
    pub fn of_downstream(config: &TlsDownstream) -> Result<Self, Vec<Fault>> {
        Self::read([
            ("tls.downstream.cert", config.cert.as_deref()),
            ("tls.downstream.key", config.key.as_deref()),
            ("tls.downstream.client_ca", config.client_ca.as_deref()),
        ])
    }

    /// Reads the files of an upstream, whose configuration is in `section`.
    ///
    /// # Errors
    /// All files that cannot be read.
    pub fn of_upstream(config: &TlsUpstream, section: &str) -> Result<Self, Vec<Fault>> {
        Self::read([
            (&format!("{section}.cert"), config.cert.as_deref()),
            (&format!("{section}.key"), config.key.as_deref()),
            (&format!("{section}.ca"), config.ca.as_deref()),
        ])
    }

    /// Reads the files that `[tls.admin]` names.
    ///
    /// # Errors
    /// All files that cannot be read.
    pub fn of_admin(config: &TlsAdmin) -> Result<Self, Vec<Fault>> {
        Self::read([
            ("tls.admin.cert", config.cert.as_deref()),
            ("tls.admin.key", config.key.as_deref()),
            ("tls.admin.ca", None),
        ])
    }

    fn read(files: [(&str, Option<&Path>); 3]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let [cert, key, ca] = files.map(|(name, path)| match File::read(name, path?) {
            Ok(file) => Some(file),
            Err(fault) => {
                faults.push(fault);
                None
            }
        });
        if faults.is_empty() { Ok(Material { cert, key, ca }) } else { Err(faults) }
    }

    /// A hash of all contents.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in [&self.cert, &self.key, &self.ca].into_iter().flatten() {
            file.fingerprint(&mut hasher);
        }
        hasher.finish()
    }

    /// The certificate with its intermediates, and the key.
    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, Fault> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert.certificates()?, key.private_key()?))),
            _ => Ok(None),
        }
    }

    /// An error of rustls about certificate or key, as a fault of the certificate's file.
    fn unusable(&self, error: &rustls::Error) -> Fault {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key in the key file is not this certificate's".to_owned()
            }
            other => format!("cannot be used: {other}"),
        };
        match &self.cert {
            Some(cert) => cert.fault(why),
            None => Fault { key: "tls".into(), reason: why },
        }
    }

    /// The certificate that the peer is sent.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.cert.as_ref()?.certificates().ok()?.into_iter().next()
    }

    /// When the first certificate of the chain expires, seconds since 1970.
    pub fn expiry(&self) -> Option<i64> {
        let chain = self.cert.as_ref()?.certificates().ok()?;
        chain.iter().filter_map(|cert| certificate::not_after(cert)).min()
    }

    /// A server configuration, for clients or the admin listener.
    ///
    /// # Errors
    /// A file with a fault.
    pub fn server(
        &self,
        side: Side,
        least: TlsVersion,
        client_auth: ClientAuth,
    ) -> Result<ServerConfig, Fault> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(least))
            .map_err(|e| self.unusable(&e))?;
        let builder = match (&self.ca, client_auth) {
            (Some(file), auth) if auth != ClientAuth::None => {
                let roots = Arc::new(file.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier.build().map_err(|e| file.fault(e))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let Some((chain, key)) = self.identity()? else {
            let reason = "is needed, with its key, to serve clients".to_owned();
            return Err(Fault { key: format!("tls.{}.cert", side.name()), reason });
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|e| self.unusable(&e))?;
        // Records keep their default size of 16 KiB: smaller ones cost CPU, and a shorter reply is
        // a record of its own anyway.
        if client_auth == ClientAuth::None {
            // Tickets are encrypted state kept by the client: nothing is stored here. One is enough
            // for clients that keep their connections.
            server.ticketer = ring::Ticketer::new().map_err(|e| self.unusable(&e))?;
            server.send_tls13_tickets = 1;
        } else {
            // No resumption: it would skip the check of a certificate whose CA may have been
            // removed from the file.
            server.send_tls13_tickets = 0;
            server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }
        Ok(server)
    }

    /// A client configuration, for connections to the nodes of the upstream of `section`.
    ///
    /// # Errors
    /// A file with a fault.
    pub fn client(&self, config: &TlsUpstream, section: &str) -> Result<ClientConfig, Fault> {
        let provider = provider();
        let ca = format!("{section}.ca");
        let roots = match (&self.ca, config.verify) {
            (_, Verify::None) => RootCertStore::empty(),
            (Some(file), _) => file.roots()?,
            (None, _) => system_roots(&ca)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(config.min_version))
            .map_err(|e| self.unusable(&e))?;
        let builder = match config.verify {
            Verify::Full => {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build().map_err(|e| match &self.ca {
                    Some(file) => file.fault(e),
                    None => Fault { key: ca, reason: e.to_string() },
                })?;
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            Verify::Chain => {
                let verifier = Arc::new(Lenient::new(Some(roots), &provider));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            Verify::None => {
                let verifier = Arc::new(Lenient::new(None, &provider));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let mut client = match self.identity()? {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| self.unusable(&e))?
            }
            None => builder.with_no_client_auth(),
        };
        client.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(client)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    match least {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &NEWEST,
    }
}
