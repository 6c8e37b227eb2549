//! API keys: made, listed and revoked by the agent they belong to (with a key it has) or by an admin, by nobody else.

use serde_json::json;
use uuid::Uuid;

use super::names::check_text;
use super::token::NewToken;
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::KeyRow;

/// More keys than that are no rotation any more.
const KEYS_MAX: u32 = 50;

impl Registry {
    /// Makes a key for `agent`; the key itself is in the second value and nowhere else.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Forbidden`], [`RegistryError::Taken`] when it has enough keys.
    pub async fn create_key(
        &self,
        who: &Actor,
        agent: Uuid,
        name: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<(KeyRow, NewToken), RegistryError> {
        if !who.owns(agent) {
            return Err(RegistryError::Forbidden(
                "a key is made with a key of the same agent, or by an admin".to_owned(),
            ));
        }
        let name = check_text("name", name, 100, false)?;
        if expires_at.is_some_and(|at| at <= self.clock.wall()) {
            return Err(RegistryError::invalid("expires_at", "is in the past"));
        }
        let token = NewToken::generate(&self.settings.key_prefix);
        let key = KeyRow {
            id: Uuid::now_v7(),
            agent_id: agent,
            digest: token.digest,
            hint: Some(token.hint.clone()),
            name,
            expires_at,
            last_used_at: None,
            created_at: self.clock.wall(),
        };
        let after = json!({"agent_id": agent, "name": key.name, "hint": key.hint, "expires_at": key.expires_at});
        let event = self.event(who, "key.create", key.id, None, Some(after));
        match self.store.add_key(&key, KEYS_MAX, &event).await {
            Err(StoreError::NotFound) => return Err(RegistryError::NotFound("agent")),
            Err(StoreError::Conflict(what)) => return Err(RegistryError::Taken(format!("{what}: revoke one first"))),
            other => other?,
        }
        self.reload().await;
        Ok((key, token))
    }

    /// The keys of `agent`, newest first.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but the agent and operators.
    pub async fn keys_of(&self, who: &Actor, agent: Uuid) -> Result<Vec<KeyRow>, RegistryError> {
        if !who.owns(agent) && !who.is_operator() {
            return Err(RegistryError::Forbidden("an agent sees its own keys only".to_owned()));
        }
        Ok(self.store.keys_of(agent).await?)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], also for keys of other agents: their ids are nobody's business.
    pub async fn revoke_key(&self, who: &Actor, id: Uuid) -> Result<(), RegistryError> {
        let key = self.store.key(id).await?.filter(|key| who.owns(key.agent_id));
        let key = key.ok_or(RegistryError::NotFound("key"))?;
        let before =
            json!({"agent_id": key.agent_id, "name": key.name, "hint": key.hint, "expires_at": key.expires_at});
        let event = self.event(who, "key.revoke", id, Some(before), None);
        match self.store.remove_key(id, &event).await {
            Err(StoreError::NotFound) => return Err(RegistryError::NotFound("key")),
            other => other?,
        }
        self.reload().await;
        Ok(())
    }
}
