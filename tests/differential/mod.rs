//! The differential test: the same random commands, to a standalone server and through slotway,
//! must get the same reply bytes.
//!
//! What is sent is in `grammar.txt`, how replies that cannot be equal are compared and what is
//! known to differ is in `allow.txt`, each with its reason. The versions compared are Redis 7.0 and
//! the newest Redis and Valkey that a package registry has; `newer` has the texts about those two.
//! From the environment:
//!
//! - `SLOTWAY_TEST_ADDR`: a running slotway; without it, a cluster and a slotway are started;
//!   `DIFF_EMULATING`: besides, one with `commands.cross_slot = "emulate"`
//! - `DIFF_COMMANDS` (100000), `DIFF_SEED`, `DIFF_BATCH` (64); not named `SLOTWAY_…`, which would be
//!   configuration of the slotway that is started
//! - `DIFF_THOROUGH`: newer servers than 7.0 get as many commands as 7.0, and all conversations, as
//!   in `make conformance`; without it a part of them, as in CI
//! - `DIFF_EMULATED` (15000): so many with keys in any slots, through a slotway that emulates the
//!   commands over several: emulated.txt and allow-emulated.txt

mod coverage;
mod ends;
mod frame;
mod grammar;
mod judge;
mod rules;
mod spoil;
mod units;
mod version;

use std::collections::BTreeMap;
use std::env;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common;
use ends::{End, Pair};
use grammar::{Command, Grammar, Rng, any_tag};
use rules::Rules;
use slotway::sandbox::{Cluster, ClusterOptions, Standalone, StandaloneOptions};
use spoil::{spoil, spoil_anyhow};
use units::Unit;
use version::Version;

/// After so many differences the rest says nothing new.
const MOST_DIFFERENCES: usize = 25;
/// Every so many commands all keys are removed.
const FLUSH_EVERY: usize = 5_000;

/// The tests of each server version.
macro_rules! compared_with {
    ($($name:ident: $version:expr;)*) => {$(
        mod $name {
            use super::version;

            #[test]
            fn replies() {
                super::replies(&$version);
            }

            #[test]
            fn replies_over_several_slots() {
                super::replies_over_several_slots(&$version);
            }

            #[test]
            fn conversations() {
                super::conversations(&$version);
            }

            #[test]
            fn pubsub() {
                super::pubsub(&$version);
            }

            #[test]
            fn every_command_of_the_table_is_compared_or_said_not_to_be() {
                super::coverage::every_command(&$version);
            }

            #[test]
            fn every_option_of_a_command_is_compared() {
                super::coverage::every_option(&$version);
            }
        }
    )*};
}

compared_with! {
    redis_7: version::REDIS_7;
    redis_8: version::REDIS_8;
    valkey_9: version::VALKEY_9;
}

fn replies(version: &'static Version) {
    let sides = sides(version);
    let mut pairs = sides.pairs();
    let mut grammar = Grammar::read(&version.grammar()).without(version.not_sent());
    let mut rules = Rules::read(&version.allow());
    let commands = if is_thorough(version) { 100_000 } else { 10_000 };
    compare("DIFF_COMMANDS", commands, &mut pairs, &mut grammar, &mut rules);
}

fn replies_over_several_slots(version: &'static Version) {
    let sides = sides(version);
    let Some(through) = &sides.emulating else { return };
    let mut pairs = [2, 3].map(|p| Pair::open(p, &sides.reference, through, false));
    let grammar = Grammar::scattered(&version.grammar(), &version::text("emulated.txt"));
    let mut grammar = grammar.without(version.not_sent());
    let mut rules = Rules::read(&version.allow_emulated());
    let commands = if is_thorough(version) { 15_000 } else { 5_000 };
    compare("DIFF_EMULATED", commands, &mut pairs, &mut grammar, &mut rules);
}

/// Whether everything is sent to this version: newer ones get a part of it, but for
/// `make conformance`.
fn is_thorough(version: &Version) -> bool {
    !version.is_newer() || env::var_os("DIFF_THOROUGH").is_some()
}

