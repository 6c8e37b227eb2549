//! API keys: rows of `api_keys`. The keys themselves are not here, only their digests.

use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::rows::{AdminEvent, KeyRow};
use super::{Store, StoreError, columns, events};
use crate::clock::Timestamp;

pub(super) fn read(row: &SqliteRow) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: columns::id(row, "id")?,
        agent_id: columns::id(row, "agent_id")?,
        digest: columns::digest(row, "digest")?,
        hint: columns::optional_text(row, "hint")?,
        name: columns::text(row, "name")?,
        expires_at: columns::optional_time(row, "expires_at")?,
        last_used_at: columns::optional_time(row, "last_used_at")?,
        created_at: columns::time(row, "created_at")?,
    })
}

pub(super) async fn insert(tx: &mut Transaction<'static, Sqlite>, key: &KeyRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, agent_id, digest, hint, name, expires_at, last_used_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.id.to_string())
    .bind(key.agent_id.to_string())
    .bind(key.digest.to_vec())
    .bind(key.hint.clone())
    .bind(key.name.clone())
    .bind(columns::time_text(key.expires_at))
    .bind(columns::time_text(key.last_used_at))
    .bind(key.created_at.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// Adds a key to an agent that is not deleted and has fewer than `most` keys.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such an agent, [`StoreError::Conflict`] when it has enough keys.
    pub async fn add_key(&self, key: &KeyRow, most: u32, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let alive: Option<i64> = sqlx::query_scalar("SELECT 1 FROM agents WHERE id = $1 AND state <> 'deleted'")
            .bind(key.agent_id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        alive.ok_or(StoreError::NotFound)?;
        let held: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE agent_id = $1")
            .bind(key.agent_id.to_string())
            .fetch_one(&mut *tx)
            .await?;
        if held >= i64::from(most) {
            return Err(StoreError::Conflict(format!("the agent already has {held} keys")));
        }
        insert(&mut tx, key).await?;
        events::write(&mut tx, event).await?;
        Ok(tx.commit().await?)
    }

    /// The keys of an agent, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn keys_of(&self, agent: Uuid) -> Result<Vec<KeyRow>, StoreError> {
        sqlx::query("SELECT * FROM api_keys WHERE agent_id = $1 ORDER BY created_at DESC, id DESC")
            .bind(agent.to_string())
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// One key by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key(&self, id: Uuid) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(id.to_string()).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// The key with this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM api_keys WHERE digest = $1").bind(digest.to_vec()).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// Takes a key away for good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is already gone.
    pub async fn remove_key(&self, id: Uuid, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("DELETE FROM api_keys WHERE id = $1").bind(id.to_string()).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        events::write(&mut tx, event).await?;
        Ok(tx.commit().await?)
    }

    /// Notes when keys were last used, in one transaction; meant to be called now and then, never on the path of a call.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn touch_keys(&self, used: &[(Uuid, Timestamp)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (id, at) in used {
            sqlx::query(
                "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
            )
            .bind(id.to_string())
            .bind(at.to_string())
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
}
