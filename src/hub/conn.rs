//! One connection of the hub to a node: socket, handshake, unsent commands, unfinished frame.
//!
//! Frames are found in the buffer of the read, which all connections share: messages are copied
//! only where a frame is cut.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mio::{Registry, Token};

use crate::buf::{CHUNK, Pool, SendQueue};
use crate::cluster::UpstreamId;
use crate::config::Upstream;
use crate::pubsub::HubStats;
use crate::resp::{Protocol, ReplyProgress, ReplyScan, write};
use crate::stream::Stream;
use crate::tls::Tls;
use crate::upstream::{ConnectionEnd, Handshake};

/// Silence after which a PING is sent, microseconds.
const PING_AFTER: u64 = 1_000_000;
/// Time after which a connection without topics is closed, microseconds.
const CLOSE_UNUSED_AFTER: u64 = 30_000_000;

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnState {
    /// TCP is connecting.
    Connecting,
    /// The TLS handshake is in progress.
    Securing,
    /// The handshake's replies are awaited.
    Handshake,
    /// Commands are accepted.
    Ready,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Conn {
    pub state: ConnState,
    stream: Stream,
    token: Token,
    /// Deadline of the attempt, microseconds.
    until: u64,
    pub handshake: Handshake,
    queue: SendQueue,
    /// Bytes of an unfinished frame.
    tail: Vec<u8>,
    /// How many of them are scanned.
    scanned: usize,
    scan: ReplyScan,
    /// The socket may have bytes to read.
    pub(super) readable: bool,
    /// The node has shut down its side; bytes sent before may be unread.
    peer_closed: bool,
    /// The socket is full.
    blocked: bool,
    /// The socket is watched for writing.
    watching: bool,
    /// When bytes were last received, microseconds.
    last_read: u64,
    /// When the PING was sent that is not answered yet, microseconds.
    pinged: Option<u64>,
    unused_since: Option<u64>,
    /// Accounts for the memory of `tail`.
    account: Account,
}

/// One connection's share of memory counters; taken off them when dropped.
#[derive(Debug)]
struct Account {
    total: Arc<AtomicUsize>,
    unfinished: Arc<AtomicUsize>,
    mine: usize,
}

impl Account {
    /// Replaces the share and returns the new total.
    fn set(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.mine, bytes);
        self.unfinished.fetch_add(bytes, Relaxed);
        self.unfinished.fetch_sub(before, Relaxed);
        self.total.fetch_add(bytes, Relaxed);
        self.total.fetch_sub(before, Relaxed).saturating_sub(before)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.total.fetch_sub(self.mine, Relaxed);
        self.unfinished.fetch_sub(self.mine, Relaxed);
    }
}

/// Why reading has ended the connection.
#[derive(Debug)]
pub enum ReadError {
    /// An error of the socket or of TLS.
    Socket(io::Error),
    /// The node closed the connection or violated the protocol, or a limit is exceeded.
    Talk(ConnectionEnd),
}

/// What is due on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing until this time, microseconds.
    Not(u64),
    /// A PING.
    Ping,
    /// Closing: no topic needs the connection.
    Unused,
    /// Closing: the node does not answer, for this reason.
    Silent(&'static str),
}

impl Conn {
    /// Starts a connection attempt to the node called `name`.
    ///
    /// # Errors
    /// [`Stream::to_node`]'s, or the event loop's.
    pub fn connect(
        (addr, name, upstream, tls): (SocketAddr, &str, UpstreamId, &Tls),
        registry: &Registry,
        token: Token,
        until: u64,
        stats: &HubStats,
    ) -> io::Result<Conn> {
        let mut stream = Stream::to_node(addr, name, upstream, tls)?;
        stream.watch(registry, token, true, false)?;
        Ok(Conn {
            state: ConnState::Connecting,
            stream,
            token,
            until,
            handshake: Handshake::default(),
            queue: SendQueue::default(),
            tail: Vec::new(),
            scanned: 0,
            scan: ReplyScan::default(),
            readable: false,
            peer_closed: false,
            blocked: false,
            watching: false,
            last_read: 0,
            pinged: None,
            unused_since: None,
            account: Account {
                total: Arc::clone(&stats.held),
                unfinished: Arc::clone(&stats.unfinished),
                mine: 0,
            },
        })
    }

