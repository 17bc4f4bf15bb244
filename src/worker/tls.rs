//! TLS handshakes of clients, and writing to clients over TLS.
//!
//! A handshake advances in the turns of the event loop, as its socket becomes ready, and has to end
//! within `tls.downstream.handshake_timeout`. While a worker has very many unfinished handshakes
//! (somebody opens connections and sends nothing), it closes old ones earlier (`clients/tls.rs`).

use crate::base::{Base, base};
use crate::client::Paused;
use crate::common::Source;
use crate::tls::TlsStream;
use crate::worker::Worker;
use std::io::Write;

impl Worker {
    /// Continues a client's handshake when its socket is ready.
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
        // A part of the handshake may still have to be written.
        self.engine.clients.mark_client(index, &mut self.engine.core);
    }

    /// Writes to a client at the end of a turn: first the encrypted bytes that its socket has not
    /// accepted before.
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
