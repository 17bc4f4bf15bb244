//! Notifications for the service manager (sd_notify): ready, reloading, stopping, watchdog.
//!
//! They do nothing where `NOTIFY_SOCKET` is not set.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::control::Pool;
use crate::control::Status;

/// Reports that clients are served, after the start or a reload.
pub fn ready(workers: usize) {
    send(&[NotifyState::Ready, NotifyState::Status(&format!("{workers} workers serve clients"))]);
}

/// Reports that the configuration is being reloaded; [`ready`] or [`reload_rejected`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(_) => send(&[NotifyState::Reloading, NotifyState::Status("reloading")]),
    }
}

/// Reports that the new configuration is not valid, and that clients are served as before.
pub fn reload_rejected(workers: usize) {
    let text = format!(
        "{workers} workers serve clients; the new configuration is not valid, the one from before \
         stays in use"
    );
    send(&[NotifyState::Ready, NotifyState::Status(&text)]);
}

/// Reports that the process is draining.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify the service manager");
    }
}

/// Sends watchdog notifications for as long as all workers answer, so that the service manager
/// restarts a process with a stuck worker.
pub async fn watchdog(pool: Arc<Pool>, status: Arc<Status>) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    info!(interval_ms = interval.as_millis() as u64, "the watchdog of the service manager is on");
    // One turn of a worker's loop may take up to half the interval.
    let pause = (interval / 4).max(Duration::from_millis(1));
    loop {
        let scrape = pool.survey().scrape(pause * 2).await;
        if scrape.is_well(status.is_draining()) {
            send(&[NotifyState::Watchdog]);
        } else {
            let (running, answered) = (scrape.running, scrape.answered);
            warn!(running, answered, "workers do not answer; no watchdog notification is sent");
        }
        tokio::time::sleep(pause).await;
    }
}
