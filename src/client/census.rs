//! Who the clients are, added up: by user, library and name, in bounded memory whatever they say.

use std::collections::HashMap;

use super::{Client, Library, Line};
use crate::resp::Protocol;

/// Different users, libraries or names that are told apart; who comes later is one of the others.
const TOLD_APART: usize = 256;
const OTHERS: &str = "…";
/// Bytes shown of what a client says of itself.
const SHOWN: usize = 64;
/// Clients with replies waiting that are shown one by one.
const NOTABLE: usize = 8;

/// The clients of one worker, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// How many were looked at.
    pub clients: u64,
    /// Of these, those that speak RESP3.
    pub resp3: u64,
    /// By the user that they are.
    pub users: HashMap<String, u64>,
    /// By `CLIENT SETINFO`: library and version.
    pub libraries: HashMap<String, u64>,
    /// By `CLIENT SETNAME`.
    pub names: HashMap<String, u64>,
    /// Those with the most replies that they have not taken.
    pub slow_readers: Vec<Notable>,
}

/// A client that is worth a line of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notable {
    /// `CLIENT ID`.
    pub id: u64,
    /// The client's end.
    pub addr: String,
    /// `CLIENT SETNAME`.
    pub name: String,
    /// Who it is.
    pub user: String,
    /// Its last command.
    pub command: String,
    /// Bytes of replies that it has not taken.
    pub output: u64,
}

impl Census {
    /// One client more.
    pub fn count(&mut self, client: &Client) {
        let session = &client.session;
        self.clients += 1;
        self.resp3 += u64::from(session.protocol == Protocol::Resp3);
        add(&mut self.users, session.account.as_ref().map_or("default", |a| a.name()), 1);
        let named = |l: &&Library| !l.name.is_empty() || !l.version.is_empty();
        if let Some(library) = session.library.as_deref().filter(named) {
            let library = format!("{} {}", shown(&library.name), shown(&library.version));
            add(&mut self.libraries, &library, 1);
        }
        if let Some(name) = session.name.as_deref() {
            add(&mut self.names, &shown(name), 1);
        }
    }

    /// A client with replies waiting, if it is one of those with the most; `line` is asked for only
    /// then.
    pub fn notice(&mut self, output: u64, line: impl FnOnce() -> Line) {
        let least = self.slow_readers.last().map_or(0, |c| c.output);
        if output == 0 || (self.slow_readers.len() >= NOTABLE && output <= least) {
            return;
        }
        let Line { id, addr, name, user, cmd: command, .. } = line();
        let name = shown(&name);
        self.insert(Notable { id, addr, name, user, command, output });
    }

    /// Another worker's.
    pub fn merge(&mut self, other: Census) {
        self.clients += other.clients;
        self.resp3 += other.resp3;
        for (mine, theirs) in [
            (&mut self.users, &other.users),
            (&mut self.libraries, &other.libraries),
            (&mut self.names, &other.names),
        ] {
            theirs.iter().for_each(|(what, count)| add(mine, what, *count));
        }
        other.slow_readers.into_iter().for_each(|client| self.insert(client));
    }

    fn insert(&mut self, client: Notable) {
        let at = self.slow_readers.partition_point(|c| c.output >= client.output);
        self.slow_readers.insert(at, client);
        self.slow_readers.truncate(NOTABLE);
    }
}

/// The largest of a census' groups, and how many clients are in none of them.
pub fn largest(groups: &HashMap<String, u64>, most: usize) -> (Vec<(&str, u64)>, u64) {
    let mut all: Vec<(&str, u64)> = groups.iter().map(|(what, n)| (what.as_str(), *n)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rest = all.iter().skip(most).map(|(_, n)| n).sum();
    all.truncate(most);
    (all, rest)
}

fn add(groups: &mut HashMap<String, u64>, what: &str, count: u64) {
    let told_apart = groups.len() - usize::from(groups.contains_key(OTHERS));
    let known = groups.contains_key(what) || told_apart < TOLD_APART;
    let what = if known { what } else { OTHERS };
    *groups.entry(what.to_owned()).or_default() += count;
}

/// What a client has sent, as text of a bounded length.
fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN);
    let text = String::from_utf8_lossy(cut.unwrap_or(bytes));
    if cut.is_some() && bytes.len() > SHOWN { format!("{text}…") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_and_their_sum_is_right() {
        let mut one = Census::default();
        for n in 0..1000 {
            add(&mut one.names, &n.to_string(), 1);
        }
        assert_eq!(one.names.len(), TOLD_APART + 1);
        assert_eq!(one.names[OTHERS], 1000 - TOLD_APART as u64);
        let mut two = Census { clients: 3, ..Census::default() };
        add(&mut two.names, "0", 5);
        two.merge(one);
        let (top, rest) = largest(&two.names, 2);
        assert_eq!(top, [(OTHERS, 744), ("0", 6)]);
        assert_eq!(rest, 255);
        assert_eq!(shown(&[b'x'; 65]), "x".repeat(64) + "…");
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn those_with_the_most_waiting_are_noticed() {
        let mut census = Census::default();
        census.notice(0, || panic!("nothing waits"));
        for n in 1..=20 {
            census.notice(n, || Line { id: n, ..Line::default() });
        }
        census.notice(3, || panic!("it is not one of the largest"));
        let outputs: Vec<u64> = census.slow_readers.iter().map(|c| c.output).collect();
        assert_eq!(outputs, [20, 19, 18, 17, 16, 15, 14, 13]);
        let mut other = Census::default();
        other.notice(15, || Line { id: 99, ..Line::default() });
        census.merge(other);
        assert_eq!(census.slow_readers.len(), NOTABLE);
        assert_eq!(census.slow_readers[6].id, 99);
    }
}
