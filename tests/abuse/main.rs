//! What one client can do to the others, on purpose: one module per kind of abuse, most with a
//! quiet client beside them. Nothing is asserted by the clock.

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod fake_cluster;
mod hash_flooding;
mod large_replies;
mod large_replies_lost;
mod logins;
mod memory;
mod proxy_headers;
mod quadratic;
mod quiet;
mod refusing_nodes;
mod retries;
#[allow(dead_code)] // each test binary uses its part of this
#[path = "../common/tls.rs"]
mod tls;
