//! Allocation of file descriptors under the limit on open files (RLIMIT_NOFILE).
//!
//! Descriptors for connections to nodes, the admin listener and files are reserved; clients get the
//! rest, at most `limits.clients`, as in Redis. If the limit is too low for everything that the
//! configuration allows, three quarters of the rest go to clients and one quarter to dedicated
//! connections (`limits.dedicated`). There are no bulk connections, for large transfers, then,
//! unless they need a small part of the limit.

use std::io;
use std::os::unix::net::UnixDatagram;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::errors::Failure;

/// Descriptors of the process itself: standard streams, the runtime, signals, certificates and
/// other files that are reloaded, name resolution, spare ones.
const BASE: usize = 16;
/// Descriptors per worker: its event loop and its waker.
const PER_WORKER: usize = 2;
/// Descriptors per listener: its socket, a copy during a reload, and a connection being refused.
const PER_LISTENER: usize = 3;
/// Descriptors per node beside the workers': the control thread's two connections (topology,
/// identity) and the pub/sub hub's.
const PER_NODE: usize = 3;
/// Other descriptors of the control thread: its own, and connections for probes and logins.
const CONTROL: usize = 6;
/// Most idle dedicated connections per worker.
pub const MAX_IDLE_DEDICATED: usize = 64;
/// Most concurrent connections of the admin listener.
const MAX_ADMIN: usize = 64;
/// The same under a low limit on open files.
const MIN_ADMIN: usize = 4;
/// Under a limit that is too low, bulk connections get at most 1/64 of it.
const BULK_SHARE: usize = 64;

/// Whether the process or the machine is out of descriptors or memory: EMFILE, ENFILE, ENOBUFS,
/// ENOMEM.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24 | 105 | 12))
}

/// The numbers that determine how many descriptors are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorDemand {
    /// Running workers.
    pub workers: usize,
    /// Nodes of the cluster; seeds before the topology is known.
    pub nodes: usize,
    /// `upstream.connections`
    pub connections: usize,
    /// Whether reads go to replicas, which have connections of their own.
    pub replicas: bool,
    /// Listening sockets, including the admin listener's.
    pub listeners: usize,
    /// `limits.clients`
    pub clients: usize,
    /// `limits.dedicated`
    pub dedicated: usize,
    /// `limits.users`; `None` unless clients log in as users of the cluster.
    pub users: Option<usize>,
}

/// Allocation of descriptors: limits for each of their uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// The soft limit on open files; `None` if it is unlimited.
    pub limit: Option<usize>,
    /// Descriptors that are not available to clients.
    pub reserved: usize,
    /// Limit of connected clients.
    pub clients: usize,
    /// Limit of lent dedicated connections, over all workers.
    pub dedicated: usize,
    /// Limit of idle dedicated connections, per worker.
    pub idle_dedicated: usize,
    /// Limit of users of the cluster, per worker.
    pub users: usize,
    /// Whether large transfers have bulk connections of their own.
    pub bulk: bool,
    /// Limit of the admin listener's connections.
    pub admin: usize,
}

impl DescriptorDemand {
    /// Number of nodes to allow for: more than there are, as joining nodes are connected to before
    /// leaving ones are disconnected.
    fn expected_nodes(&self) -> usize {
        self.nodes.max(1) + (self.nodes / 8).max(1)
    }

    /// Connections of one worker to all nodes for one user, without bulk connections, which may be
    /// as many.
    fn per_user(&self) -> usize {
        // One per protocol version.
        self.expected_nodes() * 2
    }

    /// Bulk connections of all workers.
    fn bulk(&self) -> usize {
        let kinds = if self.replicas { 2 } else { 1 };
        let each = self.per_user().saturating_mul(kinds + self.users.unwrap_or(0));
        self.workers.saturating_mul(each)
    }

    /// Descriptors needed regardless of the limits, with `admin` connections of the admin listener:
    /// all but those of clients, dedicated, bulk and users' connections.
    fn fixed(&self, admin: usize) -> usize {
        let kinds = if self.replicas { 2 } else { 1 };
        BASE + CONTROL
            + admin
            + self.workers * (PER_WORKER + self.per_user() * self.connections * kinds)
            + self.listeners * PER_LISTENER
            + self.expected_nodes() * PER_NODE
    }

    /// Descriptors that suffice for everything that the configuration allows.
    pub fn all(&self) -> usize {
        self.without_bulk().saturating_add(self.bulk())
    }

    /// The same without bulk connections.
    fn without_bulk(&self) -> usize {
        let users = self.users.unwrap_or(0) * self.per_user();
        let each = users + MAX_IDLE_DEDICATED;
        self.fixed(MAX_ADMIN)
            .saturating_add(self.clients)
            .saturating_add(self.dedicated)
            .saturating_add(self.workers.saturating_mul(each))
    }

