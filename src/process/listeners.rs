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

use super::accept::{self, Acceptor, Place, Unopened};
use super::error::RunError;
use super::sockets::{Sockets, Tenure, open_shared};
use crate::admin::Admin;
use crate::config::{Address, ClientAuth, Config, Listen};
use crate::control::supervise;

/// The entries of `listen` and `tls.downstream.listen`.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
    /// Accept their last clients.
    leaving: JoinSet<()>,
}

/// One entry: several sockets where a name has several addresses.
#[derive(Debug)]
struct Entry {
    place: Place,
    /// Its sockets' addresses, ports filled in.
    bound: Vec<Listen>,
    /// The same sockets once more; not those of Unix.
    sockets: Vec<Unopened>,
    unopened: Vec<Unopened>,
    close: watch::Sender<bool>,
    acceptors: JoinSet<()>,
}

impl Entry {
    /// Its sockets, for clients with TLS or without.
    fn turned(&self, tls: bool) -> Result<Vec<Unopened>, RunError> {
        let all = self.sockets.iter().filter_map(Unopened::again);
        let all: Vec<_> = all.map(|unopened| unopened.turned(tls)).collect();
        match all.len() == self.bound.len() {
            true => Ok(all),
            false => {
                let error = io::ErrorKind::AddrInUse.into();
                Err(RunError::bind("listen", &self.place.listen.to_string(), error))
            }
        }
    }
}

/// Which sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenures {
    /// Those that nobody else has.
    Own,
    /// All.
    All,
}

/// What is bound for a configuration that is about to be used.
pub type Prepared = Vec<(Place, Vec<Unopened>)>;

impl Listeners {
    /// Binds those of `config` that are not there yet.
    ///
    /// # Errors
    /// An address cannot be had; none of them is bound then.
    pub async fn prepare(
        &self,
        config: &Config,
        sockets: &mut Sockets,
    ) -> Result<Prepared, RunError> {
        let mut prepared = Vec::new();
        let wanted = Place::all(config);
        for place in wanted.iter().cloned() {
            if self.entries.iter().any(|entry| entry.place == place) {
                continue;
            }
            // An address that was without TLS and is to be with it, or the other way round: the
            // sockets stay, and with them whoever waits to be accepted.
            let other = |entry: &&Entry| {
                entry.place.listen == place.listen && !wanted.contains(&entry.place)
            };
            let unopened = match self.entries.iter().find(other) {
                Some(entry) => entry.turned(place.tls)?,
                None => accept::bind(&place, sockets).await?,
            };
            prepared.push((place, unopened));
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
        let wanted = Place::all(config);
        let stay = self.entries.iter().filter(|entry| wanted.contains(&entry.place));
        let stay = stay.flat_map(|entry| entry.bound.iter().map(|bound| (&entry.place, bound)));
        let new =
            prepared.iter().flat_map(|(place, all)| all.iter().map(move |u| (place, &u.bound)));
        let open = |(place, bound): &(&Place, &Listen)| match bound {
            _ if place.tls && shows => false,
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
        for (place, unopened) in prepared {
            let bound: Vec<_> = unopened.iter().map(|unopened| unopened.bound.clone()).collect();
            added.extend(bound.iter().map(|bound| (bound.clone(), place.tls)));
            let sockets = unopened.iter().filter_map(Unopened::again).collect();
            let (close, acceptors) = (watch::Sender::new(false), JoinSet::new());
            self.entries.push(Entry { place, bound, sockets, unopened, close, acceptors });
        }
        added
    }

    /// Accepts from all of these that are not accepted from yet.
    pub fn open(&mut self, acceptor: &Acceptor, which: Tenures) {
        for entry in &mut self.entries {
            let all = std::mem::take(&mut entry.unopened).into_iter();
            let (now, later): (Vec<_>, Vec<_>) =
                all.partition(|unopened| which == Tenures::All || unopened.is_own());
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
                let listen = entry.place.listen.clone();
                let accept = move || {
                    let (listener, listen) = (Arc::clone(&listener), listen.clone());
                    acceptor.clone().run(listener, listen, closed.clone())
                };
                entry.acceptors.spawn(supervise(name, status, accept));
            }
        }
    }

    /// Accepts no more from what is not in `wanted`. The clients that came by it stay.
    pub fn retain(&mut self, wanted: &[Place]) {
        for entry in self.entries.extract_if(.., |entry| !wanted.contains(&entry.place)) {
            info!(listen = %entry.place.listen, "no more clients are accepted here");
            entry.close.send_replace(true);
            let mut acceptors = entry.acceptors;
            self.leaving.spawn(async move { while acceptors.join_next().await.is_some() {} });
        }
        while self.leaving.try_join_next().is_some() {}
    }

    /// Accepts who waits, and no more: when this is over nobody is left in a queue that ends.
    pub async fn close(&mut self) {
        self.retain(&[]);
        self.left().await;
    }

    /// Waits for those that accept their last clients.
    pub async fn left(&mut self) {
        while self.leaving.join_next().await.is_some() {}
    }
}

/// The admin listener's sockets.
#[derive(Debug)]
pub(super) struct AdminListeners {
    address: Option<Address>,
    close: watch::Sender<bool>,
    servers: JoinSet<()>,
    /// Serve what they have begun.
    leaving: JoinSet<()>,
    tenure: Tenure,
}

/// The same, bound.
pub(super) type PreparedAdmin = Vec<(Socket, SocketAddr, Tenure)>;

impl AdminListeners {
    /// Nowhere yet.
    pub fn new() -> Self {
        AdminListeners {
            address: None,
            close: watch::Sender::new(false),
            servers: JoinSet::new(),
            leaving: JoinSet::new(),
            tenure: Tenure::Own,
        }
    }

    /// Binds `wanted`; `None`: that is where it is.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn prepare(
        &self,
        wanted: Option<&Address>,
        sockets: &mut Sockets,
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
        self.leave();
        self.address = address;
        for (socket, _, tenure) in prepared {
            self.tenure = tenure;
            if tenure == Tenure::Shared {
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
        if self.tenure != Tenure::Own {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.close.send_replace(true);
        self.close = watch::Sender::new(false);
        let mut servers = std::mem::take(&mut self.servers);
        self.leaving.spawn(async move { while servers.join_next().await.is_some() {} });
        while self.leaving.try_join_next().is_some() {}
    }

    /// The end.
    pub async fn shutdown(&mut self) {
        self.servers.shutdown().await;
        self.leaving.shutdown().await;
    }
}
