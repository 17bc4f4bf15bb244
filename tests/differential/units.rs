//! Reads units.txt and pubsub.txt, the conversations on several connections, and has them with
//! both sides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ends::End;
use super::frame;
use super::grammar::{Command, Grammar, Rng, Shape, any_tag};
use super::judge::{self, Queued};
use super::rules::{Rules, report};

/// How long a client that is to block may take to be blocked.
const PATIENCE: Duration = Duration::from_secs(5);

/// One conversation.
pub struct Unit {
    pub name: String,
    /// Whether all connections say QUIT in the end, and what comes until then is compared.
    pub to_the_end: bool,
    steps: Vec<(String, Step)>,
}

enum Step {
    Ask(char, Shape),
    Send(char, Shape),
    Take(char, usize, Order),
    Blocked(usize),
    Silent(char, Shape),
    Iterate(char, Shape),
    Capture(char, String, Shape),
    Bytes(char, Shape),
    Closed(char),
    Close(char),
}

impl Unit {
    pub fn read_all(text: &str) -> Vec<Unit> {
        let mut units: Vec<Unit> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("== ") {
                let name = name.to_string();
                units.push(Unit { name, to_the_end: false, steps: Vec::new() });
            } else if !line.is_empty() && !line.starts_with('#') {
                let unit = units.last_mut().expect("units.txt: a unit has a name first");
                unit.steps.push((line.to_string(), Step::read(line)));
            }
        }
        units
    }

    /// The protocols it is had in.
    pub fn protocols(&self) -> &'static [u8] {
        match self.name.rsplit_once(' ') {
            Some((_, "(RESP2)")) => &[2],
            Some((_, "(RESP3)")) => &[3],
            _ => &[2, 3],
        }
    }

    /// The shapes of all commands in it.
    pub fn shapes(&self) -> impl Iterator<Item = &Shape> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::Ask(_, s)
            | Step::Send(_, s)
            | Step::Silent(_, s)
            | Step::Iterate(_, s)
            | Step::Capture(_, _, s) => Some(s),
            Step::Bytes(..)
            | Step::Take(..)
            | Step::Blocked(_)
            | Step::Closed(_)
            | Step::Close(_) => None,
        })
    }
}

impl Step {
    fn read(line: &str) -> Step {
        let (who, rest) = line.split_once(' ').unwrap_or((line, ""));
        if who == "blocked" {
            return Step::Blocked(rest.parse().expect("units.txt: blocked N"));
        }
        let mut chars = who.chars();
        let conn = chars.next().filter(char::is_ascii_uppercase);
        let conn = conn.unwrap_or_else(|| panic!("units.txt: no connection: {line}"));
        match (chars.as_str(), rest) {
            ("", "closed") => Step::Closed(conn),
            ("", "close") => Step::Close(conn),
            ("", command) => Step::Ask(conn, Shape::read(command)),
            ("<", command) => Step::Send(conn, Shape::read(command)),
            (">", "") => Step::Take(conn, 1, Order::Given),
            (order @ (">" | "%" | "!"), count) => {
                let order = match order {
                    ">" => Order::Given,
                    "%" => Order::Any,
                    _ => Order::AnyNames,
                };
                Step::Take(conn, count.parse().expect("units.txt: A> N"), order)
            }
            ("-", command) => Step::Silent(conn, Shape::read(command)),
            ("@", command) => Step::Iterate(conn, Shape::read(command)),
            ("~", bytes) => Step::Bytes(conn, Shape::read(bytes)),
            ("=", rest) => {
                let (name, command) = rest.split_once(' ').expect("units.txt: A= x COMMAND");
                Step::Capture(conn, name.to_string(), Shape::read(command))
            }
            _ => panic!("units.txt: what is this: {line}"),
        }
    }
}

/// How several replies stand to each other.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Given,
    Any,
    /// Confirmations: their counts as given, their names in any order.
    AnyNames,
}

/// One of the two that are compared, as a unit sees it.
struct Side {
    addr: String,
    protocol: u8,
    ends: BTreeMap<char, End>,
    remembered: BTreeMap<String, Vec<u8>>,
}

impl Order {
    /// What must be equal on both sides.
    fn sorted(self, replies: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = match self {
            Order::Given => return replies.to_vec(),
            Order::Any => replies.to_vec(),
            Order::AnyNames => {
                let place = |(at, reply): (usize, &Vec<u8>)| {
                    let parts = frame::parts(reply).unwrap_or_default();
                    let [kind, name, count] = parts[..] else { return vec![reply.clone()] };
                    let counted = [frame::shape(reply).as_bytes(), kind, count].concat();
                    vec![[format!("{at} ").as_bytes(), &counted].concat(), name.to_vec()]
                };
                replies.iter().enumerate().flat_map(place).collect()
            }
        };
        all.sort_unstable();
        all
    }
}

