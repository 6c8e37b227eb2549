//! The call log's writing side: what the drain commits, and what a restart reads back; and the sums that are kept beside it.

mod charges;
pub mod erase;
pub mod histogram;
mod packed;
mod permit;
mod postgres;
pub mod remove;
pub mod rollups;
mod scan;
mod sqlite;
pub mod stats;
mod turn;

use std::collections::HashSet;

use uuid::Uuid;

pub(super) use permit::ledger_turn;

use super::ledger::{Growth, grow};
use super::rows::CallRow;
use super::sql::{Pool, Row, Tx, among, query};
use super::{Store, StoreError, columns};
use crate::audit::record::Charge;
use crate::clock::Timestamp;
use rollups::Span;

pub use scan::ScannedRow;

/// The columns of `proxy_calls` in the order they are bound and read.
pub(super) const COLUMNS: &[&str] = &[
    "id",
    "target_agent_id",
    "caller_agent_id",
    "trust_level",
    "status_code",
    "latency_ms",
    "called_at",
    "node_id",
    "seq",
    "credential_id",
    "auth_method",
    "client_ip",
    "personal_salt",
    "client_ip_commitment",
    "connection_id",
    "binding",
    "protocol_version",
    "method",
    "operation",
    "rpc_id",
    "task_id",
    "context_id",
    "message_id",
    "decision",
    "reason",
    "policy_rule",
    "policy_digest",
    "units",
    "outcome",
    "upstream_status",
    "rpc_error_code",
    "task_state",
    "request_bytes",
    "response_bytes",
    "stream_events",
    "ttfb_ms",
    "calls",
    "trace_id",
    "limit_name",
    "limit_left",
    "leaf_hash",
];

/// How far a worker's journal has become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// The process start.
    pub instance: Uuid,
    /// The worker.
    pub worker: u32,
    /// The segment.
    pub segment: u64,
    /// The end, in it, of the last entry that is in the database.
    pub offset: u64,
}

/// What an allowed call took from a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargeTaken {
    /// The call, by its request id.
    pub call: Uuid,
    /// The limit and the units.
    pub charge: Charge,
    /// When.
    pub called_at: Timestamp,
}

/// Part of a journal as it is committed: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct DrainBatch {
    /// Whose calls they are.
    pub node: Uuid,
    /// New rows.
    pub rows: Vec<CallRow>,
    /// What the node's tree grows by with them.
    pub growth: Growth,
    /// What those of them that were allowed took.
    pub charges: Vec<ChargeTaken>,
    /// Where the journal continues after them.
    pub positions: Vec<JournalPosition>,
    /// A process start whose every call is a row now.
    pub finished: Option<Uuid>,
    /// Whether the commit must survive a power loss.
    pub synced: bool,
}

/// What is known of a limit at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStateRow {
    /// The limit, as in [`Charge`].
    pub key: [u8; 16],
    /// The UTC day `used` belongs to, in days since 1970.
    pub day: i64,
    /// Units used on that day.
    pub used: i64,
    /// The bucket's theoretical arrival time; 0 for a bucket that is not rebuilt.
    pub tat_us: i64,
}

