//! Operators: rows of `operators`, and the promise that one admin always remains.

use uuid::Uuid;

use super::rows::{AdminEvent, OperatorRole, OperatorRow};
use super::sql::{Row, Tx, query};
use super::{Store, StoreError, columns, events};
use crate::clock::Timestamp;

fn read(row: &Row) -> Result<OperatorRow, StoreError> {
    Ok(OperatorRow {
        id: columns::id(row, "id")?,
        name: columns::text(row, "name")?,
        role: columns::word(row, "role", OperatorRole::from_word)?,
        digest: columns::array(row, "digest")?,
        hint: columns::optional_text(row, "hint")?,
        expires_at: columns::optional_time(row, "expires_at")?,
        last_used_at: columns::optional_time(row, "last_used_at")?,
        created_at: columns::time(row, "created_at")?,
    })
}

async fn insert(tx: &mut Tx, operator: &OperatorRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO operators (id, name, role, digest, hint, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(operator.id)
    .bind(operator.name.clone())
    .bind(operator.role.as_str())
    .bind(operator.digest.to_vec())
    .bind(operator.hint.clone())
    .bind(operator.expires_at)
    .bind(operator.created_at)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn admins(tx: &mut Tx, but: Option<Uuid>) -> Result<i64, StoreError> {
    let others =
        "SELECT COUNT(*) FROM operators WHERE role = 'admin' AND expires_at IS NULL AND ($1 IS NULL OR id <> $1)";
    query(others).bind(but).number(tx).await
}

impl Store {
    /// Adds an operator.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn add_operator(&self, operator: &OperatorRow, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        insert(&mut tx, operator).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// Adds the first admin; `false` when there is one already (a token that expires does not count).
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn add_first_admin(&self, operator: &OperatorRow, event: &AdminEvent) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if admins(&mut tx, None).await? > 0 {
            return Ok(false);
        }
        insert(&mut tx, operator).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes an operator away.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is the last admin, [`StoreError::NotFound`] when it is not there.
    pub async fn remove_operator(&self, id: Uuid, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if admins(&mut tx, Some(id)).await? == 0 {
            return Err(StoreError::Conflict("the last admin cannot be removed: add another one first".to_owned()));
        }
        let done = query("DELETE FROM operators WHERE id = $1").bind(id).execute(&mut tx).await?;
        if done == 0 {
            return Err(StoreError::NotFound);
        }
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// Gives an operator another token: the one it had is worth nothing from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is not there.
    pub async fn change_operator_token(
        &self,
        id: Uuid,
        digest: &[u8; 32],
        hint: &str,
        event: &AdminEvent,
    ) -> Result<OperatorRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = query("UPDATE operators SET digest = $2, hint = $3, last_used_at = NULL WHERE id = $1 RETURNING *")
            .bind(id)
            .bind(digest.to_vec())
            .bind(hint)
            .fetch_one(&mut tx)
            .await?;
        events::write(&mut tx, event).await?;
        tx.commit().await?;
        read(&row)
    }

    /// Notes that an operator's token was used.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn touch_operator(&self, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
        query("UPDATE operators SET last_used_at = $2 WHERE id = $1").bind(id).bind(at).execute(&self.writer).await?;
        Ok(())
    }

    /// Every operator, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn operators(&self) -> Result<Vec<OperatorRow>, StoreError> {
        let rows = query("SELECT * FROM operators ORDER BY name").fetch_all(&self.reader).await?;
        rows.iter().map(read).collect()
    }

    /// The operator whose token has this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn operator_by_digest(&self, digest: &[u8; 32]) -> Result<Option<OperatorRow>, StoreError> {
        let row = query("SELECT * FROM operators WHERE digest = $1").bind(digest.to_vec()).fetch_optional(&self.reader);
        row.await?.as_ref().map(read).transpose()
    }
}
