//! Nodes that go on refusing commands or losing connections, in each of the ways that make slotway
//! send a command again: what arrives at the nodes is counted and compared with the retry budget.

use std::time::Instant;

use super::{keys_where, words};
use slotway::sandbox::{Conn, Reply};

use super::fake_cluster::{Answer, FakeCluster};
use crate::common::errors::is_outcome_unknown;
use crate::common::{self, Proxy};

const CLIENTS: usize = 300;
/// How often a redirection to a known node is followed at no cost.
const FREE_REDIRECTIONS: u64 = 5;
const TRYAGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";
const LOADING: &str = "LOADING Redis is loading the dataset in memory";
const CLUSTERDOWN: &str = "CLUSTERDOWN The cluster is down";

/// A fake cluster behind slotway with a budget of this many retries per second and worker.
struct Refusing {
    proxy: Proxy,
    nodes: FakeCluster,
    workers: u64,
    per_second: u64,
}

impl Refusing {
    fn start(workers: u64) -> Refusing {
        Self::start_with(workers, &[])
    }

    fn start_with(workers: u64, args: &[&str]) -> Refusing {
        let nodes = FakeCluster::start();
        let workers_arg = workers.to_string();
        // The share of the commands that are answered is tested where the budget is.
        let mut own = vec!["--workers", &workers_arg, "--set", "timeouts.command=60s"];
        if args.is_empty() {
            own.extend(["--set", "retries.budget_percent=0"]);
        }
        let proxy = nodes.proxy(&[&own[..], args].concat());
        // Connected before: what follows is about commands, not about connections.
        let mut conn = proxy.connect();
        for key in keys(2) {
            assert!(conn.command(&["SET", &key, "v"]).expect("SET").is_ok());
        }
        Refusing { proxy, nodes, workers, per_second: 100 }
    }

    /// One client for each of these commands, which wait.
    fn send(&self, commands: impl Iterator<Item = Vec<String>>) -> Vec<Conn> {
        let clients = commands.map(|command| {
            let mut conn = self.proxy.connect();
            conn.set_timeout(Some(common::PATIENCE * 2)).expect("a timeout");
            conn.send(&command).expect("to send");
            conn
        });
        clients.collect()
    }

    /// Counts the calls from the start of `begin` until there have been `free` calls, which cost no
    /// budget, and three seconds' worth of retries. At most `free` calls, what the budget has earned
    /// meanwhile and one second's worth that was saved may have arrived.
    fn within_budget<T>(&self, name: &str, free: u64, begin: impl FnOnce() -> T) -> T {
        let (before, since) = (self.nodes.calls(name), Instant::now());
        let begun = begin();
        let budget = self.workers * self.per_second;
        let calls = || self.nodes.calls(name) - before;
        common::eventually("three seconds' worth of retries", || {
            // Counted first: what comes while the clock is read is not held against slotway.
            let (calls, millis) = (calls(), since.elapsed().as_millis() as u64);
            let most = free + budget + budget * millis / 1000 + self.workers;
            assert!(calls <= most, "{name}: {calls} calls in {millis} ms, at most {most}");
            millis >= 3_000
        });
        begun
    }

    /// The nodes are well again, and each client is answered.
    fn recover(&self, mut clients: Vec<Conn>, good: impl Fn(&Reply) -> bool) {
        self.nodes.answer(Answer::Good);
        for conn in &mut clients {
            let reply = conn.receive().expect("a reply");
            assert!(good(&reply), "{reply:?}");
        }
    }
}

/// Keys in slots of their own, on the two nodes in turn.
fn keys(count: usize) -> Vec<String> {
    keys_where(count, |slot, n| (slot.0 < 8192) == (n % 2 == 0))
}

/// One command per client: each in a slot of its own, or all in one.
fn sets(one_slot: bool) -> Vec<Vec<String>> {
    let keys = keys(CLIENTS).into_iter().enumerate();
    keys.map(|(i, key)| match one_slot {
        true => words(&format!("SET {{key}}:{i} v")),
        false => words(&format!("SET {key} v")),
    })
    .collect()
}

