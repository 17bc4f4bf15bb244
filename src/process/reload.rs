//! When the configuration is read anew, and what became of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::{Config, Sources};
use crate::metrics::{ReloadOutcome, ReloadStats};

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a configuration that cannot be used rests before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What a running slotway needs to be able to change.
pub struct Reload {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// Sets `log.level`.
    pub log_level: Box<dyn Fn(&str)>,
}

/// Not what it holds: the sources may have a password among them.
impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

/// Why the configuration is read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadCause {
    /// SIGHUP.
    Signal,
    /// The file is not what it was.
    File,
    /// It may have changed between being read and being watched.
    FirstCheck,
    /// It could not be used, for a reason that may lie elsewhere: a file that it names, an address
    /// that was taken.
    Retry,
}

/// Waits for a cause.
#[derive(Debug)]
pub(super) struct ReloadWatch {
    pub reload: Reload,
    /// A file whose content is a value of the configuration: upstream.user_file.
    user_file: Option<PathBuf>,
    file: FileState,
    /// What was wrong with the configuration, while it cannot be used.
    problems: Vec<String>,
    /// When it is tried again.
    retry_at: Instant,
    hup: Signal,
    ticks: Interval,
}

impl ReloadWatch {
    /// Looks for SIGHUP and at the file, if there is one.
    ///
    /// # Errors
    /// The signal cannot be had.
    pub fn new(reload: Reload, config: &Config) -> std::io::Result<Self> {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hup = signal(SignalKind::hangup())?;
        let mut watch = ReloadWatch {
            reload,
            user_file: None,
            file: FileState::default(),
            problems: Vec::new(),
            retry_at: Instant::now(),
            hup,
            ticks,
        };
        watch.watch_files_of(config);
        Ok(watch)
    }

    /// The configuration is in use.
    pub fn accepted(&mut self) {
        self.problems.clear();
    }

    /// It is not. Whether that is news.
    pub fn rejected(&mut self, problems: &[String]) -> bool {
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        let is_new = self.problems != problems;
        self.problems = problems.to_vec();
        is_new
    }

    /// Watches what `config` names, too.
    pub fn watch_files_of(&mut self, config: &Config) {
        let file = &config.upstream.user_file;
        self.user_file = (!file.is_empty()).then(|| PathBuf::from(file));
    }

    /// All that is watched, as it is now.
    fn read(&self) -> Content {
        let also = self.user_file.as_deref().and_then(read);
        match (self.reload.sources.file.as_deref().and_then(read), also) {
            (Some(file), Some(also)) => Some([file, also].concat()),
            (file, also) => file.or(also),
        }
    }

    fn is_file(&self) -> bool {
        self.reload.sources.file.is_some() || self.user_file.is_some()
    }

    /// The next cause. Nothing is lost when it is dropped before.
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

/// By its content: a symbolic link that leads elsewhere, a file that was replaced, two changes in
/// one tick of the clock are all the same so. `None`: it is not there.
fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

type Content = Option<Vec<u8>>;

/// What was seen of the file. Pure.
#[derive(Debug, Default)]
struct FileState {
    /// When it was last loaded, or refused.
    recorded: Option<Content>,
    /// At the last look.
    seen: Option<Content>,
}

impl FileState {
    /// Whether it is to be loaded: it is another one than was judged last, and the same as at the
    /// look before, so that nobody is in the middle of writing it.
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

    fn record(&mut self, now: Content) {
        self.seen = Some(now.clone());
        self.recorded = Some(now);
    }
}

/// Counts what a reload came to; so many keys wait for a restart.
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
        // Somebody writes it, piece by piece.
        assert!(!file.check(content("b")));
        assert!(!file.check(content("bc")));
        assert!(file.check(content("bc")));
        assert!(!file.check(content("bc")));
        // It goes, and comes back as it was.
        assert!(!file.check(None));
        assert!(!file.check(content("bc")));
        assert!(!file.check(content("bc")));
        // It is gone: that is said once.
        assert!(!file.check(None));
        assert!(file.check(None));
        assert!(!file.check(None));
        assert!(!file.check(content("bc")));
        assert!(file.check(content("bc")), "what was invalid in between is valid again");
    }

    #[test]
    fn a_signal_judges_it_at_once() {
        let mut file = FileState::default();
        file.record(content("a"));
        assert!(!file.check(content("a")));
        assert!(!file.check(content("a")));
    }
}
