//! Whether the test compares everything: every command of the table, with all its options.

use std::collections::{BTreeMap, BTreeSet};

use slotway::command::CommandTable;
use slotway::sandbox::{Reply, Standalone, StandaloneOptions};

use super::grammar::{Grammar, Shape};
use super::units::Unit;
use super::version::{Version, text};

/// Each command that is sent (`xgroup|create`), with every word that is sent with it; without those
/// of conversations in which all are refused.
fn sent(version: &Version, table: &CommandTable) -> BTreeMap<String, BTreeSet<String>> {
    let grammar = Grammar::read(&version.grammar());
    let units = [version.units("units.txt"), Unit::read_all(&text("pubsub.txt"))];
    let units = units.iter().flatten().filter(|unit| !unit.name.starts_with("refused "));
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let shapes = grammar.shapes().iter().chain(units.flat_map(Unit::shapes));
    for (start, words) in shapes.flat_map(Shape::beginnings) {
        let [Some(first), rest @ ..] = &start[..] else { continue };
        let name = first.to_ascii_lowercase();
        let sub = rest.first().cloned().flatten().map(|s| format!("{name}|{}", s.to_lowercase()));
        let sub = sub.filter(|sub| table.by_name(sub).is_some());
        let words = words.iter().flat_map(|w| w.split(' ').map(str::to_owned));
        out.entry(sub.unwrap_or(name)).or_default().extend(words);
    }
    out
}

/// The lines of not-compared.txt: a command (`*` at its end: all that begin so), perhaps an option
/// of it, and the reason.
fn not_compared(version: &Version) -> Vec<(String, Option<String>, bool)> {
    let text = version.not_compared();
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    let entries = lines.map(|line| {
        let (what, reason) = line.split_once(" | ").expect("not-compared.txt: command | reason");
        assert!(reason.trim().len() > 10, "not-compared.txt: no reason: {line}");
        let mut words = what.split_whitespace();
        let command = words.next().expect("not-compared.txt: a command").to_owned();
        let option = words.next().map(str::to_owned);
        let all = command.ends_with('*');
        (command.trim_end_matches('*').to_owned(), option, all)
    });
    entries.collect()
}

/// A server of this version, and slotway's command table in front of such servers.
fn server(version: &Version) -> (Standalone, CommandTable) {
    let options = StandaloneOptions { program: version.program(), ..Default::default() };
    let standalone = Standalone::start(options).expect("a server");
    let mut conn = standalone.connect().expect("a connection");
    conn.send(&["COMMAND"]).expect("COMMAND");
    let reply = conn.receive_raw().expect("its reply");
    let table = CommandTable::builtin().overlay(&reply).expect("a table");
    (standalone, table)
}

/// Every command of the table is sent, or listed as not compared.
pub fn every_command(version: &Version) {
    let (_, table) = server(version);
    let sent = sent(version, &table);
    let listed = not_compared(version);
    let is_listed = |name: &str| {
        listed.iter().any(|(entry, option, all)| {
            option.is_none() && if *all { name.starts_with(entry.as_str()) } else { name == entry }
        })
    };
    let names: Vec<&str> = table
        .iter_by_name()
        .filter(|(_, spec)| !spec.container)
        .map(|(_, spec)| &*spec.name)
        .collect();
    assert!(names.len() > 300, "{} commands in the table", names.len());
    let missing: Vec<&&str> =
        names.iter().filter(|n| !sent.contains_key(**n) && !is_listed(n)).collect();
    let needless: Vec<&&str> =
        names.iter().filter(|n| sent.contains_key(**n) && is_listed(n)).collect();
    let unknown: Vec<&String> = listed
        .iter()
        .filter(|(entry, _, all)| {
            !names.iter().any(|n| if *all { n.starts_with(entry.as_str()) } else { n == entry })
        })
        .map(|(entry, ..)| entry)
        .collect();
    assert!(
        missing.is_empty() && needless.is_empty() && unknown.is_empty(),
        "neither in grammar.txt, units.txt or pubsub.txt nor in not-compared.txt: {missing:?}\n\
         in not-compared.txt although it is compared: {needless:?}\n\
         in not-compared.txt although no server has it: {unknown:?}"
    );
}

/// Every word that the server documents of a command that is sent is sent with it, or listed.
pub fn every_option(version: &Version) {
    let (standalone, table) = server(version);
    let docs = standalone.connect().expect("a connection").command(&["COMMAND", "DOCS"]);
    let mut options = BTreeMap::new();
    of_commands(&docs.expect("COMMAND DOCS"), &mut options);
    assert!(options.len() > 100, "COMMAND DOCS gave options of {} commands", options.len());
    let sent = sent(version, &table);
    let listed = not_compared(version);
    let mut missing = Vec::new();
    let mut used = BTreeSet::new();
    for (command, tokens) in &options {
        let Some(words) = sent.get(command) else { continue };
        for token in tokens.iter().filter(|t| !words.contains(*t)) {
            let at = listed.iter().position(|(c, o, _)| c == command && o.as_ref() == Some(token));
            match at {
                Some(at) => drop(used.insert(at)),
                None => missing.push(format!("{command} {token}")),
            }
        }
    }
    let needless: Vec<String> = listed
        .iter()
        .enumerate()
        .filter_map(|(at, (command, option, _))| {
            let option = option.as_ref()?;
            (!used.contains(&at)).then(|| format!("{command} {option}"))
        })
        .collect();
    assert!(
        missing.is_empty() && needless.is_empty(),
        "options that are never sent: {missing:#?}\nin not-compared.txt although sent: {needless:?}"
    );
}

/// `name → [field, value, …]` in turn, as in COMMAND DOCS.
fn of_commands(docs: &Reply, out: &mut BTreeMap<String, BTreeSet<String>>) {
    for pair in docs.items().unwrap_or_default().chunks_exact(2) {
        let [name, doc] = pair else { unreachable!("chunks of two") };
        let name = name.text().unwrap_or_default();
        if let Some(arguments) = field(doc, "arguments") {
            let mut tokens = BTreeSet::new();
            of_arguments(arguments, &mut tokens);
            out.insert(name, tokens);
        }
        if let Some(subcommands) = field(doc, "subcommands") {
            of_commands(subcommands, out);
        }
    }
}

fn of_arguments(arguments: &Reply, out: &mut BTreeSet<String>) {
    for argument in arguments.items().unwrap_or_default() {
        let token = field(argument, "token").and_then(Reply::text);
        // An empty token stands in the documentation of some options that have none.
        let token = token.unwrap_or_default();
        out.extend(token.split_whitespace().filter(|w| *w != "\"\"").map(str::to_uppercase));
        if let Some(inner) = field(argument, "arguments") {
            of_arguments(inner, out);
        }
    }
}

fn field<'a>(flat: &'a Reply, name: &str) -> Option<&'a Reply> {
    let pairs = flat.items()?.chunks_exact(2);
    let mut found = pairs.filter(|pair| pair[0].text().as_deref() == Some(name));
    found.next().map(|pair| &pair[1])
}
