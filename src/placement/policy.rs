//! The retry policy: what becomes of a command that a node has refused, whose connection is lost, or
//! whose time is over. Every module that sends a command again asks here.
//!
//! A command is sent again where that cannot change data twice: no node has executed it (it was
//! refused, or never sent in full), or it only reads. A command whose outcome is unknown and that
//! may have changed data is answered with an error that says so.
//!
//! Three limits keep retries from becoming a load of their own:
//! - the **pause** of one command doubles with its attempts ([`pause`]);
//! - the **gate** of a slot ([`super::Holds`]): while nodes refuse the slot, one command probes and
//!   the others wait for its answer;
//! - the **budget** of a worker ([`super::Budget`]): a share of the recent commands.
//!
//! Who asks: `Upstream::lost` for commands on connections that clients share, `ops::Errand` and
//! `worker/dedicated.rs` for those on connections of their own, `worker/refused.rs` and
//! `worker/shards.rs` after refusals, `worker/join.rs` for KEYS, `worker/topology.rs` for what was
//! not sent, `worker/clock.rs` at deadlines, `emulate::Talk` for the steps of emulated commands.
//!
//! A redirection to a known node is progress, not repetition: the first [`FAST_TRIES`] of a command
//! are followed without a pause.

use crate::cluster::SLOTS;
use crate::errors::Unanswered;

use super::{Redirection, Refusal};

/// Redirections that are followed without a pause.
const FAST_TRIES: u8 = 5;
/// The pause before the first retry, microseconds.
const SHORTEST: u64 = 1_000;
/// The longest pause between two retries of a command, and between two probes of a slot,
/// microseconds. It is also how late a recovery can be noticed.
const LONGEST: u64 = 50_000;

/// When a refused command is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At once, to the slot's owner.
    Now,
    /// At once, behind ASKING, to the node that was named.
    Asking,
    /// After a pause of this many microseconds.
    After(u64),
}

/// For whom a refusal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For every command of its kind and slot, and most likely for the node's other slots.
    Node,
    /// For every command of its kind and slot.
    Slot,
    /// For the keys of this command.
    Keys,
}

/// Kinds of commands that a node refuses or serves together: in a cluster that is down it may
/// still serve reads (`cluster-allow-reads-when-down`) and shard messages
/// (`cluster-allow-pubsubshard-when-down`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Commands that only read.
    Read,
    /// Commands that may write.
    Write,
    /// SPUBLISH.
    Publish,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 3;
    /// All of them, by discriminant.
    pub const ALL: [Class; Self::COUNT] = [Class::Read, Class::Write, Class::Publish];
}

/// How often a command without keys follows redirections.
const MAX_HOPS: u8 = 16;
/// How often a step that changes nothing is asked again.
pub const MAX_STEP_TRIES: usize = 3;

/// A command, as far as it matters for sending it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A command on a connection that clients share, or its part for the keys of one slot.
    Shared {
        /// It changes nothing.
        reads: bool,
    },
    /// A read on a connection to a replica.
    ReplicaRead,
    /// A part of a command for all shards (DBSIZE, FLUSHALL): whoever is the shard's primary may
    /// execute it.
    ShardPart {
        /// It changes nothing.
        reads: bool,
        /// A read of a key of the shard goes in front of it.
        behind_check: bool,
    },
    /// A part for one node and no other (CONFIG SET).
    NodePart {
        /// It changes nothing.
        reads: bool,
    },
    /// A command that occupies a dedicated connection, most of them because they may block.
    Blocking {
        /// It changes nothing.
        reads: bool,
        /// It may be sent again after a node may have executed it.
        repeatable: bool,
    },
    /// WATCH of the keys of one slot.
    Watch,
    /// The part of a WATCH over several slots.
    WatchPart,
    /// A transaction on the connection that watches its keys.
    Exec,
    /// The piece of a transaction over several slots.
    ExecPiece,
    /// The question whether a watched key was changed.
    WatchCheck,
    /// The list of one primary, for KEYS.
    KeyList {
        /// The client has the beginning of the reply.
        begun: bool,
    },
    /// A part of a command over several dedicated connections (WAIT).
    LentPart,
    /// A step of an emulated command.
    Step {
        /// It leaves nothing behind.
        harmless: bool,
    },
    /// A command whose reply is discarded.
    Unwaited,
}

