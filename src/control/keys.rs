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
use crate::registry::keys::Rotation;
use crate::registry::token::NewToken;
use crate::store::rows::KeyRow;

/// An hour.
const DEFAULT_GRACE_MS: u64 = 3_600_000;

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
    let registry = &asked.control.registry;
    if let Some(text) = members.plain_text("sha256")? {
        let digest = read_digest(&text).ok_or_else(|| {
            Problem::invalid("sha256", "must be the SHA-256 of the whole key as 64 hexadecimal digits")
        })?;
        let row = registry.import_key(&asked.who, agent, &name, expires_at, digest).await?;
        return Ok((StatusCode::CREATED, no_store(), Json(view::key(&row, registry.clock().wall()))).into_response());
    }
    let (row, key) = registry.create_key(&asked.who, agent, &name, expires_at).await?;
    Ok(made(&asked, &row, &key))
}

/// A new key, shown this once.
fn made(asked: &Asked, row: &KeyRow, key: &NewToken) -> Response {
    let mut body = view::key(row, asked.control.registry.clock().wall());
    body["key"] = json!(key.text);
    body["warning"] = json!("Keep the key now: it is not shown again.");
    (StatusCode::CREATED, no_store(), Json(body)).into_response()
}

fn read_digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

pub(super) async fn rotate(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Key not found"))?;
    let members = asked.optional_members()?;
    let rotation = Rotation {
        name: members.plain_text("name")?,
        expires_at: members.time("expires_at")?,
        grace_ms: members.duration_ms("grace")?.flatten().unwrap_or(DEFAULT_GRACE_MS),
    };
    let (row, key) = asked.control.registry.rotate_key(&asked.who, id, rotation).await?;
    Ok(made(&asked, &row, &key))
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let agent = meant(&asked, asked.parameters.text(&["agent_id"])).await?;
    let mut rows = asked.control.registry.keys_of(&asked.who, agent).await?;
    let (directory, now) = (asked.control.directory.load(), asked.control.registry.clock().wall());
    for row in &mut rows {
        // The database is told of uses only now and then.
        row.last_used_at = row.last_used_at.max(directory.key(&row.digest).and_then(|key| key.last_use.at()));
    }
    Ok(Json(json!({"keys": rows.iter().map(|row| view::key(row, now)).collect::<Vec<Value>>()})).into_response())
}

pub(super) async fn revoke(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Key not found"))?;
    asked.control.registry.revoke_key(&asked.who, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
