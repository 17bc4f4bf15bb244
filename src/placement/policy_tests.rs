//! The retry policy as a table: each kind of command, each refusal, each phase, one test a row.

use super::AfterRefusal::{Aborted, Closed, PassedOn, ToPrimary};
use super::Phase::{Held, Overtaken, Sent, Unsent};
use super::Redirection::{ClusterDown, Loading, MasterDown, NoScript, ReadOnly, TryAgain};
use super::*;
use crate::cluster::{NodeAddr, Slot};

/// Rows of a table: each is a test of its name, that its two sides are equal.
macro_rules! rows {
    ($($name:ident: $got:expr => $want:expr;)*) => {
        $(#[test] fn $name() { assert_eq!($got, $want); })*
    };
}

const READ: Work = Work::Shared { reads: true };
const WRITE: Work = Work::Shared { reads: false };
const POP: Work = Work::Blocking { reads: false, repeatable: true };
const MODULE: Work = Work::Blocking { reads: false, repeatable: false };
const XREAD: Work = Work::Blocking { reads: true, repeatable: true };
const PART: Work = Work::ShardPart { reads: false, behind_check: false };
const CHECKED: Work = Work::ShardPart { reads: false, behind_check: true };
const COUNT: Work = Work::ShardPart { reads: true, behind_check: false };
const SET: Work = Work::NodePart { reads: false };
const LOOKUP: Work = Work::NodePart { reads: true };
const LIST: Work = Work::KeyList { begun: false };
const LIST_BEGUN: Work = Work::KeyList { begun: true };
const LOOK: Work = Work::Step { harmless: true };
const CHANGE: Work = Work::Step { harmless: false };

fn node() -> NodeAddr {
    NodeAddr { host: "n".into(), port: 1 }
}

fn moved() -> Refusal {
    Refusal::Moved(Slot(1), node())
}

fn ask() -> Refusal {
    Refusal::Ask(Slot(1), node())
}

/// The first refusal, by a node that names a known one.
fn first(work: Work, refusal: Refusal) -> AfterRefusal {
    after_refusal(work, &refusal, true, 1)
}

fn later(work: Work, kind: Redirection) -> AfterRefusal {
    first(work, Refusal::Later(kind))
}

fn now() -> AfterRefusal {
    AfterRefusal::Again(Retry::Now, Scope::Keys)
}

fn asking() -> AfterRefusal {
    AfterRefusal::Again(Retry::Asking, Scope::Keys)
}

/// After the shortest pause.
fn pausing(scope: Scope) -> AfterRefusal {
    AfterRefusal::Again(Retry::After(Micros(1_000)), scope)
}

rows! {
    a_read_moved: first(READ, moved()) => now();
    a_read_asked: first(READ, ask()) => asking();
    a_read_tryagain: later(READ, TryAgain) => pausing(Scope::Keys);
    a_read_clusterdown: later(READ, ClusterDown) => pausing(Scope::Node);
    a_read_loading: later(READ, Loading) => pausing(Scope::Node);
    a_read_masterdown: later(READ, MasterDown) => pausing(Scope::Node);
    a_read_readonly: later(READ, ReadOnly) => pausing(Scope::Slot);
    a_read_noscript: later(READ, NoScript) => now();
    a_write_moved: first(WRITE, moved()) => now();
    a_write_asked: first(WRITE, ask()) => asking();
    a_write_tryagain: later(WRITE, TryAgain) => pausing(Scope::Keys);
    a_write_clusterdown: later(WRITE, ClusterDown) => pausing(Scope::Node);
    a_write_loading: later(WRITE, Loading) => pausing(Scope::Node);
    a_write_masterdown: later(WRITE, MasterDown) => pausing(Scope::Node);
    a_write_readonly: later(WRITE, ReadOnly) => pausing(Scope::Slot);
    a_write_noscript: later(WRITE, NoScript) => now();
    a_pop_moved: first(POP, moved()) => now();
    a_pop_asked: first(POP, ask()) => asking();
    a_pop_tryagain: later(POP, TryAgain) => pausing(Scope::Keys);
    a_pop_clusterdown: later(POP, ClusterDown) => pausing(Scope::Node);
    a_pop_loading: later(POP, Loading) => pausing(Scope::Node);
    a_pop_masterdown: later(POP, MasterDown) => pausing(Scope::Node);
    a_pop_readonly: later(POP, ReadOnly) => pausing(Scope::Slot);
    a_pop_noscript: later(POP, NoScript) => now();
    a_command_of_a_module_that_blocks_moved: first(MODULE, moved()) => now();
    a_command_of_a_module_that_blocks_asked: first(MODULE, ask()) => asking();
    a_command_of_a_module_that_blocks_tryagain: later(MODULE, TryAgain) => pausing(Scope::Keys);
    a_command_of_a_module_that_blocks_clusterdown: later(MODULE, ClusterDown) => pausing(Scope::Node);
    a_command_of_a_module_that_blocks_loading: later(MODULE, Loading) => pausing(Scope::Node);
    a_command_of_a_module_that_blocks_masterdown: later(MODULE, MasterDown) => pausing(Scope::Node);
    a_command_of_a_module_that_blocks_readonly: later(MODULE, ReadOnly) => pausing(Scope::Slot);
    a_command_of_a_module_that_blocks_noscript: later(MODULE, NoScript) => now();
    an_xread_moved: first(XREAD, moved()) => now();
    an_xread_asked: first(XREAD, ask()) => asking();
    an_xread_tryagain: later(XREAD, TryAgain) => pausing(Scope::Keys);
    an_xread_clusterdown: later(XREAD, ClusterDown) => pausing(Scope::Node);
    an_xread_loading: later(XREAD, Loading) => pausing(Scope::Node);
    an_xread_masterdown: later(XREAD, MasterDown) => pausing(Scope::Node);
    an_xread_readonly: later(XREAD, ReadOnly) => pausing(Scope::Slot);
    an_xread_noscript: later(XREAD, NoScript) => now();
    a_watch_moved: first(Work::Watch, moved()) => now();
    a_watch_asked: first(Work::Watch, ask()) => asking();
    a_watch_tryagain: later(Work::Watch, TryAgain) => pausing(Scope::Keys);
    a_watch_clusterdown: later(Work::Watch, ClusterDown) => pausing(Scope::Node);
    a_watch_loading: later(Work::Watch, Loading) => pausing(Scope::Node);
    a_watch_masterdown: later(Work::Watch, MasterDown) => pausing(Scope::Node);
    a_watch_readonly: later(Work::Watch, ReadOnly) => pausing(Scope::Slot);
    a_watch_noscript: later(Work::Watch, NoScript) => now();
    a_read_at_a_replica_moved: first(Work::ReplicaRead, moved()) => ToPrimary;
    a_read_at_a_replica_asked: first(Work::ReplicaRead, ask()) => ToPrimary;
    a_read_at_a_replica_tryagain: later(Work::ReplicaRead, TryAgain) => ToPrimary;
    a_read_at_a_replica_clusterdown: later(Work::ReplicaRead, ClusterDown) => ToPrimary;
    a_read_at_a_replica_loading: later(Work::ReplicaRead, Loading) => ToPrimary;
    a_read_at_a_replica_masterdown: later(Work::ReplicaRead, MasterDown) => ToPrimary;
    a_read_at_a_replica_readonly: later(Work::ReplicaRead, ReadOnly) => ToPrimary;
    a_read_at_a_replica_noscript: later(Work::ReplicaRead, NoScript) => ToPrimary;
    a_part_for_a_shard_moved: first(PART, moved()) => PassedOn;
    a_part_for_a_shard_asked: first(PART, ask()) => PassedOn;
    a_part_for_a_shard_tryagain: later(PART, TryAgain) => PassedOn;
    a_part_for_a_shard_clusterdown: later(PART, ClusterDown) => pausing(Scope::Node);
    a_part_for_a_shard_loading: later(PART, Loading) => pausing(Scope::Node);
    a_part_for_a_shard_masterdown: later(PART, MasterDown) => pausing(Scope::Node);
    a_part_for_a_shard_readonly: later(PART, ReadOnly) => pausing(Scope::Slot);
    a_part_for_a_shard_noscript: later(PART, NoScript) => PassedOn;
    a_part_behind_a_check_moved: first(CHECKED, moved()) => now();
    a_part_behind_a_check_asked: first(CHECKED, ask()) => PassedOn;
    a_part_behind_a_check_tryagain: later(CHECKED, TryAgain) => PassedOn;
    a_part_behind_a_check_clusterdown: later(CHECKED, ClusterDown) => pausing(Scope::Node);
    a_part_behind_a_check_loading: later(CHECKED, Loading) => pausing(Scope::Node);
    a_part_behind_a_check_masterdown: later(CHECKED, MasterDown) => pausing(Scope::Node);
    a_part_behind_a_check_readonly: later(CHECKED, ReadOnly) => pausing(Scope::Slot);
    a_part_behind_a_check_noscript: later(CHECKED, NoScript) => PassedOn;
    a_reading_part_for_a_shard_moved: first(COUNT, moved()) => PassedOn;
    a_reading_part_for_a_shard_asked: first(COUNT, ask()) => PassedOn;
    a_reading_part_for_a_shard_tryagain: later(COUNT, TryAgain) => PassedOn;
    a_reading_part_for_a_shard_clusterdown: later(COUNT, ClusterDown) => pausing(Scope::Node);
    a_reading_part_for_a_shard_loading: later(COUNT, Loading) => pausing(Scope::Node);
    a_reading_part_for_a_shard_masterdown: later(COUNT, MasterDown) => pausing(Scope::Node);
    a_reading_part_for_a_shard_readonly: later(COUNT, ReadOnly) => pausing(Scope::Slot);
    a_reading_part_for_a_shard_noscript: later(COUNT, NoScript) => PassedOn;
    a_part_for_a_node_moved: first(SET, moved()) => PassedOn;
    a_part_for_a_node_asked: first(SET, ask()) => PassedOn;
    a_part_for_a_node_tryagain: later(SET, TryAgain) => PassedOn;
    a_part_for_a_node_clusterdown: later(SET, ClusterDown) => PassedOn;
    a_part_for_a_node_loading: later(SET, Loading) => PassedOn;
    a_part_for_a_node_masterdown: later(SET, MasterDown) => PassedOn;
    a_part_for_a_node_readonly: later(SET, ReadOnly) => PassedOn;
    a_part_for_a_node_noscript: later(SET, NoScript) => PassedOn;
    a_reading_part_for_a_node_moved: first(LOOKUP, moved()) => PassedOn;
    a_reading_part_for_a_node_asked: first(LOOKUP, ask()) => PassedOn;
    a_reading_part_for_a_node_tryagain: later(LOOKUP, TryAgain) => PassedOn;
    a_reading_part_for_a_node_clusterdown: later(LOOKUP, ClusterDown) => PassedOn;
    a_reading_part_for_a_node_loading: later(LOOKUP, Loading) => PassedOn;
    a_reading_part_for_a_node_masterdown: later(LOOKUP, MasterDown) => PassedOn;
    a_reading_part_for_a_node_readonly: later(LOOKUP, ReadOnly) => PassedOn;
    a_reading_part_for_a_node_noscript: later(LOOKUP, NoScript) => PassedOn;
    a_transaction_moved: first(Work::Exec, moved()) => Aborted;
    a_transaction_asked: first(Work::Exec, ask()) => Aborted;
    a_transaction_tryagain: later(Work::Exec, TryAgain) => Aborted;
    a_transaction_clusterdown: later(Work::Exec, ClusterDown) => Aborted;
    a_transaction_loading: later(Work::Exec, Loading) => Aborted;
    a_transaction_masterdown: later(Work::Exec, MasterDown) => Aborted;
    a_transaction_readonly: later(Work::Exec, ReadOnly) => Aborted;
    a_transaction_noscript: later(Work::Exec, NoScript) => Aborted;
    a_piece_of_a_transaction_moved: first(Work::ExecPiece, moved()) => Aborted;
    a_piece_of_a_transaction_asked: first(Work::ExecPiece, ask()) => Aborted;
    a_piece_of_a_transaction_tryagain: later(Work::ExecPiece, TryAgain) => Aborted;
    a_piece_of_a_transaction_clusterdown: later(Work::ExecPiece, ClusterDown) => Aborted;
    a_piece_of_a_transaction_loading: later(Work::ExecPiece, Loading) => Aborted;
    a_piece_of_a_transaction_masterdown: later(Work::ExecPiece, MasterDown) => Aborted;
    a_piece_of_a_transaction_readonly: later(Work::ExecPiece, ReadOnly) => Aborted;
    a_piece_of_a_transaction_noscript: later(Work::ExecPiece, NoScript) => Aborted;
    a_watch_of_several_slots_moved: first(Work::WatchPart, moved()) => Aborted;
    a_watch_of_several_slots_asked: first(Work::WatchPart, ask()) => Aborted;
    a_watch_of_several_slots_tryagain: later(Work::WatchPart, TryAgain) => Aborted;
    a_watch_of_several_slots_clusterdown: later(Work::WatchPart, ClusterDown) => Aborted;
    a_watch_of_several_slots_loading: later(Work::WatchPart, Loading) => Aborted;
    a_watch_of_several_slots_masterdown: later(Work::WatchPart, MasterDown) => Aborted;
    a_watch_of_several_slots_readonly: later(Work::WatchPart, ReadOnly) => Aborted;
    a_watch_of_several_slots_noscript: later(Work::WatchPart, NoScript) => Aborted;
    a_check_of_watches_moved: first(Work::WatchCheck, moved()) => Aborted;
    a_check_of_watches_asked: first(Work::WatchCheck, ask()) => Aborted;
    a_check_of_watches_tryagain: later(Work::WatchCheck, TryAgain) => Aborted;
    a_check_of_watches_clusterdown: later(Work::WatchCheck, ClusterDown) => Aborted;
    a_check_of_watches_loading: later(Work::WatchCheck, Loading) => Aborted;
    a_check_of_watches_masterdown: later(Work::WatchCheck, MasterDown) => Aborted;
    a_check_of_watches_readonly: later(Work::WatchCheck, ReadOnly) => Aborted;
    a_check_of_watches_noscript: later(Work::WatchCheck, NoScript) => Aborted;
    a_list_of_keys_moved: first(LIST, moved()) => pausing(Scope::Keys);
    a_list_of_keys_asked: first(LIST, ask()) => PassedOn;
    a_list_of_keys_tryagain: later(LIST, TryAgain) => pausing(Scope::Keys);
    a_list_of_keys_clusterdown: later(LIST, ClusterDown) => pausing(Scope::Keys);
    a_list_of_keys_loading: later(LIST, Loading) => pausing(Scope::Keys);
    a_list_of_keys_masterdown: later(LIST, MasterDown) => pausing(Scope::Keys);
    a_list_of_keys_readonly: later(LIST, ReadOnly) => pausing(Scope::Keys);
    a_list_of_keys_noscript: later(LIST, NoScript) => pausing(Scope::Keys);
    a_list_that_has_begun_moved: first(LIST_BEGUN, moved()) => Closed;
    a_list_that_has_begun_asked: first(LIST_BEGUN, ask()) => Closed;
    a_list_that_has_begun_tryagain: later(LIST_BEGUN, TryAgain) => Closed;
    a_list_that_has_begun_clusterdown: later(LIST_BEGUN, ClusterDown) => Closed;
    a_list_that_has_begun_loading: later(LIST_BEGUN, Loading) => Closed;
    a_list_that_has_begun_masterdown: later(LIST_BEGUN, MasterDown) => Closed;
    a_list_that_has_begun_readonly: later(LIST_BEGUN, ReadOnly) => Closed;
    a_list_that_has_begun_noscript: later(LIST_BEGUN, NoScript) => Closed;
    a_part_on_a_lent_connection_moved: first(Work::DedicatedPart, moved()) => PassedOn;
    a_part_on_a_lent_connection_asked: first(Work::DedicatedPart, ask()) => PassedOn;
    a_part_on_a_lent_connection_tryagain: later(Work::DedicatedPart, TryAgain) => PassedOn;
    a_part_on_a_lent_connection_clusterdown: later(Work::DedicatedPart, ClusterDown) => PassedOn;
    a_part_on_a_lent_connection_loading: later(Work::DedicatedPart, Loading) => PassedOn;
    a_part_on_a_lent_connection_masterdown: later(Work::DedicatedPart, MasterDown) => PassedOn;
    a_part_on_a_lent_connection_readonly: later(Work::DedicatedPart, ReadOnly) => PassedOn;
    a_part_on_a_lent_connection_noscript: later(Work::DedicatedPart, NoScript) => PassedOn;
    a_step_that_reads_moved: first(LOOK, moved()) => PassedOn;
    a_step_that_reads_asked: first(LOOK, ask()) => PassedOn;
    a_step_that_reads_tryagain: later(LOOK, TryAgain) => PassedOn;
    a_step_that_reads_clusterdown: later(LOOK, ClusterDown) => PassedOn;
    a_step_that_reads_loading: later(LOOK, Loading) => PassedOn;
    a_step_that_reads_masterdown: later(LOOK, MasterDown) => PassedOn;
    a_step_that_reads_readonly: later(LOOK, ReadOnly) => PassedOn;
    a_step_that_reads_noscript: later(LOOK, NoScript) => PassedOn;
    a_step_that_writes_moved: first(CHANGE, moved()) => PassedOn;
    a_step_that_writes_asked: first(CHANGE, ask()) => PassedOn;
    a_step_that_writes_tryagain: later(CHANGE, TryAgain) => PassedOn;
    a_step_that_writes_clusterdown: later(CHANGE, ClusterDown) => PassedOn;
    a_step_that_writes_loading: later(CHANGE, Loading) => PassedOn;
    a_step_that_writes_masterdown: later(CHANGE, MasterDown) => PassedOn;
    a_step_that_writes_readonly: later(CHANGE, ReadOnly) => PassedOn;
    a_step_that_writes_noscript: later(CHANGE, NoScript) => PassedOn;
    a_discarded_reply_moved: first(Work::ReplyDiscarded, moved()) => PassedOn;
    a_discarded_reply_asked: first(Work::ReplyDiscarded, ask()) => PassedOn;
    a_discarded_reply_tryagain: later(Work::ReplyDiscarded, TryAgain) => PassedOn;
    a_discarded_reply_clusterdown: later(Work::ReplyDiscarded, ClusterDown) => PassedOn;
    a_discarded_reply_loading: later(Work::ReplyDiscarded, Loading) => PassedOn;
    a_discarded_reply_masterdown: later(Work::ReplyDiscarded, MasterDown) => PassedOn;
    a_discarded_reply_readonly: later(Work::ReplyDiscarded, ReadOnly) => PassedOn;
    a_discarded_reply_noscript: later(Work::ReplyDiscarded, NoScript) => PassedOn;
}

fn at(refusal: Refusal, known: bool, tries: u8) -> AfterRefusal {
    after_refusal(WRITE, &refusal, known, tries)
}

fn after(micros: u64, scope: Scope) -> AfterRefusal {
    AfterRefusal::Again(Retry::After(Micros(micros)), scope)
}

rows! {
    moved_is_followed_at_once_five_times: at(moved(), true, 5) => now();
    moved_the_sixth_time_says_that_nodes_disagree: at(moved(), true, 6) => after(32_000, Scope::Slot);
    moved_to_a_stranger_waits: at(moved(), false, 1) => after(1_000, Scope::Slot);
    ask_is_followed_at_once_five_times: at(ask(), true, 5) => asking();
    ask_the_sixth_time_waits: at(ask(), true, 6) => after(32_000, Scope::Keys);
    ask_for_a_stranger_waits: at(ask(), false, 1) => after(1_000, Scope::Keys);
    a_missing_script_is_sent_at_once_always: at(Refusal::Later(NoScript), false, 9) => now();
    a_pause_doubles: at(Refusal::Later(TryAgain), false, 2) => after(2_000, Scope::Keys);
    a_pause_doubles_again: at(Refusal::Later(ReadOnly), false, 3) => after(4_000, Scope::Slot);
    a_pause_ends_growing: at(Refusal::Later(ClusterDown), false, 255) => after(50_000, Scope::Node);
    a_list_of_keys_pauses_longer_each_time:
        after_refusal(LIST, &Refusal::Later(Loading), false, 4) => after(8_000, Scope::Keys);
    the_first_pause: pause(1) => Micros(1_000);
    no_attempt_has_the_first_pause: pause(0) => Micros(1_000);
    the_fourth_pause: pause(4) => Micros(8_000);
    the_longest_pause: pause(7) => Micros(50_000);
    the_last_pause: pause(255) => Micros(50_000);
}

rows! {
    moved_of_its_slot_concerns_a_command: concerns(&moved(), Some(Slot(1)), 0) => true;
    moved_of_another_slot_does_not: concerns(&moved(), Some(Slot(2)), 0) => false;
    ask_of_its_slot_concerns_a_command: concerns(&ask(), Some(Slot(1)), 200) => true;
    ask_of_another_slot_does_not: concerns(&ask(), Some(Slot(0)), 0) => false;
    any_slot_concerns_a_command_without_keys: concerns(&moved(), None, 15) => true;
    the_last_slot_concerns_a_command_without_keys:
        concerns(&Refusal::Ask(Slot(16_383), node()), None, 0) => true;
    what_is_no_slot_does_not: concerns(&Refusal::Ask(Slot::NONE, node()), None, 0) => false;
    a_command_without_keys_is_redirected_sixteen_times: concerns(&ask(), None, 16) => false;
    other_refusals_concern_any_command: concerns(&Refusal::Later(Loading), Some(Slot(7)), 255) => true;
    other_refusals_concern_commands_without_keys: concerns(&Refusal::Later(Loading), None, 255) => true;
}

fn lost(work: Work, phase: Phase) -> &'static str {
    match after_loss(work, phase) {
        AfterLoss::Again => "again",
        AfterLoss::OutcomeUnknown => "unknown",
        AfterLoss::NotExecuted => "not executed",
        AfterLoss::Aborted => "aborted",
        AfterLoss::Closed => "closed",
        AfterLoss::Dropped => "dropped",
    }
}

