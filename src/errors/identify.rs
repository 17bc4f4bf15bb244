//! The error of the table that a text was rendered from. For tests, which name an error by its
//! [`FailureId`] instead of repeating its text; slotway itself decides nothing by a text.

use super::FailureId;
use super::table::templates;
use std::cmp::Reverse;

/// What the texts of all [`ProtocolError`](crate::resp::ProtocolError)s begin with. The template of
/// [`FailureId::Protocol`] is nothing but its field, which would fit any error of a node.
const PROTOCOL_ERROR: &str = "Protocol error: ";

/// An error of the table, read back from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified<'a> {
    /// Which error it is.
    pub id: FailureId,
    fields: Vec<(&'static str, &'a str)>,
}

impl<'a> Identified<'a> {
    /// The text in the place of a field of the template. Of fields that are not separated the first
    /// one has all, the others have none.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value)
    }
}

/// The error of the table whose text is `text`, which begins with the code; `None` for errors of
/// nodes.
///
/// Several templates may fit: an error may end in the text of its cause, and one template may have a
/// field where another one has a text (`{command} is not …`, `AUTH is not …`). It is the one with the
/// longest text in front of its first field; of these, the one with the shortest first field; of
/// these, the one with the longest text of its own.
pub fn identify(text: &str) -> Option<Identified<'_>> {
    let (code, statement) = text.split_once(' ')?;
    let fits = templates().into_iter().filter_map(|(id, known, template)| {
        if known.is_some_and(|known| known.as_str() != code) {
            return None;
        }
        let (start, fields) = split(template);
        let fields = values(start, &fields, statement)?;
        let first = fields.first().map_or(0, |(_, value)| value.len());
        let all: usize = fields.iter().map(|(_, value)| value.len()).sum();
        let rank = (Reverse(start.len()), first, all);
        (all < statement.len()).then_some((rank, Identified { id, fields }))
    });
    let best = fits.min_by_key(|(rank, _)| *rank);
    best.map(|(_, identified)| identified).or_else(|| {
        let is_protocol = code == "ERR" && statement.starts_with(PROTOCOL_ERROR);
        let fields = vec![("error", statement)];
        is_protocol.then_some(Identified { id: FailureId::Protocol, fields })
    })
}

/// A template's text in front of its first field, and its fields, each with the text behind it.
/// Fields that are not separated are one, with the name of the first.
fn split(template: &'static str) -> (&'static str, Vec<(&'static str, &'static str)>) {
    let mut parts = template.split('{');
    let start = parts.next().unwrap_or_default();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (field, behind) in parts.filter_map(|part| part.split_once('}')) {
        match fields.last_mut() {
            Some((_, between)) if between.is_empty() => *between = behind,
            _ => fields.push((field.split(':').next().unwrap_or_default(), behind)),
        }
    }
    (start, fields)
}

/// The values of the fields in `text`, if it fits.
fn values<'a>(
    start: &str,
    fields: &[(&'static str, &'static str)],
    text: &'a str,
) -> Option<Vec<(&'static str, &'a str)>> {
    let mut rest = text.strip_prefix(start)?;
    let mut values = Vec::new();
    for (i, (name, behind)) in fields.iter().enumerate() {
        let (value, after) = match i + 1 == fields.len() {
            true => (rest.strip_suffix(*behind)?, ""),
            false => rest.split_once(*behind)?,
        };
        values.push((*name, value));
        rest = after;
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Slot;
    use crate::errors::{Code, Failure, ForSlot, Last, Unanswered};
    use crate::resp::ProtocolError;

    /// A template with `last` in the place of its last field, and a number in that of the others and
    /// of one that the template begins with.
    fn filled(template: &'static str, last: &str) -> String {
        let (start, fields) = split(template);
        let mut text = start.to_owned();
        for (i, (_, behind)) in fields.iter().enumerate() {
            let is_last = i + 1 == fields.len() && !text.is_empty();
            text.push_str(if is_last { last } else { "7" });
            text.push_str(behind);
        }
        text
    }

    #[test]
    fn every_error_is_found_from_its_own_text_and_from_no_other() {
        let causes = templates().into_iter().map(|(_, _, template)| filled(template, "7"));
        let mut values = vec![String::new(), "7".to_owned(), "a (b): 'c'; last: d".to_owned()];
        values.extend(causes.map(|cause| format!("ERR {cause}")));
        for (id, code, template) in templates() {
            // Its field is all of its text.
            if id == FailureId::Protocol {
                continue;
            }
            let of_causes = || vec![Code::Err, Code::OutcomeUnknown, Code::ClusterDown];
            for code in code.map_or_else(of_causes, |code| vec![code]) {
                for value in &values {
                    let text = format!("{code} {}", filled(template, value));
                    assert_eq!(identify(&text).map(|found| found.id), Some(id), "{text}");
                }
            }
        }
    }

    #[test]
    fn fields_are_read_back() {
        let late = Failure::Deadline {
            code: Code::OutcomeUnknown,
            seconds: 1.25,
            slot: ForSlot(Some(Slot(7))),
            node: "a:1".into(),
            tries: 3,
            outcome: Unanswered::Unknown,
            migration: "".into(),
            last: Last(Some("b".to_owned())),
        };
        let text = late.to_string();
        let found = identify(&text).unwrap();
        assert_eq!(found.id, FailureId::Deadline);
        assert_eq!(found.field("seconds"), Some("1.2"));
        assert_eq!(found.field("slot"), Some(" for slot 7"));
        assert_eq!((found.field("node"), found.field("tries")), (Some("a:1"), Some("3")));
        let rest = format!("{}; last: b", Unanswered::Unknown);
        assert_eq!(found.field("outcome"), Some(&*rest));
        assert_eq!((found.field("last"), found.field("nonsense")), (None, None));

        let full = Failure::TooManyDedicated { limit: 3 };
        let text = Failure::NotSentAgain { cause: full.clone().into() }.to_string();
        let found = identify(&text).unwrap();
        assert_eq!(found.id, FailureId::NotSentAgain);
        assert_eq!(found.field("cause"), Some(&*full.statement()));
    }

    #[test]
    fn what_is_no_request() {
        let text = Failure::Protocol { error: ProtocolError::BulkLength }.to_string();
        let found = identify(&text).unwrap();
        assert_eq!(found.id, FailureId::Protocol);
        assert_eq!(found.field("error"), text.strip_prefix("ERR "));
    }

    #[test]
    fn errors_of_nodes_are_none_of_the_table() {
        for text in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "MOVED 7 a:1",
            "LOADING Redis is loading the dataset in memory",
            "ERR Invalid slot",
            "ERR ",
            "ERR",
            "",
        ] {
            assert_eq!(identify(text), None, "{text}");
        }
    }
}
