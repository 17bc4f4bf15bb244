//! Who watches a sandbox start, and how it looks in a terminal or a log.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Told what happens while a sandbox starts, and asked whether to go on. `()` does not care.
pub trait Watcher {
    /// Something else is being done from now on.
    fn step(&mut self, _what: &str) {}
    /// How far the step is. Often the same as before.
    fn detail(&mut self, _detail: &str) {}
    /// Whether to give up.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Watcher for () {}

/// Progress on standard error: a terminal sees one line per step that keeps changing, anything
/// else one line when a step is done.
pub(super) struct Printer {
    terminal: bool,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
    /// What is being done, and since when.
    step: Option<(String, Instant)>,
}

impl Printer {
    pub(super) fn new(stop: Arc<AtomicBool>) -> Printer {
        Printer { terminal: std::io::stderr().is_terminal(), stop, step: None }
    }

    /// The step is done.
    pub(super) fn done(&mut self) {
        if let Some((what, since)) = self.step.take() {
            let back = if self.terminal { "\r\x1b[K" } else { "" };
            self.write(&format!("{back}  {what} ({:.1} s)\n", since.elapsed().as_secs_f64()));
        }
    }

    /// Nobody to tell is no reason to fail.
    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Watcher for Printer {
    fn step(&mut self, what: &str) {
        self.done();
        self.step = Some((what.to_owned(), Instant::now()));
        self.detail("");
    }

    fn detail(&mut self, detail: &str) {
        if let (true, Some((what, since))) = (self.terminal, &self.step) {
            let seconds = since.elapsed().as_secs_f64();
            let line: String =
                format!("  {what} … {seconds:.1} s  {detail}").chars().take(79).collect();
            self.write(&format!("\r\x1b[K{line}"));
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Printer {
    /// A step cut short leaves the cursor at the start of a free line.
    fn drop(&mut self) {
        if self.step.is_some() && self.terminal {
            self.write("\r\x1b[K");
        }
    }
}
