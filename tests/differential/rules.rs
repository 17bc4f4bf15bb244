//! Reads allow.txt, and decides whether two replies are the same.

use std::collections::BTreeSet;

use super::frame::{self, show};
use super::grammar::Command;

enum How {
    Exact,
    Unordered(usize),
    Scan(usize),
    Shape,
    Type,
    Near(i64),
    Numbers,
    Fields,
    Lines,
    Values(Vec<String>),
    Info,
    Differs(Vec<u8>),
    Error,
    Stale(Vec<u8>),
}

enum Word {
    Is(Vec<u8>),
    /// `*`
    Any,
    /// `…`
    Skip,
}

struct Rule {
    how: How,
    words: Vec<Word>,
    line: String,
    used: bool,
}

/// The lines of allow.txt.
pub struct Rules {
    rules: Vec<Rule>,
    /// The last reply was allowed to differ in a way that leaves different keys behind.
    pub spread: bool,
}

impl Rules {
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
        Rules { rules: lines.map(Rule::read).collect(), spread: false }
    }

    /// Whether `theirs` is as good an answer to `c` as `reference`.
    pub fn same(&mut self, c: &Command, reference: &[u8], theirs: &[u8]) -> bool {
        if reference == theirs {
            return true;
        }
        for rule in self.rules.iter_mut().filter(|r| r.fits(c)) {
            if rule.how.same(reference, theirs) {
                rule.used = true;
                self.spread |= matches!(rule.how, How::Stale(_));
                return true;
            }
            // a command may differ in several ways, one line each
            if !matches!(rule.how, How::Differs(_) | How::Stale(_)) {
                return false;
            }
        }
        false
    }

    /// The lines that no reply has needed.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let needed = |r: &&Rule| r.used || matches!(r.how, How::Exact);
        self.rules.iter().filter(move |r| !needed(r)).map(|r| r.line.as_str())
    }
}

impl Rule {
    fn read(line: &str) -> Self {
        let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
        // an empty third field leaves two blanks between its bars
        let [how, command, reply, reason] = fields[..] else {
            panic!("allow.txt: four fields wanted: {line}")
        };
        assert!(!reason.is_empty(), "allow.txt: no reason: {line}");
        let how = match how.split_once(' ').unwrap_or((how, "")) {
            ("exact", _) => How::Exact,
            ("unordered", _) => How::Unordered(1),
            ("pairs", _) => How::Unordered(2),
            ("scan", _) => How::Scan(1),
            ("scanpairs", _) => How::Scan(2),
            ("shape", _) => How::Shape,
            ("type", _) => How::Type,
            ("numbers", _) => How::Numbers,
            ("fields", _) => How::Fields,
            ("lines", _) => How::Lines,
            ("values", names) => How::Values(names.split(',').map(str::to_owned).collect()),
            ("info", _) => How::Info,
            ("near", n) => How::Near(n.parse().expect("allow.txt: near N")),
            ("differs", _) if !reply.is_empty() => {
                How::Differs(reply.replace("\\r\\n", "\r\n").into_bytes())
            }
            ("error", _) => How::Error,
            ("stale", text) => How::Stale(format!("-{text}\r\n").into_bytes()),
            _ => panic!("allow.txt: no such comparison: {line}"),
        };
        let words = words(command);
        Rule { how, words, line: line.to_string(), used: false }
    }

    fn fits(&self, c: &Command) -> bool {
        let mut anywhere = false;
        let mut at = 0;
        for w in &self.words {
            let fits = match w {
                Word::Skip => {
                    anywhere = true;
                    continue;
                }
                Word::Is(w) if anywhere => {
                    return c.args.iter().skip(at).any(|a| a.eq_ignore_ascii_case(w));
                }
                Word::Is(w) => c.args.get(at).is_some_and(|a| a.eq_ignore_ascii_case(w)),
                Word::Any => c.args.len() > at,
            };
            if !fits {
                return false;
            }
            at += 1;
        }
        true
    }
}

/// Words of a rule; one in double quotes is taken as it stands and may have blanks.
fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::new();
    for (i, piece) in text.split('"').enumerate() {
        if i % 2 == 1 {
            out.push(Word::Is(piece.as_bytes().to_vec()));
            continue;
        }
        out.extend(piece.split_whitespace().map(|w| match w {
            "*" => Word::Any,
            "…" => Word::Skip,
            w => Word::Is(w.as_bytes().to_vec()),
        }));
    }
    out
}

