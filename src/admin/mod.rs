//! HTTP beside the traffic: metrics, health, what is seen of commands, the status page.

mod events;
mod history;
mod moment;
mod page;
mod places;
mod ready;
mod seen;
mod server;
mod status;
mod watch;

pub use server::Admin;
