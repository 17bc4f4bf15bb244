//! A non-blocking TCP socket with TLS. It reads and writes plain bytes and reports "would block" as
//! a socket without TLS does.
//!
//! Event loops rely on two properties of sockets, which hold here as well: a read that does not
//! fill its buffer has emptied the socket and all buffers, and a write that takes less than it was
//! given has filled the socket.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::net::TcpStream;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::{Connection, HandshakeKind};

use super::stats::{HandshakeOutcome, Side, TlsStats};
use super::{certificate, explain};
use crate::config::UserFrom;

/// Size of one read from the socket, bytes: four records.
const CIPHER: usize = 64 << 10;
/// Limit on plain bytes that are encrypted ahead of the socket; further ones stay in their queue.
const AHEAD: usize = 64 << 10;
/// Memory of an idle connection, bytes: rustls's state, keys, certificates, a buffer of one read.
const HELD: usize = 12 << 10;

thread_local! {
    /// The buffer of one read, which is decrypted at once.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CIPHER]);
}

/// A TCP socket with TLS. Large: kept in a box.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    conn: Connection,
    side: Side,
    /// Encrypted bytes that rustls had no room for.
    rest: Vec<u8>,
    /// How many bytes of `rest` it has taken since.
    fed: usize,
    /// The peer has sent close_notify or closed the socket.
    closed: bool,
    /// The handshake is in progress.
    shaking: bool,
    /// The handshake has exceeded its time limit.
    late: bool,
    user_from: UserFrom,
    peer_name: Option<Arc<str>>,
    stats: Arc<TlsStats>,
}

impl TlsStream {
    pub(super) fn new(
        socket: TcpStream,
        mut conn: Connection,
        side: Side,
        stats: &Arc<TlsStats>,
        user_from: UserFrom,
    ) -> Self {
        conn.set_buffer_limit(Some(AHEAD));
        TlsStream {
            socket,
            conn,
            side,
            rest: Vec::new(),
            fed: 0,
            closed: false,
            shaking: true,
            late: false,
            user_from,
            peer_name: None,
            stats: Arc::clone(stats),
        }
    }

    /// The TCP socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// The TCP socket.
    pub fn tcp_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The user name in the client's certificate (`tls.downstream.user_from`), which was verified;
    /// `None` before the end of the handshake.
    pub fn peer_name(&self) -> Option<&Arc<str>> {
        self.peer_name.as_ref()
    }

    /// Approximate memory, bytes.
    pub fn memory(&self) -> usize {
        HELD + self.rest.capacity() + if self.conn.wants_write() { AHEAD } else { 0 }
    }

    /// Whether encrypted bytes wait for the socket.
    pub fn unsent(&self) -> bool {
        self.conn.wants_write()
    }

    /// Advances the handshake as far as the socket allows. `true`: it is complete.
    ///
    /// # Errors
    /// The handshake has failed.
    pub fn handshake(&mut self) -> io::Result<bool> {
        match self.shake() {
            Ok(true) => {
                if std::mem::take(&mut self.shaking) {
                    self.stats.count(self.side, HandshakeOutcome::Ok);
                    self.peer_name = self.name_of_peer();
                    tracing::trace!(
                        resumed = self.conn.handshake_kind() == Some(HandshakeKind::Resumed),
                        version = ?self.conn.protocol_version(),
                        "TLS handshake"
                    );
                }
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                if std::mem::take(&mut self.shaking) {
                    self.stats.count(self.side, explain::outcome(&error));
                }
                Err(error)
            }
        }
    }

    /// Notes that the handshake has exceeded its time limit.
    pub fn timed_out(&mut self) {
        self.late = true;
    }

    /// The text of an error in the handshake of a client.
    pub fn why(error: &io::Error) -> String {
        explain::words(error, Side::Downstream, "")
    }

    fn shake(&mut self) -> io::Result<bool> {
        loop {
            self.push()?;
            if !self.conn.is_handshaking() {
                return Ok(true);
            }
            match self.pull(&mut [])? {
                Pulled::Some(_) => {}
                Pulled::Dry => return Ok(false),
                Pulled::End => {
                    let text = "the connection was closed during the TLS handshake";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
                }
            }
        }
    }

    fn name_of_peer(&self) -> Option<Arc<str>> {
        let cert = self.conn.peer_certificates()?.first()?;
        match self.user_from {
            UserFrom::None => None,
            UserFrom::Cn => certificate::common_name(cert).map(|name| Arc::from(&*name)),
            UserFrom::San => {
                certificate::alternative_names(cert).first().map(|name| Arc::from(&**name))
            }
        }
    }

