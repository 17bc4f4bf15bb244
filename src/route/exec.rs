//! Replies of one transaction executed in several parts (one MULTI … EXEC per slot, slotway's own
//! answers, commands for all shards), merged in the order of the commands.

use super::behaviour::Merge;
use super::gather::Gather;
use super::info::ProxyInfo;
use crate::errors::{Cause, Code, Failure};
use crate::resp::reply::{element_count, elements, error_text};
use crate::resp::{Protocol, write};

/// Collects the replies of a transaction.
#[derive(Debug)]
pub struct ExecGather {
    protocol: Protocol,
    /// The reply of each command, then those of the pieces of [`Nested`] commands.
    places: Vec<Answer>,
    commands: usize,
    groups: Vec<Group>,
    nested: Vec<Nested>,
    left: usize,
    /// Number of groups whose EXEC replied with null: a watched key had changed.
    nulls: usize,
    held: usize,
}

/// Commands sent to one node together.
#[derive(Debug, Default)]
struct Group {
    /// Index in `places` of each command's reply.
    places: Vec<usize>,
    /// A single command without MULTI: its reply is the element, not an array.
    single: bool,
    /// The error of the whole group.
    error: Option<Cause>,
}

/// The result of a command, or of a piece of one.
#[derive(Debug, Clone)]
enum Answer {
    /// A reply, possibly a node's error; empty before it arrives.
    Reply(Vec<u8>),
    /// Not executed, or the outcome is unknown.
    Failed(Cause),
}

impl Answer {
    const EMPTY: Answer = Answer::Reply(Vec::new());

    /// The error, if this is one.
    fn cause(&self) -> Option<Cause> {
        match self {
            Answer::Reply(reply) => error_text(reply).map(|_| Cause::node(reply)),
            Answer::Failed(cause) => Some(cause.clone()),
        }
    }
}

/// A command whose keys lie in several slots, or that goes to all shards.
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
    /// Positions of its keys in the command.
    keys: Vec<u32>,
    /// Where it is sent, for error texts.
    target: String,
}

impl ExecGather {
    /// For a transaction of `commands` commands.
    pub fn new(protocol: Protocol, commands: usize) -> Self {
        ExecGather {
            protocol,
            places: vec![Answer::EMPTY; commands],
            commands,
            groups: Vec::new(),
            nested: Vec::new(),
            left: 0,
            nulls: 0,
            held: 0,
        }
    }

    /// Sets the reply of the command at `place`.
    pub fn place(&mut self, place: usize, reply: Vec<u8>) {
        self.held += reply.len();
        if let Some(p) = self.places.get_mut(place) {
            *p = Answer::Reply(reply);
        }
    }

    /// Announces a command that is sent in pieces. Returns its number for [`ExecGather::piece`].
    pub fn nest(&mut self, at: usize, merge: Merge) -> usize {
        self.nested.push(Nested { at, merge, pieces: Vec::new() });
        self.nested.len() - 1
    }

    /// Adds a piece with the keys at these positions. Returns its place.
    pub fn piece(&mut self, nested: usize, keys: Vec<u32>) -> usize {
        self.add_piece(nested, keys, "a part".to_owned())
    }

    /// Adds a piece without keys, for the node named `target`. Returns its place.
    pub fn piece_at(&mut self, nested: usize, target: String) -> usize {
        self.add_piece(nested, Vec::new(), target)
    }

    fn add_piece(&mut self, nested: usize, keys: Vec<u32>, target: String) -> usize {
        let place = self.places.len();
        self.places.push(Answer::EMPTY);
        if let Some(nested) = self.nested.get_mut(nested) {
            nested.pieces.push(Piece { place, keys, target });
        }
        place
    }

    /// Adds a group of commands for one node. The reply will be an array, or with `single` that of
    /// its one command. Returns its number for [`ExecGather::add`].
    pub fn group(&mut self, places: Vec<usize>, single: bool) -> u32 {
        self.groups.push(Group { places, single, error: None });
        self.left += 1;
        (self.groups.len() - 1) as u32
    }

