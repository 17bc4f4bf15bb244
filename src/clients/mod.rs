//! The clients of one worker.
//!
//! Any room answers clients, reads on or stops, and closes them: that is what [`Clients`] itself does.
//! Every other concern is a view of them ([`Clients::errands`], [`Clients::lending`] …), in a file of
//! its own. A view is one pointer and is made where it is used.

pub(crate) mod answers;
pub(crate) mod connections;
pub(crate) mod deliveries;
pub(crate) mod errands;
pub(crate) mod fairness;
pub(crate) mod half_moved;
pub(crate) mod leave;
pub(crate) mod lending;
pub(crate) mod listing;
pub(crate) mod login;
pub(crate) mod memory;
pub(crate) mod monitors;
pub(crate) mod pause;
pub(crate) mod refusals;
pub(crate) mod replicas;
pub(crate) mod subscribers;
pub(crate) mod tls;
pub(crate) mod transaction;
pub(crate) mod watches;

use slab::Slab;

use crate::client::{Client, Pause, Traffic};
use crate::common::Core;

/// The clients, those that come and those that go.
pub(crate) struct Clients {
    pub slab: Slab<Client>,
    pub arrivals: Arrivals,
    /// What keeps the worker from serving clients.
    pub stop: Stop,
}

/// Clients that come and go.
pub(crate) struct Arrivals {
    pub handshakes: tls::Handshakes,
    pub logins: login::LoginDeadlines,
    pub leaving: leave::Leaving,
    pub(crate) next_generation: u32,
    /// What has passed over the connection of each client, by its index.
    pub traffic: Vec<Traffic>,
}

/// What keeps the worker from serving clients.
pub(crate) struct Stop {
    pub drain: Option<leave::Drain>,
    /// It ends with its last client.
    pub(crate) retires: bool,
    /// CLIENT PAUSE, while it lasts.
    pub pause: Option<Pause>,
}

impl Stop {
    /// When the pause is over, microseconds. No timer: there would be one for every CLIENT PAUSE,
    /// for as long as that asked for.
    pub(crate) fn pause_end(&self, core: &Core) -> Option<u64> {
        let until = self.pause?.until.saturating_duration_since(core.clock.epoch);
        Some(until.as_micros() as u64)
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is under way or answered; the next one can be read.
    Next,
    /// It was not touched; the client is paused and the command stays in its buffer.
    Pause,
    /// No more commands are read.
    Stop,
}
