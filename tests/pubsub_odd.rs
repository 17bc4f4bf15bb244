//! Odd conversations of subscribers, each of which once went wrong.

mod common;

use common::{Proxy, Setting, eventually, shared};
use slotway::sandbox::{Conn, Reply};

/// The elements of a push or array as texts, its integers written out.
fn words(reply: &Reply) -> Vec<String> {
    let word = |r: &Reply| r.text().or_else(|| r.int().map(|n| n.to_string())).unwrap_or_default();
    reply.items().expect("several").iter().map(word).collect()
}

fn receive(conn: &mut Conn) -> Vec<String> {
    words(&conn.receive().expect("a frame"))
}

/// A node repeats the name, and closes the connection that all subscribers share if it is too long.
#[test]
fn a_name_that_is_too_long_harms_nobody() {
    let proxy = &shared().proxy;
    let mut other = proxy.connect();
    other.send(&["SUBSCRIBE", "odd:1", "odd:2", "odd:3", "odd:4", "odd:5"]).unwrap();
    (0..5).for_each(|_| drop(receive(&mut other)));
    let failures = proxy.metric("slotway_pubsub_failures_total", "");
    for (command, len) in [("SUBSCRIBE", 40 << 20), ("PSUBSCRIBE", 65_537), ("SSUBSCRIBE", 65_537)]
    {
        let reply = proxy.connect().command(&[command, &"x".repeat(len)]).unwrap();
        let error = reply.error().expect("an error");
        assert_eq!(error, "ERR slotway does not subscribe to names of more than 65536 bytes");
    }
    let fits = "x".repeat(65_536);
    let reply = proxy.connect().command(&["SUBSCRIBE", &fits]).unwrap();
    assert_eq!(words(&reply), ["subscribe", &fits, "1"]);
    assert_eq!(proxy.metric("slotway_pubsub_failures_total", ""), failures);
    proxy.connect().command(&["PUBLISH", "odd:3", "m"]).unwrap();
    assert_eq!(receive(&mut other), ["message", "odd:3", "m"]);
}

/// Who subscribes and publishes in one pipeline hears the message, as on a server.
#[test]
fn what_follows_a_subscribe_waits_for_it() {
    let proxy = &shared().proxy;
    for round in 0..30 {
        let channel = format!("odd:behind:{round}");
        let mut conn = proxy.connect3();
        conn.send_raw(
            format!("SUBSCRIBE {channel}\r\nMULTI\r\nPUBLISH {channel} a\r\nEXEC\r\nPING\r\n")
                .as_bytes(),
        )
        .unwrap();
        let mut seen = Vec::new();
        while seen.len() < 6 {
            seen.push(conn.receive().unwrap());
        }
        assert_eq!(words(&seen[0]), ["subscribe", &channel, "1"]);
        // Where the message stands among the replies is open.
        let message =
            |r: &Reply| r.items().is_some_and(|i| i[0].text().as_deref() == Some("message"));
        assert_eq!(seen.iter().filter(|r| message(r)).count(), 1, "{seen:?}");
        let exec = |r: &Reply| r.items().is_some_and(|i| i[0].int() == Some(1));
        assert!(seen.iter().any(exec), "{seen:?}");
    }
}

/// A count is of clients that get the message. One who subscribes at the same moment to what
/// others have just left is not counted for what passed the node before he was confirmed.
#[test]
fn who_is_counted_gets_the_message() {
    let proxy = &shared().proxy;
    let mut counted = 0;
    for round in 0..400 {
        let (mut subscriber, mut publisher) = (proxy.connect(), proxy.connect());
        for conn in [&mut subscriber, &mut publisher] {
            assert!(conn.command(&["PING"]).is_ok());
        }
        subscriber.send(&["SUBSCRIBE", "odd:late"]).unwrap();
        // From before the confirmation to after it.
        std::thread::sleep(std::time::Duration::from_micros(round * 5));
        let message = round.to_string();
        let count = publisher.command(&["PUBLISH", "odd:late", &message]).unwrap();
        assert_eq!(receive(&mut subscriber), ["subscribe", "odd:late", "1"]);
        match count.int() {
            Some(0) => {}
            Some(1) => {
                counted += 1;
                assert_eq!(receive(&mut subscriber), ["message", "odd:late", &message]);
            }
            _ => panic!("{count:?}"),
        }
        // Nobody of this round is counted in the next one.
        subscriber.send(&["UNSUBSCRIBE"]).unwrap();
        let mut last = receive(&mut subscriber);
        if count.int() == Some(0) && last[0] == "message" {
            // Sent before the subscriber was there, it passed the node when he was.
            assert_eq!(last, ["message", "odd:late", &message]);
            last = receive(&mut subscriber);
        }
        assert_eq!(last, ["unsubscribe", "odd:late", "0"]);
    }
    assert!(counted > 0);
}