impl Work {
    /// Whether it is a read on a connection that clients share.
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

/// How far a command had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its slot, or for a pause to end: it is in no connection's queue.
    Held,
    /// It is in a connection's queue, and not all of it was written.
    Unsent,
    /// All of it was written.
    Sent,
    /// The same, and a write that its client sent behind it on the connection is lost with it: sent
    /// again, a read would see what came later.
    Overtaken,
}

/// What becomes of a refused command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// It is sent again.
    Again(Retry, Scope),
    /// It is sent to the slot's primary.
    ToPrimary,
    /// The transaction is answered as if a watched key had been changed: nothing was executed.
    Aborted,
    /// The client gets the node's error.
    Told,
    /// Its client's connection is closed: it has a part of the reply.
    Closed,
}

/// What becomes of a command whose connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// It is sent again when there is a connection.
    Again,
    /// The client is told that the outcome is unknown.
    OutcomeUnknown,
    /// The client is told that it was not executed.
    NotExecuted,
    /// The transaction is answered as if a watched key had been changed: nothing was executed.
    Aborted,
    /// Its client's connection is closed: it has a part of the reply.
    Closed,
    /// Nobody waits for it.
    Forgotten,
}

/// Whether a refusal is about the command that it answers, so that the policy holds for it. A
/// redirection of another slot than the command's `slot` is not: a script can answer with anything.
/// A command without keys (`None`) follows any slot's redirection, [`MAX_HOPS`] times.
pub fn concerns(refusal: &Refusal, slot: Option<u16>, tries: u8) -> bool {
    match (refusal, slot) {
        (Refusal::Moved(at, _) | Refusal::Ask(at, _), Some(slot)) => at.0 == slot,
        (Refusal::Moved(at, _) | Refusal::Ask(at, _), None) => tries < MAX_HOPS && at.0 < SLOTS,
        (Refusal::Later(_), _) => true,
    }
}

/// Decides about a command that was refused for the `tries`th time. `known`: the node that a
/// redirection names is one of the cluster's.
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
            // The key in front of it is the shard's, and so is the command.
            Refusal::Moved(..) if behind_check => again(),
            _ => AfterRefusal::Told,
        },
        Work::Exec | Work::ExecPiece | Work::WatchPart | Work::WatchCheck => AfterRefusal::Aborted,
        Work::KeyList { begun: true } => AfterRefusal::Closed,
        Work::KeyList { begun: false } => match refusal {
            // Only the owner of a slot tells where its key may be.
            Refusal::Ask(..) => AfterRefusal::Told,
            _ => AfterRefusal::Again(Retry::After(pause(tries)), Scope::Keys),
        },
        Work::NodePart { .. } | Work::LentPart | Work::Step { .. } | Work::Unwaited => {
            AfterRefusal::Told
        }
    }
}

/// When a command that is sent again after the `tries`th refusal goes, and for whom the refusal
/// holds.
fn decide(refusal: &Refusal, known: bool, tries: u8) -> (Retry, Scope) {
    let fast = known && tries <= FAST_TRIES;
    let pause = || Retry::After(pause(tries));
    match refusal {
        Refusal::Moved(..) if fast => (Retry::Now, Scope::Keys),
        // The nodes disagree about the slot.
        Refusal::Moved(..) => (pause(), Scope::Slot),
        Refusal::Ask(..) if fast => (Retry::Asking, Scope::Keys),
        Refusal::Ask(..) => (pause(), Scope::Keys),
        // The script goes before it; that it is sent once only is the worker's to see.
        Refusal::Later(Redirection::NoScript) => (Retry::Now, Scope::Keys),
        Refusal::Later(Redirection::TryAgain) => (pause(), Scope::Keys),
        Refusal::Later(Redirection::ReadOnly) => (pause(), Scope::Slot),
        Refusal::Later(_) => (pause(), Scope::Node),
    }
}