impl Side {
    fn new(addr: &str, protocol: u8) -> Side {
        Side {
            addr: addr.to_string(),
            protocol,
            ends: BTreeMap::new(),
            remembered: BTreeMap::new(),
        }
    }

    fn end(&mut self, name: char) -> &mut End {
        let (addr, protocol) = (&self.addr, self.protocol);
        self.ends.entry(name).or_insert_with(|| End::speaking(protocol, addr))
    }

    fn send(&mut self, name: char, c: &Command) {
        let mut c = c.clone();
        for arg in &mut c.args {
            let known = std::str::from_utf8(arg).ok().and_then(|a| a.strip_prefix('$'));
            if let Some(value) = known.and_then(|name| self.remembered.get(name)) {
                arg.clone_from(value);
            }
        }
        let mut wire = Vec::new();
        c.wire(&mut wire);
        self.end(name).send(&wire);
    }

    fn ask(&mut self, name: char, c: &Command) -> Result<Vec<u8>, String> {
        self.send(name, c);
        self.end(name).receive()
    }

    fn take(&mut self, name: char, count: usize) -> Result<Vec<Vec<u8>>, String> {
        (0..count).map(|_| self.end(name).receive()).collect()
    }

    /// What each connection gets after a QUIT until its end, for people to read and to compare.
    fn quit(&mut self) -> String {
        let all: Vec<char> = self.ends.keys().copied().collect();
        let mut out = String::new();
        for name in all {
            let mut rest = Vec::new();
            let mut reply = self.ask(name, &Command::words(&["QUIT"]));
            while let Ok(frame) = reply {
                rest.extend(frame);
                reply = self.end(name).receive();
            }
            out += &format!("{name} {}", frame::show(&rest));
            match reply {
                Err(e) if e.contains("closed") || e.contains("reset") => out += "; ",
                Err(e) => out += &format!(" and {e}; "),
                Ok(_) => unreachable!("the loop ends with an error"),
            }
        }
        out
    }

