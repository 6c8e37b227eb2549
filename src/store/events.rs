//! What was changed in the registry and by whom: `admin_events`, and the few `settings` the gateway keeps for itself.

use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::rows::AdminEvent;
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

/// Writes the event of a change, in the change's own transaction.
pub(super) async fn write(tx: &mut Transaction<'static, Sqlite>, event: &AdminEvent) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO admin_events (id, at, actor, action, subject, before, after, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(event.id.to_string())
    .bind(event.at.to_string())
    .bind(event.actor.clone())
    .bind(event.action.clone())
    .bind(event.subject.clone())
    .bind(event.before.clone())
    .bind(event.after.clone())
    .bind(event.reason.clone())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<AdminEvent, StoreError> {
    Ok(AdminEvent {
        id: columns::id(row, "id")?,
        at: columns::time(row, "at")?,
        actor: columns::text(row, "actor")?,
        action: columns::text(row, "action")?,
        subject: columns::text(row, "subject")?,
        before: columns::optional_text(row, "before")?,
        after: columns::optional_text(row, "after")?,
        reason: columns::optional_text(row, "reason")?,
    })
}

impl Store {
    /// The newest changes first, at most `limit`, of one subject where one is named.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn admin_events(&self, subject: Option<&str>, limit: u32) -> Result<Vec<AdminEvent>, StoreError> {
        sqlx::query("SELECT * FROM admin_events WHERE $1 IS NULL OR subject = $1 ORDER BY at DESC, id DESC LIMIT $2")
            .bind(subject.map(str::to_owned))
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// What was changed about `subject`, newest first, from after the event that `after` names on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn history(
        &self,
        subject: Uuid,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<AdminEvent>, StoreError> {
        sqlx::query(
            "SELECT * FROM admin_events WHERE subject = $1 AND ($2 IS NULL OR (at, id) < ($2, $3)) \
             ORDER BY at DESC, id DESC LIMIT $4",
        )
        .bind(subject.to_string())
        .bind(after.map(|(at, _)| at.to_string()))
        .bind(after.map(|(_, id)| id.to_string()))
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(read)
        .collect()
    }

    /// A value the gateway keeps for itself.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(&self.reader)
            .await?)
    }

    /// Keeps a value, in place of the one it had.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name.to_owned())
            .bind(value.to_owned())
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
