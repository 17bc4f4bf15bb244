//! An errand: a command that runs on dedicated connections while its client waits for it (BLPOP,
//! WATCH, EXEC behind WATCH, KEYS …), and what happens to it at a refusal, a lost connection or its
//! deadline. It returns what is to be done; the worker sends and waits.

use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dest::ConnId;
use crate::errors::{Failure, Unanswered};
use crate::placement::{
    AfterLoss, Phase, Redirection, Retry, Scope, Work, after_loss, at_deadline, may_have_executed,
};
use crate::route::WaitTime;

/// Kinds of errands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrandKind {
    /// A command that may block.
    Block,
    /// WATCH.
    Watch,
    /// EXEC on the connection that watches the keys.
    Exec,
    /// Before a transaction over several slots: the check whether a watched key has changed.
    Check {
        /// Number of connections that have not answered.
        left: usize,
        /// A key has changed.
        changed: bool,
    },
    /// A command for several nodes.
    Fleet,
    /// KEYS: the lists of all primaries.
    Join,
    /// A command over several slots that is emulated in steps.
    Emulated,
}

/// A command in progress on dedicated connections.
#[derive(Debug)]
pub struct Errand {
    /// What the errand is for.
    pub kind: ErrandKind,
    /// Number of its reply in the client's queue.
    pub seq: u32,
    /// Index in the command table.
    pub command: CommandId,
    /// Slot of the keys, or [`Slot::NONE`].
    pub slot: Slot,
    /// The command as the client sent it.
    pub frame: Vec<u8>,
    /// Index of the connection that it was sent on.
    pub upstream: Option<ConnId>,
    /// Index of the gathering of an emulated command.
    pub gathering: Option<usize>,
    /// The command's own timeout.
    pub time: Option<WaitTime>,
    /// When the command arrived, in microseconds of the worker's clock.
    pub started: u64,
    /// Deadline on the same clock; `None`: none.
    pub until: Option<u64>,
    /// The command may be resent even if a node may have executed it.
    pub repeatable: bool,
    /// It was sent to the node that is importing its slot.
    pub asking: bool,
    /// A connection was lost after the command was sent on it.
    pub lost: bool,
    /// Number of resends.
    pub tries: u8,
    /// The last refusal by a node; `None`: not refused since the last loss.
    pub refused: Option<Redirection>,
    /// Text of the last refusal or failure.
    pub last: Option<String>,
}

/// What happens to an errand after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusedErrand {
    /// It is sent to the node that the redirection names: with ASKING if its slot is known.
    SendToNamed,
    /// It is sent to its slot's owner.
    SendToOwner,
    /// It is sent after a pause.
    SendLater,
    /// It waits at the gate of its slot, which is closed.
    WaitAtGate {
        /// The node most likely refuses its other slots too.
        wide: bool,
    },
}

impl Errand {
    /// An errand that starts at `now` and has no reply number yet.
    pub fn new(kind: ErrandKind, command: CommandId, slot: Slot, frame: Vec<u8>, now: u64) -> Self {
        Errand {
            kind,
            seq: 0,
            command,
            slot,
            frame,
            upstream: None,
            gathering: None,
            time: None,
            started: now,
            until: None,
            repeatable: true,
            asking: false,
            lost: false,
            tries: 0,
            refused: None,
            last: None,
        }
    }

    /// The errand as the retry policy sees it. `reads`: the command only reads.
    pub fn work(&self, reads: bool) -> Work {
        match self.kind {
            ErrandKind::Block => Work::Blocking { reads, repeatable: self.repeatable },
            ErrandKind::Watch => Work::Watch,
            ErrandKind::Exec => Work::Exec,
            ErrandKind::Check { .. } => Work::WatchCheck,
            ErrandKind::Join => Work::KeyList { begun: false },
            ErrandKind::Fleet | ErrandKind::Emulated => Work::DedicatedPart,
        }
    }

    /// Records a refusal with the text `said`, so it was not executed. `retry` and `scope` come
    /// from the policy.
    pub fn refused(
        &mut self,
        kind: Redirection,
        said: String,
        retry: Retry,
        scope: Scope,
    ) -> AfterRefusedErrand {
        self.upstream = None;
        self.tries = self.tries.saturating_add(1);
        self.refused = Some(kind);
        self.last = Some(said);
        let keyless = self.slot.is_keyless();
        match (retry, scope) {
            (_, Scope::Slot | Scope::Node) if !keyless => {
                AfterRefusedErrand::WaitAtGate { wide: scope == Scope::Node }
            }
            // The named node knows the keys' slot, which slotway does not.
            (Retry::Now, _) if keyless => AfterRefusedErrand::SendToNamed,
            (Retry::Now, _) => AfterRefusedErrand::SendToOwner,
            (Retry::Asking, _) => AfterRefusedErrand::SendToNamed,
            (Retry::After(_), _) => AfterRefusedErrand::SendLater,
        }
    }

