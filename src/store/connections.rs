//! Connections: rows of `connections`, one per pair of agents whoever asked and however many ask at once.

use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::rows::{AdminEvent, ConnectionLimits, ConnectionRow, ConnectionStatus};
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

pub(super) fn read(row: &SqliteRow) -> Result<ConnectionRow, StoreError> {
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

pub(super) async fn write(tx: &mut Transaction<'static, Sqlite>, row: &ConnectionRow) -> Result<(), StoreError> {
    sqlx::query(
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
    .bind(row.id.to_string())
    .bind(row.requester_id.to_string())
    .bind(row.target_id.to_string())
    .bind(row.status.as_str())
    .bind(i64::from(row.blocked_by_requester))
    .bind(i64::from(row.blocked_by_target))
    .bind(i64::from(row.block_locked))
    .bind(row.message.clone())
    .bind(row.limits.rate.map(i64::from))
    .bind(row.limits.period_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::from(u32::MAX))))
    .bind(row.limits.burst.map(i64::from))
    .bind(row.limits.daily.map(i64::from))
    .bind(row.limits.streams.map(i64::from))
    .bind(columns::time_text(row.ends_at))
    .bind(row.created_at.to_string())
    .bind(columns::time_text(row.resolved_at))
    .bind(row.purpose.clone())
    .bind(columns::operations_text(row.operations))
    .bind(i64::from(row.operations_fixed))
    .bind(columns::time_text(row.review_at))
    .execute(&mut **tx)
    .await?;
    Ok(())
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
        let found = sqlx::query(
            "SELECT * FROM connections WHERE min(requester_id, target_id) = min($1, $2) \
             AND max(requester_id, target_id) = max($1, $2)",
        )
        .bind(one.to_string())
        .bind(other.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        let (row, event) = decide(found.as_ref().map(read).transpose()?)?;
        write(&mut tx, &row).await?;
        events::write(&mut tx, &event).await?;
        tx.commit().await.map_err(StoreError::from)?;
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
        let found = sqlx::query("SELECT * FROM connections WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        let (row, event) = decide(read(&found)?)?;
        write(&mut tx, &row).await?;
        events::write(&mut tx, &event).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(row)
    }

    /// One connection by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connection(&self, id: Uuid) -> Result<Option<ConnectionRow>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM connections WHERE id = $1").bind(id.to_string()).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// The connection between two agents, whoever asked.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connection_between(&self, one: Uuid, other: Uuid) -> Result<Option<ConnectionRow>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM connections WHERE min(requester_id, target_id) = min($1, $2) \
             AND max(requester_id, target_id) = max($1, $2)",
        )
        .bind(one.to_string())
        .bind(other.to_string())
        .fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
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
        sqlx::query(
            "SELECT * FROM (SELECT *, CASE WHEN blocked_by_requester + blocked_by_target > 0 THEN 'blocked' \
             ELSE status END AS shown FROM connections) AS c \
             WHERE ($1 IS NULL OR requester_id = $1 OR target_id = $1) \
             AND ($2 = 'all' OR shown = $2 OR ($2 = 'open' AND shown <> 'ended')) \
             AND ($5 IS NULL OR target_id = $5) \
             AND ($6 IS NULL OR (review_at <= $6 AND shown IN ('pending', 'connected', 'paused'))) \
             AND ($7 IS NULL OR (ends_at <= $7 AND shown IN ('pending', 'connected', 'paused'))) \
             AND ($8 IS NULL OR (created_at, id) < ($8, $9)) \
             ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4",
        )
        .bind(filter.agent.map(|id| id.to_string()))
        .bind(filter.status.to_owned())
        .bind(i64::from(limit))
        .bind(i64::from(offset))
        .bind(filter.asked.map(|id| id.to_string()))
        .bind(columns::time_text(filter.review_by))
        .bind(columns::time_text(filter.ends_by))
        .bind(after.map(|(at, _)| at.to_string()))
        .bind(after.map(|(_, id)| id.to_string()))
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
        Ok(sqlx::query_scalar(
            "SELECT COUNT(*) FROM connections WHERE status = 'connected' AND (requester_id = $1 OR target_id = $1)",
        )
        .bind(agent.to_string())
        .fetch_one(&self.reader)
        .await?)
    }
}
