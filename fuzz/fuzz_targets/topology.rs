//! Topology replies: whatever a node says about the cluster, the snapshot of it is consistent, and
//! so is what is told from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::cluster::{
    NO_SHARD, NodeAddr, SLOTS, Slot, Snapshot, diff, parse_info, parse_shards, parse_slots,
};
use slotway::resp::tree::decode;
use slotway::resp::{ReplyProgress, ReplyScan};

fuzz_target!(|reply: &[u8]| {
    let asked = NodeAddr { host: "asked".into(), port: 7000 };
    let _ = parse_info(reply);
    for snapshot in [parse_shards(reply, &asked), parse_slots(reply, &asked)].into_iter().flatten()
    {
        consistent(&snapshot);
        assert!(diff(&snapshot, &snapshot).is_empty());
        let _ = (diff(&Snapshot::empty(), &snapshot), diff(&snapshot, &Snapshot::empty()));
    }
    // What is a whole reply to the reader is one to the one who waits for its end.
    if decode(reply).is_ok() {
        let whole = ReplyScan::default().advance(reply);
        assert!(matches!(whole, Ok(ReplyProgress::Complete(_))), "{whole:?}");
    }
});

fn consistent(snapshot: &Snapshot) {
    assert_eq!(snapshot.slots.len(), usize::from(SLOTS));
    for &shard in snapshot.slots.iter().filter(|&&shard| shard != NO_SHARD) {
        assert!(usize::from(shard) < snapshot.shards.len());
    }
    let mut seen = vec![0; snapshot.nodes.len()];
    for node in snapshot.shards.iter().flat_map(|s| s.primary.iter().chain(&s.replicas)) {
        seen[usize::from(*node)] += 1;
    }
    assert!(seen.iter().all(|&n| n == 1), "each node in one shard: {seen:?}");
    for node in &snapshot.nodes {
        assert!(node.addr.port != 0 && !node.addr.host.is_empty());
    }
    let covered = snapshot.slots_covered();
    let missing: usize =
        snapshot.missing_slots().iter().map(|r| usize::from(r.end - r.start) + 1).sum();
    assert_eq!(covered + missing, usize::from(SLOTS));
    assert!(snapshot.slot_primaries().len() <= snapshot.nodes.len());
    let _ = snapshot.primary_of(Slot(SLOTS));
}