rows! {
    a_read_lost_unsent: lost(READ, Unsent) => "again";
    a_read_lost: lost(READ, Sent) => "again";
    a_read_lost_before_a_write: lost(READ, Overtaken) => "unknown";
    a_write_lost_unsent: lost(WRITE, Unsent) => "again";
    a_write_lost: lost(WRITE, Sent) => "unknown";
    a_write_lost_before_a_write: lost(WRITE, Overtaken) => "unknown";
    a_pop_lost_unsent: lost(POP, Unsent) => "again";
    a_pop_lost: lost(POP, Sent) => "again";
    a_pop_lost_before_a_write: lost(POP, Overtaken) => "again";
    a_command_of_a_module_that_blocks_lost_unsent: lost(MODULE, Unsent) => "again";
    a_command_of_a_module_that_blocks_lost: lost(MODULE, Sent) => "unknown";
    a_command_of_a_module_that_blocks_lost_before_a_write: lost(MODULE, Overtaken) => "unknown";
    an_xread_lost_unsent: lost(XREAD, Unsent) => "again";
    an_xread_lost: lost(XREAD, Sent) => "again";
    an_xread_lost_before_a_write: lost(XREAD, Overtaken) => "again";
    a_watch_lost_unsent: lost(Work::Watch, Unsent) => "again";
    a_watch_lost: lost(Work::Watch, Sent) => "again";
    a_watch_lost_before_a_write: lost(Work::Watch, Overtaken) => "again";
    a_read_at_a_replica_lost_unsent: lost(Work::ReplicaRead, Unsent) => "again";
    a_read_at_a_replica_lost: lost(Work::ReplicaRead, Sent) => "again";
    a_read_at_a_replica_lost_before_a_write: lost(Work::ReplicaRead, Overtaken) => "unknown";
    a_part_for_a_shard_lost_unsent: lost(PART, Unsent) => "again";
    a_part_for_a_shard_lost: lost(PART, Sent) => "unknown";
    a_part_for_a_shard_lost_before_a_write: lost(PART, Overtaken) => "unknown";
    a_part_behind_a_check_lost_unsent: lost(CHECKED, Unsent) => "again";
    a_part_behind_a_check_lost: lost(CHECKED, Sent) => "unknown";
    a_part_behind_a_check_lost_before_a_write: lost(CHECKED, Overtaken) => "unknown";
    a_reading_part_for_a_shard_lost_unsent: lost(COUNT, Unsent) => "again";
    a_reading_part_for_a_shard_lost: lost(COUNT, Sent) => "again";
    a_reading_part_for_a_shard_lost_before_a_write: lost(COUNT, Overtaken) => "unknown";
    a_part_for_a_node_lost_unsent: lost(SET, Unsent) => "again";
    a_part_for_a_node_lost: lost(SET, Sent) => "unknown";
    a_part_for_a_node_lost_before_a_write: lost(SET, Overtaken) => "unknown";
    a_reading_part_for_a_node_lost_unsent: lost(LOOKUP, Unsent) => "again";
    a_reading_part_for_a_node_lost: lost(LOOKUP, Sent) => "again";
    a_reading_part_for_a_node_lost_before_a_write: lost(LOOKUP, Overtaken) => "unknown";
    a_transaction_lost_unsent: lost(Work::Exec, Unsent) => "aborted";
    a_transaction_lost: lost(Work::Exec, Sent) => "unknown";
    a_transaction_lost_before_a_write: lost(Work::Exec, Overtaken) => "unknown";
    a_piece_of_a_transaction_lost_unsent: lost(Work::ExecPiece, Unsent) => "aborted";
    a_piece_of_a_transaction_lost: lost(Work::ExecPiece, Sent) => "unknown";
    a_piece_of_a_transaction_lost_before_a_write: lost(Work::ExecPiece, Overtaken) => "unknown";
    a_watch_of_several_slots_lost_unsent: lost(Work::WatchPart, Unsent) => "not executed";
    a_watch_of_several_slots_lost: lost(Work::WatchPart, Sent) => "unknown";
    a_watch_of_several_slots_lost_before_a_write: lost(Work::WatchPart, Overtaken) => "unknown";
    a_check_of_watches_lost_unsent: lost(Work::WatchCheck, Unsent) => "aborted";
    a_check_of_watches_lost: lost(Work::WatchCheck, Sent) => "aborted";
    a_check_of_watches_lost_before_a_write: lost(Work::WatchCheck, Overtaken) => "aborted";
    a_list_of_keys_lost_unsent: lost(LIST, Unsent) => "again";
    a_list_of_keys_lost: lost(LIST, Sent) => "again";
    a_list_of_keys_lost_before_a_write: lost(LIST, Overtaken) => "again";
    a_list_that_has_begun_lost_unsent: lost(LIST_BEGUN, Unsent) => "closed";
    a_list_that_has_begun_lost: lost(LIST_BEGUN, Sent) => "closed";
    a_list_that_has_begun_lost_before_a_write: lost(LIST_BEGUN, Overtaken) => "closed";
    a_part_on_a_lent_connection_lost_unsent: lost(Work::DedicatedPart, Unsent) => "not executed";
    a_part_on_a_lent_connection_lost: lost(Work::DedicatedPart, Sent) => "unknown";
    a_part_on_a_lent_connection_lost_before_a_write: lost(Work::DedicatedPart, Overtaken) => "unknown";
    a_step_that_reads_lost_unsent: lost(LOOK, Unsent) => "again";
    a_step_that_reads_lost: lost(LOOK, Sent) => "again";
    a_step_that_reads_lost_before_a_write: lost(LOOK, Overtaken) => "again";
    a_step_that_writes_lost_unsent: lost(CHANGE, Unsent) => "not executed";
    a_step_that_writes_lost: lost(CHANGE, Sent) => "unknown";
    a_step_that_writes_lost_before_a_write: lost(CHANGE, Overtaken) => "unknown";
    a_discarded_reply_lost_unsent: lost(Work::ReplyDiscarded, Unsent) => "dropped";
    a_discarded_reply_lost: lost(Work::ReplyDiscarded, Sent) => "dropped";
    a_discarded_reply_lost_before_a_write: lost(Work::ReplyDiscarded, Overtaken) => "dropped";
}

