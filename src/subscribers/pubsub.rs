//! SUBSCRIBE and its kin, and the messages that come of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use slab::Slab;

use crate::channel::TopicKind;
use crate::client::{Client, SessionModes, Subscriptions};
use crate::clients::Clients;
use crate::clients::subscribers::Wait;
use crate::cluster::{self, UpstreamId};
use crate::command::CommandId;
use crate::common::clock::{Job, Timer};
use crate::common::{Core, micros};
use crate::config::OnGap;
use crate::dest::ClientId;
use crate::errors::{Failure, Key};
use crate::mailbox::{Batch, ToHub};
use crate::nodes::reaccount;
use crate::pubsub::{Frames, HubEvent, Token};
use crate::resp::{Args, Protocol, write};
use crate::sparsely;
use crate::subscribers::topics::{Since, Subscriber};
use crate::subscribers::{Subscribers, topics};

/// Longer names are not subscribed to. A node repeats the name in its confirmation and a pattern in
/// every message, and closes the connection, which is all subscribers', when too much waits for it.
const LONGEST_NAME: usize = 64 << 10;

/// The bytes of messages in one protocol, held by whoever sends them.
struct View {
    pub(crate) frames: Arc<Frames>,
    pub(crate) protocol: Protocol,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.frames.bytes(self.protocol)
    }
}

/// The upstream that a client's topic belongs to: shard channels are in slots of the client's own.
fn of_topic(view: &cluster::View, kind: TopicKind, name: &[u8]) -> UpstreamId {
    match kind {
        TopicKind::Shard => view.upstream(),
        TopicKind::Channel | TopicKind::Pattern => view.upstream_of_channel(name),
    }
}

impl Subscribers {
    /// An earlier SUBSCRIBE that waits has asked for one of these: whether there is anything to
    /// confirm is known when that one is answered.
    pub(crate) fn is_asked(
        &self,
        index: usize,
        kind: TopicKind,
        args: &Args,
        clients: &Clients,
        core: &Core,
    ) -> bool {
        let Some(client) = clients.slab.get(index) else { return false };
        let Some(subscriptions) = client.subscriptions.as_ref() else { return false };
        let view = core.router.view(client.session.view);
        let asked = |name: &[u8]| {
            let topic = self.topics.find(of_topic(view, kind, name), kind, name)?;
            let place = *subscriptions.topics.get(&topic)? as usize;
            Some(!self.topics.local.get(topic as usize)?.subscribers.get(place)?.is_heard())
        };
        subscriptions.asked.is_some_and(|seq| !client.answered_up_to(seq))
            && args.iter().skip(1).any(|name| asked(name) == Some(true))
    }

    pub(crate) fn subscribe(
        &mut self,
        index: usize,
        command: CommandId,
        kind: TopicKind,
        args: &Args,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        if args.iter().skip(1).any(|name| name.len() > LONGEST_NAME) {
            let failure = Failure::TopicTooLong { limit: LONGEST_NAME };
            return clients.answer_own_error(index, command, &failure, core);
        }
        let Some(client) = clients.slab.get_mut(index) else { return };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let seq = client.expect_heard(&mut core.spare.replies);
        client.session.modes.insert(SessionModes::SUBSCRIBED);
        let subscriptions = client.subscriptions.get_or_insert_default();
        let id = self.topics.next_wait();
        let (mut left, mut reply, mut new) = (0, Vec::new(), Vec::new());
        let mut names = Vec::new();
        let router = Arc::clone(&core.router);
        let view = router.view(client.session.view);
        for name in args.iter().skip(1) {
            let topic = self.topics.enter(of_topic(view, kind, name), kind, name);
            if !subscriptions.topics.contains_key(&topic)
                && let Some(local) = self.topics.local.get_mut(topic as usize)
            {
                subscriptions.topics.insert(topic, local.subscribers.len() as u32);
                subscriptions.counts[kind as usize] += 1;
                subscriptions.names += Subscriptions::cost(name);
                let client = index as u32;
                let since = Since::Asked { seq, wait: id };
                local.subscribers.push(Subscriber { client, generation, since });
                new.push((topic, local.generation));
                names.push((kind, Arc::clone(&local.name)));
                local.joining.insert(id);
                left += 1;
                self.topics.ask(topic);
            }
            let word = kind.subscribe().to_ascii_lowercase();
            confirmation(&mut reply, protocol, &word, Some(name), subscriptions.counted(kind));
        }
        if left > 0 {
            subscriptions.asked = Some(seq);
        }
        let client = ClientId::new(index, generation);
        let started = core.now;
        let mut wait = Wait { client, seq, command, started, left, reply, new, ticket: None };
        if left == 0 {
            return self.confirm(wait, clients, core);
        }
        core.shared.pending_subscriptions.expect(core.now);
        wait.ticket = Some(core.shared.pending_subscriptions.begin(names));
        let id = self.topics.wait(wait);
        if let Some(timeout) = core.settings.command_timeout {
            core.clock.timers.push(Timer { due: core.now + timeout, job: Job::Subscribe(id) });
        }
    }

