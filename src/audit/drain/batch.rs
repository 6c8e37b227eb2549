//! Calls that are over, as rows of one commit. Must not know files.

use std::collections::HashSet;

use uuid::Uuid;

use super::BATCH_ROWS;
use crate::audit::canonical;
use crate::audit::gap::Gap;
use crate::audit::journal::entry::Draft;
use crate::audit::record::Decision;
use crate::clock::Clock;
use crate::store::calls::{ChargeTaken, DrainBatch};
use crate::store::rows::CallRow;

/// A batch being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) batch: DrainBatch,
    /// The last one given out.
    seq: i64,
    /// The most rows it is to have.
    most: usize,
    clock: Clock,
}

impl Gathering {
    pub(super) fn new(node_id: Uuid, last_seq: i64, synced: bool, clock: &Clock) -> Self {
        let batch = DrainBatch { node: node_id, synced, ..DrainBatch::default() };
        Self { batch, seq: last_seq, most: BATCH_ROWS, clock: clock.clone() }
    }

    /// Whether the batch should be committed before more is read.
    pub(super) fn full(&self) -> bool {
        self.batch.rows.len() >= self.most
    }

    /// Empties the batch, which is committed: the next may be larger.
    pub(super) fn clear(&mut self) {
        if self.full() {
            self.most = (self.most * 2).min(BATCH_ROWS);
        }
        self.empty();
    }

    /// Gives up the batch, which was too much for the database at once: what it holds is read again, half of it first.
    pub(super) fn give_up(&mut self) {
        self.most = (self.batch.rows.len().min(self.most) / 2).max(1);
        self.seq = self.batch.rows.first().map_or(self.seq, |first| first.seq - 1);
        self.empty();
    }

    fn empty(&mut self) {
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
        let Draft { row, charge } = draft;
        if let Some(charge) = charge
            && row.decision == Decision::Allowed.as_str()
        {
            self.batch.charges.push(ChargeTaken { call: row.id, charge, called_at: row.called_at });
        }
        self.push(row);
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
        self.push(gap.row(self.batch.node, self.clock.wall()));
    }

    fn push(&mut self, mut row: CallRow) {
        self.seq += 1;
        row.seq = self.seq;
        row.leaf_hash = canonical::leaf_hash(&row);
        self.batch.rows.push(row);
    }
}
