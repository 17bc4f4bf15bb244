//! Clients that arrive: accepted, with TLS, with an account.

use std::sync::atomic::Ordering;

use crate::base::Base;
use crate::base::users::NEXT_CLIENT;
use crate::client::{Client, SessionModes, Traffic};
use crate::common::Source;
use crate::dest::ConnId;
use crate::mailbox::{Arrival, Downstream};
use crate::sparsely;
use crate::stream::Stream;
use crate::tls::TlsStream;

impl Base<'_> {
    pub(crate) fn accept(&mut self, arrival: Arrival) {
        let stream = match arrival.socket {
            Downstream::Tcp(s) => Stream::Tcp(mio::net::TcpStream::from_std(s)),
            Downstream::Unix(s) => Stream::Unix(mio::net::UnixStream::from_std(s)),
            Downstream::Tls(s) => match self.core.shared.secured(s) {
                Some(stream) => stream,
                None => return self.core.link.uncount_client(),
            },
        };
        self.clients.arrivals.next_generation =
            self.clients.arrivals.next_generation.wrapping_add(1);
        let id = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(stream, self.clients.arrivals.next_generation, id, self.core.now);
        let entry = self.clients.slab.vacant_entry();
        let index = entry.key();
        self.core.shared.clients.fetch_add(1, Ordering::Relaxed);
        if self.clients.arrivals.traffic.len() <= index {
            self.clients.arrivals.traffic.resize(index + 1, Traffic::default());
        }
        if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
            *traffic = Traffic::default();
        }
        let client = entry.insert(client);
        client.endpoints = arrival.endpoints.map(Box::new);
        if let Some(upstream) = arrival.upstream {
            client.session.bind(upstream);
        }
        if self.core.settings.reads_elsewhere() {
            client.session.reads_by_configuration();
        }
        if self.clients.stop.pause.is_some() {
            client.session.modes.insert(SessionModes::SUSPENDED);
        }
        if !self.access.users.is_open() {
            self.begin_account(index);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        let token = Source::Client(index).token();
        self.core.stats.clients_accepted += 1;
        self.core.shared.pending_subscriptions.expect(self.core.now);
        if let Err(error) = client.stream.watch(self.core.link.poll.registry(), token, false, false)
        {
            sparsely!(self.core.lines.closed, warn, %error, "a client's socket cannot be watched");
            self.clients.close(index, self.core);
        } else if self.clients.stop.drain.is_some_and(|drain| !drain.is_polite()) {
            self.clients.stop_reading(index, self.core);
        } else {
            self.clients.begin_handshake(index, self.core);
        }
    }

    /// The client's handshake is over, and nothing that it has said was read. If its certificate
    /// names a user it is `client.stream.peer_name()`.
    pub(crate) fn client_secured(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get(index) else { return };
        if let Some(name) = client.stream.peer_name().cloned() {
            let id = client.session.id;
            let known = self.login_by_certificate(index, &name);
            tracing::debug!(client = id, %name, known, "a client's certificate names a user");
        }
        self.clients.memory().account(index, self.core);
    }

    /// The handshake with a node goes on.
    #[cold]
    pub(crate) fn securing(&mut self, conn: ConnId) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let Some(stream) = up.stream.as_mut() else { return };
        let outcome = stream.tls().map_or(Ok(true), TlsStream::handshake);
        match outcome {
            Ok(false) => {
                let unsent = stream.unsent();
                if unsent != up.watching {
                    up.watching = unsent;
                    let token = Source::Upstream(conn).token();
                    if let Err(error) =
                        stream.watch(self.core.link.poll.registry(), token, unsent, true)
                    {
                        self.core.lose(conn, error.into());
                    }
                }
            }
            Ok(true) => {
                self.greet(conn);
                // The node may have said something behind its handshake, and its event has been.
                let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
                if !up.again && up.stream.is_some() {
                    up.again = true;
                    self.core.turn.again.push(Source::Upstream(conn));
                }
            }
            Err(error) => {
                let why = self.nodes.connections().tls_why(conn, &error, self.core);
                self.core.lose(conn, why);
            }
        }
    }
}
