//! The `redis` crate, sync and async, in both protocols: what Rust programs do every day.

use crate::common;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Commands, Connection, ErrorKind, Msg, PushKind,
    Script, ServerErrorKind, Value,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `SLOTWAY_TEST_ADDR`, or a slotway of our own.
fn addr() -> String {
    std::env::var("SLOTWAY_TEST_ADDR").unwrap_or_else(|_| common::shared().proxy.listen.to_string())
}

/// Clients with the crate's defaults, and set to each protocol.
fn clients() -> Vec<Client> {
    let urls = ["", "?protocol=resp2", "?protocol=resp3"];
    urls.map(|end| Client::open(format!("redis://{}/{end}", addr())).expect("a client")).into()
}

fn each_sync(test: impl Fn(&mut Connection)) {
    for client in clients() {
        test(&mut client.get_connection().expect("a connection"));
    }
}

fn each_async(test: impl AsyncFn(MultiplexedConnection)) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for client in clients() {
            // Its default gives up after half a second, which a busy machine may need.
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(common::PATIENCE));
            let connection = client.get_multiplexed_async_connection_with_config(&config).await;
            test(connection.expect("a connection")).await;
        }
    });
}

/// Key names that nobody else has, all over the slots.
fn keys() -> impl Fn(&str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    move |name| format!("rs:{name}:{mark}")
}

/// The same in one slot.
fn tagged_keys() -> impl Fn(&str) -> String {
    let key = keys();
    move |name| format!("{{{}}}{name}", key("tag"))
}

#[test]
fn strings_counters_and_expiry() {
    each_sync(|r| {
        let key = keys();
        let k = key("s");
        assert_eq!(r.get::<_, Option<String>>(&k).unwrap(), None);
        let _: () = r.set(&k, "größe").unwrap();
        assert_eq!(r.get::<_, String>(&k).unwrap(), "größe");
        assert_eq!(r.incr::<_, _, i64>(key("n"), 42).unwrap(), 42);
        let _: () = r.set_ex(&k, "x", 1000).unwrap();
        let ttl: i64 = r.ttl(&k).unwrap();
        assert!((900..=1000).contains(&ttl), "{ttl}");
        assert!(r.persist::<_, bool>(&k).unwrap());
        assert_eq!(r.get_del::<_, String>(&k).unwrap(), "x");
        let bytes: Vec<u8> = (0..=255).collect();
        let _: () = r.set(&k, &bytes).unwrap();
        assert_eq!(r.get::<_, Vec<u8>>(&k).unwrap(), bytes);
    });
}

#[test]
fn lists_hashes_sets_and_sorted_sets() {
    each_sync(|r| {
        let key = tagged_keys();
        assert_eq!(r.rpush::<_, _, i64>(key("l"), &["a", "b", "c"]).unwrap(), 3);
        assert_eq!(r.lrange::<_, Vec<String>>(key("l"), 0, -1).unwrap(), ["a", "b", "c"]);
        let _: () = r.hset_multiple(key("h"), &[("name", "Ada"), ("born", "1815")]).unwrap();
        let all: HashMap<String, String> = r.hgetall(key("h")).unwrap();
        assert_eq!(
            all,
            HashMap::from([("name".into(), "Ada".into()), ("born".into(), "1815".into())])
        );
        let _: () = r.sadd(key("s"), &["x", "y", "z"]).unwrap();
        let _: () = r.sadd(key("t"), &["y", "z"]).unwrap();
        let both: BTreeSet<String> = r.sinter(&[key("s"), key("t")]).unwrap();
        assert_eq!(both, BTreeSet::from(["y".into(), "z".into()]));
        let _: () = r.zadd_multiple(key("z"), &[(2.0, "two"), (1.5, "less")]).unwrap();
        let ranked: Vec<(String, f64)> = r.zrange_withscores(key("z"), 0, -1).unwrap();
        assert_eq!(ranked, [("less".into(), 1.5), ("two".into(), 2.0)]);
    });
}

#[test]
fn many_keys_in_many_slots() {
    each_sync(|r| {
        let key = keys();
        let names: Vec<String> = (0..300).map(|i| key(&format!("k{i}"))).collect();
        let pairs: Vec<(&String, usize)> = names.iter().zip(0..).collect();
        let _: () = r.mset(&pairs).unwrap();
        let mut asked = names.clone();
        asked.push(key("missing"));
        let values: Vec<Option<usize>> = r.mget(&asked).unwrap();
        let expected: Vec<Option<usize>> = (0..300).map(Some).chain([None]).collect();
        assert_eq!(values, expected);
        assert_eq!(r.exists::<_, i64>(&asked).unwrap(), 300);
        assert_eq!(r.del::<_, i64>(&asked).unwrap(), 300);
    });
}

