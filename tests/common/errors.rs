//! Errors of slotway's own, told apart by their codes and by their names in slotway's table
//! ([`FailureId`]), so that a test does not depend on their texts.

use slotway::cluster::slot_of;
use slotway::errors::{CrossSlotRemedy, FailureId, Identified, Unanswered, identify};
use slotway::sandbox::Reply;

/// The error that a reply is.
#[track_caller]
pub fn identified(reply: &Reply) -> Identified<'_> {
    named(reply.error().unwrap_or_else(|| panic!("no error: {reply:?}")))
}

/// The error whose text this is.
#[track_caller]
pub fn named(text: &str) -> Identified<'_> {
    identify(text).unwrap_or_else(|| panic!("no error of slotway's own: {text}"))
}

/// Whether a reply is one of these errors.
pub fn is_one_of(reply: &Reply, ids: &[FailureId]) -> bool {
    let id = reply.error().and_then(identify).map(|error| error.id);
    id.is_some_and(|id| ids.contains(&id))
}

#[track_caller]
pub fn assert_is(reply: &Reply, id: FailureId) {
    assert_eq!(identified(reply).id, id, "{reply:?}");
}

/// The reply says which two keys are in different slots, in which, and what may be done about it.
#[track_caller]
pub fn assert_cross_slot(reply: &Reply, keys: [&str; 2], remedy: &CrossSlotRemedy) {
    let error = identified(reply);
    assert_eq!(error.id, FailureId::CrossSlot, "{reply:?}");
    let [first, other] = keys.map(|key| slot_of(key.as_bytes()).0);
    let said = ["first", "other", "first_slot", "slot"].map(|field| error.field(field));
    // The remedy is directly behind the slot.
    let slots = [first.to_string(), format!("{other}{remedy}")];
    assert_eq!(said, [keys[0], keys[1], &slots[0], &slots[1]].map(Some), "{reply:?}");
}

/// Whether the command may have been executed.
pub fn is_outcome_unknown(text: &str) -> bool {
    text.starts_with("OUTCOMEUNKNOWN ")
}

/// The errors at `timeouts.command`.
pub const DEADLINES: [FailureId; 2] = [FailureId::Deadline, FailureId::BlockingDeadline];

/// Whether an error is one of these, or that of a command of which a part failed with one of them.
pub fn involves(text: &str, ids: &[FailureId]) -> bool {
    let Some(error) = identify(text) else { return false };
    let which = error.field("which").unwrap_or_default();
    let pieces: Vec<&str> = which.trim_start_matches(": ").split("; ").collect();
    // What separates the parts' errors may stand in one of them, too.
    let from_to = (0..pieces.len()).flat_map(|from| (from..pieces.len()).map(move |to| (from, to)));
    let mut parts = from_to.map(|(from, to)| pieces[from..=to].join("; "));
    let is_one = |text: &str| identify(text).is_some_and(|error| ids.contains(&error.id));
    is_one(text) || parts.any(|part| part.split_once(": ").is_some_and(|(_, text)| is_one(text)))
}

/// Whether the error says this of its command.
pub fn says(error: &Identified<'_>, outcome: Unanswered) -> bool {
    // Behind the outcome of a command that was late is more.
    error.field("outcome").is_some_and(|said| said.starts_with(&outcome.to_string()))
}

/// The time that a command is said to have waited, seconds.
pub fn waited(error: &Identified<'_>) -> Option<f64> {
    error.field("seconds")?.parse().ok()
}
