//! Clients that WATCH keys.

use crate::client::Watch;
use crate::clients::Clients;
use crate::cluster::Slot;
use crate::common::Core;
use crate::dest::{ClientId, ConnId};
use crate::hash::fingerprint;
use crate::nodes::Nodes;
use crate::resp::{Args, Protocol, RequestProgress, scan_request, write};

const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

/// The keys that clients watch, each on a connection that is lent for that.
pub(crate) struct Watches<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The keys that clients watch.
    pub(crate) fn watches(&mut self) -> Watches<'_> {
        Watches { clients: self }
    }
}

impl Watches<'_> {
    /// The client has changed its protocol: EXEC's reply will come from where it watches.
    pub(crate) fn follow_protocol(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let protocol = client.session.protocol;
        let Some(lent) = client.lent.as_ref() else { return };
        let all: Vec<ConnId> = lent.watches.iter().filter_map(|w| w.upstream).collect();
        let version: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
        let mut hello = Vec::new();
        write::request(&mut hello, &[b"HELLO", version]);
        for conn in all {
            nodes.discard(conn, &hello, core);
            if let Some(up) = nodes.upstreams.get_mut(conn) {
                up.protocol = protocol;
            }
        }
    }

    /// The client watches nothing any more.
    pub(crate) fn end(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(lent) = self.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut()) else {
            return;
        };
        let watches = std::mem::take(&mut lent.watches);
        for conn in watches.into_iter().filter_map(|w| w.upstream) {
            nodes.discard(conn, UNWATCH, core);
            self.clients.lending().give_back(conn, nodes, core);
        }
        self.clients.lending().forget(index);
    }

    /// The connections that watched have their EXEC, or need none: the client watches no more.
    pub(crate) fn end_with_exec(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(lent) = self.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut()) else {
            return;
        };
        let watches = std::mem::take(&mut lent.watches);
        for conn in watches.into_iter().filter_map(|w| w.upstream) {
            let busy = nodes.upstreams.get(conn).is_some_and(|up| !up.pending.is_empty());
            if !busy {
                nodes.discard(conn, UNWATCH, core);
                self.clients.lending().give_back(conn, nodes, core);
            }
        }
        self.clients.lending().forget(index);
    }

    /// Connection `conn` watches what the client's WATCH names.
    pub(crate) fn note(&mut self, client: ClientId, conn: ConnId, slot: Slot, core: &mut Core) {
        let mut ranges = Vec::new();
        let limits = core.settings.accepted;
        self.clients.lending().lent_of(client, |lent| {
            // WATCH's arguments; it was scanned before.
            let frame = lent.errand.as_ref().map_or(&[][..], |errand| errand.frame.as_slice());
            let _ = scan_request(frame, &limits, &mut RequestProgress::default(), &mut ranges);
            let args = Args::new(frame, &ranges);
            let hashes = args.iter().skip(1).map(fingerprint);
            if let Some(watch) = lent.watches.iter_mut().find(|w| w.upstream == Some(conn)) {
                return watch.keys.extend(hashes);
            }
            let key = args.get(1).map(Box::from).unwrap_or_default();
            let asking = lent.errand.as_ref().is_some_and(|errand| errand.asking);
            let keys = hashes.collect();
            lent.watches.push(Watch { slot, key, keys, asking, upstream: Some(conn) });
        });
    }

    /// Whether the client watches keys on connection `conn`.
    pub(crate) fn has(&self, client: ClientId, conn: ConnId) -> bool {
        let c = self.clients.slab.get(client.at()).filter(|c| c.generation == client.generation);
        let lent = c.and_then(|c| c.lent.as_ref());
        lent.is_some_and(|l| l.watches.iter().any(|w| w.upstream == Some(conn)))
    }
}