    /// The cluster has confirmed all that a command asked for: the client is told. What waits for
    /// the command's ticket goes on when all is done.
    fn confirm(&mut self, wait: Wait, clients: &mut Clients, core: &mut Core) {
        let ClientId { index, generation } = wait.client;
        let Some(client) = clients.slab.get_mut(index as usize) else { return };
        if client.generation != generation {
            return;
        }
        for &(topic, topic_generation) in &wait.new {
            let place = client.subscriptions.as_ref().and_then(|s| s.topics.get(&topic));
            let token = Token { index: topic, generation: topic_generation };
            let local = self.topics.get(token);
            // It may have unsubscribed meanwhile, and subscribed again by another command.
            if let (Some(&place), Some(local)) = (place, local)
                && let Some(subscriber) = local.subscribers.get_mut(place as usize)
                && subscriber.is_asked_by(wait.seq)
            {
                subscriber.since = Since::Reply(wait.seq);
                if let Some(topic) = &local.topic {
                    topic.join(micros(core.clock.epoch));
                }
            }
        }
        client.complete(wait.seq, &wait.reply, &mut core.spare.pool);
        core.stats.count_own(wait.command, &wait.reply);
        clients.mark_client(index as usize, core);
    }

    /// A command is given up: what it was the first to ask for, its client is not subscribed to.
    fn give_up(&mut self, wait: Wait, failure: &Failure, clients: &mut Clients, core: &mut Core) {
        let ClientId { index, generation } = wait.client;
        let same = |c: &crate::client::Client| c.generation == generation && !c.gone;
        if !clients.slab.get(index as usize).is_some_and(same) {
            return;
        }
        for (topic, topic_generation) in wait.new {
            let token = Token { index: topic, generation: topic_generation };
            let place = clients
                .slab
                .get(index as usize)
                .and_then(|c| c.subscriptions.as_ref().and_then(|s| s.topics.get(&topic).copied()));
            let asked = |s: &Subscriber| s.is_asked_by(wait.seq);
            let subscriber = |local: &mut topics::Local| {
                place.and_then(|p| local.subscribers.get(p as usize)).is_some_and(asked)
            };
            if self.topics.get(token).is_some_and(subscriber) {
                self.leave(index as usize, topic, clients, core);
            }
        }
        let mut reply = Vec::new();
        failure.write(&mut reply);
        if let Some(stats) = core.stats.commands.get_mut(wait.command.index()) {
            stats.refused += 1;
        }
        if let Some(client) = clients.slab.get_mut(index as usize) {
            client.complete(wait.seq, &reply, &mut core.spare.pool);
        }
        clients.subscribed().settle(index as usize);
        clients.mark_client(index as usize, core);
    }

    /// The deadline of a SUBSCRIBE.
    pub(crate) fn subscribe_ends(&mut self, id: u64, clients: &mut Clients, core: &mut Core) {
        let Some(wait) = self.topics.end_wait(id) else { return };
        core.stats.deadline_exceeded += 1;
        let unconfirmed = wait.new.iter().find_map(|&(index, generation)| {
            let local = self.topics.get(Token { index, generation })?;
            let waits = local.waiting.contains(&id) || local.joining.contains(&id);
            waits.then(|| Key::new(&local.name))
        });
        let failure = Failure::Unsubscribed {
            seconds: core.now.saturating_sub(wait.started) as f64 / 1e6,
            topic: unconfirmed.unwrap_or_else(|| Key::new(b"")),
        };
        self.give_up(wait, &failure, clients, core);
    }

