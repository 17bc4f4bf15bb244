//! When the configuration is read anew, and what became of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::{Config, Sources};

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
pub struct Watch {
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

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something has changed.
    Changed,
    /// Nothing is different.
    Unchanged,
    /// It cannot be used.
    Invalid,
}

/// For the metrics.
#[derive(Debug)]
pub struct ReloadStats {
    /// By [`Outcome`].
    pub outcomes: [AtomicU64; 3],
    /// What the file says is what is in use.
    pub in_use: AtomicBool,
    /// Since when, in milliseconds since 1970.
    pub taken: AtomicU64,
    /// Keys that wait for a restart.
    pub restart_keys: AtomicU64,
}

impl Default for ReloadStats {
    fn default() -> Self {
        ReloadStats {
            outcomes: Default::default(),
            in_use: AtomicBool::new(true),
            taken: AtomicU64::new(now()),
            restart_keys: AtomicU64::new(0),
        }
    }
}

impl ReloadStats {
    /// It came to this; so many keys wait for a restart.
    pub fn count(&self, cause: Cause, outcome: Outcome, restart: usize) {
        if (cause, outcome) == (Cause::FirstLook, Outcome::Unchanged) {
            return;
        }
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
        if outcome == Outcome::Invalid {
            return self.in_use.store(false, Relaxed);
        }
        self.restart_keys.store(restart as u64, Relaxed);
        self.in_use.store(restart == 0, Relaxed);
        self.taken.store(now(), Relaxed);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
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

    #[test]
    fn the_gauge_says_whether_the_file_is_in_use() {
        let stats = ReloadStats::default();
        let in_use = || stats.in_use.load(Relaxed);
        assert!(in_use());
        stats.count(Cause::File, Outcome::Invalid, 0);
        assert!(!in_use());
        stats.count(Cause::File, Outcome::Changed, 1);
        assert!(!in_use(), "a key waits for a restart");
        stats.count(Cause::Asked, Outcome::Unchanged, 1);
        assert!(!in_use());
        stats.count(Cause::File, Outcome::Changed, 0);
        assert!(in_use());
        assert_eq!(stats.outcomes.each_ref().map(|n| n.load(Relaxed)), [2, 1, 1]);
    }
}
