//! Clients that are subscribed, or wait for subscriptions.

use crate::client::{Paused, SessionModes};
use crate::clients::{Clients, Flow, transaction};
use crate::command::CommandId;
use crate::common::Core;
use crate::common::clock::{Job, Timer};
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::mailbox::{BYTES_PER_TOPIC, Serial, Ticket};
use crate::metrics::LimitHit;
use crate::nodes::Nodes;
use crate::resp::{Args, Protocol};

/// What a RESP2 client may send while it is subscribed to anything.
const IN_RESP2: [&str; 9] = [
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "ping",
    "quit",
    "reset",
];

/// The clients that are subscribed, or wait for subscriptions.
pub(crate) struct Subscribed<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The clients that are subscribed, or wait for it.
    pub(crate) fn subscribed(&mut self) -> Subscribed<'_> {
        Subscribed { clients: self }
    }
}

impl Subscribed<'_> {
    /// A subscriber that speaks RESP2 may only send what is about its subscriptions, because its
    /// client takes everything for messages. `None`: this command may go its way now.
    pub(crate) fn refuse(
        &mut self,
        index: usize,
        args: &Args,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Option<Flow> {
        let client = self.clients.slab.get(index)?;
        if client.session.protocol != Protocol::Resp2 {
            return self.behind_subscribe(index, args, core);
        }
        let command = core.router.command(args);
        let spec = core.router.table().get(command);
        let unknown = command == core.router.unknown() || (spec.container && args.len() > 1);
        if unknown {
            let failure = transaction::unknown_command(&spec.name, args);
            self.clients.answer_own_error(index, command, &failure, core);
            return Some(Flow::Next);
        }
        if IN_RESP2.contains(&&*spec.name) || !spec.arity_fits(args.len()) {
            return None;
        }
        let mut failure = Failure::SubscribedClient { command: spec.name.clone() };
        if *spec.name == *"exec" {
            failure = Failure::Discarded { cause: failure.statement() };
            self.clients.transactions().forget(index, nodes, core);
        }
        self.clients.answer_own_error(index, command, &failure, core);
        Some(Flow::Next)
    }

    /// What comes behind a SUBSCRIBE may make the very message that it is to hear (PUBLISH, or a
    /// write that is notified), so it waits until the cluster has confirmed. Its reply would have
    /// waited anyway. `None`: it need not wait.
    fn behind_subscribe(&mut self, index: usize, args: &Args, core: &mut Core) -> Option<Flow> {
        let client = self.clients.slab.get_mut(index)?;
        let asked = client.subscriptions.as_ref()?.asked?;
        if client.answered_up_to(asked) {
            client.subscriptions.as_mut()?.asked = None;
            return None;
        }
        let spec = core.router.table().get(core.router.command(args));
        match IN_RESP2.contains(&&*spec.name) {
            true => None,
            false => Some(self.clients.pause_until_replied(index, core)),
        }
    }

    /// After it has unsubscribed from something: it may be an ordinary client again.
    pub(crate) fn settle(&mut self, index: usize) {
        if let Some(client) = self.clients.slab.get_mut(index)
            && client.subscriptions.as_ref().is_some_and(|s| s.is_empty())
        {
            client.subscriptions = None;
            client.session.modes.remove(SessionModes::SUBSCRIBED);
        }
    }

    /// The client waits with its PUBLISH. `None`: it is gone.
    pub(crate) fn pause_publisher(
        &mut self,
        index: usize,
        progress: Progress,
    ) -> Option<WaitingPublisher> {
        let client = self.clients.slab.get_mut(index)?;
        client.paused = Paused::Subscription;
        Some(WaitingPublisher { client: index as u32, generation: client.generation, progress })
    }

    /// What a subscriber has not taken is bounded as Redis bounds it. `None`: it is within.
    pub(crate) fn limit(&mut self, index: usize, core: &mut Core) -> Option<LimitHit> {
        let client = self.clients.slab.get_mut(index)?;
        let output = client.output();
        let me = ClientId::new(index, client.generation);
        let subscriptions = client.subscriptions.as_mut()?;
        if output > core.settings.subscriber_hard {
            return Some(LimitHit::PubSubHard);
        }
        if output <= core.settings.subscriber_soft {
            subscriptions.above_soft = None;
            return None;
        }
        match subscriptions.above_soft {
            Some(since) if core.now >= since + core.settings.subscriber_soft_time => {
                return Some(LimitHit::PubSubSoft);
            }
            Some(_) => {}
            None => {
                subscriptions.above_soft = Some(core.now);
                let due = core.now + core.settings.subscriber_soft_time;
                core.clock.timers.push(Timer { due, job: Job::SlowSubscriber(me) });
            }
        }
        None
    }

    /// A subscriber that was slow some time ago is looked at again.
    pub(crate) fn look_again(&mut self, client: ClientId, core: &mut Core) {
        let current = |c: &crate::client::Client| c.generation == client.generation && !c.gone;
        if self.clients.slab.get(client.at()).is_some_and(current) {
            self.clients.check_output(client.at(), core);
        }
    }
}

/// How far a PUBLISH that waits has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Progress {
    /// The other workers have read what had arrived before it.
    OthersHaveRead,
    /// It waits for subscription commands up to this one, the last that had come before it.
    Limit(Serial),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingPublisher {
    pub(crate) client: u32,
    pub(crate) generation: u32,
    pub(crate) progress: Progress,
}

/// A SUBSCRIBE that is answered when the cluster has confirmed all its topics.
#[derive(Debug)]
pub(crate) struct Wait {
    /// Index and generation.
    pub client: ClientId,
    pub seq: u32,
    pub command: CommandId,
    /// When it came, microseconds.
    pub started: u64,
    /// Topics that are not confirmed.
    pub left: usize,
    /// The confirmations.
    pub reply: Vec<u8>,
    /// The topics (index, generation) that the client was not subscribed to before.
    pub new: Vec<(u32, u32)>,
    /// Held until the command is answered: a PUBLISH that comes meanwhile waits.
    pub ticket: Option<Ticket>,
}

impl Wait {
    /// Bytes that it occupies while it waits.
    pub(crate) fn memory(&self) -> usize {
        self.reply.capacity() + self.new.len() * BYTES_PER_TOPIC
    }
}
