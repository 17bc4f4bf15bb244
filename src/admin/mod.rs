//! HTTP beside the traffic: metrics, health.

mod places;
mod ready;
mod server;

pub use ready::Readiness;
pub use server::Admin;
