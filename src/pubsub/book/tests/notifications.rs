//! Topics that can match keyspace notifications.

use super::*;

#[test]
fn narrow_topics_are_subscribed_at_every_primary() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    assert_eq!(rig.act(true).len(), 3);
    rig.confirm(0);
    rig.confirm(1);
    assert_eq!(rig.news(1), [format!("known {SPACE}")]);
    rig.confirm(2);
    assert_eq!(rig.news(1), [format!("live {SPACE}")]);
    assert_eq!(rig.entry(TopicKind::Pattern, SPACE).topic.upstream(), 3);
    for n in 0..3 {
        rig.message(n, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(rig.got(SPACE), 1);
    }
    rig.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 0);
    // A lost connection makes a gap until it is restored.
    rig.book.links().lost(1, false);
    assert_eq!(rig.news(1), [format!("gap {SPACE}")]);
    rig.book.nodes.retry(1);
    assert_eq!(rig.run(), [format!("+ {SPACE} @1")]);
    assert_eq!(rig.news(1), [format!("live {SPACE}")]);
    assert_eq!(rig.gaps(), LOST);
}

#[test]
fn a_new_primary_without_slots_makes_no_gap() {
    let mut rig = Rig::new();
    rig.topology(without_slots(cluster(), 2));
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.news(1);
    let mut joined = without_slots(cluster(), 2);
    joined.nodes.push(ClusterNode { id: "node6".into(), addr: addr(6), ..joined.nodes[2].clone() });
    joined.shards.push(Shard { primary: Some(6), replicas: Vec::new() });
    rig.topology(joined.clone());
    assert_eq!(rig.run(), [format!("+ {SPACE} @6")]);
    // It gets slots after it has confirmed.
    joined.slots[16383] = 3;
    rig.topology(joined);
    assert!(rig.run().is_empty() && rig.news(1).is_empty());
    rig.message(6, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    assert_eq!(rig.gaps(), NO_GAP);
}

/// The topology calls the replica a primary that has no slots yet: the old primary, by then a
/// replica, sends the same notifications.
#[test]
fn a_promoted_replica_is_heard_once_it_has_the_slots() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.news(1);
    let mut promoted = cluster();
    promoted.nodes[3].role = Role::Primary;
    promoted.shards[0].replicas.clear();
    promoted.shards.push(Shard { primary: Some(3), replicas: Vec::new() });
    for _ in 0..2 {
        rig.topology(promoted.clone());
        assert!(rig.run().is_empty() && rig.news(1).is_empty());
        rig.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(rig.got(SPACE), 1);
    }
    let moved = failed_over(0);
    rig.topology(moved);
    assert_eq!(rig.act(true), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
    assert_eq!(rig.news(1), [format!("gap {SPACE}")]);
    rig.confirm(3);
    rig.confirm(0);
    assert_eq!(rig.news(1), [format!("live {SPACE}")]);
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 0);
    rig.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    assert_eq!(rig.gaps()[GapReason::NewPrimary as usize], 1);
    // If the primary that it followed loses its slots to others, it is a primary like any other.
    let mut alone = without_slots(promoted.clone(), 0);
    alone.slots[0] = 1;
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.topology(promoted);
    rig.topology(alone);
    assert!(rig.run().contains(&format!("+ {SPACE} @3")));
}

#[test]
fn a_failover_is_one_gap_without_duplicates() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.news(1);
    rig.topology(failed_over(0));
    assert_eq!(rig.act(false), ["connect 3"]);
    assert_eq!(rig.news(1), [format!("gap {SPACE}")]);
    // Until the new primary is subscribed, the old one passes on what it replicates.
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    rig.book.links().ready(3);
    assert_eq!(rig.act(false), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 0);
    rig.confirm(3);
    rig.confirm(0);
    assert_eq!(rig.news(1), [format!("live {SPACE}")]);
    rig.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    assert_eq!(rig.gaps(), [0, 0, 0, 1, 0]);
    assert_eq!(rig.entry(TopicKind::Pattern, SPACE).topic.upstream(), 3);
}

/// Nodes learn of a failover one after the other: one calls the former primary a replica, the next
/// calls it a primary without slots. It is a replica, so its notifications are duplicates.
#[test]
fn a_former_primary_called_a_primary_again_is_ignored() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    let mut without_slots = failed_over(0);
    without_slots.nodes[0].role = Role::Primary;
    without_slots.shards[0].replicas.clear();
    without_slots.shards.push(Shard { primary: Some(0), replicas: Vec::new() });
    // In its own view, then in the others'; twice, and with a failure in between.
    for snapshot in [
        failed_over(0),
        without_slots.clone(),
        without_slots.clone(),
        failed_over(0),
        without_slots.clone(),
        failed(0),
        without_slots.clone(),
    ] {
        rig.topology(snapshot);
        rig.run();
        rig.news(1);
        rig.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(rig.got(SPACE), 0);
    }
    rig.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    // It gets its slots back.
    rig.topology(cluster());
    assert_eq!(rig.run(), [format!("+ {SPACE} @0"), format!("- {SPACE} @3")]);
    rig.news(1);
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
}

