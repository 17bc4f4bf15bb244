//! The values of `listen` and `tls.downstream.listen`: addresses, each with the upstream of its
//! clients where that is not the first.

use super::raw::Raw;
use super::upstream_name::is_name;
use super::value::{parse_address, parse_listen};
use super::{Address, Config, Listen};

/// What to write for a list of addresses.
pub(super) const ADDRESSES: &str =
    "a list of strings such as [\"10.0.0.1:7000\", \"10.0.0.2:7000\"]";
/// What to write for a listener with an upstream.
const EXAMPLE: &str = "{ at = \"127.0.0.1:6380\", upstream = \"queues\" }";

/// An address of clients, with TLS or without.
pub(super) trait ListenAddress: Clone {
    /// Parses it.
    fn parse(text: &str) -> Result<Self, String>;
    /// The address as one of any kind.
    fn listen(&self) -> Listen;
}

impl ListenAddress for Listen {
    fn parse(text: &str) -> Result<Self, String> {
        parse_listen(text)
    }

    fn listen(&self) -> Listen {
        self.clone()
    }
}

impl ListenAddress for Address {
    fn parse(text: &str) -> Result<Self, String> {
        parse_address(text, 0)
    }

    fn listen(&self) -> Listen {
        Listen::Tcp(self.clone())
    }
}

/// A reference to the addresses of one key, with their upstreams.
pub(super) struct Listeners<'a, T> {
    addresses: &'a mut Vec<T>,
    /// `Config::listener_upstreams`, sorted by address.
    upstreams: &'a mut Vec<(Listen, String)>,
    /// The addresses of the other key, whose upstreams stay.
    others: Vec<Listen>,
}

impl Config {
    /// The value of `listen`.
    pub(super) fn plain_listeners(&mut self) -> Listeners<'_, Listen> {
        Listeners {
            others: self.tls.downstream.listen.iter().map(ListenAddress::listen).collect(),
            addresses: &mut self.listen,
            upstreams: &mut self.listener_upstreams,
        }
    }

    /// The value of `tls.downstream.listen`.
    pub(super) fn tls_listeners(&mut self) -> Listeners<'_, Address> {
        Listeners {
            others: self.listen.clone(),
            addresses: &mut self.tls.downstream.listen,
            upstreams: &mut self.listener_upstreams,
        }
    }
}

impl<T: ListenAddress> Listeners<'_, T> {
    /// Sets the addresses and their upstreams. `Err`: the reason, and what to write instead.
    pub(super) fn set(self, raw: &Raw) -> Result<(), String> {
        let items = raw.items(ADDRESSES, |item| match item {
            Raw::Table(entries) => table(entries),
            Raw::Word(word) => word_of_list(word),
            text => Ok((T::parse(text.text(EXAMPLE)?)?, None)),
        })?;
        self.replace(items);
        Ok(())
    }

    /// Copies the addresses and their upstreams from another configuration.
    pub(super) fn copy(self, other: &Listeners<'_, T>) {
        let upstream = |address: &T| other.upstream(address).map(str::to_owned);
        let items = other.addresses.iter().map(|address| (address.clone(), upstream(address)));
        self.replace(items.collect());
    }

    fn replace(self, items: Vec<(T, Option<String>)>) {
        let Listeners { addresses, upstreams, others } = self;
        let is_old = |listen: &Listen| addresses.iter().any(|a| a.listen() == *listen);
        upstreams.retain(|(listen, _)| others.contains(listen) || !is_old(listen));
        addresses.clear();
        for (address, upstream) in items {
            if let Some(name) = upstream {
                upstreams.push((address.listen(), name));
            }
            addresses.push(address);
        }
        upstreams.sort_by_cached_key(|(listen, name)| (listen.to_string(), name.clone()));
        upstreams.dedup();
    }

    fn upstream(&self, address: &T) -> Option<&str> {
        let listen = address.listen();
        let found = self.upstreams.iter().find(|(known, _)| *known == listen);
        found.map(|(_, name)| name.as_str())
    }

    /// The value as TOML.
    pub(super) fn show(&self) -> toml::Value {
        let item = |address: &T| {
            let at = toml::Value::String(address.listen().to_string());
            match self.upstream(address) {
                None => at,
                Some(name) => {
                    let entries = [("at", at), ("upstream", name.into())];
                    let entries = entries.map(|(name, value)| (name.to_owned(), value));
                    toml::Value::Table(entries.into_iter().collect())
                }
            }
        };
        toml::Value::Array(self.addresses.iter().map(item).collect())
    }
}

/// Parses `{ at = "address", upstream = "name" }`.
fn table<T: ListenAddress>(entries: &[(String, Raw)]) -> Result<(T, Option<String>), String> {
    let (mut at, mut upstream) = (None, None);
    for (name, value) in entries {
        let place = match name.as_str() {
            "at" => &mut at,
            "upstream" => &mut upstream,
            other => {
                return Err(format!("\"{other}\" is no key of a listener; write {EXAMPLE}"));
            }
        };
        *place = Some(value.text(EXAMPLE).map_err(|reason| format!("{name} {reason}"))?);
    }
    match at {
        Some(at) => Ok((T::parse(at)?, upstream.map(Into::into))),
        None => Err(format!("one item has no address; write {EXAMPLE}")),
    }
}

/// Parses an item of a list in a variable or flag: `address`, or `address=upstream`.
fn word_of_list<T: ListenAddress>(word: &str) -> Result<(T, Option<String>), String> {
    match word.rsplit_once('=') {
        Some((at, name)) if is_name(name) => Ok((T::parse(at)?, Some(name.into()))),
        _ => Ok((T::parse(word)?, None)),
    }
}
