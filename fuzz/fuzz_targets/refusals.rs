//! Error replies: a redirection that is understood names a slot that exists and an address that
//! can be connected to; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::cluster::{NodeAddr, SLOTS};
use slotway::placement::Refusal;

fuzz_target!(|frame: &[u8]| {
    let asked = NodeAddr { host: "asked".into(), port: 7000 };
    let refusal = Refusal::parse(frame, &asked, slotway::cluster::SlotSpace::CLUSTER);
    if let Some(Refusal::Moved(slot, addr) | Refusal::Ask(slot, addr)) = &refusal {
        assert!(slot.0 < SLOTS);
        assert!(!addr.host.is_empty() && &*addr.host != "?");
        assert_ne!(addr.port, 0, "nobody listens on port 0");
    }
    let _ = refusal.map(|refusal| refusal.kind());
});
