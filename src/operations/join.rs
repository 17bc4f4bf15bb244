//! Replies that are joined to one as they come (KEYS).

use crate::base::Base;
use crate::clients::lending::LendError;
use crate::clients::{Clients, Flow};
use crate::cluster::{Slot, UpstreamId};
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ClientId, ConnId, Dest};
use crate::errors::{Failure, Unanswered};
use crate::metrics::RetryReason;
use crate::operations::Operations;
use crate::ops::{Errand, ErrandKind, KeyLists};
use crate::placement::{
    AfterLoss, AfterRefusal, GateClass, Phase, Refusal, Work, after_loss, after_refusal,
};
use crate::resp::reply::error_text;

/// One KEYS under way.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) client: ClientId,
    pub(crate) seq: u32,
    pub(crate) command: CommandId,
    pub(crate) started: u64,
    pub(crate) lists: KeyLists,
    /// Each list's connection, while it is needed.
    pub(crate) upstreams: Vec<Option<ConnId>>,
}

/// Replies that are joined to one as they come.
pub(crate) struct Joining<'a> {
    ops: &'a mut Operations,
}

impl Operations {
    /// The methods about replies that are joined as they come.
    #[inline]
    pub(crate) fn joining(&mut self) -> Joining<'_> {
        Joining { ops: self }
    }
}

