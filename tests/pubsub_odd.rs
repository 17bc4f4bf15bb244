//! Odd conversations of subscribers, each of which once went wrong.

use crate::common::errors::{assert_is, identified, waited};
use crate::common::{self, Proxy, Setting, eventually, shared};
use slotway::cluster::{NodeAddr, slot_of};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, Conn, Node, Reply};
use std::net::SocketAddr;

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
        let error = identified(&reply);
        assert_eq!((error.id, error.field("limit")), (FailureId::TopicTooLong, Some("65536")));
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
        let error = identified(&reply);
        assert_eq!(error.id, FailureId::Unsubscribed, "{reply:?}");
        assert!(waited(&error).is_some_and(|seconds| seconds >= 1.0), "{reply:?}");
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
        reply.error().is_some().then_some((i, reply))
    });
    let (subscribed, error) = refused.expect("a limit");
    // A name is held a few times: by the hub, by the worker, and on its way to the node.
    assert!((10..80).contains(&subscribed), "{subscribed}");
    assert_is(&error, FailureId::BuffersFull);
    conn.send(&["UNSUBSCRIBE"]).unwrap();
    for left in (0..subscribed).rev() {
        assert_eq!(receive(&mut conn)[2], left.to_string());
    }
    eventually("there is room again", || conn.command(&["SET", "odd:room", "1"]).unwrap().is_ok());
}

/// The node of the cluster where slotway subscribes to a channel and publishes to it.
fn home(cluster: &Cluster, channel: &str) -> Node {
    let ident = |addr: SocketAddr| {
        slotway::pubsub::ident(&NodeAddr { host: addr.ip().to_string().into(), port: addr.port() })
    };
    let name = slotway::pubsub::hash(channel.as_bytes());
    let nodes = cluster.nodes().unwrap().into_iter().filter(|node| node.is_primary());
    nodes.max_by_key(|node| slotway::pubsub::rank(name, ident(node.addr))).expect("a primary")
}

/// A server confirms a SUBSCRIBE before it reads a PUBLISH that another connection sent later, so
/// clients rely on that without waiting for the confirmation (channels_redis does).
#[test]
fn a_publish_waits_for_the_subscriptions_before_it() {
    let proxy = Proxy::start(&shared().cluster, &["--workers", "1"]);
    let mut publisher = proxy.connect();
    let kinds: [(&str, &str, &str, &[&str]); 4] = [
        ("SUBSCRIBE", "", "message", &["PUBLISH"]),
        ("PSUBSCRIBE", "*", "pmessage", &["PUBLISH"]),
        ("SSUBSCRIBE", "", "smessage", &["SPUBLISH"]),
        ("SUBSCRIBE", "", "message", &["MULTI", "PUBLISH", "EXEC"]),
    ];
    let mut lost = Vec::new();
    for round in 0..40 {
        for (kind, (subscribe, suffix, message, publish)) in kinds.iter().enumerate() {
            let mut subscriber = proxy.connect();
            // Its worker has it: what it sends next is not behind the acceptor.
            assert!(subscriber.command(&["PING"]).is_ok());
            let channel = format!("odd:order:{kind}:{round}");
            subscriber.send(&[*subscribe, format!("{channel}{suffix}").as_str()]).unwrap();
            for command in *publish {
                let reply = match *command {
                    "PUBLISH" | "SPUBLISH" => publisher.command(&[*command, channel.as_str(), "m"]),
                    other => publisher.command(&[other]),
                };
                let reply = reply.unwrap();
                assert!(reply.error().is_none(), "{reply:?}");
                let count = reply.items().map_or(reply.int(), |items| items[0].int());
                if count == Some(0) {
                    lost.push(channel.clone());
                }
            }
            assert_eq!(receive(&mut subscriber)[0], subscribe.to_lowercase());
            if lost.is_empty() {
                assert_eq!(receive(&mut subscriber)[0], *message);
            }
        }
    }
    assert!(lost.is_empty(), "{} of 160 PUBLISHes reached nobody: {lost:?}", lost.len());
}

