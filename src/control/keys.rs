//! `/api/keys`: an agent's keys, for the agent itself and for operators.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::agents::no_store;
use super::body::whole_millis;
use super::forms::{KeyForm, RotationForm};
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::Actor;
use crate::registry::keys::Rotation;
use crate::registry::token::NewToken;
use crate::store::rows::KeyRow;

/// An hour.
const DEFAULT_GRACE_MS: u64 = 3_600_000;

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
    let registry = &asked.control.registry;
    if let Some(text) = members.plain_text("sha256")? {
        let digest = read_digest(&text).ok_or_else(|| {
            Problem::invalid("sha256", "must be the SHA-256 of the whole key as 64 hexadecimal digits")
        })?;
        let row = registry.import_key(&asked.who, agent, &name, expires_at, digest).await?;
        return Ok((StatusCode::CREATED, no_store(), Json(view::key(&row, registry.clock().wall()))).into_response());
    }
    let (row, key) = registry.create_key(&asked.who, agent, &name, expires_at).await?;
    Ok(made(&asked, &row, key))
}

/// A new key, shown this once.
fn made(asked: &Asked, row: &KeyRow, key: NewToken) -> Response {
    let row = view::key(row, asked.control.registry.clock().wall());
    let body = view::NewKey { row, key: key.text, warning: "Keep the key now: it is not shown again." };
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

/// Makes a key that takes the place of another: it works at once, and the old one ends a grace time after its first use.
#[utoipa::path(post, path = "/api/keys/{id}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("id" = String, Path, description = "The old key's id")), request_body = RotationForm,
    responses((status = 201, description = "The new key", body = view::NewKey),
        (status = 409, description = "The agent has as many keys as it may have")))]
pub(super) async fn rotate(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Key not found"))?;
    let members = asked.optional_members()?;
    let rotation = Rotation {
        name: members.plain_text("name")?,
        expires_at: members.time("expires_at")?,
        grace_ms: members.duration("grace")?.flatten().map_or(DEFAULT_GRACE_MS, whole_millis),
    };
    let (row, key) = asked.control.registry.rotate_key(&asked.who, id, rotation).await?;
    Ok(made(&asked, &row, key))
}

/// The keys of an agent, without the keys themselves.
#[utoipa::path(get, path = "/api/keys", operation_id = "list_keys", tag = "keys",
    params(("agent_id" = Option<String>, Query, description = "Id or slug; left out: the agent that asks")),
    responses((status = 200, description = "Its keys", body = KeyList),
        (status = 404, description = "There is no such agent")))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let agent = meant(&asked, asked.parameters.text(&["agent_id"])).await?;
    let mut rows = asked.control.registry.keys_of(&asked.who, agent).await?;
    let (directory, now) = (asked.control.directory.load(), asked.control.registry.clock().wall());
    for row in &mut rows {
        // The database is told of uses only now and then.
        row.last_used_at = row.last_used_at.max(directory.key(&row.digest).and_then(|key| key.last_use.at()));
    }
    Ok(Json(KeyList { keys: rows.iter().map(|row| view::key(row, now)).collect() }).into_response())
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
