//! Cards that changed: which are taken over at once, which wait for an admin, and what the admin decides.
//!
//! Promises: the first card of an agent is taken as it is; while a card is held the one before stays served; what was rejected
//! is not held again until it changes.

use std::fmt::Write as _;

use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::probe::skills_of;
use super::{Actor, Registry, RegistryError};
use crate::a2a::card;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{AdminEvent, AgentRow, HeldCard};

/// What names the content of a card: its SHA-256 in hex.
#[must_use]
pub fn digest(card: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, card);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Puts `card` into the row as the one to be served; skills that came from the card before follow it, registered ones stay.
fn adopt(row: &mut AgentRow, card: &[u8], now: Timestamp) {
    let from_card = row.card_json.as_deref().and_then(skills_of);
    if row.skills_json == "[]" || from_card.as_ref() == Some(&row.skills_json) {
        row.skills_json = skills_of(card).unwrap_or_else(|| "[]".to_owned());
    }
    row.card_json = Some(card.to_vec());
    row.card_fetched_at = Some(now);
    row.held_card = None;
}

/// Takes over the card a probe brought, or holds it; the event to be written with it.
pub(super) fn take(
    before: &AgentRow,
    found: &mut AgentRow,
    new: &[u8],
    endpoint: Option<&Url>,
    rejected: Option<&str>,
    now: Timestamp,
) -> Option<AdminEvent> {
    let Some(served) = before.card_json.as_deref() else {
        adopt(found, new, now);
        return None;
    };
    if served == new {
        let gone = found.held_card.take()?;
        let was = json!({"digest": digest(&gone.json), "reason": gone.reason});
        return Some(event(before.id, "agent.card_withdrawn", now, Some(was), None));
    }
    if before.held_card.as_ref().is_some_and(|held| held.json == new) {
        return None;
    }
    let changes = card::changes(served, new, endpoint);
    if changes.grave.is_empty() {
        adopt(found, new, now);
        return None;
    }
    let name = digest(new);
    if rejected == Some(name.as_str()) {
        found.held_card = None;
        return None;
    }
    let reason = changes.grave.join("; ");
    found.held_card = Some(HeldCard { json: new.to_vec(), at: now, reason: reason.clone() });
    let is = json!({"digest": name, "reason": reason});
    Some(event(before.id, "agent.card_held", now, Some(json!({"digest": digest(served)})), Some(is)))
}

fn event(
    agent: Uuid,
    action: &str,
    at: Timestamp,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
) -> AdminEvent {
    AdminEvent {
        id: Uuid::now_v7(),
        at,
        actor: "gateway".to_owned(),
        action: action.to_owned(),
        subject: agent.to_string(),
        before: before.map(|value| value.to_string()),
        after: after.map(|value| value.to_string()),
        reason: None,
    }
}

/// What an admin makes of a held card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardDecision {
    /// It is served from now on.
    Accept,
    /// It is dropped, and not held again.
    Reject,
}

impl Registry {
    /// Decides on the held card of an agent. `seen`: the digest of the card the decision is about, where it was named.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::NotFound`] without a held card,
    /// [`RegistryError::Taken`] when another is held by now.
    pub async fn decide_card(
        &self,
        who: &Actor,
        id: Uuid,
        decision: CardDecision,
        seen: Option<&str>,
        reason: Option<String>,
    ) -> Result<AgentRow, RegistryError> {
        if !who.is_admin() {
            return Err(RegistryError::Forbidden("only an admin can decide on a held card".to_owned()));
        }
        let agent = self.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))?;
        let held = agent.held_card.ok_or(RegistryError::NotFound("held card"))?;
        let name = digest(&held.json);
        let other = || RegistryError::Taken("another card is held by now: look at it first".to_owned());
        if seen.is_some_and(|seen| !seen.eq_ignore_ascii_case(&name)) {
            return Err(other());
        }
        let served = agent.card_json.as_deref().map(digest);
        let action = match decision {
            CardDecision::Accept => "agent.card_accept",
            CardDecision::Reject => "agent.card_reject",
        };
        let before = json!({"digest": served, "held": name, "held_reason": held.reason});
        let after = match decision {
            CardDecision::Accept => json!({"digest": name}),
            CardDecision::Reject => json!({"digest": served}),
        };
        let event = AdminEvent { reason, ..self.event(who, action, id, Some(before), Some(after)) };
        match decision {
            CardDecision::Accept => {
                let now = self.clock.wall();
                let change = |row: &mut AgentRow| {
                    if row.held_card.as_ref().is_none_or(|now_held| now_held.json != held.json) {
                        return Err(other());
                    }
                    adopt(row, &held.json, now);
                    Ok(event)
                };
                match self.store.change_agent(id, change).await {
                    Err(RegistryError::Store(StoreError::NotFound)) => return Err(RegistryError::NotFound("agent")),
                    done => _ = done?,
                }
            }
            CardDecision::Reject => {
                if !self.store.reject_card(id, &held.json, &name, &event).await? {
                    return Err(other());
                }
            }
        }
        self.reload().await;
        self.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))
    }
}
