//! Legal holds: what must stay as it is, however old, until it is released.

use uuid::Uuid;

use super::calls::ledger_turn;
use super::rows::AdminEvent;
use super::sql::{On, Row, query};
use super::{Store, StoreError, columns, events};
use crate::clock::Timestamp;

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// Names it.
    pub id: Uuid,
    /// Calls it made or received; `None`: everybody's.
    pub agent: Option<Uuid>,
    /// Calls that arrived then or later; `None`: from the first on.
    pub since: Option<Timestamp>,
    /// Calls that arrived before; `None`: all that will come, too.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who placed it, as in the log of changes.
    pub placed_by: String,
    /// When.
    pub placed_at: Timestamp,
    /// From then on it holds nothing.
    pub released_at: Option<Timestamp>,
}

impl HoldRow {
    /// Whether it holds a call between these that arrived at `called_at`.
    #[must_use]
    pub fn covers(&self, caller: Option<Uuid>, target: Option<Uuid>, called_at: Timestamp) -> bool {
        self.agent.is_none_or(|agent| caller == Some(agent) || target == Some(agent))
            && self.since.is_none_or(|since| called_at >= since)
            && self.until.is_none_or(|until| called_at < until)
    }
}

impl Store {
    /// All holds, those that were released, too; the newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn holds(&self) -> Result<Vec<HoldRow>, StoreError> {
        let rows = query("SELECT * FROM ledger_holds ORDER BY placed_at DESC, id DESC").fetch_all(&self.reader).await?;
        rows.iter().map(hold).collect()
    }

    /// Those that hold something.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn holds_in_force(&self) -> Result<Vec<HoldRow>, StoreError> {
        in_force(&self.reader).await
    }

    /// Places a hold: once this returns, nothing that it covers is erased or dropped any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn place_hold(&self, hold: &HoldRow, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        ledger_turn(&mut tx).await?;
        query(
            "INSERT INTO ledger_holds (id, agent_id, since, until, reason, placed_by, placed_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(hold.id)
        .bind(hold.agent)
        .bind(hold.since)
        .bind(hold.until)
        .bind(&hold.reason)
        .bind(&hold.placed_by)
        .bind(hold.placed_at)
        .execute(&mut tx)
        .await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// Releases a hold; erasure by age begins anew, and finds what was held.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none that holds, or when the database cannot be written.
    pub async fn release_hold(&self, id: Uuid, now: Timestamp, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        ledger_turn(&mut tx).await?;
        let released = query("UPDATE ledger_holds SET released_at = $1 WHERE id = $2 AND released_at IS NULL");
        if released.bind(now).bind(id).execute(&mut tx).await? == 0 {
            return Err(StoreError::NotFound);
        }
        query("DELETE FROM ledger_erased").execute(&mut tx).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }
}

/// The holds that hold something.
pub(super) async fn in_force<'a>(on: impl Into<On<'a>>) -> Result<Vec<HoldRow>, StoreError> {
    let rows = query("SELECT * FROM ledger_holds WHERE released_at IS NULL ORDER BY id").fetch_all(on).await?;
    rows.iter().map(hold).collect()
}

fn hold(row: &Row) -> Result<HoldRow, StoreError> {
    Ok(HoldRow {
        id: columns::id(row, "id")?,
        agent: row.get_id("agent_id")?,
        since: columns::optional_time(row, "since")?,
        until: columns::optional_time(row, "until")?,
        reason: columns::text(row, "reason")?,
        placed_by: columns::text(row, "placed_by")?,
        placed_at: columns::time(row, "placed_at")?,
        released_at: columns::optional_time(row, "released_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_covers_calls_its_agent_made_or_received_from_its_first_moment_to_before_its_last() {
        let [agent, other] = [7, 8].map(|id| Some(Uuid::from_u128(id)));
        let hold = |agent, since: Option<i64>, until: Option<i64>| HoldRow {
            id: Uuid::nil(),
            agent,
            since: since.map(Timestamp),
            until: until.map(Timestamp),
            reason: String::new(),
            placed_by: String::new(),
            placed_at: Timestamp(0),
            released_at: None,
        };
        let at = Timestamp;
        for (caller, target, covered) in [(agent, other, true), (other, agent, true), (other, None, false)] {
            assert_eq!(hold(agent, None, None).covers(caller, target, at(5)), covered, "{caller:?} {target:?}");
            assert!(hold(None, None, None).covers(caller, target, at(5)));
        }
        for (time, covered) in [(4, false), (5, true), (8, true), (9, false)] {
            assert_eq!(hold(None, Some(5), Some(9)).covers(agent, other, at(time)), covered, "{time}");
        }
    }
}
