//! What clients notice of each fault, as one table: `make faults`; and whether slotway is as it was
//! after half an hour of them: `make soak`.
//!
//! `cargo test` runs the short form, the most telling faults, and fails if a rule is broken. The
//! long form runs all faults (or those named), writes the table to docs/reliability.md and says
//! which rules were broken. See `--help`.

#[allow(dead_code)] // this program uses only a part of it
#[path = "../common/mod.rs"]
mod common;

mod acts;
mod load;
mod network;
mod report;
mod soak;

use acts::{Allowed, FAULTS, Fault, Stage};
use common::Proxy;
use common::errors::{DEADLINES, involves, is_outcome_unknown};
use load::Seen;
use slotway::sandbox::{Cluster, ClusterOptions};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
faults [NAME...]             the short form, or the faults of it whose names contain NAME
faults --long [NAME...]      all faults, or those named; writes docs/reliability.md
faults --list                the names
faults --soak [OPTION...]    mixed load with random faults
    --minutes N              for how long (30)
    --seed N                 the same faults in the same order again
Options of cargo's own test harness are ignored.";

/// What the cluster's own time may be exceeded by.
const SLACK: Duration = Duration::from_millis(200);
/// `timeouts.command`, by default.
pub const DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.map(|at| args.remove(at)).is_some()
    };
    if flag("--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if flag("--list") {
        FAULTS.iter().for_each(|fault| println!("{}", fault.name));
        return ExitCode::SUCCESS;
    }
    if flag("--soak") {
        return soak::run(&args);
    }
    let long = flag("--long");
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if let Some(name) = names.iter().find(|n| long && !FAULTS.iter().any(|f| f.name == **n)) {
        eprintln!("there is no fault {name}; --list names them");
        return ExitCode::FAILURE;
    }
    let chosen = FAULTS.iter().filter(|fault| match long {
        true => names.is_empty() || names.iter().any(|name| *name == fault.name),
        false => fault.short && (names.is_empty() || names.iter().any(|n| fault.name.contains(*n))),
    });
    let mut broken = 0;
    for fault in chosen {
        if fault.namespace && !network::own_namespace() {
            println!("{}: left out, it needs a network namespace: make faults", fault.name);
            continue;
        }
        // One that fails is no reason to know nothing of the others.
        let Ok(row) = panic::catch_unwind(|| run(fault)) else {
            println!("  BROKEN: the test itself has failed");
            broken += 1;
            continue;
        };
        row.print();
        // The short form asserts no times: the machine may be busy with something else.
        broken += row.broken.iter().filter(|rule| long || !rule.timing).count();
        if long {
            report::faults(&row);
        }
    }
    if broken > 0 {
        println!("{broken} rules were broken");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What came of a fault.
pub struct Row {
    /// Which.
    pub fault: &'static Fault,
    /// What the clients saw.
    pub seen: Seen,
    /// How long slots had no primary because of it, whoever asks.
    pub own: Option<Duration>,
    /// What was not as it should be.
    pub broken: Vec<Broken>,
}

/// A rule that was broken.
pub struct Broken {
    /// In what.
    pub text: String,
    /// It is about how long something took.
    timing: bool,
}

fn run(fault: &'static Fault) -> Row {
    println!("{}: {}", fault.name, fault.title);
    let conf = fault.conf.iter().map(|line| (*line).to_owned()).collect();
    let options = ClusterOptions { conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    let prepared = (fault.prepare)(&cluster);
    let deadline = format!("timeouts.command={}ms", fault.deadline.as_millis());
    let flags = if fault.deadline == DEADLINE { vec![] } else { vec!["--set", &deadline] };
    let proxy = match fault.seeds {
        Some(seeds) => Proxy::start_with_seeds(&cluster, &seeds(&cluster), &flags),
        None => Proxy::start(&cluster, &flags),
    };
    let listen = proxy.listen;
    let stage = Stage { proxy: RefCell::new(proxy), cluster, prepared };
    let (own, seen) = load::during(listen, |load| (fault.act)(&stage, load));
    if let Some(folder) = std::env::var_os("FAULTS_LOGS") {
        let file = std::path::Path::new(&folder).join(format!("{}.log", fault.name));
        let _ = std::fs::write(file, stage.proxy.borrow().log());
    }
    let broken = judge(fault, &seen, own);
    Row { fault, seen, own, broken }
}

/// The rules.
fn judge(fault: &Fault, seen: &Seen, own: Option<Duration>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut say = |timing: bool, text: String| broken.push(Broken { text, timing });
    let Seen { lost, disordered, late: behind, twice, ghosts, .. } = *seen;
    if fault.kept && lost > 0 {
        say(false, format!("{lost} acknowledged writes lost"));
    }
    if fault.kept && !seen.went_back.is_empty() {
        say(false, format!("{} reads went back", seen.went_back.len()));
    }
    for (count, what) in [
        (disordered, "acknowledged writes out of order"),
        (behind, "writes of unknown outcome executed behind later ones"),
        (twice, "writes done twice"),
        (ghosts, "writes executed and answered with \"not executed\""),
    ] {
        if count > 0 {
            say(false, format!("{count} {what}"));
        }
    }
    // A shard that was away for longer than the deadline may not be waited for.
    let deadline = own.is_some_and(|own| own + SLACK > fault.deadline);
    let mut late = 0;
    let mut avoidable: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for ((kind, text), errors) in &seen.errors {
        let unknown = *kind == "write" && is_outcome_unknown(text);
        let excused = match fault.allowed {
            _ if deadline && involves(text, &DEADLINES) => errors.count,
            Allowed::Nothing => 0,
            Allowed::InFlight if unknown => {
                late += errors.outside;
                errors.count
            }
            Allowed::Unknown if unknown => errors.count,
            Allowed::InFlight | Allowed::Unknown if is_outcome_unknown(text) => errors.before_write,
            Allowed::Closed if text.starts_with("connection ") => errors.count,
            _ => 0,
        };
        *avoidable.entry((kind, report::brief(text))).or_default() += errors.count - excused;
    }
    if late > 0 {
        say(true, format!("{late} writes sent after the loss have an unknown outcome"));
    }
    for ((kind, text), count) in avoidable.into_iter().filter(|(_, count)| *count > 0) {
        say(false, format!("{count} avoidable {kind} errors: {text}"));
    }
    if let Some(own) = own
        && seen.longest.wait > own + SLACK
    {
        let over = (seen.longest.wait - own).as_millis();
        say(true, format!("waited {over} ms longer than the cluster itself took"));
    }
    broken
}

impl Row {
    fn print(&self) {
        let Row { seen, own, .. } = self;
        println!(
            "  {} operations, {} read errors, {} write errors, {} lost, {} out of order, {} late",
            seen.operations,
            seen.count("read"),
            seen.count("write"),
            seen.lost,
            seen.disordered,
            seen.late,
        );
        let own = own.map_or("-".to_owned(), |own| format!("{:.3} s", own.as_secs_f64()));
        let wait = seen.longest.wait.as_secs_f64();
        println!("  longest wait {wait:.3} s ({}); the cluster's own {own}", seen.longest.what);
        for ((kind, text), errors) in &seen.errors {
            println!("  {} {kind} errors, {} not in flight: {text}", errors.count, errors.outside);
            println!("    {}", errors.example);
        }
        seen.went_back.iter().take(5).for_each(|text| println!("  went back: {text}"));
        self.broken.iter().for_each(|rule| println!("  BROKEN: {}", rule.text));
    }
}
