//! Statistics of the clients by user, library and name, in bounded memory whatever clients send.

use std::collections::HashMap;

use super::{Client, Library, Line};
use crate::resp::Protocol;

/// Maximum number of distinct users, libraries or names; further ones count as others.
const MAX_GROUPS: usize = 256;
const OTHERS: &str = "…";
/// Maximum length in bytes of a text sent by a client.
const MAX_SHOWN: usize = 64;
/// Maximum number of slow readers that are listed.
const MAX_SLOW_READERS: usize = 8;

/// Statistics of the clients of one worker, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Number of clients.
    pub clients: u64,
    /// Number of clients that use RESP3.
    pub resp3: u64,
    /// Clients by user.
    pub users: HashMap<String, u64>,
    /// Clients by library and version (`CLIENT SETINFO`).
    pub libraries: HashMap<String, u64>,
    /// Clients by name (`CLIENT SETNAME`).
    pub names: HashMap<String, u64>,
    /// The clients with the most bytes of replies not taken.
    pub slow_readers: Vec<SlowReader>,
}

/// A client that reads its replies slowly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowReader {
    /// `CLIENT ID`.
    pub id: u64,
    /// Address of the client.
    pub addr: String,
    /// `CLIENT SETNAME`.
    pub name: String,
    /// The user.
    pub user: String,
    /// The last command.
    pub command: String,
    /// Number of bytes of replies not taken.
    pub output: u64,
}

impl Census {
    /// Adds a client.
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

    /// Lists a client with `output` bytes of replies not taken if it is among those with the most;
    /// only then `line` is called.
    pub fn notice(&mut self, output: u64, line: impl FnOnce() -> Line) {
        let least = self.slow_readers.last().map_or(0, |c| c.output);
        if output == 0 || (self.slow_readers.len() >= MAX_SLOW_READERS && output <= least) {
            return;
        }
        let Line { id, addr, name, user, cmd: command, .. } = line();
        let name = shown(&name);
        self.insert(SlowReader { id, addr, name, user, command, output });
    }

    /// Adds another worker's statistics.
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

    fn insert(&mut self, client: SlowReader) {
        let at = self.slow_readers.partition_point(|c| c.output >= client.output);
        self.slow_readers.insert(at, client);
        self.slow_readers.truncate(MAX_SLOW_READERS);
    }
}

/// The `most` largest groups, and the number of clients in the others.
pub fn largest(groups: &HashMap<String, u64>, most: usize) -> (Vec<(&str, u64)>, u64) {
    let mut all: Vec<(&str, u64)> = groups.iter().map(|(what, n)| (what.as_str(), *n)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rest = all.iter().skip(most).map(|(_, n)| n).sum();
    all.truncate(most);
    (all, rest)
}

fn add(groups: &mut HashMap<String, u64>, what: &str, count: u64) {
    let told_apart = groups.len() - usize::from(groups.contains_key(OTHERS));
    let known = groups.contains_key(what) || told_apart < MAX_GROUPS;
    let what = if known { what } else { OTHERS };
    *groups.entry(what.to_owned()).or_default() += count;
}

/// Text sent by a client, shortened.
fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..MAX_SHOWN);
    let text = String::from_utf8_lossy(cut.unwrap_or(bytes));
    if cut.is_some() && bytes.len() > MAX_SHOWN { format!("{text}…") } else { text.into_owned() }
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
        assert_eq!(one.names.len(), MAX_GROUPS + 1);
        assert_eq!(one.names[OTHERS], 1000 - MAX_GROUPS as u64);
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
        assert_eq!(census.slow_readers.len(), MAX_SLOW_READERS);
        assert_eq!(census.slow_readers[6].id, 99);
    }
}
