//! The replies of one transaction that was carried out in several pieces (one MULTI … EXEC per
//! slot, what slotway answers itself, what all shards are asked), put back in the order asked.

use super::behaviour::Merge;
use super::gather::Gather;
use super::info::ProxyInfo;
use crate::outcome::is_unknown;
use crate::resp::reply::{element_count, elements, error_text};
use crate::resp::{Protocol, write};

/// Collects them.
#[derive(Debug)]
pub struct ExecGather {
    protocol: Protocol,
    /// The reply of each command; behind them the pieces of [`Nested`] commands.
    places: Vec<Vec<u8>>,
    commands: usize,
    groups: Vec<Group>,
    nested: Vec<Nested>,
    left: usize,
    /// Groups whose EXEC was answered with null: a watched key had changed.
    nulls: usize,
    held: usize,
}

/// What goes to one node in one piece.
#[derive(Debug, Default)]
struct Group {
    /// Where its replies belong.
    places: Vec<usize>,
    /// One command by itself: its reply is the element, not an array of elements.
    single: bool,
    /// What became of all of it, where that is an error.
    error: Option<Vec<u8>>,
}

/// A command whose keys lie in several slots, or that all shards are asked.
#[derive(Debug)]
struct Nested {
    /// The command's place.
    at: usize,
    merge: Merge,
    pieces: Vec<Piece>,
}

/// A part of a nested command.
#[derive(Debug)]
struct Piece {
    place: usize,
    /// The positions of its keys in the command.
    keys: Vec<u32>,
    /// Where it goes, for error texts.
    target: String,
}

impl ExecGather {
    /// For a transaction of `commands` commands.
    pub fn new(protocol: Protocol, commands: usize) -> Self {
        ExecGather {
            protocol,
            places: vec![Vec::new(); commands],
            commands,
            groups: Vec::new(),
            nested: Vec::new(),
            left: 0,
            nulls: 0,
            held: 0,
        }
    }

    /// The reply of the command at `place` is known already.
    pub fn place(&mut self, place: usize, reply: Vec<u8>) {
        self.held += reply.len();
        if let Some(p) = self.places.get_mut(place) {
            *p = reply;
        }
    }

    /// The command at `at` is sent in pieces; gives what names it to [`ExecGather::piece`].
    pub fn nest(&mut self, at: usize, merge: Merge) -> usize {
        self.nested.push(Nested { at, merge, pieces: Vec::new() });
        self.nested.len() - 1
    }

    /// One more piece of it, with the positions of its keys; gives the piece's place.
    pub fn piece(&mut self, nested: usize, keys: Vec<u32>) -> usize {
        self.add_piece(nested, keys, "a part".to_owned())
    }

    /// The same without keys, for `target`, which is the name of a node.
    pub fn piece_at(&mut self, nested: usize, target: String) -> usize {
        self.add_piece(nested, Vec::new(), target)
    }

    fn add_piece(&mut self, nested: usize, keys: Vec<u32>, target: String) -> usize {
        let place = self.places.len();
        self.places.push(Vec::new());
        if let Some(nested) = self.nested.get_mut(nested) {
            nested.pieces.push(Piece { place, keys, target });
        }
        place
    }

    /// A group of commands goes to a node; its reply is an array, or with `single` the reply of
    /// its one command. Gives its number for [`ExecGather::add`].
    pub fn group(&mut self, places: Vec<usize>, single: bool) -> u32 {
        self.groups.push(Group { places, single, error: None });
        self.left += 1;
        (self.groups.len() - 1) as u32
    }