    /// Whether no reply is outstanding.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// The protocol in which the parts are sent.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.held + self.places.len() * size_of::<Answer>()
    }

    /// Records the failure of a group. Returns whether none is left.
    pub fn fail(&mut self, group: u32, failure: Failure) -> bool {
        self.left = self.left.saturating_sub(1);
        if let Some(group) = self.groups.get_mut(group as usize) {
            match group.places.first().and_then(|&place| self.places.get_mut(place)) {
                Some(place) if group.single => *place = Answer::Failed(failure.into()),
                _ => group.error = Some(failure.into()),
            }
        }
        self.left == 0
    }

    /// Adds a group's reply; an error counts for all its commands. Returns whether none is left.
    pub fn add(&mut self, group: u32, frame: &[u8]) -> bool {
        self.left = self.left.saturating_sub(1);
        self.held += frame.len();
        let Some(group) = self.groups.get_mut(group as usize) else { return self.left == 0 };
        if group.single {
            if let Some(place) = group.places.first().and_then(|&p| self.places.get_mut(p)) {
                *place = Answer::Reply(frame.to_vec());
            }
        } else if frame.first() == Some(&b'-') {
            group.error = Some(Cause::node(frame));
        } else if element_count(frame).is_some_and(|n| n == group.places.len() as u64) {
            for (&place, element) in group.places.iter().zip(elements(frame)) {
                if let Some(place) = self.places.get_mut(place) {
                    *place = Answer::Reply(element.to_vec());
                }
            }
        } else {
            self.nulls += 1;
            group.error = Some(Failure::WatchedPartChanged.into());
        }
        self.left == 0
    }

    /// Whether the outcome of any command is unknown.
    pub fn has_unknown(&self) -> bool {
        let errors = self.groups.iter().filter_map(|group| group.error.as_ref());
        let places = self.places.iter().filter_map(|place| match place {
            Answer::Reply(_) => None,
            Answer::Failed(cause) => Some(cause),
        });
        errors.chain(places).any(Cause::is_outcome_unknown)
    }

    /// Appends the transaction's reply to `out`; `info` provides slotway's part of INFO.
    ///
    /// # Errors
    /// The error in place of the reply; nothing was appended.
    pub fn finish(&mut self, info: impl Fn() -> ProxyInfo, out: &mut Vec<u8>) -> Result<(), Cause> {
        let batches = self.groups.iter().filter(|g| !g.single).count();
        if batches > 0 && self.nulls == batches && batches == self.groups.len() {
            out.extend_from_slice(match self.protocol {
                Protocol::Resp2 => b"*-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            });
            return Ok(());
        }
        // If certainly or possibly nothing was executed: one error for all of it, as from a server.
        let first = self.groups.first().and_then(|g| g.error.clone());
        if let Some(first) = first
            && batches == self.groups.len()
            && self.groups.iter().all(|g| {
                let error = g.error.as_ref();
                error == Some(&first) || (is_abort(&first) && error.is_some_and(is_abort))
            })
        {
            return Err(first);
        }
        for group in &mut self.groups {
            let Some(error) = group.error.take() else { continue };
            let error = if is_abort(&error) { abort_of_part(&error).into() } else { error };
            for &place in &group.places {
                if let Some(place) = self.places.get_mut(place) {
                    *place = Answer::Failed(error.clone());
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
            match reply {
                Answer::Reply(reply) if reply.is_empty() => Failure::NoReply.write(out),
                Answer::Reply(reply) => out.extend_from_slice(reply),
                Answer::Failed(cause) => cause.write(out),
            }
        }
        Ok(())
    }

    fn merged(&self, nested: &Nested, info: impl Fn() -> ProxyInfo) -> Answer {
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
            let Some(place) = self.places.get(*place) else { continue };
            match (place.cause(), place) {
                (Some(cause), _) => gather.fail(target.clone(), cause),
                (None, Answer::Reply(reply)) => gather.add(first, reply),
                (None, Answer::Failed(_)) => false,
            };
        }
        if gather.wants_info() {
            gather.set_info(info());
        }
        let mut out = Vec::new();
        match gather.finish(&mut out, "") {
            Ok(()) => Answer::Reply(out),
            Err(cause) => Answer::Failed(cause),
        }
    }
}

/// Whether a batch's error says that none of its commands was executed.
fn is_abort(error: &Cause) -> bool {
    matches!(error, Cause::Node(_)) && error.code() == Code::ExecAbort
}

/// The error of the commands in a batch that was discarded while others were not: a node's
/// "Transaction discarded" is about its own batch only.
fn abort_of_part(error: &Cause) -> Failure {
    let text = error.error();
    let reason = text.strip_prefix(DISCARDED).unwrap_or(&text).to_owned();
    Failure::PartDiscarded { reason }
}

/// Prefix of a node's reply to EXEC when nothing of the batch was executed; the reason follows.
/// Also the prefix when slotway merges several such errors.
pub const DISCARDED: &str = "EXECABORT Transaction discarded because of: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(mut gather: ExecGather) -> String {
        let mut out = Vec::new();
        if let Err(cause) = gather.finish(ProxyInfo::default, &mut out) {
            cause.write(&mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_are_in_the_order_of_the_commands() {
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
    fn a_failure_in_one_slot_is_reported_at_its_commands() {
        let mut g = ExecGather::new(Protocol::Resp2, 3);
        let a = g.group(vec![0, 2], false);
        let b = g.group(vec![1], false);
        g.add(b, b"*1\r\n:1\r\n");
        assert!(!g.has_unknown());
        let failure = Failure::ConnectionLost { node: "n".into(), why: "closed".into() };
        let lost = String::from_utf8(failure.frame()).unwrap();
        g.fail(a, failure);
        assert!(g.has_unknown());
        assert_eq!(finish(g), format!("*3\r\n{lost}:1\r\n{lost}"));
    }

    #[test]
    fn a_discarded_part_is_reported_at_its_commands() {
        let mut g = ExecGather::new(Protocol::Resp2, 2);
        let groups = [g.group(vec![0], false), g.group(vec![1], false)];
        g.add(groups[0], b"*1\r\n+OK\r\n");
        g.add(groups[1], b"-EXECABORT Transaction discarded because of: OOM no memory\r\n");
        assert_eq!(
            finish(g),
            "*2\r\n+OK\r\n-EXECABORT this command's slot was not executed: OOM no memory (other \
             slots of the transaction may have been: transactions.cross_slot = \"split\")\r\n"
        );
        // Both are discarded, for different reasons: so is the transaction.
        let mut g = ExecGather::new(Protocol::Resp2, 2);
        let groups = [g.group(vec![0], false), g.group(vec![1], false)];
        g.add(groups[0], b"-EXECABORT Transaction discarded because of: OOM no memory\r\n");
        g.add(groups[1], b"-EXECABORT Transaction discarded because of: NOPERM no\r\n");
        assert_eq!(finish(g), "-EXECABORT Transaction discarded because of: OOM no memory\r\n");
    }

    #[test]
    fn equal_results_of_all_parts_are_the_transactions() {
        for (replies, expected) in [
            (["*-1\r\n", "*-1\r\n"], "*-1\r\n".to_owned()),
            (["-EXECABORT x\r\n", "-EXECABORT x\r\n"], "-EXECABORT x\r\n".to_owned()),
            (["*-1\r\n", "*1\r\n:1\r\n"], {
                let changed = String::from_utf8(Failure::WatchedPartChanged.frame()).unwrap();
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