    /// Records the loss of its connection and returns the policy's decision. `sent`: the command
    /// was fully written. `reads`: it only reads.
    pub fn lost(&mut self, sent: bool, reads: bool, failure: &Failure) -> AfterLoss {
        self.upstream = None;
        let phase = if sent { Phase::Sent } else { Phase::Unsent };
        let after = after_loss(self.work(reads), phase);
        if after == AfterLoss::Again {
            self.lost |= sent;
            self.tries = self.tries.saturating_add(1);
            self.refused = None;
            self.last = Some(failure.to_string());
        }
        after
    }

    /// What is known about the command at its deadline. `under_way`: it was sent on a connection.
    pub fn overdue(&self, reads: bool, under_way: bool) -> Unanswered {
        let phase = if under_way { Phase::Sent } else { Phase::Held };
        at_deadline(self.work(reads), phase, self.lost)
    }

    /// The client's error where the last attempt ended with `failure`: it also says if an earlier
    /// attempt may have been executed.
    pub fn failure(&self, reads: bool, failure: Failure) -> Failure {
        match may_have_executed(self.work(reads), self.lost) && !failure.is_outcome_unknown() {
            true => Failure::NotSentAgain { cause: failure.into() },
            false => failure,
        }
    }

    /// The rest of its timeout in microseconds, if the command is resent and has a timeout. `None`:
    /// it is sent as it is.
    pub fn time_left(&self, now: u64) -> Option<(WaitTime, u64)> {
        let time = self.time.filter(|_| self.tries > 0 && self.repeatable)?;
        let micros = time.micros?;
        Some((time, micros.saturating_sub(now.saturating_sub(self.started))))
    }

