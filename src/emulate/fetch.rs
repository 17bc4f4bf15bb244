//! Helpers shared by the recipes: slotway's own keys, validation of arguments, extraction of values
//! from replies, writing a target, errors about the whole command.

use std::sync::OnceLock;

use super::reply::{CommandResult, Reply, batch, check_frame, failed_before, scalar};
use super::talk::{Request, Step, Talk};
use crate::cluster::{SLOTS, Slot, slot_of};
use crate::errors::{Cause, Failure, Halfway, StopCause};
use crate::hash::KeyedMap;
use crate::resp::reply::{elements, error_text};
use crate::resp::{Protocol, write};

/// Members per command when a target is written.
const CHUNK: usize = 1000;

/// A hash tag that belongs to `slot`.
fn tag(slot: Slot) -> u32 {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; usize::from(SLOTS)];
        let mut left = tags.len();
        for n in 0.. {
            let place = tags.get_mut(slot_of(n.to_string().as_bytes()).at());
            if let Some(place) = place.filter(|place| **place == u32::MAX) {
                *place = n;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        tags
    });
    tags.get(slot.at()).copied().unwrap_or(0)
}

/// A key of slotway's own in the slot of `key`.
pub(super) fn own_key(key: &[u8], what: &str) -> Vec<u8> {
    format!("slotway:{{{}}}:{what}", tag(slot_of(key))).into_bytes()
}

/// The client's arguments with its keys replaced by `keys`.
pub(super) fn with_keys<'a>(req: &'a Request, keys: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = req.args.iter().map(|a| &**a).collect();
    for (&at, key) in req.keys.iter().zip(keys) {
        if let Some(arg) = args.get_mut(at) {
            *arg = key;
        }
    }
    args
}

/// Keys that do not exist, all in the slot of the first key; as many as the command has keys.
fn missing_keys(req: &Request) -> Vec<Vec<u8>> {
    (0..req.keys.len()).map(|i| own_key(req.key(0), &format!("none:{i}"))).collect()
}

/// A dry run: the command with keys that do not exist. The node reports errors in the other
/// arguments in its own words, and changes nothing.
pub(super) fn dry_run(req: &Request) -> Step {
    let keys = missing_keys(req);
    Step::one(req.key(0), &with_keys(req, &keys)).harmless()
}

/// Checks the reply to a dry run. A NOPERM about the keys is ignored, since the user may lack
/// access to slotway's own keys only; the steps that follow report any other error.
///
/// # Errors
/// The node's error about the arguments.
pub(super) fn check_arguments(reply: &Reply) -> Result<(), Cause> {
    reply.check().or_else(unless_key_denied)
}

/// Like [`check_arguments`], for an error that is already at hand.
///
/// # Errors
/// The error, unless it only denies access to keys.
pub(super) fn unless_key_denied(cause: Cause) -> Result<(), Cause> {
    let is_key_denied = match &cause {
        Cause::Node(frame) => error_text(frame).is_some_and(|text| {
            text.starts_with(b"NOPERM") && memchr::memmem::find(text, b" key").is_some()
        }),
        Cause::Own(_) => false,
    };
    if is_key_denied { Ok(()) } else { Err(cause) }
}

/// Appends the scalars of a reply to `out`, down to the third level of nesting.
pub fn flatten<'a>(frame: &'a [u8], out: &mut Vec<&'a [u8]>) {
    if let Some(value) = scalar(frame) {
        return out.push(value);
    }
    for element in elements(frame) {
        match scalar(element) {
            Some(value) => out.push(value),
            None => elements(element).for_each(|inner| match scalar(inner) {
                Some(value) => out.push(value),
                None => out.extend(elements(inner).filter_map(scalar)),
            }),
        }
    }
}

/// An integer reply.
pub fn integer(n: i64) -> Vec<u8> {
    let mut frame = Vec::new();
    write::integer(&mut frame, n);
    frame
}

/// The null with which a node replies in place of an array.
pub(super) fn null_list(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Resp2 => b"*-1\r\n".to_vec(),
        Protocol::Resp3 => b"_\r\n".to_vec(),
    }
}

/// The error of a command that stopped after some of its steps; `done` says which.
pub fn stopped(talk: &Talk, req: &Request, done: Halfway, cause: impl Into<StopCause>) -> Cause {
    talk.halfway();
    let cause = cause.into();
    let (code, command) = (cause.code(), req.command());
    Failure::StoppedHalfway { code, command, done, cause }.into()
}

/// The distinct keys from the `first` on, and for each key its index among them.
pub(super) fn distinct(req: &Request, first: usize) -> (Vec<&[u8]>, Vec<usize>) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut places = KeyedMap::default();
    let mut of = Vec::new();
    for i in first..req.keys.len() {
        let key = req.key(i);
        of.push(*places.entry(key).or_insert_with(|| {
            keys.push(key);
            keys.len() - 1
        }));
    }
    (keys, of)
}

