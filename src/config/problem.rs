//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

use super::origin::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// The key, as a path; empty when the problem is not about one.
    pub key: String,
    /// What is wrong and what to write instead. Never holds a secret.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `--set limits.bulk` names the key already, a default was written nowhere.
        let place = match self.origin {
            Origin::Default => String::new(),
            _ => format!("{}: ", self.origin),
        };
        f.write_str(&place)?;
        if !self.key.is_empty() && !place.ends_with(&format!(" {}: ", self.key)) {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

/// All that was found wrong, at least one thing, in the order of the places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// One line each.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The candidate most like `given`, if any is like it at all.
///
/// A path counts as alike also when only its last part is: who writes `client_output` outside of
/// its section, or under a wrong one, meant `limits.client_output`.
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const ALIKE: f64 = 0.5;
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(given, candidate);
        let part = strsim::normalized_damerau_levenshtein(&last(given), &last(candidate));
        // Two paths with the same last part are told apart by the rest.
        whole.max(0.8 * part + 0.1 * whole)
    };
    candidates
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The same for words that are no paths.
pub(super) fn nearest_word(
    given: &str,
    candidates: &mut dyn Iterator<Item = &str>,
) -> Option<String> {
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(given, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        for (given, meant) in [
            ("lisen", Some("listen")),
            ("limits.clint_output", Some("limits.client_output")),
            ("client_output", Some("limits.client_output")),
            ("timeout.command", Some("timeouts.command")),
            ("limits.max_clients", Some("limits.clients")),
            ("log_level", Some("log.level")),
            ("zzzzzzzzzzzz", None),
        ] {
            assert_eq!(nearest(given, KEYS.iter().map(|key| key.path)), meant, "{given}");
        }
    }
}
