//! One client connection: its session, its ordered reply queue, its unfinished request. Not here:
//! the meaning of its commands and where they go ([`crate::worker`]).

mod census;
mod cluster;
mod databases;
mod lent;
mod listing;
mod local;
mod monitor;
mod multi;
mod question;
mod replies;
mod session;
mod subscriptions;
mod tracking;
mod transfer_sizes;

pub use census::{Census, SlowReader, largest};
pub use cluster::AnnouncedNode;
pub use databases::{DatabaseTarget, Databases};
pub use lent::{Lent, Watch};
pub use listing::{Line, Traffic};
pub use local::{AfterReply, Context, answer};
pub use monitor::monitor_line;
pub use multi::{EXEC, MULTI, Multi, Place};
pub use question::{ClientKind, Filter, Grammar, Pause, Question, Selection};
pub use replies::{Delivery, Replies};
pub use session::{Library, Session, SessionModes};
pub use subscriptions::Subscriptions;
pub use transfer_sizes::TransferSizes;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::buf::Pool;
use crate::metrics::DisconnectReason;
use crate::proxy_protocol::Endpoints;
use crate::resp::{ArgRange, RequestProgress};
use crate::stream::Stream;

/// Whether and why a client is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// The client is read from.
    No,
    /// An upstream connection's queue is full; the client is among its waiters.
    Upstream,
    /// It requests large replies on an upstream connection with many reply bytes outstanding; the
    /// client is in the connection's [`crate::upstream::Turns`].
    Turn,
    /// It has many commands in a long queue: paused until half of its replies have arrived.
    Yielding,
    /// The next command must wait until there are no outstanding replies (HELLO, RESET).
    Replies,
    /// A command is in progress that must be answered before the next one is read (a blocking one,
    /// WATCH, a question to all workers).
    Command,
    /// Its PUBLISH waits for a subscription that another client requested before it.
    Subscription,
    /// The TLS handshake is in progress.
    Handshake,
    /// CLIENT PAUSE: the next command waits for its end.
    Suspended,
    /// The connection is being closed: replies are still written, commands are not read.
    Closing,
    /// The last reply and the end of the stream were sent; the client is to close its side.
    Leaving,
}

impl Paused {
    /// Whether the client will not be read from again.
    pub fn is_final(self) -> bool {
        matches!(self, Paused::Closing | Paused::Leaving)
    }
}

/// Memory accounted to each argument of a request beside its bytes: a command of a million empty
/// arguments is larger than it seems.
const ARGUMENT: usize = 2 * size_of::<ArgRange>();

/// One client. An idle one owns no buffer and takes a few hundred bytes. Times are in microseconds
/// of the worker's clock.
#[derive(Debug)]
pub struct Client {
    /// Distinguishes the clients that have had the index.
    pub generation: u32,
    /// The socket.
    pub stream: Stream,
    /// The client's own addresses, if a load balancer has announced them by the PROXY protocol.
    pub endpoints: Option<Box<Endpoints>>,
    /// Session state set by the client.
    pub session: Session,
    /// The unfinished request, or the requests that wait while the client is paused.
    pub tail: Vec<u8>,
    /// Progress of the scan of the unfinished request.
    pub progress: RequestProgress,
    /// The outstanding replies; `None` while the client is idle.
    pub replies: Option<Box<Replies>>,
    /// Statistics of its commands' and replies' sizes.
    pub transfer_sizes: TransferSizes,
    /// The commands queued since MULTI.
    pub multi: Option<Box<Multi>>,
    /// Its dedicated connections and what they are used for.
    pub lent: Option<Box<Lent>>,
    /// Its subscriptions.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// The nodes that it may have written to: bit `n` for node indexes of `n` modulo 64.
    pub wrote: u64,
    /// The client uses connections for large transfers. Changes only while no reply is outstanding.
    pub bulk: bool,
    /// Number of the reply at the head of the queue; numbers wrap around.
    pub base: u32,
    /// Whether and why it is not read from.
    pub paused: Paused,
    /// The peer will send no more; what it sent is still to be read.
    pub peer_closed: bool,
    /// Everything that it sent is read, and no more will come: closed when its replies are written.
    pub read_closed: bool,
    /// In the worker's list of clients to flush.
    pub dirty: bool,
    /// The socket is full: nothing is written until it is writable again.
    pub blocked: bool,
    /// The socket is watched for writing.
    pub watching: bool,
    /// In the worker's list of sockets with more to read.
    pub again: bool,
    /// To be disconnected for this reason once nothing is outstanding.
    pub leave_when_idle: Option<DisconnectReason>,
    /// Closed; the index becomes free at the end of the turn.
    pub gone: bool,
    /// When it last sent something.
    pub active: u64,
    /// When it connected.
    pub created: u64,
    /// Memory that the worker has accounted for, in bytes.
    pub accounted: usize,
}