    /// Nothing is awaited.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.held + self.places.len() * size_of::<Vec<u8>>()
    }

    /// A group has answered (an error counts for all its commands). `true`: it was the last one.
    pub fn add(&mut self, group: u32, frame: &[u8]) -> bool {
        self.left = self.left.saturating_sub(1);
        self.held += frame.len();
        let Some(group) = self.groups.get_mut(group as usize) else { return self.left == 0 };
        if group.single {
            if let Some(place) = group.places.first().and_then(|&p| self.places.get_mut(p)) {
                *place = frame.to_vec();
            }
        } else if frame.first() == Some(&b'-') {
            group.error = Some(frame.to_vec());
        } else if element_count(frame).is_some_and(|n| n == group.places.len() as u64) {
            for (&place, element) in group.places.iter().zip(elements(frame)) {
                if let Some(place) = self.places.get_mut(place) {
                    *place = element.to_vec();
                }
            }
        } else {
            self.nulls += 1;
            group.error = Some(CHANGED.to_vec());
        }
        self.left == 0
    }

    /// Whether the outcome of one of its commands is unknown.
    pub fn has_unknown(&self) -> bool {
        let errors = self.groups.iter().filter_map(|group| group.error.as_ref());
        errors.chain(&self.places).any(|reply| is_unknown(reply))
    }

    /// The transaction's reply, appended to `out`; `info` is what INFO says of slotway. `true`: it is
    /// no error.
    pub fn finish(mut self, info: impl Fn() -> ProxyInfo, out: &mut Vec<u8>) -> bool {
        let batches = self.groups.iter().filter(|g| !g.single).count();
        if batches > 0 && self.nulls == batches && batches == self.groups.len() {
            out.extend_from_slice(match self.protocol {
                Protocol::Resp2 => b"*-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            });
            return true;
        }
        // Nothing was executed, or not known to be: one error for all of it, as a server gives.
        let first = self.groups.first().and_then(|g| g.error.clone());
        if let Some(first) = first
            && batches == self.groups.len()
            && self.groups.iter().all(|g| {
                let error = g.error.as_ref();
                error == Some(&first) || (is_abort(&first) && error.is_some_and(|e| is_abort(e)))
            })
        {
            out.extend_from_slice(&first);
            return false;
        }
        for group in &mut self.groups {
            let Some(error) = group.error.take() else { continue };
            let error = if is_abort(&error) { abort_of_part(&error) } else { error };
            for &place in &group.places {
                if let Some(place) = self.places.get_mut(place) {
                    *place = error.clone();
                }
            }
        }
        for nested in std::mem::take(&mut self.nested) {
            let merged = self.merged(&nested, &info);
            if let Some(place) = self.places.get_mut(nested.at) {
                *place = merged;
            }
        }
        write::array_header(out, self.commands);
        for reply in self.places.iter().take(self.commands) {
            out.extend_from_slice(if reply.is_empty() { b"-ERR no reply\r\n" } else { reply });
        }
        true
    }

    fn merged(&self, nested: &Nested, info: impl Fn() -> ProxyInfo) -> Vec<u8> {
        let mut gather = Gather::default();
        gather.start(nested.merge, self.protocol);
        let mut firsts = Vec::with_capacity(nested.pieces.len());
        for Piece { keys, .. } in &nested.pieces {
            firsts.push(gather.next_key());
            gather.expect();
            if nested.merge == Merge::Array {
                keys.iter().for_each(|&key| {
                    gather.expect_key(key);
                });
            }
        }
        for (Piece { place, target, .. }, first) in nested.pieces.iter().zip(firsts) {
            let frame = self.places.get(*place).map(Vec::as_slice).unwrap_or_default();
            if error_text(frame).is_some() {
                gather.fail(target.clone(), frame);
            } else {
                gather.add(first, frame);
            }
        }
        if gather.wants_info() {
            gather.set_info(info());
        }
        let mut out = Vec::new();
        gather.finish(&mut out, "");
        out
    }
}

/// Whether a batch's error says that none of its commands was executed.
fn is_abort(error: &[u8]) -> bool {
    error.starts_with(b"-EXECABORT ") && error != CHANGED
}

/// The error at the commands of a batch that was discarded while other batches were not: a node's
/// "Transaction discarded" is true of its own batch only.
fn abort_of_part(error: &[u8]) -> Vec<u8> {
    let text = error_text(error).unwrap_or_default();
    let reason = text.strip_prefix(DISCARDED.as_bytes()).unwrap_or(text);
    let reason = String::from_utf8_lossy(reason);
    let mut out = Vec::new();
    write::error(
        &mut out,
        &format!(
            "EXECABORT this command's slot was not executed: {reason} (other slots of the \
             transaction may have been: transactions.cross_slot = \"split\")"
        ),
    );
    out
}

/// The beginning of EXEC's error when nothing of its batch was executed; the reason follows.
pub const DISCARDED: &str = "EXECABORT Transaction discarded because of: ";

/// A group's watched key had changed, after it had been found unchanged and others had begun.
const CHANGED: &[u8] = b"-EXECABORT a watched key changed while the transaction began: this \
                         command's slot was not executed, other slots of the transaction were \
                         (transactions.cross_slot = \"split\")\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(gather: ExecGather) -> String {
        let mut out = Vec::new();
        gather.finish(ProxyInfo::default, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_return_to_the_order_asked() {
        // SET a; MGET b a; DBSIZE; GET b; PING
        let mut g = ExecGather::new(Protocol::Resp2, 5);
        let mget = g.nest(1, Merge::Array);
        let of_b = g.piece(mget, vec![0]);
        let of_a = g.piece(mget, vec![1]);
        let dbsize = g.nest(2, Merge::Sum);
        let (one, two) = (g.piece(dbsize, vec![]), g.piece(dbsize, vec![]));
        let a = g.group(vec![0, of_a], false);
        let b = g.group(vec![of_b, 3], false);
        let (one, two) = (g.group(vec![one], true), g.group(vec![two], true));
        g.place(4, b"+PONG\r\n".to_vec());
        assert!(!g.add(two, b":2\r\n"));
        assert!(!g.add(b, b"*2\r\n*1\r\n$1\r\nB\r\n$1\r\nB\r\n"));
        assert!(!g.add(one, b":1\r\n"));
        assert!(g.add(a, b"*2\r\n+OK\r\n*1\r\n$1\r\nA\r\n"));
        assert_eq!(
            finish(g),
            "*5\r\n+OK\r\n*2\r\n$1\r\nB\r\n$1\r\nA\r\n:3\r\n$1\r\nB\r\n+PONG\r\n"
        );
    }

    #[test]
    fn what_failed_in_one_slot_is_said_at_its_commands() {
        let mut g = ExecGather::new(Protocol::Resp2, 3);
        let a = g.group(vec![0, 2], false);
        let b = g.group(vec![1], false);
        g.add(b, b"*1\r\n:1\r\n");
        assert!(!g.has_unknown());
        g.add(a, b"-OUTCOMEUNKNOWN lost\r\n");
        assert!(g.has_unknown());
        let lost = "-OUTCOMEUNKNOWN lost\r\n";
        assert_eq!(finish(g), format!("*3\r\n{lost}:1\r\n{lost}"));
    }

    #[test]
    fn a_discarded_part_does_not_speak_for_the_others() {
        let mut g = ExecGather::new(Protocol::Resp2, 2);
        let groups = [g.group(vec![0], false), g.group(vec![1], false)];
        g.add(groups[0], b"*1\r\n+OK\r\n");
        g.add(groups[1], b"-EXECABORT Transaction discarded because of: OOM no memory\r\n");
        assert_eq!(
            finish(g),
            "*2\r\n+OK\r\n-EXECABORT this command's slot was not executed: OOM no memory (other \
             slots of the transaction may have been: transactions.cross_slot = \"split\")\r\n"
        );
        // Both were discarded, each for its own reason: so was the transaction.
        let mut g = ExecGather::new(Protocol::Resp2, 2);
        let groups = [g.group(vec![0], false), g.group(vec![1], false)];
        g.add(groups[0], b"-EXECABORT Transaction discarded because of: OOM no memory\r\n");
        g.add(groups[1], b"-EXECABORT Transaction discarded because of: NOPERM no\r\n");
        assert_eq!(finish(g), "-EXECABORT Transaction discarded because of: OOM no memory\r\n");
    }

    #[test]
    fn all_or_nothing_where_it_can_be() {
        for (replies, expected) in [
            (["*-1\r\n", "*-1\r\n"], "*-1\r\n".to_owned()),
            (["-EXECABORT x\r\n", "-EXECABORT x\r\n"], "-EXECABORT x\r\n".to_owned()),
            (["*-1\r\n", "*1\r\n:1\r\n"], {
                let changed = String::from_utf8(CHANGED.to_vec()).unwrap();
                format!("*2\r\n{changed}:1\r\n")
            }),
        ] {
            let mut g = ExecGather::new(Protocol::Resp2, 2);
            let groups = [g.group(vec![0], false), g.group(vec![1], false)];
            for (group, reply) in groups.into_iter().zip(replies) {
                g.add(group, reply.as_bytes());
            }
            assert_eq!(finish(g), expected);
        }
    }
}