impl Joining<'_> {
    /// KEYS, once the client is owed nothing.
    pub(crate) fn start(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.slab.get(index).is_some_and(|c| !c.is_drained()) {
            return base.clients.pause_until_replied(index, base.core);
        }
        let errand =
            Errand::new(ErrandKind::Join, command, Slot::NONE, frame.to_vec(), base.core.now);
        base.clients.errands().begin(index, errand, Some(0), base.core);
        self.send(index, base);
        Flow::Next
    }

    /// Asks all primaries, the first time or anew.
    pub(crate) fn send(&mut self, index: usize, base: &mut Base<'_>) {
        let view = base.core.router.view(base.clients.view_of(index));
        let upstreams = view.upstreams();
        let targets = base.nodes.fan_targets(upstreams, crate::route::Fan::Primaries, base.core);
        let Some(client) = base.clients.slab.get_mut(index) else { return };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        let (seq, command, started) = (errand.seq, errand.command, errand.started);
        let (frame, tries) = (errand.frame.clone(), errand.tries);
        let mut nodes = Vec::new();
        for target in targets {
            match target {
                Ok(node) => nodes.push(node),
                // As any command for one of its slots would: until its deadline.
                Err(missing) => {
                    if let Some(errand) = base.clients.errands().of(index) {
                        let name = missing.name();
                        errand.last =
                            Some(Failure::ShardWithoutPrimary { shard: name.into() }.to_string());
                    }
                    if let Some(mut failure) =
                        base.nodes.without_primary(missing.slot(), GateClass::Read, base.core)
                    {
                        // Other primaries may have been asked before.
                        if let (true, Failure::PrimaryMissing { outcome, .. }) =
                            (tries > 0, &mut failure)
                        {
                            *outcome = Unanswered::Harmless;
                        }
                        base.core.stats.no_primary += 1;
                        return base
                            .clients
                            .errands()
                            .fail(me, seq, failure, base.nodes, base.core);
                    }
                    let pause = base.clients.errands().no_primary_pause(index, base.core);
                    return base.core.errand_later(me, seq, pause);
                }
            }
        }
        if nodes.is_empty() {
            return base.clients.errands().fail(
                me,
                seq,
                base.nodes.topology.no_cluster_failure(base.core),
                base.nodes,
                base.core,
            );
        }
        let join = Join {
            client: me,
            seq,
            command,
            started,
            lists: KeyLists::new(nodes.len()),
            upstreams: vec![None; nodes.len()],
        };
        let j = self.ops.joins.insert(join);
        for (part, node) in nodes.into_iter().enumerate() {
            match base.clients.lending().lend(node, protocol, me, base.nodes, base.core) {
                Ok(conn) => {
                    self.set_upstream(j as u32, part, Some(conn));
                    let dest = Dest::Join { join: j as u32, part: part as u32 };
                    let mut pending = self.ops.pending(
                        dest,
                        command,
                        Slot::NONE,
                        protocol,
                        base.access,
                        base.clients,
                        base.core,
                    );
                    match base.nodes.checks().keys_behind_check(conn, &mut pending, &frame) {
                        Some(checked) => base.nodes.send_owned(conn, pending, checked, base.core),
                        None => base.nodes.send(conn, pending, &frame, base.core),
                    }
                }
                Err(refused) => {
                    self.end(j, base);
                    return match refused {
                        LendError::NotNow => {
                            let pause = base.clients.errands().no_primary_pause(index, base.core);
                            base.core.errand_later(me, seq, pause);
                        }
                        LendError::Limit(failure) => {
                            base.clients.errands().fail(me, seq, failure, base.nodes, base.core)
                        }
                    };
                }
            }
        }
    }

    /// Forgets a join and closes its connections, which may be in the middle of a list.
    pub(crate) fn end(&mut self, j: usize, base: &mut Base<'_>) -> Option<Join> {
        let join = self.ops.joins.try_remove(j)?;
        for conn in join.upstreams.iter().flatten() {
            base.clients.lending().close(*conn, base.nodes, base.core);
        }
        Some(join)
    }

    /// The client is gone.
    pub(crate) fn end_all_of(&mut self, client: ClientId, base: &mut Base<'_>) {
        let its = |(j, join): (usize, &Join)| (join.client == client).then_some(j);
        for j in self.ops.joins.iter().filter_map(its).collect::<Vec<_>>() {
            self.end(j, base);
        }
    }

    pub(crate) fn set_upstream(&mut self, j: u32, part: usize, conn: Option<ConnId>) {
        let join = self.ops.joins.get_mut(j as usize);
        if let Some(place) = join.and_then(|join| join.upstreams.get_mut(part)) {
            *place = conn;
        }
    }

    pub(crate) fn stream(
        &mut self,
        j: usize,
        piece: &[u8],
        last: bool,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(join) = self.ops.joins.get(j) else { return };
        let (id, seq) = (join.client, join.seq);
        if let Some(client) = clients.slab.get_mut(id.at())
            && client.generation == id.generation
        {
            client.stream(seq, piece, last, &mut core.spare.pool);
            clients.mark_client(id.at(), core);
        }
    }

    /// A node of upstream `of` has refused the read in front of its list. One that does not serve its shard: all are
    /// asked again.
    fn refused(
        &mut self,
        j: u32,
        refusal: &Refusal,
        text: &str,
        of: Option<UpstreamId>,
        base: &mut Base<'_>,
    ) {
        let Some(join) = self.ops.joins.get(j as usize) else { return };
        let after =
            after_refusal(Work::KeyList { begun: join.lists.has_begun() }, refusal, false, 1);
        if after == AfterRefusal::PassedOn {
            return;
        }
        let Some(join) = self.end(j as usize, base) else { return };
        if after == AfterRefusal::Closed {
            return base.clients.close(join.client.at(), base.core);
        }
        base.core.stats.redirections[refusal.kind() as usize] += 1;
        base.core.link.want_topology(None, of);
        let index = join.client.at();
        if let Some(errand) = base.clients.errands().of(index).filter(|e| e.seq == join.seq) {
            errand.last = Some(text.to_owned());
        }
        let pause = base.clients.errands().no_primary_pause(index, base.core);
        base.core.stats.count_retry(RetryReason::Refused(refusal.kind()));
        base.core.errand_later(join.client, join.seq, pause);
    }

    /// A node's connection is lost in the middle: all are asked again, unless the client has seen
    /// the beginning.
    pub(crate) fn lost(&mut self, j: u32, base: &mut Base<'_>) {
        let Some(join) = self.end(j as usize, base) else { return };
        let work = Work::KeyList { begun: join.lists.has_begun() };
        if after_loss(work, Phase::Sent) == AfterLoss::Closed {
            return base.clients.close(join.client.at(), base.core);
        }
        let pause = base.clients.errands().no_primary_pause(join.client.at(), base.core);
        base.core.stats.count_retry(RetryReason::Lost);
        base.core.errand_later(join.client, join.seq, pause);
    }

    /// The reply to the read in front of KEYS. If the node refuses it, connection `conn` is closed
    /// and the list that follows is not read.
    #[cold]
    pub(crate) fn keys_checked(
        &mut self,
        conn: ConnId,
        join: u32,
        frame: &[u8],
        base: &mut Base<'_>,
    ) {
        let Some(up) = base.nodes.upstreams.get_mut(conn) else { return };
        let Some(text) = error_text(frame) else {
            up.serves_shard = true;
            return;
        };
        let node = base.nodes.list.get(up.node.at());
        let of = node.map(|node| node.upstream);
        if let Some(refusal) = node.and_then(|node| Refusal::parse(frame, &node.addr, node.slots)) {
            let text = String::from_utf8_lossy(text).into_owned();
            self.refused(join, &refusal, &text, of, base);
        }
    }
}
