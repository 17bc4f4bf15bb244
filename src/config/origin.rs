//! Where a value of the configuration comes from.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: nobody set it.
    Default,
    /// The file, and the line if it is about one.
    File(PathBuf, Option<usize>),
    /// The variable of that name.
    Env(String),
    /// The flag: `--workers`, or `--set log.level`.
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
