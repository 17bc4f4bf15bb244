//! Rules that are not understood.

/// A rule that is not understood, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// Neither word nor sign is known.
    Syntax,
    /// No such command, subcommand or category.
    Unknown,
    /// `+config|get|x`
    FirstArgOfSubcommand,
    /// A pattern behind `~*`.
    AfterAllKeys,
    /// A pattern behind `&*`.
    AfterAllChannels,
    /// `#` and not 64 hexadecimal digits.
    Hash,
    /// `<` or `!` of a password that the user has not.
    NoSuchPassword,
    /// A `(` without its `)`.
    Unbalanced,
}

impl RuleError {
    /// What is wrong.
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Syntax => "Syntax error",
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::FirstArgOfSubcommand => {
                "Allowing first-arg of a subcommand is not supported"
            }
            RuleError::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does \
                 not have any effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and \
                 does not have any effect. Try 'resetchannels' to start with an empty list of \
                 channels"
            }
            RuleError::Hash => {
                "The password hash must be exactly 64 characters and contain only lowercase \
                 hexadecimal characters"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            RuleError::Unbalanced => "Unmatched parenthesis in selector",
        }
    }
}