impl Store {
    /// The highest `seq` of a node; 0 before its first row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_seq(&self, node: Uuid) -> Result<i64, StoreError> {
        last_seq_in(&self.recorder, node).await
    }

    /// How far the journals are in the database, those of all nodes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn journal_positions(&self) -> Result<Vec<JournalPosition>, StoreError> {
        let rows = query(r#"SELECT instance, worker, segment, "offset" FROM journal_positions"#);
        let rows = rows.fetch_all(&self.recorder).await?;
        rows.iter()
            .map(|row| {
                Ok(JournalPosition {
                    instance: columns::id(row, "instance")?,
                    worker: number(columns::number(row, "worker")?)?,
                    segment: number(columns::number(row, "segment")?)?,
                    offset: number(columns::number(row, "offset")?)?,
                })
            })
            .collect()
    }

    /// The process starts whose every call is a row, those of all nodes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn finished_journals(&self) -> Result<Vec<Uuid>, StoreError> {
        let rows = query("SELECT instance FROM journal_finished").fetch_all(&self.recorder).await?;
        rows.iter().map(|row| columns::id(row, "instance")).collect()
    }

    /// The process starts of one node that the database remembers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn journals_of(&self, node: Uuid) -> Result<Vec<Uuid>, StoreError> {
        let rows = query(
            "SELECT instance FROM journal_positions WHERE node_id = $1 \
             UNION SELECT instance FROM journal_finished WHERE node_id = $1",
        )
        .bind(node)
        .fetch_all(&self.recorder)
        .await?;
        rows.iter().map(|row| columns::id(row, "instance")).collect()
    }

    /// Those of these calls that are rows already, by their request ids.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn known_calls(&self, calls: &[CallRow]) -> Result<HashSet<Uuid>, StoreError> {
        let mut calls: Vec<(Timestamp, Uuid)> = calls.iter().map(|call| (call.called_at, call.id)).collect();
        calls.sort_unstable();
        let mut known = HashSet::new();
        // The time is what the index goes by. Minute by minute: a stream that was open for a week must not have all of it read.
        for near in calls.chunk_by(|(one, _), (next, _)| Span::Minute.start(*one) == Span::Minute.start(*next)) {
            let ([(first, _), ..], [.., (last, _)]) = (near, near) else { continue };
            let rows = among!("SELECT id FROM proxy_calls WHERE called_at BETWEEN $2 AND $3 AND ", "id")
                .bind(near.iter().map(|(_, id)| *id).collect::<Vec<_>>())
                .bind(*first)
                .bind(*last)
                .fetch_all(&self.recorder)
                .await?;
            for row in &rows {
                known.insert(columns::id(row, "id")?);
            }
        }
        Ok(known)
    }

    /// Forgets a process start, whose directory is gone.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_journal(&self, instance: Uuid) -> Result<(), StoreError> {
        let mut tx = self.recording().await?;
        for sql in
            ["DELETE FROM journal_positions WHERE instance = $1", "DELETE FROM journal_finished WHERE instance = $1"]
        {
            query(sql).bind(instance).execute(&mut tx).await?;
        }
        tx.commit().await
    }

    /// Commits rows, limits and positions together.
    ///
    /// # Errors
    /// When the database cannot be written. If even that is unknown (the commit itself failed), [`Store::journal_positions`]
    /// and [`Store::finished_journals`] tell.
    pub async fn commit_drained(&self, batch: &DrainBatch) -> Result<(), StoreError> {
        // The journal's segments are deleted on the word of this commit.
        let commit = Box::pin(self.commit(batch));
        if batch.synced { self.durably(commit).await } else { commit.await }
    }

    /// Does `work`, whose commits survive a power loss, and with them every commit before. PostgreSQL's always do.
    pub(super) async fn durably<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let Pool::Sqlite(pool) = &self.recorder else { return work.await };
        let _turn = self.synced.lock().await;
        let mut connection = pool.acquire().await?;
        sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
        drop(connection);
        let result = work.await;
        let mut connection = pool.acquire().await?;
        sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
        result
    }

    async fn commit(&self, batch: &DrainBatch) -> Result<(), StoreError> {
        let mut tx = self.recording_of(batch.node).await?;
        if !batch.rows.is_empty() {
            match &mut tx {
                Tx::Sqlite(tx) => sqlite::insert(tx, &batch.rows).await?,
                Tx::Postgres(tx, patience) => postgres::insert(tx, *patience, &batch.rows).await?,
            }
            rollups::add(&mut tx, &batch.rows).await?;
        }
        grow(&mut tx, batch.node, &batch.growth).await?;
        charges::take(&mut tx, &batch.charges).await?;
        for position in &batch.positions {
            query(
                r#"INSERT INTO journal_positions (node_id, instance, worker, segment, "offset") VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (instance, worker) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset""#,
            )
            .bind(batch.node)
            .bind(position.instance)
            .bind(position.worker)
            .bind(position.segment.cast_signed())
            .bind(position.offset.cast_signed())
            .execute(&mut tx)
            .await?;
        }
        if let Some(instance) = batch.finished {
            query("INSERT INTO journal_finished (node_id, instance) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(batch.node)
                .bind(instance)
                .execute(&mut tx)
                .await?;
        }
        tx.commit().await
    }

    /// Waits until no commit of `node` is under way: one that was given up may go on at the server, and take effect later.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn settled(&self, node: Uuid) -> Result<(), StoreError> {
        self.recording_of(node).await?.commit().await
    }

    /// A transaction that records calls of `node`, one after the other.
    pub(super) async fn recording_of(&self, node: Uuid) -> Result<Tx, StoreError> {
        let mut tx = self.recording().await?;
        if let Tx::Postgres(..) = tx {
            let turn = query("SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0))");
            turn.bind(node).execute(&mut tx).await?;
        }
        Ok(tx)
    }

    /// A transaction that records calls.
    async fn recording(&self) -> Result<Tx, StoreError> {
        self.recorder.begin("BEGIN IMMEDIATE", "BEGIN").await
    }

    /// What the limits must know at start: those used today or with a bucket that is not full at `now`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn limit_state(&self, now: Timestamp) -> Result<Vec<LimitStateRow>, StoreError> {
        let rows = query("SELECT key, day, used, tat_us FROM limit_state WHERE day = $1 OR tat_us > $2")
            .bind(now.utc_day())
            .bind(now.0)
            .fetch_all(&self.recorder)
            .await?;
        rows.iter().map(limit_state_row).collect()
    }

    /// Deletes what [`Store::limit_state`] would not return any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_limit_state(&self, now: Timestamp) -> Result<u64, StoreError> {
        query("DELETE FROM limit_state WHERE day < $1 AND tat_us <= $2")
            .bind(now.utc_day())
            .bind(now.0)
            .execute(&self.recorder)
            .await
    }
}

/// The highest `seq` of a node; 0 before its first row.
pub(super) async fn last_seq_in(pool: &Pool, node: Uuid) -> Result<i64, StoreError> {
    query("SELECT coalesce(max(seq), 0) FROM proxy_calls WHERE node_id = $1").bind(node).number(pool).await
}

fn limit_state_row(row: &Row) -> Result<LimitStateRow, StoreError> {
    Ok(LimitStateRow {
        key: columns::array(row, "key")?,
        day: columns::number(row, "day")?,
        used: columns::number(row, "used")?,
        tat_us: columns::number(row, "tat_us")?,
    })
}

fn number<T: TryFrom<i64>>(value: i64) -> Result<T, StoreError> {
    value.try_into().map_err(|_| StoreError::Corrupt(format!("journal_positions holds {value}")))
}
