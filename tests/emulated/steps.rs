//! A node is gone at each step of each command that stores or moves over several slots: what was
//! there is still there, in the source, in the target or in both, and an error says so.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use slotway::cluster::slot_of;
use slotway::errors::{FailureId, Halfway, SomeSet, identify};
use slotway::sandbox::{Conn, Reply, Standalone, StandaloneOptions};

use super::relay::{Fault, HowLong, Relays, When, is_first};
use crate::common::errors::is_outcome_unknown;
use crate::common::{self, Proxy};

/// A command, what there is before it, and the key that it writes. `S` is a key of the first node,
/// `T` and `U` are two of the second one.
pub const CASES: &[(&str, &str, char)] = &[
    ("RENAME S T", "SET S kept", 'T'),
    ("RENAME S T", "SET S kept EX 100000; SET T other EX 200000", 'T'),
    ("RENAME S T", "RPUSH S kept also; SET T other", 'T'),
    ("RENAMENX S T", "HSET S kept also", 'T'),
    ("RENAMENX S T", "SET S kept; SET T taken", 'T'),
    ("COPY S T", "ZADD S 1 kept", 'T'),
    ("COPY S T REPLACE", "SET S kept EX 100000; SET T other", 'T'),
    ("SMOVE S T kept", "SADD S kept also; SADD T other", 'T'),
    ("SMOVE S T kept", "SADD S kept; SADD T kept other", 'T'),
    ("SMOVE S T kept", "SADD S kept; SADD T other", 'T'),
    ("LMOVE S T LEFT RIGHT", "RPUSH S kept also; RPUSH T other", 'T'),
    ("LMOVE S T RIGHT LEFT", "RPUSH S also kept", 'T'),
    ("RPOPLPUSH S T", "RPUSH S kept", 'T'),
    ("BLMOVE S T LEFT LEFT 0.3", "RPUSH S kept also kept", 'T'),
    ("BRPOPLPUSH S T 0.3", "RPUSH S kept kept; RPUSH T other", 'T'),
    ("SINTERSTORE T S U", "SADD S kept also; SADD U kept more; SADD T other", 'T'),
    ("SUNIONSTORE S T U", "SADD T kept; SADD U also; SET S other", 'S'),
    ("SDIFFSTORE S S T", "SADD S kept also; SADD T also", 'S'),
    ("ZUNIONSTORE S 2 T U WEIGHTS 2 1", "ZADD T 1 kept; ZADD U 2 also", 'S'),
    ("ZINTERSTORE T 2 S U", "ZADD S 1 kept; ZADD U 2 kept 3 also; ZADD T 1 other", 'T'),
    ("ZDIFFSTORE T 2 S U", "ZADD S 1 kept; ZADD U 3 also; ZADD T 1 other", 'T'),
    ("ZRANGESTORE T S 0 -1", "ZADD S 1 kept 2 also; ZADD T 1 other", 'T'),
    ("GEOSEARCHSTORE T S FROMLONLAT 0 0 BYRADIUS 500 km", "GEOADD S 1 1 kept; SET T other", 'T'),
    ("GEORADIUS S 0 0 500 km STORE T", "GEOADD S 1 1 kept", 'T'),
    ("SORT S ALPHA STORE T", "RPUSH S kept also; SET T other", 'T'),
    ("SORT S BY T* GET # GET U* STORE U", "RPUSH S 1 2 3", 'U'),
    ("BITOP XOR T S U", "SET S kept; SET U also; SET T other", 'T'),
    ("BITOP AND S S T", "SET S kept; SET T also", 'S'),
    ("PFMERGE T S", "PFADD S kept also; PFADD T other", 'T'),
    ("PFMERGE S T U", "PFADD T kept; PFADD U other", 'S'),
    ("MSETNX S kept T also", "SET U other", 'T'),
    ("MSETNX S kept T also", "SET U other; SET T taken", 'T'),
];

/// Those for which a node is gone for good as well, where not all are asked for
/// (`EMULATED_FAULTS=all`): each takes the command's deadline.
const FOR_GOOD: [&str; 5] = ["RENAME", "SMOVE", "LMOVE", "SUNIONSTORE", "MSETNX"];

/// More steps than any has.
const MOST_STEPS: usize = 40;