    pub(crate) fn unsubscribe(
        &mut self,
        index: usize,
        command: CommandId,
        kind: TopicKind,
        args: &Args,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(client) = clients.slab.get_mut(index) else { return };
        let protocol = client.session.protocol;
        let router = Arc::clone(&core.router);
        let view = router.view(client.session.view);
        let seq = client.expect_heard(&mut core.spare.replies);
        let word = kind.unsubscribe().to_ascii_lowercase();
        let mut reply = Vec::new();
        let counted = |clients: &Slab<Client>| {
            let client = clients.get(index);
            client.and_then(|c| c.subscriptions.as_ref()).map_or(0, |s| s.counted(kind))
        };
        for name in args.iter().skip(1) {
            let known = self.topics.find(of_topic(view, kind, name), kind, name);
            let is_own = |topic: &u32| {
                let client = clients.slab.get(index).and_then(|c| c.subscriptions.as_ref());
                client.is_some_and(|own| own.topics.contains_key(topic))
            };
            // The client, or the routes, may have been others when it subscribed.
            let topic = known
                .filter(is_own)
                .or_else(|| self.topics.of_any_upstream(kind, name).find(is_own));
            if let Some(topic) = topic {
                self.leave(index, topic, clients, core);
            }
            confirmation(&mut reply, protocol, &word, Some(name), counted(&clients.slab));
        }
        if args.len() == 1 {
            let all = self.topics_of(index, Some(kind), clients);
            for topic in &all {
                let name = self.topics.local.get(*topic as usize).map(|l| Arc::clone(&l.name));
                self.leave(index, *topic, clients, core);
                confirmation(&mut reply, protocol, &word, name.as_deref(), counted(&clients.slab));
            }
            if all.is_empty() {
                confirmation(&mut reply, protocol, &word, None, counted(&clients.slab));
            }
        }
        if let Some(client) = clients.slab.get_mut(index) {
            client.complete(seq, &reply, &mut core.spare.pool);
        }
        core.stats.count_own(command, &reply);
        clients.subscribed().settle(index);
        clients.mark_client(index, core);
    }

    /// The topics of a client, of one kind or all, the oldest first.
    fn topics_of(&self, index: usize, kind: Option<TopicKind>, clients: &Clients) -> Vec<u32> {
        let subscriptions = clients.slab.get(index).and_then(|c| c.subscriptions.as_ref());
        let topics = subscriptions.into_iter().flat_map(|s| s.topics.keys().copied());
        let local = |topic| Some((topic, self.topics.local.get(topic as usize)?));
        let of_kind = |(_, l): &(u32, &topics::Local)| kind.is_none_or(|k| l.kind == k);
        let mut found: Vec<_> = topics.filter_map(local).filter(of_kind).collect();
        found.sort_unstable_by_key(|(_, local)| local.generation);
        found.into_iter().map(|(topic, _)| topic).collect()
    }

    /// The client is not subscribed to a topic any more, if it was.
    pub(crate) fn leave(
        &mut self,
        index: usize,
        topic: u32,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(client) = clients.slab.get_mut(index) else { return };
        let Some(subscriptions) = client.subscriptions.as_mut() else { return };
        let Some(place) = subscriptions.topics.remove(&topic) else { return };
        let Some(local) = self.topics.local.get_mut(topic as usize) else { return };
        let cost = Subscriptions::cost(&local.name);
        subscriptions.names = subscriptions.names.saturating_sub(cost);
        let count = &mut subscriptions.counts[local.kind as usize];
        *count = count.saturating_sub(1);
        if local.subscribers.len() <= place as usize {
            return;
        }
        let gone = local.subscribers.swap_remove(place as usize);
        if let Some(moved) = local.subscribers.get(place as usize)
            && let Some(other) = clients.slab.get_mut(moved.client as usize)
            && let Some(theirs) = other.subscriptions.as_mut()
        {
            theirs.topics.insert(topic, place);
        }
        let mut waited = None;
        if let Since::Asked { wait, .. } = gone.since {
            // Its own command does not wait for it any more.
            let waits = local.waiting.remove(&wait) || local.joining.remove(&wait);
            waited = waits.then_some(wait);
        } else if let Some(topic) = &local.topic {
            topic.leave();
        }
        if local.subscribers.is_empty() {
            self.topics.remove(topic, true);
        }
        if let Some(wait) = waited {
            self.one_less(wait, clients, core);
        }
    }

