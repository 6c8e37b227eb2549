//! Connections: rows of `connections`, one per pair of agents whoever asked and however many ask at once.

use uuid::Uuid;

use super::rows::{AdminEvent, ConnectionLimits, ConnectionRow, ConnectionStatus};
use super::sql::{Query, Row, Tx, either, query};
use super::{Store, StoreError, columns, events};
use crate::clock::Timestamp;

/// Which connections are wanted.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFilter<'a> {
    /// One of the two sides.
    pub agent: Option<Uuid>,
    /// The side that was asked.
    pub asked: Option<Uuid>,
    /// The status as shown (`blocked` where a mark is set), `open` (all but ended ones) or `all`.
    pub status: &'a str,
    /// To be looked at again by then.
    pub review_by: Option<Timestamp>,
    /// Ends by then.
    pub ends_by: Option<Timestamp>,
}

impl Default for ConnectionFilter<'_> {
    fn default() -> Self {
        Self { agent: None, asked: None, status: "all", review_by: None, ends_by: None }
    }
}

pub(super) fn read(row: &Row) -> Result<ConnectionRow, StoreError> {
    Ok(ConnectionRow {
        id: columns::id(row, "id")?,
        requester_id: columns::id(row, "requester_id")?,
        target_id: columns::id(row, "target_id")?,
        status: columns::word(row, "status", ConnectionStatus::from_word)?,
        blocked_by_requester: columns::flag(row, "blocked_by_requester")?,
        blocked_by_target: columns::flag(row, "blocked_by_target")?,
        block_locked: columns::flag(row, "block_locked")?,
        message: columns::optional_text(row, "message")?,
        purpose: columns::optional_text(row, "purpose")?,
        operations: columns::operations(row, "operations")?,
        operations_fixed: columns::flag(row, "operations_fixed")?,
        limits: ConnectionLimits {
            rate: columns::optional_u32(row, "rate")?,
            period_ms: columns::optional_u32(row, "period_ms")?.map(u64::from),
            burst: columns::optional_u32(row, "burst")?,
            daily: columns::optional_u32(row, "daily")?,
            streams: columns::optional_u32(row, "streams")?,
        },
        ends_at: columns::optional_time(row, "ends_at")?,
        review_at: columns::optional_time(row, "review_at")?,
        created_at: columns::time(row, "created_at")?,
        resolved_at: columns::optional_time(row, "resolved_at")?,
    })
}

pub(super) async fn write(tx: &mut Tx, row: &ConnectionRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO connections (id, requester_id, target_id, status, blocked_by_requester, blocked_by_target, \
         block_locked, message, rate, period_ms, burst, daily, streams, ends_at, created_at, resolved_at, \
         purpose, operations, operations_fixed, review_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) \
         ON CONFLICT (id) DO UPDATE SET requester_id = excluded.requester_id, target_id = excluded.target_id, \
         status = excluded.status, blocked_by_requester = excluded.blocked_by_requester, \
         blocked_by_target = excluded.blocked_by_target, block_locked = excluded.block_locked, \
         message = excluded.message, rate = excluded.rate, period_ms = excluded.period_ms, burst = excluded.burst, \
         daily = excluded.daily, streams = excluded.streams, ends_at = excluded.ends_at, \
         created_at = excluded.created_at, resolved_at = excluded.resolved_at, purpose = excluded.purpose, \
         operations = excluded.operations, operations_fixed = excluded.operations_fixed, \
         review_at = excluded.review_at",
    )
    .bind(row.id)
    .bind(row.requester_id)
    .bind(row.target_id)
    .bind(row.status.as_str())
    .bind(row.blocked_by_requester)
    .bind(row.blocked_by_target)
    .bind(row.block_locked)
    .bind(row.message.clone())
    .bind(row.limits.rate)
    .bind(row.limits.period_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::from(u32::MAX))))
    .bind(row.limits.burst)
    .bind(row.limits.daily)
    .bind(row.limits.streams)
    .bind(row.ends_at)
    .bind(row.created_at)
    .bind(row.resolved_at)
    .bind(row.purpose.clone())
    .bind(columns::operations_text(row.operations))
    .bind(row.operations_fixed)
    .bind(row.review_at)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// The pair's one connection, in the words of the index that keeps it one.