#[test]
fn a_node_gone_at_any_step() {
    let all = env::var("EMULATED_FAULTS").is_ok_and(|what| what == "all");
    let mut jobs = Vec::new();
    for how_long in [HowLong::AMoment, HowLong::ForGood] {
        let mut last = "";
        for (i, (command, ..)) in CASES.iter().enumerate() {
            let name = command.split(' ').next().unwrap_or_default();
            let once = FOR_GOOD.contains(&name) && name != last;
            last = name;
            if how_long == HowLong::AMoment || all || once {
                jobs.push((i, how_long));
            }
        }
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let struck = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut lane = Lane::start();
                while let Some((case, how_long)) = jobs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (faults, found) = lane.every_step(*case, *how_long);
                    struck.fetch_add(faults, Ordering::SeqCst);
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} faults of {} commands", struck.load(Ordering::SeqCst), CASES.len());
    assert!(struck.load(Ordering::SeqCst) > 4 * CASES.len(), "hardly any fault came about");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is in the servers: for each key its value, and whether it expires.
pub type State = BTreeMap<String, (Vec<String>, bool)>;

/// Two servers, two relays before them, a slotway before these; what a single server would do.
struct Lane {
    // Dropped in this order.
    proxy: Proxy,
    relays: Relays,
    servers: [Standalone; 2],
    reference: Standalone,
}

impl Lane {
    fn start() -> Lane {
        let server = || Standalone::start(StandaloneOptions::default()).expect("a server");
        let (reference, servers) = (server(), [server(), server()]);
        let relays = Relays::start(servers.each_ref().map(Standalone::addr));
        let mut args = vec!["--workers", "1"];
        for set in [
            "commands.cross_slot=emulate",
            "timeouts.command=200ms",
            "reconnect.max=20ms",
            "topology.min_interval=20ms",
        ] {
            args.extend(["--set", set]);
        }
        let make = |name: &str, program: &std::path::Path| reference.command(name, program);
        let proxy = Proxy::launch(make, &relays.seeds(), &args);
        common::eventually("slotway is ready", || {
            proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        Lane { proxy, relays, servers, reference }
    }

    /// The case with a fault at its first step, at its second, and so on. How often one came
    /// about, and what was wrong then.
    fn every_step(&mut self, case: usize, how_long: HowLong) -> (usize, Vec<String>) {
        let (mut struck, mut wrong) = (0, Vec::new());
        for when in [When::Before, When::Behind] {
            for step in 1..=MOST_STEPS {
                let fault = Fault { step, when, how_long };
                match self.one(case, Some(fault)) {
                    (true, found) => {
                        struck += 1;
                        wrong.extend(found);
                    }
                    (false, found) => {
                        // All steps were had: this is the command without a fault.
                        wrong.extend(found);
                        break;
                    }
                }
                assert!(step < MOST_STEPS, "{} has no end", CASES[case].0);
            }
        }
        (struck, wrong)
    }

    fn one(&mut self, case: usize, fault: Option<Fault>) -> (bool, Option<String>) {
        let (command, before, _) = CASES[case];
        let keys = Keys::of(case);
        let (before, command) = (keys.all_words(before), keys.words(command));
        let mut single = self.reference.connect().expect("a connection");
        let mut proxy = self.proxy.connect();
        for server in &self.servers {
            let mut conn = server.connect().expect("a connection");
            conn.command(&["FLUSHALL"]).expect("FLUSHALL");
        }
        single.command(&["FLUSHALL"]).expect("FLUSHALL");
        for words in &before {
            single.command(words).expect("a reply");
            // What the last fault has left takes a moment to be gone.
            common::eventually("slotway works with both", || {
                proxy.command(words).is_ok_and(|reply| reply.error().is_none())
            });
        }
        for key in [&keys.s, &keys.t] {
            common::eventually("slotway works with both", || {
                proxy.command(&["EXISTS", key]).is_ok_and(|reply| reply.error().is_none())
            });
        }
        let old = self.state();
        let reference = state(&mut single);
        let same = |a: &State, b: &State| a == b;
        // A key pushed twice by a repeated try would be a mistake of this test.
        assert!(same(&old, &reference), "before {command:?}: {old:?}, {reference:?}");
        let wanted = single.command(&command).expect("a reply");
        let new = state(&mut single);

        self.relays.arm(fault);
        let reply = proxy.command(&command).expect("a reply");
        let (steps, struck) = self.relays.heal();
        // What is still on its way, as a hold that is given up, is over soon.
        if struck {
            thread::sleep(Duration::from_millis(5));
        }
        let now = self.state();
        if env::var("EMULATED_SHOW").is_ok() {
            let what = fault.filter(|_| struck).map(|f| (f.step, f.when, f.how_long));
            println!("{} {what:?} {reply:?} {steps:?}", command.join(" "));
        }
        let wrong = judge(&old, &new, &now, &reply, &wanted, &keys, struck);
        let text = wrong.map(|why| {
            let shown: Vec<String> = steps.iter().map(|step| format!("      {step}\n")).collect();
            format!(
                "{why}\n   {command:?} after {before:?}, {fault:?}\n   reply {reply:?}\n   before \
                 {old:?}\n   now    {now:?}\n   wanted {new:?}\n{}",
                shown.concat()
            )
        });
        (struck, text)
    }

    /// Of both servers; without what expires by itself within seconds.
    fn state(&self) -> State {
        let mut all = State::new();
        for server in &self.servers {
            all.extend(state(&mut server.connect().expect("a connection")));
        }
        all
    }
}

/// What is wrong with the outcome.
pub fn judge(
    old: &State,
    new: &State,
    now: &State,
    reply: &Reply,
    wanted: &Reply,
    keys: &Keys,
    struck: bool,
) -> Option<String> {
    let Some(text) = reply.error() else {
        // Who waits does so while a node is gone, and may wait in vain.
        if struck && *reply == Reply::Nil {
            return (now != old).then(|| "nothing is there, it says, and took it".to_owned());
        }
        if reply != wanted {
            return Some(format!("another reply than {wanted:?}"));
        }
        return (now != new).then(|| "it says that it is done, and it is not".to_owned());
    };
    if wanted.error().is_some_and(|wanted| wanted == text) {
        return (now != old).then(|| "it is refused and something has changed".to_owned());
    }
    if !struck {
        return Some("it fails without a fault".to_owned());
    }
    // Every key is as it was, or as it is to be; only what goes from one to the other may be in
    // both for now.
    for key in now.keys().chain(old.keys()).chain(new.keys()) {
        if now.get(key) != old.get(key) && now.get(key) != new.get(key) {
            return Some(format!("{key} is neither as before nor as wanted"));
        }
    }
    for (key, (values, _)) in old {
        let lost = |value: &&String| {
            let still = |state: &State| state.values().any(|(all, _)| all.contains(value));
            // What the command itself takes away may be gone.
            !still(now) && still(new)
        };
        if let Some(value) = values.iter().find(lost) {
            return Some(format!("{value} of {key} is lost"));
        }
    }
    let error = identify(text).filter(|error| error.id == FailureId::StoppedHalfway);
    let told = is_outcome_unknown(text) || error.is_some();
    if now != old && !told {
        return Some("something has changed, and the error does not say so".to_owned());
    }
    let wrote = |key: &str| now.get(key) == new.get(key) && now.get(key) != old.get(key);
    let set = |set: &[&String], unknown: &[&String], others| {
        let [set, unknown] = [set, unknown].map(|keys| keys.iter().copied().cloned().collect());
        Halfway::Set(Box::new(SomeSet { set, unknown, others }))
    };
    let (s, t) = (&keys.s, &keys.t);
    let claims = [
        (Halfway::MayHaveWritten, keys.sources(old).all(|key| now.get(key) == old.get(key))),
        (Halfway::MayHaveRemoved, now.get(keys.target()) == new.get(keys.target())),
        (Halfway::Copied, now.contains_key(s)),
        (set(&[s], &[], true), wrote(s) && !wrote(t)),
        (set(&[s], &[t], false), wrote(s)),
        (set(&[], &[s], true), !wrote(t)),
    ];
    let said = error.as_ref()?.field("done")?;
    let lie = claims.iter().find(|(claim, holds)| claim.to_string() == said && !holds);
    lie.map(|(claim, _)| format!("it is not true that {claim}"))
}

/// The keys of a case: one of the first node, two of the second.
pub struct Keys {
    pub s: String,
    pub t: String,
    pub u: String,
    /// The one that the command writes.
    target: char,
}

impl Keys {
    fn of(case: usize) -> Keys {
        Keys::named(case, &case.to_string())
    }

    /// Those of a case that is had more than once.
    pub fn named(case: usize, label: &str) -> Keys {
        let find = |name: &str, first: bool| {
            let mut keys = (0..).map(|i| format!("{name}{label}:{i}"));
            keys.find(|key| is_first(slot_of(key.as_bytes()).0) == first).expect("a key")
        };
        let target = CASES[case].2;
        Keys { s: find("source", true), t: find("target", false), u: find("other", false), target }
    }

    fn target(&self) -> &str {
        match self.target {
            'S' => &self.s,
            'T' => &self.t,
            _ => &self.u,
        }
    }

    /// Of what there is, the keys that are not written to.
    fn sources<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a String> {
        state.keys().filter(|key| *key != self.target())
    }

    pub fn words(&self, line: &str) -> Vec<String> {
        let word = |word: &str| match word {
            "S" => self.s.clone(),
            "T" => self.t.clone(),
            "U" => self.u.clone(),
            "T*" => format!("{}*", self.t),
            "U*" => format!("{}*", self.u),
            word => word.to_owned(),
        };
        line.split(' ').map(word).collect()
    }

    pub fn all_words(&self, lines: &str) -> Vec<Vec<String>> {
        lines.split("; ").map(|line| self.words(line)).collect()
    }
}

pub fn state(conn: &mut Conn) -> State {
    let mut ask = |words: &[&str]| conn.command(words).expect("a reply");
    let keys = ask(&["KEYS", "*"]);
    let mut out = State::new();
    for key in keys.items().expect("keys") {
        let key = key.text().expect("a name");
        let ttl = ask(&["PTTL", &key]).int().expect("a time");
        if key.starts_with("slotway:") && (0..=60_000).contains(&ttl) {
            continue;
        }
        let kind = ask(&["TYPE", &key]).text().expect("a type");
        let value = match kind.as_str() {
            "string" => ask(&["GET", &key]),
            "list" => ask(&["LRANGE", &key, "0", "-1"]),
            "set" => ask(&["SMEMBERS", &key]),
            "zset" => ask(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]),
            "hash" => ask(&["HGETALL", &key]),
            other => panic!("{other}"),
        };
        let mut values = match value.items() {
            Some(items) => items.iter().map(|item| format!("{item:?}")).collect(),
            None => vec![format!("{value:?}")],
        };
        if kind == "set" {
            values.sort();
        }
        out.insert(key, (values, ttl >= 0));
    }
    out
}
