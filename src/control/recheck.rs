//! Rechecks of the cluster's users while clients of theirs are connected: does the user still
//! exist, and may it still receive what it is subscribed to?

use std::sync::Arc;

use super::node::NodeConn;
use super::verify::Verifier;
use crate::channel::TopicKind;
use crate::errors::Failure;
use crate::mailbox::ToWorker;
use crate::mailbox::UserRecheck;
use crate::resp::reply::error_text;
use crate::users::{Reverified, SubscribedTopic, UserCheck, is_refusal};

/// Limit on topics in one question.
const TOPICS_PER_QUESTION: usize = 128;
/// Limit on nodes that are asked before a password counts as wrong.
const MAX_NODES: usize = 16;

impl Verifier {
    /// Performs a recheck and tells the worker.
    pub async fn recheck(self: Arc<Self>, recheck: UserRecheck) {
        // A limit of their own, so that logins do not wait behind rechecks.
        let Ok(_place) = self.rechecks.acquire().await else { return };
        let mut denied = Vec::new();
        let known = self.find_denied(&recheck, &mut denied).await;
        let gone = (recheck.password || !known) && self.is_gone(&recheck).await;
        // The worker may have ended.
        recheck.to.send(ToWorker::Reverified(Reverified { realm: recheck.realm, gone, denied }));
    }

    /// Adds the topics that the user may no longer subscribe to. `false`: a node does not know the
    /// user.
    async fn find_denied(&self, recheck: &UserRecheck, denied: &mut Vec<(u32, u32)>) -> bool {
        let user = &recheck.who.user;
        let user = if user.is_empty() { b"default".as_slice().into() } else { Arc::clone(user) };
        for (kind, command) in [
            (TopicKind::Channel, "SUBSCRIBE"),
            (TopicKind::Pattern, "PSUBSCRIBE"),
            (TopicKind::Shard, "SSUBSCRIBE"),
        ] {
            let of_kind: Vec<&SubscribedTopic> =
                recheck.topics.iter().filter(|t| t.kind == kind).collect();
            let mut left: Vec<&[&SubscribedTopic]> = of_kind.chunks(TOPICS_PER_QUESTION).collect();
            while let Some(some) = left.pop() {
                let names = some.iter().map(|topic| topic.name.to_vec());
                let args = std::iter::once(command.into()).chain(names).collect();
                match (self.ask(&UserCheck::Command { user: Arc::clone(&user), args }).await, some)
                {
                    (Ok(_), _) => {}
                    (Err(Failure::ChannelDenied), [one]) => denied.push(one.place),
                    // At least one of them is denied: ask about halves.
                    (Err(Failure::ChannelDenied), many) => {
                        let (a, b) = many.split_at(many.len() / 2);
                        left.extend([a, b]);
                    }
                    (Err(why), _) => return !matches!(why, Failure::UserGone { .. }),
                }
            }
        }
        true
    }

    /// Whether some node refuses the user's credentials and none accepts them. Nodes may differ
    /// while an operator changes users on one after the other, or when a node is new.
    async fn is_gone(&self, recheck: &UserRecheck) -> bool {
        let access = self.pool.access(Self::UPSTREAM);
        let who = &recheck.who;
        let words: Vec<&[u8]> = match (who.user.is_empty(), who.password.is_empty()) {
            (true, true) => vec![b"PING"],
            (true, false) => vec![b"AUTH", &who.password],
            (false, _) => vec![b"AUTH", &who.user, &who.password],
        };
        let mut refused = false;
        for crate::cluster::Node { addr, .. } in self.nodes().into_iter().take(MAX_NODES) {
            let found = tokio::net::lookup_host((&*addr.host, addr.port)).await;
            let Some(socket) = found.ok().and_then(|mut all| all.next()) else { continue };
            let conn = NodeConn::connect_without_handshake(socket, &addr.host, &access).await;
            let Ok(mut conn) = conn else { continue };
            let Ok(reply) = conn.ask(&words).await else { continue };
            match error_text(&reply) {
                Some(text) if is_refusal(text) => refused = true,
                // Accepted, or an error that says nothing about the user.
                _ => return false,
            }
        }
        refused
    }
}