    /// Allocates descriptors under `limit`; `None` is unlimited.
    pub fn share(&self, limit: Option<usize>) -> DescriptorBudget {
        let is_small_part = |limit| {
            self.bulk() <= limit / BULK_SHARE && self.fixed(MAX_ADMIN) + self.bulk() <= limit / 2
        };
        let bulk = limit.is_none_or(|limit| limit >= self.all() || is_small_part(limit));
        let enough = if bulk { self.all() } else { self.without_bulk() };
        let ample = DescriptorBudget {
            limit,
            reserved: enough.saturating_sub(self.clients),
            clients: self.clients,
            dedicated: self.dedicated,
            idle_dedicated: MAX_IDLE_DEDICATED,
            users: self.users.unwrap_or(usize::MAX),
            bulk,
            admin: MAX_ADMIN,
        };
        let Some(limit) = limit.filter(|&limit| limit < enough) else { return ample };
        let admin = (limit / 16).clamp(MIN_ADMIN, MAX_ADMIN);
        let reserved = self.fixed(admin) + if bulk { self.bulk() } else { 0 };
        let left = limit.saturating_sub(reserved);
        // A user needs connections from all workers to all nodes.
        let per_user = self.per_user() * self.workers;
        let users = self.users.map(|users| users.min(left / 4 / per_user.max(1)).max(1));
        let left = left.saturating_sub(users.unwrap_or(0) * per_user);
        let clients = self.clients.min(left - left / 4);
        let dedicated = left.saturating_sub(clients);
        let workers = self.workers.max(1);
        let idle = MAX_IDLE_DEDICATED.min(dedicated / 4 / workers);
        let lent = self.dedicated.min(dedicated.saturating_sub(idle * workers));
        let clients = self.clients.min(left.saturating_sub(lent + idle * workers));
        DescriptorBudget {
            limit: Some(limit),
            reserved: limit.saturating_sub(clients),
            // Without any client nobody could find out what is wrong.
            clients: clients.max(1),
            dedicated: lent.max(1),
            idle_dedicated: idle,
            users: users.unwrap_or(usize::MAX),
            bulk,
            admin,
        }
    }
}

impl DescriptorBudget {
    /// The error for a client over the limit; `configured` is `limits.clients`.
    pub fn refusal(&self, configured: usize) -> Failure {
        match self.limit {
            Some(files) if self.clients < configured => {
                Failure::TooManyClientsForFiles { configured, lowered: self.clients, files }
            }
            _ => Failure::TooManyClients { limit: configured },
        }
    }
}

/// The current allocation, and the limit on open files that it was made for.
#[derive(Debug)]
pub struct Descriptors {
    demand: DescriptorDemand,
    budget: DescriptorBudget,
    /// The soft limit, as last read or set.
    seen: Option<u64>,
    /// Whether another process has changed the limit (`prlimit`): it is not raised again then.
    is_imposed: bool,
}

impl Descriptors {
    /// Raises the soft limit as far as needed and allowed, and allocates descriptors under it.
    pub fn new(demand: DescriptorDemand) -> Self {
        let mut descriptors = Descriptors {
            demand,
            budget: demand.share(None),
            seen: getrlimit(Resource::Nofile).current,
            is_imposed: false,
        };
        descriptors.update(demand);
        descriptors
    }

    /// The current allocation.
    pub fn budget(&self) -> DescriptorBudget {
        self.budget
    }

    /// Whether the limit has changed since it was last read (`prlimit`). Makes a system call.
    pub fn is_outdated(&self) -> bool {
        getrlimit(Resource::Nofile).current != self.seen
    }

    /// Allocates descriptors anew for `demand`. Returns whether the allocation has changed.
    pub fn update(&mut self, demand: DescriptorDemand) -> bool {
        let now = getrlimit(Resource::Nofile);
        self.is_imposed |= now.current != self.seen;
        self.seen = if self.is_imposed { now.current } else { raise(now, demand.all()) };
        let limit = self.seen.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (before, budget) = (self.budget, demand.share(limit));
        (self.demand, self.budget) = (demand, budget);
        if before == budget {
            return false;
        }
        let limit = limit.unwrap_or(usize::MAX);
        if budget.clients < demand.clients || budget.dedicated < demand.dedicated {
            warn!(
                open_files = limit,
                reserved = budget.reserved,
                clients = budget.clients,
                dedicated = budget.dedicated,
                nodes = demand.nodes,
                workers = demand.workers,
                "limits.clients is lowered from {} to {} and limits.dedicated from {} to {}: the \
                 limit on open files is too low for them beside connections to nodes; raise it to \
                 {} (ulimit -Hn, LimitNOFILE), or lower these keys",
                demand.clients,
                budget.clients,
                demand.dedicated,
                budget.dedicated,
                demand.all(),
            );
        } else if before.clients < budget.clients {
            info!(open_files = limit, clients = budget.clients, "the limit on clients is raised");
        }
        true
    }
}

/// Spare descriptors: kept open in order to be freed when no others are available.
#[derive(Debug, Default)]
pub struct SpareDescriptors {
    wanted: usize,
    kept: Vec<UnixDatagram>,
}

impl SpareDescriptors {
    /// Opens `wanted` spare descriptors, or as many as are available.
    pub fn new(wanted: usize) -> Self {
        let mut spare = SpareDescriptors { wanted, kept: Vec::new() };
        spare.fill();
        spare
    }

