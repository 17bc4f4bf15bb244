//! Slotway: a cluster-aware Redis proxy.
//!
//! Clients speak plain Redis to slotway, slotway speaks to a Redis Cluster. The rooms, in the
//! order in which data passes them (an arrow never points back up):
//!
//! - [`resp`]: the wire. Scans requests, finds the end of replies, writes replies. No I/O.
//! - [`errors`]: the errors that slotway answers with, as values: code, text, cause, remedy. No I/O.
//! - [`command`]: the command table, from the server's own `COMMAND`. No I/O.
//! - [`channel`]: kinds of channels, and Redis's patterns. No I/O.
//! - [`cluster`]: slots, nodes, shards; an immutable snapshot of the topology. No I/O.
//! - [`route`]: a command and a snapshot give a plan; partial replies are merged. No I/O.
//! - [`emulate`]: commands over several slots, composed of commands for one. No I/O.
//! - [`users`]: who clients are and what they may do.
//! - [`scripts`]: the Lua scripts that any node can be given at any time. No I/O.
//! - [`buf`], [`stream`], [`tls`]: byte queues towards sockets, the sockets, and TLS on them.
//! - [`proxy_protocol`]: the header by which a load balancer names its client. No I/O.
//! - [`upstream`]: connections to nodes.
//! - [`client`]: one downstream connection, its ordered reply queue, its limits.
//! - [`pubsub`]: one subscription at the cluster for all subscribers, held by a hub of its own.
//! - [`descriptors`]: how the limit on open files is shared out.
//! - [`mailbox`]: what threads say to each other. No I/O.
//! - [`worker`]: one core: owns its clients and upstreams and runs them.
//! - [`control`]: topology refresh, accepting, signals, drain.
//! - [`admin`]: HTTP: metrics, health, the status page.
//! - [`config`], [`metrics`]: what their names say.
//! - [`seen`]: hot keys, big keys, slow commands, spans: what is seen as commands pass. No I/O.
//! - [`hash`]: the hash tables of all rooms.
//! - [`meter`], [`arena`]: how much memory a thread has taken, and when it gives it back.
//! - [`lines`]: log lines that others can cause.
//! - [`sandbox`]: a local cluster of real servers, for `make run`, tests and benches.
#![forbid(unsafe_code)]

pub mod admin;
pub mod arena;
pub mod buf;
pub mod channel;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod dest;
pub mod docs;
pub mod emulate;
pub mod errors;
pub mod hash;
pub mod hub;
pub mod lines;
pub mod mailbox;
pub mod meter;
pub mod metrics;
pub mod process;
pub mod proxy_protocol;
pub mod pubsub;
pub mod resp;
pub mod route;
pub mod sandbox;
pub mod scripts;
pub mod seen;
pub mod stream;
pub mod tls;
pub mod upstream;
pub mod users;
pub mod worker;