/// A transaction's reply that is so large that it would be handed on in pieces.
#[test]
fn a_publish_beside_a_large_reply_counts_subscribers() {
    let proxy = &shared().proxy;
    let mut subscribers = [proxy.connect(), proxy.connect(), proxy.connect()];
    for subscriber in &mut subscribers {
        subscriber.command(&["SUBSCRIBE", "odd:large"]).unwrap();
    }
    let mut conn = proxy.connect();
    let large = "x".repeat(3 << 20);
    assert!(conn.command(&["SET", "odd:large", &large]).unwrap().is_ok());
    for command in [&["MULTI"][..], &["PUBLISH", "odd:large", "m"], &["GET", "odd:large"]] {
        conn.command(command).unwrap();
    }
    let reply = conn.command(&["EXEC"]).unwrap();
    let items = reply.items().unwrap();
    assert_eq!((items[0].int(), items[1].text().map(|t| t.len())), (Some(3), Some(3 << 20)));
}

/// A second SUBSCRIBE to a channel is not confirmed where the first one came to nothing.
#[test]
fn what_is_given_up_is_not_confirmed_by_the_next() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=1s"]);
    let nodes = cluster.nodes().unwrap();
    nodes.iter().for_each(|node| cluster.pause(node).unwrap());
    let mut conn = proxy.connect();
    conn.send_raw(b"SUBSCRIBE odd:a odd:b\r\nSUBSCRIBE odd:b\r\n").unwrap();
    for _ in 0..2 {
        let reply = conn.receive().unwrap();
        let error = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
        assert!(error.starts_with("CLUSTERDOWN slotway waited 1.0 s"), "{error}");
    }
    // It is no subscriber.
    assert_eq!(conn.command(&["PING"]).unwrap().text().as_deref(), Some("PONG"));
    nodes.iter().for_each(|node| cluster.resume(node).unwrap());
    eventually("the subscription is confirmed", || {
        let mut conn = proxy.connect();
        conn.send_raw(b"SUBSCRIBE odd:b\r\nSUBSCRIBE odd:b\r\n").unwrap();
        let replies = [conn.receive().unwrap(), conn.receive().unwrap()];
        replies.iter().all(|r| r.error().is_none() && words(r) == ["subscribe", "odd:b", "1"])
    });
}

/// Topics are memory, too: whoever subscribes to more and more is refused, and may let go of them.
#[test]
fn subscriptions_count_as_memory() {
    let args = ["--workers", "1", "--set", "limits.memory=4MiB"];
    let proxy = Proxy::start(&shared().cluster, &args);
    let mut conn = proxy.connect3();
    let refused = (0..200).find_map(|i| {
        let name = format!("odd:{i}:{}", "x".repeat(60_000));
        let reply = conn.command(&["SUBSCRIBE", &name]).unwrap();
        reply.error().map(|e| (i, e.to_owned()))
    });
    let (subscribed, error) = refused.expect("a limit");
    // A name is held a few times: by the hub, by the worker, and on its way to the node.
    assert!((10..80).contains(&subscribed), "{subscribed}");
    assert!(error.starts_with("OOM slotway's buffers are full"), "{error}");
    conn.send(&["UNSUBSCRIBE"]).unwrap();
    for left in (0..subscribed).rev() {
        assert_eq!(receive(&mut conn)[2], left.to_string());
    }
    eventually("there is room again", || conn.command(&["SET", "odd:room", "1"]).unwrap().is_ok());
}
