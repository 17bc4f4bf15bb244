//! What is counted of TLS, by all threads: handshakes are rare beside commands.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Failed handshakes of clients are logged no more often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Which of the sides of slotway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Clients.
    Downstream,
    /// Nodes.
    Upstream,
    /// Whoever asks the admin listener.
    Admin,
}

impl Side {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Side; Self::COUNT] = [Side::Downstream, Side::Upstream, Side::Admin];
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["downstream", "upstream", "admin"];

    /// Its label value, and its section of the configuration in `[tls]`.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// How a handshake ended (label `result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// Well.
    Ok,
    /// A certificate was refused, by either side, or is missing.
    Certificate,
    /// No version or cipher in common.
    Incompatible,
    /// What came is no TLS.
    NotTls,
    /// It took too long.
    Timeout,
    /// The other side closed the connection.
    Closed,
    /// Anything else.
    Other,
}

impl HandshakeOutcome {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["ok", "certificate", "incompatible", "not_tls", "timeout", "closed", "other"];
}

/// The counters.
#[derive(Debug, Default)]
pub struct TlsStats {
    handshakes: [[AtomicU64; HandshakeOutcome::COUNT]; Side::COUNT],
    /// Certificates read again: with success, in vain.
    reloads: [AtomicU64; 2],
    /// When the certificate of each side ends, seconds since 1970; 0: there is none.
    expiry: [AtomicI64; Side::COUNT],
    logged: Mutex<Option<Instant>>,
}

/// The counters at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TlsCounts {
    /// By [`Side`], then by [`HandshakeOutcome`].
    pub handshakes: [[u64; HandshakeOutcome::COUNT]; Side::COUNT],
    /// With success, in vain.
    pub reloads: [u64; 2],
    /// By [`Side`].
    pub expiry: [Option<i64>; Side::COUNT],
}

impl TlsStats {
    /// One more handshake.
    pub fn count(&self, side: Side, outcome: HandshakeOutcome) {
        let counters = self.handshakes.get(side as usize);
        if let Some(counter) = counters.and_then(|c| c.get(outcome as usize)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Files were read again.
    pub(super) fn reloaded(&self, well: bool) {
        let [ok, failed] = &self.reloads;
        if well { ok } else { failed }.fetch_add(1, Relaxed);
    }

    /// The certificate in use ends then.
    pub(super) fn expires(&self, side: Side, at: Option<i64>) {
        if let Some(place) = self.expiry.get(side as usize) {
            place.store(at.unwrap_or(0), Relaxed);
        }
    }

    /// All of them.
    pub fn counts(&self) -> TlsCounts {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        TlsCounts {
            handshakes: self.handshakes.each_ref().map(|side| side.each_ref().map(load)),
            reloads: self.reloads.each_ref().map(load),
            expiry: self.expiry.each_ref().map(|at| Some(at.load(Relaxed)).filter(|&at| at != 0)),
        }
    }

    /// The failure of a client's handshake may have a line in the log now.
    pub fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }
}
