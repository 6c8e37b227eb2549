//! What allowed calls took from limits, added to what the database says: read, computed, written back in one transaction.

use std::collections::BTreeMap;

use super::{ChargeTaken, LimitStateRow, limit_state_row};
use crate::audit::record::Charge;
use crate::store::StoreError;
use crate::store::sql::{Built, Row, Tx};

/// Limits per statement.
const PER_STATEMENT: usize = 200;

impl LimitStateRow {
    fn new(key: [u8; 16]) -> Self {
        Self { key, day: i64::MIN, used: 0, tat_us: 0 }
    }

    /// Takes a charge: the quota of the later day counts, the bucket moves by the generic cell rate algorithm.
    fn take(&mut self, taken: &ChargeTaken) {
        let Charge { refill_us, units, .. } = taken.charge;
        let day = taken.called_at.utc_day();
        if day > self.day {
            (self.day, self.used) = (day, 0);
        }
        if day == self.day {
            self.used = self.used.saturating_add(i64::from(units));
        }
        if refill_us > 0 {
            let step = i64::try_from(refill_us).unwrap_or(i64::MAX).saturating_mul(i64::from(units));
            self.tat_us = self.tat_us.max(taken.called_at.0).saturating_add(step);
        }
    }
}

/// Adds `charges`. Nodes may have taken from the same limits: on PostgreSQL each row is locked, always in the order of keys.
pub(super) async fn take(tx: &mut Tx, charges: &[ChargeTaken]) -> Result<(), StoreError> {
    let mut states: BTreeMap<[u8; 16], LimitStateRow> = BTreeMap::new();
    for taken in charges {
        states.entry(taken.charge.key).or_insert_with_key(|key| LimitStateRow::new(*key));
    }
    let keys: Vec<[u8; 16]> = states.keys().copied().collect();
    if let Tx::Postgres(..) = tx {
        // A row that is not there cannot be locked; two nodes could both begin it. All of them before the first is locked:
        // whoever holds a lock needs nothing any more that another may be about to begin.
        let none: Vec<LimitStateRow> = keys.iter().map(|key| LimitStateRow::new(*key)).collect();
        for none in none.chunks(PER_STATEMENT) {
            write(tx, none, "DO NOTHING").await?;
        }
    }
    for keys in keys.chunks(PER_STATEMENT) {
        for row in known(tx, keys).await? {
            let stored = limit_state_row(&row)?;
            states.insert(stored.key, stored);
        }
    }
    for taken in charges {
        if let Some(state) = states.get_mut(&taken.charge.key) {
            state.take(taken);
        }
    }
    let states: Vec<LimitStateRow> = states.into_values().collect();
    for states in states.chunks(PER_STATEMENT) {
        write(tx, states, "DO UPDATE SET day = excluded.day, used = excluded.used, tat_us = excluded.tat_us").await?;
    }
    Ok(())
}

/// What is known of limits, which stays so until the transaction is over.
async fn known(tx: &mut Tx, keys: &[[u8; 16]]) -> Result<Vec<Row>, StoreError> {
    let mut query = Built::new(tx.dialect(), "SELECT key, day, used, tat_us FROM limit_state WHERE key IN (");
    list(&mut query, keys, |query, key| {
        query.push_bind(key.as_slice());
    });
    query.push(")").push_either("", " ORDER BY key FOR UPDATE");
    query.build().fetch_all(tx).await
}

async fn write(tx: &mut Tx, states: &[LimitStateRow], conflict: &'static str) -> Result<(), StoreError> {
    let mut query = Built::new(tx.dialect(), "INSERT INTO limit_state (key, day, used, tat_us) VALUES ");
    list(&mut query, states, |query, state| {
        query.push("(").push_bind(state.key.as_slice()).push(", ").push_bind(state.day).push(", ");
        query.push_bind(state.used).push(", ").push_bind(state.tat_us).push(")");
    });
    query.push(" ON CONFLICT (key) ").push(conflict);
    query.build().execute(tx).await.map(drop)
}

fn list<T>(query: &mut Built, items: &[T], mut push: impl FnMut(&mut Built, &T)) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            query.push(", ");
        }
        push(query, item);
    }
}
