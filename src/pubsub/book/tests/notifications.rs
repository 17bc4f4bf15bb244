//! Topics that can match keyspace notifications.

use super::*;

#[test]
fn narrow_topics_are_subscribed_at_every_primary() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    assert_eq!(desk.act(true).len(), 3);
    desk.confirm(0);
    desk.confirm(1);
    assert_eq!(desk.news(1), [format!("known {SPACE}")]);
    desk.confirm(2);
    assert_eq!(desk.news(1), [format!("live {SPACE}")]);
    assert_eq!(desk.entry(Kind::Pattern, SPACE).topic.upstream(), 3);
    for n in 0..3 {
        desk.message(n, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(desk.got(SPACE), 1);
    }
    desk.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 0);
    // A lost connection makes a gap until it is restored.
    desk.book.lost(1);
    assert_eq!(desk.news(1), [format!("gap {SPACE}")]);
    desk.book.retry(1);
    assert_eq!(desk.run(), [format!("+ {SPACE} @1")]);
    assert_eq!(desk.news(1), [format!("live {SPACE}")]);
    assert_eq!(desk.gaps(), LOST);
}

#[test]
fn a_primary_that_joins_makes_no_gap() {
    let mut desk = Desk::new();
    desk.topology(without_slots(cluster(), 2));
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.news(1);
    let mut joined = without_slots(cluster(), 2);
    joined.nodes.push(ClusterNode { id: "node6".into(), addr: addr(6), ..joined.nodes[2].clone() });
    joined.shards.push(Shard { primary: Some(6), replicas: Vec::new() });
    desk.topology(joined.clone());
    assert_eq!(desk.run(), [format!("+ {SPACE} @6")]);
    // It gets slots after it has confirmed.
    joined.slots[16383] = 3;
    desk.topology(joined);
    assert!(desk.run().is_empty() && desk.news(1).is_empty());
    desk.message(6, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    assert_eq!(desk.gaps(), NO_GAP);
}

/// The topology calls the replica a primary that has no slots yet: the old primary, by then a
/// replica, sends the same notifications.
#[test]
fn a_replica_that_is_promoted_says_nothing_before_it_has_the_slots() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.news(1);
    let mut promoted = cluster();
    promoted.nodes[3].role = Role::Primary;
    promoted.shards[0].replicas.clear();
    promoted.shards.push(Shard { primary: Some(3), replicas: Vec::new() });
    for _ in 0..2 {
        desk.topology(promoted.clone());
        assert!(desk.run().is_empty() && desk.news(1).is_empty());
        desk.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(desk.got(SPACE), 1);
    }
    let moved = failed_over(0);
    desk.topology(moved);
    assert_eq!(desk.act(true), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
    assert_eq!(desk.news(1), [format!("gap {SPACE}")]);
    desk.confirm(3);
    desk.confirm(0);
    assert_eq!(desk.news(1), [format!("live {SPACE}")]);
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 0);
    desk.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    assert_eq!(desk.gaps()[GapReason::NewPrimary as usize], 1);
    // If the primary that it followed loses its slots to others, it is a primary like any other.
    let mut alone = without_slots(promoted.clone(), 0);
    alone.slots[0] = 1;
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.topology(promoted);
    desk.topology(alone);
    assert!(desk.run().contains(&format!("+ {SPACE} @3")));
}

#[test]
fn a_failover_of_notifications_is_one_gap_and_nothing_twice() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.news(1);
    desk.topology(failed_over(0));
    assert_eq!(desk.act(false), ["connect 3"]);
    assert_eq!(desk.news(1), [format!("gap {SPACE}")]);
    // Until the new primary is subscribed, the old one passes on what it replicates.
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    desk.book.ready(3);
    assert_eq!(desk.act(false), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 0);
    desk.confirm(3);
    desk.confirm(0);
    assert_eq!(desk.news(1), [format!("live {SPACE}")]);
    desk.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    assert_eq!(desk.gaps(), [0, 0, 0, 1, 0]);
    assert_eq!(desk.entry(Kind::Pattern, SPACE).topic.upstream(), 3);
}

/// Nodes learn of a failover one after the other: one calls the former primary a replica, the next
/// calls it a primary without slots. It is a replica, so its notifications are duplicates.
#[test]
fn a_former_primary_that_is_called_a_primary_again_is_not_heard() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
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
        desk.topology(snapshot);
        desk.run();
        desk.news(1);
        desk.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(desk.got(SPACE), 0);
    }
    desk.message(3, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    // It gets its slots back.
    desk.topology(cluster());
    assert_eq!(desk.run(), [format!("+ {SPACE} @0"), format!("- {SPACE} @3")]);
    desk.news(1);
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
}

