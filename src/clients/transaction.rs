//! MULTI: what is queued, and what is refused.

use crate::buf::CHUNK;
use crate::client::{Multi, Place, SessionModes};
use crate::clients::Clients;
use crate::clients::answers::buffers_full;
use crate::cluster::{Product, Slot};
use crate::command::{CommandId, Flags, key_positions};
use crate::common::Core;
use crate::errors::{CrossSlotRemedy, Failure};
use crate::metrics::LimitHit;
use crate::nodes::Nodes;
use crate::resp::{Args, Protocol};
use crate::route::{Fan, Local, Merge, Plan, PubSub, Script};

/// The transactions of clients, from MULTI to EXEC or DISCARD.
pub(crate) struct Transactions<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The transactions of clients.
    pub(crate) fn transactions(&mut self) -> Transactions<'_> {
        Transactions { clients: self }
    }
}

impl Transactions<'_> {
    /// Keeps a command for EXEC and says so, if there is room for it.
    pub(crate) fn queue(
        &mut self,
        index: usize,
        command: CommandId,
        place: Place,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let read_only = core.router.is_read_only(command);
        let publishes = core.router.publishes(command);
        let by_sha = core.router.script(command) == Some(Script::EvalSha);
        let multi = self.clients.slab.get(index).and_then(|c| c.multi.as_ref());
        let over = match multi.map_or(0, |multi| multi.grows_by(frame)) {
            grown if grown > CHUNK => !self.clients.memory().has_room_for(grown, nodes, core),
            _ => self.clients.memory().is_over_limit(nodes, core),
        };
        let Some(multi) = self.clients.slab.get_mut(index).and_then(|c| c.multi.as_mut()) else {
            return;
        };
        if over {
            multi.discard();
            core.stats.limits_hit[LimitHit::Memory as usize] += 1;
            let failure = buffers_full(&core.settings);
            return self.clients.answer_own_error(index, command, &failure, core);
        }
        if !multi.broken {
            multi.read_only &= read_only;
            multi.by_sha |= by_sha;
            multi.publishes |= publishes;
            multi.scattered |= !matches!(place, Place::Slot(_) | Place::Any);
            multi.push(frame, command, place);
        }
        self.clients.answer_plain(index, b"+QUEUED\r\n", core);
    }

    /// Where a command goes when EXEC comes. `Err`: it is refused now, and EXEC will be.
    pub(crate) fn place(
        &mut self,
        index: usize,
        command: CommandId,
        args: &Args,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Result<Place, Failure> {
        let view = self.clients.view_of(index);
        let one_server = core.router.view(view).is_one_server();
        // One server has nothing to split.
        let split = core.settings.split_transactions && !one_server;
        let table = core.router.table();
        let spec = table.get(command);
        if command == core.router.unknown() || (spec.container && args.len() > 1) {
            return Err(unknown_command(&spec.name, args));
        }
        let name = &spec.name;
        if !spec.arity_fits(args.len()) {
            return Err(Failure::WrongArity { command: name.clone() });
        }
        if spec.flags.contains(Flags::NO_MULTI) {
            return Err(match nodes.topology.identity.product {
                Product::Redis => Failure::NotInMultiRedis,
                Product::Valkey => Failure::NotInMultiValkey { command: name.clone() },
            });
        }
        let upper = || name.to_ascii_uppercase().replace('|', " ");
        let plan = core.router.plan(view, command, args, &mut core.spare.keys);
        let place = match self.clients.filtered_for(index, plan) {
            Plan::Slot(slot) | Plan::Block(Some(slot)) => Place::Slot(slot),
            Plan::CrossSlot(slot) => match core.refused_in_multi(view, name, args) {
                Some(failure) => return Err(failure),
                None => Place::Slot(slot),
            },
            Plan::Any | Plan::Block(None) | Plan::Wait | Plan::Transaction(_) => Place::Any,
            Plan::Script(script, slot) => {
                match script.fan() {
                    Some((to, merge)) if split => Place::Fan(to, merge),
                    // One node that has it is enough.
                    None | Some((Fan::Reached, _)) => slot.map_or(Place::Any, Place::Slot),
                    Some(_) if one_server => Place::Any,
                    Some(_) => return Err(Failure::AllShardsInMulti { command: upper().into() }),
                }
            }
            Plan::Local(Local::Ping | Local::Echo) => Place::Any,
            Plan::Local(Local::Hello | Local::ClientReply | Local::SlowLog | Local::Proxy) => {
                return Err(Failure::NotInMulti { command: upper().into() });
            }
            // What follows would belong on another connection.
            Plan::Local(Local::Select)
                if nodes.topology.identity.databases_of(core.router.view(view).upstream()) > 1
                    || !core.settings.databases.is_empty() =>
            {
                return Err(Failure::NotInMulti { command: upper().into() });
            }
            Plan::Local(local) => Place::Local(local),
            Plan::PubSub(PubSub::Publish, _) => Place::Any,
            Plan::PubSub(PubSub::ShardPublish, Some(slot)) => Place::Slot(slot),
            Plan::Split { merge, .. } => Place::Split(merge),
            Plan::Fan { to, merge } if split || to == Fan::One => Place::Fan(to, merge),
            // There is one server that executes transactions, and it answers for itself.
            Plan::Fan { .. } | Plan::Join | Plan::Scan | Plan::RandomKey if one_server => {
                Place::Any
            }
            Plan::Join if split => Place::Fan(Fan::Primaries, Merge::Concat),
            Plan::Fan { .. } | Plan::Join => {
                return Err(Failure::AllShardsInMulti { command: upper().into() });
            }
            Plan::Refuse(why) => return Err(core.router.refusal(command, why)),
            _ => {
                return Err(Failure::NotInMulti { command: upper().into() });
            }
        };
        if let Place::Slot(_) | Place::Split(_) = place
            && let Some(multi) = self.clients.slab.get_mut(index).and_then(|c| c.multi.as_mut())
        {
            // The usual command has one key, and its slot is known.
            let same = |slot| multi.first.as_ref().is_some_and(|(first, _)| *first == slot);
            if !matches!(place, Place::Slot(slot) if same(slot)) {
                let mut keys = Vec::new();
                // An argument list without keys was planned as such.
                let _ = key_positions(spec, args, &mut keys);
                let keys = keys.iter().filter_map(|&at| args.get(at as usize));
                let mut slots: Vec<(Slot, &[u8])> =
                    keys.map(|key| (core.router.view(view).slot_of(key), key)).collect();
                if let (Place::Slot(slot), true) = (place, slots.is_empty()) {
                    // It names its slot by number.
                    slots.push((slot, args.get(2).unwrap_or_default()));
                }
                for (slot, key) in slots {
                    let (first, first_key) = multi.first.get_or_insert_with(|| (slot, key.into()));
                    if *first != slot {
                        multi.scattered = true;
                        if !split {
                            let apart = ((&**first_key, *first), (key, slot));
                            let remedy = CrossSlotRemedy::Transaction;
                            return Err(core.keys_apart(view, apart, remedy));
                        }
                    }
                }
            }
        }
        Ok(place)
    }

    /// MULTI is forgotten, and so are the watched keys.
    pub(crate) fn forget(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        if let Some(multi) = self.take(index) {
            core.spare.keep_multi(multi);
        }
        self.clients.watches().end(index, nodes, core);
    }

    /// What the client has queued; it is in MULTI no more.
    pub(crate) fn take(&mut self, index: usize) -> Option<Box<Multi>> {
        let client = self.clients.slab.get_mut(index)?;
        client.session.modes.remove(SessionModes::MULTI);
        client.multi.take()
    }

    /// A null reply to EXEC: a watched key changed.
    pub(crate) fn answer_null_array(&mut self, index: usize, command: CommandId, core: &mut Core) {
        let resp3 =
            self.clients.slab.get(index).is_some_and(|c| c.session.protocol == Protocol::Resp3);
        self.clients.answer_own(index, command, if resp3 { b"_\r\n" } else { b"*-1\r\n" }, core);
    }
}

/// Redis's own words, and its bytes: arguments as they are, up to their first zero byte.
pub(crate) fn unknown_command(container: &str, args: &Args) -> Failure {
    let shown = |i: usize, most: usize| {
        let arg = args.get(i).unwrap_or_default();
        let end = memchr::memchr(0, arg).unwrap_or(arg.len());
        arg.get(..end.min(most)).unwrap_or_default()
    };
    if !container.is_empty() && args.is(0, container) {
        return Failure::unknown_subcommand(shown(1, 128), &container.to_ascii_uppercase());
    }
    let mut list = Vec::new();
    for i in 1..args.len() {
        if list.len() >= 128 {
            break;
        }
        let most = 128 - list.len();
        list.push(b'\'');
        list.extend_from_slice(shown(i, most));
        list.extend_from_slice(b"' ");
    }
    Failure::unknown_command(shown(0, 128), &list)
}
