//! The retry policy: what happens to a command after a node refuses it, after its connection is
//! lost, and at its deadline. Every module that resends commands asks here.
//!
//! A command is resent only where that cannot change data twice: no node has executed it (it was
//! refused, or not fully written), or it only reads. A command that may have changed data and whose
//! outcome is unknown is answered with an error that says so. One exception: a blocking pop (BLPOP
//! …) whose connection is lost is resent, because it was most likely still waiting; if it fails
//! later, the error says that it may have been executed ([`may_have_executed`]).
//!
//! Three limits keep retries from overloading the nodes:
//! - **pause**: the delay between two attempts of one command, which doubles ([`pause`]);
//! - **gate** of a slot ([`super::Holds`]): while nodes refuse the slot, one command probes it and
//!   the others wait for the answer;
//! - **budget** of a worker ([`super::Budget`]): retries are limited to a share of recent commands.
//!
//! Callers: `Upstream::lost` for shared connections; `ops::Errand` and `delivery/dedicated.rs` for
//! dedicated connections; `delivery/refused.rs` and `nodes/shards.rs` after refusals;
//! `operations/join.rs` for KEYS; `operations/resends.rs` for unsent commands;
//! `engine/deadlines.rs` at deadlines; `emulate::Talk` for the steps of emulated commands.
//!
//! A redirection to a known node is progress rather than repetition: a command follows its first
//! [`FAST_TRIES`] redirections without a pause.

use crate::cluster::Slot;
use crate::errors::Unanswered;

use super::{Micros, Redirection, Refusal};

/// Number of redirections that a command follows without a pause.
const FAST_TRIES: u8 = 5;
/// Pause before the first retry.
const MIN_PAUSE: Micros = Micros(1_000);
/// Longest pause between two attempts of a command or two probes of a slot. A recovery is
/// noticed at most this late.
const MAX_PAUSE: Micros = Micros(50_000);

/// When a refused command is resent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Immediately, to the slot's owner.
    Now,
    /// Immediately, behind ASKING, to the node that the redirection names.
    Asking,
    /// After this pause.
    After(Micros),
}

/// Which commands a refusal applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All commands of the same [`GateClass`] and slot, and most likely the node's other slots too.
    Node,
    /// All commands of the same [`GateClass`] and slot.
    Slot,
    /// Only this command's keys.
    Keys,
}

/// Classes of commands that a node refuses or serves together. While the cluster is down, a node
/// may still serve reads (`cluster-allow-reads-when-down`) and shard messages
/// (`cluster-allow-pubsubshard-when-down`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateClass {
    /// Commands that only read.
    Read,
    /// Commands that may write.
    Write,
    /// SPUBLISH.
    Publish,
}

impl GateClass {
    /// Number of classes.
    pub const COUNT: usize = 3;
    /// All classes, indexed by discriminant.
    pub const ALL: [GateClass; Self::COUNT] =
        [GateClass::Read, GateClass::Write, GateClass::Publish];
}

/// Maximum number of redirections that a command without keys follows.
const MAX_HOPS: u8 = 16;
/// Maximum number of attempts for a read-only step of an emulated command.
pub const MAX_STEP_TRIES: usize = 3;

/// The properties of a command that decide whether it is resent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A command on a shared connection, or the part of such a command for the keys of one slot.
    Shared {
        /// The command only reads.
        reads: bool,
    },
    /// A read on a connection to a replica, where it may see older data.
    ReplicaRead,
    /// A part of a command for all shards (DBSIZE, FLUSHALL). Any node that is the shard's primary
    /// may execute it.
    ShardPart {
        /// The command only reads.
        reads: bool,
        /// The part is sent in a transaction behind a read of one of the shard's keys
        /// (`delivery/shard_check.rs`).
        behind_check: bool,
    },
    /// A part for one particular node (CONFIG SET).
    NodePart {
        /// The command only reads.
        reads: bool,
    },
    /// A command that occupies a dedicated connection, usually because it may block.
    Blocking {
        /// The command only reads.
        reads: bool,
        /// The command may be resent even if a node may have executed it.
        repeatable: bool,
    },
    /// WATCH of the keys of one slot.
    Watch,
    /// One slot's part of a WATCH over several slots.
    WatchPart,
    /// A transaction on the connection that watches its keys.
    Exec,
    /// One slot's part of a transaction over several slots.
    ExecPiece,
    /// The check whether a watched key has changed, before a transaction over several slots.
    WatchCheck,
    /// The list of keys of one primary, for KEYS.
    KeyList {
        /// The client has received the beginning of the reply.
        begun: bool,
    },
    /// One node's part of a command that occupies several dedicated connections (WAIT).
    DedicatedPart,
    /// A step of an emulated command.
    Step {
        /// The step leaves no changes behind.
        harmless: bool,
    },
    /// A command whose reply is discarded.
    ReplyDiscarded,
}

