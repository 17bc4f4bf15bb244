//! Types of the fields that the templates of errors are filled with.

use crate::cluster::Slot;
use crate::errors::{Code, Failure};
use crate::resp::reply::error_text;
use std::fmt;

/// Longest part of a key that an error shows, in bytes.
const SHOWN: usize = 64;

/// Displays ` for slot 17`, or nothing for a command without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForSlot(pub Option<Slot>);

impl fmt::Display for ForSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |slot| write!(f, " for slot {slot}"))
    }
}

/// A key, or another name that a client has chosen, cut off after 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<str>);

impl Key {
    /// The part of `key` that is shown.
    pub fn new(key: &[u8]) -> Key {
        Key(String::from_utf8_lossy(key.get(..SHOWN).unwrap_or(key)).into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Displays `; last: …` with the last error of a node or connection, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last(pub Option<String>);

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |last| write!(f, "; last: {last}"))
    }
}

/// An error that caused another error.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// An error of slotway's own.
    Own(Box<Failure>),
    /// A node's error reply.
    Node(Box<[u8]>),
}

impl Cause {
    /// The cause that `frame`, a node's error reply, is.
    pub fn node(frame: &[u8]) -> Cause {
        Cause::Node(frame.into())
    }

    /// Whether it is an error of slotway's own with an unknown outcome.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Cause::Own(failure) if failure.is_outcome_unknown())
    }

    /// The error's code.
    pub fn code(&self) -> Code {
        match self {
            Cause::Own(failure) => failure.code(),
            Cause::Node(reply) => Code::of_verbatim(error_text(reply).unwrap_or(b"ERR")),
        }
    }

    /// The whole text of the error, code included.
    pub fn error(&self) -> String {
        match self {
            Cause::Own(failure) => failure.to_string(),
            Cause::Node(reply) => {
                String::from_utf8_lossy(error_text(reply).unwrap_or(b"ERR")).into_owned()
            }
        }
    }

    /// Appends the error to `out` as a RESP error.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Cause::Own(failure) => failure.write(out),
            Cause::Node(reply) => out.extend_from_slice(reply),
        }
    }

    /// The error as a [`Failure`].
    pub fn into_failure(self) -> Failure {
        match self {
            Cause::Own(failure) => *failure,
            Cause::Node(reply) => Failure::Verbatim(error_text(&reply).unwrap_or(b"ERR").into()),
        }
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Cause {
        Cause::Own(Box::new(failure))
    }
}

/// Displays the cause at the end of another error's text. The promise of an own error is left out,
/// because it would be read as one about the other error's command; so are ERR and OUTCOMEUNKNOWN.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Own(failure) => match failure.code() {
                Code::Err | Code::OutcomeUnknown => write!(f, "{}", failure.without_promise()),
                code => write!(f, "{code} {}", failure.without_promise()),
            },
            Cause::Node(reply) => {
                let text = error_text(reply).unwrap_or(b"no reply");
                f.write_str(&String::from_utf8_lossy(text))
            }
        }
    }
}

/// What an emulated command had done when it stopped after some of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halfway {
    /// It may have written the target, and nothing else.
    MayHaveWritten,
    /// It has copied the source to the target, and removed nothing.
    Copied,
    /// It has written the target, and may have removed from the source what it moves.
    MayHaveRemoved,
    /// It has added a member to the target that others have removed from the source.
    MemberRemoved,
    /// It has added an element to the target that others have taken from the source.
    ElementTaken,
    /// It has set some of its keys, or may have.
    Set(Box<SomeSet>),
    /// It has read entries of these streams for a consumer; without a stream, it may have.
    Delivered(Vec<String>),
}

/// Which of a command's keys are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SomeSet {
    /// Those that are set.
    pub set: Vec<String>,
    /// Those that may be set.
    pub unknown: Vec<String>,
    /// Whether there are others.
    pub others: bool,
}

impl fmt::Display for SomeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (!self.set.is_empty()).then(|| format!("set are {}", self.set.join(", ")));
        let unknown = (!self.unknown.is_empty())
            .then(|| format!("whether {} is set is not known", self.unknown.join(", ")));
        let others = self.others.then(|| "the others are not".to_owned());
        let all: Vec<String> = [set, unknown, others].into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}

