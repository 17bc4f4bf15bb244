//! What `placement` asks of the configuration.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    Primary,
    PreferReplica,
    Any,
    LowestLatency,
    Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFailover {
    Read,
    Wait,
}

pub struct Replicas {
    pub in_failover: InFailover,
}

pub struct Config {
    pub read_from: ReadFrom,
    pub zone: String,
    pub replicas: Replicas,
}
