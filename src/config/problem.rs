//! Problems of a configuration, and suggestions of similar names.

use std::fmt;

use super::origin::Origin;

/// A reason why a configuration is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The origin of the value.
    pub origin: Origin,
    /// The path of the key; empty if the problem is not about one.
    pub key: String,
    /// The reason, and what to write instead. Never contains a secret.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The origin `--set limits.bulk` names the key already; a default has no place.
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

/// The problems of a configuration that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one, in the order of their origins; one line each.
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

/// The candidate most similar to `given`; `None` if none is similar enough.
///
/// A path is also similar if only its last part is: `client_output` outside of its section, or in a
/// wrong one, suggests `limits.client_output`.
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const ALIKE: f64 = 0.5;
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(given, candidate);
        let part = strsim::normalized_damerau_levenshtein(&last(given), &last(candidate));
        // The whole path decides between candidates with the same last part.
        whole.max(0.8 * part + 0.1 * whole)
    };
    candidates
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The candidate most similar to `given`, for words that are not paths.
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
