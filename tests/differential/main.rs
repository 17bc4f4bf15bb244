//! The differential test: the same random commands, to a standalone server and through slotway,
//! must get the same reply bytes.
//!
//! What is sent is in `grammar.txt`, how replies that cannot be equal are compared and what is
//! known to differ is in `allow.txt`, each with its reason. From the environment:
//!
//! - `SLOTWAY_TEST_ADDR`: a running slotway; without it, a cluster and a slotway are started
//! - `DIFF_COMMANDS` (100000), `DIFF_SEED`, `DIFF_BATCH` (64); not named `SLOTWAY_…`, which would be
//!   configuration of the slotway that is started

#[path = "../common/mod.rs"]
mod common;
mod frame;
mod grammar;
mod rules;

use std::env;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use frame::Reader;
use grammar::{Command, Grammar, Rng, spoil};
use rules::{Rules, report};
use slotway::sandbox::{Standalone, StandaloneOptions};

/// After so many differences the rest says nothing new.
const MOST_DIFFERENCES: usize = 25;
/// Every so many commands all keys are removed.
const FLUSH_EVERY: usize = 5_000;

#[test]
fn replies_are_those_of_a_standalone_server() {
    let number = |name: &str, default: u64| -> u64 {
        env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: {v}")))
    };
    let commands = number("DIFF_COMMANDS", 100_000) as usize;
    let seed = number("DIFF_SEED", 20_240_607);
    let batch = number("DIFF_BATCH", 64) as usize;
    let how = format!("DIFF_SEED={seed} DIFF_COMMANDS={commands}");
    println!("{how}");

    let standalone = Standalone::start(StandaloneOptions::default()).expect("a server");
    let reference = standalone.addr().to_string();
    let through = through();
    let mut pairs = [2, 3].map(|protocol| Pair::open(protocol, &reference, &through.addr));
    let wrong = wrong_arity(&mut pairs[0].reference);
    let mut grammar = Grammar::read(include_str!("grammar.txt"));
    let mut rules = Rules::read(include_str!("allow.txt"));
    let mut rng = Rng(seed);
    let mut differences = Vec::new();

    for pair in &mut pairs {
        pair.both(&[Command::words(&["FLUSHALL"])]);
    }
    let (mut sent, mut flushes) = (0, 0);
    while sent < commands && differences.len() < MOST_DIFFERENCES {
        let mut these = Vec::new();
        while these.len() < batch.min(commands - sent) {
            these.extend(next(&mut grammar, &wrong, &mut rng));
        }
        if sent / FLUSH_EVERY > flushes {
            flushes = sent / FLUSH_EVERY;
            let kind = ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHDB SYNC"][flushes % 4];
            these.push(Command::words(&kind.split(' ').collect::<Vec<_>>()));
        }
        let which = rng.below(2);
        let replies = pairs[which].both(&these);
        let mut mend = Vec::new();
        for (i, (c, (reference, theirs))) in these.iter().zip(&replies).enumerate() {
            if rules.same(c, reference, theirs) {
                continue;
            }
            let text = report(c, reference, theirs);
            differences.push(format!("#{} in RESP{}\n{text}", sent + i, which + 2));
            mend.extend(c.keys.iter().map(|k| c.args[*k].clone()));
        }
        // one difference must not drag others behind it
        for key in mend {
            let mut del = Command::words(&["DEL"]);
            del.args.push(key);
            pairs[which].both(&[del]);
        }
        sent += these.len();
    }
    println!("{sent} commands, {} differences", differences.len());
    for line in rules.unused() {
        println!("allow.txt, not needed in this run: {line}");
    }
    assert!(
        differences.is_empty(),
        "\n{}\nagain with: {how} cargo test --release --test differential\n",
        differences.join("\n")
    );
}

/// A random command, now and then spoiled or wrong from the start.
fn next(grammar: &mut Grammar, wrong: &[Command], rng: &mut Rng) -> Vec<Command> {
    if rng.one_in(40) {
        return vec![wrong[rng.below(wrong.len())].clone()];
    }
    let mut commands = grammar.commands(rng);
    if rng.one_in(20) {
        spoil(&mut commands[0], rng);
    }
    if rng.one_in(10) {
        // names are found in any letter case
        commands[0].args[0].make_ascii_lowercase();
    }
    commands
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

/// The same protocol spoken to both sides.
struct Pair {
    reference: End,
    through: End,
}

impl Pair {
    fn open(protocol: u8, reference: &str, through: &str) -> Self {
        let mut pair = Pair { reference: End::open(reference), through: End::open(through) };
        let protocol = protocol.to_string();
        let hello = Command::words(&["HELLO", &protocol]);
        for (reference, theirs) in pair.both(&[hello]) {
            let same = frame::shape(&reference) == frame::shape(&theirs);
            assert!(same, "HELLO: {} and {}", frame::show(&reference), frame::show(&theirs));
        }
        pair
    }

    /// The replies to a pipeline, from both sides.
    fn both(&mut self, commands: &[Command]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut wire = Vec::new();
        commands.iter().for_each(|c| c.wire(&mut wire));
        self.reference.send(&wire);
        self.through.send(&wire);
        let pairs = commands
            .iter()
            .map(|c| (self.reference.reply(c, commands), self.through.reply(c, commands)));
        pairs.collect()
    }
}

/// One connection.
struct End {
    name: String,
    stream: TcpStream,
    replies: Reader,
}

impl End {
    fn open(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
        stream.set_nodelay(true).unwrap();
        // no reply in this time means that none will come
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let replies = Reader::new(stream.try_clone().unwrap());
        End { name: addr.to_string(), stream, replies }
    }

    fn send(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    fn reply(&mut self, to: &Command, batch: &[Command]) -> Vec<u8> {
        self.replies.next().unwrap_or_else(|e| {
            let all: Vec<String> = batch.iter().map(Command::show).collect();
            panic!(
                "{}: {e}\nwaiting for the reply to {}\nof\n{}",
                self.name,
                to.show(),
                all.join("\n")
            )
        })
    }

    fn ask(&mut self, c: &Command) -> Vec<u8> {
        let mut wire = Vec::new();
        c.wire(&mut wire);
        self.send(&wire);
        self.reply(c, &[])
    }
}

/// What is compared with the standalone server.
struct Through {
    addr: String,
    _own: Option<common::Setting>,
}

fn through() -> Through {
    match env::var("SLOTWAY_TEST_ADDR") {
        Ok(addr) => Through { addr, _own: None },
        Err(_) => {
            let own = common::setting(&[]);
            Through { addr: own.proxy.listen.to_string(), _own: Some(own) }
        }
    }
}