/// Decides about a command whose connection is lost.
pub fn after_loss(work: Work, phase: Phase) -> AfterLoss {
    let sent = matches!(phase, Phase::Sent | Phase::Overtaken);
    match work {
        Work::Unwaited => AfterLoss::Forgotten,
        Work::Shared { .. }
        | Work::ReplicaRead
        | Work::ShardPart { .. }
        | Work::NodePart { .. } => match phase {
            Phase::Held | Phase::Unsent => AfterLoss::Again,
            Phase::Sent if work.only_reads() => AfterLoss::Again,
            Phase::Sent | Phase::Overtaken => AfterLoss::OutcomeUnknown,
        },
        Work::Blocking { repeatable, .. } if sent && !repeatable => AfterLoss::OutcomeUnknown,
        // It waits on at the slot's next primary, with the time that is left.
        Work::Blocking { .. } | Work::Watch => AfterLoss::Again,
        Work::Exec | Work::ExecPiece if sent => AfterLoss::OutcomeUnknown,
        Work::Exec | Work::ExecPiece | Work::WatchCheck => AfterLoss::Aborted,
        Work::KeyList { begun: true } => AfterLoss::Closed,
        Work::KeyList { begun: false } => AfterLoss::Again,
        Work::Step { harmless: true } => AfterLoss::Again,
        Work::LentPart | Work::WatchPart | Work::Step { .. } if sent => AfterLoss::OutcomeUnknown,
        Work::LentPart | Work::WatchPart | Work::Step { .. } => AfterLoss::NotExecuted,
    }
}

/// What is known of a command whose time is over. `repeated`: it was sent before, and that
/// connection was lost.
pub fn at_deadline(work: Work, phase: Phase, repeated: bool) -> Unanswered {
    let sent = matches!(phase, Phase::Sent | Phase::Overtaken);
    let reads = work.only_reads();
    match work {
        Work::Watch | Work::WatchCheck if sent => Unanswered::Harmless,
        // Its parts have connections of their own, and may have been executed.
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

/// Whether a command that was `lost` with its connection, and is not answered with a reply, may have
/// changed data all the same: whatever its last attempt's failure, the client is told.
pub fn may_have_executed(work: Work, lost: bool) -> bool {
    lost && matches!(work, Work::Blocking { reads: false, .. })
}

/// What the cluster says of the node of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It is one of the cluster's nodes.
    pub known: bool,
    /// Its connection works, or is being made.
    pub reachable: bool,
    /// It has failed, and another node is primary in its place.
    pub superseded: bool,
    /// Another node is primary of its shard.
    pub deposed: bool,
}

/// Which node a command in a connection's queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The owner of its slot.
    Owner {
        /// The slot is owned by another node now.
        elsewhere: bool,
        /// It goes behind ASKING, to the node that imports the slot.
        asking: bool,
    },
    /// Any primary.
    Any,
    /// The primary of the node's shard.
    Shard,
    /// The node itself.
    Node,
    /// Nobody waits for it.
    Nobody,
}

/// Whether a command that was not sent leaves the queue of its node for another one, after the
/// topology has changed.
pub fn leaves_queue(target: Target, node: Standing) -> bool {
    match target {
        Target::Owner { elsewhere, asking } => elsewhere && !asking,
        Target::Any => !(node.known && node.reachable),
        Target::Shard => !node.known || node.superseded || (!node.reachable && node.deposed),
        Target::Node => !node.known || node.superseded,
        Target::Nobody => false,
    }
}

/// The pause before try `tries` of a command or probe, microseconds, without jitter.
pub fn pause(tries: u8) -> u64 {
    (SHORTEST << tries.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