    /// Reads plain bytes that are decrypted already.
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.conn.reader().read(buf) {
            Ok(0) => {
                self.closed = true;
                Ok(0)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Passes encrypted bytes to rustls until there are plain ones, or the handshake ends.
    fn feed(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        let shaking = self.conn.is_handshaking();
        while !bytes.is_empty() {
            if self.conn.read_tls(bytes)? == 0 {
                // Bytes after close_notify are ignored.
                *bytes = &[];
                self.closed = true;
                return Ok(());
            }
            let state = self.conn.process_new_packets().map_err(|error| {
                // Sends the alert, if the socket takes it.
                let _ = self.push();
                io::Error::new(ErrorKind::InvalidData, error)
            })?;
            if state.plaintext_bytes_to_read() > 0 || (shaking && !self.conn.is_handshaking()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Decrypts `bytes` into `buf`, as far as it has room.
    fn decrypt(&mut self, bytes: &mut &[u8], buf: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        loop {
            let shaking = self.conn.is_handshaking();
            self.feed(bytes)?;
            n += self.take(buf.get_mut(n..).unwrap_or_default())?;
            let over = shaking && !self.conn.is_handshaking();
            if bytes.is_empty() || n == buf.len() || over {
                return Ok(n);
            }
        }
    }

    /// One step of reading: bytes that rustls had no room for, or else one read of the socket.
    fn pull(&mut self, buf: &mut [u8]) -> io::Result<Pulled> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let mut bytes = rest.get(self.fed..).unwrap_or_default();
            let n = self.decrypt(&mut bytes, buf);
            self.fed = rest.len() - bytes.len();
            if !bytes.is_empty() {
                self.rest = rest;
            }
            return n.map(|n| Pulled::Some((n, false)));
        }
        // No more than `buf` has room for, except what completes a record.
        let wanted = if buf.is_empty() { CIPHER } else { buf.len().clamp(1024, CIPHER) };
        SCRATCH.with_borrow_mut(|scratch| {
            let place = scratch.get_mut(..wanted).unwrap_or_default();
            let got = match net::recv(&self.socket, &mut *place, RecvFlags::empty()) {
                Ok((0, _)) => return Ok(Pulled::End),
                Ok((got, _)) => got,
                Err(rustix::io::Errno::AGAIN) => return Ok(Pulled::Dry),
                Err(rustix::io::Errno::INTR) => return Ok(Pulled::Some((0, false))),
                Err(error) => return Err(error.into()),
            };
            let mut bytes = place.get(..got).unwrap_or_default();
            let n = self.decrypt(&mut bytes, buf)?;
            self.rest.extend_from_slice(bytes);
            self.fed = 0;
            Ok(Pulled::Some((n, got < wanted)))
        })
    }

    /// Writes encrypted bytes, as far as the socket takes them.
    fn push(&mut self) -> io::Result<()> {
        while self.conn.wants_write() {
            match self.conn.write_tls(&mut Wire(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Checks that rustls takes plain bytes: those before are written.
    fn ready_to_write(&mut self) -> io::Result<()> {
        self.push()?;
        if self.shaking || self.conn.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// Sends close_notify and shuts down the sending side.
    pub fn shut(&mut self) {
        self.conn.send_close_notify();
        // If the peer is gone, nothing is lost.
        let _ = self.push();
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// The result of one step of reading.
enum Pulled {
    /// Number of plain bytes; `true`: the socket is empty.
    Some((usize, bool)),
    /// The socket is empty.
    Dry,
    /// The peer has closed the socket.
    End,
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = self.take(buf)?;
        let end = loop {
            if n == buf.len() || self.closed {
                break Ok(n);
            }
            match self.pull(buf.get_mut(n..).unwrap_or_default()) {
                Ok(Pulled::Some((more, dry))) => {
                    n += more;
                    if dry && self.rest.is_empty() && n < buf.len() && !self.closed {
                        break Err(ErrorKind::WouldBlock.into());
                    }
                }
                Ok(Pulled::Dry) => break Err(ErrorKind::WouldBlock.into()),
                // Without close_notify, as Redis does. A truncation is noticed all the same:
                // commands and replies carry their lengths.
                Ok(Pulled::End) => {
                    self.closed = true;
                    break Ok(n);
                }
                Err(error) => break Err(error),
            }
        };
        // Messages of rustls itself: key updates.
        self.push()?;
        if n > 0 { Ok(n) } else { end }
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.ready_to_write()?;
        let n = self.conn.writer().write(buf)?;
        self.push()?;
        Ok(n)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.ready_to_write()?;
        let n = self.conn.writer().write_vectored(bufs)?;
        self.push()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if self.shaking {
            let outcome =
                if self.late { HandshakeOutcome::Timeout } else { HandshakeOutcome::Closed };
            self.stats.count(self.side, outcome);
        }
    }
}

/// The socket as rustls writes to it.
struct Wire<'a>(&'a TcpStream);

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(net::send(self.0, buf, SendFlags::NOSIGNAL)?)
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut no_ancillary = SendAncillaryBuffer::default();
        Ok(net::sendmsg(self.0, bufs, &mut no_ancillary, SendFlags::NOSIGNAL)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
