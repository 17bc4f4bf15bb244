//! The reference page of errors, `docs/errors.md`.

use super::table::{as_redis, sections};
use super::{Code, Row};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Errors

<!-- generated: slotway docs errors > docs/errors.md -->

The errors that slotway itself replies with. `…` stands for what varies. The first word is the
error's code, by which clients distinguish errors; the text after it is for people and may change
with any version. Errors of nodes are passed on unchanged and are not listed here.
";

const AS_REDIS: &str = "
## As Redis words them

What a Redis server says in the same situation, slotway says in the same words:

";

/// The reference page, generated from the table of errors.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in sections() {
        let _ =
            write!(page, "\n## {}\n\n| error | cause | remedy |\n|---|---|---|\n", section.title);
        for Row { errors, cause, remedy } in section.rows {
            let errors: Vec<String> = errors
                .iter()
                .map(|(code, text)| format!("`{}`", shown(code.as_ref(), text)))
                .collect();
            let cells = [errors.join("<br>"), cause.to_owned(), remedy.to_owned()];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(page, "| {} |", cells.join(" | "));
        }
    }
    page.push_str(AS_REDIS);
    for (code, text) in as_redis() {
        let _ = writeln!(page, "- `{}`", shown(code.as_ref(), text));
    }
    page
}

/// An error as written on the page, with `…` for each field.
fn shown(code: Option<&Code>, template: &str) -> String {
    let mut text = code.map_or("…", Code::as_str).to_owned();
    text.push(' ');
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, field) = rest.split_at(open);
        text.push_str(before);
        match field.find('}') {
            Some(close) => {
                text.push('…');
                rest = field.get(close + 1..).unwrap_or_default();
            }
            None => break,
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_error_has_a_cause_and_a_remedy_and_stands_once() {
        let mut texts = BTreeSet::new();
        for section in sections() {
            for row in section.rows {
                assert!(!row.cause.is_empty() && !row.remedy.is_empty(), "{:?}", row.errors);
                for (code, text) in row.errors {
                    assert!(texts.insert((code.map(|c| c.to_string()), text)), "{text} twice");
                }
            }
        }
        for (code, text) in as_redis() {
            assert!(texts.insert((code.map(|c| c.to_string()), text)), "{text} twice");
        }
    }

    #[test]
    fn docs_errors_md_is_up_to_date() {
        let page = include_str!("../../docs/errors.md");
        assert!(page == reference(), "out of date: slotway docs errors > docs/errors.md");
    }

    #[test]
    fn fields_are_left_out() {
        assert_eq!(shown(Some(&Code::Err), "a {b:.1} c{d}"), "ERR a … c…");
        assert_eq!(shown(None, "plain"), "… plain");
    }
}
