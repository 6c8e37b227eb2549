//! Writing many rows at once, and what has to be known before.

use uuid::Uuid;

use super::rows::{AdminEvent, AgentRow, ConnectionRow, KeyRow};
use super::sql::query;
use super::{Store, StoreError, agents, columns, connections, events, keys};

/// Names and ids that cannot be given out again.
#[derive(Clone, Debug, Default)]
pub struct NamesTaken {
    /// Every slug an agent has or had, deleted ones included.
    pub slugs: Vec<(String, Uuid)>,
    /// Agents that were deleted.
    pub deleted: Vec<Uuid>,
    /// Pairs that have a connection, whatever became of it.
    pub pairs: Vec<(Uuid, Uuid)>,
    /// The ids of those connections.
    pub connection_ids: Vec<Uuid>,
}

impl Store {
    /// What is taken, as of one moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn names_taken(&self) -> Result<NamesTaken, StoreError> {
        let mut tx = self.snapshot().await?;
        let slugs = query("SELECT slug, agent_id FROM agent_slugs").fetch_all(&mut tx).await?;
        let deleted = query("SELECT id FROM agents WHERE state = 'deleted'").fetch_all(&mut tx).await?;
        let pairs = query("SELECT id, requester_id, target_id FROM connections").fetch_all(&mut tx).await?;
        let mut taken = NamesTaken::default();
        for row in &slugs {
            taken.slugs.push((columns::text(row, "slug")?, columns::id(row, "agent_id")?));
        }
        for row in &deleted {
            taken.deleted.push(columns::id(row, "id")?);
        }
        for row in &pairs {
            taken.pairs.push((columns::id(row, "requester_id")?, columns::id(row, "target_id")?));
            taken.connection_ids.push(columns::id(row, "id")?);
        }
        Ok(taken)
    }

    /// Adds all of it with its events in one transaction, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a unique value is taken, or when the database cannot be written.
    pub async fn import(
        &self,
        agent_rows: &[AgentRow],
        key_rows: &[KeyRow],
        connection_rows: &[ConnectionRow],
        event_rows: &[AdminEvent],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for agent in agent_rows {
            agents::insert(&mut tx, agent).await?;
        }
        for key in key_rows {
            keys::insert(&mut tx, key).await?;
        }
        for connection in connection_rows {
            connections::write(&mut tx, connection).await?;
        }
        for event in event_rows {
            events::write(&mut tx, event).await?;
        }
        tx.commit().await
    }
}
