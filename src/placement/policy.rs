//! The retry policy: what a refusal says, when the refused command is sent again, and how many
//! retries a worker may send at all. Every retry of a worker is decided here.
//!
//! Three things bound retries:
//! - the **pause** of one command, which doubles with its tries;
//! - the **gate** of a slot ([`super::Holds`]): while nodes refuse the slot, one command probes and
//!   the others wait for its answer;
//! - the **budget** of a worker ([`Budget`]): a share of the recent commands and a minimum. A retry
//!   beyond it waits; it does not fail.
//!
//! Redirections that lead to a known node are progress, not repetition: the first
//! [`FAST_TRIES`] cost nothing.

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

/// Decides about a command that was refused for the `tries`th time. `known`: the node that a
/// redirection names is one of the cluster's.
pub fn decide(refusal: &Refusal, known: bool, tries: u8) -> (Retry, Scope) {
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

/// The pause before try `tries` of a command or probe, microseconds, without jitter.
pub fn pause(tries: u8) -> u64 {
    (SHORTEST << tries.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeAddr, Slot};

    #[test]
    fn the_policy() {
        use Redirection::{ClusterDown, Loading, MasterDown, NoScript, ReadOnly, TryAgain};
        let to = || NodeAddr { host: "n".into(), port: 1 };
        let moved = || Refusal::Moved(Slot(1), to());
        let ask = || Refusal::Ask(Slot(1), to());
        let after = Retry::After;
        let table = [
            (moved(), true, 1, Retry::Now, Scope::Keys),
            (moved(), true, 5, Retry::Now, Scope::Keys),
            (moved(), true, 6, after(32_000), Scope::Slot),
            (moved(), false, 1, after(1_000), Scope::Slot),
            (ask(), true, 1, Retry::Asking, Scope::Keys),
            (ask(), true, 6, after(32_000), Scope::Keys),
            (ask(), false, 1, after(1_000), Scope::Keys),
            (Refusal::Later(NoScript), false, 9, Retry::Now, Scope::Keys),
            (Refusal::Later(TryAgain), false, 2, after(2_000), Scope::Keys),
            (Refusal::Later(ReadOnly), false, 3, after(4_000), Scope::Slot),
            (Refusal::Later(ClusterDown), false, 1, after(1_000), Scope::Node),
            (Refusal::Later(ClusterDown), false, 255, after(50_000), Scope::Node),
            (Refusal::Later(Loading), false, 4, after(8_000), Scope::Node),
            (Refusal::Later(MasterDown), false, 5, after(16_000), Scope::Node),
        ];
        for (refusal, known, tries, retry, scope) in table {
            assert_eq!(decide(&refusal, known, tries), (retry, scope), "{refusal:?} {tries}");
        }
    }
}
