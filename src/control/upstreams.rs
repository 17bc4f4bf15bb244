//! The upstreams of a pool: the configuration of each, and what is known of all of them, put
//! together for the workers.

use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::{Health, SlotMap, Snapshot, UpstreamId};
use crate::command::{CommandTable, TableError};
use crate::config::Config;

/// All upstreams. Which there are is decided at the start.
#[derive(Debug)]
pub(super) struct Upstreams {
    map: SlotMap,
    all: Vec<OneUpstream>,
    /// The command table of all, without what was learned.
    commands: Arc<CommandTable>,
}

#[derive(Debug)]
struct OneUpstream {
    name: Box<str>,
    /// The configuration as it would be with this upstream alone.
    config: Arc<Config>,
    /// Empty while it is not known.
    snapshot: Arc<Snapshot>,
    health: Arc<Health>,
    /// Its last answer to COMMAND.
    commands: Bytes,
}

impl Upstreams {
    /// The upstreams of `config`, of which nothing is known.
    pub(super) fn new(config: &Arc<Config>, commands: Arc<CommandTable>) -> Upstreams {
        let empty = Arc::new(Snapshot::empty());
        let one = |(at, name): (usize, &str)| OneUpstream {
            name: name.into(),
            config: config_of(config, at),
            snapshot: Arc::clone(&empty),
            health: Arc::default(),
            commands: Bytes::new(),
        };
        let all = config.upstream_names().into_iter().enumerate().map(one).collect();
        Upstreams { map: config.slot_map(), all, commands }
    }

    /// Uses another configuration, which has the same upstreams.
    pub(super) fn set_config(&mut self, config: &Arc<Config>) {
        for (at, one) in self.all.iter_mut().enumerate() {
            one.config = config_of(config, at);
        }
    }

    /// Number of upstreams.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The name of an upstream.
    pub(super) fn name_of(&self, id: UpstreamId) -> Option<Box<str>> {
        self.all.get(id.at()).map(|one| one.name.clone())
    }

    /// The configuration of an upstream; `None`: there is no such upstream.
    pub(super) fn config_of(&self, id: UpstreamId) -> Option<&Arc<Config>> {
        self.all.get(id.at()).map(|one| &one.config)
    }

    /// For each upstream the number of its nodes, or of its seeds while they are not known.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.all.iter().map(|one| match one.snapshot.nodes.len() {
            0 => one.config.seeds.len(),
            known => known,
        })
    }

    /// Notes the topology of an upstream. Returns that of all, given the one before: that one
    /// itself if nothing has changed.
    pub(super) fn compose(
        &mut self,
        id: UpstreamId,
        snapshot: Arc<Snapshot>,
        before: Option<&Arc<Snapshot>>,
    ) -> Arc<Snapshot> {
        if let Some(one) = self.all.get_mut(id.at()) {
            one.snapshot = snapshot;
        }
        let parts: Vec<Arc<Snapshot>> =
            self.all.iter().map(|one| Arc::clone(&one.snapshot)).collect();
        let mut whole = self.map.compose(&parts);
        if self.all.len() > 1 {
            match before {
                Some(before) if before.same_as(&whole) => return Arc::clone(before),
                before => {
                    let generation = before.map_or(0, |before| before.generation) + 1;
                    Arc::make_mut(&mut whole).generation = generation;
                }
            }
        }
        whole
    }

    /// Notes the health of an upstream's nodes. Returns that of all. Of a node that is in several
    /// upstreams it is what the first of them says.
    pub(super) fn merge(&mut self, id: UpstreamId, health: Arc<Health>) -> Arc<Health> {
        if let Some(one) = self.all.get_mut(id.at()) {
            one.health = health;
        }
        match &*self.all {
            [only] => Arc::clone(&only.health),
            all => {
                let nodes = all.iter().rev().flat_map(|one| one.health.iter());
                Arc::new(nodes.map(|(addr, node)| (addr.clone(), node.clone())).collect())
            }
        }
    }

    /// Merges an upstream's answer to COMMAND into the table in use, so that command IDs stay, and
    /// returns the new table. Of a command that several upstreams have it is what the first of them
    /// says.
    ///
    /// # Errors
    /// It is no answer to COMMAND.
    pub(super) fn overlay(
        &mut self,
        id: UpstreamId,
        reply: &Bytes,
    ) -> Result<Arc<CommandTable>, TableError> {
        let mut table = self.commands.overlay(reply)?;
        for before in self.all.iter().take(id.at()).rev().filter(|one| !one.commands.is_empty()) {
            table = table.overlay(&before.commands)?;
        }
        if let Some(one) = self.all.get_mut(id.at()) {
            one.commands = reply.clone();
        }
        self.commands = Arc::new(table);
        Ok(Arc::clone(&self.commands))
    }
}

