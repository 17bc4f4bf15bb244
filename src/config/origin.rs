//! The origin of a value of the configuration.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Not set: the default.
    Default,
    /// A file, and a line, unless it is about the whole file.
    File(PathBuf, Option<usize>),
    /// An environment variable, by its name.
    Env(String),
    /// A flag: `--workers`, or `--set log.level`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Origin::File(path, None) => path.display().fmt(f),
            Origin::Env(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}