rows! {
    a_read_overdue_while_held: at_deadline(READ, Held, false) => Unanswered::NotExecuted;
    a_read_overdue_unsent: at_deadline(READ, Unsent, false) => Unanswered::NotSent;
    a_read_overdue: at_deadline(READ, Sent, false) => Unanswered::Read;
    a_read_overdue_unsent_after_a_loss: at_deadline(READ, Unsent, true) => Unanswered::Read;
    a_read_overdue_while_held_after_a_loss: at_deadline(READ, Held, true) => Unanswered::Read;
    a_write_overdue_while_held: at_deadline(WRITE, Held, false) => Unanswered::NotExecuted;
    a_write_overdue_unsent: at_deadline(WRITE, Unsent, false) => Unanswered::NotSent;
    a_write_overdue: at_deadline(WRITE, Sent, false) => Unanswered::Unknown;
    a_write_overdue_unsent_after_a_loss: at_deadline(WRITE, Unsent, true) => Unanswered::NotSent;
    a_write_overdue_while_held_after_a_loss: at_deadline(WRITE, Held, true) => Unanswered::NotExecuted;
    a_pop_overdue_while_held: at_deadline(POP, Held, false) => Unanswered::NotExecuted;
    a_pop_overdue_unsent: at_deadline(POP, Unsent, false) => Unanswered::NotExecuted;
    a_pop_overdue: at_deadline(POP, Sent, false) => Unanswered::Unknown;
    a_pop_overdue_unsent_after_a_loss: at_deadline(POP, Unsent, true) => Unanswered::Unknown;
    a_pop_overdue_while_held_after_a_loss: at_deadline(POP, Held, true) => Unanswered::Unknown;
    a_command_of_a_module_that_blocks_overdue_while_held: at_deadline(MODULE, Held, false) => Unanswered::NotExecuted;
    a_command_of_a_module_that_blocks_overdue_unsent: at_deadline(MODULE, Unsent, false) => Unanswered::NotExecuted;
    a_command_of_a_module_that_blocks_overdue: at_deadline(MODULE, Sent, false) => Unanswered::Unknown;
    a_command_of_a_module_that_blocks_overdue_unsent_after_a_loss: at_deadline(MODULE, Unsent, true) => Unanswered::Unknown;
    a_command_of_a_module_that_blocks_overdue_while_held_after_a_loss: at_deadline(MODULE, Held, true) => Unanswered::Unknown;
    an_xread_overdue_while_held: at_deadline(XREAD, Held, false) => Unanswered::NotExecuted;
    an_xread_overdue_unsent: at_deadline(XREAD, Unsent, false) => Unanswered::NotExecuted;
    an_xread_overdue: at_deadline(XREAD, Sent, false) => Unanswered::Unknown;
    an_xread_overdue_unsent_after_a_loss: at_deadline(XREAD, Unsent, true) => Unanswered::NotExecuted;
    an_xread_overdue_while_held_after_a_loss: at_deadline(XREAD, Held, true) => Unanswered::NotExecuted;
    a_watch_overdue_while_held: at_deadline(Work::Watch, Held, false) => Unanswered::NotExecuted;
    a_watch_overdue_unsent: at_deadline(Work::Watch, Unsent, false) => Unanswered::NotSent;
    a_watch_overdue: at_deadline(Work::Watch, Sent, false) => Unanswered::Harmless;
    a_watch_overdue_unsent_after_a_loss: at_deadline(Work::Watch, Unsent, true) => Unanswered::NotSent;
    a_watch_overdue_while_held_after_a_loss: at_deadline(Work::Watch, Held, true) => Unanswered::NotExecuted;
    a_read_at_a_replica_overdue_while_held: at_deadline(Work::ReplicaRead, Held, false) => Unanswered::NotExecuted;
    a_read_at_a_replica_overdue_unsent: at_deadline(Work::ReplicaRead, Unsent, false) => Unanswered::NotSent;
    a_read_at_a_replica_overdue: at_deadline(Work::ReplicaRead, Sent, false) => Unanswered::Read;
    a_read_at_a_replica_overdue_unsent_after_a_loss: at_deadline(Work::ReplicaRead, Unsent, true) => Unanswered::Read;
    a_read_at_a_replica_overdue_while_held_after_a_loss: at_deadline(Work::ReplicaRead, Held, true) => Unanswered::Read;
    a_part_for_a_shard_overdue_while_held: at_deadline(PART, Held, false) => Unanswered::NotExecuted;
    a_part_for_a_shard_overdue_unsent: at_deadline(PART, Unsent, false) => Unanswered::NotSent;
    a_part_for_a_shard_overdue: at_deadline(PART, Sent, false) => Unanswered::Unknown;
    a_part_for_a_shard_overdue_unsent_after_a_loss: at_deadline(PART, Unsent, true) => Unanswered::NotSent;
    a_part_for_a_shard_overdue_while_held_after_a_loss: at_deadline(PART, Held, true) => Unanswered::NotExecuted;
    a_part_behind_a_check_overdue_while_held: at_deadline(CHECKED, Held, false) => Unanswered::NotExecuted;
    a_part_behind_a_check_overdue_unsent: at_deadline(CHECKED, Unsent, false) => Unanswered::NotSent;
    a_part_behind_a_check_overdue: at_deadline(CHECKED, Sent, false) => Unanswered::Unknown;
    a_part_behind_a_check_overdue_unsent_after_a_loss: at_deadline(CHECKED, Unsent, true) => Unanswered::NotSent;
    a_part_behind_a_check_overdue_while_held_after_a_loss: at_deadline(CHECKED, Held, true) => Unanswered::NotExecuted;
    a_reading_part_for_a_shard_overdue_while_held: at_deadline(COUNT, Held, false) => Unanswered::NotExecuted;
    a_reading_part_for_a_shard_overdue_unsent: at_deadline(COUNT, Unsent, false) => Unanswered::NotSent;
    a_reading_part_for_a_shard_overdue: at_deadline(COUNT, Sent, false) => Unanswered::Read;
    a_reading_part_for_a_shard_overdue_unsent_after_a_loss: at_deadline(COUNT, Unsent, true) => Unanswered::Read;
    a_reading_part_for_a_shard_overdue_while_held_after_a_loss: at_deadline(COUNT, Held, true) => Unanswered::Read;
    a_part_for_a_node_overdue_while_held: at_deadline(SET, Held, false) => Unanswered::NotExecuted;
    a_part_for_a_node_overdue_unsent: at_deadline(SET, Unsent, false) => Unanswered::NotSent;
    a_part_for_a_node_overdue: at_deadline(SET, Sent, false) => Unanswered::Unknown;
    a_part_for_a_node_overdue_unsent_after_a_loss: at_deadline(SET, Unsent, true) => Unanswered::NotSent;
    a_part_for_a_node_overdue_while_held_after_a_loss: at_deadline(SET, Held, true) => Unanswered::NotExecuted;
    a_reading_part_for_a_node_overdue_while_held: at_deadline(LOOKUP, Held, false) => Unanswered::NotExecuted;
    a_reading_part_for_a_node_overdue_unsent: at_deadline(LOOKUP, Unsent, false) => Unanswered::NotSent;
    a_reading_part_for_a_node_overdue: at_deadline(LOOKUP, Sent, false) => Unanswered::Read;
    a_reading_part_for_a_node_overdue_unsent_after_a_loss: at_deadline(LOOKUP, Unsent, true) => Unanswered::Read;
    a_reading_part_for_a_node_overdue_while_held_after_a_loss: at_deadline(LOOKUP, Held, true) => Unanswered::Read;
    a_transaction_overdue_while_held: at_deadline(Work::Exec, Held, false) => Unanswered::NotExecuted;
    a_transaction_overdue_unsent: at_deadline(Work::Exec, Unsent, false) => Unanswered::NotSent;
    a_transaction_overdue: at_deadline(Work::Exec, Sent, false) => Unanswered::Unknown;
    a_transaction_overdue_unsent_after_a_loss: at_deadline(Work::Exec, Unsent, true) => Unanswered::NotSent;
    a_transaction_overdue_while_held_after_a_loss: at_deadline(Work::Exec, Held, true) => Unanswered::NotExecuted;
    a_piece_of_a_transaction_overdue_while_held: at_deadline(Work::ExecPiece, Held, false) => Unanswered::NotExecuted;
    a_piece_of_a_transaction_overdue_unsent: at_deadline(Work::ExecPiece, Unsent, false) => Unanswered::NotSent;
    a_piece_of_a_transaction_overdue: at_deadline(Work::ExecPiece, Sent, false) => Unanswered::Unknown;
    a_piece_of_a_transaction_overdue_unsent_after_a_loss: at_deadline(Work::ExecPiece, Unsent, true) => Unanswered::NotSent;
    a_piece_of_a_transaction_overdue_while_held_after_a_loss: at_deadline(Work::ExecPiece, Held, true) => Unanswered::NotExecuted;
    a_watch_of_several_slots_overdue_while_held: at_deadline(Work::WatchPart, Held, false) => Unanswered::NotExecuted;
    a_watch_of_several_slots_overdue_unsent: at_deadline(Work::WatchPart, Unsent, false) => Unanswered::NotSent;
    a_watch_of_several_slots_overdue: at_deadline(Work::WatchPart, Sent, false) => Unanswered::Unknown;
    a_watch_of_several_slots_overdue_unsent_after_a_loss: at_deadline(Work::WatchPart, Unsent, true) => Unanswered::NotSent;
    a_watch_of_several_slots_overdue_while_held_after_a_loss: at_deadline(Work::WatchPart, Held, true) => Unanswered::NotExecuted;
    a_check_of_watches_overdue_while_held: at_deadline(Work::WatchCheck, Held, false) => Unanswered::NotExecuted;
    a_check_of_watches_overdue_unsent: at_deadline(Work::WatchCheck, Unsent, false) => Unanswered::NotSent;
    a_check_of_watches_overdue: at_deadline(Work::WatchCheck, Sent, false) => Unanswered::Harmless;
    a_check_of_watches_overdue_unsent_after_a_loss: at_deadline(Work::WatchCheck, Unsent, true) => Unanswered::NotSent;
    a_check_of_watches_overdue_while_held_after_a_loss: at_deadline(Work::WatchCheck, Held, true) => Unanswered::NotExecuted;
    a_list_of_keys_overdue_while_held: at_deadline(LIST, Held, false) => Unanswered::Harmless;
    a_list_of_keys_overdue_unsent: at_deadline(LIST, Unsent, false) => Unanswered::Harmless;
    a_list_of_keys_overdue: at_deadline(LIST, Sent, false) => Unanswered::Harmless;
    a_list_of_keys_overdue_unsent_after_a_loss: at_deadline(LIST, Unsent, true) => Unanswered::Harmless;
    a_list_of_keys_overdue_while_held_after_a_loss: at_deadline(LIST, Held, true) => Unanswered::Harmless;
    a_list_that_has_begun_overdue_while_held: at_deadline(LIST_BEGUN, Held, false) => Unanswered::Harmless;
    a_list_that_has_begun_overdue_unsent: at_deadline(LIST_BEGUN, Unsent, false) => Unanswered::Harmless;
    a_list_that_has_begun_overdue: at_deadline(LIST_BEGUN, Sent, false) => Unanswered::Harmless;
    a_list_that_has_begun_overdue_unsent_after_a_loss: at_deadline(LIST_BEGUN, Unsent, true) => Unanswered::Harmless;
    a_list_that_has_begun_overdue_while_held_after_a_loss: at_deadline(LIST_BEGUN, Held, true) => Unanswered::Harmless;
    a_part_on_a_lent_connection_overdue_while_held: at_deadline(Work::DedicatedPart, Held, false) => Unanswered::NotExecuted;
    a_part_on_a_lent_connection_overdue_unsent: at_deadline(Work::DedicatedPart, Unsent, false) => Unanswered::NotSent;
    a_part_on_a_lent_connection_overdue: at_deadline(Work::DedicatedPart, Sent, false) => Unanswered::Unknown;
    a_part_on_a_lent_connection_overdue_unsent_after_a_loss: at_deadline(Work::DedicatedPart, Unsent, true) => Unanswered::NotSent;
    a_part_on_a_lent_connection_overdue_while_held_after_a_loss: at_deadline(Work::DedicatedPart, Held, true) => Unanswered::NotExecuted;
    a_step_that_reads_overdue_while_held: at_deadline(LOOK, Held, false) => Unanswered::NotExecuted;
    a_step_that_reads_overdue_unsent: at_deadline(LOOK, Unsent, false) => Unanswered::NotSent;
    a_step_that_reads_overdue: at_deadline(LOOK, Sent, false) => Unanswered::Unknown;
    a_step_that_reads_overdue_unsent_after_a_loss: at_deadline(LOOK, Unsent, true) => Unanswered::NotSent;
    a_step_that_reads_overdue_while_held_after_a_loss: at_deadline(LOOK, Held, true) => Unanswered::NotExecuted;
    a_step_that_writes_overdue_while_held: at_deadline(CHANGE, Held, false) => Unanswered::NotExecuted;
    a_step_that_writes_overdue_unsent: at_deadline(CHANGE, Unsent, false) => Unanswered::NotSent;
    a_step_that_writes_overdue: at_deadline(CHANGE, Sent, false) => Unanswered::Unknown;
    a_step_that_writes_overdue_unsent_after_a_loss: at_deadline(CHANGE, Unsent, true) => Unanswered::NotSent;
    a_step_that_writes_overdue_while_held_after_a_loss: at_deadline(CHANGE, Held, true) => Unanswered::NotExecuted;
    a_discarded_reply_overdue_while_held: at_deadline(Work::ReplyDiscarded, Held, false) => Unanswered::NotExecuted;
    a_discarded_reply_overdue_unsent: at_deadline(Work::ReplyDiscarded, Unsent, false) => Unanswered::NotSent;
    a_discarded_reply_overdue: at_deadline(Work::ReplyDiscarded, Sent, false) => Unanswered::Unknown;
    a_discarded_reply_overdue_unsent_after_a_loss: at_deadline(Work::ReplyDiscarded, Unsent, true) => Unanswered::NotSent;
    a_discarded_reply_overdue_while_held_after_a_loss: at_deadline(Work::ReplyDiscarded, Held, true) => Unanswered::NotExecuted;
}

