//! HTTP beside the traffic: metrics, health, what is seen of commands, the status page.

mod connections;
mod events;
mod history;
mod moment;
mod page;
mod ready;
mod reports;
mod sampler;
mod server;
mod status;

pub use server::Admin;
