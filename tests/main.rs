//! The tests that need servers and the program `slotway`, one module per subject. One program, so
//! that what they share is compiled and linked once.
//!
//! `cargo test --test integration` runs them all in one process, `cargo test --test integration
//! tls::` one module. `scripts/cargo-test.sh`, and so CI, gives each module a process of its own,
//! which has its own `common::shared`. What would disturb the others in one process is a program of
//! its own (`admin`, in `Cargo.toml`).

mod abuse;
mod blocking;
mod busy;
mod chaos;
mod clients;
mod cluster_clients;
mod command_table;
mod common;
mod config;
mod cross_slot;
mod differential;
mod emulate;
mod emulated;
mod every_node;
mod foreign_cluster;
mod half_moved;
mod hostile;
mod hostile_nodes;
mod keyspace;
mod large;
mod limits;
mod load_balancers;
mod mixed_versions;
mod modules;
mod node_timeout;
mod observability;
mod pubsub_faults;
mod pubsub_many;
mod pubsub_odd;
mod read_from;
mod reconnect;
mod redirection;
mod redis_rs;
mod reload;
mod same_version;
mod sandbox;
mod scripts;
mod secrets;
mod seen;
mod silence;
mod single_server;
mod tls;
mod topology;
mod transactions;
mod transactions_moving;
mod upstreams;
mod users;
mod watch;
