//! One downstream connection: its session, its ordered reply queue, its unfinished request.
//! Not here: what its commands mean and where they go ([`crate::worker`]).

mod census;
mod cluster;
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

pub use census::{Census, Notable, largest};
pub use cluster::Announced;
pub use lent::{Lent, Watch};
pub use listing::{Line, Traffic};
pub use local::{After, Context, answer};
pub use monitor::monitor_line;
pub use multi::{EXEC, MULTI, Multi, Place};
pub use question::{ClientKind, Filter, Grammar, Pause, Question, Selection};
pub use replies::{Outcome, Replies};
pub use session::{Library, Session, mode};
pub use subscriptions::Subscriptions;
pub use transfer_sizes::TransferSizes;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::buf::Pool;
use crate::metrics::DisconnectReason;
use crate::proxy_protocol::Endpoints;
use crate::resp::{ArgRange, RequestProgress};
use crate::stream::Stream;

/// Why a client is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// It is read from.
    No,
    /// An upstream connection is full; it has the client in its list of waiters.
    Upstream,
    /// It asks for large replies on an upstream connection that has many bytes of replies under way;
    /// the connection has the client in its [`crate::upstream::Turns`].
    Turn,
    /// It has much under way before a long queue: until half of what it is owed is there.
    Yielding,
    /// The next command must wait until all replies are there (HELLO, RESET).
    Replies,
    /// A command is under way that must be answered before the next one is read (a blocking one,
    /// WATCH, what is asked of all workers).
    Command,
    /// Its PUBLISH waits for a subscription that another client asked for before it.
    Subscription,
    /// Its TLS handshake is not over: it has said nothing yet.
    Handshake,
    /// CLIENT PAUSE: its next command waits for the end of it.
    Suspended,
    /// Its connection is being closed: replies still go out, commands are not read.
    Closing,
    /// It has had its last reply and the end of the connection with it, and is to close its side.
    Leaving,
}

impl Paused {
    /// It is not read from any more.
    pub fn is_final(self) -> bool {
        matches!(self, Paused::Closing | Paused::Leaving)
    }
}

/// What an argument of a request costs beside its bytes when the request is complete: a command of
/// a million empty arguments is larger than it seems.
const ARGUMENT: usize = 2 * size_of::<ArgRange>();

/// One client. An idle one owns no buffer: a few hundred bytes in all.
#[derive(Debug)]
pub struct Client {
    /// Tells it from others that had its index.
    pub generation: u32,
    /// The socket.
    pub stream: Stream,
    /// The client's own connection, where a load balancer has named it by the PROXY protocol.
    pub endpoints: Option<Box<Endpoints>>,
    /// What the client said of itself.
    pub session: Session,
    /// The unfinished request, or those that wait while it is paused.
    pub tail: Vec<u8>,
    /// How far the unfinished request was scanned.
    pub progress: RequestProgress,
    /// The replies under way; none while it is idle.
    pub replies: Option<Box<Replies>>,
    /// How large its commands and replies are.
    pub transfer_sizes: TransferSizes,
    /// What it has queued since MULTI.
    pub multi: Option<Box<Multi>>,
    /// The connections that it has been lent, and what for.
    pub lent: Option<Box<Lent>>,
    /// What it is subscribed to.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// The nodes that it may have written to: bit 0 to 63 is the worker's index of the node,
    /// modulo 64.
    pub wrote: u64,
    /// It uses the nodes' connections for large transfers. Changes only while no reply is owed.
    pub bulk: bool,
    /// Number of the next reply to be written; numbers wrap around.
    pub base: u32,
    /// Why it is not read from.
    pub paused: Paused,
    /// The socket said that the peer will send no more; what it sent is still to be read.
    pub peer_closed: bool,
    /// It has sent all it will, and that is read: closed when its replies are written.
    pub read_closed: bool,
    /// Stands in the worker's list of clients to flush.
    pub dirty: bool,
    /// The socket is full: nothing is written until it says otherwise.
    pub blocked: bool,
    /// The socket is watched for writing.
    pub watching: bool,
    /// Stands in the worker's list of sockets that have more to read.
    pub again: bool,
    /// It is to leave as soon as nothing of it is outstanding.
    pub leaves_for: Option<DisconnectReason>,
    /// It is closed; its index is free at the end of the turn.
    pub gone: bool,
    /// When it last sent something, in microseconds of the worker's clock.
    pub active: u64,
    /// When it connected, on the same clock.
    pub created: u64,
    /// Bytes that the worker has put on its account.
    pub accounted: usize,
}

