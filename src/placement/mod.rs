//! Command placement: which node serves a slot, what happens to a command after a refusal or a lost
//! connection, and which replica a read goes to. No I/O: the worker reports events and carries out
//! the decisions.
//!
//! - **retry policy** (`policy`): what happens to a command that was refused, lost or overdue.
//! - **hold** (`holds`): a migrating or refused slot; its commands wait in one **lane** per client.
//! - **gate** (`gate`): a circuit breaker per slot and [`GateClass`], passed by one probe at a time.
//! - **retry budget** (`budget`, `retries`): the number of retries that a worker may send.

mod budget;
mod gate;
mod holds;
mod migration;
mod policy;
mod refusal;
mod replica_choice;
mod retries;
mod slot_table;
mod time;

pub use budget::Budget;
pub use gate::GateNext;
pub use holds::{Held, HoldMeta, Holds};
pub use migration::{Migration, MigrationNews};
pub use policy::{
    AfterLoss, AfterRefusal, GateClass, MAX_STEP_TRIES, NodeStatus, Phase, Retry, Scope, Target,
    Work, after_loss, after_refusal, at_deadline, concerns, leaves_queue, may_have_executed, pause,
};
pub use refusal::{Redirection, Refusal};
pub use replica_choice::{
    Choice, Latency, ReadCandidates, ReadContext, ReadPreferences, ReadTo, Speed, affinity, choose,
    is_unreachable,
};
pub use retries::{Allowance, Retries};
pub use slot_table::{Outage, OutageCause, SlotTable};
pub use time::{Micros, Moment};
