//! API keys: made, rotated, listed and revoked by the agent they belong to (with a key it has) or by an admin, by nobody else.
//!
//! Promises: a rotation leaves no gap: the old key works until the new one has been used, and some time longer; a key that
//! nobody picked up ends nothing.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names::check_text;
use super::token::NewToken;
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{AdminEvent, KeyRow, Replaces};

/// More keys than that are no rotation any more.
const KEYS_MAX: u32 = 50;

/// 30 days: how long a replaced key may live on at most, and how long expired keys are still listed.
const LONGEST_GRACE_MS: u64 = 30 * 86_400_000;
const EXPIRED_KEPT_US: i64 = 30 * 86_400_000_000;

/// Expired keys removed in one go.
const TIDY_MAX: u32 = 1_000;

/// How a key is to be rotated.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key's name; `None`: the old one's.
    pub name: Option<String>,
    /// When the new key expires; not said: as long after its making as the old one after its own, if it does.
    pub expires_at: Option<Option<Timestamp>>,
    /// How long the old key lives on after the first use of the new one, in milliseconds.
    pub grace_ms: u64,
}

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
        let token = NewToken::generate(&self.settings.key_prefix);
        let key = self.new_key(agent, name, expires_at, (token.digest, Some(token.hint.clone())))?;
        self.add_key(who, &key, "key.create").await?;
        Ok((key, token))
    }

    /// Takes over a key that exists elsewhere, by its SHA-256.
    ///
    /// # Errors
    /// As for [`Registry::create_key`]; [`RegistryError::Taken`] also when the key is known already.
    pub async fn import_key(
        &self,
        who: &Actor,
        agent: Uuid,
        name: &str,
        expires_at: Option<Timestamp>,
        digest: [u8; 32],
    ) -> Result<KeyRow, RegistryError> {
        if !who.is_admin() {
            return Err(RegistryError::Forbidden("only an operator can take over a key by its digest".to_owned()));
        }
        let key = self.new_key(agent, name, expires_at, (digest, None))?;
        self.add_key(who, &key, "key.import").await?;
        Ok(key)
    }

    /// Makes a key that takes over from the key `id`: the old one ends some time after the first use of the new.
    ///
    /// # Errors
    /// As for [`Registry::create_key`], [`RegistryError::NotFound`] also for keys of other agents, [`RegistryError::Taken`]
    /// for a key that has expired.
    pub async fn rotate_key(
        &self,
        who: &Actor,
        id: Uuid,
        rotation: Rotation,
    ) -> Result<(KeyRow, NewToken), RegistryError> {
        let old = self.store.key(id).await?.filter(|key| who.owns(key.agent_id));
        let old = old.ok_or(RegistryError::NotFound("key"))?;
        let now = self.clock.wall();
        if old.expires_at.is_some_and(|end| end <= now) {
            return Err(RegistryError::Taken("the key has expired: make a new one".to_owned()));
        }
        if rotation.grace_ms > LONGEST_GRACE_MS {
            return Err(RegistryError::invalid("grace", "is longer than 30 days"));
        }
        let lifetime = old.expires_at.map(|end| end.0.saturating_sub(old.created_at.0));
        let expires_at = rotation.expires_at.unwrap_or(lifetime.map(|micros| now.plus_micros(micros)));
        let token = NewToken::generate(&self.settings.key_prefix);
        let name = rotation.name.as_deref().unwrap_or(&old.name);
        let mut key = self.new_key(old.agent_id, name, expires_at, (token.digest, Some(token.hint.clone())))?;
        key.replaces = Some(Replaces { key: old.id, grace_ms: rotation.grace_ms });
        self.add_key(who, &key, "key.rotate").await?;
        Ok((key, token))
    }

    fn new_key(
        &self,
        agent: Uuid,
        name: &str,
        expires_at: Option<Timestamp>,
        (digest, hint): ([u8; 32], Option<String>),
    ) -> Result<KeyRow, RegistryError> {
        let (name, now) = (check_text("name", name, 100, false)?, self.clock.wall());
        if expires_at.is_some_and(|at| at <= now) {
            return Err(RegistryError::invalid("expires_at", "is in the past"));
        }
        let id = Uuid::now_v7();
        let (last_used_at, replaces) = (None, None);
        Ok(KeyRow { id, agent_id: agent, digest, hint, name, expires_at, last_used_at, created_at: now, replaces })
    }

    async fn add_key(&self, who: &Actor, key: &KeyRow, action: &str) -> Result<(), RegistryError> {
        if !who.owns(key.agent_id) {
            return Err(RegistryError::Forbidden(
                "a key is made with a key of the same agent, or by an admin".to_owned(),
            ));
        }
        let event = self.event(who, action, key.id, None, Some(snapshot(key)));
        match self.store.add_key(key, KEYS_MAX, &event).await {
            Err(StoreError::NotFound) => return Err(RegistryError::NotFound("agent")),
            Err(StoreError::Conflict(what)) if what.contains("digest") => {
                return Err(RegistryError::Taken("there is a key with this digest already".to_owned()));
            }
            Err(StoreError::Conflict(what)) => return Err(RegistryError::Taken(format!("{what}: revoke one first"))),
            other => other?,
        }
        self.reload().await;
        Ok(())
    }

    /// Gives the key that `id` takes over from its end, now that `id` was used at `used_at`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn finish_rotation(&self, id: Uuid, used_at: Timestamp) -> Result<(), RegistryError> {
        let note =
            |old: &KeyRow, ended: &KeyRow| self.by_gateway("key.expire", old, Some(ended), "its successor was used");
        self.store.finish_rotation(id, used_at, note).await?;
        self.reload().await;
        Ok(())
    }

    /// Removes keys that expired long ago.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn tidy_keys(&self) -> Result<(), RegistryError> {
        let then = self.clock.wall().plus_micros(-EXPIRED_KEPT_US);
        let note = |key: &KeyRow| self.by_gateway("key.remove", key, None, "it expired long ago");
        if self.store.remove_expired_keys(then, TIDY_MAX, note).await? > 0 {
            self.reload().await;
        }
        Ok(())
    }

    fn by_gateway(&self, action: &str, before: &KeyRow, after: Option<&KeyRow>, reason: &str) -> AdminEvent {
        let event = self.event(&Actor::Anonymous, action, before.id, Some(snapshot(before)), after.map(snapshot));
        AdminEvent { actor: "gateway".to_owned(), reason: Some(reason.to_owned()), ..event }
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
        let event = self.event(who, "key.revoke", id, Some(snapshot(&key)), None);
        match self.store.remove_key(id, &event).await {
            Err(StoreError::NotFound) => return Err(RegistryError::NotFound("key")),
            other => other?,
        }
        self.reload().await;
        Ok(())
    }
}

fn snapshot(key: &KeyRow) -> Value {
    json!({
        "agent_id": key.agent_id, "name": key.name, "hint": key.hint, "expires_at": key.expires_at,
        "replaces": key.replaces.map(|old| old.key), "grace_ms": key.replaces.map(|old| old.grace_ms),
    })
}
