//! The sealed secrets of agents: changed over when their time has come, and sealed anew all at once.

use uuid::Uuid;

use super::sql::query;
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
        let due = query("SELECT 1 FROM agents WHERE next_signing_secret_from <= $1 LIMIT 1").bind(now);
        if !due.exists(&self.reader).await? {
            return Ok(0);
        }
        // The turn comes before any row, as for everybody else, or two would wait for each other.
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE agents SET signing_secret = next_signing_secret, next_signing_secret = NULL, \
             next_signing_secret_from = NULL WHERE next_signing_secret_from <= $1 AND next_signing_secret IS NOT NULL",
        );
        let count = done.bind(now).execute(&mut tx).await?;
        tx.commit().await?;
        Ok(count)
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
        let mut tx = self.begin().await?;
        let rows = query(
            "SELECT id, signing_secret, next_signing_secret, upstream_credential FROM agents WHERE state <> 'deleted'",
        )
        .fetch_all(&mut tx)
        .await?;
        let mut count = 0;
        for row in &rows {
            let agent = columns::id(row, "id")?;
            let mut sealed = [None, None, None];
            for (place, (name, column)) in sealed.iter_mut().zip([
                ("signing_secret", SecretColumn::Signing),
                ("next_signing_secret", SecretColumn::NextSigning),
                ("upstream_credential", SecretColumn::Upstream),
            ]) {
                let bytes = columns::optional_bytes(row, name)?;
                if let Some(bytes) = bytes {
                    *place = Some(reseal(Sealed { agent, column, bytes: &bytes })?);
                    count += 1;
                }
            }
            let [signing, next, upstream] = sealed;
            query(
                "UPDATE agents SET signing_secret = $2, next_signing_secret = $3, upstream_credential = $4 WHERE id = $1",
            )
            .bind(agent)
            .bind(signing)
            .bind(next)
            .bind(upstream)
            .execute(&mut tx)
            .await?;
        }
        tx.commit().await?;
        // A commit alone may still be lost in a power cut; with the keys it needs gone, that would be for ever.
        self.write_through().await?;
        Ok(count)
    }
}
