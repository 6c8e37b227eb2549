//! Calls that are over, as rows of one commit. Must not know files.

use std::collections::HashSet;

use uuid::Uuid;

use super::BATCH_ROWS;
use crate::audit::canonical;
use crate::audit::gap::Gap;
use crate::audit::journal::entry::Draft;
use crate::audit::ledger::tree::Frontier;
use crate::audit::record::Decision;
use crate::clock::Clock;
use crate::store::calls::{ChargeTaken, DrainBatch};
use crate::store::ledger::Growth;

/// A batch being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) batch: DrainBatch,
    /// The node's tree without the batch.
    tree: Frontier,
    /// The most rows it is to have.
    most: usize,
    clock: Clock,
}

impl Gathering {
    pub(super) fn new(node_id: Uuid, tree: Frontier, synced: bool, clock: &Clock) -> Self {
        let batch = DrainBatch { node: node_id, synced, ..DrainBatch::default() };
        Self { batch, tree, most: BATCH_ROWS, clock: clock.clone() }
    }

    /// The node's tree as it is in the database.
    pub(super) fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Whether the batch should be committed before more is read.
    pub(super) fn full(&self) -> bool {
        self.batch.rows.len() >= self.most
    }

    /// The batch is in the database: it is emptied, and the next may be larger.
    pub(super) fn committed(&mut self) {
        if self.full() {
            self.most = (self.most * 2).min(BATCH_ROWS);
        }
        let growth = std::mem::take(&mut self.batch.growth);
        if growth.frontier.size() > self.tree.size() {
            self.tree = growth.frontier;
        }
        self.empty();
    }

    /// Gives up the batch, which was too much for the database at once: what it holds is read again, half of it first.
    pub(super) fn give_up(&mut self) {
        self.most = (self.batch.rows.len().min(self.most) / 2).max(1);
        self.empty();
    }

    fn empty(&mut self) {
        let DrainBatch { node, synced, .. } = self.batch;
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

    /// Adds a gap.
    pub(super) fn gap(&mut self, gap: &Gap) {
        tracing::error!(
            cause = gap.cause.as_str(),
            place = gap.place,
            calls = gap.calls,
            "calls are missing: the log says so"
        );
        self.batch.rows.push(gap.row(self.batch.node, self.clock.wall()));
    }
}
