//! SUBSCRIBE and its kin; messages find their subscribers.
//!
//! A topic (channel, pattern, shard channel) is told to the hub with its first subscriber of this
//! worker. A client has its confirmation when the cluster has confirmed the topic, at its place
//! among the client's replies; messages go out at once, past replies that are awaited, but never
//! before the confirmation.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::{Base, base};
use crate::client::Subscriptions;
use crate::clients::Flow;
use crate::command::CommandId;
use crate::resp::Args;
use crate::route::PubSub;
use crate::worker::Worker;

impl Worker {
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
                return self.ops.publish(index, command, frame, args, &mut base!(self));
            }
            PubSub::ShardPublish => {
                return self.ops.shard_publish(index, command, slot, frame, &mut base!(self));
            }
            PubSub::Query(ask) => return self.ask_subscribers(index, command, ask, frame),
            PubSub::Subscribe(kind)
                if self.subscribers.is_asked(index, kind, args, &self.clients) =>
            {
                return self.clients.pause_until_replied(index, &mut self.core);
            }
            PubSub::Subscribe(kind) => {
                // One command may name a million.
                let cost = args.iter().skip(1).map(Subscriptions::cost).sum();
                if !self.clients.memory().has_room_for(cost, &mut self.nodes, &mut self.core) {
                    return self.clients.refusals().for_memory(index, command, &mut self.core);
                }
                self.subscribers.subscribe(
                    index,
                    command,
                    kind,
                    args,
                    &mut self.clients,
                    &mut self.core,
                );
            }
            PubSub::Unsubscribe(kind) => self.subscribers.unsubscribe(
                index,
                command,
                kind,
                args,
                &mut self.clients,
                &mut self.core,
            ),
        }
        if self.core.shared.monitors.load(Relaxed) > 0 {
            self.clients.monitors().show(index, command, args, true, &mut self.core);
        }
        Flow::Next
    }
}