    /// One of the topics that a command waits for needs no waiting any more.
    fn one_less(&mut self, id: u64, clients: &mut Clients, core: &mut Core) {
        let Some(wait) = self.topics.waits.get_mut(&id) else { return };
        wait.left = wait.left.saturating_sub(1);
        if wait.left == 0
            && let Some(wait) = self.topics.end_wait(id)
        {
            self.confirm(wait, clients, core);
        }
    }

    /// The client is not subscribed to anything any more (RESET), or is gone.
    pub(crate) fn leave_all(&mut self, index: usize, clients: &mut Clients, core: &mut Core) {
        let subscribed = clients.slab.get(index).is_some_and(|c| c.subscriptions.is_some());
        if subscribed {
            self.topics_of(index, None, clients)
                .into_iter()
                .for_each(|topic| self.leave(index, topic, clients, core));
            clients.subscribed().settle(index);
        }
    }

    /// The hub's news.
    pub(crate) fn hear_hub(&mut self, batch: &Batch, clients: &mut Clients, core: &mut Core) {
        for news in &batch.news {
            match news {
                HubEvent::Messages { token, frames } => {
                    self.messages(*token, frames, clients, core)
                }
                HubEvent::Known(topic) => self.topics.know(Arc::clone(topic)),
                HubEvent::Forgotten(topic) => self.topics.forget(topic),
                HubEvent::Live { token, topic } => {
                    let Some(local) = self.topics.get(*token) else { continue };
                    let again = local.topic.replace(Arc::clone(topic));
                    local.live = true;
                    if again.is_none_or(|before| !Arc::ptr_eq(&before, topic)) {
                        // Those who were confirmed before a hub failed are counted anew.
                        let heard = local.subscribers.iter().filter(|s| s.is_heard());
                        heard.for_each(|_| topic.join(0));
                    }
                    let waiting = std::mem::take(&mut local.waiting);
                    if !local.joining.is_empty() {
                        self.topics.ask(token.index);
                    }
                    waiting.into_iter().for_each(|id| self.one_less(id, clients, core));
                }
                HubEvent::Refused { token, text } => {
                    self.topic_refused(*token, text, clients, core)
                }
                HubEvent::Gap { token } => {
                    if let Some(local) = self.topics.get(*token) {
                        local.live = false;
                    }
                    self.gap(*token, clients, core);
                }
                HubEvent::Restarted => {
                    self.topics.wish_again();
                    let all = self.topics.local.iter();
                    let token =
                        |index: usize, generation| Token { index: index as u32, generation };
                    let all: Vec<Token> = all.map(|(i, l)| token(i, l.generation)).collect();
                    all.into_iter().for_each(|token| self.gap(token, clients, core));
                }
            }
        }
    }

    /// HOT PATH of pub/sub: messages go to all subscribers of their topic.
    fn messages(
        &mut self,
        token: Token,
        frames: &Arc<Frames>,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(local) = self.topics.get(token) else { return };
        let kind = local.kind as usize;
        let mut subscribers = std::mem::take(&mut local.subscribers);
        let items = frames.count() as u32;
        let mut views: [Option<Bytes>; 2] = [None, None];
        let mut delivered = 0;
        for subscriber in &mut subscribers {
            let index = subscriber.client as usize;
            let Some(client) = clients.slab.get_mut(index) else { continue };
            if client.generation != subscriber.generation {
                continue;
            }
            let protocol = client.session.protocol;
            let behind = match subscriber.since {
                Since::Confirmed => false,
                Since::Asked { .. } => continue,
                Since::Reply(seq) if client.answered_up_to(seq) => {
                    subscriber.since = Since::Confirmed;
                    false
                }
                Since::Reply(_) => true,
            };
            if behind {
                // The confirmation itself waits for other replies.
                let seq = client.expect_heard(&mut core.spare.replies);
                client.complete(seq, frames.bytes(protocol), &mut core.spare.pool);
                subscriber.since = Since::Reply(seq);
            } else {
                let bytes = views[protocol as usize].get_or_insert_with(|| {
                    Bytes::from_owner(View { frames: Arc::clone(frames), protocol })
                });
                client.push(bytes.clone(), items, &mut core.spare.replies);
            }
            delivered += u64::from(items);
            if !client.dirty {
                client.dirty = true;
                core.turn.dirty_clients.push(index);
            }
        }
        core.stats.deliveries[kind] += delivered;
        if let Some(local) = self.topics.get(token) {
            local.subscribers = subscribers;
        }
    }