/// Sends so many random commands (or as many as the environment says) to both sides.
fn compare(
    variable: &str,
    commands: u64,
    pairs: &mut [Pair],
    grammar: &mut Grammar,
    rules: &mut Rules,
) {
    let commands = number(variable, commands) as usize;
    let seed = number("DIFF_SEED", 20_240_607);
    let batch = number("DIFF_BATCH", 64) as usize;
    let how = format!("DIFF_SEED={seed} {variable}={commands}");
    println!("{how}");
    let wrong = wrong_arity(&mut pairs[0].reference);
    let mut rng = Rng(seed);
    let mut differences: Vec<String> = Vec::new();
    // One and the same thing is told once.
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();

    for pair in pairs.iter_mut() {
        pair.both(&[Command::words(&["FLUSHALL"])], |_| false);
    }
    let (mut sent, mut flushes) = (0, 0);
    while sent < commands && differences.len() < MOST_DIFFERENCES {
        let which = rng.below(pairs.len());
        let pair = &mut pairs[which];
        let mut these = Vec::new();
        while these.len() < batch.min(commands - sent) {
            these.extend(next(grammar, &wrong, pair.any_slots, &mut rng));
        }
        if sent / FLUSH_EVERY > flushes {
            flushes = sent / FLUSH_EVERY;
            let kind = ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHDB SYNC"][flushes % 4];
            these.push(Command::words(&kind.split(' ').collect::<Vec<_>>()));
        }
        let typed: Vec<bool> = these.iter().map(|_| rng.one_in(15)).collect();
        let replies = pair.both(&these, |i| typed[i]);
        let mut mend = Vec::new();
        for (i, (c, (reference, theirs))) in these.iter().zip(&replies).enumerate() {
            let within = pair.queued.clone();
            let found = judge::compare(rules, &mut pair.queued, c, reference, theirs);
            if found.is_none() && !std::mem::take(&mut rules.spread) {
                continue;
            }
            if let Some(text) = found {
                let kind = kinds.entry(kind_of(c, theirs)).or_default();
                *kind += 1;
                if *kind == 1 {
                    let before: String = (i.saturating_sub(BEFORE)..i)
                        .map(|j| rules::report(&these[j], &replies[j].0, &replies[j].1))
                        .collect();
                    let at = sent + i;
                    differences.push(format!("#{at} in {}\n{text}\nbehind\n{before}", pair.name));
                }
            }
            let keys = [c].into_iter().chain(&within);
            mend.extend(keys.flat_map(|c| c.keys.iter().map(|k| c.args[*k].clone())));
        }
        // one difference must not drag others behind it
        for key in mend {
            let mut del = Command::words(&["DEL"]);
            del.args.push(key);
            pair.both(&[del], |_| false);
        }
        if grammar.scattered && rng.one_in(20) {
            let keys: Vec<Vec<u8>> = (0..20).map(|_| grammar.any_key(&mut rng)).collect();
            pair.expire(&keys);
        }
        sent += these.len();
    }
    let all: usize = kinds.values().sum();
    println!("{sent} commands, {all} differences of {} kinds", kinds.len());
    for line in rules.unused() {
        println!("allow.txt, not needed in this run: {line}");
    }
    assert!(
        differences.is_empty(),
        "\n{}\nagain with: {how} cargo test --release --test integration differential::\n",
        differences.join("\n")
    );
}

/// Commands before a difference that are told with it.
const BEFORE: usize = 12;

fn conversations(version: &'static Version) {
    let all = is_thorough(version);
    converse(version, if all { version.units("units.txt") } else { version.own_units() });
}

fn pubsub(version: &'static Version) {
    let mut units = Unit::read_all(&version::text("pubsub.txt"));
    units.iter_mut().for_each(|unit| unit.to_the_end = true);
    if !is_thorough(version) {
        units.clear();
    }
    converse(version, units);
}

/// `DIFF_UNIT=part-of-a-name`: only these.
fn converse(version: &'static Version, mut units: Vec<Unit>) {
    let sides = sides(version);
    let only = env::var("DIFF_UNIT").unwrap_or_default();
    let mut grammar = Grammar::read(&version.grammar());
    let mut rules = Rules::read(&version.allow());
    let seed = number("DIFF_SEED", 20_240_607);
    let mut rng = Rng(seed);
    units.retain(|unit| unit.name.contains(&only));
    let mut differences = Vec::new();
    let mut had = 0;
    for unit in &units {
        for &protocol in unit.protocols() {
            let special = match &unit.name {
                name if name.ends_with("(split)") => sides.split.as_ref(),
                name if name.ends_with("(emulate)") => match &sides.emulating {
                    None => continue,
                    emulating => emulating.as_ref(),
                },
                _ => None,
            };
            let addrs = [sides.reference.as_str(), special.unwrap_or(&sides.through)];
            for addr in addrs {
                for what in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
                    End::open(addr).ask(&Command::words(what));
                }
            }
            let same = units::run(unit, protocol, addrs, &mut grammar, &mut rules, &mut rng);
            differences.extend(same.err());
            had += 1;
        }
    }
    println!("{had} conversations, {} differences", differences.len());
    assert!(
        differences.is_empty(),
        "\n{}\nagain with: DIFF_SEED={seed} cargo test --release --test integration differential::\n",
        differences.join("\n")
    );
}

