//! The sealed secrets of agents: changed over when their time has come, and sealed anew all at once.

use uuid::Uuid;

use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

/// A sealed secret: the agent it belongs to, the column it stands in, its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// Whose.
    pub agent: Uuid,
    /// Which.
    pub column: SecretColumn,
    /// Encrypted.
    pub bytes: &'a [u8],
}

/// The columns that hold sealed secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretColumn {
    /// `signing_secret`
    Signing,
    /// `next_signing_secret`
    NextSigning,
    /// `upstream_credential`
    Upstream,
}

impl Store {
    /// Puts the signing secrets in force whose time has come by `now`; how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn activate_signing_secrets(&self, now: Timestamp) -> Result<u64, StoreError> {
        // Asked every second: the writer is not to be bothered for nothing.
        let due = sqlx::query("SELECT 1 FROM agents WHERE next_signing_secret_from <= $1 LIMIT 1");
        if due.bind(now.to_string()).fetch_optional(&self.reader).await?.is_none() {
            return Ok(0);
        }
        let done = sqlx::query(
            "UPDATE agents SET signing_secret = next_signing_secret, next_signing_secret = NULL, \
             next_signing_secret_from = NULL WHERE next_signing_secret_from <= $1 AND next_signing_secret IS NOT NULL",
        );
        Ok(done.bind(now.to_string()).execute(&self.writer).await?.rows_affected())
    }

    /// Puts what `reseal` makes of each sealed secret in its place, all in one transaction; how many there were. When it
    /// returns, they are on the disk.
    ///
    /// # Errors
    /// What `reseal` refuses, and then nothing has changed; or when the database fails.
    pub async fn reseal_secrets<E, F>(&self, mut reseal: F) -> Result<usize, E>
    where
        E: From<StoreError>,
        F: FnMut(Sealed<'_>) -> Result<Vec<u8>, E> + Send,
    {
        let stored = |error: sqlx::Error| StoreError::from(error);
        let mut tx = self.begin().await?;
        let rows = sqlx::query(
            "SELECT id, signing_secret, next_signing_secret, upstream_credential FROM agents WHERE state <> 'deleted'",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(stored)?;
        let mut count = 0;
        for row in &rows {
            let agent = columns::id(row, "id")?;
            let mut sealed = [None, None, None];
            for (place, (name, column)) in sealed.iter_mut().zip([
                ("signing_secret", SecretColumn::Signing),
                ("next_signing_secret", SecretColumn::NextSigning),
                ("upstream_credential", SecretColumn::Upstream),
            ]) {
                let bytes: Option<Vec<u8>> = sqlx::Row::try_get(row, name).map_err(stored)?;
                if let Some(bytes) = bytes {
                    *place = Some(reseal(Sealed { agent, column, bytes: &bytes })?);
                    count += 1;
                }
            }
            let [signing, next, upstream] = sealed;
            sqlx::query(
                "UPDATE agents SET signing_secret = $2, next_signing_secret = $3, upstream_credential = $4 WHERE id = $1",
            )
            .bind(agent.to_string())
            .bind(signing)
            .bind(next)
            .bind(upstream)
            .execute(&mut *tx)
            .await
            .map_err(stored)?;
        }
        tx.commit().await.map_err(stored)?;
        // A commit alone may still be lost in a power cut; with the keys it needs gone, that would be for ever.
        let (busy, ..): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await.map_err(stored)?;
        if busy != 0 {
            return Err(StoreError::Database(sqlx::Error::Protocol(
                "somebody else has the database open: stop it and run this again".to_owned(),
            ))
            .into());
        }
        Ok(count)
    }
}
