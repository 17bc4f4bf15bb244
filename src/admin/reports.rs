//! `/hotkeys`, `/bigkeys` and `/slowlog`: reports on observed commands, as JSON.

use hyper::Uri;
use serde_json::Value;

use crate::observe::{ObservedKeys, Renderer};

/// Upper limit of `count`.
const MAX_COUNT: usize = 1000;

/// Parses the parameter `count` of the query; `None` if it is missing.
pub(super) fn asked_count(uri: &Uri) -> Result<Option<usize>, &'static str> {
    let Some(query) = uri.query() else { return Ok(None) };
    let asked = query.split('&').find_map(|part| part.strip_prefix("count="));
    let Some(asked) = asked else { return Ok(None) };
    match asked.parse() {
        Ok(count) if (1..=MAX_COUNT).contains(&count) => Ok(Some(count)),
        _ => Err("count is a number from 1 to 1000\n"),
    }
}

/// The body of `/hotkeys` or `/bigkeys`.
pub(super) fn keys_json(
    path: &str,
    seen: &ObservedKeys,
    shown: Renderer<'_>,
    (sample, count): (u32, usize),
) -> Value {
    match path {
        "/hotkeys" => shown.hot_json(&seen.hot, sample, count),
        _ => shown.big_json(&seen.big, sample > 0, count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_be_asked_for() {
        let count = |uri: &str| asked_count(&uri.parse().expect("a uri"));
        assert_eq!(count("/hotkeys"), Ok(None));
        assert_eq!(count("/hotkeys?x=1"), Ok(None));
        assert_eq!(count("/hotkeys?x=1&count=7"), Ok(Some(7)));
        for wrong in ["0", "1001", "-1", "x", ""] {
            assert!(count(&format!("/hotkeys?count={wrong}")).is_err(), "{wrong}");
        }
    }
}
