//! A quiet client and a liveness probe that are served while another client abuses slotway.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slotway::sandbox::Reply;

use crate::common::Proxy;

/// What became of the quiet client's commands.
#[derive(Debug)]
pub struct Served {
    /// Commands that were answered: all that were sent.
    pub commands: usize,
    /// Requests to `/healthz` that were answered with 200: all that were sent.
    pub probes: usize,
    /// CPU seconds that slotway used meanwhile.
    pub cpu: f64,
}

/// Runs `abuse` while a quiet client sends one INCR after the other and `/healthz` is asked again
/// and again, each at least once after the abuse is over. Panics where one of them is not answered.
/// Prints the quiet client's latency.
pub fn served_beside(proxy: &Proxy, what: &str, abuse: impl FnOnce()) -> Served {
    /// Ends the others even where the abuse panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let over = AtomicBool::new(false);
    let cpu = cpu_seconds(proxy);
    let (mut times, probes) = thread::scope(|scope| {
        let quiet = scope.spawn(|| {
            let mut conn = proxy.connect();
            let key = format!("quiet:{what}");
            let mut times = Vec::new();
            loop {
                let last = over.load(Ordering::SeqCst);
                let since = Instant::now();
                let reply = conn.command(&["INCR", &key]).expect("the quiet client's reply");
                times.push(since.elapsed());
                assert_eq!(reply, Reply::Int(times.len() as i64), "the quiet client, {what}");
                if last {
                    return times;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let probe = scope.spawn(|| {
            let mut probes = 0;
            loop {
                let last = over.load(Ordering::SeqCst);
                let answer = proxy.get("/healthz").map(|(status, _)| status);
                assert_eq!(answer, Some(200), "/healthz, {what}");
                probes += 1;
                if last {
                    return probes;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        {
            let _over = Over(&over);
            abuse();
        }
        (quiet.join().expect("the quiet client"), probe.join().expect("the probe"))
    });
    let cpu = cpu_seconds(proxy) - cpu;
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    eprintln!(
        "{what}: {} commands of the quiet client, p99 {p99:?}, slowest {:?}; {probes} probes; \
         {cpu:.2} s of CPU",
        times.len(),
        times[times.len() - 1],
    );
    Served { commands: times.len(), probes, cpu }
}

/// The CPU time that the process has used.
fn cpu_seconds(proxy: &Proxy) -> f64 {
    proxy.metric("process_cpu_seconds_total", "")
}
