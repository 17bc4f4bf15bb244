//! What slotway listens on: opened, added to and taken from while it runs, closed at the end.
//!
//! Everything is bound before anything is opened, so that an address that cannot be had leaves all
//! as it is.

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

/// The entries of `listen` and `tls.downstream.listen`.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
    /// Accept their last clients.
    closing: JoinSet<()>,
}

/// One entry: several sockets where a name has several addresses.
#[derive(Debug)]
struct Entry {
    address: ListenAddress,
    /// Its sockets' addresses, ports filled in.
    bound: Vec<Listen>,
    /// The same sockets once more; not those of Unix.
    sockets: Vec<BoundSocket>,
    unopened: Vec<BoundSocket>,
    close: watch::Sender<bool>,
    acceptors: JoinSet<()>,
}

impl Entry {
    /// Its sockets, for clients with TLS or without.
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

/// Which sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenSet {
    /// Those that nobody else has.
    Exclusive,
    /// All.
    All,
}

/// What is bound for a configuration that is about to be used.
pub type Prepared = Vec<(ListenAddress, Vec<BoundSocket>)>;

impl Listeners {
    /// Binds those of `config` that are not there yet.
    ///
    /// # Errors
    /// An address cannot be had; none of them is bound then.
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
            // An address that was without TLS and is to be with it, or the other way round: the
            // sockets stay, and with them whoever waits to be accepted.
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

    /// Refuses a configuration in which somebody could come from elsewhere and need not log in. A
    /// name that stands for a public address was not known to be one when it was read.
    ///
    /// # Errors
    /// The address, and the ways out.
    pub(super) fn protect(&self, config: &Config, prepared: &Prepared) -> Result<(), RunError> {
        if !config.protected_mode || config.asks_for_login() {
            return Ok(());
        }
        // Whoever has to show a certificate has shown who he is.
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
                Err(RunError::Unprotected(crate::config::unprotected(&bound.to_string())))
            }
            None => Ok(()),
        }
    }

    /// Adds what was prepared; it is not accepted from yet. Gives the addresses, ports filled in,
    /// and whether clients speak TLS there.
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

    /// Accepts from all of these that are not accepted from yet.
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

    /// Accepts no more from what is not in `wanted`. The clients that came by it stay.
    pub fn retain(&mut self, wanted: &[ListenAddress]) {
        for entry in self.entries.extract_if(.., |entry| !wanted.contains(&entry.address)) {
            info!(listen = %entry.address.listen, "no more clients are accepted here");
            entry.close.send_replace(true);
            let mut acceptors = entry.acceptors;
            self.closing.spawn(async move { while acceptors.join_next().await.is_some() {} });
        }
        while self.closing.try_join_next().is_some() {}
    }

    /// Accepts who waits, and no more: when this is over nobody is left in a queue that ends.
    pub async fn close(&mut self) {
        self.retain(&[]);
        self.wait_closed().await;
    }

    /// Waits for those that accept their last clients.
    pub async fn wait_closed(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }
}

/// The admin listener's sockets.
#[derive(Debug)]
pub(super) struct AdminListeners {
    address: Option<Address>,
    close: watch::Sender<bool>,
    servers: JoinSet<()>,
    /// Serve what they have begun.
    closing: JoinSet<()>,
    ownership: Ownership,
}

/// The same, bound.
pub(super) type PreparedAdmin = Vec<(Socket, SocketAddr, Ownership)>;

impl AdminListeners {
    /// Nowhere yet.
    pub fn new() -> Self {
        AdminListeners {
            address: None,
            close: watch::Sender::new(false),
            servers: JoinSet::new(),
            closing: JoinSet::new(),
            ownership: Ownership::Exclusive,
        }
    }

    /// Binds `wanted`; `None`: that is where it is.
    ///
    /// # Errors
    /// The address cannot be had.
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

    /// Answers at `address`, and nowhere else.
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

    /// Slotway is about to end: who comes now is to be answered by the one that has taken over.
    /// Without such a one everything is served to the end, so that the drain can be watched.
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

    /// The end.
    pub async fn shutdown(&mut self) {
        self.servers.shutdown().await;
        self.closing.shutdown().await;
    }
}
