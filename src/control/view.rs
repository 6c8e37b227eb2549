//! What the API shows of a row, and to whom. Each shape is a type, so that the OpenAPI document cannot say anything else.

mod agent;
mod agent_limits;
mod call;
mod connection;
mod operator;

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

pub(super) use agent::{Agent, FoundAgent, NewAgent, agent, card_state, found_agent, payment};
pub(super) use call::{ActiveCall, Call, active_call, call, knows_target};
pub(super) use connection::{Connection, NewConnection, connection, connection_status};
pub(super) use operator::{Event, NewToken, Operator, event, operator};

use crate::clock::Timestamp;
use crate::store::rows::{HealthStatus, KeyRow};

/// An agent by its names: those of now, or the last it had.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct NamedAgent {
    /// Names it for good.
    pub(super) id: Uuid,
    /// Its name in addresses.
    pub(super) slug: String,
    /// Its name for people.
    pub(super) name: String,
}

/// The names of agents, by their ids.
pub(super) type Names = HashMap<Uuid, NamedAgent>;

/// Health as people are shown it: an agent that answers now and then is online.
pub(super) fn health(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Degraded => HealthStatus::Online.as_str(),
        other => other.as_str(),
    }
}

/// A key of an agent; never the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    /// Names it.
    id: Uuid,
    /// Whose it is.
    agent_id: Uuid,
    /// Chosen by its owner.
    name: String,
    /// Its beginning, to recognise it by; null for imported keys.
    hint: Option<String>,
    /// `active` or `expired`.
    state: &'static str,
    /// The key that ends once this one has been used.
    replaces: Option<Uuid>,
    /// Refused from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The last time it was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// A key that has just been made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKey {
    /// What stays to be seen of it.
    #[serde(flatten)]
    pub(super) row: Key,
    /// The key itself, shown this once.
    pub(super) key: String,
    /// What to do now.
    pub(super) warning: &'static str,
}

/// A key; never the key itself.
pub(super) fn key(row: &KeyRow, now: Timestamp) -> Key {
    let expired = row.expires_at.is_some_and(|end| end <= now);
    Key {
        state: if expired { "expired" } else { "active" },
        replaces: row.replaces.map(|old| old.key),
        id: row.id,
        agent_id: row.agent_id,
        name: row.name.clone(),
        hint: row.hint.clone(),
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
    }
}
