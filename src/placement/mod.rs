//! Where commands go, and what becomes of those that do not get there: holds and lanes of slots in
//! motion, refusals of nodes, the retry policy, the choice of a replica. No I/O: what is told goes
//! in, what is to be done comes out.

mod budget;
mod gate;
mod holds;
mod migration;
mod policy;
mod refusal;
mod replica_choice;
mod retries;
mod slot_table;

pub use budget::Budget;
pub use gate::GateNext;
pub use holds::{Held, HoldMeta, Holds};
pub use migration::{Migration, MigrationNews};
pub use policy::{
    AfterLoss, AfterRefusal, Class, MAX_STEP_TRIES, Phase, Retry, Scope, Standing, Target, Work,
    after_loss, after_refusal, at_deadline, concerns, leaves_queue, may_have_executed, pause,
};
pub use refusal::{Redirection, Refusal};
pub use replica_choice::{
    Choice, Latency, Moment, ReadTo, Readable, Speed, Wishes, choose, is_unreachable, seat,
};
pub use retries::{Allowance, Retries};
pub use slot_table::{Outage, OutageCause, SlotTable};
