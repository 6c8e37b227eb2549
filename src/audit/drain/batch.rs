//! Calls that are over, as rows of one commit. Must not know files.

use std::collections::HashSet;

use uuid::Uuid;

use super::BATCH_ROWS;
use crate::audit::canonical;
use crate::audit::journal::entry::Draft;
use crate::audit::ledger::tree::Frontier;
use crate::audit::record::Decision;
use crate::store::calls::{ChargeTaken, DrainBatch};
use crate::store::ledger::Growth;

/// A batch being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) batch: DrainBatch,
    /// The node's tree without the batch.
    tree: Frontier,
}

impl Gathering {
    pub(super) fn new(node_id: Uuid, tree: Frontier, synced: bool) -> Self {
        Self { batch: DrainBatch { node: node_id, synced, ..DrainBatch::default() }, tree }
    }

    /// The node's tree as it is in the database.
    pub(super) fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Whether the batch should be committed before more is read.
    pub(super) fn full(&self) -> bool {
        self.batch.rows.len() >= BATCH_ROWS
    }

    /// The batch is in the database: it is emptied.
    pub(super) fn committed(&mut self) {
        let DrainBatch { node, synced, growth, .. } = std::mem::take(&mut self.batch);
        if growth.frontier.size() > self.tree.size() {
            self.tree = growth.frontier;
        }
        self.batch = DrainBatch { node, synced, ..DrainBatch::default() };
    }

    /// Leaves out calls that are rows already.
    pub(super) fn leave_out(&mut self, known: &HashSet<Uuid>) {
        let DrainBatch { rows, charges, .. } = &mut self.batch;
        rows.retain(|row| !known.contains(&row.id));
        charges.retain(|taken| !known.contains(&taken.call));
    }

    /// Gives the rows their places in the node's tree.
    pub(super) fn seal(&mut self) {
        let mut growth = Growth::of(self.tree.clone());
        for row in &mut self.batch.rows {
            row.leaf_hash = canonical::leaf_hash(row);
            growth.push(row.leaf_hash);
            row.seq = growth.frontier.size().cast_signed();
        }
        self.batch.growth = growth;
    }

    /// Adds a call: the payload that begins it, and the one that ends it; without one it was interrupted. `None` if they cannot
    /// be read.
    pub(super) fn add(&mut self, intent: &[u8], outcome: Option<&[u8]>) -> Option<()> {
        let mut draft = Draft::new(self.batch.node);
        draft.apply(intent)?;
        if let Some(outcome) = outcome {
            draft.apply(outcome)?;
        }
        let Draft { row, charge } = draft;
        if let Some(charge) = charge
            && row.decision == Decision::Allowed.as_str()
        {
            self.batch.charges.push(ChargeTaken { call: row.id, charge, called_at: row.called_at });
        }
        self.batch.rows.push(row);
        Some(())
    }
}
