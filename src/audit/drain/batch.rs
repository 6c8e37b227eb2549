//! Calls that are over, as rows of one commit. Must not know files.

use std::collections::HashSet;

use uuid::Uuid;

use super::BATCH_ROWS;
use crate::audit::canonical;
use crate::audit::journal::entry::Draft;
use crate::audit::record::Decision;
use crate::store::calls::{ChargeTaken, DrainBatch};

/// A batch being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) batch: DrainBatch,
    /// The last one given out.
    seq: i64,
}

impl Gathering {
    pub(super) fn new(node_id: Uuid, last_seq: i64, synced: bool) -> Self {
        Self { batch: DrainBatch { node: node_id, synced, ..DrainBatch::default() }, seq: last_seq }
    }

    /// Whether the batch should be committed before more is read.
    pub(super) fn full(&self) -> bool {
        self.batch.rows.len() >= BATCH_ROWS
    }

    /// Empties the batch, which is committed.
    pub(super) fn clear(&mut self) {
        let DrainBatch { node, synced, .. } = self.batch;
        self.batch = DrainBatch { node, synced, ..DrainBatch::default() };
    }

    /// Leaves out calls that are rows already; the others move up.
    pub(super) fn leave_out(&mut self, known: &HashSet<Uuid>) {
        let DrainBatch { rows, charges, .. } = &mut self.batch;
        let Some(mut seq) = rows.first().map(|first| first.seq) else { return };
        rows.retain(|row| !known.contains(&row.id));
        charges.retain(|taken| !known.contains(&taken.call));
        for row in rows {
            row.seq = seq;
            row.leaf_hash = canonical::leaf_hash(row);
            seq += 1;
        }
        self.seq = seq - 1;
    }

    /// Adds a call: the payload that begins it, and the one that ends it; without one it was interrupted. `None` if they cannot
    /// be read.
    pub(super) fn add(&mut self, intent: &[u8], outcome: Option<&[u8]>) -> Option<()> {
        let mut draft = Draft::new(self.batch.node);
        draft.apply(intent)?;
        if let Some(outcome) = outcome {
            draft.apply(outcome)?;
        }
        let Draft { mut row, charge } = draft;
        self.seq += 1;
        row.seq = self.seq;
        row.leaf_hash = canonical::leaf_hash(&row);
        if let Some(charge) = charge
            && row.decision == Decision::Allowed.as_str()
        {
            self.batch.charges.push(ChargeTaken { call: row.id, charge, called_at: row.called_at });
        }
        self.batch.rows.push(row);
        Some(())
    }
}
