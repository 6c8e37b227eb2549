//! What was changed about a connection or an agent: every change, newest first, with who, when, why, before and after.
//!
//! Promises that agents never learn an operator's name: to them the actor is `operator`, `requester`, `target`, `owner` or
//! `gateway`.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor;
use super::problem::Problem;
use super::who::Asked;
use crate::clock::Timestamp;
use crate::registry::Actor;
use crate::store::rows::AdminEvent;

/// A page of changes.
#[derive(Serialize, ToSchema)]
pub(super) struct History {
    /// Newest first.
    events: Vec<Change>,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
}

/// One change.
#[derive(Serialize, ToSchema)]
struct Change {
    /// Names it.
    id: Uuid,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// For operators as `/api/events` has it; for agents `operator`, `requester`, `target`, `owner`, `agent`, `anonymous` or
    /// `gateway`.
    actor: String,
    /// `connection.accept`, `agent.update`, ...
    action: String,
    /// Why, as whoever did it said.
    reason: Option<String>,
    /// What it was, secrets masked; null where there was nothing.
    #[schema(value_type = Option<Object>)]
    before: Value,
    /// What it became, likewise.
    #[schema(value_type = Option<Object>)]
    after: Value,
}

/// One page of the history of `subject`, which the asker is known to be allowed to see.
pub(super) async fn answer(asked: &Asked, subject: Uuid) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 50, 200)?;
    let after = asked.parameters.word("next", "the next of the page before", cursor::read)?;
    // One more than is shown tells whether there is another page.
    let mut events = asked.control.store.history(subject, after, limit + 1).await?;
    let next = cursor::page(&mut events, limit, |event| (event.at, event.id));
    let events = events.iter().map(|event| shown(event, &asked.who)).collect();
    Ok(Json(History { events, next }).into_response())
}

/// Every change of an agent, newest first. For the agent itself and operators.
#[utoipa::path(get, path = "/api/agents/{id}/history", operation_id = "agent_history", tag = "agents",
    params(("id" = String, Path, description = "Id or slug"),
        ("limit" = Option<u32>, Query, description = "At most 200; 50 unless said", minimum = 1),
        ("next" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, description = "A page", body = History)))]
pub(super) async fn agent(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let agent = asked.visible_agent(&name).await?;
    if !asked.who.is_operator() && !asked.who.owns(agent.id) {
        return Err(Problem::forbidden("an agent sees its own history only"));
    }
    answer(&asked, agent.id).await
}

fn shown(event: &AdminEvent, who: &Actor) -> Change {
    let read = |text: &Option<String>| -> Value {
        text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
    };
    let (before, after) = (read(&event.before), read(&event.after));
    let actor = if who.is_operator() { event.actor.clone() } else { place(event, &before, &after).to_owned() };
    let (action, reason) = (event.action.clone(), event.reason.clone());
    Change { id: event.id, at: event.at, actor, action, reason, before, after }
}

/// What the actor was to the subject.
fn place(event: &AdminEvent, before: &Value, after: &Value) -> &'static str {
    let Some(id) = event.actor.strip_prefix("agent:") else {
        return match event.actor.as_str() {
            "gateway" => "gateway",
            "anonymous" => "anonymous",
            _ => "operator",
        };
    };
    // The sides change places when the other one asks anew: what counts is how it was when the change had been made.
    let row = if after.is_null() { before } else { after };
    match id {
        id if row["requester_id"] == id => "requester",
        id if row["target_id"] == id => "target",
        id if event.subject == id => "owner",
        _ => "agent",
    }
}
