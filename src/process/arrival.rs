//! Reading the PROXY protocol header of a connection, before the connection goes to a worker.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::config::Network;
use crate::control::Pool;
use crate::errors::Failure;
use crate::mailbox::{Arrival, Downstream};
use crate::metrics::ProxyHeaderOutcome;
use crate::proxy_protocol::{Endpoints, Header, HeaderError, parse};

/// Largest read, in bytes.
const READ_SIZE: usize = 512;
/// How long a refused client is read from, so that the error reaches it: a connection that is
/// closed with bytes unread is reset.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes of a refused client are read and discarded.
const LINGER_BYTES: usize = 64 << 10;

/// A reason for closing a connection before its header was read.
#[derive(Debug)]
pub enum HeaderRefusal {
    /// The connection does not begin with a valid header.
    Header(HeaderError),
    /// The header took longer than `proxy_protocol.timeout`, which this holds.
    Late(Duration),
    /// The peer closed the connection in the middle of its header.
    Cut,
    /// The peer closed the connection without sending a byte, as TCP health checks do.
    Silent,
}

impl HeaderRefusal {
    /// The outcome that it counts as in the metrics.
    pub fn metric(&self) -> ProxyHeaderOutcome {
        match self {
            HeaderRefusal::Header(HeaderError::Missing) => ProxyHeaderOutcome::Missing,
            HeaderRefusal::Header(_) => ProxyHeaderOutcome::Invalid,
            HeaderRefusal::Late(_) => ProxyHeaderOutcome::Timeout,
            HeaderRefusal::Cut | HeaderRefusal::Silent => ProxyHeaderOutcome::Closed,
        }
    }

    /// The error for the client; `None` if the client has gone.
    fn failure(&self) -> Option<Failure> {
        match self {
            HeaderRefusal::Header(error) => Some(Failure::ProxyHeader { why: error.to_string() }),
            HeaderRefusal::Late(limit) => {
                Some(Failure::ProxyHeaderLate { limit: limit.as_millis() })
            }
            HeaderRefusal::Cut | HeaderRefusal::Silent => None,
        }
    }
}

impl fmt::Display for HeaderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            Some(failure) => write!(f, "{failure}"),
            None if matches!(self, HeaderRefusal::Silent) => {
                f.write_str("the connection was closed without a byte")
            }
            None => {
                f.write_str("the connection was closed in the middle of its PROXY protocol header")
            }
        }
    }
}

/// Counts a connection against `limits.clients` until its header has been read.
#[derive(Debug)]
pub struct PendingClient(Arc<Pool>);

impl PendingClient {
    /// Counts one more connection, until the value is dropped.
    pub fn take(pool: &Arc<Pool>) -> PendingClient {
        pool.arriving.fetch_add(1, Relaxed);
        PendingClient(Arc::clone(pool))
    }
}

impl Drop for PendingClient {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Relaxed);
    }
}

/// Whether headers are accepted from `peer`; Unix sockets (`None`) are trusted.
pub(super) fn is_trusted(peer: Option<IpAddr>, trusted: &[Network]) -> bool {
    peer.is_none_or(|ip| trusted.iter().any(|network| network.contains(ip)))
}

/// The IP address of the other end; `None` over a Unix socket.
pub(super) fn peer(socket: &Downstream) -> io::Result<Option<IpAddr>> {
    match socket {
        Downstream::Tcp(stream) | Downstream::Tls(stream) => {
            stream.peer_addr().map(|addr| Some(addr.ip()))
        }
        Downstream::Unix(_) => Ok(None),
    }
}

/// Reads the header within `limit`. A client without TLS is sent the error of a refusal.
///
/// # Errors
/// The outer one is the operating system's, the inner one a refusal.
pub(super) async fn read_header(
    socket: Downstream,
    limit: Duration,
) -> io::Result<Result<Arrival, HeaderRefusal>> {
    match socket {
        Downstream::Tcp(stream) => {
            let mut stream = TcpStream::from_std(stream)?;
            match header(&mut stream, limit).await? {
                Ok(endpoints) => {
                    let socket = Downstream::Tcp(stream.into_std()?);
                    Ok(Ok(Arrival { endpoints, ..socket.into() }))
                }
                Err(why) => {
                    send_error(&mut stream, &why).await;
                    Ok(Err(why))
                }
            }
        }
        Downstream::Tls(stream) => {
            let mut stream = TcpStream::from_std(stream)?;
            match header(&mut stream, limit).await? {
                Ok(endpoints) => {
                    let socket = Downstream::Tls(stream.into_std()?);
                    Ok(Ok(Arrival { endpoints, ..socket.into() }))
                }
                Err(why) => Ok(Err(why)),
            }
        }
        Downstream::Unix(stream) => {
            let mut stream = UnixStream::from_std(stream)?;
            match header(&mut stream, limit).await? {
                Ok(endpoints) => {
                    let socket = Downstream::Unix(stream.into_std()?);
                    Ok(Ok(Arrival { endpoints, ..socket.into() }))
                }
                Err(why) => {
                    send_error(&mut stream, &why).await;
                    Ok(Err(why))
                }
            }
        }
    }
}

async fn header(
    stream: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> io::Result<Result<Option<Endpoints>, HeaderRefusal>> {
    let deadline = Instant::now() + limit;
    let (mut bytes, mut piece) = (Vec::new(), [0; READ_SIZE]);
    loop {
        let more = match parse(&bytes) {
            Ok(Header::Complete { endpoints }) => return Ok(Ok(endpoints)),
            Ok(Header::Incomplete { more }) => more.min(READ_SIZE),
            Err(error) => return Ok(Err(HeaderRefusal::Header(error))),
        };
        let room = piece.get_mut(..more).unwrap_or_default();
        let read = match timeout_at(deadline, stream.read(room)).await {
            Ok(read) => read?,
            Err(_) => return Ok(Err(HeaderRefusal::Late(limit))),
        };
        match read {
            0 if bytes.is_empty() => return Ok(Err(HeaderRefusal::Silent)),
            0 => return Ok(Err(HeaderRefusal::Cut)),
            n => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    }
}

/// Writes the error and waits until the client has read it and closed, or [`LINGER`] is over.
async fn send_error(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), why: &HeaderRefusal) {
    let error = why.failure().map(|failure| failure.frame()).unwrap_or_default();
    let told = async {
        stream.write_all(&error).await?;
        stream.shutdown().await?;
        let (mut piece, mut left) = ([0; READ_SIZE], LINGER_BYTES);
        while left > 0 {
            match stream.read(&mut piece).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        io::Result::Ok(())
    };
    // The connection is closed in any case.
    let _ = tokio::time::timeout(LINGER, told).await;
}
