//! `commands.cross_slot = "emulate"`: commands over several slots answer as a single server does.
//!
//! Each line of [`SCRIPT`] goes to slotway in front of a cluster, and to one standalone server; the
//! replies must be the same. In RESP2 and in RESP3.

mod common;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::{Setting, eventually};
use slotway::cluster::slot_of;
use slotway::sandbox::{Conn, Reply, Standalone, StandaloneOptions};

const EMULATE: [&str; 2] = ["--set", "commands.cross_slot=emulate"];

fn emulating() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| common::setting(&EMULATE))
}

fn standalone() -> &'static Standalone {
    static SERVER: OnceLock<Standalone> = OnceLock::new();
    SERVER.get_or_init(|| Standalone::start(StandaloneOptions::default()).expect("a server"))
}

/// Words as in a shell: spaces between them, quotes around those that have spaces.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// What has no order is put in one.
fn settled(line: &str, reply: Reply) -> Reply {
    let unordered = ["SINTER", "SUNION", "SDIFF", "SMEMBERS"]
        .iter()
        .any(|name| line.split(' ').next() == Some(name));
    match reply {
        Reply::Array(mut items) if unordered => {
            items.sort_by_key(|item| format!("{item:?}"));
            Reply::Array(items)
        }
        Reply::Set(mut items) => {
            items.sort_by_key(|item| format!("{item:?}"));
            Reply::Set(items)
        }
        other => other,
    }
}

const SCRIPT: &str = include_str!("data/emulate.txt");

fn compare(resp3: bool) {
    let Setting { proxy, .. } = emulating();
    let mut ours = if resp3 { proxy.connect3() } else { proxy.connect() };
    let mut theirs = Conn::tcp(standalone().addr()).expect("a connection");
    if resp3 {
        theirs.command(&["HELLO", "3"]).expect("HELLO");
    }
    // Keys of its own for each protocol: both run at the same time.
    let prefix = if resp3 { "three" } else { "two" };
    let mut differences = Vec::new();
    for line in SCRIPT.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let args = words(&line.replace('@', prefix));
        let mine = settled(line, ours.command(&args).expect(line));
        let want = settled(line, theirs.command(&args).expect(line));
        // Pauses until a time are told to the millisecond, a moment apart.
        if mine != want {
            differences.push(format!("{line}\n   slotway: {mine:?}\n   server:  {want:?}"));
        }
    }
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn replies_are_a_servers_in_resp2() {
    compare(false);
}

#[test]
fn replies_are_a_servers_in_resp3() {
    compare(true);
}
