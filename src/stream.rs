//! Non-blocking sockets to clients and nodes: TCP with or without TLS, or Unix.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{SockRef, TcpKeepalive};

use crate::cluster::UpstreamId;
use crate::tls::{Tls, TlsStream};

/// Number of unanswered keepalive probes that end a connection; they are sent at intervals of a
/// third of the idle time.
const PROBES: u32 = 3;

/// Lets the kernel end a TCP connection whose peer gives no sign of life for twice `idle`. An idle
/// connection is probed with keepalive from `idle` on; on any other, bytes stay unacknowledged
/// (TCP_USER_TIMEOUT), for `patience` at least, because a peer that has stopped reading looks the
/// same.
///
/// # Errors
/// The operating system's.
pub fn keep_alive(socket: &impl AsFd, idle: Duration, patience: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let interval = (idle / PROBES).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(idle.max(Duration::from_secs(1)))
        .with_interval(interval)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some((idle + interval * PROBES).max(patience)))
}

/// Lets the kernel retransmit at constant intervals for the first second or so, instead of doubling
/// them: a connection with few packets in flight recovers sooner from a network that drops
/// everything for a moment.
///
/// # Errors
/// The operating system's.
pub fn retransmit_soon(socket: &impl AsFd) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(socket).set_tcp_thin_linear_timeouts(true)?;
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
    Ok(())
}

