//! The admin listener: metrics, health checks, reports on commands and keys, and the status page,
//! by HTTP.

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
