//! Errors that say that a command's outcome is unknown: it was sent to a node, may have changed data,
//! and its reply is lost. They are made and recognised here. No I/O.
//!
//! All of them have the error code [`UNKNOWN`], so that a client can tell them from errors of
//! commands that were not executed.

use crate::errors::Code;
use crate::resp::reply::error_text;

/// The error code.
pub const UNKNOWN: &str = "OUTCOMEUNKNOWN";

/// The code of all other errors that have none of their own.
const OTHER: &str = "ERR";

/// What is known of a command that was not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It was not sent.
    NotSent,
    /// It was not sent, or every node that it was sent to has refused it.
    NotExecuted,
    /// It changes nothing.
    Harmless,
    /// It was sent and only reads.
    Read,
    /// It was sent and may have changed data.
    Unknown,
}

impl Unanswered {
    /// The error's code; `other` where the outcome is known.
    pub fn code(self, other: Option<Code>) -> Code {
        match self {
            Unanswered::Unknown => Code::OutcomeUnknown,
            _ => other.unwrap_or(Code::Err),
        }
    }

    /// The end of "the command was …".
    pub fn text(self) -> &'static str {
        match self {
            Unanswered::NotSent => "not sent",
            Unanswered::NotExecuted => "not executed",
            Unanswered::Harmless => "not answered",
            Unanswered::Read => "sent and not answered",
            Unanswered::Unknown => "sent and not answered, so it may or may not have been executed",
        }
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// The error of a command whose connection to `node` was lost after it was sent; `why` it was.
pub fn connection_lost(node: &str, why: &str) -> String {
    format!(
        "OUTCOMEUNKNOWN slotway lost its connection to {node} ({why}) after the command was sent: \
         it may or may not have been executed"
    )
}

/// The error of a command that was lost with a connection and is not sent again because of the error
/// `why`. What that error promises of the command is true of the second attempt only, and left out.
pub fn not_sent_again(why: &str) -> String {
    let why = why.replace(": the command was not executed", "").replace("try again, or ", "");
    format!(
        "OUTCOMEUNKNOWN slotway lost a connection after the command was sent: it may or may not have \
         been executed, and it is not sent again: {why}"
    )
}

/// The error of a command that may have changed data and whose reply `limits.memory`, `limit` bytes,
/// has no room for.
pub fn reply_dropped(limit: usize) -> String {
    format!(
        "OUTCOMEUNKNOWN slotway has no room for the reply, which is dropped (limits.memory = {limit} \
         bytes over all workers; ask for less at a time, or raise it) after the command was sent: \
         it may or may not have been executed"
    )
}

/// Whether a reply is an error with the code [`UNKNOWN`].
pub fn is_unknown(frame: &[u8]) -> bool {
    error_text(frame).is_some_and(|text| {
        text.strip_prefix(UNKNOWN.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' '))
    })
}

/// The code of an error that is caused by the error `cause`.
pub fn code_of(cause: &[u8]) -> &'static str {
    if is_unknown(cause) { UNKNOWN } else { OTHER }
}

/// What happened, from the text of an error with the code [`UNKNOWN`] about a part of a command of
/// which it is sure that nothing was changed. `None`: its code is another one.
pub fn cause(text: &str) -> Option<String> {
    let cause = text.strip_prefix(UNKNOWN)?.strip_prefix(' ')?;
    let statements =
        [": it may or may not have been executed", ", so it may or may not have been executed"];
    Some(statements.iter().fold(cause.to_owned(), |cause, statement| cause.replace(statement, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_recognised_and_nothing_else() {
        let frame = |text: &str| format!("-{text}\r\n").into_bytes();
        let lost = connection_lost("n:1", "closed by the node");
        for text in [&*lost, &reply_dropped(7), &not_sent_again("ERR x"), "OUTCOMEUNKNOWN x"] {
            assert!(is_unknown(&frame(text)), "{text}");
        }
        for other in ["ERR OUTCOMEUNKNOWN", "OUTCOMEUNKNOWNS x", "OUTCOMEUNKNOWN"] {
            assert!(!is_unknown(&frame(other)), "{other}");
        }
        assert!(is_unknown(b"!16\r\nOUTCOMEUNKNOWN x\r\n"));
        assert!(!is_unknown(b"$16\r\nOUTCOMEUNKNOWN x\r\n"));
        assert_eq!((code_of(&frame(&lost)), code_of(b"-OOM x\r\n")), ("OUTCOMEUNKNOWN", "ERR"));
    }

    #[test]
    fn a_lost_command_is_promised_nothing_by_the_error_of_its_second_attempt() {
        let said = not_sent_again("CLUSTERDOWN slot 1 is away: the command was not executed; x");
        assert!(said.ends_with("again: CLUSTERDOWN slot 1 is away; x"), "{said}");
        let said = not_sent_again("ERR limits.dedicated = 1; try again, or raise it");
        assert!(said.ends_with("again: ERR limits.dedicated = 1; raise it"), "{said}");
    }

    #[test]
    fn the_cause_does_not_say_that_the_outcome_is_unknown() {
        let lost = connection_lost("n:1", "reset");
        let happened = "slotway lost its connection to n:1 (reset) after the command was sent";
        assert_eq!(cause(&lost).as_deref(), Some(happened));
        assert_eq!(cause("ERR slotway waited"), None);
    }

    #[test]
    fn the_code_of_a_command_that_was_not_answered() {
        assert_eq!(Unanswered::Unknown.code(Some(Code::ClusterDown)), Code::OutcomeUnknown);
        assert_eq!(Unanswered::NotSent.code(Some(Code::ClusterDown)), Code::ClusterDown);
        assert_eq!(Unanswered::Read.code(None), Code::Err);
    }
}
