//! The call log's writing side: what the drain commits, and what a restart reads back.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{Connection as _, QueryBuilder, Row as _, SqliteConnection};
use uuid::Uuid;

use super::rows::CallRow;
use super::{Store, StoreError};
use crate::audit::record::Charge;
use crate::clock::Timestamp;

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

/// Rows per statement, largest first: few sizes, so that each is prepared once; at most 41 * 256 variables.
const STATEMENT_ROWS: [usize; 4] = [256, 32, 4, 1];

/// Limits per statement.
const LIMITS_PER_STATEMENT: usize = 200;

static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| STATEMENT_ROWS.map(insert_statement));

fn insert_statement(rows: usize) -> String {
    let mut sql = format!("INSERT INTO proxy_calls ({}) VALUES ", COLUMNS.join(", "));
    let group = format!("({})", vec!["?"; COLUMNS.len()].join(", "));
    sql.push_str(&vec![group; rows].join(", "));
    sql
}

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
    /// The limit and the units.
    pub charge: Charge,
    /// When.
    pub called_at: Timestamp,
}

/// Part of a journal as it is committed: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct DrainBatch {
    /// New rows.
    pub rows: Vec<CallRow>,
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

impl Store {
    /// The id of this node, drawn when it is first asked for.
    ///
    /// # Errors
    /// When the database cannot be read or written, or holds something else.
    pub async fn node_id(&self) -> Result<Uuid, StoreError> {
        let drawn = Uuid::new_v4().to_string();
        sqlx::query("INSERT INTO node (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM node)")
            .bind(drawn)
            .execute(&self.writer)
            .await?;
        let id: String = sqlx::query_scalar("SELECT id FROM node").fetch_one(&self.writer).await?;
        id.parse().map_err(|_| StoreError::Corrupt(format!("node.id = {id}")))
    }

    /// The highest `seq` of a node; 0 before its first row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_seq(&self, node: Uuid) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM proxy_calls WHERE node_id = ?")
            .bind(node.to_string())
            .fetch_one(&self.writer)
            .await?)
    }

    /// How far the journals are in the database.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn journal_positions(&self) -> Result<Vec<JournalPosition>, StoreError> {
        let rows = sqlx::query(r#"SELECT instance, worker, segment, "offset" FROM journal_positions"#)
            .fetch_all(&self.writer)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(JournalPosition {
                    instance: uuid_of(row.try_get(0)?)?,
                    worker: number(row.try_get(1)?)?,
                    segment: number(row.try_get(2)?)?,
                    offset: number(row.try_get(3)?)?,
                })
            })
            .collect()
    }

    /// The process starts whose every call is a row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn finished_journals(&self) -> Result<Vec<Uuid>, StoreError> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT instance FROM journal_finished").fetch_all(&self.writer).await?;
        ids.iter().map(|id| uuid_of(id)).collect()
    }

    /// Forgets a process start, whose directory is gone.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_journal(&self, instance: Uuid) -> Result<(), StoreError> {
        let instance = instance.to_string();
        let mut connection = self.writer.acquire().await?;
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for sql in
            ["DELETE FROM journal_positions WHERE instance = ?", "DELETE FROM journal_finished WHERE instance = ?"]
        {
            sqlx::query(sql).bind(&instance).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Commits rows, limits and positions together.
    ///
    /// # Errors
    /// When the database cannot be written. If even that is unknown (the commit itself failed), [`Store::journal_positions`]
    /// and [`Store::finished_journals`] tell.
    pub async fn commit_drained(&self, batch: &DrainBatch) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await?;
        if batch.synced {
            // The journal's segments are deleted on the word of this commit.
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
        }
        let result = commit(&mut connection, batch).await;
        if batch.synced {
            sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
        }
        result
    }

    /// What the limits must know at start: those used today or with a bucket that is not full at `now`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn limit_state(&self, now: Timestamp) -> Result<Vec<LimitStateRow>, StoreError> {
        let rows = sqlx::query("SELECT key, day, used, tat_us FROM limit_state WHERE day = ? OR tat_us > ?")
            .bind(now.utc_day())
            .bind(now.0)
            .fetch_all(&self.writer)
            .await?;
        rows.iter().map(limit_state_row).collect()
    }

    /// Deletes what [`Store::limit_state`] would not return any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_limit_state(&self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM limit_state WHERE day < ? AND tat_us <= ?")
            .bind(now.utc_day())
            .bind(now.0)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected())
    }
}