impl fmt::Display for Halfway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = "and are pending for the consumer";
        match self {
            Halfway::MayHaveWritten => f.write_str(
                "the target may or may not have been written, the sources are as they were",
            ),
            Halfway::Copied => f.write_str("the target has a copy, the source is still there"),
            Halfway::MayHaveRemoved => f.write_str(
                "the target is written, what was to be removed from the source may or may not \
                 have been",
            ),
            Halfway::MemberRemoved => {
                f.write_str("the target has the member, and others have removed it from the source")
            }
            Halfway::ElementTaken => {
                f.write_str("the target has the element, and others have taken it from the source")
            }
            Halfway::Set(keys) => write!(f, "{keys}"),
            Halfway::Delivered(streams) if streams.is_empty() => {
                write!(f, "entries may have been delivered {pending}")
            }
            Halfway::Delivered(streams) => {
                write!(f, "entries of {} were delivered {pending}", streams.join(", "))
            }
        }
    }
}

/// A reason why an emulated command stopped after some of its steps.
#[derive(Debug, Clone, PartialEq)]
pub enum StopCause {
    /// A step failed.
    Step(Cause),
    /// The source changed each time while it was copied.
    SourceChanging,
    /// Another client created one of the keys that were still to be set.
    KeyAppeared,
}

impl StopCause {
    /// Whether the step that failed may have been executed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, StopCause::Step(cause) if cause.is_outcome_unknown())
    }

    /// The code of the resulting error.
    pub fn code(&self) -> Code {
        if self.is_outcome_unknown() { Code::OutcomeUnknown } else { Code::Err }
    }
}

impl From<Cause> for StopCause {
    fn from(cause: Cause) -> StopCause {
        StopCause::Step(cause)
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopCause::Step(cause) => write!(f, "{cause}"),
            StopCause::SourceChanging => f.write_str("it changes all the time"),
            StopCause::KeyAppeared => f.write_str("one of the next keys came to exist in between"),
        }
    }
}

/// The remedy at the end of an error about keys in several slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossSlotRemedy {
    /// For a transaction.
    Transaction,
    /// For a command in a transaction, to which `commands.cross_slot` does not apply.
    InMulti,
    /// For a command that `commands.cross_slot = "emulate"` would carry out.
    Emulate(Box<str>),
    /// For a script or function.
    Script,
    /// For all others.
    HashTag,
}

impl fmt::Display for CrossSlotRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TAG: &str = "use a {hash tag} in the keys";
        match self {
            CrossSlotRemedy::Transaction => write!(
                f,
                ", and a transaction is one slot's; {TAG}, or set transactions.cross_slot = \
                 \"split\" in slotway's configuration"
            ),
            CrossSlotRemedy::InMulti => write!(
                f,
                ", and inside a transaction a command's keys must share one slot: what \
                 commands.cross_slot = \"emulate\" does in steps could be no part of EXEC; {TAG}"
            ),
            CrossSlotRemedy::Emulate(command) => write!(
                f,
                "; {TAG}, or set commands.cross_slot = \"emulate\" in slotway's configuration to \
                 have {command} carried out in several steps"
            ),
            CrossSlotRemedy::Script => write!(
                f,
                "; {TAG}, for example by setting the application's key prefix to '{{myapp}}:'. A \
                 script runs on one node, and no setting of slotway lets it span slots"
            ),
            CrossSlotRemedy::HashTag => write!(f, "; {TAG}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_what_is_known_of_them() {
        let said = |set: &[&str], unknown: &[&str], others| {
            let [set, unknown] =
                [set, unknown].map(|keys| keys.iter().map(ToString::to_string).collect());
            SomeSet { set, unknown, others }.to_string()
        };
        assert_eq!(said(&["a", "b"], &[], true), "set are a, b, the others are not");
        assert_eq!(said(&["a"], &["b"], false), "set are a, whether b is set is not known");
        assert_eq!(said(&[], &["a"], true), "whether a is set is not known, the others are not");
    }

    #[test]
    fn streams_are_named_if_they_are_known() {
        let said = |streams: &[&str]| {
            Halfway::Delivered(streams.iter().map(ToString::to_string).collect()).to_string()
        };
        assert_eq!(
            said(&["a", "b"]),
            "entries of a, b were delivered and are pending for the consumer"
        );
        assert_eq!(said(&[]), "entries may have been delivered and are pending for the consumer");
    }
}