/// The refusal, for commands in one slot and in many, with so many workers.
fn sets_within_budget(answer: Answer, workers: u64, free: u64) {
    let refusing = Refusing::start(workers);
    for one_slot in [false, true] {
        refusing.nodes.answer(answer);
        let before = refusing.nodes.calls("SET");
        let clients = refusing.within_budget("SET", CLIENTS as u64 * (1 + free), || {
            refusing.send(sets(one_slot).into_iter())
        });
        let calls = refusing.nodes.calls("SET") - before;
        assert!(calls > 20, "{answer:?}: it was tried only {calls} times");
        refusing.recover(clients, Reply::is_ok);
    }
}

#[test]
fn tryagain() {
    for workers in [1, 2, 4] {
        sets_within_budget(Answer::Error(TRYAGAIN), workers, 0);
    }
}

#[test]
fn ask_in_circles() {
    for workers in [1, 2] {
        sets_within_budget(Answer::Away("ASK"), workers, FREE_REDIRECTIONS);
    }
}

#[test]
fn moved_in_circles() {
    for workers in [1, 2] {
        sets_within_budget(Answer::Away("MOVED"), workers, FREE_REDIRECTIONS);
    }
}

#[test]
fn loading() {
    for workers in [1, 2, 4] {
        sets_within_budget(Answer::Error(LOADING), workers, 0);
    }
}

#[test]
fn clusterdown_with_several_workers() {
    for workers in [2, 4] {
        sets_within_budget(Answer::Error(CLUSTERDOWN), workers, 0);
    }
}

#[test]
fn lost_replies() {
    let refusing = Refusing::start(1);
    refusing.nodes.answer(Answer::Lost);
    // Sent again once at no cost.
    let gets = keys(CLIENTS).into_iter().map(|key| words(&format!("GET {key}")));
    let clients = refusing.within_budget("GET", 2 * CLIENTS as u64, || refusing.send(gets));
    refusing.recover(clients, Reply::is_ok);
    // Writes are not sent again.
    refusing.nodes.answer(Answer::Lost);
    let before = refusing.nodes.calls("SET");
    for conn in &mut refusing.send(sets(false).into_iter()) {
        let reply = conn.receive().expect("a reply");
        let error = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
        assert!(is_outcome_unknown(error), "{error}");
    }
    let calls = refusing.nodes.calls("SET") - before;
    assert!(calls <= CLIENTS as u64, "{calls} SETs at the nodes");
}

#[test]
fn lost_blocking_commands() {
    let refusing = Refusing::start(1);
    refusing.nodes.answer(Answer::Lost);
    let all = keys(CLIENTS).into_iter().map(|key| words(&format!("BLPOP {key} 0")));
    let clients = refusing.within_budget("BLPOP", CLIENTS as u64, || refusing.send(all));
    refusing.recover(clients, |reply| *reply == Reply::Nil);
}

/// Each retry of a command for every node is one call at each of the two.
fn for_every_node_within_budget(line: &str, answer: Answer, free: u64) {
    let mut refusing = Refusing::start(1);
    refusing.per_second *= 2;
    refusing.nodes.answer(answer);
    let name = line.split(' ').next().unwrap_or_default();
    let send = || refusing.send((0..CLIENTS).map(|_| words(line)));
    let clients = refusing.within_budget(name, free * 2 * CLIENTS as u64, send);
    refusing.recover(clients, |reply| reply.error().is_none());
}

#[test]
fn commands_for_every_node() {
    for_every_node_within_budget("DBSIZE", Answer::Error(LOADING), 1);
    // Sent again once at no cost.
    for_every_node_within_budget("DBSIZE", Answer::Lost, 2);
    for_every_node_within_budget("KEYS *", Answer::Lost, 1);
}

#[test]
fn subscriptions() {
    for answer in [Answer::Error(CLUSTERDOWN), Answer::Lost] {
        let refusing = Refusing::start(1);
        refusing.nodes.answer(answer);
        let all = keys(CLIENTS).into_iter().map(|key| words(&format!("SSUBSCRIBE {key}")));
        let clients = refusing.within_budget("SSUBSCRIBE", CLIENTS as u64, || refusing.send(all));
        refusing.recover(clients, |reply| reply.items().is_some());
    }
}