    /// Whether all of them are open.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= self.wanted
    }

    /// Opens the missing ones. Returns false if no descriptor is available.
    pub fn fill(&mut self) -> bool {
        while self.kept.len() < self.wanted {
            // An unbound socket needs neither a file nor an address.
            match UnixDatagram::unbound() {
                Ok(socket) => self.kept.push(socket),
                Err(_) => return false,
            }
        }
        true
    }

    /// Closes them, for immediate use by the caller. Returns false if none was open.
    pub fn free(&mut self) -> bool {
        let had = !self.kept.is_empty();
        self.kept.clear();
        had
    }
}

/// Raises the soft limit to `wanted`, or to the hard limit if that is lower. Returns the soft limit
/// that is then in force.
fn raise(now: Rlimit, wanted: usize) -> Option<u64> {
    let wanted = wanted as u64;
    let soft = now.current?;
    let reachable = now.maximum.map_or(wanted, |hard| hard.min(wanted));
    if soft >= reachable {
        return Some(soft);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), ..now }) {
        Ok(()) => Some(reachable),
        Err(_) => Some(soft),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEMAND: DescriptorDemand = DescriptorDemand {
        workers: 2,
        nodes: 6,
        connections: 1,
        replicas: false,
        listeners: 2,
        clients: 20_000,
        dedicated: 10_000,
        users: None,
    };

    #[test]
    fn enough_for_all_changes_nothing() {
        for limit in [None, Some(DEMAND.all()), Some(1 << 20)] {
            let budget = DEMAND.share(limit);
            assert_eq!((budget.clients, budget.dedicated), (20_000, 10_000));
            assert_eq!((budget.idle_dedicated, budget.admin), (64, 64));
        }
    }

    #[test]
    fn large_transfers_have_connections_where_there_are_enough() {
        for demand in [DEMAND, DescriptorDemand { users: Some(3), replicas: true, ..DEMAND }] {
            let bulk = |limit| demand.share(limit).bulk;
            assert!(bulk(None) && bulk(Some(demand.all())));
            assert!(!bulk(Some(demand.bulk() * BULK_SHARE - 1)), "a large part of a low limit");
        }
        assert!(DEMAND.share(Some(20_000)).bulk && !DEMAND.share(Some(100)).bulk);
    }

    #[test]
    fn what_is_short_is_shared() {
        let tight = DEMAND.share(Some(107));
        assert!((10..40).contains(&tight.clients), "{tight:?}");
        assert!(tight.dedicated >= 4, "{tight:?}");
        let usual = DEMAND.share(Some(1024));
        assert!((650..800).contains(&usual.clients), "{usual:?}");
        assert!((100..300).contains(&usual.dedicated), "{usual:?}");
        // With a low limits.clients the rest is for dedicated connections.
        let few = DescriptorDemand { clients: 50, ..DEMAND }.share(Some(1024));
        assert_eq!(few.clients, 50);
        assert!(few.dedicated > 600, "{few:?}");
        // More nodes, fewer clients.
        let more = DescriptorDemand { nodes: 12, ..DEMAND }.share(Some(1024));
        assert!(more.clients < usual.clients);
        let none = DEMAND.share(Some(10));
        assert_eq!((none.clients, none.dedicated), (1, 1));
    }

    #[test]
    fn the_refusal_names_the_limit_that_is_in_the_way() {
        let text = DEMAND.share(Some(100)).refusal(20_000).to_string();
        assert!(text.contains("100 open files") && text.contains("20000"), "{text}");
        let text = DEMAND.share(None).refusal(20_000).to_string();
        assert!(!text.contains("open files") && text.contains("limits.clients = 20000"), "{text}");
    }

    proptest! {
        #[test]
        fn no_more_is_given_than_there_is(
            (workers, nodes, connections) in (1usize..65, 0usize..200, 1usize..9),
            (replicas, listeners) in (any::<bool>(), 1usize..10),
            (clients, dedicated) in (1usize..50_000, 1usize..20_000),
            users in proptest::option::of(1usize..1000),
            limit in 64usize..200_000,
        ) {
            let demand = DescriptorDemand {
                workers, nodes, connections, replicas, listeners, clients, dedicated, users,
            };
            let budget = demand.share(Some(limit));
            prop_assert!(budget.clients <= clients && budget.dedicated <= dedicated);
            prop_assert!(budget.clients >= 1 && budget.dedicated >= 1 && budget.users >= 1);
            let per_user = demand.users.map_or(0, |_| budget.users * demand.per_user() * workers);
            let bulk = if budget.bulk { demand.bulk() } else { 0 };
            let used = demand.fixed(budget.admin) + per_user + budget.clients + budget.dedicated
                + budget.idle_dedicated * workers + bulk;
            // A limit too low for one of each is exceeded.
            let least = demand.fixed(budget.admin) + demand.users.map_or(0, |_| demand.per_user() * workers) + 8;
            prop_assert!(used <= limit.max(least), "{used} of {limit}: {budget:?}");
        }
    }
}
