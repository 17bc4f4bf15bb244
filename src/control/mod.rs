//! The tasks of the control thread beside the traffic: topology refresh, health of replicas,
//! probes, questions to nodes, the pool of workers. No command passes here.
//! Not here: what starts and stops these tasks ([`crate::process`]).

mod announce;
mod blocked;
mod briefing;
mod export;
mod names;
mod node;
mod pool;
mod probe;
mod recheck;
mod renew;
mod replica_watch;
mod replicas;
mod requests;
mod round;
mod sentinels;
mod servers;
mod shares;
mod status;
mod supervise;
mod survey;
#[cfg(test)]
mod tests;
mod topology;
mod upstreams;
mod verify;
mod whose;
mod wire;

pub use blocked::BlockWatcher;
pub use pool::Pool;
pub use probe::Prober;
pub use replicas::Replicas;
pub use requests::{AllRequests, Requests};
pub use sentinels::SentinelWatcher;
pub use status::{Status, TopologyStatus, Unreached, UpstreamStatus, of_upstream};
pub use supervise::supervise;
pub use survey::Scrape;
pub use topology::Refresher;
pub use verify::Verifier;
