//! HTTP beside the traffic: metrics, health, the status page and what it shows.

mod events;
mod history;
mod moment;
mod page;
mod ready;
mod server;
mod status;
mod watch;

pub use ready::Readiness;
pub use server::Admin;