/// Until the new primary is subscribed, the former one stands in, whatever the topology calls it.
#[test]
fn a_former_primary_stands_in_until_its_successor_is_subscribed() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.topology(failed_over(0));
    let mut without_slots = failed_over(0);
    without_slots.nodes[0].role = Role::Primary;
    without_slots.shards[0].replicas.clear();
    without_slots.shards.push(Shard { primary: Some(0), replicas: Vec::new() });
    for _ in 0..2 {
        rig.topology(without_slots.clone());
        assert!(rig.act(false).iter().all(|action| action == "connect 3"));
        rig.news(1);
        rig.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(rig.got(SPACE), 1);
    }
    rig.book.links().ready(3);
    assert_eq!(rig.act(false), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
}

#[test]
fn a_killed_primary_is_one_gap_until_its_successor_is_subscribed() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.news(1);
    rig.book.links().lost(0, false);
    rig.topology(failed(0));
    rig.run();
    assert_eq!(rig.news(1), [format!("gap {SPACE}")]);
    // A new subscriber does not wait for the missing primary.
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    assert_eq!(rig.news(1), [format!("live {SPACE}")]);
    rig.topology(failed_over(0));
    assert_eq!(rig.run(), [format!("+ {SPACE} @3")]);
    assert_eq!(rig.news(1), [format!("live {SPACE}"), format!("live {SPACE}")]);
    assert_eq!(rig.gaps(), LOST);
}

#[test]
fn broad_topics_get_notifications_from_all_primaries() {
    let mut rig = Rig::new();
    let token = rig.subscribe(1, TopicKind::Pattern, "*");
    assert_eq!(rig.run().len(), 7);
    let home = rig.home(TopicKind::Pattern, "*");
    assert_eq!(rig.news(1).pop().unwrap(), "live *");
    for n in 0..3 {
        // The node's own copy is dropped; the hub's pattern brings it.
        rig.message(n, Some("*"), "__keyspace@0__:k");
        assert_eq!(rig.got("*"), 0);
        rig.message(n, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(
            rig.news(1),
            ["* >4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$16\r\n__keyspace@0__:k\r\n$1\r\nx\r\n"]
        );
        rig.message(n, Some("*"), "ordinary");
        assert_eq!(rig.got("*"), usize::from(n == home));
    }
    assert_eq!(rig.upstream(), [0, 7, 0]);
    assert_eq!(rig.book.stats.topics[1].load(Relaxed), 1, "the book's own do not count");
    // A failover is a gap.
    rig.topology(failed_over(if home == 0 { 1 } else { 0 }));
    rig.run();
    assert_eq!(rig.news(1), ["gap *", "live *"]);
    assert_eq!(rig.gaps(), [0, 0, 0, 1, 0]);
    // Its end also ends the hub's own patterns.
    rig.unsubscribe(1, token);
    assert_eq!(rig.run().len(), 7);
    assert_eq!((rig.upstream(), rig.book.entries.iter().count()), ([0; 3], 0));
}

#[test]
fn clients_may_subscribe_to_the_hubs_own_patterns() {
    let mut rig = Rig::new();
    let broad = rig.subscribe(1, TopicKind::Pattern, "?*");
    let own = rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.run();
    rig.news(1);
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.news(1).len(), 2);
    rig.unsubscribe(1, broad);
    assert_eq!(rig.run().len(), 4, "?* at its home, the other one at all");
    rig.news(1);
    rig.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(rig.got(SPACE), 1);
    let broad = rig.subscribe(1, TopicKind::Pattern, "?*");
    rig.run();
    rig.unsubscribe(1, own);
    assert!(rig.run().is_empty());
    rig.unsubscribe(1, broad);
    rig.run();
    assert_eq!(rig.upstream(), [0; 3]);
}

#[test]
fn impure_narrow_patterns_get_ordinary_messages_from_their_home() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, "__key*");
    rig.run();
    rig.news(1);
    let home = rig.home(TopicKind::Pattern, "__key*");
    for n in 0..3 {
        rig.message(n, Some("__key*"), "__keys");
        assert_eq!(rig.got("__key*"), usize::from(n == home));
        rig.message(n, Some("__key*"), "__keyevent@0__:set");
        assert_eq!(rig.got("__key*"), 1);
    }
}

#[test]
fn broad_patterns_work_without_permission_for_notifications() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Pattern, "*");
    rig.act(true);
    for n in 0..3 {
        while let Some(Sent::Subscribe { topic, .. }) = rig.fifo(n).front() {
            if *topic.name == *b"*" {
                rig.answer(n);
            } else {
                rig.book.replies().error(n, b"NOPERM no").unwrap();
            }
        }
    }
    rig.run();
    assert_eq!(rig.news(1).pop().unwrap(), "live *");
    rig.subscribe(1, TopicKind::Pattern, EVENT);
    assert_eq!(rig.news(1), [format!("refused {EVENT}: NOPERM no")]);
    assert!(rig.run().is_empty());
}
