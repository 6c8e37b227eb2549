//! `/api/keys`: an agent's keys, for the agent itself and for operators.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::agents::no_store;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::Actor;

/// The agent that is meant: the one named, else the one that asks. Strangers learn of none.
async fn meant(asked: &Asked, named: Option<&str>) -> Result<Uuid, Problem> {
    match (asked.known()?, named) {
        (Actor::Agent(own), None) => Ok(*own),
        (_, Some(name)) => Ok(asked.visible_agent(name).await?.id),
        _ => Err(Problem::invalid("agent_id", "is missing")),
    }
}

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let members = asked.members()?;
    let agent = meant(&asked, members.plain_text("agent_id")?.as_deref()).await?;
    let name = members.plain_text("name")?.unwrap_or_else(|| "default".to_owned());
    let expires_at = members.time("expires_at")?.flatten();
    let (row, key) = asked.control.registry.create_key(&asked.who, agent, &name, expires_at).await?;
    let mut body = view::key(&row);
    body["key"] = json!(key.text);
    body["warning"] = json!("Keep the key now: it is not shown again.");
    Ok((StatusCode::CREATED, no_store(), Json(body)).into_response())
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let agent = meant(&asked, asked.parameters.text(&["agent_id"])).await?;
    let mut rows = asked.control.registry.keys_of(&asked.who, agent).await?;
    let directory = asked.control.directory.load();
    for row in &mut rows {
        // The database is told of uses only now and then.
        row.last_used_at = row.last_used_at.max(directory.key(&row.digest).and_then(|key| key.last_use.at()));
    }
    Ok(Json(json!({"keys": rows.iter().map(view::key).collect::<Vec<Value>>()})).into_response())
}

pub(super) async fn revoke(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Key not found"))?;
    asked.control.registry.revoke_key(&asked.who, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