impl Client {
    /// A client that has said nothing yet.
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
            leaves_for: None,
            gone: false,
            active: now,
            created: now,
            accounted: 0,
        }
    }

    /// The client's address and the one that it has connected to, as CLIENT LIST writes them.
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

    /// Bytes that its buffers occupy.
    pub fn held(&self) -> usize {
        crate::buf::resident(&self.tail)
            + self.progress.arguments() * ARGUMENT
            + self.stream.held()
            + self.endpoints.as_ref().map_or(0, |ends| size_of_val(&**ends))
            + self.session.held()
            + self.replies.as_ref().map_or(0, |r| r.held())
            + self.multi.as_ref().map_or(0, |m| m.held())
            + self.lent.as_ref().map_or(0, |l| l.held())
            + self.subscriptions.as_ref().map_or(0, |s| s.held())
    }

    /// Bytes of replies and pushes that it has not taken, or that wait for their turn.
    pub fn output(&self) -> usize {
        self.replies.as_ref().map_or(0, |r| r.output())
    }

    /// It uses the connections for large transfers, or its next command may be for them.
    #[inline]
    pub fn may_change_connection(&self) -> bool {
        self.bulk || self.transfer_sizes.expected() >= TransferSizes::LARGE
    }

    /// No reply is owed.
    pub fn is_drained(&self) -> bool {
        self.replies.as_ref().is_none_or(|r| r.is_drained())
    }

    /// Nothing is owed and nothing is left to write.
    pub fn is_idle(&self) -> bool {
        self.replies.as_ref().is_none_or(|r| r.is_drained() && r.out.is_empty())
    }

    /// One more reply is owed; gives its number.
    #[inline]
    pub fn expect(&mut self, spare: &mut Vec<Box<Replies>>) -> u32 {
        let base = self.base;
        let replies = self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default());
        base.wrapping_add(replies.expect())
    }

    /// The same for what CLIENT REPLY does not silence.
    pub fn expect_heard(&mut self, spare: &mut Vec<Box<Replies>>) -> u32 {
        let base = self.base;
        let replies = self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default());
        base.wrapping_add(replies.expect_heard())
    }

    /// Reply `seq` is `frame`.
    #[inline]
    pub fn complete(&mut self, seq: u32, frame: &[u8], pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.complete(at, frame, pool));
        }
    }

    /// The same for a reply that has a buffer of its own: a large one is taken out of it.
    pub fn complete_owned(&mut self, seq: u32, frame: &mut Vec<u8>, pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.complete_owned(at, frame, pool));
        }
    }

    /// A piece of reply `seq`; with `last` it is complete.
    pub fn stream(&mut self, seq: u32, piece: &[u8], last: bool, pool: &mut Pool) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            self.base = self.base.wrapping_add(replies.stream(at, piece, last, pool));
        }
    }

    /// The rest of reply `seq` will not come. See [`Replies::abandon`].
    pub fn abandon(&mut self, seq: u32) -> Outcome {
        let at = seq.wrapping_sub(self.base) as usize;
        self.replies.as_mut().map_or(Outcome::Undelivered, |r| r.abandon(at))
    }

    /// The connection is closed in place of reply `seq`. See [`Replies::end`].
    pub fn end_at(&mut self, seq: u32) {
        let at = seq.wrapping_sub(self.base) as usize;
        if let Some(replies) = self.replies.as_mut() {
            replies.end(at);
        }
    }

    /// All that comes before the end is written: the connection can be closed.
    pub fn is_over(&self) -> bool {
        self.replies.as_ref().is_some_and(|r| r.is_over()) && !self.stream.unsent()
    }

    /// The replies to the commands that come from here on are dropped (`true`), or given again.
    pub fn mute(&mut self, on: bool, spare: &mut Vec<Box<Replies>>) {
        if on {
            self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default()).mute(true);
        } else if let Some(replies) = self.replies.as_mut() {
            replies.mute(false);
        }
    }

    /// What is not a reply, `items` messages. See [`Replies::push`].
    pub fn push(&mut self, bytes: Bytes, items: u32, spare: &mut Vec<Box<Replies>>) {
        self.replies.get_or_insert_with(|| spare.pop().unwrap_or_default()).push(bytes, items);
    }

    /// Reply `seq` and all before it have gone out, as far as the socket takes them.
    pub fn answered_up_to(&self, seq: u32) -> bool {
        // Numbers wrap around, so that what is behind is less than half of them away.
        let distance = self.base.wrapping_sub(seq);
        distance != 0 && distance <= u32::MAX / 2
    }

    /// Messages in pushes that it has not taken.
    pub fn items(&self) -> usize {
        self.replies.as_ref().map_or(0, |r| r.items())
    }

    /// A reply of slotway's own, behind all that are owed.
    pub fn answer(&mut self, frame: &[u8], pool: &mut Pool, spare: &mut Vec<Box<Replies>>) {
        let seq = self.expect(spare);
        self.complete(seq, frame, pool);
    }

    /// The same for a reply that has a buffer of its own: a large one is taken out of it.
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
