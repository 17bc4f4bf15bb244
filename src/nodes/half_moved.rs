//! Slots that are being migrated, as commands have met them.

use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::ConnId;
use crate::nodes::{Nodes, Placement};
use crate::placement::{MigrationNews, Refusal};

impl Placement {
    /// What a refusal says of its slot's migration.
    pub(crate) fn note_migration(&mut self, slot: Slot, refusal: &Refusal) {
        match MigrationNews::of(refusal) {
            _ if slot.is_keyless() => {}
            MigrationNews::To(addr) => self.slots.migration_mut(slot).leads_to(addr.clone()),
            MigrationNews::Over => self.slots.migrated(slot),
            MigrationNews::None => {}
        }
    }
}

impl Nodes {
    /// The answer to a probe.
    #[cold]
    pub(crate) fn note_probe(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(up) = self.upstreams.get(conn) else { return };
        let Some(slot) = up.pending.front().map(|pending| pending.slot) else { return };
        let Some(node) = self.list.get(up.node.at()) else { return };
        if let Some(refusal @ Refusal::Ask(at, _)) = Refusal::parse(frame, &node.addr, node.slots)
            && at == slot
        {
            self.placement.note_migration(slot, &refusal);
        }
    }

    /// Why a command that was refused with TRYAGAIN could not be executed.
    pub(crate) fn half_moved_text(&self, slot: Slot, command: CommandId, core: &Core) -> String {
        let owner = self.placement.slots.owner(slot).and_then(|n| self.list.get(n.at()));
        let from = owner.map(|node| &node.addr);
        let to = self.placement.slots.migration(slot).and_then(|migration| migration.to());
        let way = match (from, to) {
            (Some(from), Some(to)) if from != to => format!("from {from} to {to}"),
            (Some(from), _) => format!("away from {from}"),
            (None, _) => "to another node".to_owned(),
        };
        let name = core.router.table().get(command).name.to_ascii_uppercase();
        format!(
            "slot {slot} is being migrated {way}, and {} needs all its keys at one node; let the \
             migration finish, or raise timeouts.command",
            name.replace('|', " ")
        )
    }
}
