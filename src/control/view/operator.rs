//! Operators, and what was changed by whom.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::rows::{AdminEvent, OperatorRow};

/// Somebody with a token for the operators' listener; never the token itself.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Operator {
    /// Names it.
    id: Uuid,
    /// Names it, too, also in the log of changes.
    name: String,
    /// `admin` changes everything; `auditor` reads everything and changes nothing.
    role: &'static str,
    /// The token's beginning, to recognise it by.
    hint: Option<String>,
    /// Refused from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The last time the token was accepted, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// An operator whose token has just been made.
#[derive(Serialize, ToSchema)]
pub(in crate::control) struct NewToken {
    /// What stays to be seen of it.
    #[serde(flatten)]
    pub(in crate::control) row: Operator,
    /// The token itself, shown this once.
    pub(in crate::control) token: String,
    /// What to do now.
    pub(in crate::control) warning: &'static str,
}

/// One change, or one reading of the call log.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Event {
    /// Names it.
    id: Uuid,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `operator:NAME`, `agent:ID`, `anonymous` or `gateway`.
    actor: String,
    /// `agent.create`, `connection.block`, ...
    action: String,
    /// The id of what was changed; `calls` for readings.
    subject: String,
    /// What it was, secrets masked; null where there was nothing.
    before: Option<Value>,
    /// What it became, likewise.
    after: Option<Value>,
    /// Why, as whoever did it said.
    reason: Option<String>,
}

/// An operator; never its token.
pub(in crate::control) fn operator(row: &OperatorRow) -> Operator {
    Operator {
        id: row.id,
        name: row.name.clone(),
        role: row.role.as_str(),
        hint: row.hint.clone(),
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
    }
}

/// One change, with what it was and became as the objects they were.
pub(in crate::control) fn event(event: &AdminEvent) -> Event {
    let object = |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    Event {
        id: event.id,
        at: event.at,
        actor: event.actor.clone(),
        action: event.action.clone(),
        subject: event.subject.clone(),
        before: object(&event.before),
        after: object(&event.after),
        reason: event.reason.clone(),
    }
}
