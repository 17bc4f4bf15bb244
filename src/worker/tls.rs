//! TLS handshakes of the worker's connections, before the first byte that means something.
//!
//! They go on in the turns of the loop, as the sockets have something to say. A client's takes a
//! place among its worker's unfinished ones and has until `tls.downstream.handshake_timeout`; while
//! there are more than [`MANY`] of them (somebody opens connections and says nothing) those that
//! are older than [`PRESSED`] are closed.

use std::io::Write;

use crate::base::{Base, base};
use crate::client::Paused;
use crate::common::Source;
use crate::tls::TlsStream;
use crate::worker::Worker;

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
                self.clients.logins().set_deadline(index, &mut self.core);
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
        self.clients.memory().account(index, &mut self.core);
        self.clients.check_output(index, &mut self.core);
    }
}
