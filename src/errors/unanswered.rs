//! The fate of a command without a reply: whether it was sent, and whether it may have changed
//! data.

use super::Code;
use std::fmt;

/// The fate of a command that has got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// Not sent.
    NotSent,
    /// Not executed: every node that it was sent to has refused it, if it was sent at all.
    NotExecuted,
    /// Not answered, and without effect in any case.
    Harmless,
    /// Sent, and only reads.
    Read,
    /// Sent, and may have changed data.
    Unknown,
}

impl Unanswered {
    /// The code of the error: OUTCOMEUNKNOWN if the outcome is unknown, otherwise `other` or `ERR`.
    pub fn code(self, other: Option<Code>) -> Code {
        match self {
            Unanswered::Unknown => Code::OutcomeUnknown,
            _ => other.unwrap_or(Code::Err),
        }
    }
}

/// Completes "the command was …".
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
