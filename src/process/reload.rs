//! The triggers of a reload (SIGHUP, a changed file, a retry), and the count of its outcomes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::files::user_files;
use crate::config::{Config, Sources};
use crate::metrics::{ReloadOutcome, ReloadStats};

/// How often the file is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Pause before a rejected configuration is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What a reload needs from the program.
pub struct Reload {
    /// The sources of the configuration.
    pub sources: Sources,
    /// Sets `log.level`.
    pub log_level: Box<dyn Fn(&str)>,
}

/// Shows no fields: the sources may contain a password.
impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

/// A reason to read the configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadCause {
    /// SIGHUP.
    Signal,
    /// The file has changed.
    File,
    /// The file may have changed between the start and the first check.
    FirstCheck,
    /// The configuration was rejected, for a reason that may have passed without a change of the
    /// file: another file that it names, an address that was taken.
    Retry,
}

/// Waits for a reason to reload.
#[derive(Debug)]
pub(super) struct ReloadWatch {
    pub reload: Reload,
    /// The files whose content is a value of the configuration: `upstream.user_file`, and those of
    /// other upstreams.
    user_files: Vec<PathBuf>,
    file: FileState,
    /// The problems of a rejected configuration; empty if the last one was accepted.
    problems: Vec<String>,
    /// When a rejected configuration is tried again.
    retry_at: Instant,
    hup: Signal,
    ticks: Interval,
}

impl ReloadWatch {
    /// Watches for SIGHUP, and for changes of the configuration file, if there is one.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    pub fn new(reload: Reload, config: &Config) -> std::io::Result<Self> {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hup = signal(SignalKind::hangup())?;
        let mut watch = ReloadWatch {
            reload,
            user_files: Vec::new(),
            file: FileState::default(),
            problems: Vec::new(),
            retry_at: Instant::now(),
            hup,
            ticks,
        };
        watch.watch_files_of(config);
        Ok(watch)
    }

    /// Records that the configuration was accepted.
    pub fn accepted(&mut self) {
        self.problems.clear();
    }

    /// Records that the configuration was rejected. Returns whether the problems are new.
    pub fn rejected(&mut self, problems: &[String]) -> bool {
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        let is_new = self.problems != problems;
        self.problems = problems.to_vec();
        is_new
    }

    /// Watches the files that `config` names in `upstream.user_file` and its kin, too.
    pub fn watch_files_of(&mut self, config: &Config) {
        self.user_files = user_files(config).map(PathBuf::from).collect();
    }

    /// The content of all watched files; `None` if none can be read.
    fn read(&self) -> Content {
        let files = self.reload.sources.file.iter().chain(&self.user_files);
        let contents: Vec<_> = files.filter_map(|file| read(file)).collect();
        (!contents.is_empty()).then(|| contents.concat())
    }

    fn is_file(&self) -> bool {
        self.reload.sources.file.is_some() || !self.user_files.is_empty()
    }

    /// Waits for the next reason to reload. Cancel-safe.
    pub async fn next(&mut self) -> ReloadCause {
        loop {
            tokio::select! {
                Some(()) = self.hup.recv() => {
                    let now = self.read();
                    self.file.record(now);
                    return ReloadCause::Signal;
                }
                () = sleep_until(self.retry_at), if !self.problems.is_empty() => {
                    return ReloadCause::Retry;
                }
                _ = self.ticks.tick(), if self.is_file() => {
                    let now = self.read();
                    let first = self.file.recorded.is_none();
                    if self.file.check(now) {
                        return if first { ReloadCause::FirstCheck } else { ReloadCause::File };
                    }
                }
            }
        }
    }
}

/// The content of a file, `None` if it cannot be read. Changes are found by content because
/// symbolic links, replaced files and two changes within one tick of the clock then need no special
/// care.
fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

type Content = Option<Vec<u8>>;

/// Decides from the content of a file when to load it. No I/O.
#[derive(Debug, Default)]
struct FileState {
    /// The content that was last loaded, or rejected.
    recorded: Option<Content>,
    /// The content at the last check.
    seen: Option<Content>,
}

impl FileState {
    /// Whether to load the file: its content differs from the recorded one, and is the same as at
    /// the last check, so that a file is not loaded while it is being written.
    fn check(&mut self, now: Content) -> bool {
        let is_new = self.recorded.as_ref() != Some(&now);
        let is_whole = self.seen.as_ref() == Some(&now);
        if is_new && is_whole {
            self.record(now);
            return true;
        }
        self.seen = Some(now);
        false
    }

    /// Records `now` as loaded.
    fn record(&mut self, now: Content) {
        self.seen = Some(now.clone());
        self.recorded = Some(now);
    }
}

/// Counts the outcome of a reload; `restart` is the number of keys that need a restart. The first
/// check is counted only if it finds a change.
pub fn count(stats: &ReloadStats, cause: ReloadCause, outcome: ReloadOutcome, restart: usize) {
    if (cause, outcome) != (ReloadCause::FirstCheck, ReloadOutcome::Unchanged) {
        stats.count(outcome, restart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn a_file_is_loaded_when_it_has_changed_and_rests() {
        let mut file = FileState::default();
        assert!(!file.check(content("a")));
        assert!(file.check(content("a")), "what was read before it was watched may be older");
        assert!(!file.check(content("a")));
        // The file is being written, piece by piece.
        assert!(!file.check(content("b")));
        assert!(!file.check(content("bc")));
        assert!(file.check(content("bc")));
        assert!(!file.check(content("bc")));
        // The file vanishes and comes back unchanged.
        assert!(!file.check(None));
        assert!(!file.check(content("bc")));
        assert!(!file.check(content("bc")));
        // The file has vanished: that is reported once.
        assert!(!file.check(None));
        assert!(file.check(None));
        assert!(!file.check(None));
        assert!(!file.check(content("bc")));
        assert!(file.check(content("bc")), "what was invalid in between is valid again");
    }

    #[test]
    fn a_signal_records_the_file_at_once() {
        let mut file = FileState::default();
        file.record(content("a"));
        assert!(!file.check(content("a")));
        assert!(!file.check(content("a")));
    }
}
