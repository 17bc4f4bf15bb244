//! Replies to steps, and results of emulated commands. Slotway's own errors stay values
//! ([`Failure`]): recipes look at the texts of nodes only.

use crate::errors::{Cause, Code, Failure};
use crate::resp::reply::{error_text, integer};
use crate::resp::write;
use crate::route::DISCARDED;

/// The reply to the client, or the error in its place. A node's error is never `Ok`.
pub type CommandResult = Result<Vec<u8>, Cause>;

/// The reply to a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A node's reply, possibly an error; empty if there is none.
    Node(Vec<u8>),
    /// The step failed without a node's reply.
    Failed(Box<Failure>),
}

impl Reply {
    /// The node's reply; empty if the step failed.
    pub fn frame(&self) -> &[u8] {
        match self {
            Reply::Node(frame) => frame,
            Reply::Failed(_) => &[],
        }
    }

    /// Whether the step failed or a node refused it.
    pub fn is_error(&self) -> bool {
        match self {
            Reply::Node(frame) => is_error(frame),
            Reply::Failed(_) => true,
        }
    }

    /// Whether this is a node's error that starts with `word`.
    pub(super) fn is_error_of(&self, word: &str) -> bool {
        is_error_of(self.frame(), word)
    }

    /// Whether a node refused the step because its memory is full, and executed nothing of it.
    pub(super) fn is_out_of_memory(&self) -> bool {
        error_text(self.frame()).is_some_and(|text| reason(text).starts_with(b"OOM "))
    }

    /// Whether the step may or may not have been executed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Reply::Failed(failure) if failure.is_outcome_unknown())
    }

    /// Whether this is a null, in any RESP form.
    pub fn is_null(&self) -> bool {
        is_null(self.frame())
    }

    /// The value of an integer reply.
    pub fn integer(&self) -> Option<i64> {
        integer(self.frame())
    }

    /// The bytes of a string, number or double reply.
    pub(super) fn scalar(&self) -> Option<&[u8]> {
        scalar(self.frame())
    }

    /// Checks that this is not an error.
    ///
    /// # Errors
    /// The error.
    pub fn check(&self) -> Result<(), Cause> {
        if self.is_error() { Err(self.clone().into()) } else { Ok(()) }
    }
}

impl Default for Reply {
    fn default() -> Self {
        Reply::Node(Vec::new())
    }
}

/// [`Failure::Verbatim`] carries a node's own error, and is treated as that node's reply.
impl From<Failure> for Reply {
    fn from(failure: Failure) -> Reply {
        match failure {
            Failure::Verbatim(_) => Reply::Node(failure.frame()),
            failure => Reply::Failed(Box::new(failure)),
        }
    }
}

impl From<Cause> for Reply {
    fn from(cause: Cause) -> Reply {
        match cause {
            Cause::Own(failure) => Reply::Failed(failure),
            Cause::Node(frame) => Reply::Node(frame.into()),
        }
    }
}

/// The error in a reply; [`Failure::NoReply`] if it is not an error.
impl From<Reply> for Cause {
    fn from(reply: Reply) -> Cause {
        match reply {
            Reply::Node(frame) if is_error(&frame) => Cause::Node(frame.into()),
            Reply::Node(_) => Failure::NoReply.into(),
            Reply::Failed(failure) => Cause::Own(failure),
        }
    }
}

/// The replies to the commands of a batch.
///
/// # Errors
/// The error of the batch, or of its first command. A command refused while it was queued is the
/// error, since the client does not know of the batch.
pub fn batch(reply: &Reply) -> Result<Vec<&[u8]>, Cause> {
    if let Some(text) = error_text(reply.frame()) {
        let mut refusal = Vec::new();
        write::error(&mut refusal, reason(text));
        return Err(Cause::Node(refusal.into()));
    }
    reply.check()?;
    let replies: Vec<&[u8]> = crate::resp::reply::elements(reply.frame()).collect();
    match replies.first() {
        Some(first) => check_frame(first).map(|()| replies),
        None => Err(Failure::EmptyExec.into()),
    }
}

/// Why a batch was discarded; the text itself if it is another error.
fn reason(text: &[u8]) -> &[u8] {
    text.strip_prefix(DISCARDED.as_bytes()).unwrap_or(text)
}

/// Checks that a node's reply is not an error.
///
/// # Errors
/// The error.
pub(super) fn check_frame(frame: &[u8]) -> Result<(), Cause> {
    if is_error(frame) { Err(Cause::node(frame)) } else { Ok(()) }
}

/// Passes a node's reply on to the client.
///
/// # Errors
/// The error, if the reply is one.
pub(super) fn passed_on(frame: &[u8]) -> CommandResult {
    check_frame(frame).map(|()| frame.to_vec())
}

/// Checks that no reply is an error.
///
/// # Errors
/// The first error.
pub(super) fn first_error<'a>(replies: impl IntoIterator<Item = &'a Reply>) -> Result<(), Cause> {
    replies.into_iter().try_for_each(Reply::check)
}

