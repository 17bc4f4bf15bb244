//! TLS handshakes of the worker's connections, before the first byte that means something.
//!
//! They go on in the turns of the loop, as the sockets have something to say. A client's takes a
//! place among its worker's unfinished ones and has until `tls.downstream.handshake_timeout`; while
//! there are more than [`MANY`] of them (somebody opens connections and says nothing) those that
//! are older than [`PRESSED`] are closed.

use super::state::base;
use super::state::{Base, Clients, Core, Nodes};
use std::collections::VecDeque;
use std::io::Write;

use super::{Source, Worker};
use crate::client::Paused;
use crate::stream::Stream;
use crate::tls::TlsStream;
use crate::upstream::ConnectionEnd;

/// Unfinished handshakes of clients above which a worker has less patience.
const MANY: usize = 1024;
/// How much, microseconds.
const PRESSED: u64 = 1_000_000;

/// Clients in their handshakes, the oldest first, with those that have finished since.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Since when, microseconds; index and generation.
    queue: VecDeque<(u64, u32, u32)>,
    /// When those that have finished were last taken out.
    swept: u64,
}

impl Core {
    /// The stream of a client that connects with TLS.
    pub(super) fn secured(&self, socket: std::net::TcpStream) -> Option<Stream> {
        let socket = mio::net::TcpStream::from_std(socket);
        match self.shared.tls.accept(socket)? {
            Ok(stream) => Some(Stream::Tls(Box::new(stream))),
            Err(error) => {
                tracing::error!(%error, "a client cannot be served with TLS");
                None
            }
        }
    }
}

impl Nodes {
    /// Puts TLS on a connection to a node that is being made.
    pub(super) fn secure(&mut self, u: usize, core: &mut Core) -> Result<(), ConnectionEnd> {
        let Some(up) = self.upstreams.get_mut(u) else { return Ok(()) };
        let Some(node) = self.list.get(usize::from(up.node)) else { return Ok(()) };
        let Some(Stream::Tcp(socket)) = up.stream.take() else { return Ok(()) };
        match core.shared.tls.connect(socket, &node.name) {
            Some(Ok(tls)) => up.stream = Some(Stream::Tls(Box::new(tls))),
            Some(Err(error)) => {
                return Err(ConnectionEnd::Tls(core.shared.tls.why(&error, &node.name)));
            }
            None => return Err(ConnectionEnd::NoTls),
        }
        Ok(())
    }

    /// Why a node's connection is lost, in words.
    #[cold]
    pub(super) fn tls_why(&self, u: usize, error: &std::io::Error, core: &Core) -> ConnectionEnd {
        let up = self.upstreams.get(u);
        let node = up.and_then(|up| self.list.get(usize::from(up.node)));
        ConnectionEnd::Tls(core.shared.tls.why(error, node.map_or("", |node| &node.name)))
    }

    /// The connection is given up; a TLS handshake on it has taken too long.
    pub(super) fn end_securing(&mut self, u: usize) {
        let stream = self.upstreams.get_mut(u).and_then(|up| up.stream.as_mut());
        if let Some(tls) = stream.and_then(Stream::tls) {
            tls.timed_out();
        }
    }
}

impl Clients {
    /// The client is new, and its handshake begins.
    pub(super) fn begin_handshake(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        if client.stream.tls().is_none() || client.gone {
            return;
        }
        client.paused = Paused::Handshake;
        self.arrivals.handshakes.queue.push_back((core.now, index as u32, client.generation));
        self.account_client(index, core);
    }

    /// When the oldest handshake is looked at next.
    pub(super) fn handshake_due(&self, core: &Core) -> Option<u64> {
        let (since, ..) = self.arrivals.handshakes.queue.front()?;
        Some(since + self.handshake_patience(core))
    }

    fn handshake_patience(&self, core: &Core) -> u64 {
        let patience = core.settings.handshake_timeout;
        if self.arrivals.handshakes.queue.len() > MANY { patience.min(PRESSED) } else { patience }
    }

