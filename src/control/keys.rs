//! `/api/keys`: an agent's keys, for the agent itself and for operators.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::agents::no_store;
use super::forms::KeyForm;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::Actor;

/// The keys of an agent.
#[derive(Serialize, ToSchema)]
struct KeyList {
    /// All that were not revoked.
    keys: Vec<view::Key>,
}

/// The agent that is meant: the one named, else the one that asks. Strangers learn of none.
async fn meant(asked: &Asked, named: Option<&str>) -> Result<Uuid, Problem> {
    match (asked.known()?, named) {
        (Actor::Agent(own), None) => Ok(*own),
        (_, Some(name)) => Ok(asked.visible_agent(name).await?.id),
        _ => Err(Problem::invalid("agent_id", "is missing")),
    }
}

/// Makes a key for an agent; the answer shows it this once.
#[utoipa::path(post, path = "/api/keys", operation_id = "create_key", tag = "keys", request_body = KeyForm,
    responses((status = 201, description = "Made", body = view::NewKey),
        (status = 404, description = "There is no such agent"),
        (status = 409, description = "The agent has as many keys as it may have")))]
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let members = asked.members()?;
    let agent = meant(&asked, members.plain_text("agent_id")?.as_deref()).await?;
    let name = members.plain_text("name")?.unwrap_or_else(|| "default".to_owned());
    let expires_at = members.time("expires_at")?.flatten();
    let (row, key) = asked.control.registry.create_key(&asked.who, agent, &name, expires_at).await?;
    let warning = "Keep the key now: it is not shown again.";
    let body = view::NewKey { row: view::key(&row), key: key.text, warning };
    Ok((StatusCode::CREATED, no_store(), Json(body)).into_response())
}

/// The keys of an agent, without the keys themselves.
#[utoipa::path(get, path = "/api/keys", operation_id = "list_keys", tag = "keys",
    params(("agent_id" = Option<String>, Query, description = "Id or slug; left out: the agent that asks")),
    responses((status = 200, description = "Its keys", body = KeyList),
        (status = 404, description = "There is no such agent")))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let agent = meant(&asked, asked.parameters.text(&["agent_id"])).await?;
    let mut rows = asked.control.registry.keys_of(&asked.who, agent).await?;
    let directory = asked.control.directory.load();
    for row in &mut rows {
        // The database is told of uses only now and then.
        row.last_used_at = row.last_used_at.max(directory.key(&row.digest).and_then(|key| key.last_use.at()));
    }
    Ok(Json(KeyList { keys: rows.iter().map(view::key).collect() }).into_response())
}

/// Revokes a key; in force when the answer is there.
#[utoipa::path(delete, path = "/api/keys/{id}", operation_id = "revoke_key", tag = "keys",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 204, description = "Revoked")))]
pub(super) async fn revoke(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Key not found"))?;
    asked.control.registry.revoke_key(&asked.who, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
