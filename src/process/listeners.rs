//! The set of listeners of the process, which changes at run time and is closed at shutdown.
//!
//! All new addresses are bound before any is opened, so that one that cannot be bound changes
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::Socket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use super::accept::{self, Acceptor, BoundSocket, ListenAddress};
use super::error::RunError;
use super::sockets::{Ownership, SocketSource, open_shared};
use crate::admin::Admin;
use crate::config::{Address, ClientAuth, Config, Listen};
use crate::control::supervise;

/// The client listeners: one entry for each of `listen` and `tls.downstream.listen`.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
    /// Accept loops of removed entries, which empty their accept queues.
    closing: JoinSet<()>,
}

/// One configured address: several sockets where its DNS name has several addresses.
#[derive(Debug)]
struct Entry {
    address: ListenAddress,
    /// The bound addresses, with actual ports.
    bound: Vec<Listen>,
    /// Second handles to its TCP sockets, for [`Entry::sockets_with_tls`].
    sockets: Vec<BoundSocket>,
    /// Sockets that are not accepted from yet.
    unopened: Vec<BoundSocket>,
    /// Ends its accept loops.
    close: watch::Sender<bool>,
    acceptors: JoinSet<()>,
}

impl Entry {
    /// Its sockets, for another entry at the same address with TLS switched on or off.
    fn sockets_with_tls(&self, tls: bool) -> Result<Vec<BoundSocket>, RunError> {
        let all = self.sockets.iter().filter_map(BoundSocket::try_clone);
        let all: Vec<_> = all.map(|unopened| unopened.with_tls(tls)).collect();
        match all.len() == self.bound.len() {
            true => Ok(all),
            false => {
                let error = io::ErrorKind::AddrInUse.into();
                Err(RunError::bind("listen", &self.address.listen.to_string(), error))
            }
        }
    }
}

/// The set of sockets that [`Listeners::open`] opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenSet {
    /// Sockets that no other process has.
    Exclusive,
    /// All sockets.
    All,
}

/// The sockets bound for a configuration that is about to be applied.
pub type Prepared = Vec<(ListenAddress, Vec<BoundSocket>)>;

impl Listeners {
    /// Binds the addresses of `config` that are not listened on yet.
    ///
    /// # Errors
    /// An address cannot be bound; then none is.
    pub async fn prepare(
        &self,
        config: &Config,
        sockets: &mut SocketSource,
    ) -> Result<Prepared, RunError> {
        let mut prepared = Vec::new();
        let wanted = ListenAddress::all(config);
        for address in wanted.iter().cloned() {
            if self.entries.iter().any(|entry| entry.address == address) {
                continue;
            }
            // TLS is switched on or off for an address: its sockets are kept, and with them the
            // clients in their accept queues.
            let other = |entry: &&Entry| {
                entry.address.listen == address.listen && !wanted.contains(&entry.address)
            };
            let unopened = match self.entries.iter().find(other) {
                Some(entry) => entry.sockets_with_tls(address.tls)?,
                None => accept::bind(&address, sockets).await?,
            };
            prepared.push((address, unopened));
        }
        Ok(prepared)
    }

    /// Checks `protected_mode` against the bound addresses: a DNS name could not be checked before
    /// it was resolved.
    ///
    /// # Errors
    /// An address that clients on other machines reach without a login, and the remedies.
    pub(super) fn protect(&self, config: &Config, prepared: &Prepared) -> Result<(), RunError> {
        if !config.protected_mode || config.requires_login() {
            return Ok(());
        }
        // A required client certificate counts as a login.
        let shows = config.tls.downstream.client_auth == ClientAuth::Required;
        let wanted = ListenAddress::all(config);
        let stay = self.entries.iter().filter(|entry| wanted.contains(&entry.address));
        let stay = stay.flat_map(|entry| entry.bound.iter().map(|bound| (&entry.address, bound)));
        let new =
            prepared.iter().flat_map(|(address, all)| all.iter().map(move |u| (address, &u.bound)));
        let open = |(address, bound): &(&ListenAddress, &Listen)| match bound {
            _ if address.tls && shows => false,
            Listen::Tcp(bound) => bound.host.parse().is_ok_and(crate::config::is_public),
            Listen::Unix(_) => false,
        };
        match stay.chain(new).find(open) {
            Some((_, bound)) => {
                Err(RunError::Unprotected(crate::config::unprotected_reason(&bound.to_string())))
            }
            None => Ok(()),
        }
    }

    /// Adds bound sockets without opening them. Returns their addresses, with actual ports, and
    /// whether clients speak TLS there.
    pub fn add(&mut self, prepared: Prepared) -> Vec<(Listen, bool)> {
        let mut added = Vec::new();
        for (address, unopened) in prepared {
            let bound: Vec<_> = unopened.iter().map(|unopened| unopened.bound.clone()).collect();
            added.extend(bound.iter().map(|bound| (bound.clone(), address.tls)));
            let sockets = unopened.iter().filter_map(BoundSocket::try_clone).collect();
            let (close, acceptors) = (watch::Sender::new(false), JoinSet::new());
            self.entries.push(Entry { address, bound, sockets, unopened, close, acceptors });
        }
        added
    }