    /// Closes clients whose handshakes take too long.
    pub(super) fn end_slow_handshakes(&mut self, core: &mut Core) {
        if self.arrivals.handshakes.queue.len() > MANY
            && core.now >= self.arrivals.handshakes.swept + PRESSED / 10
        {
            self.arrivals.handshakes.swept = core.now;
            let clients = &self.slab;
            self.arrivals.handshakes.queue.retain(|&(_, index, generation)| {
                let client = clients.get(index as usize);
                client.is_some_and(|c| c.generation == generation && c.paused == Paused::Handshake)
            });
        }
        while self.handshake_due(core).is_some_and(|due| due <= core.now) {
            let Some((_, index, generation)) = self.arrivals.handshakes.queue.pop_front() else {
                return;
            };
            let Some(client) = self.slab.get_mut(index as usize) else { continue };
            if client.generation != generation || client.paused != Paused::Handshake {
                continue;
            }
            if let Some(tls) = client.stream.tls() {
                tls.timed_out();
            }
            self.close(index as usize, core);
        }
    }
}

impl Base<'_> {
    /// The client's handshake is over, and nothing that it has said was read. If its certificate
    /// names a user it is `client.stream.peer_name()`.
    fn client_secured(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get(index) else { return };
        if let Some(name) = client.stream.peer_name().cloned() {
            let id = client.session.id;
            let known = self.login_by_certificate(index, &name);
            tracing::debug!(client = id, %name, known, "a client's certificate names a user");
        }
        self.clients.account_client(index, self.core);
    }

    /// The handshake with a node goes on.
    #[cold]
    pub(super) fn securing(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let Some(stream) = up.stream.as_mut() else { return };
        let outcome = stream.tls().map_or(Ok(true), TlsStream::handshake);
        match outcome {
            Ok(false) => {
                let unsent = stream.unsent();
                if unsent != up.watching {
                    up.watching = unsent;
                    let token = Source::Upstream(u).token();
                    if let Err(error) =
                        stream.watch(self.core.link.poll.registry(), token, unsent, true)
                    {
                        self.core.lose(u, error.into());
                    }
                }
            }
            Ok(true) => {
                self.greet(u);
                // The node may have said something behind its handshake, and its event has been.
                let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
                if !up.again && up.stream.is_some() {
                    up.again = true;
                    self.core.turn.again.push(Source::Upstream(u));
                }
            }
            Err(error) => {
                let why = self.nodes.tls_why(u, &error, self.core);
                self.core.lose(u, why);
            }
        }
    }
}

impl Worker {
    /// The client's socket has something to say, and its handshake is not over.
    #[cold]
    pub(super) fn client_handshake(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        let Some(tls) = client.stream.tls() else { return };
        match tls.handshake() {
            Ok(true) => {
                client.paused = Paused::No;
                client.active = self.core.now;
                base!(self).client_secured(index);
                self.clients.await_login(index, &mut self.core);
                self.client_readable(index);
            }
            Ok(false) => {}
            Err(error) => {
                if self.core.shared.tls.stats().may_log() {
                    let (client, why) = (client.addresses().0, TlsStream::why(&error));
                    tracing::warn!(
                        client,
                        why,
                        "a TLS handshake has failed (further ones in the next ten seconds are only \
                         counted: slotway_tls_handshakes_total)"
                    );
                }
                return self.clients.close(index, &mut self.core);
            }
        }
        // What the socket has not taken of it.
        self.clients.mark_client(index, &mut self.core);
    }

    /// The end of the turn for a client to which something is encrypted that its socket has not
    /// taken: first that.
    #[cold]
    pub(super) fn flush_secured(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if !client.blocked && client.stream.flush().is_err() {
            return self.clients.close(index, &mut self.core);
        }
        let full = client.stream.unsent();
        client.blocked = full;
        if full != client.watching {
            client.watching = full;
            let token = Source::Client(index).token();
            if client.stream.watch(self.core.link.poll.registry(), token, full, true).is_err() {
                return self.clients.close(index, &mut self.core);
            }
        }
        if !full {
            return self.flush_client(index);
        }
        self.clients.account_client(index, &mut self.core);
        self.clients.check_output(index, &mut self.core);
    }
}
