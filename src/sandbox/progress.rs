//! Progress reports while a sandbox starts, in a terminal or a log.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Receives progress reports while a sandbox starts, and may cancel it. `()` ignores the reports.
pub(super) trait Progress {
    /// The next step begins.
    fn step(&mut self, _what: &str) {}
    /// How far the step is. Called often, also without a change.
    fn detail(&mut self, _detail: &str) {}
    /// Whether to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}

/// Progress on standard error: in a terminal one line per step that is updated in place, otherwise
/// one line when a step is done.
pub(super) struct Printer {
    terminal: bool,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
    /// The current step, and its start.
    step: Option<(String, Instant)>,
}

impl Printer {
    pub(super) fn new(stop: Arc<AtomicBool>) -> Printer {
        Printer { terminal: std::io::stderr().is_terminal(), stop, step: None }
    }

    /// Ends the current step.
    pub(super) fn done(&mut self) {
        if let Some((what, since)) = self.step.take() {
            let back = if self.terminal { "\r\x1b[K" } else { "" };
            self.write(&format!("{back}  {what} ({:.1} s)\n", since.elapsed().as_secs_f64()));
        }
    }

    /// Writes to standard error. That it is closed is not a failure.
    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Progress for Printer {
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
    /// Clears the line of a step that was cut short.
    fn drop(&mut self) {
        if self.step.is_some() && self.terminal {
            self.write("\r\x1b[K");
        }
    }
}
