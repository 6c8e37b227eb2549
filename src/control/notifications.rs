//! `/api/notifications`: what waits for somebody: requests to answer, connections to look at again or about to end, keys about
//! to expire. Each comes with the requests that would answer it, ready to be sent.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::connections;
use super::cursor;
use super::problem::Problem;
use super::who::Asked;
use crate::registry::Actor;
use crate::store::ConnectionFilter;
use crate::store::rows::{ConnectionRow, ConnectionStatus};

/// 7 days: what happens sooner is told.
const SOON_US: i64 = 7 * 86_400_000_000;

/// Dates told at most, of each kind.
const DATES_MAX: u32 = 100;

/// What waits for somebody.
#[derive(Serialize, ToSchema)]
struct Notifications {
    /// Each with its `type`, `id` and time `at`; those that can be answered with the requests that would (`actions`).
    #[schema(value_type = Vec<Object>)]
    notifications: Vec<Value>,
    /// How many of them are requests to answer.
    pending: usize,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
}

/// What waits: requests to answer, connections to look at again or about to end, keys about to expire.
#[utoipa::path(get, path = "/api/notifications", operation_id = "list_notifications", tag = "connections",
    params(("agent_id" = Option<String>, Query, description = "Whose; left out: the asker's, for operators everybody's"),
        ("limit" = Option<u32>, Query, description = "At most 200; 50 unless said", minimum = 1),
        ("next" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, description = "A page", body = Notifications),
        (status = 404, description = "There is no such agent")))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let agent = match (asked.known()?, asked.parameters.text(&["agent_id"])) {
        (Actor::Agent(own), None) => Some(*own),
        (_, Some(name)) => Some(asked.visible_agent(name).await?.id),
        (_, None) => None,
    };
    if agent.is_some_and(|agent| !asked.who.is_operator() && !asked.who.owns(agent)) {
        return Err(Problem::forbidden("an agent sees its own notifications only"));
    }
    let limit = asked.parameters.count("limit", 50, 200)?;
    let after = asked.parameters.word("next", "the next of the page before", cursor::read)?;
    let store = &asked.control.store;
    let pending = ConnectionFilter { asked: agent, status: "pending", ..ConnectionFilter::default() };
    let mut rows = store.connections(&pending, after, limit + 1, 0).await?;
    let next = cursor::page(&mut rows, limit, |row| (row.created_at, row.id));

    let mut told = Vec::new();
    for row in &rows {
        told.push(request(row, json!(connections::shown(&asked, row).await?)));
    }
    // With the first page only: they are few, and not what is paged through.
    if after.is_none() {
        dates(&asked, agent, &mut told).await?;
    }
    Ok(Json(Notifications { notifications: told, pending: rows.len(), next }).into_response())
}

fn request(row: &ConnectionRow, shown: Value) -> Value {
    let url = format!("/api/connections/{}", row.id);
    let answer = |action: &str| json!({"method": "PUT", "url": url, "body": {"action": action}});
    json!({
        "type": "connection_request",
        "id": row.id,
        "at": row.created_at,
        "message": row.message,
        "purpose": row.purpose,
        "requester": shown["requester"],
        "connection": shown,
        "actions": {"accept": answer("accept"), "decline": answer("decline"), "block": answer("block")},
    })
}

async fn dates(asked: &Asked, agent: Option<Uuid>, told: &mut Vec<Value>) -> Result<(), Problem> {
    let (store, now) = (&asked.control.store, asked.control.registry.clock().wall());
    let soon = now.plus_micros(SOON_US);
    let alive = |row: &ConnectionRow| matches!(row.status, ConnectionStatus::Connected | ConnectionStatus::Paused);
    let review = ConnectionFilter { agent, review_by: Some(soon), ..ConnectionFilter::default() };
    let end = ConnectionFilter { agent, ends_by: Some(soon), ..ConnectionFilter::default() };
    for (kind, filter) in [("connection_review", review), ("connection_end", end)] {
        for row in store.connections(&filter, None, DATES_MAX, 0).await?.iter().filter(|row| alive(row)) {
            let at = if filter.review_by.is_some() { row.review_at } else { row.ends_at };
            told.push(json!({
                "type": kind, "id": row.id, "at": at, "due": at.is_some_and(|at| at <= now),
                "connection": connections::shown(asked, row).await?,
            }));
        }
    }
    let Some(agent) = agent else { return Ok(()) };
    for key in store.keys_of(agent).await? {
        if key.expires_at.is_some_and(|end| now < end && end <= soon) {
            told.push(json!({
                "type": "key_expires", "id": key.id, "at": key.expires_at,
                "key": {"id": key.id, "name": key.name, "hint": key.hint},
                "actions": {"rotate": {"method": "POST", "url": format!("/api/keys/{}/rotate", key.id), "body": {}}},
            }));
        }
    }
    Ok(())
}