impl Client {
    /// Whether it watches keys.
    pub fn has_watches(&self) -> bool {
        self.lent.as_ref().is_some_and(|lent| !lent.watches.is_empty())
    }

    /// A client that has sent nothing yet.
    pub fn new(stream: Stream, generation: u32, id: u64, now: u64) -> Self {
        Client {
            generation,
            stream,
            endpoints: None,
            session: Session::new(id),
            tail: Vec::new(),
            progress: RequestProgress::default(),
            replies: None,
            transfer_sizes: TransferSizes::default(),
            multi: None,
            lent: None,
            subscriptions: None,
            wrote: 0,
            bulk: false,
            base: 0,
            paused: Paused::No,
            peer_closed: false,
            read_closed: false,
            dirty: false,
            blocked: false,
            watching: false,
            again: false,
            leave_when_idle: None,
            gone: false,
            active: now,
            created: now,
            accounted: 0,
        }
    }

    /// The client's address and the one that it has connected to, in the format of CLIENT LIST.
    pub fn addresses(&self) -> (String, String) {
        match &self.endpoints {
            Some(ends) => (ends.client.to_string(), ends.local.to_string()),
            None => self.stream.socket_addresses(),
        }
    }

    /// The client's IP address; `None` over a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.endpoints {
            Some(ends) => Some(ends.client.ip()),
            None => self.stream.tcp().and_then(|s| s.peer_addr().ok()).map(|addr| addr.ip()),
        }
    }

    /// The address that the client has connected to; `None` over a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.endpoints {
            Some(ends) => Some(ends.local),
            None => self.stream.tcp().and_then(|s| s.local_addr().ok()),
        }
    }

    /// Memory of the buffers, in bytes.
    pub fn memory(&self) -> usize {
        crate::buf::resident(&self.tail)
            + self.progress.arguments() * ARGUMENT
            + self.stream.memory()
            + self.endpoints.as_ref().map_or(0, |ends| size_of_val(&**ends))
            + self.session.memory()
            + self.replies.as_ref().map_or(0, |r| r.memory())
            + self.multi.as_ref().map_or(0, |m| m.memory())
            + self.lent.as_ref().map_or(0, |l| l.memory())
            + self.subscriptions.as_ref().map_or(0, |s| s.memory())
    }

    /// Number of bytes of replies and pushes that the client has not taken, or that wait for
    /// earlier replies.
    pub fn output(&self) -> usize {
        self.replies.as_ref().map_or(0, |r| r.output())
    }

    /// Whether its next command may use another connection than the last: it uses those for large
    /// transfers, or is expected to.
    #[inline]
    pub fn may_change_connection(&self) -> bool {
        self.bulk || self.transfer_sizes.expected() >= TransferSizes::LARGE
    }

    /// Whether no reply is outstanding.
    pub fn is_drained(&self) -> bool {
        self.replies.as_ref().is_none_or(|r| r.is_drained())
    }

    /// Whether no reply is outstanding and all output is written.
    pub fn is_idle(&self) -> bool {
        self.replies.as_ref().is_none_or(|r| r.is_drained() && r.out.is_empty())
    }

    /// Adds an outstanding reply and returns its number.
    #[inline]
    pub fn expect(&mut self, spare: &mut Vec<Box<Replies>>) -> u32 {
        let base = self.base;
        let replies = self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default());
        base.wrapping_add(replies.expect())
    }

    /// Like [`Client::expect`], for replies that CLIENT REPLY does not mute.
    pub fn expect_heard(&mut self, spare: &mut Vec<Box<Replies>>) -> u32 {
        let base = self.base;
        let replies = self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default());
        base.wrapping_add(replies.expect_heard())
    }

    /// Completes reply `seq` with `frame`.
    #[inline]
    pub fn complete(&mut self, seq: u32, frame: &[u8], pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.complete(at, frame, pool));
        }
    }

    /// Like [`Client::complete`], for a frame with its own buffer, which is taken if it is large.
    pub fn complete_owned(&mut self, seq: u32, frame: &mut Vec<u8>, pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.complete_owned(at, frame, pool));
        }
    }

    /// Appends a piece to reply `seq`; `last` completes it.
    pub fn stream(&mut self, seq: u32, piece: &[u8], last: bool, pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.stream(at, piece, last, pool));
        }
    }

    /// Gives up the rest of reply `seq`. See [`Replies::abandon`].
    pub fn abandon(&mut self, seq: u32) -> Delivery {
        let at = seq.wrapping_sub(self.base) as usize;
        self.replies.as_mut().map_or(Delivery::Undelivered, |r| r.abandon(at))
    }

    /// Closes the connection in place of reply `seq`. See [`Replies::end`].
    pub fn end_at(&mut self, seq: u32) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            replies.end(at);
        }
    }

    /// Whether the connection can be closed: all replies before [`Client::end_at`] are written.
    pub fn is_over(&self) -> bool {
        self.replies.as_ref().is_some_and(|r| r.is_over()) && !self.stream.unsent()
    }

    /// Mutes the replies to all further commands (`true`), or stops doing so.
    pub fn mute(&mut self, on: bool, spare: &mut Vec<Box<Replies>>) {
        if on {
            self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default()).mute(true);
        } else if let Some(replies) = self.replies.as_mut() {
            replies.mute(false);
        }
    }

    /// Queues `items` push messages. See [`Replies::push`].
    pub fn push(&mut self, bytes: Bytes, items: u32, spare: &mut Vec<Box<Replies>>) {
        self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default()).push(bytes, items);
    }

    /// Whether reply `seq` has left the queue, and with it all earlier ones.
    pub fn answered_up_to(&self, seq: u32) -> bool {
        // Numbers wrap around: earlier ones are less than half the range away.
        let distance = self.base.wrapping_sub(seq);
        distance != 0 && distance <= u32::MAX / 2
    }

    /// Number of push messages that the client has not taken.
    pub fn items(&self) -> usize {
        self.replies.as_ref().map_or(0, |r| r.items())
    }

    /// Queues a reply by slotway itself behind the outstanding ones.
    pub fn answer(&mut self, frame: &[u8], pool: &mut Pool, spare: &mut Vec<Box<Replies>>) {
        let seq = self.expect(spare);
        self.complete(seq, frame, pool);
    }

    /// Like [`Client::answer`], for a frame with its own buffer, which is taken if it is large.
    pub fn answer_owned(
        &mut self,
        frame: &mut Vec<u8>,
        pool: &mut Pool,
        spare: &mut Vec<Box<Replies>>,
    ) {
        let seq = self.expect(spare);
        self.complete_owned(seq, frame, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_is_small() {
        assert!(size_of::<Client>() <= 200, "{}", size_of::<Client>());
    }

    #[test]
    fn it_is_known_how_far_it_is_answered() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(socket));
        let (mut client, mut pool, mut spare) =
            (Client::new(stream, 1, 1, 0), Pool::default(), Vec::new());
        client.base = u32::MAX - 1;
        let seqs = [(); 4].map(|()| client.expect(&mut spare));
        assert_eq!(seqs, [u32::MAX - 1, u32::MAX, 0, 1]);
        let answered = |client: &Client| seqs.map(|seq| client.answered_up_to(seq));
        client.complete(seqs[1], b"second", &mut pool);
        assert_eq!(answered(&client), [false; 4]);
        client.complete(seqs[0], b"first", &mut pool);
        client.stream(seqs[2], b"third", false, &mut pool);
        client.push(Bytes::from_static(b"message"), 1, &mut spare);
        assert_eq!(answered(&client), [true, true, false, false]);
        assert_eq!((client.items(), client.output()), (1, 23));
        client.stream(seqs[2], b"", true, &mut pool);
        client.complete(seqs[3], b"fourth", &mut pool);
        assert_eq!(answered(&client), [true; 4]);
    }
}