/// The command's name, and what slotway said if that was an error.
fn kind_of(c: &Command, theirs: &[u8]) -> String {
    let name = c.args.first().map(|a| a.to_ascii_uppercase()).unwrap_or_default();
    let error = if frame::is_error(theirs) { theirs } else { b"" };
    format!("{} {}", frame::show(&name), frame::show(&error[..error.len().min(60)]))
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: {v}")))
}

/// A random command, now and then spoiled or wrong from the start; or a transaction of some.
fn next(grammar: &mut Grammar, wrong: &[Command], any_slots: bool, rng: &mut Rng) -> Vec<Command> {
    if rng.one_in(40) {
        return vec![wrong[rng.below(wrong.len())].clone()];
    }
    if rng.one_in(40) {
        return transaction(grammar, wrong, any_slots, rng);
    }
    let mut commands = grammar.commands(rng);
    if rng.one_in(20) {
        // What follows may be there to remove what came of it by chance.
        let anyhow = grammar.scattered && commands.len() == 1;
        let how: fn(&mut Command, &mut Rng) = if anyhow { spoil_anyhow } else { spoil };
        how(&mut commands[0], rng);
    }
    if rng.one_in(10) {
        // names are found in any letter case
        commands[0].args[0].make_ascii_lowercase();
    }
    commands
}

/// MULTI, some commands, EXEC or DISCARD; now and then with something that makes EXEC refuse it.
fn transaction(
    grammar: &mut Grammar,
    wrong: &[Command],
    any_slots: bool,
    rng: &mut Rng,
) -> Vec<Command> {
    let tag = any_tag(rng);
    let mut out = Vec::new();
    if rng.one_in(6) {
        let mut watch = Command::words(&["WATCH"]);
        watch.args.push(format!("{tag}str:1").into_bytes());
        out.push(watch);
        if rng.one_in(3) {
            // Changed by the watching connection itself: EXEC answers null.
            let mut set = Command::words(&["SETEX"]);
            set.args.extend([
                format!("{tag}str:1").into_bytes(),
                b"100000".to_vec(),
                b"v".to_vec(),
            ]);
            out.push(set);
        }
    }
    out.push(Command::words(&["MULTI"]));
    let fatal = rng.one_in(6);
    for _ in 0..rng.below(9) {
        let mut c = match rng.below(60) {
            0 if grammar.sends("MULTI") => Command::words(&["MULTI"]),
            1 if grammar.sends("WATCH") => Command::words(&["WATCH", "k"]),
            2 => Command::words(&["PING"]),
            3 => Command::words(&["ECHO", "within"]),
            _ => grammar.for_transaction((!any_slots).then_some(tag), rng),
        };
        // An argument more behind a key may be one more key, in another slot.
        let ends_with_key = c.keys.last() == Some(&(c.args.len() - 1));
        // MSET's pairs made uneven are found by a server in EXEC, by slotway as it takes it apart.
        let pairs = c.args[0].to_ascii_uppercase().starts_with(b"MSET");
        if rng.one_in(20) && !pairs && (any_slots || !ends_with_key) {
            spoil(&mut c, rng);
        }
        out.push(c);
        if fatal && rng.one_in(3) {
            out.push(wrong[rng.below(wrong.len())].clone());
        }
        if fatal && rng.one_in(10) {
            out.push(Command::words(&["NOSUCHCOMMAND", "k"]));
        }
    }
    // EXEC with an argument has ended it: then this is one without MULTI
    out.push(Command::words(&[if rng.one_in(6) { "DISCARD" } else { "EXEC" }]));
    if fatal {
        // A WATCH behind such an EXEC watches, and the next transaction is in another slot.
        out.push(Command::words(&["UNWATCH"]));
    }
    out
}

