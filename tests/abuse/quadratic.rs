//! Tables that clients fill: what one more command costs does not grow with what others have put
//! there. CPU time is compared, which a busy machine does not change much.

use slotway::sandbox::{Conn, Reply};

use super::fake_cluster::{Answer, FakeCluster};
use crate::common::Proxy;

/// SUBSCRIBE and UNSUBSCRIBE of one client.
const PAIRS: usize = 4_000;

fn cpu_seconds(proxy: &Proxy) -> f64 {
    proxy.metric("process_cpu_seconds_total", "")
}

/// No node confirms the channel, for which many clients wait, while one client subscribes and
/// unsubscribes.
#[test]
fn a_channel_that_many_wait_for() {
    let cpu = [20, 1_000].map(|waiting| {
        let nodes = FakeCluster::start();
        let args = ["--workers", "1", "--set", "timeouts.command=10m"];
        let proxy = nodes.proxy(&args);
        nodes.answer(Answer::Silent);
        let mut others: Vec<Conn> = (0..waiting).map(|_| proxy.connect()).collect();
        for conn in &mut others {
            conn.send(&["SUBSCRIBE", "channel"]).expect("to send");
        }
        crate::common::eventually("all wait", || {
            proxy.metric("slotway_pubsub_subscriptions", "") >= waiting as f64
        });
        let mut conn = proxy.connect();
        let before = cpu_seconds(&proxy);
        for _ in 0..PAIRS / 100 {
            for _ in 0..100 {
                conn.send(&["SUBSCRIBE", "channel"]).expect("to send");
                conn.send(&["UNSUBSCRIBE", "channel"]).expect("to send");
            }
            for i in 0..200 {
                let reply = conn.receive().expect("a confirmation");
                let items = reply.items().unwrap_or_else(|| panic!("{reply:?}"));
                assert_eq!(items[2], Reply::Int(1 - i % 2), "{reply:?}");
            }
        }
        cpu_seconds(&proxy) - before
    });
    assert!(cpu[1] < 2.0 * cpu[0], "{cpu:?} s of CPU beside 20 and 1,000 clients that wait");
}
