//! What one client can do to the others, on purpose: one module per kind of abuse, most with a
//! quiet client beside them. Nothing is asserted by the clock.

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

use slotway::cluster::{Slot, slot_of};

/// `count` keys in slots of their own; `accepts` says whether the slot will do for the key at this
/// place.
fn keys_where(count: usize, accepts: impl Fn(Slot, usize) -> bool) -> Vec<String> {
    let (mut slots, mut keys) = (Vec::new(), Vec::new());
    for key in (0..).map(|i| format!("key:{i}")) {
        if keys.len() == count {
            break;
        }
        let slot = slot_of(key.as_bytes());
        if !slots.contains(&slot.0) && accepts(slot, keys.len()) {
            slots.push(slot.0);
            keys.push(key);
        }
    }
    keys
}

/// The words of a command.
fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
