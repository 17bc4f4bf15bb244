//! What CLIENT LIST and its kin find: which clients there are.

use std::sync::Arc;

use crate::client::{Census, Client, Line, Paused, Question, Traffic};
use crate::clients::{Clients, Flow};
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ClientId, Dest};
use crate::mailbox::{Asker, Inquiry, ToControl};
use crate::nodes::Nodes;
use crate::resp::write;

/// What is said of this worker's clients: all added up, or a line for each.
pub(crate) struct Listing<'a> {
    clients: &'a Clients,
}

impl Clients {
    /// What is said of this worker's clients.
    pub(crate) fn listing(&self) -> Listing<'_> {
        Listing { clients: self }
    }

    /// Asks all workers. The client waits.
    pub(crate) fn ask_everyone(
        &mut self,
        index: usize,
        command: CommandId,
        question: Question,
        core: &mut Core,
    ) -> Flow {
        let Some(client) = self.slab.get_mut(index) else { return Flow::Stop };
        let seq = client.expect(&mut core.spare.replies);
        client.paused = Paused::Command;
        let to = Dest::Client { index: index as u32, generation: client.generation, seq };
        self.ask_for(index, command, question, to, core);
        Flow::Next
    }

    /// Asks all workers on behalf of client `index`; the reply goes to `to`.
    pub(crate) fn ask_for(
        &mut self,
        index: usize,
        command: CommandId,
        question: Question,
        to: Dest,
        core: &mut Core,
    ) {
        let Some(client) = self.slab.get(index) else { return };
        let me = ClientId::new(index, client.generation);
        let asker = Asker { id: client.session.id, client: me, to, command };
        let inquiry = Inquiry::new(question, asker, core.link.own.clone());
        // Without control (at the very end) the message comes back dropped, which is an answer.
        let _ = core.link.control.send(ToControl::AskEveryone(Arc::new(inquiry)));
    }
}

impl<'a> Listing<'a> {
    /// This worker's clients, added up.
    pub(crate) fn census(&self, core: &Core) -> Census {
        let mut census = Census::default();
        for (index, client) in self.clients.slab.iter().filter(|(_, c)| !c.gone) {
            census.count(client);
            census.notice(client.output() as u64, || {
                line(index, client, &self.clients.arrivals.traffic, core)
            });
        }
        census
    }

    /// The lines of those clients of this worker that `wanted` says yes to.
    pub(crate) fn lines(
        self,
        wanted: impl Fn(&Client) -> bool + 'a,
        core: &'a Core,
    ) -> impl Iterator<Item = (usize, Line)> + 'a {
        let (slab, traffic) = (&self.clients.slab, &self.clients.arrivals.traffic);
        let clients = slab.iter().filter(move |(_, c)| !c.gone && wanted(c));
        clients.map(move |(index, client)| (index, line(index, client, traffic, core)))
    }

    /// The client's own line, as the reply to CLIENT INFO.
    pub(crate) fn info(&self, index: usize, reply: &mut Vec<u8>, nodes: &Nodes, core: &Core) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let mut text = Vec::new();
        line(index, client, &self.clients.arrivals.traffic, core)
            .write(nodes.topology.identity.client_fields, &mut text);
        write::verbatim(reply, client.session.protocol, &text);
    }
}

/// The client's line in CLIENT LIST.
fn line(index: usize, client: &Client, traffic: &[Traffic], core: &Core) -> Line {
    let known = client.session.last_command < core.router.unknown();
    let spec = || core.router.table().get(client.session.last_command);
    let traffic = traffic.get(index).copied().unwrap_or_default();
    let database = core.settings.databases.shown(&client.session);
    Line::of(client, database, core.now, if known { &spec().name } else { "NULL" }, traffic)
}
