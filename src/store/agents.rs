//! Agents: rows of `agents` and `agent_slugs`.

use uuid::Uuid;

use super::rows::{
    AdminEvent, AdminState, AgentRow, AgentTimeouts, ConnectionRow, HealthStatus, HeldCard, KeyRow, PushMode,
};
use super::search::skill_terms;
use super::sql::{Query, Row, Tx, query};
use super::{Store, StoreError, agent_limits, columns, connections, events, keys};
use crate::clock::Timestamp;

pub(super) fn read(row: &Row) -> Result<AgentRow, StoreError> {
    Ok(AgentRow {
        id: columns::id(row, "id")?,
        slug: columns::text(row, "slug")?,
        name: columns::text(row, "name")?,
        description: columns::text(row, "description")?,
        provider: columns::optional_text(row, "provider")?,
        avatar_url: columns::optional_text(row, "avatar_url")?,
        endpoint_url: columns::optional_text(row, "endpoint_url")?,
        card_url: columns::optional_text(row, "card_url")?,
        subpaths: columns::list(row, "subpaths")?,
        capabilities: columns::list(row, "capabilities")?,
        skills_json: columns::text(row, "skills")?,
        payment_json: columns::optional_text(row, "payment")?,
        state: columns::word(row, "state", AdminState::from_word)?,
        listed: columns::flag(row, "listed")?,
        auto_accept_connections: columns::flag(row, "auto_accept_connections")?,
        registered_by_operator: columns::flag(row, "registered_by_operator")?,
        push: columns::word(row, "push", PushMode::from_word)?,
        pass_authorization: columns::flag(row, "pass_authorization")?,
        sign_large_bodies: columns::flag(row, "sign_large_bodies")?,
        http2: columns::flag(row, "http2")?,
        max_in_flight: columns::optional_u32(row, "max_in_flight")?,
        limits: agent_limits::read(columns::optional_text(row, "limits")?)?,
        timeouts: AgentTimeouts {
            connect_ms: columns::optional_u32(row, "connect_ms")?,
            first_byte_ms: columns::optional_u32(row, "first_byte_ms")?,
            read_first_byte_ms: columns::optional_u32(row, "read_first_byte_ms")?,
            idle_ms: columns::optional_u32(row, "idle_ms")?,
        },
        signing_secret: columns::bytes(row, "signing_secret")?,
        next_signing_secret: columns::optional_bytes(row, "next_signing_secret")?
            .zip(columns::optional_time(row, "next_signing_secret_from")?),
        upstream_credential: columns::optional_bytes(row, "upstream_credential")?,
        card_json: columns::optional_bytes(row, "card")?,
        card_fetched_at: columns::optional_time(row, "card_fetched_at")?,
        held_card: held_card(row)?,
        health_interval_s: columns::optional_u32(row, "health_interval_s")?,
        health: columns::word(row, "health", HealthStatus::from_word)?,
        health_reason: columns::optional_text(row, "health_reason")?,
        health_checked_at: columns::optional_time(row, "health_checked_at")?,
        created_at: columns::time(row, "created_at")?,
        updated_at: columns::time(row, "updated_at")?,
    })
}

fn held_card(row: &Row) -> Result<Option<HeldCard>, StoreError> {
    let json = columns::optional_bytes(row, "held_card")?;
    let at = columns::optional_time(row, "held_card_at")?;
    let reason = columns::optional_text(row, "held_card_reason")?.unwrap_or_default();
    Ok(json.zip(at).map(|(json, at)| HeldCard { json, at, reason }))
}

fn bind(query: Query, row: &AgentRow) -> Query {
    let search = format!("{}\n{}\n{}", row.name, row.description, row.slug).to_lowercase();
    query
        .bind(row.id)
        .bind(row.slug.clone())
        .bind(row.name.clone())
        .bind(row.description.clone())
        .bind(row.provider.clone())
        .bind(row.avatar_url.clone())
        .bind(row.endpoint_url.clone())
        .bind(row.endpoint_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()))
        .bind(row.card_url.clone())
        .bind(columns::list_text(&row.subpaths))
        .bind(columns::list_text(&row.capabilities))
        .bind(row.skills_json.clone())
        .bind(skill_terms(&row.skills_json))
        .bind(search)
        .bind(row.payment_json.clone())
        .bind(row.state.as_str())
        .bind(row.listed)
        .bind(row.auto_accept_connections)
        .bind(row.registered_by_operator)
        .bind(row.push.as_str())
        .bind(row.pass_authorization)
        .bind(row.sign_large_bodies)
        .bind(row.http2)
        .bind(row.max_in_flight)
        .bind(row.timeouts.connect_ms)
        .bind(row.timeouts.first_byte_ms)
        .bind(row.timeouts.read_first_byte_ms)
        .bind(row.timeouts.idle_ms)
        .bind(row.signing_secret.clone())
        .bind(row.upstream_credential.clone())
        .bind(row.card_json.clone())
        .bind(row.card_fetched_at)
        .bind(row.health.as_str())
        .bind(row.health_reason.clone())
        .bind(row.health_checked_at)
        .bind(row.created_at)
        .bind(row.updated_at)
        .bind(row.health_interval_s)
        .bind(row.held_card.as_ref().map(|held| held.json.clone()))
        .bind(row.held_card.as_ref().map(|held| held.at))
        .bind(row.held_card.as_ref().map(|held| held.reason.clone()))
        .bind(row.next_signing_secret.as_ref().map(|(secret, _)| secret.clone()))
        .bind(row.next_signing_secret.as_ref().map(|(_, from)| *from))
        .bind(agent_limits::text(&row.limits))
}

