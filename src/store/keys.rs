//! API keys: rows of `api_keys`. The keys themselves are not here, only their digests.

use uuid::Uuid;

use super::rows::{AdminEvent, KeyRow, Replaces};
use super::sql::{Row, Tx, query};
use super::{Store, StoreError, columns, events};
use crate::clock::Timestamp;

pub(super) fn read(row: &Row) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: columns::id(row, "id")?,
        agent_id: columns::id(row, "agent_id")?,
        digest: columns::array(row, "digest")?,
        hint: columns::optional_text(row, "hint")?,
        name: columns::text(row, "name")?,
        expires_at: columns::optional_time(row, "expires_at")?,
        last_used_at: columns::optional_time(row, "last_used_at")?,
        created_at: columns::time(row, "created_at")?,
        replaces: match row.get_id("replaces")? {
            None => None,
            Some(key) => Some(Replaces { key, grace_ms: columns::optional_u64(row, "grace_ms")?.unwrap_or(0) }),
        },
    })
}

pub(super) async fn insert(tx: &mut Tx, key: &KeyRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO api_keys (id, agent_id, digest, hint, name, expires_at, last_used_at, created_at, \
         replaces, grace_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(key.id)
    .bind(key.agent_id)
    .bind(key.digest.to_vec())
    .bind(key.hint.clone())
    .bind(key.name.clone())
    .bind(key.expires_at)
    .bind(key.last_used_at)
    .bind(key.created_at)
    .bind(key.replaces.map(|old| old.key))
    .bind(key.replaces.map(|old| i64::try_from(old.grace_ms).unwrap_or(i64::MAX)))
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn find(tx: &mut Tx, id: Uuid) -> Result<Option<KeyRow>, StoreError> {
    let row = query("SELECT * FROM api_keys WHERE id = $1").bind(id).fetch_optional(&mut *tx);
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
        let alive = query("SELECT 1 FROM agents WHERE id = $1 AND state <> 'deleted'").bind(key.agent_id);
        if !alive.exists(&mut tx).await? {
            return Err(StoreError::NotFound);
        }
        let held =
            query("SELECT COUNT(*) FROM api_keys WHERE agent_id = $1 AND (expires_at IS NULL OR expires_at > $2)")
                .bind(key.agent_id)
                .bind(key.created_at)
                .number(&mut tx)
                .await?;
        if held >= i64::from(most) {
            return Err(StoreError::Conflict(format!("the agent already has {held} keys")));
        }
        insert(&mut tx, key).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// The keys of an agent, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn keys_of(&self, agent: Uuid) -> Result<Vec<KeyRow>, StoreError> {
        query("SELECT * FROM api_keys WHERE agent_id = $1 ORDER BY created_at DESC, id DESC")
            .bind(agent)
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
        let row = query("SELECT * FROM api_keys WHERE id = $1").bind(id).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// The key with this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let row = query("SELECT * FROM api_keys WHERE digest = $1").bind(digest.to_vec()).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }

    /// Takes a key away for good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is already gone.
    pub async fn remove_key(&self, id: Uuid, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = query("DELETE FROM api_keys WHERE id = $1").bind(id).execute(&mut tx).await?;
        if done == 0 {
            return Err(StoreError::NotFound);
        }
        events::write(&mut tx, event).await?;
        tx.commit().await
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
            query("UPDATE api_keys SET replaces = NULL, grace_ms = NULL WHERE id = $1")
                .bind(key.id)
                .execute(&mut tx)
                .await?;
            let Some(old) = find(&mut tx, replaces.key).await? else { break };
            let grace_ms = *grace_ms.get_or_insert(replaces.grace_ms);
            let end = used_at.plus_micros(i64::try_from(grace_ms).unwrap_or(i64::MAX).saturating_mul(1_000));
            if old.expires_at.is_none_or(|at| at > end) {
                let ended = KeyRow { expires_at: Some(end), ..old.clone() };
                query("UPDATE api_keys SET expires_at = $2 WHERE id = $1")
                    .bind(old.id)
                    .bind(end)
                    .execute(&mut tx)
                    .await?;
                events::write(&mut tx, &note(&old, &ended)).await?;
            }
            successor = Some(old);
        }
        tx.commit().await
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
        let found = query("SELECT * FROM api_keys WHERE expires_at < $1 ORDER BY expires_at LIMIT $2")
            .bind(then)
            .bind(most)
            .fetch_all(&mut tx)
            .await?;
        for row in &found {
            let key = read(row)?;
            query("DELETE FROM api_keys WHERE id = $1").bind(key.id).execute(&mut tx).await?;
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
            query(
                "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
            )
            .bind(*id)
            .bind(*at)
            .execute(&mut tx)
            .await?;
        }
        tx.commit().await
    }
}
