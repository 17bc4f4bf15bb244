//! Restart of tasks of the control thread that panic.
//!
//! Not here: workers and the pub/sub hub, which are threads and restarted otherwise. A panic of the
//! control thread itself ends the process.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::error;

use super::status::Status;

/// Pause before a restart: a task may fail at its first step.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the task that `start` makes, and another one whenever it panics; ends when a task ends by
/// itself. Dropping this aborts the task. `what` is its name in the log.
pub async fn supervise<F>(what: String, status: Arc<Status>, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut part = JoinSet::new();
        part.spawn(start());
        match part.join_next().await {
            Some(Err(failed)) if failed.is_panic() => {
                status.task_failures.fetch_add(1, Relaxed);
                let why = failed.into_panic();
                let why = why.downcast_ref::<&str>().map(|s| (*s).to_owned());
                error!(part = what, why, "a part of slotway failed, it starts anew");
            }
            _ => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::command::CommandTable;

    #[test]
    fn what_fails_starts_anew_and_what_ends_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let status = Arc::new(Status::new(&["main"], Arc::new(CommandTable::builtin())));
        let starts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&starts);
        runtime.block_on(supervise("a test".into(), Arc::clone(&status), move || {
            let nth = count.fetch_add(1, Relaxed);
            async move { assert!(nth > 0, "the first one fails") }
        }));
        assert_eq!((starts.load(Relaxed), status.task_failures.load(Relaxed)), (2, 1));
    }
}