/// The budget is configured at run time: the retries of commands that wait follow it.
#[test]
fn a_reload_changes_the_budget() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("slotway.toml");
    let configure = |per_second: u64| {
        let text = format!("[retries]\nbudget_percent = 0\nmin_per_second = {per_second}\n");
        std::fs::write(&file, text).expect("a configuration");
    };
    configure(20);
    let path = file.to_str().expect("a path");
    let mut refusing = Refusing::start_with(1, &["--config", path]);
    refusing.per_second = 20;
    refusing.nodes.answer(Answer::Error(TRYAGAIN));
    let free = CLIENTS as u64;
    let clients = refusing.within_budget("SET", free, || refusing.send(sets(false).into_iter()));
    let reload = |per_second: u64, times: f64| {
        configure(per_second);
        common::eventually("the configuration is in force", || {
            let changed = "outcome=\"changed\"";
            refusing.proxy.metric("slotway_config_reloads_total", changed) == times
        });
    };
    reload(1_000, 1.0);
    // 20 per second would take minutes.
    let before = refusing.nodes.calls("SET");
    common::eventually("more retries", || refusing.nodes.calls("SET") >= before + 1_500);
    reload(20, 2.0);
    // A second's worth of what the budget was may have been saved.
    refusing.within_budget("SET", 1_000, || ());
    refusing.recover(clients, Reply::is_ok);
}

/// A node that refuses the login is tried again with pauses, however many commands wait for it.
#[test]
fn refused_logins() {
    for error in ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required."] {
        let nodes = FakeCluster::start();
        let args = ["--workers", "2", "--set", "timeouts.command=60s", "--set"];
        let reconnect = ["reconnect.max=100ms", "--set", "upstream.password=secret"];
        let proxy = nodes.proxy(&[&args[..], &reconnect].concat());
        let refusing = Refusing { proxy, nodes, workers: 2, per_second: 100 };
        refusing.nodes.answer(Answer::NoLogin(error));
        // No connection of the workers stands yet.
        let clients = refusing.send(sets(false).into_iter());
        let logins = || refusing.nodes.calls("AUTH") + refusing.nodes.calls("HELLO");
        common::eventually("some attempts", || logins() >= 20);
        assert_eq!(refusing.nodes.calls("SET"), 0, "sent before the login");
        // Two workers with a connection to each of two nodes, and slotway's own, have pauses of
        // between 50 and 100 ms.
        let (before, since) = (logins(), Instant::now());
        common::eventually("three seconds", || {
            let (logins, millis) = (logins() - before, since.elapsed().as_millis() as u64);
            let most = 8 * (millis / 50 + 2);
            assert!(logins <= most, "{error}: {logins} logins in {millis} ms, at most {most}");
            millis >= 3_000
        });
        refusing.recover(clients, Reply::is_ok);
        assert_eq!(refusing.nodes.calls("SET"), CLIENTS as u64, "each once");
    }
}

/// What a node says while a script keeps it busy is for the client: it is not sent again.
#[test]
fn busy_nodes() {
    let refusing = Refusing::start(1);
    let busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL.";
    refusing.nodes.answer(Answer::Error(busy));
    let before = refusing.nodes.calls("SET");
    for conn in &mut refusing.send(sets(false).into_iter()) {
        assert_eq!(conn.receive().expect("a reply").error(), Some(busy));
    }
    assert_eq!(refusing.nodes.calls("SET") - before, CLIENTS as u64);
}

/// Nothing but errands waits for a slot that was refused, and it has no primary when the next of them
/// would go. They go when it has one again.
#[test]
fn errands_that_wait_for_a_refused_slot_go_to_its_next_primary() {
    let refusing = Refusing::start_with(1, &["--set", "topology.refresh=1s"]);
    let key = keys(1).remove(0);
    refusing.nodes.answer(Answer::Error(CLUSTERDOWN));
    let clients = refusing.send((0..4).map(|_| words(&format!("WATCH {key}"))));
    common::eventually("they are refused", || refusing.nodes.calls("WATCH") > 4);
    refusing.nodes.fail_first(true);
    common::eventually("the slot has no primary", || {
        refusing.proxy.get("/readyz").is_some_and(|(_, page)| page.contains("0-8191"))
    });
    // No more arrive: the time of the next has come and gone.
    let mut before = refusing.nodes.calls("WATCH");
    common::eventually("none is sent any more", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let calls = refusing.nodes.calls("WATCH");
        std::mem::replace(&mut before, calls) == calls
    });
    refusing.nodes.fail_first(false);
    refusing.recover(clients, Reply::is_ok);
}
