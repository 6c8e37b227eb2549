//! The nodes that share this database: who they are, and how they hear of each other's changes.
//!
//! Promises that two processes never write rows of one node at the same time, and that a change made anywhere is announced
//! (PostgreSQL's NOTIFY, sent by the triggers that note it).

use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::PgListener;
use uuid::Uuid;

use super::open::postgres_pool;
use super::sql::{Patience, Pool, in_time, query};
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

/// What the triggers announce changes on.
const CHANNEL: &str = "trust_gateway_directory";
/// An announcement that does not come may mean that the line is dead.
const QUIET: Duration = Duration::from_secs(30);

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Names it in rows of the log; kept in its data directory.
    pub id: Uuid,
    /// Its last start.
    pub instance: Option<Uuid>,
    /// The program's version then.
    pub version: Option<String>,
    /// When that was.
    pub started_at: Option<Timestamp>,
    /// When it last said that it lives.
    pub seen_at: Option<Timestamp>,
}

impl Store {
    /// Every node that ever wrote here, the one seen last first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let rows =
            query("SELECT * FROM nodes ORDER BY seen_at IS NULL, seen_at DESC, id").fetch_all(&self.reader).await?;
        rows.iter()
            .map(|row| {
                Ok(NodeRow {
                    id: columns::id(row, "id")?,
                    instance: row.get_id("instance")?,
                    version: columns::optional_text(row, "version")?,
                    started_at: columns::optional_time(row, "started_at")?,
                    seen_at: columns::optional_time(row, "seen_at")?,
                })
            })
            .collect()
    }

    /// Notes that a node starts, or that it still lives.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_node(&self, node: &NodeRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO nodes (id, instance, version, started_at, seen_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, version = excluded.version, \
             started_at = excluded.started_at, seen_at = excluded.seen_at",
        )
        .bind(node.id)
        .bind(node.instance)
        .bind(&node.version)
        .bind(node.started_at)
        .bind(node.seen_at)
        .execute(&self.writer)
        .await
        .map(drop)
    }

    /// Waits for changes as `node`, which it alone is for as long as the listener lives. `None`: the database is a file, and
    /// nobody else changes it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another process is this node, or when the database cannot be reached.
    pub async fn listen(&self, node: Uuid) -> Result<Option<ChangeListener>, StoreError> {
        let Pool::Postgres(pool, patience) = &self.reader else { return Ok(None) };
        // A pool of its own, which goes with the listener: given back to another one, the connection would keep the lock.
        let own = postgres_pool(pool.connect_options().as_ref().clone(), 1);
        let mut listener = in_time(*patience, PgListener::connect_with(&own)).await?;
        // After a reconnect the lock would be gone: better to be told, and to begin again.
        listener.eager_reconnect(false);
        let (high, low) = node.as_u64_pair();
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind((high ^ low).cast_signed());
        if !in_time(*patience, lock.fetch_one(&mut listener)).await? {
            return Err(StoreError::Conflict(format!("node {node} is another process that is running")));
        }
        in_time(*patience, listener.listen(CHANNEL)).await?;
        Ok(Some(ChangeListener { listener }))
    }

    /// The revision of the newest change.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_revision(&self) -> Result<i64, StoreError> {
        query("SELECT coalesce(max(revision), 0) FROM directory_changes").number(&self.reader).await
    }
}

/// Hears of changes that any node makes.
pub struct ChangeListener {
    listener: PgListener,
}

impl ChangeListener {
    /// Returns when something may have changed.
    ///
    /// # Errors
    /// When the connection is gone: what changed since is not announced, and the listener is of no more use.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        loop {
            match tokio::time::timeout(QUIET, self.listener.try_recv()).await {
                Ok(Ok(Some(_))) => return Ok(()),
                Ok(Ok(None)) => return Err(StoreError::Database(sqlx::Error::PoolClosed)),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    in_time(Patience::ASKED, self.listener.execute("SELECT 1")).await?;
                }
            }
        }
    }
}

impl std::fmt::Debug for ChangeListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChangeListener")
    }
}