/// Every command and subcommand of the server, called with too few and too many arguments.
fn wrong_arity(server: &mut End) -> Vec<Command> {
    let table = server.ask(&Command::words(&["COMMAND"]));
    let mut out = Vec::new();
    for entry in frame::parts(&table).expect("COMMAND is an array") {
        let fields = frame::parts(entry).expect("an entry is an array");
        wrong_calls(&fields, &mut out);
        for sub in frame::parts(fields[9]).expect("subcommands are an array") {
            wrong_calls(&frame::parts(sub).expect("an entry is an array"), &mut out);
        }
    }
    assert!(out.len() > 500, "COMMAND gave only {} wrong calls", out.len());
    // A server names its commands in another order each time, and a seed is to say all.
    out.sort_by(|a, b| a.args.cmp(&b.args));
    out
}

fn wrong_calls(entry: &[&[u8]], out: &mut Vec<Command>) {
    let name = String::from_utf8_lossy(entry[0]).into_owned();
    let name = name.split("\r\n").nth(1).expect("a name is a bulk string");
    let words: Vec<&str> = name.split('|').collect();
    let arity = frame::integer(entry[1]).expect("arity is an integer");
    let mut call = |count: usize| {
        let mut c = Command::words(&words);
        c.args.resize(count, b"k".to_vec());
        out.push(c);
    };
    let needed = arity.unsigned_abs() as usize;
    if needed > words.len() {
        call(words.len());
        call(needed - 1);
    }
    if arity > 0 {
        call(needed + 1);
        call(needed + 20);
    }
}

/// What is compared, for all tests of this binary.
pub(crate) struct Sides {
    reference: String,
    /// A slotway with the settings that it comes with.
    through: String,
    /// One that takes transactions over several slots apart.
    split: Option<String>,
    /// One that emulates commands over several slots.
    emulating: Option<String>,
    // Dropped in this order.
    _own: Option<([common::Proxy; 3], Cluster)>,
    _standalone: Standalone,
}

impl Sides {
    fn start(version: &Version) -> Sides {
        let program = version.program();
        let options = StandaloneOptions { program: program.clone(), ..Default::default() };
        let standalone = Standalone::start(options).expect("a server");
        let reference = standalone.addr().to_string();
        let (through, special, own) = match env::var("SLOTWAY_TEST_ADDR") {
            Ok(addr) if !version.is_newer() => {
                (addr, [None, env::var("DIFF_EMULATING").ok()], None)
            }
            _ => {
                let options = ClusterOptions { program, ..Default::default() };
                let cluster = Cluster::start(options).expect("a cluster");
                let settings = [
                    &[][..],
                    &["--set", "transactions.cross_slot=split"],
                    &["--set", "commands.cross_slot=emulate"],
                ];
                let proxies = settings.map(|set| common::Proxy::start(&cluster, set));
                let [through, split, emulating] =
                    proxies.each_ref().map(|proxy| proxy.listen.to_string());
                (through, [Some(split), Some(emulating)], Some((proxies, cluster)))
            }
        };
        let [split, emulating] = special;
        for addr in [&reference, &through] {
            // A server looks for timeouts that are over so often.
            End::open(addr).ask(&Command::words(&["CONFIG", "SET", "hz", "500"]));
        }
        Sides { reference, through, split, emulating, _own: own, _standalone: standalone }
    }

    /// Connections to both, in each protocol.
    fn pairs(&self) -> Vec<Pair> {
        let plain = [2, 3].map(|p| Pair::open(p, &self.reference, &self.through, false));
        let split = self.split.iter();
        let split =
            split.flat_map(|addr| [2, 3].map(|p| Pair::open(p, &self.reference, addr, true)));
        plain.into_iter().chain(split).collect()
    }
}

/// One test at a time has the servers of a version to itself.
fn sides(version: &'static Version) -> MutexGuard<'static, Sides> {
    let sides = version.sides.get_or_init(|| Mutex::new(Sides::start(version)));
    let sides = sides.lock().unwrap_or_else(PoisonError::into_inner);
    // Each slotway counts what the other has subscribed for the test before: a moment longer than
    // anybody listens.
    let special = [&sides.split, &sides.emulating];
    for addr in special.into_iter().flatten().chain([&sides.through]) {
        common::eventually("no patterns are left", || {
            End::open(addr).ask(&Command::words(&["PUBSUB", "NUMPAT"])) == b":0\r\n"
        });
    }
    sides
}
