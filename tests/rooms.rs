//! The map in `src/lib.rs` is true: rooms use only what it says, and only rooms above them; rooms
//! without I/O do none; no files of a room use each other in a circle. And no file of tests/ is
//! forgotten in `tests/main.rs`.
//!
//! What a file uses is read from its text, comments and tests left out: paths that begin with
//! `crate`, `super` or `self`, in `use` and elsewhere. A name that a module re-exports from one of
//! its children counts as the child's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Paths of a file of the library, as modules: `worker::topology` has its room in front.
type Module = String;

/// What rooms without I/O do not name.
const IO: [&str; 7] =
    ["mio::", "tokio::", "TcpStream", "UnixStream", "std::fs", "std::thread", "std::process"];
/// Files of the program beside the library.
const PROGRAM: [&str; 6] = ["main.rs", "cli.rs", "logging.rs", "man.rs", "probe.rs", "top"];

/// One line of the map.
struct Room {
    name: String,
    does_io: bool,
    uses: BTreeSet<String>,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn map() -> Vec<Room> {
    let text = std::fs::read_to_string(src().join("lib.rs")).expect("src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, is, uses, _] = cells[..] else { panic!("{row}") };
        Room {
            name: name.trim_end_matches("`]").into(),
            does_io: !is.ends_with("No I/O"),
            uses: uses.split(", ").filter(|room| !room.is_empty()).map(String::from).collect(),
        }
    })
    .collect()
}

/// The text of all modules without comments and tests.
fn modules() -> BTreeMap<Module, String> {
    fn collect(folder: &Path, all: &mut BTreeMap<Module, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let inside = path.strip_prefix(src()).expect("inside").to_owned();
            let is_test = inside.iter().any(|part| {
                part == "tests"
                    || part == "tests.rs"
                    || part.to_string_lossy().ends_with("_tests.rs")
            });
            let is_program = PROGRAM.iter().any(|program| inside.starts_with(program));
            if is_test || is_program || inside == Path::new("lib.rs") {
                continue;
            }
            if path.is_dir() {
                collect(&path, all);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let module = inside.with_extension("").to_string_lossy().replace('/', "::");
                let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                let text = std::fs::read_to_string(&path).expect("a file");
                let text = text.split("#[cfg(test)]\nmod ").collect::<Vec<_>>();
                // Modules of tests in other files are one line; those in this file are its end.
                let mut kept = text[0].to_owned();
                for part in &text[1..] {
                    let (line, rest) = part.split_once('\n').unwrap_or((part, ""));
                    if line.ends_with('{') {
                        break;
                    }
                    kept.push_str(rest);
                }
                let without_comment = |line: &str| line.split("//").next().unwrap_or("").to_owned();
                all.insert(
                    module,
                    kept.lines().map(without_comment).collect::<Vec<_>>().join("\n"),
                );
            }
        }
    }
    let mut all = BTreeMap::new();
    collect(&src(), &mut all);
    all
}

/// The paths in the tree of a `use`, with the names that they get.
fn expand(tree: &str, before: &str, paths: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let before = format!("{before}{}", &tree[..open]);
        let (mut depth, mut start) = (0, open + 1);
        for (at, byte) in tree.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if (byte == b',' && depth == 1) || depth == 0 {
                expand(&tree[start..at], &before, paths);
                start = at + 1;
            }
            if depth == 0 {
                return;
            }
        }
    } else if !tree.is_empty() {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree));
        let path = format!("{before}{path}");
        let path = path.strip_suffix("::self").unwrap_or(&path).to_owned();
        let name = name.rsplit("::").next().unwrap_or(name).to_owned();
        paths.push((path, name));
    }
}

