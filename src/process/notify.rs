//! What a service manager is told (sd_notify): ready, stopping, and that the workers turn.
//!
//! Without `NOTIFY_SOCKET` all of it does nothing.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::control::Pool;
use crate::control::Status;

/// Clients are served.
pub fn ready(workers: usize) {
    send(&[NotifyState::Ready, NotifyState::Status(&format!("{workers} workers serve clients"))]);
}

/// The configuration is read anew; [`ready`] or [`kept`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(_) => send(&[NotifyState::Reloading, NotifyState::Status("reloading")]),
    }
}

/// Clients are served as before: the new configuration is of no use.
pub fn reload_rejected(workers: usize) {
    let text = format!(
        "{workers} workers serve clients; the new configuration is not valid, the one from before \
         stays in use"
    );
    send(&[NotifyState::Ready, NotifyState::Status(&text)]);
}

/// Told to stop: clients are being let go.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}

/// Gives signs of life as often as the service manager wants them, but only while all workers
/// turn: a worker that is stuck is a reason to be started anew, which nobody else would notice.
pub async fn watchdog(pool: Arc<Pool>, status: Arc<Status>) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    info!(interval_ms = interval.as_millis() as u64, "the service manager watches");
    // A worker may take half the interval for one turn of its loop.
    let pause = (interval / 4).max(Duration::from_millis(1));
    loop {
        let scrape = pool.scrape(pause * 2).await;
        if scrape.is_well(status.is_draining()) {
            send(&[NotifyState::Watchdog]);
        } else {
            let (running, answered) = (scrape.running, scrape.answered);
            warn!(running, answered, "workers do not answer, the service manager is not told");
        }
        tokio::time::sleep(pause).await;
    }
}