/// The configuration of the upstream at `at`. With the short form alone it is `config` itself.
fn config_of(config: &Arc<Config>, at: usize) -> Arc<Config> {
    match config.upstreams.is_empty() {
        true => Arc::clone(config),
        false => Arc::new(config.of_upstream(UpstreamId(at as u8))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::server::snapshot_of;
    use crate::cluster::{NodeAddr, NodeHealth, NodeState, Slot, Unfit};
    use crate::config::{Address, NamedUpstream, Secret, UpstreamKind};

    const QUEUES: UpstreamId = UpstreamId(1);

    fn addr(port: u16) -> NodeAddr {
        NodeAddr { host: "127.0.0.1".into(), port }
    }

    fn server(port: u16, generation: u64) -> Arc<Snapshot> {
        let replicas = [(addr(port + 1), NodeState::Online)];
        let snapshot = snapshot_of(Some(&addr(port)), &replicas, |_| "".into());
        Arc::new(Snapshot { generation, ..snapshot })
    }

    fn config(named: &[&str]) -> Arc<Config> {
        let mut config =
            Config { seeds: vec![Address { host: "main".into(), port: 1 }], ..Config::default() };
        config.upstream.password = Secret::new("main's");
        config.upstreams = named
            .iter()
            .map(|name| NamedUpstream {
                name: (*name).into(),
                seeds: vec![Address { host: (*name).into(), port: 2 }],
                upstream: crate::config::Upstream {
                    kind: UpstreamKind::Standalone,
                    password: Secret::new(format!("{name}'s")),
                    ..config.upstream.clone()
                },
                read_from: config.read_from,
                tls: config.tls.upstream.clone(),
                optional: false,
            })
            .collect();
        Arc::new(config)
    }

    fn upstreams(config: &Arc<Config>) -> Upstreams {
        Upstreams::new(config, Arc::new(CommandTable::builtin()))
    }

    #[test]
    fn one_upstream_is_passed_on_as_it_is() {
        let config = config(&[]);
        let mut all = upstreams(&config);
        assert!(Arc::ptr_eq(all.config_of(UpstreamId::FIRST).unwrap(), &config));
        let snapshot = server(7000, 5);
        let whole = all.compose(UpstreamId::FIRST, Arc::clone(&snapshot), None);
        assert!(Arc::ptr_eq(&whole, &snapshot));
        let health = Arc::new(Health::new());
        assert!(Arc::ptr_eq(&all.merge(UpstreamId::FIRST, Arc::clone(&health)), &health));
    }

    #[test]
    fn each_upstream_has_its_own_configuration_and_keeps_it_in_a_reload() {
        let mut all = upstreams(&config(&["queues"]));
        let password = |all: &Upstreams, id| all.config_of(id).unwrap().upstream.password.reveal();
        assert_eq!(&*password(&all, UpstreamId::FIRST), "main's");
        assert_eq!(&*password(&all, QUEUES), "queues's");
        assert!(all.config_of(UpstreamId(2)).is_none());
        let mut changed = Config::clone(&config(&["queues"]));
        changed.upstreams[0].upstream.password = Secret::new("new");
        all.set_config(&Arc::new(changed));
        assert_eq!(&*password(&all, UpstreamId::FIRST), "main's");
        assert_eq!(&*password(&all, QUEUES), "new");
    }

    #[test]
    fn the_whole_is_known_with_the_first_and_numbered_by_its_changes() {
        let mut all = upstreams(&config(&["queues"]));
        let first = all.compose(QUEUES, server(7100, 1), None);
        assert_eq!(first.generation, 1);
        assert_eq!(first.slots.len(), 16384 + 1);
        assert!(first.primary_of(Slot(0)).is_none(), "main is not known yet");
        assert_eq!(first.primary_of(Slot(16384)).map(|node| node.upstream), Some(QUEUES));
        let again = all.compose(QUEUES, server(7100, 1), Some(&first));
        assert!(Arc::ptr_eq(&again, &first), "nothing has changed");
        let both = all.compose(UpstreamId::FIRST, server(7000, 1), Some(&again));
        assert_eq!((both.generation, both.nodes.len()), (2, 4));
        let moved = all.compose(QUEUES, server(7200, 2), Some(&both));
        assert_eq!(moved.generation, 3);
        assert_eq!(moved.primary_of(Slot(16384)).map(|node| node.addr.port), Some(7200));
        let sizes: Vec<usize> = all.sizes().collect();
        assert_eq!(sizes, [2, 2]);
    }

    #[test]
    fn health_is_that_of_all_nodes() {
        let mut all = upstreams(&config(&["queues"]));
        let unfit = |unfit| NodeHealth { unfit: Some(unfit), zone: None };
        let main = [(addr(1), unfit(Unfit::Behind)), (addr(2), NodeHealth::default())];
        let queues = [(addr(2), unfit(Unfit::Silent)), (addr(3), unfit(Unfit::Silent))];
        all.merge(QUEUES, Arc::new(queues.into_iter().collect()));
        let whole = all.merge(UpstreamId::FIRST, Arc::new(main.into_iter().collect()));
        let said = |port| whole[&addr(port)].unfit;
        assert_eq!([1, 2, 3].map(said), [Some(Unfit::Behind), None, Some(Unfit::Silent)]);
    }

    /// An answer to COMMAND with one command of this arity.
    fn answer(name: &str, arity: i64) -> Bytes {
        let flags = "*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n";
        format!("*1\r\n*10\r\n${}\r\n{name}\r\n:{arity}\r\n{flags}", name.len()).into()
    }

    #[test]
    fn commands_of_all_are_known_and_the_first_upstreams_word_counts() {
        let mut all = upstreams(&config(&["queues"]));
        let builtin = CommandTable::builtin();
        all.overlay(UpstreamId::FIRST, &answer("main.get", 2)).unwrap();
        let table = all.overlay(QUEUES, &answer("queues.get", 2)).unwrap();
        assert_eq!(table.len(), builtin.len() + 2);
        let id = table.by_name("main.get").unwrap();
        let table = all.overlay(QUEUES, &answer("main.get", 3)).unwrap();
        assert_eq!(table.by_name("main.get"), Some(id), "IDs stay");
        assert_eq!(table.get(id).arity, 2);
        assert!(table.by_name("queues.get").is_some());
        let table = all.overlay(UpstreamId::FIRST, &answer("main.get", 4)).unwrap();
        assert_eq!(table.get(id).arity, 4);
        assert!(all.overlay(QUEUES, &"-NOPERM no\r\n".into()).is_err());
    }
}