/// All paths in `text`, and those that it re-exports.
fn paths(text: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut all, mut exported, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let item = line.trim_start();
        let (public, item) = match item.strip_prefix("pub") {
            Some(item) => (true, item.trim_start_matches("(super)").trim_start_matches("(crate)")),
            None => (false, item),
        };
        let Some(tree) = item.trim_start().strip_prefix("use ") else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree.push(' ');
            tree.push_str(lines.next().expect("the end of a use").trim());
        }
        let mut found = Vec::new();
        expand(tree.trim_end().trim_end_matches(';'), "", &mut found);
        all.extend(found.iter().map(|(path, _)| path.clone()));
        if public {
            exported.extend(found);
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = rest.split(|c| !is_part(c)).map(|word| word.trim_matches(':'));
    let rooted = |word: &&str| ["crate::", "super::", "self::"].iter().any(|r| word.starts_with(r));
    all.extend(words.filter(rooted).map(String::from));
    (all, exported)
}

/// For every module the modules that it uses.
fn uses() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules();
    let paths: BTreeMap<_, _> = modules.iter().map(|(m, text)| (m.clone(), paths(text))).collect();
    let child = |of: &str, name: &str| {
        let module = if of.is_empty() { name.to_owned() } else { format!("{of}::{name}") };
        modules.contains_key(&module).then_some(module)
    };
    // Where a path that stands in `module` leads.
    let resolve = |module: &str, path: &str| -> Option<Module> {
        let mut at = module.to_owned();
        let mut parts = path.split("::").peekable();
        match *parts.peek()? {
            "crate" => {
                at.clear();
                parts.next();
            }
            "self" => _ = parts.next(),
            "super" => {}
            name => _ = child(&at, name)?,
        }
        while parts.next_if_eq(&"super").is_some() {
            at = at.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
        }
        for part in parts {
            if let Some(inner) = child(&at, part) {
                at = inner;
                continue;
            }
            let exported = paths.get(&at).map(|(_, exported)| exported.as_slice());
            let from = exported.unwrap_or_default().iter().find(|(_, name)| name == part);
            let mut names = from?.0.split("::").peekable();
            let mut inner = at.clone();
            while let Some(deeper) = names.peek().and_then(|name| child(&inner, name)) {
                inner = deeper;
                names.next();
            }
            return Some(inner);
        }
        Some(at)
    };
    let mut uses = BTreeMap::new();
    for (module, (all, _)) in &paths {
        let targets = all.iter().filter_map(|path| {
            resolve(module, path).or_else(|| {
                // An item of the module that the path names.
                let (parent, _) = path.rsplit_once("::")?;
                resolve(module, parent)
            })
        });
        let targets = targets.filter(|target| target != module && modules.contains_key(target));
        uses.insert(module.clone(), targets.collect::<BTreeSet<Module>>());
    }
    uses
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

#[test]
fn rooms_use_what_the_map_says_and_nothing_below_them() {
    let map = map();
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let uses = uses();
    for (module, targets) in &uses {
        let rooms = targets.iter().map(|target| room(target)).filter(|r| *r != room(module));
        found.entry(room(module)).or_default().extend(rooms.map(String::from));
    }
    let named: Vec<&str> = map.iter().map(|room| room.name.as_str()).collect();
    let mut faults = Vec::new();
    for (at, room) in map.iter().enumerate() {
        let uses = found.remove(room.name.as_str()).unwrap_or_default();
        for other in uses.difference(&room.uses) {
            faults.push(format!("{} uses {other}, which the map does not say", room.name));
        }
        for other in room.uses.difference(&uses) {
            faults.push(format!("{} does not use {other}, as the map says", room.name));
        }
        for other in room.uses.iter().filter(|other| !named[..at].contains(&other.as_str())) {
            faults.push(format!("{} uses {other}, which does not stand above it", room.name));
        }
    }
    faults.extend(found.keys().map(|room| format!("{room} is not on the map")));
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(map.len() > 20, "the map was not read: {named:?}");
}

