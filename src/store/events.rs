//! What was changed in the registry and by whom: `admin_events`, and the few `settings` the gateway keeps for itself.

use uuid::Uuid;

use super::rows::AdminEvent;
use super::sql::{Row, Tx, query};
use super::{Store, StoreError, columns, webhooks};
use crate::clock::Timestamp;

/// Which events are asked for. What is not asked for does not filter.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// The id of what was changed.
    pub subject: Option<String>,
    /// Who did it, in full.
    pub actor: Option<String>,
    /// What was done: `connection.block`, or all of `connection`.
    pub action: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// Which part of them.
#[derive(Clone, Copy, Debug)]
pub struct EventPage {
    /// Time and id of the last event of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// At most so many.
    pub limit: u32,
}

impl EventPage {
    /// The newest `limit` of them.
    #[must_use]
    pub fn newest(limit: u32) -> Self {
        Self { after: None, limit }
    }
}

/// Writes the event of a change, in the change's own transaction; with what webhooks are to be told of it.
pub(super) async fn write(tx: &mut Tx, event: &AdminEvent) -> Result<(), StoreError> {
    query(
        "INSERT INTO admin_events (id, at, actor, action, subject, before, after, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(event.id)
    .bind(event.at)
    .bind(event.actor.clone())
    .bind(event.action.clone())
    .bind(event.subject.clone())
    .bind(event.before.clone())
    .bind(event.after.clone())
    .bind(event.reason.clone())
    .execute(&mut *tx)
    .await?;
    webhooks::announce(tx, event).await
}

fn read(row: &Row) -> Result<AdminEvent, StoreError> {
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
    /// The events that pass `filter`, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn admin_events(&self, filter: &EventFilter, page: &EventPage) -> Result<Vec<AdminEvent>, StoreError> {
        let (after_at, after_id) = page.after.unzip();
        query(
            "SELECT * FROM admin_events WHERE ($1 IS NULL OR subject = $1) AND ($2 IS NULL OR actor = $2) \
             AND ($3 IS NULL OR action = $3 OR substr(action, 1, length($3) + 1) = $3 || '.') \
             AND ($4 IS NULL OR at >= $4) AND ($5 IS NULL OR at < $5) AND ($6 IS NULL OR (at, id) < ($6, $7)) \
             ORDER BY at DESC, id DESC LIMIT $8",
        )
        .bind(filter.subject.clone())
        .bind(filter.actor.clone())
        .bind(filter.action.clone())
        .bind(filter.since)
        .bind(filter.until)
        .bind(after_at)
        .bind(after_id)
        .bind(page.limit)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(read)
        .collect()
    }

    /// Writes an event that stands for itself: something was looked at, not changed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn add_event(&self, event: &AdminEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        write(&mut tx, event).await?;
        tx.commit().await
    }

    /// What was changed about `subject`, newest first, from after the event that `after` names on. One subject's part of
    /// [`Store::admin_events`], found by its index however long the log is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn history(
        &self,
        subject: Uuid,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<AdminEvent>, StoreError> {
        query(
            "SELECT * FROM admin_events WHERE subject = $1 AND ($2 IS NULL OR (at, id) < ($2, $3)) \
             ORDER BY at DESC, id DESC LIMIT $4",
        )
        .bind(subject.to_string())
        .bind(after.map(|(at, _)| at))
        .bind(after.map(|(_, id)| id))
        .bind(limit)
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
        let row = query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(&self.reader).await?;
        row.map(|row| columns::text(&row, "value")).transpose()
    }

    /// The value that is kept; `value` from now on, if there is none.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn setting_or(&self, name: &str, value: &str) -> Result<String, StoreError> {
        query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&self.writer)
            .await?;
        let row = query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_one(&self.writer).await?;
        columns::text(&row, "value")
    }

    /// Keeps a value, in place of the one it had.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name)
            .bind(value)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
