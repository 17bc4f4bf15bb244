//! Commands and requests that are refused, and in which words.

use crate::clients::answers::{buffers_full, too_large};
use crate::clients::{Clients, Flow};
use crate::command::CommandId;
use crate::common::Core;
use crate::errors::Failure;
use crate::metrics::{DenialReason, LimitHit};
use crate::nodes::Nodes;
use crate::resp::ProtocolError;
use crate::route::RefusalReason;
use crate::sparsely;
use crate::users::Denied;

/// The refusals of what clients send.
pub(crate) struct Refusals<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The refusals of what clients send.
    pub(crate) fn refusals(&mut self) -> Refusals<'_> {
        Refusals { clients: self }
    }
}

impl Refusals<'_> {
    /// A command that slotway has a reason not to send.
    pub(crate) fn refuse(
        &mut self,
        index: usize,
        command: CommandId,
        why: RefusalReason,
        core: &mut Core,
    ) -> Flow {
        let failure = core.router.refusal(command, why);
        self.clients.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    /// A command that needs to know nodes, and none is known.
    #[cold]
    pub(crate) fn no_cluster(
        &mut self,
        index: usize,
        command: CommandId,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let failure = nodes.topology.no_cluster_failure(core);
        self.clients.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    /// A command that there is no room for.
    #[cold]
    pub(crate) fn for_memory(&mut self, index: usize, command: CommandId, core: &mut Core) -> Flow {
        core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = buffers_full(&core.settings);
        self.clients.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    /// A command that the client's user may not send.
    pub(crate) fn deny(
        &mut self,
        index: usize,
        command: CommandId,
        why: Denied,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let spec = core.router.table().get(command);
        let failure = match why {
            Denied::Command => Failure::CommandDenied { command: spec.name.clone() },
            Denied::Unchecked => Failure::Unchecked { command: spec.name.clone() },
            Denied::Key => Failure::KeyDenied,
            Denied::Channel => Failure::ChannelDenied,
            Denied::Sort(option) => Failure::SortDenied { option },
        };
        let reason = match why {
            Denied::Command | Denied::Unchecked => DenialReason::Command,
            Denied::Key | Denied::Sort(_) => DenialReason::Key,
            Denied::Channel => DenialReason::Channel,
        };
        core.stats.denied[reason as usize] += 1;
        self.answer_user(index, command, &failure, nodes, core)
    }

    /// Answered with an error; a transaction will not be executed any more.
    pub(crate) fn answer_user(
        &mut self,
        index: usize,
        command: CommandId,
        failure: &Failure,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let spec = core.router.table().get(command);
        let exec = *spec.name == *"exec";
        let multi = self.clients.slab.get_mut(index).and_then(|c| c.multi.as_mut());
        if let Some(multi) = multi {
            multi.discard();
            if exec {
                self.clients.transactions().forget(index, nodes, core);
                let cause = failure.to_string();
                self.clients.answer_own_error(index, command, &Failure::Discarded { cause }, core);
                return Flow::Next;
            }
        }
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        self.clients.answer_own_error(index, command, failure, core);
        Flow::Next
    }

    /// A request is announced that is larger than what is left of `limits.memory`: it is refused
    /// before it has come.
    #[cold]
    pub(crate) fn announced(&mut self, index: usize, need: usize, core: &mut Core) {
        core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = too_large(&core.settings, need);
        self.clients.answer_error(index, &failure, core);
        self.clients.stop_reading(index, core);
    }

    /// A PROXY protocol header where none is accepted. Taken for a command it would be answered,
    /// and each reply that follows be taken for another's.
    pub(crate) fn unexpected_header(&mut self, index: usize, core: &mut Core) -> Flow {
        core.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let address = self.clients.slab.get(index).map(|c| c.addresses().0);
        sparsely!(
            core.lines.protocol,
            warn,
            client = address,
            "a client is closed: it begins with a PROXY protocol header, and this address is not in \
             proxy_protocol.listen"
        );
        self.clients.answer_error(index, &Failure::ProxyHeaderUnexpected, core);
        self.clients.stop_reading(index, core);
        Flow::Stop
    }

    /// Redis's own text, then the connection closes, as Redis does.
    pub(crate) fn protocol_error(&mut self, index: usize, error: ProtocolError, core: &mut Core) {
        core.stats.limits_hit[LimitHit::Protocol as usize] += 1;
        let id = self.clients.slab.get(index).map(|c| c.session.id);
        sparsely!(
            core.lines.protocol,
            warn,
            client = id,
            %error,
            "a client is closed: what it sends is no command"
        );
        self.clients.answer_error(index, &Failure::Protocol { error }, core);
        self.clients.stop_reading(index, core);
    }
}