const INSERT: &str = "INSERT INTO agents (id, slug, name, description, provider, avatar_url, endpoint_url, endpoint_key, \
    card_url, subpaths, capabilities, skills, skill_terms, search_text, payment, state, listed, auto_accept_connections, \
    registered_by_operator, push, pass_authorization, sign_large_bodies, http2, max_in_flight, connect_ms, first_byte_ms, \
    read_first_byte_ms, idle_ms, signing_secret, upstream_credential, card, card_fetched_at, health, health_reason, \
    health_checked_at, created_at, updated_at, health_interval_s, held_card, held_card_at, held_card_reason, \
    next_signing_secret, next_signing_secret_from, limits) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
    $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44)";

const UPDATE: &str = "UPDATE agents SET slug = $2, name = $3, description = $4, provider = $5, avatar_url = $6, \
    endpoint_url = $7, endpoint_key = $8, card_url = $9, subpaths = $10, capabilities = $11, skills = $12, \
    skill_terms = $13, search_text = $14, payment = $15, state = $16, listed = $17, auto_accept_connections = $18, \
    registered_by_operator = $19, push = $20, pass_authorization = $21, sign_large_bodies = $22, http2 = $23, \
    max_in_flight = $24, connect_ms = $25, first_byte_ms = $26, read_first_byte_ms = $27, idle_ms = $28, \
    signing_secret = $29, upstream_credential = $30, card = $31, card_fetched_at = $32, health = $33, \
    health_reason = $34, health_checked_at = $35, created_at = $36, updated_at = $37, \
    health_interval_s = $38, held_card = $39, held_card_at = $40, held_card_reason = $41, next_signing_secret = $42, \
    next_signing_secret_from = $43, limits = $44 WHERE id = $1";

async fn claim_slug(tx: &mut Tx, slug: &str, agent: Uuid) -> Result<(), StoreError> {
    // An agent may go back to a slug it had.
    let holder = query("SELECT 1 FROM agent_slugs WHERE slug = $1 AND agent_id = $2").bind(slug).bind(agent);
    if holder.exists(&mut *tx).await? {
        return Ok(());
    }
    query("INSERT INTO agent_slugs (slug, agent_id) VALUES ($1, $2)").bind(slug).bind(agent).execute(&mut *tx).await?;
    Ok(())
}

/// Adds an agent with its slug.
pub(super) async fn insert(tx: &mut Tx, agent: &AgentRow) -> Result<(), StoreError> {
    bind(query(INSERT), agent).execute(&mut *tx).await?;
    claim_slug(tx, &agent.slug, agent.id).await
}