/// Atomically replaces the content of `target`: deletes it, then adds `values` with `command`,
/// `step` values per element. The result is the number of elements.
pub async fn replace(
    talk: &Talk,
    req: &Request,
    target: &[u8],
    command: &[u8],
    values: &[&[u8]],
    step: usize,
) -> CommandResult {
    talk.writes();
    let count = values.len() / step.max(1);
    let del = vec![b"DEL".as_slice(), target];
    let write = match values.is_empty() {
        true => Step::one(target, &del),
        false => {
            let chunks = values.chunks(CHUNK * step.max(1));
            let writes = chunks.map(|chunk| [&[command, target], chunk].concat());
            Step::batch(target, std::iter::once(del).chain(writes))
        }
    };
    let whole = write.batch;
    let reply = talk.one(write).await;
    let written = match whole {
        true => batch(&reply).and_then(|all| all.into_iter().try_for_each(check_frame)),
        false => reply.check(),
    };
    match written {
        Ok(()) => Ok(integer(count as i64)),
        Err(cause) => Err(target_failed(talk, req, cause)),
    }
}

/// The error of a command whose target was not written, or may not have been.
pub(super) fn target_failed(talk: &Talk, req: &Request, cause: impl Into<Cause>) -> Cause {
    let cause = cause.into();
    if cause.is_outcome_unknown() {
        return stopped(talk, req, Halfway::MayHaveWritten, cause);
    }
    failed_before(&req.name, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::{Code, Unanswered};
    use crate::errors::{ForSlot, Last};

    #[test]
    fn own_keys_are_in_the_slot_of_the_key() {
        for key in ["a", "{x}y", "", "a}b", "user:1000", "{}z"] {
            assert_eq!(slot_of(&own_key(key.as_bytes(), "t")), slot_of(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn extracts_scalars_of_all_shapes() {
        let mut out = Vec::new();
        flatten(b"*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n", &mut out);
        assert_eq!(out, [b"k".as_slice(), b"m", b"1.5"]);
        assert_eq!(scalar(b":12\r\n"), Some(&b"12"[..]));
        assert_eq!(scalar(b"$-1\r\n"), None);
    }

    #[test]
    fn argument_errors_but_not_key_permissions() {
        let node = |frame: &[u8]| check_arguments(&Reply::Node(frame.to_vec()));
        assert!(node(b"-ERR syntax error\r\n").is_err());
        assert!(node(b":0\r\n").is_ok());
        let keys =
            b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
        assert!(node(keys).is_ok());
        let command = b"-NOPERM this user has no permissions to run the 'zunion' command\r\n";
        assert!(node(command).is_err());
        assert!(check_arguments(&Failure::KeyDenied.into()).is_err(), "not a node's");
    }

    fn deadline(code: Code, outcome: Unanswered) -> Failure {
        Failure::Deadline {
            code,
            seconds: 5.0,
            slot: ForSlot(Some(Slot(7))),
            node: "n:1".into(),
            tries: 1,
            outcome,
            migration: "".into(),
            last: Last(None),
        }
    }

    #[test]
    fn failures_of_steps_are_wrapped_as_causes() {
        let (node, why): (Box<str>, Box<str>) = ("n:1".into(), "closed".into());
        let lost = Failure::ConnectionLost { node: node.clone(), why: why.clone() };
        let stopped = |cause: Cause| {
            let cause = StopCause::from(cause);
            let (command, done) = ("COPY".into(), Halfway::Copied);
            Failure::StoppedHalfway { code: cause.code(), command, done, cause }
        };
        for (failure, is_cause) in [
            (lost.clone(), true),
            (deadline(Code::OutcomeUnknown, Unanswered::Unknown), true),
            (deadline(Code::Err, Unanswered::NotSent), true),
            (deadline(Code::Err, Unanswered::Read), true),
            (deadline(Code::TryAgain, Unanswered::NotExecuted), false),
            (deadline(Code::ClusterDown, Unanswered::NotSent), false),
            (Failure::NodeUnreachable { node, why, outcome: "it was not sent" }, true),
            (Failure::UserClosed, true),
            (Failure::NoRoomForWrite { limit: 7 }, true),
            (Failure::NoRoomForRead { limit: 7 }, false),
            (Failure::HoldsFull { slot: Slot(7) }, false),
            (Failure::NodeFailed, false),
            (Failure::NoPrimary, false),
            (Failure::EmptyExec, false),
            (Failure::NoSuchKey, false),
            (Failure::KeysContended { command: "RENAME".into() }, false),
            (stopped(lost.into()), false),
            (stopped(Cause::node(b"-OOM x\r\n")), false),
        ] {
            let cause = failed_before("copy", failure.clone().into());
            let want = match is_cause {
                true => {
                    Failure::FailedBefore { command: "COPY".into(), cause: failure.clone().into() }
                }
                false => failure.clone(),
            };
            assert_eq!(cause, want.into(), "{failure}");
        }
        let node = Cause::node(b"-OUTCOMEUNKNOWN x\r\n");
        assert_eq!(failed_before("copy", node.clone()), node, "not slotway's");
    }
}
