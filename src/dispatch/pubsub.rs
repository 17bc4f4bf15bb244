//! Pub/sub commands.
//!
//! A worker announces a topic (channel, pattern, shard channel) to the hub when its first client
//! subscribes. A client's confirmation follows that of the cluster, in order with the client's
//! other replies. Messages are written at once, ahead of outstanding replies, but never before the
//! confirmation.

use crate::base::{Base, base};
use crate::client::Subscriptions;
use crate::clients::Flow;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::resp::Args;
use crate::route::PubSub;
use std::sync::atomic::Ordering::Relaxed;

impl Dispatcher<'_> {
    /// Carries out a pub/sub command. `slot`: of the channel of SPUBLISH.
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
                if self.engine.subscribers.is_asked(
                    index,
                    kind,
                    args,
                    &self.engine.clients,
                    &self.engine.core,
                ) =>
            {
                return self.engine.clients.pause_until_replied(index, &mut self.engine.core);
            }
            PubSub::Subscribe(kind) => {
                // One command may name a million topics.
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