/// A socket of an event loop.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Starts a connection to the node of `upstream` called `name`, with TLS where connections to
    /// its nodes have it.
    ///
    /// # Errors
    /// The operating system's, where it refuses at once; `name` cannot be the name of a server.
    pub fn to_node(
        addr: SocketAddr,
        name: &str,
        upstream: UpstreamId,
        tls: &Tls,
    ) -> io::Result<Stream> {
        let socket = mio::net::TcpStream::connect(addr)?;
        // A command must not wait for the acknowledgement of the one before.
        let _ = socket.set_nodelay(true);
        if !tls.is_upstream(upstream) {
            return Ok(Stream::Tcp(socket));
        }
        match tls.connect(upstream, socket, name) {
            Some(stream) => Ok(Stream::Tls(Box::new(stream?))),
            // Another configuration was taken in between.
            None => Err(io::Error::other("connections to nodes have no TLS to use")),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(s) => s,
            Stream::Unix(s) => s,
            Stream::Tls(s) => s.tcp_mut(),
        }
    }

    /// The TCP socket, with TLS on it or not.
    pub fn tcp(&self) -> Option<&mio::net::TcpStream> {
        match self {
            Stream::Tcp(s) => Some(s),
            Stream::Unix(_) => None,
            Stream::Tls(s) => Some(s.tcp()),
        }
    }

    /// The TLS stream, if it is one.
    pub fn tls(&mut self) -> Option<&mut TlsStream> {
        match self {
            Stream::Tls(s) => Some(s),
            _ => None,
        }
    }

    /// The user name in a client's certificate (`tls.downstream.user_from`).
    pub fn peer_name(&self) -> Option<&std::sync::Arc<str>> {
        match self {
            Stream::Tls(s) => s.peer_name(),
            _ => None,
        }
    }

    /// Memory beside the value itself, bytes.
    #[inline]
    pub fn memory(&self) -> usize {
        match self {
            Stream::Tls(s) => s.memory(),
            _ => 0,
        }
    }

    /// Whether bytes were taken that the socket has not taken yet; [`Write::flush`] writes them.
    #[inline]
    pub fn unsent(&self) -> bool {
        match self {
            Stream::Tls(s) => s.unsent(),
            _ => false,
        }
    }

    /// Shuts down the sending side of a TCP socket.
    pub fn shut(&mut self) {
        match self {
            Stream::Tls(s) => s.shut(),
            Stream::Tcp(s) => {
                // If the peer is gone already, nothing is lost.
                let _ = s.shutdown(std::net::Shutdown::Write);
            }
            Stream::Unix(_) => {}
        }
    }

    /// Watches the socket for reading and, if `writing`, for writing. That is for the time in which
    /// bytes wait to be written, because a Unix socket reports every byte that its peer takes.
    /// `again`: it was watched before.
    ///
    /// # Errors
    /// The event loop's.
    pub fn watch(
        &mut self,
        registry: &Registry,
        token: Token,
        writing: bool,
        again: bool,
    ) -> io::Result<()> {
        let interest =
            if writing { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        if again {
            self.source().reregister(registry, token, interest)
        } else {
            self.source().register(registry, token, interest)
        }
    }

    /// Stops watching the socket.
    pub fn unwatch(&mut self, registry: &Registry) {
        // It fails only if the socket was not watched.
        let _ = self.source().deregister(registry);
    }

    /// The peer's and the local address of the socket in the form of CLIENT LIST: `host:port`, or
    /// `path:0` for both of a Unix socket. The client's own may differ
    /// ([`crate::client::Client::addresses`]).
    pub fn socket_addresses(&self) -> (String, String) {
        const UNKNOWN: &str = "?:0";
        match self {
            Stream::Tcp(_) | Stream::Tls(_) => {
                let text = |addr: io::Result<std::net::SocketAddr>| {
                    addr.map_or_else(|_| UNKNOWN.to_owned(), |addr| addr.to_string())
                };
                let ends = self.tcp().map(|s| (text(s.peer_addr()), text(s.local_addr())));
                ends.unwrap_or_default()
            }
            Stream::Unix(s) => {
                let addr = s.local_addr();
                let path = addr.ok().and_then(|addr| Some(addr.as_pathname()?.to_owned()));
                let text =
                    path.map_or_else(|| UNKNOWN.to_owned(), |path| format!("{}:0", path.display()));
                (text.clone(), text)
            }
        }
    }

    /// Sets TCP_CORK: while it is on, partial packets wait for more bytes.
    pub fn hold_back(&self, on: bool) {
        if let Stream::Tcp(s) = self {
            // If it fails, the same bytes are sent in one packet more.
            let _ = SockRef::from(s).set_tcp_cork(on);
        }
    }

    /// Shuts down the sending side, in one packet with the last bytes where possible.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Stream::Tls(s) => {
                s.shut();
                Ok(())
            }
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
        }
    }

    /// Shuts down the receiving side of a Unix socket, where the peer's writes fail from then on,
    /// so that it knows that they were not received. What was written before can be read.
    pub fn close_input(&self) {
        if let Stream::Unix(s) = self {
            // If the peer has closed the socket already, the next read reports that.
            let _ = s.shutdown(Shutdown::Read);
        }
    }

    /// Whether a Unix socket has unread bytes. A reply and the shutdown are two calls there, and
    /// the next command may arrive between them.
    pub fn has_input(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peek = |s| net::recv(s, &mut [0; 1][..], flags);
        matches!(self, Stream::Unix(s) if peek(s).is_ok_and(|(n, _)| n > 0))
    }

    /// Checks whether a connection attempt has succeeded.
    ///
    /// # Errors
    /// Why it has failed; `NotConnected` while it is in progress.
    pub fn connected(&self) -> io::Result<()> {
        match self {
            Stream::Unix(_) => Ok(()),
            Stream::Tcp(_) | Stream::Tls(_) => {
                let Some(socket) = self.tcp() else { return Ok(()) };
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                socket.peer_addr().map(|_| ())
            }
        }
    }
}

impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
            Stream::Tls(s) => s.as_fd(),
        }
    }
}

// System calls by rustix instead of libc's functions, which are thread cancellation points and pay
// for that with every call.

impl Read for Stream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Stream::Tls(s) = self {
            return s.read(buf);
        }
        Ok(net::recv(&*self, buf, RecvFlags::empty())?.0)
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Stream::Tls(s) = self {
            return s.write(buf);
        }
        Ok(net::send(&*self, buf, SendFlags::NOSIGNAL)?)
    }
    #[inline]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Stream::Tls(s) = self {
            return s.write_vectored(bufs);
        }
        let mut no_ancillary = SendAncillaryBuffer::default();
        Ok(net::sendmsg(&*self, bufs, &mut no_ancillary, SendFlags::NOSIGNAL)?)
    }
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tls(s) => s.flush(),
            _ => Ok(()),
        }
    }
}
