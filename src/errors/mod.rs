//! The errors that slotway replies with: code, text, cause and remedy of each. No I/O.
//!
//! A [`Failure`] is an error as a value. It is passed along beside nodes' replies and rendered only
//! into a client's buffer ([`Failure::write`]); no code decides by its text. `docs/errors.md` is
//! generated from the same table ([`reference()`]). Errors of nodes are passed on unchanged and are
//! not in it.

mod code;
mod identify;
mod reference;
mod table;
mod unanswered;

pub use code::Code;
pub use identify::{Identified, identify};
pub use reference::reference;
pub use table::fields::{Cause, CrossSlotRemedy, ForSlot, Halfway, Key, Last, SomeSet, StopCause};
pub use table::{Failure, FailureId};
pub use unanswered::Unanswered;

use crate::resp::write;
use std::fmt;

/// A row of the reference page: errors with a common cause.
#[derive(Debug, Clone)]
struct Row {
    /// Code and template of each error; `{…}` stands for a field.
    errors: Vec<(Option<Code>, &'static str)>,
    /// Markdown.
    cause: &'static str,
    /// Markdown.
    remedy: &'static str,
}

/// A section of the reference page.
#[derive(Debug, Clone)]
struct Section {
    title: &'static str,
    rows: Vec<Row>,
}

impl Failure {
    /// The error for an unknown command, with its name and the beginning of its arguments as they
    /// are.
    pub fn unknown_command(name: &[u8], args: &[u8]) -> Failure {
        let beginning = b"', with args beginning with: ";
        Failure::Verbatim([b"ERR unknown command '", name, beginning, args].concat().into())
    }

    /// The error for an unknown subcommand of `container`, with its name as it is.
    pub fn unknown_subcommand(name: &[u8], container: &str) -> Failure {
        let help = format!("'. Try {container} HELP.");
        Failure::Verbatim([b"ERR unknown subcommand '", name, help.as_bytes()].concat().into())
    }

    /// Appends the error to `out` as a RESP error.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Failure::Verbatim(text) => write::error(out, text),
            _ => write::error(out, &self.to_string()),
        }
    }

    /// The error as a RESP error.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write(&mut frame);
        frame
    }

    /// Whether the command may or may not have been executed.
    pub fn is_outcome_unknown(&self) -> bool {
        self.code() == Code::OutcomeUnknown
    }

    /// The text without the code and without the promise: what it says of the command's execution.
    pub fn statement(&self) -> String {
        self.without_promise().to_string()
    }

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

/// Displays a failure's [`Failure::statement`].
struct WithoutPromise<'a>(&'a Failure);

impl fmt::Display for WithoutPromise<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_statement(f)?;
        self.0.write_tail(f)
    }
}
