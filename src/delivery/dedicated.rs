//! Replies on dedicated connections, which are lent to one client at a time, and their loss.
//!
//! A connection that is returned clean goes back to a small pool; one whose state is unknown is
//! closed. `limits.dedicated` limits the connections that are lent, over all workers: for most
//! errands ([`ErrandKind`]), and for MONITOR.

use crate::base::dedicated::protocol_of;
use crate::base::{Base, base};
use crate::delivery::Delivery;
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::errors::Failure;
use crate::ops::ErrandKind;
use crate::placement::{
    AfterLoss, AfterRefusal, Phase, Redirection, Refusal, Work, after_loss, after_refusal, concerns,
};
use crate::resp::Protocol;
use crate::resp::reply::{error_text, text};
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, Dedicated, Pending};
use crate::users::database_of;

/// A node's error to a blocked XREADGROUP whose stream is deleted.
const STREAM_GONE: &[u8] = b"UNBLOCKED the stream key no longer exists";

/// A node's error to blocked commands when it stops being a primary. The error after CLIENT UNBLOCK
/// has another text.
const DEMOTED: &[u8] = b"UNBLOCKED force unblock from blocking operation, instance state changed";

impl Delivery<'_> {
    /// Handles a complete reply on a dedicated connection. `said` is the node's error to a command
    /// in a batch, or `frame` itself. A blocking command that the node refuses or ends (MOVED when
    /// its slot moves) is sent again by `operations/errand.rs`.
    ///
    /// # Errors
    /// The connection has to be closed.
    pub(super) fn dedicated_reply(
        &mut self,
        conn: ConnId,
        said: &[u8],
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.engine.nodes.upstreams.get(conn) else { return Ok(()) };
        let Some(&pending) = up.pending.front() else {
            return self.engine.clients.monitors().hear(
                conn,
                frame,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        };
        let Some(Dedicated { client, .. }) = up.dedicated else { return Ok(()) };
        let node = up.node;
        let Dest::Client { index, generation, seq } = pending.dest else {
            return self.part_of_dedicated(conn, &pending, said, frame);
        };
        let me = ClientId { index, generation };
        let refusal = self.engine.nodes.list.get(node.at()).and_then(|n| {
            let refusal = Refusal::parse(said, &n.addr, n.slots)?;
            concerns(&refusal, pending.slot_of_keys(), pending.tries).then_some(refusal)
        });
        let owner =
            self.engine.clients.slab.get(index as usize).filter(|c| c.generation == generation);
        let errand = owner.and_then(|c| c.lent.as_ref()).and_then(|l| l.errand.as_ref());
        let Some(kind) = errand.filter(|e| e.seq == seq).map(|e| e.kind) else {
            // The client has disconnected.
            self.answer_first(conn, frame)?;
            self.engine.clients.lending().give_back(
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            return Ok(());
        };
        debug_assert_eq!(client, Some(me));
        match kind {
            ErrandKind::Block | ErrandKind::Watch => {
                // The node stopped being a primary while the command waited.
                let demoted = error_text(said).is_some_and(|t| t.starts_with(DEMOTED));
                // To the node that had it, a stream that migrates is deleted. Sending the command
                // again tells a migration from a deletion.
                let gone = error_text(said).is_some_and(|t| t.starts_with(STREAM_GONE));
                let told = errand.and_then(|e| e.last.clone());
                let told = told.filter(|t| t.as_bytes().starts_with(STREAM_GONE));
                let repeatable = errand.is_some_and(|e| e.repeatable);
                let ended = repeatable && (demoted || (gone && told.is_none()));
                let ended = ended.then_some(Refusal::Later(Redirection::ReadOnly));
                if let Some(refusal) = refusal.or(ended) {
                    let tries = errand.map_or(0, |e| e.tries).saturating_add(1);
                    let known = self.engine.nodes.named_by(&refusal, node).is_some();
                    let reads = errand.is_some_and(|errand| self.engine.core.only_reads(errand));
                    let work = errand.map_or(Work::Watch, |errand| errand.work(reads));
                    if let AfterRefusal::Again(when, scope) =
                        after_refusal(work, &refusal, known, tries)
                    {
                        return self.engine.ops.errands().refused(
                            conn,
                            me,
                            refusal,
                            (when, scope),
                            said,
                            &mut base!(self.engine),
                        );
                    }
                }
                let mut gone_after_all = Vec::new();
                if let Some(told) = &told
                    && error_text(said).is_some_and(|t| t.starts_with(b"NOGROUP"))
                {
                    crate::resp::write::error(&mut gone_after_all, told);
                }
                let answer = if told.is_some() && !gone_after_all.is_empty() {
                    &gone_after_all
                } else {
                    frame
                };
                self.answer_first(conn, answer)?;
                if kind == ErrandKind::Watch && frame.first() == Some(&b'+') {
                    self.engine.clients.watches().note(
                        me,
                        conn,
                        pending.slot,
                        &mut self.engine.core,
                    );
                } else if !self.engine.clients.watches().has(me, conn) {
                    self.engine.clients.lending().give_back(
                        conn,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    );
                }
                self.engine.clients.errands().end(me, seq, &mut self.engine.core);
            }
            ErrandKind::Exec => {
                // Nothing was executed, and another node now has the watched keys.
                let null: &[u8] = match protocol_of(&pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                let after = refusal.map(|refusal| after_refusal(Work::Exec, &refusal, false, 1));
                let aborted = after == Some(AfterRefusal::Aborted);
                if aborted {
                    let of = self.engine.nodes.upstream_behind(conn);
                    self.engine.core.link.want_topology(None, of);
                }
                self.answer_first(conn, if aborted { null } else { frame })?;
                self.engine.clients.lending().give_back(
                    conn,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
                self.engine.clients.errands().end(me, seq, &mut self.engine.core);
            }
            ErrandKind::Check { left, changed } => {
                self.engine.nodes.pop_pending(conn, &mut self.engine.core);
                let flags = text(frame).map(String::from_utf8_lossy).and_then(|line| {
                    let flags = line.split(' ').find_map(|f| f.strip_prefix("flags="));
                    flags.map(str::to_owned)
                });
                // The flag "d" means that a watched key has changed. A reply without flags, such as
                // an error, counts as a change.
                let changed = changed || flags.is_none_or(|f| f.contains('d'));
                self.checked(me, seq, left.saturating_sub(1), changed);
            }
            ErrandKind::Fleet | ErrandKind::Join | ErrandKind::Emulated => {
                self.answer_first(conn, frame)?
            }
        }
        Ok(())
    }

    /// Handles a reply on a dedicated connection to a part of a command over several connections,
    /// or to a command whose reply is discarded.
    ///
    /// # Errors
    /// The connection has to be closed.
    pub(super) fn part_of_dedicated(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        said: &[u8],
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        if let Dest::Join { join, part } = pending.dest {
            self.join_whole(conn, join, part, frame);
            return Ok(());
        }
        let Dest::Part { gather, .. } = pending.dest else { return self.answer_first(conn, frame) };
        let client = self
            .engine
            .nodes
            .upstreams
            .get(conn)
            .and_then(|up| up.dedicated)
            .and_then(|d| d.client);
        let node = self
            .engine
            .nodes
            .upstreams
            .get(conn)
            .and_then(|up| self.engine.nodes.list.get(up.node.at()));
        let refusal = node.and_then(|n| Refusal::parse(said, &n.addr, n.slots));
        let of = node.map(|n| n.upstream);
        let watches = client.is_some_and(|client| self.engine.clients.watches().has(client, conn));
        let work = self.engine.ops.gatherings.work_of_part(gather, watches);
        let after = refusal.map(|refusal| after_refusal(work, &refusal, false, 1));
        let aborted = after == Some(AfterRefusal::Aborted);
        if aborted && work == Work::ExecPiece {
            self.engine.core.link.want_topology(None, of);
            self.answer_first(conn, b"*-1\r\n")?;
        } else if aborted && let Some(client) = client {
            // The watch is void: EXEC will be answered as if the key had changed.
            self.engine.core.link.want_topology(None, of);
            self.engine.clients.lending().lent_of(client, |lent| {
                let watches = lent.watches.iter_mut();
                watches.filter(|w| w.upstream == Some(conn)).for_each(|w| w.upstream = None);
            });
            self.answer_first(conn, b"+OK\r\n")?;
        } else {
            self.answer_first(conn, frame)?;
        }
        let keep = client.is_some_and(|c| {
            self.engine.clients.watches().has(c, conn)
                || self.engine.clients.monitors().has(c, conn)
        });
        if !keep {
            if let Some(client) = client {
                self.engine
                    .clients
                    .lending()
                    .lent_of(client, |lent| lent.fleet.retain(|&f| f != conn));
            }
            self.engine.clients.lending().give_back(
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        Ok(())
    }

    /// Closes a dedicated connection that is lost or could not be established, and resends or fails
    /// its commands.
    #[cold]
    pub(crate) fn dedicated_lost(&mut self, conn: ConnId, why: &ConnectionEnd) {
        self.engine.clients.deliveries().abandon_arriving(
            conn,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(self.engine.core.link.poll.registry());
        }
        let given_up = up.lost(&mut self.engine.core.spare.pool, &[]);
        let kept: Vec<Pending> = up.pending.drain().collect();
        let client = up.dedicated.and_then(|d| d.client);
        let (realm, refused) = (up.realm, up.refused.take());
        let node = self.engine.nodes.list.get(up.node.at());
        let (node, of) = (node.map(|n| n.addr.to_string()), node.map(|n| n.upstream));
        let node = node.unwrap_or_default();
        tracing::debug!(node, %why, "a dedicated connection is lost");
        if let Some(stats) = self.engine.core.stats.nodes.get_mut(up.node.at()) {
            stats.failures += 1;
        }
        let monitored =
            client.is_some_and(|client| self.engine.clients.monitors().has(client, conn));
        self.engine.clients.lending().close(conn, &mut self.engine.nodes, &mut self.engine.core);
        self.engine.core.link.want_topology(None, of);
        let Some(client) = client else { return };
        if let Some(refused) = refused.filter(|_| database_of(realm).is_none()) {
            // Permanent: the user was removed, or its password has changed.
            if let Some(seq) =
                self.engine.clients.errands().of(client.at()).map(|errand| errand.seq)
            {
                self.engine.clients.errands().fail(
                    client,
                    seq,
                    Failure::Verbatim(refused),
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
            }
        }
        let lost =
            Failure::ConnectionLost { node: node.as_str().into(), why: why.to_string().into() };
        for (pending, sent) in
            given_up.iter().map(|p| (p, true)).chain(kept.iter().map(|p| (p, false)))
        {
            match pending.dest {
                Dest::Client { seq, .. } => self.errand_lost(client, seq, pending, sent, &lost),
                Dest::Part { gather, first } => {
                    let phase = if sent { Phase::Sent } else { Phase::Unsent };
                    match after_loss(self.engine.ops.gatherings.work_of_part(gather, false), phase)
                    {
                        AfterLoss::Aborted => {
                            self.engine.part(gather, first, NodeId::NONE, b"*-1\r\n");
                        }
                        AfterLoss::OutcomeUnknown => {
                            self.engine.core.stats.outcome_unknown += 1;
                            self.engine.core.fail(pending, &node, &lost);
                        }
                        _ => {
                            let outcome = match pending.flags.contains(PendingFlags::READ_ONLY) {
                                true => "it gave no reply",
                                false => "the command was not sent there",
                            };
                            let failure = Failure::NodeUnreachable {
                                node: node.as_str().into(),
                                why: why.to_string().into(),
                                outcome,
                            };
                            self.engine.core.fail(pending, &node, &failure);
                        }
                    }
                }
                Dest::Join { join, .. } => {
                    self.engine.ops.joining().lost(join, &mut base!(self.engine))
                }
                Dest::Discard => {}
            }
        }
        if monitored {
            self.engine.clients.monitors().listen_later(client, &mut self.engine.core);
        }
    }
}