/// The same over all workers, and as long as a subscription may take: two channels in one SUBSCRIBE,
/// and the node of one of them does not answer.
#[test]
fn a_publish_waits_for_a_subscription_of_another_worker() {
    let Setting { proxy, cluster } =
        common::setting(&["--workers", "3", "--set", "timeouts.command=20s"]);
    let (channel, node) = ("odd:here", home(&cluster, "odd:here"));
    let elsewhere = |name: &String| home(&cluster, name).addr != node.addr;
    let far = (0..).map(|i| format!("odd:far:{i}")).find(elsewhere).unwrap();
    let mut publishers: Vec<Conn> = (0..6).map(|_| proxy.connect()).collect();
    for publisher in &mut publishers {
        assert_eq!(publisher.command(&["PUBLISH", channel, "early"]).unwrap().int(), Some(0));
    }
    let stopped = home(&cluster, &far);
    cluster.pause(&stopped).unwrap();
    let (mut subscriber, mut asker) = (proxy.connect(), proxy.connect());
    subscriber.send(&["SUBSCRIBE", channel, &far]).unwrap();
    eventually("the SUBSCRIBE was read", || {
        asker.command(&["CLIENT", "LIST"]).unwrap().text().unwrap().contains(" sub=2 ")
    });
    for (i, publisher) in publishers.iter_mut().enumerate() {
        publisher.send(&["PUBLISH", channel, &i.to_string()]).unwrap();
        publisher.send(&["PUBLISH", channel, &format!("{i} again")]).unwrap();
    }
    // What it cannot match does not wait, not even at the publisher's own side.
    assert_eq!(asker.command(&["PUBLISH", "odd:other", "m"]).unwrap().int(), Some(0));
    cluster.resume(&stopped).unwrap();
    for publisher in &mut publishers {
        for _ in 0..2 {
            assert_eq!(publisher.receive().unwrap().int(), Some(1));
        }
    }
    assert_eq!(receive(&mut subscriber), ["subscribe", channel, "1"]);
    assert_eq!(receive(&mut subscriber), ["subscribe", &far, "2"]);
    let mut heard = [const { Vec::new() }; 6];
    for _ in 0..12 {
        let message = receive(&mut subscriber);
        assert_eq!(message[..2], ["message", channel]);
        let from: usize = message[2].split(' ').next().unwrap().parse().unwrap();
        heard[from].push(message[2].clone());
    }
    for (i, heard) in heard.iter().enumerate() {
        assert_eq!(*heard, [i.to_string(), format!("{i} again")]);
    }
    assert!(proxy.metric("slotway_pubsub_publish_waits_total", "") >= 6.0);
}

/// It waits no longer than the subscription: not when that is given up, not when its client goes.
/// (A shard channel's node cannot be replaced by another one.)
#[test]
fn a_publish_does_not_wait_for_a_subscription_that_has_ended() {
    let Setting { proxy, cluster } = common::setting(&["--set", "timeouts.command=1s"]);
    let nodes = cluster.nodes().unwrap();
    let owner = |name: &str| {
        let slot = slot_of(name.as_bytes()).0;
        nodes.iter().find(|n| n.slots.iter().any(|range| range.contains(&slot))).unwrap()
    };
    let stopped = owner("odd:far");
    let elsewhere = |name: &String| owner(name).id != stopped.id;
    let channel = (0..).map(|i| format!("odd:here:{i}")).find(elsewhere).unwrap();
    let (mut publisher, mut asker) = (proxy.connect(), proxy.connect());
    let of_shard = |n: &&Node| n.id == stopped.id || n.primary.as_ref() == Some(&stopped.id);
    nodes.iter().filter(of_shard).for_each(|node| cluster.pause(node).unwrap());
    for goes in [false, true] {
        let mut subscriber = proxy.connect();
        subscriber.send(&["SSUBSCRIBE", &channel, "odd:far"]).unwrap();
        eventually("the SSUBSCRIBE was read", || {
            asker.command(&["CLIENT", "LIST"]).unwrap().text().unwrap().contains(" ssub=2 ")
        });
        publisher.send(&["SPUBLISH", &channel, "m"]).unwrap();
        if goes {
            drop(subscriber);
        } else {
            assert_is(&subscriber.receive().unwrap(), FailureId::Unsubscribed);
        }
        assert_eq!(publisher.receive().unwrap().int(), Some(0));
    }
    nodes.iter().filter(of_shard).for_each(|node| cluster.resume(node).unwrap());
}
