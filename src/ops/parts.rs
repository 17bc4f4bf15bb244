//! The parts of a command that was sent to several slots or nodes.

use crate::dest::NodeId;
use crate::emulate::Emulation;
use crate::errors::{Cause, Failure};
use crate::resp::Protocol;
use crate::route::{ExecGather, Gather};

/// The parts of one command, by how their replies are used.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // most are merged, and boxes would be allocated for each
pub enum Parts {
    /// The replies are merged into one.
    Merged(Gather),
    /// The parts are the pieces of a transaction.
    Transaction(Box<ExecGather>),
    /// The parts are the current steps of an emulated command, which goes on once all are answered.
    Emulated(Box<Emulation>, Protocol),
}

/// The node that has answered a part.
pub trait Answerer {
    /// The worker's index of the node.
    fn node(&self) -> NodeId;
    /// The node's address, for errors; empty if unknown.
    fn name(&self) -> String;
}

impl Parts {
    /// The merged replies; `None` for transactions and emulated commands.
    pub fn merged(&self) -> Option<&Gather> {
        match self {
            Parts::Merged(gather) => Some(gather),
            _ => None,
        }
    }

    /// [`Parts::merged`], mutable.
    pub fn merged_mut(&mut self) -> Option<&mut Gather> {
        match self {
            Parts::Merged(gather) => Some(gather),
            _ => None,
        }
    }

    /// The emulated command; `None` for others.
    pub fn emulated(&self) -> Option<&Emulation> {
        match self {
            Parts::Emulated(emulation, _) => Some(emulation),
            _ => None,
        }
    }

    /// [`Parts::emulated`], mutable.
    pub fn emulated_mut(&mut self) -> Option<&mut Emulation> {
        match self {
            Parts::Emulated(emulation, _) => Some(emulation),
            _ => None,
        }
    }

    /// Whether the parts are pieces of a transaction.
    pub fn is_transaction(&self) -> bool {
        matches!(self, Parts::Transaction(_))
    }

    /// The protocol of the connections that the parts are sent on.
    pub fn protocol(&self) -> Protocol {
        match self {
            Parts::Merged(gather) => gather.protocol(),
            Parts::Transaction(exec) => exec.protocol(),
            Parts::Emulated(_, protocol) => *protocol,
        }
    }

    /// Number of parts that share the command's expected reply size; at least 1.
    pub fn count(&self) -> u32 {
        self.merged().map_or(1, |gather| gather.parts().max(1))
    }

