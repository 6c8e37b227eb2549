//! What webhooks are to be told: events as they happen to the registry, and their deliveries until they were taken.
//!
//! Promises: an event of the registry is written with the change it tells of, or not at all; of those who share the database
//! exactly one is given a delivery at a time; a delivery that nobody takes stays, up to a number and an age.

use serde_json::{Value, json};
use uuid::Uuid;

use super::rows::{AdminEvent, AgentRow, HealthStatus};
use super::sql::{Built, Row, Tx, query};
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

/// Events of the registry that are turned into deliveries at once.
const EVENTS_AT_ONCE: u32 = 100;

/// Deliveries that wait for one webhook, at most; of more, the oldest go.
pub const WAITING_MAX: u32 = 1_000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Names it, wherever and however often it is told.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Of which type: `connection.requested`, ...
    pub kind: String,
    /// What about it, a JSON object.
    pub data: Value,
}

/// An event on its way to one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event_id: Uuid,
    /// The webhook's name.
    pub webhook: String,
    /// What is sent.
    pub body: String,
    /// When it was to be sent first.
    pub created_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// What waits for one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The webhook's name.
    pub webhook: String,
    /// How many deliveries.
    pub deliveries: i64,
    /// Those of them that were tried in vain.
    pub failing: i64,
    /// When the oldest was to be sent.
    pub oldest: Timestamp,
    /// Why one of them was not taken.
    pub error: Option<String>,
}

/// What of a change of the registry somebody may want to be told.
fn announced(event: &AdminEvent) -> Option<WebhookEvent> {
    let after = || serde_json::from_str::<Value>(event.after.as_deref()?).ok();
    let (kind, data) = match event.action.as_str() {
        "connection.request" => {
            let after = after().filter(|after| after["status"] == "pending")?;
            let data = json!({
                "connection_id": event.subject, "requester_id": after["requester_id"], "target_id": after["target_id"],
                "message": after["message"], "purpose": after["purpose"], "by": event.actor,
            });
            ("connection.requested", data)
        }
        "agent.create" => {
            let after = after().filter(|after| after["state"] == "pending")?;
            let data = json!({"agent_id": event.subject, "slug": after["slug"], "name": after["name"]});
            ("agent.pending", data)
        }
        "agent.card_held" => ("agent.card_held", json!({"agent_id": event.subject})),
        _ => return None,
    };
    Some(WebhookEvent { id: event.id, at: event.at, kind: kind.to_owned(), data })
}

/// That an agent is offline, or no longer.
fn turned(before: HealthStatus, found: &AgentRow, at: Timestamp) -> Option<WebhookEvent> {
    let kind = match (before == HealthStatus::Offline, found.health == HealthStatus::Offline) {
        (false, true) => "agent.offline",
        (true, false) => "agent.online",
        _ => return None,
    };
    let data = json!({"agent_id": found.id, "slug": found.slug, "name": found.name, "reason": found.health_reason});
    Some(WebhookEvent { id: Uuid::now_v7(), at, kind: kind.to_owned(), data })
}

/// Writes what is announced of a change, in the change's own transaction.
pub(super) async fn announce(tx: &mut Tx, event: &AdminEvent) -> Result<(), StoreError> {
    match announced(event) {
        Some(event) => write(tx, &event).await,
        None => Ok(()),
    }
}

/// As [`announce`], of an agent's health: `before` is what the row says that is about to be written.
pub(super) async fn announce_health(
    tx: &mut Tx,
    before: HealthStatus,
    found: &AgentRow,
    at: Timestamp,
) -> Result<(), StoreError> {
    match turned(before, found, at) {
        Some(event) => write(tx, &event).await,
        None => Ok(()),
    }
}

async fn write(tx: &mut Tx, event: &WebhookEvent) -> Result<(), StoreError> {
    query("INSERT INTO webhook_events (id, at, type, data) VALUES ($1, $2, $3, $4)")
        .bind(event.id)
        .bind(event.at)
        .bind(&event.kind)
        .bind(event.data.to_string())
        .execute(&mut *tx)
        .await
        .map(drop)
}

async fn queue(tx: &mut Tx, delivery: &Delivery) -> Result<(), StoreError> {
    query(
        "INSERT INTO webhook_deliveries (event_id, webhook, body, created_at, attempts, next_at) \
         VALUES ($1, $2, $3, $4, $5, $4) ON CONFLICT DO NOTHING",
    )
    .bind(delivery.event_id)
    .bind(&delivery.webhook)
    .bind(&delivery.body)
    .bind(delivery.created_at)
    .bind(delivery.attempts)
    .execute(&mut *tx)
    .await
    .map(drop)
}

fn event(row: &Row) -> Result<WebhookEvent, StoreError> {
    let data = columns::text(row, "data")?;
    Ok(WebhookEvent {
        id: columns::id(row, "id")?,
        at: columns::time(row, "at")?,
        kind: columns::text(row, "type")?,
        data: serde_json::from_str(&data)
            .map_err(|_| StoreError::Corrupt(format!("webhook_events.data = {data:?}")))?,
    })
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        event_id: columns::id(row, "event_id")?,
        webhook: columns::text(row, "webhook")?,
        body: columns::text(row, "body")?,
        created_at: columns::time(row, "created_at")?,
        attempts: columns::optional_u32(row, "attempts")?.unwrap_or_default(),
    })
}