/// Until the new primary is subscribed, the former one stands in, whatever the topology calls it.
#[test]
fn a_former_primary_stands_in_until_its_successor_is_asked() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.topology(failed_over(0));
    let mut without_slots = failed_over(0);
    without_slots.nodes[0].role = Role::Primary;
    without_slots.shards[0].replicas.clear();
    without_slots.shards.push(Shard { primary: Some(0), replicas: Vec::new() });
    for _ in 0..2 {
        desk.topology(without_slots.clone());
        assert!(desk.act(false).iter().all(|action| action == "connect 3"));
        desk.news(1);
        desk.message(0, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(desk.got(SPACE), 1);
    }
    desk.book.ready(3);
    assert_eq!(desk.act(false), [format!("+ {SPACE} @3"), format!("- {SPACE} @0")]);
}

#[test]
fn a_killed_primary_is_one_gap_until_its_successor_is_heard() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.news(1);
    desk.book.lost(0);
    desk.topology(failed(0));
    desk.run();
    assert_eq!(desk.news(1), [format!("gap {SPACE}")]);
    // A new subscriber does not wait for the missing primary.
    desk.subscribe(1, Kind::Pattern, SPACE);
    assert_eq!(desk.news(1), [format!("live {SPACE}")]);
    desk.topology(failed_over(0));
    assert_eq!(desk.run(), [format!("+ {SPACE} @3")]);
    assert_eq!(desk.news(1), [format!("live {SPACE}"), format!("live {SPACE}")]);
    assert_eq!(desk.gaps(), LOST);
}

#[test]
fn broad_topics_hear_notifications_from_everywhere_and_the_rest_from_home() {
    let mut desk = Desk::new();
    let token = desk.subscribe(1, Kind::Pattern, "*");
    assert_eq!(desk.run().len(), 7);
    let home = desk.home(Kind::Pattern, "*");
    assert_eq!(desk.news(1).pop().unwrap(), "live *");
    for n in 0..3 {
        // The node's own copy is dropped; the hub's pattern brings it.
        desk.message(n, Some("*"), "__keyspace@0__:k");
        assert_eq!(desk.got("*"), 0);
        desk.message(n, Some(SPACE), "__keyspace@0__:k");
        assert_eq!(
            desk.news(1),
            ["* >4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$16\r\n__keyspace@0__:k\r\n$1\r\nx\r\n"]
        );
        desk.message(n, Some("*"), "ordinary");
        assert_eq!(desk.got("*"), usize::from(n == home));
    }
    assert_eq!(desk.upstream(), [0, 7, 0]);
    assert_eq!(desk.book.stats.topics[1].load(Relaxed), 1, "the book's own do not count");
    // A failover is a gap.
    desk.topology(failed_over(if home == 0 { 1 } else { 0 }));
    desk.run();
    assert_eq!(desk.news(1), ["gap *", "live *"]);
    assert_eq!(desk.gaps(), [0, 0, 0, 1, 0]);
    // Its end also ends the hub's own patterns.
    desk.unsubscribe(1, token);
    assert_eq!(desk.run().len(), 7);
    assert_eq!((desk.upstream(), desk.book.entries.len()), ([0; 3], 0));
}

#[test]
fn a_pattern_of_the_books_own_can_be_a_clients_too() {
    let mut desk = Desk::new();
    let broad = desk.subscribe(1, Kind::Pattern, "?*");
    let own = desk.subscribe(1, Kind::Pattern, SPACE);
    desk.run();
    desk.news(1);
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.news(1).len(), 2);
    desk.unsubscribe(1, broad);
    assert_eq!(desk.run().len(), 4, "?* at its home, the other one at all");
    desk.news(1);
    desk.message(0, Some(SPACE), "__keyspace@0__:k");
    assert_eq!(desk.got(SPACE), 1);
    let broad = desk.subscribe(1, Kind::Pattern, "?*");
    desk.run();
    desk.unsubscribe(1, own);
    assert!(desk.run().is_empty());
    desk.unsubscribe(1, broad);
    desk.run();
    assert_eq!(desk.upstream(), [0; 3]);
}

#[test]
fn a_half_narrow_pattern_takes_ordinary_channels_from_its_home_alone() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, "__key*");
    desk.run();
    desk.news(1);
    let home = desk.home(Kind::Pattern, "__key*");
    for n in 0..3 {
        desk.message(n, Some("__key*"), "__keys");
        assert_eq!(desk.got("__key*"), usize::from(n == home));
        desk.message(n, Some("__key*"), "__keyevent@0__:set");
        assert_eq!(desk.got("__key*"), 1);
    }
}

#[test]
fn a_broad_pattern_goes_on_without_notifications_that_are_not_allowed() {
    let mut desk = Desk::new();
    desk.subscribe(1, Kind::Pattern, "*");
    desk.act(true);
    for n in 0..3 {
        while let Some(Sent::Subscribe { topic, .. }) = desk.book.nodes[n].fifo.front() {
            if *topic.name == *b"*" {
                desk.answer(n);
            } else {
                desk.book.error(n, b"NOPERM no").unwrap();
            }
        }
    }
    desk.run();
    assert_eq!(desk.news(1).pop().unwrap(), "live *");
    desk.subscribe(1, Kind::Pattern, EVENT);
    assert_eq!(desk.news(1), [format!("refused {EVENT}: NOPERM no")]);
    assert!(desk.run().is_empty());
}