#[test]
fn rooms_without_io_do_none() {
    let without: Vec<Room> = map().into_iter().filter(|room| !room.does_io).collect();
    assert!(without.len() > 10, "the map was not read");
    let modules = modules();
    let inside = |module: &str| without.iter().any(|r| r.name == room(module));
    let faults: Vec<String> = (modules.iter().filter(|(module, _)| inside(module)))
        .flat_map(|(module, text)| {
            let does = IO.iter().filter(|io| text.contains(*io));
            does.map(move |io| format!("{module} names {io}"))
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A module and its own children may use each other.
#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let mut uses = uses();
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 300, "nothing was read");
    for (module, targets) in &mut uses {
        targets.retain(|target| !target.starts_with(&format!("{module}::")));
    }
    // What uses nothing any more is in no circle, until nothing else is left.
    loop {
        let done: Vec<Module> =
            uses.iter().filter(|(_, t)| t.is_empty()).map(|(m, _)| m.clone()).collect();
        if done.is_empty() {
            break;
        }
        for module in &done {
            uses.remove(module);
        }
        for targets in uses.values_mut() {
            targets.retain(|target| !done.contains(target));
        }
    }
    // The same from above: what nothing uses only leads to a circle.
    loop {
        let used: BTreeSet<Module> = uses.values().flatten().cloned().collect();
        let before = uses.len();
        uses.retain(|module, _| used.contains(module));
        if uses.len() == before {
            break;
        }
    }
    assert!(uses.is_empty(), "in circles: {uses:#?}");
}

/// Files that a GET passes at most on its way to its node's buffer, and back to its client's.
const MAX_FILES: [(&str, usize); 2] = [("there", 12), ("back", 8)];

#[test]
fn the_walk_of_a_get_names_functions_that_exist() {
    let text = std::fs::read_to_string(src().join("lib.rs")).expect("src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    for (way, most) in MAX_FILES {
        let walk: Vec<&Vec<&str>> = rows.iter().filter(|cells| cells[0] == way).collect();
        let files: BTreeSet<&str> = walk.iter().map(|cells| cells[1]).collect();
        assert!((1..=most).contains(&files.len()), "{way}: {} files", files.len());
        assert_eq!(files.len(), walk.len(), "{way}: a file is named twice");
        for cells in walk {
            let file = cells[1].trim_matches('`');
            let text = std::fs::read_to_string(src().join(file)).expect(file);
            for function in cells[2].split(", ").map(|name| name.trim_matches('`')) {
                let found =
                    ["(", "<"].iter().any(|end| text.contains(&format!("fn {function}{end}")));
                assert!(found, "{file} has no function {function}");
            }
        }
    }
}

/// Lines that a source file may have without saying why it has more.
const MAX_LINES: usize = 600;

#[test]
fn long_files_say_why_they_are_long() {
    fn look(folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look(&path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(&path).expect("a file");
                let says = text.lines().take(30).any(|line| line.starts_with("//! Long: "));
                let lines = text.lines().count();
                assert!(lines <= MAX_LINES || says, "{}: {lines} lines", path.display());
                assert!(lines > MAX_LINES || !says, "{}: is not long any more", path.display());
            }
        }
    }
    look(&src());
}

#[test]
fn every_file_of_tests_is_in_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a file");
    let (modules, programs) = (read("tests/main.rs"), read("Cargo.toml"));
    for entry in std::fs::read_dir(root.join("tests")).expect("tests") {
        let path = entry.expect("an entry").path();
        let main = [path.clone(), path.join("mod.rs"), path.join("main.rs")];
        let is_source =
            |file: &&PathBuf| file.is_file() && file.extension().is_some_and(|e| e == "rs");
        let Some(main) = main.iter().find(is_source) else { continue };
        let name = path.file_stem().expect("a name").to_string_lossy();
        let program = main.strip_prefix(root).expect("inside").display();
        assert!(
            modules.contains(&format!("\nmod {name};\n"))
                || programs.contains(&format!("\npath = \"{program}\"\n")),
            "{program} is no module of tests/main.rs, and no program in Cargo.toml"
        );
    }
}
