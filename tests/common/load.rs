//! Clients that write numbered values while a test disturbs the cluster, and what they saw.

use super::errors::is_outcome_unknown;
use slotway::cluster::{Slot, slot_of};
use slotway::sandbox::{Conn, Reply};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Writers at the same time.
const WRITERS: usize = 4;
/// Commands that one writer sends before it reads their replies.
const BATCH: usize = 16;

/// What the writers have seen in all.
#[derive(Debug, Default)]
pub struct Seen {
    /// Keys whose SET was answered with OK, and the phase in which it was (see `Load::phase`).
    pub acknowledged: Vec<(String, usize)>,
    /// Errors that were no replies to reads.
    pub write_errors: Vec<String>,
    /// Errors in reply to reads.
    pub read_errors: Vec<String>,
}

/// What `disturb` may do beside its disturbance.
pub struct Load<'a> {
    written: &'a AtomicUsize,
    phase: &'a AtomicUsize,
}

impl Load<'_> {
    /// Begins a phase: 1 is that of writes acknowledged from now on, 2 of writes sent from now on.
    pub fn phase(&self, phase: usize) {
        self.phase.store(phase, Ordering::SeqCst);
    }

    /// Waits until so many more were acknowledged: the load goes on.
    #[track_caller]
    pub fn more(&self, writes: usize) {
        let wanted = self.written.load(Ordering::Relaxed) + writes;
        super::eventually("the writers go on", || self.written.load(Ordering::Relaxed) >= wanted);
    }
}

/// Sets a flag when the scope ends, also by a panic: the others must not run for ever.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every write has a key of its own (over all slots), its number as value; each batch also reads
/// back what the batch before has written. Runs while `disturb` runs.
pub fn while_writing(addr: SocketAddr, disturb: impl FnOnce(&Load)) -> Seen {
    let (stop, written, phase) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (stop, written, phase) = (&stop, &written, &phase);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(addr, writer, stop, written, phase)))
            .collect();
        let end = OnDrop(stop);
        let load = Load { written, phase };
        load.more(100);
        disturb(&load);
        load.more(100);
        drop(end);
        let mut all = Seen::default();
        for writer in writers {
            let seen = writer.join().expect("a writer");
            all.acknowledged.extend(seen.acknowledged);
            all.write_errors.extend(seen.write_errors);
            all.read_errors.extend(seen.read_errors);
        }
        all
    })
}

fn write(
    addr: SocketAddr,
    writer: usize,
    stop: &AtomicBool,
    written: &AtomicUsize,
    phase: &AtomicUsize,
) -> Seen {
    let mut seen = Seen::default();
    let mut conn = connect(addr);
    // Half of them speak RESP3, as it travels on connections of its own.
    if writer % 2 == 1 {
        let hello = conn.command(&["HELLO", "3"]).expect("HELLO 3");
        assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    }
    let mut before: Vec<(String, bool)> = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let keys: Vec<String> =
            (number..number + BATCH).map(|n| format!("load:{writer}:{n}")).collect();
        number += BATCH;
        let mut commands: Vec<Vec<&str>> =
            keys.iter().map(|key| vec!["SET", key, value(key)]).collect();
        commands.extend(before.iter().map(|(key, _)| vec!["GET", key]));
        let sent_in = phase.load(Ordering::SeqCst);
        let replies = conn.pipeline(&commands).expect("replies");
        let (sets, gets) = replies.split_at(keys.len());
        let answered_in = phase.load(Ordering::SeqCst);
        for ((key, known), reply) in before.iter().zip(gets) {
            match reply {
                Reply::Bulk(bytes) => assert_eq!(bytes, value(key).as_bytes(), "{key}"),
                // The write before may not have been executed.
                Reply::Nil if !known || phase.load(Ordering::SeqCst) > 0 => {}
                Reply::Error(error) => seen.read_errors.push(error.clone()),
                other => panic!("{key}, which was written: {other:?}"),
            }
        }
        before = Vec::new();
        for (key, reply) in keys.into_iter().zip(sets) {
            match reply {
                Reply::Simple(ok) if ok == "OK" => {
                    seen.acknowledged.push((key.clone(), answered_in.min(sent_in.max(1))));
                    written.fetch_add(1, Ordering::Relaxed);
                    before.push((key, true));
                }
                Reply::Error(error) => {
                    seen.write_errors.push(error.clone());
                    before.push((key, false));
                }
                other => panic!("SET {key}: {other:?}"),
            }
        }
        // The load is to be there, not to be heavy.
        thread::sleep(Duration::from_millis(1));
    }
    seen
}

/// The value is the number at the key's end.
fn value(key: &str) -> &str {
    key.rsplit(':').next().unwrap_or_default()
}

impl Seen {
    /// No client has noticed anything.
    #[track_caller]
    pub fn assert_no_errors(&self) {
        assert_eq!(self.write_errors, [""; 0], "writes");
        assert_eq!(self.read_errors, [""; 0], "reads");
    }

    /// Reads got no error, writes only the one that does not know.
    #[track_caller]
    pub fn assert_only_unknown_outcomes(&self) {
        assert_eq!(self.read_errors, [""; 0], "reads");
        for error in &self.write_errors {
            assert!(is_outcome_unknown(error), "{error}");
        }
    }

    /// What was acknowledged is there, but for what `at_risk` says of its slot and phase.
    #[track_caller]
    pub fn assert_all_there(&self, addr: SocketAddr, at_risk: impl Fn(Slot, usize) -> bool) {
        let mut conn = connect(addr);
        let mut safe = 0;
        for some in self.acknowledged.chunks(500) {
            let commands: Vec<Vec<&str>> = some.iter().map(|(key, _)| vec!["GET", key]).collect();
            let replies = conn.pipeline(&commands).expect("replies");
            for ((key, phase), reply) in some.iter().zip(&replies) {
                if at_risk(slot_of(key.as_bytes()), *phase) && *reply == Reply::Nil {
                    continue;
                }
                safe += 1;
                let wanted = Reply::Bulk(value(key).as_bytes().to_vec());
                assert_eq!(*reply, wanted, "{key}, acknowledged in phase {phase}");
            }
        }
        assert!(safe > 100, "only {safe} writes were there to be checked");
    }
}

fn connect(addr: SocketAddr) -> Conn {
    let mut conn = Conn::tcp(addr).expect("a connection");
    // A command may wait for a failover; nothing waits longer than this.
    conn.set_timeout(Some(super::PATIENCE)).expect("a timeout");
    conn
}
