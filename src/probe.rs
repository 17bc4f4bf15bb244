//! An HTTP client for the admin listener of a running slotway: for `slotway top`, and for
//! `slotway probe` in images without a shell.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use slotway::config::{Address, Config};

/// Pause before another attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum length of a response. Slotway's pages are shorter; another server's may not be.
const MAX_RESPONSE: u64 = 16 << 20;

/// What a request to the admin listener needs besides its address.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// `admin_token`; empty if none is required.
    pub token: &'a str,
    /// The listener's certificate (`tls.admin.cert`), if it speaks HTTPS.
    pub cert: Option<&'a Path>,
}

/// Requests the page at `path` from the admin listener, with the token and the certificate in
/// `config`. Returns whether its status is 200, and its text.
///
/// # Errors
/// No answer, not in time, or not in HTTP.
pub fn get_as_configured(
    admin: &Address,
    config: &Config,
    path: &str,
    limit: Duration,
) -> io::Result<(bool, String)> {
    let token = config.admin_token.reveal();
    let (status, body) =
        get(admin, Access { token: &token, cert: config.tls.admin.cert.as_deref() }, path, limit)?;
    Ok((status == 200, body))
}

/// Requests the page at `path` from the admin listener. Returns its status and its text.
///
/// # Errors
/// No answer, not in time, or not in HTTP.
pub fn get(
    admin: &Address,
    access: Access<'_>,
    path: &str,
    limit: Duration,
) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + limit;
    loop {
        let error = match get_once(admin, access, path, limit) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // The file of the certificate may have been replaced a moment ago: a running slotway loads
        // it within two seconds.
        let may_retry = access.cert.is_some() && error.kind() == ErrorKind::InvalidData;
        if !may_retry || Instant::now() + PAUSE >= deadline {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

fn get_once(
    admin: &Address,
    access: Access<'_>,
    path: &str,
    limit: Duration,
) -> io::Result<(u16, String)> {
    let socket = connect(admin, limit)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n");
    if !access.token.is_empty() {
        request += &format!("Authorization: Bearer {}\r\n", access.token);
    }
    request += "\r\n";
    match access.cert {
        None => exchange(socket, &request),
        Some(cert) => exchange(secure(socket, cert)?, &request),
    }
}

/// TLS on `socket`, with a server that has the certificate in the file `cert` and no other.
fn secure(socket: TcpStream, cert: &Path) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let client = slotway::tls::pinned(cert).map_err(|fault| io::Error::other(fault.to_string()))?;
    let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
    let conn = ClientConnection::new(Arc::new(client), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(conn, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                let cert = cert.display();
                let why = format!(
                    "{error}: it does not speak TLS with the certificate in {cert} (tls.admin.cert)"
                );
                io::Error::new(ErrorKind::InvalidData, why)
            }
            _ => error,
        })?;
    }
    Ok(stream)
}

/// Sends `request` and returns the status and the body of the response.
fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MAX_RESPONSE).read_to_end(&mut answer) {
        // The server closed TLS without close_notify: the response is complete.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        other => _ = other?,
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok()) {
        Some(status) if head.starts_with("HTTP/1.") => Ok((status, body.trim_end().to_owned())),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "no HTTP server")),
    }
}

/// Connects to the admin listener; to the loopback address if it listens on every address.
fn connect(admin: &Address, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "no address");
    for addr in (admin.host.as_str(), admin.port).to_socket_addrs()? {
        let ip = match addr.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        match TcpStream::connect_timeout(&SocketAddr::new(ip, addr.port()), limit) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
