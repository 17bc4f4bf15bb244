//! TLS handshakes of the worker's connections, before the first byte that means something.
//!
//! They go on in the turns of the loop, as the sockets have something to say. A client's takes a
//! place among its worker's unfinished ones and has until `tls.downstream.handshake_timeout`; while
//! there are more than [`MANY`] of them (somebody opens connections and says nothing) those that
//! are older than [`PRESSED`] are closed.

use crate::base::{Base, base};
use crate::client::Paused;
use crate::common::Source;
use crate::tls::TlsStream;
use crate::worker::Worker;
use std::io::Write;

impl Worker {
    /// The client's socket has something to say, and its handshake is not over.
    #[cold]
    pub(super) fn client_handshake(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        let Some(tls) = client.stream.tls() else { return };
        match tls.handshake() {
            Ok(true) => {
                client.paused = Paused::No;
                client.active = self.engine.core.now;
                base!(self.engine).client_secured(index);
                self.engine.clients.logins().set_deadline(index, &mut self.engine.core);
                self.client_readable(index);
            }
            Ok(false) => {}
            Err(error) => {
                if self.engine.core.shared.tls.stats().may_log() {
                    let (client, why) = (client.addresses().0, TlsStream::why(&error));
                    tracing::warn!(
                        client,
                        why,
                        "a TLS handshake has failed (further ones in the next ten seconds are only \
                         counted: slotway_tls_handshakes_total)"
                    );
                }
                return self.engine.clients.close(index, &mut self.engine.core);
            }
        }
        // What the socket has not taken of it.
        self.engine.clients.mark_client(index, &mut self.engine.core);
    }

    /// The end of the turn for a client to which something is encrypted that its socket has not
    /// taken: first that.
    #[cold]
    pub(super) fn flush_secured(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        if !client.blocked && client.stream.flush().is_err() {
            return self.engine.clients.close(index, &mut self.engine.core);
        }
        let full = client.stream.unsent();
        client.blocked = full;
        if full != client.watching {
            client.watching = full;
            let token = Source::Client(index).token();
            if client
                .stream
                .watch(self.engine.core.link.poll.registry(), token, full, true)
                .is_err()
            {
                return self.engine.clients.close(index, &mut self.engine.core);
            }
        }
        if !full {
            return self.flush_client(index);
        }
        self.engine.clients.memory().account(index, &mut self.engine.core);
        self.engine.clients.check_output(index, &mut self.engine.core);
    }
}
