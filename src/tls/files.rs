//! Files with certificates, keys and CAs, and their faults.

use std::hash::{DefaultHasher, Hash};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The configuration key that names it.
    pub key: String,
    /// Its path and the reason. Never contains any of the file's contents.
    pub reason: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// The contents of a file that the configuration names.
#[derive(Clone)]
pub struct File {
    key: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    /// Reads the file that `key` of the configuration names.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(key: &str, path: &Path) -> Result<File, Fault> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(File { key: key.into(), path: path.into(), bytes }),
            Err(error) => {
                let reason = format!("{} cannot be read: {error}", path.display());
                Err(Fault { key: key.into(), reason })
            }
        }
    }

    /// Adds the contents to a hash.
    pub fn fingerprint(&self, into: &mut DefaultHasher) {
        self.bytes.hash(into);
    }

    /// A fault of this file.
    pub fn fault(&self, why: impl std::fmt::Display) -> Fault {
        Fault { key: self.key.clone(), reason: format!("{}: {why}", self.path.display()) }
    }

    fn not_pem(&self, error: &pem::Error, wanted: &str) -> Fault {
        match error {
            pem::Error::NoItemsFound => self.fault(format!(
                "has no {wanted} in PEM format (-----BEGIN …-----); it has {}",
                self.kinds()
            )),
            _ => self.fault(format!("is not valid PEM: {error}")),
        }
    }

    /// The kinds of PEM sections in the file.
    fn kinds(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let begins = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        let kinds: Vec<&str> = begins.take(4).collect();
        if kinds.is_empty() { "no PEM at all".to_owned() } else { kinds.join(", ") }
    }

    /// All certificates, at least one.
    ///
    /// # Errors
    /// There is none, or one is malformed.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Fault> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match all {
            Ok(all) if all.is_empty() => {
                Err(self.not_pem(&pem::Error::NoItemsFound, "certificate"))
            }
            Ok(all) => Ok(all),
            Err(error) => Err(self.not_pem(&error, "certificate")),
        }
    }

    /// The first private key.
    ///
    /// # Errors
    /// There is none, or it is encrypted.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Fault> {
        let encrypted = self.kinds().contains("ENCRYPTED PRIVATE KEY")
            || self.bytes.windows(11).any(|w| w == b"4,ENCRYPTED");
        if encrypted {
            return Err(self.fault(
                "the private key is encrypted; decrypt it (openssl pkey -in FILE -out NEW) and \
                 protect the file by its mode",
            ));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|e| self.not_pem(&e, "private key"))
    }

    /// The certificates as CAs.
    ///
    /// # Errors
    /// There is none, or one is malformed.
    pub fn roots(&self) -> Result<RootCertStore, Fault> {
        let mut roots = RootCertStore::empty();
        for (i, ca) in self.certificates()?.into_iter().enumerate() {
            let number = i + 1;
            roots.add(ca).map_err(|e| self.fault(format!("CA certificate {number}: {e}")))?;
        }
        Ok(roots)
    }
}

/// The CAs of the machine.
///
/// # Errors
/// There are none.
pub(super) fn system_roots(key: &str) -> Result<RootCertStore, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let reason = format!(
            "is empty, and this machine has no CAs of its own ({}); install ca-certificates, or \
             name a file",
            if errors.is_empty() { "none found".to_owned() } else { errors.join("; ") }
        );
        return Err(Fault { key: key.into(), reason });
    }
    Ok(roots)
}
