//! Counters of TLS, shared by all threads: handshakes are rare compared with commands.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Least time between two log lines about failed handshakes of clients.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A side of slotway that has TLS (label `side`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Clients.
    Downstream,
    /// Nodes.
    Upstream,
    /// Clients of the admin listener.
    Admin,
}

impl Side {
    /// Number of sides.
    pub const COUNT: usize = 3;
    /// All sides.
    pub const ALL: [Side; Self::COUNT] = [Side::Downstream, Side::Upstream, Side::Admin];
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["downstream", "upstream", "admin"];

    /// The label value, which is also the section of the configuration within `[tls]`.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// The result of a handshake (label `result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// Success.
    Ok,
    /// A certificate is missing, or was refused by either side.
    Certificate,
    /// No version or cipher in common.
    Incompatible,
    /// The peer does not speak TLS.
    NotTls,
    /// The time limit was exceeded.
    Timeout,
    /// The peer closed the connection.
    Closed,
    /// Anything else.
    Other,
}

impl HandshakeOutcome {
    /// Number of results.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["ok", "certificate", "incompatible", "not_tls", "timeout", "closed", "other"];
}

/// The counters, updated by all threads.
#[derive(Debug, Default)]
pub struct TlsStats {
    handshakes: [[AtomicU64; HandshakeOutcome::COUNT]; Side::COUNT],
    /// Reloads of certificates: successful, failed.
    reloads: [AtomicU64; 2],
    /// Expiry of each side's certificate, seconds since 1970; 0: there is none.
    expiry: [AtomicI64; Side::COUNT],
    logged: Mutex<Option<Instant>>,
}

/// A copy of the counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TlsCounts {
    /// By [`Side`], then by [`HandshakeOutcome`].
    pub handshakes: [[u64; HandshakeOutcome::COUNT]; Side::COUNT],
    /// Successful, failed.
    pub reloads: [u64; 2],
    /// By [`Side`], seconds since 1970.
    pub expiry: [Option<i64>; Side::COUNT],
}

impl TlsStats {
    /// Counts a handshake.
    pub fn count(&self, side: Side, outcome: HandshakeOutcome) {
        let counters = self.handshakes.get(side as usize);
        if let Some(counter) = counters.and_then(|c| c.get(outcome as usize)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts a reload.
    pub(super) fn reloaded(&self, well: bool) {
        let [ok, failed] = &self.reloads;
        if well { ok } else { failed }.fetch_add(1, Relaxed);
    }

    /// Sets the expiry of the certificate in use, seconds since 1970.
    pub(super) fn expires(&self, side: Side, at: Option<i64>) {
        if let Some(place) = self.expiry.get(side as usize) {
            place.store(at.unwrap_or(0), Relaxed);
        }
    }

    /// A copy of all counters.
    pub fn counts(&self) -> TlsCounts {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        TlsCounts {
            handshakes: self.handshakes.each_ref().map(|side| side.each_ref().map(load)),
            reloads: self.reloads.each_ref().map(load),
            expiry: self.expiry.each_ref().map(|at| Some(at.load(Relaxed)).filter(|&at| at != 0)),
        }
    }

    /// Whether a failed handshake of a client may be logged now; if so, the next one may not for
    /// [`LOG_INTERVAL`].
    pub fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }
}
