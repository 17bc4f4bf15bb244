//! A non-blocking TCP socket with TLS: reads and writes plain bytes, and tells "would block" as a
//! plain one does.
//!
//! What the event loops rely on holds here, too: a read that does not fill the buffer has emptied
//! the socket and everything behind it, and a write that takes less than it was given has filled
//! the socket.

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

/// Bytes that one read asks of the socket: four records.
const CIPHER: usize = 64 << 10;
/// Plain bytes that are encrypted before the socket has taken those before. The next ones wait
/// where they are.
const AHEAD: usize = 64 << 10;
/// What an idle connection occupies: rustls's state, keys, certificates, its buffer of one read.
const HELD: usize = 12 << 10;

thread_local! {
    /// What was read from a socket and is decrypted at once.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CIPHER]);
}

/// See the module. Large: it stands in a box.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    conn: Connection,
    side: Side,
    /// Bytes from the socket for which there was no room, and how many of them are done with.
    rest: Vec<u8>,
    fed: usize,
    /// The other side said that it has said everything.
    closed: bool,
    /// The handshake goes on.
    shaking: bool,
    /// What the handshake's failure was, if the end of the connection does not say it.
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

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket below.
    pub fn tcp_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The name in the client's certificate that `tls.downstream.user_from` asks for. Known when
    /// the handshake is over; the certificate was checked.
    pub fn peer_name(&self) -> Option<&Arc<str>> {
        self.peer_name.as_ref()
    }

    /// Bytes that it occupies, about.
    pub fn held(&self) -> usize {
        HELD + self.rest.capacity() + if self.conn.wants_write() { AHEAD } else { 0 }
    }

    /// Something is encrypted that the socket has not taken.
    pub fn unsent(&self) -> bool {
        self.conn.wants_write()
    }

    /// Goes on with the handshake as far as possible. `true`: it is over.
    ///
    /// # Errors
    /// It has failed.
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

    /// The handshake has taken too long.
    pub fn timed_out(&mut self) {
        self.late = true;
    }

    /// Why the handshake of a client has failed, in words.
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

    /// Plain bytes that are there already.
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

    /// Gives bytes of the socket to rustls until plain ones come of it, or the handshake ends.
    fn feed(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        let shaking = self.conn.is_handshaking();
        while !bytes.is_empty() {
            if self.conn.read_tls(bytes)? == 0 {
                // After the other side's last word nothing counts.
                *bytes = &[];
                self.closed = true;
                return Ok(());
            }
            let state = self.conn.process_new_packets().map_err(|error| {
                // The alert, as far as the socket takes it.
                let _ = self.push();
                io::Error::new(ErrorKind::InvalidData, error)
            })?;
            if state.plaintext_bytes_to_read() > 0 || (shaking && !self.conn.is_handshaking()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives `bytes` to rustls and takes what comes of them, as far as `buf` has room.
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

    /// Once: what waits, or one read of the socket.
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
        // No more than there is room for, but for what rustls has half of.
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

    /// Writes what is encrypted, as far as the socket takes it.
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

    /// Room for more plain bytes.
    fn ready_to_write(&mut self) -> io::Result<()> {
        self.push()?;
        if self.shaking || self.conn.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// Says that nothing more will be said.
    pub fn shut(&mut self) {
        self.conn.send_close_notify();
        // It is the end: if it does not get through, it does not.
        let _ = self.push();
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// What came of one step of reading.
enum Pulled {
    /// So many plain bytes; `true`: the socket is empty.
    Some((usize, bool)),
    /// The socket is empty.
    Dry,
    /// The other side has closed.
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
                // Without a farewell, as Redis ends its connections, too. What a reply or a
                // command is says by itself where it ends.
                Ok(Pulled::End) => {
                    self.closed = true;
                    break Ok(n);
                }
                Err(error) => break Err(error),
            }
        };
        // Answers of rustls's own: new keys.
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

/// The socket, for rustls to write to.
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
