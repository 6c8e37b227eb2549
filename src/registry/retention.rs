//! Legal holds and erasure on request: who may ask for them, and what is written down about it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names::check_text;
use super::operators::require_admin;
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::holds::HoldRow;
use crate::store::rows::AdminEvent;

/// The longest reason.
const REASON_MAX: usize = 500;

impl Registry {
    /// Places a legal hold on the calls that `agent` made or received, or on everybody's.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::Invalid`] without a reason.
    pub async fn place_hold(
        &self,
        who: &Actor,
        agent: Option<Uuid>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<HoldRow, RegistryError> {
        require_admin(who)?;
        if since.zip(until).is_some_and(|(since, until)| until <= since) {
            return Err(RegistryError::invalid("until", "is not after since: nothing would be held"));
        }
        let (reason, placed_by) = (checked_reason(reason)?, who.word());
        let placed_at = self.clock.wall();
        let hold = HoldRow { id: Uuid::now_v7(), agent, since, until, reason, placed_by, placed_at, released_at: None };
        let event = self.event(who, "hold.place", hold.id, None, Some(snapshot(&hold)));
        self.store.place_hold(&hold, &AdminEvent { reason: Some(hold.reason.clone()), ..event }).await?;
        Ok(hold)
    }

    /// Releases a hold.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::NotFound`] when there is none that holds.
    pub async fn release_hold(&self, who: &Actor, id: Uuid, reason: Option<String>) -> Result<(), RegistryError> {
        require_admin(who)?;
        let reason = reason.map(|reason| check_text("reason", &reason, REASON_MAX, false)).transpose()?;
        let hold = self.store.holds_in_force().await?.into_iter().find(|hold| hold.id == id);
        let event = self.event(who, "hold.release", id, hold.as_ref().map(snapshot), None);
        match self.store.release_hold(id, self.clock.wall(), &AdminEvent { reason, ..event }).await {
            Err(StoreError::NotFound) => Err(RegistryError::NotFound("hold")),
            other => Ok(other?),
        }
    }

    /// The event that an erasure of `agent`'s addresses begins with.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::Invalid`] without a reason.
    pub fn erasure(&self, who: &Actor, agent: Uuid, reason: &str) -> Result<AdminEvent, RegistryError> {
        require_admin(who)?;
        let reason = Some(checked_reason(reason)?);
        Ok(AdminEvent { reason, ..self.event(who, "audit.erase", agent, None, None) })
    }
}

fn checked_reason(reason: &str) -> Result<String, RegistryError> {
    match check_text("reason", reason, REASON_MAX, false)? {
        reason if reason.is_empty() => {
            Err(RegistryError::invalid("reason", "is empty: say why, for those who ask later"))
        }
        reason => Ok(reason),
    }
}

fn snapshot(hold: &HoldRow) -> Value {
    json!({"agent_id": hold.agent, "since": hold.since, "until": hold.until, "reason": hold.reason})
}
