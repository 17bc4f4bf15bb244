//! Errors in ACL rules.

/// An error in an ACL rule; the texts are Redis's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// Unknown word or prefix.
    Syntax,
    /// Unknown command, subcommand or category.
    Unknown,
    /// A first argument of a subcommand: `+config|get|x`.
    FirstArgOfSubcommand,
    /// A key pattern after `~*`.
    AfterAllKeys,
    /// A channel pattern after `&*`.
    AfterAllChannels,
    /// `#` without 64 lower-case hexadecimal digits.
    Hash,
    /// `<` or `!` with a password that the user does not have.
    NoSuchPassword,
    /// `(` without `)`.
    Unbalanced,
}

impl RuleError {
    /// The error text.
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