impl Work {
    /// Whether this is a read, or a part that only reads, on a shared connection.
    fn only_reads(self) -> bool {
        match self {
            Work::Shared { reads } | Work::ShardPart { reads, .. } | Work::NodePart { reads } => {
                reads
            }
            Work::ReplicaRead => true,
            _ => false,
        }
    }
}

/// How far a command had come when its connection was lost or its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for its slot or for the end of a pause; in no connection's queue.
    Held,
    /// In a connection's queue and not fully written.
    Unsent,
    /// Fully written.
    Sent,
    /// Fully written, and the same client's later write to the same slot is lost with the
    /// connection and not resent. Resent now, a read would see a later value.
    Overtaken,
}

/// What happens to a refused command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// The command is resent.
    Again(Retry, Scope),
    /// The read goes to the slot's primary instead.
    ToPrimary,
    /// The transaction is answered as if a watched key had changed. Nothing was executed.
    Aborted,
    /// The node's reply is passed on to the client as it is.
    PassedOn,
    /// The client's connection is closed, because the client has received a part of the reply.
    Closed,
}

/// What happens to a command whose connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// The command is resent once there is a connection.
    Again,
    /// The client gets an error: the outcome is unknown.
    OutcomeUnknown,
    /// The client gets an error: the command was not executed.
    NotExecuted,
    /// The transaction is answered as if a watched key had changed. Nothing was executed.
    Aborted,
    /// The client's connection is closed, because the client has received a part of the reply.
    Closed,
    /// The command is dropped, because its reply would be discarded.
    Dropped,
}

/// Whether the policy applies to a refusal, that is, whether it is about the command that it
/// answers. A redirection of another slot than the command's `slot` is not: a script can return any
/// error. A command without keys (`slot` is `None`) follows redirections of any slot, [`MAX_HOPS`]
/// times.
pub fn concerns(refusal: &Refusal, slot: Option<Slot>, tries: u8) -> bool {
    match (refusal, slot) {
        (Refusal::Moved(at, _) | Refusal::Ask(at, _), Some(slot)) => *at == slot,
        (Refusal::Moved(at, _) | Refusal::Ask(at, _), None) => tries < MAX_HOPS && !at.is_keyless(),
        (Refusal::Later(_), _) => true,
    }
}

/// Decides what happens to a command after its `tries`th refusal. `known`: the node that a
/// redirection names is a node of the cluster.
pub fn after_refusal(work: Work, refusal: &Refusal, known: bool, tries: u8) -> AfterRefusal {
    use Redirection::{ClusterDown, Loading, MasterDown, ReadOnly};
    let again = || {
        let (retry, scope) = decide(refusal, known, tries);
        AfterRefusal::Again(retry, scope)
    };
    match work {
        Work::Shared { .. } | Work::Blocking { .. } | Work::Watch => again(),
        Work::ReplicaRead => AfterRefusal::ToPrimary,
        Work::ShardPart { behind_check, .. } => match refusal {
            Refusal::Later(ClusterDown | Loading | MasterDown | ReadOnly) => again(),
            // MOVED answers the read in front, whose key is in the shard.
            Refusal::Moved(..) if behind_check => again(),
            _ => AfterRefusal::PassedOn,
        },
        Work::Exec | Work::ExecPiece | Work::WatchPart | Work::WatchCheck => AfterRefusal::Aborted,
        Work::KeyList { begun: true } => AfterRefusal::Closed,
        Work::KeyList { begun: false } => match refusal {
            // Only a slot's owner answers ASK: the node serves its shard, and its list counts.
            Refusal::Ask(..) => AfterRefusal::PassedOn,
            _ => AfterRefusal::Again(Retry::After(pause(tries)), Scope::Keys),
        },
        Work::NodePart { .. } | Work::DedicatedPart | Work::Step { .. } | Work::ReplyDiscarded => {
            AfterRefusal::PassedOn
        }
    }
}

/// When a command is resent after its `tries`th refusal, and which commands the refusal applies to.
fn decide(refusal: &Refusal, known: bool, tries: u8) -> (Retry, Scope) {
    let fast = known && tries <= FAST_TRIES;
    let pause = || Retry::After(pause(tries));
    match refusal {
        Refusal::Moved(..) if fast => (Retry::Now, Scope::Keys),
        // The nodes disagree about the slot's owner, or the named node is not known yet.
        Refusal::Moved(..) => (pause(), Scope::Slot),
        Refusal::Ask(..) if fast => (Retry::Asking, Scope::Keys),
        Refusal::Ask(..) => (pause(), Scope::Keys),
        // The worker sends the script first and makes sure that it does so only once.
        Refusal::Later(Redirection::NoScript) => (Retry::Now, Scope::Keys),
        Refusal::Later(Redirection::TryAgain) => (pause(), Scope::Keys),
        Refusal::Later(Redirection::ReadOnly) => (pause(), Scope::Slot),
        Refusal::Later(_) => (pause(), Scope::Node),
    }
}

