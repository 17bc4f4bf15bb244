//! Where commands go, and what becomes of those that do not get there: holds and lanes of slots in
//! motion, refusals of nodes, the retry policy, the choice of a replica. No I/O: what is told goes
//! in, what is to be done comes out.

mod budget;
mod holds;
mod policy;
mod refusal;
mod replica_choice;

pub use budget::Budget;
pub use holds::{GateNext, Held, HoldMeta, Holds, LaneKey};
pub use policy::{Class, Retry, Scope, decide, pause};
pub use refusal::{Redirection, Refusal};
pub use replica_choice::{
    Choice, Latency, Moment, ReadTo, Readable, Speed, Wishes, choose, is_unreachable, seat,
};