rows! {
    a_pop_that_was_lost_may_have_popped: may_have_executed(POP, true) => true;
    a_pop_that_was_not_lost_has_not: may_have_executed(POP, false) => false;
    an_xread_that_was_lost_changes_nothing: may_have_executed(XREAD, true) => false;
    a_write_that_was_lost_is_told_at_once: may_have_executed(WRITE, true) => false;
}

/// A node of the cluster whose connection works.
const FINE: NodeStatus =
    NodeStatus { known: true, reachable: true, superseded: false, deposed: false };
const LEFT: NodeStatus = NodeStatus { known: false, ..FINE };
const DOWN: NodeStatus = NodeStatus { reachable: false, ..FINE };
const DEPOSED: NodeStatus = NodeStatus { deposed: true, ..FINE };
const SUPERSEDED: NodeStatus = NodeStatus { superseded: true, ..DOWN };

fn of_slot(elsewhere: bool, asking: bool) -> Target {
    Target::Owner { elsewhere, asking }
}

rows! {
    a_command_stays_with_its_owner: leaves_queue(of_slot(false, false), SUPERSEDED) => false;
    a_command_follows_its_slot: leaves_queue(of_slot(true, false), FINE) => true;
    a_command_behind_asking_stays: leaves_queue(of_slot(true, true), FINE) => false;
    a_command_for_any_stays_where_it_can_be_sent: leaves_queue(Target::Any, DEPOSED) => false;
    a_command_for_any_leaves_a_node_that_is_down: leaves_queue(Target::Any, DOWN) => true;
    a_command_for_any_leaves_a_node_that_left: leaves_queue(Target::Any, LEFT) => true;
    a_part_stays_with_its_primary: leaves_queue(Target::Shard, FINE) => false;
    a_part_stays_with_a_primary_that_is_down: leaves_queue(Target::Shard, DOWN) => false;
    a_part_stays_with_a_former_primary_that_answers: leaves_queue(Target::Shard, DEPOSED) => false;
    a_part_leaves_a_former_primary_that_is_down:
        leaves_queue(Target::Shard, NodeStatus { deposed: true, ..DOWN }) => true;
    a_part_leaves_a_node_that_was_replaced: leaves_queue(Target::Shard, SUPERSEDED) => true;
    a_part_leaves_a_node_that_left: leaves_queue(Target::Shard, LEFT) => true;
    a_part_for_a_node_waits_for_it: leaves_queue(Target::Node, DOWN) => false;
    a_part_for_a_node_waits_for_a_former_primary:
        leaves_queue(Target::Node, NodeStatus { deposed: true, ..DOWN }) => false;
    a_part_for_a_node_that_was_replaced_ends: leaves_queue(Target::Node, SUPERSEDED) => true;
    a_part_for_a_node_that_left_ends: leaves_queue(Target::Node, LEFT) => true;
    what_nobody_waits_for_stays: leaves_queue(Target::Nobody, LEFT) => false;
}
