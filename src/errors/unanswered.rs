//! What is known of a command that was not answered in time: whether it was sent, and whether it may
//! have changed data.

use super::Code;
use std::fmt;

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
}

/// The end of "the command was …".
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unanswered::NotSent => "not sent",
            Unanswered::NotExecuted => "not executed",
            Unanswered::Harmless => "not answered",
            Unanswered::Read => "sent and not answered",
            Unanswered::Unknown => "sent and not answered, so it may or may not have been executed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_command_that_was_not_answered() {
        let refused = || Some(Code::ClusterDown);
        assert_eq!(Unanswered::Unknown.code(refused()), Code::OutcomeUnknown);
        assert_eq!(Unanswered::NotSent.code(refused()), Code::ClusterDown);
        assert_eq!(Unanswered::Read.code(None), Code::Err);
    }
}