async fn commit(connection: &mut SqliteConnection, batch: &DrainBatch) -> Result<(), StoreError> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    insert_rows(&mut tx, &batch.rows).await?;
    take_charges(&mut tx, &batch.charges).await?;
    for position in &batch.positions {
        sqlx::query(
            r#"INSERT OR REPLACE INTO journal_positions (instance, worker, segment, "offset") VALUES (?, ?, ?, ?)"#,
        )
        .bind(position.instance.to_string())
        .bind(i64::from(position.worker))
        .bind(position.segment.cast_signed())
        .bind(position.offset.cast_signed())
        .execute(&mut *tx)
        .await?;
    }
    if let Some(instance) = batch.finished {
        sqlx::query("INSERT OR IGNORE INTO journal_finished (instance) VALUES (?)")
            .bind(instance.to_string())
            .execute(&mut *tx)
            .await?;
    }
    Ok(tx.commit().await?)
}

async fn insert_rows(tx: &mut SqliteConnection, mut rows: &[CallRow]) -> Result<(), StoreError> {
    for (size, sql) in STATEMENT_ROWS.into_iter().zip(INSERTS.iter()) {
        while let Some((now, later)) = rows.split_at_checked(size) {
            let mut query = sqlx::query(sql.as_str());
            for row in now {
                query = bind(query, row);
            }
            query.execute(&mut *tx).await?;
            rows = later;
        }
    }
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a row's values in the order of [`COLUMNS`].
fn bind<'q>(query: Query<'q>, row: &CallRow) -> Query<'q> {
    let id = |id: Option<Uuid>| id.map(|id| id.to_string());
    query
        .bind(row.id.to_string())
        .bind(id(row.target_agent_id))
        .bind(id(row.caller_agent_id))
        .bind(row.trust_level.as_str())
        .bind(row.status_code)
        .bind(row.latency_ms)
        .bind(row.called_at.to_string())
        .bind(row.node_id.to_string())
        .bind(row.seq)
        .bind(id(row.credential_id))
        .bind(row.auth_method.as_str())
        .bind(row.client_ip.as_deref())
        .bind(row.personal_salt.as_ref().map(<[u8; 16]>::as_slice))
        .bind(row.client_ip_commitment.as_ref().map(<[u8; 32]>::as_slice))
        .bind(id(row.connection_id))
        .bind(row.binding.as_str())
        .bind(row.protocol_version.as_deref())
        .bind(row.method.as_deref())
        .bind(row.operation.as_str())
        .bind(row.rpc_id.as_deref())
        .bind(row.task_id.as_deref())
        .bind(row.context_id.as_deref())
        .bind(row.message_id.as_deref())
        .bind(row.decision.as_str())
        .bind(row.reason.as_deref())
        .bind(row.policy_rule.as_deref())
        .bind(row.policy_digest.as_deref())
        .bind(row.units)
        .bind(row.outcome.as_str())
        .bind(row.upstream_status)
        .bind(row.rpc_error_code)
        .bind(row.task_state.as_deref())
        .bind(row.request_bytes)
        .bind(row.response_bytes)
        .bind(row.stream_events)
        .bind(row.ttfb_ms)
        .bind(row.calls)
        .bind(row.trace_id.as_deref())
        .bind(row.limit_name.as_deref())
        .bind(row.limit_left)
        .bind(row.leaf_hash.as_slice())
}

/// Adds charges to what the table says: read, computed, written back, all inside the transaction of the one writer.
async fn take_charges(tx: &mut SqliteConnection, charges: &[ChargeTaken]) -> Result<(), StoreError> {
    let mut states: HashMap<[u8; 16], LimitStateRow> = HashMap::new();
    for taken in charges {
        states.entry(taken.charge.key).or_insert_with_key(|key| LimitStateRow::new(*key));
    }
    let keys: Vec<[u8; 16]> = states.keys().copied().collect();
    for keys in keys.chunks(LIMITS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT key, day, used, tat_us FROM limit_state WHERE key IN (");
        let mut list = query.separated(", ");
        for key in keys {
            list.push_bind(key.as_slice());
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *tx).await? {
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
    for states in states.chunks(LIMITS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO limit_state (key, day, used, tat_us) ");
        query.push_values(states, |mut values, state| {
            values.push_bind(state.key.as_slice()).push_bind(state.day).push_bind(state.used).push_bind(state.tat_us);
        });
        query.build().execute(&mut *tx).await?;
    }
    Ok(())
}

fn limit_state_row(row: &SqliteRow) -> Result<LimitStateRow, StoreError> {
    Ok(LimitStateRow {
        key: super::call_query::bytes(row, 0)?,
        day: row.try_get(1)?,
        used: row.try_get(2)?,
        tat_us: row.try_get(3)?,
    })
}

fn uuid_of(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("not a uuid: {text}")))
}

fn number<T: TryFrom<i64>>(value: i64) -> Result<T, StoreError> {
    value.try_into().map_err(|_| StoreError::Corrupt(format!("journal_positions holds {value}")))
}
