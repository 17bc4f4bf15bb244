//! HTTP beside the traffic: metrics, health, what is seen of commands.

mod ready;
mod seen;
mod server;

pub use ready::Readiness;
pub use server::Admin;