    /// Handles an event of the socket. `true`: the connection is made, TLS included, and the
    /// handshake can begin.
    ///
    /// # Errors
    /// The attempt has failed.
    pub fn event(&mut self, event: &mio::event::Event, registry: &Registry) -> io::Result<bool> {
        if self.state == ConnState::Connecting {
            match self.stream.connected() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
            self.stream.watch(registry, self.token, false, true)?;
            self.state = ConnState::Securing;
        }
        if self.state == ConnState::Securing {
            if let Some(tls) = self.stream.tls()
                && !tls.handshake()?
            {
                self.wait_to_write(registry)?;
                return Ok(false);
            }
            self.state = ConnState::Handshake;
            self.readable = true;
            return Ok(true);
        }
        self.peer_closed |= event.is_read_closed();
        self.blocked &= !event.is_writable();
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        Ok(false)
    }

    /// Watches the socket for writing while bytes wait to be written.
    fn wait_to_write(&mut self, registry: &Registry) -> io::Result<()> {
        let unsent = match self.state {
            ConnState::Connecting | ConnState::Securing => 0,
            ConnState::Handshake => self.handshake.out.unsent(),
            ConnState::Ready => self.queue.unsent(),
        };
        self.blocked = unsent > 0 || self.stream.unsent();
        if self.blocked != self.watching {
            self.watching = self.blocked;
            self.stream.watch(registry, self.token, self.blocked, true)?;
        }
        Ok(())
    }

    /// Begins the handshake. `node` is the ID that the node must have.
    pub(super) fn begin_handshake(&mut self, config: &Upstream, node: &str) {
        let (user, password) = (config.user.as_bytes(), config.password.reveal());
        let (credentials, name) = ((user, password.as_bytes()), &*config.client_name);
        self.handshake = Handshake::new(Protocol::Resp3, credentials, name, false);
        self.handshake.expect_node(node);
    }

    /// Marks the connection as ready.
    pub fn ready(&mut self, now: u64) {
        self.state = ConnState::Ready;
        self.last_read = now;
    }

    /// Queues a command, to be written at the end of the turn.
    pub fn push_command(&mut self, args: &[&[u8]], line: &mut Vec<u8>, pool: &mut Pool) {
        line.clear();
        write::request(line, args);
        self.queue.push(line, pool);
    }

    /// Notes that a PING is sent now.
    pub fn ping(&mut self, now: u64) {
        self.pinged = Some(now);
    }