impl Store {
    /// Turns events of the registry into what `each` makes of one; how many events there were. Each is given to one node.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn take_webhook_events(
        &self,
        each: impl Fn(&WebhookEvent) -> Vec<Delivery>,
    ) -> Result<usize, StoreError> {
        // Mostly there are none: to find that out takes nobody's turn.
        if !query("SELECT 1 FROM webhook_events LIMIT 1").exists(&self.reader).await? {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        let taken = query(
            "DELETE FROM webhook_events WHERE id IN (SELECT id FROM webhook_events ORDER BY id LIMIT $1) RETURNING *",
        );
        let taken = taken.bind(EVENTS_AT_ONCE).fetch_all(&mut tx).await?;
        let mut events = taken.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        events.sort_by_key(|event| event.id);
        for delivery in events.iter().flat_map(each) {
            queue(&mut tx, &delivery).await?;
        }
        tx.commit().await?;
        Ok(events.len())
    }

    /// Forgets events of the registry from before `until` that nobody wanted to be told.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_webhook_events(&self, until: Timestamp) -> Result<(), StoreError> {
        let old = query("SELECT 1 FROM webhook_events WHERE at < $1 LIMIT 1").bind(until);
        if !old.exists(&self.reader).await? {
            return Ok(());
        }
        query("DELETE FROM webhook_events WHERE at < $1").bind(until).execute(&self.writer).await.map(drop)
    }

    /// Keeps deliveries until they are taken.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn queue_deliveries(&self, deliveries: &[Delivery]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for delivery in deliveries {
            queue(&mut tx, delivery).await?;
        }
        tx.commit().await
    }

    /// Claims deliveries to `webhook` whose time has come, the oldest first: nobody else is given them before `lease_until`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn claim_deliveries(
        &self,
        webhook: &str,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let due = query("SELECT 1 FROM webhook_deliveries WHERE webhook = $1 AND next_at <= $2 LIMIT 1");
        if !due.bind(webhook).bind(now).exists(&self.reader).await? {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let claimed = query(
            "UPDATE webhook_deliveries SET next_at = $3 WHERE webhook = $1 AND event_id IN (\
             SELECT event_id FROM webhook_deliveries WHERE webhook = $1 AND next_at <= $2 \
             ORDER BY created_at, event_id LIMIT $4) RETURNING *",
        )
        .bind(webhook)
        .bind(now)
        .bind(lease_until)
        .bind(limit)
        .fetch_all(&mut tx)
        .await?;
        tx.commit().await?;
        let mut claimed = claimed.iter().map(delivery).collect::<Result<Vec<_>, _>>()?;
        claimed.sort_by_key(|delivery| (delivery.created_at, delivery.event_id));
        Ok(claimed)
    }

    /// Forgets a delivery: it was taken, or is given up.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn end_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        query("DELETE FROM webhook_deliveries WHERE event_id = $1 AND webhook = $2")
            .bind(delivery.event_id)
            .bind(&delivery.webhook)
            .execute(&self.writer)
            .await
            .map(drop)
    }

    /// Notes that a delivery was tried in vain, and is to be tried again at `next`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn put_off_delivery(&self, delivery: &Delivery, next: Timestamp, error: &str) -> Result<(), StoreError> {
        query(
            "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = $3, error = $4 \
             WHERE event_id = $1 AND webhook = $2",
        )
        .bind(delivery.event_id)
        .bind(&delivery.webhook)
        .bind(next)
        .bind(error)
        .execute(&self.writer)
        .await
        .map(drop)
    }

    /// Forgets the oldest deliveries to `webhook` where more than [`WAITING_MAX`] wait; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn bound_deliveries(&self, webhook: &str) -> Result<u64, StoreError> {
        let waiting = query("SELECT COUNT(*) FROM webhook_deliveries WHERE webhook = $1").bind(webhook);
        let waiting = waiting.number(&self.reader).await?;
        let over = u32::try_from(waiting - i64::from(WAITING_MAX)).unwrap_or(0);
        if over == 0 {
            return Ok(0);
        }
        query(
            "DELETE FROM webhook_deliveries WHERE webhook = $1 AND event_id IN (\
             SELECT event_id FROM webhook_deliveries WHERE webhook = $1 ORDER BY created_at, event_id LIMIT $2)",
        )
        .bind(webhook)
        .bind(over)
        .execute(&self.writer)
        .await
    }

    /// Forgets deliveries that were due before `until`, but for those to these webhooks; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget_deliveries(&self, until: Timestamp, but: &[&str]) -> Result<u64, StoreError> {
        let those = |sql: &str| {
            let mut query = Built::new(self.reader.dialect(), sql);
            query.push_bind(until);
            for webhook in but {
                query.push(" AND webhook <> ").push_bind(*webhook);
            }
            query.build()
        };
        if !those("SELECT 1 FROM webhook_deliveries WHERE next_at < ").exists(&self.reader).await? {
            return Ok(0);
        }
        those("DELETE FROM webhook_deliveries WHERE next_at < ").execute(&self.writer).await
    }

    /// What waits, webhook by webhook.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn waiting_deliveries(&self) -> Result<Vec<Waiting>, StoreError> {
        let rows = query(
            "SELECT webhook, COUNT(*) AS deliveries, COUNT(error) AS failing, MIN(created_at) AS oldest, \
             MAX(error) AS error FROM webhook_deliveries GROUP BY webhook ORDER BY webhook",
        );
        let rows = rows.fetch_all(&self.reader).await?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    webhook: columns::text(row, "webhook")?,
                    deliveries: columns::number(row, "deliveries")?,
                    failing: columns::number(row, "failing")?,
                    oldest: columns::time(row, "oldest")?,
                    error: columns::optional_text(row, "error")?,
                })
            })
            .collect()
    }
}
