//! A non-blocking socket, TCP (with TLS or without) or Unix, of either side.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{SockRef, TcpKeepalive};

use crate::tls::{Tls, TlsStream};

/// Of a keepalive: so many probes without an answer, at a third of the idle time each.
const PROBES: u32 = 3;

/// The kernel ends this TCP connection when the peer has given no sign of life for twice `idle`:
/// asked with keepalive from `idle` on where nothing is sent, and by what was sent and not
/// acknowledged (TCP_USER_TIMEOUT) where something is. The latter not before `patience`: a peer
/// that takes nothing more looks the same.
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

/// What the peer does not acknowledge is sent again at an even pace for the first second or so,
/// and not after twice the time each: a network that drops everything for a moment is back sooner
/// for this connection, which has few packets under way.
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

/// A socket registered with a worker's event loop.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Starts a connection to the node called `name`, with TLS where connections to nodes have it.
    ///
    /// # Errors
    /// The operating system's, where it refuses at once; `name` cannot be the name of a server.
    pub fn to_node(addr: SocketAddr, name: &str, tls: &Tls) -> io::Result<Stream> {
        let socket = mio::net::TcpStream::connect(addr)?;
        // A command must not wait for the acknowledgement of the one before.
        let _ = socket.set_nodelay(true);
        if !tls.is_upstream() {
            return Ok(Stream::Tcp(socket));
        }
        match tls.connect(socket, name) {
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

    /// TLS, if it has it.
    pub fn tls(&mut self) -> Option<&mut TlsStream> {
        match self {
            Stream::Tls(s) => Some(s),
            _ => None,
        }
    }

    /// The user's name in the certificate that a client has shown (`tls.downstream.user_from`).
    pub fn peer_name(&self) -> Option<&std::sync::Arc<str>> {
        match self {
            Stream::Tls(s) => s.peer_name(),
            _ => None,
        }
    }

    /// Bytes that it occupies beside itself.
    #[inline]
    pub fn held(&self) -> usize {
        match self {
            Stream::Tls(s) => s.held(),
            _ => 0,
        }
    }

    /// It has taken bytes that its socket has not: [`Write::flush`] goes on with them.
    #[inline]
    pub fn unsent(&self) -> bool {
        match self {
            Stream::Tls(s) => s.unsent(),
            _ => false,
        }
    }

    /// Nothing more will be written.
    pub fn shut(&mut self) {
        match self {
            Stream::Tls(s) => s.shut(),
            Stream::Tcp(s) => {
                // It is the end: if the peer is gone already, all the better.
                let _ = s.shutdown(std::net::Shutdown::Write);
            }
            Stream::Unix(_) => {}
        }
    }

    /// Watches it for reading, and for writing where `writing`: only while something waits to be
    /// written, because a Unix socket reports every byte its peer takes.
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

    /// Watches it no more.
    pub fn unwatch(&mut self, registry: &Registry) {
        // It fails only if it was not watched, which is what is wanted.
        let _ = self.source().deregister(registry);
    }

    /// The socket's peer's address and its own as CLIENT LIST writes them, which need not be those
    /// of the client ([`crate::client::Client::addresses`]): `host:port`, of a Unix socket
    /// `path:0` for both.
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

    /// What is written from now on waits (`true`) for what comes after it, or goes out. Only TCP
    /// has packets to save.
    pub fn hold_back(&self, on: bool) {
        if let Stream::Tcp(s) = self {
            // Without it the same bytes go out, in one packet more.
            let _ = SockRef::from(s).set_tcp_cork(on);
        }
    }

    /// Nothing more will be written; what was goes out together with the news of that.
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

    /// Closes the peer's way here where the system refuses what is written after that, so that the
    /// peer knows that it was not sent: for a Unix socket. What was written before can be read.
    pub fn close_input(&self) {
        if let Stream::Unix(s) = self {
            // If the peer has closed everything already, the next read says so.
            let _ = s.shutdown(Shutdown::Read);
        }
    }

    /// Something that the peer has written waits to be read in a Unix socket, which the news that
    /// nothing more will be written cannot leave together with a reply.
    pub fn has_input(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peek = |s| net::recv(s, &mut [0; 1][..], flags);
        matches!(self, Stream::Unix(s) if peek(s).is_ok_and(|(n, _)| n > 0))
    }

    /// The error that a connection attempt ended with, if it did.
    ///
    /// # Errors
    /// That error; `NotConnected` while it goes on.
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

// The system calls themselves rather than libc's functions, which are cancellation points of
// threads and pay for it with every call.

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
