//! API keys: rows of `api_keys`. The keys themselves are not here, only their digests.

use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::rows::{AdminEvent, KeyRow, Replaces};
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
        replaces: match columns::optional_text(row, "replaces")? {
            None => None,
            Some(_) => Some(Replaces {
                key: columns::id(row, "replaces")?,
                grace_ms: columns::optional_u64(row, "grace_ms")?.unwrap_or(0),
            }),
        },
    })
}

pub(super) async fn insert(tx: &mut Transaction<'static, Sqlite>, key: &KeyRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, agent_id, digest, hint, name, expires_at, last_used_at, created_at, \
         replaces, grace_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(key.id.to_string())
    .bind(key.agent_id.to_string())
    .bind(key.digest.to_vec())
    .bind(key.hint.clone())
    .bind(key.name.clone())
    .bind(columns::time_text(key.expires_at))
    .bind(columns::time_text(key.last_used_at))
    .bind(key.created_at.to_string())
    .bind(key.replaces.map(|old| old.key.to_string()))
    .bind(key.replaces.map(|old| i64::try_from(old.grace_ms).unwrap_or(i64::MAX)))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn find(tx: &mut Transaction<'static, Sqlite>, id: Uuid) -> Result<Option<KeyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(id.to_string()).fetch_optional(&mut **tx);
    row.await?.as_ref().map(read).transpose()
}

impl Store {
    /// Adds a key to an agent that is not deleted and has fewer than `most` keys that have not expired.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such an agent, [`StoreError::Conflict`] when it has enough keys, or naming `digest`
    /// when the key exists.
    pub async fn add_key(&self, key: &KeyRow, most: u32, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let alive: Option<i64> = sqlx::query_scalar("SELECT 1 FROM agents WHERE id = $1 AND state <> 'deleted'")
            .bind(key.agent_id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        alive.ok_or(StoreError::NotFound)?;
        let held: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM api_keys WHERE agent_id = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(key.agent_id.to_string())
        .bind(key.created_at.to_string())
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

    /// Ends what the key `id` replaces, now that it was used at `used_at`, and what those replaced in their turn; `note` makes the
    /// event of a key from how it was and how it is. Done once: afterwards the key replaces nothing.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn finish_rotation(
        &self,
        id: Uuid,
        used_at: Timestamp,
        note: impl Fn(&KeyRow, &KeyRow) -> AdminEvent + Send,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let mut grace_ms = None;
        let mut successor = find(&mut tx, id).await?;
        while let Some(key) = successor.take() {
            let Some(replaces) = key.replaces else { break };
            sqlx::query("UPDATE api_keys SET replaces = NULL, grace_ms = NULL WHERE id = $1")
                .bind(key.id.to_string())
                .execute(&mut *tx)
                .await?;
            let Some(old) = find(&mut tx, replaces.key).await? else { break };
            let grace_ms = *grace_ms.get_or_insert(replaces.grace_ms);
            let end = used_at.plus_micros(i64::try_from(grace_ms).unwrap_or(i64::MAX).saturating_mul(1_000));
            if old.expires_at.is_none_or(|at| at > end) {
                let ended = KeyRow { expires_at: Some(end), ..old.clone() };
                sqlx::query("UPDATE api_keys SET expires_at = $2 WHERE id = $1")
                    .bind(old.id.to_string())
                    .bind(end.to_string())
                    .execute(&mut *tx)
                    .await?;
                events::write(&mut tx, &note(&old, &ended)).await?;
            }
            successor = Some(old);
        }
        Ok(tx.commit().await?)
    }

    /// Takes away keys that expired before `then`, at most `most` of them; `note` makes the event of each.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn remove_expired_keys(
        &self,
        then: Timestamp,
        most: u32,
        note: impl Fn(&KeyRow) -> AdminEvent + Send,
    ) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query("SELECT * FROM api_keys WHERE expires_at < $1 ORDER BY expires_at LIMIT $2")
            .bind(then.to_string())
            .bind(i64::from(most))
            .fetch_all(&mut *tx)
            .await?;
        for row in &found {
            let key = read(row)?;
            sqlx::query("DELETE FROM api_keys WHERE id = $1").bind(key.id.to_string()).execute(&mut *tx).await?;
            events::write(&mut tx, &note(&key)).await?;
        }
        tx.commit().await?;
        Ok(found.len())
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