    /// Messages of a topic may be missed.
    fn gap(&mut self, token: Token, clients: &mut Clients, core: &mut Core) {
        if core.settings.on_gap == OnGap::Disconnect {
            self.disconnect_subscribers(
                token,
                "messages may have been missed (pubsub.on_gap)",
                clients,
                core,
            );
        }
    }

    /// Closes the connections of those who rely on a topic.
    fn disconnect_subscribers(
        &mut self,
        token: Token,
        why: &str,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(local) = self.topics.get(token) else { return };
        let relying = local.subscribers.iter().filter(|s| s.is_heard());
        let all: Vec<usize> = relying.map(|s| s.client as usize).collect();
        if !all.is_empty() {
            sparsely!(
                core.lines.subscribers,
                warn,
                topic = %local.name.escape_ascii(),
                kind = TopicKind::NAMES[local.kind as usize],
                subscribers = all.len(),
                why,
                "subscribers are disconnected"
            );
        }
        all.into_iter().for_each(|index| clients.close(index, core));
    }

    /// The cluster refuses a topic (an ACL, say).
    fn topic_refused(&mut self, token: Token, text: &str, clients: &mut Clients, core: &mut Core) {
        // Who was subscribed before hears nothing any more, and must know.
        self.disconnect_subscribers(token, text, clients, core);
        let Some(local) = self.topics.get(token) else { return };
        let joining = std::mem::take(&mut local.joining);
        for id in std::mem::take(&mut local.waiting).into_iter().chain(joining) {
            if let Some(wait) = self.topics.end_wait(id) {
                self.give_up(wait, &Failure::Verbatim(text.as_bytes().into()), clients, core);
            }
        }
        // The token is over: without a word to the hub.
        if let Some(local) = self.topics.get(token) {
            let rest: Vec<usize> = local.subscribers.iter().map(|s| s.client as usize).collect();
            for index in rest {
                self.leave_all(index, clients, core);
                clients.close(index, core);
            }
            if self.topics.get(token).is_some() {
                self.topics.remove(token.index, false);
            }
        }
    }

    /// What was wished for in this turn goes to the hub.
    pub(crate) fn tell_hub(&mut self, core: &mut Core) {
        let wishes = self.topics.take_wishes();
        if wishes.is_empty() {
            return;
        }
        core.shared.say_to_hub(ToHub::Wishes { worker: core.link.index, wishes });
    }

    /// This worker's topics, and its share of the messages that subscribers have not taken.
    pub(crate) fn account_messages(&mut self, core: &mut Core) {
        if core.memory.accounted_messages > 0 || !self.topics.local.is_empty() {
            let held = core.shared.hub.stats.held.load(Relaxed) / core.settings.workers;
            let held = held + self.topics.held;
            reaccount(&mut core.memory.accounted, &mut core.memory.accounted_messages, held);
        }
    }
}

/// Appends a confirmation.
fn confirmation(
    out: &mut Vec<u8>,
    protocol: Protocol,
    word: &str,
    name: Option<&[u8]>,
    count: u32,
) {
    write::push_header(out, protocol, 3);
    write::bulk(out, word.as_bytes());
    match name {
        Some(name) => write::bulk(out, name),
        None => write::null(out, protocol),
    }
    write::integer(out, i64::from(count));
}
