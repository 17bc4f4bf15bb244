//! The server versions that slotway is compared with, and the texts that are about each.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::Sides;
use super::units::Unit;
use crate::common;

/// A server version: the nodes behind slotway and the standalone server beside it run it.
pub struct Version {
    /// A name that [`common::newer`] knows; `None` for the `redis-server` in `PATH`.
    newer: Option<&'static str>,
    /// What is sent besides grammar.txt.
    grammar: &'static [&'static str],
    /// What is read before allow.txt.
    allow: &'static [&'static str],
    /// What is read besides not-compared.txt.
    not_compared: &'static [&'static str],
    /// What of the grammar is not sent.
    not_sent: &'static [&'static str],
    /// Conversations besides those of units.txt.
    units: &'static [&'static str],
    /// One test at a time has the servers of a version to itself.
    pub(crate) sides: OnceLock<Mutex<Sides>>,
}

/// Debian 12's.
pub static REDIS_7: Version = Version {
    newer: None,
    grammar: &[],
    allow: &[],
    not_compared: &[],
    not_sent: &[],
    units: &[],
    sides: OnceLock::new(),
};

/// The newest Redis that a package registry has.
pub static REDIS_8: Version = Version {
    newer: Some("redis"),
    grammar: &["newer/grammar.txt", "newer/grammar-redis.txt"],
    allow: &["newer/allow-redis.txt", "newer/allow.txt"],
    not_compared: &["newer/not-compared-redis.txt"],
    not_sent: &["newer/not-sent-redis.txt"],
    units: &["newer/units.txt", "newer/units-redis.txt"],
    sides: OnceLock::new(),
};

/// The newest Valkey that a package registry has.
pub static VALKEY_9: Version = Version {
    newer: Some("valkey"),
    grammar: &["newer/grammar.txt", "newer/grammar-valkey.txt"],
    allow: &["newer/allow-valkey.txt", "newer/allow.txt"],
    not_compared: &["newer/not-compared-valkey.txt"],
    not_sent: &["newer/not-sent-valkey.txt"],
    units: &["newer/units.txt", "newer/units-valkey.txt"],
    sides: OnceLock::new(),
};

impl Version {
    /// The server to run.
    pub fn program(&self) -> PathBuf {
        self.newer.map_or_else(|| "redis-server".into(), common::newer)
    }

    /// Whether it is newer than the version that slotway's own command table is of.
    pub fn is_newer(&self) -> bool {
        self.newer.is_some()
    }

    /// grammar.txt, and what this version has besides.
    pub fn grammar(&self) -> String {
        text("grammar.txt") + &texts(self.grammar)
    }

    /// The beginnings of random commands that are not sent, `MULTI` for one inside a transaction;
    /// each has its reason in the file.
    pub fn not_sent(&self) -> Vec<String> {
        let text = texts(self.not_sent);
        let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
        let beginning = |line: &str| {
            let (what, reason) = line.split_once(" | ").expect("not-sent: beginning | reason");
            assert!(reason.trim().len() > 10, "not-sent: no reason: {line}");
            what.trim().to_owned()
        };
        lines.map(beginning).collect()
    }

    /// allow.txt, behind what is about this version.
    pub fn allow(&self) -> String {
        texts(self.allow) + &text("allow.txt")
    }

    /// The same, for a slotway that emulates.
    pub fn allow_emulated(&self) -> String {
        let newer = if self.is_newer() { text("newer/allow-emulated.txt") } else { String::new() };
        newer + &text("allow-emulated.txt") + &self.allow()
    }

    /// not-compared.txt, and what is about this version.
    pub fn not_compared(&self) -> String {
        text("not-compared.txt") + &texts(self.not_compared)
    }

    /// The conversations of `file` and those that only this version has; one of the same name takes
    /// the place of the other.
    pub fn units(&self, file: &str) -> Vec<Unit> {
        let mut units = Unit::read_all(&text(file));
        let own = self.own_units();
        units.retain(|unit| own.iter().all(|own| own.name != unit.name));
        units.into_iter().chain(own).collect()
    }

    /// The conversations that only this version has.
    pub fn own_units(&self) -> Vec<Unit> {
        Unit::read_all(&texts(self.units))
    }
}

/// The content of a file of this folder. Read at run time: a changed line needs no build.
pub fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn texts(files: &[&str]) -> String {
    files.iter().map(|file| text(file)).collect()
}
