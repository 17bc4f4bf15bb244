//! Error codes.

use std::fmt;

/// An error code: the first word of an error reply, by which clients distinguish errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Code {
    /// `CLUSTERDOWN`: no node can serve the command at the moment.
    ClusterDown,
    /// `CROSSSLOT`: keys in several slots.
    CrossSlot,
    /// `DENIED`: protected mode.
    Denied,
    /// `ERR`: an error without a code of its own.
    Err,
    /// `EXECABORT`: a transaction, or a part of it, was discarded.
    ExecAbort,
    /// `INVALIDOBJ`: the key holds a damaged value.
    InvalidObj,
    /// `NOAUTH`: a login is required.
    NoAuth,
    /// `NOPERM`: the user's rules, or the configuration, do not allow the command.
    NoPerm,
    /// `NOPROTO`: an unknown protocol version.
    NoProto,
    /// `NOSCRIPT`: no script with this digest.
    NoScript,
    /// `OOM`: not enough memory for the command.
    Oom,
    /// `OUTCOMEUNKNOWN`: the command was sent and may or may not have been executed.
    OutcomeUnknown,
    /// `TRYAGAIN`: the keys of the command are on two nodes.
    TryAgain,
    /// `UNBLOCKED`: a blocking command was ended before its timeout.
    Unblocked,
    /// `WRONGPASS`: wrong user name or password.
    WrongPass,
    /// `WRONGTYPE`: the key holds a value of another type.
    WrongType,
    /// A code that only nodes use.
    Node(Box<str>),
}

/// The codes of slotway's own errors.
static KNOWN: [Code; 16] = [
    Code::ClusterDown,
    Code::CrossSlot,
    Code::Denied,
    Code::Err,
    Code::ExecAbort,
    Code::InvalidObj,
    Code::NoAuth,
    Code::NoPerm,
    Code::NoProto,
    Code::NoScript,
    Code::Oom,
    Code::OutcomeUnknown,
    Code::TryAgain,
    Code::Unblocked,
    Code::WrongPass,
    Code::WrongType,
];

impl Code {
    /// Number of metric labels.
    pub const COUNT: usize = KNOWN.len() + 1;

    /// The metric labels in the order of [`Code::index`]: slotway's own codes, and one for all
    /// others.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(Code::as_str).chain(["other"])
    }

    /// The index of the code's label in [`Code::labels`].
    pub fn index(&self) -> usize {
        KNOWN.iter().position(|code| code == self).unwrap_or(KNOWN.len())
    }

    /// The code as written in a reply.
    pub fn as_str(&self) -> &str {
        match self {
            Code::ClusterDown => "CLUSTERDOWN",
            Code::CrossSlot => "CROSSSLOT",
            Code::Denied => "DENIED",
            Code::Err => "ERR",
            Code::ExecAbort => "EXECABORT",
            Code::InvalidObj => "INVALIDOBJ",
            Code::NoAuth => "NOAUTH",
            Code::NoPerm => "NOPERM",
            Code::NoProto => "NOPROTO",
            Code::NoScript => "NOSCRIPT",
            Code::Oom => "OOM",
            Code::OutcomeUnknown => "OUTCOMEUNKNOWN",
            Code::TryAgain => "TRYAGAIN",
            Code::Unblocked => "UNBLOCKED",
            Code::WrongPass => "WRONGPASS",
            Code::WrongType => "WRONGTYPE",
            Code::Node(code) => code,
        }
    }

    /// The code of an error's text: its first word.
    pub(super) fn of_verbatim(text: &[u8]) -> Code {
        let word = text.split(|&byte| byte == b' ').next().unwrap_or_default();
        Code::parse(&String::from_utf8_lossy(word))
    }

    fn parse(word: &str) -> Code {
        let known = KNOWN.iter().find(|code| code.as_str() == word);
        known.cloned().unwrap_or_else(|| Code::Node(word.into()))
    }

    /// The code of a node's error; `None` if its text begins with `ERR` or with no code.
    pub fn of_node(text: &str) -> Option<Code> {
        let word = text.split(' ').next().unwrap_or_default();
        let is_code = word.len() > 3 && word.bytes().all(|b| b.is_ascii_uppercase());
        is_code.then(|| Code::parse(word))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_nodes_error_is_its_first_word() {
        assert_eq!(Code::of_node("LOADING Redis is loading").unwrap().as_str(), "LOADING");
        assert_eq!(Code::of_node("MASTERDOWN").unwrap().as_str(), "MASTERDOWN");
        assert_eq!(Code::of_node("NOAUTH Authentication required."), Some(Code::NoAuth));
        for text in ["ERR no", "Connection refused (os error 111)", "", "connect: timed out"] {
            assert_eq!(Code::of_node(text), None, "{text}");
        }
    }
}
