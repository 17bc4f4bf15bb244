//! Commands with parts at several nodes.

use slab::Slab;

use crate::clients::Clients;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ClientId, Dest};
use crate::nodes::Nodes;
use crate::observe::{SLOW_LOG_OFF, SlowLogSettings};
use crate::operations::{Gathering, Operations};
use crate::ops::Parts;
use crate::placement::Work;
use crate::resp::Args;
use crate::route::{Gather, Merge};
use crate::upstream::Pending;
use crate::users::OWN_REALM;

/// Nobody's: what is under way for a client that is gone and had no gathering.
pub(crate) const NOBODYS: u16 = u16::MAX;

/// The gatherings that are under way.
#[derive(Default)]
pub(crate) struct Gatherings {
    slab: Slab<Gathering>,
}

impl Gatherings {
    #[inline]
    pub(crate) fn get(&self, g: usize) -> Option<&Gathering> {
        self.slab.get(g)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, g: usize) -> Option<&mut Gathering> {
        self.slab.get_mut(g)
    }

    /// Takes it in; gives its index.
    pub(crate) fn insert(&mut self, gathering: Gathering) -> usize {
        self.slab.insert(gathering)
    }

    /// Takes it out, if it is there.
    pub(crate) fn try_remove(&mut self, g: usize) -> Option<Gathering> {
        self.slab.try_remove(g)
    }

    /// Whose lane a command belongs to.
    pub(crate) fn lane_of(&self, pending: &Pending) -> ClientId {
        match pending.dest {
            Dest::Client { index, generation, .. } => ClientId { index, generation },
            Dest::Part { gather, .. } => {
                let gathering = self.slab.get(gather as usize);
                gathering.map_or(ClientId::UNKNOWN, |g| g.lane)
            }
            Dest::Join { .. } | Dest::Discard => ClientId::UNKNOWN,
        }
    }

    /// The part of a command over several dedicated connections, as the retry policy sees it.
    pub(crate) fn work_of_part(&self, gather: u32, watches: bool) -> Work {
        let gathering = self.slab.get(gather as usize);
        match gathering.is_some_and(|gathering| gathering.parts.is_transaction()) {
            true => Work::ExecPiece,
            false if watches => Work::WatchPart,
            false => Work::DedicatedPart,
        }
    }

    /// Expected bytes of one part of a command that goes to several slots or nodes.
    pub(crate) fn expected_of_part(&self, gather: u32, clients: &Clients) -> u32 {
        let Some(gathering) = self.slab.get(gather as usize) else { return 0 };
        let client = clients.slab.get(gathering.lane.at());
        let client = client.filter(|c| c.generation == gathering.lane.generation);
        client.map_or(0, |c| c.transfer_sizes.expected()) / gathering.parts.count()
    }

    /// With whose rights a command of `dest` is sent.
    #[cold]
    pub(crate) fn realm_of_dest(&self, dest: &Dest, clients: &Clients) -> u16 {
        match *dest {
            Dest::Client { index, generation, .. } => {
                let client = clients.slab.get(index as usize);
                match client.is_some_and(|c| c.generation == generation) {
                    true => clients.realm_of(index as usize),
                    false => NOBODYS,
                }
            }
            Dest::Part { gather, .. } => {
                self.slab.get(gather as usize).map_or(NOBODYS, |g| g.realm)
            }
            // They go over connections that are lent, which know their realm.
            Dest::Join { .. } => NOBODYS,
            Dest::Discard => OWN_REALM,
        }
    }

    /// Keeps what a slow log would show of a command whose parts are other commands.
    pub(crate) fn keep_args(&mut self, g: usize, args: &Args, core: &mut Core) {
        if core.shared.slow.slower_than() == SLOW_LOG_OFF {
            return;
        }
        if let Some(gathering) = self.slab.get_mut(g) {
            let mut kept = core.spare.kept.pop().unwrap_or_default();
            kept.keep(args);
            gathering.kept = Some(kept);
        }
    }

    /// The client's last command is a CONFIG that nodes have been sent: what it says of the slow log
    /// or of the servers' names holds here too, if they agree.
    #[cold]
    pub(crate) fn set_when_agreed(&mut self, index: usize, args: &Args, clients: &mut Clients) {
        let setting = SlowLogSettings::of(args).filter(|_| args.is(1, "set"));
        // What Valkey answers to HELLO.
        let renames = args.is(1, "set")
            && (2..args.len()).step_by(2).any(|at| args.is(at, "extended-redis-compatibility"));
        let sets = setting.is_some() || renames;
        let Some(client) = clients.slab.get(index).filter(|_| sets) else { return };
        let seq =
            client.base.wrapping_add(client.replies.as_ref().map_or(0, |r| r.waiting()) as u32);
        let to = Dest::Client {
            index: index as u32,
            generation: client.generation,
            seq: seq.wrapping_sub(1),
        };
        if let Some((_, gathering)) = self.slab.iter_mut().find(|(_, g)| g.to == to) {
            gathering.sets = setting;
            gathering.renames = renames;
        }
    }

    /// Begins a gathering for a client's command; gives its index.
    pub(crate) fn begin(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Option<usize> {
        let client = clients.slab.get_mut(index)?;
        let generation = client.generation;
        let seq = client.expect(&mut core.spare.replies);
        let to = Dest::Client { index: index as u32, generation, seq };
        self.begin_for(index, command, merge, to, clients, core)
    }

    /// The same, where the reply has its place already.
    pub(crate) fn begin_for(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        to: Dest,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Option<usize> {
        let client = clients.slab.get_mut(index)?;
        client.transfer_sizes.ask();
        let (protocol, generation) = (client.session.protocol, client.generation);
        let mut gather = core.spare.gathers.pop().unwrap_or_default();
        gather.start(merge, protocol);
        gather.set_only_reads(core.router.is_read_only(command));
        let lane = ClientId::new(index, generation);
        let gathering = Gathering::new(lane, command, to, Parts::Merged(gather), clients, core);
        Some(self.slab.insert(gathering))
    }

    /// The merged replies of gathering `g`.
    pub(crate) fn merged(&mut self, g: usize) -> Option<&mut Gather> {
        self.slab.get_mut(g)?.parts.merged_mut()
    }
}

impl Gathering {
    /// One that begins now, for the client of this index and generation.
    pub(crate) fn new(
        lane: ClientId,
        command: CommandId,
        to: Dest,
        parts: Parts,
        clients: &Clients,
        core: &Core,
    ) -> Gathering {
        Gathering {
            parts,
            to,
            lane,
            realm: clients.realm_of(lane.at()),
            command,
            started: core.now,
            kept: None,
            slow: None,
            sets: None,
            renames: false,
            received: 0,
            accounted: 0,
        }
    }
}

impl Operations {
    /// A command that its slot's hold knows of has come to its end.
    pub(crate) fn answered(&mut self, pending: &Pending, nodes: &mut Nodes, core: &mut Core) {
        let lane = self.gatherings.lane_of(pending);
        nodes.placement.answered_in(pending, lane, true, core);
    }
}