/// Decides what happens to a command whose connection is lost in `phase`.
pub fn after_loss(work: Work, phase: Phase) -> AfterLoss {
    let sent = matches!(phase, Phase::Sent | Phase::Overtaken);
    match work {
        Work::ReplyDiscarded => AfterLoss::Dropped,
        Work::Shared { .. }
        | Work::ReplicaRead
        | Work::ShardPart { .. }
        | Work::NodePart { .. } => match phase {
            Phase::Held | Phase::Unsent => AfterLoss::Again,
            Phase::Sent if work.only_reads() => AfterLoss::Again,
            Phase::Sent | Phase::Overtaken => AfterLoss::OutcomeUnknown,
        },
        Work::Blocking { repeatable, .. } if sent && !repeatable => AfterLoss::OutcomeUnknown,
        // The command keeps waiting at the slot's next primary, for the rest of its timeout.
        Work::Blocking { .. } | Work::Watch => AfterLoss::Again,
        Work::Exec | Work::ExecPiece if sent => AfterLoss::OutcomeUnknown,
        Work::Exec | Work::ExecPiece | Work::WatchCheck => AfterLoss::Aborted,
        Work::KeyList { begun: true } => AfterLoss::Closed,
        Work::KeyList { begun: false } => AfterLoss::Again,
        Work::Step { harmless: true } => AfterLoss::Again,
        Work::DedicatedPart | Work::WatchPart | Work::Step { .. } if sent => {
            AfterLoss::OutcomeUnknown
        }
        Work::DedicatedPart | Work::WatchPart | Work::Step { .. } => AfterLoss::NotExecuted,
    }
}

/// What is known about a command at its deadline. `repeated`: an earlier attempt was sent, and its
/// connection was lost.
pub fn at_deadline(work: Work, phase: Phase, repeated: bool) -> Unanswered {
    let sent = matches!(phase, Phase::Sent | Phase::Overtaken);
    let reads = work.only_reads();
    match work {
        Work::Watch | Work::WatchCheck if sent => Unanswered::Harmless,
        // `phase` does not cover the parts, which have their own connections and only read.
        Work::KeyList { .. } => Unanswered::Harmless,
        Work::Blocking { .. } if sent || may_have_executed(work, repeated) => Unanswered::Unknown,
        Work::Blocking { .. } => Unanswered::NotExecuted,
        _ if sent && reads => Unanswered::Read,
        _ if sent => Unanswered::Unknown,
        _ if reads && repeated => Unanswered::Read,
        _ if phase == Phase::Held => Unanswered::NotExecuted,
        _ => Unanswered::NotSent,
    }
}

/// Whether a command that ends with an error may have changed data in an earlier attempt: `lost`
/// says that the connection of an attempt was lost after the command was sent. The client is then
/// told so, whatever the last attempt's error is.
pub fn may_have_executed(work: Work, lost: bool) -> bool {
    lost && matches!(work, Work::Blocking { reads: false, .. })
}

/// The state of a connection's node in the current topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// The node is part of the topology.
    pub known: bool,
    /// The connection works or is being established.
    pub reachable: bool,
    /// The node has failed, and another node is primary in its place.
    pub superseded: bool,
    /// Another node is the primary of its shard.
    pub deposed: bool,
}

/// Which nodes may execute a command that is in a connection's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The owner of the command's slot.
    Owner {
        /// The slot's owner is no longer this connection's node.
        elsewhere: bool,
        /// The command goes behind ASKING to the node that is importing the slot.
        asking: bool,
    },
    /// Any primary.
    Any,
    /// The primary of the node's shard.
    Shard,
    /// Only this node.
    Node,
    /// Irrelevant: the reply is discarded.
    Nobody,
}

/// Whether an unsent command is moved from its connection's queue after a change of topology.
pub fn leaves_queue(target: Target, node: NodeStatus) -> bool {
    match target {
        Target::Owner { elsewhere, asking } => elsewhere && !asking,
        Target::Any => !(node.known && node.reachable),
        Target::Shard => !node.known || node.superseded || (!node.reachable && node.deposed),
        Target::Node => !node.known || node.superseded,
        Target::Nobody => false,
    }
}

/// Pause before attempt number `tries` of a command or probe, without jitter: 1, 2, 4 … 50 ms.
pub fn pause(tries: u8) -> Micros {
    Micros(MIN_PAUSE.0 << tries.saturating_sub(1).min(10)).min(MAX_PAUSE)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
