//! Certificates, and a client that speaks TLS.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use slotway::resp::{ReplyProgress, ReplyScan};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A CA whose certificates lie in a folder.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate.
    pub file: PathBuf,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub fn new(folder: &Path, name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).expect("a CA").pem()).expect("to write");
        Ca { issuer: Issuer::new(params, key), folder: folder.to_owned(), file }
    }

    /// A certificate for these DNS names with this common name, valid for `years` from 2020 on.
    pub fn sign_for(&self, name: &str, dns: &[&str], years: i32) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let san = |dns: &&str| SanType::DnsName((*dns).try_into().expect("a name"));
        params.subject_alt_names = dns.iter().map(san).collect();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020 + years, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let cert = self.folder.join(format!("{name}.crt"));
        let file = self.folder.join(format!("{name}.key"));
        fs::write(&cert, signed.pem()).expect("to write");
        fs::write(&file, key.serialize_pem()).expect("to write");
        Identity { cert, key: file }
    }

    pub fn sign(&self, name: &str, dns: &[&str]) -> Identity {
        self.sign_for(name, dns, 40)
    }
}

/// How a client connects.
pub fn client_config(ca: &Path, identity: Option<&Identity>, only_12: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a CA")).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match only_12 {
        true => &[&rustls::version::TLS12],
        false => rustls::ALL_VERSIONS,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let cert = CertificateDer::from_pem_file(cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(key).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("an identity")
        }
    }
}

/// A connection with TLS. Replies are given as their bytes.
pub struct Client {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Client> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        let name = ServerName::try_from("localhost").expect("a name");
        let conn = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut client = Client { stream: StreamOwned::new(conn, socket), read: Vec::new() };
        while client.stream.conn.is_handshaking() {
            client.stream.conn.complete_io(&mut client.stream.sock)?;
        }
        Ok(client)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let (mut scan, mut scanned) = (ReplyScan::default(), 0);
        let mut piece = vec![0; 64 << 10];
        loop {
            match scan.advance(&self.read[scanned..]).map_err(io::Error::other)? {
                ReplyProgress::Partial(n) => scanned += n,
                ReplyProgress::Complete(n) => {
                    let rest = self.read.split_off(scanned + n);
                    return Ok(std::mem::replace(&mut self.read, rest));
                }
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.read.extend_from_slice(&piece[..n]),
            }
        }
    }

    pub fn command(&mut self, args: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        slotway::resp::write::request(&mut frame, args);
        self.send(&frame)?;
        self.receive()
    }

    /// The same as text.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Ok(String::from_utf8_lossy(&self.command(&args)?).trim_end().to_owned())
    }
}