    /// Writes queued commands.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self, registry: &Registry, pool: &mut Pool) -> io::Result<()> {
        let out = match self.state {
            ConnState::Connecting | ConnState::Securing => return Ok(()),
            ConnState::Handshake => &mut self.handshake.out,
            ConnState::Ready => &mut self.queue,
        };
        if self.blocked || (out.unsent() == 0 && !self.watching && !self.stream.unsent()) {
            return Ok(());
        }
        self.stream.flush()?;
        out.write_to(&mut self.stream)?;
        out.release_sent(pool);
        self.wait_to_write(registry)
    }

    /// Reads once into `scratch` and passes the bytes, an unfinished frame before them included, to
    /// `take`, which returns the length of the complete frames. An unfinished frame may grow while
    /// the account is within `limit` bytes. Returns how many bytes were read.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        now: u64,
        limit: usize,
        take: impl FnOnce(&mut Conn, &[u8]) -> Result<usize, ConnectionEnd>,
    ) -> Result<usize, ReadError> {
        // A short unfinished frame is copied to the front of the buffer; to a long one the read is
        // appended.
        let append = self.tail.len() > scratch.len() / 2;
        let front = if append { 0 } else { self.tail.len() };
        if let (Some(place), Some(tail)) = (scratch.get_mut(..front), self.tail.get(..front)) {
            place.copy_from_slice(tail);
        }
        let room = scratch.len() - front;
        let n = match self.stream.read(scratch.get_mut(front..).unwrap_or_default()) {
            Ok(0) => return Err(ReadError::Talk(ConnectionEnd::Closed)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(0);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(ReadError::Socket(error)),
        };
        self.last_read = now;
        self.pinged = None;
        self.readable = n == room || self.peer_closed;
        let got = scratch.get(..front + n).unwrap_or_default();
        if append {
            let mut tail = std::mem::take(&mut self.tail);
            tail.extend_from_slice(got);
            let used = take(self, &tail).map_err(ReadError::Talk)?;
            if used > 0 {
                tail = tail.get(used..).unwrap_or_default().to_vec();
            }
            self.tail = tail;
        } else {
            let used = take(self, got).map_err(ReadError::Talk)?;
            let rest = got.get(used..).unwrap_or_default();
            if rest.is_empty() && self.tail.capacity() > CHUNK {
                self.tail = Vec::new();
            }
            self.tail.clear();
            self.tail.extend_from_slice(rest);
        }
        let long = if self.tail.capacity() > CHUNK { self.tail.capacity() } else { 0 };
        if long != self.account.mine && self.account.set(long) > limit && long > 0 {
            return Err(ReadError::Talk(ConnectionEnd::MessageTooLarge));
        }
        Ok(n)
    }

    /// The end of the frame that begins at `start` in `buf`; `None` if it is unfinished. The next
    /// call resumes the scan, so that a frame is scanned once however many reads it takes.
    ///
    /// # Errors
    /// The bytes are not RESP.
    #[inline]
    pub(super) fn frame_end(
        &mut self,
        buf: &[u8],
        start: usize,
    ) -> Result<Option<usize>, ConnectionEnd> {
        let at = start + self.scanned;
        let rest = buf.get(at..).unwrap_or_default();
        match self.scan.advance(rest)? {
            ReplyProgress::Complete(n) => {
                self.scanned = 0;
                Ok(Some(at + n))
            }
            ReplyProgress::Partial(n) => {
                self.scanned += n;
                Ok(None)
            }
        }
    }

    /// Notes that the connection was not read on purpose, so that its silence means nothing.
    pub(super) fn held_back(&mut self, now: u64) {
        self.last_read = now;
        self.pinged = None;
    }

    /// What is due at `now`. `used`: topics are, or should be, subscribed here; `timeout` is
    /// `timeouts.connect`, microseconds.
    pub fn due(&mut self, now: u64, used: bool, timeout: u64) -> Due {
        if self.state != ConnState::Ready {
            return match now < self.until {
                true => Due::Not(self.until),
                false => {
                    if let Some(tls) = self.stream.tls() {
                        tls.timed_out();
                    }
                    Due::Silent("no answer within timeouts.connect")
                }
            };
        }
        self.unused_since = if used { None } else { self.unused_since.or(Some(now)) };
        let unused = self.unused_since.map_or(u64::MAX, |since| since + CLOSE_UNUSED_AFTER);
        if unused <= now {
            return Due::Unused;
        }
        let next = match self.pinged {
            // A large message may arrive before the answer: only silence counts.
            Some(at) => match at.max(self.last_read) + timeout {
                until if until <= now => {
                    return Due::Silent("no answer to PING within timeouts.connect");
                }
                until => until,
            },
            None if self.last_read + PING_AFTER <= now => return Due::Ping,
            None => self.last_read + PING_AFTER,
        };
        Due::Not(next.min(unused))
    }

    /// Closes the connection and returns its buffers.
    pub fn close(mut self, registry: &Registry, pool: &mut Pool) {
        self.stream.unwatch(registry);
        self.queue.clear(pool);
        self.handshake.out.clear(pool);
    }
}