impl How {
    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        // an error is never random: only the same bytes are the same error
        let errors = (frame::is_error(a), frame::is_error(b));
        match self {
            How::Exact => false,
            How::Differs(start) => b.starts_with(start),
            How::Error => errors == (true, true),
            How::Stale(text) => a == text || b == text,
            _ if errors.0 || errors.1 => false,
            How::Unordered(by) => unordered(a, b, *by),
            How::Scan(by) => match (frame::parts(a).as_deref(), frame::parts(b).as_deref()) {
                (Some([c1, e1]), Some([c2, e2])) => c1 == c2 && unordered(e1, e2, *by),
                _ => false,
            },
            How::Shape => frame::shape(a) == frame::shape(b),
            How::Type => a.first() == b.first(),
            How::Fields => fields(a).is_some() && fields(a) == fields(b),
            How::Lines => match (frame::text(a), frame::text(b)) {
                (Some(x), Some(y)) => a.first() == b.first() && have_names(x, y),
                _ => false,
            },
            How::Values(names) => match (frame::text(a), frame::text(b)) {
                (Some(x), Some(y)) => {
                    a.first() == b.first()
                        && have_names(x, y)
                        && values(x, names) == values(y, names)
                }
                _ => false,
            },
            How::Info => match (frame::text(a), frame::text(b)) {
                (Some(x), Some(y)) => {
                    a.first() == b.first() && info_fields(x).is_subset(&info_fields(y))
                }
                _ => false,
            },
            How::Numbers => numbers(a, b),
            How::Near(most) => match (frame::integer(a), frame::integer(b)) {
                (Some(x), Some(y)) => x.signum() == y.signum() && (x - y).abs() <= *most,
                _ => match (frame::parts(a), frame::parts(b)) {
                    (Some(x), Some(y)) => {
                        frame::shape(a) == frame::shape(b)
                            && x.iter().zip(&y).all(|(x, y)| x == y || self.same(x, y))
                    }
                    _ => false,
                },
            },
        }
    }
}

/// Whether both are equal but for how their numbers are written.
fn numbers(a: &[u8], b: &[u8]) -> bool {
    if let (Some(x), Some(y)) = (frame::parts(a), frame::parts(b)) {
        return frame::shape(a) == frame::shape(b) && x.iter().zip(&y).all(|(x, y)| numbers(x, y));
    }
    let number = |frame: &[u8]| -> Option<f64> {
        std::str::from_utf8(frame::text(frame)?).ok()?.parse().ok()
    };
    a == b || (a.first() == b.first() && number(a).is_some() && number(a) == number(b))
}

/// The names of a map's fields (in RESP2 of a flat list's), sorted, and the types of their values.
fn fields(a: &[u8]) -> Option<Vec<(&[u8], Option<&u8>)>> {
    let parts = frame::parts(a)?;
    if !parts.len().is_multiple_of(2) {
        return None;
    }
    let pairs = parts.chunks_exact(2).map(|pair| match pair {
        [name, value] => (*name, value.first()),
        _ => unreachable!("chunks of two"),
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    Some(pairs)
}

/// Whether every `name=value` of `text` has its name on every line of `other`, and both have lines
/// or none.
fn have_names(text: &[u8], other: &[u8]) -> bool {
    let (text, other) = (String::from_utf8_lossy(text), String::from_utf8_lossy(other));
    let names = |line: &str| -> BTreeSet<String> {
        line.split(' ').map(|w| w.split('=').next().unwrap_or(w).to_string()).collect()
    };
    let wanted: BTreeSet<String> = text.lines().flat_map(names).collect();
    let mut lines = other.lines();
    text.is_empty() == other.is_empty() && lines.all(|line| wanted.is_subset(&names(line)))
}

/// The `name=value` of these names on every line, the lines in any order.
fn values(text: &[u8], names: &[String]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    let wanted = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| names.iter().any(|wanted| wanted == name))
    };
    let of_line = |line: &str| line.split(' ').filter(wanted).map(str::to_owned).collect();
    let mut lines: Vec<Vec<String>> = text.lines().map(of_line).collect();
    lines.sort_unstable();
    lines
}

/// Sections and fields of INFO; without those that stand for something that is there or not: a
/// database, a replica, an error, a command that was called.
fn info_fields(text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|l| !l.is_empty());
    let names = lines.map(|l| l.split(':').next().unwrap_or(l).trim_end().to_string());
    let some = ["db", "slave", "errorstat_", "cmdstat_", "latency_percentiles_usec_"];
    let numbered = |name: &str| some.iter().any(|s| name.strip_prefix(s).is_some());
    names.filter(|name| !numbered(name)).collect()
}

/// The same type and number of elements, and the same elements (taken `by` at a time).
fn unordered(a: &[u8], b: &[u8], by: usize) -> bool {
    let (Some(x), Some(y)) = (frame::parts(a), frame::parts(b)) else { return false };
    if frame::shape(a) != frame::shape(b) {
        return false;
    }
    let mut x: Vec<_> = x.chunks(by).collect();
    let mut y: Vec<_> = y.chunks(by).collect();
    x.sort_unstable();
    y.sort_unstable();
    x == y
}

/// A difference as a person wants to see it.
pub fn report(c: &Command, reference: &[u8], theirs: &[u8]) -> String {
    format!(
        "  command    {}\n  standalone {}\n  slotway    {}\n",
        c.show(),
        show(reference),
        show(theirs)
    )
}