    /// Whether it waits as long as its client has asked it to.
    pub fn is_blocking(&self) -> bool {
        self.kind == ErrandKind::Block || self.time.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Micros;

    const SLOT: Slot = Slot(7);

    fn errand(kind: ErrandKind) -> Errand {
        Errand::new(kind, CommandId(1), SLOT, b"x".to_vec(), 100)
    }

    fn lost() -> Failure {
        Failure::ConnectionLost { node: "n:1".into(), why: "closed".into() }
    }

    fn refuse(errand: &mut Errand, retry: Retry, scope: Scope) -> AfterRefusedErrand {
        errand.refused(Redirection::ClusterDown, "CLUSTERDOWN x".into(), retry, scope)
    }

    #[test]
    fn a_refusal_is_noted() {
        let mut errand = errand(ErrandKind::Block);
        errand.upstream = Some(ConnId::new(3));
        refuse(&mut errand, Retry::Now, Scope::Keys);
        assert_eq!((errand.upstream, errand.tries), (None, 1));
        assert_eq!(errand.refused, Some(Redirection::ClusterDown));
        assert_eq!(errand.last.as_deref(), Some("CLUSTERDOWN x"));
        assert!(!errand.lost, "it was not executed");
    }

    #[test]
    fn a_redirection_to_a_known_node_is_followed() {
        let now = refuse(&mut errand(ErrandKind::Block), Retry::Now, Scope::Keys);
        assert_eq!(now, AfterRefusedErrand::SendToOwner);
        let asking = refuse(&mut errand(ErrandKind::Block), Retry::Asking, Scope::Keys);
        assert_eq!(asking, AfterRefusedErrand::SendToNamed);
    }

    #[test]
    fn a_redirection_without_keys_is_followed_to_the_node_that_was_named() {
        let mut errand = errand(ErrandKind::Block);
        errand.slot = Slot::NONE;
        let now = refuse(&mut errand, Retry::Now, Scope::Keys);
        assert_eq!(now, AfterRefusedErrand::SendToNamed);
    }

    #[test]
    fn a_refusal_of_its_keys_is_waited_out() {
        let later =
            refuse(&mut errand(ErrandKind::Watch), Retry::After(Micros(1_000)), Scope::Keys);
        assert_eq!(later, AfterRefusedErrand::SendLater);
    }

    #[test]
    fn a_refusal_of_its_slot_closes_the_gate() {
        let gate = refuse(&mut errand(ErrandKind::Block), Retry::After(Micros(1_000)), Scope::Slot);
        assert_eq!(gate, AfterRefusedErrand::WaitAtGate { wide: false });
        let gate = refuse(&mut errand(ErrandKind::Block), Retry::After(Micros(1_000)), Scope::Node);
        assert_eq!(gate, AfterRefusedErrand::WaitAtGate { wide: true });
    }

    #[test]
    fn without_keys_there_is_no_gate() {
        let mut errand = errand(ErrandKind::Block);
        errand.slot = Slot::NONE;
        let later = refuse(&mut errand, Retry::After(Micros(1_000)), Scope::Node);
        assert_eq!(later, AfterRefusedErrand::SendLater);
    }

    #[test]
    fn a_pop_that_was_lost_is_sent_again_and_remembered() {
        let mut errand = errand(ErrandKind::Block);
        errand.upstream = Some(ConnId::new(3));
        assert_eq!(errand.lost(true, false, &lost()), AfterLoss::Again);
        assert_eq!((errand.upstream, errand.lost, errand.tries), (None, true, 1));
        assert_eq!(errand.last, Some(lost().to_string()));
    }

    #[test]
    fn a_pop_that_was_not_sent_is_no_lost_write() {
        let mut errand = errand(ErrandKind::Block);
        assert_eq!(errand.lost(false, false, &lost()), AfterLoss::Again);
        assert!(!errand.lost);
        assert_eq!(errand.failure(false, Failure::NoPrimary), Failure::NoPrimary);
    }

    #[test]
    fn a_loss_forgets_the_refusal_before_it() {
        let mut errand = errand(ErrandKind::Block);
        refuse(&mut errand, Retry::After(Micros(1_000)), Scope::Keys);
        errand.lost(false, false, &lost());
        assert_eq!(errand.refused, None);
    }

    #[test]
    fn a_command_that_must_not_be_repeated_is_not() {
        let mut errand = errand(ErrandKind::Block);
        errand.repeatable = false;
        assert_eq!(errand.lost(true, false, &lost()), AfterLoss::OutcomeUnknown);
        assert_eq!(errand.tries, 0);
    }

    #[test]
    fn a_transaction_that_was_sent_is_not_sent_again() {
        assert_eq!(errand(ErrandKind::Exec).lost(true, false, &lost()), AfterLoss::OutcomeUnknown);
        assert_eq!(errand(ErrandKind::Exec).lost(false, false, &lost()), AfterLoss::Aborted);
    }

    #[test]
    fn a_check_of_watches_that_is_lost_finds_a_change() {
        let check = ErrandKind::Check { left: 1, changed: false };
        assert_eq!(errand(check).lost(true, false, &lost()), AfterLoss::Aborted);
    }

    #[test]
    fn the_failure_of_a_pop_that_was_lost_says_so() {
        let mut errand = errand(ErrandKind::Block);
        errand.lost(true, false, &lost());
        let failure = errand.failure(false, Failure::NoPrimary);
        assert_eq!(failure, Failure::NotSentAgain { cause: Failure::NoPrimary.into() });
        assert_eq!(errand.failure(true, Failure::NoPrimary), Failure::NoPrimary, "it reads");
    }

    #[test]
    fn an_outcome_that_is_unknown_is_said_once() {
        let mut errand = errand(ErrandKind::Block);
        errand.lost(true, false, &lost());
        assert_eq!(errand.failure(false, lost()), lost());
    }

    #[test]
    fn at_its_deadline_a_pop_under_way_may_have_popped() {
        assert_eq!(errand(ErrandKind::Block).overdue(false, true), Unanswered::Unknown);
    }

    #[test]
    fn at_its_deadline_a_pop_that_waits_has_not() {
        assert_eq!(errand(ErrandKind::Block).overdue(false, false), Unanswered::NotExecuted);
    }

    #[test]
    fn at_its_deadline_a_pop_that_was_lost_may_have_popped() {
        let mut errand = errand(ErrandKind::Block);
        errand.lost(true, false, &lost());
        assert_eq!(errand.overdue(false, false), Unanswered::Unknown);
    }

    #[test]
    fn a_list_of_keys_changes_nothing() {
        assert_eq!(errand(ErrandKind::Join).overdue(false, false), Unanswered::Harmless);
    }

    fn with_time(micros: Option<u64>) -> Errand {
        let mut errand = errand(ErrandKind::Block);
        let ranges = crate::resp::words("BLPOP a 1");
        let args = crate::resp::Args::new(b"BLPOP a 1", &ranges);
        errand.time = crate::route::wait_time(&args);
        errand.time.as_mut().unwrap().micros = micros;
        errand
    }

    #[test]
    fn the_first_attempt_has_all_of_its_time() {
        assert!(with_time(Some(1_000)).time_left(600).is_none());
    }

    #[test]
    fn the_next_attempt_has_what_is_left() {
        let mut errand = with_time(Some(1_000));
        errand.tries = 1;
        assert_eq!(errand.time_left(600).map(|(_, left)| left), Some(500));
        assert_eq!(errand.time_left(9_000).map(|(_, left)| left), Some(0));
    }

    #[test]
    fn for_ever_stays_for_ever() {
        let mut errand = with_time(None);
        errand.tries = 1;
        assert!(errand.time_left(600).is_none());
    }

    #[test]
    fn what_waits_as_it_was_told_to_is_blocking() {
        assert!(errand(ErrandKind::Block).is_blocking());
        assert!(!errand(ErrandKind::Exec).is_blocking());
        assert!(!errand(ErrandKind::Watch).is_blocking());
        let mut emulated = with_time(Some(1));
        emulated.kind = ErrandKind::Emulated;
        assert!(emulated.is_blocking(), "BLPOP over several slots");
    }

    #[test]
    fn what_is_not_repeated_keeps_its_time() {
        let mut errand = with_time(Some(1_000));
        (errand.tries, errand.repeatable) = (1, false);
        assert!(errand.time_left(600).is_none());
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Moved,
        Asked,
        Refused,
        LostUnsent,
        LostSent,
    }

    const EVENTS: [Event; 5] =
        [Event::Moved, Event::Asked, Event::Refused, Event::LostUnsent, Event::LostSent];

    /// All orders of up to five events for every kind of errand: a command that may have changed
    /// data and must not be repeated is never resent, and no error hides the possible change.
    #[test]
    fn in_every_order_of_events_nothing_is_repeated_or_hidden() {
        let kinds = [
            ErrandKind::Block,
            ErrandKind::Watch,
            ErrandKind::Exec,
            ErrandKind::Check { left: 1, changed: false },
        ];
        let mut orders = 0;
        for (kind, reads, repeatable) in kinds.into_iter().flat_map(|kind| {
            [(false, false), (false, true), (true, true)].map(|(r, again)| (kind, r, again))
        }) {
            for length in 1..=5u32 {
                for number in 0..5usize.pow(length) {
                    let order = (0..length).map(|i| EVENTS[number / 5usize.pow(i) % 5]);
                    orders += 1;
                    check(kind, reads, repeatable, &order.collect::<Vec<_>>());
                }
            }
        }
        assert_eq!(orders, 12 * (5 + 25 + 125 + 625 + 3_125));
    }

    fn check(kind: ErrandKind, reads: bool, repeatable: bool, order: &[Event]) {
        let mut errand = errand(kind);
        errand.repeatable = repeatable;
        let mut may_have_changed = false;
        let later = (Retry::After(Micros(1_000)), Scope::Node);
        for (i, event) in order.iter().enumerate() {
            let tries = errand.tries;
            let said = || "x".to_owned();
            let sent = match event {
                Event::Moved => {
                    errand.refused(Redirection::Moved, said(), Retry::Now, Scope::Keys);
                    continue;
                }
                Event::Asked => {
                    errand.refused(Redirection::Ask, said(), Retry::Asking, Scope::Keys);
                    continue;
                }
                Event::Refused => {
                    errand.refused(Redirection::Loading, said(), later.0, later.1);
                    continue;
                }
                Event::LostUnsent => false,
                Event::LostSent => true,
            };
            let changes = sent && !reads && matches!(kind, ErrandKind::Block | ErrandKind::Exec);
            may_have_changed |= changes;
            let after = errand.lost(sent, reads, &lost());
            let told = errand.failure(reads, lost()).is_outcome_unknown();
            match after {
                AfterLoss::Again => {
                    assert!(!changes || repeatable, "{kind:?} {order:?} {i}: repeated");
                    assert_eq!(errand.tries, tries.saturating_add(1));
                }
                AfterLoss::OutcomeUnknown => {
                    assert!(told, "{kind:?} {order:?} {i}");
                    return;
                }
                _ => {
                    assert!(!may_have_changed, "{kind:?} {order:?} {i}: hidden");
                    return;
                }
            }
        }
        if may_have_changed {
            // Now its deadline comes, its last attempt fails, or its client unblocks it.
            assert_eq!(errand.overdue(reads, false), Unanswered::Unknown, "{kind:?} {order:?}");
            for last in [Failure::NoPrimary, Failure::UnblockedByClient] {
                assert!(errand.failure(reads, last).is_outcome_unknown(), "{kind:?} {order:?}");
            }
        }
    }
}
