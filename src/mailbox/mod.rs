//! What threads say to each other: the control thread, the workers, the pub/sub hub.
//! Not here: the threads themselves.

mod control;
mod hub;
mod inquiry;
mod pending;
mod users;
mod worker;

pub use control::ToControl;
pub use hub::{Batch, HubHandle, ToHub};
pub use inquiry::{Answered, Answers, Asker, Inquiry};
pub use pending::{BYTES_PER_TOPIC, PendingSubscriptions, ReadBarrier, Serial, Ticket};
pub use users::{Look, Verify};
pub use worker::{
    Arrival, BusyNode, Downstream, Probed, Stranger, ToWorker, Verdict, WorkerHandle,
};
