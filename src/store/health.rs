//! What probes and calls found of agents: health, cards, and when to look again.
//!
//! Promises that of those who share the database no two are given the same agent to probe at the same time, that nothing is
//! written of an agent that was moved meanwhile, and that what changes no answer and no call changes nothing the directory is
//! built from.

use uuid::Uuid;

use super::rows::{AdminEvent, AgentRow, HealthStatus};
use super::sql::{Tx, query};
use super::{Store, StoreError, agents, columns, events, webhooks};
use crate::clock::Timestamp;

/// What was found of one agent.
#[derive(Clone, Debug)]
pub struct HealthChange {
    /// The agent as it was when it was looked at.
    pub probed: AgentRow,
    /// Its health, card, held card and skills from now on.
    pub found: AgentRow,
    /// When to look at it again.
    pub next: Timestamp,
    /// The event of a card that was held or let go.
    pub event: Option<AdminEvent>,
}

async fn write(tx: &mut Tx, change: &HealthChange) -> Result<bool, StoreError> {
    let HealthChange { probed, found, next, event } = change;
    let held = |row: &AgentRow| row.held_card.as_ref().map(|held| held.json.clone());
    // As it is now: what was probed may be older than what another node found meanwhile.
    let before = query("SELECT health FROM agents WHERE id = $1").bind(probed.id).fetch_optional(&mut *tx).await?;
    let done = query(
        "UPDATE agents SET health = $4, health_reason = $5, health_checked_at = $6, card = $7, card_fetched_at = $8, \
         skills = CASE WHEN skills = $9 THEN $10 ELSE skills END, \
         skill_terms = CASE WHEN skills = $9 THEN $11 ELSE skill_terms END, \
         held_card = $12, held_card_at = $13, held_card_reason = $14, next_probe_at = $15 \
         WHERE id = $1 AND endpoint_url IS NOT DISTINCT FROM $2 AND card_url IS NOT DISTINCT FROM $3 \
         AND card IS NOT DISTINCT FROM $16 AND held_card IS NOT DISTINCT FROM $17 \
         AND health_interval_s IS NOT DISTINCT FROM $18 AND state <> 'deleted'",
    )
    .bind(probed.id)
    .bind(probed.endpoint_url.clone())
    .bind(probed.card_url.clone())
    .bind(found.health.as_str())
    .bind(found.health_reason.clone())
    .bind(found.health_checked_at)
    .bind(found.card_json.clone())
    .bind(found.card_fetched_at)
    .bind(probed.skills_json.clone())
    .bind(found.skills_json.clone())
    .bind(super::search::skill_terms(&found.skills_json))
    .bind(held(found))
    .bind(found.held_card.as_ref().map(|held| held.at))
    .bind(found.held_card.as_ref().map(|held| held.reason.clone()))
    .bind(*next)
    .bind(probed.card_json.clone())
    .bind(held(probed))
    .bind(probed.health_interval_s)
    .execute(&mut *tx)
    .await?;
    let written = done > 0;
    if let Some(before) = before.filter(|_| written) {
        let before = columns::word(&before, "health", HealthStatus::from_word)?;
        let at = found.health_checked_at.unwrap_or_default();
        webhooks::announce_health(tx, before, found, at).await?;
    }
    if let Some(event) = event.as_ref().filter(|_| written) {
        events::write(tx, event).await?;
    }
    Ok(written)
}

impl Store {
    /// Claims active agents with an endpoint that were never probed or whose time has come, the longest waiting first and at
    /// most `limit`: nobody else is given them before `lease_until`, or before what was found of them is written.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn claim_probes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<AgentRow>, StoreError> {
        let mut tx = self.begin().await?;
        let claimed = query(
            "UPDATE agents SET next_probe_at = $2 WHERE id IN (\
             SELECT id FROM agents WHERE state = 'active' AND endpoint_url IS NOT NULL \
             AND (next_probe_at IS NULL OR next_probe_at <= $1) \
             ORDER BY next_probe_at NULLS FIRST LIMIT $3) RETURNING *",
        )
        .bind(now)
        .bind(lease_until)
        .bind(limit)
        .fetch_all(&mut tx)
        .await?;
        tx.commit().await?;
        claimed.iter().map(agents::read).collect()
    }

    /// The agents that were probed before and whose time came before `now`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn overdue_probes(&self, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        query(
            "SELECT id FROM agents WHERE state = 'active' AND endpoint_url IS NOT NULL \
             AND health_checked_at IS NOT NULL AND (next_probe_at IS NULL OR next_probe_at < $1)",
        )
        .bind(now)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| columns::id(row, "id"))
        .collect()
    }

    /// Sets when agents are to be probed next.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn set_next_probes(&self, turns: &[(Uuid, Timestamp)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (agent, at) in turns {
            query("UPDATE agents SET next_probe_at = $2 WHERE id = $1 AND state <> 'deleted'")
                .bind(*agent)
                .bind(*at)
                .execute(&mut tx)
                .await?;
        }
        tx.commit().await
    }

    /// Writes what was found of agents, all of it in one transaction; which of them were written. Nothing is written of an
    /// agent whose endpoint or card address, interval or either card was changed meanwhile.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn set_health(&self, changes: &[HealthChange]) -> Result<Vec<bool>, StoreError> {
        let mut tx = self.begin().await?;
        let mut written = Vec::with_capacity(changes.len());
        for change in changes {
            written.push(write(&mut tx, change).await?);
        }
        tx.commit().await?;
        Ok(written)
    }

    /// Drops the held card of an agent, if it is the one with the digest, and remembers the digest: that content is not held
    /// again. `false` when it is not the one.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn reject_card(
        &self,
        agent: Uuid,
        card: &[u8],
        digest: &str,
        event: &AdminEvent,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE agents SET held_card = NULL, held_card_at = NULL, held_card_reason = NULL, rejected_card = $3 \
             WHERE id = $1 AND held_card = $2 AND state <> 'deleted'",
        )
        .bind(agent)
        .bind(card.to_vec())
        .bind(digest.to_owned())
        .execute(&mut tx)
        .await?;
        if done == 0 {
            return Ok(false);
        }
        events::write(&mut tx, event).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The digest of the card that was rejected last for an agent.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rejected_card(&self, agent: Uuid) -> Result<Option<String>, StoreError> {
        let row =
            query("SELECT rejected_card FROM agents WHERE id = $1").bind(agent).fetch_optional(&self.reader).await?;
        Ok(row.map(|row| columns::optional_text(&row, "rejected_card")).transpose()?.flatten())
    }
}
