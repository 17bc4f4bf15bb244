//! When the configuration is read anew, and what became of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::{Config, Sources};
use crate::metrics::{ReloadOutcome, ReloadStats};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// How long a configuration that cannot be used rests before it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

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
pub enum Cause {
    /// SIGHUP.
    Asked,
    /// The file is not what it was.
    File,
    /// It may have changed between being read and being watched.
    FirstLook,
    /// It could not be used, for a reason that may lie elsewhere: a file that it names, an address
    /// that was taken.
    Again,
}

/// Waits for a cause.
#[derive(Debug)]
pub(super) struct Watch {
    pub reload: Reload,
    /// A file whose content is a value of the configuration: upstream.user_file.
    also: Option<PathBuf>,
    file: File,
    /// What was wrong with the configuration, while it cannot be used.
    problems: Vec<String>,
    /// When it is tried again.
    again: Instant,
    hup: Signal,
    ticks: Interval,
}

impl Watch {
    /// Looks for SIGHUP and at the file, if there is one.
    ///
    /// # Errors
    /// The signal cannot be had.
    pub fn new(reload: Reload, config: &Config) -> std::io::Result<Self> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hup = signal(SignalKind::hangup())?;
        let mut watch = Watch {
            reload,
            also: None,
            file: File::default(),
            problems: Vec::new(),
            again: Instant::now(),
            hup,
            ticks,
        };
        watch.also(config);
        Ok(watch)
    }

    /// The configuration is in use.
    pub fn taken(&mut self) {
        self.problems.clear();
    }

    /// It is not. Whether that is news.
    pub fn refused(&mut self, problems: &[String]) -> bool {
        self.again = Instant::now() + AGAIN;
        let is_new = self.problems != problems;
        self.problems = problems.to_vec();
        is_new
    }

    /// Watches what `config` names, too.
    pub fn also(&mut self, config: &Config) {
        let file = &config.upstream.user_file;
        self.also = (!file.is_empty()).then(|| PathBuf::from(file));
    }

    /// All that is watched, as it is now.
    fn read(&self) -> Content {
        let also = self.also.as_deref().and_then(read);
        match (self.reload.sources.file.as_deref().and_then(read), also) {
            (Some(file), Some(also)) => Some([file, also].concat()),
            (file, also) => file.or(also),
        }
    }

    fn is_file(&self) -> bool {
        self.reload.sources.file.is_some() || self.also.is_some()
    }

    /// The next cause. Nothing is lost when it is dropped before.
    pub async fn next(&mut self) -> Cause {
        loop {
            tokio::select! {
                Some(()) = self.hup.recv() => {
                    let now = self.read();
                    self.file.judge(now);
                    return Cause::Asked;
                }
                () = sleep_until(self.again), if !self.problems.is_empty() => return Cause::Again,
                _ = self.ticks.tick(), if self.is_file() => {
                    let now = self.read();
                    let first = self.file.judged.is_none();
                    if self.file.look(now) {
                        return if first { Cause::FirstLook } else { Cause::File };
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
struct File {
    /// When it was last loaded, or refused.
    judged: Option<Content>,
    /// At the last look.
    seen: Option<Content>,
}

impl File {
    /// Whether it is to be loaded: it is another one than was judged last, and the same as at the
    /// look before, so that nobody is in the middle of writing it.
    fn look(&mut self, now: Content) -> bool {
        let is_new = self.judged.as_ref() != Some(&now);
        let is_whole = self.seen.as_ref() == Some(&now);
        if is_new && is_whole {
            self.judge(now);
            return true;
        }
        self.seen = Some(now);
        false
    }

    fn judge(&mut self, now: Content) {
        self.seen = Some(now.clone());
        self.judged = Some(now);
    }
}

/// Counts what a reload came to; so many keys wait for a restart.
pub fn count(stats: &ReloadStats, cause: Cause, outcome: ReloadOutcome, restart: usize) {
    if (cause, outcome) != (Cause::FirstLook, ReloadOutcome::Unchanged) {
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
        let mut file = File::default();
        assert!(!file.look(content("a")));
        assert!(file.look(content("a")), "what was read before it was watched may be older");
        assert!(!file.look(content("a")));
        // Somebody writes it, piece by piece.
        assert!(!file.look(content("b")));
        assert!(!file.look(content("bc")));
        assert!(file.look(content("bc")));
        assert!(!file.look(content("bc")));
        // It goes, and comes back as it was.
        assert!(!file.look(None));
        assert!(!file.look(content("bc")));
        assert!(!file.look(content("bc")));
        // It is gone: that is said once.
        assert!(!file.look(None));
        assert!(file.look(None));
        assert!(!file.look(None));
        assert!(!file.look(content("bc")));
        assert!(file.look(content("bc")), "what was invalid in between is valid again");
    }

    #[test]
    fn a_signal_judges_it_at_once() {
        let mut file = File::default();
        file.judge(content("a"));
        assert!(!file.look(content("a")));
        assert!(!file.look(content("a")));
    }
}
