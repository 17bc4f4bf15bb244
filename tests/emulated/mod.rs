//! `commands.cross_slot = "emulate"` when something goes wrong: nodes that are gone in the middle
//! of a command, or killed, others that move the same elements, clients that leave.
//!
//! What the commands answer is compared in `tests/differential` and `tests/emulate.rs`.

mod killed;
mod movers;
mod relay;
mod steps;

use std::sync::OnceLock;

use crate::common;
use slotway::sandbox::Cluster;

/// A cluster, and two slotways that emulate.
struct Emulating {
    proxies: [common::Proxy; 2],
    _cluster: Cluster,
}

/// For the tests that break nothing.
fn emulating() -> &'static Emulating {
    static SHARED: OnceLock<Emulating> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = common::cluster();
        let proxy = || {
            let sets = ["commands.cross_slot=emulate", "commands.cross_slot_turn=10ms"];
            common::Proxy::start(&cluster, &["--set", sets[0], "--set", sets[1]])
        };
        Emulating { proxies: [proxy(), proxy()], _cluster: cluster }
    })
}

impl Emulating {
    /// Clients that wait for data.
    fn waiting(&self) -> usize {
        let of = |proxy: &common::Proxy| {
            let mut conn = proxy.connect();
            let info = conn.command(&["INFO", "clients"]).expect("INFO").text().expect("a text");
            let field = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
            field.and_then(|n| n.trim().parse::<usize>().ok()).expect("blocked_clients")
        };
        self.proxies.iter().map(of).sum()
    }
}