    /// Waits until so many clients are blocked; not for ever, as the replies will show it.
    fn blocked(&mut self, count: usize) -> Result<(), String> {
        let since = Instant::now();
        loop {
            let info = self.ask('?', &Command::words(&["INFO", "clients"]))?;
            let info = String::from_utf8_lossy(&info);
            let field = info.lines().find_map(|l| l.strip_prefix("blocked_clients:"));
            if field.and_then(|n| n.trim().parse::<usize>().ok()) >= Some(count) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{}: no {count} clients are blocked: {info}", self.addr));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All elements of a SCAN, HSCAN …, sorted; pairs stay together.
    fn iterate(&mut self, name: char, c: &Command) -> Result<Vec<Vec<u8>>, String> {
        let first = c.args.first().map(|a| a.to_ascii_uppercase()).unwrap_or_default();
        let (at, by) = match first.as_slice() {
            b"SCAN" => (1, 1),
            b"SSCAN" => (2, 1),
            _ => (2, 2),
        };
        let mut c = c.clone();
        let mut all = Vec::new();
        for _ in 0..100_000 {
            let reply = self.ask(name, &c)?;
            let parts = frame::parts(&reply).unwrap_or_default();
            let [cursor, elements] = parts[..] else {
                return Err(format!("{}: no page: {}", self.addr, frame::show(&reply)));
            };
            let page = frame::parts(elements).unwrap_or_default();
            all.extend(page.chunks(by).map(<[&[u8]]>::concat));
            let cursor = frame::text(cursor).unwrap_or_default();
            if cursor == b"0" {
                all.sort_unstable();
                // an element may come more than once
                all.dedup();
                return Ok(all);
            }
            c.args[at] = cursor.to_vec();
        }
        Err(format!("{}: {} does not end", self.addr, c.show()))
    }
}

/// Has the conversation with both; what differs.
pub fn run(
    unit: &Unit,
    protocol: u8,
    addrs: [&str; 2],
    grammar: &mut Grammar,
    rules: &mut Rules,
    rng: &mut Rng,
) -> Result<(), String> {
    let tag = any_tag(rng);
    let mut sides = addrs.map(|addr| Side::new(addr, protocol));
    let mut sent: BTreeMap<char, Command> = BTreeMap::new();
    let mut queued: BTreeMap<char, Queued> = BTreeMap::new();
    for (n, (line, step)) in unit.steps.iter().enumerate() {
        let mut made = |shape: &Shape| grammar.of_shape(shape, tag, rng).remove(0);
        let [reference, theirs] = &mut sides;
        let mut judge = |name: &char, c: &Command, a: Vec<u8>, b: Vec<u8>| match judge::compare(
            rules,
            queued.entry(*name).or_default(),
            c,
            &a,
            &b,
        ) {
            Some(difference) => Err(difference),
            None => Ok(()),
        };
        let same = match step {
            Step::Ask(name, shape) => {
                let c = made(shape);
                // Both at once: a timeout is waited for only once.
                reference.send(*name, &c);
                theirs.send(*name, &c);
                match (reference.end(*name).receive(), theirs.end(*name).receive()) {
                    (Ok(a), Ok(b)) => judge(name, &c, a, b),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Send(name, shape) => {
                let c = made(shape);
                reference.send(*name, &c);
                theirs.send(*name, &c);
                sent.insert(*name, c);
                Ok(())
            }
            Step::Take(name, 1, Order::Given) => {
                let another = || Command::words(&["(one more reply)"]);
                let c = sent.remove(name).unwrap_or_else(another);
                match (reference.end(*name).receive(), theirs.end(*name).receive()) {
                    (Ok(a), Ok(b)) => judge(name, &c, a, b),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Take(name, count, order) => {
                match (reference.take(*name, *count), theirs.take(*name, *count)) {
                    (Ok(a), Ok(b)) if order.sorted(&a) == order.sorted(&b) => Ok(()),
                    (Ok(a), Ok(b)) => {
                        let c = Command::words(&["(more replies)"]);
                        Err(report(&c, &a.concat(), &b.concat()))
                    }
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Blocked(count) => reference.blocked(*count).and_then(|()| theirs.blocked(*count)),
            Step::Silent(name, shape) => {
                let c = made(shape);
                reference.send(*name, &c);
                theirs.send(*name, &c);
                Ok(())
            }
            Step::Iterate(name, shape) => {
                let c = made(shape);
                match (reference.iterate(*name, &c), theirs.iterate(*name, &c)) {
                    (Ok(a), Ok(b)) if a == b => Ok(()),
                    (Ok(a), Ok(b)) => Err(report(&c, &a.concat(), &b.concat())),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Capture(name, variable, shape) => {
                let c = made(shape);
                match (reference.ask(*name, &c), theirs.ask(*name, &c)) {
                    (Ok(a), Ok(b)) if a.first() == b.first() => {
                        for (side, reply) in [(reference, a), (theirs, b)] {
                            let value = frame::text(&reply).unwrap_or_default().to_vec();
                            side.remembered.insert(variable.clone(), value);
                        }
                        Ok(())
                    }
                    (Ok(a), Ok(b)) => Err(report(&c, &a, &b)),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Bytes(name, shape) => {
                let bytes = made(shape).args.concat();
                reference.end(*name).send(&bytes);
                theirs.end(*name).send(&bytes);
                let c = Command { args: vec![bytes], ..Command::default() };
                match (reference.end(*name).receive(), theirs.end(*name).receive()) {
                    (Ok(a), Ok(b)) => judge(name, &c, a, b),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                }
            }
            Step::Closed(name) => {
                let ended = |side: &mut Side| match side.end(*name).receive() {
                    Ok(reply) => format!("a reply: {}", frame::show(&reply)),
                    Err(e) if e.contains("closed") || e.contains("reset") => "the end".to_string(),
                    Err(e) => e,
                };
                let ends = (ended(reference), ended(theirs));
                reference.ends.remove(name);
                theirs.ends.remove(name);
                match ends {
                    (a, b) if a == b => Ok(()),
                    (a, b) => Err(format!("  standalone {a}\n  slotway    {b}\n")),
                }
            }
            Step::Close(name) => {
                reference.ends.remove(name);
                theirs.ends.remove(name);
                Ok(())
            }
        };
        if let Err(difference) = same {
            let lines = unit.steps.iter().take(n).map(|(line, _)| format!("    {line}\n"));
            let before: String = lines.collect();
            let name = &unit.name;
            return Err(format!(
                "unit \"{name}\" in RESP{protocol}\n{before}  > {line}\n{difference}"
            ));
        }
    }
    if !unit.to_the_end {
        return Ok(());
    }
    let [reference, theirs] = sides.each_mut().map(Side::quit);
    if reference == theirs {
        return Ok(());
    }
    Err(format!(
        "unit \"{}\" in RESP{protocol}, at its end\n  standalone {reference}\n  slotway    {theirs}\n",
        unit.name,
    ))
}