    /// Memory of the replies so far, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Parts::Merged(gather) => gather.memory(),
            Parts::Transaction(exec) => exec.memory(),
            Parts::Emulated(emulation, _) => emulation.memory(),
        }
    }

    /// Whether a reply may be dropped when there is no memory for it. `Some`: it may, and the error
    /// in its place says that nothing was changed (`true`) or not (`false`). `None`: it must be
    /// kept, as the command has changed data (transactions, emulated commands after their first
    /// write). `reads`: the command only reads.
    pub fn may_drop(&self, reads: bool) -> Option<bool> {
        match self {
            Parts::Merged(_) => Some(reads),
            Parts::Transaction(_) => None,
            Parts::Emulated(emulation, _) => emulation.only_reads().then_some(true),
        }
    }

    /// Adds a node's reply to the part that was given the number `first`. `true`: it was the last
    /// part.
    pub fn add(&mut self, first: u32, frame: &[u8], by: &impl Answerer) -> bool {
        match self {
            Parts::Merged(gather) if frame.first() == Some(&b'-') => {
                gather.fail(by.name(), Cause::node(frame))
            }
            Parts::Merged(gather) => {
                if gather.wants_nodes() {
                    gather.answered_by(by.node(), by.name());
                }
                gather.add(first, frame)
            }
            Parts::Transaction(exec) => exec.add(first, frame),
            Parts::Emulated(emulation, _) => emulation.add(first, frame),
        }
    }

    /// Ends a part with a failure of `node`. `true`: it was the last part.
    pub fn fail(&mut self, first: u32, node: impl FnOnce() -> String, failure: Failure) -> bool {
        match self {
            Parts::Merged(gather) => gather.fail(node(), failure.into()),
            Parts::Transaction(exec) => exec.fail(first, failure),
            Parts::Emulated(emulation, _) => emulation.fail(first, failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::emulate::{Next, Request, Step, Talk};
    use crate::route::Merge;

    struct Node;

    impl Answerer for Node {
        fn node(&self) -> NodeId {
            NodeId(3)
        }

        fn name(&self) -> String {
            "n:1".into()
        }
    }

    fn merged(merge: Merge, parts: usize) -> Parts {
        let mut gather = Gather::default();
        gather.start(merge, Protocol::Resp3);
        (0..parts).for_each(|_| gather.expect());
        Parts::Merged(gather)
    }

    /// A transaction with two commands for two nodes.
    fn transaction() -> Parts {
        let mut exec = ExecGather::new(Protocol::Resp3, 2);
        exec.group(vec![0], false);
        exec.group(vec![1], false);
        Parts::Transaction(Box::new(exec))
    }

    /// An emulated command that reads and then writes.
    fn emulated() -> Parts {
        let request = Request {
            args: vec![b"X".as_slice().into()],
            keys: Vec::new(),
            slots: crate::cluster::SlotSpace::CLUSTER,
            name: "x".into(),
            protocol: Protocol::Resp3,
            wait: Some(0),
            turn: 0,
            patience: 0,
            ticket: 1,
        };
        let recipe = |talk: Talk, _: Rc<Request>| async move {
            talk.ask(vec![Step::one(b"a", &[b"GET", b"a"]), Step::one(b"b", &[b"GET", b"b"])])
                .await;
            talk.writes();
            talk.one(Step::one(b"a", &[b"SET", b"a", b"1"])).await;
            Ok(b"+OK\r\n".to_vec())
        };
        let mut emulation = Emulation::new(request, recipe);
        assert!(matches!(emulation.advance(0), Next::Ask(steps) if steps.len() == 2));
        Parts::Emulated(Box::new(emulation), Protocol::Resp3)
    }

    fn all() -> [Parts; 3] {
        [merged(Merge::AllSucceeded, 2), transaction(), emulated()]
    }

    #[test]
    fn the_last_part_is_told() {
        for mut parts in all() {
            assert!(!parts.add(0, b"*1\r\n+OK\r\n", &Node));
            assert!(parts.add(1, b"*1\r\n+OK\r\n", &Node));
        }
    }

    #[test]
    fn a_failed_part_is_one_that_has_ended() {
        let failure = || Failure::NoPrimary;
        for mut parts in all() {
            assert!(!parts.fail(0, String::new, failure()));
            assert!(parts.fail(1, String::new, failure()));
        }
    }

    #[test]
    fn an_error_of_a_node_ends_its_part() {
        for mut parts in all() {
            assert!(!parts.add(0, b"-ERR x\r\n", &Node));
            assert!(parts.add(1, b"-ERR x\r\n", &Node));
        }
    }

    #[test]
    fn an_error_of_a_node_is_told_with_its_name() {
        let mut parts = merged(Merge::AllSucceeded, 2);
        parts.add(0, b"+OK\r\n", &Node);
        parts.add(0, b"-ERR x\r\n", &Node);
        let cause = parts.merged().unwrap().finish(&mut Vec::new(), "").unwrap_err();
        let mut text = Vec::new();
        cause.write(&mut text);
        assert!(String::from_utf8(text).unwrap().contains("n:1"));
    }

    #[test]
    fn parts_speak_their_clients_protocol() {
        assert!(all().iter().all(|parts| parts.protocol() == Protocol::Resp3));
    }

    #[test]
    fn each_kind_is_told_apart() {
        let [mut merged, mut transaction, mut emulated] = all();
        assert!(merged.merged().is_some() && merged.merged_mut().is_some());
        assert!(merged.emulated().is_none() && !merged.is_transaction());
        assert!(transaction.merged().is_none() && transaction.merged_mut().is_none());
        assert!(transaction.emulated_mut().is_none() && transaction.is_transaction());
        assert!(emulated.emulated().is_some() && emulated.emulated_mut().is_some());
        assert!(!emulated.is_transaction());
    }

    #[test]
    fn merged_parts_share_the_expected_size() {
        assert_eq!(merged(Merge::Sum, 3).count(), 3);
        assert_eq!(merged(Merge::Sum, 0).count(), 1);
        assert_eq!((transaction().count(), emulated().count()), (1, 1));
    }

    #[test]
    fn a_reply_that_is_merged_may_be_dropped() {
        assert_eq!(merged(Merge::Sum, 1).may_drop(true), Some(true));
        assert_eq!(merged(Merge::Sum, 1).may_drop(false), Some(false), "it was executed");
    }

    #[test]
    fn the_replies_of_a_transaction_are_never_dropped() {
        assert_eq!(transaction().may_drop(true), None);
        assert_eq!(transaction().may_drop(false), None);
    }

    #[test]
    fn the_replies_of_an_emulated_command_may_be_dropped_until_it_writes() {
        let mut parts = emulated();
        assert_eq!(parts.may_drop(false), Some(true));
        parts.add(0, b"$-1\r\n", &Node);
        parts.add(1, b"$-1\r\n", &Node);
        assert!(matches!(parts.emulated_mut().unwrap().advance(0), Next::Ask(_)));
        assert_eq!(parts.may_drop(false), None);
    }

    #[test]
    fn replies_occupy_memory() {
        let reply = [b"*1\r\n$1000\r\n".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
        for mut parts in [merged(Merge::Concat, 1), transaction(), emulated()] {
            let before = parts.memory();
            parts.add(0, &reply, &Node);
            assert!(parts.memory() >= before + reply.len(), "{parts:?}");
        }
    }
}
