//! docs/reliability.md: the rows of the tables that were measured last, between the marks that
//! stand around each table. Rows that were not measured this time stay as they are.

use crate::Row;
use crate::acts::FAULTS;
use crate::common::errors::{DEADLINES, involves, is_outcome_unknown};
use slotway::errors::FailureId;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "docs", "reliability.md"].iter().collect()
}

const HEAD: &str = "\
| fault | operations | read errors | write errors | longest wait | the cluster's own time | lost | out of order | rules | again |
|---|---|---|---|---|---|---|---|---|---|
";

/// Puts the row into the table of faults.
pub fn faults(row: &Row) {
    let text = fs::read_to_string(file()).expect("docs/reliability.md");
    let before = between(&text, "faults");
    let mut rows: BTreeMap<usize, String> = BTreeMap::new();
    for (at, fault) in FAULTS.iter().enumerate() {
        let mark = again(fault.name);
        let old = before.lines().find(|line| line.contains(&mark));
        if fault.name == row.fault.name {
            rows.insert(at, line(row));
        } else if let Some(old) = old {
            rows.insert(at, old.to_owned());
        }
    }
    let table = rows.into_values().map(|row| row + "\n").collect::<String>();
    write(&text, "faults", &format!("{HEAD}{table}"));
}

/// Replaces the table of the soak.
pub fn soak(table: &str) {
    let text = fs::read_to_string(file()).expect("docs/reliability.md");
    write(&text, "soak", table);
}

fn again(name: &str) -> String {
    format!("`make faults ARGS=\"{name}\"`")
}

fn line(row: &Row) -> String {
    let seen = &row.seen;
    let errors = |of: &str| {
        let kinds = seen.errors.iter().filter(|((kind, _), _)| *kind == of);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        kinds.for_each(|((_, text), errors)| {
            *counts.entry(brief(text)).or_default() += errors.count;
        });
        let words: Vec<String> =
            counts.into_iter().map(|(text, count)| format!("{count}: {text}")).collect();
        if words.is_empty() { "0".to_owned() } else { words.join("; ") }
    };
    let own = row.own.map_or(String::new(), |own| format!("{:.2} s", own.as_secs_f64()));
    let not_kept = if row.fault.kept || seen.lost == 0 { "" } else { " (by Redis)" };
    let rules: Vec<&str> = row.broken.iter().map(|rule| rule.text.as_str()).collect();
    let rules = if rules.is_empty() { "kept".to_owned() } else { rules.join("; ") };
    format!(
        "| {} | {} | {} | {} | {:.2} s | {own} | {}{not_kept} | {} | {rules} | {} |",
        row.fault.title,
        seen.operations,
        errors("read"),
        errors("write"),
        seen.longest.wait.as_secs_f64(),
        seen.lost,
        seen.disordered + seen.late,
        again(row.fault.name),
    )
}

/// An error in a few words.
pub fn brief(text: &str) -> String {
    let unknown = if is_outcome_unknown(text) { ", outcome unknown" } else { "" };
    if involves(text, &[FailureId::ConnectionLost]) {
        return format!("connection lost{unknown}");
    }
    if involves(text, &DEADLINES) {
        return format!("deadline{unknown}");
    }
    text.chars().take(100).collect::<String>().replace('|', "/")
}

fn marks(name: &str) -> (String, String) {
    (format!("<!-- {name}: written by make {name} -->\n"), format!("<!-- end of {name} -->"))
}

fn between<'a>(text: &'a str, name: &str) -> &'a str {
    let (begin, end) = marks(name);
    let from = text.find(&begin).expect("the mark before the table") + begin.len();
    let length = text[from..].find(&end).expect("the mark behind the table");
    &text[from..from + length]
}

fn write(text: &str, name: &str, table: &str) {
    let (begin, end) = marks(name);
    let old = format!("{begin}{}{end}", between(text, name));
    let new = text.replace(&old, &format!("{begin}{table}{end}"));
    fs::write(file(), new).expect("to write docs/reliability.md");
}
