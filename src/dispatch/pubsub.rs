//! SUBSCRIBE and its kin; messages find their subscribers.
//!
//! A topic (channel, pattern, shard channel) is told to the hub with its first subscriber of this
//! worker. A client has its confirmation when the cluster has confirmed the topic, at its place
//! among the client's replies; messages go out at once, past replies that are awaited, but never
//! before the confirmation.

use crate::base::{Base, base};
use crate::client::Subscriptions;
use crate::clients::Flow;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::resp::Args;
use crate::route::PubSub;
use std::sync::atomic::Ordering::Relaxed;

impl Dispatcher<'_> {
    pub(super) fn pubsub(
        &mut self,
        index: usize,
        command: CommandId,
        which: PubSub,
        slot: Option<crate::cluster::Slot>,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        match which {
            PubSub::Publish | PubSub::ShardPublish if self.publish_waits(index, args) => {
                return Flow::Pause;
            }
            PubSub::Publish => {
                return self.engine.ops.publish(
                    index,
                    command,
                    frame,
                    args,
                    &mut base!(self.engine),
                );
            }
            PubSub::ShardPublish => {
                return self.engine.ops.shard_publish(
                    index,
                    command,
                    slot,
                    frame,
                    &mut base!(self.engine),
                );
            }
            PubSub::Query(ask) => return self.ask_subscribers(index, command, ask, frame),
            PubSub::Subscribe(kind)
                if self.engine.subscribers.is_asked(index, kind, args, &self.engine.clients) =>
            {
                return self.engine.clients.pause_until_replied(index, &mut self.engine.core);
            }
            PubSub::Subscribe(kind) => {
                // One command may name a million.
                let cost = args.iter().skip(1).map(Subscriptions::cost).sum();
                if !self.engine.clients.memory().has_room_for(
                    cost,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ) {
                    return self.engine.clients.refusals().for_memory(
                        index,
                        command,
                        &mut self.engine.core,
                    );
                }
                self.engine.subscribers.subscribe(
                    index,
                    command,
                    kind,
                    args,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                );
            }
            PubSub::Unsubscribe(kind) => self.engine.subscribers.unsubscribe(
                index,
                command,
                kind,
                args,
                &mut self.engine.clients,
                &mut self.engine.core,
            ),
        }
        if self.engine.core.shared.monitors.load(Relaxed) > 0 {
            self.engine.clients.monitors().show(index, command, args, true, &mut self.engine.core);
        }
        Flow::Next
    }
}