    /// Starts to accept from the sockets of `which` that are not open yet.
    pub fn open(&mut self, acceptor: &Acceptor, which: OpenSet) {
        for entry in &mut self.entries {
            let all = std::mem::take(&mut entry.unopened).into_iter();
            let (now, later): (Vec<_>, Vec<_>) =
                all.partition(|unopened| which == OpenSet::All || unopened.is_exclusive());
            entry.unopened = later;
            for unopened in now {
                let name = unopened.bound.to_string();
                let listener = match unopened.open() {
                    Ok(listener) => Arc::new(listener),
                    Err(error) => {
                        error!(listen = name, %error, "cannot listen");
                        continue;
                    }
                };
                let (status, acceptor) = (Arc::clone(&acceptor.status), acceptor.clone());
                let closed = entry.close.subscribe();
                let listen = entry.address.listen.clone();
                let accept = move || {
                    let (listener, listen) = (Arc::clone(&listener), listen.clone());
                    acceptor.clone().run(listener, listen, closed.clone())
                };
                entry.acceptors.spawn(supervise(name, status, accept));
            }
        }
    }

    /// Closes the listeners that are not in `wanted`. Their clients stay connected.
    pub fn retain(&mut self, wanted: &[ListenAddress]) {
        for entry in self.entries.extract_if(.., |entry| !wanted.contains(&entry.address)) {
            info!(listen = %entry.address.listen, "no more clients are accepted here");
            entry.close.send_replace(true);
            let mut acceptors = entry.acceptors;
            self.closing.spawn(async move { while acceptors.join_next().await.is_some() {} });
        }
        while self.closing.try_join_next().is_some() {}
    }

    /// Closes all listeners, and returns when the clients in their accept queues are accepted.
    pub async fn close(&mut self) {
        self.retain(&[]);
        self.wait_closed().await;
    }

    /// Waits until closed listeners have emptied their accept queues.
    pub async fn wait_closed(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }
}

/// The admin listener: several sockets where its DNS name has several addresses.
#[derive(Debug)]
pub(super) struct AdminListeners {
    address: Option<Address>,
    close: watch::Sender<bool>,
    servers: JoinSet<()>,
    /// Servers of an earlier address, which finish their requests.
    closing: JoinSet<()>,
    ownership: Ownership,
}

/// Bound sockets of the admin listener.
pub(super) type PreparedAdmin = Vec<(Socket, SocketAddr, Ownership)>;

impl AdminListeners {
    /// An admin listener without an address.
    pub fn new() -> Self {
        AdminListeners {
            address: None,
            close: watch::Sender::new(false),
            servers: JoinSet::new(),
            closing: JoinSet::new(),
            ownership: Ownership::Exclusive,
        }
    }

    /// Binds `wanted`. `None` if it is the current address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn prepare(
        &self,
        wanted: Option<&Address>,
        sockets: &mut SocketSource,
    ) -> Result<Option<PreparedAdmin>, RunError> {
        match wanted {
            wanted if wanted == self.address.as_ref() => Ok(None),
            None => Ok(Some(Vec::new())),
            Some(address) => accept::bind_tcp(address, "admin", sockets).await.map(Some),
        }
    }

    /// Serves `address` from now on, instead of the current address.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(
        &mut self,
        address: Option<Address>,
        prepared: PreparedAdmin,
        admin: &Arc<Admin>,
    ) -> io::Result<()> {
        self.close_current();
        self.address = address;
        for (socket, _, ownership) in prepared {
            self.ownership = ownership;
            if ownership == Ownership::Shared {
                open_shared(&socket)?;
            }
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            let (admin, listener) = (Arc::clone(admin), Arc::new(listener));
            let (status, closed) = (admin.status(), self.close.subscribe());
            let serve = move || Arc::clone(&admin).serve(Arc::clone(&listener), closed.clone());
            self.servers.spawn(supervise("admin".to_owned(), status, serve));
        }
        Ok(())
    }

    /// Leaves new requests to the process that has taken over, at the beginning of the drain. An
    /// exclusive socket is served to the end, so that the drain can be observed.
    pub fn hand_over(&mut self) {
        if self.ownership != Ownership::Exclusive {
            self.close_current();
        }
    }

    fn close_current(&mut self) {
        self.close.send_replace(true);
        self.close = watch::Sender::new(false);
        let mut servers = std::mem::take(&mut self.servers);
        self.closing.spawn(async move { while servers.join_next().await.is_some() {} });
        while self.closing.try_join_next().is_some() {}
    }

    /// Ends all servers, whatever they are doing.
    pub async fn shutdown(&mut self) {
        self.servers.shutdown().await;
        self.closing.shutdown().await;
    }
}