/// Frees a slug that only a deleted agent holds.
async fn release_slug(tx: &mut Tx, slug: &str) -> Result<(), StoreError> {
    query("DELETE FROM agent_slugs WHERE slug = $1 AND agent_id IN (SELECT id FROM agents WHERE state = 'deleted')")
        .bind(slug)
        .execute(&mut *tx)
        .await?;
    // A dot is in no slug: the new name collides with nothing.
    query("UPDATE agents SET slug = slug || '.' || id WHERE slug = $1 AND state = 'deleted'")
        .bind(slug)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// What decides whether an agent is probed, where and when: once it is another, so is the turn.
fn probed_by(row: &AgentRow) -> impl PartialEq {
    (row.endpoint_url.clone(), row.card_url.clone(), row.health_interval_s, row.state)
}

impl Store {
    /// Adds an agent with its first key. `reclaim`: a slug that a deleted agent left behind may be taken over.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] naming `slug` or `endpoint_key` when one is taken.
    pub async fn add_agent(
        &self,
        agent: &AgentRow,
        key: &KeyRow,
        reclaim: bool,
        event: &AdminEvent,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if reclaim {
            release_slug(&mut tx, &agent.slug).await?;
        }
        insert(&mut tx, agent).await?;
        keys::insert(&mut tx, key).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// Adds an agent that waits for approval with its first key, if fewer than `most` wait.
    ///
    /// # Errors
    /// [`StoreError::Full`] when as many wait, else as for [`Store::add_agent`].
    pub async fn add_pending_agent(
        &self,
        agent: &AgentRow,
        key: &KeyRow,
        most: u32,
        event: &AdminEvent,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let waiting = query("SELECT COUNT(*) FROM agents WHERE state = 'pending'").number(&mut tx).await?;
        if waiting >= i64::from(most) {
            return Err(StoreError::Full);
        }
        insert(&mut tx, agent).await?;
        keys::insert(&mut tx, key).await?;
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// Changes an agent in one transaction: `change` gets the row as it is and leaves it as it shall be. A new slug is
    /// added to those the agent answers to; the old one keeps leading to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown or deleted agent, [`StoreError::Conflict`] as for [`Store::add_agent`],
    /// and what `change` refuses.
    pub async fn change_agent<E, F>(&self, id: Uuid, change: F) -> Result<AgentRow, E>
    where
        E: From<StoreError>,
        F: FnOnce(&mut AgentRow) -> Result<AdminEvent, E> + Send,
    {
        let mut tx = self.begin().await?;
        let found =
            query("SELECT * FROM agents WHERE id = $1 AND state <> 'deleted'").bind(id).fetch_one(&mut tx).await?;
        let mut row = read(&found)?;
        let before = row.clone();
        let event = change(&mut row)?;
        claim_slug(&mut tx, &row.slug, id).await?;
        bind(query(UPDATE), &row).execute(&mut tx).await?;
        if probed_by(&row) != probed_by(&before) {
            // A statement of its own: one that sets the time of a probe changes nothing else, as the directory sees it.
            let now = query("UPDATE agents SET next_probe_at = NULL WHERE id = $1").bind(id);
            now.execute(&mut tx).await?;
        }
        events::write(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Marks an agent deleted; its keys and secrets go, its endpoint is free again, and its connections become what `end`
    /// makes of them, each with an event of its own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown or deleted agent.
    pub async fn delete_agent(
        &self,
        id: Uuid,
        at: Timestamp,
        event: &AdminEvent,
        end: impl Fn(&ConnectionRow) -> (ConnectionRow, AdminEvent) + Send,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE agents SET state = 'deleted', signing_secret = $3, next_signing_secret = NULL, \
             next_signing_secret_from = NULL, upstream_credential = NULL, card = NULL, held_card = NULL, \
             updated_at = $2 WHERE id = $1 AND state <> 'deleted'",
        )
        .bind(id)
        .bind(at)
        .bind(Vec::<u8>::new())
        .execute(&mut tx)
        .await?;
        if done == 0 {
            return Err(StoreError::NotFound);
        }
        query("DELETE FROM api_keys WHERE agent_id = $1").bind(id).execute(&mut tx).await?;
        let open = query("SELECT * FROM connections WHERE (requester_id = $1 OR target_id = $1) AND status <> 'ended'")
            .bind(id)
            .fetch_all(&mut tx)
            .await?;
        for found in &open {
            let (ended, event) = end(&connections::read(found)?);
            connections::write(&mut tx, &ended).await?;
            events::write(&mut tx, &event).await?;
        }
        events::write(&mut tx, event).await?;
        tx.commit().await
    }

    /// An agent that is not deleted, by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn agent(&self, id: Uuid) -> Result<Option<AgentRow>, StoreError> {
        let row = query("SELECT * FROM agents WHERE id = $1 AND state <> 'deleted'").bind(id);
        row.fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// An agent that is not deleted, by a slug it has or had.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn agent_by_slug(&self, slug: &str) -> Result<Option<AgentRow>, StoreError> {
        let row = query(
            "SELECT agents.* FROM agent_slugs JOIN agents ON agents.id = agent_slugs.agent_id \
             WHERE agent_slugs.slug = $1 AND agents.state <> 'deleted'",
        )
        .bind(slug);
        row.fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// A deleted agent, by its id or a slug it had when it was deleted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn deleted_agent(&self, reference: &str) -> Result<Option<AgentRow>, StoreError> {
        let row = query(
            "SELECT * FROM agents WHERE state = 'deleted' \
             AND (id = $2 OR id IN (SELECT agent_id FROM agent_slugs WHERE slug = $1))",
        )
        .bind(reference)
        .bind(Uuid::parse_str(reference).ok());
        row.fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// How many slugs an agent has or had.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn slug_count(&self, id: Uuid) -> Result<i64, StoreError> {
        query("SELECT COUNT(*) FROM agent_slugs WHERE agent_id = $1").bind(id).number(&self.reader).await
    }
}