/// Whether a node's reply is a null, in any RESP form.
pub fn is_null(frame: &[u8]) -> bool {
    matches!(frame, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// Whether the cause is a node's error that starts with `word`.
pub(super) fn is_node_error(cause: &Cause, word: &str) -> bool {
    matches!(cause, Cause::Node(frame) if is_error_of(frame, word))
}

/// Whether a node's reply is an error.
pub fn is_error(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'-' | b'!'))
}

fn is_error_of(frame: &[u8], word: &str) -> bool {
    error_text(frame).is_some_and(|text| text.starts_with(word.as_bytes()))
}

/// The bytes of a string, number or double.
pub(super) fn scalar(frame: &[u8]) -> Option<&[u8]> {
    match frame.first()? {
        b',' | b':' | b'(' => frame.get(1..frame.len().checked_sub(2)?),
        _ => crate::resp::reply::text(frame),
    }
}

/// The error of the command `name` when it certainly changed nothing. A failure that describes one
/// step is wrapped, because the client would read it as a statement about its whole command.
pub(super) fn failed_before(name: &str, cause: Cause) -> Cause {
    match cause {
        Cause::Own(failure) if is_about_step(&failure) => {
            let (command, cause) = (name.to_ascii_uppercase().into(), Cause::Own(failure));
            Failure::FailedBefore { command, cause }.into()
        }
        cause => cause,
    }
}

/// Whether a failure describes the fate of one step. The others hold for the whole command as well:
/// nothing of it was sent, or the failure is already about all of it.
fn is_about_step(failure: &Failure) -> bool {
    match failure {
        Failure::StoppedHalfway { .. } => false,
        // With another code the deadline carries a node's last error, which the client should see.
        Failure::Deadline { code, .. } | Failure::BlockingDeadline { code, .. } => {
            matches!(code, Code::Err | Code::OutcomeUnknown)
        }
        Failure::NodeUnreachable { .. } | Failure::UserClosed => true,
        other => other.is_outcome_unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(frame: &str) -> Reply {
        Reply::Node(frame.as_bytes().to_vec())
    }

    /// Failures with the same codes as the nodes' errors that recipes look for.
    fn failures() -> [Failure; 3] {
        [
            Failure::NoRoomForRead { limit: 1 },
            Failure::DryRunDenied,
            Failure::ConnectionLost { node: "n".into(), why: "closed".into() },
        ]
    }

    #[test]
    fn a_failure_is_an_error_but_not_a_nodes() {
        for failure in failures() {
            let word = failure.code().to_string();
            let reply = Reply::from(failure.clone());
            assert!(reply.is_error() && !reply.is_error_of(&word), "{failure}");
            assert!(!reply.is_out_of_memory() && !reply.is_null(), "{failure}");
            assert_eq!((reply.integer(), reply.scalar()), (None, None), "{failure}");
            assert_eq!(reply.is_outcome_unknown(), failure.is_outcome_unknown(), "{failure}");
            assert_eq!(reply.check(), Err(failure.clone().into()));
            assert_eq!(batch(&reply), Err(failure.clone().into()));
            assert_eq!(Reply::from(Cause::from(failure)), reply);
        }
    }

    #[test]
    fn a_nodes_text_does_not_make_the_outcome_unknown() {
        let reply = node("-OUTCOMEUNKNOWN x\r\n");
        assert!(reply.is_error_of("OUTCOMEUNKNOWN") && !reply.is_outcome_unknown());
    }

    #[test]
    fn a_verbatim_failure_is_a_nodes_reply() {
        let passed = Reply::from(Failure::Verbatim((*b"WRONGTYPE x").into()));
        assert_eq!(passed, node("-WRONGTYPE x\r\n"));
    }

    #[test]
    fn a_reply_without_an_error_is_no_cause() {
        for odd in [Reply::default(), node("+OK\r\n")] {
            assert_eq!(Cause::from(odd), Failure::NoReply.into());
        }
        assert_eq!(Cause::from(node("-X y\r\n")), Cause::node(b"-X y\r\n"));
    }

    #[test]
    fn errors_of_batches() {
        let failed = |reply: &Reply| batch(reply).unwrap_err();
        let discarded = node("-EXECABORT Transaction discarded because of: OOM x\r\n");
        assert!(discarded.is_out_of_memory());
        assert_eq!(failed(&discarded), Cause::node(b"-OOM x\r\n"));
        assert_eq!(failed(&node("*2\r\n-OOM x\r\n:1\r\n")), Cause::node(b"-OOM x\r\n"));
        assert_eq!(failed(&node("*0\r\n")), Failure::EmptyExec.into());
        assert_eq!(
            batch(&node("*2\r\n:1\r\n-OOM x\r\n")).unwrap(),
            [&b":1\r\n"[..], b"-OOM x\r\n"]
        );
    }
}
