//! `slotway probe` and `top`: asks the admin listener of a slotway that runs, for images without a shell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use slotway::config::Address;

/// The page at `path` of the admin listener at `admin`: whether it says that all is well, and its
/// text. `token` is shown if there is one.
///
/// # Errors
/// Nobody answers, not in time, or not in HTTP.
pub fn ask(
    admin: &Address,
    token: &str,
    path: &str,
    limit: Duration,
) -> io::Result<(bool, String)> {
    let (status, body) = get(admin, token, path, limit)?;
    Ok((status == 200, body))
}

/// The same with the page's status.
///
/// # Errors
/// Nobody answers, not in time, or not in HTTP.
pub fn get(admin: &Address, token: &str, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let mut socket = connect(admin, limit)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n")?;
    if !token.is_empty() {
        write!(socket, "Authorization: Bearer {token}\r\n")?;
    }
    socket.write_all(b"\r\n")?;
    let mut answer = Vec::new();
    // A page of ours is short; somebody else's may not be.
    socket.take(1 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok()) {
        Some(status) if head.starts_with("HTTP/1.") => Ok((status, body.trim_end().to_owned())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP server")),
    }
}

/// What listens on every address is asked on the loopback one.
fn connect(admin: &Address, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
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
