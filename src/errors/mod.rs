//! The errors that slotway answers with: code, text, cause and remedy of each. No I/O.
//!
//! A [`Failure`] is an error as a value. It travels beside the nodes' replies and is rendered where
//! it enters a client's buffer ([`Failure::write`]): until then nothing needs its text, and nothing
//! decides by it. `docs/errors.md` is generated from the same table ([`reference()`]). Errors of nodes
//! are passed on as they are and are not in it.

mod code;
mod reference;
mod table;
mod unanswered;

pub use code::Code;
pub use reference::reference;
pub use table::Failure;
pub use table::fields::{Cause, CrossSlotRemedy, ForSlot, Key, Last, StopCause};
pub use unanswered::Unanswered;

use crate::resp::write;
use std::fmt;

/// Errors with a common cause: a row of the reference page.
#[derive(Debug, Clone)]
struct Row {
    /// Code and template of each error; `{…}` stands for a field.
    errors: Vec<(Option<Code>, &'static str)>,
    /// Why it happens. Markdown.
    cause: &'static str,
    /// What to do about it. Markdown.
    remedy: &'static str,
}

/// A section of the reference page.
#[derive(Debug, Clone)]
struct Section {
    title: &'static str,
    rows: Vec<Row>,
}

impl Failure {
    /// The error for a command that there is not, with the bytes of its name and of the arguments
    /// behind it.
    pub fn unknown_command(name: &[u8], args: &[u8]) -> Failure {
        let beginning = b"', with args beginning with: ";
        Failure::Verbatim([b"ERR unknown command '", name, beginning, args].concat().into())
    }

    /// The error for a subcommand that `container` does not have, with the bytes of its name.
    pub fn unknown_subcommand(name: &[u8], container: &str) -> Failure {
        let help = format!("'. Try {container} HELP.");
        Failure::Verbatim([b"ERR unknown subcommand '", name, help.as_bytes()].concat().into())
    }

    /// Appends the error as a reply.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Failure::Verbatim(text) => write::error(out, text),
            _ => write::error(out, &self.to_string()),
        }
    }

    /// The error as a reply.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write(&mut frame);
        frame
    }

    /// Whether the command that it answers may or may not have been executed.
    pub fn is_outcome_unknown(&self) -> bool {
        self.code() == Code::OutcomeUnknown
    }

    /// Its text without its code.
    pub fn statement(&self) -> String {
        self.without_promise().to_string()
    }

    /// Its text without its code, and without what it promises of its command.
    fn without_promise(&self) -> impl fmt::Display {
        WithoutPromise(self)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code())?;
        self.write_statement(f)?;
        self.write_promise(f)?;
        self.write_tail(f)
    }
}

impl std::error::Error for Failure {}

/// A failure's text without its code, and without what it promises of its command.
struct WithoutPromise<'a>(&'a Failure);

impl fmt::Display for WithoutPromise<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_statement(f)?;
        self.0.write_tail(f)
    }
}
