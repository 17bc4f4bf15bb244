//! One core: owns its clients and upstreams, and runs them.
//!
//! STUB for the control thread's tests: keeps its clients open, answers nothing but scrapes, and
//! closes everything on drain.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use crate::command::CommandTable;
use crate::config::Config;
use crate::control::{ToControl, ToWorker, WorkerHandle};
use crate::metrics::WorkerStats;

/// Starts worker `index` on a thread of its own.
pub fn spawn(
    index: usize,
    _config: Arc<Config>,
    commands: Arc<CommandTable>,
    to_control: tokio::sync::mpsc::UnboundedSender<ToControl>,
) -> std::io::Result<WorkerHandle> {
    let poll = mio::Poll::new()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0))?);
    let (sender, receiver) = mpsc::channel();
    let clients = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&clients);
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let _poll = poll;
        let mut held = Vec::new();
        let mut table = commands;
        let mut stats = WorkerStats::default();
        while let Ok(message) = receiver.recv() {
            stats.turns += 1;
            match message {
                ToWorker::Accept(client) => {
                    held.push(client);
                    stats.clients += 1;
                    stats.clients_accepted += 1;
                }
                ToWorker::Topology(_) => {}
                ToWorker::Commands(new) => table = new,
                ToWorker::Scrape(reply) => {
                    stats.commands.resize(table.len() + 1, Default::default());
                    let _ = reply.send(Box::new(stats.clone()));
                }
                ToWorker::Drain { .. } => break,
            }
        }
        count.fetch_sub(held.len(), Relaxed);
        let _ = to_control.send(ToControl::Exited { worker: index });
    })?;
    Ok(WorkerHandle::new(sender, waker, clients))
}