fn between(one: Uuid, other: Uuid) -> Query {
    either(
        "SELECT * FROM connections WHERE min(requester_id, target_id) = min($1, $2) \
         AND max(requester_id, target_id) = max($1, $2)",
        "SELECT * FROM connections WHERE least(requester_id, target_id) = least($1, $2) \
         AND greatest(requester_id, target_id) = greatest($1, $2)",
    )
    .bind(one)
    .bind(other)
}

impl Store {
    /// Decides on the pair's connection and writes what was decided, all in one transaction: `decide` sees the row as it
    /// is (`None`: the pair has none) and gives it as it shall be.
    ///
    /// # Errors
    /// What `decide` refuses, or when the database cannot be written.
    pub async fn settle_pair<E, F>(&self, one: Uuid, other: Uuid, decide: F) -> Result<ConnectionRow, E>
    where
        E: From<StoreError>,
        F: FnOnce(Option<ConnectionRow>) -> Result<(ConnectionRow, AdminEvent), E> + Send,
    {
        let mut tx = self.begin().await?;
        let found = between(one, other).fetch_optional(&mut tx).await?;
        let (row, event) = decide(found.as_ref().map(read).transpose()?)?;
        write(&mut tx, &row).await?;
        events::write(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// As [`Store::settle_pair`], for a connection that exists and is named by its id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], what `decide` refuses, or when the database cannot be written.
    pub async fn settle_connection<E, F>(&self, id: Uuid, decide: F) -> Result<ConnectionRow, E>
    where
        E: From<StoreError>,
        F: FnOnce(ConnectionRow) -> Result<(ConnectionRow, AdminEvent), E> + Send,
    {
        let mut tx = self.begin().await?;
        let found = query("SELECT * FROM connections WHERE id = $1").bind(id).fetch_one(&mut tx).await?;
        let (row, event) = decide(read(&found)?)?;
        write(&mut tx, &row).await?;
        events::write(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// One connection by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connection(&self, id: Uuid) -> Result<Option<ConnectionRow>, StoreError> {
        let row = query("SELECT * FROM connections WHERE id = $1").bind(id).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// The connection between two agents, whoever asked.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connection_between(&self, one: Uuid, other: Uuid) -> Result<Option<ConnectionRow>, StoreError> {
        between(one, other).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// Connections that pass `filter`, newest first, from after the one that `after` names on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connections(
        &self,
        filter: &ConnectionFilter<'_>,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<ConnectionRow>, StoreError> {
        query(
            "SELECT * FROM (SELECT *, CASE WHEN blocked_by_requester OR blocked_by_target THEN 'blocked' \
             ELSE status END AS shown FROM connections) AS c \
             WHERE ($1 IS NULL OR requester_id = $1 OR target_id = $1) \
             AND ($2 = 'all' OR shown = $2 OR ($2 = 'open' AND shown <> 'ended')) \
             AND ($5 IS NULL OR target_id = $5) \
             AND ($6 IS NULL OR (review_at <= $6 AND shown IN ('pending', 'connected', 'paused'))) \
             AND ($7 IS NULL OR (ends_at <= $7 AND shown IN ('pending', 'connected', 'paused'))) \
             AND ($8 IS NULL OR (created_at, id) < ($8, $9)) \
             ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4",
        )
        .bind(filter.agent)
        .bind(filter.status)
        .bind(limit)
        .bind(offset)
        .bind(filter.asked)
        .bind(filter.review_by)
        .bind(filter.ends_by)
        .bind(after.map(|(at, _)| at))
        .bind(after.map(|(_, id)| id))
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(read)
        .collect()
    }

    /// How many accepted connections an agent has.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connected_count(&self, agent: Uuid) -> Result<i64, StoreError> {
        query("SELECT COUNT(*) FROM connections WHERE status = 'connected' AND (requester_id = $1 OR target_id = $1)")
            .bind(agent)
            .number(&self.reader)
            .await
    }
}