#[test]
fn pipelines_keep_their_order() {
    each_sync(|r| {
        let key = keys();
        let mut pipe = redis::pipe();
        for i in 0..500 {
            pipe.set(key(&format!("k{i}")), i).ignore();
            pipe.get(key(&format!("k{i}")));
        }
        let values: Vec<usize> = pipe.query(r).unwrap();
        assert_eq!(values, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn errors_are_the_crate_s_own() {
    each_sync(|r| {
        let key = keys();
        let _: () = r.set(key("s"), "text").unwrap();
        let wrong = r.lpush::<_, _, i64>(key("s"), "x").unwrap_err();
        assert_eq!(wrong.code(), Some("WRONGTYPE"));
        let wrong = r.incr::<_, _, i64>(key("s"), 1).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
        assert!(wrong.to_string().contains("not an integer"), "{wrong}");
        let wrong = redis::cmd("NOSUCH").arg(key("s")).exec(r).unwrap_err();
        assert!(wrong.to_string().contains("unknown command"), "{wrong}");
        // and the connection goes on
        assert_eq!(r.get::<_, String>(key("s")).unwrap(), "text");
    });
}

#[test]
fn scripts_run_at_every_node() {
    each_sync(|r| {
        let key = keys();
        let code = format!("return redis.call('INCRBY', KEYS[1], ARGV[1]) -- {}", key("mark"));
        let script = Script::new(&code);
        for i in 0..50 {
            let name = key(&format!("k{i}"));
            assert_eq!(script.key(&name).arg(7).invoke::<i64>(r).unwrap(), 7);
        }
    });
}

#[test]
fn streams() {
    each_sync(|r| {
        let key = keys();
        let k = key("s");
        let id: String = r.xadd(&k, "1-1", &[("f", "v")]).unwrap();
        assert_eq!(id, "1-1");
        let _: () = r.xgroup_create(&k, "g", "0").unwrap();
        let options = StreamReadOptions::default().group("g", "c").count(10);
        let read: StreamReadReply = r.xread_options(&[&k], &[">"], &options).unwrap();
        assert_eq!(read.keys[0].ids[0].id, "1-1");
        assert_eq!(r.xack::<_, _, _, i64>(&k, "g", &["1-1"]).unwrap(), 1);
    });
}

#[test]
fn a_thousand_tasks_on_one_async_connection() {
    each_async(async |r| {
        let key = keys();
        let tasks: Vec<_> = (0..1000)
            .map(|i| {
                let (mut r, k) = (r.clone(), key(&format!("k{i}")));
                tokio::spawn(async move {
                    let _: () = r.set(&k, i).await.unwrap();
                    let _: i64 = r.incr(&k, 1).await.unwrap();
                    r.get::<_, i64>(&k).await.unwrap()
                })
            })
            .collect();
        for (i, task) in (0..).zip(tasks) {
            assert_eq!(task.await.unwrap(), i + 1);
        }
    });
}

#[test]
fn async_pipelines_and_errors() {
    each_async(async |mut r| {
        let key = keys();
        let mut pipe = redis::pipe();
        for i in 0..500 {
            pipe.incr(key(&format!("k{}", i % 100)), 1);
        }
        let values: Vec<i64> = pipe.query_async(&mut r).await.unwrap();
        assert_eq!(values, (0..500).map(|i| i / 100 + 1).collect::<Vec<_>>());
        let wrong = r.lpush::<_, _, i64>(key("k0"), "x").await.unwrap_err();
        assert_eq!(wrong.code(), Some("WRONGTYPE"));
        let names: Vec<String> = (0..100).map(|i| key(&format!("k{i}"))).collect();
        assert_eq!(r.mget::<_, Vec<i64>>(&names).await.unwrap(), vec![5; 100]);
        assert_eq!(r.unlink::<_, i64>(&names).await.unwrap(), 100);
    });
}

#[test]
fn the_server_and_the_connection_describe_themselves() {
    each_sync(|r| {
        assert_eq!(redis::cmd("PING").query::<String>(r).unwrap(), "PONG");
        let info: redis::InfoDict = redis::cmd("INFO").query(r).unwrap();
        assert!(info.get::<String>("redis_version").unwrap().starts_with("7."));
        let _: () = r.client_setname("billing").unwrap();
        assert_eq!(r.client_getname::<Option<String>>().unwrap().as_deref(), Some("billing"));
        assert!(redis::cmd("COMMAND").arg("COUNT").query::<i64>(r).unwrap() > 200);
        assert!(matches!(redis::cmd("TIME").query::<Value>(r).unwrap(), Value::Array(_)));
    });
}

/// Pattern, channel and payload.
fn told(message: &Msg) -> (Option<String>, String, String) {
    let pattern = message.from_pattern().then(|| message.get_pattern().expect("a pattern"));
    (pattern, message.get_channel_name().into(), message.get_payload().expect("a payload"))
}

#[test]
fn pubsub() {
    for client in clients() {
        let key = keys();
        let (a, pattern) = (key("a"), key("p*"));
        let mut publisher = client.get_connection().expect("a connection");
        let mut subscriber = client.get_connection().expect("a connection");
        let mut pubsub = subscriber.as_pubsub();
        pubsub.set_read_timeout(Some(common::PATIENCE)).unwrap();
        pubsub.subscribe(&[&a, &key("b")]).unwrap();
        pubsub.psubscribe(&pattern).unwrap();
        for i in 0..100 {
            assert_eq!(publisher.publish::<_, _, i64>(&a, i).unwrap(), 1);
        }
        for i in 0..100 {
            let message = pubsub.get_message().unwrap();
            assert_eq!(told(&message), (None, a.clone(), i.to_string()));
        }
        assert_eq!(publisher.publish::<_, _, i64>(key("pq"), "größe").unwrap(), 1);
        let message = pubsub.get_message().unwrap();
        assert_eq!(told(&message), (Some(pattern.clone()), key("pq"), "größe".into()));
        pubsub.unsubscribe(&a).unwrap();
        assert_eq!(publisher.publish::<_, _, i64>(&a, "late").unwrap(), 0);
        drop(pubsub);
        // The crate unsubscribes from the rest, and the connection is an ordinary one again.
        assert_eq!(publisher.publish::<_, _, i64>(key("pq"), "late").unwrap(), 0);
        assert_eq!(redis::cmd("PING").query::<String>(&mut subscriber).unwrap(), "PONG");
    }
}

#[test]
fn async_pubsub() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for client in clients() {
            let key = keys();
            let mut publisher = client.get_multiplexed_async_connection().await.unwrap();
            let (mut sink, mut stream) = client.get_async_pubsub().await.unwrap().split();
            for i in 0..50 {
                // while messages come in
                let channel = key(&format!("c{i}"));
                sink.subscribe(&channel).await.unwrap();
                assert_eq!(publisher.publish::<_, _, i64>(&channel, i).await.unwrap(), 1);
                let message = stream.next().await.expect("a message");
                assert_eq!(told(&message), (None, channel, i.to_string()));
            }
            sink.unsubscribe(key("c0")).await.unwrap();
            assert_eq!(publisher.publish::<_, _, i64>(key("c0"), "late").await.unwrap(), 0);
        }
    });
}

#[test]
fn pushes_beside_ordinary_commands() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let key = keys();
        let url = format!("redis://{}/?protocol=resp3", addr());
        let client = Client::open(url).expect("a client");
        let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_push_sender(sender)
            .set_response_timeout(Some(common::PATIENCE));
        let mut r = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        r.subscribe(key("a")).await.unwrap();
        r.psubscribe(key("p*")).await.unwrap();
        for kind in [PushKind::Subscribe, PushKind::PSubscribe] {
            assert_eq!(pushes.recv().await.expect("a push").kind, kind);
        }
        for i in 1..=100 {
            // published on the very connection that listens
            assert_eq!(r.publish::<_, _, i64>(key("a"), i).await.unwrap(), 1);
            assert_eq!(r.incr::<_, _, i64>(key("n"), 1).await.unwrap(), i);
            let message = Msg::from_push_info(pushes.recv().await.expect("a push")).unwrap();
            assert_eq!(told(&message), (None, key("a"), i.to_string()));
        }
        let _: () = redis::cmd("SSUBSCRIBE").arg(key("s")).query_async(&mut r).await.unwrap();
        assert_eq!(pushes.recv().await.expect("a push").kind, PushKind::SSubscribe);
        assert_eq!(r.spublish::<_, _, i64>(key("s"), "x").await.unwrap(), 1);
        assert_eq!(pushes.recv().await.expect("a push").kind, PushKind::SMessage);
    });
}
